"""Accounts at the simulated providers: the same key in the simulator and, sealed, in the pool."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc.aio
import msgspec

from services.chassis.egress_calls import CallFailed, DirectCalls
from services.chassis.errors import Kind, ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as pool_rpc

_DEADLINE_S: Final = 10.0
_ANSWER_LIMIT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Account:
    """`balance` is in the provider's own unit. `addresses`: options of the adapter, and where the simulator has them."""

    provider: str
    label: str
    concurrency: int
    balance: int
    addresses: Mapping[str, str] = field(default_factory=dict)
    is_administrator: bool = False


# Two of those that serve the same models, so that rotation and prices can be seen.
_ACCOUNTS: Final = (
    _Account("leonardo", "simulated-leonardo", 5, 500, {"base_url": "/leonardo"}),
    _Account("ark", "simulated-ark-north", 3, 300, {"base_url": "/ark"}),
    _Account("ark", "simulated-ark-south", 3, 300, {"base_url": "/ark"}),
    _Account("openai", "simulated-openai", 8, 400, {"base_url": "/openai/v1"}),
    _Account(
        "fal",
        "simulated-fal",
        4,
        250,
        {"base_url": "/fal/queue", "rest_url": "/fal/rest", "api_url": "/fal/api"},
        is_administrator=True,
    ),
    _Account("replicate", "simulated-replicate", 4, 200, {"base_url": "/replicate"}),
    _Account("elevenlabs", "simulated-elevenlabs", 5, 500_000, {"base_url": "/elevenlabs"}),
    _Account("runway", "simulated-runway", 3, 40_000, {"base_url": "/runway"}),
)


async def furnish_simulated(channel: grpc.aio.Channel, simulator_url: str, secret: bytes) -> None:
    """Makes the accounts that are missing on either side, and tells the pool where the simulator is now.

    Their keys come from `secret`, so that both sides still agree when one of them was lost.
    Raises ServiceError where the simulator refuses.
    """
    stub: pool_rpc.ProviderPoolServiceAsyncStub = pool_rpc.ProviderPoolServiceStub(channel)
    listed = await stub.ListAccounts(pool.ListAccountsRequest(), timeout=_DEADLINE_S)
    present = {account.label: account for account in listed.accounts}
    async with DirectCalls() as calls:
        for account in _ACCOUNTS:
            key = _key_of(account, secret)
            await _furnish_simulator(calls, simulator_url, account, key)
            await _furnish_pool(stub, simulator_url, account, key, present.get(account.label))


def _key_of(account: _Account, secret: bytes) -> str:
    digest = hmac.digest(secret, account.label.encode(), hashlib.sha256)
    # Some providers' keys are UUIDs, and the others do not mind.
    return str(uuid.UUID(bytes=digest[:16]))


async def _furnish_simulator(calls: DirectCalls, url: str, account: _Account, key: str) -> None:
    place = f"{url}/_control/accounts"
    if await _status(calls, "GET", f"{place}/{account.provider}/{key}") == 200:
        return
    wish = {
        "provider": account.provider,
        "key": key,
        "label": account.label,
        "balance": account.balance,
        "concurrency": account.concurrency,
        "options": {"scope": "admin"} if account.is_administrator else {},
    }
    if await _status(calls, "POST", place, msgspec.json.encode(wish)) != 200:
        raise _refused(account.label)


async def _status(calls: DirectCalls, method: str, url: str, data: bytes | None = None) -> int:
    try:
        answer = await calls.call(
            method, url, headers={}, data=data, total_s=_DEADLINE_S, limit_bytes=_ANSWER_LIMIT_BYTES
        )
    except CallFailed as failed:
        raise _refused(failed.rule) from None
    return answer.status


def _refused(what: str) -> ServiceError:
    return ServiceError(Kind.FAILED_PRECONDITION, "SIMULATOR_REFUSED", f"the simulator refused: {what}")


async def _furnish_pool(
    stub: pool_rpc.ProviderPoolServiceAsyncStub,
    url: str,
    account: _Account,
    key: str,
    present: pool.Account | None,
) -> None:
    options = {name: url + path for name, path in account.addresses.items()}
    if present is not None:
        moved = pool.UpdateAccountRequest(
            account_id=present.account_id, options=pool.Options(options=dict(present.options) | options)
        )
        await stub.UpdateAccount(moved, timeout=_DEADLINE_S)
        return
    credentials = {"api_key": key} | ({"admin_key": key} if account.is_administrator else {})
    request = pool.CreateAccountRequest(
        provider=account.provider,
        label=account.label,
        credentials=credentials,
        serves_live=True,
        concurrency_limit=account.concurrency,
        balance_millis=account.balance * 1000,
        weight=1,
        options=options,
    )
    await stub.CreateAccount(request, timeout=_DEADLINE_S)
