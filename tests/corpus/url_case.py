"""One URL with what is to be said of it."""

from __future__ import annotations

import json
from dataclasses import dataclass

# What a name resolves to when the answer is not the trick: a refusal can then only come from the URL itself.
PUBLIC = "93.184.216.34"
PUBLIC_6 = "2606:2800:220:1:248:1893:25c8:1946"


@dataclass(frozen=True, slots=True)
class Case:
    trick: str
    url: str
    verdict: str
    resolves_to: tuple[str, ...] = (PUBLIC,)

    def line(self) -> str:
        """As `check-url --jsonl` takes it; what it does not know it ignores."""
        return json.dumps(
            {
                "url": self.url,
                "resolves_to": self.resolves_to,
                "expected": self.verdict,
                "trick": self.trick,
            }
        )
