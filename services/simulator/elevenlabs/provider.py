"""ElevenLabs as a provider of the simulator."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, cast

from aiohttp import web

from services.simulator.accounts import Account, Usual
from services.simulator.drawings import Sound, SoundFormat
from services.simulator.elevenlabs import books, errors, requests
from services.simulator.elevenlabs.requests import Order
from services.simulator.elevenlabs.voices import (
    CONCURRENCY,
    DEFAULT_FORMAT,
    DEFAULT_TIER,
    VOICES,
    AudioFormat,
    audio_format,
    has_tier,
    needed_tier,
)
from services.simulator.faults import Call, Fault
from services.simulator.field_rules import Flaw
from services.simulator.provider import Exchange, Refused, Route
from services.simulator.tasks import Charge, State, Task
from services.simulator.world import World

Judge = Callable[[Mapping[str, object]], Order | errors.Refusal | list[Flaw]]
_HTML: Final = "<!DOCTYPE html><title>Not what you expected</title>"


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of synchronous call."""

    name: str
    permission: str
    judge: Judge
    moderated: errors.Refusal
    default_format: str = DEFAULT_FORMAT
    is_music: bool = False


SPEECH: Final = Kind("voice", "text_to_speech", requests.speech, errors.MODERATED)
MUSIC: Final = Kind("music", "music_generation", requests.music, errors.BAD_PROMPT, "auto", is_music=True)
SOUND: Final = Kind("sound", "sound_generation", requests.sound, errors.MODERATED)


