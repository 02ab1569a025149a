"""Everything that can be set about billing, read from the environment once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.billing import prices
from services.billing.mail import PLAINTEXT, STARTTLS, TLS
from services.billing.prices import Storefronts
from services.chassis.settings import (
    Secret,
    SettingsError,
    file_secret,
    host_and_port,
    log_level,
    one_of,
    setting,
    whole_number,
)

MIGRATIONS = Path(__file__).parent / "migrations"
_SHIPPED_PRICE_LISTS = Path(__file__).parent / "price_lists"
# As long as the hash it feeds; a shorter one would be the easiest part to guess.
_SECRET_CHARACTERS = 32
# A ring is turned one secret at a time; every one more is tried for every key and token.
_MAX_SECRETS = 8


def _secret_ring(text: str) -> tuple[Secret, ...]:
    """The secrets of a file, one a line, the one in use first."""
    ring = tuple(Secret(line) for line in map(str.strip, file_secret(text).reveal().splitlines()) if line)
    if any(len(secret.reveal()) < _SECRET_CHARACTERS for secret in ring):
        raise ValueError(f"names a file with a line of fewer than {_SECRET_CHARACTERS} characters: {text}")
    if len(ring) > _MAX_SECRETS:
        raise ValueError(f"names a file with more than {_MAX_SECRETS} lines: {text}")
    return ring


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise ValueError(f"is not a folder: {text}")
    return folder


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """What the offline commands need."""

    database_url: Secret = setting(
        "ATELIER_BILLING_DATABASE_URL",
        default=Secret("sqlite:///var/billing/billing.db"),
        parse=Secret,
        help="the database: sqlite:///path/file.db, or postgresql://user@host/database",
    )
    log_level: str = setting(
        "ATELIER_BILLING_LOG_LEVEL",
        default="info",
        parse=log_level,
        help="the least level that is logged: debug, info, warning or error",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(StorageSettings):
    """What the service needs."""

    key_peppers: tuple[Secret, ...] = setting(
        "ATELIER_BILLING_KEY_PEPPER_FILE",
        parse=_secret_ring,
        help="a file with the secret that API keys are hashed under; with another one no key works. "
        "To change it, put the new one on a line above the old; of several processes each must know it below the old one before",
    )
    token_secrets: tuple[Secret, ...] = setting(
        "ATELIER_BILLING_TOKEN_SECRET_FILE",
        default=(),
        parse=_secret_ring,
        help="a file with the secret that access tokens of users are signed under, one a line, the first signs; "
        "without it every process makes its own, and users sign in anew after each start",
    )
    token_lifetime_s: int = setting(
        "ATELIER_BILLING_TOKEN_LIFETIME_S",
        default=24 * 3600,
        parse=whole_number(60, 30 * 24 * 3600),
        help="how long a user stays signed in, in seconds",
    )
    grpc_listen: str = setting(
        "ATELIER_BILLING_GRPC_LISTEN",
        default="127.0.0.1:0",
        parse=host_and_port,
        help="where the service listens; port 0 is any free one",
    )
    operations_listen: str = setting(
        "ATELIER_BILLING_OPERATIONS_LISTEN",
        default="127.0.0.1:0",
        parse=host_and_port,
        help="where /healthz, /readyz and /metrics are served",
    )
    price_lists: Path = setting(
        "ATELIER_BILLING_PRICE_LISTS",
        default=_SHIPPED_PRICE_LISTS,
        parse=_folder,
        help="a folder of <storefront>.toml files, in place of those of the same name that ship with billing",
    )
    outbox: Path = setting(
        "ATELIER_BILLING_OUTBOX",
        default=Path("var/billing/outbox"),
        parse=Path,
        help="the folder in which mails to users are laid where no ATELIER_BILLING_SMTP_HOST is set",
    )
    smtp_host: str = setting(
        "ATELIER_BILLING_SMTP_HOST", default="", help="the server that sends mails to users"
    )
    smtp_port: int = setting(
        "ATELIER_BILLING_SMTP_PORT", default=587, parse=whole_number(1, 65_535), help="its port"
    )
    smtp_security: str = setting(
        "ATELIER_BILLING_SMTP_SECURITY",
        default=STARTTLS,
        parse=one_of(STARTTLS, TLS, PLAINTEXT),
        help="how the connection to it is secured: starttls, tls, or none",
    )
    smtp_user: str = setting("ATELIER_BILLING_SMTP_USER", default="", help="who signs in there, if anybody")
    smtp_password: Secret | None = setting(
        "ATELIER_BILLING_SMTP_PASSWORD_FILE", default=None, parse=file_secret, help="a file with the password"
    )
    smtp_from: str = setting(
        "ATELIER_BILLING_SMTP_FROM",
        default="",
        help="the address that mails come from; needed with ATELIER_BILLING_SMTP_HOST",
    )


def check_mail(settings: Settings) -> None:
    """Raises SettingsError listing what is missing or careless about the mail server, where there is one."""
    faults: list[str] = []
    if settings.smtp_host and "@" not in settings.smtp_from:
        faults.append("ATELIER_BILLING_SMTP_FROM is no address, and ATELIER_BILLING_SMTP_HOST needs one")
    if settings.smtp_user and settings.smtp_password is None:
        faults.append("ATELIER_BILLING_SMTP_PASSWORD_FILE is missing: ATELIER_BILLING_SMTP_USER needs one")
    if settings.smtp_user and settings.smtp_security == PLAINTEXT:
        faults.append("ATELIER_BILLING_SMTP_SECURITY must not be none where a password is sent")
    if faults:
        raise SettingsError(faults)


def storefronts(folder: Path) -> Storefronts:
    """The shipped price lists with those of `folder` in their place. Raises SettingsError listing every fault."""
    files: dict[str, str] = {}
    faults: list[str] = []
    for path in [*sorted(_SHIPPED_PRICE_LISTS.glob("*.toml")), *sorted(folder.glob("*.toml"))]:
        try:
            files[path.stem] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            faults.append(f"the price list {path} cannot be read ({fault.__class__.__name__})")
    if faults:
        raise SettingsError(faults)
    return prices.parse(files)
