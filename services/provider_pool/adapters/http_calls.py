"""The HTTP that adapters are lent: where credentials go, and what a call that broke off means for the money."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any, Final, Self, TypeAlias
from urllib.parse import urlencode, urljoin

import aiohttp
import msgspec
from prometheus_client import Counter, Histogram
from yarl import URL

from services.chassis.egress import Egress, EgressFailed, EgressRefused
from services.chassis.egress_answer import Answer
from services.chassis.egress_calls import CallFailed, DirectCalls, Streaming
from services.chassis.egress_connector import check_headers
from services.chassis.settings import Secret
from services.provider_pool.adapters.calls import ANSWER_LIMIT_BYTES, FormPart, HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AuthFailed,
    OutputUnavailable,
    ProtocolViolation,
    ProviderError,
    SubmissionUnknown,
    TransientFailure,
)

Origin: TypeAlias = tuple[str, str, int]
Headers: TypeAlias = Mapping[str, str | Secret]

_REDIRECTS_LIMIT: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({403, 404, 410})
_REFUSED: Final = "refused"

_CALLS: Final = Counter(
    "atelier_pool_provider_calls_total",
    "Calls to providers: to the account's own address or elsewhere, by how they ended.",
    ["provider", "place", "outcome"],
)
_SECONDS: Final = Histogram(
    "atelier_pool_provider_call_seconds",
    "Seconds from a call to the end of its answer, or to its failure.",
    ["provider", "place"],
    # From a poll answered nearby to an image that is drawn while we wait.
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)


class HttpCalls:
    """Reaches providers for all accounts of a process. `outputs` is the door to addresses that are not an account's own."""

    def __init__(self, direct: DirectCalls, outputs: Egress, *, output_limit_bytes: int) -> None:
        self._direct = direct
        self._outputs = outputs
        self._output_limit_bytes = output_limit_bytes

    def of(self, account: AccountAccess, addresses: Mapping[str, str]) -> AccountCalls:
        """Calls for one account. `addresses`: where its provider is, by the option that may say otherwise."""
        told = (account.options.get(option) or official for option, official in addresses.items())
        own = frozenset(origin for url in told if (origin := _origin(url)) is not None)
        return AccountCalls(account.provider, own, self._direct, self._outputs, self._output_limit_bytes)


