"""Everything that can be set about billing, read from the environment once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.billing import prices
from services.billing.prices import Storefronts
from services.chassis.settings import Secret, SettingsError, file_secret, host_and_port, log_level, setting

MIGRATIONS = Path(__file__).parent / "migrations"
_SHIPPED_PRICE_LISTS = Path(__file__).parent / "price_lists"
# As long as the hash it feeds; a shorter one would be the easiest part to guess.
_PEPPER_CHARACTERS = 32


def _pepper(text: str) -> Secret:
    pepper = file_secret(text)
    if len(pepper.reveal()) < _PEPPER_CHARACTERS:
        raise ValueError(f"names a file that holds fewer than {_PEPPER_CHARACTERS} characters: {text}")
    return pepper


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

    key_pepper: Secret = setting(
        "ATELIER_BILLING_KEY_PEPPER_FILE",
        parse=_pepper,
        help="a file with the secret that API keys are hashed under; with another one no key works",
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
