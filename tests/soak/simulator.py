"""The simulated providers as one more process of a scene, ruled and asked over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tests.faults.armed_process import ArmedProcess
from tests.faults.scene import Scene

_NAME: Final = "simulator"
# A hundred thousand tasks are some dozen megabytes of JSON.
_DEADLINE_S: Final = 120.0


@dataclass(frozen=True)
class Simulator:
    """`url` has every provider under a prefix of its own."""

    url: str
    session: aiohttp.ClientSession

    async def add_account(self, **wish: Any) -> None:
        await self._asked("POST", "accounts", wish)

    async def set_faults(self, provider: str, key: str, faults: Sequence[str]) -> None:
        """What every request of this account meets from now on; none: it is well again."""
        await self._asked("PATCH", f"accounts/{provider}/{key}", {"faults": list(faults)})

    async def add_fault(self, **rule: Any) -> None:
        await self._asked("POST", "faults", rule)

    async def clear_faults(self) -> None:
        await self._asked("DELETE", "faults")

    async def accounts(self) -> list[dict[str, Any]]:
        return list((await self._asked("GET", "accounts"))["accounts"])

    async def tasks(self) -> list[dict[str, Any]]:
        """Every task that was ever taken on, and what was charged for it."""
        return list((await self._asked("GET", "tasks"))["tasks"])

    async def hits(self) -> Mapping[str, int]:
        """How often each fault has happened by rule, also those whose rule is still there only."""
        found: dict[str, int] = {}
        for rule in (await self._asked("GET", "faults"))["faults"]:
            found[rule["fault"]] = found.get(rule["fault"], 0) + rule["hits"]
        return found

    async def _asked(self, method: str, path: str, body: Any = None) -> Any:
        timeout = aiohttp.ClientTimeout(total=_DEADLINE_S)
        url = f"{self.url}/_control/{path}"
        async with self.session.request(method, url, json=body, timeout=timeout) as answer:
            assert answer.status == 200, f"{method} {path}: {answer.status} {await answer.text()}"
            return await answer.json()


@asynccontextmanager
async def simulator_of(scene: Scene, *, seed: int, pace: float) -> AsyncIterator[Simulator]:
    """Starts it; the scene stops it with its other processes."""
    environ = dict(scene.environ) | {
        "ATELIER_SIMULATOR_LISTEN": "127.0.0.1:0",
        "ATELIER_SIMULATOR_OPERATIONS_LISTEN": "127.0.0.1:0",
        "ATELIER_SIMULATOR_LOG_LEVEL": "warning",
        "ATELIER_SIMULATOR_SEED": str(seed),
        "ATELIER_SIMULATOR_PACE": str(pace),
    }
    process = ArmedProcess(_NAME, _NAME, environ, scene.layout.root / "logs")
    scene.processes[_NAME] = process
    await process.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as session:
        yield Simulator(process.addresses["http"], session)
