"""What customers do not want any more, while a process dies."""

from __future__ import annotations

import asyncio

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.faults.matrix_deeds import Actor, insisted

_AGAIN_S = 0.05
_PATIENCE_S = 60.0


async def be_canceled(actor: Actor) -> None:
    """Its end is asked for while it runs at the provider: it costs nothing, whoever dies meanwhile."""
    # So slow that it cannot end by itself before the wish is heard.
    accepted = await actor.customer.image(actor.key, f"{actor.key} [sandbox:pace=30]")
    job_id = accepted.json["jobId"]
    calls = actor.scene.inside.jobs
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            listed = await insisted(calls.ListJobs, jobs.ListJobsRequest(job_ids=[job_id]))
            if listed.jobs[0].state == jobs.JOB_STATE_RUNNING:
                break
            await asyncio.sleep(_AGAIN_S)
    await insisted(calls.CancelJob, jobs.CancelJobRequest(job_id=job_id))
    ended = await actor.customer.ended(job_id)
    assert (ended["status"], ended["chargedCredits"]) == ("failed", 0), ended


async def be_deleted(actor: Actor) -> None:
    """It is to be forgotten: nobody is shown it from then on, and the verdict looks for what is left of it."""
    job = await actor.done()
    request = jobs.DeleteJobRequest(
        job_id=job["jobId"], customer_id=actor.customer.customer_id, mode=jobs.MODE_LIVE
    )
    await insisted(actor.scene.inside.jobs.DeleteJob, request)
    gone = await actor.customer.read(f"/v1/jobs/{job['jobId']}")
    assert gone.status == 404, gone.body
