from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.chassis.database import Database
from tests.conformance.billing_house import Books, opened_books


@pytest.fixture(params=["sqlite", "postgresql"])
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of the test's own, on each engine in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'service.db'}"
        return
    postgres = request.getfixturevalue("postgres")
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def database(engine_url: str) -> AsyncIterator[Database]:
    """That database, opened, and closed after the test."""
    opened = await Database.open(engine_url, application_name="conformance")
    yield opened
    await opened.close()


@pytest.fixture
async def books(engine_url: str) -> AsyncIterator[Books]:
    """Billing's books in that database."""
    async with opened_books(engine_url) as opened:
        yield opened
