"""Webhooks on the wire: admit, delegate, translate, return."""

from __future__ import annotations

from typing import Any, Final

from services.chassis.clock import Clock
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.gen.jobs.v1 import jobs_pb2_grpc as rpc
from services.jobs import errors
from services.jobs.webhooks import messages
from services.jobs.webhooks.addresses import check_address
from services.jobs.webhooks.telling import Telling

# Beyond it a leaked secret would sign for too long.
_OVERLAP_LIMIT_MS: Final = 7 * 24 * 3600 * 1000


class WebhookCalls(rpc.JobsServiceServicer):
    """The calls about webhooks; the service inherits them. keys: None where webhooks are off."""

    def tells_through(self, telling: Telling, clock: Clock) -> None:
        """What these calls work on."""
        self._telling = telling
        self._webhooks = telling.store
        self._policy = telling.terms.policy
        self._webhook_clock = clock

    async def check_webhooks_of(self, request: pb.CreateJobRequest) -> None:
        """Raises WEBHOOK_ADDRESS_REFUSED and UNKNOWN_WEBHOOK_FORM; asks nobody about a form that was seen before."""
        if request.callback_url:
            check_address(request.callback_url, self._policy, "callback_url")
        form_id = request.webhook_form_id
        if form_id and await self._webhooks.form(form_id) is None:
            raise errors.unknown_webhook_form()

    async def PutWebhookForm(
        self, request: pb.PutWebhookFormRequest, context: Any
    ) -> pb.PutWebhookFormResponse:
        form = messages.form_of(request.form)
        form_id = await self._webhooks.put_form(form, self._webhook_clock.now_ms())
        return pb.PutWebhookFormResponse(webhook_form_id=form_id)

    async def SetWebhookEndpoint(
        self, request: pb.SetWebhookEndpointRequest, context: Any
    ) -> pb.SetWebhookEndpointResponse:
        customer_id = messages.customer_of(request.customer_id)
        if request.url:
            check_address(request.url, self._policy, "url")
        endpoint = await self._webhooks.set_url(customer_id, request.url)
        return pb.SetWebhookEndpointResponse(endpoint=messages.endpoint_message(endpoint))

    async def GetWebhookEndpoint(
        self, request: pb.GetWebhookEndpointRequest, context: Any
    ) -> pb.GetWebhookEndpointResponse:
        endpoint = await self._webhooks.endpoint(messages.customer_of(request.customer_id))
        return pb.GetWebhookEndpointResponse(endpoint=messages.endpoint_message(endpoint))

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Any
    ) -> pb.RotateWebhookSecretResponse:
        customer_id = messages.customer_of(request.customer_id)
        if not 0 <= request.overlap_ms <= _OVERLAP_LIMIT_MS:
            raise errors.invalid_request("overlap_ms", f"must be 0 to {_OVERLAP_LIMIT_MS}")
        means = self._telling.terms.means
        if means is None:
            raise errors.webhooks_off()
        now_ms = self._webhook_clock.now_ms()
        endpoint, secret = await self._webhooks.rotate(means.keys, customer_id, request.overlap_ms, now_ms)
        shown = messages.endpoint_message(endpoint)
        return pb.RotateWebhookSecretResponse(endpoint=shown, secret=secret.reveal())

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: Any
    ) -> pb.ListDeliveriesResponse:
        found = await self._webhooks.list_deliveries(messages.filter_of(request))
        return pb.ListDeliveriesResponse(deliveries=map(messages.delivery_message, found))

    async def ListDeliveryAttempts(
        self, request: pb.ListDeliveryAttemptsRequest, context: Any
    ) -> pb.ListDeliveryAttemptsResponse:
        found = await self._webhooks.list_attempts(request.delivery_id)
        if found is None:
            raise errors.delivery_not_found()
        return pb.ListDeliveryAttemptsResponse(attempts=map(messages.attempt_message, found))

    async def ResendDelivery(
        self, request: pb.ResendDeliveryRequest, context: Any
    ) -> pb.ResendDeliveryResponse:
        found = await self._webhooks.resend(request.delivery_id, self._webhook_clock.now_ms())
        if found is None:
            raise errors.delivery_not_found()
        self._telling.wake()
        return pb.ResendDeliveryResponse(delivery=messages.delivery_message(found))
