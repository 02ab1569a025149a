from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from services.chassis.egress_policy import POLICY_RULES
from services.chassis.egress_url import URL_RULES
from tests.corpus import hostile_urls
from tests.corpus.url_case import PUBLIC
from tests.tidy.source import ROOT


def check(
    *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] = MappingProxyType({}), status: int = 0
) -> tuple[list[dict[str, Any]], str]:
    """The lines on standard output, and standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "services.provider_pool", "check-url", *arguments],
        check=False,
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        env=dict(environ),
    )
    assert ended.returncode == status, ended.stderr
    return [json.loads(line) for line in ended.stdout.decode("ascii").splitlines()], ended.stderr.decode()


def jsonl(*lines: object) -> bytes:
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


def reasons(answers: Sequence[Mapping[str, Any]]) -> list[str | None]:
    return [answer["reason"] for answer in answers]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, dict[str, Any]]]:
    file = tmp_path_factory.mktemp("corpus") / "urls.jsonl"
    written = subprocess.run(
        [sys.executable, "-m", "tests.corpus.hostile_urls"], capture_output=True, check=True, cwd=ROOT
    )
    file.write_bytes(written.stdout)
    answers, complaints = check("--jsonl", str(file))
    assert complaints == ""
    return list(zip(hostile_urls.cases(), answers, strict=True))


def test_every_url_of_the_corpus_gets_the_right_verdict(judged: list[tuple[Any, dict[str, Any]]]) -> None:
    assert [(case.trick, answer) for case, answer in judged if answer["verdict"] != case.verdict] == []
    assert [case.url for case, _ in judged] == [answer["input"] for _, answer in judged]


def test_a_verdict_has_a_reason_and_a_sentence_exactly_when_it_blocks(
    judged: list[tuple[Any, dict[str, Any]]],
) -> None:
    for _, answer in judged:
        assert list(answer) == ["input", "verdict", "reason", "detail"]
        if answer["verdict"] == "allow":
            assert answer["reason"] is answer["detail"] is None
        else:
            assert answer["reason"] in URL_RULES | POLICY_RULES | {"not_found", "resolve"}
            assert answer["detail"].endswith(".")


def test_the_corpus_is_as_large_as_it_claims(judged: list[tuple[Any, dict[str, Any]]]) -> None:
    hostile = {case.url for case, _ in judged if case.verdict == "block" and case.resolves_to == (PUBLIC,)}
    honest = {case.url for case, _ in judged if case.verdict == "allow"}
    assert len(hostile) >= 1_500
    assert len(honest) >= 300
    assert {answer["reason"] for _, answer in judged} >= URL_RULES - {"one_label"}


def test_urls_on_the_command_line_are_answered_in_order() -> None:
    answers, _ = check("--resolves-to", "10.0.0.7", "https://example.com/cat.png", "https://8.8.8.8/", "x")
    assert answers[0] == {
        "input": "https://example.com/cat.png",
        "verdict": "block",
        "reason": "private",
        "detail": "10.0.0.7 is private.",
    }
    assert answers[1] == {"input": "https://8.8.8.8/", "verdict": "allow", "reason": None, "detail": None}
    assert answers[2]["reason"] == "scheme"


def test_all_answers_count_when_several_are_given() -> None:
    name = "https://example.com/"
    assert reasons(check("--resolves-to", PUBLIC, "--resolves-to", "::1", name)[0]) == ["loopback"]
    assert reasons(check(name, "--resolves-to", PUBLIC, "--resolves-to", "2606:4700::1111")[0]) == [None]
    assert reasons(check(name, "--resolves-to", "garbage")[0]) == ["resolve"]


def test_a_line_that_is_no_question_is_answered_all_the_same() -> None:
    good = {"url": "https://example.com/", "resolves_to": [PUBLIC]}
    answers, _ = check(
        "--jsonl",
        "-",
        stdin=jsonl(
            b"\xef\xbb\xbf" + jsonl(good),
            b"\n",
            b"{\r\n",
            b"\xff\n",
            b"[" * 100_000 + b"\n",
            b"9" * 5_000 + b"\n",
            [good],
            {"url": 5},
            {"resolves_to": [PUBLIC]},
            {"url": good["url"], "resolves_to": PUBLIC},
            {"url": good["url"], "resolves_to": [5]},
            {"url": good["url"], "resolves_to": [None]},
            {"url": "https://example.com/\ud800", "resolves_to": [PUBLIC]},
            json.dumps(good).encode(),
        ),
    )
    assert reasons(answers) == [None, *["malformed_line"] * 9, "resolve", "resolve", "characters", None]
    assert answers[2]["input"] == "{"


def test_without_answers_a_literal_needs_no_resolver() -> None:
    answers, _ = check(
        "--jsonl", "-", stdin=jsonl({"url": "https://1.1.1.1/"}, {"url": "https://127.0.0.1/"})
    )
    assert reasons(answers) == [None, "loopback"]


def test_without_answers_the_resolver_is_asked() -> None:
    # `.invalid` never resolves, and never reaches a name server where the hosts file is asked first; the pair
    # lets the name through to the resolver.
    answers, _ = check("https://nobody.invalid:8443/", environ={"ATELIER_EGRESS_ALLOW": "127.0.0.1:8443"})
    assert answers[0]["verdict"] == "block"
    assert answers[0]["reason"] in {"not_found", "resolve", "resolve_timeout"}


def test_the_operator_s_settings_count() -> None:
    environ = {
        "ATELIER_EGRESS_ALLOW": "127.0.0.1/32:8443",
        "ATELIER_EGRESS_DENY": "1.1.1.0/24",
        "ATELIER_EGRESS_PORTS": "9443",
    }
    lines = jsonl(
        {"url": "http://127.0.0.1:8443/"},
        {"url": "https://minio:8443/", "resolves_to": ["127.0.0.1"]},
        {"url": "https://minio:8443/", "resolves_to": ["127.0.0.1", "8.8.8.8"]},
        {"url": "https://1.1.1.1/"},
        {"url": "https://8.8.8.8:9443/"},
    )
    assert reasons(check("--jsonl", "-", stdin=lines, environ=environ)[0]) == [
        None,
        None,
        "port",
        "denied",
        None,
    ]


def test_an_answer_comes_before_the_next_question_is_asked() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "services.provider_pool", "check-url", "--jsonl", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as asked:
        assert asked.stdin
        assert asked.stdout
        for url, reason in (("https://127.0.0.1/", "loopback"), ("https://8.8.8.8/", None)):
            asked.stdin.write(jsonl({"url": url}))
            asked.stdin.flush()
            assert json.loads(asked.stdout.readline())["reason"] == reason


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--jsonl", "missing.jsonl"),
        ("--jsonl", "/"),
        ("--jsonl", "-", "https://example.com/"),
        ("--jsonl", "-", "--resolves-to", PUBLIC),
        ("--unknown",),
    ],
    ids=repr,
)
def test_a_wrong_command_line_ends_with_2_and_a_sentence(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answers, complaint = check(*arguments, status=2)
    assert answers == []
    assert "check-url" in complaint
    assert "Traceback" not in complaint


def test_settings_that_are_of_no_use_are_listed() -> None:
    answers, complaint = check("https://1.1.1.1/", environ={"ATELIER_EGRESS_ALLOW": "everything"}, status=2)
    assert answers == []
    assert "ATELIER_EGRESS_ALLOW holds 'everything'" in complaint
    assert "Traceback" not in complaint
