"""The calls of billing: admit, delegate, translate, return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from services.billing import admission, replies
from services.billing.authentication import Authenticator
from services.billing.bookkeeper import Bookkeeper
from services.billing.key_making import KeyMaker
from services.billing.prices import Storefronts
from services.billing.store import customers, holds, wallets
from services.billing.store import keys as key_rows
from services.billing.totals import charged_totals, topped_up_millis
from services.billing.user_accounts import UserAccounts
from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.dispatch import Handler, dispatcher
from services.gen.billing.v1 import billing_pb2 as pb
from services.gen.billing.v1 import billing_pb2_grpc as rpc

SERVICE_NAME = "billing.v1.BillingService"


class BillingService(rpc.BillingServiceServicer):
    """Every call is documented in the proto; refusals are in `errors`."""

    def __init__(
        self,
        database: Database,
        bookkeeper: Bookkeeper,
        authenticator: Authenticator,
        storefronts: Storefronts,
        key_maker: KeyMaker,
        users: UserAccounts,
        clock: Clock,
    ) -> None:
        self._database = database
        self._bookkeeper = bookkeeper
        self._authenticator = authenticator
        self._storefronts = storefronts
        self._key_maker = key_maker
        self._users = users
        self._clock = clock
        self._dispatch = dispatcher(self._hot_calls(), pb.DispatchResponse, pb.DispatchReply)

    async def Authenticate(self, request: pb.AuthenticateRequest, context: Any) -> pb.AuthenticateResponse:
        return replies.authenticated(await self._authenticator.owner(request.api_key))

    async def Hold(self, request: pb.HoldRequest, context: Any) -> pb.HoldResponse:
        return replies.held(await self._bookkeeper.submit(admission.hold(request, self._storefronts)))

    async def Capture(self, request: pb.CaptureRequest, context: Any) -> pb.CaptureResponse:
        return replies.captured(await self._bookkeeper.submit(admission.capture(request)))

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        return replies.released(await self._bookkeeper.submit(admission.release(request)))

    async def TopUp(self, request: pb.TopUpRequest, context: Any) -> pb.TopUpResponse:
        return replies.topped_up(await self._bookkeeper.submit(admission.top_up(request)))

    async def Adjust(self, request: pb.AdjustRequest, context: Any) -> pb.AdjustResponse:
        return replies.adjusted(await self._bookkeeper.submit(admission.adjustment(request)))

    async def ExtendHolds(self, request: pb.ExtendHoldsRequest, context: Any) -> pb.ExtendHoldsResponse:
        job_ids, expires_at_ms = admission.extension(request, self._clock.now_ms())
        not_open = await crash_points.committed(
            self._database.write,
            "extend_holds",
            lambda connection: holds.extend(connection, job_ids, expires_at_ms),
        )
        return pb.ExtendHoldsResponse(not_open_job_ids=not_open)

    async def GetBalance(self, request: pb.GetBalanceRequest, context: Any) -> pb.GetBalanceResponse:
        wallet = admission.wallet_of(request)
        standing = await self._database.read(lambda connection: wallets.standing(connection, wallet))
        response = pb.GetBalanceResponse(balance=replies.balance(*standing))
        if request.with_topped_up:
            response.topped_up_millis = await topped_up_millis(self._database, wallet)
        return response

    async def ListJournal(self, request: pb.ListJournalRequest, context: Any) -> pb.ListJournalResponse:
        wallet, limit = admission.wallet_of(request), admission.listed(request.limit)
        before = max(0, request.before_sequence)
        entries = await self._database.read(
            lambda connection: wallets.journal_page(connection, wallet, before, limit)
        )
        return pb.ListJournalResponse(entries=map(replies.journal_entry, entries))

    async def ListHolds(self, request: pb.ListHoldsRequest, context: Any) -> pb.ListHoldsResponse:
        wanted = admission.hold_filter(request)
        found = await self._database.read(lambda connection: holds.page(connection, wanted))
        return pb.ListHoldsResponse(holds=map(replies.hold_record, found))

    async def GetChargedTotals(
        self, request: pb.GetChargedTotalsRequest, context: Any
    ) -> pb.GetChargedTotalsResponse:
        wallets = admission.wallet_names(request.wallets)
        return replies.charged_totals(await charged_totals(self._database, wallets))

    async def GetPriceList(self, request: pb.GetPriceListRequest, context: Any) -> pb.GetPriceListResponse:
        return replies.price_list(self._storefronts.named(request.storefront))

    async def CreateCustomer(
        self, request: pb.CreateCustomerRequest, context: Any
    ) -> pb.CreateCustomerResponse:
        new = admission.new_customer(request, self._storefronts, self._clock.now_ms())
        made = await self._database.write(
            lambda connection: customers.open_customer(connection, new, self._clock.now_ms)
        )
        return pb.CreateCustomerResponse(customer=replies.customer(made))

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Any) -> pb.GetCustomerResponse:
        customer_id = admission.identifier("customer_id", request.customer_id)
        found = await self._database.read(lambda connection: customers.find(connection, customer_id))
        return pb.GetCustomerResponse(customer=replies.customer(found))

    async def ListCustomers(self, request: pb.ListCustomersRequest, context: Any) -> pb.ListCustomersResponse:
        storefront = self._storefronts.named(request.storefront).name if request.storefront else ""
        after = admission.identifier("after_customer_id", request.after_customer_id or "0")
        limit = admission.listed(request.limit)
        found = await self._database.read(
            lambda connection: customers.page(connection, storefront, after, limit)
        )
        return pb.ListCustomersResponse(customers=map(replies.customer, found))

    async def UpdateCustomer(
        self, request: pb.UpdateCustomerRequest, context: Any
    ) -> pb.UpdateCustomerResponse:
        customer_id = admission.identifier("customer_id", request.customer_id)
        changes = admission.customer_changes(request)
        changed = await self._database.write(
            lambda connection: customers.change(connection, customer_id, changes, self._clock.now_ms())
        )
        return pb.UpdateCustomerResponse(customer=replies.customer(changed))

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        key, api_key = await self._key_maker.make(request)
        return pb.CreateKeyResponse(key=replies.key(key), api_key=api_key)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        customer_id = admission.identifier("customer_id", request.customer_id)
        found = await self._database.read(lambda connection: key_rows.of_customer(connection, customer_id))
        return pb.ListKeysResponse(keys=map(replies.key, found))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        key_id, now_ms = admission.identifier("key_id", request.key_id), self._clock.now_ms()
        key = await self._database.write(lambda connection: key_rows.revoke(connection, key_id, now_ms))
        return pb.RevokeKeyResponse(key=replies.key(key))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Any) -> pb.RotateKeyResponse:
        key, api_key = await self._key_maker.rotate(request)
        return pb.RotateKeyResponse(key=replies.key(key), api_key=api_key)

    async def SignUp(self, request: pb.SignUpRequest, context: Any) -> pb.SignUpResponse:
        return pb.SignUpResponse(user=replies.user(await self._users.sign_up(request)))

    async def LogIn(self, request: pb.LogInRequest, context: Any) -> pb.LogInResponse:
        token, expires_at_ms, user = await self._users.log_in(request)
        return pb.LogInResponse(access_token=token, expires_at_ms=expires_at_ms, user=replies.user(user))

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=replies.user(await self._users.find(request)))

    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, context: Any
    ) -> pb.RequestPasswordResetResponse:
        self._users.request_reset(request)
        return pb.RequestPasswordResetResponse()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Any) -> pb.ResetPasswordResponse:
        await self._users.reset(request)
        return pb.ResetPasswordResponse()

    def Dispatch(
        self, request_iterator: AsyncIterator[pb.DispatchRequest], context: Any
    ) -> AsyncIterator[pb.DispatchResponse]:
        return self._dispatch(request_iterator, context)

    def _hot_calls(self) -> dict[str, Handler[Any]]:
        return {
            "Authenticate": Handler(pb.AuthenticateRequest, self.Authenticate),
            "Hold": Handler(pb.HoldRequest, self.Hold),
            "Capture": Handler(pb.CaptureRequest, self.Capture),
            "Release": Handler(pb.ReleaseRequest, self.Release),
            "GetBalance": Handler(pb.GetBalanceRequest, self.GetBalance),
            "ExtendHolds": Handler(pb.ExtendHoldsRequest, self.ExtendHolds),
        }
