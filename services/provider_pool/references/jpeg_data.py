"""Whether a JPEG's picture data last to the end of the picture: the decoder itself makes up what is missing, and says nothing."""

from __future__ import annotations

import io
from typing import Any, Final, cast

from PIL import Image, ImageChops

from services.provider_pool.references.container import ImageRefused, Rule

_SCAN: Final = b"\xff\xda"
_END_BYTES: Final = 2
# Without the end marker the decoder keeps the last rows of blocks back: it cannot know that they are the last. One more
# row is for chroma that is smoothed over its neighbours.
_ROWS_KEPT_BACK: Final = 2
_BLOCK_PX: Final = 8


def check_data(content: bytes, decoded: Image.Image) -> None:
    """Raises ImageRefused where `content`, which was `decoded` without a complaint, ends early. Says nothing of several scans.

    Data that end early behind a well-formed end marker are filled up with grey. Fed without that marker the decoder stops
    where its data do, and what it has not reached stays as it was: the opposite of what is there.
    """
    if decoded.info.get("progressive") or content.count(_SCAN) != 1:
        return
    # Pillow has no public way to this: it is what `load` does, but with a picture that is there already.
    image = cast("Any", Image.open(io.BytesIO(content), formats=["JPEG"]))
    tallest = max(vertical for _, _, vertical, _ in image.layer)
    row = decoded.height - _ROWS_KEPT_BACK * tallest * _BLOCK_PX - _ROWS_KEPT_BACK
    if row < 0:
        return
    reached = ImageChops.invert(decoded)
    ((name, extents, _, arguments),) = image.tile
    make = cast("Any", Image)._getdecoder  # noqa: SLF001  see above
    decoder = make(image.mode, name, arguments, image.decoderconfig)
    decoder.setimage(reached.im, extents)
    decoder.decode(content[:-_END_BYTES])
    decoder.cleanup()
    line = (0, row, decoded.width, row + 1)
    if reached.crop(line).tobytes() != decoded.crop(line).tobytes():
        raise ImageRefused(Rule.TRUNCATED, "the picture data end before the picture does")
