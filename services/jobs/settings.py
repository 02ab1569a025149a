"""What the jobs service reads from its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.chassis.egress_policy import EgressCaSettings, EgressSettings
from services.chassis.settings import (
    Secret,
    SettingsError,
    decimal_number,
    file_secret,
    host_and_port,
    log_level,
    setting,
    web_origin,
    whole_number,
)
from services.jobs.schedule import Timing
from services.jobs.webhooks import schedule as webhooks

_DAY_S = 24 * 3600
MIGRATIONS = Path(__file__).parent / "migrations"


_seconds = decimal_number(0.01, 366 * _DAY_S)
# More tries than that are a life's work.
_RETRIES_LIMIT = 100


def _waits(text: str) -> tuple[float, ...]:
    waits = tuple(_seconds(one) for one in text.split(",") if one.strip())
    if not 1 <= len(waits) <= _RETRIES_LIMIT:
        raise ValueError(f"must be 1 to {_RETRIES_LIMIT} numbers of seconds, with commas")
    return waits


@dataclass(frozen=True)
class StorageSettings:
    """What an offline command needs."""

    # May hold a password.
    database_url: Secret = setting(
        "ATELIER_JOBS_DATABASE_URL",
        default=Secret("sqlite:///var/jobs/jobs.db"),
        help="the database: sqlite:///path/file.db, or postgresql://user@host/database",
        parse=Secret,
    )
    log_level: str = setting(
        "ATELIER_JOBS_LOG_LEVEL",
        default="info",
        help="debug, info, warning or error",
        parse=log_level,
    )


@dataclass(frozen=True, kw_only=True)
class SealingSettings(StorageSettings):
    """What it takes to seal webhook secrets anew."""

    sealing_keys_file: Path | None = setting(
        "ATELIER_JOBS_SEALING_KEYS_FILE",
        default=None,
        parse=Path,
        help="the keys that seal customers' webhook secrets, `<key id> <base64 of 32 bytes>` a line, the first seals; "
        "made where there is none. Webhooks are sent where this, the media signing key and the public URL are set",
    )

    def sealing_keys(self) -> Path:
        """Where the keys are. Raises SettingsError where nothing says so."""
        if self.sealing_keys_file is None:
            raise SettingsError(["ATELIER_JOBS_SEALING_KEYS_FILE is missing: nothing is sealed without it"])
        return self.sealing_keys_file


@dataclass(frozen=True, kw_only=True)
class Settings(SealingSettings, EgressSettings, EgressCaSettings):
    """Defaults are production's; the waits are settings so that tests need not sit them out."""

    billing_address: str = setting(
        "ATELIER_JOBS_BILLING_ADDRESS", help="host:port of the billing service", parse=host_and_port
    )
    pool_address: str = setting(
        "ATELIER_JOBS_POOL_ADDRESS", help="host:port of the provider pool", parse=host_and_port
    )
    grpc_listen: str = setting(
        "ATELIER_JOBS_GRPC_LISTEN",
        default="127.0.0.1:0",
        help="where gRPC is served; port 0 is any free one",
        parse=host_and_port,
    )
    operations_listen: str = setting(
        "ATELIER_JOBS_OPERATIONS_LISTEN",
        default="127.0.0.1:0",
        help="where /healthz, /readyz and /metrics are served",
        parse=host_and_port,
    )
    worker_ttl_ms: int = setting(
        "ATELIER_JOBS_WORKER_TTL_MS",
        default=15_000,
        help="after so long without a heartbeat a worker is declared dead",
        parse=whole_number(200, 600_000),
    )
    poll_interval_ms: int = setting(
        "ATELIER_JOBS_POLL_INTERVAL_MS",
        default=1_000,
        help="the first wait between polls of a job where the provider gives no hint",
        parse=whole_number(5, 60_000),
    )
    queue_deadline_s: float = setting(
        "ATELIER_JOBS_QUEUE_DEADLINE_S",
        default=1800,
        help="how long a job may wait for an account",
        parse=_seconds,
    )
    image_deadline_s: float = setting(
        "ATELIER_JOBS_IMAGE_DEADLINE_S",
        default=300,
        help="how long an image may take from its first lease",
        parse=_seconds,
    )
    video_deadline_s: float = setting(
        "ATELIER_JOBS_VIDEO_DEADLINE_S",
        default=1800,
        help="how long a video may take from its first lease",
        parse=_seconds,
    )
    other_deadline_s: float = setting(
        "ATELIER_JOBS_OTHER_DEADLINE_S", default=600, help="how long any other kind may take", parse=_seconds
    )
    sync_interval_s: float = setting(
        "ATELIER_JOBS_SYNC_INTERVAL_S", default=2, help="how old a synchronised status may be", parse=_seconds
    )
    stale_after_s: float = setting(
        "ATELIER_JOBS_STALE_AFTER_S",
        default=60,
        help="how old a status may be while the provider is silent",
        parse=_seconds,
    )
    renewal_s: float = setting(
        "ATELIER_JOBS_RENEWAL_S",
        default=180,
        help="how often holds and leases are renewed; they live 15 minutes",
        parse=_seconds,
    )
    reconcile_s: float = setting(
        "ATELIER_JOBS_RECONCILE_S",
        default=60,
        help="how often jobs, holds and leases are compared",
        parse=_seconds,
    )
    reconcile_age_s: float = setting(
        "ATELIER_JOBS_RECONCILE_AGE_S", default=120, help="what is younger is not compared", parse=_seconds
    )
    dispatch_s: float = setting(
        "ATELIER_JOBS_DISPATCH_S",
        default=5,
        help="how often waiting jobs are offered without an announcement",
        parse=_seconds,
    )

    first_step_s: float = setting(
        "ATELIER_JOBS_FIRST_STEP_S",
        default=0,
        help="how long a job rests between its acceptance and its first step; so that load tests can measure "
        "acceptance alone",
        parse=decimal_number(0, _DAY_S),
    )

    media_signing_keys: Secret | None = setting(
        "ATELIER_JOBS_MEDIA_SIGNING_KEY_FILE",
        default=None,
        parse=file_secret,
        help="the gateway's file of media signing keys, for the links in webhooks",
    )
    public_url: str = setting(
        "ATELIER_JOBS_PUBLIC_URL",
        default="",
        parse=web_origin,
        help="how customers reach the gateway, for the links in webhooks",
    )
    webhook_timeout_s: float = setting(
        "ATELIER_JOBS_WEBHOOK_TIMEOUT_S",
        default=webhooks.TIMEOUT_S,
        parse=decimal_number(0.1, 60),
        help="how long a receiver of webhooks may take",
    )
    webhook_retries_s: tuple[float, ...] = setting(
        "ATELIER_JOBS_WEBHOOK_RETRIES_S",
        default=webhooks.RETRIES_S,
        parse=_waits,
        help="seconds from each attempt to deliver a webhook to the next, with commas; after the last it is given up",
    )

    def means_are_complete(self) -> bool:
        """Whether webhooks are sent. Raises SettingsError where only some of what they need is set."""
        needed = {
            "ATELIER_JOBS_SEALING_KEYS_FILE": self.sealing_keys_file,
            "ATELIER_JOBS_MEDIA_SIGNING_KEY_FILE": self.media_signing_keys,
            "ATELIER_JOBS_PUBLIC_URL": self.public_url,
        }
        missing = [name for name, value in needed.items() if not value]
        if missing and len(missing) < len(needed):
            raise SettingsError(
                [f"{name} is missing: webhooks need it beside the others" for name in missing]
            )
        return not missing

    def timing(self) -> Timing:
        """The waits, as the engine takes them."""
        return Timing(
            worker_ttl_s=self.worker_ttl_ms / 1000,
            poll_interval_s=self.poll_interval_ms / 1000,
            queue_deadline_s=self.queue_deadline_s,
            image_deadline_s=self.image_deadline_s,
            video_deadline_s=self.video_deadline_s,
            other_deadline_s=self.other_deadline_s,
            sync_interval_s=self.sync_interval_s,
            stale_after_s=self.stale_after_s,
            renewal_s=self.renewal_s,
            reconcile_s=self.reconcile_s,
            reconcile_age_s=self.reconcile_age_s,
            dispatch_s=self.dispatch_s,
            first_step_s=self.first_step_s,
        )
