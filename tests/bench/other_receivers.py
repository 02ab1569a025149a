"""The receivers of the customers that are not watched, in a process of their own: what they do costs nobody here a moment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from tests.webhook_receiver import Answering, Receiver, failing, fine, flooding, hanging, redirecting

ANSWERS: Final[Mapping[str, Answering]] = {
    "is fine": fine,
    "hangs": hanging,
    "answers 500": failing,
    "redirects": redirecting,
    "answers a gigabyte": flooding,
}
_LINE_LIMIT_S: Final = 20.0
_NICENESS: Final = 19


@dataclass
class OtherReceivers:
    """So many receivers; `urls` are theirs, in an order that stays."""

    count: int
    ports: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        command = (sys.executable, "-m", "tests.bench.other_receivers", str(self.count))
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        self.ports = tuple(await self._said())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        await self._process.wait()

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{port}/hook" for port in self.ports)

    async def answer(self, names: Sequence[str]) -> int:
        """From now on each does what its name in ANSWERS says; how many requests all of them have had so far."""
        writer = self._process.stdin
        if writer is None:
            raise RuntimeError("the receivers were not started with a pipe")
        writer.write(json.dumps(list(names)).encode() + b"\n")
        await writer.drain()
        return int(await self._said())

    async def _said(self) -> Any:
        reader = self._process.stdout
        if reader is None:
            raise RuntimeError("the receivers were not started with a pipe")
        async with asyncio.timeout(_LINE_LIMIT_S):
            return json.loads(await reader.readline())


async def _receive(count: int) -> None:
    """Until standard input ends."""
    # Elsewhere they are other machines: what they compute takes nothing from the house.
    os.nice(_NICENESS)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(Receiver()) for _ in range(count)]
        _say([receiver.port for receiver in receivers])
        while line := await reader.readline():
            for receiver, name in zip(receivers, json.loads(line), strict=True):
                receiver.answers = ANSWERS[name]
            _say(sum(len(receiver.received) for receiver in receivers))


def _say(told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_receive(int(sys.argv[1])))
