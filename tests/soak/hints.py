"""What became of the webhooks that simulated providers sent."""

from __future__ import annotations

import re
from typing import Final

from tests.faults.scene import Scene

_LINE: Final = re.compile(
    r'^atelier_gateway_hints_total\{[^}]*outcome="([a-z_]+)"[^}]*\} ([0-9.e+]+)$', re.MULTILINE
)


async def hints_heard(scene: Scene) -> dict[str, int]:
    """How many came to the gateway, which lives as long as the scene, by what became of them there."""
    async with scene.session.get(f"{scene.processes['gateway'].addresses['operations']}/metrics") as page:
        return {outcome: round(float(count)) for outcome, count in _LINE.findall(await page.text())}
