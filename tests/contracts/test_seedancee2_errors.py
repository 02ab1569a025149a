"""The table of errors of `seedancee2`, row by row; keys in either header; whose paths are whose."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest

from services.chassis.errors import Kind, ServiceError
from tests.contracts.conftest import Storefront
from tests.contracts.seedancee2 import PRO, UNKNOWN_ID, VIDEOS, Client, made, refused
from tests.fakes import LIVE_KEY, key_of

KEY = key_of("seedancee2")
INVALID_KEY = (401, "invalid_api_key", "authentication_error")
NOT_FOUND = (404, "task_not_found", "invalid_request_error")
PATHS = [("GET", "/v1/models"), ("POST", VIDEOS), ("GET", VIDEOS), ("GET", f"{VIDEOS}/{UNKNOWN_ID}")]


def refusing(kind: Kind, reason: str, **metadata: str) -> ServiceError:
    return ServiceError(kind, reason, "words of another service", metadata)


# ---- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"x-api-key": KEY},
        {"X-Api-Key": KEY},
        {"Authorization": f"Bearer {KEY}", "x-api-key": "nobody"},
    ],
)
async def test_a_key_comes_in_either_header_and_authorization_wins(
    shop: Storefront, headers: dict[str, str]
) -> None:
    assert (await shop.request("GET", "/v1/models", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nobody", "x-api-key": KEY},
        {"Authorization": "", "x-api-key": KEY},
        {"Authorization": KEY},
        {"Authorization": f"Bearer {KEY[:-1]}x"},
        {"x-api-key": "nobody"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {KEY}"},
        {"x-api-key": LIVE_KEY},
        {"Authorization": f"Bearer {LIVE_KEY}"},
    ],
)
async def test_what_is_no_key_is_401(shop: Storefront, headers: dict[str, str]) -> None:
    for method, path in PATHS:
        answer = await shop.request(method, path, headers=headers)
        refused(answer, *INVALID_KEY)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("reason", ["CUSTOMER_INACTIVE", "INVALID_API_KEY"])
async def test_a_key_that_no_longer_works_is_401(shop: Storefront, reason: str) -> None:
    shop.billing.refusal = refusing(Kind.PERMISSION_DENIED, reason)
    refused(await Client(shop).get("/v1/models"), *INVALID_KEY)


async def test_the_key_decides_whose_usage_it_is(shop: Storefront) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert "data" in (await shop.request("GET", "/v1/usage", headers=headers)).body
    leonardo = await shop.request("GET", "/v1/usage", headers={"Authorization": f"Bearer {LIVE_KEY}"})
    assert "creditsBalance" in leonardo.body


async def test_an_unknown_keys_prefix_decides_whose_usage_it_is(shop: Storefront) -> None:
    nobody = {"Authorization": f"Bearer {KEY[:-3]}xyz"}
    refused(await shop.request("GET", "/v1/usage", headers=nobody), *INVALID_KEY)
    assert (await shop.request("GET", "/v1/usage")).body["ok"] is False


# ---- creating -----------------------------------------------------------------------------------------------


async def test_too_few_credits_are_402_in_the_documented_words(shop: Storefront) -> None:
    shop.jobs.refusal = refusing(Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", required_millis="100000")
    answer = await Client(shop).create(PRO)
    assert (answer.status, answer.body) == (
        402,
        {
            "error": {
                "code": "insufficient_credits",
                "message": "Your credit balance is too low. Please top up.",
                "type": "billing_error",
            }
        },
    )


@pytest.mark.parametrize(
    "error,status,code,type_,param",
    [
        (
            refusing(Kind.RESOURCE_EXHAUSTED, "SPEND_LIMIT_REACHED"),
            402,
            "insufficient_credits",
            "billing_error",
            None,
        ),
        (
            refusing(Kind.INVALID_ARGUMENT, "WEBHOOK_ADDRESS_REFUSED", field="url"),
            400,
            "invalid_request",
            "invalid_request_error",
            "callback_url",
        ),
        (
            refusing(Kind.PERMISSION_DENIED, "MODEL_NOT_ALLOWED"),
            404,
            "model_not_found",
            "invalid_request_error",
            "model",
        ),
        (
            refusing(Kind.ALREADY_EXISTS, "IDEMPOTENCY_KEY_CONFLICT"),
            409,
            "idempotency_key_conflict",
            "invalid_request_error",
            None,
        ),
        (
            refusing(Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL", limit="16"),
            429,
            "rate_limited",
            "rate_limit_error",
            None,
        ),
        (
            refusing(Kind.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMITED", limit="4"),
            429,
            "rate_limited",
            "rate_limit_error",
            None,
        ),
        (
            refusing(Kind.UNAVAILABLE, "PROVIDER_UNAVAILABLE"),
            503,
            "service_unavailable",
            "api_error",
            None,
        ),
        (refusing(Kind.DEADLINE_EXCEEDED, "LATE"), 503, "service_unavailable", "api_error", None),
        (refusing(Kind.INVALID_ARGUMENT, "INVALID_REQUEST"), 500, "internal_error", "api_error", None),
        (refusing(Kind.NOT_FOUND, "UNKNOWN_SKU"), 500, "internal_error", "api_error", None),
    ],
)
async def test_every_refusal_has_its_row(
    shop: Storefront, error: ServiceError, status: int, code: str, type_: str, param: str | None
) -> None:
    shop.jobs.refusal = error
    answer = await Client(shop).create(PRO)
    message = refused(answer, status, code, type_, param)
    assert "another service" not in message
    if status in {429, 503}:
        assert int(answer.headers["Retry-After"]) > 0
    if status == 429:
        assert answer.headers["RateLimit-Limit"] == error.metadata["limit"]
        assert (answer.headers["RateLimit-Remaining"], answer.headers["RateLimit-Reset"]) == (
            "0",
            answer.headers["Retry-After"],
        )


async def test_a_bug_is_500_and_tells_nothing(shop: Storefront) -> None:
    shop.jobs.refusal = RuntimeError("secret-canary")
    answer = await Client(shop).create(PRO)
    refused(answer, 500, "internal_error", "api_error")
    assert b"canary" not in answer.raw


async def test_a_body_that_is_too_large_is_413(shop: Storefront) -> None:
    answer = await Client(shop).create(b"x" * (28 * 1024 * 1024 + 1))
    refused(answer, 413, "payload_too_large", "invalid_request_error")


async def test_too_many_requests_are_429(shop: Storefront) -> None:
    shop.billing.requests_per_minute = 1
    assert (await Client(shop).get("/v1/models")).status == 200
    answer = await Client(shop).get("/v1/models")
    refused(answer, 429, "rate_limited", "rate_limit_error")
    assert 0 < int(answer.headers["Retry-After"]) <= 60


# ---- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "video_id", [UNKNOWN_ID, "vid_", "job_01jz8b7q4x8k2p9w3m5c6n7r8s", UNKNOWN_ID.upper(), "%00", "..%2f"]
)
async def test_what_is_no_video_is_404(shop: Storefront, video_id: str) -> None:
    answer = await shop.get(f"{VIDEOS}/{video_id}", headers={"Authorization": f"Bearer {KEY}"})
    refused(answer, *NOT_FOUND)
    assert len(shop.jobs.asked) == (video_id == UNKNOWN_ID)


async def test_somebody_elses_video_and_one_of_the_other_mode_never_existed(shop: Storefront) -> None:
    job = await made(shop)
    absent = (await Client(shop).get(f"{VIDEOS}/{UNKNOWN_ID}")).body
    for key in (key_of("seedancee2", test=True), key_of("seedancee2", other=True)):
        answer = await Client(shop, key).get(f"{VIDEOS}/{job.job_id}")
        assert (answer.status, answer.body) == (404, absent)


@pytest.mark.parametrize("path", [f"{VIDEOS}/{UNKNOWN_ID}", VIDEOS, "/v1/usage"])
async def test_what_cannot_be_known_now_is_503(shop: Storefront, path: str) -> None:
    shop.jobs.refusal = refusing(Kind.UNAVAILABLE, "STATUS_UNAVAILABLE")
    answer = await Client(shop).get(path)
    refused(answer, 503, "service_unavailable", "api_error")
    assert int(answer.headers["Retry-After"]) > 0


# ---- whose path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"{VIDEOS}/", f"{VIDEOS}/a/b", "/v1/models/pro"])
async def test_what_is_nowhere_under_its_paths_is_404_in_its_shape(shop: Storefront, path: str) -> None:
    refused(await Client(shop).get(path), 404, "not_found", "invalid_request_error")


@pytest.mark.parametrize(
    "method,path,allowed",
    [
        ("DELETE", VIDEOS, {"GET", "HEAD", "POST"}),
        ("POST", f"{VIDEOS}/{UNKNOWN_ID}", {"GET", "HEAD"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405_in_its_shape(
    shop: Storefront, method: str, path: str, allowed: set[str]
) -> None:
    answer = await shop.request(method, path)
    refused(answer, 405, "method_not_allowed", "invalid_request_error")
    assert set(answer.headers["Allow"].split(", ")) == allowed


async def test_its_neighbours_path_is_not_its_own(shop: Storefront) -> None:
    answer = await shop.request("POST", "/v1/videos/generate", data=b"{}")
    assert answer.body["ok"] is False


AUTHORIZED = f"Authorization: Bearer {KEY}\r\n".encode()


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + b"X: 1\r\n" * 500 + b"\r\n",
        b"GET /v1/videos/generations?cursor=" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/v1/models HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"MEND /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/videos/generations/\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/videos/generations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"GET /v1/usage HTTP/1.1\r\nHost: a\r\n" + AUTHORIZED + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_what_cannot_be_read_is_400_in_the_shape_of_its_path(shop: Storefront, start: bytes) -> None:
    head, _, body = (await shop.bytes_back(start)).partition(b"\r\n\r\n")
    assert b" 400 " in head.partition(b"\r\n")[0]
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_what_cannot_be_read_keeps_its_request_id(shop: Storefront) -> None:
    request = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nContent-Length: x\r\n\r\n"
    assert b"X-Request-Id: mine\r\n" in await shop.bytes_back(request)
    expecting = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nExpect: teapot\r\n\r\n"
    assert b"X-Request-Id: mine\r\n" in await shop.bytes_back(expecting)


async def test_what_cannot_be_read_on_a_kept_connection_is_400_in_the_shape_of_its_own_path(
    shop: Storefront,
) -> None:
    address = urlsplit(shop.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
    first = await reader.readuntil(b"}}")
    writer.write(b"GET /v1/jobs/job_1 HTTP/1.1\r\nHost: a\r\nX: ")
    for _ in range(2):
        await asyncio.sleep(0.01)
        writer.write(b"a" * 5_000)
    second = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    assert b'"type":"authentication_error"' in first
    assert b'{"ok":false,"error":{"code":"invalid_request"' in second
