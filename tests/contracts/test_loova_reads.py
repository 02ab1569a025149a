"""Reading tasks and credits on `loova`, its errors, its envelope, its paths, and its webhooks."""

from __future__ import annotations

import json

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gateway.contracts.loova.outward import WEBHOOK_FORM
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Opening, Storefront
from tests.contracts.loova import UNKNOWN_ID, VIDEO, VIDEOS, Client, envelope, finish, refused
from tests.contracts.webhook_bodies import told_of
from tests.fakes import key_of


@pytest.fixture
def client(shop: Storefront) -> Client:
    return Client(shop)


@pytest.mark.parametrize(
    "stage,status",
    [
        (jobs.STAGE_WAITING, "running"),
        (jobs.STAGE_ACCOUNT_CHOSEN, "running"),
        (jobs.STAGE_AT_PROVIDER, "running"),
        (jobs.STAGE_ENDED_WELL, "succeeded"),
        (jobs.STAGE_ENDED_BADLY, "failed"),
    ],
)
async def test_every_stage_has_its_word(
    shop: Storefront, client: Client, stage: jobs.Stage.ValueType, status: str
) -> None:
    job = await client.made()
    job.stage = stage
    data = (await client.task(job.job_id)).body["data"]
    assert data["status"] == status
    assert (data["result"] or {"status": "running"})["status"] == status


async def test_a_running_task_has_no_result(shop: Storefront, client: Client) -> None:
    job = await client.made()
    job.updated_at_ms += 5_000
    assert (await client.task(job.job_id)).body["data"] == {
        "task_id": job.job_id,
        "status": "running",
        "model": "seedance_2_0",
        "created_at": "2026-06-29T10:00:00Z",
        "updated_at": "2026-06-29T10:00:05Z",
        "credits_cost": 12.0,
        "result": None,
    }
    assert shop.jobs.asked[0].sync


async def test_a_succeeded_task_reads_as_documented_and_its_link_works(
    shop: Storefront, client: Client
) -> None:
    job = await client.made()
    finish(shop, job)
    answer = await client.task(job.job_id)
    data = answer.body["data"]
    url = data["result"].pop("video_url")
    assert data == {
        "task_id": job.job_id,
        "status": "succeeded",
        "model": "seedance_2_0",
        "created_at": "2026-06-29T10:00:00Z",
        "updated_at": "2026-06-29T10:02:00Z",
        "credits_cost": 12.0,
        "result": {"status": "succeeded", "error_message": None, "finished_at": "2026-06-29T10:02:00Z"},
    }
    assert b'"credits_cost":12.0' in answer.raw
    assert await shop.fetched(url) == b"film"


async def test_a_task_outlives_its_video(shop: Storefront, client: Client) -> None:
    job = await client.made()
    finish(shop, job)
    job.media_expires_at_ms = 1
    result = (await client.task(job.job_id)).body["data"]["result"]
    assert (result["status"], result["video_url"]) == ("succeeded", None)


async def test_every_failure_costs_nothing_and_has_a_sentence_of_its_own(client: Client) -> None:
    job = await client.made()
    job.stage, job.ended_at_ms = jobs.STAGE_ENDED_BADLY, job.created_at_ms + 1_000
    told = set()
    for reason in jobs.FailureReason.values():
        job.failure = reason
        answer = await client.task(job.job_id)
        data = answer.body["data"]
        told.add(data["result"].pop("error_message"))
        assert b'"credits_cost":0.0' in answer.raw
        assert (data["status"], data["credits_cost"]) == ("failed", 0.0)
        assert data["result"] == {
            "status": "failed",
            "video_url": None,
            "finished_at": "2026-06-29T10:00:01Z",
        }
    # An unnamed reason reads as the plain failure.
    assert len(told) == len(jobs.FailureReason.values()) - 1
    assert all(sentence.endswith(".") for sentence in told)


@pytest.mark.parametrize(
    "task_id", [UNKNOWN_ID, "task_", "1", "job_01jz8b7q4x8k2p9w3m5c6n7r8s", "", "\x00", "x" * 3000]
)
async def test_what_is_no_task_is_404(shop: Storefront, client: Client, task_id: str) -> None:
    refused(await client.task(task_id), 404, "Task not found")
    assert len(shop.jobs.asked) == (task_id == UNKNOWN_ID)


