from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from services.chassis.errors import ServiceError
from services.gen.jobs.v1 import jobs_pb2 as pb
from tests.jobs_house import sqlite_url
from tests.webhook_receiver import FORM, PUBLIC_URL, Receiver, failing, fine, flooding, redirecting, telling

SIGNATURE = "x-seedancee2-signature"


async def test_the_end_of_a_job_is_told_signed_and_logged(engine_url: str) -> None:
    async with Receiver() as receiver, telling(engine_url, receiver) as here:
        secret = await here.secret()
        job_id = await here.create("k1", receiver.url("/hook?token=canary"))
        (received,) = await receiver.until(1)
        assert received.path == "/hook?token=canary"
        assert received.headers["content-type"] == "application/json"
        Webhook(secret).verify(received.body.decode(), dict(received.headers))
        assert received.json["id"] == job_id
        assert received.json["status"] == "completed"
        assert received.json["url"].startswith(f"{PUBLIC_URL}/media/")
        assert received.headers["x-seedancee2-event"] == "video.generation.completed"
        assert received.headers[SIGNATURE].startswith(f"t={received.headers['webhook-timestamp']},v1=")
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DELIVERED)
        assert delivery.delivery_id == received.headers["webhook-id"]
        assert delivery.address == f"127.0.0.1:{receiver.port}/hook"
        (attempt,) = await here.attempts(delivery.delivery_id)
        assert (attempt.number, attempt.status, attempt.error) == (1, 204, "")


async def test_links_begin_with_the_storefronts_own_address_where_it_has_one(engine_url: str) -> None:
    own = "https://pictures.example.com"
    async with Receiver() as receiver, telling(engine_url, receiver) as here:
        form = pb.WebhookForm(public_url=own)
        form.MergeFrom(FORM)
        put = await here.house.stub.PutWebhookForm(pb.PutWebhookFormRequest(form=form))
        await replace(here, form_id=put.webhook_form_id).create("k1", receiver.url())
        (received,) = await receiver.until(1)
        assert received.json["url"].startswith(f"{own}/media/")


async def test_what_fails_is_sent_again_the_same_but_for_its_time_and_then_given_up(tmp_path: Path) -> None:
    async with Receiver(failing) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DEAD)
        assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
        assert len({one.body for one in receiver.received}) == 1
        # As often as there are waits, and once before them.
        assert len(receiver.received) == delivery.attempts == 4
        attempts = await here.attempts(delivery.delivery_id)
        assert [(one.number, one.status, one.error) for one in attempts] == [
            (number, 500, "status") for number in range(1, 5)
        ]


async def test_a_dead_delivery_is_sent_again_under_its_own_id_when_an_operator_wants_it(
    tmp_path: Path,
) -> None:
    async with Receiver(failing) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DEAD)
        receiver.answers = fine
        again = pb.ResendDeliveryRequest(delivery_id=delivery.delivery_id)
        assert (await here.house.stub.ResendDelivery(again)).delivery.state == pb.DELIVERY_STATE_WAITING
        (delivered,) = await here.until_state(pb.DELIVERY_STATE_DELIVERED)
        assert delivered.delivery_id == delivery.delivery_id
        assert receiver.received[-1].headers["webhook-id"] == delivery.delivery_id


async def test_a_receiver_that_is_gone_is_not_asked_again(tmp_path: Path) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        return web.Response(status=410)

    async with Receiver(gone) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DEAD)
        assert (delivery.attempts, delivery.last_status) == (1, 410)


async def test_a_receiver_that_asks_for_time_is_left_alone_so_long(tmp_path: Path) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        receiver.answers = fine
        return web.Response(status=503, headers={"Retry-After": "1"})

    async with Receiver(busy) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        first, second = await receiver.until(2)
        assert second.at_s - first.at_s >= 0.95


async def test_a_redirect_is_a_failure_and_leads_nowhere(tmp_path: Path) -> None:
    async with Receiver(redirecting) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DEAD)
        assert (delivery.last_status, delivery.last_error) == (302, "redirect")
        assert {one.path for one in receiver.received} == {"/hook"}


async def test_a_gigabyte_of_thanks_is_not_listened_to(tmp_path: Path) -> None:
    async with Receiver(flooding) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        await here.create("k1", receiver.url())
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DELIVERED)
        (attempt,) = await here.attempts(delivery.delivery_id)
        assert attempt.duration_ms < 2_000


async def test_a_receiver_that_is_not_there_is_a_failure_with_a_word(tmp_path: Path) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        url = receiver.url()
        await receiver._runner.cleanup()
        await here.create("k1", url)
        (delivery,) = await here.until_state(pb.DELIVERY_STATE_DEAD)
        assert (delivery.last_status, delivery.last_error) == (0, "connect")


