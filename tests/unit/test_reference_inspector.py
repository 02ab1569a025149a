"""What comes out of an inspector, and what does not."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import logging
import os
import random
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from services.chassis.errors import Kind, ServiceError
from services.provider_pool.references import decode_process
from services.provider_pool.references.container import FORMATS, ImageLimits
from tests.corpus import images
from tests.unit import lying_decode_worker
from tests.unit.inspections import (
    EVERYTHING,
    PLAIN,
    SINGLE,
    inspecting,
    put,
    refusal,
    refusals,
)

# ---- what comes out ----


async def test_every_honest_image_comes_out_as_told_and_without_what_was_hidden(tmp_path: Path) -> None:
    async with inspecting() as running:
        for sample in images.honest():
            source, target = put(tmp_path, sample.content), tmp_path / "target"
            found = await running.inspect(source, target, EVERYTHING)
            kept = target.read_bytes()
            with Image.open(io.BytesIO(kept)) as image:
                assert (found.width, found.height) == image.size, sample.name
                assert found.content_type == Image.MIME[image.format or ""], sample.name
            assert found.format == sample.format, sample.name
            assert (found.size_bytes, found.sha256) == (len(kept), hashlib.sha256(kept).hexdigest())
            assert images.CANARY not in kept, sample.name
            assert source.read_bytes() == sample.content
        assert len(running.worker_pids) == 1


@pytest.mark.parametrize("kind", ["gif", "bmp", "tiff"])
async def test_what_is_not_rewritten_comes_out_as_a_png_of_the_same_picture(
    kind: str, tmp_path: Path
) -> None:
    async with inspecting() as running:
        for sample in images.honest():
            if sample.format != kind:
                continue
            found = await running.inspect(put(tmp_path, sample.content), tmp_path / "target", EVERYTHING)
            assert (found.format, found.content_type, found.extension) == (kind, "image/png", "png")
            with Image.open(io.BytesIO(sample.content)) as came, Image.open(tmp_path / "target") as drawn:
                assert ImageChops.difference(came.convert("RGBA"), drawn.convert("RGBA")).getbbox() is None


async def test_of_an_animation_the_first_frame_comes_out(tmp_path: Path) -> None:
    async with inspecting() as running:
        for sample in images.animations():
            found = await running.inspect(put(tmp_path, sample.content), tmp_path / "target", EVERYTHING)
            assert (found.format, found.extension) == (sample.format, "png")
            with Image.open(io.BytesIO(sample.content)) as came, Image.open(tmp_path / "target") as drawn:
                assert getattr(drawn, "n_frames", 1) == 1
                assert ImageChops.difference(came.convert("RGB"), drawn.convert("RGB")).getbbox() is None


async def test_a_drawing_stands_upright_whatever_its_source_said(tmp_path: Path) -> None:
    sideways = tmp_path / "came"
    images.picture().save(sideways, "TIFF", tiffinfo={274: 6})
    async with inspecting() as running:
        found = await running.inspect(sideways, tmp_path / "target", EVERYTHING)
    assert (found.width, found.height) == images.SIZE[::-1]
    with Image.open(tmp_path / "target") as drawn:
        upright = images.picture().transpose(Image.Transpose.ROTATE_270)
        assert ImageChops.difference(upright, drawn.convert("RGB")).getbbox() is None


async def test_a_refusal_has_its_rule_is_counted_and_leaves_no_file(tmp_path: Path) -> None:
    async with inspecting() as running:
        before = refusals("animated")
        assert await refusal(running, put(tmp_path, images.frames("WEBP")), SINGLE) == "animated"
        assert refusals("animated") == before + 1
        assert await refusal(running, put(tmp_path, b"")) == "empty"
        assert await refusal(running, put(tmp_path, PLAIN[:-20])) == "truncated"
    assert [path.name for path in tmp_path.iterdir()] == ["came"]


async def test_what_is_much_too_large_is_refused_without_being_read(tmp_path: Path) -> None:
    source = put(tmp_path, PLAIN)
    os.truncate(source, 1024**4)
    async with inspecting() as running:
        assert await refusal(running, source) == "too_many_bytes"


async def test_a_small_file_that_would_become_a_large_png_is_refused(tmp_path: Path) -> None:
    noise = [Image.frombytes("RGB", (600, 600), random.Random(n).randbytes(1_080_000)) for n in range(2)]
    file = io.BytesIO()
    noise[0].save(file, "WEBP", save_all=True, append_images=noise[1:], quality=0)
    source = put(tmp_path, file.getvalue())
    limits = ImageLimits(FORMATS, len(file.getvalue()), first_frame_of_animations=True)
    async with inspecting() as running:
        assert await refusal(running, source, limits) == "too_many_bytes"
        assert (await running.inspect(source, tmp_path / "target", EVERYTHING)).format == "webp"


async def test_what_is_no_file_is_an_error_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with inspecting() as running:
        for name in ("pipe", ".", "missing"):
            with pytest.raises(OSError):  # noqa: PT011  # which one is the system's business
                await running.inspect(tmp_path / name, tmp_path / "target", EVERYTHING)
    assert not (tmp_path / "target").exists()


async def test_a_link_in_the_target_s_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = put(tmp_path, b"precious", "victim")
    target = tmp_path / "target"
    target.symlink_to(victim)
    async with inspecting() as running:
        await running.inspect(put(tmp_path, PLAIN), target, EVERYTHING)
    assert victim.read_bytes() == b"precious"
    assert not target.is_symlink()


async def test_a_disk_that_is_full_is_no_fault_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = decode_process.Descriptors.open

    def full(files: decode_process.Descriptors, source: Path, target: Path) -> None:
        opens(files, source, target)
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, files.opened[1])
        os.close(device)

    monkeypatch.setattr(decode_process.Descriptors, "open", full)
    async with inspecting() as running:
        for content in (PLAIN, images.saved("GIF")):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                await running.inspect(put(tmp_path, content), tmp_path / "target", EVERYTHING)
    assert [path.name for path in tmp_path.iterdir()] == ["came"]


# ---- who cannot be trusted ----


async def test_a_worker_gets_nothing_of_the_pool_s_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_POOL_SECRET", "hunter2")
    async with inspecting() as running:
        await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        (pid,) = running.worker_pids
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:
            # To anybody but root, a process that has settled shows nothing at all.
            environment = b""
    names = {entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry}
    assert names <= {b"PATH", b"LANG"}


@pytest.mark.parametrize("lie", lying_decode_worker.LIES)
async def test_a_decoder_that_was_taken_over_gets_nothing_past_the_pool(
    lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_process, "_MODULE", lying_decode_worker.__name__)
    number = list(lying_decode_worker.LIES).index(lie) + 1
    limits = ImageLimits(frozenset({"png"}), number)
    source, target = put(tmp_path, PLAIN), tmp_path / "target"
    async with inspecting() as running:
        if lie == "time that cannot be":
            await running.inspect(source, target, limits)
            assert target.read_bytes() == lying_decode_worker.CONTENT
        else:
            assert await refusal(running, source, limits) == "undecodable"
        honest = ImageLimits(frozenset({"png"}), lying_decode_worker.HONEST)
        await running.inspect(source, target, honest)
    assert target.read_bytes() == lying_decode_worker.CONTENT
    assert refusals("x" * 99) == 0


async def test_walls_that_are_missing_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decode_process, "_MODULE", lying_decode_worker.__name__)
    honest = ImageLimits(frozenset({"png"}), lying_decode_worker.HONEST)
    source = put(tmp_path, PLAIN)
    with caplog.at_level(logging.WARNING):
        async with inspecting(workers=2) as running:
            await asyncio.gather(*(running.inspect(source, tmp_path / name, honest) for name in "abcd"))
    told = [record for record in caplog.records if record.message == "decode_worker.walls_missing"]
    assert len(told) == 1
    assert vars(told[0])["missing"] == ("system_calls",)


@pytest.mark.parametrize("module", ["services.no_such_module", "json.tool"])
async def test_a_worker_that_cannot_start_is_no_fault_of_the_image(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_process, "_MODULE", module)
    async with inspecting() as running:
        with pytest.raises(ServiceError) as caught:
            await running.inspect(put(tmp_path, PLAIN), tmp_path / "target", EVERYTHING)
        assert caught.value.kind is Kind.UNAVAILABLE
        assert running.worker_pids == ()
    assert not (tmp_path / "target").exists()
