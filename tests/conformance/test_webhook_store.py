from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection

from services.chassis.database import Database, migrate
from services.chassis.sealing import SealBroken, SealingKeys
from services.jobs.errors import LeaseLostError
from services.jobs.job import Job, JobState, Output
from services.jobs.settings import MIGRATIONS
from services.jobs.store import JobStore, Wish
from services.jobs.webhooks import deliveries, endpoints
from services.jobs.webhooks.deliveries import Attempt, Attempted, Delivery, DeliveryFilter, delivery_of
from services.jobs.webhooks.forms import Form
from services.jobs.webhooks.lanes import Due, line_of
from services.jobs.webhooks.outbox import Row
from services.jobs.webhooks.schedule import State
from services.jobs.webhooks.store import WebhookStore
from tests.jobs_rows import NOW_MS, a_job

OUTPUT = Output(1, "job_1/primary.png", "image/png", 10, "ab", 640, 480, 0)
FORM = Form(
    "leonardo",
    json.dumps({"id": {"$": "job_id"}, "url": {"$": "media:primary"}}),
    json.dumps({"id": {"$": "job_id"}, "why": {"$": "failure_message"}}),
    {0: "It failed."},
    {},
)
CALLBACK = "https://one.example.com/hook?token=secret"
ENDPOINT = "https://two.example.com:8443/hook"
DAY_MS = 86_400_000
ALL = DeliveryFilter("", "", None, "", 1000)
KEYS = SealingKeys({"k1": b"k" * 32})


