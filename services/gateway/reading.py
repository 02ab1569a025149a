"""Reads hostile requests: strict JSON into a contract's struct, texts, and idempotency keys."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from services.gateway import errors
from services.gateway.choices import choices_at
from services.gateway.lifting import Lifted, Lifter, is_placeholder, without_placeholders

T = TypeVar("T", bound=msgspec.Struct)

# A megabyte takes a slow phone some seconds; nobody honest needs longer, and a trickle must not hold a place.
_BODY_TIMEOUT_S: Final = 30.0
# 28 MiB at 2 Mbit/s.
_LARGE_BODY_TIMEOUT_S: Final = 120.0
# Who sends nothing for so long has gone, and must not keep a place that others wait for.
_STALL_TIMEOUT_S: Final = 10.0

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,255}")
# Everything below a space but tab, line feed and carriage return, and DEL: nothing a person types, and trouble in logs.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# msgspec ends its sentence with the place of the fault: "Expected `int`, got `str` - at `$.duration`".
_FAULT: Final = re.compile(r"(?P<what>.*?) - at `\$(?P<path>.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
# It names Python's types; the reader of the answer may never have seen Python.
_TYPE_NAME: Final = re.compile(r"`([^`]*)`")
_NO_CHOICE: Final = "Invalid enum value"
_JSON_NAMES: Final = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


async def body_of(
    request: web.Request, limit_bytes: int, rest_limit_bytes: int, take_place: Callable[[], Awaitable[None]]
) -> Lifted:
    """The whole body, after any Content-Encoding, its long strings lifted out if it is larger than `rest_limit_bytes`.

    A body that is larger is read once `take_place` returns, and no further before.

    Raises PAYLOAD_TOO_LARGE as soon as more than `limit_bytes` are declared or seen, MALFORMED_REQUEST for
    a body that does not arrive or cannot be decompressed, and what `take_place` raises.
    """
    declared_bytes = request.content_length or 0
    if declared_bytes > limit_bytes:
        raise errors.payload_too_large(limit_bytes)
    begun = b""
    if declared_bytes <= rest_limit_bytes:
        begun = await _begun(request, rest_limit_bytes)
        if len(begun) <= rest_limit_bytes:
            return Lifted(begun)
    await take_place()
    async with _arriving(_STALL_TIMEOUT_S) as patience:
        return await _lifted(request, begun, limit_bytes, rest_limit_bytes, patience)


@asynccontextmanager
async def _arriving(timeout_s: float) -> AsyncIterator[asyncio.Timeout]:
    """Says in the edge's words that a body does not arrive, or not as it should."""
    try:
        async with asyncio.timeout(timeout_s) as patience:
            yield patience
    except TimeoutError:
        raise errors.malformed_request("The request body did not arrive in time.") from None
    # A client that has gone is an OSError; nobody hears the answer then, but it is not a fault of ours.
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError, OSError):
        raise errors.malformed_request("The request body could not be read.") from None


async def _begun(request: web.Request, enough_bytes: int) -> bytes:
    """The whole body, or its beginning as soon as that is longer than `enough_bytes`."""
    # Most bodies are there already, and whole.
    if request.content.is_eof() and request.content.exception() is None:
        return request.content.read_nowait()
    async with _arriving(_BODY_TIMEOUT_S):
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > enough_bytes:
                break
        return bytes(body)


async def _lifted(
    request: web.Request, chunk: bytes, limit_bytes: int, rest_limit_bytes: int, patience: asyncio.Timeout
) -> Lifted:
    now_s = asyncio.get_running_loop().time
    ends_s = now_s() + _LARGE_BODY_TIMEOUT_S
    lifter = Lifter(rest_limit_bytes)
    received_bytes = 0
    while True:
        received_bytes += len(chunk)
        if received_bytes > limit_bytes:
            raise errors.payload_too_large(limit_bytes)
        for _ in lifter.feed(chunk):
            await asyncio.sleep(0)
        patience.reschedule(min(ends_s, now_s() + _STALL_TIMEOUT_S))
        chunk = await request.content.readany()
        if not chunk:
            return lifter.finish()


def require_json(request: web.Request) -> None:
    """Refuses a declared content type other than application/json; none at all is taken as JSON."""
    declared = request.headers.get("Content-Type", "")
    if declared and declared.partition(";")[0].strip().lower() != "application/json":
        raise errors.malformed_request("The Content-Type must be application/json.")


def parsed(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The struct in `body`. Raises MALFORMED_REQUEST that names the field, or says what is wrong with the JSON."""
    try:
        # msgspec does not look at the bytes of strings that it skips.
        body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as fault:
        raise explained(str(fault), decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.malformed_request("The request body must be one valid JSON object in UTF-8.") from None


def explained(fault: str, wire: Any, within: str = "") -> Exception:
    """MALFORMED_REQUEST that says what a decoder's sentence about a `wire` says, in the words of JSON.

    within: the field of the request that the `wire` is in.
    """
    # A value that was lifted out is repeated by nobody.
    fault = without_placeholders(fault)
    at = _FAULT.fullmatch(fault)
    what = at["what"] if at else fault
    inner = at["path"].lstrip(".") if at else ""
    path = f"{within}.{inner}" if within and inner else within or inner
    missing = _MISSING.match(what)
    if missing:
        field = f"{path}.{missing['name']}" if path else missing["name"]
        return errors.malformed_request(f"{field} is required.", field)
    if not path:
        return errors.malformed_request("The request body must be a JSON object.")
    if what.startswith(_NO_CHOICE):
        return errors.malformed_request(_choose(choices_at(wire, inner), path), path)
    told = _TYPE_NAME.sub(lambda name: " or ".join(_JSON_NAMES.get(n, n) for n in name[1].split(" | ")), what)
    return errors.malformed_request(f"{path}: {told[:1].lower()}{told[1:]}.", path)


def _choose(choices: Sequence[str], path: str) -> str:
    # What was sent is not repeated: it may be long.
    *others, last = choices or ("one of the documented values",)
    return f"{path} must be {', '.join(others)}{' or ' if others else ''}{last}."


def text(value: str, field: str, maximum: int) -> str:
    """`value` trimmed. Raises MALFORMED_REQUEST unless it then has 1 to `maximum` characters, none a control."""
    trimmed = value.strip()
    if is_placeholder(trimmed) or not 1 <= len(trimmed) <= maximum:
        raise errors.malformed_request(f"{field} must have 1 to {maximum:,} characters.", field)
    if _CONTROL.search(trimmed):
        raise errors.malformed_request(f"{field} must not contain control characters.", field)
    return trimmed


def idempotency_key(request: web.Request) -> str:
    """The header's one value. Raises IDEMPOTENCY_KEY_MISSING."""
    values = request.headers.getall("Idempotency-Key", ())
    if len(values) != 1 or not _PRINTABLE.fullmatch(values[0]):
        raise errors.idempotency_key_missing()
    return values[0]


def fingerprint(endpoint: str, wire: msgspec.Struct) -> bytes:
    """Equal for equal parsed requests to one endpoint, whatever their key order, white space or unknown fields."""
    return hashlib.sha256(endpoint.encode() + b"\n" + msgspec.json.encode(wire, order="sorted")).digest()
