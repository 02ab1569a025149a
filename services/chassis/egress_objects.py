"""Objects in a bucket of an S3-compatible store: put, read, listed, deleted, with a deadline on everything.

The store is an operator's choice, and its addresses are made here; nothing that a customer names comes this way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar
from xml.sax.saxutils import escape

from services.chassis.egress_answer import Answer
from services.chassis.egress_calls import CallFailed, DirectCalls, Streaming
from services.chassis.object_place import ObjectPlace
from services.chassis.sigv4 import EMPTY_SHA256
from services.chassis.xml_answers import NotXml, leaves

A = TypeVar("A", Answer, Streaming)

_TRY_S: Final = 15.0
"""One request without a body to speak of. A store that makes room for a first object takes seconds."""

_TOTAL_S: Final = 40.0
"""A request with its repetitions."""

_SLOWEST_BYTES_PER_S: Final = 512 * 1024
"""What a body gets time for, beside that."""

_TRIES: Final = 6
_BACKOFF_FIRST_S: Final = 0.1
_BACKOFF_LIMIT_S: Final = 4.0

_STALL_S: Final = 30.0
"""Between two pieces of a body that is on its way."""

_PASSING_STATUSES: Final = frozenset({409, 429, 500, 502, 503, 504})
"""409: another conditional request for the key is under way. 503 is how S3 says SlowDown."""

_PASSING_RULES: Final = frozenset({"busy", "closed", "connect", "framing", "timeout"})

_ANSWER_LIMIT_BYTES: Final = 4 * 1024**2
"""A page of a thousand long names, and room."""

_PAGE: Final = 1_000
"""Keys in a page, and in one deletion: what S3 allows."""

_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HASH_HEADER: Final = "x-amz-meta-sha256"


class ObjectsUnusable(OSError):
    """The store did not do what was asked. Neither its address, nor a key, nor anything secret is in the text.

    `status` is that of its answer, 0 where none came; `code` is S3's word for it, or ours.
    """

    def __init__(self, code: str, status: int = 0) -> None:
        super().__init__(f"the store of objects is not usable: {code}" + (f" ({status})" if status else ""))
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the store knows of an object. `sha256` is empty where whoever put it there did not say."""

    size_bytes: int
    modified_at: datetime
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a page."""

    key: str
    modified_at: datetime


class Arriving:
    """An object, or `first` to `last` byte of it, on its way."""

    def __init__(self, facts: ObjectFacts, first: int, last: int, streaming: Streaming) -> None:
        self.facts = facts
        self.first = first
        self.last = last
        self._chunks = streaming.chunks()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come, once. Raises ObjectsUnusable."""
        left = self.last - self.first + 1
        while chunk := await self._next():
            left -= len(chunk)
            yield chunk
        if left:
            raise ObjectsUnusable("framing")

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(_STALL_S):
                return await anext(self._chunks, b"")
        except TimeoutError:
            failure = ObjectsUnusable("timeout")
        except CallFailed as failed:
            failure = ObjectsUnusable(failed.rule)
        raise failure


