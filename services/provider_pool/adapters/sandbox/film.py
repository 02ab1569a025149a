"""Draws a film: the scene's layers in motion, composed straight in the encoder's colour planes, with a calm piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from services.provider_pool.adapters.sandbox.backdrop import Print, hang
from services.provider_pool.adapters.sandbox.caption import Overlay, make_overlay
from services.provider_pool.adapters.sandbox.film_frames import GivenFrame, given_frames
from services.provider_pool.adapters.sandbox.film_sound import sound_frames, until
from services.provider_pool.adapters.sandbox.layers import Layer, Motion, Stage
from services.provider_pool.adapters.sandbox.picture import add_grain, paint_stage, shown, write_jpeg
from services.provider_pool.adapters.sandbox.render_order import RenderOrder
from services.provider_pool.adapters.sandbox.sound import RATE_HZ

FRAMES_PER_S: Final = 24
# One thread: with more, x264 may cut a film differently from run to run and its bytes would differ.
# The arithmetic coder costs ultrafast a tenth more time and saves a fifth of the file.
_X264: Final = {
    "preset": "ultrafast",
    "crf": "21",
    "threads": "1",
    "g": str(2 * FRAMES_PER_S),
    "x264-params": "cabac=1:deblock=0,0",
}
_AAC_BITS_PER_S: Final = 128_000
_BAR_INK: Final = (246, 246, 242)

# From full-range YCbCr, which Pillow makes, to the limited range that every player expects.
_LUMA: Final = [round(16 + level * 219 / 255) for level in range(256)]
_CHROMA: Final = [round(128 + (level - 128) * 224 / 255) for level in range(256)]


@dataclass(frozen=True)
class _Planes:
    """One layer as luma, two halved chroma pictures and their masks."""

    y: Image.Image
    cb: Image.Image
    cr: Image.Image
    mask: Image.Image | None
    mask_half: Image.Image | None
    left: int
    top: int
    motion: Motion


def _even(image: Image.Image) -> Image.Image:
    """Pad to even sides, so that luma and chroma of a layer have the same edges."""
    width, height = image.width + image.width % 2, image.height + image.height % 2
    if (width, height) == image.size:
        return image
    padded = Image.new(image.mode, (width, height))
    padded.paste(image, (0, 0))
    return padded


def _to_planes(colour: Image.Image, mask: Image.Image | None, left: int, top: int, motion: Motion) -> _Planes:
    if mask is None and (colour.width % 2 or colour.height % 2):
        mask = Image.new("L", colour.size, 255)
    y, cb, cr = _even(colour).convert("YCbCr").split()
    mask = None if mask is None else _even(mask)
    half = None if mask is None else mask.reduce(2)
    return _Planes(
        y.point(_LUMA),
        cb.reduce(2).point(_CHROMA),
        cr.reduce(2).point(_CHROMA),
        mask,
        half,
        left,
        top,
        motion,
    )


def _parts(layer: Layer) -> list[_Planes]:
    """A layer without its empty rim, its solid foot apart: what needs no mask is laid ten times as fast."""
    if layer.mask is None:
        return [_to_planes(layer.colour, None, layer.x, layer.y, layer.motion)]
    box = layer.mask.getbbox()
    if box is None:
        return []
    left, top, right, bottom = box
    gaps = np.flatnonzero((np.asarray(layer.mask)[top:bottom, left:right] < 255).any(axis=1))
    split = top + (int(gaps[-1]) + 1 if gaps.size else 0)
    split += (bottom - split) % 2
    if split > bottom or (right - left) % 2:
        split = bottom
    parts = []
    for start, end, mask in ((top, split, layer.mask), (split, bottom, None)):
        if start < end:
            area = (left, start, right, end)
            cut = None if mask is None else mask.crop(area)
            place = (layer.x + left, layer.y + start)
            parts.append(_to_planes(layer.colour.crop(area), cut, *place, layer.motion))
    return parts


class _Approach:
    """A print in the encoder's colour planes, at any moment of the film."""

    def __init__(self, hung: Print) -> None:
        self._print = hung
        self._planes = _to_planes(hung.picture, None, hung.area[0], hung.area[1], Motion())
        self._masks = hung.mask, hung.mask.reduce(2)

    def at(self, progress: float) -> _Planes:
        """What is seen of it at `progress` (0 to 1) of the film."""
        box, (mask, mask_half), whole = self._print.box(progress), self._masks, self._planes
        box_half = (box[0] / 2, box[1] / 2, box[2] / 2, box[3] / 2)
        return replace(
            whole,
            y=whole.y.resize(mask.size, Image.Resampling.BILINEAR, box),
            cb=whole.cb.resize(mask_half.size, Image.Resampling.BILINEAR, box_half),
            cr=whole.cr.resize(mask_half.size, Image.Resampling.BILINEAR, box_half),
            mask=mask,
            mask_half=mask_half,
        )


