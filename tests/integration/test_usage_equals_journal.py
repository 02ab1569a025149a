"""What every contract says was paid equals the journal's captures, whatever failed, was cancelled, refused, repeated or killed.

SEED= repeats a run's chance.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from services.chassis.errors import ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.faults.scene import TIMES
from tests.faults.storm_load import seeded
from tests.house import Customer, House, Inside, inside, running_house
from tests.integration.usage_books import Books, Journal, credits_of
from tests.integration.usage_buyers import Buyer, Mailbox, Mode, Promise, cost_told, parsed
from tests.leak.roads import ROADS, Road
from tests.postgres import Postgres
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.timeout(600)

# Enough for some of a poor customer's jobs and not for all of them.
_POOR_CREDITS: Final = {
    "leonardo": 100,
    "seedancee2": 100,
    "seedance2pro": 300,
    "loova": 25,
    "imaginelab": 20,
}
_RICH_CREDITS: Final = 1_000_000
_JOBS_EACH: Final[Mapping[str, int]] = {"rich live": 6, "rich test": 3, "poor live": 6}
# Over so long requests are spread; the deaths take about as long.
_SPREAD_S: Final = 10.0
_MARKERS: Final = {
    "": 7,
    "[sandbox:pace=2.5]": 5,
    "[sandbox:fail]": 3,
    "[sandbox:refuse]": 1,
    "[sandbox:rate-limit]": 1,
    "[sandbox:unknown]": 1,
    "[sandbox:bad-output]": 1,
}
# A house may be without one of its processes for some seconds, and its machine may be busy.
_PATIENCE_S: Final = 150.0
_IMPATIENT: Final = 0.25
_CANCELED: Final = 0.2
_SETTINGS: Final = {
    **TIMES,
    # Whatever is refused once is sent again, and what dies in between is not given up.
    "ATELIER_JOBS_WEBHOOK_RETRIES_S": ",".join(["0.3"] * 9),
}


ROADS_OF: Final = {name: [road for road in ROADS if road.storefront == name] for name in _POOR_CREDITS}


@dataclass(frozen=True)
class Ask:
    """A request to come. cancel_after_s: None for most."""

    buyer: Buyer
    road: Road
    body: Mapping[str, Any]
    key: str
    at_s: float
    times: int
    cancel_after_s: float | None


def _varied(chance: random.Random, road: Road, body: Mapping[str, Any]) -> dict[str, Any]:
    """Another length, quality or model now and then: prices of many sizes."""
    seconds = chance.randint(4, 9)
    match road.storefront, road.kind:
        case "leonardo", "image":
            return {**body, "quality": chance.choice(["LOW", "MEDIUM"])}
        case "leonardo", _:
            return {**body, "duration": seconds}
        case "seedancee2", _:
            model = chance.choice(["pro", "fast", "mini"])
            resolution = chance.choice(["480p", "720p"])
            return {"model": model, "input": {**body["input"], "duration": seconds, "resolution": resolution}}
        case "seedance2pro", _:
            model = chance.choice(["seedance-20", "z video"])
            return {**body, "inputs": {**body["inputs"], "model": model, "duration": seconds}}
        case "loova", _:
            return {
                **body,
                "model": chance.choice(["seedance_2_0", "seedance_2_0_fast"]),
                "duration": seconds,
            }
        case _:
            return dict(body)


def _asks(chance: random.Random, buyer: Buyer, count: int) -> list[Ask]:
    roads = ROADS_OF[buyer.storefront]
    # Every kind is asked for before any comes twice.
    chosen = chance.sample(roads, min(count, len(roads))) + chance.choices(
        roads, k=max(0, count - len(roads))
    )
    made = []
    for number, road in enumerate(chosen):
        marker = chance.choices(list(_MARKERS), list(_MARKERS.values()))[0]
        canceled = chance.random() < _CANCELED
        # Slow enough to be met at any stage; some have ended by then all the same.
        marker = "[sandbox:pace=2.5]" if canceled else marker
        body = _varied(chance, road, road.body(f"a boat, number {number} {marker}"))
        made.append(
            Ask(
                buyer,
                road,
                body,
                key=f"{buyer.mode}-{number}",
                at_s=chance.uniform(0, _SPREAD_S),
                times=2 if chance.random() < _IMPATIENT else 1,
                cancel_after_s=chance.uniform(0, 4) if canceled else None,
            )
        )
    return made


@dataclass
class Scene:
    house: House
    services: Inside
    session: aiohttp.ClientSession
    receiver: Receiver
    mailbox: Mailbox

    async def buyers(self, storefront: str) -> dict[str, Buyer]:
        """Somebody with plenty of credits, with both wallets, and somebody with few."""
        rich = await self._customer(storefront, _RICH_CREDITS)
        poor = await self._customer(storefront, _POOR_CREDITS[storefront])
        return {"rich live": rich["live"], "rich test": rich["test"], "poor live": poor["live"]}

    async def _customer(self, storefront: str, credits_live: int) -> dict[Mode, Buyer]:
        customer_id, live, test = await self.services.customer(credits_live, storefront=storefront)
        url = self.receiver.url(f"/{customer_id}")
        await self.services.jobs.SetWebhookEndpoint(
            jobs.SetWebhookEndpointRequest(customer_id=customer_id, url=url)
        )

        keys: dict[Mode, str] = {"live": live, "test": test}
        made: dict[Mode, Buyer] = {}
        for mode, key in keys.items():
            client = Customer(self.session, self.house.base_url, key)
            made[mode] = Buyer(storefront, mode, customer_id, client)
            made[mode].had = await made[mode].left()
        return made

    def books(self, buyer: Buyer) -> Books:
        return Books(self.services, buyer.customer_id, buyer.mode)

    async def play(self, ask: Ask) -> None:
        """Asks, and perhaps thinks better of it."""
        await asyncio.sleep(ask.at_s)
        promise = await ask.buyer.ask(ask.road, ask.key, ask.body, times=ask.times)
        if promise is None or ask.cancel_after_s is None:
            return
        await asyncio.sleep(ask.cancel_after_s)
        if ask.buyer.storefront == "imaginelab":
            await ask.buyer.delete(promise)
        else:
            await self._cancel(self.books(ask.buyer), promise)

    async def _cancel(self, books: Books, promise: Promise) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    return await books.cancel(promise.job_id)
                except ServiceError:
                    await asyncio.sleep(0.2)

    async def all_told(self, buyers: Sequence[Buyer]) -> None:
        """Until every customer has had as many webhooks as it has jobs. Raises TimeoutError."""
        expected: Counter[str] = Counter()
        for buyer in buyers:
            expected[buyer.customer_id] += len(buyer.promises)
        async with asyncio.timeout(_PATIENCE_S):
            while any(len(self.mailbox.told_of(name)) < count for name, count in expected.items()):
                await asyncio.sleep(0.1)
        assert {name: len(self.mailbox.told_of(name)) for name in expected} == expected

    def costs_sent(self, buyer: Buyer) -> dict[Any, Decimal]:
        """What webhooks said that each job of this wallet cost; each job has one of its own."""
        roads = {promise.job_id: promise.road for promise in buyer.promises}
        costs: dict[Any, Decimal] = {}
        for body in self.mailbox.told_of(buyer.customer_id):
            job_id = next(iter(ROADS_OF[buyer.storefront])).job_id(parsed(body))
            if job_id in roads:
                assert job_id not in costs, f"{job_id} was told twice"
                costs[job_id] = cost_told(buyer.storefront, body)
        assert costs.keys() == roads.keys()
        return costs

    async def kill_everybody_once(self, chance: random.Random) -> None:
        """kill -9 of each process in an order of chance, each when the one before is back."""
        for service in chance.sample(["gateway", "billing", "jobs", "provider_pool"], k=4):
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            os.kill(self.house.pid_of(service), signal.SIGKILL)
            await self.house.heard(f"{service} is ready again", deadline_s=_PATIENCE_S)


async def _storm(scene: Scene, chance: random.Random) -> list[Buyer]:
    """Everything that is asked, done and suffered, until all has come to rest; everybody who took part."""
    buyers: list[Buyer] = []
    asks: list[Ask] = []
    for storefront in _POOR_CREDITS:
        for who, buyer in (await scene.buyers(storefront)).items():
            buyers.append(buyer)
            asks += _asks(chance, buyer, _JOBS_EACH[who])
    await asyncio.gather(scene.kill_everybody_once(chance), *(scene.play(ask) for ask in asks))
    kept = [(buyer, each) for buyer in buyers for each in buyer.promises if not each.deleted]
    await asyncio.gather(*(buyer.see_the_end(promise) for buyer, promise in kept))
    await asyncio.gather(*(scene.books(buyer).at_rest() for buyer in buyers))
    await asyncio.gather(*(buyer.ask_again(promise) for buyer, promise in chance.sample(kept, 10)))
    await scene.all_told(buyers)
    return buyers


async def _report(buyer: Buyer) -> dict[str, Decimal]:
    """What the usage report of `seedancee2` says was paid, from rows of today and from the counters of whole days."""
    now = datetime.now(UTC)
    days = f"?start={now - timedelta(days=1):%Y-%m-%d}&end={now + timedelta(days=1):%Y-%m-%d}"
    paid: dict[str, Decimal] = {}
    for name, query in {"until now": "", "whole days": days}.items():
        report = (await buyer.read(f"/v1/usage{query}"))["data"]
        summary = report["summary"]
        for part in ("by_model", "timeline"):
            summed = {figure: sum(row[figure] for row in report[part]) for figure in summary}
            assert summed == summary, (name, part)
        assert summary["total_jobs"] == summary["completed_jobs"] + summary["failed_jobs"]
        assert summary["total_jobs"] == len(buyer.promises)
        assert summary["failed_jobs"] == sum(each.word == each.road.failed for each in buyer.promises)
        given_back = sum(each.reserved or 0 for each in buyer.promises if each.word == each.road.failed)
        assert summary["credits_refunded"] == given_back
        paid[f"report {name}, net"] = Decimal(summary["net_credits"])
        paid[f"report {name}"] = Decimal(summary["credits_charged"]) - Decimal(summary["credits_refunded"])
    return paid


async def _paid(scene: Scene, buyer: Buyer, journal: Journal) -> dict[str, Decimal]:
    """What was paid from this wallet, by everybody who has something to say about it."""
    books = scene.books(buyer)
    told = scene.costs_sent(buyer)
    gone = sum(told[each.job_id] for each in buyer.promises if each.deleted)
    paid = {
        "journal": journal.captured,
        "billing's count": await books.charged_total(),
        "usage of jobs": sum(
            (credits_of(row.charged_millis - row.refunded_millis) for row in await books.usage()), Decimal(0)
        ),
        "webhooks": sum(told.values(), Decimal(0)),
        "every job": sum((each.cost for each in buyer.promises), Decimal(0)) + gone,
    }
    left = await buyer.left()
    if left is not None and buyer.had is not None:
        paid["wallet"] = buyer.had - left
    return paid | (await _report(buyer) if buyer.storefront == "seedancee2" else {})


async def _assert_every_job_ended_once(scene: Scene, buyer: Buyer, journal: Journal) -> Counter[str]:
    """Each once, and its hold was closed once, in the way of its end. Returns how many ended how."""
    books = scene.books(buyer)
    ended: Counter[str] = Counter()
    ids = set()
    for job_id, kinds in journal.kinds.items():
        ends = await books.ends_of(job_id)
        if not ends:
            # A create that died between hold and job: given back, and nobody was told of it.
            assert kinds["capture"] == 0
            continue
        (end,) = ends
        ids.add(job_id)
        ended[jobs.JobState.Name(end)] += 1
        captured = int(end == jobs.JOB_STATE_COMPLETED)
        assert (kinds["hold"], kinds["capture"]) == (1, captured), (job_id, kinds)
        assert captured or kinds["release"], (job_id, kinds)
    if buyer.storefront == "imaginelab":
        assert len(ids) == len(buyer.promises)
    else:
        assert ids == {promise.job_id for promise in buyer.promises}
    return ended


async def _assert_paid_as_told(scene: Scene) -> None:
    buyers = await _storm(scene, seeded())
    ended: Counter[str] = Counter()
    captured: Counter[str] = Counter()
    for buyer in buyers:
        journal = await scene.books(buyer).journal()
        ended += await _assert_every_job_ended_once(scene, buyer, journal)
        paid = await _paid(scene, buyer, journal)
        assert paid == dict.fromkeys(paid, journal.captured), f"{buyer.storefront} {buyer.mode}"
        captured[buyer.storefront] += journal.captured > 0
    # Else what was compared would be little.
    assert captured.keys() == _POOR_CREDITS.keys()
    assert sum(buyer.refused for buyer in buyers) > 0
    assert set(ended) == {"JOB_STATE_COMPLETED", "JOB_STATE_FAILED", "JOB_STATE_CANCELED"}


@asynccontextmanager
async def _scene(folder: Path, **settings: str) -> AsyncIterator[Scene]:
    mailbox = Mailbox()
    async with Receiver(mailbox.answer) as receiver:
        egress = {"ATELIER_EGRESS_ALLOW": f"127.0.0.1/32:{receiver.port}"}
        async with (
            running_house(folder / "var", **_SETTINGS | egress | settings) as house,
            inside(house) as services,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            await services.set_account_options(render="instant", pace_ms="300")
            await services.set_concurrency(20)
            yield Scene(house, services, session, receiver, mailbox)


async def test_on_sqlite_what_every_contract_says_was_paid_is_what_the_journal_captured(
    tmp_path: Path,
) -> None:
    async with _scene(tmp_path) as scene:
        await _assert_paid_as_told(scene)


async def test_on_postgresql_what_every_contract_says_was_paid_is_what_the_journal_captured(
    tmp_path: Path,
) -> None:
    with Postgres() as server:
        async with _scene(tmp_path, ATELIER_DATABASE_URL=server.url("atelier")) as scene:
            await _assert_paid_as_told(scene)
