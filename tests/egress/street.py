"""The evil server, the canary beside it, and an Egress that may reach the one and not the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.egress import Egress, EgressFailed
from services.chassis.egress_policy import EgressPolicy, EgressSettings
from services.chassis.settings import load
from tests.egress.certificates import ADDRESS, NAMES, Credentials
from tests.egress.evil_server import Canary, EvilServer, Scene

ROOT = Path(__file__).resolve().parents[2]
# Where nothing may ever connect: not among the allowed pairs.
FORBIDDEN = ("127.0.0.3", "::1")
# Plenty on a busy machine. Tests that wait for it to pass choose their own.
TOTAL_S = 10.0
# Beyond it a fetch has outlived its own total.
OUTER_LIMIT_S = 20.0
LIMIT_BYTES = 1 << 20
# What must be in no error, no log line and no metric.
SECRET = "s3cret-path"


@dataclass
class Names:
    """A `Resolve` that answers from a table, one list after the other, and remembers what it was asked."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    delay_s: float = 0.0

    async def __call__(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        await asyncio.sleep(self.delay_s)
        lists = self.answers.get(name.removesuffix("."))
        if not lists:
            raise EgressFailed("not_found")
        return lists.pop(0) if len(lists) > 1 else lists[0]


@dataclass
class Street:
    """One server, its canaries, and the ways to ask for something there."""

    server: EvilServer
    canaries: list[Canary]
    egress: Egress
    names: Names
    policy: EgressPolicy
    ca_file: Path

    def url(self, path: str = f"/{SECRET}", *, host: str = NAMES[0], scheme: str = "https") -> str:
        return f"{scheme}://{host}:{self.server.port}{path}"

    async def get(
        self,
        url: str | None = None,
        *,
        total_s: float = TOTAL_S,
        limit_bytes: int = LIMIT_BYTES,
        egress: Egress | None = None,
    ) -> bytes:
        """The whole body, or what the door raises; fails when the total did not end it."""
        async with asyncio.timeout(OUTER_LIMIT_S):
            door = egress or self.egress
            async with door.fetch(url or self.url(), total_s=total_s, limit_bytes=limit_bytes) as arriving:
                return b"".join([chunk async for chunk in arriving.chunks()])

    async def show(self, scene: Scene, *, total_s: float = TOTAL_S, limit_bytes: int = LIMIT_BYTES) -> bytes:
        """Lets the server answer with `scene`, and asks for it."""
        self.server.scenes[f"/{SECRET}"] = scene
        return await self.get(total_s=total_s, limit_bytes=limit_bytes)

    def another(self, policy: EgressPolicy) -> Egress:
        """A door like this one under another policy."""
        return Egress(policy, ca_file=self.ca_file, resolve=self.names)

    def touched(self) -> int:
        """How often something connected where nothing may."""
        return sum(canary.connections for canary in self.canaries)


def policy_for(*pairs: tuple[str, int]) -> EgressPolicy:
    """A policy with these pairs allowed, made the way an operator makes it."""
    allow = ",".join(f"{address}:{port}" for address, port in pairs)
    return load(EgressSettings, {"ATELIER_EGRESS_ALLOW": allow}).policy()


@asynccontextmanager
async def street(credentials: Credentials, server: EvilServer) -> AsyncIterator[Street]:
    """Everything up, `server` allowed by a pair; at the end no canary was touched."""
    async with AsyncExitStack() as up:
        await up.enter_async_context(server)
        canaries = [await up.enter_async_context(Canary(host, server.port)) for host in FORBIDDEN]
        policy = policy_for((ADDRESS, server.port))
        names = Names({name: [[ADDRESS]] for name in NAMES})
        egress = Egress(policy, ca_file=credentials.trusted.file, resolve=names)
        yield Street(
            server, canaries, await up.enter_async_context(egress), names, policy, credentials.trusted.file
        )
        assert sum(canary.connections for canary in canaries) == 0
