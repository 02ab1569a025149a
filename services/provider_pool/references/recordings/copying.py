"""What becomes of one recording in the jail: walked, opened, and its pictures and sound copied into a container of our own.

Nothing is coded anew. What is not pictures or sound (titles, positions, cover pictures, chapters, subtitles, whatever lies
between them) is not copied. What comes out was written by a library that read what a customer sent: it is believed in
nothing, and walked like any other file.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pkgutil
import sys
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from mmap import mmap
from typing import Any, Final

import av
import av.error
import av.logging
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from services.provider_pool.references.decode_words import (
    AnyOrder,
    Decoded,
    NotWritten,
    RecordingOrder,
    Refused,
    Rewritten,
    Word,
)
from services.provider_pool.references.recordings.container import walk
from services.provider_pool.references.recordings.judgement import (
    DURATION_LIMIT_MS,
    DURATION_TOLERANCE_MS,
    PARTS_LIMIT,
    RecordingLimits,
    RecordingRefused,
    Rule,
    Walked,
    check_sides,
)
from services.provider_pool.references.target_file import TargetFailed, write_all

__all__ = ["examine", "refusal", "warm_up"]

Say = Callable[[Word], None]

# Of each format: the library's name for who reads it, for who writes it, and how that is told to say nothing of itself.
_CONTAINERS: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    "mp4": ("mov", "mp4", {}),
    "mov": ("mov", "mov", {}),
    "m4a": ("mov", "ipod", {}),
    "webm": ("webm", "webm", {}),
    "mp3": ("mp3", "mp3", {"id3v2_version": "0"}),
    "wav": ("wav", "wav", {}),
    "ogg": ("ogg", "ogg", {}),
}
# What providers read. The library would copy much more.
_FILM_CODINGS: Final = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4"})
_SOUND_CODINGS: Final = frozenset({"aac", "mp3", "opus", "vorbis", "flac", "alac", "pcm_u8", "pcm_f32le"}) | {
    f"pcm_s{depth}{order}" for depth in (16, 24, 32) for order in ("le", "be")
}
# So that the same recording becomes the same file each time.
_TELL_NOTHING: Final = {"fflags": "+bitexact"}
_HASH_STEP_BYTES: Final = 1024 * 1024


class _Source(io.RawIOBase):
    """The recording, as the library reads it."""

    def __init__(self, content: mmap | bytes) -> None:
        self._view = memoryview(content)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else self._place + size
        piece = bytes(self._view[self._place : end])
        self._place += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: len(self._view)}[whence]
        self._place = max(0, min(start + offset, len(self._view)))
        return self._place

    def tell(self) -> int:
        return self._place


class _Target(io.RawIOBase):
    """The file to write, as the library writes it; `failure` is what its caller would not be told."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: Exception | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        try:
            write_all(self._descriptor, content)
        except TargetFailed as failed:
            larger = RecordingRefused(Rule.TOO_MANY_BYTES, "as a copy, it is larger")
            self.failure = larger if failed.is_full else failed
            raise OSError from failed
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)


