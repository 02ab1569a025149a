"""One process's connection to one service: a channel, and the stream that its hot calls share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import grpc

from services.chassis.coalesce import Coalescer, unary_of
from services.chassis.rpc_client import open_channel


class ServiceLink:
    """Opens on construction and closes its stream before its channel.

    name: the service, for metrics. stub: its generated stub class. messages: its generated module of messages.
    repeatable: methods that may be sent again when the stream breaks.
    retried: full names of methods that are also retried where they travel alone, as `open_channel` takes them.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str,
        stub: Callable[[grpc.aio.Channel], Any],
        messages: Any,
        repeatable: frozenset[str],
        retried: Sequence[str] = (),
    ) -> None:
        self.channel = open_channel(address, repeatable=retried)
        untyped = stub(self.channel)
        self.stream: Coalescer[Any, Any] = Coalescer(
            untyped.Dispatch,
            messages.DispatchRequest,
            messages.DispatchItem,
            name=name,
            repeatable=repeatable,
            unary=unary_of(untyped),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.channel.close)
            stack.push_async_callback(self.stream.close)

    async def check(self) -> None:
        """Returns once the service can be reached."""
        await self.channel.channel_ready()
