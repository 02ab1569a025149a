"""References of a job: what is fetched when, shared, bounded and refused, and what a submission gets of them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.database import Database, migrate
from services.chassis.egress import EgressFailed
from services.chassis.errors import Kind, ServiceError
from services.provider_pool.adapters.interface import (
    Generation,
    InvalidRequest,
    ModelSpec,
    Prepared,
    Range,
    Reference,
    ReferenceCapability,
    Strength,
    TaskRef,
)
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.states import AttemptState, FailureReason, NextStep
from services.provider_pool.catalog import Catalog
from services.provider_pool.references import preparation as rules
from services.provider_pool.references.fetching import Fetching
from services.provider_pool.references.intake import Allowance, Intake
from services.provider_pool.references.preparation import Preparation
from services.provider_pool.settings import MIGRATIONS
from tests.unit.reference_house import LIMITS, URL, House, asking, image
from tests.unit.test_pool_calls import PICTURE, ListingAdapter, ToyAdapter, breaks


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    house = House(database, tmp_path / "references", ToyAdapter())
    await house.toy.account()
    yield house
    await house.close()


async def test_what_is_ready_is_not_fetched_again(house: House) -> None:
    wanted = asking(URL, "https://example.com/dog.png")
    assert await house.prepare(wanted) is None
    assert await house.prepare(wanted) is None
    # Nor by the next attempt of the job.
    assert await house.prepare(wanted, "job_1:2") is None
    assert len(house.egress.fetched) == 2
    found = await house.files("job_1", wanted)
    assert [file and file.path.read_bytes() for file in found] == [image(), image()]


@pytest.mark.parametrize(
    "changed",
    [asking(URL + "&v=2"), asking(URL, limits=replace(LIMITS, image_bytes=9_999))],
    ids=["another URL", "other limits"],
)
async def test_what_was_fetched_for_another_question_is_fetched_anew(
    house: House, changed: Generation
) -> None:
    await house.prepare(asking(URL))
    house.content = image("new")
    assert await house.prepare(changed) is None
    (file,) = await house.files("job_1", changed)
    assert file is not None
    assert file.path.read_bytes() == image("new")
    assert len(house.left()) == 2


async def test_what_another_replica_made_ready_meanwhile_stays(house: House) -> None:
    wanted = asking(URL)

    async def overtaken(url: str) -> bytes:
        if len(house.egress.fetched) == 1:
            quicker = Fetching(house.egress, Intake(house.store, house.inspectors), house.store)
            await quicker.get("job_1", 0, Reference(url=url), LIMITS, Allowance(10_000, "too_many"))
            return image("later")
        return image("sooner")

    house.egress.answer = overtaken
    assert await house.prepare(wanted) is None
    (file,) = await house.files("job_1", wanted)
    assert file is not None
    assert file.path.read_bytes() == image("sooner")
    assert len(house.left()) == 2


async def test_simultaneous_callers_share_a_fetch_that_goes_on_when_they_leave(house: House) -> None:
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def later(url: str) -> bytes:
        return await asyncio.shield(answer)

    house.egress.answer = later
    wanted = asking(URL)
    callers = [asyncio.create_task(house.prepare(wanted)) for _ in range(5)]
    while not house.egress.fetched:
        await asyncio.sleep(0.01)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    answer.set_result(image())
    assert await house.prepare(wanted) is None
    assert len(house.egress.fetched) == 1


async def test_a_request_never_fetches_more_than_three_at_a_time(house: House) -> None:
    async def slowly(url: str) -> bytes:
        await asyncio.sleep(0.02)
        return image()

    house.egress.answer = slowly
    assert await house.prepare(asking(*(f"{URL}&n={turn}" for turn in range(9)))) is None
    assert house.egress.most_at_once == 3


async def test_nothing_is_fetched_without_an_open_lease(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServiceError) as refusal:
        await house.preparation.prepare("job_9:1", "job_9", asking(URL))
    assert refusal.value.reason == "ATTEMPT_NOT_FOUND"
    await house.toy.lease("job_1:1")
    await house.toy.leasing.release("job_1:1")
    with pytest.raises(ServiceError) as refusal:
        await house.preparation.prepare("job_1:1", "job_1", asking(URL))
    assert refusal.value.reason == "LEASE_ENDED"
    await house.toy.leasing.release("job_2:1")
    with pytest.raises(ServiceError) as refusal:
        await house.preparation.prepare("job_2:1", "job_2", asking(URL))
    assert refusal.value.reason == "LEASE_ENDED"
    await house.toy.lease("job_3:1")
    late_ms = house.toy.clock.now_ms() + 60_001
    monkeypatch.setattr(house.toy.clock, "now_ms", lambda: late_ms)
    with pytest.raises(ServiceError) as refusal:
        await house.preparation.prepare("job_3:1", "job_3", asking(URL))
    assert refusal.value.reason == "LEASE_ENDED"
    assert house.egress.fetched == []


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown_format"),
        (b"GIF89a" + bytes(100), "format_not_taken"),
        (b"", "empty"),
        (b"\x89PNG", "unknown_format"),
        (image("broken"), "bad_checksum"),
        (image("x" * 10_000), "too_many_bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_content_that_is_not_taken_fails_the_job_and_leaves_nothing(
    house: House, content: bytes, rule: str
) -> None:
    house.content = content
    failure = await house.prepare(asking(URL))
    assert failure is not None
    assert (failure.reason, failure.next_step) == (FailureReason.INVALID_REFERENCE, NextStep.FAIL)
    assert failure.detail == f"invalid_reference: {rule}"
    assert house.left() == []


async def test_the_first_bytes_decide_before_the_rest_has_come(house: House) -> None:
    house.content = b"%PDF-1.7" + bytes(9_000)
    await house.prepare(asking(URL))
    assert house.inspector.inspected == 0
    assert house.egress.bodies[0].sent_bytes == 1_000


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("tls", FailureReason.REFERENCE_UNAVAILABLE),
        ("status", FailureReason.REFERENCE_UNAVAILABLE),
        ("timeout", FailureReason.REFERENCE_UNAVAILABLE),
        ("too_large", FailureReason.INVALID_REFERENCE),
    ],
)
async def test_a_fetch_that_fails_fails_the_job(house: House, rule: str, reason: FailureReason) -> None:
    async def fails(url: str) -> bytes:
        raise EgressFailed(rule)

    house.egress.answer = fails
    failure = await house.prepare(asking(URL))
    assert failure is not None
    assert (failure.reason, failure.next_step) == (reason, NextStep.FAIL)
    # The network may be better when the job is tried again by its owner: nothing is remembered.
    house.egress.answer = house.always
    assert await house.prepare(asking(URL)) is None


async def test_our_own_crowd_is_no_fault_of_the_reference(house: House) -> None:
    async def crowded(url: str) -> bytes:
        raise EgressFailed("busy")

    house.egress.answer = crowded
    with pytest.raises(ServiceError) as refusal:
        await house.prepare(asking(URL))
    assert refusal.value.kind is Kind.RESOURCE_EXHAUSTED
    house.egress.answer, house.inspector.full = house.always, True
    with pytest.raises(ServiceError) as refusal:
        await house.prepare(asking(URL))
    assert refusal.value.kind is Kind.RESOURCE_EXHAUSTED
    assert house.left() == []


async def test_the_images_of_one_request_have_one_limit_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.content = image("x" * 3_000)
    monkeypatch.setattr(rules, "REQUEST_LIMIT_BYTES", 3 * len(house.content))
    three = [f"{URL}&n={turn}" for turn in range(3)]
    assert await house.prepare(asking(*three)) is None
    # What is there already counts like what arrives.
    failure = await house.prepare(asking(*three, f"{URL}&n=3"), "job_1:2")
    assert failure is not None
    assert failure.detail == "invalid_reference: too_many_bytes_in_all"


async def test_one_failure_stops_the_fetches_beside_it(house: House) -> None:
    async def one_fails(url: str) -> bytes:
        if url.endswith("fails"):
            raise EgressFailed("status")
        await asyncio.sleep(60)
        return image()

    house.egress.answer = one_fails
    async with asyncio.timeout(5):
        failure = await house.prepare(asking(URL, URL + "&fails"))
    assert failure is not None
    assert house.egress.at_once == 0


async def test_dropping_a_job_s_references_stops_what_is_on_its_way(house: House) -> None:
    async def never(url: str) -> bytes:
        await asyncio.sleep(60)
        return b""

    house.egress.answer = never
    caller = asyncio.create_task(house.prepare(asking(URL)))
    while not house.egress.fetched:
        await asyncio.sleep(0.01)
    await house.preparation.drop("job_1", [])
    with pytest.raises(ServiceError) as refusal:
        await caller
    assert refusal.value.reason == "LEASE_ENDED"
    assert house.left() == []


async def test_an_image_of_a_size_that_the_account_s_provider_does_not_take_fails_the_job(
    house: House,
) -> None:
    house.content = image(width=5_000)
    failure = await house.prepare(asking(URL))
    assert failure is not None
    assert (failure.reason, failure.next_step) == (FailureReason.REFERENCE_UNSUITABLE, NextStep.FAIL)


class RoomyAdapter(ToyAdapter):
    """Another provider of the same model, which takes larger pictures."""

    name = "roomy"

    def models(self) -> Sequence[ModelSpec]:
        takes = ReferenceCapability(images=9, sides_px=Range(8, 6_000))
        (spec,) = super().models()
        return [replace(spec, capability=replace(spec.capability, references=takes))]


@pytest.mark.parametrize(("width", "step"), [(5_000, NextStep.ROTATE), (7_000, NextStep.FAIL)])
async def test_an_image_that_another_provider_of_the_model_takes_sends_the_job_there(
    house: House, width: int, step: NextStep
) -> None:
    house.content = image(width=width)
    house.preparation = Preparation(
        house.store,
        Fetching(house.egress, Intake(house.store, house.inspectors), house.store),
        house.toy.leasing,
        Catalog([house.toy.adapter, RoomyAdapter()]),
    )
    failure = await house.prepare(asking(URL))
    assert failure is not None
    assert (failure.reason, failure.next_step) == (FailureReason.REFERENCE_UNSUITABLE, step)


async def test_a_folder_that_cannot_be_written_is_an_operator_s_matter(house: House) -> None:
    house.folder.write_text("a file in the folder's place")
    with pytest.raises(ServiceError) as refusal:
        await house.prepare(asking(URL))
    assert refusal.value.kind is Kind.UNAVAILABLE
    with pytest.raises(ServiceError) as refusal:
        await house.stage(image())
    assert refusal.value.kind is Kind.UNAVAILABLE


async def test_a_submission_has_the_files_and_the_record_no_url(house: House) -> None:
    wanted = asking(URL)
    await house.prepare(wanted)
    assert await house.toy.submit("job_1:1", wanted) is AttemptState.RUNNING
    (prepared,) = house.toy.adapter.prepared
    assert [file.path.read_bytes() for file in prepared.references] == [image()]
    assert URL not in repr([reference.url for reference in prepared.generation.references])
    kept = (await house.toy.attempts.get("job_1:1", fresh=True)).generation
    assert "images.example.com" not in kept
    assert codec.read_generation(kept).references == (Reference(Strength.MID),)


async def test_a_reference_that_is_gone_fails_the_attempt_and_nothing_is_sent(house: House) -> None:
    assert await house.toy.submit("job_1:1", asking(URL)) is AttemptState.FAILED
    failure = (await house.toy.attempts.get("job_1:1", fresh=True)).failure
    assert failure is not None
    assert (failure.reason, failure.next_step) == (FailureReason.REFERENCE_UNAVAILABLE, NextStep.FAIL)
    assert house.toy.adapter.submitted == []
    assert await house.toy.causes() == {}


async def test_the_same_image_under_two_names_is_the_same_question(house: House) -> None:
    digests = []
    for turn in range(3):
        reference = Reference(Strength.MID, reference_id=await house.stage(image(str(turn // 2))))
        wanted = replace(PICTURE, references=(reference,), reference_limits=LIMITS)
        digests.append(codec.fingerprint(wanted, await house.files("job_1", wanted)))
    assert digests[0] == digests[1] != digests[2]


async def in_doubt(database: Database, folder: Path, adapter: ListingAdapter) -> House:
    """A house with an attempt in doubt that had two references, and a list with somebody's task."""
    house = House(database, folder, adapter)
    await house.toy.account()
    wanted = asking(URL, URL + "&v=2")
    await house.prepare(wanted)
    adapter.submitting = breaks
    assert await house.toy.submit("job_1:1", wanted) is AttemptState.UNKNOWN

    async def lists_one() -> Sequence[TaskRef]:
        return [TaskRef("task_1", house.toy.clock.now_ms())]

    adapter.listing = lists_one
    return house


