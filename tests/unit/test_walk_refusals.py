from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable

import pytest

from services.provider_pool.references.container import (
    CHUNKS_LIMIT,
    FORMATS,
    SCANS_LIMIT,
    ImageLimits,
    ImageRefused,
    Rule,
    walk,
)
from services.provider_pool.references.walked import DATA_CHUNKS_LIMIT
from tests.corpus import images
from tests.corpus.images import jpeg_segment, png_chunks, png_of, png_with, riff_chunk, webp_header, webp_of

LIMITS = ImageLimits(FORMATS, 20 * 1024 * 1024)
Case = tuple[str, bytes, Rule]

PNG = images.saved("PNG")
PALETTE = images.saved("PNG", "P")
JPEG = images.saved("JPEG")
PROGRESSIVE = images.saved("JPEG", progressive=True)
WEBP = images.saved("WEBP")
LOSSLESS = images.saved("WEBP", lossless=True)
ALPHA = images.saved("WEBP", "RGBA")


def refusal(content: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(ImageRefused) as caught:
        walk(content, limits)
    return caught.value.rule


# ---- PNG ----


def header(
    width: int = 4, height: int = 4, depth: int = 8, colour: int = 2, *rest: int
) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *(rest or (0, 0, 0)))


DATA = (b"IDAT", zlib.compress(bytes(52)))
END = (b"IEND", b"")
MAP = (b"PLTE", bytes(12))
PLACE = (b"fcTL", bytes(26))


def frames_of(number: int) -> tuple[bytes, bytes]:
    return b"acTL", struct.pack(">II", number, 0)


