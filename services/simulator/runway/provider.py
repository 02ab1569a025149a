"""Runway as a provider of the simulator."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.faults import Call, Fault
from services.simulator.provider import Exchange, Handler, Refused, Route, bearer
from services.simulator.recent import Recent
from services.simulator.runway import errors, models
from services.simulator.runway import tasks as shown_tasks
from services.simulator.tasks import ENDED, Charge, State, Task
from services.simulator.world import World

_VERSION: Final = "2024-11-06"
_DAY_MS: Final = 24 * 3600 * 1000
# Of the largest tier; an account can be told of fewer.
_DAILY: Final = 30_000
_MONTHLY_CREDITS: Final = 1_000_000
# An upload takes its file for so long, and can be used for so long.
_FORM_S: Final = 3600.0
_UPLOAD_MS: Final = _DAY_MS


class Runway:
    """Tasks, uploads and the organization, under `/runway/v1`.

    Slots are counted for the whole account, where Runway counts them for each model.
    Option of an account: `daily_generations`, of each model.
    """

    name = "runway"
    usual = Usual(balance=Decimal(10_000), concurrency=5, latency_s={"image": 12.0, "video": 75.0})

    def __init__(self, world: World) -> None:
        self._world = world
        self._made = Recent(_DAY_MS)

    def routes(self) -> Sequence[Route]:
        """Every call; each asks for the version's header first."""
        v1 = "/runway/v1"
        return [
            Route("POST", f"{v1}/text_to_video", self._versioned(self._text_to_video), Call.CREATE),
            Route("POST", f"{v1}/image_to_video", self._versioned(self._image_to_video), Call.CREATE),
            Route("POST", f"{v1}/text_to_image", self._versioned(self._text_to_image), Call.CREATE),
            Route("GET", f"{v1}/tasks/{{id}}", self._versioned(self._get), Call.READ),
            Route("DELETE", f"{v1}/tasks/{{id}}", self._versioned(self._delete), Call.CANCEL),
            Route("POST", f"{v1}/uploads", self._versioned(self._upload), Call.UPLOAD),
            Route("GET", f"{v1}/organization", self._versioned(self._organization), Call.ACCOUNT),
        ]

    def key_of(self, request: web.Request) -> str:
        """The key of the Authorization header."""
        return bearer(request)

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        """In Runway's words; too few credits are a bad request."""
        if fault in {Fault.RATE_LIMITED, Fault.RATE_LIMITED_WAIT}:
            return _answer(errors.too_many(None if wait_s is None else round(wait_s)))
        return _answer(_REFUSALS[fault])

    def over_concurrency(self, account: Account) -> web.Response:
        """Only an account that is told to refuse ever says so: tasks are throttled."""
        return _answer(errors.too_many(None))

    def not_found(self) -> web.Response:
        """A path that leads nowhere."""
        return _answer(errors.NOT_FOUND)

    def changed(self, task: Task) -> None:
        """There are no webhooks."""

    def _versioned(self, handler: Handler) -> Handler:
        async def checked(exchange: Exchange) -> web.Response:
            if exchange.request.headers.get("X-Runway-Version") != _VERSION:
                raise _refused(errors.NO_VERSION)
            return await handler(exchange)

        return checked

    async def _text_to_video(self, exchange: Exchange) -> web.Response:
        return self._create(exchange, "text_to_video")

    async def _image_to_video(self, exchange: Exchange) -> web.Response:
        return self._create(exchange, "image_to_video")

    async def _text_to_image(self, exchange: Exchange) -> web.Response:
        return self._create(exchange, "text_to_image")

    def _create(self, exchange: Exchange, route: models.Route) -> web.Response:
        body = _body(exchange)
        order = models.judge(route, body)
        if isinstance(order, list):
            raise _refused(errors.body_refused(order))
        for place, url in models.references_of(body):
            if not self._is_reachable(exchange, url):
                raise _refused(errors.asset_refused(place, "Failed to fetch the asset."), "asset")
        self._count(exchange, order.model)
        if not exchange.account.affords(Decimal(order.credits)):
            raise _refused(errors.NO_CREDITS, "balance")
        task = self._accept(exchange, route, order)
        return web.json_response({"id": task.id, "estimatedCost": {"credits": order.credits}})

    def _accept(self, exchange: Exchange, route: models.Route, order: models.Order) -> Task:
        charge, facts = Charge.AT_SUBMIT_REFUNDED, {}
        if Fault.MODERATED_BEFORE in exchange.faults:
            # Inputs are looked at when a task was accepted and paid, and are not paid back.
            exchange.faults = exchange.faults - {Fault.MODERATED_BEFORE} | {Fault.MODERATED_AFTER}
            charge, facts = Charge.AT_SUBMIT, {"failure_code": "SAFETY.INPUT.TEXT"}
        return exchange.accept(
            self._world.new_uuid(),
            kind="image" if route == "text_to_image" else "video",
            model=order.model,
            prompt=order.prompt,
            drawings=order.drawings,
            cost=Decimal(order.credits),
            charge=charge,
            facts=facts,
            output_lifetime_s=shown_tasks.LINK_S,
        )

    def _count(self, exchange: Exchange, model: str) -> None:
        """Raises Refused above the generations of a day."""
        made = self._made.of(exchange.account, exchange.now_ms, model)
        if len(made) >= _daily(exchange.account):
            raise _refused(errors.daily_limit(model), "daily")
        made.append(exchange.now_ms)

    def _is_reachable(self, exchange: Exchange, url: str) -> bool:
        if url.startswith("runway://"):
            upload = self._world.uploads.find(self.name, exchange.account.key, url.removeprefix("runway://"))
            arrived_ms = None if upload is None else upload.arrived_ms
            return arrived_ms is not None and exchange.now_ms < arrived_ms + _UPLOAD_MS
        return url.startswith(("https://", "http://127.0.0.1", "http://localhost", "data:"))

    async def _get(self, exchange: Exchange) -> web.Response:
        return web.json_response(shown_tasks.shown(self._found(exchange), self._world))

    async def _delete(self, exchange: Exchange) -> web.Response:
        """Cancels what has not ended and deletes what has; what had begun stays paid."""
        task = self._found(exchange)
        if task.state in ENDED:
            task.is_deleted = True
        else:
            self._world.tasks.cancel(task, exchange.now_ms, refund=task.state is State.QUEUED)
        return web.Response(status=204)

    def _found(self, exchange: Exchange) -> Task:
        task = self._world.tasks.find(exchange.account, exchange.request.match_info["id"])
        if task is None:
            raise _refused(errors.NO_TASK)
        return task

    async def _upload(self, exchange: Exchange) -> web.Response:
        body = _body(exchange)
        name = body.get("filename")
        if not isinstance(name, str) or "." not in name or body.get("type") != "ephemeral":
            raise _refused(errors.asset_refused("filename", "filename and type are required"))
        upload = self._world.uploads.open(
            self.name,
            exchange.account.key,
            self._world.new_word(32),
            content_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
            extension=name.rpartition(".")[2][:8],
            now_ms=exchange.now_ms,
            lifetime_s=_FORM_S,
        )
        return web.json_response(
            {
                "uploadUrl": upload.url(exchange.base_url),
                "fields": upload.fields,
                "runwayUri": f"runway://{upload.id}",
            }
        )

    async def _organization(self, exchange: Exchange) -> web.Response:
        account, now_ms = exchange.account, exchange.now_ms
        limits = {
            "maxConcurrentGenerations": account.concurrency,
            "maxDailyGenerations": _daily(account),
        }
        usage = {
            model: {"dailyGenerations": len(self._made.of(account, now_ms, model))} for model in models.MODELS
        }
        balance = _MONTHLY_CREDITS if account.balance is None else int(account.balance)
        tier = {"maxMonthlyCreditSpend": _MONTHLY_CREDITS, "models": dict.fromkeys(models.MODELS, limits)}
        return web.json_response({"creditBalance": balance, "tier": tier, "usage": {"models": usage}})


def _daily(account: Account) -> int:
    return int(account.options.get("daily_generations", _DAILY))


def _body(exchange: Exchange) -> dict[str, Any]:
    try:
        body = exchange.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _refused(errors.NOT_JSON)
    return body


def _answer(refusal: errors.Refusal) -> web.Response:
    return web.json_response(refusal.body(), status=refusal.status, headers=dict(refusal.headers))


def _refused(refusal: errors.Refusal, reason: str = "request") -> Refused:
    return Refused(_answer(refusal), reason)


_REFUSALS: Final = {
    Fault.UNAUTHORIZED: errors.UNAUTHORIZED,
    Fault.PAYMENT_REQUIRED: errors.NO_CREDITS,
    Fault.FORBIDDEN: errors.FORBIDDEN,
    Fault.SERVER_ERROR: errors.UNAVAILABLE,
    Fault.OVERLOADED: errors.UNAVAILABLE,
}
