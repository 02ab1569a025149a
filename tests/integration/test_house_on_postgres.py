"""The same house on PostgreSQL, by changing one URL."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.house import Customer, inside, running_house
from tests.postgres import Postgres


async def test_the_whole_road_runs_on_postgresql_and_outlives_its_restart(tmp_path: Path) -> None:
    with Postgres() as server:
        url = server.url("atelier")
        async with (
            running_house(tmp_path / "var", ATELIER_DATABASE_URL=url) as house,
            inside(house) as services,
            aiohttp.ClientSession() as session,
        ):
            assert not list(tmp_path.glob("var/*/*.db"))
            await services.set_account_options(render="instant", pace_ms="3000")
            await services.set_concurrency(10)
            customer_id, key, _ = await services.customer(30 * 20)
            customer = Customer(session, house.base_url, key)
            made = await asyncio.gather(*(customer.image(f"key-{n}", f"boat {n}") for n in range(20)))
            assert {answer.status for answer in made} == {202}
            server.kill9()
            await asyncio.sleep(1)
            server.start()
            ended = [await customer.ended(answer.json["jobId"]) for answer in made]
            assert {job["status"] for job in ended} == {"complete"}
            again = await customer.image("key-0", "boat 0")
            assert again.json["jobId"] == made[0].json["jobId"]
            usage = (await customer.call("GET", "/v1/usage")).json
            assert usage == {"creditsBalance": 200, "creditsReserved": 0, "creditsAvailable": 200}
            listed = await services.jobs.ListJobs(jobs.ListJobsRequest(customer_id=customer_id))
            assert len(listed.jobs) == 20
