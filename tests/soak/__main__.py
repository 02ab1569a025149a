"""`python -m tests.soak`: plays a soak, prints what came of it as JSON, and ends with 1 where anything is wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from dataclasses import replace

from tests.soak.run import Soak, soaked


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--accounts", type=int, default=40)
    parser.add_argument("--at-once", type=int, default=300, help="jobs in flight")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--no-kills", action="store_true")
    parser.add_argument("--no-faults", action="store_true")
    asked = parser.parse_args()
    soak = Soak(
        asked.jobs,
        asked.accounts,
        asked.seed,
        asked.at_once,
        engine=asked.engine,
        is_faulty=not asked.no_faults,
    )
    if asked.no_kills:
        soak = replace(soak, between_kills_s=None)
    report = asyncio.run(soaked(soak, _told))
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n")
    sys.exit(1 if report.wrong else 0)


def _told(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
