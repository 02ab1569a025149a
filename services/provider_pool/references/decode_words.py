"""What the pool, the process that forks and its forks tell each other: one JSON object a line."""

from __future__ import annotations

from typing import Final

import msgspec

IMAGES: Final = "images"
RECORDINGS: Final = "recordings"
"""What such a process is for, as its second argument: it loads the decoders of that and takes orders for that."""

LINE_BYTES: Final = 4096
"""More than any of these needs; no more is ever read at once."""


class Order(msgspec.Struct, frozen=True, tag="image"):
    """From the pool, about an image, with three descriptors: of the image, of the file to write, of the pipe for words.

    `deadline_s` is what a fork may take of a processor; `patience_s`, on the wall clock, ends it on however busy a machine.
    """

    formats: frozenset[str]
    bytes: int
    first_frame_of_animations: bool
    file_bytes: int
    deadline_s: float
    patience_s: float


class RecordingOrder(msgspec.Struct, frozen=True, tag="recording"):
    """From the pool, about a film or a sound ("video", "audio"), with the same three descriptors.

    `copies`: it is to be copied; otherwise it is a copy, which is only walked and hashed.
    """

    medium: str
    bytes: int
    copies: bool
    file_bytes: int
    deadline_s: float
    patience_s: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From a process that can be forked from: the walls of the jail that the system does not have."""

    missing: tuple[str, ...]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From a process that cannot be forked from: for good, and it ends, or just now, in answer to an order."""

    reason: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """From the process that forked: its fork is gone, with this code (a signal as its negative), late or not."""

    code: int
    late: bool


class Rewritten(msgspec.Struct, frozen=True, tag="rewritten"):
    """From a fork: what the walk found, and what was written. `sha256` is None where a decoder has yet to draw the file."""

    format: str
    width: int
    height: int
    size_bytes: int
    sha256: str | None
    spent_s: float
    duration_ms: int = 0


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """From a fork: the medium is not taken."""

    rule: str
    detail: str


class NotWritten(msgspec.Struct, frozen=True, tag="not_written"):
    """From a fork: the file took no more bytes, which is the disk's doing and not the image's."""

    errno: int


class Decoded(msgspec.Struct, frozen=True, tag="decoded"):
    """From a fork, last: the decoder had nothing to complain of."""

    spent_s: float


Word = Rewritten | Refused | NotWritten | Decoded
Notice = Ready | Failed | Ended

AnyOrder = Order | RecordingOrder

order: Final = msgspec.json.Decoder[AnyOrder](AnyOrder)
notice: Final = msgspec.json.Decoder[Notice](Notice)
words: Final = msgspec.json.Decoder[Word](Word)
encode: Final = msgspec.json.Encoder().encode
