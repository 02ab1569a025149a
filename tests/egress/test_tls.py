from __future__ import annotations

from pathlib import Path

import pytest

from services.chassis.egress import Egress, EgressFailed
from services.chassis.egress_policy import EgressPolicy
from services.chassis.settings import SettingsError
from tests.egress.certificates import Credentials
from tests.egress.evil_server import EvilServer
from tests.egress.scenes import BODY, answer
from tests.egress.street import SECRET, Street, street

WRONG = ("wrong_name", "expired", "unknown_authority")


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_handshake_that_is_not_right_fails(credentials: Credentials, wrong: str) -> None:
    async with street(credentials, EvilServer(getattr(credentials, wrong))) as here:
        with pytest.raises(EgressFailed) as failed:
            await here.show(answer())

    assert failed.value.rule == "tls"
    assert here.server.heads == []


async def test_a_server_of_tls_1_1_is_not_spoken_to(credentials: Credentials) -> None:
    async with street(credentials, EvilServer(credentials.outdated)) as here:
        with pytest.raises(EgressFailed) as failed:
            await here.show(answer())

    # The far side may hang up without saying why.
    assert failed.value.rule in {"tls", "connect"}
    assert here.server.heads == []


async def test_a_certificate_is_checked_against_the_name_and_not_the_address(
    credentials: Credentials,
) -> None:
    # The certificate is good for the address that is dialled, but the URL names a host.
    async with street(credentials, EvilServer(credentials.wrong_name)) as here:
        here.server.scenes["/x"] = answer()
        with pytest.raises(EgressFailed):
            await here.get(here.url("/x"))
        assert await here.get(here.url("/x", host="127.0.0.1")) == BODY


async def test_the_system_s_trust_alone_does_not_hold_the_test_s_authority(here: Street) -> None:
    async with Egress(here.policy, resolve=here.names) as egress:
        with pytest.raises(EgressFailed) as failed:
            await here.get(egress=egress)
    assert failed.value.rule == "tls"


@pytest.mark.parametrize(
    "spoken",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28", bytes(1000)],
    ids=["a close", "plain http", "an alert", "nonsense"],
)
async def test_a_tls_port_that_speaks_something_else_fails(credentials: Credentials, spoken: bytes) -> None:
    async with street(credentials, EvilServer(None, before_request=spoken)) as here:
        with pytest.raises(EgressFailed) as failed:
            await here.get()

    assert failed.value.rule in {"tls", "connect", "closed"}


async def test_a_close_right_after_the_handshake_fails(credentials: Credentials) -> None:
    async with street(credentials, EvilServer(credentials.good, before_request=b"")) as here:
        with pytest.raises(EgressFailed) as failed:
            await here.get()

    assert failed.value.rule == "closed"
    assert here.server.connections == 1


@pytest.mark.asyncio(loop_factories=["uvloop"])  # three seconds are enough to wait once
async def test_a_mute_port_is_not_waited_for(credentials: Credentials) -> None:
    async with street(credentials, EvilServer(None, speaks=False)) as here:
        with pytest.raises(EgressFailed) as failed:
            await here.get(total_s=10.0)

    assert failed.value.rule == "connect"


async def test_a_port_where_nobody_listens_fails(here: Street) -> None:
    await here.server.__aexit__(None, None, None)

    with pytest.raises(EgressFailed) as failed:
        await here.get()
    assert failed.value.rule == "connect"


async def test_plain_http_is_fetched_where_a_pair_allows_it(credentials: Credentials) -> None:
    async with street(credentials, EvilServer(None)) as here:
        here.server.scenes[f"/{SECRET}"] = answer()
        assert await here.get(here.url(scheme="http")) == BODY


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "nonsense"])
async def test_a_ca_file_without_certificates_is_an_operator_s_mistake(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(SettingsError, match="ATELIER_EGRESS_CA_FILE"):
        async with Egress(EgressPolicy(), ca_file=file):
            pass
