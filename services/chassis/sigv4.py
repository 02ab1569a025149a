"""AWS Signature Version 4, as stores of objects want it: pure functions, which are given the time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from services.chassis.settings import Secret

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
"""Of a request without a body."""

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
# RFC 3986: all but unreserved characters is escaped; `quote` itself never escapes letters, digits and `_.-~`.
_UNRESERVED: Final = "-._~"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs, for which region. The keys print as `[redacted]`."""

    access_key: Secret
    secret_key: Secret
    region: str
    service: str = "s3"

    def headers(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        payload_sha256: str,
        at: datetime,
    ) -> dict[str, str]:
        """`headers`, which name the host, with those that sign them all.

        `path` is escaped as it is sent; `query` is not. `payload_sha256` is that of the body, in hexadecimal digits.
        """
        moment = _moment(at)
        signed = {name.lower(): text.strip() for name, text in headers.items()}
        signed |= {"x-amz-content-sha256": payload_sha256, "x-amz-date": moment}
        names = ";".join(sorted(signed))
        signature = self._signature(
            moment, _canonical(method, path, canonical_query(query), signed, payload_sha256)
        )
        credential = f"{self.access_key.reveal()}/{self._scope(moment)}"
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={credential},SignedHeaders={names},Signature={signature}"
        )
        return signed

    def presigned_query(
        self, method: str, host: str, path: str, query: Mapping[str, str], at: datetime, lifetime_s: int
    ) -> str:
        """The query of an address that needs no header to be believed, for so many seconds from `at`."""
        moment = _moment(at)
        whole = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.access_key.reveal()}/{self._scope(moment)}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(lifetime_s),
            "X-Amz-SignedHeaders": "host",
        }
        text = canonical_query(whole)
        signature = self._signature(
            moment, _canonical(method, path, text, {"host": host}, "UNSIGNED-PAYLOAD")
        )
        return f"{text}&X-Amz-Signature={signature}"

    def _scope(self, moment: str) -> str:
        return f"{moment[:8]}/{self.region}/{self.service}/aws4_request"

    def _signature(self, moment: str, canonical: str) -> str:
        key = b"AWS4" + self.secret_key.reveal().encode()
        for part in self._scope(moment).split("/"):
            key = hmac.digest(key, part.encode(), hashlib.sha256)
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        told = f"{_ALGORITHM}\n{moment}\n{self._scope(moment)}\n{digest}"
        return hmac.new(key, told.encode(), hashlib.sha256).hexdigest()


def canonical_query(query: Mapping[str, str]) -> str:
    """A query, escaped and sorted as it is signed; sent like that, it cannot be read in two ways."""
    pairs = sorted(
        (quote(name, safe=_UNRESERVED), quote(text, safe=_UNRESERVED)) for name, text in query.items()
    )
    return "&".join(f"{name}={text}" for name, text in pairs)


def escaped_path(path: str) -> str:
    """A path as it is signed and sent: escaped once, its slashes left alone."""
    return quote(path, safe="/" + _UNRESERVED)


def _canonical(method: str, path: str, query: str, headers: Mapping[str, str], payload_sha256: str) -> str:
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    return "\n".join((method, path, query, lines, ";".join(sorted(headers)), payload_sha256))


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
