"""How the sandbox's worker processes are kept."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import av
import pytest
from PIL import Image

from services.chassis.errors import Kind, ServiceError
from services.provider_pool.adapters.sandbox.render_farm import RenderFarm, RenderOrder

ROOT = Path(__file__).resolve().parents[2]
PICTURE = RenderOrder(
    order_id="pic",
    kind="image",
    prompt="hills in the morning",
    width=256,
    height=192,
    duration_s=0,
    audio=False,
    seed=3,
    quality="LOW",
)
FILM = dataclasses.replace(PICTURE, order_id="film", kind="video", duration_s=2, audio=True)
# Far longer than any test waits: a film that is surely still being drawn when the test acts.
LONG_FILM = dataclasses.replace(FILM, order_id="long", width=1280, height=720, duration_s=60)
DEADLINE_S = 60.0


@asynccontextmanager
async def farm(folder: Path, **changes: float) -> AsyncIterator[RenderFarm]:
    settings = {"workers": 1, "deadline_s": DEADLINE_S} | changes
    running = RenderFarm(folder, **settings)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        await running.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def drawing(folder: Path) -> bool:
    return any(path.stat().st_size > 0 for path in folder.glob(".*.part"))


async def test_an_order_comes_back_as_whole_files_in_the_folder(tmp_path: Path) -> None:
    async with farm(tmp_path / "made" / "on demand") as running:
        (picture,) = await running.render(PICTURE)
        film, poster = await running.render(FILM)
    assert (picture.role, picture.content_type, picture.duration_s) == ("primary", "image/png", None)
    assert (film.role, film.content_type, film.duration_s) == ("primary", "video/mp4", 2.0)
    assert (poster.role, poster.content_type) == ("preview", "image/jpeg")
    with Image.open(picture.path) as image, Image.open(poster.path) as preview:
        assert image.size == preview.size == (256, 192)
    with av.open(str(film.path)) as container:
        assert container.duration == 2 * av.time_base
    assert sorted(picture.path.parent.iterdir()) == sorted([film.path, poster.path, picture.path])


async def test_two_worker_processes_give_the_same_bytes(tmp_path: Path) -> None:
    results: list[list[bytes]] = []
    pids: set[int] = set()
    for name in ("one", "two"):
        async with farm(tmp_path / name) as running:
            files = [*await running.render(PICTURE), *await running.render(FILM)]
            pids.update(running.worker_pids)
            results.append([file.path.read_bytes() for file in files])
    assert len(pids) == 2
    assert results[0] == results[1]


async def test_the_loop_goes_on_ticking_while_a_film_is_drawn(tmp_path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async with farm(tmp_path) as running:
        order = asyncio.create_task(running.render(dataclasses.replace(FILM, width=640, height=360)))
        await until(lambda: drawing(tmp_path))
        ticker = asyncio.create_task(tick())
        await order
        ticker.cancel()
    assert ticks > 100


async def test_a_worker_that_is_killed_is_replaced_and_its_order_drawn(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        order = asyncio.create_task(running.render(dataclasses.replace(FILM, duration_s=10)))
        await until(lambda: drawing(tmp_path))
        (first,) = running.worker_pids
        os.kill(first, signal.SIGKILL)
        film, _ = await order
        assert running.worker_pids != (first,)
    with av.open(str(film.path)) as container:
        assert container.duration == 10 * av.time_base
    assert not list(tmp_path.glob(".*.part"))


async def test_an_order_whose_worker_dies_twice_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        order = asyncio.create_task(running.render(LONG_FILM))
        for _ in range(2):
            await until(lambda: drawing(tmp_path) and bool(running.worker_pids))
            (pid,) = running.worker_pids
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: pid not in running.worker_pids)  # type: ignore[misc]
        with pytest.raises(ServiceError) as caught:
            await order
        assert caught.value.kind is Kind.INTERNAL
        assert list(tmp_path.iterdir()) == []
        assert len(await running.render(PICTURE)) == 1


async def test_an_order_past_its_deadline_ends_and_its_worker_with_it(tmp_path: Path) -> None:
    async with farm(tmp_path, deadline_s=0.2) as running:
        order = asyncio.create_task(running.render(LONG_FILM))
        await until(lambda: bool(running.worker_pids))
        (pid,) = running.worker_pids
        with pytest.raises(ServiceError) as caught:
            await order
        assert caught.value.kind is Kind.DEADLINE_EXCEEDED
        assert not alive(pid)
        assert running.worker_pids == ()
        assert running.pending == 0


async def test_no_more_workers_than_allowed_and_no_longer_queue_than_its_limit(tmp_path: Path) -> None:
    async with farm(tmp_path, workers=2, queue_limit=3) as running:
        orders = [dataclasses.replace(PICTURE, order_id=f"p{n}", seed=n) for n in range(6)]
        tasks = [asyncio.create_task(running.render(order)) for order in orders[:5]]
        await until(lambda: running.pending == 5)
        with pytest.raises(ServiceError) as caught:
            await running.render(orders[5])
        assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
        seen = 0
        while not all(task.done() for task in tasks):
            seen = max(seen, len(running.worker_pids))
            await asyncio.sleep(0.005)
        assert len({(await task)[0].path for task in tasks}) == 5
        assert seen == 2


async def test_calls_with_one_order_id_share_one_drawing(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        results = await asyncio.gather(*(running.render(PICTURE) for _ in range(50)))
        assert all(result is results[0] for result in results)


async def test_another_order_with_an_id_in_use_is_refused(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        first = asyncio.create_task(running.render(PICTURE))
        await until(lambda: running.pending == 1)
        with pytest.raises(ServiceError) as caught:
            await running.render(dataclasses.replace(PICTURE, seed=99))
        assert caught.value.kind is Kind.ALREADY_EXISTS
        await first


async def test_drawing_goes_on_for_the_others_when_one_caller_gives_up(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        impatient = asyncio.create_task(running.render(PICTURE))
        patient = asyncio.create_task(running.render(PICTURE))
        await until(lambda: bool(running.worker_pids))
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert len(await patient) == 1


async def test_an_order_that_cannot_be_drawn_starts_no_worker(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        with pytest.raises(ServiceError, match="must be even") as caught:
            await running.render(dataclasses.replace(FILM, width=257))
        assert caught.value.kind is Kind.INVALID_ARGUMENT
        assert running.worker_pids == ()


async def test_a_worker_without_work_ends_and_the_next_order_gets_another(tmp_path: Path) -> None:
    async with farm(tmp_path, idle_s=0.01) as running:
        await running.render(PICTURE)
        await until(lambda: running.worker_pids == ())
        assert len(await running.render(dataclasses.replace(PICTURE, order_id="next"))) == 1


async def test_closing_ends_workers_and_tells_waiting_callers(tmp_path: Path) -> None:
    async with farm(tmp_path, workers=2) as running:
        await running.render(PICTURE)
        order = asyncio.create_task(running.render(LONG_FILM))
        await until(lambda: drawing(tmp_path))
        pids = running.worker_pids
        await running.close()
        with pytest.raises(ServiceError) as caught:
            await order
        assert caught.value.kind is Kind.UNAVAILABLE
        assert not any(alive(pid) for pid in pids)
        assert not list(tmp_path.glob(".*.part"))
        with pytest.raises(ServiceError, match="closed"):
            await running.render(PICTURE)


async def test_workers_yield_to_every_other_process_and_are_bounded(tmp_path: Path) -> None:
    async with farm(tmp_path) as running:
        await running.render(PICTURE)
        (pid,) = running.worker_pids
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert str(2 * 1024**3) in limits
        assert "ATELIER" not in Path(f"/proc/{pid}/environ").read_text()


async def test_a_worker_in_the_middle_of_a_film_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from tests.unit.test_sandbox_render_farm import LONG_FILM, RenderFarm\n"
        "farm = RenderFarm(pathlib.Path(sys.argv[1]), workers=1, deadline_s=60)\n"
        "asyncio.run(farm.render(LONG_FILM))\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path), cwd=ROOT)
    try:
        await until(lambda: drawing(tmp_path))
        worker = int(next(tmp_path.glob(".*.part")).name.split(".")[-2])
        assert alive(worker)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not alive(worker))


def test_the_pool_process_never_loads_what_only_the_worker_needs() -> None:
    program = (
        "import sys; import services.provider_pool.adapters.sandbox.render_farm; "
        "import services.provider_pool.adapters.sandbox.render_worker; "
        "sys.exit(bool({'numpy', 'PIL', 'av'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("package", ["numpy", "PIL", "av"])
def test_a_missing_extra_is_named_in_the_answer(package: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import json, pathlib\n"
        "from services.provider_pool.adapters.sandbox.render_worker import answer\n"
        "print(json.dumps(answer(sys.stdin.buffer.readline(), pathlib.Path(sys.argv[1]))['error']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        input=json.dumps(dataclasses.asdict(FILM)).encode(),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    error = json.loads(done.stdout)
    assert (error["kind"], error["message"]) == ("FAILED_PRECONDITION", "the sandbox extra is not installed")
