"""The demo customers: one of each storefront, with keys, credit, a webhook secret, and a user where users sign in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import grpc.aio

from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.billing.v1 import billing_pb2_grpc as billing_rpc
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.jobs.v1 import jobs_pb2_grpc as jobs_rpc

_DEADLINE_S = 10.0
# Enough for a thousand films, so that nobody meets a limit while looking around.
_LIVE_CREDIT_MILLIS = 10_000_000 * 1000
_LIMITS = billing.Limits(requests_per_minute=60_000, running_jobs=10_000, queued_jobs=10_000)
# Whose customers are people who sign up themselves.
_WITH_USERS = frozenset({"imaginelab"})


class DemoCustomers:
    """Makes them, or finds that they still work."""

    def __init__(self, billing_channel: grpc.aio.Channel, jobs_channel: grpc.aio.Channel) -> None:
        self._billing: billing_rpc.BillingServiceAsyncStub = billing_rpc.BillingServiceStub(billing_channel)
        self._jobs: jobs_rpc.JobsServiceAsyncStub = jobs_rpc.JobsServiceStub(jobs_channel)

    async def of(self, storefront: str, known: Mapping[str, str] | None) -> dict[str, str]:
        """What `demo.json` holds of the storefront's customer."""
        if known and await self._works(storefront, known):
            return dict(known)
        customer_id, signed_up = await self._customer(storefront)
        await self._billing.TopUp(
            billing.TopUpRequest(
                customer_id=customer_id,
                mode=billing.MODE_LIVE,
                amount_millis=_LIVE_CREDIT_MILLIS,
                idempotency_key="demo",
                note="demo credit",
            ),
            timeout=_DEADLINE_S,
        )
        return {
            "customer_id": customer_id,
            "live_key": await self._key(customer_id, billing.MODE_LIVE),
            "test_key": await self._key(customer_id, billing.MODE_TEST),
            "webhook_secret": await self._webhook_secret(customer_id),
            **signed_up,
        }

    async def _works(self, storefront: str, known: Mapping[str, str]) -> bool:
        try:
            for name in ("live_key", "test_key"):
                request = billing.AuthenticateRequest(api_key=known[name])
                await self._billing.Authenticate(request, timeout=_DEADLINE_S)
            if storefront in _WITH_USERS:
                login = billing.LogInRequest(
                    storefront=storefront, email=known["email"], password=known["password"]
                )
                await self._billing.LogIn(login, timeout=_DEADLINE_S)
        except KeyError:
            return False
        except ServiceError as refusal:
            if refusal.kind is not Kind.UNAUTHENTICATED:
                raise
            return False
        return "webhook_secret" in known

    async def _customer(self, storefront: str) -> tuple[str, dict[str, str]]:
        if storefront not in _WITH_USERS:
            request = billing.CreateCustomerRequest(
                storefront=storefront, name="Demo", limits=_LIMITS, idempotency_key=f"demo-{storefront}"
            )
            made = await self._billing.CreateCustomer(request, timeout=_DEADLINE_S)
            return made.customer.customer_id, {}
        # Its own each time: of an earlier one the password may be lost.
        email = f"demo-{secrets.token_hex(3)}@example.com"
        password = secrets.token_urlsafe(12)
        signed_up = await self._billing.SignUp(
            billing.SignUpRequest(storefront=storefront, email=email, password=password, full_name="Demo"),
            timeout=_DEADLINE_S,
        )
        customer_id = signed_up.user.customer_id
        update = billing.UpdateCustomerRequest(customer_id=customer_id, limits=_LIMITS)
        await self._billing.UpdateCustomer(update, timeout=_DEADLINE_S)
        return customer_id, {"email": email, "password": password}

    async def _key(self, customer_id: str, mode: billing.Mode.ValueType) -> str:
        request = billing.CreateKeyRequest(customer_id=customer_id, mode=mode, label="demo")
        return (await self._billing.CreateKey(request, timeout=_DEADLINE_S)).api_key

    async def _webhook_secret(self, customer_id: str) -> str:
        request = jobs.RotateWebhookSecretRequest(customer_id=customer_id)
        return (await self._jobs.RotateWebhookSecret(request, timeout=_DEADLINE_S)).secret
