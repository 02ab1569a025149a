"""OpenAI's calls: all of them answer with the work itself, while the socket is held."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.drawings import Sound
from services.simulator.faults import Call, Fault
from services.simulator.field_rules import Field, flaws_of
from services.simulator.openai import errors, images
from services.simulator.openai.chat import completed, order_of
from services.simulator.openai.images import ImageOrder
from services.simulator.openai.models import ALL, CHAT_MODELS, SPEECH_MODELS, Model, open_model
from services.simulator.provider import Exchange, Refused, Route, bearer
from services.simulator.tasks import Charge, State, Task
from services.simulator.world import World

_BASE: Final = "/openai/v1"
# Requests a minute, as the first paid tier has them.
_RPM: Final = 500
_TPM: Final = 250_000
_MINUTE_MS: Final = 60_000
_SPEECH: Final = {
    "model": Field("string", required=True),
    "input": Field("string", required=True, low=1, high=4096),
    "voice": Field("any", required=True),
    "instructions": Field("string"),
    "response_format": Field("string", choices=("mp3", "opus", "aac", "flac", "wav", "pcm")),
    "speed": Field("number", low=0.25, high=4),
    "stream_format": Field("string", choices=("audio", "sse")),
}
_VOICES: Final = frozenset(
    [
        "alloy",
        "ash",
        "ballad",
        "cedar",
        "coral",
        "echo",
        "fable",
        "marin",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
    ]
)
_SPEECH_USD: Final = Decimal("0.000015")
_NOT_A_PICTURE: Final = b"<!DOCTYPE html><title>Not what you expected</title>"


class OpenAi:
    """One provider in a world."""

    name: Final = "openai"
    usual: Final = Usual(
        balance=Decimal(100),
        concurrency=20,
        latency_s={"image": 30.0, "text": 6.0, "voice": 5.0},
        overflow="refuse",
        plan="tier-1",
    )

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked_ms: dict[str, deque[int]] = {}

    def routes(self) -> Sequence[Route]:
        return [
            Route("POST", f"{_BASE}/images/generations", self._generate, Call.CREATE),
            Route("POST", f"{_BASE}/images/edits", self._edit, Call.CREATE),
            Route("POST", f"{_BASE}/chat/completions", self._chat, Call.CREATE),
            Route("POST", f"{_BASE}/audio/speech", self._speak, Call.CREATE),
            Route("GET", f"{_BASE}/models", self._models, Call.ACCOUNT),
            Route("GET", f"{_BASE}/models/{{id}}", self._model, Call.ACCOUNT),
        ]

    def key_of(self, request: web.Request) -> str:
        return bearer(request)

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        return errors.of_fault(fault, wait_s)

    def over_concurrency(self, account: Account) -> web.Response:
        return errors.of_fault(Fault.RATE_LIMITED, None)

    def not_found(self) -> web.Response:
        return errors.error(404, "Invalid URL")

    def changed(self, task: Task) -> None:
        """Nothing is told: whoever asked is still on the line."""

    async def _generate(self, exchange: Exchange) -> web.Response:
        return await self._drawn(exchange, images.generation_order(_object(exchange), self._today()))

    async def _edit(self, exchange: Exchange) -> web.Response:
        try:
            parts = exchange.form()
        except ValueError as fault:
            raise errors.invalid(None, f"Invalid body: {fault}") from None
        return await self._drawn(exchange, images.edit_order(parts, self._today()))

    async def _drawn(self, exchange: Exchange, order: ImageOrder) -> web.Response:
        headers = self._admitted(exchange)
        task = exchange.accept(
            f"img_{self._world.new_word(24)}",
            kind="image",
            model=order.model,
            prompt=order.prompt,
            drawings=order.pictures,
            cost=order.usd,
            charge=Charge.ON_SUCCESS,
            facts={"usage": order.usage},
        )
        self._check_end(await exchange.finished(task))
        files = [await self._encoded(task, number) for number in range(len(task.files))]
        if order.is_streamed:
            return _events(task, order, files, headers)
        body = {
            "created": task.created_ms // 1000,
            **order.shown,
            "data": [{"b64_json": content, "revised_prompt": None} for content in files],
            "usage": order.usage,
        }
        return web.json_response(body, headers=self._timed(headers, task))

    async def _encoded(self, task: Task, number: int) -> str:
        file = task.files[number]
        content = _NOT_A_PICTURE if file.has_wrong_type else await self._world.studio.draw(file.drawing)
        return base64.b64encode(content).decode()

    async def _chat(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        order = order_of(body, CHAT_MODELS)
        if order == "model" and isinstance(body.get("model"), str):
            raise errors.unknown_model(body["model"])
        if isinstance(order, str):
            raise errors.invalid(order, f"Invalid value for '{order}'.", "invalid_value")
        model = open_model(CHAT_MODELS, order.model, self._today())
        headers = self._admitted(exchange)
        usage = order.usage
        usd = model.rates.usd(usage["prompt_tokens"], 0, usage["completion_tokens"])
        task = await completed(exchange, order, f"chatcmpl-{self._world.new_word(24)}", usd)
        self._check_end(task)
        answer = order.answer(task)
        answer.headers.update(self._timed(headers, task))
        return answer

    async def _speak(self, exchange: Exchange) -> web.Response:
        body = _object(exchange)
        flaw = next(flaws_of(body, _SPEECH), None)
        if flaw is not None:
            raise errors.invalid(flaw.field, f"Invalid value for '{flaw.field}'.", "invalid_value")
        open_model(SPEECH_MODELS, body["model"], self._today())
        voice = body["voice"].get("id") if isinstance(body["voice"], dict) else body["voice"]
        if str(voice) not in _VOICES and not str(voice).startswith("voice_"):
            raise errors.invalid("voice", "Invalid value for 'voice'.", "invalid_value")
        headers = self._admitted(exchange)
        # About fifteen characters are spoken in a second.
        sound = Sound(max(1, len(body["input"]) // 15), body.get("response_format") or "mp3", rate_hz=24_000)
        task = exchange.accept(
            f"tts_{self._world.new_word(24)}",
            kind="voice",
            model=body["model"],
            prompt=body["input"],
            drawings=(sound,),
            cost=_SPEECH_USD * len(body["input"]),
            charge=Charge.ON_SUCCESS,
        )
        self._check_end(await exchange.finished(task))
        content = await self._world.studio.draw(sound)
        return web.Response(body=content, headers={**headers, "Content-Type": sound.content_type})

    def _admitted(self, exchange: Exchange) -> dict[str, str]:
        """The headers about limits. Raises Refused: nothing left to spend, too many requests a minute."""
        account, now_ms = exchange.account, exchange.now_ms
        if account.is_spent():
            raise Refused(errors.of_fault(Fault.PAYMENT_REQUIRED, None), "balance")
        limit = int(account.options.get("rpm", _RPM))
        asked = self._asked_ms.setdefault(account.key, deque())
        while asked and now_ms - asked[0] >= _MINUTE_MS:
            asked.popleft()
        reset_s = (asked[0] + _MINUTE_MS - now_ms) / 1000 if asked else 0.0
        # The usual limit is shown; only one that was set is kept to.
        if "rpm" in account.options and len(asked) >= limit:
            raise Refused(errors.of_fault(Fault.RATE_LIMITED, round(reset_s, 3)), "rate")
        asked.append(now_ms)
        return {
            "x-request-id": f"req_{self._world.new_word(32, '0123456789abcdef')}",
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(max(0, limit - len(asked))),
            "x-ratelimit-reset-requests": f"{reset_s:.3f}s",
            "x-ratelimit-limit-tokens": str(_TPM),
            "x-ratelimit-remaining-tokens": str(_TPM),
            "x-ratelimit-reset-tokens": "0s",
        }

    def _timed(self, headers: dict[str, str], task: Task) -> dict[str, str]:
        return headers | {"openai-processing-ms": str(self._world.now_ms() - task.created_ms)}

    @staticmethod
    def _check_end(task: Task) -> None:
        if task.is_moderated:
            raise Refused(errors.of_fault(Fault.MODERATED_AFTER, None), "moderated_after")
        if task.state is not State.SUCCEEDED:
            raise Refused(errors.of_fault(Fault.SERVER_ERROR, None), "failed")

    async def _models(self, exchange: Exchange) -> web.Response:
        today = self._today()
        data = [_model(name, one) for name, one in ALL.items() if one.ends is None or today < one.ends]
        return web.json_response({"object": "list", "data": data})

    async def _model(self, exchange: Exchange) -> web.Response:
        name = exchange.request.match_info["id"]
        return web.json_response(_model(name, open_model(ALL, name, self._today())))

    def _today(self) -> date:
        return datetime.fromtimestamp(self._world.now_ms() / 1000, UTC).date()


def _model(name: str, model: Model) -> dict[str, Any]:
    ends = None if model.ends is None else model.ends.isoformat()
    return {
        "id": name,
        "object": "model",
        "created": 1_776_729_600,
        "owned_by": "openai",
        "shutdown_date": ends,
    }


def _events(task: Task, order: ImageOrder, files: Sequence[str], headers: dict[str, str]) -> web.Response:
    kind = "image_edit" if order.is_edit else "image_generation"
    shown = {"created_at": task.created_ms // 1000, **order.shown}
    events: list[dict[str, Any]] = []
    for content in files:
        events += [
            {
                "type": f"{kind}.partial_image",
                "b64_json": content,
                "partial_image_index": index,
                **shown,
            }
            for index in range(order.partial_images)
        ]
        events.append({"type": f"{kind}.completed", "b64_json": content, **shown, "usage": order.usage})
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    return web.Response(text="".join(lines), content_type="text/event-stream", headers=headers)


def _object(exchange: Exchange) -> dict[str, Any]:
    try:
        body = exchange.json()
    except ValueError:
        raise errors.invalid(None, "We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise errors.invalid(None, "We could not parse the JSON body of your request.")
    return body
