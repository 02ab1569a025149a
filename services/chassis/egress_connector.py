"""One request to addresses that were checked: nothing else is dialled, nothing is kept, nothing is followed."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.chassis.egress_failures import EgressFailed, failure_of
from services.chassis.egress_listening import BoundedListener
from services.chassis.egress_policy import EgressPolicy, EgressRefused
from services.chassis.egress_url import Target
from services.chassis.settings import SettingsError

# From the first packet to the end of the TLS handshake, over all addresses of a host.
_CONNECT_LIMIT_S: Final = 3.0
# Says who asks, so that an operator of the far side can tell; no version, which would tell what we are open to.
_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "Atelier/1 (+reference fetch)",
}
# RFC 9110: a token, and visible ASCII with blanks inside. Nothing else leaves, so no value can begin a line of its own.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4094}[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class Pinned:
    """Where one request may go: its target, and the addresses that passed the policy.

    `refusals` is what was about to be dialled in spite of that, and was not.
    """

    target: Target
    addresses: tuple[IPv4Address | IPv6Address, ...]
    policy: EgressPolicy
    refusals: list[EgressRefused | EgressFailed] = field(default_factory=list)

    def socket_for(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for the address that is about to be dialled. The check that counts: nothing is past it."""
        family, kind, protocol, _, destination = info
        try:
            self._check(ip_address(destination[0]), int(destination[1]))
        except (EgressRefused, EgressFailed) as refusal:
            # Where there are several addresses, what dials them keeps an error of this kind to itself.
            self.refusals.append(refusal)
            raise
        return socket.socket(family, kind, protocol)

    def _check(self, address: IPv4Address | IPv6Address, port: int) -> None:
        if address not in self.addresses or port != self.target.port:
            raise EgressFailed("unpinned")
        self.policy.check_address(address, port, self.target.scheme)


class _PinnedResolver(AbstractResolver):
    """Answers the checked addresses, whatever is asked: the socket factory refuses the rest."""

    def __init__(self, pinned: Pinned) -> None:
        self._pinned = pinned

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._pinned.addresses
        ]

    async def close(self) -> None:
        """There is nothing to close."""


class _Connector(aiohttp.TCPConnector):
    """Listens on its connections no longer than it should."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # There is no public way to say this. The evil server's floods fail if aiohttp ever stops looking here.
        self._factory = partial(BoundedListener, loop=self._loop)  # type: ignore[assignment]  # partial is invariant


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, trusting the system and `ca_file`. Reads files: call it in a thread.

    Raises SettingsError when `ca_file` holds no certificates.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as fault:
            raise SettingsError(
                [
                    f"ATELIER_EGRESS_CA_FILE names no usable certificates: {ca_file} ({fault.__class__.__name__})"
                ]
            ) from None
    return context


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ValueError for a header that is no plain line."""
    if not all(
        _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(text) for name, text in headers.items()
    ):
        raise ValueError("a header's name or value is not plain, visible ASCII")


@asynccontextmanager
async def answer_to_get(pinned: Pinned, tls: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to one GET, its body unread, its connection gone on leaving. Raises EgressRefused, EgressFailed.

    Redirects are answers like any other. Reading the body raises what aiohttp raises: see `failure_of`.
    """
    async with _session(pinned, tls) as session:
        response = await _asked(session, pinned, "GET")
        try:
            yield response
        finally:
            response.close()


@asynccontextmanager
async def answer_to(
    method: str, pinned: Pinned, tls: ssl.SSLContext, body: Any, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to one request with a body, in all else like `answer_to_get`.

    `body` is anything that aiohttp sends. Raises ValueError for a header that is no plain line.
    """
    check_headers(headers)
    async with _session(pinned, tls) as session:
        response = await _asked(session, pinned, method, data=body, headers=dict(headers))
        try:
            yield response
        finally:
            response.close()


async def _asked(
    session: aiohttp.ClientSession, pinned: Pinned, method: str, **more: Any
) -> aiohttp.ClientResponse:
    try:
        return await session.request(method, _url(pinned.target), allow_redirects=False, **more)
    except Exception as error:  # whatever it is, it carries the request, and must not leave
        failure = pinned.refusals[0] if pinned.refusals else failure_of(error)
    raise failure


def _url(target: Target) -> URL:
    # Taken as it is: a second parser that changed anything would send the request somewhere unchecked.
    url = URL(target.url(), encoded=True)
    if (url.scheme, url.raw_host, url.port, url.raw_path_qs) != (
        target.scheme,
        target.host,
        target.port,
        target.path_and_query,
    ):
        raise EgressFailed("unpinned")
    return url


def _session(pinned: Pinned, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = _Connector(
        resolver=_PinnedResolver(pinned),
        socket_factory=pinned.socket_for,
        ssl=tls,
        use_dns_cache=False,
        force_close=True,
        limit=1,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_LIMIT_S, sock_connect=_CONNECT_LIMIT_S),
        trust_env=False,
        auto_decompress=False,
        middlewares=(once,),
    )


async def once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from asking a second time when a connection is closed early: the far side counts requests."""
    try:
        return await handler(request)
    except Exception as error:  # aiohttp repeats on some of its own errors, never on ours
        failure = failure_of(error)
    raise failure
