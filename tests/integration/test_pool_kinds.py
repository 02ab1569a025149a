"""Every kind of output over real gRPC: made, collected, deleted, and stopped when nobody wants it any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from tests.integration.pool_process import Pool, running

VOICE = pb.Generation(kind=pb.KIND_VOICE, model="eleven-multilingual-v2", prompt="hello", voice="lily")
MUSIC = pb.Generation(
    kind=pb.KIND_MUSIC, model="eleven-music-v1", prompt="a waltz", duration_s=5, format="wav"
)
CHART = pb.Generation(
    kind=pb.KIND_INFOGRAPHIC, model="infographic-1", prompt="Q1 2, Q2 3", width=320, height=256, style="bold"
)
TEXT = pb.Generation(kind=pb.KIND_TEXT, model="gpt-5-mini", prompt="write about bees", max_words=50)
FILM = pb.Generation(
    kind=pb.KIND_VIDEO,
    model="seedance-2.0-mini",
    prompt="a cat",
    width=320,
    height=256,
    duration_s=4,
    audio=True,
    watermark=True,
    last_frame=True,
)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    async with running(tmp_path) as found:
        yield found


async def made(pool: Pool, generation: pb.Generation, attempt_id: str = "job_1:1") -> Sequence[pb.Output]:
    await pool.lease(attempt_id, generation=generation)
    await pool.submit(attempt_id, generation)
    status = await pool.ended(attempt_id)
    assert status.state == pb.ATTEMPT_STATE_SUCCEEDED, status
    return await pool.collect(attempt_id)


@pytest.mark.parametrize(
    ("generation", "content_type", "folder"),
    [
        (VOICE, "audio/mpeg", "audio"),
        (MUSIC, "audio/wav", "audio"),
        (CHART, "image/png", "images"),
        (TEXT, "text/plain", "texts"),
    ],
    ids=["voice", "music", "infographic", "text"],
)
async def test_every_kind_is_made_and_lies_where_its_kind_lies(
    pool: Pool, generation: pb.Generation, content_type: str, folder: str
) -> None:
    await pool.account(options={"pace_ms": "0"})
    (output,) = await made(pool, generation)
    assert output.content_type == content_type
    assert output.object_key.startswith(f"{folder}/20")
    assert (pool.folder / "media" / output.object_key).stat().st_size == output.size_bytes
    assert bool(output.duration_ms) == (folder == "audio")


async def test_what_is_written_comes_with_every_answer_and_is_kept_in_the_store_alone(pool: Pool) -> None:
    await pool.account(options={"pace_ms": "0"})
    (first,) = await made(pool, TEXT)
    assert "bees" in first.text
    assert len(first.text.split()) <= 50
    assert (await pool.collect("job_1:1"))[0].text == first.text
    assert (pool.folder / "media" / first.object_key).read_text() == first.text
    for path in pool.folder.glob("*.db*"):
        assert b"knows grammar" not in path.read_bytes()


async def test_a_film_is_collected_with_its_poster_and_its_last_frame(pool: Pool) -> None:
    await pool.account()
    film, poster, last = await made(pool, FILM)
    assert [film.role, poster.role, last.role] == [
        pb.Output.ROLE_PRIMARY,
        pb.Output.ROLE_PREVIEW,
        pb.Output.ROLE_LAST_FRAME,
    ]
    assert last.object_key == poster.object_key.replace("job_1.jpg", "job_1-last.jpg")


async def test_deleted_outputs_are_gone_and_deleting_them_again_is_no_error(pool: Pool) -> None:
    await pool.account()
    keys = [output.object_key for output in await made(pool, FILM)]
    for _ in range(2):
        await pool.stub.DeleteMedia(pb.DeleteMediaRequest(object_keys=keys[:2]))
        left = [(pool.folder / "media" / key).exists() for key in keys]
        assert left == [False, False, True]


async def test_a_deleted_text_is_told_no_more(pool: Pool) -> None:
    await pool.account()
    (output,) = await made(pool, TEXT)
    await pool.stub.DeleteMedia(pb.DeleteMediaRequest(object_keys=[output.object_key]))
    assert (await pool.collect("job_1:1"))[0].text == ""


@pytest.mark.parametrize(
    "keys", [["../pool.db"], ["a/b"], ["images/2026/01/02/x.png"] * 1_001], ids=lambda keys: keys[0]
)
async def test_only_outputs_can_be_deleted_and_a_bounded_number_at_once(pool: Pool, keys: list[str]) -> None:
    with pytest.raises(ServiceError) as refusal:
        await pool.stub.DeleteMedia(pb.DeleteMediaRequest(object_keys=keys))
    assert (refusal.value.kind, refusal.value.metadata["field"]) == (Kind.INVALID_ARGUMENT, "object_keys")


async def test_closing_a_running_attempt_stops_it_at_the_provider_and_costs_nothing(pool: Pool) -> None:
    account = await pool.account(options={"pace_ms": "3600000"})
    await pool.lease("job_1:1", generation=FILM)
    await pool.submit("job_1:1", FILM)
    assert list((pool.folder / "sandbox/orders").rglob("*.json"))
    closed = await pool.stub.CloseAttempts(pb.CloseAttemptsRequest(attempt_ids=["job_1:1"]))
    assert list(closed.still_open_attempt_ids) == []
    assert list((pool.folder / "sandbox/orders").rglob("*.json")) == []
    (attempt,) = (await pool.stub.ListAttempts(pb.ListAttemptsRequest(job_id="job_1"))).attempts
    assert (attempt.state, attempt.failure.charged) == (pb.ATTEMPT_STATE_FAILED, pb.CHARGED_NO)
    assert await pool.release("job_1:1") is False
    assert (await pool.shown(account.account_id)).balance_millis == account.balance_millis


async def test_a_word_that_a_model_does_not_know_finds_no_account(pool: Pool) -> None:
    await pool.account()
    stranger = pb.Generation()
    stranger.CopyFrom(VOICE)
    stranger.voice = "nobody"
    with pytest.raises(ServiceError) as refusal:
        await pool.lease("job_1:1", generation=stranger)
    assert refusal.value.reason == "NO_CAPABLE_ACCOUNT"
    stranger.voice = "no such\nvoice"
    with pytest.raises(ServiceError) as refusal:
        await pool.lease("job_1:1", generation=stranger)
    assert refusal.value.metadata["field"] == "generation.voice"
