from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    Generation,
    Kind,
    ModelSpec,
    Role,
    TaskRef,
    TaskState,
)
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.media.probe import UnknownMedia, probe, probe_bytes
from tests.clocks import T0_MS, HandClock
from tests.conformance.sandbox_bench import (
    ACCOUNT,
    CHART,
    EVERY_KIND,
    FILM,
    INSTANT,
    MUSIC,
    OTHER_ACCOUNT,
    PICTURE,
    SPECS,
    TEXT,
    VOICE,
    Bench,
    marked,
)

WITH_LAST_FRAME = replace(FILM, last_frame=True)
WAV = replace(MUSIC, format="wav")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    adapter = SandboxAdapter(tmp_path / "sandbox", workers=1)
    yield Bench(adapter, HandClock(), tmp_path / "sandbox")
    await adapter.close()


EXPECTED = {
    Kind.IMAGE: ["image/png"],
    Kind.VIDEO: ["video/mp4", "image/jpeg"],
    Kind.VOICE: ["audio/mpeg"],
    Kind.MUSIC: ["audio/mpeg"],
    Kind.INFOGRAPHIC: ["image/png"],
    Kind.TEXT: ["text/plain"],
}


@pytest.mark.parametrize("generation", EVERY_KIND, ids=lambda one: str(one.kind))
async def test_every_kind_is_what_its_bytes_say_and_is_announced_as_that(
    bench: Bench, generation: Generation
) -> None:
    task = await bench.submit(generation)
    outputs = (await bench.ended(task)).outputs
    found = [probe_bytes(await bench.fetch(task, output)) for output in outputs]
    assert [one.content_type for one in found] == EXPECTED[generation.kind]
    assert [one.content_type for one in outputs] == EXPECTED[generation.kind]
    sizes = [(one.width, one.height) for one in found]
    assert sizes == [(one.width, one.height) for one in outputs]
    assert sizes[0] == (generation.width, generation.height)
    assert abs(found[0].duration_ms - outputs[0].duration_ms) <= 100
    if generation.duration_s:
        assert abs(found[0].duration_ms - generation.duration_s * 1000) <= 100


@pytest.mark.parametrize("generation", [VOICE, MUSIC, CHART, TEXT], ids=lambda one: str(one.kind))
async def test_the_same_request_is_the_same_bytes_and_another_prompt_is_not(
    bench: Bench, generation: Generation
) -> None:
    other = replace(generation, prompt="another " + generation.prompt)
    files = []
    for turn, asked in enumerate((generation, generation, other)):
        task = await bench.submit(asked, reference=f"job_{turn}:1")
        (output,) = (await bench.ended(task)).outputs
        files.append(await bench.fetch(task, output))
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize("generation", EVERY_KIND, ids=lambda one: str(one.kind))
async def test_every_kind_can_fail_be_refused_and_give_something_else(
    bench: Bench, generation: Generation
) -> None:
    with pytest.raises(interface.ContentBlocked):
        await bench.submit(marked("refuse", of=generation))
    failing = await bench.submit(marked("fail", of=generation), INSTANT, "job_2:1")
    assert (await bench.poll(failing, INSTANT)).state is TaskState.FAILED
    task = await bench.submit(marked("bad-output", of=generation), INSTANT, "job_3:1")
    output = (await bench.poll(task, INSTANT)).outputs[0]
    with pytest.raises(UnknownMedia):
        probe_bytes(await bench.fetch(task, output, INSTANT))


async def test_a_film_brings_its_last_frame_where_that_is_asked_for(bench: Bench) -> None:
    task = await bench.submit(WITH_LAST_FRAME)
    _, _, last = (await bench.ended(task)).outputs
    assert last.role is Role.LAST_FRAME
    found = probe_bytes(await bench.fetch(task, last))
    assert (found.content_type, found.width, found.height) == ("image/jpeg", 320, 256)


async def test_a_task_that_is_cancelled_is_not_charged_and_is_gone_with_its_files(bench: Bench) -> None:
    task = await bench.submit(marked("stuck", of=FILM))
    assert await bench.cancel(task) == interface.Cancellation("no", 0)
    assert bench.files() == []
    with pytest.raises(interface.TaskNotFound):
        await bench.poll(task)
    assert (await bench.cancel(task)).charged == "maybe"


