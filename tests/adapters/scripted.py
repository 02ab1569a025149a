"""Providers whose answers a test writes down beforehand, and what the adapter sent them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.settings import Secret
from services.provider_pool.adapters.calls import ANSWER_LIMIT_BYTES, FormPart, HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Context,
    OutputUnavailable,
    ProviderError,
    ReferenceFile,
    ReferenceRole,
    Strength,
)
from tests.clocks import HandClock


@dataclass(frozen=True)
class Sent:
    """One call of the adapter's, with its credentials in the open. `file` is the content of what was sent whole."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: tuple[tuple[str, str], ...] = ()
    json: object = None
    form: tuple[FormPart, ...] = ()
    file: bytes | None = None
    timeout_s: float = 0.0
    billable: bool = False


class ScriptedCalls:
    """Answers in the order in which they were written down; an error of the script is raised instead."""

    def __init__(self, *answers: HttpAnswer | ProviderError) -> None:
        self.sent: list[Sent] = []
        self._answers = list(answers)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | Secret] | None = None,
        query: Sequence[tuple[str, str]] = (),
        json: object | None = None,
        form: Sequence[FormPart] | None = None,
        file: Path | None = None,
        timeout_s: float,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        billable: bool = False,
    ) -> HttpAnswer:
        content = None if file is None else file.read_bytes()
        told = _open(headers)
        parts = tuple(form or ())
        self.sent.append(Sent(method, url, told, tuple(query), json, parts, content, timeout_s, billable))
        return self._next()

    @contextlib.asynccontextmanager
    async def fetch(
        self, url: str, *, headers: Mapping[str, str | Secret] | None = None, timeout_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.sent.append(Sent("GET", url, _open(headers), timeout_s=timeout_s))
        answer = self._next()
        if answer.status != 200:
            raise OutputUnavailable(f"status {answer.status}")
        yield _once(answer.body)

    @property
    def only(self) -> Sent:
        """The one call that was made."""
        (sent,) = self.sent
        return sent

    def left(self) -> tuple[HttpAnswer | ProviderError, ...]:
        """What has not been asked for yet."""
        return tuple(self._answers)

    def _next(self) -> HttpAnswer:
        assert self._answers, f"a call that the script does not have: {self.sent[-1].url}"
        answer = self._answers.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return answer


class KeptResults:
    """Results in memory: names to contents by attempt, found once they are sealed."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, bytes]] = {}
        self.sealed: set[str] = set()

    async def keep(self, reference: str, name: str, content: bytes) -> str:
        self.kept.setdefault(reference, {})[name] = content
        return f"{reference}/{name}"

    async def found(self, reference: str) -> Sequence[str]:
        if reference not in self.sealed:
            return []
        return [f"{reference}/{name}" for name in sorted(self.kept.get(reference, {}))]

    async def seal(self, reference: str) -> None:
        self.sealed.add(reference)

    @contextlib.asynccontextmanager
    async def open(self, location: str) -> AsyncIterator[AsyncIterator[bytes]]:
        reference, _, name = location.rpartition("/")
        if name not in self.kept.get(reference, {}):
            raise OutputUnavailable("gone")
        yield _once(self.kept[reference][name])

    async def forget(self, reference: str) -> None:
        self.kept.pop(reference, None)
        self.sealed.discard(reference)


def answer(body: object = None, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    """An answer whose body is JSON, or what it is if it is bytes already."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return HttpAnswer(status, dict(headers or {}), content)


def context(
    calls: ScriptedCalls,
    *,
    results: KeptResults | None = None,
    callback_url: str = "",
    clock: HandClock | None = None,
) -> Context:
    """What the pool lends, with scripted calls."""
    return Context(clock or HandClock(), calls, results or KeptResults(), callback_url)


def account(
    provider: str, secrets: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
) -> AccountAccess:
    """An account whose key is `key-1`, unless other secrets are given."""
    given = {"api_key": "key-1"} if secrets is None else secrets
    return AccountAccess("acct_1", provider, {k: Secret(v) for k, v in given.items()}, dict(options or {}))


def image_file(
    folder: Path,
    name: str = "reference.png",
    *,
    role: ReferenceRole = ReferenceRole.IMAGE,
    content_type: str = "image/png",
    width: int = 1024,
    height: int = 1024,
    strength: Strength = Strength.MID,
    duration_ms: int = 0,
    content: bytes = b"bytes of a reference",
) -> ReferenceFile:
    """A file in `folder` as the pool hands it to an adapter; of other media too, by role and type."""
    path = folder / name
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return ReferenceFile(path, content_type, len(content), digest, width, height, strength, role, duration_ms)


def _open(headers: Mapping[str, str | Secret] | None) -> dict[str, str]:
    return {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in (headers or {}).items()
    }


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
