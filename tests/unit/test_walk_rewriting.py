from __future__ import annotations

import io
import mmap
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from services.provider_pool.references.container import FORMATS, ImageLimits, Walked, sniff, walk
from tests.corpus import images
from tests.corpus.images import CANARY, Sample

LIMITS = ImageLimits(FORMATS, 20 * 1024 * 1024)
FIRST_FRAMES = ImageLimits(FORMATS, 20 * 1024 * 1024, first_frame_of_animations=True)
REWRITTEN = [sample for sample in images.honest() if sample.format in {"png", "jpeg", "webp"}]
ENCODED_ANEW = [sample for sample in images.honest() if sample.format in {"gif", "bmp", "tiff"}]


def rewritten(content: bytes, limits: ImageLimits = LIMITS) -> bytes:
    pieces = walk(content, limits).pieces
    assert pieces is not None
    return b"".join(pieces)


def decoded(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow's words on second images in JPEGs
        image = Image.open(io.BytesIO(content))
        image.load()
    return image


def pixels(content: bytes) -> tuple[str, tuple[int, int], bytes, object]:
    image = decoded(content)
    palette = image.getpalette() if image.mode == "P" else None
    return image.mode, image.size, image.tobytes(), (palette, image.info.get("transparency"))


def name(sample: Sample) -> str:
    return sample.name


@pytest.mark.parametrize("sample", REWRITTEN, ids=name)
def test_a_rewritten_image_has_the_same_pixels(sample: Sample) -> None:
    assert pixels(rewritten(sample.content)) == pixels(sample.content)


@pytest.mark.parametrize("sample", REWRITTEN, ids=name)
def test_orientation_and_profile_stay(sample: Sample) -> None:
    image = decoded(rewritten(sample.content))
    assert image.getexif().get(0x0112, 1) == sample.orientation
    assert image.info.get("icc_profile", b"") == sample.profile


@pytest.mark.parametrize("sample", REWRITTEN, ids=name)
def test_nothing_else_stays(sample: Sample) -> None:
    after = rewritten(sample.content)
    assert CANARY not in after
    assert set(decoded(after).getexif()) <= {0x0112}


@pytest.mark.parametrize("sample", REWRITTEN, ids=name)
def test_what_was_rewritten_is_rewritten_to_itself(sample: Sample) -> None:
    once = rewritten(sample.content)
    assert rewritten(once) == once


@pytest.mark.parametrize("sample", images.honest(), ids=name)
def test_the_walk_and_the_decoder_agree_on_the_size(sample: Sample) -> None:
    walked = walk(sample.content, LIMITS)
    assert (walked.format, walked.width, walked.height) == (sample.format, *decoded(sample.content).size)
    assert not walked.animated


@pytest.mark.parametrize("sample", ENCODED_ANEW, ids=name)
def test_a_gif_bmp_or_tiff_is_to_be_encoded_anew(sample: Sample) -> None:
    assert walk(sample.content, LIMITS).pieces is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_orientation_stays(kind: str, orientation: int) -> None:
    dressed = {
        "png": lambda: images.png_dressed(images.saved("PNG"), orientation),
        "jpeg": lambda: images.jpeg_dressed(images.saved("JPEG"), orientation),
        "webp": lambda: images.webp_dressed(images.saved("WEBP"), orientation),
    }[kind]()
    assert decoded(rewritten(dressed)).getexif().get(0x0112, 1) == orientation


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"MM",
        b"MM\0*\0\0\0\x08",
        b"II*\0\xff\xff\xff\xff\0\0",
        b"XX*\0\x08\0\0\0\x01\0",
        images.exif(9),
        images.exif(0),
        images.exif(6)[:40],
        images.exif(6).replace(b"\x01\x12\x00\x03\x00\x00\x00\x01", b"\x01\x12\x00\x03\x00\x00\x00\x02"),
        images.exif(6).replace(b"\x01\x12\x00\x03\x00\x00\x00\x01", b"\x01\x12\x00\x02\x00\x00\x00\x01"),
    ],
    ids=range(10),
)
def test_an_orientation_that_makes_no_sense_is_upright(block: bytes) -> None:
    plain = images.saved("JPEG")
    assert rewritten(images.jpeg_with(plain, images.jpeg_segment(0xE1, b"Exif\0\0" + block))) == rewritten(
        plain
    )


def test_a_thumbnail_s_markers_inside_exif_are_not_the_picture_s() -> None:
    plain = images.saved("JPEG")
    hidden = images.jpeg_with(plain, images.jpeg_segment(0xE1, b"Exif\0\0" + images.exif(1) + plain))
    assert rewritten(hidden) == rewritten(plain)


# ---- colour profiles ----


