"""`python -m services.simulator`: the providers' APIs on this machine, for tests and for a look at live mode."""

from __future__ import annotations

import os

from services.chassis import logs
from services.chassis.process import run
from services.chassis.settings import load
from services.simulator.serving import serve
from services.simulator.settings import Settings


async def main() -> None:
    settings = load(Settings, os.environ)
    logs.configure("simulator", settings.log_level)
    await serve(settings)


if __name__ == "__main__":
    run(main)
