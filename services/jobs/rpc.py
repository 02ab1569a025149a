"""The jobs service on the wire: admit, delegate, translate, return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from services.chassis.clock import Clock
from services.chassis.dispatch import Handler, dispatcher
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.gen.jobs.v1 import jobs_pb2_grpc as rpc
from services.jobs import errors, messages
from services.jobs.intake import Intake
from services.jobs.status import Status
from services.jobs.store import JobStore
from services.jobs.webhooks.rpc import WebhookCalls
from services.jobs.wishes import Wishes

SERVICE_NAME: Final = "jobs.v1.JobsService"


class JobsServicer(WebhookCalls):
    """Ten lines a call; the work is elsewhere."""

    def __init__(self, intake: Intake, status: Status, wishes: Wishes, store: JobStore, clock: Clock) -> None:
        self._intake = intake
        self._status = status
        self._wishes = wishes
        self._store = store
        self._clock = clock
        self._dispatch = dispatcher(
            {
                "CreateJob": Handler(pb.CreateJobRequest, self.CreateJob),
                "GetJob": Handler(pb.GetJobRequest, self.GetJob),
                "CancelJob": Handler(pb.CancelJobRequest, self.CancelJob),
                "DeleteJob": Handler(pb.DeleteJobRequest, self.DeleteJob),
                "GetUsage": Handler(pb.GetUsageRequest, self.GetUsage),
                "ListJobs": Handler(pb.ListJobsRequest, self.ListJobs),
                "ListJobEvents": Handler(pb.ListJobEventsRequest, self.ListJobEvents),
                "PutWebhookForm": Handler(pb.PutWebhookFormRequest, self.PutWebhookForm),
            },
            pb.DispatchResponse,
            pb.DispatchReply,
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        """For RpcServer."""
        rpc.add_JobsServiceServicer_to_server(self, server)

    async def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> pb.CreateJobResponse:
        order = messages.order_of(request)
        await self.check_webhooks_of(request)
        job, replayed = await self._intake.create(order)
        return pb.CreateJobResponse(job=messages.message_of(job), replayed=replayed)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        number = (request.storefront, request.public_number) if request.public_number else None
        job = await self._status.get(
            number or request.job_id,
            request.customer_id,
            messages.mode_of(request.mode),
            sync=request.sync,
            tell_of_others_in=request.storefront if request.tell_of_others else "",
        )
        return pb.GetJobResponse(job=messages.message_of(job))

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        # An operator names no customer, and then no mode either.
        mode = messages.mode_of(request.mode) if request.customer_id else ""
        job = await self._wishes.cancel(request.job_id, request.customer_id, mode)
        return pb.CancelJobResponse(job=messages.message_of(job))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Any) -> pb.DeleteJobResponse:
        if not request.customer_id:
            raise errors.invalid_request("customer_id", "is missing")
        await self._wishes.delete(request.job_id, request.customer_id, messages.mode_of(request.mode))
        return pb.DeleteJobResponse()

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        wanted = messages.filter_of(request)
        jobs = await self._store.list_jobs(wanted)
        total = await self._store.count_jobs(wanted) if request.count else 0
        return pb.ListJobsResponse(jobs=[messages.message_of(job) for job in jobs], total=total)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        span = messages.span_of(request, self._clock.now_ms())
        customer = (request.customer_id, messages.mode_of(request.mode))
        return messages.usage_message(await self._store.usage(customer, span))

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
