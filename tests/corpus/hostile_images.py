"""Images that must be refused, each with the trick it plays, and honest ones beside them.

`python -m tests.corpus.hostile_images FOLDER` writes them into FOLDER, with a list for `check-image --jsonl`.
"""

from __future__ import annotations

import functools
import json
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.corpus import hostile_jpeg, hostile_paged, hostile_png, hostile_webp, images
from tests.corpus.image_case import Case, refused, taken, taken_elsewhere

_LIST = "images.jsonl"
_LIMIT_BYTES = 20 * 1024 * 1024
_NATIVE = {"jpeg", "png", "webp"}


@functools.cache
def cases() -> tuple[Case, ...]:
    return (
        *_honest(),
        *hostile_png.cases(),
        *hostile_jpeg.cases(),
        *hostile_webp.cases(),
        *hostile_paged.cases(),
        *_lies(),
        *_strangers(),
        *_extremes(),
    )


def _honest() -> Iterator[Case]:
    for sample in images.honest():
        make = taken if sample.format in _NATIVE else taken_elsewhere
        yield make(sample.name, sample.content, sample.format)
    for sample in images.animations():
        rule = "animated" if sample.format in _NATIVE else "format_not_taken"
        yield Case(sample.name, sample.content, rule, None, sample.format)


def _lies() -> Iterator[Case]:
    """Names that are not what the bytes are."""
    yield taken("png called jpg", hostile_png.PLAIN, "jpg")
    yield taken("jpeg called png", hostile_jpeg.PLAIN, "png")
    yield taken("webp called jpg", hostile_webp.LOSSY, "jpg")
    yield taken("png called svg", hostile_png.PLAIN, "svg")
    yield taken("jpeg called exe", hostile_jpeg.PLAIN, "exe")
    yield taken_elsewhere("gif called png", hostile_paged.GIF, "png")
    yield taken_elsewhere("bmp called png", hostile_paged.BMP, "png")
    yield taken_elsewhere("tiff called jpg", hostile_paged.TIFF, "jpg")


def _strangers() -> Iterator[Case]:
    """What is none of the six formats, and calls itself PNG."""
    box = struct.Struct(">I4s4s4x4s")
    for trick, content in {
        "SVG": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "SVG that names a file": b"<svg><image href='file:///etc/passwd'/></svg>",
        "HTML": b"<!DOCTYPE html><script>alert(1)</script>",
        "XML with an entity": b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
        "JSON": b'{"image": true}' + bytes(8),
        "a text": b"BMW is a maker of cars, and this is no picture",
        "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd)(r)file\n",
        "EPS with a preview": b"\xc5\xd0\xd3\xc6" + bytes(40),
        "PSD": b"8BPS\0\1" + bytes(40),
        "ICO": b"\0\0\1\0\1\0" + bytes(40),
        "ICO with a PNG within": b"\0\0\1\0\1\0\x20\x20\0\0\1\0\x20\0" + bytes(8) + hostile_png.PLAIN,
        "CUR": b"\0\0\2\0\1\0" + bytes(40),
        "ICNS": b"icns" + bytes(40),
        "FITS": b"SIMPLE  =                    T".ljust(2_880),
        "HEIC": box.pack(24, b"ftyp", b"heic", b"mif1") + bytes(40),
        "AVIF": box.pack(24, b"ftyp", b"avif", b"mif1") + bytes(40),
        "MP4": box.pack(24, b"ftyp", b"isom", b"mp42") + bytes(40),
        "QuickTime": box.pack(20, b"ftyp", b"qt  ", b"qt  ") + bytes(40),
        "WebM": b"\x1a\x45\xdf\xa3" + bytes(40),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "JPEG 2000, bare": b"\xff\x4f\xff\x51" + bytes(40),
        "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
        "JPEG XL, bare": b"\xff\x0a" + bytes(40),
        "JPEG XR": b"II\xbc\1" + bytes(40),
        "MNG": b"\x8aMNG\r\n\x1a\n" + hostile_png.PLAIN[8:],
        "JNG": b"\x8bJNG\r\n\x1a\n" + hostile_png.PLAIN[8:],
        "DDS": b"DDS |\0\0\0" + bytes(120),
        "TGA": bytes((0, 0, 2)) + bytes(40),
        "PCX": b"\x0a\5\1\x08" + bytes(124),
        "PPM": b"P6 1 1 255\n\0\0\0",
        "PAM": b"P7\nWIDTH 1\nHEIGHT 1\nENDHDR\n",
        "XBM": b"#define a_width 8\n#define a_height 1\n",
        "XPM": b"/* XPM */ static char *a[] = {};",
        "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40),
        "EMF": b"\1\0\0\0" + bytes(36) + b" EMF",
        "QOI": b"qoif" + bytes(40),
        "OpenEXR": b"\x76\x2f\x31\x01" + bytes(40),
        "Radiance": b"#?RADIANCE\n" + bytes(40),
        "a drawing for ImageMagick": b"push graphic-context\nimage over 0,0 0,0 'ephemeral:/tmp/x'\n",
        "a list for FFmpeg": b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\nhttp://127.0.0.1/\n",
        "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
        "AVI": b"RIFF\x24\0\0\0AVI LIST" + bytes(40),
        "Flash": b"CWS\x0a" + bytes(40),
        "ZIP": b"PK\x03\x04" + bytes(40),
        "gzip": b"\x1f\x8b\x08" + bytes(40),
        "a program": b"\x7fELF\2\1\1" + bytes(40),
        "a script": b"#!/bin/sh\nrm -rf /\n",
        "an OS/2 array of bitmaps": b"BA" + bytes(40),
        "a PNG one byte too late": b"\0" + hostile_png.PLAIN,
        "a JPEG behind a line end": b"\r\n" + hostile_jpeg.PLAIN,
        "a PNG behind a mark of byte order": b"\xef\xbb\xbf" + hostile_png.PLAIN,
        "a PNG in base64": b"iVBORw0KGgoAAAANSUhEUgAAADAAAAAg",
    }.items():
        yield refused(f"{trick} called png", content, "unknown_format")


def _extremes() -> Iterator[Case]:
    yield refused("an empty file", b"", "empty")
    yield refused("one byte", b"\xff", "unknown_format", "jpg")
    yield refused("16 zeros", bytes(16), "unknown_format")
    yield taken("png of exactly 20 MiB", hostile_png.PLAIN.ljust(_LIMIT_BYTES, b"\0"))
    yield refused(
        "png of a byte more than 20 MiB", hostile_png.PLAIN.ljust(_LIMIT_BYTES + 1, b"\0"), "too_many_bytes"
    )


def file_name(number: int, case: Case) -> str:
    return f"{number:03}-{re.sub('[^a-z0-9]+', '-', case.trick.lower()).strip('-')}.{case.extension}"


def write(folder: Path) -> Path:
    """Put every image into `folder`; the path of the list, which has a line for each and each kind of contract."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, case in enumerate(cases(), 1):
        name = file_name(number, case)
        (folder / name).write_bytes(case.content)
        lines += [
            {
                "file": name,
                "contract": contract,
                "expected": "allow" if rule is None else "block",
                "reason": rule,
                "trick": case.trick,
            }
            for contract, rule in case.expected.items()
        ]
    listed = folder / _LIST
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return listed


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))  # noqa: T201  # for whoever runs it
