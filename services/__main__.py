"""`python -m services`: the whole house on this machine, on SQLite, with demo data."""

from __future__ import annotations

import os

from services.chassis.process import run
from services.chassis.settings import load
from services.house.keeper import keep_house
from services.house.settings import Settings


async def main() -> None:
    """Starts every process, keeps them running, and stops them on Ctrl-C."""
    await keep_house(load(Settings, os.environ), os.environ)


if __name__ == "__main__":
    run(main)
