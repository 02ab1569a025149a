"""One process of the house: started, listened to, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.errors import Kind, ServiceError
from services.chassis.process import DRAIN_S, EXIT_USAGE

# Long enough for a first start on a slow machine that migrates its databases.
_READY_DEADLINE_S = 60.0
# Longer than any service's own end (the gateway gives requests under way 15 s), beside the drain that it has announced;
# what has not ended by then is killed.
_STOP_DEADLINE_S = 20.0


def module_of(service: str) -> str:
    """What Python runs for a service."""
    return f"services.{service}"


@dataclass
class Child:
    """A service run as `python -m services.<name>` in a session of its own."""

    name: str
    environ: Mapping[str, str]
    log_path: Path
    addresses: dict[str, str] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Returns when the process has announced that it is ready.

        Raises ServiceError with the process's own last words where it gives up before.
        """
        reader, announce = os.pipe()
        said_from = self.log_path.stat().st_size if self.log_path.exists() else 0
        try:
            with self.log_path.open("ab") as log_file:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    module_of(self.name),
                    env={
                        # Nothing here forks without exec; gRPC's fork handlers only write lines that are no JSON.
                        "GRPC_ENABLE_FORK_SUPPORT": "0",
                        **self.environ,
                        "ATELIER_ANNOUNCE_FD": str(announce),
                        "ATELIER_SUPERVISOR_PID": str(os.getpid()),
                    },
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    pass_fds=(announce,),
                    # The terminal's Ctrl-C reaches the house alone, which then stops its children in order.
                    start_new_session=True,
                )
        finally:
            os.close(announce)
        line = await self._announcement(reader)
        if not line:
            code = await self._process.wait()
            raise self._gave_up(code, said_from)
        self.addresses = json.loads(line)

    async def exited(self) -> int:
        """The exit code, once the process has ended; negative: the signal that ended it."""
        if self._process is None:
            return 0
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks the process to drain and end, and kills it where it does not."""
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            drain_s = float(self.addresses.get(DRAIN_S, 0))
            await asyncio.wait_for(self._process.wait(), _STOP_DEADLINE_S + drain_s)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def kill(self) -> None:
        """Ends the process now; what it had not committed is found again at the next start."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _announcement(self, descriptor: int) -> bytes:
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb")
        )
        try:
            return await asyncio.wait_for(stream.readline(), _READY_DEADLINE_S)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return b""
        finally:
            transport.close()

    def _gave_up(self, code: int, said_from: int) -> ServiceError:
        with self.log_path.open("rb") as log_file:
            log_file.seek(said_from)
            said = log_file.read().decode(errors="replace").strip().splitlines()
        if code == EXIT_USAGE:
            plain = [line for line in said if not line.startswith("{")]
            return ServiceError(
                Kind.FAILED_PRECONDITION, "CHILD_REFUSED", f"{self.name}: " + "\n".join(plain or said[-1:])
            )
        return ServiceError(
            Kind.INTERNAL,
            "CHILD_CRASHED",
            f"{self.name} ended before it was ready (exit {code}); see {self.log_path}",
        )
