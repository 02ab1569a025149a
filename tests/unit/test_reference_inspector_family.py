"""The processes that an inspector keeps: who dies, who waits, who leaves."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop
from PIL import Image

from services.chassis.errors import Kind, ServiceError
from services.provider_pool.references import decode_process, inspector
from services.provider_pool.references.container import ImageRefused
from services.provider_pool.references.decode_process import Descriptors
from services.provider_pool.references.inspector import Inspector
from tests.unit import forkless_decode_worker
from tests.unit.inspections import (
    EVERYTHING,
    PATIENCE_S,
    PLAIN,
    SLOW,
    alive,
    deaths,
    descriptors,
    fork_of,
    forks,
    inspecting,
    put,
    refusal,
    until,
)

ROOT = Path(__file__).resolve().parents[2]


# ---- who dies ----


async def test_a_decoder_that_dies_is_an_invalid_image_and_its_neighbours_are_taken(tmp_path: Path) -> None:
    good = put(tmp_path, PLAIN, "good")
    before = deaths("fork")
    async with inspecting() as running:
        first = asyncio.create_task(running.inspect(good, tmp_path / "first", EVERYTHING))
        deadly = asyncio.create_task(running.inspect(put(tmp_path, SLOW), tmp_path / "deadly", EVERYTHING))
        last = asyncio.create_task(running.inspect(good, tmp_path / "last", EVERYTHING))
        await first
        pids = running.worker_pids
        os.kill(await fork_of(running), signal.SIGKILL)
        with pytest.raises(ImageRefused, match="undecodable"):
            await deadly
        await last
        assert running.worker_pids == pids
    assert deaths("fork") == before + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["came", "first", "good", "last"]


async def test_an_image_past_its_deadline_is_invalid_and_nobody_goes_on_with_it(tmp_path: Path) -> None:
    before = deaths("deadline")
    async with inspecting(deadline_s=0.2) as running:
        waiting = asyncio.create_task(refusal(running, put(tmp_path, SLOW)))
        fork = await fork_of(running)
        assert await waiting == "undecodable"
        assert not alive(fork)
        assert [forks(pid) for pid in running.worker_pids] == [[]]
    assert deaths("deadline") == before + 1


async def _hold_back(fork: int, run_s: float, wait_s: float) -> None:
    """Let a process run for a little while now and then only, as where many others want the processor."""
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(fork, signal.SIGSTOP)
            await asyncio.sleep(wait_s)
            os.kill(fork, signal.SIGCONT)
            await asyncio.sleep(run_s)


async def test_a_machine_that_is_busy_with_others_is_not_the_image_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "_PATIENCE_TIMES", 20)
    async with inspecting(deadline_s=1.5) as running:
        begun = time.monotonic()
        examined = asyncio.create_task(running.inspect(put(tmp_path, SLOW), tmp_path / "target", EVERYTHING))
        await _hold_back(await fork_of(running), 0.02, 0.15)
        assert (await examined).width == 8_000
        assert time.monotonic() - begun > 1.5


async def test_a_decoder_that_does_nothing_is_ended_at_the_deadline(tmp_path: Path) -> None:
    before = deaths("deadline")
    async with inspecting(deadline_s=1.0) as running:
        waiting = asyncio.create_task(refusal(running, put(tmp_path, SLOW)))
        os.kill(await fork_of(running), signal.SIGSTOP)
        begun = time.monotonic()
        assert await waiting == "undecodable"
        assert time.monotonic() - begun < 3.0
    assert deaths("deadline") == before + 1


async def test_a_decoder_that_does_hardly_anything_is_not_waited_for_either(tmp_path: Path) -> None:
    before = deaths("deadline")
    async with inspecting(deadline_s=0.4) as running:
        waiting = asyncio.create_task(refusal(running, put(tmp_path, SLOW)))
        await _hold_back(await fork_of(running), 0.002, 0.1)
        assert await waiting == "undecodable"
    assert deaths("deadline") == before + 1


async def test_a_worker_that_cannot_fork_just_now_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = put(tmp_path, PLAIN), tmp_path / "target"
    monkeypatch.setattr(decode_process, "_MODULE", forkless_decode_worker.__name__)
    async with inspecting() as running:
        with pytest.raises(ServiceError) as caught:
            await running.inspect(source, target, EVERYTHING)
        assert caught.value.kind is Kind.UNAVAILABLE
        assert not target.exists()
        (pid,) = running.worker_pids
        assert (await running.inspect(source, target, EVERYTHING)).format == "png"
        assert running.worker_pids == (pid,)


async def test_an_image_whose_worker_is_killed_is_examined_by_another(tmp_path: Path) -> None:
    before = deaths("worker")
    async with inspecting() as running:
        examined = asyncio.create_task(running.inspect(put(tmp_path, SLOW), tmp_path / "target", EVERYTHING))
        fork = await fork_of(running)
        (first,) = running.worker_pids
        os.kill(first, signal.SIGKILL)
        assert (await examined).width == 8_000
        assert first not in running.worker_pids
        assert not alive(fork)
    assert deaths("worker") == before + 1


async def test_a_drawing_whose_worker_is_killed_is_examined_by_another(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (6_000, 6_000), 77).save(file, "GIF")
    source, target = put(tmp_path, file.getvalue()), tmp_path / "target"
    async with inspecting() as running:
        examined = asyncio.create_task(running.inspect(source, target, EVERYTHING))
        await until((tmp_path / "target.drawing").exists)
        await fork_of(running)
        os.kill(running.worker_pids[0], signal.SIGKILL)
        assert (await examined).format == "gif"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["came", "target"]


async def test_closing_while_a_worker_starts_leaves_none_behind(tmp_path: Path) -> None:
    running = Inspector(workers=1)
    examined = asyncio.create_task(running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING))
    await asyncio.sleep(0.05)
    await running.close()
    (ended,) = await asyncio.gather(examined, return_exceptions=True)
    assert isinstance(ended, ServiceError)
    assert running.worker_pids == ()
    assert not (tmp_path / "target").exists()


async def test_an_image_that_two_workers_die_of_is_invalid(tmp_path: Path) -> None:
    async with inspecting() as running:
        examined = asyncio.create_task(refusal(running, put(tmp_path, SLOW)))
        for _ in range(2):
            await fork_of(running)
            pid = running.worker_pids[0]
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: pid not in running.worker_pids)  # type: ignore[misc]
        assert await examined == "undecodable"
        assert (await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)).format == "png"


async def test_a_worker_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    async with inspecting() as running:
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        (pid,) = running.worker_pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        assert running.worker_pids != (pid,)


async def test_workers_and_their_forks_end_with_the_pool(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from services.provider_pool.references.container import FORMATS, ImageLimits
from services.provider_pool.references.inspector import Inspector

async def main():
    running = Inspector(workers=1, deadline_s=60)
    examined = asyncio.create_task(running.inspect(Path(sys.argv[1]), Path(sys.argv[2]), ImageLimits(FORMATS, 10**7)))
    while not running.worker_pids:
        await asyncio.sleep(0.01)
    print(running.worker_pids[0], flush=True)
    await examined

asyncio.run(main())
"""
    arguments = [str(put(tmp_path, SLOW)), str(tmp_path / "target")]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as pool:
        assert pool.stdout is not None
        worker = int(pool.stdout.readline())
        await until(lambda: forks(worker))
        family = [worker, *forks(worker)]
        pool.kill()
    await until(lambda: not any(alive(pid) for pid in family))


