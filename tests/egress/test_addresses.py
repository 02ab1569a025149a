from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from services.chassis.egress import EgressFailed, EgressRefused
from services.chassis.egress_connector import Pinned
from services.chassis.egress_policy import EgressPolicy, EgressSettings
from services.chassis.egress_url import parse
from services.chassis.settings import load
from tests.egress.certificates import ADDRESS, NAMES
from tests.egress.evil_server import EvilServer
from tests.egress.scenes import BODY, answer, redirect
from tests.egress.street import FORBIDDEN, Street, policy_for

# Answers of a name server that hold something forbidden, whatever else is among them.
MIXED = {
    "an address inside": [FORBIDDEN[0]],
    "a public and an inside address": ["93.184.215.14", FORBIDDEN[0]],
    "the allowed and an inside address": [ADDRESS, FORBIDDEN[0]],
    "an inside and the allowed address": [FORBIDDEN[0], ADDRESS],
    "a private address of IPv6": [ADDRESS, "fd00::1"],
    "loopback of IPv6": [ADDRESS, "::1"],
    "a mapped address": [ADDRESS, "::ffff:127.0.0.3"],
    "a NAT64 address": [ADDRESS, "64:ff9b::7f00:3"],
    "an address with a zone": [ADDRESS, "fe80::1%lo"],
    "the metadata service": ["169.254.169.254"],
    "the unspecified address": ["0.0.0.0"],
    "a ninth address that is inside": [ADDRESS] * 8 + [FORBIDDEN[0]],
}


@dataclass(frozen=True)
class Wavering(EgressPolicy):
    """Lets an address pass so many times, and then no more."""

    passes: int = 0
    seen: list[IPv4Address | IPv6Address] = field(default_factory=list)

    def check_address(self, address: IPv4Address | IPv6Address, port: int, scheme: str = "https") -> None:
        self.seen.append(address)
        if len(self.seen) > self.passes:
            raise EgressRefused("denied", "No longer.")


@pytest.mark.parametrize("answers", MIXED.values(), ids=MIXED)
async def test_one_forbidden_answer_refuses_the_name(here: Street, answers: list[str]) -> None:
    here.names.answers[NAMES[0]] = [answers]

    with pytest.raises(EgressRefused):
        await here.get()
    assert (here.server.connections, here.touched()) == (0, 0)


async def test_a_name_is_asked_for_once_and_as_absolute(here: Street) -> None:
    await here.show(answer())

    assert here.names.asked == ["pictures.example.com."]


async def test_a_name_that_turns_inward_after_the_check_is_not_followed(here: Street) -> None:
    here.names.answers[NAMES[0]] = [[ADDRESS], [FORBIDDEN[0]]]

    assert await here.show(answer()) == BODY
    assert here.server.connections == 1


async def test_a_name_that_has_turned_inward_is_refused_the_next_time(here: Street) -> None:
    here.names.answers[NAMES[0]] = [[ADDRESS], [FORBIDDEN[0]]]
    await here.show(answer())

    with pytest.raises(EgressRefused):
        await here.show(answer())
    assert here.names.asked == ["pictures.example.com."] * 2


async def test_a_name_that_turns_inward_between_two_hops_is_refused(here: Street) -> None:
    here.names.answers[NAMES[0]] = [[ADDRESS], [FORBIDDEN[0]]]
    here.server.scenes = {"/start": redirect("/end"), "/end": answer()}

    with pytest.raises(EgressRefused):
        await here.get(here.url("/start"))
    assert here.server.paths() == ["/start"]
    assert here.names.asked == ["pictures.example.com."] * 2


@pytest.mark.parametrize("host", [NAMES[0], ADDRESS], ids=["name", "literal"])
async def test_the_address_is_judged_again_as_it_is_dialled(here: Street, host: str) -> None:
    # A literal is judged by the parser, too.
    policy = Wavering(here.policy.allow, passes=1 if host == NAMES[0] else 2)
    async with here.another(policy) as egress:
        with pytest.raises(EgressRefused) as refused:
            await here.get(here.url(host=host), egress=egress)

    assert refused.value.rule == "denied"
    assert policy.seen == [ip_address(ADDRESS)] * (policy.passes + 1)
    assert here.server.connections == 0


async def test_each_of_several_addresses_is_judged_again(here: Street) -> None:
    here.names.answers[NAMES[0]] = [["127.0.0.9", ADDRESS]]
    policy = Wavering(here.policy.allow, passes=2)
    async with here.another(policy) as egress:
        with pytest.raises(EgressRefused):
            await here.get(egress=egress)

    assert len(policy.seen) > policy.passes
    assert here.server.connections == 0


