"""The table of errors of `leonardo`, row by row, and the headers of every answer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from services.chassis.errors import Kind, ServiceError
from tests.contracts.conftest import Opening, Storefront
from tests.contracts.leonardo import IMAGE, IMAGES, UNKNOWN_ID, VIDEOS, made, refused
from tests.fakes import LIVE_KEY, TEST_KEY, serving_jobs

# ---- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/result"])
@pytest.mark.parametrize(
    "job_id",
    [
        UNKNOWN_ID,
        "job_",
        "1",
        "vid_01jz8b7q4x8k2p9w3m5c6n7r8s",
        "job_01JZ8B7Q4X8K2P9W3M5C6N7R8S",
        "%00",
        "..%2f",
    ],
)
async def test_what_is_no_job_is_404(shop: Storefront, job_id: str, suffix: str) -> None:
    refused(await shop.get(f"/v1/jobs/{job_id}{suffix}"), 404, "job_not_found")
    assert len(shop.jobs.asked) == (job_id == UNKNOWN_ID)


async def test_a_test_key_never_sees_a_live_job(shop: Storefront) -> None:
    job = await made(shop)
    answer = await shop.get(f"/v1/jobs/{job.job_id}", headers={"Authorization": f"Bearer {TEST_KEY}"})
    refused(answer, 404, "job_not_found")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {LIVE_KEY}",
        LIVE_KEY,
        "Bearer ak_live_unknown",
        "Bearer sk_other_" + "a" * 38,
        "Bearer " + "a" * 5000,
        f"Bearer {LIVE_KEY} {LIVE_KEY}",
    ],
)
async def test_what_is_no_key_is_401(shop: Storefront, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/v1/usage"), ("POST", IMAGES), ("GET", f"/v1/jobs/{UNKNOWN_ID}")):
        answer = await shop.request(method, path, headers=headers)
        refused(answer, 401, "invalid_api_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_key_of_another_storefront_is_unknown_here(shop: Storefront) -> None:
    shop.billing.storefront = "loova"
    refused(await shop.get("/v1/usage"), 401, "invalid_api_key")


async def test_an_inactive_customer_is_401(shop: Storefront) -> None:
    shop.billing.refusal = ServiceError(Kind.PERMISSION_DENIED, "CUSTOMER_INACTIVE", "suspended")
    refused(await shop.get("/v1/usage"), 401, "invalid_api_key")


async def test_too_few_credits_are_402_with_both_amounts(shop: Storefront) -> None:
    shop.jobs.refusal = ServiceError(
        Kind.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        "",
        {"required_millis": "20000", "available_millis": "10500"},
    )
    error = refused(await shop.post(IMAGES, IMAGE), 402, "insufficient_credits")
    assert (error["required"], error["available"]) == (20, 10.5)


@pytest.mark.parametrize(
    "reason,code", [("QUEUE_FULL", "queue_full"), ("CONCURRENCY_LIMITED", "concurrency_limited")]
)
async def test_job_limits_are_429_and_say_which(shop: Storefront, reason: str, code: str) -> None:
    metadata = {"limit": "4", "current": "4"}
    shop.jobs.refusal = ServiceError(Kind.RESOURCE_EXHAUSTED, reason, "", metadata)
    answer = await shop.post(IMAGES, IMAGE)
    refused(answer, 429, code)
    assert int(answer.headers["Retry-After"]) > 0
    assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("4", "0")
    assert answer.headers["RateLimit-Reset"] == answer.headers["Retry-After"]


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Kind.UNAVAILABLE, "PROVIDER_UNAVAILABLE", "acct_1 of leo is out"),
        ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "ipv4:127.0.0.1:9 refused"),
        ServiceError(Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "late"),
        ServiceError(Kind.RESOURCE_EXHAUSTED, "QUEUE_OF_WRITES_FULL", "full"),
    ],
)
async def test_a_create_that_cannot_be_taken_is_503_and_says_nothing_of_why(
    shop: Storefront, error: ServiceError
) -> None:
    shop.jobs.refusal = error
    answer = await shop.post(IMAGES, IMAGE)
    spelled = refused(answer, 503, "provider_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert error.message not in spelled["message"]


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Kind.UNAVAILABLE, "STATUS_UNAVAILABLE", ""),
        ServiceError(Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", ""),
    ],
)
@pytest.mark.parametrize("suffix", ["", "/result"])
async def test_a_status_that_cannot_be_known_is_503(
    shop: Storefront, error: ServiceError, suffix: str
) -> None:
    job = await made(shop)
    shop.jobs.refusal = error
    answer = await shop.get(f"/v1/jobs/{job.job_id}{suffix}")
    refused(answer, 503, "job_status_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret-canary"),
        ServiceError(Kind.INTERNAL, "INTERNAL", "secret-canary"),
        ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", "secret-canary", {"field": "secret-canary"}),
        ServiceError(Kind.NOT_FOUND, "UNKNOWN_SKU", "secret-canary"),
    ],
)
async def test_what_no_table_names_is_500_and_tells_nothing(shop: Storefront, error: Exception) -> None:
    shop.jobs.refusal = error
    answer = await shop.post(IMAGES, IMAGE)
    refused(answer, 500, "internal_error")
    assert b"canary" not in answer.raw
    assert "canary" not in str(answer.headers)


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs", "/v1/images", "/v1/images/generate/", "/v1/jobs/a/b/c", "/nothing", "/v2/usage", "/media"],
)
async def test_what_is_nowhere_is_404(shop: Storefront, path: str) -> None:
    refused(await shop.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "method,path,allowed",
    [
        ("GET", IMAGES, {"POST"}),
        ("DELETE", f"/v1/jobs/{UNKNOWN_ID}", {"GET", "HEAD"}),
        ("POST", "/v1/usage", {"GET", "HEAD"}),
        ("OPTIONS", VIDEOS, {"POST"}),
        ("PATCH", "/v1/usage", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405_with_the_right_ones(
    shop: Storefront, method: str, path: str, allowed: set[str]
) -> None:
    answer = await shop.request(method, path)
    refused(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed


# ---- limits, headers, order ---------------------------------------------------------------------------------


async def test_requests_beyond_the_rate_are_429_and_every_answer_counts_down(opening: Opening) -> None:
    shop = await opening()
    shop.billing.requests_per_minute = 3
    answers = [await shop.get("/v1/usage") for _ in range(3)]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["2", "1", "0"]
    answer = await shop.get("/v1/usage")
    refused(answer, 429, "rate_limited")
    assert answer.headers["RateLimit-Limit"] == "3"
    assert answer.headers["RateLimit-Remaining"] == "0"
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"]


async def test_errors_after_authentication_carry_the_rate_headers_too(shop: Storefront) -> None:
    shop.billing.requests_per_minute = 10
    answer = await shop.post(IMAGES, {})
    assert (answer.status, answer.headers["RateLimit-Limit"]) == (400, "10")


async def test_the_two_wallets_of_a_customer_are_counted_apart(shop: Storefront) -> None:
    shop.billing.requests_per_minute = 1
    assert (await shop.get("/v1/usage")).status == 200
    test = {"Authorization": f"Bearer {TEST_KEY}"}
    assert (await shop.get("/v1/usage", headers=test)).status == 200
    assert (await shop.get("/v1/usage", headers=test)).status == 429


async def test_checks_come_in_the_documented_order(shop: Storefront) -> None:
    shop.billing.requests_per_minute = 1
    huge = b"x" * (28 * 1024 * 1024 + 1)
    nobody = {"Authorization": "Bearer nobody"}
    assert (await shop.post(IMAGES, huge, headers=nobody)).status == 401
    assert (await shop.post(IMAGES, huge)).status == 413
    assert (await shop.post(IMAGES, huge)).status == 429
    test = f"Authorization: Bearer {TEST_KEY}\r\n".encode()
    assert (await shop.raw(IMAGES, test, b"{}", key=b"")).code == "invalid_request"


async def test_a_request_id_is_kept_or_made(shop: Storefront) -> None:
    kept = await shop.get("/v1/usage", headers={"X-Request-Id": "my id ~1"})
    assert kept.headers["X-Request-Id"] == "my id ~1"
    for odd in ("x" * 129, "sch\u00f6n"):
        made_up = await shop.get("/v1/usage", headers={"X-Request-Id": odd})
        assert re.fullmatch(r"req_[0-9a-z]{26}", made_up.headers["X-Request-Id"])


@pytest.mark.parametrize("path", ["/v1/usage", "/", "/docs", "/openapi.json"])
async def test_head_answers_what_get_answers_without_the_body(shop: Storefront, path: str) -> None:
    headers = {"Authorization": f"Bearer {LIVE_KEY}"}
    got = await shop.request("GET", path, headers=headers)
    head = await shop.request("HEAD", path, headers=headers)
    assert (head.status, head.raw) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]


async def test_no_answer_tells_which_software_made_it(shop: Storefront) -> None:
    for path in ("/v1/usage", "/nothing", "/docs", "/media/a.png"):
        assert (await shop.get(path)).headers["Server"] == "atelier"
    garbled = await shop.bytes_back(b"NOT HTTP AT ALL\r\n\r\n")
    assert b"aiohttp" not in garbled
    assert b'"code":"invalid_request"' in garbled


async def test_more_requests_than_may_be_in_flight_are_503(opening: Opening) -> None:
    shop = await opening(requests_in_flight=2)
    shop.jobs.answer_after_s = 0.2
    answers = await asyncio.gather(*(shop.post(IMAGES, IMAGE) for _ in range(5)))
    assert Counter(answer.status for answer in answers) == {202: 2, 503: 3}
    assert all("Retry-After" in answer.headers for answer in answers if answer.status == 503)


async def test_a_create_survives_a_restart_of_jobs(opening: Opening) -> None:
    shop = await opening(jobs_listens=False)
    waiting = asyncio.create_task(shop.post(IMAGES, IMAGE))
    await asyncio.sleep(0.3)
    async with serving_jobs(shop.jobs, shop.jobs_address):
        assert (await waiting).status == 202


async def test_other_origins_are_answered_only_where_the_operator_says_so(opening: Opening) -> None:
    closed = await opening()
    page = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    assert (await closed.request("OPTIONS", IMAGES, headers=page)).status == 405
    open_shop = await opening(cors_origins=("https://app.example.com",))
    asked = await open_shop.request("OPTIONS", IMAGES, headers=page)
    assert asked.status == 204
    assert "Idempotency-Key" in asked.headers["Access-Control-Allow-Headers"]
    answer = await open_shop.get("/v1/usage", headers={"Origin": "https://app.example.com"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    stranger = await open_shop.get("/v1/usage", headers={"Origin": "https://evil.example.com"})
    assert "Access-Control-Allow-Origin" not in stranger.headers


async def test_a_form_that_jobs_have_lost_is_made_known_to_them_again(shop: Storefront) -> None:
    assert (await shop.post(IMAGES, IMAGE)).status == 202
    shop.jobs.forms.clear()
    shop.jobs.refusal = ServiceError(Kind.FAILED_PRECONDITION, "UNKNOWN_WEBHOOK_FORM", "not known")
    assert (await shop.post(IMAGES, IMAGE)).status == 503
    shop.jobs.refusal = None
    assert (await shop.post(IMAGES, IMAGE)).status == 202
    assert "leonardo" in shop.jobs.forms