class ElevenLabs:
    """Speech, music, sound effects and the account, under `/elevenlabs`.

    Options of an account: `lacks`, the permissions that its key has not got; `status` and
    `max_credit_limit_extension` of its subscription. Its plan decides on formats and music.
    """

    name = "elevenlabs"
    # A synchronous provider has no queue: what is above the plan is refused.
    usual = Usual(
        balance=Decimal(100_000),
        concurrency=CONCURRENCY[DEFAULT_TIER],
        latency_s={"voice": 3.0, "music": 20.0, "sound": 5.0},
        overflow="refuse",
        plan=DEFAULT_TIER,
    )

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> Sequence[Route]:
        """Every call."""
        v1, v2 = "/elevenlabs/v1", "/elevenlabs/v2"
        speech = f"{v1}/text-to-speech/{{voice_id}}"
        return [
            Route("POST", speech, self._speak, Call.CREATE),
            Route("POST", f"{speech}/stream", self._speak, Call.CREATE),
            Route("POST", f"{speech}/with-timestamps", self._speak_with_timestamps, Call.CREATE),
            Route("POST", f"{v1}/music", self._compose, Call.CREATE),
            Route("POST", f"{v1}/music/stream", self._compose, Call.CREATE),
            Route("POST", f"{v1}/music/plan", self._plan, Call.ACCOUNT),
            Route("POST", f"{v1}/sound-generation", self._sound, Call.CREATE),
            Route("GET", f"{v1}/user/subscription", self._subscription, Call.ACCOUNT),
            Route("GET", f"{v2}/voices", self._voices, Call.ACCOUNT),
            Route("GET", f"{v1}/models", self._models, Call.ACCOUNT),
            Route("GET", f"{v1}/history", self._history, Call.READ),
            Route("GET", f"{v1}/history/{{id}}/audio", self._history_audio, Call.READ),
        ]

    def key_of(self, request: web.Request) -> str:
        """The key has a header of its own."""
        return request.headers.get("xi-api-key", "")

    def refusal(self, fault: Fault, wait_s: float | None = None) -> web.Response:
        """In ElevenLabs' words; out of credits comes as 401."""
        if fault in {Fault.RATE_LIMITED, Fault.RATE_LIMITED_WAIT}:
            return self._answer(errors.rate_limited(None if wait_s is None else round(wait_s)))
        return self._answer(_REFUSALS[fault])

    def over_concurrency(self, account: Account) -> web.Response:
        """More at the same time than the plan has."""
        return self._answer(errors.concurrent_limit(account.concurrency), account)

    def not_found(self) -> web.Response:
        """A path that leads nowhere."""
        return web.json_response({"detail": "Not Found"}, status=404)

    def changed(self, task: Task) -> None:
        """There are no webhooks for speech and music."""

    async def _speak(self, exchange: Exchange) -> web.Response:
        return await self._audio(exchange, *await self._spoken(exchange))

    async def _speak_with_timestamps(self, exchange: Exchange) -> web.Response:
        task, wanted = await self._spoken(exchange)
        answer = await self._audio(exchange, task, wanted)
        sound = base64.b64encode(cast("bytes", answer.body)).decode()
        alignment = books.alignment(task)
        body = {"audio_base64": sound, "alignment": alignment, "normalized_alignment": alignment}
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("Content-")}
        return web.json_response(body, headers=kept)

    async def _spoken(self, exchange: Exchange) -> tuple[Task, AudioFormat]:
        voice_id = exchange.request.match_info["voice_id"]
        if voice_id not in VOICES:
            raise self._refused(errors.VOICE_NOT_FOUND)
        return await self._made(exchange, SPEECH, voice_id)

    async def _compose(self, exchange: Exchange) -> web.Response:
        if not has_tier(exchange.account.plan, "starter"):
            raise self._refused(errors.PAID_PLAN)
        return await self._audio(exchange, *await self._made(exchange, MUSIC))

    async def _sound(self, exchange: Exchange) -> web.Response:
        return await self._audio(exchange, *await self._made(exchange, SOUND))

    async def _made(self, exchange: Exchange, kind: Kind, voice_id: str = "") -> tuple[Task, AudioFormat]:
        """Holds the socket until it is done. Raises Refused and Gone."""
        self._permit(exchange.account, kind.permission)
        wanted = self._wanted(exchange, kind)
        order = kind.judge(self._body(exchange))
        if isinstance(order, list):
            raise Refused(web.json_response(errors.findings(order), status=422))
        if isinstance(order, errors.Refusal):
            raise self._refused(order)
        self._check_quota(exchange.account, order.credits)
        if Fault.MODERATED_BEFORE in exchange.faults:
            raise self._refused(kind.moderated, Fault.MODERATED_BEFORE.value)
        drawing = Sound(
            order.seconds,
            cast("SoundFormat", wanted.codec),
            wanted.sample_rate_hz,
            wanted.bitrate_kbps * 1000,
        )
        task = exchange.accept(
            self._world.new_word(20),
            kind=kind.name,
            model=order.model,
            prompt=order.prompt,
            drawings=(drawing,),
            cost=Decimal(order.credits),
            charge=Charge.ON_SUCCESS,
            facts={"voice_id": voice_id, "seconds": order.seconds},
        )
        await exchange.finished(task)
        if task.state is State.FAILED:
            failed = kind.moderated if task.is_moderated else errors.INTERNAL
            raise self._refused(failed, "failed")
        return task, wanted

    async def _audio(self, exchange: Exchange, task: Task, wanted: AudioFormat) -> web.Response:
        headers = {
            "Content-Type": wanted.content_type,
            "request-id": task.id,
            "history-item-id": task.id,
            "character-cost": str(int(task.cost)),
            # This one is still under way while it is answered.
            **_concurrency(exchange.account, more=1),
        }
        if Fault.WRONG_TYPE in task.faults:
            return web.Response(text=_HTML, headers=headers | {"Content-Type": "text/html"})
        content = b"".join([await self._world.studio.draw(file.drawing) for file in task.files])
        return web.Response(body=content, headers=headers)

    def _wanted(self, exchange: Exchange, kind: Kind) -> AudioFormat:
        name = exchange.request.query.get("output_format", kind.default_format)
        wanted = audio_format(name, for_music=kind.is_music)
        if wanted is None:
            raise self._refused(errors.invalid(f"{name} is not an output format.", "output_format"))
        needed = needed_tier(wanted)
        if not has_tier(exchange.account.plan, needed):
            raise self._refused(errors.not_in_plan(f"The output format {name}", needed))
        return wanted

    def _check_quota(self, account: Account, required: int) -> None:
        # What is under way is paid when it is done, and has to be there until then.
        promised = sum(
            int(task.cost)
            for task in self._world.tasks.all()
            if task.account is account and task.state is State.RUNNING
        )
        if not account.affords(Decimal(required + promised)):
            remaining = max(0, int(account.balance or 0) - promised)
            raise self._refused(errors.quota_exceeded(remaining, required), "balance")

    def _permit(self, account: Account, permission: str) -> None:
        if permission in account.options.get("lacks", ()):
            raise self._refused(errors.missing_permission(permission), "scope")

    async def _plan(self, exchange: Exchange) -> web.Response:
        body = self._body(exchange)
        if not isinstance(body.get("prompt"), str):
            raise Refused(web.json_response(errors.findings([Flaw("missing", "prompt")]), status=422))
        return web.json_response(books.plan(body))

    async def _subscription(self, exchange: Exchange) -> web.Response:
        self._permit(exchange.account, "user_read")
        return web.json_response(books.subscription(exchange.account, exchange.now_ms))

    async def _voices(self, exchange: Exchange) -> web.Response:
        return web.json_response(books.voices())

    async def _models(self, exchange: Exchange) -> web.Response:
        return web.json_response(books.models())

    async def _history(self, exchange: Exchange) -> web.Response:
        self._permit(exchange.account, "speech_history_read")
        tasks = [task for task in self._world.tasks.of_account(exchange.account) if task.kind == "voice"]
        query = exchange.request.query
        try:
            size = min(1000, max(1, int(query.get("page_size", 100))))
        except ValueError:
            raise self._refused(errors.invalid("page_size is not a number.", "page_size")) from None
        return web.json_response(books.history(tasks, query.get("start_after_history_item_id"), size))

    async def _history_audio(self, exchange: Exchange) -> web.Response:
        self._permit(exchange.account, "speech_history_read")
        task = self._world.tasks.find(exchange.account, exchange.request.match_info["id"])
        if task is None or not task.files:
            raise self._refused(errors.HISTORY_NOT_FOUND)
        drawing = task.files[0].drawing
        content = await self._world.studio.draw(drawing)
        return web.Response(body=content, headers={"Content-Type": drawing.content_type})

    def _body(self, exchange: Exchange) -> dict[str, Any]:
        try:
            body = exchange.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refused(web.json_response(errors.findings([Flaw("missing", "body")]), status=422))
        return body

    def _refused(self, refusal: errors.Refusal, reason: str = "request") -> Refused:
        return Refused(self._answer(refusal), reason)

    def _answer(self, refusal: errors.Refusal, account: Account | None = None) -> web.Response:
        request_id = self._world.new_word(20)
        headers = {"request-id": request_id, **refusal.headers}
        if account is not None:
            headers |= _concurrency(account)
        return web.json_response(refusal.body(request_id), status=refusal.status, headers=headers)


def _concurrency(account: Account, more: int = 0) -> dict[str, str]:
    return {
        "current-concurrent-requests": str(account.running + more),
        "maximum-concurrent-requests": str(account.concurrency),
    }


_REFUSALS: Final = {
    Fault.UNAUTHORIZED: errors.INVALID_KEY,
    Fault.PAYMENT_REQUIRED: errors.quota_exceeded(0, 1),
    Fault.FORBIDDEN: errors.UNUSUAL_ACTIVITY,
    Fault.SERVER_ERROR: errors.INTERNAL,
    Fault.OVERLOADED: errors.BUSY,
    Fault.MODERATED_BEFORE: errors.MODERATED,
}
