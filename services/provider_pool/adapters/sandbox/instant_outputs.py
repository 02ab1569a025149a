"""What an order gives where nothing is drawn: files of the right kind, size and length."""

from __future__ import annotations

from typing import Final

from services.provider_pool.adapters.interface import Kind, OutputRef, Role
from services.provider_pool.adapters.sandbox import instant
from services.provider_pool.adapters.sandbox.commission import size_of
from services.provider_pool.adapters.sandbox.orders import Order

VOICE_S: Final = 2


def instant_outputs(order: Order) -> tuple[OutputRef, ...]:
    """The outputs of an order, the primary one first."""
    generation = order.generation
    width, height = size_of(order)
    match generation.kind:
        case Kind.IMAGE | Kind.INFOGRAPHIC:
            return (OutputRef(Role.PRIMARY, "", "image/png", width, height),)
        case Kind.VOICE | Kind.MUSIC:
            return (_sound(order),)
        case Kind.TEXT:
            return (OutputRef(Role.PRIMARY, "", "text/plain"),)
        case Kind.VIDEO:
            film = OutputRef(Role.PRIMARY, "", "video/mp4", width, height, generation.duration_s * 1000)
            stills = (Role.PREVIEW, Role.LAST_FRAME) if generation.last_frame else (Role.PREVIEW,)
            side_px = instant.STILL_SIDE_PX
            return (film, *(OutputRef(role, "", "image/jpeg", side_px, side_px) for role in stills))


def instant_content(order: Order, role: Role) -> bytes:
    """The bytes of one output."""
    generation = order.generation
    if role is not Role.PRIMARY:
        return instant.STILL
    width, height = size_of(order)
    match generation.kind:
        case Kind.IMAGE | Kind.INFOGRAPHIC:
            return instant.picture(width, height)
        case Kind.VOICE | Kind.MUSIC:
            return (instant.wav if generation.format == "wav" else instant.mp3)(_sound_s(order))
        case Kind.TEXT:
            return instant.TEXT
        case Kind.VIDEO:
            return instant.film(width, height, generation.duration_s)


def _sound(order: Order) -> OutputRef:
    sound_s = _sound_s(order)
    if order.generation.format == "wav":
        return OutputRef(Role.PRIMARY, "", "audio/wav", duration_ms=sound_s * 1000)
    whole_ms = round(sound_s * 1000 / instant.FRAME_MS) * instant.FRAME_MS
    return OutputRef(Role.PRIMARY, "", "audio/mpeg", duration_ms=whole_ms)


def _sound_s(order: Order) -> int:
    return order.generation.duration_s or VOICE_S
