"""A process that fetches 8 times at once and tells what it cost: `python -m tests.egress.hoarder CA_FILE PORT PATH`.

Prints one JSON line: how each fetch ended, and by how much the peak of resident memory grew for each.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from services.chassis.egress import Egress, EgressFailed
from tests.egress.certificates import ADDRESS, NAMES
from tests.egress.street import policy_for

_AT_ONCE: Final = 8
_LIMIT_BYTES: Final = 20 * 1024 * 1024
# Beyond what any of it takes on a busy machine: nothing here is to be ended by the clock.
_TOTAL_S: Final = 30.0


async def main(ca_file: Path, port: int, path: str) -> dict[str, object]:
    async with Egress(policy_for((ADDRESS, port)), ca_file=ca_file, resolve=_resolve) as egress:
        # What is loaded and allocated once, whatever comes.
        await _fetched(egress, port, "/small")
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes = await asyncio.gather(*(_fetched(egress, port, path) for _ in range(_AT_ONCE)))
        growth_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    return {"outcomes": outcomes, "growth_mib_a_fetch": growth_kib / 1024 / _AT_ONCE}


async def _fetched(egress: Egress, port: int, path: str) -> str:
    url = f"https://{NAMES[0]}:{port}{path}"
    try:
        async with egress.fetch(url, total_s=_TOTAL_S, limit_bytes=_LIMIT_BYTES) as arriving:
            size_bytes = 0
            async for chunk in arriving.chunks():
                size_bytes += len(chunk)
            return str(size_bytes)
    except EgressFailed as failed:
        return failed.rule


async def _resolve(name: str) -> Sequence[str]:
    return [ADDRESS]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))))
