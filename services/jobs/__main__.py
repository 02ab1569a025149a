"""`python -m services.jobs [serve | migrate | rewrap | verify-webhook]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

from services.chassis import logs
from services.chassis.database import migrate
from services.chassis.process import run
from services.chassis.settings import Secret, load
from services.jobs.serving import serve
from services.jobs.settings import MIGRATIONS, SealingSettings, Settings, StorageSettings
from services.jobs.verify_webhook import check, read_headers
from services.jobs.webhooks.rewrapping import rewrap_stored

_VERIFYING = """Checks the headers and the body of a webhook as its receiver would, and says what is wrong.
The secret may also be in $ATELIER_WEBHOOK_SECRET, where no list of processes shows it.
Of two files one may be -, standard input. Exit codes: 0 genuine, 1 not, 2 wrong usage."""


async def main(command: str) -> None:
    wanted: dict[str, type[StorageSettings]] = {"serve": Settings, "rewrap": SealingSettings}
    settings = load(wanted.get(command, StorageSettings), os.environ)
    logs.configure("jobs", settings.log_level)
    if isinstance(settings, Settings):
        await serve(settings)
    elif isinstance(settings, SealingSettings):
        done = await rewrap_stored(settings.database_url.reveal(), settings.sealing_keys())
        print(done.as_text())
        sys.exit(1 if done.broken else 0)
    else:
        await migrate(settings.database_url.reveal(), MIGRATIONS)


def verify(chosen: argparse.Namespace) -> int:
    """Prints a line for each signature; 0 where all of them are good."""
    headers = read_headers(_content(chosen.headers).decode("utf-8", "replace"))
    body = _content(chosen.body)
    findings = check(Secret(chosen.secret), headers, body, chosen.at or int(time.time()))
    for finding in findings:
        print(f"{finding.header}: {finding.problem or 'good'}")
    return 0 if all(finding.good for finding in findings) else 1


def _content(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.jobs")
    commands = parser.add_subparsers(dest="command", metavar="serve | migrate | rewrap | verify-webhook")
    commands.add_parser("serve", help="serve until asked to stop (the default)")
    commands.add_parser("migrate", help="bring the database up to date")
    commands.add_parser("rewrap", help="seal all webhook secrets under the first of the sealing keys")
    verifying = commands.add_parser("verify-webhook", help="check a webhook", description=_VERIFYING)
    secret = os.environ.get("ATELIER_WEBHOOK_SECRET", "")
    verifying.add_argument("--secret", default=secret, required=not secret, help="whsec_…")
    verifying.add_argument("--headers", required=True, metavar="FILE", help="lines of `Name: value`")
    verifying.add_argument("--body", required=True, metavar="FILE", help="the raw bytes that were sent")
    verifying.add_argument(
        "--at", type=int, metavar="SECONDS", help="when it arrived, in seconds since 1970 (default: now)"
    )
    return parser


if __name__ == "__main__":
    parser = _parser()
    parsed = parser.parse_args()
    if parsed.command == "verify-webhook":
        if parsed.headers == parsed.body == "-":
            parser.error("only one of --headers and --body may be standard input")
        try:
            sys.exit(verify(parsed))
        except OSError as fault:
            print(f"cannot read {fault.filename}: {fault.strerror}", file=sys.stderr)
            sys.exit(2)
    run(partial(main, parsed.command or "serve"))
