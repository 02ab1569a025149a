"""The ways to choose that are compared: the pool's own rules under each policy, and what is usually done instead."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from services.provider_pool.selection import pool
from services.provider_pool.selection.market import Market
from services.provider_pool.selection.pool import Account, Choice, Granted, Policy, Refusal, Request

Way = Callable[[Sequence[Request], Sequence[Account], int], list[Choice]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way. remembers: whether refusals open breakers and teach limits."""

    name: str
    made: Callable[[Market, int], Way]
    remembers: bool = True


def _policy(policy: Policy) -> Callable[[Market, int], Way]:
    def made(market: Market, seed: int) -> Way:
        return lambda requests, accounts, now_ms: pool.choose(requests, accounts, policy, now_ms, market)

    return made


class _OneByOne:
    """Chooses among those that the pool's rules call ready for a request, knowing neither price nor policy."""

    def __init__(self, market: Market, pick: Callable[[Sequence[str]], str]) -> None:
        self._market = market
        self._pick = pick

    def __call__(self, requests: Sequence[Request], accounts: Sequence[Account], now_ms: int) -> list[Choice]:
        there = {account.account_id: account for account in accounts}
        choices: list[Choice] = []
        for request in requests:
            choice = self._one(request, there, now_ms)
            if isinstance(choice, Granted):
                taken = there[choice.account_id]
                there[choice.account_id] = replace(
                    taken,
                    leases=taken.leases + 1,
                    leased_millis=taken.leased_millis + choice.ceiling_millis,
                )
            choices.append(choice)
        return choices

    def _one(self, request: Request, there: Mapping[str, Account], now_ms: int) -> Choice:
        able = [one for one in there.values() if pool.is_able(one, request)]
        if not able:
            return Refusal.INCAPABLE
        others = [one for one in able if one.account_id not in request.avoid] or able
        ready = sorted(
            one.account_id
            for one in others
            if pool.free_slots(one, request.model, now_ms, self._market) > 0
            and one.available_millis >= request.ceilings[one.provider]
        )
        if not ready:
            return Refusal.BUSY
        chosen = there[self._pick(ready)]
        # Alone before the rules, the account can only be granted: with the trials that its breakers ask for.
        return pool.choose([replace(request, avoid=frozenset())], [chosen], Policy.SPREAD, now_ms)[0]


def _round_robin(market: Market, seed: int) -> Way:
    last = [""]

    def pick(ready: Sequence[str]) -> str:
        last[0] = next((name for name in ready if name > last[0]), ready[0])
        return last[0]

    return _OneByOne(market, pick)


def _random(market: Market, seed: int) -> Way:
    return _OneByOne(market, random.Random(seed).choice)


WAYS: Final = (
    *(Kind(policy.value, _policy(policy)) for policy in Policy),
    Kind("round-robin", _round_robin),
    Kind("random", _random),
    Kind("round-robin without memory", _round_robin, remembers=False),
)
