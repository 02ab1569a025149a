"""`python -m services.provider_pool [serve | migrate | rewrap | check-url | check-image]`."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from importlib import import_module

# Imported when chosen: a service does not pay for what a check needs, nor a check for a service.
CHECKS = {
    "check-url": "services.provider_pool.references.check_url",
    "check-image": "services.provider_pool.references.check_image",
}


async def main(command: str) -> None:
    from services.chassis import logs
    from services.chassis.settings import load
    from services.provider_pool.settings import MIGRATIONS, Settings, StorageSettings, VaultSettings

    wanted: dict[str, type[StorageSettings]] = {"serve": Settings, "rewrap": VaultSettings}
    settings = load(wanted.get(command, StorageSettings), os.environ)
    logs.configure("provider_pool", settings.log_level)
    if isinstance(settings, Settings):
        from services.provider_pool.serving import serve

        await serve(settings)
    elif isinstance(settings, VaultSettings):
        from services.provider_pool.accounts.rewrapping import rewrap_stored

        done = await rewrap_stored(settings.database_url.reveal(), settings.key_ring())
        print(done.as_text())
        sys.exit(1 if done.broken else 0)
    else:
        from services.chassis.database import migrate

        await migrate(settings.database_url.reveal(), MIGRATIONS)


def parser(chosen: str) -> argparse.ArgumentParser:
    """The command line; of the checks, only the chosen one's part of it is whole."""
    whole = argparse.ArgumentParser(prog="python -m services.provider_pool")
    commands = whole.add_subparsers(dest="command")
    commands.add_parser("serve", help="run the service (the default)")
    commands.add_parser("migrate", help="bring the database up to date")
    commands.add_parser("rewrap", help="seal all credentials under the first key of the ring")
    for name in sorted(CHECKS.keys() - {chosen}):
        commands.add_parser(name, help="say why a reference is refused, or is not")
    if chosen in CHECKS:
        import_module(CHECKS[chosen]).add(commands)
    return whole


if __name__ == "__main__":
    arguments = parser(*sys.argv[1:2] or ["serve"]).parse_args()
    if arguments.command in CHECKS:
        sys.exit(import_module(CHECKS[arguments.command]).run(arguments, os.environ))
    from services.chassis.process import run

    run(partial(main, arguments.command or "serve"))