class AccountCalls:
    """`Calls` for one account: only its own origins get its credentials."""

    def __init__(
        self,
        provider: str,
        own: frozenset[Origin],
        direct: DirectCalls,
        outputs: Egress,
        output_limit_bytes: int,
    ) -> None:
        self._provider = provider
        self._own = own
        self._direct = direct
        self._outputs = outputs
        self._output_limit_bytes = output_limit_bytes

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        query: Sequence[tuple[str, str]] = (),
        json: object | None = None,
        form: Sequence[FormPart] | None = None,
        file: Path | None = None,
        timeout_s: float,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        billable: bool = False,
    ) -> HttpAnswer:
        """See `Calls.send`. Raises AuthFailed for credentials that no header can carry."""
        is_own = _origin(url) in self._own
        told = _told_headers(headers or {}, is_own=is_own)
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query)
        if json is not None:
            told.setdefault("Content-Type", "application/json")
        with _Timed(self._provider, is_own=is_own) as timed, ExitStack() as open_files:
            data = await _body(open_files, json, form, file)
            try:
                answer = await self._sent(is_own, method, url, data, told, timeout_s, limit_bytes, billable)
            except CallFailed as failed:
                failure = _Failure(failed.rule, str(failed), left=failed.left)
            except EgressRefused as refused:
                failure = _Failure(_REFUSED, str(refused), left=True)
            except EgressFailed as failed:
                # Only what is never billed goes there.
                failure = _Failure(failed.rule, str(failed), left=True)
            else:
                timed.outcome = f"{answer.status // 100}xx"
                return HttpAnswer(answer.status, answer.headers, answer.body)
            error = failure.of_call(billable=billable)
            timed.outcome = "in_doubt" if isinstance(error, SubmissionUnknown) else failure.rule
            # Outside of the handler: what aiohttp raised carries the request.
            raise error

    @asynccontextmanager
    async def fetch(
        self, url: str, *, headers: Headers | None = None, timeout_s: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Calls.fetch`."""
        is_own = _origin(url) in self._own
        if not is_own and headers:
            raise OutputUnavailable("an output elsewhere that is said to need the account's credentials")
        deadline_s = time.monotonic() + timeout_s
        with _Timed(self._provider, is_own=is_own) as timed:
            for _ in range(_REDIRECTS_LIMIT):
                if not is_own:
                    async with self._elsewhere(url, deadline_s - time.monotonic(), timed) as chunks:
                        yield chunks
                    return
                async with self._here(url, headers or {}, deadline_s - time.monotonic(), timed) as found:
                    if not isinstance(found, str):
                        yield found
                        return
                url = found
                is_own = _origin(url) in self._own
            timed.outcome = "redirects"
            raise OutputUnavailable("too many redirects")

    async def _sent(
        self,
        is_own: bool,
        method: str,
        url: str,
        data: Any,
        headers: Mapping[str, str],
        timeout_s: float,
        limit_bytes: int,
        billable: bool,
    ) -> Answer:
        if not is_own:
            if billable:
                raise ProtocolViolation("a billable call to an address that is not the provider's own")
            return await self._outputs.send(
                method, url, data, headers, total_s=timeout_s, limit_bytes=limit_bytes
            )
        return await self._direct.call(
            method,
            url,
            headers=headers,
            data=data,
            total_s=timeout_s,
            limit_bytes=limit_bytes,
            alone=billable,
        )

    @asynccontextmanager
    async def _here(
        self, url: str, headers: Headers, timeout_s: float, timed: _Timed
    ) -> AsyncIterator[AsyncIterator[bytes] | str]:
        """The output's bytes, or the address that it is said to be at."""
        told = _told_headers(headers, is_own=True)
        with _output_failures(timed):
            async with self._direct.stream(url, headers=told, total_s=timeout_s) as arriving:
                location = arriving.headers.get("location", "")
                if arriving.status in _REDIRECTS and location:
                    yield urljoin(url, location)
                    return
                _judge(arriving)
                async with aclosing(_told_chunks(arriving.chunks(), timed)) as chunks:
                    yield chunks

    @asynccontextmanager
    async def _elsewhere(
        self, url: str, timeout_s: float, timed: _Timed
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        with _output_failures(timed):
            async with (
                self._outputs.fetch(url, total_s=timeout_s, limit_bytes=self._output_limit_bytes) as arriving,
                aclosing(_told_chunks(arriving.chunks(), timed)) as chunks,
            ):
                yield chunks


@dataclass(frozen=True, slots=True)
class _Failure:
    """A call without a whole answer. `left`: whether a byte of it may have arrived."""

    rule: str
    sentence: str
    left: bool

    def of_call(self, *, billable: bool) -> ProviderError:
        """What it means: in doubt where money may have been spent, else nothing happened that cannot be repeated."""
        if not self.left:
            return TransientFailure(f"nothing was sent: {self.sentence}")
        if billable:
            return SubmissionUnknown(f"no whole answer came: {self.sentence}", charged="maybe")
        if self.rule in ("too_large", _REFUSED):
            return ProtocolViolation(f"no whole answer came: {self.sentence}")
        return TransientFailure(f"no whole answer came: {self.sentence}")


class _Timed:
    """One call in the metrics; the host of an output never is."""

    def __init__(self, provider: str, *, is_own: bool) -> None:
        self._labels = (provider, "own" if is_own else "elsewhere")
        self._started_s = time.perf_counter()
        self.outcome = "abandoned"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _CALLS.labels(*self._labels, self.outcome).inc()
        _SECONDS.labels(*self._labels).observe(time.perf_counter() - self._started_s)


def _origin(url: str) -> Origin | None:
    """Scheme, host and port; None of what is no address for credentials: not https, unless it is this machine's own."""
    try:
        parts = URL(url, encoded=True)
        host, port = parts.raw_host, parts.port
    except ValueError:
        return None
    if not host or port is None or parts.raw_user is not None or parts.raw_password is not None:
        return None
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(host)):
        return None
    # Read once here and once where it is dialled, by one reader; what others read differently is refused.
    if not url.isascii() or any(sign in url for sign in "\\ \t\r\n"):
        return None
    return parts.scheme, host.lower(), port


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _told_headers(headers: Headers, *, is_own: bool) -> dict[str, str]:
    """Headers as they leave. Raises ProtocolViolation: credentials for somebody else; AuthFailed: no header can carry them."""
    if not is_own and any(isinstance(value, Secret) for value in headers.values()):
        raise ProtocolViolation("an address that is not the provider's own gets no credentials")
    told = {name: value.reveal() if isinstance(value, Secret) else value for name, value in headers.items()}
    try:
        check_headers(told)
    except ValueError:
        failure = AuthFailed("a credential or header that is not one plain line")
    else:
        return told
    raise failure


async def _body(
    open_files: ExitStack, json: object | None, form: Sequence[FormPart] | None, file: Path | None
) -> Any:
    """Anything that aiohttp sends. Raises TransientFailure for a file that cannot be read: nothing has left."""
    if json is not None:
        # As a file, and so piece by piece: some bodies hold whole pictures.
        return BytesIO(msgspec.json.encode(json))
    if file is not None:
        return await _opened(open_files, file)
    if form is None:
        return None
    data = aiohttp.FormData(default_to_multipart=True)
    for part in form:
        if part.path is None:
            data.add_field(part.name, part.text)
        else:
            content = await _opened(open_files, part.path)
            kind = part.content_type or "application/octet-stream"
            data.add_field(part.name, content, filename=part.file_name or "file", content_type=kind)
    return data


async def _opened(open_files: ExitStack, path: Path) -> IO[bytes]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        # Its name would tell where references lie.
        failure = TransientFailure(f"a file to send cannot be read: {error.strerror}")
    else:
        return open_files.enter_context(file)
    raise failure


def _judge(arriving: Streaming) -> None:
    """What the head of an output's answer says. Raises EgressFailed."""
    if arriving.status != 200:
        raise EgressFailed("status", status=arriving.status)
    if arriving.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise EgressFailed("encoding")


@contextmanager
def _output_failures(timed: _Timed) -> Iterator[None]:
    failure: ProviderError
    try:
        yield
    except (CallFailed, EgressRefused, EgressFailed) as failed:
        timed.outcome = failed.rule
        failure = _of_output(failed)
    else:
        return
    raise failure


def _of_output(failed: CallFailed | EgressRefused | EgressFailed) -> ProviderError:
    if isinstance(failed, EgressRefused):
        return OutputUnavailable(f"the output's address is not gone to: {failed}", charged="yes")
    if isinstance(failed, EgressFailed) and failed.status in _GONE:
        return OutputUnavailable(f"the output is gone: status {failed.status}", charged="yes")
    if failed.rule == "too_large":
        return OutputUnavailable("the output is larger than allowed", charged="yes")
    return TransientFailure(f"the output did not arrive: {failed}")


async def _told_chunks(chunks: AsyncIterator[bytes], timed: _Timed) -> AsyncGenerator[bytes]:
    with _output_failures(timed):
        async for chunk in chunks:
            yield chunk
        timed.outcome = "complete"
