"""Reads references that are films or sounds: a picture of the film, the sound as samples."""

from __future__ import annotations

from typing import Any, Final

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from services.provider_pool.adapters.sandbox.render_order import ReferenceUnusable

Floats = NDArray[np.float32]

# The containers that the pool hands on, as the library names them; and nothing but the file itself is ever opened.
_OPTIONS: Final = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,wav,ogg",
}
# Of a film, a picture from a little after its beginning: the first is often black.
_SHOWN_AT_S: Final = 0.5
_FRAMES_MAX: Final = 120


def picture_of(path: str) -> Image.Image:
    """A picture from near the beginning of a film, RGB. Raises ReferenceUnusable."""
    shown: Any = None
    try:
        with av.open(path, options=_OPTIONS) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                shown = frame
                if number >= _FRAMES_MAX or (frame.time or 0.0) >= _SHOWN_AT_S:
                    break
        if shown is not None:
            image: Image.Image = shown.to_image()
            return image
    except FileNotFoundError:
        raise ReferenceUnusable("a reference is gone") from None
    except (FFmpegError, OSError, ValueError, IndexError):
        raise ReferenceUnusable("a reference cannot be decoded") from None
    raise ReferenceUnusable("a reference cannot be decoded")


def sound_of(path: str, rate_hz: int, samples: int) -> Floats:
    """The beginning of a sound, stereo, shape (2, `samples`), with silence after its end. Raises ReferenceUnusable."""
    heard = np.zeros((2, samples), dtype=np.float32)
    place = 0
    try:
        with av.open(path, options=_OPTIONS) as container:
            resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate_hz)
            for frame in container.decode(container.streams.audio[0]):
                for piece in resampler.resample(frame):
                    part = np.asarray(piece.to_ndarray(), dtype=np.float32)[:, : samples - place]
                    heard[:, place : place + part.shape[1]] = part
                    place += part.shape[1]
                if place >= samples:
                    break
    except FileNotFoundError:
        raise ReferenceUnusable("a reference is gone") from None
    except (FFmpegError, OSError, ValueError, IndexError):
        raise ReferenceUnusable("a reference cannot be decoded") from None
    return np.nan_to_num(heard)
