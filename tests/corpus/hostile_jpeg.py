"""JPEG files with a trick each."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from tests.corpus import images
from tests.corpus.image_case import Case, cut, refused, taken
from tests.corpus.images import jpeg_segment, jpeg_with

PLAIN = images.saved("JPEG", quality=90)
PROGRESSIVE = images.saved("JPEG", progressive=True)
_KINDS = {0xC0, 0xC1, 0xC2}


def segments(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """Marker, data, and for a scan the picture data, of every segment."""
    at, found = 2, []
    while content[at + 1] != 0xD9:
        (length,) = struct.unpack_from(">H", content, at + 2)
        marker, data = content[at + 1], content[at + 4 : at + 2 + length]
        at += 2 + length
        start = at
        while marker == 0xDA and (content[at] != 0xFF or content[at + 1] in {0, *range(0xD0, 0xD8)}):
            at += 1
        found.append((marker, data, content[start:at]))
    return found


def joined(parts: list[tuple[int, bytes, bytes]]) -> bytes:
    body = b"".join(jpeg_segment(marker, data) + scan for marker, data, scan in parts)
    return b"\xff\xd8" + body + b"\xff\xd9"


def without(content: bytes, *markers: int) -> bytes:
    return joined([part for part in segments(content) if part[0] not in markers])


def framed(
    content: bytes, *, width: int = 48, height: int = 32, precision: int = 8, marker: int = 0
) -> bytes:
    """With another frame header."""
    changed = []
    for kind, data, scan in segments(content):
        if kind in _KINDS:
            head = struct.pack(">BHH", precision, height, width) + data[5:]
            changed.append((marker or kind, head, scan))
        else:
            changed.append((kind, data, scan))
    return joined(changed)


def scanned(content: bytes, data: bytes) -> bytes:
    """With other picture data."""
    return joined([(kind, head, data if kind == 0xDA else b"") for kind, head, _ in segments(content)])


def endless(scans: int, *, width: int = 48, height: int = 32) -> bytes:
    """Progressive, with so many scans, the last of which say next to nothing."""
    parts = segments(framed(PROGRESSIVE, width=width, height=height))
    return joined([*parts, *[(0xDA, b"\1\1\0\1\5\0", b"\0")] * (scans - _scans(parts))])


def _scans(parts: list[tuple[int, bytes, bytes]]) -> int:
    return [kind for kind, _, _ in parts].count(0xDA)


def cases() -> Iterator[Case]:
    yield from _sizes()
    yield from _structure()
    yield from _codings()
    yield from _data()
    yield from _passengers()
    for trick, content, extension in cut("jpeg", PLAIN, 8, "jpg"):
        yield refused(trick, content, "truncated", extension)
    for trick, content, extension in cut("progressive jpeg", PROGRESSIVE, 4, "jpg"):
        yield refused(trick, content, "truncated", extension)


def _sizes() -> Iterator[Case]:
    for trick, width, height, rule in (
        ("65,500 a side", 65_500, 65_500, "side_too_long"),
        ("65,535 by 1", 65_535, 1, "side_too_long"),
        ("a row too many for 50 megapixels", 8_000, 6_251, "too_many_pixels"),
        ("no width", 0, 32, "empty"),
        ("no height", 48, 0, "empty"),
    ):
        yield refused(f"jpeg of {trick}", framed(PLAIN, width=width, height=height), rule, "jpg")


def _structure() -> Iterator[Case]:
    frame = next(part for part in segments(PLAIN) if part[0] == 0xC0)
    for trick, content, rule in (
        ("a start and nothing else", b"\xff\xd8\xff\xd9", "truncated"),
        ("no end", PLAIN[:-2], "truncated"),
        ("its last 100 bytes missing", PLAIN[:-100], "truncated"),
        ("no scan", without(PLAIN, 0xDA), "truncated"),
        ("no frame header", without(PLAIN, 0xC0), "bad_framing"),
        ("two frame headers", jpeg_with(PLAIN, jpeg_segment(0xC0, frame[1])), "bad_framing"),
        (
            "a larger frame header first",
            jpeg_with(PLAIN, jpeg_segment(0xC0, b"\x08\x20\0\x20\0" + frame[1][5:])),
            "too_many_pixels",
        ),
        ("a second start within", jpeg_with(PLAIN, b"\xff\xd8"), "bad_framing"),
        ("a segment of length 0", jpeg_with(PLAIN, b"\xff\xe1\0\0"), "bad_framing"),
        ("a segment of length 1", jpeg_with(PLAIN, b"\xff\xe1\0\1"), "bad_framing"),
        ("a segment past the end", jpeg_with(PLAIN, b"\xff\xe1\xff\xff"), "truncated"),
        ("bytes between segments", jpeg_with(PLAIN, jpeg_segment(0xFE, b""), b"evil"), "bad_framing"),
        ("6,000 comments", jpeg_with(PLAIN, jpeg_segment(0xFE, b"a") * 6_000), "too_many_chunks"),
        ("1,000 scans", endless(1_000), "too_many_scans"),
    ):
        yield refused(f"jpeg with {trick}", content, rule, "jpg")


def _codings() -> Iterator[Case]:
    for trick, marker in {
        "lossless": 0xC3,
        "differential": 0xC5,
        "differential progressive": 0xC6,
        "arithmetic": 0xC9,
        "progressive arithmetic": 0xCA,
        "lossless arithmetic": 0xCB,
        "JPEG-LS": 0xF7,
    }.items():
        yield refused(f"jpeg, {trick}", framed(PLAIN, marker=marker), "unsupported_coding", "jpg")
    yield refused("jpeg of 12 bits", framed(PLAIN, precision=12), "unsupported_coding", "jpg")
    yield refused(
        "jpeg, hierarchical", jpeg_with(PLAIN, jpeg_segment(0xDE, bytes(9))), "unsupported_coding", "jpg"
    )
    two = [
        (kind, b"\x08\0\x20\0\x30\2\1\x11\0\2\x11\0" if kind == 0xC0 else data, scan)
        for kind, data, scan in segments(PLAIN)
    ]
    yield refused("jpeg of 2 components", joined(two), "unsupported_coding", "jpg")


def _data() -> Iterator[Case]:
    codes = jpeg_segment(0xC4, b"\0" + b"\xff" + bytes(15) + bytes(255))
    yield refused("jpeg without quantization tables", without(PLAIN, 0xDB), "undecodable", "jpg")
    yield refused(
        "jpeg with more Huffman codes than fit", jpeg_with(without(PLAIN, 0xC4), codes), "undecodable", "jpg"
    )
    yield refused("jpeg with an empty scan", scanned(PLAIN, b""), "truncated", "jpg")
    for trick, whole in {
        "grey": images.saved("JPEG", "L", (320, 240)),
        "halved colour": images.saved("JPEG", "RGB", (320, 240), subsampling=2),
        "CMYK": images.saved("JPEG", "CMYK", (320, 240)),
    }.items():
        half = next(data for kind, _, data in segments(whole) if kind == 0xDA)
        half = half[: len(half) // 2].rstrip(b"\xff")
        yield refused(
            f"half the data of a {trick} jpeg, with an end", scanned(whole, half), "truncated", "jpg"
        )
    # What libjpeg makes of these is a picture, if an ugly one; nothing in the format says that it is wrong.
    noise = bytes(byte for byte in random.Random(9).randbytes(3_000) if byte != 0xFF)
    yield taken("jpeg of noise", scanned(PLAIN, noise), "jpg")
    yield taken("jpeg of stuffed bytes only", scanned(PLAIN, b"\xff\0" * 500), "jpg")


def _passengers() -> Iterator[Case]:
    script = b"*/=1;alert(1)/*<script>alert(1)</script>"
    loop = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"
    entries = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(4_000)
    for trick, content in {
        "JavaScript as its first segment": jpeg_with(
            PLAIN, b"\xff\xe0\x2f\x2a" + script.ljust(0x2F2A - 2, b"/")
        ),
        "HTML in a comment": jpeg_with(PLAIN, jpeg_segment(0xFE, b"<html><script>alert(1)</script>")),
        "PHP in EXIF": jpeg_with(PLAIN, jpeg_segment(0xE1, b"Exif\0\0<?php system('id') ?>")),
        "EXIF in a circle": jpeg_with(PLAIN, jpeg_segment(0xE1, loop)),
        "EXIF of 65,535 entries": jpeg_with(PLAIN, jpeg_segment(0xE1, entries)),
        "an orientation of 99": jpeg_with(PLAIN, jpeg_segment(0xE1, b"Exif\0\0" + images.exif(99))),
        "half a profile": jpeg_with(PLAIN, images.jpeg_profile(images.profile())[0]),
        "a profile that is none": jpeg_with(PLAIN, jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + b"x" * 500)),
        "5 MB of XMP": jpeg_with(PLAIN, jpeg_segment(0xE1, images.XMP_JPEG.ljust(65_000)) * 80),
        "a ZIP behind it": PLAIN + b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18),
        "a JAR behind it": PLAIN + b"PK\x03\x04" + b"META-INF/MANIFEST.MF" + bytes(40),
        "a PDF behind it": PLAIN + b"%PDF-1.4\n%%EOF",
        "HTML behind it": PLAIN + b"<script>alert(1)</script>",
        "a second picture behind it": PLAIN + PLAIN,
        "a thousand FF before a marker": PLAIN[:2] + b"\xff" * 1_000 + PLAIN[2:],
    }.items():
        yield taken(f"jpeg with {trick}", content, "jpg")
