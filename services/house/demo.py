"""Demo data: a customer with keys and credit, and three sandbox accounts, made once a house."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio

from services.chassis.errors import Kind, ServiceError
from services.chassis.rpc_client import open_channel
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc
from services.house.layout import Layout, write_privately
from services.house.wiring import Ports

STOREFRONTS = ("leonardo",)

_DEADLINE_S = 10.0
# Enough for a thousand films, so that nobody meets a limit while looking around.
_LIVE_CREDIT_MILLIS = 10_000_000 * 1000
_LIMITS = billing.Limits(requests_per_minute=60_000, running_jobs=10_000, queued_jobs=10_000)
# Different sizes and speeds, so that rotation can be seen.
_ACCOUNTS = (
    ("sandbox-north", 2, 40_000_000, {"pace_ms": "1500"}),
    ("sandbox-south", 2, 20_000_000, {"pace_ms": "2000"}),
    ("sandbox-spare", 4, 80_000_000, {"pace_ms": "2500"}),
)


async def furnish(layout: Layout, ports: Ports, addresses: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Makes what is missing and writes `demo.json`; returns what it holds.

    The keys are kept in that file alone. Where it is gone or damaged, new keys are made.
    """
    known = _known_storefronts(layout)
    async with AsyncExitStack() as stack:
        billing_channel = await stack.enter_async_context(open_channel(addresses["billing"]["grpc"]))
        pool_channel = await stack.enter_async_context(open_channel(addresses["provider_pool"]["grpc"]))
        description = {
            "base_url": f"http://127.0.0.1:{ports.public}",
            "storefronts": {
                name: await _furnish_storefront(billing_channel, name, known.get(name))
                for name in STOREFRONTS
            },
            "operations": {name: address["operations"] for name, address in sorted(addresses.items())},
            "grpc": {
                name: address["grpc"] for name, address in sorted(addresses.items()) if "grpc" in address
            },
        }
        await _furnish_accounts(pool_channel)
    write_privately(layout.demo, json.dumps(description, indent=2) + "\n")
    return description


def _known_storefronts(layout: Layout) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads(layout.demo.read_text(encoding="utf-8"))["storefronts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


async def _furnish_storefront(
    channel: grpc.aio.Channel, storefront: str, known: Mapping[str, str] | None
) -> dict[str, str]:
    stub: billing_rpc.BillingServiceAsyncStub = billing_rpc.BillingServiceStub(channel)
    if known and await _keys_work(stub, known):
        return dict(known)
    made = await stub.CreateCustomer(
        billing.CreateCustomerRequest(
            storefront=storefront, name="Demo", limits=_LIMITS, idempotency_key=f"demo-{storefront}"
        ),
        timeout=_DEADLINE_S,
    )
    customer_id = made.customer.customer_id
    await stub.TopUp(
        billing.TopUpRequest(
            customer_id=customer_id,
            mode=billing.MODE_LIVE,
            amount_millis=_LIVE_CREDIT_MILLIS,
            idempotency_key="demo",
            note="demo credit",
        ),
        timeout=_DEADLINE_S,
    )
    return {
        "customer_id": customer_id,
        "live_key": await _make_key(stub, customer_id, billing.MODE_LIVE),
        "test_key": await _make_key(stub, customer_id, billing.MODE_TEST),
    }


async def _keys_work(stub: billing_rpc.BillingServiceAsyncStub, known: Mapping[str, str]) -> bool:
    for name in ("live_key", "test_key"):
        try:
            await stub.Authenticate(billing.AuthenticateRequest(api_key=known[name]), timeout=_DEADLINE_S)
        except ServiceError as refusal:
            if refusal.kind is not Kind.UNAUTHENTICATED:
                raise
            return False
    return True


async def _make_key(
    stub: billing_rpc.BillingServiceAsyncStub, customer_id: str, mode: billing.Mode.ValueType
) -> str:
    made = await stub.CreateKey(
        billing.CreateKeyRequest(customer_id=customer_id, mode=mode, label="demo"), timeout=_DEADLINE_S
    )
    return made.api_key


async def _furnish_accounts(channel: grpc.aio.Channel) -> None:
    stub: pool_rpc.ProviderPoolServiceAsyncStub = pool_rpc.ProviderPoolServiceStub(channel)
    present = await stub.ListAccounts(pool.ListAccountsRequest(), timeout=_DEADLINE_S)
    # Whoever has accounts, even disabled ones, has decided what this house works with.
    if present.accounts:
        return
    for label, concurrency, balance_credits, options in _ACCOUNTS:
        request = pool.CreateAccountRequest(
            provider="sandbox",
            label=label,
            serves_live=True,
            serves_test=True,
            concurrency_limit=concurrency,
            balance_millis=balance_credits * 1000,
            weight=1,
            options=options,
        )
        await stub.CreateAccount(request, timeout=_DEADLINE_S)


def welcome(description: Mapping[str, Any], layout: Layout) -> str:
    """What a person who has just started the house wants to read."""
    base_url = description["base_url"]
    store = description["storefronts"]["leonardo"]
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

The same is in {layout.demo}; logs are in {layout.root / "logs"}. Ctrl-C stops everything."""
