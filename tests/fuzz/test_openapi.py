"""Schemathesis against every contract's OpenAPI file and a whole house: no 500, nothing undocumented, no schema broken."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.gateway.contracts import CONTRACTS
from tests.house import House, inside, running_house

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

# What a schema cannot say: that a URL must be public, that base64 must hold a picture.
_NOT_IN_SCHEMAS = "positive_data_acceptance"
_CASES_OF_AN_OPERATION = 15


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with (
        running_house(tmp_path_factory.mktemp("house") / "var") as running,
        inside(running) as services,
    ):
        await services.set_account_options(render="instant", pace_ms="0")
        await services.set_concurrency(1_000)
        yield running


async def failures(house: House, name: str, *options: str) -> str:
    """What schemathesis has to complain of; empty where nothing is wrong."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run"),
        f"{house.base_url}/openapi/{name}.json",
        # On a host of its own every path is the contract's, also where another one claims it too.
        *("--url", house.base_url, "-H", f"Host: {name}.example.com"),
        *("-H", f"Authorization: Bearer {house.key('test', name)}"),
        *("--seed", "1", "--no-color", "--generation-database", "none"),
        *options,
        # Nothing of the repository's is read, nothing is left in it.
        cwd=house.var,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode(errors="replace")
    return said if process.returncode else ""


@pytest.mark.parametrize("name", [contract.name for contract in CONTRACTS])
async def test_whatever_is_sent_is_answered_as_the_document_says(house: House, name: str) -> None:
    told = await failures(
        house,
        name,
        *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(_CASES_OF_AN_OPERATION)),
        *("--checks", "all", "--exclude-checks", _NOT_IN_SCHEMAS),
    )
    assert not told, told


async def test_the_house_has_a_key_for_every_contract(house: House) -> None:
    assert {contract.name for contract in CONTRACTS} == set(house.demo["storefronts"])