class Shelf:
    """The stores of one database, and a way for jobs to end in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.jobs = JobStore(database)
        self.hooks = WebhookStore(database)
        self.told: list[Sequence[Row]] = []
        self.roomy = False
        self.jobs.outbox.tells(self)

    def has_room(self, due: Due) -> bool:
        return self.roomy

    def made(self, rows: Sequence[Row]) -> None:
        self.told.append(rows)

    async def ends(self, *job_ids: str, **given: Any) -> list[Job]:
        """These jobs, ended."""
        form_id = await self.hooks.put_form(FORM, NOW_MS)
        ended = []
        for job_id in job_ids:
            job = a_job(job_id, **{"webhook_form_id": form_id} | given)
            await self.jobs.admit(job, 1000)
            running = await self.jobs.commit(
                job, job_with(job, state=JobState.SETTLING, version=job.version + 1)
            )
            ended.append(await self.jobs.commit(running, finished(running)))
        return ended

    async def due(self, now_ms: int = NOW_MS + 10_000) -> list[str]:
        return [one.delivery_id for one in await self.hooks.due(now_ms, [], [], 100)]

    async def all(self) -> list[Delivery]:
        return await self.hooks.list_deliveries(ALL)

    async def claimed(self, worker: str = "w1", now_ms: int = NOW_MS + 10_000) -> list[Delivery]:
        return await self.hooks.claim(worker, await self.hooks.due(now_ms, [], [], 100), now_ms)


def job_with(job: Job, **changes: Any) -> Job:
    return replace(job, **changes)


def finished(job: Job) -> Job:
    return job_with(
        job,
        state=JobState.COMPLETED,
        version=job.version + 1,
        owner=None,
        ended_at_ms=NOW_MS + 5_000,
        outputs=(OUTPUT,),
        media_expires_at_ms=NOW_MS + 7 * DAY_MS,
    )


def tried(
    delivery: Delivery, state: State = State.WAITING, status: int = 500, next_ms: int = NOW_MS + 20_000
) -> Attempted:
    attempt = Attempt(delivery.attempts + 1, NOW_MS + 10_000, 12, status, "" if status == 200 else "status")
    waiting = state is State.WAITING
    return Attempted(delivery, attempt, state, next_ms if waiting else 0, 0 if waiting else NOW_MS + 10_012)


@pytest.fixture
async def shelf(engine_url: str) -> AsyncIterator[Shelf]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="jobs")
    shelf = Shelf(database)
    for worker in ("w1", "w2"):
        await shelf.jobs.register(worker, "here")
    yield shelf
    await shelf.hooks.close()
    await shelf.jobs.close()
    await database.close()


async def test_a_job_s_end_and_the_promise_to_tell_are_one_transaction(shelf: Shelf) -> None:
    await shelf.hooks.set_url("cus_a", ENDPOINT)
    await shelf.ends("job_1", callback_url=CALLBACK)
    found = await shelf.all()
    assert {one.url for one in found} == {CALLBACK, ENDPOINT}
    assert {one.receiver for one in found} == {"one.example.com:443", "two.example.com:8443"}
    assert all(one.body == ['{"id":"job_1","url":', "job_1/primary.png", "}"] for one in found)
    assert len(shelf.told) == 1


async def test_the_same_end_again_promises_nothing_more(shelf: Shelf) -> None:
    (ended,) = await shelf.ends("job_1", callback_url=CALLBACK)
    before = job_with(ended, state=JobState.SETTLING, version=ended.version - 1, owner="w1", ended_at_ms=0)
    await shelf.jobs.commit(before, ended)
    assert len(await shelf.all()) == 1


async def test_an_end_that_is_refused_promises_nothing(shelf: Shelf) -> None:
    job = a_job(callback_url=CALLBACK, webhook_form_id=await shelf.hooks.put_form(FORM, NOW_MS))
    await shelf.jobs.admit(job, 1000)
    stale = job_with(job, owner="w2")
    with pytest.raises(LeaseLostError):
        await shelf.jobs.commit(stale, finished(stale))
    assert await shelf.all() == []


async def test_where_there_is_room_a_delivery_is_from_its_beginning_whoever_s_ended_the_job(
    shelf: Shelf,
) -> None:
    shelf.roomy = True
    (job,) = await shelf.ends("job_1", callback_url=CALLBACK, owner="w1")
    (row,) = shelf.told[0]
    made = delivery_of(row)
    assert (made.job_id, made.owner, made.epoch) == (job.job_id, "w1", 1)
    assert await shelf.due() == []
    assert await shelf.all() == [made]
    await shelf.hooks.commit(tried(made, State.DELIVERED, 200))
    assert [one.state for one in await shelf.all()] == [State.DELIVERED]


async def test_what_is_made_for_somebody_who_dies_at_once_is_due_again(shelf: Shelf) -> None:
    shelf.roomy = True
    await shelf.ends("job_1", callback_url=CALLBACK, owner="w1")
    await shelf.jobs.hand_over("w1")
    (delivery,) = await shelf.claimed("w2")
    assert (delivery.owner, delivery.epoch) == ("w2", 2)


async def test_an_end_that_is_not_committed_tells_nobody(shelf: Shelf) -> None:
    shelf.roomy = True
    form_id = await shelf.hooks.put_form(FORM, NOW_MS)
    job = a_job("job_1", webhook_form_id=form_id, callback_url=CALLBACK)
    await shelf.jobs.admit(job, 1000)
    with pytest.raises(LeaseLostError):
        await shelf.jobs.commit(job_with(job, epoch=7), finished(job_with(job, epoch=7)))
    assert shelf.told == []
    assert await shelf.all() == []


async def test_where_nobody_is_to_be_told_nothing_is_made_and_nobody_woken(shelf: Shelf) -> None:
    await shelf.ends("job_1")
    await shelf.ends("job_2", webhook_form_id="", callback_url=CALLBACK)
    assert await shelf.all() == []
    assert shelf.told == []


async def test_one_address_is_told_once_though_it_is_named_twice(shelf: Shelf) -> None:
    await shelf.hooks.set_url("cus_a", CALLBACK)
    await shelf.ends("job_1", callback_url=CALLBACK)
    assert len(await shelf.all()) == 1


async def test_the_endpoint_is_the_one_that_is_set_when_the_job_ends(shelf: Shelf) -> None:
    await shelf.hooks.set_url("cus_a", CALLBACK)
    await shelf.hooks.set_url("cus_a", ENDPOINT)
    await shelf.hooks.set_url("cus_b", CALLBACK)
    await shelf.ends("job_1")
    await shelf.hooks.set_url("cus_a", "")
    await shelf.ends("job_2")
    assert [one.url for one in await shelf.all()] == [ENDPOINT]


async def test_a_delivery_is_one_worker_s_at_a_time(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    offered = await shelf.hooks.due(NOW_MS + 10_000, [], [], 100)
    (mine,) = await shelf.hooks.claim("w1", offered, NOW_MS + 10_000)
    assert (mine.owner, mine.epoch) == ("w1", 1)
    assert await shelf.hooks.claim("w2", offered, NOW_MS + 10_000) == []
    assert await shelf.due() == []


async def test_a_worker_that_was_declared_dead_claims_nothing(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    assert await shelf.claimed("nobody") == []
    assert len(await shelf.due()) == 1


async def test_what_is_not_due_is_neither_offered_nor_claimed(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    offered = await shelf.hooks.due(NOW_MS + 10_000, [], [], 100)
    assert await shelf.due(NOW_MS) == []
    assert await shelf.hooks.claim("w1", offered, NOW_MS) == []


async def test_full_lines_and_customers_are_left_out(shelf: Shelf) -> None:
    for customer in ("cus_a", "cus_b"):
        await shelf.ends(f"job_{customer}", callback_url=CALLBACK, customer_id=customer)
    await shelf.ends("job_3", callback_url=ENDPOINT)

    async def left(lines: Sequence[str], customers: Sequence[str]) -> set[tuple[str, str]]:
        found = await shelf.hooks.due(NOW_MS + 10_000, lines, customers, 100)
        return {(one.customer_id, one.receiver) for one in found}

    theirs = ("cus_b", "one.example.com:443")
    assert await left([line_of("cus_a", "one.example.com:443")], []) == {
        ("cus_a", "two.example.com:8443"),
        theirs,
    }
    assert await left([], ["cus_a"]) == {theirs}
    assert await left([line_of(*theirs)], ["cus_a"]) == set()


async def test_on_sqlite_a_long_line_is_passed_without_reading_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="jobs")

    def plan(connection: Connection) -> str:
        spelled = deliveries._DUE.spelled(connection.dialect)
        given = spelled.parameters({"now_ms": 1, "lines": ["c a:1"], "customers": [], "most": 10})
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {spelled.sql}", given)
        return " ".join(row[3] for row in rows)

    try:
        assert "COVERING INDEX ix_webhook_deliveries_due" in await database.read(plan)
    finally:
        await database.close()


async def test_the_longest_due_comes_first(shelf: Shelf) -> None:
    await shelf.ends("job_1", "job_2", "job_3", callback_url=CALLBACK)
    for delivery, wait_ms in zip(await shelf.claimed(), (3, 1, 2), strict=True):
        await shelf.hooks.commit(tried(delivery, next_ms=NOW_MS + wait_ms))
    order = [one.delivery_id for one in await shelf.hooks.due(NOW_MS + 10, [], [], 2)]
    by_wait = sorted(await shelf.all(), key=lambda one: one.next_attempt_at_ms)
    assert order == [one.delivery_id for one in by_wait[:2]]


async def test_an_attempt_is_logged_and_the_delivery_free_for_the_next(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    await shelf.hooks.commit(tried(mine))
    (after,) = await shelf.all()
    assert (after.state, after.owner, after.attempts, after.tries) == (State.WAITING, None, 1, 1)
    assert (after.last_status, after.last_error, after.next_attempt_at_ms) == (500, "status", NOW_MS + 20_000)
    assert await shelf.due(NOW_MS + 19_999) == []
    (again,) = await shelf.claimed(now_ms=NOW_MS + 20_000)
    await shelf.hooks.commit(tried(again, State.DELIVERED, 200))
    attempts = list(await shelf.hooks.list_attempts(after.delivery_id) or ())
    assert [(one.number, one.status, one.error) for one in attempts] == [(1, 500, "status"), (2, 200, "")]
    assert await shelf.due(NOW_MS + DAY_MS) == []


async def test_who_was_replaced_writes_nothing(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    await shelf.hooks.free("w1", {mine.delivery_id: mine.epoch})
    (theirs,) = await shelf.claimed("w2")
    with pytest.raises(LeaseLostError):
        await shelf.hooks.commit(tried(mine, State.DELIVERED, 200))
    await shelf.hooks.commit(tried(theirs))
    (after,) = await shelf.all()
    assert after.state is State.WAITING
    assert after.attempts == 1


async def test_the_same_attempt_written_twice_is_written_once(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    await shelf.hooks.commit(tried(mine))
    with pytest.raises(LeaseLostError):
        await shelf.hooks.commit(tried(mine))
    (after,) = await shelf.all()
    assert after.attempts == 1


async def test_only_strays_of_this_worker_and_epoch_are_freed(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    await shelf.hooks.free("w2", {mine.delivery_id: mine.epoch})
    await shelf.hooks.free("w1", {mine.delivery_id: mine.epoch - 1})
    assert await shelf.hooks.owned("w1") == {mine.delivery_id: mine.epoch}


@pytest.mark.parametrize("leaving", ["reaped", "handed over", "taken over"])
async def test_what_the_dead_and_the_leaving_were_sending_is_due_at_once(shelf: Shelf, leaving: str) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    if leaving == "reaped":
        await shelf.jobs.reap(-1_000)
    elif leaving == "handed over":
        await shelf.jobs.hand_over("w1")
    else:
        await shelf.jobs.take_over("w2")
    assert await shelf.due() == [mine.delivery_id]


async def test_the_links_of_a_delivery_are_the_same_until_they_have_less_than_a_day(shelf: Shelf) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    until = []
    for hours in (0, 40, 71, 73):
        now_ms = NOW_MS + 10_000 + hours * 3_600_000
        (mine,) = await shelf.claimed(now_ms=now_ms)
        until.append(mine.links_until_ms)
        await shelf.hooks.commit(tried(mine, next_ms=now_ms))
    first = NOW_MS + 10_000 + 4 * DAY_MS
    # In the end no longer than the media are kept.
    assert until == [first, first, first, NOW_MS + 7 * DAY_MS]


@pytest.mark.parametrize("state", [State.DELIVERED, State.DEAD, State.WAITING])
async def test_whatever_became_of_a_delivery_it_can_be_sent_again_from_the_beginning(
    shelf: Shelf, state: State
) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    await shelf.hooks.commit(tried(mine, state))
    after = await shelf.hooks.resend(mine.delivery_id, NOW_MS + 11_000)
    assert after is not None
    assert (after.state, after.tries, after.attempts) == (State.WAITING, 0, 1)
    assert await shelf.due(NOW_MS + 11_000) == [mine.delivery_id]


@pytest.mark.parametrize(
    ("state", "status"), [(State.DELIVERED, 200), (State.DEAD, 410), (State.WAITING, 500)]
)
async def test_what_is_wanted_again_while_it_is_sent_is_sent_once_more_from_the_beginning(
    shelf: Shelf, state: State, status: int
) -> None:
    await shelf.ends("job_1", callback_url=CALLBACK)
    (mine,) = await shelf.claimed()
    await shelf.hooks.resend(mine.delivery_id, NOW_MS + 10_005)
    assert await shelf.due(NOW_MS + 10_005) == []
    await shelf.hooks.commit(tried(mine, state, status))
    (after,) = await shelf.all()
    assert (after.state, after.tries, after.attempts, after.last_status) == (State.WAITING, 0, 1, status)
    assert await shelf.due(NOW_MS + 10_005) == [mine.delivery_id]


async def test_what_was_to_be_told_of_a_deleted_job_is_forgotten_with_it(shelf: Shelf) -> None:
    await shelf.hooks.set_url("cus_a", ENDPOINT)
    await shelf.ends("job_1", "job_2", callback_url=CALLBACK)
    sent, *_ = claimed = await shelf.claimed()
    deleted = [one for one in claimed if one.job_id == sent.job_id]
    await shelf.hooks.commit(tried(sent, State.DELIVERED, 200))
    await shelf.jobs.wish(Wish(sent.job_id, "cus_a", "test", True, NOW_MS))
    await shelf.jobs.scrub([sent.job_id], NOW_MS)
    assert {one.job_id for one in await shelf.all()} == {"job_1", "job_2"} - {sent.job_id}
    assert await shelf.hooks.list_attempts(sent.delivery_id) is None
    # The other of its two was being sent at that moment.
    with pytest.raises(LeaseLostError):
        await shelf.hooks.commit(tried(deleted[1]))


async def test_there_is_nothing_to_send_again_where_there_is_no_delivery(shelf: Shelf) -> None:
    assert await shelf.hooks.resend("whd_none", NOW_MS) is None
    assert await shelf.hooks.list_attempts("whd_none") is None


async def test_deliveries_are_listed_newest_first_and_by_what_is_asked(shelf: Shelf) -> None:
    await shelf.ends("job_1", "job_2", callback_url=CALLBACK)
    await shelf.ends("job_3", callback_url=CALLBACK, customer_id="cus_b")
    (first, *_) = await shelf.claimed()
    await shelf.hooks.commit(tried(first, State.DEAD))

    async def listed(
        customer: str = "", job: str = "", state: State | None = None, before: str = ""
    ) -> list[str]:
        wanted = DeliveryFilter(customer, job, state, before, 10)
        return [one.delivery_id for one in await shelf.hooks.list_deliveries(wanted)]

    everything = await listed()
    assert everything == sorted(everything, reverse=True)
    assert await listed(customer="cus_a") == everything[1:]
    assert await listed(job="job_3") == everything[:1]
    assert await listed(state=State.DEAD) == [first.delivery_id]
    assert await listed(before=everything[1]) == everything[2:]


async def test_the_age_of_the_line_is_that_of_the_longest_due(shelf: Shelf) -> None:
    assert await shelf.hooks.oldest_due_ms(NOW_MS + DAY_MS) == 0
    await shelf.ends("job_1", callback_url=CALLBACK)
    assert await shelf.hooks.oldest_due_ms(NOW_MS) == 0
    assert await shelf.hooks.oldest_due_ms(NOW_MS + DAY_MS) == NOW_MS + 5_000


async def test_only_what_ended_long_ago_is_forgotten_with_its_log(shelf: Shelf) -> None:
    await shelf.ends("job_1", "job_2", "job_3", callback_url=CALLBACK)
    old, dead, waiting = await shelf.claimed()
    await shelf.hooks.commit(tried(old, State.DELIVERED, 200))
    await shelf.hooks.commit(tried(dead, State.DEAD))
    await shelf.hooks.commit(tried(waiting))
    assert await shelf.hooks.sweep(NOW_MS + 10_012) == 0
    assert await shelf.hooks.sweep(NOW_MS + 10_013) == 2
    assert [one.delivery_id for one in await shelf.all()] == [waiting.delivery_id]
    assert await shelf.hooks.list_attempts(old.delivery_id) is None


async def test_a_secret_opens_for_its_own_customer_only_and_is_kept_sealed(shelf: Shelf) -> None:
    endpoint, secret = await shelf.hooks.rotate(KEYS, "cus_a", 0, NOW_MS)
    assert secret.reveal() not in endpoint.secret
    assert endpoints.active(KEYS, endpoint, NOW_MS) == [secret]
    moved = endpoints.Endpoint("cus_b", secret=endpoint.secret)
    with pytest.raises(SealBroken):
        endpoints.active(KEYS, moved, NOW_MS)


async def test_a_secret_that_is_replaced_signs_as_long_as_it_overlaps(shelf: Shelf) -> None:
    await shelf.hooks.set_url("cus_a", ENDPOINT)
    _, first = await shelf.hooks.rotate(KEYS, "cus_a", 60_000, NOW_MS)
    made, second = await shelf.hooks.rotate(KEYS, "cus_a", 60_000, NOW_MS)
    assert (made.url, made.secret_made_at_ms, made.overlap_until_ms) == (ENDPOINT, NOW_MS, NOW_MS + 60_000)
    assert endpoints.active(KEYS, made, NOW_MS + 59_999) == [second, first]
    assert endpoints.active(KEYS, made, NOW_MS + 60_000) == [second]
    alone, third = await shelf.hooks.rotate(KEYS, "cus_a", 0, NOW_MS)
    assert endpoints.active(KEYS, alone, NOW_MS) == [third]
    assert await shelf.hooks.endpoint("cus_a") == alone


async def test_a_rotation_within_an_overlap_does_not_cut_that_short(shelf: Shelf) -> None:
    _, first = await shelf.hooks.rotate(KEYS, "cus_a", 0, NOW_MS)
    _, lost = await shelf.hooks.rotate(KEYS, "cus_a", 60_000, NOW_MS)
    made, again = await shelf.hooks.rotate(KEYS, "cus_a", 50_000, NOW_MS + 1_000)
    assert endpoints.active(KEYS, made, NOW_MS + 59_999) == [again, lost, first]
    assert endpoints.active(KEYS, made, NOW_MS + 60_000) == [again]
    later, last = await shelf.hooks.rotate(KEYS, "cus_a", 50_000, NOW_MS + 60_000)
    assert endpoints.active(KEYS, later, NOW_MS + 60_000) == [last, again]
    for _ in range(10):
        later, _ = await shelf.hooks.rotate(KEYS, "cus_a", 50_000, NOW_MS + 60_000)
    assert len(endpoints.active(KEYS, later, NOW_MS + 60_000)) == 4


async def test_a_customer_without_a_secret_gets_one_and_keeps_it(shelf: Shelf) -> None:
    made, secret = await shelf.hooks.rotate(KEYS, "cus_a", 0, NOW_MS)
    found = await shelf.hooks.with_secrets(KEYS, ["cus_a", "cus_b"], NOW_MS + 1)
    assert found["cus_a"] == made
    again = await shelf.hooks.with_secrets(KEYS, ["cus_a", "cus_b"], NOW_MS + 2)
    assert again == found
    assert endpoints.active(KEYS, again["cus_b"], NOW_MS) != [secret]


async def test_a_form_that_is_put_twice_is_one_form_and_every_process_finds_it(shelf: Shelf) -> None:
    form_id = await shelf.hooks.put_form(FORM, NOW_MS)
    assert await WebhookStore(shelf.database).put_form(FORM, NOW_MS + 1) == form_id
    assert await WebhookStore(shelf.database).form(form_id) == FORM
    assert await shelf.hooks.form("whf_none") is None
