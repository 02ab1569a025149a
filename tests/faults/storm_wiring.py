"""Scenes that are wired otherwise than a house of one process each: with proxies between them, with replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.faults.proxy import Proxy
from tests.faults.scene import Engine, Scene, fault_scene

# Who calls, whom, and the setting that says where: the whole graph of calls.
WIRES = {
    ("gateway", "billing"): "ATELIER_GATEWAY_BILLING_ADDRESS",
    ("gateway", "jobs"): "ATELIER_GATEWAY_JOBS_ADDRESS",
    ("gateway", "provider_pool"): "ATELIER_GATEWAY_POOL_ADDRESS",
    ("jobs", "billing"): "ATELIER_JOBS_BILLING_ADDRESS",
    ("jobs", "provider_pool"): "ATELIER_JOBS_POOL_ADDRESS",
}


def replica_ports() -> dict[str, str]:
    """A second jobs process takes whatever ports are free."""
    return {"ATELIER_JOBS_GRPC_LISTEN": "127.0.0.1:0", "ATELIER_JOBS_OPERATIONS_LISTEN": "127.0.0.1:0"}


@dataclass
class Wired:
    """`wires[caller, called]` is what lies between them."""

    scene: Scene
    wires: dict[tuple[str, str], Proxy]


@asynccontextmanager
async def wired_scene(engine: Engine, **settings: str) -> AsyncIterator[Wired]:
    """A house that is ready, every one of its calls through a proxy of its own."""
    async with AsyncExitStack() as stack:
        wires = {wire: await stack.enter_async_context(Proxy()) for wire in WIRES}
        addresses = {WIRES[wire]: proxy.address for wire, proxy in wires.items()}
        scene = await stack.enter_async_context(fault_scene(engine, **addresses | settings))
        # Until here they refuse: the ports are the scene's own choice, and channels try again within a second.
        for (_, called), proxy in wires.items():
            proxy.lead_to(scene.ports.grpc[called])
        yield Wired(scene, wires)
