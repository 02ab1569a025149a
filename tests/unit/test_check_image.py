from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from services.provider_pool.__main__ import parser
from services.provider_pool.references import check_image, decode_process
from services.provider_pool.references.container import FORMATS, PIXELS_LIMIT
from tests.corpus import hostile_images, hostile_jpeg, images

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "services.provider_pool", "check-image"]
PLAIN = images.saved("PNG")
# Half a second of work for a decoder.
SLOW = hostile_jpeg.endless(64, width=8_000, height=6_250)


def check(*arguments: object) -> int:
    words = ["check-image", *map(str, arguments)]
    return check_image.run(parser("check-image").parse_args(words), {})


def answers(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def listed(folder: Path, *lines: object) -> Path:
    path = folder / "list.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def put(folder: Path, name: str, content: bytes = PLAIN) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# ---- verdicts ----


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_images.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def judged(corpus: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What was expected of every image on every kind of contract, and what the command said."""
    result = subprocess.run(
        [*PROGRAM, "--jsonl", str(corpus), "--output", str(corpus.parent / "kept")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    expected = [json.loads(line) for line in corpus.read_text().splitlines()]
    said = [json.loads(line) for line in result.stdout.splitlines()]
    return list(zip(expected, said, strict=True))


Judged = list[tuple[dict[str, Any], dict[str, Any]]]


def test_the_corpus_is_large_and_plays_every_trick_once(judged: Judged) -> None:
    tricks = [case.trick for case in hostile_images.cases()]
    assert len(tricks) == len(set(tricks))
    hostile = Counter(expected["expected"] for expected, _ in judged)
    assert hostile["block"] >= 2 * 134


def test_no_verdict_on_the_corpus_is_wrong(judged: Judged) -> None:
    wrong = [
        (expected["trick"], expected["contract"], said["reason"], said["detail"])
        for expected, said in judged
        if (said["input"], said["verdict"], said["reason"])
        != (expected["file"], expected["expected"], expected["reason"])
    ]
    assert wrong == []


def test_whatever_is_taken_comes_out_clean(judged: Judged) -> None:
    smuggled = (b"<script", b"<?php", b"PK\x03\x04", b"PK\x05\x06", b"%PDF", images.CANARY)
    outputs = [(said["input"], Path(said["output"]).read_bytes()) for _, said in judged if "output" in said]
    assert len(outputs) == sum(said["verdict"] == "allow" for _, said in judged)
    assert [(name, what) for name, kept in outputs for what in smuggled if what in kept] == []


def test_whatever_is_taken_comes_out_whole(judged: Judged) -> None:
    seen = set()
    for _, said in judged:
        if "output" in said and said["width"] * said["height"] < PIXELS_LIMIT // 10:
            kept = Path(said["output"]).read_bytes()
            if hashlib.sha256(kept).digest() in seen:
                continue
            seen.add(hashlib.sha256(kept).digest())
            with Image.open(io.BytesIO(kept), formats=["JPEG", "PNG", "WEBP"]) as image:
                assert image.size == (said["width"], said["height"]), said
                image.load()
    assert len(seen) > 50


def test_a_decoder_that_dies_stops_nobody_else(tmp_path: Path) -> None:
    names = [put(tmp_path, "first.png"), put(tmp_path, "deadly.jpg", SLOW), put(tmp_path, "last.png")]
    with subprocess.Popen(
        [*PROGRAM, "--contract", "leonardo", *map(str, names)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as command:
        os.kill(_slow_fork(command.pid), signal.SIGKILL)
        said = [json.loads(line) for line in command.communicate(timeout=60)[0].splitlines()]
    assert [line["reason"] for line in said] == [None, "undecodable", None]
    assert command.returncode == 0


def _slow_fork(pid: int) -> int:
    """The decoder that is at it for so long that it can only be the one with the slow image."""
    since: dict[int, float] = {}
    while True:
        for child in [fork for worker in _children(pid) for fork in _children(worker)]:
            if time.monotonic() - since.setdefault(child, time.monotonic()) > 0.25:
                return child
        time.sleep(0.005)


def _children(pid: int) -> list[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for line in lists for child in line.split()]


# ---- inputs ----


def test_every_input_has_its_line_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    inputs = [
        put(tmp_path, "a.png"),
        tmp_path / "missing.png",
        tmp_path,
        tmp_path / "pipe",
        put(tmp_path, "b.jpg", images.saved("JPEG")),
        tmp_path / "a.png" / "below",
        put(tmp_path, "c.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        Path("/dev/zero"),
    ]
    assert check("--contract", "leonardo", *inputs) == 0
    said = answers(capsys)
    assert [line["input"] for line in said] == list(map(str, inputs))
    assert [line["reason"] for line in said] == [
        None,
        "missing_file",
        "not_a_file",
        "not_a_file",
        None,
        "unreadable_file",
        "unknown_format",
        "not_a_file",
    ]
    assert {line["verdict"] for line in said if line["reason"]} == {"block"}
    assert all(line["detail"] for line in said if line["reason"])


def test_an_image_that_is_taken_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = put(tmp_path, "a.jpg")
    assert check("--contract", "leonardo", name) == 0
    assert answers(capsys) == [
        {
            "input": str(name),
            "verdict": "allow",
            "reason": None,
            "detail": None,
            "format": "png",
            "width": images.SIZE[0],
            "height": images.SIZE[1],
        }
    ]
    assert list(tmp_path.iterdir()) == [name]


def test_an_image_that_is_refused_still_has_its_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--contract", "leonardo", put(tmp_path, "a.gif", images.saved("GIF"))) == 0
    (said,) = answers(capsys)
    assert (said["verdict"], said["reason"], said["format"]) == ("block", "format_not_taken", "gif")


def test_what_a_provider_would_get_is_kept_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "deep" / "kept"
    names = [put(tmp_path, "same.jpg", images.jpeg_dressed(images.saved("JPEG"))), put(tmp_path, "bad", b"x")]
    names.append(put(tmp_path, "same.gif", images.saved("GIF")))
    assert check("--contract", "loova", "--output", kept, *names) == 0
    said = answers(capsys)
    assert [line.get("output") for line in said] == [str(kept / "1.jpg"), None, str(kept / "3.png")]
    assert sorted(path.name for path in kept.iterdir()) == ["1.jpg", "3.png"]
    assert images.CANARY not in (kept / "1.jpg").read_bytes()


def test_a_list_names_files_from_its_own_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    put(folder, "a.gif", images.saved("GIF"))
    monkeypatch.chdir(tmp_path)
    lines = listed(
        folder,
        {"file": "a.gif", "contract": "leonardo"},
        {"file": "a.gif", "contract": "imaginelab", "note": "ignored"},
        {"file": str(put(tmp_path, "b.png")), "contract": "leonardo"},
    )
    assert check("--jsonl", lines.relative_to(tmp_path)) == 0
    assert [line["reason"] for line in answers(capsys)] == ["format_not_taken", None, None]


def test_every_line_of_a_list_is_answered_whatever_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a.png")
    lines = listed(
        tmp_path,
        {"file": "a.png", "contract": "nobody"},
        {"file": "a.png"},
        {"contract": "leonardo"},
        {"file": 3, "contract": "leonardo"},
        {"file": "a\0.png", "contract": "leonardo"},
        {"file": "x" * 5_000, "contract": "leonardo"},
        "",
        "[]",
        "{",
        "[" * 100_000,
        {"file": "a.png", "contract": "leonardo"},
    )
    assert check("--jsonl", lines) == 0
    assert [line["reason"] for line in answers(capsys)] == [
        "unknown_contract",
        *["malformed_line"] * 3,
        "missing_file",
        "unreadable_file",
        *["malformed_line"] * 4,
        None,
    ]


def test_a_program_may_wait_for_each_answer_before_it_asks_again(tmp_path: Path) -> None:
    line = json.dumps({"file": str(put(tmp_path, "a.png")), "contract": "leonardo"}) + "\n"
    with subprocess.Popen(
        [*PROGRAM, "--jsonl", "-"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdin is not None
        assert command.stdout is not None
        for _ in range(3):
            command.stdin.write(line)
            command.stdin.flush()
            assert json.loads(command.stdout.readline())["verdict"] == "allow"
        command.stdin.close()
        assert command.wait(30) == 0


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    name = put(tmp_path, "a.png")
    lines = listed(tmp_path, *[{"file": name.name, "contract": "leonardo"}] * 200)
    with subprocess.Popen(
        [*PROGRAM, "--jsonl", str(lines)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.readline()
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.wait(30) == 1


def test_a_line_without_a_contract_takes_that_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a.gif", images.saved("GIF"))
    lines = listed(tmp_path, {"file": "a.gif"}, {"file": "a.gif", "contract": "leonardo"})
    assert check("--contract", "loova", "--jsonl", str(lines)) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["verdict"] for answer in told] == ["allow", "block"]


def test_on_a_machine_with_many_processors_every_input_still_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    names = [put(tmp_path, f"{number}.png") for number in range(600)]
    assert check("--contract", "leonardo", *names) == 0
    assert [line["input"] for line in answers(capsys)] == list(map(str, names))


# ---- usage ----


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.png"],
        ["--contract", "leonardo"],
        ["--jsonl", "list.jsonl", "a.png"],
        ["--jsonl", "no-such-list.jsonl"],
        ["--contract", "leonardo", "--output", "/dev/null/below", "a.png"],
        ["--contract", "leonardo", "--output", "/proc", *[__file__] * 3],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_in_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(*arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("check-image: ")
    assert told.err.count("\n") == 1


def test_without_a_place_for_temporary_files_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert check("--contract", "leonardo", put(tmp_path, "a.png")) == 2
    assert capsys.readouterr().err.startswith("check-image: a folder for temporary files")


def test_a_contract_that_there_is_not_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check("--contract", "nobody", "a.png")
    assert ended.value.code == 2
    assert "seedancee2" in capsys.readouterr().err


def test_where_no_image_can_be_checked_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode_process, "_MODULE", "services.no_such_module")
    assert check("--contract", "leonardo", put(tmp_path, "a.png")) == 1
    assert capsys.readouterr().err.startswith("check-image: ")


def test_the_five_contracts_have_the_limits_of_the_page() -> None:
    native, all_limits = check_image.CONTRACTS["leonardo"], set(check_image.CONTRACTS.values())
    assert set(check_image.CONTRACTS) == {"leonardo", "seedancee2", "seedance2pro", "loova", "imaginelab"}
    assert {limits.bytes for limits in all_limits} == {20 * 1024 * 1024}
    assert native.formats == frozenset({"jpeg", "png", "webp"})
    assert not native.first_frame_of_animations
    (others,) = all_limits - {native}
    assert others.formats == FORMATS
    assert others.first_frame_of_animations
