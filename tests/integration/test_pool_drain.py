"""A pool that is asked to stop while a provider draws: the picture is paid for, and it is not lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from services.chassis.clock import SystemClock
from services.chassis.errors import ServiceError
from services.chassis.service_link import ServiceLink
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as rpc
from services.provider_pool.adapters.interface import Kind
from services.provider_pool.adapters.model_files import models_of
from services.simulator.serving import serving
from services.simulator.world import World
from tests.adapters.simulated import Bench, wanted
from tests.integration.pool_process import Pool, running

pytestmark = pytest.mark.timeout(180)

PICTURE: Final = next(spec for spec in models_of("openai") if spec.kind is Kind.IMAGE)
# Longer than a server's own drain and some patience besides: only a process that waits for it has the answer.
DRAWING_S: Final = 15
# Nobody waits for the end of this one.
FOR_EVER_S: Final = 100
PATIENCE_S: Final = 60.0


def drawing(for_s: int) -> pb.Generation:
    return wanted(PICTURE, f"a boat [[sim:slow={for_s}]]")


@asynccontextmanager
async def provider() -> AsyncIterator[tuple[World, str]]:
    world = World(SystemClock(), seed=1, pace=400)
    async with serving(world, "127.0.0.1:0") as url:
        yield world, url


@asynccontextmanager
async def calls_of(
    pool: Pool,
) -> AsyncIterator[Callable[[str, pb.Generation], asyncio.Task[pb.SubmitResponse]]]:
    """Submissions on a stream, as the jobs service sends them."""
    async with ServiceLink(
        pool.addresses["grpc"],
        name="pool",
        stub=rpc.ProviderPoolServiceStub,
        messages=pb,
        repeatable=frozenset({"Submit"}),
    ) as link:

        def submit(attempt_id: str, generation: pb.Generation) -> asyncio.Task[pb.SubmitResponse]:
            job_id = attempt_id.partition(":")[0]
            request = pb.SubmitRequest(attempt_id=attempt_id, job_id=job_id, generation=generation)
            return asyncio.create_task(
                link.stream.call("Submit", request, pb.SubmitResponse, timeout_s=2 * PATIENCE_S)
            )

        yield submit


async def drawn_on(world: World, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(world.tasks.all()) < count:
            await asyncio.sleep(0.05)


async def ended(pool: Pool) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await pool.process.wait()


async def readiness(pool: Pool) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(pool.addresses["operations"] + "/readyz") as page,
    ):
        return page.status, (await page.json())["faults"].get("process", "")


async def drains(pool: Pool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while "submit.draining" not in pool.log:
            await asyncio.sleep(0.05)


async def state_of(pool: Pool, job_id: str) -> pb.AttemptState.ValueType:
    (attempt,) = (await pool.stub.ListAttempts(pb.ListAttemptsRequest(job_id=job_id))).attempts
    return attempt.state


async def test_a_pool_that_is_asked_to_stop_waits_for_the_pictures_that_it_is_paying_for(
    tmp_path: Path,
) -> None:
    async with provider() as (world, url):
        async with running(tmp_path) as pool, calls_of(pool) as submit:
            await Bench(pool, world, url).account("openai", PICTURE)
            for job in ("job_1:1", "job_2:1", "job_3:1"):
                await pool.lease(job, generation=drawing(DRAWING_S))
            asked, left = submit("job_1:1", drawing(DRAWING_S)), submit("job_2:1", drawing(DRAWING_S))
            await drawn_on(world, 2)
            left.cancel()
            pool.process.send_signal(signal.SIGTERM)
            await drains(pool)

            assert await readiness(pool) == (503, "stopping")
            # What has no other place to go is still served here; what is new waits.
            assert (
                await pool.lease("job_4:1", generation=drawing(1))
            ).outcome == pb.LeaseResponse.OUTCOME_BUSY
            with pytest.raises(ServiceError) as refused:
                await submit("job_3:1", drawing(1))
            assert refused.value.reason == "SHUTTING_DOWN"
            assert await state_of(pool, "job_1") == pb.ATTEMPT_STATE_SUBMITTING

            assert (await asked).status.state == pb.ATTEMPT_STATE_SUCCEEDED
            assert await ended(pool) == 0
        assert "submit.cut" not in pool.log
        async with running(tmp_path) as pool:
            for job in ("job_1", "job_2"):
                assert await state_of(pool, job) == pb.ATTEMPT_STATE_SUCCEEDED
                (output,) = await pool.collect(f"{job}:1")
                assert (output.width, output.height) == (drawing(1).width, drawing(1).height)
        assert len(world.tasks.all()) == 2


async def test_a_replica_that_is_asked_to_stop_ends_its_pictures_while_another_serves(
    tmp_path: Path, postgres_url: str
) -> None:
    changes = {"ATELIER_POOL_DATABASE_URL": postgres_url}
    async with (
        provider() as (world, url),
        running(tmp_path, **changes) as leaving,
        running(tmp_path, **changes) as staying,
        calls_of(leaving) as submit,
    ):
        await Bench(leaving, world, url).account("openai", PICTURE)
        await leaving.lease("job_1:1", generation=drawing(DRAWING_S))
        asked = submit("job_1:1", drawing(DRAWING_S))
        await drawn_on(world, 1)
        leaving.process.send_signal(signal.SIGTERM)
        await drains(leaving)

        with pytest.raises(ServiceError) as refused:
            await leaving.lease("job_2:1", generation=drawing(1))
        assert refused.value.reason == "UNAVAILABLE"
        assert (await staying.lease("job_2:1", generation=drawing(1))).outcome == (
            pb.LeaseResponse.OUTCOME_GRANTED
        )
        # Whoever asks the other one hears that it is being sent, and no second request leaves.
        told = await staying.submit("job_1:1", drawing(DRAWING_S))
        assert told.state == pb.ATTEMPT_STATE_SUBMITTING

        assert (await asked).status.state == pb.ATTEMPT_STATE_SUCCEEDED
        assert await ended(leaving) == 0
        assert (await staying.submit("job_1:1", drawing(DRAWING_S))).state == pb.ATTEMPT_STATE_SUCCEEDED
        assert len(await staying.collect("job_1:1")) == 1
        assert len(world.tasks.all()) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, None], ids=["term", "int", "bound"])
async def test_a_drain_ends_at_a_second_signal_or_at_its_bound_and_leaves_a_doubt(
    tmp_path: Path, second: signal.Signals | None
) -> None:
    bound_s = 1 if second is None else FOR_EVER_S
    async with provider() as (world, url):
        async with running(tmp_path, ATELIER_POOL_DRAIN_S=str(bound_s)) as pool, calls_of(pool) as submit:
            await Bench(pool, world, url).account("openai", PICTURE)
            await pool.lease("job_1:1", generation=drawing(FOR_EVER_S))
            asked = submit("job_1:1", drawing(FOR_EVER_S))
            await drawn_on(world, 1)
            pool.process.send_signal(signal.SIGTERM)
            await drains(pool)
            if second is not None:
                pool.process.send_signal(second)
            assert await ended(pool) == 0
            with pytest.raises(ServiceError) as cut:
                await asked
            assert cut.value.reason in {"SHUTTING_DOWN", "UNAVAILABLE"}
        assert "submit.cut" in pool.log
        async with running(tmp_path) as pool:
            assert await state_of(pool, "job_1") == pb.ATTEMPT_STATE_UNKNOWN


async def test_with_a_supervisor_above_it_only_that_one_is_in_a_hurry(tmp_path: Path) -> None:
    # Where a machine stops everything at once, a process hears of it twice: from the machine, and from its supervisor.
    async with provider() as (world, url):
        above = {"ATELIER_SUPERVISOR_PID": str(os.getpid())}
        async with running(tmp_path, **above) as pool, calls_of(pool) as submit:
            await Bench(pool, world, url).account("openai", PICTURE)
            await pool.lease("job_1:1", generation=drawing(3))
            asked = submit("job_1:1", drawing(3))
            await drawn_on(world, 1)
            pool.process.send_signal(signal.SIGTERM)
            await drains(pool)
            pool.process.send_signal(signal.SIGTERM)
            assert (await asked).status.state == pb.ATTEMPT_STATE_SUCCEEDED
            assert await ended(pool) == 0


async def test_a_pool_that_sends_nothing_ends_at_once_whatever_runs_and_whoever_watches(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, ATELIER_POOL_DRAIN_S=str(FOR_EVER_S)) as pool:
        await pool.account()
        assert (await pool.begin("job_1:1", "pace=60")).state == pb.ATTEMPT_STATE_RUNNING
        watching = pool.stub.WatchCapacity(pb.WatchCapacityRequest())
        await anext(aiter(watching))
        began_s = time.monotonic()
        assert await pool.stop() == 0
        assert time.monotonic() - began_s < FOR_EVER_S / 2
        watching.cancel()
