"""Lifts long strings out of a JSON body while it arrives: the rest stays small, and of them one copy is held, in pieces.

Quotation marks delimit strings in JSON wherever they stand, so finding strings needs no grammar. Whether the body is
JSON at all shows when the rest is parsed.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from services.gateway import errors

# No name, prompt or URL is as long; every image worth the name is.
LONG_BYTES: Final = 8 * 1024
# Whoever sends a body byte by byte must not make it a million objects.
_PIECE_BYTES: Final = 64 * 1024
# After so many strings, or so much of one, others get their turn: about 2 ms where all of it are escapes.
_TURN_STRINGS: Final = 1024
_TURN_BYTES: Final = 128 * 1024

# The rest of a string: ends at its closing mark, at the end, or at a backslash that is the last byte there is.
_WITHIN: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE: Final = 0x22

# No text field takes a NUL, so a field that is no reference refuses a placeholder as it refuses any long text.
_PLACEHOLDER_START: Final = "\0lifted:"
_ENCODED_PLACEHOLDER: Final = rb"\u0000lifted:"
# As a decoder quotes it, which escapes what is not printable.
_QUOTED_PLACEHOLDER: Final = re.compile(r"\\x00lifted:[0-9a-f]{32}:[0-9]+")


def is_placeholder(text: str) -> bool:
    """Whether `text` stands for a string that was lifted out and did not fit back in."""
    return text.startswith(_PLACEHOLDER_START)


def holds_placeholder(encoded: bytes) -> bool:
    """Whether any string in a JSON document stands for one that was lifted out and did not fit back in."""
    return _ENCODED_PLACEHOLDER in encoded


def without_placeholders(sentence: str) -> str:
    """A decoder's sentence with an ellipsis in the place of every placeholder that it quotes."""
    return _QUOTED_PLACEHOLDER.sub("…", sentence)


class LiftedText:
    """A long string as it stood between its quotation marks, escapes included.

    escaped: it holds escapes, so that it means fewer characters than `size_bytes`.
    """

    __slots__ = ("_end", "_pieces", "escaped", "size_bytes")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._end = bytearray()
        self.size_bytes = 0
        self.escaped = False

    def add(self, piece: bytes) -> None:
        """Appends what arrived."""
        self.size_bytes += len(piece)
        self.escaped = self.escaped or b"\\" in piece
        if len(piece) >= _PIECE_BYTES:
            self._flush()
            self._pieces.append(piece)
            return
        self._end += piece
        if len(self._end) >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._end:
            self._pieces.append(bytes(self._end))
            self._end.clear()

    def head(self, size_bytes: int) -> bytes:
        """How it begins; `size_bytes` may be a few KiB."""
        self._flush()
        head = b""
        for piece in self._pieces:
            head += piece[: size_bytes - len(head)]
            if len(head) >= size_bytes:
                break
        return head

    def take(self) -> Iterator[bytes]:
        """Its pieces; each is let go of as the next one is asked for."""
        self._flush()
        while self._pieces:
            yield self._pieces.popleft()

    def raw(self) -> bytes:
        """All of it, in one."""
        self._flush()
        return b"".join(self._pieces)


@dataclass(frozen=True, slots=True)
class Lifted:
    """A body: its JSON, and the strings that placeholders in it stand for."""

    json: bytes
    texts: dict[str, LiftedText] = field(default_factory=dict)


class Lifter:
    """Takes one body in, chunk by chunk.

    What is not lifted, and at the end what is put back, stays within `rest_limit_bytes`: a whole body within that
    limit comes out as it went in.
    """

    def __init__(self, rest_limit_bytes: int, long_bytes: int = LONG_BYTES) -> None:
        self._rest_limit_bytes = rest_limit_bytes
        self._long_bytes = long_bytes
        self._rest = bytearray()
        self._lifted: list[tuple[int, LiftedText]] = []
        self._inside = False
        # Where in the rest the open string begins, and the string itself once it is long.
        self._begins = 0
        self._open: LiftedText | None = None
        # The chunk ended behind the backslash of an escape.
        self._escaping = False

    def feed(self, chunk: bytes) -> Iterator[None]:
        """Takes in the next chunk; pauses now and then, so that the caller can let others have the loop.

        Raises PAYLOAD_TOO_LARGE when the rest is.
        """
        at = turns = 0
        while at < len(chunk):
            if not self._inside:
                at = self._until_string(chunk, at)
            else:
                turns += 1
                stop = at + _TURN_BYTES
                at = self._until_end_of_string(chunk, at, stop)
                if turns % _TURN_STRINGS == 0 or at == stop:
                    yield
            # A string that goes on may still be lifted out; until then it is no longer than 8 KiB.
            if not self._inside and len(self._rest) > self._rest_limit_bytes:
                raise errors.payload_too_large_beside_media(self._rest_limit_bytes)

    def _until_string(self, chunk: bytes, at: int) -> int:
        quote = chunk.find(b'"', at)
        if quote < 0:
            self._rest += chunk[at:]
            return len(chunk)
        self._rest += chunk[at : quote + 1]
        self._inside, self._begins, self._open = True, len(self._rest), None
        return quote + 1

    def _until_end_of_string(self, chunk: bytes, at: int, stop: int) -> int:
        stop = min(stop, len(chunk))
        end = self._end_of_string(chunk, at, stop)
        self._append(chunk[at:end])
        if end == stop:
            return end
        self._inside = False
        self._rest.append(_QUOTE)
        return end + 1

    def _end_of_string(self, chunk: bytes, at: int, stop: int) -> int:
        """Where the closing mark of the open string is; `stop` where it is not in front of that."""
        start = at + 1 if self._escaping else at
        self._escaping = False
        quote = chunk.find(b'"', start, stop)
        plain = quote if quote >= 0 else stop
        if chunk.find(b"\\", start, plain) < 0:
            return plain
        # Never None: the pattern matches nothing at all, too.
        match = _WITHIN.match(chunk, start, stop)
        end = match.end() if match else start
        if end < stop and chunk[end] != _QUOTE:
            self._escaping = True
            return stop
        return end

    def _append(self, piece: bytes) -> None:
        if self._open is None and len(self._rest) - self._begins + len(piece) > self._long_bytes:
            self._open = LiftedText()
            self._open.add(bytes(self._rest[self._begins :]))
            del self._rest[self._begins :]
            self._lifted.append((self._begins, self._open))
        if self._open is None:
            self._rest += piece
        else:
            self._open.add(piece)

    def finish(self) -> Lifted:
        """The body, once all of it was fed. Lifted strings are put back as far as there is room, the shortest first."""
        fitting = self._fitting()
        nonce = secrets.token_hex(16)
        texts: dict[str, LiftedText] = {}
        parts: list[bytes] = []
        done = 0
        for number, (begins, text) in enumerate(self._lifted):
            parts.append(bytes(self._rest[done:begins]))
            done = begins
            if number in fitting:
                parts.append(text.raw())
                continue
            texts[f"{_PLACEHOLDER_START}{nonce}:{number}"] = text
            parts.append(f"\\u0000{_PLACEHOLDER_START[1:]}{nonce}:{number}".encode())
        parts.append(bytes(self._rest[done:]))
        return Lifted(b"".join(parts), texts)

    def _fitting(self) -> set[int]:
        room_bytes = self._rest_limit_bytes - len(self._rest)
        fitting: set[int] = set()
        for number in sorted(range(len(self._lifted)), key=lambda each: self._lifted[each][1].size_bytes):
            room_bytes -= self._lifted[number][1].size_bytes
            if room_bytes < 0:
                break
            fitting.add(number)
        return fitting
