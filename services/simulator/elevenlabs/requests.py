"""The bodies of speech, music and sound effects: what is right, how long the audio gets, what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from services.simulator.elevenlabs import errors
from services.simulator.elevenlabs.voices import (
    DEFAULT_SPEECH_MODEL,
    MUSIC_CREDITS_PER_MINUTE,
    MUSIC_MODELS,
    SOUND_CREDITS_PER_S,
    SOUND_MODELS,
    SPEECH_MODELS,
)
from services.simulator.field_rules import Field, Flaw, flaws_of

SPEECH: Final[Mapping[str, Field]] = {
    "text": Field("string", required=True, low=1),
    "model_id": Field("string"),
    "language_code": Field("string", low=2, high=3),
    "voice_settings": Field("object"),
    "pronunciation_dictionary_locators": Field("objects", high=3),
    "seed": Field("integer", low=0, high=4_294_967_295),
    "previous_text": Field("string"),
    "next_text": Field("string"),
    "previous_request_ids": Field("strings", high=3),
    "next_request_ids": Field("strings", high=3),
    "use_pvc_as_ivc": Field("boolean"),
    "apply_text_normalization": Field("string", choices=("auto", "on", "off")),
    "apply_language_text_normalization": Field("boolean"),
}
_VOICE_SETTINGS: Final[Mapping[str, Field]] = {
    "stability": Field("number", low=0, high=1),
    "similarity_boost": Field("number", low=0, high=1),
    "style": Field("number", low=0, high=1),
    "use_speaker_boost": Field("boolean"),
    "speed": Field("number", low=0.7, high=1.2),
}
MUSIC: Final[Mapping[str, Field]] = {
    "prompt": Field("string", low=1, high=4100),
    "composition_plan": Field("object"),
    "music_length_ms": Field("integer", low=3_000, high=600_000),
    "model_id": Field("string", choices=MUSIC_MODELS),
    "seed": Field("integer", low=0, high=4_294_967_295),
    "force_instrumental": Field("boolean"),
    "respect_sections_durations": Field("boolean"),
    "store_for_inpainting": Field("boolean"),
    "sign_with_c2pa": Field("boolean"),
    "finetune_id": Field("string"),
}
SOUND: Final[Mapping[str, Field]] = {
    "text": Field("string", required=True, low=1),
    "duration_seconds": Field("number", low=0.5, high=30),
    "prompt_influence": Field("number", low=0, high=1),
    "loop": Field("boolean"),
    "model_id": Field("string", choices=SOUND_MODELS),
}
# People read aloud about so fast.
_CHARACTERS_PER_S: Final = 15
# What the model writes when it may choose a length.
_DEFAULT_MUSIC_S: Final = 30.0
_DEFAULT_SOUND_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Order:
    """A request that is right: what to make, and its price in credits."""

    seconds: float
    credits: int
    prompt: str
    model: str


def speech(body: Mapping[str, object]) -> Order | errors.Refusal | list[Flaw]:
    """Judge a body of `/v1/text-to-speech`."""
    settings = body.get("voice_settings")
    flaws = list(flaws_of(body, SPEECH))
    if isinstance(settings, dict):
        flaws += [
            Flaw(flaw.kind, f"voice_settings.{flaw.field}", flaw.rule, flaw.limit, flaw.value)
            for flaw in flaws_of(settings, _VOICE_SETTINGS)
        ]
    if flaws:
        return flaws
    name = cast("str", body.get("model_id") or DEFAULT_SPEECH_MODEL)
    text = cast("str", body["text"])
    model = SPEECH_MODELS.get(name)
    if model is None:
        return errors.invalid(f"A model with the id {name} does not exist.", "model_id")
    if body.get("language_code") and name == DEFAULT_SPEECH_MODEL:
        return errors.invalid(f"Model {name} does not support language_code.", "language_code")
    if len(text) > model.characters_limit:
        return errors.too_long(len(text), model.characters_limit)
    # Whole seconds: each length is drawn once.
    seconds = float(math.ceil(len(text) / _CHARACTERS_PER_S))
    return Order(seconds, math.ceil(len(text) * model.credits), text, name)


def music(body: Mapping[str, object]) -> Order | errors.Refusal | list[Flaw]:
    """Judge a body of `/v1/music`."""
    if flaws := list(flaws_of(body, MUSIC)):
        return flaws
    prompt, plan = body.get("prompt"), body.get("composition_plan")
    if (prompt is None) == (plan is None):
        return errors.invalid("Provide either prompt or composition_plan, not both.", "prompt")
    if plan is not None and body.get("music_length_ms") is not None:
        return errors.invalid("music_length_ms can only be used with prompt.", "music_length_ms")
    if plan is not None and body.get("force_instrumental"):
        return errors.invalid("force_instrumental can only be used with prompt.", "force_instrumental")
    if prompt is not None and body.get("seed") is not None:
        return errors.invalid("seed cannot be used in conjunction with prompt.", "seed")
    seconds = _music_seconds(body)
    price = math.ceil(seconds * MUSIC_CREDITS_PER_MINUTE / 60)
    return Order(seconds, price, _words_of(body), cast("str", body.get("model_id") or MUSIC_MODELS[0]))


def _music_seconds(body: Mapping[str, object]) -> float:
    if (length_ms := body.get("music_length_ms")) is not None:
        return cast("int", length_ms) / 1000
    plan = body.get("composition_plan")
    sections = plan.get("sections") if isinstance(plan, dict) else None
    if not isinstance(sections, list):
        return _DEFAULT_MUSIC_S
    lengths_ms = [section.get("duration_ms", 0) for section in sections if isinstance(section, dict)]
    return max(3.0, sum(length for length in lengths_ms if isinstance(length, int)) / 1000)


def _words_of(body: Mapping[str, object]) -> str:
    return str(body.get("prompt") or body.get("composition_plan") or "")


def sound(body: Mapping[str, object]) -> Order | errors.Refusal | list[Flaw]:
    """Judge a body of `/v1/sound-generation`."""
    if flaws := list(flaws_of(body, SOUND)):
        return flaws
    seconds = float(cast("float", body.get("duration_seconds") or _DEFAULT_SOUND_S))
    price = math.ceil(seconds * SOUND_CREDITS_PER_S)
    return Order(
        seconds, price, cast("str", body["text"]), cast("str", body.get("model_id") or SOUND_MODELS[0])
    )
