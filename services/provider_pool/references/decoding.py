"""What becomes of one image: walked, rewritten, hashed, and only then decoded. Runs in the jail."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import time
import warnings
from collections.abc import Callable
from mmap import mmap
from typing import Final

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from services.provider_pool.references import jpeg_data, png_data
from services.provider_pool.references.container import (
    PIXELS_LIMIT,
    ImageLimits,
    ImageRefused,
    Rule,
    Walked,
    walk,
)
from services.provider_pool.references.decode_words import (
    AnyOrder,
    Decoded,
    NotWritten,
    Order,
    Refused,
    Rewritten,
    Word,
)
from services.provider_pool.references.target_file import TargetFailed, write_all

__all__ = ["examine", "refusal", "warm_up"]

Say = Callable[[Word], None]

# Pillow's name for each format that the walk knows, and the module that reads it.
_READERS: Final = {
    "jpeg": ("JPEG", JpegImagePlugin),
    "png": ("PNG", PngImagePlugin),
    "webp": ("WEBP", WebPImagePlugin),
    "gif": ("GIF", GifImagePlugin),
    "bmp": ("BMP", BmpImagePlugin),
    "tiff": ("TIFF", TiffImagePlugin),
}
# What PNG can hold as it is. All else that PNG has a likeness of becomes RGB or RGBA.
_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_LIKENESSES: Final = {
    "I;16B": "I;16",
    "I;16L": "I;16",
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
} | dict.fromkeys(("CMYK", "HSV", "LAB", "RGBX", "YCbCr"), "RGB")
# Of zlib. Each further level takes twice the time, for a tenth of the bytes of a photograph.
_PNG_LEVEL: Final = 1


def warm_up() -> None:
    """Load everything that a decode loads when it first happens; nothing can be loaded in the jail."""
    warnings.simplefilter("error")
    # It complains of tags that scanners write wrongly, and of which nothing is kept.
    warnings.filterwarnings("ignore", module=TiffImagePlugin.__name__)
    Image.MAX_IMAGE_PIXELS = PIXELS_LIMIT
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    everything = ImageLimits(frozenset(_READERS), 1024**2, first_frame_of_animations=True)
    for name, (reader, _) in _READERS.items():
        file = io.BytesIO()
        picture = Image.new("RGB", (16, 16))
        picture.save(file, reader)
        decoded = _decode(file.getvalue(), walk(file.getvalue(), everything))
        if name == "gif":
            _as_png(ImageOps.exif_transpose(decoded))
    hashlib.sha256().hexdigest()


def examine(content: mmap | bytes, order: AnyOrder, target: int, say: Say) -> None:
    """Say what the walk found, write the rewritten file to the descriptor `target` and close it, decode, say so.

    What was written is told, with its hash, before a decoder runs, and cannot be changed afterwards. Where there is nothing
    to rewrite, a PNG of the first frame is written instead, which is a decoder's work and therefore to be examined anew.
    Raises ImageRefused, and whatever a decoder raises.
    """
    if not isinstance(order, Order):
        raise TypeError("not about an image")
    begun = time.perf_counter()
    walked = walk(content, ImageLimits(order.formats, order.bytes, order.first_frame_of_animations))
    if walked.pieces is None:
        say(_rewritten(walked, None, begun))
        begun = time.perf_counter()
        drawn = _first_frame(content, walked)
        _write(target, drawn)
    else:
        whole = b"".join(walked.pieces)
        _write(target, whole)
        say(_rewritten(walked, whole, begun))
        begun = time.perf_counter()
        if walked.format == "png":
            png_data.check_data(whole)
        decoded = _decode(whole, walked)
        if walked.format == "jpeg":
            jpeg_data.check_data(whole, decoded)
    say(Decoded(time.perf_counter() - begun))


def refusal(error: BaseException) -> Refused | NotWritten:
    """The word for what was raised; whatever a decoder raises means that the image cannot be decoded."""
    if isinstance(error, TargetFailed):
        return NotWritten(error.errno)
    if isinstance(error, ImageRefused):
        return Refused(error.rule, str(error).partition(": ")[2])
    return Refused(Rule.UNDECODABLE, type(error).__name__)


def _rewritten(walked: Walked, whole: bytes | None, begun: float) -> Rewritten:
    digest = None if whole is None else hashlib.sha256(whole).hexdigest()
    return Rewritten(
        format=walked.format,
        width=walked.width,
        height=walked.height,
        size_bytes=0 if whole is None else len(whole),
        sha256=digest,
        spent_s=time.perf_counter() - begun,
    )


def _write(target: int, content: bytes) -> None:
    try:
        write_all(target, content)
        os.close(target)
    except TargetFailed as failed:
        if failed.is_full:
            raise ImageRefused(Rule.TOO_MANY_BYTES, "as a PNG, it is many times as large") from None
        raise
    except OSError as error:
        raise TargetFailed(error.errno or errno.EIO) from None


def _decode(content: bytes | mmap, walked: Walked) -> Image.Image:
    reader, _ = _READERS[walked.format]
    image = Image.open(io.BytesIO(content), formats=[reader])
    size = walked.width, walked.height
    # Pillow turns a TIFF that says that it lies on its side.
    if image.size not in {size, size[::-1] if walked.format == "tiff" else size}:
        raise ImageRefused(Rule.UNDECODABLE, "the decoder sees another size")
    image.load()
    return image


def _first_frame(content: bytes | mmap, walked: Walked) -> bytes:
    image = _decode(content, walked)
    ImageOps.exif_transpose(image, in_place=True)
    return _as_png(image)


def _as_png(image: Image.Image) -> bytes:
    if image.mode not in _PNG_MODES:
        if image.mode not in _LIKENESSES:
            raise ImageRefused(Rule.UNDECODABLE, "samples that PNG cannot express")
        image = image.convert(_LIKENESSES[image.mode])
        # It spoke of the colours before they were converted.
        image.info.pop("icc_profile", None)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()
