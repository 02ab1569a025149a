from __future__ import annotations

import struct
from typing import Any

import pytest

from services.provider_pool.references.container import (
    CHUNKS_LIMIT,
    FORMATS,
    FRAMES_LIMIT,
    ImageLimits,
    ImageRefused,
    Rule,
    walk,
)
from services.provider_pool.references.walked import DATA_CHUNKS_LIMIT, SUB_BLOCKS_LIMIT, TAGS_LIMIT
from tests.corpus import images
from tests.corpus.images import tiff_of, tiff_page

LIMITS = ImageLimits(FORMATS, 20 * 1024 * 1024, first_frame_of_animations=True)
Case = tuple[str, bytes, Rule]


# ---- GIF ----


def screen(width: int = 8, height: int = 8, flags: int = 0) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0)


def frame(place: tuple[int, int, int, int] = (0, 0, 8, 8), *, flags: int = 0, code_size: int = 2) -> bytes:
    return b"," + struct.pack("<HHHHB", *place, flags) + bytes((code_size, 2, 0x4C, 1, 0))


COMMENT = b"!\xfe\x01a\0"


def gif_cases() -> list[Case]:
    whole = images.saved("GIF")
    crumbs = b"!\xfe" + b"\1a" * (SUB_BLOCKS_LIMIT + 1) + b"\0"
    return [
        ("signature", b"GIF89a", Rule.TRUNCATED),
        ("half", whole[: len(whole) // 2], Rule.TRUNCATED),
        ("no trailer", whole[:-1], Rule.TRUNCATED),
        ("a table past the end", screen(flags=0x87) + b";", Rule.TRUNCATED),
        ("half a frame's place", screen() + frame()[:6], Rule.TRUNCATED),
        ("a frame without data", screen() + frame()[:11] + b"\0;", Rule.TRUNCATED),
        ("a sub-block past the end", screen() + b"!\xfe\xffa\0;", Rule.TRUNCATED),
        ("an unknown block", screen() + b"?" + frame() + b";", Rule.BAD_FRAMING),
        ("code size 0", screen() + frame(code_size=0) + b";", Rule.BAD_HEADER),
        ("code size 9", screen() + frame(code_size=9) + b";", Rule.BAD_HEADER),
        ("no frame", screen() + COMMENT + b";", Rule.EMPTY),
        ("no width", screen(0) + frame() + b";", Rule.EMPTY),
        ("a frame without height", screen() + frame((0, 0, 8, 0)) + b";", Rule.EMPTY),
        ("a frame out of the screen", screen() + frame((1, 0, 8, 8)) + b";", Rule.SIZE_MISMATCH),
        ("a long side", screen(16_385, 1) + frame() + b";", Rule.SIDE_TOO_LONG),
        ("51 megapixels", screen(8_000, 6_251) + frame() + b";", Rule.TOO_MANY_PIXELS),
        ("257 frames", screen() + frame() * (FRAMES_LIMIT + 1) + b";", Rule.TOO_MANY_FRAMES),
        ("5,001 comments", screen() + COMMENT * (CHUNKS_LIMIT + 1) + frame() + b";", Rule.TOO_MANY_CHUNKS),
        ("crumbs", screen() + crumbs + frame() + b";", Rule.TOO_MANY_CHUNKS),
    ]


def test_a_gif_built_from_the_same_parts_is_taken() -> None:
    table = screen(flags=0x80) + bytes(6)
    local = frame(flags=0x81)[:10] + bytes(12) + frame()[10:]
    walked = walk(table + COMMENT + local + frame((7, 7, 1, 1)) + b";" + b"what follows", LIMITS)
    assert (walked.width, walked.height, walked.animated, walked.pieces) == (8, 8, True, None)
    assert walk(screen() + frame() * FRAMES_LIMIT + b";", LIMITS).animated


# ---- BMP ----


def bmp(
    width: int = 4,
    height: int = 3,
    *,
    bits: int = 24,
    coding: int = 0,
    colours: int = 0,
    planes: int = 1,
    size: int = 40,
    offset: int | None = None,
    pixels: bytes | None = None,
) -> bytes:
    if size == 12:
        head = struct.pack("<IHHHH", size, width, height, planes, bits)
        table = bytes(3 << bits) if bits <= 8 else b""
    else:
        head = struct.pack(
            "<IiiHHIIiiII", size, width, height, planes, bits, coding, 0, 0, 0, colours, 0
        ).ljust(size, b"\0")
        masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF) if coding == 3 and size == 40 else b""
        table = masks + (bytes(4 * (colours or 1 << bits)) if bits <= 8 and colours < 300 else b"")
    rows = bytes((bits * width + 31) // 32 * 4 * min(abs(height), 100)) if pixels is None else pixels
    start = 14 + len(head) + len(table) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + head + table + rows


def bmp_cases() -> list[Case]:
    whole = bmp()
    return [
        ("signature", whole[:20], Rule.TRUNCATED),
        ("half a header", whole[:40], Rule.TRUNCATED),
        ("half", whole[: len(whole) // 2 + 14], Rule.TRUNCATED),
        ("a byte too few", whole[:-1], Rule.TRUNCATED),
        ("pixels past the end", bmp(offset=1 << 31), Rule.TRUNCATED),
        ("no runs", bmp(bits=8, coding=1, pixels=b""), Rule.TRUNCATED),
        ("pixels in the header", bmp(offset=20), Rule.BAD_FRAMING),
        ("pixels in the palette", bmp(bits=8, offset=60), Rule.BAD_FRAMING),
        ("pixels in the masks", bmp(bits=32, coding=3, offset=54), Rule.BAD_FRAMING),
        ("5 bits", bmp(bits=5), Rule.BAD_HEADER),
        ("no bits", bmp(bits=0), Rule.BAD_HEADER),
        ("2 planes", bmp(planes=2), Rule.BAD_HEADER),
        ("257 colours", bmp(bits=8, colours=257), Rule.BAD_HEADER),
        ("the most colours", bmp(bits=8, colours=0xFFFF_FFFF), Rule.BAD_HEADER),
        ("runs of 24 bits", bmp(coding=1), Rule.BAD_HEADER),
        ("masks of 8 bits", bmp(bits=8, coding=3), Rule.BAD_HEADER),
        ("runs from the top", bmp(height=-3, bits=8, coding=1, pixels=bytes(9)), Rule.BAD_HEADER),
        ("a header of 0x10028", whole[:14] + struct.pack("<I", 0x1_0028) + whole[18:], Rule.BAD_HEADER),
        ("JPEG inside", bmp(coding=4), Rule.UNSUPPORTED_CODING),
        ("PNG inside", bmp(coding=5), Rule.UNSUPPORTED_CODING),
        ("masks with alpha", bmp(bits=32, coding=6), Rule.UNSUPPORTED_CODING),
        ("no width", bmp(0), Rule.EMPTY),
        ("less than no width", bmp(-4, pixels=bytes(99)), Rule.EMPTY),
        ("no height", bmp(4, 0), Rule.EMPTY),
        ("the least height", bmp(4, -(1 << 31)), Rule.SIDE_TOO_LONG),
        ("the largest width", bmp((1 << 31) - 1, 1, pixels=bytes(99)), Rule.SIDE_TOO_LONG),
        ("51 megapixels", bmp(8_000, 6_251, pixels=bytes(99)), Rule.TOO_MANY_PIXELS),
    ]


@pytest.mark.parametrize("content", [
    *(bmp(bits=bits) for bits in (1, 4, 8, 16, 24, 32)),
    *(bmp(size=size) for size in (12, 52, 56, 64, 108, 124)),
    bmp(size=12, bits=8),
    bmp(height=-3),
    bmp(bits=8, colours=7),
    bmp(bits=32, coding=3),
    bmp(bits=16, coding=3, size=124),
    bmp(bits=8, coding=1, pixels=b"\4\1\0\0\0\1"),
])  # fmt: skip
def test_a_bmp_of_every_kind_is_taken(content: bytes) -> None:
    walked = walk(content, LIMITS)
    assert (walked.format, walked.width, walked.height, walked.pieces) == ("bmp", 4, 3, None)


# ---- TIFF ----


def tiff(size: tuple[int, int] = (4, 3), order: str = "<", **changed: Any) -> bytes:
    return tiff_of([tiff_page(size, **changed)], order=order)


def tiff_cases() -> list[Case]:
    whole = tiff()
    circle = (
        whole[:-16] + struct.pack("<I", 8) + whole[-12:]
    )  # the next directory stands between table and strip
    return [
        ("signature", whole[:4], Rule.TRUNCATED),
        ("half", whole[: len(whole) // 2], Rule.TRUNCATED),
        ("a byte too few", whole[:-1], Rule.TRUNCATED),
        ("a directory past the end", b"II*\0\xff\xff\xff\xff" + bytes(20), Rule.TRUNCATED),
        ("values past the end", tiff(tag_700=(1, bytes(4))).replace(b"\xbc\2\1\0\1\0", b"\xbc\2\1\0\xff\xff"), Rule.TRUNCATED),
        ("2^32 values", _counted(0xFFFF_FFFF), Rule.TRUNCATED),
        ("a strip past the end", tiff(tag_273=(4, (1 << 31,))), Rule.TRUNCATED),
        ("a strip that is too short", tiff(strip=bytes(11)), Rule.TRUNCATED),
        ("a last strip that is too short", tiff((4, 3), strip=bytes(8), **_strips(4, 4, 3)), Rule.TRUNCATED),
        ("an empty strip", tiff(tag_259=(3, (5,)), tag_279=(4, (0,))), Rule.TRUNCATED),
        ("directories in a circle", circle, Rule.BAD_FRAMING),
        ("a directory in the header", b"II*\0\4\0\0\0" + bytes(20), Rule.BAD_FRAMING),
        ("an empty directory", b"II*\0\x08\0\0\0" + bytes(20), Rule.BAD_FRAMING),
        ("a tag twice", whole.replace(struct.pack("<HHI", 257, 4, 1), struct.pack("<HHI", 256, 4, 1)), Rule.BAD_FRAMING),
        ("strips that overlap", tiff((4, 3), tag_259=(3, (5,)), **_strips(90, 90, 90)), Rule.BAD_FRAMING),
        ("no width", tiff(tag_256=None), Rule.BAD_HEADER),
        ("a width that is a text", tiff(tag_256=(1, b"4")).replace(b"\0\1\1\0", b"\0\1\2\0"), Rule.BAD_HEADER),
        ("no photometric", tiff(tag_262=None), Rule.BAD_HEADER),
        ("no strips", tiff(tag_273=None), Rule.BAD_HEADER),
        ("no lengths of strips", tiff(tag_279=None), Rule.BAD_HEADER),
        ("two strips for one", tiff(tag_273=(4, (8, 9)), tag_279=(4, (6, 6))), Rule.BAD_HEADER),
        ("strips without rows", tiff(tag_278=(4, (0,))), Rule.BAD_HEADER),
        ("samples in a third way", tiff(tag_284=(3, (3,))), Rule.BAD_HEADER),
        ("12 bits", tiff(tag_258=(3, (12,))), Rule.BAD_HEADER),
        ("samples of different bits", tiff(tag_258=(3, (8, 4))), Rule.BAD_HEADER),
        ("6 samples", tiff(tag_277=(3, (6,))), Rule.BAD_HEADER),
        ("RGB of one sample", tiff(tag_262=(3, (2,))), Rule.BAD_HEADER),
        ("tiles of nothing", tiff(tag_322=(4, (0,)), tag_323=(4, (16,))), Rule.BAD_HEADER),
        ("tiles of everything", tiff(tag_322=(4, (1 << 31,)), tag_323=(4, (16,))), Rule.BAD_HEADER),
        ("no tiles", tiff(tag_322=(4, (16,)), tag_323=(4, (16,))), Rule.BAD_HEADER),
        ("BigTIFF", b"II+\0\x08\0\0\0" + bytes(40), Rule.UNSUPPORTED_CODING),
        *((f"compression {n}", tiff(tag_259=(3, (n,))), Rule.UNSUPPORTED_CODING) for n in (2, 3, 4, 6, 7, 34925, 50000, 50001)),
        ("YCbCr", tiff(tag_262=(3, (6,))), Rule.UNSUPPORTED_CODING),
        ("floating point", tiff(tag_339=(3, (3,))), Rule.UNSUPPORTED_CODING),
        ("no page", b"II*\0\0\0\0\0" + bytes(20), Rule.EMPTY),
        ("width of zero", tiff(tag_256=(4, (0,))), Rule.EMPTY),
        ("the longest side", tiff(tag_257=(4, (0xFFFF_FFFF,))), Rule.SIDE_TOO_LONG),
        ("51 megapixels", tiff(tag_256=(4, (8_000,)), tag_257=(4, (6_251,))), Rule.TOO_MANY_PIXELS),
        ("401 MB of samples", tiff(tag_256=(4, (8_000,)), tag_257=(4, (6_000,)), tag_258=(3, (16,)), tag_262=(3, (5,)), tag_277=(3, (5,))), Rule.TOO_MANY_PIXELS),
        ("tiles beyond count", tiff((4_096, 4_096), strip=bytes(9), tag_322=(4, (8,)), tag_323=(4, (8,))), Rule.TOO_MANY_CHUNKS),
        ("1,001 tags", tiff(**_many_tags()), Rule.TOO_MANY_CHUNKS),
        ("more offsets than any", tiff(tag_273=(4, (8,) * (DATA_CHUNKS_LIMIT + 1))), Rule.TOO_MANY_CHUNKS),
        ("257 pages", tiff_of([tiff_page()] * (FRAMES_LIMIT + 1)), Rule.TOO_MANY_FRAMES),
    ]  # fmt: skip


def _counted(number: int) -> bytes:
    return tiff().replace(struct.pack("<HHI", 279, 4, 1), struct.pack("<HHI", 279, 4, number))


def _many_tags() -> dict[str, Any]:
    return {f"tag_{1_000 + number}": (3, (1,)) for number in range(TAGS_LIMIT)}


def _strips(*lengths: int) -> dict[str, Any]:
    """Tags of a page whose rows are strips of their own, all at the start of the file."""
    return {"tag_273": (4, (8,) * len(lengths)), "tag_278": (4, (1,)), "tag_279": (4, lengths)}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"tag_278": None},
        {"tag_259": None, "tag_277": None},
        {"tag_278": (4, (0xFFFF_FFFF,))},
        {"tag_258": (3, (1,)), "strip": bytes(3)},
        {"tag_700": (1, images.CANARY)},
        {"tag_60000": (4, (1, 2, 3))},
        {"tag_273": None, "tag_279": None, "tag_322": (3, (16,)), "tag_323": (3, (16,)), "tag_324": (4, bytes(256)), "tag_325": (4, (256,))},
        {"tag_258": (3, (8, 8, 8)), "tag_262": (3, (2,)), "tag_277": (3, (3,)), "strip": bytes(36)},
    ],
    ids=range(9),
)  # fmt: skip
def test_a_tiff_of_every_kind_is_taken(order: str, changed: dict[str, Any]) -> None:
    walked = walk(tiff(order=order, **changed), LIMITS)
    assert (walked.format, walked.width, walked.height, walked.pieces) == ("tiff", 4, 3, None)


def test_planes_that_are_apart_have_strips_of_their_own() -> None:
    apart: dict[str, Any] = {
        "tag_258": (3, (8, 8, 8)),
        "tag_262": (3, (2,)),
        "tag_277": (3, (3,)),
        "tag_284": (3, (2,)),
    }
    assert walk(tiff(tag_273=(4, (8, 8, 8)), tag_279=(4, (12, 12, 12)), **apart), LIMITS).width == 4
    with pytest.raises(ImageRefused, match=Rule.TRUNCATED):
        walk(tiff(tag_273=(4, (8, 8, 8)), tag_279=(4, (12, 11, 12)), **apart), LIMITS)


def test_the_pages_of_a_tiff_are_counted_and_its_first_is_judged() -> None:
    pages = [tiff_page(), tiff_page((1, 1))]
    walked = walk(tiff_of(pages), LIMITS)
    assert (walked.width, walked.height, walked.animated) == (4, 3, True)
    assert walk(tiff_of([tiff_page()] * FRAMES_LIMIT), LIMITS).animated


# ---- all three ----


@pytest.mark.parametrize(("what", "content", "rule"), [*gif_cases(), *bmp_cases(), *tiff_cases()])
def test_it_is_refused(what: str, content: bytes, rule: Rule) -> None:
    with pytest.raises(ImageRefused) as caught:
        walk(content, LIMITS)
    assert caught.value.rule == rule
