"""Demo data: a customer of every storefront with keys and credit, and accounts to serve them, made once a house."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio

from services.chassis.rpc_client import open_channel
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc
from services.house.demo_customers import DemoCustomers
from services.house.layout import Layout, write_privately
from services.house.simulated import furnish_simulated
from services.house.wiring import Ports

STOREFRONTS = ("leonardo", "seedancee2", "seedance2pro", "loova", "imaginelab")

_DEADLINE_S = 10.0
# Different sizes and speeds, so that rotation can be seen.
_ACCOUNTS = (
    ("sandbox-north", 2, 40_000_000, {"pace_ms": "1500"}),
    ("sandbox-south", 2, 20_000_000, {"pace_ms": "2000"}),
    ("sandbox-spare", 4, 80_000_000, {"pace_ms": "2500"}),
)


async def furnish(layout: Layout, ports: Ports, addresses: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Makes what is missing and writes `demo.json`; returns what it holds.

    Keys, secrets and passwords are kept in that file alone. Where it is gone or damaged, new ones are made.
    """
    known = _known_storefronts(layout)
    async with AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(open_channel(addresses[name]["grpc"]))
            for name in ("billing", "jobs", "provider_pool")
        }
        customers = DemoCustomers(channels["billing"], channels["jobs"])
        made = await asyncio.gather(*(customers.of(name, known.get(name)) for name in STOREFRONTS))
        simulator = addresses.get("simulator")
        await _furnish_accounts(channels["provider_pool"], serves_live=simulator is None)
        if simulator is not None:
            secret = layout.key("simulated_accounts").read_bytes()
            await furnish_simulated(channels["provider_pool"], simulator["http"], secret)
    description = {
        "base_url": f"http://127.0.0.1:{ports.public}",
        "storefronts": dict(zip(STOREFRONTS, made, strict=True)),
        "operations": {name: address["operations"] for name, address in sorted(addresses.items())},
        "grpc": {name: address["grpc"] for name, address in sorted(addresses.items()) if "grpc" in address},
        **({} if simulator is None else {"simulator": simulator["http"]}),
    }
    write_privately(layout.demo, json.dumps(description, indent=2) + "\n")
    return description


def _known_storefronts(layout: Layout) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads(layout.demo.read_text(encoding="utf-8"))["storefronts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


async def _furnish_accounts(channel: grpc.aio.Channel, *, serves_live: bool) -> None:
    stub: pool_rpc.ProviderPoolServiceAsyncStub = pool_rpc.ProviderPoolServiceStub(channel)
    present = await stub.ListAccounts(pool.ListAccountsRequest(), timeout=_DEADLINE_S)
    # Whoever has accounts, even disabled ones, has decided what this house works with.
    if present.accounts:
        return
    for label, concurrency, balance_credits, options in _ACCOUNTS:
        request = pool.CreateAccountRequest(
            provider="sandbox",
            label=label,
            serves_live=serves_live,
            serves_test=True,
            concurrency_limit=concurrency,
            balance_millis=balance_credits * 1000,
            weight=1,
            options=options,
        )
        await stub.CreateAccount(request, timeout=_DEADLINE_S)


def welcome(description: Mapping[str, Any], layout: Layout, mails: str) -> str:
    """What a person who has just started the house wants to read.

    mails: where they are, or how they are sent.
    """
    base_url = description["base_url"]
    store = description["storefronts"]["leonardo"]
    others = ", ".join(f"/docs/{name}" for name in STOREFRONTS[1:])
    return f"""Atelier is at {base_url}   (documentation: {base_url}/docs)

  live key  {store["live_key"]}
  test key  {store["test_key"]}

Try it:

  curl -s {base_url}/v1/images/generate \\
    -H 'Authorization: Bearer {store["live_key"]}' \\
    -H 'Idempotency-Key: first-picture' -H 'Content-Type: application/json' \\
    -d '{{"prompt": "a lighthouse at dusk, long exposure", "quality": "MEDIUM", "size": "16:9_SMALL"}}'

two seconds later, ask for its result (put the jobId in), and open the url in it:

  curl -s {base_url}/v1/jobs/JOB_ID/result -H 'Authorization: Bearer {store["live_key"]}'

The same, and a customer of every other API ({others}), is in {layout.demo};
logs are in {layout.root / "logs"}, mails to users {mails}. Ctrl-C stops everything."""
