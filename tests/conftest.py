from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import Postgres

# No deadline for one example: on a shared machine a slow example says nothing about the code.
settings.register_profile("atelier", deadline=None, max_examples=50, stateful_step_count=30)
settings.load_profile("atelier")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, one for each test process. Tests that kill or stop it start their own instead."""
    from tests.postgres import Postgres

    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database of the test's own."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)
