"""The gateway's settings, from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from services.chassis.egress_policy import EgressCaSettings, EgressSettings
from services.chassis.object_place import (
    ObjectPlace,
    bucket_name,
    object_place,
    region_name,
    store_endpoint,
)
from services.chassis.settings import (
    Secret,
    SettingsError,
    decimal_number,
    file_secret,
    host_and_port,
    log_level,
    setting,
    switch,
    web_origin,
    whole_number,
)
from services.gateway.client_address import networks

# Without a port: a host is bound on all of them.
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def origins(text: str) -> tuple[str, ...]:
    """A parser for web origins separated by commas, or `*` for any."""
    if text == "*":
        return ("*",)
    return tuple(web_origin(origin.strip()) for origin in text.split(",") if origin.strip())


def bound_hosts(text: str) -> tuple[tuple[str, str], ...]:
    """A parser for `storefront=host` pairs separated by commas: hosts with their storefronts."""
    hosts: dict[str, str] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        storefront, _, host = (part.strip() for part in pair.partition("="))
        if not storefront or not _HOST.fullmatch(host):
            raise ValueError(f"must be pairs such as leonardo=api.example.com, not {pair!r}")
        if hosts.setdefault(host.lower(), storefront) != storefront:
            raise ValueError(f"binds {host} to two storefronts")
    return tuple(hosts.items())


def folder(text: str) -> Path:
    """A parser for a folder that exists."""
    path = Path(text)
    if not path.is_dir():
        raise ValueError(f"names a folder that does not exist: {text}")
    return path.resolve()


@dataclass(frozen=True, kw_only=True)
class MediaBucketSettings:
    """Where media are kept, if not in a folder."""

    media_s3_endpoint: str = setting(
        "ATELIER_GATEWAY_MEDIA_S3_ENDPOINT",
        default="",
        parse=store_endpoint,
        help="the store that speaks S3 in which the pool keeps media, such as https://s3.eu-central-1.amazonaws.com; empty: the folder",
    )
    media_s3_region: str = setting(
        "ATELIER_GATEWAY_MEDIA_S3_REGION",
        default="us-east-1",
        parse=region_name,
        help="the region that its requests are signed for",
    )
    media_s3_bucket: str = setting(
        "ATELIER_GATEWAY_MEDIA_S3_BUCKET",
        default="",
        parse=bucket_name,
        help="the bucket; it is not made here",
    )
    media_s3_access_key: Secret | None = setting(
        "ATELIER_GATEWAY_MEDIA_S3_ACCESS_KEY",
        default=None,
        parse=Secret,
        help="the name of the key to the bucket",
    )
    media_s3_access_key_file: Secret | None = setting(
        "ATELIER_GATEWAY_MEDIA_S3_ACCESS_KEY_FILE",
        default=None,
        parse=file_secret,
        help="a file with the same, in its place",
    )
    media_s3_secret_key: Secret | None = setting(
        "ATELIER_GATEWAY_MEDIA_S3_SECRET_KEY", default=None, parse=Secret, help="the key to the bucket"
    )
    media_s3_secret_key_file: Secret | None = setting(
        "ATELIER_GATEWAY_MEDIA_S3_SECRET_KEY_FILE",
        default=None,
        parse=file_secret,
        help="a file with the same, in its place",
    )
    media_s3_path_style: bool = setting(
        "ATELIER_GATEWAY_MEDIA_S3_PATH_STYLE",
        default=True,
        parse=switch,
        help="https://store/bucket/key; off: https://bucket.store/key",
    )
    media_s3_plaintext: bool = setting(
        "ATELIER_GATEWAY_MEDIA_S3_PLAINTEXT",
        default=False,
        parse=switch,
        help="take an endpoint with http:// that is not on this machine; only inside a network that nobody reads",
    )
    media_s3_redirect: bool = setting(
        "ATELIER_GATEWAY_MEDIA_S3_REDIRECT",
        default=False,
        parse=switch,
        help="send whoever opens a link on to the store, with an address that works for a minute, instead of passing media on",
    )

    def media_place(self) -> ObjectPlace | None:
        """The bucket that holds the media, None where the folder does. Raises SettingsError where half of it is set."""
        return object_place(
            "ATELIER_GATEWAY_MEDIA_S3_",
            self.media_s3_endpoint,
            region=self.media_s3_region,
            bucket=self.media_s3_bucket,
            access_keys=(self.media_s3_access_key, self.media_s3_access_key_file),
            secret_keys=(self.media_s3_secret_key, self.media_s3_secret_key_file),
            path_style=self.media_s3_path_style,
            plaintext=self.media_s3_plaintext,
        )


@dataclass(frozen=True, kw_only=True)
class Settings(EgressSettings, EgressCaSettings, MediaBucketSettings):
    """One gateway process."""

    billing_address: str = setting(
        "ATELIER_GATEWAY_BILLING_ADDRESS", help="host:port or unix:/path of billing"
    )
    jobs_address: str = setting("ATELIER_GATEWAY_JOBS_ADDRESS", help="host:port or unix:/path of jobs")
    pool_address: str = setting(
        "ATELIER_GATEWAY_POOL_ADDRESS",
        help="host:port or unix:/path of the provider pool; without it only inline reference images are refused",
    )
    media_folder: Path | None = setting(
        "ATELIER_GATEWAY_MEDIA_FOLDER",
        default=None,
        help="folder of the media store, read only; needed where media are in no bucket",
        parse=folder,
    )
    media_signing_keys: Secret = setting(
        "ATELIER_GATEWAY_MEDIA_SIGNING_KEY_FILE",
        help="file with one signing key a line, at least 32 characters each; the first signs, all verify",
        parse=file_secret,
    )
    listen: str = setting(
        "ATELIER_GATEWAY_LISTEN",
        default="127.0.0.1:8080",
        help="public address; port 0 is any free one",
        parse=host_and_port,
    )
    operations_listen: str = setting(
        "ATELIER_GATEWAY_OPERATIONS_LISTEN",
        default="127.0.0.1:0",
        help="address of /healthz, /readyz and /metrics; not for the public",
        parse=host_and_port,
    )
    public_url: str = setting(
        "ATELIER_GATEWAY_PUBLIC_URL",
        default="",
        help="how customers reach this service, for media links and documentation; default http://LISTEN",
        parse=web_origin,
    )
    media_link_hours: float = setting(
        "ATELIER_GATEWAY_MEDIA_LINK_HOURS",
        default=24.0,
        help="how long a media link works, at most until the media leave the store",
        parse=decimal_number(0.01, 168),
    )
    cors_origins: tuple[str, ...] = setting(
        "ATELIER_GATEWAY_CORS_ORIGINS",
        default=(),
        help="web origins whose pages may call the API, separated by commas, or *; default none",
        parse=origins,
    )
    storefront_hosts: tuple[tuple[str, str], ...] = setting(
        "ATELIER_GATEWAY_STOREFRONT_HOSTS",
        default=(),
        help="hosts that serve one storefront alone, as storefront=host pairs separated by commas; its links to media and "
        "its documentation name the first",
        parse=bound_hosts,
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(
        "ATELIER_GATEWAY_TRUSTED_PROXIES",
        default=(),
        help="networks of reverse proxies whose X-Forwarded-For is believed, separated by commas; default none",
        parse=networks,
    )
    requests_in_flight: int = setting(
        "ATELIER_GATEWAY_REQUESTS_IN_FLIGHT",
        default=2_000,
        help="requests served at once; more are answered 503",
        parse=whole_number(1, 100_000),
    )
    inline_uploads: int = setting(
        "ATELIER_GATEWAY_INLINE_UPLOADS",
        default=8,
        help="requests that may hold an inline image in memory at once, about 30 MB each; two of one customer at most",
        parse=whole_number(1, 1_000),
    )
    reuse_port: bool = setting(
        "ATELIER_GATEWAY_REUSE_PORT",
        default=False,
        help="share the port with other gateway processes of this machine",
        parse=switch,
    )
    access_log: bool = setting(
        "ATELIER_GATEWAY_ACCESS_LOG",
        default=True,
        help="one JSON line a request on standard error",
        parse=switch,
    )
    log_level: str = setting(
        "ATELIER_GATEWAY_LOG_LEVEL",
        default="info",
        help="debug, info, warning or error",
        parse=log_level,
    )

    def __post_init__(self) -> None:
        """Raises SettingsError where media have no place, or two halves of one."""
        if self.media_place() is None and self.media_folder is None:
            raise SettingsError(
                ["ATELIER_GATEWAY_MEDIA_FOLDER is missing, or ATELIER_GATEWAY_MEDIA_S3_ENDPOINT"]
            )
