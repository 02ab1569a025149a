"""An account at a provider is added once, on both engines, whatever happens to the ring that its fingerprint is made under."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from services.chassis.database import Database, migrate
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.provider_pool.accounts.registry import Accounts, Terms
from services.provider_pool.accounts.rewrapping import rewrap_accounts
from services.provider_pool.accounts.vault import KeyRing
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.openai.adapter import OpenAIAdapter
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.catalog import Catalog
from services.provider_pool.schema import ACCOUNTS
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import accounts as store
from tests.clocks import HandClock

OLD, NEW = b"o" * 32, b"n" * 32
BEFORE, BELOW = KeyRing({"old": OLD}), KeyRing({"old": OLD, "new": NEW})
ABOVE, AFTER = KeyRing({"new": NEW, "old": OLD}), KeyRing({"new": NEW})
KEY = "canary-4711"
COMPATIBLE = "https://api.example.com/v1"


class Office:
    """What one replica of the pool knows of accounts."""

    def __init__(self, database: Database, catalog: Catalog, ring: KeyRing = BEFORE) -> None:
        clock = HandClock()
        self.database, self.catalog = database, catalog
        self.accounts = Accounts(database, ring, catalog, clock, Capacity(database, catalog, clock))

    def with_ring(self, ring: KeyRing) -> Office:
        return Office(self.database, self.catalog, ring)

    async def add(
        self,
        label: str,
        key: str = KEY,
        *,
        provider: str = "openai",
        more: Mapping[str, str] | None = None,
        **options: str,
    ) -> str:
        terms = Terms(concurrency_limit=1, balance_millis=1, options=options)
        record = await self.accounts.create(provider, label, secrets(key, **more or {}), terms)
        return record.account.account_id

    async def refuses(self, label: str, key: str = KEY, **options: Any) -> ServiceError:
        with pytest.raises(ServiceError) as refusal:
            await self.add(label, key, **options)
        assert refusal.value.reason == "CREDENTIALS_IN_USE"
        return refusal.value

    async def labels(self) -> list[str]:
        return [record.label for record in await self.accounts.list()]

    async def fingerprints(self) -> dict[str, str | None]:
        rows = await self.database.read(store.load_fingerprints)
        return {row.label: row.fingerprint for row in rows}

    async def forget_fingerprints(self) -> None:
        """As a release that knew none left them, or one that still runs beside this."""

        def work(connection: Connection) -> None:
            connection.execute(update(ACCOUNTS).values(fingerprint=None))

        await self.database.write(work)

    async def add_unrecognised(self, label: str, key: str = KEY) -> str:
        """As a release that knew no fingerprints added accounts, also one account twice."""
        account_id = await self.add(label, f"unlike {key} {label}")
        sealed = BEFORE.seal(account_id, secrets(key))
        await self.database.write(partial(store.save_sealed, account_id=account_id, sealed=sealed))
        return account_id


def secrets(key: str, **more: str) -> dict[str, Secret]:
    return {name: Secret(value) for name, value in ({"api_key": key} | more).items()}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1), OpenAIAdapter(), FalAdapter()])


@pytest.fixture
async def office(engine_url: str, catalog: Catalog) -> AsyncIterator[Office]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    yield Office(database, catalog)
    await database.close()


async def test_a_key_that_an_account_has_is_refused_with_that_account_s_label(office: Office) -> None:
    first = await office.add("main")
    refusal = await office.refuses("second")
    assert dict(refusal.metadata) == {"label": "main", "account_id": first}
    assert '"main"' in refusal.message
    assert KEY not in refusal.message + str(refusal.metadata)
    assert await office.labels() == ["main"]


async def test_spaces_around_a_key_and_another_spelling_of_the_address_do_not_make_another_account(
    office: Office,
) -> None:
    await office.add("official")
    await office.refuses("spaces", f" {KEY}\n")
    await office.refuses("spelled out", base_url="https://API.openai.com:443/v1/")
    await office.add("compatible", base_url=COMPATIBLE)
    await office.refuses("compatible again", base_url=f"{COMPATIBLE}/")
    await office.refuses("other options", project="another")


async def test_the_same_key_at_another_provider_or_address_is_another_account(office: Office) -> None:
    await office.add("official")
    await office.add("compatible", base_url=COMPATIBLE)
    await office.add("fal", provider="fal")
    assert await office.labels() == ["official", "compatible", "fal"]


async def test_what_does_not_identify_an_account_may_be_shared(office: Office) -> None:
    await office.add("first", "one", provider="fal", more={"admin_key": "shared"})
    await office.add("second", "two", provider="fal", more={"admin_key": "shared"})
    with pytest.raises(ServiceError, match="CREDENTIALS_IN_USE"):
        await office.add("third", "two", provider="fal", more={"admin_key": "own"})
    await office.add("fourth", "shared", provider="fal", more={"admin_key": "one"})


async def test_sandbox_accounts_share_a_key_or_have_none(office: Office) -> None:
    for number in range(3):
        await office.add(f"shared {number}", provider="sandbox")
    terms = Terms(concurrency_limit=1, balance_millis=0)
    for number in range(2):
        await office.accounts.create("sandbox", f"none {number}", {}, terms)
    await office.accounts.recognise()
    assert set((await office.fingerprints()).values()) == {None}


async def test_a_label_that_is_taken_is_told_as_such(office: Office) -> None:
    await office.add("main")
    with pytest.raises(ServiceError, match="ACCOUNT_EXISTS"):
        await office.add("main", "another")


async def test_other_credentials_may_not_be_those_of_another_account(office: Office) -> None:
    await office.add("main")
    second = await office.add("second", "another")
    with pytest.raises(ServiceError, match="CREDENTIALS_IN_USE") as refusal:
        await office.accounts.replace_credentials(second, secrets(KEY))
    assert refusal.value.metadata["label"] == "main"
    assert (await office.accounts.access(second)).secrets == secrets("another")
    await office.accounts.replace_credentials(second, secrets("another"))
    await office.accounts.replace_credentials(second, secrets("a third"))
    await office.add("third", "another")
    await office.refuses("fourth", "a third")


async def test_an_account_may_not_move_to_an_address_where_another_has_its_key(office: Office) -> None:
    await office.add("official")
    moving = await office.add("compatible", base_url=COMPATIBLE)
    with pytest.raises(ServiceError, match="CREDENTIALS_IN_USE"):
        await office.accounts.update(moving, Terms(options={"project": "p"}))
    assert (await office.accounts.get(moving)).options == {"base_url": COMPATIBLE}
    await office.accounts.update(moving, Terms(options={"base_url": "https://eu.example.com/v1"}))
    await office.add("at the old address", base_url=COMPATIBLE)
    await office.refuses("at the new one", base_url="https://eu.example.com/v1")


async def test_of_simultaneous_additions_of_one_key_one_is_made(
    office: Office, engine_url: str, catalog: Catalog
) -> None:
    # One SQLite file has one process.
    is_alone = engine_url.startswith("sqlite")
    other = office.database if is_alone else await Database.open(engine_url, application_name="another")
    offices = [office, Office(other, catalog)]
    try:
        done = await asyncio.gather(
            *(offices[turn % 2].add(f"account {turn}") for turn in range(10)), return_exceptions=True
        )
    finally:
        if not is_alone:
            await other.close()
    (made,) = await office.labels()
    refused = [one for one in done if isinstance(one, ServiceError)]
    assert len(refused) == 9
    assert {(one.reason, one.metadata["label"]) for one in refused} == {("CREDENTIALS_IN_USE", made)}


async def test_of_simultaneous_replacements_by_one_key_one_is_made(office: Office) -> None:
    ids = [await office.add(f"account {turn}", f"key {turn}") for turn in range(5)]
    done = await asyncio.gather(
        *(office.accounts.replace_credentials(one, secrets(KEY)) for one in ids), return_exceptions=True
    )
    assert [one.reason for one in done if isinstance(one, ServiceError)] == ["CREDENTIALS_IN_USE"] * 4
    opened = [(await office.accounts.access(one)).secrets["api_key"].reveal() for one in ids]
    assert opened.count(KEY) == 1


async def test_the_index_alone_refuses_a_twin(office: Office) -> None:
    await office.add("main")
    (fingerprint,) = (await office.fingerprints()).values()
    record = office.accounts.draft("openai", "second", secrets(KEY), Terms(concurrency_limit=1))
    assert not await office.database.write(
        lambda connection: store.insert_account(connection, record, b"", fingerprint)
    )


async def test_accounts_from_before_are_known_after_a_start(office: Office) -> None:
    await office.add_unrecognised("main")
    await office.add("sandbox", provider="sandbox")
    await office.forget_fingerprints()
    await office.accounts.recognise()
    assert [label for label, one in (await office.fingerprints()).items() if one] == ["main"]
    await office.refuses("second")


async def test_an_account_that_another_release_adds_meanwhile_is_known_without_a_start(
    office: Office,
) -> None:
    await office.add_unrecognised("main")
    refusal = await office.refuses("second")
    assert refusal.metadata["label"] == "main"


async def test_twins_from_before_stay_and_are_told_of(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await office.add_unrecognised("first"), await office.add_unrecognised("second")
    with caplog.at_level(logging.WARNING):
        await office.accounts.recognise()
    (told,) = [line for line in caplog.records if line.getMessage() == "account.added_twice"]
    named = {vars(told)["account_id"], vars(told)["other_account_id"]}
    assert named == {first, second}
    await office.refuses("third")
    # What is no matter of its key goes on as before.
    await office.accounts.update(second, Terms(priority=3, options={"project": "p"}))
    await office.accounts.replace_credentials(first, secrets("another"))
    assert (await office.refuses("third")).metadata["label"] == "second"


async def test_comparing_opens_no_seal(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        await office.add(f"account {number}", f"key {number}")
    opened: list[str] = []
    monkeypatch.setattr(KeyRing, "open", lambda _, row_id, sealed: opened.append(row_id))
    await office.refuses("again", "key 3")
    await office.add("one more", "another")
    assert opened == []


async def test_a_key_is_known_again_in_every_step_of_a_change_of_the_ring(office: Office) -> None:
    await office.add("main")
    for ring in (BEFORE, BELOW, ABOVE):
        await office.with_ring(ring).refuses("again")
    # Replicas that were not started yet seal under the old key; each knows what the other added.
    await office.with_ring(ABOVE).add("newly sealed", "second key")
    await office.with_ring(BELOW).refuses("again", "second key")
    await office.with_ring(BELOW).add("sealed as before", "third key")
    await office.with_ring(ABOVE).refuses("again", "third key")
    assert (await rewrap_accounts(office.database, ABOVE)).broken == ()
    after = office.with_ring(AFTER)
    await after.accounts.recognise()
    assert all(one and one.startswith("new:") for one in (await office.fingerprints()).values())
    for key in (KEY, "second key", "third key"):
        await after.refuses("again", key)


async def test_a_key_is_known_again_without_a_start_after_the_old_one_has_left_the_ring(
    office: Office,
) -> None:
    await office.add("main")
    await rewrap_accounts(office.database, ABOVE)
    await office.with_ring(AFTER).refuses("again")


async def test_credentials_that_do_not_open_keep_nobody_from_adding_accounts(office: Office) -> None:
    lost = await office.add("lost")
    before = await office.fingerprints()
    stranger = office.with_ring(AFTER)
    await stranger.accounts.recognise()
    assert await office.fingerprints() == before
    await stranger.add("main")
    await stranger.refuses("again")
    await stranger.accounts.replace_credentials(lost, secrets("another"))
    await stranger.refuses("again", "another")


async def test_a_leaked_fingerprint_does_not_say_whose_it_is(office: Office, catalog: Catalog) -> None:
    await office.add("main")
    (mine,) = (await office.fingerprints()).values()
    identity = catalog.adapter("openai").identity({}, secrets(KEY))
    assert mine is not None
    assert identity is not None
    assert KEY not in repr(identity)
    of_others = KeyRing({"old": NEW}).fingerprint("openai", identity)
    assert mine == BEFORE.fingerprint("openai", identity) != of_others
    assert BEFORE.fingerprint("fal", identity) != mine
