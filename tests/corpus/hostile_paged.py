"""GIF, BMP and TIFF files with a trick each."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

from tests.corpus import images
from tests.corpus.image_case import Case, cut, refused_elsewhere, taken_elsewhere
from tests.corpus.images import tiff_of, tiff_page

GIF = images.saved("GIF")
BMP = images.saved("BMP")
TIFF = images.saved("TIFF", compression="tiff_lzw")
_SCREEN_AT = 6
_FIRST_FRAME = b"\x2c\0\0\0\0"


def cases() -> Iterator[Case]:
    yield from _gifs()
    yield from _bmps()
    yield from _tiffs()
    for name, content in (("gif", GIF), ("bmp", BMP), ("tiff", TIFF)):
        for trick, short, extension in cut(name, content, 5, name):
            yield refused_elsewhere(trick, short, "truncated", extension)


def gif(*blocks: bytes, width: int = 4, height: int = 4) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b"".join(blocks) + b";"


def gif_frame(
    width: int = 4,
    height: int = 4,
    *,
    left: int = 0,
    code_size: int = 2,
    data: bytes = b"\x04\x84\x8f\xa9\x05",
) -> bytes:
    return (
        struct.pack("<BHHHHBB", 0x2C, left, 0, width, height, 0, code_size)
        + bytes((len(data),))
        + data
        + b"\0"
    )


def _gifs() -> Iterator[Case]:
    whole = GIF[GIF.index(_FIRST_FRAME) : -1]
    screen = struct.pack("<HH", 65_535, 65_535)
    for trick, content, rule in (
        ("65,535 a side", GIF[:6] + screen + GIF[10:], "side_too_long"),
        ("no width", GIF[:6] + bytes(2) + GIF[8:], "empty"),
        ("no frame", gif(), "empty"),
        ("a frame of no width", gif(gif_frame(0)), "empty"),
        ("a frame outside the screen", gif(gif_frame(left=3)), "size_mismatch"),
        ("a frame of 65,535", gif(gif_frame(65_535, 65_535)), "size_mismatch"),
        ("codes of 12 bits", gif(gif_frame(code_size=12)), "bad_header"),
        ("a frame without data", gif(gif_frame(data=b"")[:-1]), "truncated"),
        ("100,000 frames", gif(gif_frame() * 100_000), "too_many_frames"),
        (
            "300,000 crumbs of comment",
            gif(b"\x21\xfe" + b"\1a" * 300_000 + b"\0", gif_frame()),
            "too_many_chunks",
        ),
        ("6,000 comments", gif(b"\x21\xfe\1a\0" * 6_000, gif_frame()), "too_many_chunks"),
        ("a block of no kind", gif(b"\x99", gif_frame()), "bad_framing"),
        ("no end", GIF[:-1], "truncated"),
        ("too little data", gif(gif_frame(200, 200), width=200, height=200), "undecodable"),
        (
            "rubbish for data",
            gif(
                gif_frame(200, 200, code_size=8, data=random.Random(11).randbytes(200)), width=200, height=200
            ),
            "undecodable",
        ),
    ):
        yield refused_elsewhere(f"gif with {trick}", content, rule, "gif")
    yield taken_elsewhere(
        "gif with a JAR behind it", GIF + b"PK\x03\x04META-INF/MANIFEST.MF" + bytes(40), "gif"
    )
    yield taken_elsewhere(
        "gif with a script in a comment",
        gif(b"\x21\xfe\x19<script>alert(1)</script>\0", whole, width=48, height=32),
        "gif",
    )


def _bmp(**changes: int) -> bytes:
    """With other numbers in its headers."""
    places = {
        "offset": (10, "I"),
        "header": (14, "I"),
        "width": (18, "i"),
        "height": (22, "i"),
        "planes": (26, "H"),
    }
    places |= {"bits": (28, "H"), "coding": (30, "I"), "colours": (46, "I")}
    content = bytearray(BMP)
    for name, value in changes.items():
        at, kind = places[name]
        struct.pack_into("<" + kind, content, at, value)
    return bytes(content)


def _bmps() -> Iterator[Case]:
    for trick, content, rule in (
        ("2^31 - 1 a side", _bmp(width=2**31 - 1, height=2**31 - 1), "side_too_long"),
        ("a height of -2^31", _bmp(height=-(2**31)), "side_too_long"),
        ("a row too many for 50 megapixels", _bmp(width=8_000, height=6_251), "too_many_pixels"),
        ("no width", _bmp(width=0), "empty"),
        ("a negative width", _bmp(width=-48), "empty"),
        ("more rows than data", _bmp(height=100), "truncated"),
        ("3 bits", _bmp(bits=3), "bad_header"),
        ("2 planes", _bmp(planes=2), "bad_header"),
        ("a JPEG within", _bmp(coding=4), "unsupported_coding"),
        ("a PNG within", _bmp(coding=5), "unsupported_coding"),
        ("runs from the top down", _bmp(height=-32, bits=8, coding=1), "bad_header"),
        ("pixels in the header", _bmp(offset=20), "bad_framing"),
        ("pixels past the end", _bmp(offset=2**31), "truncated"),
        ("2^31 colours", _bmp(bits=8, colours=2**31), "bad_header"),
    ):
        yield refused_elsewhere(f"bmp with {trick}", content, rule, "bmp")
    runs = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 1_078) + struct.pack(
        "<IiiHHIIiiII", 40, 8_000, 6_250, 1, 8, 1, 0, 0, 0, 256, 0
    )
    yield refused_elsewhere(
        "bmp of 50 megapixels in a run", runs + bytes(1_024) + b"\xff\1\0\1", "undecodable", "bmp"
    )
    yield taken_elsewhere("bmp from the top down", _bmp(height=-32), "bmp")
    yield taken_elsewhere("bmp with HTML behind it", BMP + b"<script>alert(1)</script>", "bmp")


def _tiffs() -> Iterator[Case]:
    noise = random.Random(12).randbytes(600)
    loop = bytearray(tiff_of([tiff_page()]))
    struct.pack_into("<I", loop, 8 + 2 + 12 * 9, 8)
    for trick, content, rule in (
        ("directories in a circle", bytes(loop), "bad_framing"),
        ("10,000 pages", tiff_of([tiff_page((1, 1))] * 10_000), "too_many_frames"),
        ("64-bit places", b"II+\0" + b"\x08\0\0\0" + bytes(40), "unsupported_coding"),
        ("a directory past the end", b"II*\0\xff\xff\xff\x7f" + bytes(40), "truncated"),
        ("no directory", b"II*\0" + bytes(40), "empty"),
        ("an empty directory", b"II*\0\x08\0\0\0" + bytes(40), "bad_framing"),
        (
            "2^32 - 1 a side",
            tiff_of([tiff_page(tag_256=(4, (2**32 - 1,)), tag_257=(4, (2**32 - 1,)))]),
            "side_too_long",
        ),
        (
            "a row too many for 50 megapixels",
            tiff_of([tiff_page(tag_256=(4, (8_000,)), tag_257=(4, (6_251,)))]),
            "too_many_pixels",
        ),
        ("no width", tiff_of([tiff_page(tag_256=(4, (0,)))]), "empty"),
        ("no rows a strip", tiff_of([tiff_page(tag_278=(4, (0,)))]), "bad_header"),
        ("a strip past the end", tiff_of([tiff_page(tag_279=(4, (2**31,)))]), "truncated"),
        ("a strip that is too short", tiff_of([tiff_page(tag_279=(4, (5,)))]), "truncated"),
        ("a JPEG within", tiff_of([tiff_page(tag_259=(3, (7,)))]), "unsupported_coding"),
        ("fax coding", tiff_of([tiff_page(tag_259=(3, (4,)))]), "unsupported_coding"),
        ("a coding of no name", tiff_of([tiff_page(tag_259=(3, (50_000,)))]), "unsupported_coding"),
        ("floating point", tiff_of([tiff_page(tag_339=(3, (3,)))]), "unsupported_coding"),
        ("7 bits", tiff_of([tiff_page(tag_258=(3, (7,)))]), "bad_header"),
        ("200 samples", tiff_of([tiff_page(tag_277=(3, (200,)))]), "bad_header"),
        ("rubbish for LZW", tiff_of([tiff_page((300, 300), strip=noise, tag_259=(3, (5,)))]), "undecodable"),
        (
            "rubbish for deflate",
            tiff_of([tiff_page((300, 300), strip=noise, tag_259=(3, (8,)))]),
            "undecodable",
        ),
        (
            "too little in deflate",
            tiff_of([tiff_page((300, 300), strip=zlib.compress(bytes(900)), tag_259=(3, (8,)))]),
            "undecodable",
        ),
    ):
        yield refused_elsewhere(f"tiff with {trick}", content, rule, "tiff")
    yield taken_elsewhere(
        "tiff with a resolution of 3 values", tiff_of([tiff_page(tag_296=(3, (2, 2, 2)))]), "tiff"
    )
    yield taken_elsewhere("tiff with HTML behind it", TIFF + b"<script>alert(1)</script>", "tiff")