async def test_a_cancelled_task_stops_being_drawn_and_the_next_one_is(bench: Bench) -> None:
    long = await bench.submit(replace(FILM, width=2048, height=2048, duration_s=15))
    await bench.poll(long)
    assert (await bench.cancel(long)).charged == "no"
    after = await bench.submit(PICTURE, reference="job_2:1")
    assert (await bench.ended(after)).state is TaskState.SUCCEEDED
    assert {path.name.partition(".")[0] for path in bench.files()} == {after.task_id}


async def test_a_task_that_has_ended_stays_charged_when_it_is_cancelled(bench: Bench) -> None:
    task = await bench.submit(PICTURE, INSTANT)
    assert (await bench.cancel(task, INSTANT)).charged == "yes"
    assert (await bench.poll(task, INSTANT)).state is TaskState.SUCCEEDED


async def test_another_account_cannot_cancel_a_task(bench: Bench) -> None:
    task = await bench.submit(marked("stuck"), INSTANT)
    assert (await bench.cancel(task, OTHER_ACCOUNT)).charged == "maybe"
    assert (await bench.poll(task, INSTANT)).state is TaskState.RUNNING


async def test_a_picture_comes_with_exactly_the_pixels_asked_for(bench: Bench, tmp_path: Path) -> None:
    task = await bench.submit(PICTURE)
    (output,) = (await bench.ended(task)).outputs
    file = tmp_path / "file"
    file.write_bytes(await bench.fetch(task, output))
    found = probe(file)
    assert (found.content_type, found.width, found.height) == ("image/png", 256, 320)
    assert (output.role, output.width, output.height) == (Role.PRIMARY, 256, 320)


async def test_a_film_comes_with_its_length_its_pixels_and_a_preview(bench: Bench, tmp_path: Path) -> None:
    task = await bench.submit(FILM)
    film, preview = (await bench.ended(task)).outputs
    file = tmp_path / "file"
    file.write_bytes(await bench.fetch(task, film))
    found = probe(file)
    assert (found.content_type, found.width, found.height, found.duration_ms) == (
        "video/mp4",
        320,
        256,
        4_000,
    )
    assert preview.role is Role.PREVIEW


async def test_the_same_request_gives_the_same_bytes(bench: Bench) -> None:
    files = []
    for turn in range(2):
        task = await bench.submit(PICTURE, reference=f"job_{turn}:1")
        (output,) = (await bench.ended(task)).outputs
        files.append(await bench.fetch(task, output))
    assert files[0] == files[1]


async def test_a_job_takes_its_pace_and_tells_its_progress(bench: Bench) -> None:
    task = await bench.submit(PICTURE)
    bench.clock.at_ms += 750
    found = await bench.poll(task)
    assert (found.state, found.progress, found.poll_after_ms) == (TaskState.RUNNING, 50, 750)


async def test_an_account_sets_the_pace_and_a_marker_wins_over_it(bench: Bench) -> None:
    account = replace(INSTANT, options={"render": "instant", "pace_ms": "10000"})
    slow, quick = await bench.submit(PICTURE, account), await bench.submit(marked("pace=0.2"), account)
    slower = await bench.submit(marked("slow=30"), account)
    bench.clock.at_ms += 200
    assert (await bench.poll(quick)).state is TaskState.SUCCEEDED
    bench.clock.at_ms += 9_800
    assert (await bench.poll(slow)).state is TaskState.SUCCEEDED
    assert (await bench.poll(slower)).state is TaskState.RUNNING
    bench.clock.at_ms += 30_000
    assert (await bench.poll(slower)).state is TaskState.SUCCEEDED


async def test_the_marker_fail_ends_badly_after_its_pace(bench: Bench) -> None:
    task = await bench.submit(marked("fail"))
    assert (await bench.poll(task)).state is TaskState.RUNNING
    found = await bench.ended(task)
    assert found.state is TaskState.FAILED
    assert isinstance(found.error, interface.GenerationFailed)


async def test_the_marker_refuse_refuses_the_content(bench: Bench) -> None:
    with pytest.raises(interface.ContentBlocked):
        await bench.submit(marked("refuse"))


async def test_the_marker_unknown_takes_the_order_and_loses_the_answer(bench: Bench) -> None:
    wanted = marked("unknown")
    with pytest.raises(interface.SubmissionUnknown):
        await bench.submit(wanted)
    (task_id,) = await bench.listed(wanted)
    assert (await bench.ended(TaskRef(task_id, T0_MS))).state is TaskState.SUCCEEDED


