"""What a person may choose about a house on one machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from services.chassis.settings import log_level, one_of, setting, whole_number


def postgresql_server(text: str) -> str:
    """A parser for `postgresql://user@host:port/name`. Never repeats its text: it may hold a password."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "postgresql" and bool(parts.netloc) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an address such as postgresql://user@host:5432/atelier")
    return text


@dataclass(frozen=True)
class Settings:
    """Everything else has a default that works; a service's own variables are passed on to it."""

    port: int = setting(
        "ATELIER_PORT",
        default=8080,
        help="the gateway's public port; 0 takes any free one",
        parse=whole_number(0, 65_535),
    )
    var: Path = setting(
        "ATELIER_VAR", default=Path("var"), help="the folder for databases, media, keys and logs", parse=Path
    )
    providers: str = setting(
        "ATELIER_PROVIDERS",
        default="sandbox",
        help="who serves live jobs: `sandbox` draws here, `simulated` starts the providers' own APIs, played "
        "from their documents on this machine; the latter lives in the folder `simulated` in the one above",
        parse=one_of("sandbox", "simulated"),
    )
    database_url: str = setting(
        "ATELIER_DATABASE_URL",
        default="",
        help="a PostgreSQL server, as postgresql://user@host:5432/atelier; each service gets a database "
        "of its own there (atelier_billing, …). Empty: SQLite files in the folder above",
        parse=postgresql_server,
    )
    log_level: str = setting(
        "ATELIER_LOG_LEVEL",
        default="info",
        help="debug, info, warning or error",
        parse=log_level,
    )

    @property
    def is_simulated(self) -> bool:
        """Whether live jobs go to simulated providers."""
        return self.providers == "simulated"

    @property
    def folder(self) -> Path:
        """Where this house lives: what simulated accounts earned never mixes with anything else."""
        return self.var / "simulated" if self.is_simulated else self.var
