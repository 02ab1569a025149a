"""Honest images of every format, small, with every kind of metadata that real ones carry; and the parts to build others.

Pictures come from Pillow, metadata are put in by hand: only so is it certain that they are there. `CANARY` stands in every
place of a file that is not the picture, its orientation or its colour profile.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from PIL import Image

CANARY = b"canary@52.5200N,13.4050E"
SIZE = (48, 32)

XMP_JPEG = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + CANARY + b"</x:xmpmeta>"
IPTC_JPEG = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0" + bytes((len(CANARY),)) + CANARY


@dataclass(frozen=True)
class Sample:
    """An image and what a rewritten one must still say."""

    name: str
    format: str
    content: bytes
    orientation: int = 1
    profile: bytes = b""


# ---- pictures ----


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture with a different value in almost every pixel; the same one each time."""
    width, height = size
    if mode == "I;16":
        samples = [x * 1301 + y * 1999 & 0xFFFF for y in range(height) for x in range(width)]
        return Image.frombytes(mode, size, struct.pack(f"<{len(samples)}H", *samples))
    if mode == "P":
        return picture("RGB", size).quantize(16)
    bands = len(Image.new(mode, (1, 1)).getbands())
    samples = [
        (x * (5 + band) + y * (7 - band) + band * 40) & 0xFF
        for y in range(height)
        for x in range(width)
        for band in range(bands)
    ]
    if mode == "1":
        return picture("L", size).convert("1")
    return Image.frombytes(mode, size, bytes(samples))


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    """`picture` as Pillow writes it in the format `kind`."""
    file = io.BytesIO()
    picture(mode, size).save(file, kind, **options)
    return file.getvalue()


def frames(kind: str, count: int = 3, size: tuple[int, int] = SIZE, **options: Any) -> bytes:
    """An animation, or several pages."""
    pictures = [picture("RGB", size).rotate(90 * number) for number in range(count)]
    file = io.BytesIO()
    pictures[0].save(file, kind, save_all=True, append_images=pictures[1:], **options)
    return file.getvalue()


# ---- metadata ----


def exif(orientation: int = 1, *, order: str = ">") -> bytes:
    """EXIF without prefix: camera, maker note, GPS position, a thumbnail that is a JPEG; canaries in all of them."""
    thumbnail = b"\xff\xd8\xff\xe0\x00\x10JFIF\0" + CANARY + b"\xff\xd9"

    def directory(at: int, entries: list[tuple[int, int, bytes | int]], following: int = 0) -> bytes:
        table, heap = b"", b""
        start = at + 2 + 12 * len(entries) + 4
        for tag, kind, value in entries:
            if isinstance(value, int):
                packed = struct.pack(
                    order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,))
                )
                table += struct.pack(order + "HHI", tag, kind, 1) + packed
            else:
                table += struct.pack(order + "HHII", tag, kind, len(value), start + len(heap))
                heap += value
        return struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", following) + heap

    ascii_kind, short, long, undefined = 2, 3, 4, 7
    first: list[tuple[int, int, bytes | int]] = [
        (0x010E, ascii_kind, CANARY),
        (0x010F, ascii_kind, CANARY),
        (0x0112, short, orientation),
        (0x8769, long, 0),
        (0x8825, long, 0),
    ]
    camera: list[tuple[int, int, bytes | int]] = [(0x927C, undefined, CANARY), (0x9286, undefined, CANARY)]
    position: list[tuple[int, int, bytes | int]] = [(0x001B, undefined, CANARY)]
    camera_at = 8 + len(directory(8, first))
    position_at = camera_at + len(directory(camera_at, camera))
    second_at = position_at + len(directory(position_at, position))
    thumbnail_at = second_at + 2 + 2 * 12 + 4
    first[3], first[4] = (0x8769, long, camera_at), (0x8825, long, position_at)
    return (
        (b"MM" if order == ">" else b"II")
        + struct.pack(order + "HI", 42, 8)
        + directory(8, first, second_at)
        + directory(camera_at, camera)
        + directory(position_at, position)
        + directory(second_at, [(0x0201, long, thumbnail_at), (0x0202, long, len(thumbnail))])
        + thumbnail
    )


