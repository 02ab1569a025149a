"""PNG files with a trick each."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

from tests.corpus import images
from tests.corpus.image_case import Case, cut, refused, taken
from tests.corpus.images import png_chunks, png_of, png_with

PLAIN = images.saved("PNG")
END = (b"IEND", b"")
MEGABYTE = 1024**2


def header(
    width: int, height: int, depth: int = 8, colour: int = 2, rest: bytes = b"\0\0\0"
) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest


def rows(width: int, height: int, data: bytes | None = None) -> tuple[bytes, bytes]:
    """IDAT of a black picture of three bytes a pixel, or of other data."""
    return b"IDAT", zlib.compress(bytes((3 * width + 1) * height) if data is None else data)


def zeros(size_bytes: int) -> bytes:
    """So many zeros, packed: a thousandth of them."""
    packer = zlib.compressobj(9)
    piece = bytes(MEGABYTE)
    return b"".join(packer.compress(piece) for _ in range(size_bytes // MEGABYTE)) + packer.flush()


def cases() -> Iterator[Case]:
    yield from _sizes()
    yield from _bombs()
    yield from _structure()
    yield from _data()
    yield from _tails()
    for trick, content, extension in cut("png", PLAIN, 8, "png"):
        yield refused(trick, content, "truncated", extension)


def _sizes() -> Iterator[Case]:
    for trick, chunk, rule in (
        ("144 megapixels of 16 bits", header(12_000, 12_000, 16), "too_many_pixels"),
        ("50,000 a side, one bit", header(50_000, 50_000, 1, 0), "side_too_long"),
        ("side of 2,000,000", header(2_000_000, 1), "side_too_long"),
        ("side of 5,000,000, upright", header(1, 5_000_000), "side_too_long"),
        ("side of 2^31 - 1", header(2**31 - 1, 2**31 - 1), "side_too_long"),
        ("one pixel too wide", header(16_385, 1), "side_too_long"),
        ("a row too many for 50 megapixels", header(8_000, 6_251, 1, 0), "too_many_pixels"),
        ("no width", header(0, 10), "empty"),
        ("no height", header(10, 0), "empty"),
    ):
        yield refused(f"png of {trick}", png_of([chunk, rows(1, 1), END]), rule)
    yield taken("png as wide as can be", png_of([header(16_384, 1), rows(16_384, 1), END]))
    whole = zlib.compress(bytes((8_000 // 8 + 1) * 6_250))
    yield taken("png of exactly 50 megapixels", png_of([header(8_000, 6_250, 1, 0), (b"IDAT", whole), END]))


def _bombs() -> Iterator[Case]:
    bomb = zeros(64 * MEGABYTE)
    yield taken("png with a zTXt bomb", png_with(PLAIN, (b"zTXt", b"a\0\0" + bomb)))
    yield taken("png with an iTXt bomb", png_with(PLAIN, (b"iTXt", b"a\0\1\0\0\0" + bomb)))
    yield taken("png with an iCCP bomb", png_with(PLAIN, (b"iCCP", b"a\0\0" + bomb)))
    yield taken("png with an EXIF of 5 MB", png_with(PLAIN, (b"eXIf", b"MM\0*" + bytes(5 * MEGABYTE))))
    yield taken("png with a text of 5 MB", png_with(PLAIN, (b"tEXt", b"a\0" + b"b" * 5 * MEGABYTE)))
    yield refused("png of 6,000 texts", png_with(PLAIN, *[(b"tEXt", b"a\0b")] * 6_000), "too_many_chunks")
    crumbs = [(b"IDAT", b"")] * 70_000
    yield refused("png of 70,000 empty IDAT", png_with(PLAIN, *crumbs), "too_many_chunks")
    frames = [(b"fcTL", bytes(26)), (b"fdAT", bytes(10))] * 3_000
    yield refused("apng of 3,000 frames", png_with(PLAIN, (b"acTL", bytes(8)), *frames), "too_many_chunks")


def _structure() -> Iterator[Case]:
    chunks = png_chunks(PLAIN)
    palette = png_chunks(images.saved("PNG", "P"))
    data = rows(4, 4)
    colours = (b"PLTE", bytes(12))
    for trick, content, rule in (
        ("nothing else", PLAIN[:8], "truncated"),
        ("no header", png_of(chunks[1:]), "bad_framing"),
        ("a header of 12 bytes", png_of([(b"IHDR", bytes(12)), data, END]), "bad_framing"),
        ("two headers", png_with(PLAIN, chunks[0]), "bad_framing"),
        ("a larger second header", png_with(PLAIN, header(12_000, 12_000)), "bad_framing"),
        ("no picture data", png_of([chunks[0], END]), "truncated"),
        ("no end", png_of(chunks[:-1]), "truncated"),
        ("picture data apart", png_of([header(4, 4), data, (b"tEXt", b"a\0b"), data, END]), "bad_framing"),
        ("no palette", png_of([chunk for chunk in palette if chunk[0] != b"PLTE"]), "bad_framing"),
        ("a palette behind the data", png_of([header(4, 4, 8, 3), data, colours, END]), "bad_framing"),
        ("two palettes", png_with(png_of(palette), colours), "bad_framing"),
        ("a palette for grey", png_with(images.saved("PNG", "L"), colours), "bad_header"),
        (
            "a palette of 300 colours",
            png_of([header(4, 4, 8, 3), (b"PLTE", bytes(900)), data, END]),
            "bad_header",
        ),
        ("a depth of 3", png_of([header(4, 4, 3), data, END]), "bad_header"),
        ("colour type 5", png_of([header(4, 4, 8, 5), data, END]), "bad_header"),
        ("an unknown interlace", png_of([header(4, 4, rest=b"\0\0\2"), data, END]), "bad_header"),
        ("an unknown compression", png_of([header(4, 4, rest=b"\1\0\0"), data, END]), "bad_header"),
        ("an unknown critical chunk", png_with(PLAIN, (b"EViL", b"x")), "unsupported_coding"),
        ("Apple's own coding", png_with(PLAIN, (b"CgBI", bytes(4)), before=b"IHDR"), "unsupported_coding"),
        ("a length of 2^31", PLAIN[:33] + b"\x80\0\0\0" + PLAIN[37:], "bad_framing"),
        ("a length of 2^31 - 1", PLAIN[:33] + b"\x7f\xff\xff\xff" + PLAIN[37:], "truncated"),
        ("line ends of another system", PLAIN.replace(b"\r\n", b"\n", 1), "unknown_format"),
    ):
        yield refused(f"png with {trick}", content, rule)


def _flipped(name: bytes) -> bytes:
    """With one bit of a chunk's checksum turned over."""
    content = bytearray(png_with(PLAIN, (b"tEXt", b"a\0b")))
    at = content.index(name)
    (length,) = struct.unpack_from(">I", content, at - 4)
    content[at + 4 + length] ^= 1
    return bytes(content)


