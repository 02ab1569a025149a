"""A provider pool in a process of its own, and the simulated providers in this one: the whole road of an adapter."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.chassis.clock import SystemClock
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool.adapters.interface import Capability, Kind, ModelSpec
from services.provider_pool.adapters.model_files import models_of
from services.simulator.serving import serving
from services.simulator.world import World
from tests.integration.pool_process import Pool, running

PROVIDERS: Final = ("leonardo", "ark", "openai", "fal", "replicate", "elevenlabs", "runway")
# Where each provider's adapter finds it, under the simulator's one address.
ADDRESSES: Final[Mapping[str, Mapping[str, str]]] = {
    "leonardo": {"base_url": "/leonardo"},
    "ark": {"base_url": "/ark"},
    "openai": {"base_url": "/openai/v1"},
    "fal": {"base_url": "/fal/queue", "rest_url": "/fal/rest", "api_url": "/fal/api"},
    "replicate": {"base_url": "/replicate"},
    "elevenlabs": {"base_url": "/elevenlabs"},
    "runway": {"base_url": "/runway"},
}
# Minutes at a real provider are tenths of a second here.
_PACE: Final = 400.0
_PATIENCE_S: Final = 60.0
KINDS: Final[Mapping[Kind, pb.Kind.ValueType]] = {
    Kind.IMAGE: pb.KIND_IMAGE,
    Kind.VIDEO: pb.KIND_VIDEO,
    Kind.VOICE: pb.KIND_VOICE,
    Kind.MUSIC: pb.KIND_MUSIC,
    Kind.INFOGRAPHIC: pb.KIND_INFOGRAPHIC,
    Kind.TEXT: pb.KIND_TEXT,
}
OFFERS: Final = [(provider, spec) for provider in PROVIDERS for spec in models_of(provider)]


@dataclass
class Bench:
    """A pool without the sandbox's accounts, and the world that its providers live in."""

    pool: Pool
    world: World
    url: str
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def account(self, provider: str, spec: ModelSpec | None = None, **changes: Any) -> pb.Account:
        """A new account there, known on both sides; it serves this model alone, so that leases can only go to it."""
        key = f"00000000-0000-4000-8000-{next(self.numbers):012d}"
        told = {name: changes.pop(name) for name in ("balance", "concurrency", "faults") if name in changes}
        wish = {"provider": provider, "key": key, "balance": 1_000_000, "concurrency": 4} | told
        if provider == "fal":
            # Where it tells a balance.
            wish["options"] = {"scope": "admin"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/_control/accounts", json=wish) as made,
        ):
            assert made.status == 200, await made.text()
        usual: dict[str, Any] = {
            "provider": provider,
            "label": key,
            "serves_live": True,
            "serves_test": False,
            "models": [] if spec is None else [spec.model],
            "concurrency_limit": 4,
            "balance_millis": 1_000_000_000,
            "credentials": {"api_key": key} | ({"admin_key": key} if provider == "fal" else {}),
            "options": {name: self.url + path for name, path in ADDRESSES[provider].items()},
        }
        return await self.pool.account(**(usual | changes))

    async def alone(self, account: pb.Account) -> None:
        """Every other account takes no new job."""
        for other in (await self.pool.stub.ListAccounts(pb.ListAccountsRequest())).accounts:
            wanted = (
                pb.ACCOUNT_STATE_ACTIVE
                if other.account_id == account.account_id
                else pb.ACCOUNT_STATE_DISABLED
            )
            if other.state != wanted:
                request = pb.UpdateAccountRequest(account_id=other.account_id, state=wanted)
                await self.pool.stub.UpdateAccount(request)

    async def begun(self, generation: pb.Generation) -> tuple[str, pb.AttemptStatus]:
        """A new attempt, submitted."""
        attempt_id = f"job_{next(self.numbers)}:1"
        leased = await self.pool.lease(attempt_id, generation=generation)
        assert leased.outcome == pb.LeaseResponse.OUTCOME_GRANTED, leased
        return attempt_id, await self.pool.submit(attempt_id, generation)

    async def ended(self, attempt_id: str) -> pb.AttemptStatus:
        """Where the attempt stands once it is over; in doubt, it is looked for as the jobs service does."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                status = await self._asked(attempt_id)
                if status.state not in {pb.ATTEMPT_STATE_RUNNING, pb.ATTEMPT_STATE_UNKNOWN}:
                    return status
                await asyncio.sleep(0.1)

    async def _asked(self, attempt_id: str) -> pb.AttemptStatus:
        status = await self.pool.poll(attempt_id)
        return await self.pool.resolved(attempt_id) if status.state == pb.ATTEMPT_STATE_UNKNOWN else status

    async def recorded(self, attempt_id: str) -> pb.Attempt:
        """The attempt as the pool has it."""
        request = pb.ListAttemptsRequest(job_id=attempt_id.partition(":")[0])
        (attempt,) = (await self.pool.stub.ListAttempts(request)).attempts
        return attempt

    def charged(self, provider: str, prompt: str) -> list[Decimal]:
        """The truth at the provider: what each task with exactly this prompt in it was charged."""
        return [
            task.charged
            for task in self.world.tasks.all()
            if task.provider == provider and prompt in task.prompt
        ]


@asynccontextmanager
async def bench(folder: Path, **settings: str) -> AsyncIterator[Bench]:
    """Everything, ready."""
    world = World(SystemClock(), seed=1, pace=_PACE)
    async with (
        serving(world, "127.0.0.1:0") as url,
        running(
            folder,
            ATELIER_POOL_RESULTS_FOLDER=str(folder / "results"),
            ATELIER_POOL_UNKNOWN_WINDOW_S="3",
            **settings,
        ) as pool,
    ):
        yield Bench(pool, world, url)


def wanted(spec: ModelSpec, prompt: str) -> pb.Generation:
    """A generation that this model can make: the least of everything that it has a range for."""
    capability = spec.capability
    width, height = _size(capability)
    return pb.Generation(
        kind=KINDS[spec.kind],
        model=spec.model,
        prompt=prompt,
        width=width,
        height=height,
        duration_s=0 if capability.durations_s is None else capability.durations_s.low,
        audio=capability.audio,
        quality=_first(capability.qualities),
        voice=_first(capability.voices),
        format=_first(capability.formats),
        style=_first(capability.styles),
        max_words=0 if capability.max_words is None else 50,
    )


def _size(capability: Capability) -> tuple[int, int]:
    if capability.sizes is not None:
        least = min(capability.sizes.sizes, key=lambda size: size.pixels)
        return least.width, least.height
    if capability.widths is None or capability.heights is None:
        return 0, 0
    return (1024, 1024) if 1024 in capability.widths else (capability.widths.low, capability.heights.low)


def _first(words: frozenset[str]) -> str:
    """The first of the words that are one, if there are any."""
    return next((word for word in sorted(words) if word), "")


def spec_of(provider: str) -> ModelSpec:
    """A model of this provider for what concerns all of them: a film, if it has one."""
    specs: Sequence[ModelSpec] = models_of(provider)
    return next((spec for spec in specs if spec.kind is Kind.VIDEO), specs[0])
