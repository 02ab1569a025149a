"""How a fetch fails: one exception from a closed set of rules, and how everything foreign becomes one."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp

from services.chassis.egress_policy import EgressRefused

_SENTENCES: Final = {
    "busy": "Too many fetches are waiting for a place.",
    "closed": "The far side closed the connection before it answered.",
    "connect": "No connection could be opened in time.",
    "encoding": "The answer is compressed or encoded.",
    "framing": "The answer is not well-formed HTTP, or ends before its end.",
    "location": "A redirect names no usable place.",
    "not_found": "The name has no address.",
    "redirects": "There are too many redirects.",
    "resolve": "The name servers gave no usable answer.",
    "resolve_timeout": "The name servers did not answer in time.",
    "status": "The answer's status is not 200.",
    "timeout": "The fetch took too long.",
    "tls": "The TLS handshake failed.",
    "too_large": "The body is larger than allowed.",
    "unpinned": "An address was about to be dialled that had not been checked for this request.",
}
# Every value that `EgressFailed.rule` can have.
FAILURES: Final = frozenset(_SENTENCES)


class EgressFailed(Exception):
    """The network or the far side failed. `rule` is one of FAILURES; the text is a sentence for operators.

    Neither holds an address, a path, a query or a header. `status` is that of the answer where the rule is `status`.
    """

    def __init__(self, rule: str, *, status: int = 0) -> None:
        super().__init__(_SENTENCES[rule])
        self.rule = rule
        self.status = status


def failure_of(error: Exception) -> EgressRefused | EgressFailed:
    """What `error`, met while talking to the far side, is called here; ours are themselves.

    Raise it outside of the handler that caught `error`: exceptions of aiohttp carry the request, with its
    address and headers, and an exception raised inside a handler carries the one being handled.
    """
    if isinstance(error, EgressRefused | EgressFailed):
        return error
    return EgressFailed(_rule_of(error))


def _rule_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError | TimeoutError):
        return "connect"
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError | OSError):
        return "closed"
    # What is left comes from reading the answer: aiohttp's own errors, and whatever a parser let through.
    return "framing"