def _paste(frame: tuple[Image.Image, Image.Image, Image.Image], planes: _Planes, x: int, y: int) -> None:
    frame[0].paste(planes.y, (x, y), planes.mask)
    frame[1].paste(planes.cb, (x // 2, y // 2), planes.mask_half)
    frame[2].paste(planes.cr, (x // 2, y // 2), planes.mask_half)


class _Projector:
    """Composes the frames of one film."""

    def __init__(
        self, order: RenderOrder, stage: Stage, prints: Sequence[Print], given: Sequence[GivenFrame]
    ) -> None:
        self._order = order
        self._approaches = list(map(_Approach, prints))
        self._given = [(frame, _to_planes(frame.picture, None, 0, 0, Motion())) for frame in given]
        self._frames = order.duration_s * FRAMES_PER_S
        self._layers = [part for layer in stage.layers for part in _parts(layer)]
        overlay = _overlay(order)
        self.overlay = overlay
        self._still = [_cropped(overlay.image, box) for box in _boxes(overlay.image)]
        self._bar = _to_planes(
            Image.new("RGB", (order.width, _bar_height(order)), _BAR_INK), None, 0, 0, Motion()
        )

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Every frame as one array of planar YUV 4:2:0, height * 3 / 2 rows."""
        width, height = self._order.width, self._order.height
        half = (width // 2, height // 2)
        frame = (Image.new("L", (width, height)), Image.new("L", half), Image.new("L", half))
        packed = np.empty(width * height * 3 // 2, dtype=np.uint8)
        luma, chroma = width * height, half[0] * half[1]
        for number in range(self._frames):
            self._draw(frame, number)
            packed[:luma] = np.frombuffer(frame[0].tobytes(), np.uint8)
            packed[luma : luma + chroma] = np.frombuffer(frame[1].tobytes(), np.uint8)
            packed[luma + chroma :] = np.frombuffer(frame[2].tobytes(), np.uint8)
            yield packed.reshape(height * 3 // 2, width)

    def _draw(self, frame: tuple[Image.Image, Image.Image, Image.Image], number: int) -> None:
        order = self._order
        progress, time_s = number / self._frames, number / FRAMES_PER_S
        for layer in self._layers:
            x, y = layer.motion.offset(progress, time_s, order.width, order.height)
            _paste(frame, layer, layer.left + x, layer.top + y)
        for approach in self._approaches:
            seen = approach.at(progress)
            _paste(frame, seen, seen.left, seen.top)
        for given, whole in self._given:
            _paste(frame, _thinned(whole, given.opacity(number / max(1, self._frames - 1))), 0, 0)
        for still in self._still:
            _paste(frame, still, still.left, still.top)
        left, _, right, bottom = self.overlay.panel_box
        full = right - left - 2 * _bar_inset(order)
        done = max(2, round(full * (number + 1) / self._frames) // 2 * 2)
        top = (bottom - _bar_inset(order) - _bar_height(order)) // 2 * 2
        _paste(frame, _narrowed(self._bar, done), (left + _bar_inset(order)) // 2 * 2, top)


def _overlay(order: RenderOrder) -> Overlay:
    size = order.width, order.height
    return make_overlay(order.prompt, order.label, *size, bar=True, watermark=order.watermark)


def _thinned(planes: _Planes, opacity: float) -> _Planes:
    """Planes of which only a share is seen."""
    if opacity >= 1:
        return planes
    mask = Image.new("L", planes.y.size, round(opacity * 255))
    return replace(planes, mask=mask, mask_half=mask.reduce(2))


def _bar_height(order: RenderOrder) -> int:
    return max(2, round(min(order.width, order.height) * 0.006) // 2 * 2)


def _bar_inset(order: RenderOrder) -> int:
    return max(5, round(min(order.width, order.height) * 0.028)) // 2 * 2


def _narrowed(bar: _Planes, width: int) -> _Planes:
    height = bar.y.height
    box, half = (0, 0, width, height), (0, 0, width // 2, height // 2)
    return _Planes(bar.y.crop(box), bar.cb.crop(half), bar.cr.crop(half), None, None, 0, 0, bar.motion)


def _boxes(overlay: Image.Image) -> list[tuple[int, int, int, int]]:
    """The two parts of the overlay that are not empty, so that the rest of the frame costs nothing."""
    middle = overlay.height // 4 * 2
    boxes = []
    for top, bottom in ((0, middle), (middle, overlay.height)):
        box = overlay.getchannel("A").crop((0, top, overlay.width, bottom)).getbbox()
        if box is not None:
            left, upper = box[0] // 2 * 2, (box[1] + top) // 2 * 2
            boxes.append((left, upper, box[2], box[3] + top))
    return boxes


def _cropped(overlay: Image.Image, box: tuple[int, int, int, int]) -> _Planes:
    part = overlay.crop(box)
    return _to_planes(part.convert("RGB"), part.getchannel("A"), box[0], box[1], Motion())


def draw_poster(
    order: RenderOrder, stage: Stage, prints: Sequence[Print], given: Sequence[GivenFrame] = ()
) -> Image.Image:
    """The film's first frame as a picture, without the progress bar."""
    frame = add_grain(shown(stage, prints), stage)
    for first in (one for one in given if one.role == "first_frame"):
        frame.paste(first.picture)
    overlay = _overlay(order)
    frame.paste(overlay.image, (0, 0), overlay.image)
    return frame


def write_film(order: RenderOrder, film: Path, poster: Path, last_frame: Path | None = None) -> None:
    """Draw an order of kind video into an MP4 file, and its poster and last frame into JPEG files.

    Raises ReferenceUnusable.
    """
    prints, given = hang(order), given_frames(order)
    stage = paint_stage(order, prints, moving=True)
    write_jpeg(draw_poster(order, stage, prints, given), poster)
    pixels = _encode(order, _Projector(order, stage, prints, given), stage.scene.chance, film)
    if last_frame is not None:
        shot: Any = VideoFrame.from_ndarray(pixels, format="yuv420p")
        write_jpeg(shot.to_image(), last_frame)


def _encode(order: RenderOrder, projector: _Projector, chance: int, film: Path) -> NDArray[np.uint8]:
    """Write the film; its last frame as it went in."""
    options = {"movflags": "+faststart", "fflags": "+bitexact", "use_editlist": "1"}
    with av.open(str(film), "w", format="mp4", options=options) as container:
        video = _open_video(container, order)
        audio = _open_audio(container) if order.audio else None
        sound = sound_frames(order, chance) if audio is not None else iter(())
        for number, pixels in enumerate(projector.frames()):
            frame = VideoFrame.from_ndarray(pixels, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
            container.mux(video.encode(frame))
            # Sound goes in beside its picture, so that a player needs no far seeks.
            if audio is not None:
                for piece in until(sound, (number + 1) / FRAMES_PER_S):
                    container.mux(audio.encode(piece))
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return pixels


def _open_video(container: Any, order: RenderOrder) -> Any:
    stream = container.add_stream("libx264", rate=FRAMES_PER_S, options=dict(_X264))
    stream.width, stream.height, stream.pix_fmt = order.width, order.height, "yuv420p"
    stream.codec_context.time_base = Fraction(1, FRAMES_PER_S)
    stream.codec_context.thread_count = 1
    # 6 is SMPTE 170M in FFmpeg's tables: the matrix Pillow used; 1 is limited range.
    stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1
    return stream


def _open_audio(container: Any) -> Any:
    # The fast search is enough for so calm a piece, and takes a third of the time.
    stream = container.add_stream("aac", rate=RATE_HZ, layout="stereo", options={"aac_coder": "fast"})
    stream.bit_rate = _AAC_BITS_PER_S
    return stream
