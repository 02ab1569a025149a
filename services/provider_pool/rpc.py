"""The calls of the provider pool: admit, delegate, translate, return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.chassis.clock import Clock
from services.chassis.dispatch import Handler, dispatcher
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.gen.provider_pool.v1 import provider_pool_pb2_grpc as rpc
from services.provider_pool import admission, replies
from services.provider_pool.accounts.checking import Checks
from services.provider_pool.accounts.headroom import Headroom
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.attempts.closing import Closing
from services.provider_pool.attempts.collection import Collection
from services.provider_pool.attempts.hints import Hints
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.loose_ends import LooseEnds
from services.provider_pool.attempts.overdue import Overdue
from services.provider_pool.attempts.polling import Polling
from services.provider_pool.attempts.resolution import Resolution
from services.provider_pool.attempts.submission import Submissions
from services.provider_pool.catalog import Catalog
from services.provider_pool.offers import offers
from services.provider_pool.references import requests
from services.provider_pool.references.preparation import Preparation
from services.provider_pool.references.staging import Staging, punctual
from services.provider_pool.selection.capacity import Capacity
from services.provider_pool.selection.leasing import Leasing

SERVICE_NAME = "provider_pool.v1.ProviderPoolService"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the calls are delegated to."""

    accounts: Accounts
    checks: Checks
    headroom: Headroom
    attempts: AttemptLog
    capacity: Capacity
    leasing: Leasing
    submissions: Submissions
    polling: Polling
    resolution: Resolution
    collection: Collection
    staging: Staging
    preparation: Preparation
    closing: Closing
    catalog: Catalog
    overdue: Overdue
    hints: Hints
    loose_ends: LooseEnds
    clock: Clock
    media_retention_s: int


