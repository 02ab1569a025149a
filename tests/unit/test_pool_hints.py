"""Hints of providers: verified, never believed, and never more than one poll a second."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import ClassVar

import pytest
from prometheus_client import REGISTRY

from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.sealing import SealingKeys
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Context,
    Feature,
    Hint,
    OutputRef,
    Role,
    Snapshot,
    TaskRef,
    TaskState,
)
from services.provider_pool.attempts import hints
from services.provider_pool.attempts.hint_addresses import Addressee, HintAddresses
from services.provider_pool.attempts.hints import Hints
from tests.unit.test_pool_calls import Parts, ToyAdapter, breaks, database

__all__ = ["database"]

OLD, NEW = b"o" * 32, b"n" * 32
GOOD = {"x-signature": "good"}


class HintingAdapter(ToyAdapter):
    """One whose provider tells by itself: the body names tasks, separated by spaces."""

    features: ClassVar[frozenset[Feature]] = frozenset({Feature.HINTS})

    def __init__(self) -> None:
        super().__init__()
        self.hinted = 0

    async def hint(
        self, context: Context, account: AccountAccess, headers: Mapping[str, str], body: bytes
    ) -> Hint | None:
        self.hinted += 1
        if headers.get("x-signature") == "slow":
            await asyncio.sleep(60)
        if headers.get("x-signature") == "bug":
            raise RuntimeError("a bug")
        if headers.get("x-signature") == "away":
            raise interface.TransientFailure("no keys to verify with")
        if headers.get("x-signature") != "good":
            return None
        return Hint(tuple(body.decode().split()), headers.get("x-delivery", ""))


class Scene:
    """A pool that takes hints, and what it told those who watch."""

    def __init__(self, database: Database, adapter: ToyAdapter) -> None:
        self.toy = Parts(database, adapter)
        self.hints = Hints(
            HintAddresses(SealingKeys({"k": NEW}), "https://api.example.com"),
            database,
            self.toy.attempts,
            self.toy.accounts,
            self.toy.catalog,
            self.toy.polling,
            self.toy.clock,
        )
        self.told: list[str] = []
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async with aclosing(self.hints.announcements.watch()) as news:
            async for attempt_ids in news:
                self.told += attempt_ids

    async def take(self, url: str, body: bytes = b"", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.hints.take(url.rpartition("/")[2], GOOD | named, body)

    def url(self, attempt_id: str = "job_1:1") -> str:
        return self.hints.addresses.callback_url(attempt_id)

    async def heard(self, within_s: float = 0.1) -> list[str]:
        await asyncio.sleep(within_s)
        told, self.told = self.told, []
        return told

    async def close(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self.hints.announcements.close()
        await self.toy.close()


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
    scene = Scene(database, HintingAdapter())
    await scene.toy.account()
    await asyncio.sleep(0)
    yield scene
    await scene.close()


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("atelier_pool_hints_total", {"outcome": outcome}) or 0.0


def test_an_address_tells_a_reader_nothing_and_its_maker_whom_it_is_for() -> None:
    addresses = HintAddresses(SealingKeys({"k": NEW}), "https://api.example.com/")
    one, two = (addresses.callback_url("job_01abc:1") for _ in range(2))
    assert one != two
    for url in (one, two):
        assert re.fullmatch(r"https://api\.example\.com/hints/[A-Za-z0-9_-]{100,600}", url)
        assert "job" not in url
        assert addresses.addressee(url.rpartition("/")[2]) == Addressee("attempt", "job_01abc:1")
    account = addresses.account_url("acc_1").rpartition("/")[2]
    assert addresses.addressee(account) == Addressee("account", "acc_1")


def test_without_a_public_address_nobody_is_asked_to_say_anything() -> None:
    addresses = HintAddresses(SealingKeys({"k": NEW}), "")
    assert (addresses.callback_url("job_1:1"), addresses.account_url("acc_1")) == ("", "")


def test_a_token_that_was_changed_made_elsewhere_or_sealed_for_something_else_opens_nothing() -> None:
    keys = SealingKeys({"k": NEW})
    addresses = HintAddresses(keys, "https://api.example.com")
    token = addresses.callback_url("job_1:1").rpartition("/")[2]
    changed = [
        token[:turn] + ("A" if token[turn] != "A" else "B") + token[turn + 1 :]
        for turn in range(len(token) - 1)
    ]
    assert all(addresses.addressee(one) is None for one in changed)
    elsewhere = HintAddresses(SealingKeys({"k": OLD}), "https://api.example.com").callback_url("job_1:1")
    assert addresses.addressee(elsewhere.rpartition("/")[2]) is None
    for text in ("", "a", "é" * 120, token + "=", "a" * 200, token[:-2], token + "\n"):
        assert addresses.addressee(text) is None


def test_an_address_outlives_a_new_key_for_as_long_as_the_old_one_is_in_the_ring() -> None:
    token = HintAddresses(SealingKeys({"old": OLD}), "https://a.example").callback_url("job_1:1")[-1000:]
    token = token.rpartition("/")[2]
    both = HintAddresses(SealingKeys({"new": NEW, "old": OLD}), "https://a.example")
    assert both.addressee(token) == Addressee("attempt", "job_1:1")
    assert HintAddresses(SealingKeys({"new": NEW}), "https://a.example").addressee(token) is None


async def test_a_verified_hint_is_told_and_the_next_poll_asks_the_provider(scene: Scene) -> None:
    await scene.toy.submit("job_1:1")
    await scene.toy.polling.poll("job_1:1", 60_000)
    await scene.take(scene.url(), b"task of job_1:1")
    # The body names no task of ours, whole: it is split at spaces, as the toy has it.
    assert await scene.heard() == []
    await scene.take(scene.url())
    assert await scene.heard() == ["job_1:1"]
    assert len(scene.toy.adapter.polled) == 1
    progress = (await scene.toy.polling.poll("job_1:1", 60_000)).progress
    assert (len(scene.toy.adapter.polled), progress) == (2, 30)


@pytest.mark.parametrize("signature", ["bad", "bug", "away"])
async def test_a_forged_hint_is_told_to_nobody(scene: Scene, signature: str) -> None:
    await scene.toy.submit("job_1:1")
    before = counted("refused")
    await scene.take(scene.url(), x_signature=signature)
    assert await scene.heard() == []
    assert counted("refused") == before + 1


async def test_a_verification_that_takes_too_long_is_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_VERIFY_WITHIN_S", 0.05)
    await scene.toy.submit("job_1:1")
    await scene.take(scene.url(), x_signature="slow")
    assert await scene.heard() == []


async def test_an_unknown_address_is_refused_before_anything_is_looked_up(scene: Scene) -> None:
    other = HintAddresses(SealingKeys({"k": OLD}), "https://api.example.com")
    for url in ("https://x/hints/" + "a" * 150, other.callback_url("job_1:1"), scene.url("job_9:1")):
        with pytest.raises(ServiceError, match="UNKNOWN_HINT"):
            await scene.take(url)
    assert isinstance(scene.toy.adapter, HintingAdapter)
    assert scene.toy.adapter.hinted == 0


async def test_a_provider_that_sends_none_is_not_heard(database: Database) -> None:
    scene = Scene(database, ToyAdapter())
    await scene.toy.account()
    await scene.toy.submit("job_1:1")
    await scene.take(scene.url())
    assert await scene.heard() == []
    await scene.close()


async def test_a_repeated_delivery_costs_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "QUIET_S", 0.0)
    await scene.toy.submit("job_1:1")
    before = counted("duplicate")
    for _ in range(5):
        await scene.take(scene.url(), x_delivery="d1")
    assert await scene.heard() == ["job_1:1"]
    assert counted("duplicate") == before + 4
    await scene.take(scene.url(), x_delivery="d2")
    assert await scene.heard() == ["job_1:1"]


async def test_a_flood_is_told_once_in_a_while_and_its_last_hint_is_not_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "QUIET_S", 0.3)
    await scene.toy.submit("job_1:1")
    await scene.toy.submit("job_2:1")
    for _ in range(200):
        await scene.take(scene.url())
    await scene.take(scene.url("job_2:1"))
    assert sorted(await scene.heard(0.05)) == ["job_1:1", "job_2:1"]
    assert await scene.heard(0.5) == ["job_1:1"]
    assert await scene.heard(0.5) == []


async def test_an_account_s_address_is_for_all_of_its_tasks_and_for_no_other_s(
    scene: Scene,
) -> None:
    async def named(reference: str) -> interface.Submission:
        return interface.Submission(TaskRef(f"task-{reference}", 1))

    scene.toy.adapter.submitting = named
    for name in ("job_1:1", "job_2:1"):
        await scene.toy.submit(name)
    (account_id,) = await scene.toy.accounts.load()
    url = scene.hints.addresses.account_url(account_id)
    await scene.take(url, b"task-job_2:1 task-of-nobody")
    assert await scene.heard() == ["job_2:1"]
    await scene.take(url, b"")
    await scene.take(scene.hints.addresses.account_url("acc_of_nobody"), b"task-job_1:1")
    assert await scene.heard() == []


async def test_a_hint_about_what_has_ended_is_late(scene: Scene) -> None:
    async def done(task: TaskRef) -> Snapshot:
        return Snapshot(TaskState.SUCCEEDED, outputs=[OutputRef(Role.PRIMARY, "somewhere")])

    await scene.toy.submit("job_1:1")
    await scene.take(scene.url())
    scene.toy.adapter.polling = done
    await scene.toy.polling.poll("job_1:1", 0)
    await scene.heard()
    before = counted("late")
    await scene.take(scene.url())
    assert await scene.heard() == []
    assert counted("late") == before + 1
    # It came while the task ran, and that is written down; what came after it was over is not.
    events = (await scene.toy.attempts.history("job_1:1"))[1]
    assert [event.what for event in events].count("hinted") == 1
    assert events[-1].what == "ended"


async def test_a_hint_about_an_attempt_in_doubt_has_it_looked_for(scene: Scene) -> None:
    scene.toy.adapter.submitting = breaks
    await scene.toy.submit("job_1:1")
    await scene.take(scene.url(), b"task-that-nobody-has")
    assert await scene.heard() == ["job_1:1"]


async def test_more_than_can_be_verified_at_once_is_dropped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "AT_ONCE", 1)
    monkeypatch.setattr(hints, "_VERIFY_WITHIN_S", 0.2)
    await scene.toy.submit("job_1:1")
    before = counted("dropped")
    slow = asyncio.create_task(scene.take(scene.url(), x_signature="slow"))
    await asyncio.sleep(0.05)
    await scene.take(scene.url())
    await slow
    assert counted("dropped") == before + 1
    await scene.take(scene.url())
    assert await scene.heard() == ["job_1:1"]


async def test_a_watcher_that_leaves_is_forgotten(scene: Scene) -> None:
    async def first() -> list[str]:
        async with aclosing(scene.hints.announcements.watch()) as news:
            return await anext(news)

    leaving = asyncio.create_task(first())
    await asyncio.sleep(0.01)
    await scene.toy.submit("job_1:1")
    await scene.take(scene.url())
    assert await leaving == ["job_1:1"]
    assert await scene.heard() == ["job_1:1"]
    assert len(scene.hints.announcements._watchers) == 1
