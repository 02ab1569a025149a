"""Reading tasks on `seedance2pro`, and its table of errors."""

from __future__ import annotations

import json

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.seedance2pro import (
    CREATE,
    RECORD,
    TASK,
    UNKNOWN_ID,
    Client,
    fail,
    finish,
    made,
    refused,
)
from tests.contracts.webhook_bodies import told_of
from tests.fakes import LIVE_KEY, NOW_MS, key_of

KEY = key_of("seedance2pro")


def refusing(kind: Kind, reason: str, **metadata: str) -> ServiceError:
    return ServiceError(kind, reason, "words of another service", metadata)


# ---- records ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage,state",
    [
        (jobs.STAGE_WAITING, "waiting"),
        (jobs.STAGE_ACCOUNT_CHOSEN, "waiting"),
        (jobs.STAGE_AT_PROVIDER, "generating"),
        (jobs.STAGE_ENDED_WELL, "success"),
        (jobs.STAGE_ENDED_BADLY, "fail"),
    ],
)
async def test_every_stage_has_its_word_twice(
    shop: Storefront, stage: jobs.Stage.ValueType, state: str
) -> None:
    job = await made(shop)
    job.stage = stage
    body = (await Client(shop).record(job.job_id)).body
    assert (body["status"], body["state"]) == (state, state)


async def test_a_waiting_task_shows_what_was_reserved(shop: Storefront) -> None:
    job = await made(shop)
    answer = await Client(shop).record(job.job_id)
    assert (answer.status, answer.body) == (
        200,
        {
            "taskId": job.job_id,
            "model": "seedance20-video-generation",
            "status": "waiting",
            "state": "waiting",
            "creditsUsed": 200,
            "output": None,
            "error": None,
            "createTime": NOW_MS,
            "completeTime": None,
        },
    )
    assert shop.jobs.asked[0].sync


