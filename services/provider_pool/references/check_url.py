"""`check-url`: asks why a customer's URL is or would be refused. Opens no connection, needs no running house."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from services.chassis.egress import Egress, EgressFailed, EgressRefused, system_resolver
from services.chassis.egress_policy import EgressPolicy, EgressSettings
from services.chassis.settings import SettingsError, load

# Stands for an answer that is no text at all: no reader takes it for an address.
_NO_TEXT: Final = "?"


@dataclass(frozen=True, slots=True)
class _Question:
    """One input. `resolves_to` stands in for the resolver's answer; None asks it. Without `url`, no question."""

    shown: str
    url: str | None
    resolves_to: Sequence[str] | None = None


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declares the command."""
    parser = subparsers.add_parser(
        "check-url",
        help="say whether URLs of reference media may be fetched, and why not",
        description="Prints one JSON line a URL. Opens no connection; without --resolves-to it asks the resolver.",
    )
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument(
        "--resolves-to",
        action="append",
        metavar="IP",
        help="take this for an answer of the resolver (repeatable)",
    )
    parser.add_argument(
        "--jsonl",
        metavar="FILE",
        help='read {"url", "resolves_to": [IP, …]}, one a line; - is standard input',
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Exit codes: 0 every input has its line, 1 the reader of the lines is gone, 2 wrong usage, 130 interrupted."""
    try:
        _check_usage(arguments)
        policy = load(EgressSettings, environ).policy()
        with closing(_questions(arguments)) as questions:
            asyncio.run(_answer(policy, questions))
    except (_UsageError, SettingsError) as fault:
        print(fault, file=sys.stderr)  # noqa: T201  # for the operator
        return 2
    except BrokenPipeError:
        # `… | head` has read enough. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class _UsageError(Exception):
    """A command line, or a file that it names, that is of no use."""


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.jsonl is None and not arguments.urls:
        raise _UsageError("check-url: name at least one URL, or a file with --jsonl")
    if arguments.jsonl is not None and (arguments.urls or arguments.resolves_to is not None):
        raise _UsageError(
            "check-url: --jsonl takes URLs and answers from its file, not from the command line"
        )


async def _answer(policy: EgressPolicy, questions: Iterable[_Question]) -> None:
    answers = _Answers()
    async with Egress(policy, resolve=answers.resolve) as egress:
        try:
            for question in questions:
                answers.given = question.resolves_to
                _print(await _verdict(egress, question))
        finally:
            await answers.close()


class _Answers:
    """A resolver that gives the answers of the question at hand, where it has some."""

    def __init__(self) -> None:
        self.given: Sequence[str] | None = None
        self._system = system_resolver()

    async def resolve(self, name: str) -> Sequence[str]:
        return await self._system(name) if self.given is None else self.given

    async def close(self) -> None:
        await self._system.close()


async def _verdict(egress: Egress, question: _Question) -> dict[str, str | None]:
    reason = detail = None
    try:
        if question.url is None:
            reason, detail = "malformed_line", 'The line is not {"url": "…", "resolves_to": ["…", …]}.'
        else:
            await egress.check(question.url)
    except (EgressRefused, EgressFailed) as fault:
        reason, detail = fault.rule, str(fault)
    verdict = "allow" if reason is None else "block"
    return {"input": question.shown, "verdict": verdict, "reason": reason, "detail": detail}


def _print(line: Mapping[str, str | None]) -> None:
    # Flushed, because a program may wait for the answer before it asks again.
    print(json.dumps(line), flush=True)  # noqa: T201  # the answer


def _questions(arguments: argparse.Namespace) -> Generator[_Question, None, None]:
    if arguments.jsonl is None:
        for url in arguments.urls:
            yield _Question(url, url, arguments.resolves_to)
        return
    try:
        with _opened(arguments.jsonl) as file:
            for number, line in enumerate(file):
                yield _read(line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line)
    except OSError as fault:
        raise _UsageError(f"check-url: {arguments.jsonl} cannot be read: {fault.strerror}") from None


def _opened(path: str) -> IO[bytes]:
    return sys.stdin.buffer if path == "-" else Path(path).open("rb")


def _read(line: bytes) -> _Question:
    text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    url = fields.get("url") if isinstance(fields, dict) else None
    if not isinstance(url, str):
        return _Question(text, None)
    answers = fields.get("resolves_to")
    if answers is None:
        return _Question(url, url)
    if not isinstance(answers, list):
        return _Question(url, None)
    return _Question(url, url, [answer if isinstance(answer, str) else _NO_TEXT for answer in answers])
