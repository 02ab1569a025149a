"""References on their way to the account that was chosen: before anything is recorded, once for an account and a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from services.chassis import crash_points
from services.chassis.database import Database, migrate
from services.chassis.errors import Kind as ErrorKind
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    ProviderError,
    ReferenceRole,
)
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.states import AttemptState, Charged, FailureReason, NextStep
from services.provider_pool.attempts.submission import ANSWER_MARGIN_S, SEND_BY_S, Submissions
from services.provider_pool.attempts.uploads import MARGIN_S, sweep_uploads
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.health import Breaker
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store.accounts import save_breakers
from tests.conformance.uploading_pool import LIFETIME_S, MovedClock, Pool, UploadingAdapter, asks_for


@pytest.fixture
async def pool(engine_url: str) -> AsyncIterator[Pool]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    pool = Pool(database, UploadingAdapter(), MovedClock())
    yield pool
    await pool.close()
    await database.close()


async def test_a_reference_is_uploaded_before_its_job_is_submitted_and_once_for_many_jobs(pool: Pool) -> None:
    account_id = await pool.account()
    for number in range(3):
        attempt = await pool.submit(f"job_{number}:1", asks_for("a", "b", "a"))
        assert attempt.state is AttemptState.RUNNING
        assert pool.locations() == [f"{account_id}/sha-{name}/image/1" for name in "aba"]
    assert pool.adapter.uploads == {(account_id, "sha-a"): 1, (account_id, "sha-b"): 1}
    assert pool.adapter.submitted[-1].uploads[0].state == {"turn": "1"}


async def test_a_job_that_moves_to_another_account_uploads_again(pool: Pool) -> None:
    accounts = {await pool.account("one"), await pool.account("two")}
    first = await pool.submit("job_1:1", asks_for("a"))
    second = await pool.submit("job_1:2", asks_for("a"), avoid=frozenset({first.account_id}))
    assert {first.account_id, second.account_id} == accounts
    assert pool.locations() == [f"{second.account_id}/sha-a/image/1"]
    assert pool.adapter.uploads == dict.fromkeys([(account, "sha-a") for account in accounts], 1)


async def test_an_account_with_another_key_is_another_one_at_its_provider_and_has_nothing_yet(
    pool: Pool,
) -> None:
    account_id = await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    await pool.accounts.replace_credentials(account_id, {"api_key": Secret("another")})
    await pool.submit("job_2:1", asks_for("a"))
    assert pool.adapter.uploads == {(account_id, "sha-a"): 2}


async def test_jobs_that_come_together_share_one_upload(pool: Pool) -> None:
    await pool.account()
    pool.adapter.upload_s = 0.1
    attempts = await asyncio.gather(*(pool.submit(f"job_{n}:1", asks_for("a")) for n in range(8)))
    assert {attempt.state for attempt in attempts} == {AttemptState.RUNNING}
    assert sum(pool.adapter.uploads.values()) == 1


async def test_a_request_uploads_a_few_at_a_time(pool: Pool) -> None:
    await pool.account()
    pool.adapter.upload_s = 0.02
    await pool.submit("job_1:1", asks_for(*"abcdefghi"))
    assert len(pool.locations()) == 9
    assert pool.adapter.most_at_once == 3


async def test_another_replica_knows_what_was_uploaded(pool: Pool) -> None:
    await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    other = Pool(pool.database, UploadingAdapter(), pool.clock)
    await other.submit("job_2:1", asks_for("a"))
    assert other.adapter.uploads == {}
    assert other.locations() == pool.locations()
    await other.close()


async def test_the_same_bytes_as_another_medium_are_another_upload(pool: Pool) -> None:
    await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    await pool.submit("job_2:1", asks_for("a", role=ReferenceRole.FIRST_FRAME))
    assert sum(pool.adapter.uploads.values()) == 1
    await pool.submit("job_3:1", asks_for("a", role=ReferenceRole.VIDEO))
    assert sum(pool.adapter.uploads.values()) == 2


@pytest.mark.parametrize("is_told", [True, False])
async def test_an_upload_is_used_until_shortly_before_the_provider_drops_it(
    pool: Pool, is_told: bool
) -> None:
    await pool.account()
    if is_told:
        pool.adapter.expires_at_ms = pool.clock.now_ms() + LIFETIME_S * 1000
    for moved_s, uploads in [(0, 1), (LIFETIME_S - MARGIN_S - 60, 1), (LIFETIME_S - MARGIN_S + 60, 2)]:
        pool.clock.moved_ms = moved_s * 1000
        await pool.submit(f"job_{moved_s}:1", asks_for("a"))
        assert sum(pool.adapter.uploads.values()) == uploads


async def test_an_upload_that_lasts_for_minutes_is_used_for_half_of_them(pool: Pool) -> None:
    await pool.account()
    pool.adapter.expires_at_ms = pool.clock.now_ms() + 120_000
    for moved_s, uploads in [(0, 1), (50, 1), (70, 2)]:
        pool.clock.moved_ms = moved_s * 1000
        await pool.submit(f"job_{moved_s}:1", asks_for("a"))
        assert sum(pool.adapter.uploads.values()) == uploads


async def test_what_has_expired_is_forgotten(pool: Pool) -> None:
    await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    prepared = pool.adapter.submitted[0]
    (account_id,) = await pool.accounts.load()
    unsent = replace(prepared, uploads=())
    await sweep_uploads(pool.database, pool.clock)
    assert await pool.uploads.recalled(account_id, unsent) == prepared
    pool.clock.moved_ms = 2 * LIFETIME_S * 1000
    await sweep_uploads(pool.database, pool.clock)
    pool.clock.moved_ms = 0
    assert await pool.uploads.recalled(account_id, unsent) == unsent


ERRORS: list[tuple[Exception, FailureReason, NextStep, set[str]]] = [
    (interface.TransientFailure("503"), FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE, {"transient"}),
    (interface.AuthFailed("401"), FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE, {"auth_failed"}),
    (interface.ReferenceRejected("too dark"), FailureReason.REQUEST_REJECTED, NextStep.FAIL, set()),
    (interface.SubmissionUnknown("?"), FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE, {"transient"}),
    (RuntimeError("a bug"), FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE, {"transient"}),
]


@pytest.mark.parametrize(("error", "reason", "step", "causes"), ERRORS, ids=[str(row[0]) for row in ERRORS])
async def test_a_reference_that_cannot_be_uploaded_costs_nothing_and_leaves_no_doubt(
    pool: Pool, error: Exception, reason: FailureReason, step: NextStep, causes: set[str]
) -> None:
    await pool.account()
    pool.adapter.upload_error = error
    attempt = await pool.submit("job_1:1", asks_for("a", "b"))
    assert attempt.state is AttemptState.FAILED
    assert attempt.failure is not None
    assert (attempt.failure.reason, attempt.failure.next_step) == (reason, step)
    assert attempt.failure.charged is Charged.NO
    assert attempt.cost_millis == 0
    assert pool.adapter.submitted == []
    assert await pool.causes() == causes


async def test_a_refused_upload_does_not_prove_that_an_account_can_do_jobs_again(pool: Pool) -> None:
    account_id = await pool.account()
    half_open = {(account_id, ""): Breaker(1, 1, 1, "", "insufficient_balance")}
    await pool.database.write(lambda connection: save_breakers(connection, half_open))
    pool.adapter.upload_error = interface.ReferenceRejected("too dark")
    assert (await pool.submit("job_1:1", asks_for("a"))).state is AttemptState.FAILED
    assert await pool.causes() == {"insufficient_balance"}


async def test_an_upload_that_takes_too_long_is_given_up(pool: Pool) -> None:
    await pool.account()
    pool.adapter.upload_s = 60
    attempt = await pool.submit("job_1:1", asks_for("a"))
    assert attempt.state is AttemptState.FAILED
    assert attempt.failure is not None
    assert (attempt.failure.next_step, attempt.failure.charged) == (NextStep.ROTATE, Charged.NO)


async def test_a_sender_s_clock_starts_after_the_uploads(pool: Pool) -> None:
    await pool.account()

    def slow() -> None:
        pool.clock.moved_ms += round((SEND_BY_S + ANSWER_MARGIN_S) * 2_000)

    pool.adapter.while_uploading = slow
    attempt = await pool.submit("job_1:1", asks_for("a"))
    assert attempt.state is AttemptState.RUNNING
    assert pool.clock.now_ms() - attempt.created_at_ms < 5_000


class PatientAdapter(UploadingAdapter):
    """Another provider, which takes minutes to answer a submission."""

    name: ClassVar[str] = "patient"
    terms: ClassVar[interface.Terms] = interface.Terms(submit_timeout_s=300.0)


async def test_a_sender_is_taken_for_dead_by_the_patience_with_its_own_provider(pool: Pool) -> None:
    catalog = Catalog([pool.adapter, PatientAdapter()])
    submissions = Submissions(pool.attempts, pool.accounts, catalog, pool.files, pool.clock)
    limits_s = [submissions.answer_by_ms(provider) / 1000 for provider in ("toy", "patient", "removed")]
    assert limits_s == [1 + ANSWER_MARGIN_S, 300 + ANSWER_MARGIN_S, 300 + ANSWER_MARGIN_S]


async def test_nothing_is_recorded_while_references_are_on_their_way(pool: Pool) -> None:
    await pool.account()
    pool.adapter.upload_s = 0.2
    sending = asyncio.create_task(pool.submit("job_1:1", asks_for("a")))
    while not pool.adapter.at_once:
        await asyncio.sleep(0.01)
    with pytest.raises(ServiceError, match="ATTEMPT_NOT_FOUND"):
        await pool.attempts.get("job_1:1", fresh=True)
    assert (await sending).state is AttemptState.RUNNING


async def test_an_upload_that_the_provider_has_forgotten_is_made_again_by_the_next_attempt(
    pool: Pool,
) -> None:
    account_id = await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    pool.adapter.submit_error = interface.ReferenceRejected("no such file")
    refused = await pool.submit("job_2:1", asks_for("a"))
    assert refused.state is AttemptState.FAILED
    assert refused.failure is not None
    assert (refused.failure.next_step, refused.failure.charged) == (NextStep.RETRY, Charged.NO)
    assert len(pool.adapter.submitted) == 2
    assert await pool.causes() == set()
    # Fresh, and refused again: now it is the reference.
    judged = await pool.submit("job_2:2", asks_for("a"))
    assert judged.failure is not None
    assert (judged.failure.reason, judged.failure.next_step) == (
        FailureReason.REQUEST_REJECTED,
        NextStep.FAIL,
    )
    pool.adapter.submit_error = None
    assert (await pool.submit("job_3:1", asks_for("a"))).state is AttemptState.RUNNING
    assert pool.locations() == [f"{account_id}/sha-a/image/2"]


@pytest.mark.parametrize(
    "error",
    [
        interface.SubmissionUnknown("cut", charged="maybe"),
        interface.InvalidRequest("422"),
        interface.ReferenceRejected("after it was begun", charged="yes"),
    ],
    ids=str,
)
async def test_any_other_refusal_is_what_it_is_and_the_upload_is_still_known(
    pool: Pool, error: ProviderError
) -> None:
    account_id = await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    pool.adapter.submit_error = error
    attempt = await pool.submit("job_2:1", asks_for("a"))
    assert attempt.state is (
        AttemptState.UNKNOWN if isinstance(error, interface.SubmissionUnknown) else AttemptState.FAILED
    )
    step = NextStep.RECONCILE if isinstance(error, interface.SubmissionUnknown) else NextStep.FAIL
    assert attempt.failure is not None
    assert attempt.failure.next_step is step
    first, second = pool.adapter.submitted
    assert await pool.uploads.recalled(account_id, replace(first, uploads=())) == first
    assert second.uploads == first.uploads


async def test_an_attempt_is_sent_once_however_its_uploads_go(pool: Pool) -> None:
    await pool.account()
    await pool.submit("job_1:1", asks_for("a"))
    for _ in range(3):
        again = await pool.submissions.submit("job_1:1", "job_1", asks_for("a"))
        assert again.state is AttemptState.RUNNING
    assert len(pool.adapter.submitted) == 1


async def test_what_the_adapter_cannot_say_needs_no_uploads_and_blames_nobody(pool: Pool) -> None:
    await pool.account()
    attempt = await pool.submit("job_1:1", replace(asks_for("a"), prompt="refuse"))
    assert attempt.state is AttemptState.FAILED
    assert pool.adapter.uploads == {}
    assert await pool.causes() == set()


async def test_a_reference_that_is_gone_is_not_missed_at_the_provider(pool: Pool) -> None:
    await pool.account()
    pool.gone = {"b"}
    attempt = await pool.submit("job_1:1", asks_for("a", "b"))
    assert attempt.failure is not None
    assert attempt.failure.reason is FailureReason.REFERENCE_UNAVAILABLE
    assert pool.adapter.uploads == {}


async def test_without_a_lease_nothing_is_uploaded(pool: Pool) -> None:
    await pool.account()
    with pytest.raises(ServiceError, match="ATTEMPT_NOT_FOUND"):
        await pool.submissions.submit("job_1:1", "job_1", asks_for("a"))
    await pool.lease("job_2:1", asks_for("a"))
    await pool.leasing.release("job_2:1")
    with pytest.raises(ServiceError, match="LEASE_ENDED"):
        await pool.submissions.submit("job_2:1", "job_2", asks_for("a"))
    assert pool.adapter.uploads == {}


async def test_an_upload_that_cannot_be_noted_is_used_all_the_same(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.account()
    plain: Callable[..., Any] = crash_points.committed

    async def away(write: Any, what: str, work: Any) -> Any:
        if what == "upload":
            raise ServiceError(ErrorKind.UNAVAILABLE, "DATABASE_UNAVAILABLE", "away")
        return await plain(write, what, work)

    monkeypatch.setattr(crash_points, "committed", away)
    assert (await pool.submit("job_1:1", asks_for("a"))).state is AttemptState.RUNNING
    assert len(pool.locations()) == 1


@pytest.mark.parametrize(
    ("point", "uploads"),
    [
        ("provider.upload.before", 1),
        ("provider.upload.after", 2),
        ("commit.upload.before", 2),
        ("commit.upload.after", 1),
    ],
)
async def test_a_pool_that_dies_around_an_upload_leaves_a_job_that_its_heir_submits(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, point: str, uploads: int
) -> None:
    await pool.account()

    class Death(BaseException):
        """Not an Exception: nothing on the way may hold it up."""

    def dies(reached: str, subject: str) -> None:
        if reached == point:
            monkeypatch.setattr(crash_points, "_listener", None)
            raise Death

    monkeypatch.setattr(crash_points, "_listener", dies)
    with pytest.raises(Death):
        await pool.submit("job_1:1", asks_for("a"))
    with pytest.raises(ServiceError, match="ATTEMPT_NOT_FOUND"):
        await pool.attempts.get("job_1:1", fresh=True)
    heir = Pool(pool.database, pool.adapter, pool.clock)
    attempt = await heir.submissions.submit("job_1:1", "job_1", asks_for("a"))
    assert attempt.state is AttemptState.RUNNING
    assert sum(pool.adapter.uploads.values()) == uploads
    assert len(pool.adapter.submitted) == 1
    assert codec.read_task(attempt.task).task_id == "task of job_1:1"
    await heir.close()
