"""Ark's calls: tasks that are created, read, listed, cancelled; images at once; chat."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.chassis.clock import rfc3339
from services.simulator.accounts import Account, Usual
from services.simulator.ark import errors, orders
from services.simulator.drawings import Film
from services.simulator.faults import Call, Fault
from services.simulator.openai.chat import completed, order_of
from services.simulator.provider import Exchange, Refused, Route, bearer
from services.simulator.tasks import Charge, State, Task
from services.simulator.world import World

_BASE: Final = "/ark/api/v3"
_TASKS: Final = f"{_BASE}/contents/generations/tasks"
_OUTPUT_LIFETIME_S: Final = 24 * 3600.0
_KEPT_MS: Final = 7 * 24 * 3600 * 1000
_STATUS: Final = {
    State.QUEUED: "queued",
    State.RUNNING: "running",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELED: "cancelled",
    State.EXPIRED: "expired",
}
# A callback must be acknowledged within 5 s and is tried three times more.
_HOOK_TIMEOUT_S: Final = 5.0
_HOOK_WAITS_S: Final = (1.0, 2.0, 4.0)
_PAGE_LIMIT: Final = 500
_CHAT_MODELS: Final = frozenset({"seed-1-8-251228", "seed-1-6-250915", "doubao-seed-1-8-251228"})


class Ark:
    """One provider in a world."""

    name: Final = "ark"
    usual: Final = Usual(
        balance=Decimal(50),
        concurrency=3,
        latency_s={"video": 120.0, "image": 10.0, "text": 5.0},
        overflow="queue",
        plan="default",
    )

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> Sequence[Route]:
        return [
            Route("POST", _TASKS, self._create, Call.CREATE),
            Route("GET", _TASKS, self._list, Call.READ),
            Route("GET", f"{_TASKS}/{{id}}", self._read, Call.READ),
            Route("DELETE", f"{_TASKS}/{{id}}", self._cancel, Call.CANCEL),
            Route("POST", f"{_BASE}/images/generations", self._images, Call.CREATE),
            Route("POST", f"{_BASE}/chat/completions", self._chat, Call.CREATE),
        ]

    def key_of(self, request: web.Request) -> str:
        return bearer(request)

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        return errors.of_fault(fault, wait_s)

    def over_concurrency(self, account: Account) -> web.Response:
        text = "The number of requests under way exceeds the limit of the model."
        return errors.error(429, "RateLimitExceeded.EndpointRPMExceeded", text)

    def not_found(self) -> web.Response:
        return errors.error(404, "InvalidAction", "The requested action does not exist.")

    def changed(self, task: Task) -> None:
        url = task.facts.get("callback_url")
        if isinstance(url, str) and task.state is not State.CANCELED:
            body = json.dumps(self._shown(task, task.changed_ms)).encode()
            headers = {"Content-Type": "application/json"}
            self._world.hooks.send(
                self.name, url, lambda _: (body, headers), waits_s=_HOOK_WAITS_S, timeout_s=_HOOK_TIMEOUT_S
            )

    async def _create(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        order = orders.task_order(body)
        if order.draft_id:
            self._check_draft(exchange.account, order.draft_id)
        self._check_account(exchange.account, order.model)
        stamp = rfc3339(exchange.now_ms)[:19].replace("-", "").replace(":", "").replace("T", "")
        task = exchange.accept(
            f"cgt-{stamp}-{self._world.new_word(5)}",
            kind="video",
            model=order.model,
            prompt=order.prompt,
            drawings=order.drawings,
            cost=order.usd,
            charge=Charge.ON_SUCCESS,
            facts={
                "shown": order.shown,
                "tokens": order.tokens,
                "seed": -1 if body.get("seed") is None else body["seed"],
                "callback_url": body.get("callback_url"),
            },
            output_lifetime_s=_OUTPUT_LIFETIME_S,
            expires_s=order.expires_s,
        )
        answer = {"id": task.id}
        if body.get("safety_identifier"):
            answer["safety_identifier"] = body["safety_identifier"]
        return self._answered(answer)

    def _check_account(self, account: Account, model: str) -> None:
        if account.is_spent():
            raise Refused(errors.of_fault(Fault.PAYMENT_REQUIRED, None), "balance")
        if model in account.options.get("closed_models", ()):
            text = f"Your account has not activated the model {model}."
            raise Refused(errors.error(404, "ModelNotOpen", text), "model")

    def _check_draft(self, account: Account, draft_id: str) -> None:
        task = self._world.tasks.find(account, draft_id)
        if task is None or task.state is not State.SUCCEEDED or not task.facts["shown"]["draft"]:
            raise errors.invalid("content", "the draft is not there")

    def _answered(self, body: Any) -> web.Response:
        return web.json_response(body, headers={"X-Request-Id": self._world.new_word(32, "0123456789abcdef")})

    def _shown(self, task: Task, now_ms: int) -> dict[str, Any]:
        status = _STATUS[task.shown(now_ms)]
        seed = task.facts["seed"]
        shown: dict[str, Any] = {
            "id": task.id,
            "model": task.model,
            "status": status,
            "error": None,
            "created_at": task.created_ms // 1000,
            "updated_at": task.changed_ms // 1000,
        }
        if task.state is State.SUCCEEDED:
            shown["content"] = self._content(task)
            shown["usage"] = {
                "completion_tokens": task.facts["tokens"],
                "total_tokens": task.facts["tokens"],
            }
            shown["seed"] = task.seed if seed == -1 else seed
        elif task.state is State.FAILED:
            shown["error"] = _failure(task)
        shown.update(task.facts["shown"])
        return shown

    @staticmethod
    def _content(task: Task) -> dict[str, str]:
        names = {True: "video_url", False: "last_frame_url"}
        return {names[isinstance(file.drawing, Film)]: file.url(task.base_url) for file in task.files}

    def _found(self, exchange: Exchange) -> Task:
        task_id = exchange.request.match_info["id"]
        task = self._world.tasks.find(exchange.account, task_id)
        if task is None or task.kind != "video" or exchange.now_ms - task.created_ms > _KEPT_MS:
            raise errors.not_found(task_id)
        return task

    async def _read(self, exchange: Exchange) -> web.Response:
        return self._answered(self._shown(self._found(exchange), exchange.now_ms))

    async def _list(self, exchange: Exchange) -> web.Response:
        query, now_ms = exchange.request.query, exchange.now_ms
        try:
            page, size = int(query.get("page_num", 1)), int(query.get("page_size", 20))
        except ValueError:
            raise errors.invalid("page_num", "a number is needed") from None
        if not (1 <= page <= _PAGE_LIMIT and 1 <= size <= _PAGE_LIMIT):
            raise errors.invalid("page_size", f"1 to {_PAGE_LIMIT}")
        wanted = set(query.getall("filter.task_ids", ()))
        filters = {
            name: query[f"filter.{name}"]
            for name in ("status", "model", "service_tier")
            if f"filter.{name}" in query
        }
        found = [
            self._shown(task, now_ms)
            for task in self._world.tasks.of_account(exchange.account)
            if task.kind == "video"
            and now_ms - task.created_ms <= _KEPT_MS
            and (not wanted or task.id in wanted)
        ]
        found = [shown for shown in found if all(shown.get(name) == value for name, value in filters.items())]
        items = found[(page - 1) * size : page * size]
        return self._answered({"total": len(found), "items": items})

    async def _cancel(self, exchange: Exchange) -> web.Response:
        task = self._found(exchange)
        match task.state:
            case State.QUEUED:
                self._world.tasks.cancel(task, exchange.now_ms)
            case State.RUNNING:
                text = f"The task {task.id} is running and cannot be cancelled."
                raise Refused(errors.error(409, "TaskRunningCannotCancel", text), "running")
            case State.CANCELED:
                raise errors.invalid("id", "the task is cancelled already")
            case _:
                task.is_deleted = True
        return self._answered({})

    async def _images(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        order = orders.image_order(body)
        self._check_account(exchange.account, order.model)
        task = await exchange.finished(
            exchange.accept(
                f"img-{self._world.new_word(16)}",
                kind="image",
                model=order.model,
                prompt=order.prompt,
                drawings=order.drawings,
                cost=order.usd,
                charge=Charge.ON_SUCCESS,
                output_lifetime_s=_OUTPUT_LIFETIME_S,
            )
        )
        if task.state is not State.SUCCEEDED:
            raise Refused(_failed_at_once(task), "failed")
        data = [await self._image(exchange, task, number, body) for number in range(len(task.files))]
        return self._answered(
            {
                "model": task.model,
                "created": task.changed_ms // 1000,
                "data": [{**image, **order.shown} for image in data],
                "usage": {
                    "generated_images": len(data),
                    "output_tokens": order.tokens,
                    "total_tokens": order.tokens,
                },
            }
        )

    async def _image(self, exchange: Exchange, task: Task, number: int, body: Any) -> dict[str, str]:
        file = task.files[number]
        if body.get("response_format") == "b64_json":
            content = await self._world.studio.draw(file.drawing)
            return {"b64_json": base64.b64encode(content).decode()}
        return {"url": file.url(task.base_url)}

    async def _chat(self, exchange: Exchange) -> web.Response:
        order = order_of(_object(exchange), _CHAT_MODELS)
        if isinstance(order, str):
            raise errors.invalid(order, "the value is not allowed")
        self._check_account(exchange.account, order.model)
        task = await completed(exchange, order, f"chatcmpl-{self._world.new_word(24)}")
        if task.state is not State.SUCCEEDED:
            raise Refused(_failed_at_once(task), "failed")
        return order.answer(task)


def _failure(task: Task) -> dict[str, str]:
    if task.is_moderated:
        text = "The request failed because the output video may contain sensitive information."
        return {"code": "OutputVideoSensitiveContentDetected", "message": text}
    text = "The service encountered an unexpected internal error."
    return {"code": "InternalServiceError", "message": text}


def _failed_at_once(task: Task) -> web.Response:
    if task.is_moderated:
        text = "The request failed because the output image may contain sensitive information."
        return errors.error(400, "OutputImageSensitiveContentDetected", text)
    return errors.of_fault(Fault.SERVER_ERROR, None)


def _object(exchange: Exchange) -> dict[str, Any]:
    try:
        body = exchange.json()
    except ValueError:
        raise errors.invalid("body", "the body is no JSON") from None
    if not isinstance(body, dict):
        raise errors.invalid("body", "the body is no object")
    return body
