"""The jobs service as a real process that can be killed, beside fakes in the test's own process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from types import TracebackType
from typing import Any, Self

import grpc

from services.chassis.rpc_client import open_channel
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc
from tests.jobs_fakes import FakeServers, create_request

_READY_WITHIN_S = 30.0


class JobsProcess:
    """`python -m services.jobs`; may be killed and started again on the same database."""

    def __init__(self, url: str, fakes: FakeServers, **settings: str) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "ATELIER_JOBS_DATABASE_URL": url,
            "ATELIER_JOBS_GRPC_LISTEN": "127.0.0.1:0",
            "ATELIER_JOBS_OPERATIONS_LISTEN": "127.0.0.1:0",
            "ATELIER_JOBS_BILLING_ADDRESS": fakes.billing_address,
            "ATELIER_JOBS_POOL_ADDRESS": fakes.pool_address,
            "ATELIER_JOBS_LOG_LEVEL": "warning",
            "ATELIER_JOBS_POLL_INTERVAL_MS": "30",
            "ATELIER_JOBS_WORKER_TTL_MS": "2000",
            "ATELIER_JOBS_DISPATCH_S": "0.3",
        } | {f"ATELIER_JOBS_{name}": value for name, value in settings.items()}
        self._process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
        await self._hang_up()

    async def start(self) -> None:
        await self._hang_up()
        reading, writing = os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.jobs",
            env=self._environment | {"ATELIER_ANNOUNCE_FD": str(writing)},
            pass_fds=(writing,),
        )
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as pipe:
            async with asyncio.timeout(_READY_WITHIN_S):
                line = await asyncio.to_thread(pipe.readline)
        assert line, "the process ended before it was ready"
        self._channel = open_channel(json.loads(line)["grpc"])
        self.stub = jobs_rpc.JobsServiceStub(self._channel)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self._process.wait()

    async def _hang_up(self) -> None:
        # Not as soon as the process is gone: calls under way are to see that, not their own client leaving.
        if self._channel is not None:
            await self._channel.close()

    async def create(self, key: str, *, timeout_s: float = 20, **given: Any) -> jobs.Job:
        answer = await self.stub.CreateJob(create_request(key, **given), timeout=timeout_s)
        return answer.job
