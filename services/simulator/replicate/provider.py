"""Replicate as a provider of the simulator."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.faults import Call, Fault
from services.simulator.provider import Exchange, Route, bearer
from services.simulator.recent import Recent
from services.simulator.replicate import announcing, prediction, problems
from services.simulator.replicate.files import Uploaded, answer, refused
from services.simulator.replicate.models import MODELS, REFERENCE_FIELDS, Model
from services.simulator.standard_webhooks import secret_of
from services.simulator.tasks import ENDED, Charge, State, Task
from services.simulator.world import World

_PAGE: Final = 100
_MINUTE_MS: Final = 60_000
# Predictions a minute, by plan: granted credit without a card has little.
_PER_MINUTE: Final[Mapping[str, int]] = {"granted": 6}
_USUAL_PER_MINUTE: Final = 600
# A prediction ends by itself after so long.
_RUN_LIMIT_S: Final = 30 * 60
_WAIT_LIMIT_S: Final = 60
_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h)?")
_PREFER: Final = re.compile(r"wait(?:=(\d{1,3}))?")
_MEMBERS: Final = frozenset({"input", "webhook", "webhook_events_filter", "stream", "version"})
_EVENTS: Final = ("start", "output", "logs", "completed")
_RELEASED: Final = "2026-04-01T00:00:00.000Z"
# What an identifier of a prediction is made of.
_ID_LENGTH: Final = 26


class Replicate:
    """Predictions, files, models and the account, under `/replicate/v1`.

    An account of the plan `granted` has credit and no card: it is limited to a few predictions a minute.
    """

    name = "replicate"
    usual = Usual(balance=Decimal(100), concurrency=20, latency_s={"image": 5.0, "video": 60.0})

    def __init__(self, world: World) -> None:
        self._world = world
        self._files = Uploaded(world)
        self._made = Recent(_MINUTE_MS)

    def routes(self) -> Sequence[Route]:
        """Every call."""
        one = "/replicate/v1/predictions/{id}"
        model = "/replicate/v1/models/{owner}/{model}"
        return [
            Route("POST", f"{model}/predictions", self._create_of_model, Call.CREATE),
            Route("POST", "/replicate/v1/predictions", self._create_of_version, Call.CREATE),
            Route(
                "POST",
                "/replicate/v1/deployments/{owner}/{model}/predictions",
                self._no_deployment,
                Call.READ,
            ),
            Route("GET", "/replicate/v1/predictions", self._list, Call.READ),
            Route("GET", one, self._get, Call.READ),
            Route("POST", f"{one}/cancel", self._cancel, Call.CANCEL),
            Route("GET", model, self._model, Call.ACCOUNT),
            Route("GET", "/replicate/v1/account", self._account, Call.ACCOUNT),
            Route("GET", "/replicate/v1/webhooks/default/secret", self._secret, Call.ACCOUNT),
            *self._files.routes(),
        ]

    def key_of(self, request: web.Request) -> str:
        """The token of the Authorization header."""
        return bearer(request)

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        """In Replicate's words."""
        if fault in {Fault.RATE_LIMITED, Fault.RATE_LIMITED_WAIT}:
            return answer(problems.throttled(None if wait_s is None else round(wait_s)))
        return answer(_REFUSALS[fault])

    def over_concurrency(self, account: Account) -> web.Response:
        """Only an account that is told to refuse ever says so."""
        return answer(problems.throttled(None))

    def not_found(self) -> web.Response:
        """A path that leads nowhere."""
        return answer(problems.NOT_FOUND)

    def changed(self, task: Task) -> None:
        """Charges what a deadline cut off, and announces."""
        if task.state is State.EXPIRED and task.started_ms is not None:
            self._charge_run(task, task.changed_ms)
        announcing.announce(task, self._world)

    async def _create_of_model(self, exchange: Exchange) -> web.Response:
        match = exchange.request.match_info
        body = _body(exchange, _MEMBERS - {"version"})
        return await self._create(exchange, f"{match['owner']}/{match['model']}", body, problems.NOT_FOUND)

    async def _create_of_version(self, exchange: Exchange) -> web.Response:
        body = _body(exchange, _MEMBERS)
        version = body.get("version")
        if not isinstance(version, str):
            raise refused(problems.body_refused(["version"], missing=True))
        return await self._create(exchange, version.partition(":")[0], body, problems.NO_VERSION)

    async def _create(
        self, exchange: Exchange, name: str, body: Mapping[str, Any], unknown: problems.Problem
    ) -> web.Response:
        model = MODELS.get(name)
        if model is None:
            raise refused(unknown)
        given = body.get("input")
        if not isinstance(given, dict):
            raise refused(problems.body_refused(["input"], missing=True))
        _check_webhook(body)
        if flaws := model.flaws(given):
            raise refused(problems.input_refused(flaws))
        if exchange.account.is_spent():
            raise refused(problems.INSUFFICIENT, "balance")
        self._throttle(exchange)
        task = self._accept(exchange, model, body, given)
        code = await self._held(exchange, task)
        return web.json_response(prediction.shown(task, self._world), status=code)

    def _accept(
        self, exchange: Exchange, model: Model, body: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Task:
        facts: dict[str, Any] = {
            "input": dict(given),
            "webhook": body.get("webhook") or "",
            "events": body.get("webhook_events_filter") or ["output", "completed"],
        }
        if Fault.MODERATED_BEFORE in exchange.faults:
            # Inputs are looked at by the model, and so by a prediction that was accepted.
            exchange.faults = exchange.faults - {Fault.MODERATED_BEFORE} | {Fault.MODERATED_AFTER}
        elif lost := next(
            (url for url in _references(given) if not self._files.is_reachable(exchange, url)), None
        ):
            facts["error"] = f"Failed to download input file {lost[:200]}"
            exchange.faults = exchange.faults | {Fault.GENERATION_FAILED}
        deadline_s = _seconds(exchange.request.headers.get("Cancel-After"))
        return exchange.accept(
            self._world.new_word(_ID_LENGTH),
            kind="image" if model.is_list else "video",
            model=model.name,
            prompt=str(given["prompt"]),
            drawings=model.drawings(given),
            cost=model.price(given),
            charge=Charge.ON_SUCCESS,
            facts=facts,
            output_lifetime_s=prediction.KEPT_S,
            expires_s=_RUN_LIMIT_S if deadline_s is None else min(_RUN_LIMIT_S, deadline_s),
        )

    async def _held(self, exchange: Exchange, task: Task) -> int:
        """201, or 202 when the client waited and it has not ended. Raises Gone."""
        found = _PREFER.fullmatch(exchange.request.headers.get("Prefer", ""))
        if found is None:
            return 201
        wait_s = min(_WAIT_LIMIT_S, max(1, int(found[1] or _WAIT_LIMIT_S)))
        try:
            async with asyncio.timeout(wait_s):
                await exchange.finished(task)
        except TimeoutError:
            return 202
        return 201

    def _throttle(self, exchange: Exchange) -> None:
        account, now_ms = exchange.account, exchange.now_ms
        made = self._made.of(account, now_ms)
        # Where work is done faster than there, more of it fits into a minute.
        limit = round(_PER_MINUTE.get(account.plan, _USUAL_PER_MINUTE) * max(1.0, self._world.pace))
        if len(made) >= limit:
            wait_s = max(1, -(-(made[0] + _MINUTE_MS - now_ms) // 1000))
            raise refused(problems.throttled(wait_s), "rate")
        made.append(now_ms)

    async def _list(self, exchange: Exchange) -> web.Response:
        try:
            start = int(exchange.request.query.get("cursor", 0))
        except ValueError:
            raise refused(problems.NOT_FOUND) from None
        tasks = self._world.tasks.of_account(exchange.account)
        page = f"{exchange.base_url}/replicate/v1/predictions?cursor="
        return web.json_response(
            {
                "previous": f"{page}{max(0, start - _PAGE)}" if start else None,
                "next": f"{page}{start + _PAGE}" if start + _PAGE < len(tasks) else None,
                "results": [prediction.in_list(task, self._world) for task in tasks[start : start + _PAGE]],
            }
        )

    async def _get(self, exchange: Exchange) -> web.Response:
        return web.json_response(prediction.shown(self._found(exchange), self._world))

    async def _cancel(self, exchange: Exchange) -> web.Response:
        task = self._found(exchange)
        if task.state not in ENDED:
            self._charge_run(task, exchange.now_ms)
            self._world.tasks.cancel(task, exchange.now_ms, refund=False)
        return web.json_response(prediction.shown(task, self._world))

    def _charge_run(self, task: Task, now_ms: int) -> None:
        """What ran is paid, as far as it ran."""
        if task.started_ms is None:
            return
        share = Decimal(min(1.0, (now_ms - task.started_ms) / max(task.length_ms, 1)))
        task.charged = (task.cost * share).quantize(Decimal("0.001"))
        task.account.charge(task.charged)

    def _found(self, exchange: Exchange) -> Task:
        task = self._world.tasks.find(exchange.account, exchange.request.match_info["id"])
        if task is None:
            raise refused(problems.NOT_FOUND)
        return task

    async def _model(self, exchange: Exchange) -> web.Response:
        match = exchange.request.match_info
        model = MODELS.get(f"{match['owner']}/{match['model']}")
        if model is None:
            raise refused(problems.NOT_FOUND)
        return web.json_response(
            {
                "url": f"https://replicate.com/{model.name}",
                "owner": match["owner"],
                "name": match["model"],
                "description": None,
                "visibility": "public",
                "is_official": True,
                "run_count": len(self._world.tasks.all()),
                "latest_version": {
                    "id": model.version,
                    "created_at": _RELEASED,
                    "cog_version": "0.16.0",
                    "openapi_schema": model.schema(),
                },
            }
        )

    async def _no_deployment(self, exchange: Exchange) -> web.Response:
        raise refused(problems.NOT_FOUND)

    async def _account(self, exchange: Exchange) -> web.Response:
        label = exchange.account.label
        return web.json_response(
            {"type": "organization", "username": label, "name": label, "github_url": None}
        )

    async def _secret(self, exchange: Exchange) -> web.Response:
        return web.json_response({"key": secret_of(self._world.seed, exchange.account.user_id)})


def _body(exchange: Exchange, members: frozenset[str]) -> dict[str, Any]:
    try:
        body = exchange.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise refused(problems.Problem(400, "Bad request", "The request body is not a JSON object."))
    if unknown := sorted(set(body) - members):
        raise refused(problems.body_refused(unknown))
    return body


def _check_webhook(body: Mapping[str, Any]) -> None:
    webhook, events = body.get("webhook"), body.get("webhook_events_filter")
    is_address = webhook is None or (
        isinstance(webhook, str) and webhook.startswith(("https://", "http://127.0.0.1", "http://localhost"))
    )
    is_filter = events is None or (isinstance(events, list) and all(event in _EVENTS for event in events))
    if not (is_address and is_filter):
        raise refused(
            problems.Problem(422, "Input validation failed", "- webhook: Must be a valid HTTPS URL\n")
        )


def _references(given: Mapping[str, Any]) -> list[str]:
    found = [given[name] for name in REFERENCE_FIELDS if given.get(name)]
    return [url for value in found for url in (value if isinstance(value, list) else [value])]


def _seconds(text: str | None) -> float | None:
    """`90s`, `5m`, `1h`, or seconds; None without a deadline."""
    if text is None:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise refused(problems.Problem(400, "Bad request", "Cancel-After is not a duration."))
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


_REFUSALS: Final = {
    Fault.UNAUTHORIZED: problems.UNAUTHENTICATED,
    Fault.PAYMENT_REQUIRED: problems.INSUFFICIENT,
    Fault.FORBIDDEN: problems.FORBIDDEN,
    Fault.SERVER_ERROR: problems.UNAVAILABLE,
    Fault.OVERLOADED: problems.UNAVAILABLE,
}
