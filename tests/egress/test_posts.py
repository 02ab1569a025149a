from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.chassis.egress import Egress, EgressFailed, EgressRefused, Posted
from tests.egress.certificates import ADDRESS, NAMES, Credentials
from tests.egress.evil_server import EvilServer
from tests.egress.scenes import MEBIBYTE, OK, answer, endless, late, redirect, then_silence
from tests.egress.street import FORBIDDEN, OUTER_LIMIT_S, SECRET, TOTAL_S, Street, policy_for, street

BODY = b'{"status":"completed"}'
HEADERS = {"Content-Type": "application/json", "webhook-id": "whd_1"}


async def post(
    here: Street, url: str | None = None, headers: dict[str, str] = HEADERS, total_s: float = TOTAL_S
) -> Posted:
    async with asyncio.timeout(OUTER_LIMIT_S):
        return await here.egress.post(url or here.url(), BODY, headers, total_s=total_s)


async def test_a_post_carries_its_body_and_headers_and_hears_the_status(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = answer(b"", "Retry-After: 7", status="503 Busy")
    assert await post(here) == Posted(503, "7")
    (head,) = here.server.heads
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST /{SECRET} HTTP/1.1"
    assert f"Content-Length: {len(BODY)}" in lines
    assert {"webhook-id: whd_1", "Content-Type: application/json"} <= set(lines)
    assert not any(line.lower().startswith(("cookie:", "authorization:", "expect:")) for line in lines)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_leads_nowhere(here: Street, status: int) -> None:
    elsewhere = f"https://{FORBIDDEN[0]}:{here.server.port}/"
    here.server.scenes |= {f"/{SECRET}": redirect(elsewhere, status=status), "/": answer()}
    assert (await post(here)).status == status
    assert len(here.server.heads) == 1
    here.server.scenes[f"/{SECRET}"] = redirect("/", status=status)
    assert (await post(here)).status == status
    assert here.server.paths() == [f"/{SECRET}"] * 2


async def test_of_an_endless_answer_little_is_read_and_its_status_counts(here: Street) -> None:
    sent = 0

    async def play() -> AsyncIterator[bytes]:
        nonlocal sent
        yield OK + b"Content-Length: 1073741824\r\n\r\n"
        while True:
            yield MEBIBYTE
            sent += len(MEBIBYTE)

    here.server.scenes[f"/{SECRET}"] = play
    assert (await post(here)).status == 200
    # What lies in buffers on both sides of the connection when it is dropped, and nothing near the gigabyte.
    assert sent < 32 * len(MEBIBYTE)


async def test_an_answer_s_endless_head_fails(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = endless(OK, b"X-More: and more\r\n")
    with pytest.raises(EgressFailed) as failed:
        await post(here)
    assert failed.value.rule == "framing"


async def test_a_body_that_never_comes_takes_no_longer_than_the_total_and_the_status_counts(
    here: Street,
) -> None:
    here.server.scenes[f"/{SECRET}"] = then_silence(OK + b"Content-Length: 100\r\n\r\nx")
    assert (await post(here, total_s=0.5)).status == 200


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nabc"], ids=repr)
async def test_a_body_that_makes_no_sense_changes_nothing(here: Street, rest: bytes) -> None:
    async def play() -> AsyncIterator[bytes]:
        yield OK + b"Transfer-Encoding: chunked\r\n\r\n"
        await asyncio.sleep(0.05)
        yield rest

    here.server.scenes[f"/{SECRET}"] = play
    assert (await post(here)).status == 200


async def test_an_answer_that_never_comes_is_a_timeout(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = late(answer(), 60)
    with pytest.raises(EgressFailed) as failed:
        await post(here, total_s=0.3)
    assert failed.value.rule == "timeout"
    assert SECRET not in str(failed.value)


async def test_a_connection_that_is_cut_is_not_tried_again(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = b""
    with pytest.raises(EgressFailed) as failed:
        await post(here)
    assert failed.value.rule == "closed"
    assert len(here.server.heads) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": "a\r\nX-Evil: 1"},
        {"webhook-id": "a\nX-Evil: 1"},
        {"webhook-id": "a\x00"},
        {"webhook-id": "ü"},
        {"webhook-id": ""},
        {"web hook": "a"},
        {"webhook-id\r\nX-Evil": "1"},
        {"": "1"},
    ],
    ids=str,
)
async def test_no_header_can_begin_another(here: Street, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        await post(here, headers=headers)
    assert here.server.connections == 0


async def test_each_post_judges_what_the_name_means_now(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = answer(b"")
    here.names.answers[NAMES[0]] = [[ADDRESS], [FORBIDDEN[0]], [ADDRESS, FORBIDDEN[0]]]
    assert (await post(here)).status == 200
    for _ in range(2):
        with pytest.raises(EgressRefused):
            await post(here)
    assert here.server.connections == 1
    assert here.touched() == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.3:PORT/", "https://[::1]:PORT/", "https://10.0.0.1/", "ftp://a.de/"]
)
async def test_an_address_that_is_not_gone_to_is_refused(here: Street, url: str) -> None:
    with pytest.raises(EgressRefused):
        await post(here, url.replace("PORT", str(here.server.port)))
    assert here.touched() == 0


async def test_a_certificate_that_nobody_vouches_for_is_refused(credentials: Credentials) -> None:
    async with (
        street(credentials, EvilServer(credentials.good)) as here,
        Egress(policy_for((ADDRESS, here.server.port)), resolve=here.names) as distrusting,
    ):
        with pytest.raises(EgressFailed) as failed:
            await distrusting.post(here.url(), BODY, HEADERS, total_s=TOTAL_S)
        assert failed.value.rule == "tls"
        assert here.server.heads == []
