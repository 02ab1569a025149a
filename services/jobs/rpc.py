"""The jobs service on the wire: admit, delegate, translate, return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from services.chassis.dispatch import Handler, dispatcher
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.gen.jobs.v1 import jobs_pb2_grpc as rpc
from services.jobs import messages
from services.jobs.intake import Intake
from services.jobs.status import Status
from services.jobs.store import JobStore

SERVICE_NAME: Final = "jobs.v1.JobsService"


class JobsServicer(rpc.JobsServiceServicer):
    """Ten lines a call; the work is elsewhere."""

    def __init__(self, intake: Intake, status: Status, store: JobStore) -> None:
        self._intake = intake
        self._status = status
        self._store = store
        self._dispatch = dispatcher(
            {
                "CreateJob": Handler(pb.CreateJobRequest, self.CreateJob),
                "GetJob": Handler(pb.GetJobRequest, self.GetJob),
                "ListJobs": Handler(pb.ListJobsRequest, self.ListJobs),
                "ListJobEvents": Handler(pb.ListJobEventsRequest, self.ListJobEvents),
            },
            pb.DispatchResponse,
            pb.DispatchReply,
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        """For RpcServer."""
        rpc.add_JobsServiceServicer_to_server(self, server)

    async def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> pb.CreateJobResponse:
        job, replayed = await self._intake.create(messages.order_of(request))
        return pb.CreateJobResponse(job=messages.message_of(job), replayed=replayed)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        mode = messages.mode_of(request.mode)
        job = await self._status.get(request.job_id, request.customer_id, mode, sync=request.sync)
        return pb.GetJobResponse(job=messages.message_of(job))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        jobs = await self._store.list_jobs(messages.filter_of(request))
        return pb.ListJobsResponse(jobs=[messages.message_of(job) for job in jobs])

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        mode = messages.mode_of(request.mode)
        async for job in self._status.watch(request.job_id, request.customer_id, mode):
            yield pb.WatchJobResponse(job=messages.message_of(job))

    async def ListJobEvents(self, request: pb.ListJobEventsRequest, context: Any) -> pb.ListJobEventsResponse:
        events = await self._store.list_events(request.job_id)
        return pb.ListJobEventsResponse(events=[messages.event_message(event) for event in events])

    def Dispatch(
        self, request_iterator: AsyncIterator[pb.DispatchRequest], context: Any
    ) -> AsyncIterator[pb.DispatchResponse]:
        return self._dispatch(request_iterator, context)
