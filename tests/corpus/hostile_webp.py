"""WebP files with a trick each."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.corpus import images
from tests.corpus.image_case import Case, cut, refused, taken
from tests.corpus.images import riff_chunk, webp_chunks, webp_header, webp_of

LOSSY = images.saved("WEBP")
LOSSLESS = images.saved("WEBP", lossless=True)
ALPHA = images.saved("WEBP", "RGBA")
_PICTURE = webp_chunks(LOSSY)[0]
_BITS = webp_chunks(LOSSLESS)[0][1]


def cases() -> Iterator[Case]:
    yield from _sizes()
    yield from _structure()
    yield from _data()
    yield from _animations()
    for trick, content in {
        "a ZIP behind it": LOSSY + b"PK\x05\x06" + bytes(18),
        "HTML behind it": LOSSY + b"<script>alert(1)</script>",
        "HTML in XMP": webp_of([webp_header(0x04), _PICTURE, (b"XMP ", b"<script>alert(1)</script>")]),
        "2 MB of unknown chunks": webp_of([webp_header(0), _PICTURE, *[(b"EViL", bytes(2_000))] * 1_000]),
        "a profile that is none": webp_of([webp_header(0x20), (b"ICCP", b"x" * 600), _PICTURE]),
        "EXIF that is none": webp_of([webp_header(0x08), _PICTURE, (b"EXIF", b"MM\0*\xff\xff\xff\xff")]),
    }.items():
        yield taken(f"webp with {trick}", content, "webp")
    for trick, content, extension in cut("webp", LOSSY, 6, "webp"):
        yield refused(trick, content, "truncated", extension)
    for trick, content, extension in cut("lossless webp", LOSSLESS, 4, "webp"):
        yield refused(trick, content, "truncated", extension)


def _lossless(width: int, height: int, rest: bytes = _BITS[5:]) -> bytes:
    sides = (width - 1) | (height - 1) << 14
    return webp_of([(b"VP8L", b"\x2f" + struct.pack("<I", sides) + rest)])


def _sizes() -> Iterator[Case]:
    yield refused("webp of 268 megapixels", _lossless(16_384, 16_384), "too_many_pixels", "webp")
    yield refused(
        "webp of a row too many for 50 megapixels", _lossless(8_000, 6_251), "too_many_pixels", "webp"
    )
    yield refused(
        "webp with a canvas of 2^24",
        webp_of([webp_header(0, (2**24, 2**24)), _PICTURE]),
        "side_too_long",
        "webp",
    )
    yield refused(
        "webp with another canvas", webp_of([webp_header(0, (480, 320)), _PICTURE]), "size_mismatch", "webp"
    )
    empty = bytearray(_PICTURE[1])
    empty[6:10] = bytes(4)
    yield refused("webp of no size", webp_of([(b"VP8 ", bytes(empty))]), "empty", "webp")


def _structure() -> Iterator[Case]:
    alpha = webp_chunks(ALPHA)
    between = bytearray(_PICTURE[1])
    between[0] |= 1
    for trick, content, rule in (
        ("a size past its end", LOSSY[:4] + b"\xff\xff\xff\xff" + LOSSY[8:], "truncated"),
        ("a size of 0", LOSSY[:4] + bytes(4) + LOSSY[8:], "truncated"),
        ("a chunk past its end", LOSSY[:16] + b"\xff\xff\xff\x7f" + LOSSY[20:], "truncated"),
        ("no picture", webp_of([webp_header(0)]), "truncated"),
        ("nothing", webp_of([]), "truncated"),
        ("two pictures", webp_of([_PICTURE, _PICTURE]), "bad_framing"),
        (
            "a lossy and a lossless picture",
            webp_of([webp_header(0), _PICTURE, (b"VP8L", _BITS)]),
            "bad_framing",
        ),
        ("two headers", webp_of([webp_header(0), webp_header(0), _PICTURE]), "bad_framing"),
        ("metadata first", webp_of([(b"XMP ", b"a"), _PICTURE]), "bad_framing"),
        ("two alpha channels", webp_of([alpha[0], alpha[1], alpha[1], alpha[2]]), "bad_framing"),
        (
            "frames that it does not announce",
            webp_of([webp_header(0), (b"ANMF", bytes(24)), _PICTURE]),
            "bad_framing",
        ),
        ("a picture that is no key frame", webp_of([(b"VP8 ", bytes(between))]), "bad_header"),
        ("6,000 chunks", webp_of([webp_header(0), _PICTURE, *[(b"EViL", b"")] * 6_000]), "too_many_chunks"),
    ):
        yield refused(f"webp with {trick}", content, rule, "webp")


def _data() -> Iterator[Case]:
    noise = random.Random(10).randbytes
    alpha = webp_chunks(ALPHA)
    yield refused("lossless webp of noise", _lossless(480, 320, noise(500)), "undecodable", "webp")
    yield refused(
        "lossless webp with half its data",
        _lossless(48, 32, _BITS[5 : len(_BITS) // 2]),
        "undecodable",
        "webp",
    )
    short = _PICTURE[1][: len(_PICTURE[1]) * 3 // 4]
    yield refused("webp with three quarters of its data", webp_of([(b"VP8 ", short)]), "undecodable", "webp")
    yield refused(
        "webp with an alpha channel of noise",
        webp_of([alpha[0], (b"ALPH", b"\1" + noise(50)), alpha[2]]),
        "undecodable",
        "webp",
    )


def _animations() -> Iterator[Case]:
    def frame(left: int, width: int) -> tuple[bytes, bytes]:
        head = b"".join(value.to_bytes(3, "little") for value in (left, 0, width - 1, 31, 100))
        return b"ANMF", head + b"\0" + riff_chunk(*_PICTURE)

    begin = [webp_header(0x02), (b"ANIM", bytes(6))]
    for trick, chunks, rule in (
        ("a frame outside the canvas", [frame(24, 48)], "size_mismatch"),
        ("a frame of another size", [frame(0, 24)], "size_mismatch"),
        ("no frame", [], "bad_framing"),
        ("half a frame", [(b"ANMF", bytes(10))], "truncated"),
    ):
        yield Case(f"animated webp with {trick}", webp_of([*begin, *chunks]), "animated", rule, "webp")
    yield Case("animated webp of one frame", webp_of([*begin, frame(0, 48)]), "animated", None, "webp")