async def test_the_marker_late_answer_takes_the_order_first(bench: Bench) -> None:
    wanted = marked("late-answer=7")
    task = await bench.submit(wanted)
    assert task.submitted_at_ms == T0_MS
    assert bench.clock.at_ms == T0_MS + 7_000


async def test_the_marker_lost_loses_the_request(bench: Bench) -> None:
    wanted = marked("lost")
    with pytest.raises(interface.SubmissionUnknown):
        await bench.submit(wanted)
    assert await bench.listed(wanted) == []


async def test_the_marker_rate_limit_refuses_a_job_once(bench: Bench) -> None:
    with pytest.raises(interface.RateLimited) as refusal:
        await bench.submit(marked("rate-limit"), reference="job_1:1")
    assert refusal.value.retry_after_s == 2.0
    await bench.submit(marked("rate-limit"), OTHER_ACCOUNT, reference="job_1:2")


async def test_the_marker_account_error_refuses_on_the_first_account(bench: Bench) -> None:
    with pytest.raises(interface.InsufficientBalance):
        await bench.submit(marked("account-error"), reference="job_1:1")
    await bench.submit(marked("account-error"), OTHER_ACCOUNT, reference="job_1:2")


async def test_the_marker_stuck_never_ends(bench: Bench) -> None:
    task = await bench.submit(marked("stuck"))
    bench.clock.at_ms += 10**9
    assert (await bench.poll(task)).state is TaskState.RUNNING


async def test_the_marker_bad_output_gives_something_else(bench: Bench) -> None:
    task = await bench.submit(marked("bad-output"))
    (output,) = (await bench.ended(task)).outputs
    assert (await bench.fetch(task, output)).startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("option", "error"),
    [("refusal_rate", interface.ContentBlocked), ("rate_limit_rate", interface.RateLimited)],
)
async def test_rates_decide_by_attempt_and_always_the_same(
    bench: Bench, option: str, error: type[interface.ProviderError]
) -> None:
    account = replace(INSTANT, options={option: "0.5", "render": "instant"})

    async def fate(turn: int) -> bool:
        try:
            await bench.submit(PICTURE, account, f"job_{turn}:1")
        except error:
            return True
        return False

    first, second = [[await fate(turn) for turn in range(100)] for _ in range(2)]
    assert first == second
    assert 25 < sum(first) < 75


async def test_a_failure_rate_fails_after_acceptance(bench: Bench) -> None:
    account = replace(INSTANT, options={"failure_rate": "1", "render": "instant"})
    assert (await bench.ended(await bench.submit(PICTURE, account), account)).state is TaskState.FAILED


@pytest.mark.parametrize("generation", [*EVERY_KIND, WITH_LAST_FRAME, WAV], ids=lambda one: str(one.kind))
async def test_instant_files_are_right_in_size_and_length(
    bench: Bench, generation: Generation, tmp_path: Path
) -> None:
    task = await bench.submit(generation, INSTANT)
    found = await bench.poll(task, INSTANT)
    assert found.state is TaskState.SUCCEEDED
    for output in found.outputs:
        file = tmp_path / "file"
        file.write_bytes(await bench.fetch(task, output, INSTANT))
        told = probe(file)
        assert (told.width, told.height, told.content_type) == (
            output.width,
            output.height,
            output.content_type,
        )
        assert told.duration_ms == output.duration_ms


async def test_many_tasks_are_asked_about_in_one_question(bench: Bench) -> None:
    tasks = [await bench.submit(PICTURE, INSTANT, f"job_{turn}:1") for turn in range(5)]
    asked = [*tasks, TaskRef("task_nobody_has", T0_MS)]
    found = await bench.adapter.poll_many(bench.context, INSTANT, asked)
    assert found.keys() == {task.task_id for task in tasks}


async def test_the_list_shows_an_account_s_own_tasks_of_the_same_content_since_then(bench: Bench) -> None:
    await bench.submit(PICTURE, INSTANT, "job_1:1")
    bench.clock.at_ms += 1_000
    task = await bench.submit(PICTURE, INSTANT, "job_2:1")
    await bench.submit(replace(PICTURE, seed=1), INSTANT, "job_3:1")
    await bench.submit(PICTURE, OTHER_ACCOUNT, "job_4:1")
    assert await bench.listed(PICTURE, since_ms=T0_MS + 1) == [task.task_id]


