"""What a public contract is made of, and what its handlers are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import msgspec
from aiohttp import web

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.gateway.attempts import Attempts
from services.gateway.auth import Caller, bearer_of
from services.gateway.backends import Backends
from services.gateway.inline_uploads import Body
from services.gateway.media import Link, MediaLinks
from services.gateway.price_lists import PriceLists
from services.gateway.reference_media import ReferenceMedia
from services.gateway.webhook_forms import WebhookForms
from services.gen.jobs.v1 import jobs_pb2

# 20 MB of image in base64, plus the rest.
BODY_LIMIT_BYTES: Final = 28 * 1024 * 1024
# The contracts' "1 MiB", beside inline images: a prompt of 4,000 characters needs 16 KiB at most.
REST_LIMIT_BYTES: Final = 1024 * 1024
# Intake holds credits and asks for an account: seconds under load, and a client's own time-out is usually 30 s.
CREATE_DEADLINE_S: Final = 15.0
READ_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class House:
    """What every handler may use: the other services, signed media links, what takes references in, and more."""

    backends: Backends
    media: MediaLinks
    references: ReferenceMedia
    webhook_forms: WebhookForms
    prices: PriceLists
    attempts: Attempts
    clock: Clock


class Call(msgspec.Struct, frozen=True):
    """One request with its whole body. caller: NOBODY on a public route."""

    request: web.Request
    caller: Caller
    body: Body
    house: House
    contract: Contract
    client_address: IPv4Address | IPv6Address

    def link(self, object_key: str, media_expires_at_ms: int) -> Link:
        """A link to one object of the caller's, which begins as its storefront's do. Raises MEDIA_GONE."""
        return self.house.media.link(self.contract.name, object_key, media_expires_at_ms)


NOBODY: Final = Caller("", "", False, "", 0, 0, 0)


class Answer(msgspec.Struct, frozen=True):
    """What a handler answers: a status, a body to be encoded as JSON (None: no body), and extra headers."""

    status: int
    body: msgspec.Struct | Sequence[msgspec.Struct] | None
    headers: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reply:
    """One documented success of an operation. body: a struct or a list of such; None where there is no body."""

    status: int
    description: str
    body: Any
    examples: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PathPart:
    """A part of a path that varies."""

    description: str
    example: str | int


@dataclass(frozen=True, slots=True)
class Operation:
    """What the documentation says of a route, beside its types.

    errors: the codes of the contract's error table that this operation can answer, apart from the common ones.
    query: what the query string is read into. path: by its name in the route's path, every part that varies.
    """

    summary: str
    description: str
    reply: Reply
    request: type[msgspec.Struct] | None = None
    example: Mapping[str, Any] | None = None
    # More requests, by name, beside the plain one above.
    more_examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    query: type[msgspec.Struct] | None = None
    path: Mapping[str, PathPart] = field(default_factory=dict)


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
    # Has a body without images, of at most REST_LIMIT_BYTES; with `creates`: no images in that body.
    reads_body: bool = False
    # The body is a form, not JSON.
    form: bool = False
    # Nobody needs to be known: signing up, logging in.
    public: bool = False
    # Exists only on host names that are bound to the contract's storefront, and not in its documentation.
    bound: bool = False
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


WEBHOOKS: Final = "webhooks"
"""The anchor of the chapter that is shown with programs that receive webhooks."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """How a job that was made on the documentation page is followed there. Answers are looked into by dotted names.

    job_id: where the create request's answer has it; parameter: what other requests call it; status: where the answer
    of `status_path` has the word, and which words end it; result_path: where the media are, if not there too.
    """

    job_id: str
    parameter: str
    status_path: str
    status: str
    ended: tuple[str, ...]
    result_path: str = ""


@dataclass(frozen=True, slots=True)
class Contract:
    """One public JSON contract. Adding one is adding one module and one line in `contracts/__init__.py`.

    paths: prefixes under which everything that goes wrong is spelled in this contract's shape.
    exact_paths: paths that are this contract's without what is below them.
    key_prefixes: how this contract's API keys begin; they decide where two contracts claim one path.
    token_prefixes: how other credentials begin that it takes.
    credentials: finds the credential in a request. Raises API_KEY_MISSING or INVALID_API_KEY.
    key_header: a header that `credentials` also finds an API key in, for the documentation.
    key_required: whether a create request must carry an Idempotency-Key.
    webhook_form: how the body of its webhooks is spelled.
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
    webhook_form: jobs_pb2.WebhookForm
    tracking: Tracking
    exact_paths: tuple[str, ...] = ()
    token_prefixes: tuple[str, ...] = ()
    credentials: Callable[[web.BaseRequest], str] = bearer_of
    key_header: str = ""
    key_required: bool = False

    @property
    def credential_prefixes(self) -> tuple[str, ...]:
        """How any credential of this contract begins."""
        return self.key_prefixes + self.token_prefixes

    def claim_on(self, path: str) -> int:
        """How specific this contract's claim on a path is: 0 for none, else the length of what it claims."""
        if path in self.exact_paths:
            return len(path)
        return max(
            (len(each) for each in self.paths if path == each or path.startswith(each + "/")), default=0
        )
