from __future__ import annotations

import asyncio
import json
import sys

import pytest

from services.chassis.egress import EgressFailed
from services.chassis.egress_places import Places, at_address
from tests.egress.certificates import ADDRESS
from tests.egress.evil_server import Scene
from tests.egress.scenes import (
    BODY,
    MEBIBYTE,
    answer,
    bomb,
    chunked,
    endless,
    late,
    raw,
    redirect,
    then_silence,
)
from tests.egress.street import ROOT, SECRET, Street

MIB_A_FETCH = 64.0


async def test_at_most_four_fetches_go_to_one_host_at_a_time(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = late(answer(), 0.05)

    bodies = await asyncio.gather(*(here.get() for _ in range(12)))
    assert bodies == [BODY] * 12
    assert here.server.most_at_once == 4


async def test_a_slow_host_does_not_hold_up_another(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = then_silence(b"")
    slow = [asyncio.create_task(here.get(total_s=3.0)) for _ in range(66)]
    await asyncio.sleep(0.1)

    with pytest.raises(EgressFailed) as failed:
        await here.get(total_s=0.2)
    # The same host: it waits for its place, and in vain.
    assert failed.value.rule in {"timeout", "busy"}

    places = here.egress._connections
    async with asyncio.timeout(1.0), places.taken(frozenset({"another.example.com"})):
        pass
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_waiting_counts_into_the_total(here: Street) -> None:
    here.server.scenes[f"/{SECRET}"] = then_silence(b"")

    results = await asyncio.gather(*(here.get(total_s=0.4) for _ in range(6)), return_exceptions=True)
    assert [getattr(result, "rule", None) for result in results] == ["timeout"] * 6


async def test_time_lost_behind_the_fetches_of_others_is_no_fault_of_the_host(here: Street) -> None:
    places = here.egress._connections
    others = [asyncio.create_task(_hold(places, frozenset({str(n)}))) for n in range(64)]
    await asyncio.sleep(0)

    with pytest.raises(EgressFailed) as failed:
        await here.get(total_s=0.2)
    assert failed.value.rule == "busy"
    await _cancel(others)
    here.server.scenes[f"/{SECRET}"] = answer()
    assert await here.get() == BODY


async def test_a_hop_does_not_wait_for_the_place_that_the_hop_before_it_holds(here: Street) -> None:
    here.server.scenes = {"/start": late(redirect("/end"), 0.3), "/end": answer()}

    assert await asyncio.gather(*(here.get(here.url("/start")) for _ in range(4))) == [BODY] * 4


async def test_a_fetch_that_failed_gives_its_places_back(here: Street) -> None:
    for _ in range(6):
        with pytest.raises(EgressFailed):
            await here.show(answer(status="500 Oh"))

    assert await here.show(answer()) == BODY


async def test_too_many_who_wait_for_one_host_are_sent_away() -> None:
    places, keys = Places(), frozenset({"one"})
    tasks = [asyncio.create_task(_hold(places, keys)) for _ in range(4 + 64)]
    await asyncio.sleep(0)

    with pytest.raises(EgressFailed) as failed:
        async with places.taken(keys):
            pass
    assert failed.value.rule == "busy"
    async with places.taken(frozenset({"another"})):
        pass
    await _cancel(tasks)


async def test_names_behind_one_address_share_sixteen_places_there() -> None:
    places = Places()
    keys = [frozenset({f"n{n}.example.com", at_address(ADDRESS)}) for n in range(17)]
    tasks = [asyncio.create_task(_hold(places, each)) for each in keys]
    await asyncio.sleep(0.01)

    assert places._taken[at_address(ADDRESS)] == 16
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_process_has_sixty_four_places() -> None:
    places = Places()
    tasks = [asyncio.create_task(_hold(places, frozenset({str(n)}))) for n in range(64)]
    await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), places.taken(frozenset({"one more"})):
            pass
    tasks.pop().cancel()
    async with asyncio.timeout(1.0), places.taken(frozenset({"one more"})):
        pass
    await _cancel(tasks)


async def test_a_place_given_to_somebody_who_has_gone_is_not_lost() -> None:
    places, keys = Places(), frozenset({"one"})
    holders = [asyncio.create_task(_hold(places, keys)) for _ in range(4)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(_hold(places, keys))
    await asyncio.sleep(0)
    # The place is handed over and the one who waits is cancelled before it wakes.
    holders[0].cancel()
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(holders[0], waiting, return_exceptions=True)

    async with asyncio.timeout(1.0), places.taken(keys):
        pass
    await _cancel(holders)


async def test_whoever_waits_for_several_keys_holds_none() -> None:
    places = Places()
    first = [asyncio.create_task(_hold(places, frozenset({"busy"}))) for _ in range(4)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(_hold(places, frozenset({"busy", "free"})))
    await asyncio.sleep(0)

    others = [asyncio.create_task(_hold(places, frozenset({"free"}))) for _ in range(4)]
    await asyncio.sleep(0)
    assert places._taken == {"busy": 4, "free": 4}
    await _cancel([*first, waiting, *others])
    assert not places._taken


HOARDS: dict[str, Scene] = {
    "an endless body": endless(raw(b"X: y", b""), MEBIBYTE),
    "endless chunks": endless(raw(b"Transfer-Encoding: chunked", b""), chunked(MEBIBYTE, end=b"")),
    "a gzip bomb": answer(bomb(256), "Content-Encoding: gzip"),
    "a flood of early hints": endless(b"", b"HTTP/1.1 103 E\r\n\r\n" * 4000),
    "a flood of tiny chunks": endless(raw(b"Transfer-Encoding: chunked", b""), b"1\r\na\r\n" * 20_000),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
}


@pytest.mark.parametrize("name", HOARDS)
@pytest.mark.asyncio(loop_factories=["uvloop"])  # the measured process has a loop of its own
async def test_eight_at_once_cost_little_memory(here: Street, name: str) -> None:
    here.server.scenes = {"/small": answer(), "/hoard": HOARDS[name]}
    arguments = ("-m", "tests.egress.hoarder", str(here.ca_file), str(here.server.port), "/hoard")
    hoarder = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(hoarder.communicate(), 60.0)

    found = json.loads(printed)
    assert set(found["outcomes"]) <= {"too_large", "encoding", "framing"}
    assert found["growth_mib_a_fetch"] < MIB_A_FETCH


async def _hold(places: Places, keys: frozenset[str]) -> None:
    async with places.taken(keys):
        await asyncio.sleep(60)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
