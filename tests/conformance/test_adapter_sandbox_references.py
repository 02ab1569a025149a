from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import (
    Generation,
    Reference,
    ReferenceFile,
    Strength,
    TaskState,
)
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from tests.clocks import HandClock
from tests.conformance.sandbox_bench import (
    ACCOUNT,
    FILM,
    INSTANT,
    PICTURE,
    SPECS,
    URL,
    Bench,
    marked,
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    adapter = SandboxAdapter(tmp_path / "sandbox", workers=1)
    yield Bench(adapter, HandClock(), tmp_path / "sandbox")
    await adapter.close()


def staged(
    folder: Path, colour: str = "red", strength: Strength = Strength.HIGH, side_px: int = 64
) -> ReferenceFile:
    """A reference as the pool hands it on."""
    path = folder / f"staged-{colour}.png"
    Image.new("RGB", (side_px, side_px), colour).save(path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return ReferenceFile(path, "image/png", len(content), sha256, side_px, side_px, strength)


async def test_a_picture_follows_references_that_are_gone_after_its_submission(
    bench: Bench, tmp_path: Path
) -> None:
    reference = staged(tmp_path)
    task = await bench.submit(PICTURE, files=[reference])
    reference.path.unlink()
    (output,) = (await bench.ended(task)).outputs
    file = tmp_path / "file"
    file.write_bytes(await bench.fetch(task, output))
    with Image.open(file) as drawn:
        red, green, blue = drawn.crop((0, 0, 256, 160)).resize((1, 1), Image.Resampling.BOX).tobytes()
    assert red > 2 * max(green, blue)


async def test_a_task_with_references_outlives_the_process_that_took_it(bench: Bench, tmp_path: Path) -> None:
    files = [staged(tmp_path, "red"), staged(tmp_path, "blue", Strength.LOW)]
    task = await bench.submit(marked("slow=30"), files=files)
    await bench.adapter.close()
    for file in files:
        file.path.unlink()
    after = Bench(SandboxAdapter(bench.folder, workers=1), bench.clock, bench.folder)
    try:
        assert (await after.ended(task)).state is TaskState.SUCCEEDED
    finally:
        await after.adapter.close()


async def test_an_order_knows_no_url_and_no_path_of_its_references(bench: Bench, tmp_path: Path) -> None:
    reference = staged(tmp_path)
    task = await bench.submit(PICTURE, files=[reference])
    (order,) = bench.folder.rglob(f"{task.task_id}.json")
    written = order.read_text()
    assert reference.sha256 in written
    assert "secret-path" not in written
    assert str(tmp_path) not in written


async def test_a_forgotten_task_leaves_no_reference(bench: Bench, tmp_path: Path) -> None:
    # The same picture twice is one upload.
    task = await bench.submit(PICTURE, files=[staged(tmp_path), staged(tmp_path, strength=Strength.LOW)])
    await bench.ended(task)
    assert len([path for path in bench.files() if staged(tmp_path).sha256 in path.name]) == 1
    await bench.adapter.forget(bench.context, ACCOUNT, task)
    assert bench.files() == []


async def test_another_task_with_the_same_reference_keeps_its_own(bench: Bench, tmp_path: Path) -> None:
    reference = staged(tmp_path)
    first = await bench.submit(marked("slow=30"), files=[reference])
    second = await bench.submit(PICTURE, files=[reference], reference="job_2:1")
    await bench.adapter.forget(bench.context, ACCOUNT, first)
    assert (await bench.ended(second)).state is TaskState.SUCCEEDED


async def test_references_of_orders_that_nobody_collected_are_swept(bench: Bench, tmp_path: Path) -> None:
    task = await bench.submit(PICTURE, files=[staged(tmp_path)])
    await bench.ended(task)
    (upload,) = [path for path in bench.files() if staged(tmp_path).sha256 in path.name]
    # As a process leaves it that ends between the upload and the order.
    upload.with_name("task_never_written-0").write_bytes(b"half an upload")
    for path in bench.files():
        os.utime(path, (0, 0))
    await bench.adapter.tidy()
    assert bench.files() == []


async def test_the_list_shows_only_tasks_of_the_same_references(bench: Bench, tmp_path: Path) -> None:
    red, blue = staged(tmp_path, "red"), staged(tmp_path, "blue")
    weaker = replace(red, strength=Strength.LOW)
    asked: list[list[ReferenceFile]] = [[], [red], [weaker], [blue], [red, blue], [blue, red]]
    tasks = [
        (await bench.submit(PICTURE, INSTANT, f"job_{turn}:1", files)).task_id
        for turn, files in enumerate(asked)
    ]
    assert [await bench.listed(PICTURE, INSTANT, files=files) for files in asked] == [[one] for one in tasks]


async def test_a_reference_that_vanishes_before_drawing_fails_its_task(bench: Bench, tmp_path: Path) -> None:
    reference = staged(tmp_path)
    await bench.submit(replace(PICTURE, width=2048, height=2048))
    task = await bench.submit(PICTURE, files=[reference], reference="job_2:1")
    # It waits behind the large picture, for there is one worker.
    (upload,) = [path for path in bench.files() if reference.sha256 in path.name]
    upload.unlink()
    found = await bench.ended(task)
    assert found.state is TaskState.FAILED
    assert isinstance(found.error, interface.GenerationFailed)
    assert (await bench.ended(await bench.submit(PICTURE))).state is TaskState.SUCCEEDED


async def test_a_reference_that_is_gone_at_submission_is_no_order(bench: Bench, tmp_path: Path) -> None:
    there, gone = staged(tmp_path, "red"), staged(tmp_path, "blue")
    gone.path.unlink()
    with pytest.raises(interface.InvalidRequest):
        await bench.submit(PICTURE, files=[there, gone])
    assert bench.files() == []


async def test_instant_files_ignore_references_and_copy_none(bench: Bench, tmp_path: Path) -> None:
    plain = await bench.submit(PICTURE, INSTANT)
    task = await bench.submit(PICTURE, INSTANT, "job_2:1", [staged(tmp_path)])
    found = [(await bench.poll(one, INSTANT)).outputs[0] for one in (plain, task)]
    first, second = [
        await bench.fetch(one, output, INSTANT) for one, output in zip((plain, task), found, strict=True)
    ]
    assert first == second
    assert {path.suffix for path in bench.files()} == {".json"}


@pytest.mark.parametrize("generation", [PICTURE, FILM], ids=lambda one: str(one.kind))
def test_nine_references_are_taken_and_a_tenth_is_refused(
    generation: Generation, bench: Bench, tmp_path: Path
) -> None:
    files = [staged(tmp_path)] * 9
    assert len(bench.prepared(generation, files).references) == 9
    with pytest.raises(interface.InvalidRequest):
        bench.prepared(generation, [*files, files[0]])


def test_a_reference_without_its_file_is_refused(bench: Bench) -> None:
    wanted = replace(PICTURE, references=(Reference(url=URL),))
    with pytest.raises(interface.InvalidRequest):
        bench.adapter.prepare(wanted, SPECS[PICTURE.model])
