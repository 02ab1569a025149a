"""Moving what is sealed to another key of the ring, on both engines: nothing is lost, and whoever changes a row wins."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from services.chassis import rewrapping
from services.chassis.database import Database, migrate
from services.chassis.sealing import SealBroken, SealingKeys, sealing_key_id
from services.chassis.settings import Secret
from services.jobs.settings import MIGRATIONS as JOBS_MIGRATIONS
from services.jobs.webhooks import endpoints
from services.jobs.webhooks.rewrapping import rewrap_secrets
from services.provider_pool.accounts import rewrapping as pool_rewrapping
from services.provider_pool.accounts.rewrapping import rewrap_accounts
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.selection.pool import Account
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import accounts as store
from services.provider_pool.store.accounts import AccountRecord

OLD, NEW, LOST = b"o" * 32, b"n" * 32, b"l" * 32
BEFORE, BOTH, AFTER = KeyRing({"old": OLD}), KeyRing({"new": NEW, "old": OLD}), KeyRing({"new": NEW})
ACCOUNTS = [f"acc_{number:03}" for number in range(7)]


def secrets(account_id: str) -> dict[str, Secret]:
    return {"api_key": Secret(f"key of {account_id}")}


def add(connection: Connection, account_id: str, ring: KeyRing) -> None:
    record = AccountRecord(Account(account_id, "sandbox"), account_id, {}, 1)
    store.insert_account(connection, record, ring.seal(account_id, secrets(account_id)))


@pytest.fixture
async def pool(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Accounts sealed under the old key, and pages of three."""
    monkeypatch.setattr(rewrapping, "PAGE", 3)
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    for account_id in ACCOUNTS:
        await database.write(partial(add, account_id=account_id, ring=BEFORE))
    yield database
    await database.close()


async def sealed(database: Database) -> dict[str, bytes]:
    return dict(await database.read(lambda connection: store.load_sealed_page(connection, "", 100)))


async def test_all_credentials_open_under_the_new_key_alone_afterwards(pool: Database) -> None:
    done = await rewrap_accounts(pool, BOTH)
    assert (done.moved, done.already, done.broken) == (7, 0, ())
    for account_id, value in (await sealed(pool)).items():
        assert AFTER.open(account_id, value) == secrets(account_id)
    again = await rewrap_accounts(pool, BOTH)
    assert (again.moved, again.already) == (0, 7)


async def test_a_rewrap_that_was_interrupted_goes_on_where_it_was(
    pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = 0
    replaced = pool_rewrapping._replaced

    def dies(connection: Connection, wanted: Sequence[rewrapping.Replacement[bytes]]) -> list[str]:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise KeyError("killed")
        return replaced(connection, wanted)

    monkeypatch.setattr(pool_rewrapping, "_replaced", dies)
    with pytest.raises(KeyError):
        await rewrap_accounts(pool, BOTH)
    done = await rewrap_accounts(pool, BOTH)
    assert (done.moved, done.already) == (4, 3)


async def test_what_does_not_open_is_named_and_left_alone(pool: Database) -> None:
    lost = KeyRing({"lost": LOST})
    await pool.write(lambda connection: add(connection, "acc_lost", lost))
    before = (await sealed(pool))["acc_lost"]
    done = await rewrap_accounts(pool, BOTH)
    assert done.moved == 7
    (told,) = done.broken
    assert "acc_lost" in told
    assert "key of" not in done.as_text()
    assert (await sealed(pool))["acc_lost"] == before


@pytest.mark.parametrize("ring", [BEFORE, AFTER], ids=["a process of before", "a new process"])
async def test_credentials_that_are_replaced_meanwhile_are_the_ones_that_stay(
    pool: Database, monkeypatch: pytest.MonkeyPatch, ring: KeyRing
) -> None:
    fresh = {"api_key": Secret("another")}
    replaced = pool_rewrapping._replaced
    raced = False

    def late(connection: Connection, wanted: Sequence[rewrapping.Replacement[bytes]]) -> list[str]:
        nonlocal raced
        if not raced:
            raced = True
            store.save_sealed(connection, "acc_001", ring.seal("acc_001", fresh))
        return replaced(connection, wanted)

    monkeypatch.setattr(pool_rewrapping, "_replaced", late)
    done = await rewrap_accounts(pool, BOTH)
    assert (done.moved + done.already, done.broken) == (7, ())
    found = await sealed(pool)
    assert AFTER.open("acc_001", found["acc_001"]) == fresh
    assert {sealing_key_id(value) for value in found.values()} == {"new"}


async def test_webhook_secrets_and_those_that_overlap_them_are_moved(
    engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "PAGE", 3)
    old, both = SealingKeys({"old": OLD}), SealingKeys({"new": NEW, "old": OLD})
    await migrate(engine_url, JOBS_MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")

    def rotate(customer_id: str, now_ms: int) -> Callable[[Connection], tuple[endpoints.Endpoint, Secret]]:
        return lambda connection: endpoints.rotate(connection, old, customer_id, 10_000, now_ms)

    try:
        made = {}
        for customer_id in [f"cus_{number}" for number in range(5)]:
            _, first = await database.write(rotate(customer_id, 1))
            _, second = await database.write(rotate(customer_id, 2))
            made[customer_id] = [second, first]
        await database.write(lambda connection: endpoints.set_url(connection, "cus_x", "https://example.com"))
        done = await rewrap_secrets(database, both)
        assert (done.moved, done.already, done.broken) == (5, 0, ())
        found = await database.read(lambda connection: endpoints.load(connection, made))
        alone = SealingKeys({"new": NEW})
        assert {name: endpoints.active(alone, one, 3) for name, one in found.items()} == made
        with pytest.raises(SealBroken):
            endpoints.active(old, found["cus_1"], 3)
        assert (await rewrap_secrets(database, both)).already == 5
    finally:
        await database.close()


async def test_the_command_says_what_it_did_and_fails_where_something_does_not_open(tmp_path: Path) -> None:
    url, ring_file = f"sqlite:///{tmp_path / 'pool.db'}", tmp_path / "ring"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="conformance")
    await database.write(lambda connection: add(connection, "acc_1", BEFORE))
    await database.close()

    async def rewrap(**keys: bytes) -> tuple[int | None, str]:
        lines = [f"{name} {base64.b64encode(key).decode()}\n" for name, key in keys.items()]
        ring_file.write_text("".join(lines))
        environ = {"ATELIER_POOL_DATABASE_URL": url, "ATELIER_POOL_VAULT_KEY_RING_FILE": str(ring_file)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.provider_pool",
            "rewrap",
            env={**os.environ, **environ},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()

    code, out = await rewrap(new=NEW, old=OLD)
    assert (code, out) == (0, "1 moved to the key that seals now, 0 were under it already\n")
    assert await rewrap(new=NEW) == (0, "0 moved to the key that seals now, 1 were under it already\n")
    code, out = await rewrap(lost=LOST)
    assert code == 1
    assert "acc_1" in out