async def test_doubt_is_looked_into_by_the_content_of_the_references(
    database: Database, tmp_path: Path
) -> None:
    adapter = ListingAdapter()
    house = await in_doubt(database, tmp_path / "references", adapter)
    adapter.prepared.clear()
    after = (await house.toy.resolution.resolve("job_1:1")).attempt
    (prepared,) = adapter.prepared
    digest = hashlib.sha256(image()).hexdigest()
    assert prepared.generation.references == (Reference(Strength.MID, reference_id=digest),) * 2
    assert len(prepared.references) == 2
    assert after.state is AttemptState.RUNNING
    await house.close()


async def test_without_all_its_references_no_task_is_taken_for_that_of_an_attempt(
    database: Database, tmp_path: Path
) -> None:
    house = await in_doubt(database, tmp_path / "references", ListingAdapter())
    await house.store.drop(["job_1-0"])
    after = (await house.toy.resolution.resolve("job_1:1")).attempt
    assert after.state is AttemptState.ABANDONED
    await house.close()


async def test_doubt_about_what_is_no_request_any_more_ends_with_its_window(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = ListingAdapter()
    house = await in_doubt(database, tmp_path / "references", adapter)

    def refuses(*_: object) -> Prepared:
        raise InvalidRequest("references are not taken any more")

    monkeypatch.setattr(adapter, "prepare", refuses)
    after = (await house.toy.resolution.resolve("job_1:1")).attempt
    assert after.state is AttemptState.ABANDONED
    await house.close()
