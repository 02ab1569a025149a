"""What a command is, and the parser made from all of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from services.admin.connection import House

_MILLIS = 1000
# Far above any sum of money that is meant, far below what a 64-bit integer holds.
_LARGEST_CREDITS = Decimal(10**12)
# A signed 32-bit integer, which is what the messages carry.
_LARGEST_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Argument:
    """One word or option of a command, as argparse's `add_argument` takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]


def argument(*names: str, **options: Any) -> Argument:
    """Declares an argument of a command."""
    return Argument(names, options)


@dataclass(frozen=True)
class Command:
    """`python -m services.admin <noun> <verb>`; `run` returns a message, rows, or a Table."""

    noun: str
    verb: str
    summary: str
    run: Callable[[House, Any], Awaitable[object]]
    arguments: tuple[Argument, ...] = ()
    example: str = ""


_DESCRIPTION = """The operator's command line. It talks gRPC to billing, jobs and the provider pool: to the
house in ./var (or --var, or $ATELIER_VAR), or to the addresses in $ATELIER_BILLING_ADDRESS,
$ATELIER_JOBS_ADDRESS and $ATELIER_POOL_ADDRESS where they are set."""

_EPILOG = """A first customer, from nothing to a working key:

  python -m services.admin customers create --storefront leonardo --name "Example Ltd"
  python -m services.admin wallets top-up CUSTOMER_ID --credits 5000 --idempotency-key invoice-1001
  python -m services.admin keys create CUSTOMER_ID --mode live --label production

Add --json to any command for output that scripts can read. From a clone, `python` is the
one that `make` set up: .venv/bin/python.
`python -m services.admin NOUN VERB --help` explains each one."""


def build_parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """One parser: nouns, below each its verbs."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m services.admin", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=formatter
    )
    _add_common(parser, json_default=False, var_default="")
    nouns = parser.add_subparsers(title="nouns", metavar="NOUN", required=True)
    for noun in dict.fromkeys(command.noun for command in commands):
        verbs = [command for command in commands if command.noun == noun]
        summary = ", ".join(command.verb for command in verbs)
        noun_parser = nouns.add_parser(noun, help=summary, formatter_class=formatter)
        verb_parsers = noun_parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        for command in verbs:
            _add(verb_parsers, command)
    return parser


def _add(verbs: Any, command: Command) -> None:
    epilog = f"example:\n\n  python -m services.admin {command.noun} {command.verb} {command.example}"
    parser = verbs.add_parser(
        command.verb,
        help=command.summary,
        description=command.summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for declared in command.arguments:
        parser.add_argument(*declared.names, **declared.options)
    # Without a default of its own, so that what was said before the noun stays said.
    _add_common(parser, json_default=argparse.SUPPRESS, var_default=argparse.SUPPRESS)
    parser.set_defaults(command=command)


def _add_common(parser: argparse.ArgumentParser, *, json_default: Any, var_default: str) -> None:
    parser.add_argument("--json", action="store_true", default=json_default, help="print JSON, for scripts")
    parser.add_argument(
        "--var", default=var_default, metavar="DIR", help="the house's folder (default: $ATELIER_VAR, ./var)"
    )


def count(text: str) -> int:
    """Reads a whole number from 0 up to what every service's messages hold; for argparse."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"not a whole number from 0 to {_LARGEST_COUNT}: {text!r}")
    return int(text)


def rank(text: str) -> int:
    """Reads a whole number that may be negative; for argparse."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * count(digits)


def paid_millis(text: str) -> int:
    """Reads more than 0 credits as thousandths; for argparse."""
    amount_millis = millis(text)
    if amount_millis <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0: {text!r}")
    return amount_millis


def millis(text: str) -> int:
    """Reads credits with at most three decimals as thousandths; for argparse."""
    try:
        credits_read = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"not a number of credits: {text!r}") from None
    if not credits_read.is_finite() or abs(credits_read) > _LARGEST_CREDITS:
        raise argparse.ArgumentTypeError(f"not a sensible number of credits: {text!r}")
    amount_millis = credits_read * _MILLIS
    if amount_millis != amount_millis.to_integral_value():
        raise argparse.ArgumentTypeError(f"credits have at most three decimals: {text!r}")
    return int(amount_millis)


def moment_ms(text: str) -> int:
    """Reads `2026-12-31` or `2026-12-31T23:59:59Z` as milliseconds since the epoch; for argparse."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a date or time (2026-12-31T23:59:59Z): {text!r}") from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)


def identity(text: str) -> tuple[int, str]:
    """Reads a number, or an id that is none: (number, "") or (0, id); for argparse."""
    # Numbers of users are below 2^53.
    return (int(text), "") if re.fullmatch(r"[1-9][0-9]{0,15}", text) else (0, text)


def pair(text: str) -> tuple[str, str]:
    """Reads `name=value`; for argparse."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*=.*", text, re.DOTALL):
        raise argparse.ArgumentTypeError(f"not name=value: {text!r}")
    name, _, value = text.partition("=")
    return name, value


MODE = argument(
    "--mode",
    choices=("live", "test"),
    default="live",
    help="which wallet, and which kind of key (default: live)",
)
LIMIT = argument("--limit", type=count, default=50, help="how many rows at most (default: 50)")
SPEND_LIMITS = (
    argument(
        "--day-limit", type=millis, metavar="CREDITS", help="what may be spent in a UTC day; 0: no limit"
    ),
    argument(
        "--month-limit", type=millis, metavar="CREDITS", help="what may be spent in a UTC month; 0: no limit"
    ),
)
