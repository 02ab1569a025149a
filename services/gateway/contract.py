"""What a public contract is made of, and what its handlers are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

from services.chassis.errors import ServiceError
from services.gateway.auth import Caller
from services.gateway.backends import Backends
from services.gateway.inline_uploads import Body
from services.gateway.media import MediaLinks
from services.gateway.reference_media import ReferenceMedia

# 20 MB of image in base64, plus the rest.
BODY_LIMIT_BYTES: Final = 28 * 1024 * 1024
# The contracts' "1 MiB", beside inline images: a prompt of 4,000 characters needs 16 KiB at most.
REST_LIMIT_BYTES: Final = 1024 * 1024
# Intake holds credits and asks for an account: seconds under load, and a client's own time-out is usually 30 s.
CREATE_DEADLINE_S: Final = 15.0
READ_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class House:
    """What every handler may use: the other services, signed media links, and what takes references in."""

    backends: Backends
    media: MediaLinks
    references: ReferenceMedia


class Call(msgspec.Struct, frozen=True):
    """One authenticated request with its whole body."""

    request: web.Request
    caller: Caller
    body: Body
    house: House


class Answer(msgspec.Struct, frozen=True):
    """What a handler answers: a status, a body to be encoded as JSON (None: no body), and extra headers."""

    status: int
    body: msgspec.Struct | None
    headers: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reply:
    """One documented success of an operation."""

    status: int
    description: str
    body: type[msgspec.Struct]
    examples: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What the documentation says of a route, beside its types.

    errors: the codes of the contract's error table that this operation can answer, apart from the common ones.
    """

    summary: str
    description: str
    reply: Reply
    request: type[msgspec.Struct] | None = None
    example: Mapping[str, Any] | None = None
    # More requests, by name, beside the plain one above.
    more_examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. GET also serves HEAD."""

    name: str
    method: str
    path: str
    handler: Callable[[Call], Awaitable[Answer]]
    operation: Operation
    # Makes a job: has a body, which may hold images, an idempotency key, and errors that say that nothing was reserved.
    creates: bool = False
    deadline_s: float = READ_DEADLINE_S


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the contract's public error table."""

    status: int
    code: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the guide on the documentation page: paragraphs, and code where `code` is set."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...]
    code: str = ""


@dataclass(frozen=True, slots=True)
class Contract:
    """One public JSON contract. Adding one is adding one module and one line in `contracts/__init__.py`.

    paths: prefixes under which everything that goes wrong is spelled in this contract's shape.
    key_prefixes: how this contract's API keys begin; they decide where two contracts claim one path.
    render_error: the one place that spells an error; must accept any ServiceError. `route` is None outside of routes.
    """

    name: str
    title: str
    summary: str
    paths: tuple[str, ...]
    key_prefixes: tuple[str, ...]
    routes: tuple[Route, ...]
    render_error: Callable[[ServiceError, Route | None, str], Answer]
    error_body: type[msgspec.Struct]
    error_codes: tuple[ErrorCode, ...]
    error_example: Callable[[ErrorCode], Mapping[str, Any]]
    # Codes that every operation can answer.
    common_errors: tuple[str, ...]
    guide: tuple[Section, ...]
