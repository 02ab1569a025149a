"""`python -m services.admin`: customers, keys, credits, provider accounts and jobs, from a terminal."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc

from services.admin import (
    accounts,
    attempts,
    customers,
    hints,
    jobs,
    keys,
    models,
    prices,
    users,
    wallets,
    webhooks,
)
from services.admin.command import Command, build_parser
from services.admin.connection import House, Unreachable
from services.admin.rendering import show
from services.chassis.errors import ServiceError

COMMANDS: tuple[Command, ...] = (
    *customers.COMMANDS,
    *keys.COMMANDS,
    *users.COMMANDS,
    *wallets.COMMANDS,
    *prices.COMMANDS,
    *accounts.COMMANDS,
    *models.COMMANDS,
    *jobs.COMMANDS,
    *attempts.COMMANDS,
    *hints.COMMANDS,
    *webhooks.COMMANDS,
)


def main(arguments: list[str]) -> int:
    """Exit codes: 0 done, 1 refused by the service, 2 wrong usage, 3 the house does not answer, 130 interrupted."""
    chosen = build_parser(COMMANDS).parse_args(arguments)
    try:
        answer = asyncio.run(_run(chosen.command, chosen))
    except ServiceError as refusal:
        print(f"{refusal.reason.lower()}: {refusal.message}", file=sys.stderr)
        return 3 if refusal.kind in {"UNAVAILABLE", "DEADLINE_EXCEEDED"} else 1
    except (Unreachable, grpc.RpcError) as fault:
        print(fault, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return _shown(answer, chosen.json)


def _shown(answer: object, as_json: bool) -> int:
    try:
        show(answer, as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        # `… | head` has read enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


async def _run(command: Command, chosen: object) -> object:
    async with House.at(getattr(chosen, "var", ""), os.environ) as house:
        return await command.run(house, chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
