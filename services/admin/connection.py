"""The three services, as the command line reaches them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from services.chassis.rpc_client import open_channel
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc

_VARIABLES = {
    "billing": "ATELIER_BILLING_ADDRESS",
    "jobs": "ATELIER_JOBS_ADDRESS",
    "provider_pool": "ATELIER_POOL_ADDRESS",
}


class Unreachable(Exception):
    """Nothing says where the services are."""


@dataclass
class House:
    """Where the services are; a channel is opened when a command first needs it."""

    addresses: dict[str, str]

    @classmethod
    def at(cls, var: str, environ: Mapping[str, str]) -> Self:
        """The house in the folder `var`; the environment's addresses win over it. Raises Unreachable."""
        folder = Path(var or environ.get("ATELIER_VAR") or "var")
        described = folder / "demo.json"
        addresses = _addresses(described)
        given = {name: environ[variable] for name, variable in _VARIABLES.items() if environ.get(variable)}
        return cls(addresses | given)

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @cached_property
    def billing(self) -> billing_rpc.BillingServiceAsyncStub:
        return billing_rpc.BillingServiceStub(self._channel("billing"))

    @cached_property
    def jobs(self) -> jobs_rpc.JobsServiceAsyncStub:
        return jobs_rpc.JobsServiceStub(self._channel("jobs"))

    @cached_property
    def pool(self) -> pool_rpc.ProviderPoolServiceAsyncStub:
        return pool_rpc.ProviderPoolServiceStub(self._channel("provider_pool"))

    def _channel(self, service: str) -> grpc.aio.Channel:
        if service not in self.addresses:
            raise Unreachable(
                f"no address of {service}: start a house (make run), name its folder with --var, "
                f"or set {_VARIABLES[service]}"
            )
        channel = open_channel(self.addresses[service])
        self._stack.push_async_callback(channel.close)
        return channel


def _addresses(described: Path) -> dict[str, str]:
    try:
        return dict(json.loads(described.read_text(encoding="utf-8"))["grpc"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as fault:
        raise Unreachable(f"cannot read {described}: {fault.strerror}") from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise Unreachable(f"{described} is damaged; start the house again, which writes it anew") from fault
