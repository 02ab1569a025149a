"""What can be told of a request that could not be read: it still has a path, and somebody in whose words to answer it."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

# The server reads no longer line; what a client's libraries send first lies in it.
BEGINNING_BYTES: Final = 8 * 1024

# The target may be what is too long, and be cut off.
_TARGET: Final = re.compile(r"[!-~]+ (?:https?://[^/?# ]*)?(/[!-~]*)")


def read_as_far(request: web.BaseRequest, beginning: bytes) -> web.BaseRequest:
    """`request` with the path and headers that are in its `beginning`; as it is where there is no path.

    Of headers that are there twice the first counts: nobody is let in on what is read here.
    """
    first, *lines = beginning.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    target = _TARGET.match(first)
    if target is None:
        return request
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name, value.strip())
    path = re.split("[?#]", target[1], maxsplit=1)[0]
    return request.clone(rel_url=URL.build(path=path, encoded=True), headers=headers)
