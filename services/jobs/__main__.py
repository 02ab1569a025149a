"""`python -m services.jobs [serve | migrate]`."""

from __future__ import annotations

import argparse
import os
from functools import partial

from services.chassis import logs
from services.chassis.database import migrate
from services.chassis.process import run
from services.chassis.settings import load
from services.jobs.serving import serve
from services.jobs.settings import MIGRATIONS, Settings, StorageSettings


async def main(command: str) -> None:
    settings = load(Settings if command == "serve" else StorageSettings, os.environ)
    logs.configure("jobs", settings.log_level)
    if isinstance(settings, Settings):
        await serve(settings)
    else:
        await migrate(settings.database_url.reveal(), MIGRATIONS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m services.jobs")
    parser.add_argument("command", nargs="?", default="serve", choices=("serve", "migrate"))
    run(partial(main, parser.parse_args().command))
