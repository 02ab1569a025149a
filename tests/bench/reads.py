"""Status reads of running jobs over HTTP, against a bare aiohttp server in the same run."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import aiohttp

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.bench.bare import bare_server
from tests.bench.creates import CONNECTIONS, RUNNING, RUNNING_ENVIRONMENT, costs, cpu_ratios, loads, slice_of
from tests.bench.findings import Chart, Section, of_slices
from tests.bench.plan import Plan
from tests.bench.scene import Scene, scene
from tests.bench.slices import alternate
from tests.bench.wrk import Request, load_generator, write_script
from tests.house import Customer

_FLOOR: Final = 0.35
_RUNNING_DEADLINE_S: Final = 60.0
_MEANWHILE: Final = (
    "One running job of each of {customers} customers, read in turn with its customer's key; the answer is no older "
    "than two seconds, so that the provider is asked all the time, simultaneous readers sharing one question."
)


async def measure(plan: Plan) -> list[Section]:
    """Sixty-four connections on SQLite."""
    wrk = await load_generator()
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(bare_server())
        place = await stack.enter_async_context(
            scene(plan.folder, "SQLite", account_options=RUNNING, environment=RUNNING_ENVIRONMENT)
        )
        job_ids = await running_jobs(place)
        script = write_script(
            plan.folder / "read.lua",
            [
                Request("GET", f"/v1/jobs/{job_id}", {"Authorization": f"Bearer {key}"})
                for key, job_id in zip(place.keys, job_ids, strict=True)
            ],
        )
        many = partial(slice_of, wrk, script, plan, connections=CONNECTIONS)
        cases = {
            "bare aiohttp": partial(many, bare.base_url, pid=bare.pid),
            "status reads": partial(many, place.house.base_url, place=place),
        }
        rounds = await alternate(cases, plan)
    shares = rounds.ratios("status reads", "bare aiohttp", lambda seen: seen.load.per_s)
    findings = (
        of_slices("status reads a second, of bare aiohttp", shares, target=_FLOOR),
        of_slices(
            "CPU of one status read, of bare aiohttp's",
            cpu_ratios(rounds, "status reads", "bare aiohttp"),
            "×",
        ),
    )
    told = (
        _MEANWHILE.format(customers=len(job_ids)),
        loads(rounds),
        costs(rounds, "status reads"),
        rounds.trust(),
    )
    bars = [(name, rounds.median(name, lambda seen: seen.load.per_s)) for name in cases]
    chart = Chart("reads", "Status reads a second", "/s", bars)
    return [Section("Status reads of running jobs", findings, "\n\n".join(told), (chart,))]


async def running_jobs(place: Scene) -> list[str]:
    """A job of each customer, at the provider. Raises TimeoutError."""
    async with aiohttp.ClientSession() as session:
        made = [
            await Customer(session, place.house.base_url, key).image("the-read-one") for key in place.keys
        ]
    job_ids = [str(answer.json["jobId"]) for answer in made]
    async with asyncio.timeout(_RUNNING_DEADLINE_S):
        for job_id, customer_id in zip(job_ids, place.customer_ids, strict=True):
            asked = jobs.GetJobRequest(job_id=job_id, customer_id=customer_id, mode=jobs.MODE_LIVE)
            while (await place.inside.jobs.GetJob(asked)).job.state != jobs.JOB_STATE_RUNNING:
                await asyncio.sleep(0.05)
    return job_ids