class RangeBeyond(Exception):
    """No byte of the object is in the range that was asked for."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    sha256: str = EMPTY_SHA256
    content: bytes | Path | None = field(default=None, repr=False)
    size_bytes: int = 0

    @property
    def body_s(self) -> float:
        """What its body may take on its way."""
        return self.size_bytes / _SLOWEST_BYTES_PER_S


class ObjectStore:
    """One bucket. Enter it first; what it raises is ObjectsUnusable, and SettingsError on entering."""

    def __init__(self, place: ObjectPlace, *, ca_file: Path | None = None, total_s: float = _TOTAL_S) -> None:
        """total_s: how long a call may take with its repetitions, besides the time for bodies."""
        self._place = place
        self._calls = DirectCalls(ca_file=ca_file)
        self._total_s = total_s
        self._try_s = min(_TRY_S, total_s)

    async def __aenter__(self) -> Self:
        await self._calls.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.__aexit__(kind, error, trace)

    async def put(
        self,
        key: str,
        content: bytes | Path,
        *,
        size_bytes: int,
        sha256: str,
        content_type: str,
        only_if_absent: bool = False,
    ) -> bool:
        """Store bytes, or a file, which is read as it is sent. False: there is an object, and there was to be none.

        `sha256` in hexadecimal digits is what the store checks the body against, and keeps with the object.
        """
        headers = {"content-type": content_type, _HASH_HEADER: sha256}
        if only_if_absent:
            headers["if-none-match"] = "*"
        request = _Request("PUT", key, {}, headers, sha256, content, size_bytes)
        answer = await self._answered(request)
        if answer.status == 412 and only_if_absent:
            return False
        _check(answer, 200, 201, 204)
        return True

    async def head(self, key: str) -> ObjectFacts | None:
        """What is known of an object; None if there is none."""
        answer = await self._answered(_Request("HEAD", key))
        if answer.status == 404:
            return None
        _check(answer, 200)
        return _facts(answer.headers, _length(answer.headers))

    async def read(self, key: str, limit_bytes: int) -> bytes | None:
        """The first bytes of an object; None if there is none."""
        request = _Request("GET", key, {}, {"range": f"bytes=0-{limit_bytes - 1}"})
        answer = await self._answered(request, limit_bytes=max(limit_bytes, _ANSWER_LIMIT_BYTES))
        if answer.status == 404:
            return None
        if answer.status == 416:
            return b""
        _check(answer, 200, 206)
        return answer.body[:limit_bytes]

    @asynccontextmanager
    async def open(self, key: str, byte_range: str = "", *, total_s: float) -> AsyncIterator[Arriving | None]:
        """An object as it comes; None if there is none. `total_s` is over everything until the context is left.

        byte_range: one range as HTTP writes it. Raises RangeBeyond.
        """
        headers = {"range": byte_range} if byte_range else {}
        async with AsyncExitStack() as open_now:
            streaming = await self._repeated(lambda: self._streaming(open_now, key, headers, total_s))
            if streaming.status == 404:
                yield None
                return
            if streaming.status == 416:
                raise RangeBeyond
            if streaming.status not in (200, 206):
                raise ObjectsUnusable("status", streaming.status)
            yield _arriving(streaming)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are no error."""
        for start in range(0, len(keys), _PAGE):
            await self._delete_page(keys[start : start + _PAGE])

    async def pages(self, prefix: str) -> AsyncIterator[list[Listed]]:
        """The objects whose keys begin so, in the order of their keys, a page at a time."""
        more = ""
        while True:
            query = {"list-type": "2", "max-keys": str(_PAGE), "prefix": prefix}
            if more:
                query["continuation-token"] = more
            answer = await self._answered(_Request("GET", "", query))
            _check(answer, 200)
            found, more = _listed(answer.body)
            if found:
                yield found
            if not more:
                return

    async def check(self) -> None:
        """Raises ObjectsUnusable if the bucket cannot be reached with these keys. It asks once."""
        query = {"list-type": "2", "max-keys": "1"}
        answer = await self._once(_Request("GET", "", query), _ANSWER_LIMIT_BYTES)
        _check(answer, 200)

    def presigned(self, method: str, key: str, lifetime_s: int, answer_headers: Mapping[str, str]) -> str:
        """An address at the store itself that opens one object for so many seconds, and needs no key."""
        return self._place.presigned(method, key, _now(), lifetime_s, dict(answer_headers))

    async def _delete_page(self, keys: Sequence[str]) -> None:
        names = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        body = f"<Delete><Quiet>true</Quiet>{names}</Delete>".encode()
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {"content-md5": base64.b64encode(digest).decode(), "content-type": "application/xml"}
        request = _Request(
            "POST", "", {"delete": ""}, headers, hashlib.sha256(body).hexdigest(), body, len(body)
        )
        answer = await self._answered(request)
        _check(answer, 200)
        refused = [text for path, text in _leaves(answer.body) if path == "DeleteResult/Error/Code"]
        if any(code != "NoSuchKey" for code in refused):
            raise ObjectsUnusable(_plain(refused[0]), answer.status)

    async def _answered(self, request: _Request, *, limit_bytes: int = _ANSWER_LIMIT_BYTES) -> Answer:
        return await self._repeated(lambda: self._once(request, limit_bytes), request.body_s)

    async def _once(self, request: _Request, limit_bytes: int) -> Answer:
        address, headers = self._signed(request)
        body = await _opened(request.content)
        try:
            return await self._calls.call(
                request.method,
                address,
                headers=headers,
                data=body,
                total_s=self._try_s + request.body_s,
                limit_bytes=limit_bytes,
            )
        except CallFailed as failed:
            failure = ObjectsUnusable(failed.rule)
        finally:
            if body is not None:
                body.close()
        raise failure

    async def _streaming(
        self, open_now: AsyncExitStack, key: str, headers: Mapping[str, str], total_s: float
    ) -> Streaming:
        address, signed = self._signed(_Request("GET", key, {}, headers))
        # The answer of a try before this one holds a connection.
        await open_now.aclose()
        try:
            async with asyncio.timeout(self._try_s):
                return await open_now.enter_async_context(
                    self._calls.stream(address, headers=signed, total_s=total_s, alone=False)
                )
        except TimeoutError:
            failure = ObjectsUnusable("timeout")
        except CallFailed as failed:
            failure = ObjectsUnusable(failed.rule)
        raise failure

    def _signed(self, request: _Request) -> tuple[str, dict[str, str]]:
        return self._place.signed(
            request.method, request.key, dict(request.query), dict(request.headers), request.sha256, _now()
        )

    async def _repeated(self, work: Callable[[], Awaitable[A]], body_s: float = 0.0) -> A:
        """The one place where anything is tried again: all that is asked here may be, whatever became of the first try."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + self._total_s + body_s
        backoff_s, tries = _BACKOFF_FIRST_S, 0
        while True:
            tries += 1
            outcome = await _outcome(work)
            pause_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            if not _is_passing(outcome) or tries == _TRIES or loop.time() + pause_s > ends_s:
                break
            await asyncio.sleep(pause_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_LIMIT_S)
        if isinstance(outcome, ObjectsUnusable):
            raise outcome
        return outcome


async def _opened(content: bytes | Path | None) -> BinaryIO | None:
    """Anew for every try: whatever has been read of it may have been lost."""
    if isinstance(content, Path):
        return await asyncio.to_thread(content.open, "rb")
    return None if content is None else io.BytesIO(content)


async def _outcome(work: Callable[[], Awaitable[A]]) -> A | ObjectsUnusable:
    try:
        return await work()
    except ObjectsUnusable as failure:
        return failure


def _is_passing(outcome: Answer | Streaming | ObjectsUnusable) -> bool:
    if isinstance(outcome, ObjectsUnusable):
        return outcome.code in _PASSING_RULES
    return outcome.status in _PASSING_STATUSES


def _now() -> datetime:
    return datetime.now(UTC)


def _check(answer: Answer, *good: int) -> None:
    """Raises ObjectsUnusable with S3's word for what is wrong, and nothing else of the answer."""
    if answer.status in good:
        return
    code = "status"
    with suppress(NotXml):
        code = next((_plain(text) for path, text in leaves(answer.body) if path == "Error/Code"), code)
    raise ObjectsUnusable(code, answer.status)


