"""Where the matrix is played: one house that outlives its processes' deaths, and is replaced only when it was broken."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.egress.certificates import Credentials
from tests.egress.evil_server import EvilServer
from tests.egress.scenes import answer
from tests.faults.client import Client
from tests.faults.matrix import DEEDS, PASSED_OTHERWISE, POINTS, Death
from tests.faults.matrix_deeds import Actor, picture
from tests.faults.scene import Engine, Scene, fault_scene, said
from tests.faults.verdict import judge

_REACHED_WITHIN_S = 30.0
# Longer than the pool waits, on an engine where another replica may be sending, until it takes a sender for dead.
_DOUBT_DEADLINE_S = 100.0
_RICH_CREDITS = 1_000_000


class Stage:
    """Enter it once for many deaths."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._credentials = Credentials(folder)
        self._stack = AsyncExitStack()
        self._house = AsyncExitStack()
        self._scene: Scene | None = None
        self._numbers = itertools.count(1)
        self._deeds: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await self._stack.enter_async_context(EvilServer(self._credentials.good))
        self._server.scenes["/picture.png"] = answer(picture("outside"), "Content-Type: image/png")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._house.aclose()
        await self._stack.aclose()

    async def scene(self) -> Scene:
        """The house as it stands: a new one at first, and after one that was broken."""
        if self._scene is None:
            house = fault_scene(
                self._engine,
                ATELIER_EGRESS_ALLOW=f"127.0.0.1/32:{self._server.port}",
                ATELIER_EGRESS_CA_FILE=str(self._credentials.trusted.file),
            )
            scene = self._scene = await self._house.enter_async_context(house)
            # Few places, so that a handful of jobs makes some wait.
            await scene.inside.set_concurrency(2)
            self._customer: Client = await scene.customer(_RICH_CREDITS)
            return scene
        return self._scene

    async def dies(self, *deaths: Death) -> None:
        """Each process dies at its point and is started again; when all has come to rest everything must be right."""
        try:
            await asyncio.gather(*[await self._dies(death) for death in deaths])
            await self._judged(_DOUBT_DEADLINE_S if any(death.doubtful for death in deaths) else 40.0)
        except BaseException as error:
            if self._scene is not None:
                error.add_note(f"last words: {said(self._scene)}")
            self._scene = None
            await self._house.aclose()
            raise
        finally:
            await self._stopped()

    async def census(self) -> tuple[list[str], list[str]]:
        """Every deed, and nobody dies: the points that were passed and are not in the matrix, and the other way round."""
        scene = await self.scene()
        await asyncio.gather(*(deed(self._actor(scene, doubtful=False)) for deed in DEEDS))
        await self._judged(40.0)
        passed = {
            f"{name}.{point}" for name, process in scene.processes.items() for point in process.passed()
        }
        return sorted(passed - POINTS - PASSED_OTHERWISE), sorted(POINTS - passed)

    async def _dies(self, death: Death) -> asyncio.Future[None]:
        """The deed, which goes on: its process has died and is there again."""
        scene = await self.scene()
        process = scene.processes[death.process]
        actor = self._actor(scene, doubtful=death.doubtful)
        await process.arm(death.point)
        deed = asyncio.ensure_future(death.deed(actor))
        self._deeds.append(deed)
        await process.ended(_REACHED_WITHIN_S)
        if death.again:
            await process.start_to_die(death.again, _REACHED_WITHIN_S)
        await process.start()
        return deed

    async def _stopped(self) -> None:
        for deed in self._deeds:
            deed.cancel()
        await asyncio.gather(*self._deeds, return_exceptions=True)
        self._deeds.clear()

    def _actor(self, scene: Scene, *, doubtful: bool) -> Actor:
        url = f"https://127.0.0.1:{self._server.port}/picture.png"
        return Actor(scene, self._customer, f"deed-{next(self._numbers)}", self._server, url, doubtful)

    async def _judged(self, deadline_s: float) -> None:
        scene = await self.scene()
        await scene.quiet(deadline_s=deadline_s)
        wrong: Sequence[str] = await judge(scene)
        assert not wrong, "\n".join(wrong)
