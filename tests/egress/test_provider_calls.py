"""What a call to a provider means when it breaks off: proved over sockets, one way to break at a time."""

from __future__ import annotations

import asyncio
import gzip
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.chassis.egress import Egress
from services.chassis.egress_calls import DirectCalls
from services.chassis.egress_policy import EgressPolicy
from services.chassis.settings import Secret
from services.provider_pool.adapters.calls import FormPart, HttpAnswer
from services.provider_pool.adapters.http_calls import AccountCalls, HttpCalls
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AuthFailed,
    ProtocolViolation,
    ProviderError,
    SubmissionUnknown,
    TransientFailure,
)
from tests.egress.certificates import Credentials
from tests.egress.raw_provider import OK, Deed, Line, RawProvider, answers
from tests.egress.street import FORBIDDEN, policy_for

KEY = "key-4711"
PROMPT = "a-secret-prompt"
PATH = "/v1/secret-path"
PATIENCE_S = 5.0
SOON_S = 0.5
BIG = PROMPT * 200_000


@asynccontextmanager
async def calls_to(
    base: str, policy: EgressPolicy | None = None, ca_file: Path | None = None
) -> AsyncIterator[AccountCalls]:
    """Calls for an account whose provider is at `base`."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(DirectCalls(ca_file=ca_file))
        egress = await stack.enter_async_context(Egress(policy or EgressPolicy(), ca_file=ca_file))
        account = AccountAccess("acc_1", "toy", options={"base_url": base})
        calls = HttpCalls(direct, egress, output_limit_bytes=1 << 20)
        yield calls.of(account, {"base_url": "https://provider.example.com"})


async def asked(calls: AccountCalls, base: str, method: str = "POST", **more: Any) -> HttpAnswer:
    """A request with everything in it that must not be told."""
    usual: dict[str, Any] = {
        "headers": {"Authorization": Secret(KEY)},
        "query": [("q", "secret-query")],
        "json": {"prompt": PROMPT},
        "timeout_s": PATIENCE_S,
    }
    return await calls.send(method, base + PATH, **(usual | more))


async def failure(base: str, **more: Any) -> ProviderError:
    """How the request fails; nothing that must not be told is in it, nor in what it came from."""
    async with calls_to(base) as calls:
        with pytest.raises(ProviderError) as raised:
            await asked(calls, base, **more)
    error = raised.value
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    told = "".join(traceback.format_exception(error, chain=True)) + repr(error)
    assert not [
        word for word in (KEY, PROMPT, PATH, "secret-query", "127.0.0.1") if word in told.split("\n")[-2]
    ]
    assert KEY not in told
    assert PROMPT not in str(error.args)
    return error


async def closes_unread(line: Line) -> None:
    # Long enough for the request to lie in a buffer, where nobody can see that it was not read.
    await asyncio.sleep(0.1)
    line.cut()


async def cuts_after_the_head(line: Line) -> None:
    await line.head()
    line.cut()


async def cuts_within_the_body(line: Line) -> None:
    await line.head()
    await line.reader.readexactly(1_000)
    line.cut()


async def cuts_after_the_body(line: Line) -> None:
    await line.request()
    line.cut()


async def leaves_after_the_body(line: Line) -> None:
    await line.request()


async def half_a_head(line: Line) -> None:
    await line.request()
    await line.say(b"HTTP/1.1 200 OK\r\nContent-")


async def half_a_body(line: Line) -> None:
    await line.request()
    await line.say(OK.replace(b"Length: 2", b"Length: 20"))


async def half_a_chunk(line: Line) -> None:
    await line.request()
    await line.say(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"id"')


async def drips(line: Line) -> None:
    await line.request()
    for byte in OK:
        await line.say(bytes([byte]))
        await asyncio.sleep(0.1)


async def says_nothing(line: Line) -> None:
    await line.request()
    await asyncio.sleep(60)


async def talks_nonsense(line: Line) -> None:
    await line.request()
    await line.say(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def packs_oddly(line: Line) -> None:
    await line.request()
    await line.say(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: br\r\n\r\n"))


BREAKS: list[Deed] = [
    closes_unread,
    cuts_after_the_head,
    cuts_within_the_body,
    cuts_after_the_body,
    leaves_after_the_body,
    half_a_head,
    half_a_body,
    half_a_chunk,
    drips,
    says_nothing,
    talks_nonsense,
    packs_oddly,
]


@pytest.mark.parametrize("deed", BREAKS)
async def test_a_billable_call_that_broke_off_is_in_doubt_and_was_made_once(deed: Deed) -> None:
    async with RawProvider(deed) as provider:
        error = await failure(provider.base, billable=True, json={"prompt": BIG}, timeout_s=SOON_S)
        await asyncio.sleep(0.05)
    assert isinstance(error, SubmissionUnknown)
    assert error.charged == "maybe"
    assert provider.connections == 1
    assert len(provider.requests) <= 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize("deed", [cuts_after_the_head, cuts_after_the_body, half_a_body, says_nothing])
async def test_any_other_call_that_broke_off_can_be_made_again_and_was_made_once(
    deed: Deed, method: str
) -> None:
    async with RawProvider(deed) as provider:
        error = await failure(provider.base, method=method, timeout_s=SOON_S)
    assert isinstance(error, TransientFailure)
    assert error.charged == "no"
    assert len(provider.requests) == 1


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.parametrize("billable", [True, False])
async def test_a_connection_that_is_refused_has_sent_nothing(billable: bool) -> None:
    error = await failure(f"http://127.0.0.1:{_free_port()}", billable=billable)
    assert isinstance(error, TransientFailure)
    assert "nothing was sent" in str(error)


async def test_a_name_that_is_nobody_s_has_sent_nothing() -> None:
    error = await failure("https://nobody.invalid", billable=True)
    assert isinstance(error, TransientFailure)


async def test_a_certificate_that_nobody_vouches_for_has_sent_nothing(credentials: Credentials) -> None:
    async with RawProvider(answers, tls=credentials.good) as provider:
        error = await failure(provider.base, billable=True)
    assert isinstance(error, TransientFailure)
    assert provider.requests == []


async def test_a_certificate_for_somebody_else_has_sent_nothing(credentials: Credentials) -> None:
    async with RawProvider(answers, tls=credentials.good) as provider:
        base = provider.base.replace("127.0.0.1", "localhost")
        async with calls_to(base, ca_file=credentials.trusted.file) as calls:
            with pytest.raises(TransientFailure):
                await asked(calls, base, billable=True)
    assert provider.requests == []


async def test_a_certificate_of_the_operator_s_own_authority_is_good(credentials: Credentials) -> None:
    provider = RawProvider(answers, tls=credentials.good)
    async with provider, calls_to(provider.base, ca_file=credentials.trusted.file) as calls:
        assert (await asked(calls, provider.base, billable=True)).status == 200


async def test_a_connection_that_is_never_taken_has_sent_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        # What fills the queue of connections that nobody accepts.
        with socket.create_connection(("127.0.0.1", port)):
            error = await failure(f"http://127.0.0.1:{port}", billable=True, timeout_s=SOON_S)
    assert isinstance(error, TransientFailure)


async def test_a_handshake_that_never_ends_has_sent_nothing() -> None:
    async def waits(line: Line) -> None:
        await asyncio.sleep(60)

    async with RawProvider(waits) as provider:
        base = provider.base.replace("http:", "https:")
        error = await failure(base, billable=True, timeout_s=SOON_S)
    assert isinstance(error, TransientFailure)


@pytest.mark.parametrize(("billable", "kind"), [(True, SubmissionUnknown), (False, ProtocolViolation)])
async def test_an_answer_over_the_limit_is_not_read(billable: bool, kind: type[ProviderError]) -> None:
    async def floods(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await line.say(b"10000\r\n" + bytes(65_536) + b"\r\n")

    async with RawProvider(floods) as provider:
        error = await failure(provider.base, billable=billable, limit_bytes=100_000)
    assert isinstance(error, kind)


async def test_a_packed_answer_is_unpacked_within_the_limit_and_no_further() -> None:
    bomb = gzip.compress(bytes(1 << 26))

    def told(body: bytes) -> bytes:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def packs(line: Line) -> None:
        while True:
            asks_for_it = b"bomb" in await line.request()
            await line.say(told(bomb if asks_for_it else gzip.compress(b'{"id":1}')))

    async with RawProvider(packs) as provider, calls_to(provider.base) as calls:
        assert (await asked(calls, provider.base)).json() == {"id": 1}
        with pytest.raises(ProtocolViolation):
            await asked(calls, provider.base, json="bomb", limit_bytes=1 << 20)
        with pytest.raises(SubmissionUnknown):
            await asked(calls, provider.base, json="bomb", limit_bytes=1 << 20, billable=True)


@pytest.mark.parametrize("status", [200, 302, 404, 429, 500, 503])
@pytest.mark.parametrize("billable", [True, False])
async def test_every_whole_answer_is_an_answer_and_no_redirect_is_followed(
    status: int, billable: bool
) -> None:
    async def says(line: Line) -> None:
        await line.request()
        await line.say(OK.replace(b"200 OK", b"%d No\r\nLocation: /elsewhere\r\nRetry-After: 7" % status))

    async with RawProvider(says) as provider, calls_to(provider.base) as calls:
        answer = await asked(calls, provider.base, billable=billable)
    assert (answer.status, answer.headers["retry-after"], answer.body) == (status, "7", b"{}")
    assert len(provider.requests) == 1


async def hangs_up_on_the_second(line: Line) -> None:
    """What a load balancer does whose idle limit is over just as the second request comes."""
    await line.request()
    await line.say(OK)
    await line.head()
    line.cut()


async def test_a_billable_call_never_meets_a_kept_connection_that_is_about_to_close() -> None:
    async with RawProvider(hangs_up_on_the_second) as provider, calls_to(provider.base) as calls:
        await asked(calls, provider.base, "GET", json=None)
        answer = await asked(calls, provider.base, billable=True)
        again = await asked(calls, provider.base, billable=True)
    assert answer.status == again.status == 200
    assert provider.connections == 3
    assert len(provider.requests) == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_what_changes_something_is_not_repeated_when_a_kept_connection_closes(method: str) -> None:
    async with RawProvider(hangs_up_on_the_second) as provider, calls_to(provider.base) as calls:
        await asked(calls, provider.base, "GET", json=None)
        with pytest.raises(TransientFailure):
            await asked(calls, provider.base, method)
    assert provider.connections == 1
    assert len(provider.requests) == 2


async def test_a_question_that_meets_a_closing_connection_is_asked_once_more() -> None:
    async with RawProvider(hangs_up_on_the_second) as provider, calls_to(provider.base) as calls:
        for _ in range(2):
            assert (await asked(calls, provider.base, "GET", json=None)).status == 200
        provider.does = cuts_after_the_head
        with pytest.raises(TransientFailure):
            await asked(calls, provider.base, "GET", json=None)
    assert (provider.connections, len(provider.requests)) == (3, 4)


async def test_calls_that_cost_nothing_share_a_connection_and_no_cookie() -> None:
    async def sets_a_cookie(line: Line) -> None:
        while True:
            await line.request()
            await line.say(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n"))

    async with RawProvider(sets_a_cookie) as provider, calls_to(provider.base) as calls:
        for _ in range(3):
            await asked(calls, provider.base, "GET", json=None)
    assert provider.connections == 1
    assert not [head for head in provider.requests if b"\r\ncookie:" in head.lower()]


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawProvider() as proxy, RawProvider() as provider:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base)
        async with calls_to(provider.base) as calls:
            await asked(calls, provider.base, billable=True)
    assert (proxy.connections, provider.connections) == (0, 1)


async def test_what_is_sent_is_what_was_given(tmp_path: Path) -> None:
    picture = tmp_path / "picture"
    picture.write_bytes(b"PICTURE" * 50_000)
    async with RawProvider() as provider, calls_to(provider.base) as calls:
        await asked(calls, provider.base, billable=True)
        form = [
            FormPart("key", "v"),
            FormPart("file", path=picture, file_name="a.png", content_type="image/png"),
        ]
        await asked(calls, provider.base, json=None, form=form)
        await asked(
            calls, provider.base, "PUT", json=None, file=picture, headers={"Content-Type": "image/png"}
        )
    json, multipart, put = provider.requests
    assert json.startswith(f"POST {PATH}?q=secret-query HTTP/1.1\r\n".encode())
    assert b"\r\nAuthorization: key-4711\r\n" in json
    assert b"\r\nUser-Agent: atelier\r\n" in json
    assert json.endswith(b'\r\n\r\n{"prompt":"a-secret-prompt"}')
    assert b"\r\nContent-Type: application/json\r\n" in json
    assert b"\r\nContent-Type: multipart/form-data; boundary=" in multipart
    assert b'name="file"; filename="a.png"' in multipart
    assert b"Content-Type: image/png\r\n" in multipart
    assert multipart.index(b'name="key"') < multipart.index(b'name="file"')
    assert multipart.count(b"PICTURE") == put.count(b"PICTURE") == 50_000
    assert b"transfer-encoding" not in (multipart + put).lower()


async def test_a_file_that_is_gone_has_sent_nothing(tmp_path: Path) -> None:
    async with RawProvider() as provider:
        error = await failure(provider.base, json=None, file=tmp_path / "secret-place", billable=True)
    assert isinstance(error, TransientFailure)
    assert "secret-place" not in str(error)
    assert provider.connections == 0


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "a\n", "ü", "", " a"])
async def test_a_credential_that_no_header_can_carry_is_no_credential(key: str) -> None:
    async with RawProvider() as provider:
        error = await failure(provider.base, headers={"Authorization": Secret(key)}, billable=True)
    assert isinstance(error, AuthFailed)
    assert provider.connections == 0


async def test_credentials_go_to_the_account_s_own_origin_only() -> None:
    async with RawProvider() as own, RawProvider() as other:
        policy = policy_for(("127.0.0.1", other.port))
        async with calls_to(own.base, policy) as calls:
            for base in (other.base, own.base.replace("127.0.0.1", "user@127.0.0.1")):
                with pytest.raises(ProtocolViolation):
                    await asked(calls, base)
            with pytest.raises(ProtocolViolation):
                await asked(calls, other.base, headers={}, billable=True)
            assert (await asked(calls, other.base, headers={"X-Plain": "1"})).status == 200
    assert (own.connections, other.connections) == (0, 1)


@pytest.mark.parametrize("host", [FORBIDDEN[0], "10.0.0.1", "169.254.169.254"])
async def test_elsewhere_is_where_customers_may_point_and_no_further(host: str) -> None:
    async with RawProvider() as own, calls_to(own.base) as calls:
        with pytest.raises(ProtocolViolation):
            await asked(calls, f"https://{host}:{own.port}", headers={})


async def test_an_account_s_own_address_is_not_plain_http_beyond_this_machine() -> None:
    async with calls_to("http://provider.example.com") as calls:
        with pytest.raises(ProtocolViolation):
            await asked(calls, "http://provider.example.com")