def _data() -> Iterator[Case]:
    yield from (
        refused(f"png with a bit flipped behind {name.decode()}", _flipped(name), "bad_checksum")
        for name in (b"IHDR", b"tEXt", b"IDAT", b"IEND")
    )
    noise = random.Random(7).randbytes
    size = header(40, 30)
    pixels = bytearray(121 * 30)
    pixels[::121] = bytes([9]) * 30
    packed = zlib.compress(bytes(121 * 30))
    for trick, data in (
        ("rubbish for data", noise(2_000)),
        ("no filter of that number", zlib.compress(bytes(pixels))),
        ("three rows too few", zlib.compress(bytes(121 * 27))),
        ("a byte too few", zlib.compress(bytes(121 * 30 - 1))),
        ("data that end halfway", packed[: len(packed) // 2]),
        ("a preset dictionary", b"\x78\xbb" + noise(200)),
        ("a row too many", zlib.compress(bytes(121 * 31))),
        ("64 MB behind the last row", zeros(64 * MEGABYTE)),
        ("something behind its data", packed + b"<script>alert(1)</script>"),
        ("a bad checksum of its data", packed[:-1] + bytes((packed[-1] ^ 1,))),
        ("gzip for zlib", b"\x1f\x8b\x08" + noise(200)),
    ):
        yield refused(f"png with {trick}", png_of([size, (b"IDAT", data), END]), "undecodable")


def _tails() -> Iterator[Case]:
    for trick, tail in {
        "HTML": b"<html><script>alert(1)</script></html>",
        "PHP": b"<?php system($_GET['c']); ?>",
        "a PDF": b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj",
        "a ZIP": b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18),
        "another PNG": PLAIN,
        "zeros": bytes(4_096),
        "1 MB of noise": random.Random(8).randbytes(MEGABYTE),
    }.items():
        yield taken(f"png with {trick} behind it", PLAIN + tail)
    page = b"a\0<script>alert(document.domain)</script>"
    yield taken("png with a script in a text", png_with(PLAIN, (b"tEXt", page)), "html")
