"""An account at a provider is added once, asked of a pool over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from tests.integration.pool_process import CANARY, Pool, running

OPENAI = {"provider": "openai", "serves_test": False, "options": {}, "unchecked": True}


async def labels(pool: Pool) -> list[str]:
    return [one.label for one in (await pool.stub.ListAccounts(pb.ListAccountsRequest())).accounts]


async def test_of_simultaneous_accounts_with_one_key_one_is_made_and_the_others_are_told_which(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as pool:
        done = await asyncio.gather(*(pool.account(**OPENAI) for _ in range(5)), return_exceptions=True)
        (made,) = [one for one in done if isinstance(one, pb.Account)]
        refused = [one for one in done if isinstance(one, ServiceError)]
        assert [(one.kind, one.reason) for one in refused] == [
            (Kind.ALREADY_EXISTS, "CREDENTIALS_IN_USE")
        ] * 4
        for one in refused:
            assert one.metadata == {"label": made.label, "account_id": made.account_id}
            assert CANARY not in one.message
        assert await labels(pool) == [made.label]
        assert CANARY not in pool.log


async def test_other_credentials_may_not_be_another_account_s(tmp_path: Path) -> None:
    async with running(tmp_path) as pool:
        main = await pool.account(**OPENAI)
        other = await pool.account(**OPENAI | {"credentials": {"api_key": "another"}})
        request = pb.ReplaceCredentialsRequest(
            account_id=other.account_id, credentials={"api_key": CANARY}, unchecked=True
        )
        with pytest.raises(ServiceError) as refusal:
            await pool.stub.ReplaceCredentials(request)
        assert (refusal.value.reason, refusal.value.metadata["label"]) == ("CREDENTIALS_IN_USE", main.label)
        request.account_id = main.account_id
        await pool.stub.ReplaceCredentials(request)


async def test_a_pool_knows_the_accounts_of_before_from_its_start_on(tmp_path: Path) -> None:
    async with running(tmp_path) as pool:
        main = await pool.account(**OPENAI)
        await pool.account()
        assert await pool.stop() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "pool.db")) as database, database:
        database.execute("UPDATE accounts SET fingerprint = NULL")
    async with running(tmp_path) as pool:
        assert await pool.stop() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "pool.db")) as database:
        found = database.execute("SELECT account_id FROM accounts WHERE fingerprint IS NOT NULL").fetchall()
    assert found == [(main.account_id,)]
