"""The platform's books: prices, balance, and the requests that have ended."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.chassis.clock import rfc3339
from services.simulator.fal import errors, outcome
from services.simulator.fal.endpoints import ENDPOINTS
from services.simulator.fal.queue import refused
from services.simulator.faults import Call
from services.simulator.provider import Exchange, Route, bearer
from services.simulator.tasks import ENDED, Task
from services.simulator.world import World

_PAGE_LIMIT: Final = 100
_PAGE: Final = 50


class Platform:
    """Everything under api.fal.ai/v1."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """Every call."""
        return [
            Route("GET", "/fal/api/v1/models/pricing", self._pricing, Call.ACCOUNT),
            Route("POST", "/fal/api/v1/models/pricing/estimate", self._estimate, Call.ACCOUNT),
            Route("GET", "/fal/api/v1/account/billing", self._billing, Call.ACCOUNT),
            Route("GET", "/fal/api/v1/models/requests/by-endpoint", self._requests, Call.READ),
        ]

    async def _pricing(self, exchange: Exchange) -> web.Response:
        names = exchange.request.query.getall("endpoint_id", [])
        prices = []
        for name in names:
            if (endpoint := ENDPOINTS.get(name)) is None:
                raise refused(errors.request_refused(404, f"Endpoint {name} not found", "not_found"))
            price = float(endpoint.unit_price)
            prices.append(
                {"endpoint_id": name, "unit_price": price, "unit": endpoint.unit, "currency": "USD"}
            )
        return web.json_response({"prices": prices, "next_cursor": None, "has_more": False})

    async def _estimate(self, exchange: Exchange) -> web.Response:
        try:
            wish = exchange.json()
            kind, counts = wish["estimate_type"], wish["endpoints"]
            word = {"unit_price": "unit_quantity", "historical_api_price": "call_quantity"}[kind]
            total = sum(
                (ENDPOINTS[name].unit_price * Decimal(str(counts[name][word])) for name in counts), Decimal(0)
            )
        except (ValueError, KeyError, TypeError, ArithmeticError):
            raise refused(errors.request_refused(400, "The estimate is not valid", "bad_request")) from None
        return web.json_response({"estimate_type": kind, "total_cost": float(total), "currency": "USD"})

    async def _billing(self, exchange: Exchange) -> web.Response:
        account, given = exchange.account, bearer(exchange.request, "Key")
        is_admin = account.options.get("scope") == "admin" or given == account.options.get("admin_key")
        if not is_admin:
            raise refused(errors.FORBIDDEN, "scope")
        body: dict[str, Any] = {"username": account.label}
        if "credits" in exchange.request.query.get("expand", ""):
            balance = None if account.balance is None else float(account.balance)
            body["credits"] = {"current_balance": balance, "currency": "USD"}
        return web.json_response(body)

    async def _requests(self, exchange: Exchange) -> web.Response:
        """Ended ones only, by their end, newest first: what still waits cannot be seen."""
        query = exchange.request.query
        if (endpoint := query.get("endpoint_id")) not in ENDPOINTS:
            raise refused(errors.request_refused(404, f"Endpoint {endpoint} not found", "not_found"))
        try:
            since_ms, until_ms = _moment(query.get("start")), _moment(query.get("end"))
            limit, start = int(query.get("limit", _PAGE)), int(query.get("cursor", 0))
        except ValueError:
            raise refused(errors.request_refused(400, "The query is not valid", "bad_request")) from None
        if not 1 <= limit <= _PAGE_LIMIT:
            raise refused(errors.request_refused(400, "limit is from 1 to 100", "bad_request"))
        wanted = set(filter(None, query.get("status", "").split(",")))
        found = [
            task
            for task in self._world.tasks.of_account(exchange.account)
            if task.model == endpoint
            and task.state in ENDED
            and (since_ms is None or _end_ms(task) >= since_ms)
            and (until_ms is None or _end_ms(task) <= until_ms)
            and (not wanted or _outcome(task) in wanted)
            and query.get("request_id") in {None, task.id}
        ]
        found.sort(key=_end_ms, reverse=True)
        with_payloads = "payloads" in query.get("expand", "")
        has_more = start + limit < len(found)
        items = [await self._item(task, with_payloads=with_payloads) for task in found[start : start + limit]]
        next_cursor = str(start + limit) if has_more else None
        return web.json_response({"items": items, "next_cursor": next_cursor, "has_more": has_more})

    async def _item(self, task: Task, *, with_payloads: bool) -> dict[str, Any]:
        failure = outcome.failure_of(task)
        begun_ms = task.started_ms if task.started_ms is not None else _end_ms(task)
        item: dict[str, Any] = {
            "request_id": task.id,
            "endpoint_id": task.model,
            "sent_at": rfc3339(task.created_ms),
            "started_at": rfc3339(begun_ms),
            "ended_at": rfc3339(_end_ms(task)),
            "status_code": failure.status if failure else 200,
            "duration": (_end_ms(task) - begun_ms) / 1000,
        }
        if with_payloads and not outcome.is_purged(task, self._world.now_ms()):
            output = failure.body if failure else await outcome.result(task, self._world)
            item |= {"json_input": task.facts["input"], "json_output": output}
        return item


def _end_ms(task: Task) -> int:
    return task.ended_ms or 0


def _outcome(task: Task) -> str:
    failure = outcome.failure_of(task)
    if failure is None:
        return "success"
    return "error" if failure.status >= 500 else "user_error"


def _moment(text: str | None) -> int | None:
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)
