"""Runs the measurements, prints one report as Markdown, and can write it into the page `docs/PERFORMANCE.md`.

A measurement is a function of a `Plan` that returns sections: rows with targets, and words about them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.bench import page
from tests.bench.findings import Section
from tests.bench.measurements import MEASUREMENTS
from tests.bench.plan import Plan, say

# On a disk, also where /tmp is memory, and with it everything that the measurements start.
_PLACE: Final = "/var/tmp"


async def _run(names: Sequence[str], plan: Plan, *, written: bool) -> dict[str, list[Section]]:
    """What was measured; a measurement that failed is missing, and has said why."""
    measuring = asyncio.current_task()
    assert measuring is not None
    # A run that is told to end stops the houses it has started, as Ctrl-C does.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    done: dict[str, list[Section]] = {}
    for name in names:
        say(name)
        folder = Path(tempfile.mkdtemp(prefix="atelier-bench-"))
        here = replace(plan, folder=folder)
        try:
            done[name] = list(await MEASUREMENTS[name](here))
            if written:
                # At once, so that a run that ends early keeps what it has.
                page.write({name: page.entry(done[name], here)}, list(MEASUREMENTS))
        except Exception:
            # The others are worth having: a full run takes an hour.
            traceback.print_exc()
            continue
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for section in done[name]:
            print("\n" + section.markdown(), flush=True)
    return done


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no measurement {unknown[0]!r}; there are: {', '.join(MEASUREMENTS)}"
        )
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--only", type=_names, help=f"some of: {', '.join(MEASUREMENTS)}; separated by commas"
    )
    parser.add_argument("--slices", type=int, default=5, help="alternated slices of each case (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="one slice (default: 4)")
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="load under which memory is watched (default: 30)"
    )
    parser.add_argument(
        "--patience", type=float, default=10.0, help="longest wait for a quiet machine, in seconds"
    )
    parser.add_argument("--json", type=Path, help="write every number there as well")
    parser.add_argument(
        "--page",
        action="store_true",
        help="write what was measured into docs/PERFORMANCE.md; a full run always does",
    )
    return parser.parse_args()


def main() -> None:
    asked = _arguments()
    tempfile.tempdir = _PLACE
    plan = Plan(
        folder=Path(_PLACE),
        slices=max(1, asked.slices),
        seconds=max(1.0, asked.seconds),
        minutes=max(0.1, asked.minutes),
        patience_s=max(0.0, asked.patience),
    )
    names = asked.only or list(MEASUREMENTS)
    try:
        done = asyncio.run(_run(names, plan, written=asked.page or not asked.only))
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.exit("stopped")
    if asked.json:
        asked.json.write_text(json.dumps(_numbers(done), indent=2) + "\n", encoding="utf-8")
    missed = [
        row.what for sections in done.values() for one in sections for row in one.findings if row.met is False
    ]
    print(f"\n{len(missed)} targets missed" + "".join(f"\n- {what}" for what in missed), file=sys.stderr)
    failed = [name for name in names if name not in done]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; why is above")


def _numbers(done: Mapping[str, Sequence[Section]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{"title": one.title, "findings": [row.as_json() for row in one.findings]} for one in sections]
        for name, sections in done.items()
    }


if __name__ == "__main__":
    main()