def _plain(code: str) -> str:
    return code if _CODE.fullmatch(code) else "status"


def _leaves(body: bytes) -> list[tuple[str, str]]:
    # Some stores say nothing at all where nothing is to be told.
    if not body.strip():
        return []
    try:
        return leaves(body)
    except NotXml:
        failure = ObjectsUnusable("xml")
    raise failure


def _listed(body: bytes) -> tuple[list[Listed], str]:
    """A page, and what asks for the next one; empty after the last."""
    keys: list[str] = []
    moments: list[datetime] = []
    told: dict[str, str] = {}
    for path, text in _leaves(body):
        if path == "ListBucketResult/Contents/Key":
            keys.append(text)
        elif path == "ListBucketResult/Contents/LastModified":
            moments.append(_moment(text))
        elif path.count("/") == 1:
            told[path.partition("/")[2]] = text
    if len(keys) != len(moments):
        raise ObjectsUnusable("xml")
    more = told.get("NextContinuationToken", "") if told.get("IsTruncated") == "true" else ""
    return [Listed(key, moment) for key, moment in zip(keys, moments, strict=True)], more


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        failure = ObjectsUnusable("xml")
    raise failure


def _arriving(streaming: Streaming) -> Arriving:
    length = _length(streaming.headers)
    first, last, size_bytes = 0, length - 1, length
    if streaming.status == 206:
        told = _CONTENT_RANGE.fullmatch(streaming.headers.get("content-range", ""))
        if told is None:
            raise ObjectsUnusable("framing")
        first, last, size_bytes = (int(number) for number in told.groups())
        if last - first + 1 != length or last >= size_bytes:
            raise ObjectsUnusable("framing")
    return Arriving(_facts(streaming.headers, size_bytes), first, last, streaming)


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        raise ObjectsUnusable("framing")
    return int(text)


def _facts(headers: Mapping[str, str], size_bytes: int) -> ObjectFacts:
    try:
        modified_at = parsedate_to_datetime(headers.get("last-modified", "")).astimezone(UTC)
    except (ValueError, OverflowError):
        modified_at = datetime.fromtimestamp(0, UTC)
    sha256 = headers.get(_HASH_HEADER, "")
    return ObjectFacts(size_bytes, modified_at, sha256 if _SHA256.fullmatch(sha256) else "")