def warm_up() -> None:
    """Load everything that a copy loads when it first happens, and make one; nothing can be loaded in the jail."""
    if "av.subtitles.stream" not in sys.modules:
        av.logging.set_level(None)
        for module in pkgutil.walk_packages(av.__path__, "av."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    silence = io.BytesIO()
    with wave.open(silence, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(bytes(8_000))
    content = silence.getvalue()
    _copy(content, walk(content, RecordingLimits("audio", len(content))), "audio", io.BytesIO())
    _sha256(content)


def examine(content: mmap | bytes, order: AnyOrder, target: int, say: Say) -> None:
    """Say what the walk found; then copy the recording to the descriptor `target`, or, of a copy, say its hash.

    Raises RecordingRefused, and whatever the library raises.
    """
    if not isinstance(order, RecordingOrder):
        raise TypeError("not about a recording")
    begun = time.perf_counter()
    walked = walk(content, RecordingLimits(order.medium, order.bytes))
    if not order.copies:
        say(_rewritten(walked, _sha256(content), len(content), begun))
        say(Decoded(0.0))
        return
    say(_rewritten(walked, None, 0, begun))
    begun = time.perf_counter()
    file = _Target(target)
    try:
        _copy(content, walked, order.medium, file)
    except Exception:
        if file.failure is not None:
            raise file.failure from None
        raise
    say(Decoded(time.perf_counter() - begun))


def refusal(error: BaseException) -> Refused | NotWritten:
    """The word for what was raised; whatever the library raises means that the recording cannot be copied."""
    if isinstance(error, TargetFailed):
        return NotWritten(error.errno)
    if isinstance(error, RecordingRefused):
        return Refused(error.rule, str(error).partition(": ")[2])
    return Refused(Rule.UNDECODABLE, type(error).__name__)


def _rewritten(walked: Walked, sha256: str | None, size_bytes: int, begun: float) -> Rewritten:
    return Rewritten(
        format=walked.format,
        width=walked.width,
        height=walked.height,
        size_bytes=size_bytes,
        sha256=sha256,
        spent_s=time.perf_counter() - begun,
        duration_ms=walked.duration_ms,
    )


def _sha256(content: mmap | bytes) -> str:
    digest, view = hashlib.sha256(), memoryview(content)
    for start in range(0, len(view), _HASH_STEP_BYTES):
        digest.update(view[start : start + _HASH_STEP_BYTES])
    return digest.hexdigest()


def _copy(content: mmap | bytes, walked: Walked, medium: str, file: io.IOBase) -> None:
    reader, writer, options = _CONTAINERS[walked.format]
    with av.open(_Source(content), "r", format=reader, metadata_errors="replace") as source:
        streams = _wanted(source, medium)
        with av.open(file, "w", format=writer, options=_TELL_NOTHING | options) as target:
            copies = {stream.index: _announced(target, stream) for stream in streams}
            for packet in _checked_packets(source, streams):
                packet.stream = copies[packet.stream.index]
                target.mux(packet)


def _wanted(source: InputContainer, medium: str) -> list[VideoStream | AudioStream]:
    """The film and its sound, or the sound alone; of several the first."""
    sounds = [stream for stream in source.streams.audio if _coding(stream) in _SOUND_CODINGS]
    if medium == "audio":
        if not sounds:
            raise RecordingRefused(Rule.UNSUPPORTED_CODING, "a sound in a rare coding")
        return list(sounds[:1])
    films = [stream for stream in source.streams.video if _coding(stream) in _FILM_CODINGS]
    if not films:
        raise RecordingRefused(Rule.UNSUPPORTED_CODING, "pictures in a rare coding")
    return [*films[:1], *sounds[:1]]


def _coding(stream: VideoStream | AudioStream) -> str:
    name: str = stream.codec_context.codec.canonical_name
    return name


def _announced(target: OutputContainer, stream: VideoStream | AudioStream) -> Stream:
    copy = target.add_stream_from_template(stream)
    copy.metadata.clear()
    return copy


def _checked_packets(
    source: InputContainer, streams: Sequence[VideoStream | AudioStream]
) -> Iterator[Packet[Any]]:
    """All packets, once it has been tried that each stream's first ones can be decoded."""
    undecoded = {stream.index for stream in streams}
    for stream in streams:
        # The jail has no second thread.
        stream.codec_context.thread_count = 1
    latest_ms = 0.0
    for number, packet in enumerate(source.demux(*streams)):
        if number >= PARTS_LIMIT:
            raise RecordingRefused(Rule.TOO_MANY_CHUNKS, f"more than {PARTS_LIMIT} packets")
        if packet.stream.index in undecoded and _is_decoded(packet):
            undecoded.remove(packet.stream.index)
        if packet.dts is None:
            continue
        if packet.pts is not None and packet.time_base:
            latest_ms = max(latest_ms, float((packet.pts + (packet.duration or 0)) * packet.time_base * 1000))
        if latest_ms > DURATION_LIMIT_MS + DURATION_TOLERANCE_MS:
            raise RecordingRefused(Rule.TOO_LONG, f"more than {DURATION_LIMIT_MS} ms")
        yield packet
    if undecoded:
        raise RecordingRefused(Rule.UNDECODABLE, "nothing to see or to hear")


def _is_decoded(packet: Packet[Any]) -> bool:
    frames = packet.decode()
    for frame in frames:
        if isinstance(frame, av.VideoFrame):
            check_sides(frame.width, frame.height)
    return bool(frames)
