"""Media: links that are signed and expire, and the files they lead to."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from services.chassis.clock import Clock
from services.chassis.signed_links import PATH_PREFIX, Link, SignedLinks, SigningKeys
from services.gateway import errors
from services.gateway.media_conditions import range_counts, range_of

__all__ = ["PATH_PREFIX", "Link", "Media", "MediaFiles", "MediaLinks", "SigningKeys", "headers_of", "opened"]

# What the store may call an object: no dot first, no empty part, nothing to escape.
_OBJECT_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,7}")
_EXPIRES: Final = re.compile(r"[0-9]{1,12}")
_DATES: Final = {
    "If-Modified-Since": "if_modified_since",
    "If-Unmodified-Since": "if_unmodified_since",
    "If-Range": "if_range",
}

# What the store holds. Anything else is offered as a download and never rendered.
_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".m4a": "audio/mp4",
    ".txt": "text/plain; charset=utf-8",
}


class MediaLinks:
    """Makes links. public_url: how customers reach this service; own_urls: how those of some storefronts do."""

    def __init__(
        self,
        keys: SigningKeys,
        public_url: str,
        validity_ms: int,
        clock: Clock,
        own_urls: Mapping[str, str] | None = None,
    ) -> None:
        self._links = SignedLinks(keys, public_url)
        self._own_urls = own_urls or {}
        self._validity_ms = validity_ms
        self._clock = clock

    def link(self, storefront: str, object_key: str, media_expires_at_ms: int) -> Link:
        """A link to one object, good for the configured time but never longer than the object is kept.

        media_expires_at_ms: when the object leaves the store; 0 = unknown. Raises MEDIA_GONE after it.
        """
        now_ms = self._clock.now_ms()
        expires_at_ms = now_ms + self._validity_ms
        if media_expires_at_ms:
            expires_at_ms = min(expires_at_ms, media_expires_at_ms)
        if expires_at_ms <= now_ms:
            raise errors.media_gone()
        return self._links.link(object_key, expires_at_ms, self._own_urls.get(storefront, ""))


class Media(Protocol):
    """Serves what the media store holds, wherever that is."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The object behind a good link. Raises NO_SUCH_PATH for every other link."""


def opened(request: web.Request, keys: SigningKeys, clock: Clock) -> tuple[str, int]:
    """What a good link leads to: the object's key, and the whole seconds for which the link is still good.

    Raises NO_SUCH_PATH for every other link.
    """
    object_key = request.match_info["object_key"]
    expires = request.query.get("expires", "")
    signature = request.query.get("signature", "")
    if not _OBJECT_KEY.fullmatch(object_key) or not _EXPIRES.fullmatch(expires):
        raise errors.link_not_valid()
    if not keys.verifies(object_key, int(expires), signature):
        raise errors.link_not_valid()
    if int(expires) * 1000 <= clock.now_ms():
        raise errors.link_expired()
    return object_key, max(0, int(expires) - clock.now_ms() // 1000)


class MediaFiles:
    """Serves the media store's folder to holders of links: ranges, conditions and HEAD included."""

    def __init__(self, keys: SigningKeys, root: Path, clock: Clock) -> None:
        self._keys = keys
        self._root = root.resolve()
        self._clock = clock

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The file behind a good link. Raises NO_SUCH_PATH for every other link."""
        object_key, left_s = opened(request, self._keys, self._clock)
        path, facts = await asyncio.to_thread(self._file, object_key)
        headers = headers_of(object_key, left_s)
        return _Opened(path, _ignored(request, facts), headers)

    def _file(self, object_key: str) -> tuple[Path, os.stat_result]:
        # Resolved, so that a symbolic link in the store leads nowhere else either.
        path = (self._root / object_key).resolve()
        if not path.is_relative_to(self._root) or not path.is_file():
            raise errors.link_not_valid()
        return path, path.stat()


class _Opened(web.FileResponse):
    """aiohttp's file, which looks away from the headers that HTTP says to ignore, and never lets a refusal be kept."""

    def __init__(self, path: Path, ignored: frozenset[str], headers: Mapping[str, str]) -> None:
        super().__init__(path, headers=headers)
        self._ignored = ignored

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Starts the answer to `request`, less the headers that are ignored."""
        if self._ignored:
            kept = CIMultiDict(request.headers)
            for name in self._ignored:
                kept.popall(name, None)
            request = request.clone(headers=kept)
        return await super().prepare(request)

    def set_status(self, status: int, reason: str | None = None) -> None:
        """As aiohttp's; a refused range or condition is an answer without a body, and for now only."""
        super().set_status(status, reason)
        if status >= 400:
            self.headers["Cache-Control"] = "no-store"
            for name in ("Content-Type", "Content-Disposition"):
                self.headers.pop(name, None)
            self.content_length = 0


def _ignored(request: web.Request, facts: os.stat_result) -> frozenset[str]:
    """Names of headers that have no meaning here: dates that are none, and ranges that are not to be served."""
    names = set()
    for name, attribute in _DATES.items():
        try:
            getattr(request, attribute)
        except (ValueError, OverflowError):
            names.add(name)
    if "Range" in request.headers and not _range_counts(request, facts):
        names.add("Range")
    return frozenset(names)


def _range_counts(request: web.Request, facts: os.stat_result) -> bool:
    # As aiohttp makes the file's tag; it compares dates by itself, but no tags.
    tag = f"{facts.st_mtime_ns:x}-{facts.st_size:x}"
    modified_at = datetime.fromtimestamp(facts.st_mtime, UTC)
    return bool(range_of(request)) and range_counts(request, tag, modified_at)


def headers_of(object_key: str, left_s: int) -> dict[str, str]:
    """What is said of an object beside its bytes, to a link that is good for so many seconds."""
    ending = object_key.rpartition("/")[2].rpartition(".")
    content_type = _TYPES.get(f".{ending[2].lower()}") if ending[0] else None
    disposition = "inline" if content_type else "attachment"
    # The whole key, so that the files of two jobs do not overwrite each other where they are saved.
    name = object_key.replace("/", "-")
    return {
        "Content-Type": content_type or "application/octet-stream",
        "Content-Disposition": f'{disposition}; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        # Made to be shown in customers' pages.
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={left_s}, immutable",
    }
