"""The accounts of a soak: the same key at a simulated provider and, sealed, in the pool."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass
from typing import Final

from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.adapters.simulated import ADDRESSES
from tests.faults.scene import Scene
from tests.soak.simulator import Simulator

# What a unit of each is worth, in units: enough for a soak, and a little that runs out during it.
_PLENTY: Final = {"elevenlabs": 50_000_000, "runway": 5_000_000}
_USUAL_PLENTY: Final = 50_000
_LITTLE_SHARE: Final = 0.0002
# Of so many accounts one has little.
_POOR_EVERY: Final = 6
# Seconds of a task: a simulated provider is as slow as its work is in the mean, and a soak has no minutes for each.
_LATENCY_S: Final = (0.3, 1.2)


@dataclass(frozen=True, slots=True)
class Known:
    """One account, as both sides have it. balance: of the beginning, in the provider's unit."""

    account_id: str
    provider: str
    key: str
    concurrency: int
    balance: int


async def furnish(scene: Scene, simulator: Simulator, chance: random.Random, count: int) -> list[Known]:
    """So many accounts, of every provider in turn."""
    providers = sorted(ADDRESSES)
    made = []
    for number in range(count):
        provider = providers[number % len(providers)]
        plenty = _PLENTY.get(provider, _USUAL_PLENTY)
        # The first of each provider has plenty, so that money alone never leaves a model without an account.
        is_poor = number >= len(providers) and number % _POOR_EVERY == 0
        balance = round(plenty * _LITTLE_SHARE) if is_poor else plenty
        made.append(await _made(scene, simulator, chance, number, provider, balance))
    return made


async def _made(
    scene: Scene, simulator: Simulator, chance: random.Random, number: int, provider: str, balance: int
) -> Known:
    key = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    concurrency = chance.randint(2, 8)
    await simulator.add_account(
        provider=provider,
        key=key,
        label=f"soak-{number}",
        balance=balance,
        concurrency=concurrency,
        latency_s=chance.uniform(*_LATENCY_S),
    )
    credentials = {"api_key": key} | ({"admin_key": key} if provider == "fal" else {})
    request = pool.CreateAccountRequest(
        provider=provider,
        label=f"soak-{number}",
        credentials=credentials,
        serves_live=True,
        concurrency_limit=concurrency,
        balance_millis=balance * 1000,
        weight=1,
        options={name: simulator.url + path for name, path in ADDRESSES[provider].items()},
    )
    account = (await scene.inside.pool.CreateAccount(request)).account
    return Known(account.account_id, provider, key, concurrency, balance)


async def keep_sandbox_out(scene: Scene) -> None:
    """Live jobs go to the simulated providers alone."""
    for account in (await scene.inside.pool.ListAccounts(pool.ListAccountsRequest())).accounts:
        if account.provider == "sandbox":
            request = pool.UpdateAccountRequest(account_id=account.account_id, serves_live=False)
            await scene.inside.pool.UpdateAccount(request)
    await asyncio.sleep(0)
