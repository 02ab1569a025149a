"""The id of a request, which its answer, its log lines and every call that is made for it carry."""

from __future__ import annotations

import os
import re
from typing import Final

from aiohttp import web

_GIVEN: Final = re.compile(r"[\x20-\x7e]{1,128}")


def request_id_of(request: web.BaseRequest) -> str:
    """The one that the client gave, if it can be kept; else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if _GIVEN.fullmatch(given) else f"req_{os.urandom(13).hex()}"