async def test_a_successful_task_reads_as_documented_and_its_link_works(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    body = (await Client(shop).record(job.job_id)).body
    url = body["output"][0].pop("url")
    assert body == {
        "taskId": job.job_id,
        "model": "seedance20-video-generation",
        "status": "success",
        "state": "success",
        "creditsUsed": 200,
        "output": [{"width": 1280, "height": 720}],
        "error": None,
        "createTime": NOW_MS,
        "completeTime": NOW_MS + 120_000,
    }
    assert await shop.fetched(url) == b"video"


async def test_a_video_that_is_no_longer_kept_is_left_out(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    job.media_expires_at_ms = 1
    body = (await Client(shop).record(job.job_id)).body
    assert (body["status"], body["output"]) == ("success", [])


@pytest.mark.parametrize("reason", jobs.FailureReason.values())
async def test_a_failed_task_reads_as_documented(
    shop: Storefront, reason: jobs.FailureReason.ValueType
) -> None:
    job = await made(shop)
    fail(job, reason)
    answer = await Client(shop).record(job.job_id)
    error = answer.body["error"]
    assert (answer.status, answer.body) == (
        200,
        {
            "taskId": job.job_id,
            "model": "seedance20-video-generation",
            "status": "fail",
            "state": "fail",
            "creditsUsed": 0,
            "output": None,
            "error": error,
            "createTime": NOW_MS,
            "completeTime": NOW_MS + 120_000,
        },
    )
    message, _, detail = error.partition(": ")
    assert message == "Task execution failed"
    code, _, why = detail.partition(": ")
    about_a_reference = "REFERENCE" in jobs.FailureReason.Name(reason)
    assert code in ({"invalid_reference_image", "reference_unavailable"} if about_a_reference else {""})
    # What is a good file, but not one for this model, has words of its own.
    assert bool(why) == (reason == jobs.FAILURE_REASON_REFERENCE_UNSUITABLE)


async def test_another_customers_task_is_denied(shop: Storefront) -> None:
    job = await made(shop)
    answer = await Client(shop, key_of("seedance2pro", other=True)).record(job.job_id)
    refused(answer, 403, "Access denied")


async def test_a_task_of_the_other_mode_does_not_exist(shop: Storefront) -> None:
    job = await made(shop)
    answer = await Client(shop, key_of("seedance2pro", test=True)).record(job.job_id)
    refused(answer, 404, "Task not found")


@pytest.mark.parametrize(
    "task_id", [UNKNOWN_ID, "1", "job_01jz8b7q4x8k2p9w3m5c6n7r8s", "task_", "\u00fc" * 300]
)
async def test_what_is_no_task_is_404(shop: Storefront, task_id: str) -> None:
    refused(await Client(shop).record(task_id), 404, "Task not found")
    assert len(shop.jobs.asked) == (task_id == UNKNOWN_ID)


@pytest.mark.parametrize("query", ["", "?taskId=", "?taskid=1", f"?id={UNKNOWN_ID}"])
async def test_no_task_id_is_400(shop: Storefront, query: str) -> None:
    answer = await shop.request("GET", RECORD + query, headers={"Authorization": f"Bearer {KEY}"})
    assert (answer.status, answer.body) == (400, {"message": "Missing taskId parameter"})


# ---- webhooks -----------------------------------------------------------------------------------------------


async def test_a_webhook_tells_of_a_successful_task_what_polling_does(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    polled = (await Client(shop).record(job.job_id)).body
    polled["output"][0]["url"] = "https://link"
    told = told_of(shop.jobs.forms["seedance2pro"], job, shop.jobs.created[0], link="https://link")
    assert json.loads(told) == polled


@pytest.mark.parametrize("reason", jobs.FailureReason.values())
async def test_a_webhook_tells_of_a_failed_task_what_polling_does(
    shop: Storefront, reason: jobs.FailureReason.ValueType
) -> None:
    job = await made(shop)
    fail(job, reason)
    told = told_of(shop.jobs.forms["seedance2pro"], job, shop.jobs.created[0], link="")
    assert json.loads(told) == (await Client(shop).record(job.job_id)).body


# ---- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method,path", [("POST", CREATE), ("GET", f"{RECORD}?taskId={UNKNOWN_ID}")])
async def test_no_key_and_a_wrong_key_are_told_apart(shop: Storefront, method: str, path: str) -> None:
    refused(await shop.request(method, path), 401, "Missing Authorization header")
    for value in ("Bearer nobody", "Basic x", f"Bearer {LIVE_KEY}", f"Bearer {KEY[:-1]}x", KEY):
        answer = await shop.request(method, path, headers={"Authorization": value})
        refused(answer, 401, "Invalid API Key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_an_account_that_is_not_active_is_403(shop: Storefront) -> None:
    shop.billing.refusal = refusing(Kind.PERMISSION_DENIED, "CUSTOMER_INACTIVE")
    refused(await Client(shop).create(TASK), 403, "API access not enabled for this account")


async def test_too_few_credits_are_402_with_both_amounts(shop: Storefront) -> None:
    metadata = {"required_millis": "200000", "available_millis": "10000"}
    shop.jobs.refusal = refusing(Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", **metadata)
    answer = await Client(shop).create(TASK)
    assert (answer.status, answer.body) == (
        402,
        {"message": "Insufficient credits", "required": 200, "available": 10},
    )


@pytest.mark.parametrize("reason", ["CONCURRENCY_LIMITED", "QUEUE_FULL"])
async def test_the_concurrency_limit_is_429_with_its_numbers(shop: Storefront, reason: str) -> None:
    shop.jobs.refusal = refusing(Kind.RESOURCE_EXHAUSTED, reason, limit="3", current="3")
    answer = await Client(shop).create(TASK)
    assert (answer.status, answer.body) == (
        429,
        {
            "message": "Concurrency limit reached (3). You have 3 tasks in progress.",
            "limit": 3,
            "current": 3,
        },
    )
    assert int(answer.headers["Retry-After"]) > 0
    assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("3", "0")


async def test_too_many_requests_are_429(shop: Storefront) -> None:
    shop.billing.requests_per_minute = 1
    await Client(shop).record(UNKNOWN_ID)
    answer = await Client(shop).record(UNKNOWN_ID)
    refused(answer, 429, "Rate limit exceeded")
    assert 0 < int(answer.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    "error,status,message",
    [
        (refusing(Kind.UNAVAILABLE, "PROVIDER_UNAVAILABLE"), 503, "Model temporarily unavailable"),
        (refusing(Kind.DEADLINE_EXCEEDED, "LATE"), 503, "Model temporarily unavailable"),
        (refusing(Kind.RESOURCE_EXHAUSTED, "SPEND_LIMIT_REACHED"), 402, "Insufficient credits"),
        (
            refusing(Kind.INVALID_ARGUMENT, "WEBHOOK_ADDRESS_REFUSED"),
            400,
            "Invalid request parameters: callBackUrl must be a public HTTPS address.",
        ),
        (refusing(Kind.PERMISSION_DENIED, "MODEL_NOT_ALLOWED"), 403, "Access denied"),
        (refusing(Kind.INVALID_ARGUMENT, "INVALID_REQUEST"), 500, "Internal server error"),
        (RuntimeError("words of another service"), 500, "Internal server error"),
    ],
)
async def test_every_refusal_has_its_row(
    shop: Storefront, error: Exception, status: int, message: str
) -> None:
    shop.jobs.refusal = error
    answer = await Client(shop).create(TASK)
    refused(answer, status, message)
    assert b"another service" not in answer.raw
    assert ("Retry-After" in answer.headers) == (status == 503)


async def test_a_record_that_cannot_be_known_now_is_503(shop: Storefront) -> None:
    job = await made(shop)
    shop.jobs.refusal = refusing(Kind.UNAVAILABLE, "STATUS_UNAVAILABLE")
    refused(await Client(shop).record(job.job_id), 503, "Model temporarily unavailable")


async def test_a_body_that_is_too_large_is_413(shop: Storefront) -> None:
    refused(await Client(shop).create(b"x" * (28 * 1024 * 1024 + 1)), 413, "Payload too large")


@pytest.mark.parametrize("path", ["/api/v1/jobs", f"{RECORD}/{UNKNOWN_ID}", "/api/v1/jobs/other"])
async def test_what_is_nowhere_under_its_paths_is_404_in_its_shape(shop: Storefront, path: str) -> None:
    refused(await shop.get(path), 404, "Not found")


@pytest.mark.parametrize(
    "method,path,allowed", [("GET", CREATE, {"POST"}), ("POST", RECORD, {"GET", "HEAD"})]
)
async def test_a_wrong_method_is_405_in_its_shape(
    shop: Storefront, method: str, path: str, allowed: set[str]
) -> None:
    answer = await shop.request(method, path)
    refused(answer, 405, "Method not allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed
