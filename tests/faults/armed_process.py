"""One service of a scene: a real process whose crash points can be armed, and that may be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.house import ROOT

_READY_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 30.0


@dataclass
class ArmedProcess:
    """`service` under the name `name`; its journal of passed points outlives its deaths."""

    name: str
    service: str
    environ: Mapping[str, str]
    folder: Path
    addresses: dict[str, str] = field(default_factory=dict)
    deaths: int = 0
    _process: asyncio.subprocess.Process | None = None
    _control: socket.socket | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Returns when the process has announced that it is ready."""
        line = await self._start()
        assert line, f"{self.name} ended before it was ready: {self.log.read_text(errors='replace')[-2000:]}"
        self.addresses = json.loads(line)

    async def start_to_die(self, point: str, deadline_s: float = 30.0) -> None:
        """Starts it armed from its first moment, and waits until it has died. Raises TimeoutError."""
        await self._start(point)
        await self.ended(deadline_s)

    async def _start(self, *points: str) -> str:
        assert not self.alive, f"{self.name} is running"
        self._hang_up()
        ours, theirs = socket.socketpair()
        reading, announce = os.pipe()
        with theirs, self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.armed"),
                *(str(theirs.fileno()), str(self._journal), self.service, *points),
                cwd=ROOT,
                env={
                    **self.environ,
                    "GRPC_ENABLE_FORK_SUPPORT": "0",
                    "ATELIER_ANNOUNCE_FD": str(announce),
                    "ATELIER_SUPERVISOR_PID": str(os.getpid()),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(announce, theirs.fileno()),
                start_new_session=True,
            )
        os.close(announce)
        ours.setblocking(False)
        self._control = ours
        with os.fdopen(reading, encoding="utf-8") as pipe:
            async with asyncio.timeout(_READY_DEADLINE_S):
                return await asyncio.to_thread(pipe.readline)

    async def arm(self, point: str, *, nth: int = 1, act: Literal["kill", "stop"] = "kill") -> None:
        """Makes the process die, or stop, when it passes `point` for the n-th time from now on."""
        await self._order({"point": point, "nth": nth, "act": act})

    async def disarm(self) -> None:
        await self._order({"point": ""})

    async def ended(self, deadline_s: float = 30.0) -> None:
        """Waits until the process has died of what it was armed with. Raises TimeoutError."""
        assert self._process is not None
        async with asyncio.timeout(deadline_s):
            await self._process.wait()
        self.deaths += 1

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.alive:
            self._signal(signal.SIGKILL)
            await self.ended()

    async def restart(self) -> None:
        """Killed, if it is still there, and started on the same ports and files."""
        await self.kill()
        await self.start()

    async def terminate(self) -> int:
        """SIGTERM; the exit code once it has drained."""
        assert self._process is not None
        self._signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_DEADLINE_S):
            return await self._process.wait()

    def stop(self) -> None:
        """SIGSTOP: it stands still, and its connections stay open."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on as if nothing had been."""
        self._signal(signal.SIGCONT)

    async def close(self) -> None:
        await self.kill()
        self._hang_up()

    def passed(self) -> Counter[str]:
        """How often each point was passed, over all lives of this process."""
        return Counter(point for point, _ in self._lines())

    def subjects(self, point: str) -> Counter[str]:
        """Whose it was, each time that `point` was passed."""
        return Counter(subject for name, subject in self._lines() if name == point)

    @property
    def _journal(self) -> Path:
        return self.folder / f"{self.name}.points"

    def _lines(self) -> list[tuple[str, str]]:
        if not self._journal.exists():
            return []
        lines = self._journal.read_text(encoding="utf-8").splitlines()
        return [(point, subject) for point, _, subject in (line.partition(" ") for line in lines)]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def _order(self, order: Mapping[str, object]) -> None:
        assert self._control is not None
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._control, json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(_STOP_DEADLINE_S):
            answer = await loop.sock_recv(self._control, 64)
        assert answer == b"armed\n", f"{self.name} cannot be armed: it is gone"

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
