"""What one run of the benchmark was asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """How much is measured, and where.

    folder: empty, on a disk that keeps what it was told to sync. slices: alternated rounds of each case.
    seconds: one slice. minutes: the load over which memory is watched. patience_s: the longest wait for a quiet
    machine before one slice.
    """

    folder: Path
    slices: int = 5
    seconds: float = 4.0
    minutes: float = 30.0
    patience_s: float = 10.0


def say(sentence: str) -> None:
    """Tells whoever waits at the terminal."""
    print(f"… {sentence}", file=sys.stderr, flush=True)
