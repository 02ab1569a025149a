"""Everything that an operator sets for the provider pool, read from the environment once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    one_of,
    setting,
    switch,
    web_origin,
    whole_number,
)
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.selection.pool import Policy

MIGRATIONS = Path(__file__).parent / "migrations"


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """What the offline commands need."""

    database_url: Secret = setting(
        "ATELIER_POOL_DATABASE_URL",
        default=Secret("sqlite:///var/provider_pool/provider_pool.db"),
        parse=Secret,
        help="the database: sqlite:///path/file.db, or postgresql://user@host/database",
    )
    log_level: str = setting(
        "ATELIER_POOL_LOG_LEVEL",
        default="info",
        parse=log_level,
        help="the least level that is logged: debug, info, warning or error",
    )


@dataclass(frozen=True, kw_only=True)
class VaultSettings(StorageSettings):
    """What it takes to seal credentials anew."""

    vault_key_ring_file: Path | None = setting(
        "ATELIER_POOL_VAULT_KEY_RING_FILE",
        default=None,
        parse=Path,
        help="the keys that seal credentials; made at the first start, and to be kept as safe as the accounts",
    )
    vault_key_ring: Secret | None = setting(
        "ATELIER_POOL_VAULT_KEY_RING",
        default=None,
        parse=Secret,
        help="the same keys in place of a file, with commas or line ends between them; nothing is made then",
    )

    def key_ring(self, *, make: bool = False) -> KeyRing:
        """The ring that is set. Raises SettingsError where none is, or two, or where it does not hold what it should.

        `make`: where its file is not there, make it.
        """
        file, text = self.vault_key_ring_file, self.vault_key_ring
        if text is not None and file is None:
            lines = text.reveal().replace(",", "\n").splitlines()
            return KeyRing.read(lines, "ATELIER_POOL_VAULT_KEY_RING")
        if file is not None and text is None:
            return KeyRing.create(file) if make and not file.exists() else KeyRing.load(file)
        raise SettingsError(
            ["one of ATELIER_POOL_VAULT_KEY_RING_FILE and ATELIER_POOL_VAULT_KEY_RING is needed"]
        )


@dataclass(frozen=True, kw_only=True)
class MediaBucketSettings:
    """Where media are kept, if not in a folder."""

    media_s3_endpoint: str = setting(
        "ATELIER_POOL_MEDIA_S3_ENDPOINT",
        default="",
        parse=store_endpoint,
        help="a store that speaks S3, such as https://s3.eu-central-1.amazonaws.com, for outputs; empty: the folder",
    )
    media_s3_region: str = setting(
        "ATELIER_POOL_MEDIA_S3_REGION",
        default="us-east-1",
        parse=region_name,
        help="the region that its requests are signed for",
    )
    media_s3_bucket: str = setting(
        "ATELIER_POOL_MEDIA_S3_BUCKET", default="", parse=bucket_name, help="the bucket; it is not made here"
    )
    media_s3_access_key: Secret | None = setting(
        "ATELIER_POOL_MEDIA_S3_ACCESS_KEY",
        default=None,
        parse=Secret,
        help="the name of the key to the bucket",
    )
    media_s3_access_key_file: Secret | None = setting(
        "ATELIER_POOL_MEDIA_S3_ACCESS_KEY_FILE",
        default=None,
        parse=file_secret,
        help="a file with the same, in its place",
    )
    media_s3_secret_key: Secret | None = setting(
        "ATELIER_POOL_MEDIA_S3_SECRET_KEY", default=None, parse=Secret, help="the key to the bucket"
    )
    media_s3_secret_key_file: Secret | None = setting(
        "ATELIER_POOL_MEDIA_S3_SECRET_KEY_FILE",
        default=None,
        parse=file_secret,
        help="a file with the same, in its place",
    )
    media_s3_path_style: bool = setting(
        "ATELIER_POOL_MEDIA_S3_PATH_STYLE",
        default=True,
        parse=switch,
        help="https://store/bucket/key; off: https://bucket.store/key",
    )
    media_s3_plaintext: bool = setting(
        "ATELIER_POOL_MEDIA_S3_PLAINTEXT",
        default=False,
        parse=switch,
        help="take an endpoint with http:// that is not on this machine; only inside a network that nobody reads",
    )

    def media_place(self) -> ObjectPlace | None:
        """The bucket that holds the media, None where the folder does. Raises SettingsError where half of it is set."""
        return object_place(
            "ATELIER_POOL_MEDIA_S3_",
            self.media_s3_endpoint,
            region=self.media_s3_region,
            bucket=self.media_s3_bucket,
            access_keys=(self.media_s3_access_key, self.media_s3_access_key_file),
            secret_keys=(self.media_s3_secret_key, self.media_s3_secret_key_file),
            path_style=self.media_s3_path_style,
            plaintext=self.media_s3_plaintext,
        )


@dataclass(frozen=True, kw_only=True)
class Settings(VaultSettings, EgressSettings, EgressCaSettings, MediaBucketSettings):
    """What the service needs."""

    grpc_listen: str = setting(
        "ATELIER_POOL_GRPC_LISTEN",
        default="127.0.0.1:0",
        parse=host_and_port,
        help="where the other services reach this one; port 0 takes any free one",
    )
    operations_listen: str = setting(
        "ATELIER_POOL_OPERATIONS_LISTEN",
        default="127.0.0.1:0",
        parse=host_and_port,
        help="where health, readiness and metrics are served",
    )
    media_folder: Path = setting(
        "ATELIER_POOL_MEDIA_FOLDER",
        parse=Path,
        help="where outputs are stored; with a bucket, where they wait until they are in it",
    )
    media_retention_s: int = setting(
        "ATELIER_POOL_MEDIA_RETENTION_S",
        default=7 * 86_400,
        parse=whole_number(60, 10 * 366 * 86_400),
        help="seconds after which outputs are removed",
    )
    media_limit_bytes: int = setting(
        "ATELIER_POOL_MEDIA_LIMIT_BYTES",
        default=1024**3,
        parse=whole_number(1024, 1024**4),
        help="an output larger than this is not taken",
    )
    attempt_retention_s: int = setting(
        "ATELIER_POOL_ATTEMPT_RETENTION_S",
        default=90 * 86_400,
        parse=whole_number(7 * 86_400, 10 * 366 * 86_400),
        help="seconds for which ended attempts are kept; longer than the oldest backup of jobs that may be restored",
    )
    references_folder: Path = setting(
        "ATELIER_POOL_REFERENCES_FOLDER",
        parse=Path,
        help="where reference images wait for their job, a day at most; replicas share it",
    )
    reference_workers: int = setting(
        "ATELIER_POOL_REFERENCE_WORKERS",
        default=0,
        parse=whole_number(0, 64),
        help="processes that check reference images at once; 0: one less than there are processors, at most eight",
    )
    results_folder: Path | None = setting(
        "ATELIER_POOL_RESULTS_FOLDER",
        default=None,
        parse=Path,
        help="where results that came in a provider's answer wait to be collected, a day at most; replicas share it; without it, `results` beside the references",
    )
    models_folder: Path | None = setting(
        "ATELIER_POOL_MODELS_FOLDER",
        default=None,
        parse=Path,
        help="files <provider>.toml with models that come to, or take the place of, those that providers come with",
    )
    sandbox_folder: Path = setting(
        "ATELIER_POOL_SANDBOX_FOLDER",
        parse=Path,
        help="where the sandbox provider keeps its orders and drawings",
    )
    sandbox_workers: int = setting(
        "ATELIER_POOL_SANDBOX_WORKERS",
        default=0,
        parse=whole_number(0, 64),
        help="processes that draw for the sandbox provider at once; 0: one less than there are processors",
    )
    selection_policy: Policy = setting(
        "ATELIER_POOL_SELECTION_POLICY",
        default=Policy.SPREAD,
        parse=lambda text: Policy(one_of(*Policy)(text)),
        help="how one of several accounts is chosen: " + ", ".join(Policy),
    )
    price_band: float = setting(
        "ATELIER_POOL_PRICE_BAND",
        default=0.1,
        parse=decimal_number(0, 10),
        help="how much dearer, as a share, an account may be than the cheapest that is ready and still be chosen by policy",
    )
    public_url: str = setting(
        "ATELIER_POOL_PUBLIC_URL",
        default="",
        parse=lambda text: web_origin(text) if text else "",
        help="where providers reach the gateway, for their webhooks; empty: they are not asked to send any",
    )
    drain_s: int = setting(
        "ATELIER_POOL_DRAIN_S",
        # The longest deadline of a submission is five minutes, and its outcome is recorded within a quarter more.
        default=315,
        parse=whole_number(0, 3600),
        help="seconds that a process which is asked to stop goes on sending what it has begun to send, and taking its "
        "answers: what is cut off then may be paid for nothing. One that sends nothing stops at once",
    )
    task_ceiling_s: int = setting(
        "ATELIER_POOL_TASK_CEILING_S",
        default=1800,
        parse=whole_number(60, 86_400),
        help="seconds after which any task is given up, whatever its model and past tasks say",
    )
    unknown_window_s: float | None = setting(
        "ATELIER_POOL_UNKNOWN_WINDOW_S",
        default=None,
        parse=decimal_number(0, 86_400),
        help="how long a submission in doubt is looked for, in place of each provider's own number",
    )
    resubmit_once: frozenset[str] = setting(
        "ATELIER_POOL_RESUBMIT_ONCE",
        default=frozenset(),
        parse=_names,
        help="providers, with commas, to which a job given up in doubt is sent once more, possibly paid twice",
    )
