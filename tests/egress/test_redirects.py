from __future__ import annotations

import asyncio

import pytest

from services.chassis.egress import EgressFailed, EgressRefused
from tests.egress.evil_server import EvilServer
from tests.egress.scenes import BODY, answer, late, redirect
from tests.egress.street import FORBIDDEN, OUTER_LIMIT_S, Street, policy_for

# Where a redirect from `/a/b/start?q=1` leads, by how its Location is written. HERE is the server's own origin.
LEADS_TO = {
    "HERE/end": "/end",
    "//AUTHORITY/end": "/end",
    "/end": "/end",
    "end": "/a/b/end",
    "./end": "/a/b/end",
    "../end": "/a/end",
    "../../../../end": "/end",
    "/x/../end": "/end",
    "/x/./y/../end": "/x/end",
    "..": "/a/",
    ".": "/a/b/",
    "end?q=2": "/a/b/end?q=2",
    "end?up=../..": "/a/b/end?up=../..",
    "?q=2": "/a/b/start?q=2",
    "/end#part": "/end",
    "end#../x": "/a/b/end",
    "HERE": "/",
    "HTTPS://AUTHORITY/end": "/end",
    "/%2e%2e/end": "/%2e%2e/end",
    "/b%C3%BCcher": "/b%C3%BCcher",
    "/bücher": "/b%C3%BCcher",
}

# PORT is the port on which the canaries listen, too.
FORBIDDEN_LOCATIONS = (
    "https://127.0.0.3:PORT/",
    "//127.0.0.3:PORT/",
    "https://127.0.0.3/",
    "https://127.0.0.3.:PORT/",
    "https://127.3:PORT/",
    "https://2130706435:PORT/",
    "https://0x7f000003:PORT/",
    "https://0x7f.0.0.3:PORT/",
    "https://0177.0.0.3:PORT/",
    "https://[::1]:PORT/",
    "https://[0:0:0:0:0:0:0:1]:PORT/",
    "https://[::ffff:127.0.0.3]:PORT/",
    "https://[::ffff:7f00:3]:PORT/",
    "https://[0:0:0:0:0:ffff:127.0.0.3]:PORT/",
    "https://[::127.0.0.3]:PORT/",
    "https://[64:ff9b::7f00:3]:PORT/",
    "https://[::1%25lo]:PORT/",
    "https://[::1%lo]:PORT/",
    "https://0.0.0.0:PORT/",
    "https://[::]:PORT/",
    "https://localhost:PORT/",
    "https://①②⑦.0.0.③:PORT/",
    "https://１２７.0.0.3:PORT/",
    "https://127。0。0。3:PORT/",
    "https://pictures.example.com@127.0.0.3:PORT/",
    "https://127.0.0.3:PORT\\@pictures.example.com/",
    "https://127.0.0.3:PORT#@pictures.example.com/",
    "https://127.0.0.3:PORT?@pictures.example.com/",
    "https:\\\\127.0.0.3:PORT\\",
    "\\\\127.0.0.3:PORT/",
    "/\\127.0.0.3:PORT/",
    "https:/127.0.0.3:PORT/",
    "https:127.0.0.3:PORT/",
    "https:///127.0.0.3:PORT/",
    "https://127.0.0.3\t:PORT/",
    "ht\ttps://127.0.0.3:PORT/",
    "https://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "https://10.0.0.1/",
    "http://127.0.0.3:PORT/",
    "http://pictures.example.com/",
    "https://pictures.example.com:22/",
    "https://user:password@pictures.example.com:PORT/end",
    "ftp://pictures.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.3:PORT/_x",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "unix:///run/docker.sock",
    "https://",
    "//",
)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_every_kind_of_redirect_is_followed(here: Street, status: int) -> None:
    here.server.scenes = {"/start": redirect("/end", status=status), "/end": answer()}

    assert await here.get(here.url("/start")) == BODY
    assert here.server.paths() == ["/start", "/end"]
    assert {head.split(b" ")[0] for head in here.server.heads} == {b"GET"}


@pytest.mark.parametrize(("location", "path"), LEADS_TO.items(), ids=LEADS_TO)
async def test_a_location_is_joined_as_the_standard_says(here: Street, location: str, path: str) -> None:
    authority = f"other.example.com:{here.server.port}"
    location = location.replace("HERE", f"https://{authority}").replace("AUTHORITY", authority)
    here.server.scenes = {"/a/b/start?q=1": redirect(location), path: answer()}

    assert await here.get(here.url("/a/b/start?q=1")) == BODY
    assert here.server.paths() == ["/a/b/start?q=1", path]


@pytest.mark.parametrize("location", FORBIDDEN_LOCATIONS)
async def test_a_redirect_to_a_forbidden_place_leads_nowhere(here: Street, location: str) -> None:
    here.server.scenes = {"/start": redirect(location.replace("PORT", str(here.server.port)))}

    with pytest.raises((EgressRefused, EgressFailed)):
        await here.get(here.url("/start"))
    assert here.server.paths() == ["/start"]
    assert here.touched() == 0


