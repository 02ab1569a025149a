"""Creates and reads in a house with three million finished jobs, against the same in an empty one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.bench.creates import CONNECTIONS, creates
from tests.bench.findings import Section, of_slices
from tests.bench.finishing import INSTANT
from tests.bench.plan import Plan, say
from tests.bench.scene import CREDITS, Engine, Scene, scene
from tests.bench.slices import alternate
from tests.bench.stored_jobs import Books, load, stored_id
from tests.bench.wrk import Request, Wrk, load_generator, write_script
from tests.house import Customer, inside, running_house

JOBS: Final = 3_000_000
_REST_S: Final = 6 * 3600
_RESTING: Final = {
    "ATELIER_JOBS_FIRST_STEP_S": str(_REST_S),
    "ATELIER_JOBS_IMAGE_DEADLINE_S": str(2 * _REST_S),
}
_SHARE: Final = 0.9
# Finished jobs whose status is read in turn.
_READ: Final = 500
_LISTS: Final = 300
_PATIENCE_S: Final = 300.0


async def measure(plan: Plan, engine: Engine = "SQLite", count: int = JOBS) -> list[Section]:
    """Both houses run; in both, accepted jobs rest, and what is read are jobs that have ended."""
    wrk = await load_generator()
    async with AsyncExitStack() as stack:
        empty, few = await stack.enter_async_context(_house(plan.folder / "empty", engine, 0))
        full, many = await stack.enter_async_context(_house(plan.folder / "full", engine, count))
        cases = {
            "creates, empty": partial(_loaded, wrk, plan, empty, creates(empty.keys)),
            "creates, full": partial(_loaded, wrk, plan, full, creates(full.keys)),
            "reads, empty": partial(_loaded, wrk, plan, empty, few),
            "reads, full": partial(_loaded, wrk, plan, full, many),
            "lists, empty": partial(_listed, empty),
            "lists, full": partial(_listed, full),
        }
        rounds = await alternate(cases, plan)
    shares = {
        what: rounds.ratios(f"{what}, full", f"{what}, empty", lambda rate: rate)
        for what in ("creates", "reads", "lists")
    }
    findings = (
        of_slices(
            f"creates with {count:,} stored jobs, of an empty house's", shares["creates"], target=_SHARE
        ),
        of_slices("status reads of an ended job, likewise", shares["reads"], target=_SHARE),
        of_slices("lists of a customer's newest hundred jobs, likewise", shares["lists"]),
    )
    rates = [f"| {name} | {rounds.median(name, lambda rate: rate):,.0f} |" for name in cases]
    text = "\n".join(["| case | a second |", "|---|---|", *rates]) + f"\n\n{_WORDS}\n\n{rounds.trust()}"
    return [Section(f"{count:,} stored jobs on {engine}", findings, text)]


_WORDS: Final = (
    "The stored jobs have all the rows that finished jobs leave: jobs, their events, attempts, the last week's leases, "
    "holds, and two journal entries each whose sequences and balances fit, spread over 90 days and over the customers "
    "who create. In the empty house as many ended jobs are read, and lists are of those that its "
    "creates have made."
)


@asynccontextmanager
async def _house(folder: Path, engine: Engine, count: int) -> AsyncIterator[tuple[Scene, list[Request]]]:
    """Made and stopped, filled, and started again; a server that it needs goes on meanwhile."""
    async with scene(folder, engine, account_options=INSTANT) as place:
        made = [] if count else await _ended_jobs(place)
        (template_id,) = await _ended(place, place.house.key(), 1)
        # Its lease is given back a moment after its end.
        await asyncio.sleep(1)
        await place.house.stop()
        customers = len(place.customer_ids)
        books = Books(template_id, place.customer_ids, CREDITS * 1000, count // customers * customers)
        if count:
            began_s = time.monotonic()
            await load(engine, place.house.var, place.postgres, books)
            say(f"{books.count:,} finished jobs stored in {time.monotonic() - began_s:.0f} s")
            numbers = range(0, books.count, books.count // _READ)
            made = [_read(place.keys[number % customers], stored_id(number)) for number in numbers]
        changes = {} if place.postgres is None else {"ATELIER_DATABASE_URL": place.postgres.url("atelier")}
        async with (
            running_house(place.house.var, **changes, **_RESTING) as house,
            inside(house) as services,
        ):
            yield Scene(engine, house, services, place.keys, place.customer_ids, place.postgres), made


async def _ended_jobs(place: Scene) -> list[Request]:
    """As many different jobs as are read in the full house, or those who ask for the same one would share its row."""
    each = _READ // len(place.keys)
    made = await asyncio.gather(*(_ended(place, key, each) for key in place.keys))
    return [
        _read(key, job_id)
        for turn in zip(*made, strict=True)
        for key, job_id in zip(place.keys, turn, strict=True)
    ]


async def _ended(place: Scene, key: str, count: int) -> list[str]:
    async with aiohttp.ClientSession() as session:
        customer = Customer(session, place.house.base_url, key)
        made = [str((await customer.image(f"ended-{turn}")).json["jobId"]) for turn in range(count)]
        for job_id in made:
            await customer.ended(job_id, deadline_s=_PATIENCE_S)
    return made


def _read(key: str, job_id: str) -> Request:
    return Request("GET", f"/v1/jobs/{job_id}", {"Authorization": f"Bearer {key}"})


async def _loaded(wrk: Wrk, plan: Plan, place: Scene, requests: list[Request]) -> float:
    script = write_script(plan.folder / "requests.lua", requests)
    return (await wrk.run(script, place.house.base_url, connections=CONNECTIONS, seconds=plan.seconds)).per_s


async def _listed(place: Scene) -> float:
    """Lists a second, one after the other over gRPC: customers in turn, a hundred jobs each."""
    began_s = time.perf_counter()
    for turn in range(_LISTS):
        customer_id = place.customer_ids[turn % len(place.customer_ids)]
        request = jobs.ListJobsRequest(customer_id=customer_id, mode=jobs.MODE_LIVE, limit=100)
        await place.inside.jobs.ListJobs(request)
    return _LISTS / (time.perf_counter() - began_s)