@pytest.mark.parametrize("dialled", [(FORBIDDEN[0], 0), (ADDRESS, 1)], ids=["address", "port"])
async def test_nothing_is_dialled_that_was_not_pinned(here: Street, dialled: tuple[str, int]) -> None:
    address, further = dialled
    target = parse(here.url(), here.policy)
    pinned = Pinned(target, (ip_address(ADDRESS),), here.policy)
    destination = (address, target.port + further)

    with pytest.raises(EgressFailed) as failed:
        pinned.socket_for((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", destination))
    assert failed.value.rule == "unpinned"


async def test_a_literal_that_is_allowed_is_fetched_with_its_certificate(here: Street) -> None:
    here.server.scenes["/x"] = answer()

    assert await here.get(here.url("/x", host=ADDRESS)) == BODY
    assert here.names.asked == []


async def test_a_literal_of_ipv6_is_fetched_where_a_pair_allows_it(here: Street) -> None:
    async with EvilServer(None, host="::1", scenes={"/x": answer()}) as server:
        policy = load(EgressSettings, {"ATELIER_EGRESS_ALLOW": f"[::1]:{server.port}"}).policy()
        async with here.another(policy) as egress:
            assert await here.get(f"http://[::1]:{server.port}/x", egress=egress) == BODY
    assert f"host: [::1]:{server.port}".encode() in server.heads[0].lower()


@pytest.mark.parametrize("literal", ["127.0.0.3", "[::1]", "[::ffff:127.0.0.3]"])
async def test_a_literal_that_is_not_allowed_is_refused(here: Street, literal: str) -> None:
    with pytest.raises(EgressRefused):
        await here.get(here.url(host=literal))
    assert here.touched() == 0


async def test_a_second_address_is_tried_when_the_first_does_not_listen(here: Street) -> None:
    policy = policy_for(("127.0.0.9", here.server.port), (ADDRESS, here.server.port))
    here.names.answers[NAMES[0]] = [["127.0.0.9", ADDRESS]]
    here.server.scenes["/x"] = answer()

    async with here.another(policy) as egress:
        assert await here.get(here.url("/x"), egress=egress) == BODY


@pytest.mark.parametrize(
    ("answers", "rule"),
    [([], "not_found"), (["not an address"], "resolve"), (["127.0.0.1.example.com"], "resolve")],
    ids=["none", "words", "a name"],
)
async def test_an_answer_that_is_no_address_fails(here: Street, answers: list[str], rule: str) -> None:
    here.names.answers[NAMES[0]] = [answers]

    with pytest.raises(EgressFailed) as failed:
        await here.get()
    assert failed.value.rule == rule


async def test_an_unknown_name_fails(here: Street) -> None:
    with pytest.raises(EgressFailed) as failed:
        await here.get(here.url(host="nobody.example.com"))
    assert failed.value.rule == "not_found"


@pytest.mark.asyncio(loop_factories=["uvloop"])  # two seconds are enough to wait once
async def test_a_slow_name_server_is_not_waited_for(here: Street) -> None:
    here.names.delay_s = 60.0

    with pytest.raises(EgressFailed) as failed:
        await here.get()
    assert failed.value.rule == "resolve_timeout"


async def test_names_and_answers_share_one_total(here: Street) -> None:
    here.names.delay_s = 60.0

    with pytest.raises(EgressFailed) as failed:
        await here.get(total_s=0.2)
    assert failed.value.rule == "timeout"


async def test_a_check_opens_no_connection(here: Street) -> None:
    await here.egress.check(here.url())
    here.names.answers[NAMES[0]] = [[FORBIDDEN[0]]]
    with pytest.raises(EgressRefused):
        await here.egress.check(here.url())
    with pytest.raises(EgressRefused):
        await here.egress.check("https://127.0.0.3/")

    assert (here.server.connections, here.touched()) == (0, 0)


async def test_the_environment_s_proxies_and_passwords_are_not_used(
    here: Street, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy = f"http://{FORBIDDEN[0]}:{here.server.port}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))

    assert await here.show(answer()) == BODY
    assert here.touched() == 0
    assert b"authorization" not in here.server.heads[0].lower()


async def test_two_fetches_share_no_connection(here: Street) -> None:
    scene = answer(BODY, "Connection: keep-alive")
    await here.show(scene)
    await here.show(scene)

    assert here.server.connections == 2


async def test_a_cancelled_fetch_is_cancelled(here: Street) -> None:
    here.names.delay_s = 60.0
    task = asyncio.create_task(here.get())
    await asyncio.sleep(0.05)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