# ---- who waits ----


async def test_nothing_is_started_before_the_first_image_and_nothing_stays_after_a_while(
    tmp_path: Path,
) -> None:
    async with inspecting(idle_s=0.05) as running:
        before = running.worker_pids
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        (pid,) = running.worker_pids
        assert before == ()
        await until(lambda: running.worker_pids == () and not alive(pid))


async def test_no_more_workers_than_asked_for_share_the_images(tmp_path: Path) -> None:
    source = put(tmp_path, PLAIN)
    async with inspecting(workers=2) as running:
        waiting = [running.inspect(source, tmp_path / f"{number}", EVERYTHING) for number in range(12)]
        found = await asyncio.gather(*waiting)
        assert len(running.worker_pids) == 2
    assert len({one.sha256 for one in found}) == 1


async def test_a_full_queue_is_told_at_once(tmp_path: Path) -> None:
    source = put(tmp_path, PLAIN)
    async with inspecting(queue_limit=1) as running:
        waiting = [asyncio.create_task(running.inspect(source, tmp_path / name, EVERYTHING)) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(ServiceError) as caught:
            await running.inspect(source, tmp_path / "c", EVERYTHING)
        assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
        await asyncio.gather(*waiting)
        await running.inspect(source, tmp_path / "c", EVERYTHING)


async def test_who_leaves_takes_the_work_along(tmp_path: Path) -> None:
    async with inspecting() as running:
        examined = asyncio.create_task(running.inspect(put(tmp_path, SLOW), tmp_path / "target", EVERYTHING))
        fork = await fork_of(running)
        examined.cancel()
        with pytest.raises(asyncio.CancelledError):
            await examined
        await until(lambda: not alive(fork))
        assert not (tmp_path / "target").exists()
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)


