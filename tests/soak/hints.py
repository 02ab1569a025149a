"""What became of the webhooks that simulated providers sent."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from tests.faults.scene import Scene

_LINE: Final = re.compile(
    r'^atelier_pool_hints_total\{[^}]*outcome="([a-z_]+)"[^}]*\} ([0-9.e+]+)$', re.MULTILINE
)


async def hints_heard(scene: Scene) -> dict[str, int]:
    """How many came to the pool, by what it made of them; of the lives that its processes live now."""
    found: Counter[str] = Counter()
    for process in scene.processes.values():
        if process.service != "provider_pool":
            continue
        async with scene.session.get(f"{process.addresses['operations']}/metrics") as page:
            for outcome, count in _LINE.findall(await page.text()):
                found[outcome] += round(float(count))
    return dict(found)
