"""`/_control`: accounts, faults and time on command, and the truth of what was asked and charged."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from services.simulator.accounts import Account, AccountRefused
from services.simulator.faults import RuleRefused
from services.simulator.provider import Provider
from services.simulator.world import World

# A year: what expires, expires sooner.
_AHEAD_LIMIT_S: Final = 366 * 24 * 3600
_Handler = Callable[[web.Request], Awaitable[Any]]


class Control:
    """Whoever reaches the simulator rules it; it listens on loopback addresses only."""

    def __init__(self, world: World, providers: Mapping[str, Provider]) -> None:
        self._world = world
        self._providers = providers

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds every route."""
        for method, path, handler in (
            ("POST", "accounts", self._add_account),
            ("GET", "accounts", self._accounts),
            ("GET", "accounts/{provider}/{key}", self._account),
            ("PATCH", "accounts/{provider}/{key}", self._change_account),
            ("DELETE", "accounts/{provider}/{key}", self._remove_account),
            ("POST", "faults", self._add_fault),
            ("GET", "faults", self._faults),
            ("DELETE", "faults", self._clear_faults),
            ("DELETE", "faults/{number}", self._clear_fault),
            ("GET", "requests", self._requests),
            ("GET", "tasks", self._tasks),
            ("GET", "hooks", self._hooks),
            ("GET", "clock", self._clock),
            ("POST", "clock", self._move_clock),
            ("POST", "reset", self._reset),
        ):
            router.add_route(method, f"/_control/{path}", _answered(handler))

    async def _add_account(self, request: web.Request) -> Any:
        wish = await _object(request)
        provider = self._providers.get(str(wish.get("provider")))
        if provider is None:
            raise AccountRefused(f"provider is one of {', '.join(sorted(self._providers))}")
        account = self._world.accounts.add(wish, provider.usual)
        self._give_faults(account, wish)
        return self._shown(account)

    async def _accounts(self, request: web.Request) -> Any:
        self._world.advance()
        return {"accounts": [self._shown(account) for account in self._world.accounts.all()]}

    async def _account(self, request: web.Request) -> Any:
        self._world.advance()
        return self._shown(self._found(request))

    async def _change_account(self, request: web.Request) -> Any:
        self._world.advance()
        account, wish = self._found(request), await _object(request)
        self._world.accounts.change(
            account, {name: wish[name] for name in wish if name not in {"provider", "key"}}
        )
        self._give_faults(account, wish)
        return self._shown(account)

    async def _remove_account(self, request: web.Request) -> Any:
        account = self._found(request)
        self._world.faults.of_account(account.provider, account.key, (), self._world.now_ms())
        self._world.accounts.remove(account.provider, account.key)
        return {}

    async def _add_fault(self, request: web.Request) -> Any:
        return self._world.faults.add(await _object(request), self._world.now_ms()).as_json()

    async def _faults(self, request: web.Request) -> Any:
        return {"faults": [rule.as_json() for rule in self._world.faults.rules()]}

    async def _clear_faults(self, request: web.Request) -> Any:
        self._world.faults.clear()
        return {}

    async def _clear_fault(self, request: web.Request) -> Any:
        self._world.faults.clear(int(request.match_info["number"]))
        return {}

    async def _requests(self, request: web.Request) -> Any:
        found = self._world.records.matching(request.query.get("provider", ""), request.query.get("key", ""))
        return {"requests": [record.as_json() for record in found]}

    async def _tasks(self, request: web.Request) -> Any:
        self._world.advance()
        provider, key = request.query.get("provider", ""), request.query.get("key", "")
        return {
            "tasks": [
                task.as_json()
                for task in self._world.tasks.all()
                if provider in {"", task.provider} and key in {"", task.account.key}
            ]
        }

    async def _hooks(self, request: web.Request) -> Any:
        return {"deliveries": [delivery.as_json() for delivery in self._world.hooks.deliveries]}

    async def _clock(self, request: web.Request) -> Any:
        return {"now_ms": self._world.now_ms(), "ahead_s": self._world.clock.ahead_ms / 1000}

    async def _move_clock(self, request: web.Request) -> Any:
        ahead_s = float((await _object(request))["advance_s"])
        if not 0 <= ahead_s <= _AHEAD_LIMIT_S:
            raise ValueError("time goes forward, by a year at most")
        self._world.clock.ahead_ms += round(ahead_s * 1000)
        self._world.advance()
        return await self._clock(request)

    async def _reset(self, request: web.Request) -> Any:
        self._world.reset()
        return {}

    def _found(self, request: web.Request) -> Account:
        account = self._world.accounts.find(request.match_info["provider"], request.match_info["key"])
        if account is None:
            raise web.HTTPNotFound(text='{"error": "no such account"}', content_type="application/json")
        return account

    def _give_faults(self, account: Account, wish: Mapping[str, Any]) -> None:
        if "faults" in wish:
            self._world.faults.of_account(
                account.provider, account.key, wish["faults"] or (), self._world.now_ms()
            )

    def _shown(self, account: Account) -> dict[str, Any]:
        rules = self._world.faults.rules()
        mine = [rule.as_json() for rule in rules if rule.is_of_account and rule.key == account.key]
        return account.as_json() | {"faults": mine}


async def _object(request: web.Request) -> dict[str, Any]:
    body = json.loads(await request.read() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body is one object")  # noqa: TRY004 - a bad request like every other
    return body


def _answered(handler: _Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await handler(request))
        except (AccountRefused, RuleRefused, ValueError, KeyError, TypeError) as fault:
            return web.json_response({"error": str(fault)}, status=400)

    return answer