def png_framing_cases() -> list[Case]:
    chunks = png_chunks(PNG)
    flipped = bytearray(PNG)
    flipped[PNG.index(b"IDAT") + 9] ^= 1
    negative = PNG[:33] + b"\x80\0\0\0IDAT" + PNG[41:]
    return [
        ("nothing behind the signature", PNG[:8], Rule.TRUNCATED),
        ("half", PNG[: len(PNG) // 2], Rule.TRUNCATED),
        ("no IEND", png_of(chunks[:-1]), Rule.TRUNCATED),
        ("IEND without checksum", PNG[:-1], Rule.TRUNCATED),
        ("no IDAT", png_of([header(), END]), Rule.TRUNCATED),
        ("empty IDAT", png_of([header(), (b"IDAT", b""), END]), Rule.TRUNCATED),
        ("a flipped bit", bytes(flipped), Rule.BAD_CHECKSUM),
        (
            "a flipped bit in a text",
            png_with(PNG, (b"tEXt", b"a\0b")).replace(b"a\0b", b"a\0c"),
            Rule.BAD_CHECKSUM,
        ),
        ("a length of 2^31", negative, Rule.BAD_FRAMING),
        ("a name that is none", png_with(PNG, (b"a\0bc", b"")), Rule.BAD_FRAMING),
        ("no header first", png_of([DATA, header(), END]), Rule.BAD_FRAMING),
        ("a short header", png_of([(b"IHDR", bytes(12)), DATA, END]), Rule.BAD_FRAMING),
        ("two headers", png_with(PNG, header()), Rule.BAD_FRAMING),
        ("IDAT apart", png_of([header(), DATA, (b"tEXt", b"a\0b"), DATA, END]), Rule.BAD_FRAMING),
        ("data in IEND", png_of([header(), DATA, (b"IEND", b"x")]), Rule.BAD_FRAMING),
        ("no palette", png_of([c for c in png_chunks(PALETTE) if c[0] != b"PLTE"]), Rule.BAD_FRAMING),
        ("a late palette", png_of([header(colour=3), DATA, MAP, END]), Rule.BAD_FRAMING),
        ("two palettes", png_with(PALETTE, MAP), Rule.BAD_FRAMING),
        ("late transparency", png_with(PNG, (b"tRNS", bytes(6)), before=b"IEND"), Rule.BAD_FRAMING),
    ]


def png_meaning_cases() -> list[Case]:
    return [
        ("a palette for grey", png_with(images.saved("PNG", "L"), MAP), Rule.BAD_HEADER),
        (
            "a palette of odd length",
            png_of([header(colour=3), (b"PLTE", bytes(13)), DATA, END]),
            Rule.BAD_HEADER,
        ),
        ("an empty palette", png_of([header(colour=3), (b"PLTE", b""), DATA, END]), Rule.BAD_HEADER),
        ("257 colours", png_of([header(colour=3), (b"PLTE", bytes(771)), DATA, END]), Rule.BAD_HEADER),
        (
            "too much transparency",
            png_of([header(colour=3), MAP, (b"tRNS", bytes(5)), DATA, END]),
            Rule.BAD_HEADER,
        ),
        ("transparency of odd length", png_with(PNG, (b"tRNS", bytes(5))), Rule.BAD_HEADER),
        ("3 bits", png_of([header(depth=3), DATA, END]), Rule.BAD_HEADER),
        ("4 bits of colour", png_of([header(depth=4), DATA, END]), Rule.BAD_HEADER),
        ("16-bit palette", png_of([header(depth=16, colour=3), MAP, DATA, END]), Rule.BAD_HEADER),
        ("colour type 5", png_of([header(colour=5), DATA, END]), Rule.BAD_HEADER),
        ("another compression", png_of([header(4, 4, 8, 2, 1, 0, 0), DATA, END]), Rule.BAD_HEADER),
        ("another filter", png_of([header(4, 4, 8, 2, 0, 1, 0), DATA, END]), Rule.BAD_HEADER),
        ("another interlace", png_of([header(4, 4, 8, 2, 0, 0, 2), DATA, END]), Rule.BAD_HEADER),
        ("an unknown critical chunk", png_with(PNG, (b"CaNV", b"")), Rule.UNSUPPORTED_CODING),
        ("CgBI", png_with(PNG, (b"CgBI", bytes(4)), before=b"IHDR"), Rule.UNSUPPORTED_CODING),
        ("no width", png_of([header(0), DATA, END]), Rule.EMPTY),
        ("no height", png_of([header(4, 0), DATA, END]), Rule.EMPTY),
        ("a long side", png_of([header(16_385, 1), DATA, END]), Rule.SIDE_TOO_LONG),
        ("the longest side", png_of([header(1, 0xFFFF_FFFF), DATA, END]), Rule.SIDE_TOO_LONG),
        ("51 megapixels", png_of([header(8_000, 6_251), DATA, END]), Rule.TOO_MANY_PIXELS),
        ("5,001 texts", png_with(PNG, *[(b"tEXt", b"a\0b")] * (CHUNKS_LIMIT - 1)), Rule.TOO_MANY_CHUNKS),
        (
            "IDAT in crumbs",
            png_of([header(), *[(b"IDAT", b"")] * (DATA_CHUNKS_LIMIT + 1)]),
            Rule.TOO_MANY_CHUNKS,
        ),
        ("an animation", png_with(PNG, (b"acTL", bytes(8))), Rule.ANIMATED),
        ("an animation of two frames", png_with(PNG, frames_of(2), PLACE, PLACE), Rule.ANIMATED),
        ("two frames that are said to be one", png_with(PNG, frames_of(1), PLACE, PLACE), Rule.ANIMATED),
        (
            "one frame, which is not the picture",
            png_with(png_with(PNG, frames_of(1)), PLACE, (b"fdAT", bytes(10)), before=b"IEND"),
            Rule.ANIMATED,
        ),
    ]


def png_cases() -> list[Case]:
    return [*png_framing_cases(), *png_meaning_cases()]


# ---- JPEG ----


def frame(
    width: int = 8,
    height: int = 8,
    *,
    marker: int = 0xC0,
    precision: int = 8,
    components: bytes = b"\1\x11\0",
) -> bytes:
    head = struct.pack(">BHHB", precision, height, width, len(components) // 3)
    return jpeg_segment(marker, head + components)


def scan(components: bytes = b"\1\0", last: bytes = b"\0\x3f\0", data: bytes = b"\x12") -> bytes:
    return jpeg_segment(0xDA, bytes((len(components) // 2,)) + components + last) + data


def jpeg(*segments: bytes, end: bytes = b"\xff\xd9") -> bytes:
    return b"\xff\xd8" + b"".join(segments) + end


def jpeg_framing_cases() -> list[Case]:
    in_frame = JPEG.index(b"\xff\xc0")
    restarts = bytes((0xFF, 0xD0))
    return [
        ("SOI and a marker", b"\xff\xd8\xff", Rule.TRUNCATED),
        ("half", JPEG[: len(JPEG) // 2], Rule.TRUNCATED),
        ("no EOI", JPEG[:-2], Rule.TRUNCATED),
        ("half of EOI", JPEG[:-1], Rule.TRUNCATED),
        ("cut within a segment", JPEG[: in_frame + 6], Rule.TRUNCATED),
        ("EOI at once", jpeg(), Rule.TRUNCATED),
        ("EOI without a scan", jpeg(frame()), Rule.TRUNCATED),
        ("EOI without a frame", jpeg(jpeg_segment(0xFE, b"")), Rule.TRUNCATED),
        (
            "a component without a scan",
            jpeg(frame(components=b"\1\x11\0\2\x11\0\3\x11\0"), scan()),
            Rule.TRUNCATED,
        ),
        ("an empty scan", jpeg(frame(), scan(data=b"")), Rule.TRUNCATED),
        ("a length of 1", jpeg(b"\xff\xe0\0\1"), Rule.BAD_FRAMING),
        (
            "bytes between segments",
            images.jpeg_with(JPEG, jpeg_segment(0xFE, b""), b"\0\1"),
            Rule.BAD_FRAMING,
        ),
        ("a second SOI", jpeg(frame(), scan(), b"\xff\xd8"), Rule.BAD_FRAMING),
        ("a restart outside a scan", images.jpeg_with(JPEG, restarts + b"\0\2"), Rule.BAD_FRAMING),
        ("a reserved marker", images.jpeg_with(JPEG, jpeg_segment(0x02, b"")), Rule.BAD_FRAMING),
        ("a reserved marker in a scan", jpeg(frame(), scan(data=b"\1\xff\2\0\2")), Rule.BAD_FRAMING),
        ("two frames", jpeg(frame(), frame(), scan()), Rule.BAD_FRAMING),
        ("a scan before the frame", jpeg(scan(), frame(), scan()), Rule.BAD_FRAMING),
        (
            "a frame of another length",
            jpeg(jpeg_segment(0xC0, bytes((8, 0, 8, 0, 8, 1, 1))), scan()),
            Rule.BAD_FRAMING,
        ),
        ("a frame without fields", jpeg(jpeg_segment(0xC0, b"\x08"), scan()), Rule.BAD_FRAMING),
        ("a scan of another length", jpeg(frame(), jpeg_segment(0xDA, b"\1\1\0")), Rule.BAD_FRAMING),
        ("a scan without fields", jpeg(frame(), jpeg_segment(0xDA, b"")), Rule.BAD_FRAMING),
        ("5 components in a scan", jpeg(frame(), scan(b"\1\0" * 5)), Rule.BAD_FRAMING),
        ("half a quantization table", jpeg(jpeg_segment(0xDB, bytes(40)), frame(), scan()), Rule.BAD_FRAMING),
        ("an empty quantization table", jpeg(jpeg_segment(0xDB, b""), frame(), scan()), Rule.BAD_FRAMING),
        (
            "a Huffman table that is short",
            jpeg(jpeg_segment(0xC4, b"\0" + b"\1" * 16), frame()),
            Rule.BAD_FRAMING,
        ),
        ("something behind a Huffman table", jpeg(jpeg_segment(0xC4, bytes(20)), frame()), Rule.BAD_FRAMING),
        (
            "a restart interval of 3 bytes",
            jpeg(jpeg_segment(0xDD, bytes(3)), frame(), scan()),
            Rule.BAD_FRAMING,
        ),
    ]


def jpeg_header_cases() -> list[Case]:
    return [
        (
            "quantization table 4",
            jpeg(jpeg_segment(0xDB, b"\4" + bytes(64)), frame(), scan()),
            Rule.BAD_HEADER,
        ),
        ("Huffman table 4", jpeg(jpeg_segment(0xC4, b"\4" + bytes(16)), frame(), scan()), Rule.BAD_HEADER),
        (
            "272 Huffman codes",
            jpeg(jpeg_segment(0xC4, b"\0" + b"\x11" * 16 + bytes(272)), frame()),
            Rule.BAD_HEADER,
        ),
        ("sampling of 0", jpeg(frame(components=b"\1\x01\0"), scan()), Rule.BAD_HEADER),
        ("sampling of 5", jpeg(frame(components=b"\1\x15\0"), scan()), Rule.BAD_HEADER),
        ("a table that cannot be", jpeg(frame(components=b"\1\x11\4"), scan()), Rule.BAD_HEADER),
        (
            "components of one name of which one is missing",
            jpeg(frame(components=b"\1\x11\0" * 3), scan(b"\1\0" * 2)),
            Rule.TRUNCATED,
        ),
        ("a scan of another component", jpeg(frame(), scan(b"\2\0")), Rule.BAD_HEADER),
        ("a scan of one component twice", jpeg(frame(), scan(b"\1\0\1\0")), Rule.BAD_HEADER),
        ("a scan with table 4", jpeg(frame(), scan(b"\1\4")), Rule.BAD_HEADER),
        ("coefficients backwards", jpeg(frame(marker=0xC2), scan(last=b"\5\1\0")), Rule.BAD_HEADER),
        ("coefficient 64", jpeg(frame(marker=0xC2), scan(last=b"\1\x40\0")), Rule.BAD_HEADER),
        *(
            (f"frame kind {marker:02X}", jpeg(frame(marker=marker), scan()), Rule.UNSUPPORTED_CODING)
            for marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7)
        ),
        (
            "arithmetic conditioning",
            jpeg(jpeg_segment(0xCC, b"\0\0"), frame(), scan()),
            Rule.UNSUPPORTED_CODING,
        ),
        ("hierarchical", jpeg(jpeg_segment(0xDE, bytes(9)), frame(), scan()), Rule.UNSUPPORTED_CODING),
        ("12 bits", jpeg(frame(precision=12), scan()), Rule.UNSUPPORTED_CODING),
        ("2 components", jpeg(frame(components=b"\1\x11\0\2\x11\0"), scan()), Rule.UNSUPPORTED_CODING),
        ("no width", jpeg(frame(0), scan()), Rule.EMPTY),
        ("a height told later", jpeg(frame(8, 0), scan(), jpeg_segment(0xDC, b"\0\x08")), Rule.EMPTY),
        ("a long side", jpeg(frame(16_385), scan()), Rule.SIDE_TOO_LONG),
        ("51 megapixels", jpeg(frame(8_000, 6_251), scan()), Rule.TOO_MANY_PIXELS),
        ("65 scans", jpeg(frame(marker=0xC2), *[scan()] * (SCANS_LIMIT + 1)), Rule.TOO_MANY_SCANS),
        (
            "5,001 comments",
            images.jpeg_with(JPEG, jpeg_segment(0xFE, b"") * (CHUNKS_LIMIT + 1)),
            Rule.TOO_MANY_CHUNKS,
        ),
    ]


# ---- WebP ----


def _sized(content: bytes, size: int) -> bytes:
    return content[:4] + struct.pack("<I", size) + content[8:]


def lossy(*changes: tuple[int, int]) -> bytes:
    data = bytearray(images.webp_chunks(WEBP)[0][1])
    for at, value in changes:
        data[at] = value
    return webp_of([(b"VP8 ", bytes(data))])


def moved(**places: int) -> bytes:
    """A frame of an animation on a canvas of 48 by 32."""
    place = {"left": 0, "top": 0, "width": 47, "height": 31, **places}
    head = b"".join(value.to_bytes(3, "little") for value in place.values()) + bytes(4)
    return webp_of(
        [webp_header(0x02), (b"ANIM", bytes(6)), (b"ANMF", head + riff_chunk(*images.webp_chunks(WEBP)[0]))]
    )


def webp_cases() -> list[Case]:
    ((_, data),) = images.webp_chunks(WEBP)
    (_, bits) = images.webp_chunks(LOSSLESS)[0]
    alpha = images.webp_chunks(ALPHA)
    picture = (b"VP8 ", data)
    return [
        ("half", WEBP[: len(WEBP) // 2], Rule.TRUNCATED),
        ("more than there is", _sized(WEBP, len(WEBP)), Rule.TRUNCATED),
        ("the largest size", _sized(WEBP, 0xFFFF_FFFF), Rule.TRUNCATED),
        ("no size", _sized(WEBP, 0), Rule.TRUNCATED),
        ("no chunk", webp_of([]), Rule.TRUNCATED),
        ("a header and nothing else", webp_of([webp_header(0)]), Rule.TRUNCATED),
        ("a chunk past the end", _sized(WEBP, len(WEBP) - 10), Rule.TRUNCATED),
        ("a chunk of the largest size", WEBP[:16] + b"\xff" * 4 + WEBP[20:], Rule.TRUNCATED),
        ("half a chunk's frame", _sized(WEBP + bytes(4), len(WEBP) - 4), Rule.TRUNCATED),
        ("no bitstream", webp_of([(b"VP8 ", b"")]), Rule.TRUNCATED),
        ("no lossless bitstream", webp_of([(b"VP8L", b"\x2f")]), Rule.TRUNCATED),
        ("half a first partition", webp_of([(b"VP8 ", data[:20])]), Rule.TRUNCATED),
        ("metadata first", webp_of([(b"EXIF", b""), picture]), Rule.BAD_FRAMING),
        ("two headers", webp_of([webp_header(0), webp_header(0), picture]), Rule.BAD_FRAMING),
        ("a late header", webp_of([picture, webp_header(0)]), Rule.BAD_FRAMING),
        ("a short header", webp_of([(b"VP8X", bytes(9)), picture]), Rule.BAD_FRAMING),
        ("two pictures", webp_of([picture, picture]), Rule.BAD_FRAMING),
        ("two pictures of two kinds", webp_of([webp_header(0), picture, (b"VP8L", bits)]), Rule.BAD_FRAMING),
        ("two alpha channels", webp_of([alpha[0], alpha[1], alpha[1], alpha[2]]), Rule.BAD_FRAMING),
        ("an empty alpha channel", webp_of([alpha[0], (b"ALPH", b""), alpha[2]]), Rule.BAD_FRAMING),
        (
            "frames that are not announced",
            webp_of([webp_header(0), (b"ANMF", bytes(16)), picture]),
            Rule.BAD_FRAMING,
        ),
        ("no key frame", lossy((0, data[0] | 1)), Rule.BAD_HEADER),
        ("no start code", lossy((3, 0)), Rule.BAD_HEADER),
        ("a hidden frame", lossy((0, data[0] & ~0x10)), Rule.BAD_HEADER),
        ("profile 7", lossy((0, data[0] | 0x0E)), Rule.BAD_HEADER),
        ("no lossless signature", webp_of([(b"VP8L", b"\x2e" + bits[1:])]), Rule.BAD_HEADER),
        (
            "lossless version 7",
            webp_of([(b"VP8L", bits[:4] + bytes((bits[4] | 0xE0,)) + bits[5:])]),
            Rule.BAD_HEADER,
        ),
        ("another canvas", webp_of([webp_header(0, (48, 33)), picture]), Rule.SIZE_MISMATCH),
        ("no width", lossy((6, 0), (7, 0)), Rule.EMPTY),
        ("a large canvas", webp_of([webp_header(0, (16_385, 1)), picture]), Rule.SIDE_TOO_LONG),
        ("the largest canvas", webp_of([webp_header(0, (1 << 24, 1 << 24)), picture]), Rule.SIDE_TOO_LONG),
        ("51 megapixels", lossy((6, 0x40), (7, 0x1F), (8, 0x6B), (9, 0x18)), Rule.TOO_MANY_PIXELS),
        (
            "5,001 chunks",
            webp_of([webp_header(0), picture, *[(b"junk", b"")] * (CHUNKS_LIMIT - 1)]),
            Rule.TOO_MANY_CHUNKS,
        ),
        ("an animation", images.frames("WEBP", duration=50), Rule.ANIMATED),
    ]


FIRST_FRAMES = ImageLimits(FORMATS, 20 * 1024 * 1024, first_frame_of_animations=True)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (moved(left=1), Rule.SIZE_MISMATCH),
        (moved(top=0xFFFFFF), Rule.SIZE_MISMATCH),
        (moved(width=46), Rule.SIZE_MISMATCH),
        (webp_of([webp_header(0x02), (b"ANMF", bytes(15))]), Rule.TRUNCATED),
        (webp_of([webp_header(0x02), (b"ANMF", bytes(16))]), Rule.TRUNCATED),
        (webp_of([webp_header(0x02), (b"ANIM", bytes(6))]), Rule.BAD_FRAMING),
        (
            webp_of([webp_header(0x02), *images.webp_chunks(moved())[1:], *images.webp_chunks(WEBP)]),
            Rule.BAD_FRAMING,
        ),
        (
            webp_of([webp_header(0x02), (b"ANMF", bytes(16) + riff_chunk(b"junk", b"") * CHUNKS_LIMIT)]),
            Rule.TOO_MANY_CHUNKS,
        ),
    ],
    ids=range(8),
)
def test_an_animation_that_lies_is_refused_even_where_animations_are_taken(
    content: bytes, rule: Rule
) -> None:
    assert walk(moved(), FIRST_FRAMES).animated
    assert refusal(content, FIRST_FRAMES) == rule


# ---- all formats ----


def label(value: object) -> str | None:
    return value if isinstance(value, str) and not isinstance(value, Rule) else ""


@pytest.mark.parametrize(("what", "content", "rule"), png_cases(), ids=label)
def test_a_png_is_refused(what: str, content: bytes, rule: Rule) -> None:
    assert refusal(content) == rule


@pytest.mark.parametrize(
    ("what", "content", "rule"), [*jpeg_framing_cases(), *jpeg_header_cases()], ids=label
)
def test_a_jpeg_is_refused(what: str, content: bytes, rule: Rule) -> None:
    assert refusal(content) == rule


@pytest.mark.parametrize(("what", "content", "rule"), webp_cases(), ids=label)
def test_a_webp_is_refused(what: str, content: bytes, rule: Rule) -> None:
    assert refusal(content) == rule


@pytest.mark.parametrize("cases", [png_cases, jpeg_header_cases, webp_cases])
def test_what_is_refused_differs_from_what_is_taken_by_the_one_thing(cases: Callable[[], list[Case]]) -> None:
    # The parts that the cases are built from make images that are taken.
    sound = {
        png_cases: [png_of([header(), DATA, END]), png_of([header(colour=3), MAP, DATA, END])],
        jpeg_header_cases: [jpeg(frame(), scan()), jpeg(frame(marker=0xC2), *[scan()] * SCANS_LIMIT)],
        webp_cases: [lossy(), webp_of([webp_header(0), *images.webp_chunks(LOSSLESS)])],
    }[cases]
    assert all(walk(content, LIMITS).width in {4, 8, 48} for content in sound)


@pytest.mark.parametrize("sample", images.honest(), ids=lambda sample: sample.name)
def test_a_format_that_is_not_taken_is_refused_by_its_name(sample: images.Sample) -> None:
    with pytest.raises(ImageRefused) as caught:
        walk(sample.content, ImageLimits(FORMATS - {sample.format}, 1 << 20))
    assert caught.value.rule == Rule.FORMAT_NOT_TAKEN
    assert sample.format in str(caught.value)


@pytest.mark.parametrize("sample", images.animations(), ids=lambda sample: sample.name)
def test_an_animation_is_refused_where_single_pictures_are_taken(sample: images.Sample) -> None:
    assert refusal(sample.content) == Rule.ANIMATED


def test_size_is_judged_before_anything_else() -> None:
    assert refusal(b"x" * 101, ImageLimits(FORMATS, 100)) == Rule.TOO_MANY_BYTES
    assert refusal(PNG, ImageLimits(FORMATS, len(PNG) - 1)) == Rule.TOO_MANY_BYTES
    assert walk(PNG, ImageLimits(FORMATS, len(PNG))).pieces


def test_nothing_and_nothing_known_are_refused() -> None:
    assert refusal(b"") == Rule.EMPTY
    assert refusal(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == Rule.UNKNOWN_FORMAT


def test_the_limits_themselves_are_taken() -> None:
    assert walk(png_of([header(16_384, 3_051), DATA, END]), LIMITS).width == 16_384
    assert walk(png_of([header(8_000, 6_250, 16, 6), DATA, END]), LIMITS).height == 6_250


def test_a_refusal_crosses_a_process_with_its_rule() -> None:
    refused = pickle.loads(pickle.dumps(ImageRefused(Rule.BAD_HEADER, "a sentence: with a colon")))
    assert (refused.rule, str(refused)) == ("bad_header", "bad_header: a sentence: with a colon")
    assert type(refused.rule) is str