def profile(size_bytes: int = 600, space: bytes = b"RGB ") -> bytes:
    """A colour profile as far as its header goes; what follows does not compress."""
    body = b"".join(
        zlib.crc32(bytes((n & 255, n >> 8 & 255, n >> 16))).to_bytes(4, "big") for n in range(size_bytes // 4)
    )
    head = struct.pack(">I4sI4s4s4s12x4s", size_bytes, b"lcms", 0x0440_0000, b"mntr", space, b"XYZ ", b"acsp")
    return (head + bytes(128 - len(head)) + struct.pack(">I", 0) + body)[:size_bytes]


# ---- PNG ----


def png_chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Name and data of every chunk."""
    at, found = 8, []
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in chunks)


def png_with(content: bytes, *extra: tuple[bytes, bytes], before: bytes = b"IDAT") -> bytes:
    """`content` with chunks put before the first one named `before`."""
    chunks = png_chunks(content)
    at = [name for name, _ in chunks].index(before)
    return png_of([*chunks[:at], *extra, *chunks[at:]])


def png_dressed(content: bytes, orientation: int = 6, colours: bytes = b"") -> bytes:
    """A PNG with every kind of chunk that says something besides the picture, on both sides of it."""
    colours = colours or profile()
    first = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"iCCP", CANARY + b"\0\0" + zlib.compress(colours)),
        (b"tIME", struct.pack(">HBBBBB", 2026, 6, 29, 10, 0, 0)),
        (b"tEXt", b"Comment\0" + CANARY),
        (b"prVt", CANARY),
    ]
    second = [
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(CANARY, 0)),
        (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    ]
    last = [
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + CANARY),
        (b"eXIf", exif(orientation)),
        (b"caNv", CANARY),
    ]
    chunks = png_chunks(content)
    shown = [chunk for chunk in chunks if chunk[0] not in {b"gAMA", b"pHYs"}]
    data = [name for name, _ in shown].index(b"IDAT")
    return png_of([shown[0], *first, *shown[1:data], *second, *shown[data:-1], *last, shown[-1]]) + CANARY


# ---- JPEG ----


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(content: bytes, *segments: bytes) -> bytes:
    """`content` with segments put right behind SOI."""
    return content[:2] + b"".join(segments) + content[2:]


def jpeg_profile(colours: bytes, part_bytes: int = 250) -> list[bytes]:
    """The segments that carry a colour profile, in many parts."""
    parts = [colours[at : at + part_bytes] for at in range(0, len(colours), part_bytes)]
    return [
        jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part)
        for number, part in enumerate(parts, 1)
    ]


def jpeg_dressed(content: bytes, orientation: int = 6, colours: bytes = b"", *, order: str = ">") -> bytes:
    """A JPEG with EXIF, XMP, IPTC, MPF, comments, a thumbnail in its JFIF and a second image behind it."""
    jfif = struct.pack(">5sHBHHBB", b"JFIF\0", 0x0102, 1, 72, 72, 3, 3) + CANARY.ljust(27)
    segments = [
        jpeg_segment(0xE0, jfif),
        jpeg_segment(0xE0, b"JFXX\0\x10" + CANARY),
        jpeg_segment(0xE1, b"Exif\0\0" + exif(orientation, order=order)),
        jpeg_segment(0xE1, XMP_JPEG),
        *jpeg_profile(colours or profile()),
        jpeg_segment(0xE2, b"MPF\0" + CANARY),
        jpeg_segment(0xED, IPTC_JPEG),
        jpeg_segment(0xE5, CANARY),
        jpeg_segment(0xFE, CANARY),
    ]
    return jpeg_with(content, *segments) + content[:2] + jpeg_segment(0xFE, CANARY) + content[2:] + CANARY


# ---- WebP ----


def riff_chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Name and data of every chunk."""
    at, found = 12, []
    while at < len(content):
        (length,) = struct.unpack_from("<I", content, at + 4)
        found.append((content[at : at + 4], content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def webp_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"WEBP" + b"".join(riff_chunk(name, data) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_header(flags: int, size: tuple[int, int] = SIZE) -> tuple[bytes, bytes]:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    return b"VP8X", bytes((flags, 0, 0, 0)) + sides


def webp_dressed(
    content: bytes,
    orientation: int = 6,
    colours: bytes = b"",
    size: tuple[int, int] = SIZE,
    *,
    prefix: bool = False,
) -> bytes:
    """A WebP with a profile, EXIF, XMP, chunks that nobody knows, and something behind it."""
    pictures = [chunk for chunk in webp_chunks(content) if chunk[0] in {b"ALPH", b"VP8 ", b"VP8L"}]
    alpha = 0x10 if pictures[0][0] == b"ALPH" or pictures[0][1][4] & 0x10 else 0
    return (
        webp_of(
            [
                webp_header(0x2C | alpha, size),
                (b"ICCP", colours or profile()),
                (b"caNv", CANARY),
                *pictures,
                (b"EXIF", (b"Exif\0\0" if prefix else b"") + exif(orientation)),
                (b"XMP ", CANARY),
                (b"junk", CANARY + b"."),
            ]
        )
        + CANARY
    )


# ---- the collection ----


def _pngs() -> list[Sample]:
    palette = saved("PNG", "P", transparency=3)
    colour = png_chunks(saved("PNG"))
    two_bytes = b"".join(b"\0" + bytes((x * y + x) & 255 for x in range(SIZE[0] * 6)) for y in range(SIZE[1]))
    deep = (b"IHDR", colour[0][1][:8] + b"\x10" + colour[0][1][9:])
    interlaced = (b"IHDR", colour[0][1][:12] + b"\x01")
    return [
        *(
            Sample(f"png {mode}", "png", saved("PNG", mode))
            for mode in ("RGB", "RGBA", "L", "LA", "1", "P", "I;16")
        ),
        Sample("png palette with transparency", "png", palette),
        Sample(
            "png 16-bit colour", "png", png_of([deep, (b"IDAT", zlib.compress(two_bytes)), (b"IEND", b"")])
        ),
        Sample(
            "png interlaced",
            "png",
            png_of([interlaced, (b"IDAT", zlib.compress(_adam7(*SIZE))), (b"IEND", b"")]),
        ),
        Sample("png grey with transparency", "png", png_with(saved("PNG", "L"), (b"tRNS", b"\0\x10"))),
        Sample("png in many pieces", "png", _pieces(colour)),
        Sample("png dressed", "png", png_dressed(saved("PNG")), 6, profile()),
        Sample("png palette dressed", "png", png_dressed(palette, 3), 3, profile()),
    ]


def _pieces(chunks: list[tuple[bytes, bytes]]) -> bytes:
    (data,) = (data for name, data in chunks if name == b"IDAT")
    cut = [(b"IDAT", data[at : at + 7]) for at in range(0, len(data), 7)]
    return png_of([chunks[0], (b"IDAT", b""), *cut, chunks[-1]])


def _adam7(width: int, height: int) -> bytes:
    """Rows of an interlaced picture of three 8-bit samples, pass by pass."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = []
    for left, top, across, down in passes:
        columns = range(left, width, across)
        rows += [
            b"\0" + bytes((x * 3 + y * 5 + b * 9) & 255 for x in columns for b in range(3))
            for y in range(top, height, down)
        ]
    return b"".join(rows)


def _jpegs() -> list[Sample]:
    plain = saved("JPEG", quality=90)
    return [
        Sample("jpeg 4:2:0", "jpeg", plain),
        Sample("jpeg 4:4:4", "jpeg", saved("JPEG", subsampling=0)),
        Sample("jpeg grey", "jpeg", saved("JPEG", "L")),
        Sample("jpeg cmyk", "jpeg", saved("JPEG", "CMYK")),
        Sample("jpeg progressive", "jpeg", saved("JPEG", progressive=True)),
        Sample("jpeg with restarts", "jpeg", saved("JPEG", restart_marker_blocks=1)),
        Sample("jpeg rgb", "jpeg", saved("JPEG", keep_rgb=True)),
        Sample("jpeg with fill", "jpeg", plain[:2] + b"\xff\xff\xff" + plain[2:]),
        Sample("jpeg dressed", "jpeg", jpeg_dressed(plain), 6, profile()),
        Sample("jpeg dressed, little-endian", "jpeg", jpeg_dressed(plain, 8, order="<"), 8, profile()),
        Sample(
            "jpeg progressive dressed", "jpeg", jpeg_dressed(saved("JPEG", progressive=True), 2), 2, profile()
        ),
        Sample(
            "jpeg cmyk dressed",
            "jpeg",
            jpeg_dressed(saved("JPEG", "CMYK"), 1, profile(600, b"CMYK")),
            1,
            profile(600, b"CMYK"),
        ),
        Sample("jpeg with a large profile", "jpeg", _with_large_profile(plain), 1, profile(140_000)),
    ]


def _with_large_profile(plain: bytes) -> bytes:
    return jpeg_with(plain, *jpeg_profile(profile(140_000), 60_000))


def _webps() -> list[Sample]:
    odd = (47, 31)
    return [
        Sample("webp lossy", "webp", saved("WEBP")),
        Sample("webp lossy with alpha", "webp", saved("WEBP", "RGBA")),
        Sample("webp lossless", "webp", saved("WEBP", lossless=True)),
        Sample("webp lossless with alpha", "webp", saved("WEBP", "RGBA", lossless=True)),
        Sample("webp of odd size", "webp", saved("WEBP", size=odd)),
        Sample("webp lossy dressed", "webp", webp_dressed(saved("WEBP")), 6, profile()),
        Sample(
            "webp alpha dressed", "webp", webp_dressed(saved("WEBP", "RGBA"), 5, prefix=True), 5, profile()
        ),
        Sample(
            "webp lossless dressed",
            "webp",
            webp_dressed(saved("WEBP", "RGBA", lossless=True), 3),
            3,
            profile(),
        ),
        Sample(
            "webp with an odd profile", "webp", webp_dressed(saved("WEBP"), 1, profile(601)), 1, profile(601)
        ),
    ]


def _others() -> list[Sample]:
    return [
        *(Sample(f"bmp {mode}", "bmp", saved("BMP", mode)) for mode in ("RGB", "RGBA", "L", "1", "P")),
        *(Sample(f"gif {mode}", "gif", saved("GIF", mode, comment=CANARY)) for mode in ("RGB", "L", "P")),
        *(
            Sample(f"tiff {mode}", "tiff", saved("TIFF", mode))
            for mode in ("RGB", "RGBA", "L", "1", "P", "CMYK", "I;16")
        ),
        *(
            Sample(f"tiff {name}", "tiff", saved("TIFF", compression=name, description=CANARY.decode()))
            for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        Sample("tiff in strips", "tiff", saved("TIFF", size=(400, 300), compression="tiff_lzw")),
        Sample("tiff big-endian", "tiff", tiff_of([tiff_page()], order=">")),
    ]


@functools.cache
def honest() -> tuple[Sample, ...]:
    """Every sample, single pictures all of them: each must be taken where its format is."""
    return (*_pngs(), *_jpegs(), *_webps(), *_others())


@functools.cache
def animations() -> tuple[Sample, ...]:
    """Images of more than one frame or page."""
    return (
        Sample("apng", "png", frames("PNG", duration=100)),
        Sample("webp animation", "webp", frames("WEBP", duration=100)),
        Sample("gif animation", "gif", frames("GIF", duration=100)),
        Sample("tiff pages", "tiff", frames("TIFF")),
    )


# ---- TIFF by hand ----


def tiff_page(
    size: tuple[int, int] = (4, 3), **changed: Any
) -> dict[int, tuple[int, tuple[int, ...] | bytes]]:
    """A grey page of one strip: kind and values by tag. `strip` is its data; `tag_<number>` changes or (None) removes a tag."""
    width, height = size
    strip = changed.pop("strip", None) or bytes(n & 255 for n in range(width * height))
    page: dict[int, tuple[int, tuple[int, ...] | bytes]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (8,)),
        259: (3, (1,)),
        262: (3, (1,)),
        273: (4, strip),
        277: (3, (1,)),
        278: (4, (height,)),
        279: (4, (len(strip),)),
    }
    for name, value in changed.items():
        tag = int(name.removeprefix("tag_"))
        if value is None:
            del page[tag]
        else:
            page[tag] = value
    return dict(sorted(page.items()))


def tiff_of(pages: list[dict[int, tuple[int, tuple[int, ...] | bytes]]], *, order: str = "<") -> bytes:
    """A TIFF of pages; a value given as bytes is put into the file, and its place into the tag."""
    content = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    for number, page in enumerate(pages):
        heap_at = len(content) + 2 + 12 * len(page) + 4
        table, heap = b"", b""
        for tag, (kind, values) in page.items():
            if isinstance(values, bytes):
                table += struct.pack(order + "HHII", tag, kind, 1, heap_at + len(heap))
                heap += values
                continue
            packed = struct.pack(f"{order}{len(values)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *values)
            table += struct.pack(order + "HHI", tag, kind, len(values))
            if len(packed) <= 4:
                table += packed.ljust(4, b"\0")
            else:
                table += struct.pack(order + "I", heap_at + len(heap))
                heap += packed
        following = heap_at + len(heap) if number + 1 < len(pages) else 0
        content += struct.pack(order + "H", len(page)) + table + struct.pack(order + "I", following) + heap
    return content
