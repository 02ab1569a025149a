"""Runs every measurement and prints one report as Markdown; `--slices` and `--only` make it shorter."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bench import edge_load, references, waiting

MEASUREMENTS: dict[str, Callable[[Path, int], Awaitable[str]]] = {
    "waiting": waiting.measure,
    "edge": edge_load.measure,
    "references": references.measure,
}


async def _run(names: list[str], slices: int) -> None:
    print(
        f"# Atelier bench\n\nPython {platform.python_version()}, {platform.machine()}, {slices} slices each."
    )
    for name in names:
        print(f"… {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="atelier-bench-") as folder:
            print("\n" + await MEASUREMENTS[name](Path(folder), slices), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=tuple(MEASUREMENTS), action="append", help="may be repeated")
    parser.add_argument("--slices", type=int, default=5, help="alternated slices of each case (default: 5)")
    chosen = parser.parse_args()
    asyncio.run(_run(chosen.only or list(MEASUREMENTS), max(1, chosen.slices)))


if __name__ == "__main__":
    main()