async def test_a_task_must_be_named_once(client: Client) -> None:
    assert "task_id" in refused(await client.call("GET", "/api/v1/tasks"), 400)
    twice = f"/api/v1/tasks?task_id={UNKNOWN_ID}&task_id={UNKNOWN_ID}"
    assert "task_id" in refused(await client.call("GET", twice), 400)


async def test_a_task_of_another_customer_or_mode_is_404(shop: Storefront, client: Client) -> None:
    job = await client.made()
    for stranger in (key_of("loova", other=True), key_of("loova", test=True)):
        refused(await Client(shop, stranger).task(job.job_id), 404, "Task not found")


@pytest.mark.parametrize(
    "held,spoken",
    [
        ((50_000_000, 2_005_000, 51_000_000), b'{"api_available_credits":47995,"api_total_credits":51000}'),
        ((12_500, 2_400, 12_500), b'{"api_available_credits":10.1,"api_total_credits":12.5}'),
        ((0, 0, 0), b'{"api_available_credits":0,"api_total_credits":0}'),
    ],
)
async def test_credits_read_as_documented(
    shop: Storefront, client: Client, held: tuple[int, int, int], spoken: bytes
) -> None:
    shop.billing.balance = billing.Balance(balance_millis=held[0], reserved_millis=held[1])
    shop.billing.topped_up_millis = held[2]
    answer = await client.credits()
    assert answer.raw.endswith(b'"data":' + spoken + b"}")


# ---- webhooks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("well", [True, False])
async def test_a_webhook_says_what_the_task_reads(shop: Storefront, client: Client, well: bool) -> None:
    job = await client.made()
    if well:
        finish(shop, job)
    else:
        job.stage, job.failure = jobs.STAGE_ENDED_BADLY, jobs.FAILURE_REASON_TIMED_OUT
        job.ended_at_ms = job.created_at_ms + 1_000
    read = (await client.task(job.job_id)).body
    if well:
        read["data"]["result"]["video_url"] = "link"
    told = json.loads(told_of(WEBHOOK_FORM, job, shop.jobs.created[0], link="link"))
    assert len(told.pop("trace_id")) == len(read.pop("trace_id")) == 32
    assert told == read


# ---- the envelope -------------------------------------------------------------------------------------------


async def test_a_trace_id_is_the_request_id_where_it_looks_like_one(client: Client) -> None:
    traced = "45c30d76f06549b199a3775544523689"
    answer = await client.call("GET", "/api/v1/credits", headers={"X-Request-Id": traced})
    assert (answer.body["trace_id"], answer.headers["X-Request-Id"]) == (traced, traced)


async def test_another_request_id_always_gives_the_same_trace_id(client: Client) -> None:
    first, second = [
        await client.call("GET", path, headers={"X-Request-Id": "mine 1"})
        for path in ("/api/v1/credits", "/api/v1/tasks")
    ]
    assert first.body["trace_id"] == second.body["trace_id"] != (await client.credits()).body["trace_id"]