async def test_orders_outlive_the_process_that_took_them(bench: Bench) -> None:
    task = await bench.submit(PICTURE)
    await bench.adapter.close()
    after = Bench(SandboxAdapter(bench.folder, workers=1), bench.clock, bench.folder)
    try:
        assert await after.listed(PICTURE) == [task.task_id]
        assert (await after.ended(task)).state is TaskState.SUCCEEDED
    finally:
        await after.adapter.close()


async def test_another_account_does_not_see_a_task(bench: Bench) -> None:
    task = await bench.submit(PICTURE, INSTANT)
    with pytest.raises(interface.TaskNotFound):
        await bench.poll(task, OTHER_ACCOUNT)


async def test_a_forgotten_task_leaves_no_file(bench: Bench) -> None:
    task = await bench.submit(PICTURE)
    await bench.ended(task)
    await bench.adapter.forget(bench.context, ACCOUNT, task)
    assert bench.files() == []
    with pytest.raises(interface.TaskNotFound):
        await bench.poll(task)


@pytest.mark.parametrize("name", ["../x", "", "a/b", "."])
async def test_an_id_that_is_a_path_is_never_opened(bench: Bench, name: str) -> None:
    with pytest.raises(interface.TaskNotFound):
        await bench.poll(TaskRef(name, T0_MS))


@pytest.mark.parametrize(
    "generation",
    [
        replace(PICTURE, width=255),
        replace(PICTURE, width=254),
        replace(PICTURE, height=2050),
        replace(PICTURE, prompt=""),
        replace(PICTURE, quality="high"),
        replace(PICTURE, duration_s=4),
        replace(PICTURE, audio=True),
        replace(FILM, duration_s=3),
        replace(FILM, duration_s=16),
        replace(PICTURE, kind=Kind.VIDEO),
        replace(PICTURE, watermark=True),
        replace(PICTURE, last_frame=True),
        replace(PICTURE, adaptive_ratio=True),
        replace(PICTURE, voice="brian"),
        replace(VOICE, voice="nobody"),
        replace(VOICE, format="ogg"),
        replace(VOICE, width=256, height=256),
        replace(VOICE, prompt="a" * 10_001),
        replace(MUSIC, duration_s=4),
        replace(MUSIC, duration_s=61),
        replace(CHART, style="loud"),
        replace(CHART, height=0),
        replace(TEXT, max_words=0),
        replace(TEXT, max_words=2_001),
        replace(TEXT, duration_s=1),
    ],
    ids=repr,
)
def test_what_a_model_cannot_do_is_refused_before_it_is_sent(generation: Generation, tmp_path: Path) -> None:
    adapter = SandboxAdapter(tmp_path, workers=1)
    with pytest.raises(interface.InvalidRequest):
        adapter.prepare(generation, SPECS[generation.model])


@pytest.mark.parametrize(
    ("generation", "whole"),
    [
        (PICTURE, 20),
        (replace(PICTURE, quality="medium"), 60),
        (replace(PICTURE, quality=""), 20),
        (FILM, 2_400),
        (replace(FILM, duration_s=15), 9_000),
        (replace(MUSIC, duration_s=60), 600),
        (VOICE, 30),
        (CHART, 60),
        (TEXT, 10),
    ],
)
def test_costs_are_known_before(generation: Generation, whole: int) -> None:
    spec: ModelSpec = SPECS[generation.model]
    estimate = spec.cost.estimate(generation)
    assert (estimate.expected_millis, estimate.ceiling_millis) == (whole * 1000, whole * 1000)


@pytest.mark.parametrize(
    "options",
    [
        {"pace_ms": "-1"},
        {"pace_ms": "soon"},
        {"failure_rate": "1.5"},
        {"render": "half"},
        {"refusal_rate": "nan"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_complained_about(options: dict[str, str], tmp_path: Path) -> None:
    assert SandboxAdapter(tmp_path, workers=1).complaint(options, {}) is not None


def test_options_that_mean_something_are_taken(tmp_path: Path) -> None:
    options = {
        "pace_ms": "0",
        "failure_rate": "0.25",
        "refusal_rate": "0",
        "rate_limit_rate": "1",
        "render": "full",
    }
    assert SandboxAdapter(tmp_path, workers=1).complaint(options, {}) is None
