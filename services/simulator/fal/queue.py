"""The queue: submit, status, result, cancel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.simulator.fal import errors, outcome
from services.simulator.fal.endpoints import ENDPOINTS, REFERENCE_FIELDS, Endpoint
from services.simulator.fal.storage import Storage
from services.simulator.faults import Call, Fault
from services.simulator.provider import Exchange, Refused, Route
from services.simulator.tasks import ENDED, Charge, State, Task
from services.simulator.world import World

# Of a deadline to start, in seconds.
_LEAST_TIMEOUT_S: Final = 0.1


def answer(refusal: errors.Refusal) -> web.Response:
    """A refusal as a response."""
    return web.json_response(refusal.body, status=refusal.status, headers=refusal.all_headers())


def refused(refusal: errors.Refusal, reason: str = "request") -> Refused:
    """A refusal, to be raised."""
    return Refused(answer(refusal), reason)


class Queue:
    """Everything under queue.fal.run."""

    def __init__(self, world: World, storage: Storage) -> None:
        self._world = world
        self._storage = storage

    def routes(self) -> list[Route]:
        """Submissions keep the whole path of an endpoint, all else only its first two parts."""
        request = "/fal/queue/{owner}/{app}/requests/{id}"
        return [
            Route("POST", "/fal/queue/{endpoint:.+}", self._submit, Call.CREATE),
            Route("GET", f"{request}/status", self._status, Call.READ),
            Route("GET", f"{request}/status/stream", self._stream, Call.READ),
            Route("GET", request, self._result, Call.READ),
            Route("PUT", f"{request}/cancel", self._cancel, Call.CANCEL),
        ]

    async def _submit(self, exchange: Exchange) -> web.Response:
        endpoint = ENDPOINTS.get(exchange.request.match_info["endpoint"])
        if endpoint is None:
            raise refused(errors.NO_ENDPOINT)
        try:
            body = exchange.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise refused(errors.request_refused(400, "The request body is not a JSON object", "bad_request"))
        if exchange.account.is_spent():
            raise refused(errors.EXHAUSTED, "balance")
        task = self._accept(exchange, endpoint, body)
        url = outcome.address(task)
        return web.json_response(
            {
                "status": "IN_QUEUE",
                "request_id": task.id,
                "gateway_request_id": task.id,
                "response_url": url,
                "status_url": f"{url}/status",
                "cancel_url": f"{url}/cancel",
                "logs": None,
                "metrics": {},
                "queue_position": 0,
            },
            headers={"x-fal-request-id": task.id},
        )

    def _accept(self, exchange: Exchange, endpoint: Endpoint, body: Mapping[str, Any]) -> Task:
        """Every object is accepted: what is wrong with an input, the result says."""
        refusal = self._refusal(exchange, endpoint, body)
        is_video = endpoint.id.startswith("bytedance/")
        facts: dict[str, Any] = {
            "app": endpoint.app,
            "input": dict(body),
            "webhook": exchange.request.query.get("fal_webhook", ""),
            "is_stored": exchange.request.headers.get("X-Fal-Store-IO") != "0",
            "start_within_s": _deadline_s(exchange),
            "seed": body.get("seed") or self._world.chance.randrange(2**31),
        }
        if refusal is not None:
            facts["findings"] = refusal.body["detail"]
            # It ends at once, and nothing is charged.
            exchange.faults = frozenset({Fault.GENERATION_FAILED}) | (exchange.faults & {Fault.STUCK})
        return exchange.accept(
            self._world.new_uuid(),
            kind="video" if is_video else "image",
            model=endpoint.id,
            prompt=str(body.get("prompt") or ""),
            drawings=() if refusal else endpoint.drawings(body),
            cost=endpoint.price(body) if refusal is None else Decimal(0),
            charge=Charge.ON_SUCCESS,
            facts=facts,
            output_lifetime_s=_lifetime_s(exchange),
        )

    def _refusal(
        self, exchange: Exchange, endpoint: Endpoint, body: Mapping[str, Any]
    ) -> errors.Refusal | None:
        if flaws := endpoint.flaws(body):
            return errors.input_refused(flaws)
        for name in REFERENCE_FIELDS:
            given = body.get(name)
            for url in given if isinstance(given, list) else [given] if given else []:
                if not self._storage.is_reachable(exchange, str(url)):
                    message = (
                        "Failed to download the file. Please check if the URL is accessible and try again."
                    )
                    return errors.model_refused(("body", name), message, "file_download_error", url)
        if Fault.MODERATED_BEFORE in exchange.faults:
            message = "The prompt was flagged by a content checker."
            prompt = body.get("prompt")
            return errors.model_refused(("body", "prompt"), message, "content_policy_violation", prompt)
        return None

    async def _status(self, exchange: Exchange) -> web.Response:
        task = self._found(exchange)
        with_logs = exchange.request.query.get("logs", "").lower() in {"1", "true"}
        code, body = outcome.status(task, self._world, with_logs=with_logs)
        return web.json_response(body, status=code, headers={"x-fal-request-id": task.id})

    async def _stream(self, exchange: Exchange) -> web.Response:
        task = self._found(exchange)
        _, first = outcome.status(task, self._world, with_logs=True)
        await exchange.finished(task)
        _, last = outcome.status(task, self._world, with_logs=True)
        events = [first] if first == last else [first, last]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        return web.Response(text=text, content_type="text/event-stream")

    async def _result(self, exchange: Exchange) -> web.Response:
        task = self._found(exchange)
        if task.state not in ENDED:
            raise refused(errors.IN_PROGRESS)
        if outcome.is_purged(task, exchange.now_ms):
            raise refused(errors.PURGED)
        if failure := outcome.failure_of(task):
            raise refused(failure, "failed")
        units = ENDPOINTS[task.model].units(task.facts["input"])
        headers = {"x-fal-request-id": task.id, "x-fal-billable-units": str(units)}
        return web.json_response(await outcome.result(task, self._world), headers=headers)

    async def _cancel(self, exchange: Exchange) -> web.Response:
        task = self._find(exchange)
        if task is None:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        if task.state in ENDED:
            return web.json_response({"status": "ALREADY_COMPLETED"}, status=400)
        self._world.tasks.cancel(task, exchange.now_ms)
        return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202)

    def _found(self, exchange: Exchange) -> Task:
        task = self._find(exchange)
        if task is None:
            raise refused(errors.NO_REQUEST)
        return task

    def _find(self, exchange: Exchange) -> Task | None:
        match = exchange.request.match_info
        task = self._world.tasks.find(exchange.account, match["id"])
        if task is None or task.facts["app"] != f"{match['owner']}/{match['app']}":
            return None
        within_s = task.facts["start_within_s"]
        is_late = within_s is not None and exchange.now_ms - task.created_ms >= within_s * 1000
        if is_late and task.state is State.QUEUED:
            task.facts["is_late"] = True
            self._world.tasks.cancel(task, exchange.now_ms)
        return task


def _deadline_s(exchange: Exchange) -> float | None:
    given = exchange.request.headers.get("X-Fal-Request-Timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if seconds <= _LEAST_TIMEOUT_S:
        raise refused(errors.request_refused(400, "X-Fal-Request-Timeout must be above 0.1", "bad_request"))
    return seconds


def _lifetime_s(exchange: Exchange) -> float | None:
    given = exchange.request.headers.get("X-Fal-Object-Lifecycle-Preference", "{}")
    try:
        seconds = json.loads(given).get("expiration_duration_seconds")
    except (ValueError, AttributeError):
        return None
    return float(seconds) if isinstance(seconds, int | float) else None
