"""What the edge writes down: enough to find a request again, and nothing that is secret or grows without bound."""

from __future__ import annotations

import asyncio
import json

import pytest

from services.chassis import metrics
from services.chassis.errors import Kind, ServiceError
from tests.contracts.conftest import Opening, Storefront
from tests.contracts.leonardo import IMAGES, finish, made, refused
from tests.fakes import LIVE_KEY


async def test_the_access_log_names_requests_and_no_secret(
    opening: Opening, capfd: pytest.CaptureFixture[str]
) -> None:
    shop = await opening(access_log=True)
    body = {"prompt": "canary-prompt"}
    job = await made(shop, IMAGES, body)
    finish(shop, job)
    result = await shop.get(f"/v1/jobs/{job.job_id}/result?canary=query")
    await shop.fetched(result.body["url"])
    await shop.get("/canary-path")
    await asyncio.sleep(0.4)
    written = capfd.readouterr().err
    lines = [json.loads(line) for line in written.splitlines() if '"event":"request"' in line]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("generateImage", 202),
        ("getResult", 200),
        ("/media/{object_key}", 200),
        ("unknown", 404),
    ]
    assert (lines[1]["job_id"], lines[1]["customer_id"]) == (job.job_id, "cus_1")
    assert lines[1]["request_id"] == result.headers["X-Request-Id"]
    assert lines[3]["reason"] == "NO_SUCH_PATH"
    for secret in ("canary", LIVE_KEY, "signature"):
        assert secret not in written


async def test_metrics_count_by_route_and_never_by_what_strangers_send(shop: Storefront) -> None:
    await shop.get("/v1/usage")
    for number in range(5):
        await shop.request("GET", f"/canary-{number}")
        await shop.get(f"/v1/jobs/canary-{number}")
        await shop.request("REPORT", "/v1/usage")
    text = metrics.exposition().decode()
    assert (
        'atelier_gateway_requests_total{contract="leonardo",method="GET",route="getUsage",status="200"}'
        in text
    )
    assert 'method="other"' in text
    assert "atelier_gateway_requests_in_flight 0.0" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    "method,path,code",
    [("POST", IMAGES, "provider_unavailable"), ("GET", "/v1/usage", "job_status_unavailable")],
)
async def test_without_billing_nobody_is_let_in_and_nobody_is_told_their_key_is_bad(
    shop: Storefront, method: str, path: str, code: str
) -> None:
    shop.billing.refusal = ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "canary")
    answer = await shop.request(method, path, headers={"Authorization": f"Bearer {LIVE_KEY}"})
    refused(answer, 503, code)
    assert "Retry-After" in answer.headers
    assert b"canary" not in answer.raw
