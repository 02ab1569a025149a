from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from services.chassis.settings import Secret
from services.jobs.verify_webhook import TOLERANCE_S, Finding, check, read_headers
from services.jobs.webhooks import signatures
from services.jobs.webhooks.signatures import LegacySignature

ROOT = Path(__file__).resolve().parents[2]
SECRET = Secret("whsec_" + base64.b64encode(b"s" * 32).decode())
OTHER = Secret("whsec_" + base64.b64encode(b"o" * 32).decode())
LEGACY = LegacySignature("X-Seedancee2-Event", "X-Seedancee2-Signature", "done", "failed")
BODY = b'{"status":"completed"}'
NOW_S = 1_800_000_000


def sent(*secrets: Secret) -> dict[str, str]:
    signed = signatures.headers(secrets or [SECRET], "whd_1", NOW_S, BODY, legacy=LEGACY)
    return {name.lower(): value for name, value in signed.items()}


def problems(
    headers: dict[str, str], body: bytes = BODY, now_s: int = NOW_S, secret: Secret = SECRET
) -> list[str]:
    return [finding.problem for finding in check(secret, headers, body, now_s)]


def test_what_was_sent_is_good() -> None:
    findings = check(SECRET, sent(), BODY, NOW_S)
    assert findings == [Finding("webhook-signature", ""), Finding("x-seedancee2-signature", "")]
    assert all(finding.good for finding in findings)


def test_either_of_two_secrets_is_enough() -> None:
    assert problems(sent(OTHER, SECRET)) == ["", ""]


@pytest.mark.parametrize("body", [BODY + b"\n", b"", BODY.replace(b":", b": ")])
def test_another_body_is_told_as_such(body: bytes) -> None:
    assert all("no signature fits" in problem for problem in problems(sent(), body))


def test_another_secret_is_told_as_such() -> None:
    assert all("no signature fits" in problem for problem in problems(sent(), secret=OTHER))


@pytest.mark.parametrize("age_s", [TOLERANCE_S, -TOLERANCE_S, 0])
def test_five_minutes_to_either_side_are_taken(age_s: int) -> None:
    assert problems(sent(), now_s=NOW_S + age_s) == ["", ""]


@pytest.mark.parametrize(
    ("age_s", "words"), [(TOLERANCE_S + 1, "301 s ago"), (-TOLERANCE_S - 1, "301 s in the future")]
)
def test_more_is_too_much_also_in_the_future(age_s: int, words: str) -> None:
    assert all(words in problem for problem in problems(sent(), now_s=NOW_S + age_s))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"webhook-id": ""}, "no header webhook-id"),
        ({"webhook-id": "whd_2"}, "no signature fits"),
        ({"webhook-timestamp": "soon"}, "whole number"),
        ({"webhook-signature": "v1a,abc"}, "begins with v1,"),
        ({"webhook-signature": "v1,abc"}, "no signature fits"),
        ({"webhook-signature": "v1,ü"}, "no signature fits"),
    ],
)
def test_what_is_wrong_with_the_standard_headers_is_said(change: dict[str, str], words: str) -> None:
    assert words in problems(sent() | change)[0]


@pytest.mark.parametrize("value", ["", "t=1", "v1=ab", "t=x,v1=" + "a" * 64, "t=1,v1=" + "A" * 64])
def test_a_signature_of_the_storefront_s_own_that_is_none_is_said_to_be_so(value: str) -> None:
    assert problems(sent() | {"x-seedancee2-signature": value})[1].startswith("it is not t=")


def test_a_secret_that_is_none_is_said_to_be_so() -> None:
    assert "cannot be used" in problems(sent(), secret=Secret("secret"))[0]


def test_headers_are_read_as_tools_print_them() -> None:
    text = "POST /hook HTTP/1.1\r\nWebhook-Id: whd_1\r\n> X-A:b: c\n\nnot a header\n"
    assert read_headers(text) == {"webhook-id": "whd_1", "x-a": "b: c"}


def run(folder: Path, *arguments: str, standard_input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "services.jobs", "verify-webhook", "--at", str(NOW_S), *arguments]
    return subprocess.run(
        command, cwd=ROOT, input=standard_input, capture_output=True, check=False, timeout=60
    )


def test_the_command_answers_with_its_exit_code_and_a_line_for_each_signature(tmp_path: Path) -> None:
    headers, body = tmp_path / "headers", tmp_path / "body"
    headers.write_text("\n".join(f"{name}: {value}" for name, value in sent().items()))
    body.write_bytes(BODY)
    given = ("--secret", SECRET.reveal(), "--headers", str(headers))
    good = run(tmp_path, *given, "--body", str(body))
    assert (good.returncode, good.stdout.splitlines()) == (
        0,
        [b"webhook-signature: good", b"x-seedancee2-signature: good"],
    )
    piped = run(tmp_path, *given, "--body", "-", standard_input=BODY + b"x")
    assert piped.returncode == 1
    assert b"no signature fits" in piped.stdout
    assert SECRET.reveal().encode() not in piped.stdout + piped.stderr
    missing = run(tmp_path, *given, "--body", str(tmp_path / "none"))
    assert (missing.returncode, b"cannot read" in missing.stderr) == (2, True)