async def test_a_location_of_a_fragment_alone_leads_to_the_same_query(here: Street) -> None:
    here.server.scenes = {"/start?q=1": redirect("#part"), "/start": answer()}

    with pytest.raises(EgressFailed):
        await here.get(here.url("/start?q=1"))
    assert set(here.server.paths()) == {"/start?q=1"}


async def test_three_redirects_are_followed(here: Street) -> None:
    here.server.scenes = {**{f"/{n}": redirect(f"/{n + 1}") for n in range(3)}, "/3": answer()}

    assert await here.get(here.url("/0")) == BODY


async def test_a_fourth_redirect_is_not(here: Street) -> None:
    here.server.scenes = {**{f"/{n}": redirect(f"/{n + 1}") for n in range(4)}, "/4": answer()}

    with pytest.raises(EgressFailed) as failed:
        await here.get(here.url("/0"))
    assert failed.value.rule == "redirects"
    assert here.server.paths() == ["/0", "/1", "/2", "/3"]


async def test_a_redirect_to_itself_ends(here: Street) -> None:
    here.server.scenes = {"/0": redirect("/0")}

    with pytest.raises(EgressFailed) as failed:
        await here.get(here.url("/0"))
    assert failed.value.rule == "redirects"
    assert here.server.connections == 4


@pytest.mark.parametrize(
    "scene",
    [
        answer(b"moved", status="302 Found"),
        redirect(""),
        redirect("/one", "/two"),
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /b\xfccher\r\n\r\n",
    ],
    ids=["none", "empty", "two", "not UTF-8"],
)
async def test_a_redirect_without_one_readable_location_fails(here: Street, scene: bytes) -> None:
    here.server.scenes = {"/start": scene}

    with pytest.raises(EgressFailed) as failed:
        await here.get(here.url("/start"))
    assert failed.value.rule == "location"


async def test_redirects_share_one_total(here: Street) -> None:
    here.server.scenes = {
        "/0": late(redirect("/1"), 0.2),
        "/1": late(redirect("/2"), 0.2),
        "/2": late(answer(), 0.2),
    }

    with pytest.raises(EgressFailed) as failed:
        await here.get(here.url("/0"), total_s=0.45)
    assert failed.value.rule == "timeout"


async def test_a_cookie_does_not_come_back(here: Street) -> None:
    here.server.scenes = {"/start": redirect("/end", more="Set-Cookie: id=1; Path=/"), "/end": answer()}

    await here.get(here.url("/start"))
    await here.get(here.url("/start"))
    assert all(b"cookie" not in head.lower() for head in here.server.heads)


async def test_where_it_came_from_is_not_told(here: Street) -> None:
    there = f"https://other.example.com:{here.server.port}/end"
    here.server.scenes = {"/start": redirect(there), "/end": answer()}

    await here.get(here.url("/start"))
    assert all(b"referer" not in head.lower() for head in here.server.heads)
    assert [head.count(b"pictures") for head in here.server.heads] == [1, 0]


async def test_every_hop_has_a_connection_of_its_own(here: Street) -> None:
    more = "Connection: keep-alive"
    here.server.scenes = {"/0": redirect("/1", more=more), "/1": redirect("/2", more=more), "/2": answer()}

    await here.get(here.url("/0"))
    assert here.server.connections == 3


async def test_a_redirect_to_plain_http_is_followed_where_a_pair_allows_it(here: Street) -> None:
    async with EvilServer(None, scenes={"/end": answer()}) as plain:
        here.server.scenes = {"/start": redirect(f"http://pictures.example.com:{plain.port}/end")}
        policy = policy_for(("127.0.0.1", here.server.port), ("127.0.0.1", plain.port))
        async with here.another(policy) as egress:
            assert await here.get(here.url("/start"), egress=egress) == BODY


async def test_a_redirect_to_plain_http_is_refused_elsewhere(here: Street) -> None:
    async with EvilServer(None, scenes={"/end": answer()}) as plain:
        here.server.scenes = {"/start": redirect(f"http://pictures.example.com:{plain.port}/end")}
        with pytest.raises(EgressRefused):
            await here.get(here.url("/start"))
        assert plain.connections == 0


async def test_a_redirect_to_a_name_with_a_forbidden_address_is_refused(here: Street) -> None:
    here.names.answers["inside.example.com"] = [[FORBIDDEN[0]]]
    here.server.scenes = {"/start": redirect(here.url("/", host="inside.example.com"))}

    async with asyncio.timeout(OUTER_LIMIT_S):
        with pytest.raises(EgressRefused) as refused:
            await here.get(here.url("/start"))
    assert refused.value.rule == "loopback"
