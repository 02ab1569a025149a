"""Writes docs/CONFIGURATION.md from the settings classes: `python -m tests.tidy.configuration_page`."""

from __future__ import annotations

from typing import Any

from services.billing.settings import Settings as Billing
from services.chassis.settings import describe
from services.gateway.settings import Settings as Gateway
from services.house.settings import Settings as House
from services.jobs.settings import Settings as Jobs
from services.provider_pool.settings import Settings as Pool
from services.simulator.settings import Settings as Simulator
from tests.tidy.source import ROOT

PAGE = ROOT / "docs" / "CONFIGURATION.md"

_HEAD = """# Configuration

Settings are environment variables, read once at start. A process refuses to start on an unusable environment, with one list of everything that is wrong. This page is made from the settings classes by `make gen`; a test keeps the two equal.

Keys are files (`…_FILE`), read at start. A database address may hold a password; it is printed nowhere, but give PostgreSQL a password file or a certificate where others can read the environment.

`make run` and `python -m services` choose every variable of the services below; one that is set already wins.
"""
_SECTIONS: tuple[tuple[str, type[Any], str], ...] = (
    ("The house (`python -m services`)", House, "Everything on one machine."),
    ("Gateway (`python -m services.gateway`)", Gateway, "The public HTTP edge."),
    ("Billing (`python -m services.billing`)", Billing, "Customers, keys, wallets, prices."),
    ("Jobs (`python -m services.jobs`)", Jobs, "The life of a job."),
    ("Provider pool (`python -m services.provider_pool`)", Pool, "Accounts, attempts, media."),
    (
        "Simulator (`python -m services.simulator`)",
        Simulator,
        "The providers' own APIs, played on this machine, for tests and for a look at live mode.",
    ),
)


def page() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD]
    for title, settings, summary in _SECTIONS:
        rows = [
            f"| `{name}` | {_shown(default)} | {meaning} |" for name, default, meaning in describe(settings)
        ]
        parts.append(
            f"## {title}\n\n{summary}\n\n| variable | default | meaning |\n|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        )
    return "\n".join(parts)


def _shown(default: str) -> str:
    if default in {"", "()", "None", "frozenset()"}:
        return "–"
    return default if default == "required" else f"`{default.replace(f'{ROOT}/', '')}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
