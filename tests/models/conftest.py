from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.ground import SPACIOUS, Ground


@pytest.fixture
def ground(engine_url: str) -> Iterator[Ground]:
    """An event loop, and the test's database opened by several processes where the engine lets them."""
    with Ground(engine_url, SPACIOUS) as opened:
        yield opened


@pytest.fixture
def sqlite_ground(tmp_path: Path) -> Iterator[Ground]:
    """The same on SQLite only: for what does not depend on the engine."""
    with Ground(f"sqlite:///{tmp_path / 'service.db'}", 1) as opened:
        yield opened