# ---- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer lv_live_unknown", f"Basic {key_of('loova')}", key_of("loova")]
)
async def test_what_is_no_key_is_401(shop: Storefront, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/api/v1/credits"), ("POST", VIDEOS), ("GET", "/api/v1/tasks")):
        answer = await shop.request(method, path, headers=headers)
        refused(answer, 401, "Invalid API key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("storefront", ["leonardo", "seedancee2", "seedance2pro", "imaginelab"])
async def test_a_key_of_another_storefront_is_unknown_here(shop: Storefront, storefront: str) -> None:
    refused(await Client(shop, key_of(storefront)).credits(), 401, "Invalid API key")


@pytest.mark.parametrize(
    "error,status,message",
    [
        (
            ServiceError(Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", "x"),
            402,
            "Insufficient API credits",
        ),
        (ServiceError(Kind.FAILED_PRECONDITION, "SPEND_LIMIT_REACHED", "x"), 402, "Insufficient API credits"),
        (ServiceError(Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL", "x", {"limit": "4"}), 429, ""),
        (ServiceError(Kind.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMITED", "x", {"limit": "4"}), 429, ""),
        (ServiceError(Kind.UNAVAILABLE, "PROVIDER_UNAVAILABLE", "secret-canary"), 503, ""),
        (ServiceError(Kind.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "secret-canary"), 503, ""),
        (ServiceError(Kind.INTERNAL, "INTERNAL", "secret-canary"), 500, "Internal server error"),
        (ServiceError(Kind.NOT_FOUND, "UNKNOWN_SKU", "secret-canary"), 500, "Internal server error"),
        (
            ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", "secret-canary", {"field": "canary"}),
            500,
            "Internal server error",
        ),
        (RuntimeError("secret-canary"), 500, "Internal server error"),
    ],
)
async def test_what_goes_wrong_behind_is_spelled_in_the_envelope(
    shop: Storefront, client: Client, error: Exception, status: int, message: str
) -> None:
    shop.jobs.refusal = error
    answer = await client.create(VIDEO)
    refused(answer, status, message)
    assert b"canary" not in answer.raw
    if status in {429, 503}:
        assert int(answer.headers["Retry-After"]) > 0
    if status == 429:
        assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("4", "0")


async def test_requests_beyond_the_rate_are_429(shop: Storefront, client: Client) -> None:
    shop.billing.requests_per_minute = 1
    assert (await client.credits()).headers["RateLimit-Remaining"] == "0"
    answer = await client.credits()
    refused(answer, 429)
    assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"]


@pytest.mark.parametrize("path", ["/api/v1/video", "/api/v1/video/seedance-1", "/api/v1/tasks/x"])
async def test_what_is_nowhere_under_its_paths_is_404_in_its_envelope(shop: Storefront, path: str) -> None:
    refused(await shop.request("GET", path), 404)


@pytest.mark.parametrize(
    "method,path,allowed",
    [
        ("GET", VIDEOS, {"POST"}),
        ("POST", "/api/v1/tasks", {"GET", "HEAD"}),
        ("DELETE", "/api/v1/credits", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405_in_its_envelope(
    shop: Storefront, method: str, path: str, allowed: set[str]
) -> None:
    answer = await shop.request(method, path)
    refused(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


# ---- paths --------------------------------------------------------------------------------------------------


async def test_the_same_three_calls_are_under_v1_on_a_host_of_its_own(opening: Opening) -> None:
    shop = await opening(storefront_hosts=(("video.example.com", "loova"),))
    client, host = Client(shop), {"Host": "video.example.com"}
    made = await client.create(VIDEO, path="/v1/video/seedance-2", **host)
    assert made.status == 200
    task = await client.call(
        "GET", "/v1/tasks", headers=host, params={"task_id": made.body["data"]["task_id"]}
    )
    assert task.status == 200
    assert (await client.call("GET", "/v1/credits", headers=host)).status == 200
    # One endpoint under two names.
    first = await client.create(VIDEO, key="order-1", **host)
    again = await client.create(VIDEO, key="order-1", path="/v1/video/seedance-2", **host)
    assert again.body["data"] == first.body["data"]
    refused(await shop.request("GET", "/v1/jobs/x", headers=host), 404)


async def test_links_name_the_host_that_the_storefront_has_of_its_own(opening: Opening) -> None:
    shop = await opening(storefront_hosts=(("video.example.com", "loova"), ("films.example.com", "loova")))
    client, own_url = Client(shop), shop.url.replace("127.0.0.1", "video.example.com")
    job = await client.made()
    finish(shop, job)
    link = (await client.task(job.job_id)).body["data"]["result"]["video_url"]
    assert link.startswith(f"{own_url}/media/")
    film = await shop.request("GET", link.removeprefix(own_url), headers={"Host": "video.example.com"})
    assert (film.status, film.raw) == (200, b"film")
    assert shop.jobs.forms["loova"].public_url == own_url


async def test_links_name_the_common_address_where_another_storefront_has_a_host(opening: Opening) -> None:
    shop = await opening(storefront_hosts=(("pictures.example.com", "leonardo"),))
    client = Client(shop)
    job = await client.made()
    finish(shop, job)
    link = (await client.task(job.job_id)).body["data"]["result"]["video_url"]
    assert link.startswith(f"{shop.url}/media/")
    assert shop.jobs.forms["loova"].public_url == ""


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/credits", "/v1/video/seedance-2"])
async def test_elsewhere_nothing_is_under_v1(shop: Storefront, path: str) -> None:
    answer = await shop.request("GET", path, headers={"Authorization": f"Bearer {key_of('loova')}"})
    assert answer.status in {404, 405}


async def test_head_answers_what_get_answers_without_the_body(shop: Storefront) -> None:
    headers = {"Authorization": f"Bearer {key_of('loova')}"}
    got = await shop.request("GET", "/api/v1/credits", headers=headers)
    head = await shop.request("HEAD", "/api/v1/credits", headers=headers)
    assert envelope(got)
    assert (head.status, head.raw) == (200, b"")
