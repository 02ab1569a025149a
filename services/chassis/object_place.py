"""Where a store of objects is, and who we are there: from settings to addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from services.chassis.settings import Secret, SettingsError
from services.chassis.sigv4 import Signer, canonical_query, escaped_path

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_USUAL_PORTS: Final = {"https": 443, "http": 80}


def store_endpoint(text: str) -> str:
    """A parser for the origin of a store: `https://host[:port]`, or `http://`, and nothing after it."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be an address such as https://s3.example.com") from None
    beyond = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in _USUAL_PORTS or not parts.hostname or beyond:
        raise ValueError("must be an address such as https://s3.example.com, with nothing behind it")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # As HTTP clients write it in the Host header, which is signed.
    return f"{parts.scheme}://{host}" + (f":{port}" if port and port != _USUAL_PORTS[parts.scheme] else "")


def bucket_name(text: str) -> str:
    """A parser for a bucket's name."""
    if not _BUCKET.fullmatch(text) or ".." in text:
        raise ValueError(f"must be the name of a bucket, not {text!r}")
    return text


def region_name(text: str) -> str:
    """A parser for a region's name."""
    if not _REGION.fullmatch(text):
        raise ValueError(f"must be the name of a region, such as eu-central-1, not {text!r}")
    return text


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """One bucket at one store. `endpoint` is an origin, as `store_endpoint` gives it."""

    endpoint: str
    region: str
    bucket: str
    access_key: Secret = field(repr=False)
    secret_key: Secret = field(repr=False)
    path_style: bool = True

    @property
    def signer(self) -> Signer:
        """What signs requests to it."""
        return Signer(self.access_key, self.secret_key, self.region)

    @property
    def host(self) -> str:
        """The Host header of its requests."""
        own = self.endpoint.partition("://")[2]
        return own if self.path_style else f"{self.bucket}.{own}"

    def path(self, key: str = "") -> str:
        """The path of an object, or of the bucket itself, as it is sent."""
        return escaped_path(f"/{self.bucket}/{key}" if self.path_style and key else self._bucket_path(key))

    def address(self, key: str, query: str) -> str:
        """The whole address of a request; `query` is escaped already."""
        scheme = self.endpoint.partition("://")[0]
        return f"{scheme}://{self.host}{self.path(key)}" + (f"?{query}" if query else "")

    def presigned(
        self, method: str, key: str, at: datetime, lifetime_s: int, answer_headers: dict[str, str]
    ) -> str:
        """An address that opens this object to whoever holds it, for so many seconds from `at`, as the store sees time.

        answer_headers: what the store is to answer with, such as `response-content-type`.
        """
        query = self.signer.presigned_query(method, self.host, self.path(key), answer_headers, at, lifetime_s)
        return self.address(key, query)

    def signed(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        headers: dict[str, str],
        payload_sha256: str,
        at: datetime,
    ) -> tuple[str, dict[str, str]]:
        """The address and the headers of one request."""
        signed = self.signer.headers(
            method, self.path(key), query, {"host": self.host, **headers}, payload_sha256, at
        )
        return self.address(key, canonical_query(query)), signed

    def _bucket_path(self, key: str) -> str:
        return f"/{self.bucket}" if self.path_style else f"/{key}"


def object_place(
    prefix: str,
    endpoint: str,
    *,
    region: str,
    bucket: str,
    access_keys: tuple[Secret | None, Secret | None],
    secret_keys: tuple[Secret | None, Secret | None],
    path_style: bool,
    plaintext: bool,
) -> ObjectPlace | None:
    """The place that settings describe, None without an endpoint. Raises SettingsError with everything that is wrong.

    `prefix` begins the names of these settings; keys come from a variable, or from a file.
    """
    if not endpoint:
        return None
    faults = []
    if not bucket:
        faults.append(f"{prefix}BUCKET is missing: a store of objects is used by its bucket")
    for name, pair in (("ACCESS_KEY", access_keys), ("SECRET_KEY", secret_keys)):
        if sum(each is not None for each in pair) != 1:
            faults.append(f"one of {prefix}{name} and {prefix}{name}_FILE is needed")
    if endpoint.startswith("http://") and not plaintext and not _is_loopback(endpoint):
        faults.append(f"{prefix}ENDPOINT must begin with https://, or {prefix}PLAINTEXT be on")
    if faults:
        raise SettingsError(faults)
    access_key, secret_key = access_keys[0] or access_keys[1], secret_keys[0] or secret_keys[1]
    assert access_key is not None
    assert secret_key is not None
    return ObjectPlace(endpoint, region, bucket, access_key, secret_key, path_style)


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