def _jpeg_profiled(*parts: tuple[int, int, bytes]) -> bytes:
    segments = [
        images.jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, of)) + part) for number, of, part in parts
    ]
    return images.jpeg_with(images.saved("JPEG"), *segments)


PROFILE = images.profile(400)
LYING = struct.pack(">I", 401) + PROFILE[4:]
HALVES = PROFILE[:200], PROFILE[200:]


@pytest.mark.parametrize(
    "content",
    [
        _jpeg_profiled((1, 2, HALVES[0])),
        _jpeg_profiled((1, 2, HALVES[0]), (1, 2, HALVES[1])),
        _jpeg_profiled((1, 2, HALVES[0]), (2, 3, HALVES[1])),
        _jpeg_profiled((0, 1, PROFILE)),
        _jpeg_profiled((1, 2, HALVES[0]), (3, 2, HALVES[1])),
        _jpeg_profiled((1, 1, PROFILE.replace(b"acsp", b"nope"))),
        _jpeg_profiled((1, 1, LYING)),
        _jpeg_profiled((1, 1, PROFILE[:100])),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + zlib.compress(LYING))),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + zlib.compress(PROFILE)[:-9])),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + b"not deflated")),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\1" + zlib.compress(PROFILE))),
        images.png_with(images.saved("PNG"), (b"iCCP", b"\0\0" + zlib.compress(PROFILE))),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a" * 90 + b"\0\0" + zlib.compress(PROFILE))),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + zlib.compress(PROFILE)), before=b"IEND"),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + zlib.compress(bytes(100 << 20), 9))),
        images.webp_of(
            [images.webp_header(0x20), (b"ICCP", LYING), *images.webp_chunks(images.saved("WEBP"))]
        ),
        images.webp_of(
            [images.webp_header(0), (b"ICCP", PROFILE), *images.webp_chunks(images.saved("WEBP"))]
        ),
    ],
    ids=range(18),
)
def test_a_profile_that_is_incomplete_unsound_or_misplaced_is_dropped_whole(content: bytes) -> None:
    plain = images.saved({"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[sniff(content[:16]) or ""])
    assert rewritten(content) == rewritten(plain)


def test_a_profile_s_parts_are_put_in_order() -> None:
    content = _jpeg_profiled((2, 2, HALVES[1]), (1, 2, HALVES[0]))
    assert decoded(rewritten(content)).info["icc_profile"] == PROFILE


def test_what_follows_a_profile_inside_its_place_goes() -> None:
    deflated = zlib.compress(PROFILE)
    for content in (
        _jpeg_profiled((1, 1, PROFILE + CANARY)),
        images.png_with(images.saved("PNG"), (b"iCCP", b"a\0\0" + deflated + CANARY)),
        images.png_with(
            images.saved("PNG"), (b"iCCP", CANARY + b"\0\0" + zlib.compress(PROFILE + CANARY, 0))
        ),
    ):
        after = rewritten(content)
        assert decoded(after).info["icc_profile"] == PROFILE
        assert CANARY not in after


def test_a_profile_behind_a_webp_s_picture_is_put_before_it() -> None:
    picture = images.webp_chunks(images.saved("WEBP"))
    content = images.webp_of([images.webp_header(0x20), *picture, (b"ICCP", PROFILE)])
    assert rewritten(content) == images.webp_of([images.webp_header(0x20), (b"ICCP", PROFILE), *picture])


# ---- single formats ----


def _as_text(block: bytes, *, cut: int | None = None) -> bytes:
    """EXIF as ImageMagick and exiv2 put it into PNG texts: in hexadecimal, by lines, behind a name and a number."""
    digits = (b"Exif\0\0" + block).hex()[:cut]
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return "\n".join(["", "exif", f"{len(block) + 6:8}", *lines, ""]).encode()


RAW_PROFILE = b"Raw profile type exif\0"


@pytest.mark.parametrize(
    ("chunks", "orientation"),
    [
        ([(b"zTXt", RAW_PROFILE + b"\0" + zlib.compress(_as_text(images.exif(6))))], 6),
        ([(b"tEXt", RAW_PROFILE + _as_text(images.exif(3, order="<")))], 3),
        ([(b"tEXt", RAW_PROFILE + _as_text(images.exif(8) + bytes(200_000)))], 8),
        ([(b"zTXt", RAW_PROFILE + b"\0" + zlib.compress(_as_text(images.exif(6)), 0)[:-60])], 6),
        ([(b"tEXt", RAW_PROFILE + _as_text(images.exif(6), cut=201))], 6),
        ([(b"eXIf", images.exif(1)), (b"tEXt", RAW_PROFILE + _as_text(images.exif(6)))], 1),
        ([(b"tEXt", RAW_PROFILE + _as_text(images.exif(6))), (b"eXIf", images.exif(5))], 5),
        ([(b"tEXt", RAW_PROFILE)], 1),
        ([(b"tEXt", RAW_PROFILE + b"\nexif\n 9\nno digits")], 1),
        ([(b"tEXt", RAW_PROFILE + b"\nexif\n 9\n\xff\xfe")], 1),
        ([(b"zTXt", RAW_PROFILE + b"\0not deflated")], 1),
        ([(b"zTXt", RAW_PROFILE + b"\1" + zlib.compress(_as_text(images.exif(6))))], 1),
        ([(b"tEXt", b"Raw profile type iptc\0" + _as_text(images.exif(6)))], 1),
    ],
    ids=range(13),
)
def test_an_orientation_in_a_text_of_a_png_stays(chunks: list[tuple[bytes, bytes]], orientation: int) -> None:
    plain = images.saved("PNG")
    after = rewritten(images.png_with(plain, *chunks, before=b"IEND"))
    assert decoded(after).getexif().get(0x0112, 1) == orientation
    assert {name for name, _ in images.png_chunks(after)} <= {b"IHDR", b"IDAT", b"IEND", b"eXIf"}


def test_colours_that_no_sample_can_name_go() -> None:
    head = (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 4, 3, 0, 0, 0))
    data, end = (b"IDAT", zlib.compress(b"\0\x1f\x03" * 4)), (b"IEND", b"")
    colours, alphas = bytes(range(256)) * 3, bytes(range(200))
    content = images.png_of([head, (b"PLTE", colours), (b"tRNS", alphas), data, end])
    assert rewritten(content) == images.png_of(
        [head, (b"PLTE", colours[:48]), (b"tRNS", alphas[:16]), data, end]
    )
    assert decoded(rewritten(content)).convert("RGBA") == decoded(content).convert("RGBA")


def test_a_png_that_is_an_animation_of_one_frame_is_a_picture() -> None:
    plain = images.saved("PNG")
    frame = (b"fcTL", struct.pack(">IIIIIHHBB", 0, *images.SIZE, 0, 0, 1, 1, 0, 0))
    assert rewritten(images.png_with(plain, (b"acTL", struct.pack(">II", 1, 0)), frame)) == plain


def test_zeros_between_the_segments_of_a_jpeg_go() -> None:
    plain = images.saved("JPEG")
    padded = images.jpeg_with(plain, images.jpeg_segment(0xFE, CANARY), bytes(3))
    assert rewritten(padded) == rewritten(plain)


def test_a_jpeg_whose_components_have_one_name_is_taken() -> None:
    plain = images.saved("JPEG")
    frame, scan = b"\1\x22\0\2\x11\1\3\x11\1", b"\3\1\0\2\x11\3\x11"
    assert frame in plain
    assert scan in plain
    same = plain.replace(frame, b"\1\x22\0\1\x11\1\1\x11\1").replace(scan, b"\3\1\0\1\x11\1\x11")
    assert pixels(rewritten(same)) == pixels(plain)


def test_advice_and_repetitions_in_a_png_go() -> None:
    plain = images.saved("PNG")
    gamma = (b"gAMA", struct.pack(">I", 45455))
    dressed = images.png_with(
        plain,
        gamma,
        (b"gAMA", struct.pack(">I", 1)),
        (b"sRGB", b"\0\0"),
        (b"PLTE", bytes(30)),
        (b"cHRM", bytes(32)),
        (b"bKGD", bytes(6)),
        (b"hIST", bytes(20)),
    )
    assert rewritten(dressed) == images.png_with(plain, gamma)


def test_what_says_how_samples_are_shown_stays_in_a_png() -> None:
    dressed = images.png_with(
        images.saved("PNG"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", bytes(range(32))),
        (b"sRGB", b"\0"),
        (b"cICP", bytes((9, 16, 0, 1))),
        (b"sBIT", b"\5\6\5"),
        (b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        (b"tRNS", bytes(6)),
    )
    assert rewritten(dressed) == dressed


def test_transparency_beside_an_alpha_channel_goes() -> None:
    plain = images.saved("PNG", "RGBA")
    assert rewritten(images.png_with(plain, (b"tRNS", bytes(6)))) == plain


def test_an_adobe_marker_stays_without_what_follows_it() -> None:
    marker = b"Adobe\0\x64\0\0\0\0\x01"
    plain = images.saved("JPEG")
    after = rewritten(images.jpeg_with(plain, images.jpeg_segment(0xEE, marker + CANARY)))
    assert after == rewritten(images.jpeg_with(plain, images.jpeg_segment(0xEE, marker)))
    assert marker in after


def test_metadata_between_the_scans_of_a_jpeg_goes() -> None:
    plain = images.saved("JPEG", progressive=True)
    at = plain.index(b"\xff\xc4", plain.index(b"\xff\xda"))
    extra = images.jpeg_segment(0xE1, b"Exif\0\0" + images.exif(6)) + images.jpeg_segment(0xFE, CANARY)
    assert rewritten(plain[:at] + extra + plain[at:]) == rewritten(plain)


def test_a_webp_header_is_rebuilt_from_what_is_kept() -> None:
    lossy, alpha = images.saved("WEBP"), images.saved("WEBP", "RGBA")
    assert rewritten(images.webp_dressed(lossy, 1, b"no profile")) == lossy
    assert rewritten(images.webp_of([images.webp_header(0x3D), *images.webp_chunks(alpha)[1:]])) == alpha


@pytest.mark.parametrize("announced", [0, 0x10])
@pytest.mark.parametrize(
    ("mode", "lossless"), [("RGB", False), ("RGBA", False), ("RGB", True), ("RGBA", True)]
)
def test_a_webp_is_as_transparent_as_its_header_says(announced: int, mode: str, lossless: bool) -> None:
    # Browsers and Pillow go by the header; a decoder that goes by the picture must see the same.
    coded = images.webp_chunks(images.saved("WEBP", mode, lossless=lossless))
    picture = [chunk for chunk in coded if chunk[0] != b"VP8X"]
    for colours in ([], [(b"ICCP", PROFILE)]):
        header = images.webp_header(announced | (0x20 if colours else 0))
        content = images.webp_of([header, *colours, *picture])
        assert decoded(rewritten(content)).convert("RGBA") == decoded(content).convert("RGBA")


def test_a_webp_whose_last_byte_of_padding_is_missing_gets_it() -> None:
    chunks = [*images.webp_chunks(images.saved("WEBP")), (b"XMP ", b"odd")]
    content = images.webp_of([images.webp_header(0x04), *chunks])[:-1]
    short = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
    assert rewritten(short) == images.saved("WEBP")
    odd = images.webp_chunks(images.saved("WEBP"))[0][1] + b"\0"
    whole = images.webp_of([(b"VP8 ", odd if len(odd) % 2 else odd + b"\0")])
    cut = whole[:4] + struct.pack("<I", len(whole) - 9) + whole[8:-1]
    assert rewritten(cut) == whole


def test_an_animation_is_taken_by_its_first_frame_where_that_is_asked_for() -> None:
    taken = {sample.name: walk(sample.content, FIRST_FRAMES) for sample in images.animations()}
    assert all(walked.animated for walked in taken.values())
    assert {name for name, walked in taken.items() if walked.pieces is not None} == {"apng"}
    (apng,) = (sample for sample in images.animations() if sample.name == "apng")
    still = rewritten(apng.content, FIRST_FRAMES)
    assert {name for name, _ in images.png_chunks(still)} == {b"IHDR", b"IDAT", b"IEND"}
    assert decoded(still).tobytes() == decoded(apng.content).tobytes()
    assert not walk(still, LIMITS).animated


# ---- what a walk is given, and what it holds ----


def test_bytes_a_view_and_a_mapped_file_are_walked_alike(tmp_path: Path) -> None:
    content = images.jpeg_dressed(images.saved("JPEG"))
    path = tmp_path / "image"
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        walked: list[Walked] = [
            walk(content, LIMITS),
            walk(memoryview(content), LIMITS),
            walk(mapped, LIMITS),
        ]
        joined = {b"".join(each.pieces or ()) for each in walked}
        del walked
    assert joined == {rewritten(content)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_picture_data_are_not_copied(kind: str) -> None:
    content = images.saved(kind, size=(300, 200))
    pieces = walk(content, LIMITS).pieces
    assert pieces is not None
    made = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
    assert made < 100
    assert all(piece.obj is content for piece in pieces if isinstance(piece, memoryview))


@pytest.mark.parametrize("sample", [*images.honest(), *images.animations()], ids=name)
def test_sixteen_bytes_tell_the_format(sample: Sample) -> None:
    assert sniff(sample.content[:16]) == sample.format


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"BM",
        b"BMW drivers beware",
        b"RIFF\x10\0\0\0WAVEfmt ",
        b"<svg xmlns='http:",
        b"<!doctype html>  ",
        b"%PDF-1.7 12345678",
        b"%!PS-Adobe-3.0 EP",
        b"\x8aMNG\r\n\x1a\n1234567",
        b"\0\0\0\x1cftypavif0000",
        b"\0\0\x01\0\x01\0\x10\x10",
        b"8BPS\0\x01\0\0\0\0\0\0",
        b"SIMPLE  =        ",
        b"P6 1 1 255 123456",
    ],
)
def test_other_bytes_tell_none(head: bytes) -> None:
    assert sniff(head[:16]) is None
