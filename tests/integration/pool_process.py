"""A provider pool as a process of its own, and what tests ask of it over real gRPC."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from services.chassis.rpc_client import open_channel
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as rpc

ROOT = Path(__file__).resolve().parent.parent.parent
TTL_MS = 60_000
READY_DEADLINE_S = 60.0
CANARY = "canary-4711"
LIMITS = pb.ReferenceLimits(image_formats=["jpeg", "png", "webp"], image_bytes=20 * 1024**2, images=1)


@dataclass
class Pool:
    """A provider pool process and a stub that talks to it."""

    process: asyncio.subprocess.Process
    addresses: dict[str, str]
    channel: grpc.aio.Channel
    stub: rpc.ProviderPoolServiceAsyncStub
    folder: Path
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def account(self, **changes: Any) -> pb.Account:
        usual: dict[str, Any] = {
            "provider": "sandbox",
            "label": f"account {next(self.numbers)}",
            "serves_live": True,
            "serves_test": True,
            "concurrency_limit": 2,
            "balance_millis": 10_000_000,
            "options": {"render": "instant", "pace_ms": "0"},
            "credentials": {"api_key": CANARY},
        }
        return (await self.stub.CreateAccount(pb.CreateAccountRequest(**(usual | changes)))).account

    async def lease(self, attempt_id: str, **changes: Any) -> pb.LeaseResponse:
        usual: dict[str, Any] = {
            "attempt_id": attempt_id,
            "job_id": attempt_id.partition(":")[0],
            "mode": pb.MODE_LIVE,
            "generation": picture(),
            "ttl_ms": TTL_MS,
        }
        return await self.stub.Lease(pb.LeaseRequest(**(usual | changes)))

    async def submit(self, attempt_id: str, generation: pb.Generation) -> pb.AttemptStatus:
        job_id = attempt_id.partition(":")[0]
        request = pb.SubmitRequest(attempt_id=attempt_id, job_id=job_id, generation=generation)
        return (await self.stub.Submit(request)).status

    async def begin(self, attempt_id: str, *markers: str) -> pb.AttemptStatus:
        """Leases and submits a picture."""
        generation = picture(*markers)
        await self.lease(attempt_id, generation=generation)
        return await self.submit(attempt_id, generation)

    async def prepare(self, attempt_id: str, generation: pb.Generation) -> pb.Failure | None:
        """Why the references cannot be had, or None once they are ready."""
        job_id = attempt_id.partition(":")[0]
        request = pb.PrepareReferencesRequest(attempt_id=attempt_id, job_id=job_id, generation=generation)
        answer = await self.stub.PrepareReferences(request)
        return answer.failure if answer.HasField("failure") else None

    async def stage(
        self, content: bytes, *, piece_bytes: int = 65_536, limits: pb.ReferenceLimits | None = None
    ) -> pb.StageReferenceResponse:
        head = pb.StageReferenceRequest.Head(limits=limits or LIMITS, model="gpt-image-2")
        pieces = [content[start : start + piece_bytes] for start in range(0, len(content), piece_bytes)]
        parts = [pb.StageReferenceRequest(content=piece) for piece in pieces]
        return await self.stub.StageReference(iter([pb.StageReferenceRequest(head=head), *parts]))

    async def drop(self, job_id: str, *reference_ids: str) -> None:
        await self.stub.DropReferences(
            pb.DropReferencesRequest(job_id=job_id, reference_ids=list(reference_ids))
        )

    def references(self) -> list[str]:
        """The names of the references that are kept."""
        return sorted(path.stem for path in (self.folder / "references").glob("*.json"))

    async def poll(self, attempt_id: str) -> pb.AttemptStatus:
        return (await self.stub.Poll(pb.PollRequest(attempt_id=attempt_id))).status

    async def ended(self, attempt_id: str) -> pb.AttemptStatus:
        async with asyncio.timeout(30):
            while (status := await self.poll(attempt_id)).state == pb.ATTEMPT_STATE_RUNNING:
                await asyncio.sleep(status.poll_after_ms / 1000)
        return status

    async def resolved(self, attempt_id: str) -> pb.AttemptStatus:
        return (await self.stub.ResolveUnknown(pb.ResolveUnknownRequest(attempt_id=attempt_id))).status

    async def collect(self, attempt_id: str) -> list[pb.Output]:
        request = pb.CollectRequest(attempt_id=attempt_id, job_id=attempt_id.partition(":")[0])
        return list((await self.stub.Collect(request)).outputs)

    async def release(self, attempt_id: str) -> bool:
        return (await self.stub.ReleaseLease(pb.ReleaseLeaseRequest(attempt_id=attempt_id))).tombstone

    async def shown(self, account_id: str) -> pb.Account:
        return (await self.stub.GetAccount(pb.GetAccountRequest(account_id=account_id))).account

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.addresses["operations"] + "/metrics") as page,
        ):
            return await page.text()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            return await self.process.wait()


def picture(*markers: str) -> pb.Generation:
    prompt = "a cat" + "".join(f" [sandbox:{marker}]" for marker in markers)
    return pb.Generation(
        kind=pb.KIND_IMAGE, model="gpt-image-2", prompt=prompt, width=320, height=256, quality="low"
    )


def following(
    *sources: str, strength: pb.Reference.Strength.ValueType = pb.Reference.STRENGTH_MID, **limits: Any
) -> pb.Generation:
    """A picture that follows images; a source is a URL or a reference's id."""
    wanted = picture()
    for source in sources:
        name = "url" if "://" in source else "reference_id"
        named = {name: source}
        wanted.references.append(pb.Reference(role=pb.Reference.ROLE_IMAGE, strength=strength, **named))
    wanted.reference_limits.CopyFrom(LIMITS)
    wanted.reference_limits.MergeFrom(pb.ReferenceLimits(**({"images": len(sources)} | limits)))
    return wanted


def environment(folder: Path, **changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATELIER_")}
    own = {
        "ATELIER_POOL_DATABASE_URL": f"sqlite:///{folder / 'pool.db'}",
        "ATELIER_POOL_VAULT_KEY_RING_FILE": str(folder / "ring"),
        "ATELIER_POOL_MEDIA_FOLDER": str(folder / "media"),
        "ATELIER_POOL_REFERENCES_FOLDER": str(folder / "references"),
        "ATELIER_POOL_SANDBOX_FOLDER": str(folder / "sandbox"),
        "ATELIER_POOL_SANDBOX_WORKERS": "1",
    }
    return inherited | own | changes


@asynccontextmanager
async def running(folder: Path, **changes: str) -> AsyncIterator[Pool]:
    reading, writing = os.pipe()
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.provider_pool",
            cwd=ROOT,
            env=environment(folder, **changes) | {"ATELIER_ANNOUNCE_FD": str(writing)},
            pass_fds=[writing],
            stderr=log,
        )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            line = await asyncio.wait_for(asyncio.to_thread(pipe.readline), READY_DEADLINE_S)
        assert line, f"it did not start: {(folder / 'log').read_text()}"
        addresses = json.loads(line)
        channel = open_channel(addresses["grpc"])
        try:
            yield Pool(process, addresses, channel, rpc.ProviderPoolServiceStub(channel), folder)
        finally:
            await channel.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