async def test_the_job_s_address_and_the_customer_s_are_both_told_under_ids_of_their_own(
    tmp_path: Path,
) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        url = receiver.url("/account")
        await here.house.stub.SetWebhookEndpoint(pb.SetWebhookEndpointRequest(customer_id="cus_a", url=url))
        await here.create("k1", receiver.url("/job"))
        received = await receiver.until(2)
        assert {one.path for one in received} == {"/account", "/job"}
        assert len({one.headers["webhook-id"] for one in received}) == 2
        await here.create("k2")
        assert (await receiver.until(3))[-1].path == "/account"


async def test_while_a_secret_is_replaced_both_sign(tmp_path: Path) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        old = await here.secret()
        new = await here.secret(overlap_ms=60_000)
        await here.create("k1", receiver.url())
        (received,) = await receiver.until(1)
        for secret in (old, new):
            Webhook(secret).verify(received.body.decode(), dict(received.headers))
        assert received.headers[SIGNATURE].count("v1=") == 2


async def test_a_job_that_failed_is_told_too(tmp_path: Path) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        here.house.pool.unready = None
        request = pb.CancelJobRequest(job_id=await _waiting(here, receiver))
        await here.house.stub.CancelJob(request)
        (received,) = await receiver.until(1)
        assert received.json == {"id": request.job_id, "status": "failed", "error": "It failed."}
        assert received.headers["x-seedancee2-event"] == "video.generation.failed"


async def _waiting(here: Any, receiver: Receiver) -> str:
    here.house.pool.slots = 0
    job_id: str = await here.create("k1", receiver.url())
    return job_id


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "https://10.0.0.1/", "https://localhost/", "https://a.b/\r\nX: 1", "nonsense"],
)
async def test_an_address_that_is_never_sent_to_is_refused_when_it_is_named(tmp_path: Path, url: str) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        with pytest.raises(ServiceError) as refused:
            await here.create("k1", url)
        assert refused.value.reason == "WEBHOOK_ADDRESS_REFUSED"
        assert refused.value.metadata["field"] == "callback_url"
        with pytest.raises(ServiceError, match="WEBHOOK_ADDRESS_REFUSED"):
            await here.house.stub.SetWebhookEndpoint(
                pb.SetWebhookEndpointRequest(customer_id="cus_a", url=url)
            )
        assert not here.house.billing.holds


async def test_a_form_that_nobody_knows_is_refused_when_it_is_named(tmp_path: Path) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        here.form_id = "whf_none"
        with pytest.raises(ServiceError, match="UNKNOWN_WEBHOOK_FORM"):
            await here.create("k1", receiver.url())


@pytest.mark.parametrize(
    "change",
    [
        {"completed": "[]"},
        {"failed": json.dumps({"a": {"$": "nothing"}})},
        {"storefront": ""},
        {"legacy_signature": pb.LegacySignature(event_header="Content-Length")},
        {
            "legacy_signature": pb.LegacySignature(
                event_header="X-A", signature_header="X-B", completed_event="a\r\nb", failed_event="c"
            )
        },
        {"failure_messages": {0: "x" * 1001}},
        {"public_url": "ftp://media.example.com"},
        {"public_url": f"https://media.example.com/{'x' * 300}"},
    ],
    ids=lambda change: str(next(iter(change))),
)
async def test_a_form_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {"storefront": "s", "completed": "{}", "failed": "{}"} | change
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        with pytest.raises(ServiceError) as refused:
            await here.house.stub.PutWebhookForm(pb.PutWebhookFormRequest(form=pb.WebhookForm(**fields)))
        assert refused.value.metadata["field"] == f"form.{next(iter(change))}"


async def test_what_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        for call in (
            here.house.stub.ResendDelivery(pb.ResendDeliveryRequest(delivery_id="whd_none")),
            here.house.stub.ListDeliveryAttempts(pb.ListDeliveryAttemptsRequest(delivery_id="whd_none")),
        ):
            with pytest.raises(ServiceError, match="DELIVERY_NOT_FOUND"):
                await call
        asked = pb.GetWebhookEndpointRequest(customer_id="cus_a")
        assert (await here.house.stub.GetWebhookEndpoint(asked)).endpoint.url == ""


async def test_a_service_that_stops_leaves_what_it_was_sending_to_the_next(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def holding(request: web.Request) -> web.StreamResponse:
        await held.wait()
        return web.Response(status=200)

    async with Receiver(holding) as receiver:
        async with telling(sqlite_url(tmp_path), receiver, timeout_s=30.0) as here:
            await here.create("k1", receiver.url())
            (first,) = await receiver.until(1)
        receiver.answers = fine
        held.set()
        async with telling(sqlite_url(tmp_path), receiver) as there:
            await there.until_state(pb.DELIVERY_STATE_DELIVERED)
        assert [one.headers["webhook-id"] for one in receiver.received] == [first.headers["webhook-id"]] * 2
