"""`python -m services.gateway [serve]`."""

from __future__ import annotations

import argparse
import os

from services.chassis import logs
from services.chassis.process import run
from services.chassis.settings import load
from services.gateway.serving import serve
from services.gateway.settings import Settings


async def main() -> None:
    settings = load(Settings, os.environ)
    logs.configure("gateway", settings.log_level)
    await serve(settings)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m services.gateway")
    parser.add_argument("command", nargs="?", default="serve", choices=("serve",))
    parser.parse_args()
    run(main)
