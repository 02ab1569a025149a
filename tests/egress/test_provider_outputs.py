"""Outputs of providers: from the account's own address with its credentials, from anywhere else through the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from services.chassis.settings import Secret
from services.provider_pool.adapters.http_calls import AccountCalls
from services.provider_pool.adapters.interface import OutputUnavailable, ProviderError, TransientFailure
from tests.egress.evil_server import EvilServer, Scene
from tests.egress.raw_provider import Line, RawProvider
from tests.egress.scenes import BODY, OK, answer, redirect, then_silence
from tests.egress.street import FORBIDDEN, policy_for
from tests.egress.test_provider_calls import KEY, PATIENCE_S, SOON_S, calls_to

CREDENTIALS = {"Authorization": Secret(KEY)}


async def got(
    calls: AccountCalls,
    url: str,
    headers: Mapping[str, str | Secret] | None = None,
    timeout_s: float = PATIENCE_S,
) -> bytes:
    async with calls.fetch(url, headers=headers, timeout_s=timeout_s) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_an_output_at_the_account_s_own_address_is_fetched_with_its_credentials() -> None:
    async with EvilServer(None, scenes={"/a": answer()}) as own:
        base = f"http://127.0.0.1:{own.port}"
        async with calls_to(base) as calls:
            assert await got(calls, f"{base}/a", CREDENTIALS) == BODY
    assert KEY.encode() in own.heads[0]


async def test_an_output_elsewhere_is_fetched_without_credentials_or_not_at_all() -> None:
    async with (
        EvilServer(None, scenes={"/a": answer()}) as own,
        EvilServer(None, scenes={"/b": answer()}) as cdn,
    ):
        base, elsewhere = f"http://127.0.0.1:{own.port}", f"http://127.0.0.1:{cdn.port}/b"
        async with calls_to(base, policy_for(("127.0.0.1", cdn.port))) as calls:
            assert await got(calls, elsewhere) == BODY
            with pytest.raises(OutputUnavailable):
                await got(calls, elsewhere, CREDENTIALS)
    assert len(cdn.heads) == 1


async def test_a_signed_address_may_be_longer_than_a_customer_s() -> None:
    signed = "/a?token=" + "x" * 4_000
    async with RawProvider() as own, EvilServer(None, scenes={signed: answer()}) as cdn:
        policy = policy_for(("127.0.0.1", cdn.port))
        url = f"http://127.0.0.1:{cdn.port}{signed}"
        async with calls_to(own.base, replace(policy, url_characters=8_192)) as calls:
            assert await got(calls, url) == BODY
        async with calls_to(own.base, policy) as calls:
            with pytest.raises(OutputUnavailable):
                await got(calls, url)
    assert len(cdn.heads) == 1


@pytest.mark.parametrize("host", [FORBIDDEN[0], "169.254.169.254", "10.0.0.1"])
async def test_an_output_inside_our_network_is_not_fetched(host: str) -> None:
    async with RawProvider() as own, calls_to(own.base) as calls:
        with pytest.raises(OutputUnavailable):
            await got(calls, f"https://{host}/x")
        with pytest.raises(OutputUnavailable):
            await got(calls, f"http://{host}:{own.port}/x")
    assert own.connections == 0


async def test_a_redirect_takes_no_credentials_elsewhere_and_leads_nowhere_forbidden() -> None:
    async with EvilServer(None) as own, EvilServer(None, scenes={"/b": answer()}) as cdn:
        base = f"http://127.0.0.1:{own.port}"
        own.scenes = {
            "/a": redirect(f"http://127.0.0.1:{cdn.port}/b"),
            "/inside": redirect(f"http://{FORBIDDEN[0]}:{cdn.port}/b"),
            "/round": redirect("/round"),
        }
        async with calls_to(base, policy_for(("127.0.0.1", cdn.port))) as calls:
            assert await got(calls, f"{base}/a", CREDENTIALS) == BODY
            for path in ("/inside", "/round"):
                with pytest.raises(OutputUnavailable):
                    await got(calls, f"{base}{path}", CREDENTIALS)
    assert KEY.encode() in own.heads[0]
    assert not [head for head in cdn.heads if KEY.encode() in head]


SCENES: list[tuple[Scene, type[ProviderError]]] = [
    (answer(status="404 Not Found"), OutputUnavailable),
    (answer(status="403 Forbidden"), OutputUnavailable),
    (answer(status="410 Gone"), OutputUnavailable),
    (answer(status="500 Oh"), TransientFailure),
    (answer(status="429 Slow"), TransientFailure),
    (answer(b"x", "Content-Encoding: gzip"), TransientFailure),
    (OK + b"Content-Length: 100\r\n\r\nhalf", TransientFailure),
    (then_silence(OK + b"Content-Length: 100\r\n\r\nhalf"), TransientFailure),
    (b"", TransientFailure),
]


@pytest.mark.parametrize(("content", "kind"), SCENES, ids=[str(number) for number in range(len(SCENES))])
@pytest.mark.parametrize("is_own", [True, False])
async def test_what_is_gone_is_told_from_what_may_still_come(
    content: Scene, kind: type[ProviderError], is_own: bool
) -> None:
    async with EvilServer(None, scenes={"/secret-path": content}) as server, RawProvider() as own:
        base = f"http://127.0.0.1:{server.port}"
        async with calls_to(base if is_own else own.base, policy_for(("127.0.0.1", server.port))) as calls:
            with pytest.raises(ProviderError) as raised:
                await got(calls, f"{base}/secret-path", timeout_s=SOON_S)
    assert type(raised.value) is kind
    assert "secret-path" not in str(raised.value)
    assert len(server.heads) == 1


async def test_a_refused_connection_is_no_lost_output() -> None:
    async with RawProvider() as gone:
        base = gone.base
    async with calls_to(base) as calls:
        with pytest.raises(TransientFailure):
            await got(calls, f"{base}/a")


async def test_what_fails_at_the_reader_is_the_reader_s_own() -> None:
    async def says(line: Line) -> None:
        await line.request()
        await line.say(answer())

    async def stored(calls: AccountCalls, url: str) -> None:
        async with calls.fetch(url, timeout_s=PATIENCE_S) as chunks:
            async for _ in chunks:
                raise OSError("disk full")

    async with RawProvider(says) as own, calls_to(own.base) as calls:
        with pytest.raises(OSError, match="disk full"):
            await stored(calls, f"{own.base}/a")
