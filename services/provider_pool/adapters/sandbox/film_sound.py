"""The sound of a film, in the encoder's portions: a calm piece, and over it the sounds that the film is to follow."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import numpy as np
from av.audio.frame import AudioFrame

from services.provider_pool.adapters.sandbox.reference_clip import Floats, sound_of
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.sound import RATE_HZ, compose_piece

_AAC_FRAME: Final = 1024
# The piece steps back where there is something to listen to.
_PIECE_LEVEL: Final = 0.3
_PEAK: Final = 0.85


def sound_frames(order: RenderOrder, chance: int) -> Iterator[AudioFrame]:
    """The whole sound of an order. Raises ReferenceUnusable."""
    # Whole AAC frames only, never past the last picture: otherwise the film would be longer than asked.
    samples = order.duration_s * RATE_HZ // _AAC_FRAME * _AAC_FRAME
    piece = _with_references(order, compose_piece(chance, samples))
    for start in range(0, samples, _AAC_FRAME):
        part = np.ascontiguousarray(piece[:, start : start + _AAC_FRAME])
        frame = AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
        yield frame


def until(sound: Iterator[AudioFrame], end_s: float) -> Iterator[AudioFrame]:
    """As much of a sound as belongs to the pictures before a time."""
    for frame in sound:
        yield frame
        if frame.pts is None or (frame.pts + _AAC_FRAME) / RATE_HZ >= end_s:
            return


def _with_references(order: RenderOrder, piece: Floats) -> Floats:
    paths = [reference.path for reference in order.references if reference.role == "audio"]
    if not paths:
        return piece
    mixed = piece * np.float32(_PIECE_LEVEL)
    for path in paths:
        heard = sound_of(path, RATE_HZ, piece.shape[1])
        loudest = float(np.abs(heard).max(initial=0.0)) or 1.0
        mixed += heard * np.float32(_PEAK / loudest / len(paths))
    loudest = float(np.abs(mixed).max(initial=0.0))
    return np.asarray(mixed * np.float32(min(1.0, _PEAK / loudest) if loudest else 1.0), dtype=np.float32)
