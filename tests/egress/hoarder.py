"""A process that fetches 8 times at once and tells what it cost: `python -m tests.egress.hoarder CA_FILE PORT PATH`.

Prints one JSON line: how each fetch ended, by how much the peak of resident memory grew for each, and the
longest time for which the event loop did not turn.
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
_TOTAL_S: Final = 2.0


async def main(ca_file: Path, port: int, path: str) -> dict[str, object]:
    async with Egress(policy_for((ADDRESS, port)), ca_file=ca_file, resolve=_resolve) as egress:
        # What is loaded and allocated once, whatever comes.
        await _fetched(egress, port, "/small")
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        lag = asyncio.create_task(_longest_stand_s())
        outcomes = await asyncio.gather(*(_fetched(egress, port, path) for _ in range(_AT_ONCE)))
        lag.cancel()
        growth_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    return {
        "outcomes": outcomes,
        "growth_mib_a_fetch": growth_kib / 1024 / _AT_ONCE,
        "longest_stand_s": _stands[-1] if _stands else 0.0,
    }


_stands: list[float] = []


async def _longest_stand_s() -> None:
    longest_s, last_s = 0.0, asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(0.001)
        now_s = asyncio.get_running_loop().time()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
        _stands.append(longest_s)


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
