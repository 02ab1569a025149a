"""The one thing that is kept of EXIF: which way up the picture is."""

from __future__ import annotations

import struct
from typing import Final

from services.provider_pool.references.walked import starts

PREFIX: Final = b"Exif\0\0"
"""Stands before EXIF in a JPEG segment; some writers put it into PNG and WebP too."""

UPRIGHT: Final = 1
"""The orientation of a picture that says nothing about it."""

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_LONG: Final = 4
_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_ENTRY_BYTES: Final = 12


def orientation(block: memoryview) -> int:
    """The orientation (1 to 8) in a block of EXIF, with or without its prefix; UPRIGHT where it says none or makes no sense."""
    if starts(block, PREFIX):
        block = block[len(PREFIX) :]
    order = _ORDERS.get(bytes(block[:4]))
    if order is None or len(block) < 8:
        return UPRIGHT
    (first,) = struct.unpack_from(order + "I", block, 4)
    if first + 2 > len(block):
        return UPRIGHT
    (count,) = struct.unpack_from(order + "H", block, first)
    entries = block[first + 2 : first + 2 + count * _ENTRY_BYTES]
    whole = entries[: len(entries) // _ENTRY_BYTES * _ENTRY_BYTES]
    for tag, kind, number, value in struct.iter_unpack(order + "HHI4s", whole):
        if tag == _ORIENTATION:
            return _value(order, kind, number, value)
    return UPRIGHT


def orientation_in_text(text: bytes) -> int:
    """The orientation in EXIF that is written in hexadecimal, behind the words for its kind and its length."""
    digits = b"".join(text.split()[2:])
    try:
        return orientation(memoryview(bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))))
    except ValueError:
        return UPRIGHT


def _value(order: str, kind: int, number: int, value: bytes) -> int:
    if number != 1 or kind not in {_SHORT, _LONG}:
        return UPRIGHT
    (turned,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), value)
    return int(turned) if 1 <= turned <= 8 else UPRIGHT


def only(turned: int) -> bytes:
    """A block of EXIF, without prefix, that says `turned` and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, _ORIENTATION, _SHORT, 1, turned, 0, 0)
