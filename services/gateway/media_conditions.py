"""What a request for an object asks for, once it is known what there is: all of it, a part, or nothing (RFC 9110, 13 and 14)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from aiohttp import ETag, web

# One plain range. Several at once are legal and wanted by nobody; HTTP lets a server ignore what it will not serve.
_RANGE: Final = re.compile(r"bytes=([0-9]{1,15})?-([0-9]{1,15})?")


def range_of(request: web.Request) -> str:
    """The one range that may be served; empty where the whole is to be."""
    wanted = request.headers.getall("Range", [])
    found = _RANGE.fullmatch(wanted[0]) if request.method == "GET" and len(wanted) == 1 else None
    if found is None:
        return ""
    first, last = found[1], found[2]
    if first is None and (last is None or int(last) == 0):
        return ""
    if first is not None and last is not None and int(last) < int(first):
        return ""
    return wanted[0]


def range_counts(request: web.Request, tag: str, modified_at: datetime) -> bool:
    """Whether a range is of the object that there is, as far as the request makes a condition of that."""
    condition = request.headers.get("If-Range")
    if condition is None or condition == f'"{tag}"':
        return True
    date = _date(request, "if_range")
    return date is not None and modified_at <= date


def refusal(request: web.Request, tag: str, modified_at: datetime) -> int:
    """412 or 304 where a condition says so, else 0."""
    if request.if_match is not None:
        if not _is_among(tag, request.if_match, weakly=False):
            return 412
    elif (unmodified := _date(request, "if_unmodified_since")) is not None and modified_at > unmodified:
        return 412
    if request.if_none_match is not None:
        return 304 if _is_among(tag, request.if_none_match, weakly=True) else 0
    modified = _date(request, "if_modified_since")
    return 304 if modified is not None and modified_at <= modified else 0


def _is_among(tag: str, tags: tuple[ETag, ...], *, weakly: bool) -> bool:
    return any(one.value in ("*", tag) and (weakly or not one.is_weak) for one in tags)


def _date(request: web.Request, attribute: str) -> datetime | None:
    """A date of the request; None where there is none, or none that can be read."""
    try:
        date: datetime | None = getattr(request, attribute)
    except (ValueError, OverflowError):
        return None
    return date