class ProviderPoolService(rpc.ProviderPoolServiceServicer):
    """Every call is documented in the proto; refusals are in `errors`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._dispatch = dispatcher(self._hot_calls(), pb.DispatchResponse, pb.DispatchReply)

    async def Lease(self, request: pb.LeaseRequest, context: Any) -> pb.LeaseResponse:
        attempt_id, job_id = admission.attempt_of_job(request.attempt_id, request.job_id)
        lease = await self._parts.leasing.lease(
            attempt_id,
            job_id,
            admission.mode(request.mode),
            admission.generation(request.generation),
            ttl_ms=admission.ttl_ms(request.ttl_ms),
            behind_others=request.wait_behind_others,
            avoid=admission.account_ids(request.avoid_account_ids),
        )
        return replies.leased(lease)

    async def RenewLeases(self, request: pb.RenewLeasesRequest, context: Any) -> pb.RenewLeasesResponse:
        attempt_ids = admission.attempt_ids(request.attempt_ids)
        ended = await self._parts.leasing.renew(attempt_ids, admission.ttl_ms(request.ttl_ms))
        return pb.RenewLeasesResponse(ended_attempt_ids=ended)

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, context: Any) -> pb.ReleaseLeaseResponse:
        tombstone = await self._parts.leasing.release(admission.attempt_id(request.attempt_id))
        return pb.ReleaseLeaseResponse(tombstone=tombstone)

    async def WatchCapacity(
        self, request: pb.WatchCapacityRequest, context: Any
    ) -> AsyncIterator[pb.WatchCapacityResponse]:
        async with aclosing(self._parts.capacity.watch()) as news:
            async for rooms in news:
                yield replies.rooms(rooms)

    async def StageReference(
        self, request_iterator: AsyncIterator[pb.StageReferenceRequest], context: Any
    ) -> pb.StageReferenceResponse:
        messages = punctual(aiter(request_iterator))
        model, limits = requests.head(await anext(messages, None))
        staged = await self._parts.staging.stage(
            admission.name("head.model", model), limits, requests.contents(messages)
        )
        return replies.staged(staged)

    async def PrepareReferences(
        self, request: pb.PrepareReferencesRequest, context: Any
    ) -> pb.PrepareReferencesResponse:
        attempt_id, job_id = admission.attempt_of_job(request.attempt_id, request.job_id)
        generation = admission.generation(request.generation)
        return replies.prepared(await self._parts.preparation.prepare(attempt_id, job_id, generation))

    async def DropReferences(
        self, request: pb.DropReferencesRequest, context: Any
    ) -> pb.DropReferencesResponse:
        reference_ids = requests.reference_ids(request.reference_ids)
        await self._parts.preparation.drop(admission.job_id(request.job_id), reference_ids)
        return pb.DropReferencesResponse()

    async def Submit(self, request: pb.SubmitRequest, context: Any) -> pb.SubmitResponse:
        attempt_id, job_id = admission.attempt_of_job(request.attempt_id, request.job_id)
        generation = admission.generation(request.generation)
        attempt = await self._parts.submissions.submit(attempt_id, job_id, generation)
        return pb.SubmitResponse(status=replies.status(attempt))

    async def Poll(self, request: pb.PollRequest, context: Any) -> pb.PollResponse:
        attempt_id = admission.attempt_id(request.attempt_id)
        max_age_ms = admission.max_age_ms(request.max_age_ms)
        return replies.polled(await self._parts.polling.poll(attempt_id, max_age_ms))

    async def PollMany(self, request: pb.PollManyRequest, context: Any) -> pb.PollManyResponse:
        attempt_ids = admission.polled_ids(request.attempt_ids)
        max_age_ms = admission.max_age_ms(request.max_age_ms)
        max_wait_s = admission.max_wait_s(request.max_wait_ms)
        return replies.polled_many(await self._parts.polling.poll_many(attempt_ids, max_age_ms, max_wait_s))

    async def ResolveUnknown(
        self, request: pb.ResolveUnknownRequest, context: Any
    ) -> pb.ResolveUnknownResponse:
        resolved = await self._parts.resolution.resolve(admission.attempt_id(request.attempt_id))
        return pb.ResolveUnknownResponse(
            status=replies.status(resolved.attempt, poll_after_ms=resolved.poll_after_ms)
        )

    async def Collect(self, request: pb.CollectRequest, context: Any) -> pb.CollectResponse:
        attempt_id, _ = admission.attempt_of_job(request.attempt_id, request.job_id)
        stored = await self._parts.collection.collect(attempt_id)
        return replies.collected(stored, self._parts.media_retention_s)

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.CreateAccountResponse:
        record = await self._parts.checks.create(
            admission.name("provider", request.provider),
            admission.label(request.label),
            admission.credentials(request.credentials),
            admission.new_account(request),
            unchecked=request.unchecked,
        )
        return pb.CreateAccountResponse(account=replies.account(record, self._parts.clock.now_ms()))

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.GetAccountResponse:
        record = await self._parts.accounts.get(admission.account_id(request.account_id))
        return pb.GetAccountResponse(account=replies.account(record, self._parts.clock.now_ms()))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsResponse:
        now_ms = self._parts.clock.now_ms()
        records = await self._parts.accounts.list()
        return pb.ListAccountsResponse(accounts=[replies.account(record, now_ms) for record in records])

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.UpdateAccountResponse:
        account_id = admission.account_id(request.account_id)
        record = await self._parts.accounts.update(account_id, admission.account_changes(request))
        return pb.UpdateAccountResponse(account=replies.account(record, self._parts.clock.now_ms()))

    async def ResetAccount(self, request: pb.ResetAccountRequest, context: Any) -> pb.ResetAccountResponse:
        record = await self._parts.accounts.reset(admission.account_id(request.account_id))
        return pb.ResetAccountResponse(account=replies.account(record, self._parts.clock.now_ms()))

    async def CheckAccount(self, request: pb.CheckAccountRequest, context: Any) -> pb.CheckAccountResponse:
        checked = await self._parts.checks.check(admission.account_id(request.account_id))
        return replies.checked(checked, self._parts.clock.now_ms())

    async def ReplaceCredentials(
        self, request: pb.ReplaceCredentialsRequest, context: Any
    ) -> pb.ReplaceCredentialsResponse:
        record = await self._parts.checks.replace_credentials(
            admission.account_id(request.account_id),
            admission.credentials(request.credentials),
            unchecked=request.unchecked,
        )
        return pb.ReplaceCredentialsResponse(account=replies.account(record, self._parts.clock.now_ms()))

    async def GetHeadroom(self, request: pb.GetHeadroomRequest, context: Any) -> pb.GetHeadroomResponse:
        return replies.headroom(await self._parts.headroom.look())

    async def ListAttempts(self, request: pb.ListAttemptsRequest, context: Any) -> pb.ListAttemptsResponse:
        found = await self._parts.attempts.list(
            admission.job_id(request.job_id),
            admission.attempt_state(request.state),
            admission.after(request.after_attempt_id),
            admission.page(request.limit),
        )
        return replies.attempts(found)

    async def GetAttemptHistory(
        self, request: pb.GetAttemptHistoryRequest, context: Any
    ) -> pb.GetAttemptHistoryResponse:
        attempt, events = await self._parts.attempts.history(admission.attempt_id(request.attempt_id))
        return replies.history(attempt, events)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        accounts = await self._parts.accounts.load()
        return replies.offers(offers(self._parts.catalog, accounts.values(), self._parts.overdue.patience))

    async def TakeHint(self, request: pb.TakeHintRequest, context: Any) -> pb.TakeHintResponse:
        headers, body = admission.hint(request)
        await self._parts.hints.take(request.token, headers, body)
        return pb.TakeHintResponse()

    async def GetHintAddress(
        self, request: pb.GetHintAddressRequest, context: Any
    ) -> pb.GetHintAddressResponse:
        record = await self._parts.accounts.get(admission.account_id(request.account_id))
        url = self._parts.hints.addresses.account_url(record.account.account_id)
        return pb.GetHintAddressResponse(url=url)

    async def WatchHints(
        self, request: pb.WatchHintsRequest, context: Any
    ) -> AsyncIterator[pb.WatchHintsResponse]:
        async with aclosing(self._parts.hints.announcements.watch()) as news:
            async for attempt_ids in news:
                yield pb.WatchHintsResponse(attempt_ids=attempt_ids)

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Any) -> pb.ListLeasesResponse:
        found = await self._parts.leasing.open_leases(
            request.created_before_ms,
            admission.after(request.after_attempt_id),
            admission.page(request.limit),
        )
        return replies.leases(found)

    async def ListOpenAttempts(
        self, request: pb.ListOpenAttemptsRequest, context: Any
    ) -> pb.ListOpenAttemptsResponse:
        found = await self._parts.closing.list_open(
            request.created_before_ms,
            admission.after(request.after_attempt_id),
            admission.page(request.limit),
        )
        return replies.open_attempts(found)

    async def CloseAttempts(self, request: pb.CloseAttemptsRequest, context: Any) -> pb.CloseAttemptsResponse:
        attempt_ids = admission.closed_ids(request.attempt_ids)
        still_open = await self._parts.closing.close_attempts(attempt_ids)
        return pb.CloseAttemptsResponse(still_open_attempt_ids=still_open)

    async def DeleteMedia(self, request: pb.DeleteMediaRequest, context: Any) -> pb.DeleteMediaResponse:
        await self._parts.collection.delete(admission.object_keys(request.object_keys))
        return pb.DeleteMediaResponse()

    def Dispatch(
        self, request_iterator: AsyncIterator[pb.DispatchRequest], context: Any
    ) -> AsyncIterator[pb.DispatchResponse]:
        return self._dispatch(request_iterator, context)

    def _hot_calls(self) -> dict[str, Handler[Any]]:
        return {
            "Lease": Handler(pb.LeaseRequest, self.Lease),
            "RenewLeases": Handler(pb.RenewLeasesRequest, self.RenewLeases),
            "ReleaseLease": Handler(pb.ReleaseLeaseRequest, self.ReleaseLease),
            "PrepareReferences": Handler(pb.PrepareReferencesRequest, self.PrepareReferences),
            "DropReferences": Handler(pb.DropReferencesRequest, self.DropReferences),
            "Submit": Handler(pb.SubmitRequest, self.Submit),
            "Poll": Handler(pb.PollRequest, self.Poll),
            "PollMany": Handler(pb.PollManyRequest, self.PollMany),
            "ResolveUnknown": Handler(pb.ResolveUnknownRequest, self.ResolveUnknown),
            "Collect": Handler(pb.CollectRequest, self.Collect),
            "ListLeases": Handler(pb.ListLeasesRequest, self.ListLeases),
            "CloseAttempts": Handler(pb.CloseAttemptsRequest, self.CloseAttempts),
            "DeleteMedia": Handler(pb.DeleteMediaRequest, self.DeleteMedia),
        }
