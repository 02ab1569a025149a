from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.object_server import ObjectServer
    from tests.postgres import Postgres

# No deadline for one example: on a shared machine a slow example says nothing about the code.
# The same examples in every run, so that a build fails for what was changed; `--hypothesis-profile=thorough` looks
# for new ones, and prints how to repeat what it finds.
settings.register_profile("atelier", deadline=None, max_examples=50, stateful_step_count=30, derandomize=True)
settings.register_profile(
    "thorough", deadline=None, max_examples=1_000, stateful_step_count=60, print_blob=True
)
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


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """A running store of objects, one for each test process."""
    from tests.object_server import ObjectServer

    with ObjectServer() as server:
        yield server


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