@pytest.mark.parametrize("delay_s", [0.0, 0.002, 0.01, 0.05, 0.2])
async def test_whenever_somebody_leaves_nothing_stays_open(delay_s: float, tmp_path: Path) -> None:
    async with inspecting() as running:
        examined = asyncio.create_task(running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING))
        await asyncio.sleep(delay_s)
        examined.cancel()
        await asyncio.wait([examined])
        assert examined.cancelled() or (tmp_path / "target").exists()
        (tmp_path / "target").unlink(missing_ok=True)
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        open_now = descriptors()
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        assert descriptors() <= open_now


async def test_who_leaves_more_than_once_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inspecting() as running:
        source, target = put(tmp_path, PLAIN), tmp_path / "target"
        await running.inspect(source, target, EVERYTHING)
        target.unlink()
        open_now, opens = descriptors(), Descriptors.open

        def slowly(files: Descriptors, *paths: Path) -> None:
            time.sleep(0.3)
            opens(files, *paths)

        monkeypatch.setattr(Descriptors, "open", slowly)
        examined = asyncio.create_task(running.inspect(source, target, EVERYTHING))
        for _ in range(3):
            await asyncio.sleep(0.05)
            examined.cancel()
        with pytest.raises(asyncio.CancelledError):
            await examined
        await asyncio.sleep(0.4)
        assert descriptors() == open_now
        assert not target.exists()


async def test_a_storm_of_leavers_leaves_nobody_behind(tmp_path: Path) -> None:
    chance = random.Random(3)
    source = put(tmp_path, SLOW)
    async with inspecting(workers=3) as running:
        await running.inspect(put(tmp_path, PLAIN, "plain"), tmp_path / "target", EVERYTHING)
        open_now = descriptors()
        paths = [tmp_path / f"target-{number}" for number in range(60)]
        storm = [asyncio.create_task(running.inspect(source, path, EVERYTHING)) for path in paths]
        seen = set(running.worker_pids)
        for task in chance.sample(storm, len(storm)):
            await asyncio.sleep(chance.random() / 20)
            seen.update(running.worker_pids)
            task.cancel()
        await asyncio.wait(storm)
        await until(lambda: not any(alive(pid) for pid in seen.difference(running.worker_pids)))
        assert [path for path in paths if path.exists()] == []
        assert descriptors() <= open_now + 2
        found = await asyncio.gather(
            *(running.inspect(tmp_path / "plain", path, EVERYTHING) for path in paths[:9])
        )
        assert len(found) == 9
        assert len(running.worker_pids) <= 3


async def test_closing_ends_everybody_who_waits(tmp_path: Path) -> None:
    source = put(tmp_path, SLOW)
    running = Inspector(workers=1, deadline_s=PATIENCE_S)
    waiting = [asyncio.create_task(running.inspect(source, tmp_path / name, EVERYTHING)) for name in "ab"]
    fork = await fork_of(running)
    (pid,) = running.worker_pids
    await running.close()
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, ServiceError)
        assert ended.kind is Kind.UNAVAILABLE
    await until(lambda: not alive(pid) and not alive(fork))
    assert [path.name for path in tmp_path.iterdir()] == ["came"]
    with pytest.raises(ServiceError):
        await running.inspect(source, tmp_path / "c", EVERYTHING)


async def test_a_hundred_images_leave_no_descriptor_and_no_process(tmp_path: Path) -> None:
    good, bad = put(tmp_path, PLAIN, "good"), put(tmp_path, PLAIN[:100], "bad")
    async with inspecting() as running:
        await running.inspect(good, tmp_path / "target", EVERYTHING)
        (pid,) = running.worker_pids
        before = descriptors(), descriptors(pid)
        for _ in range(50):
            await running.inspect(good, tmp_path / "target", EVERYTHING)
            await refusal(running, bad)
        assert (descriptors(), descriptors(pid)) == before
        assert forks(pid) == []
        assert running.worker_pids == (pid,)


async def test_the_loop_goes_on_ticking_while_an_image_is_examined(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async with inspecting() as running:
        examined = asyncio.create_task(running.inspect(put(tmp_path, SLOW), tmp_path / "target", EVERYTHING))
        await fork_of(running)
        ticker = asyncio.create_task(tick())
        await examined
        ticker.cancel()
    assert ticks > 100


def test_it_works_on_the_loop_that_the_services_run_on(tmp_path: Path) -> None:
    async def one() -> str:
        async with inspecting() as running:
            return (await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)).format

    assert uvloop.run(one()) == "png"
