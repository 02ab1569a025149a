from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.chassis.database import Database
from tests.conformance.billing_house import Books, opened_books


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
