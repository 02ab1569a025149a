from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cache

import pytest
import uvloop

from services.chassis.egress_connector import tls_context
from tests.egress.certificates import Credentials
from tests.egress.evil_server import EvilServer
from tests.egress.street import Street, street


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops, for every test of this folder: services run on uvloop, commands on the plain one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session", autouse=True)
def trust_read_once() -> Iterator[None]:
    """Reading the system's certificates takes a tenth of a second, and there are hundreds of tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("services.chassis.egress.tls_context", cache(tls_context))
        yield


@pytest.fixture
async def here(credentials: Credentials) -> AsyncIterator[Street]:
    """A street whose server speaks TLS with a good certificate."""
    async with street(credentials, EvilServer(credentials.good)) as one:
        yield one
