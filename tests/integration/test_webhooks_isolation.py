"""One slow or dead receiver delays nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles

from aiohttp import web

from services.gen.jobs.v1 import jobs_pb2 as pb
from services.jobs.webhooks.lanes import Bounds
from tests.jobs_house import sqlite_url
from tests.webhook_receiver import (
    Answering,
    Receiver,
    Telling,
    failing,
    fine,
    flooding,
    hanging,
    redirecting,
    telling,
)

BAD: dict[str, Answering] = {
    "hangs": hanging,
    "fails": failing,
    "redirects": redirecting,
    "floods": flooding,
}
OTHERS_JOBS = 60
JOBS = 40
# Longer than all the rest takes: what hangs hangs until the test is over.
TIMEOUT_S = 60.0


async def _delays_ms(here: Telling, customer: str) -> list[int]:
    """Of each delivery of this customer, the time from its job's end to its first attempt."""
    delays = []
    for delivery in await here.deliveries(customer_id=customer, limit=1000):
        first = (await here.attempts(delivery.delivery_id))[0]
        delays.append(first.at_ms - delivery.created_at_ms)
    return delays


async def _all_logged(here: Telling, customer: str, count: int) -> None:
    async with asyncio.timeout(30):
        while len(await here.deliveries(customer_id=customer, state=pb.DELIVERY_STATE_DELIVERED)) < count:
            await asyncio.sleep(0.05)


async def _round(here: Telling, customer: str, good: Receiver, others: list[Receiver]) -> list[int]:
    """The others' jobs, then this customer's; the delays of its webhooks once it has all of them."""
    already = len(good.received)
    jobs = [
        here.create(f"{customer}-{number}-{other.port}", other.url(), customer=f"{customer}_{other.port}")
        for other in others
        for number in range(OTHERS_JOBS)
    ]
    await asyncio.gather(*jobs)
    mine = [here.create(f"{customer}-{number}", good.url(), customer=customer) for number in range(JOBS)]
    await asyncio.gather(*mine)
    await good.until(already + JOBS, within_s=60)
    await _all_logged(here, customer, JOBS)
    return await _delays_ms(here, customer)


async def test_receivers_that_hang_fail_redirect_and_flood_delay_no_other_customer(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        good = await enter(Receiver())
        bad = {name: await enter(Receiver(answers)) for name, answers in BAD.items()}
        quick = [await enter(Receiver(fine)) for _ in BAD]
        here = await enter(
            telling(
                sqlite_url(tmp_path), good, *bad.values(), *quick, timeout_s=TIMEOUT_S, retries_s=(0.3,) * 50
            )
        )
        without = await _round(here, "cus_before", good, quick)
        with_them = await _round(here, "cus_after", good, list(bad.values()))
        hanging_now = await here.deliveries(customer_id=f"cus_after_{bad['hangs'].port}", limit=1000)
        for name, delays in (("without", without), ("with", with_them)):
            record_property(f"p99_ms_{name}", quantiles(delays, n=100)[98])
    # The hanging receiver held its few places from before the first of these jobs until after the last webhook.
    assert bad["hangs"].most_at_once == len(bad["hangs"].received) == Bounds().of_unknown
    assert [one.state for one in hanging_now] == [pb.DELIVERY_STATE_WAITING] * OTHERS_JOBS
    assert len(with_them) == len(without) == JOBS
    # The others were busy with it all the time, too.
    assert len(bad["fails"].received) > Bounds().of_unknown
    assert len(bad["redirects"].received) > Bounds().of_unknown


async def test_a_line_before_one_receiver_is_passed_by_everybody_behind_it(tmp_path: Path) -> None:
    """More is due before one receiver than one look at the database offers."""
    async with (
        Receiver(hanging) as slow,
        Receiver() as good,
        telling(sqlite_url(tmp_path), slow, good, timeout_s=TIMEOUT_S) as here,
    ):
        line = [here.create(f"line-{number}", slow.url(), customer="cus_line") for number in range(600)]
        await asyncio.gather(*line)
        await slow.until(Bounds().of_unknown)
        async with asyncio.timeout(60):
            while len(await here.deliveries(customer_id="cus_line", limit=1000)) < 600:
                await asyncio.sleep(0.1)
        await here.create("k1", good.url(), customer="cus_other")
        await here.create("k2", good.url("/same-customer"), customer="cus_line")
        assert {one.path for one in await good.until(2)} == {"/hook", "/same-customer"}
        assert slow.most_at_once == Bounds().of_unknown


async def test_one_customer_s_dead_address_does_not_delay_another_s_at_the_same_host(tmp_path: Path) -> None:
    async def answers(request: web.Request) -> web.StreamResponse:
        return await (hanging if request.path == "/dead" else fine)(request)

    async with (
        Receiver(answers) as shared,
        telling(sqlite_url(tmp_path), shared, timeout_s=TIMEOUT_S) as here,
    ):
        line = [
            here.create(f"line-{number}", shared.url("/dead"), customer="cus_dead") for number in range(20)
        ]
        await asyncio.gather(*line)
        await shared.until(Bounds().of_unknown)
        await here.create("k1", shared.url(), customer="cus_other")
        received = await shared.until(Bounds().of_unknown + 1)
        assert received[-1].path == "/hook"
