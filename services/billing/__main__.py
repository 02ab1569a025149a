"""`python -m services.billing [serve | migrate | verify-ledger [--json]]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial

from services.billing.offline import verify_stored
from services.billing.serving import serve
from services.billing.settings import MIGRATIONS, Settings, StorageSettings
from services.chassis import logs
from services.chassis.database import migrate
from services.chassis.process import run
from services.chassis.settings import load


async def main(command: str, as_json: bool) -> None:
    settings = load(Settings if command == "serve" else StorageSettings, os.environ)
    logs.configure("billing", settings.log_level)
    if isinstance(settings, Settings):
        await serve(settings)
    elif command == "migrate":
        await migrate(settings.database_url.reveal(), MIGRATIONS)
    else:
        report = await verify_stored(settings.database_url.reveal())
        print(json.dumps(report.as_json()) if as_json else report.as_text())
        sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m services.billing")
    parser.add_argument("command", nargs="?", default="serve", choices=("serve", "migrate", "verify-ledger"))
    parser.add_argument("--json", action="store_true", help="print verify-ledger's report as JSON")
    arguments = parser.parse_args()
    run(partial(main, arguments.command, arguments.json))
