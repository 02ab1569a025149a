"""Inward, the questions: ids, pages and ranges out of addresses. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from aiohttp import web

from services.gateway import errors, pairs
from services.gateway.contracts.seedancee2.wire import PageQuery, Status, UsageQuery
from services.gen.jobs.v1 import jobs_pb2 as pb

_ID: Final = re.compile(r"vid_[0-9a-hjkmnp-tv-z]{26}")
# No cursor is longer, and nothing longer is looked at.
_CURSOR_LIMIT: Final = 64
# "2026-06-29T10:00:00.000000+00:00" and no more.
_MOMENT_LIMIT: Final = 40
_DEFAULT_RANGE_MS: Final = 30 * 86_400_000
# Nothing was made before, and what comes later is in no calendar of a database.
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)

_STAGES: Final[Mapping[Status, tuple[pb.Stage.ValueType, ...]]] = {
    "pending": (pb.STAGE_WAITING, pb.STAGE_ACCOUNT_CHOSEN),
    "processing": (pb.STAGE_AT_PROVIDER,),
    "completed": (pb.STAGE_ENDED_WELL,),
    "failed": (pb.STAGE_ENDED_BADLY,),
}


@dataclass(frozen=True, slots=True)
class PageAsked:
    """Which videos are wanted. before_id: continue after this one; empty: from the newest."""

    stages: tuple[pb.Stage.ValueType, ...]
    limit: int
    before_id: str


@dataclass(frozen=True, slots=True)
class UsageAsked:
    """Which videos are counted; both moments are in the range. days: rows of the timeline at most."""

    start_ms: int
    end_ms: int
    days: int


def video_id(value: str) -> str:
    """`value`, if it can be the id of a video. Raises JOB_NOT_FOUND without asking anybody otherwise."""
    if not _ID.fullmatch(value):
        raise errors.job_not_found()
    return value


def page(request: web.Request) -> PageAsked:
    """Raises MALFORMED_REQUEST that names the parameter."""
    query = pairs.query(request, PageQuery)
    return PageAsked(
        stages=_STAGES[query.status] if isinstance(query.status, str) else (),
        limit=query.limit,
        before_id=_before(query.cursor) if isinstance(query.cursor, str) else "",
    )


def cursor(last_id: str) -> str:
    """What continues after `last_id`. It says nothing but that id, so a made-up one finds nothing but the caller's own."""
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def _before(text: str) -> str:
    try:
        if len(text) > _CURSOR_LIMIT:
            raise ValueError
        last_id = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode(
            "ascii"
        )
    except (ValueError, binascii.Error):
        last_id = ""
    if not _ID.fullmatch(last_id):
        raise errors.malformed_request("cursor must be the next_cursor of another page.", "cursor")
    return last_id


def usage(request: web.Request, now_ms: int) -> UsageAsked:
    """Without `end` the range ends now, without `start` it is 30 days long. Raises MALFORMED_REQUEST."""
    query = pairs.query(request, UsageQuery)
    end_ms = _moment(query.end, "end", last=True) if isinstance(query.end, str) else now_ms
    if isinstance(query.start, str):
        start_ms = _moment(query.start, "start", last=False)
    else:
        # A range that ends with a day begins with one.
        last_ms = int(isinstance(query.end, str) and _is_date(query.end))
        start_ms = max(0, end_ms + last_ms - _DEFAULT_RANGE_MS)
    if start_ms > end_ms:
        raise errors.malformed_request("start must not be after end.", "start")
    return UsageAsked(start_ms, end_ms, query.limit)


def _moment(text: str, name: str, last: bool) -> int:
    """Milliseconds of an ISO 8601 date or time; UTC where it does not say. last: a date means its last millisecond."""
    try:
        if not text.isascii() or len(text) > _MOMENT_LIMIT:
            raise ValueError
        # A plus sign that was not escaped arrives as a space.
        found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise errors.malformed_request(f"{name} must be a date or time in ISO 8601.", name) from None
    if not _FIRST <= found <= _LAST:
        raise errors.malformed_request(f"{name} must be in the years 1970 to 9998.", name)
    if last and _is_date(text):
        found += timedelta(days=1, milliseconds=-1)
    return (found - _FIRST) // timedelta(milliseconds=1)


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
