"""Checks a webhook as its receiver would: who asks why a signature is refused is told, in plain words."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.chassis.settings import Secret
from services.jobs.webhooks.signatures import key_of, legacy_signature, standard_signature

TOLERANCE_S: Final = 300
"""Standard Webhooks' five minutes, to both sides."""

_STANDARD: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
# A storefront's own: `X-<Name>-Signature: t=<seconds>,v1=<hex>`.
_OWN_HEADER: Final = re.compile(r"x-[a-z0-9-]+-signature")
_OWN_VALUE: Final = re.compile(r"t=([0-9]{1,12})((?:,v1=[0-9a-f]{64})+)")
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one signature is worth: good, or what is wrong with it."""

    header: str
    problem: str

    @property
    def good(self) -> bool:
        return not self.problem


def read_headers(text: str) -> dict[str, str]:
    """Headers as `Name: value` lines, by lower-case name; a request or status line above them is passed over."""
    headers: dict[str, str] = {}
    for line in text.splitlines():
        # What `curl -v` puts in front of what it sends and gets.
        name, colon, value = line.lstrip("<> ").partition(":")
        if colon and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            headers[name.lower()] = value.strip()
    return headers


def check(secret: Secret, headers: Mapping[str, str], body: bytes, now_s: int) -> list[Finding]:
    """A finding for each signature there is, the standard one first; it is always expected."""
    own = sorted(name for name in headers if _OWN_HEADER.fullmatch(name))
    return [
        Finding("webhook-signature", _standard_problem(secret, headers, body, now_s)),
        *(Finding(name, _own_problem(secret, headers[name], body, now_s)) for name in own),
    ]


def _standard_problem(secret: Secret, headers: Mapping[str, str], body: bytes, now_s: int) -> str:
    missing = [name for name in _STANDARD if not headers.get(name)]
    if missing:
        return f"there is no header {', '.join(missing)}"
    webhook_id, timestamp, given = (headers[name] for name in _STANDARD)
    try:
        key_of(secret)
    except ValueError as fault:
        return f"the secret cannot be used: {fault}"
    if not _SECONDS.fullmatch(timestamp):
        return "webhook-timestamp is not a whole number of seconds"
    signatures = [one for one in given.split(" ") if one.startswith("v1,")]
    if not signatures:
        return "webhook-signature holds no signature that begins with v1,"
    expected = standard_signature(secret, webhook_id, int(timestamp), body)
    if not _is_among(expected, signatures):
        return _MISMATCH
    return _age_problem(int(timestamp), now_s)


def _own_problem(secret: Secret, value: str, body: bytes, now_s: int) -> str:
    match = _OWN_VALUE.fullmatch(value)
    if match is None:
        return "it is not t=<seconds>,v1=<64 hexadecimal digits>"
    expected = legacy_signature(secret, int(match[1]), body)
    if not _is_among(expected, match[2].removeprefix(",v1=").split(",v1=")):
        return _MISMATCH
    return _age_problem(int(match[1]), now_s)


_MISMATCH: Final = (
    "no signature fits: the secret is another one, or the body is not the bytes that were sent "
    "(check that it was neither parsed and written again, nor given a line end)"
)


def _is_among(expected: str, given: list[str]) -> bool:
    # All of them are compared, and each in constant time: how long it takes tells nothing.
    fits = [hmac.compare_digest(expected.encode(), one.encode("utf-8", "replace")) for one in given]
    return any(fits)


def _age_problem(timestamp_s: int, now_s: int) -> str:
    age_s = now_s - timestamp_s
    if abs(age_s) <= TOLERANCE_S:
        return ""
    told = f"{age_s} s ago" if age_s > 0 else f"{-age_s} s in the future"
    return f"the signature fits, but it was made {told}: a receiver takes {TOLERANCE_S} s"
