"""Reading and deleting generations on `imaginelab`, the history, errors, and webhooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gateway.contracts.imaginelab.outward import WEBHOOK_FORMS
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.imaginelab import GENERATIONS, IMAGE, MODELS, Client, asking, finish, refused, signed_in
from tests.contracts.webhook_bodies import told_of
from tests.fakes import key_of


@pytest.fixture
def client(shop: Storefront) -> Client:
    return Client(shop)


STATUSES = [
    (jobs.STAGE_WAITING, "pending"),
    (jobs.STAGE_ACCOUNT_CHOSEN, "pending"),
    (jobs.STAGE_AT_PROVIDER, "processing"),
    (jobs.STAGE_ENDED_WELL, "completed"),
    (jobs.STAGE_ENDED_BADLY, "failed"),
]


@pytest.mark.parametrize("stage,status", STATUSES)
async def test_every_stage_has_its_word(client: Client, stage: jobs.Stage.ValueType, status: str) -> None:
    job = await client.made()
    job.stage, job.progress = stage, 40
    for path in (f"generations/{job.public_number}", f"generations/{job.public_number}/status"):
        assert (await client.get(path)).body["status"] == status


async def test_a_status_reads_as_documented(shop: Storefront, client: Client) -> None:
    job = await client.made()
    job.stage, job.progress = jobs.STAGE_AT_PROVIDER, 40
    path = f"generations/{job.public_number}/status"
    assert (await client.get(path)).body == {"id": job.public_number, "status": "processing", "progress": 40}
    finish(shop, job)
    assert (await client.get(path)).body == {"id": job.public_number, "status": "completed", "progress": 100}
    assert shop.jobs.asked[0].sync


@pytest.mark.parametrize(
    "kind,output",
    [
        ("image", {"mime_type": "image/png", "width": 1280, "height": 720}),
        ("video", {"mime_type": "video/mp4", "width": 1280, "height": 720}),
        ("voice", {"mime_type": "audio/mpeg", "duration": 2.4}),
        ("music", {"mime_type": "audio/mpeg", "duration": 2.4}),
        ("infographic", {"mime_type": "image/png", "width": 1280, "height": 720}),
    ],
)
async def test_an_output_reads_as_documented_and_its_link_works(
    shop: Storefront, client: Client, kind: str, output: dict[str, Any]
) -> None:
    job = await client.made(asking(kind))
    finish(shop, job)
    record = (await client.get(f"generations/{job.public_number}")).body
    (told,) = record.pop("outputs")
    url = told.pop("url")
    assert told == {"type": kind, **output}
    assert await shop.fetched(url) == b"content"
    assert record["status"] == "completed"
    assert "error" not in record


async def test_a_text_is_inside_its_output(shop: Storefront, client: Client) -> None:
    job = await client.made(asking("text"))
    finish(shop, job)
    record = (await client.get(f"generations/{job.public_number}")).body
    assert record["outputs"] == [{"type": "text", "text": "Cross “calmly”."}]


async def test_a_record_outlives_its_media(shop: Storefront, client: Client) -> None:
    job = await client.made()
    finish(shop, job)
    job.media_expires_at_ms = 1
    record = (await client.get(f"generations/{job.public_number}")).body
    assert (record["status"], record["outputs"]) == ("completed", [])


async def test_every_failure_costs_nothing_and_says_why(client: Client) -> None:
    job = await client.made()
    job.stage = jobs.STAGE_ENDED_BADLY
    for reason in jobs.FailureReason.values():
        job.failure = reason
        record = (await client.get(f"generations/{job.public_number}")).body
        assert (record["status"], record["credit_cost"], record["outputs"]) == ("failed", 0, [])
        assert record["error"].endswith(".")


async def test_a_partial_charge_is_shown_as_charged(shop: Storefront, client: Client) -> None:
    job = await client.made()
    finish(shop, job)
    job.charged_millis = 4_500
    assert (await client.get(f"generations/{job.public_number}")).body["credit_cost"] == 4.5


@pytest.mark.parametrize("number", ["0", "-1", "01", "1.0", "x", str(2**53), "9" * 400, "%00", "1%2F2"])
@pytest.mark.parametrize("suffix", ["", "/status"])
async def test_what_is_no_number_is_404(shop: Storefront, client: Client, number: str, suffix: str) -> None:
    answer = await client.call("GET", f"{GENERATIONS}/{number}{suffix}")
    refused(answer, 404)
    assert shop.jobs.asked == []


async def test_a_generation_of_another_user_or_mode_is_404(shop: Storefront, client: Client) -> None:
    job = await client.made()
    strangers = [
        Client(shop, key_of("imaginelab", other=True)),
        Client(shop, key_of("imaginelab", test=True)),
        await signed_in(shop),
    ]
    for stranger in strangers:
        for method in ("GET", "DELETE"):
            answer = await stranger.call(method, f"{GENERATIONS}/{job.public_number}")
            refused(answer, 404, "Generation not found")
    assert job.job_id in shop.jobs.kept


async def test_a_deleted_generation_is_gone(shop: Storefront, client: Client) -> None:
    job = await client.made()
    answer = await client.call("DELETE", f"{GENERATIONS}/{job.public_number}")
    assert (answer.status, answer.raw) == (204, b"")
    assert shop.jobs.kept == {}
    for method, suffix in (("GET", ""), ("GET", "/status"), ("DELETE", "")):
        refused(await client.call(method, f"{GENERATIONS}/{job.public_number}{suffix}"), 404)


# ---- history ------------------------------------------------------------------------------------------------


async def test_the_history_is_newest_first_and_in_pages(client: Client) -> None:
    numbers = [(await client.create(IMAGE)).body["id"] for _ in range(5)][::-1]
    first = (await client.get("generations")).body
    assert [item["id"] for item in first.pop("items")] == numbers
    assert first == {"total": 5, "page": 1, "page_size": 20}
    second = (await client.get("generations", page=2, page_size=2)).body
    assert [item["id"] for item in second.pop("items")] == numbers[2:4]
    assert second == {"total": 5, "page": 2, "page_size": 2}
    beyond = (await client.get("generations", page=9, page_size=100)).body
    assert beyond == {"items": [], "total": 5, "page": 9, "page_size": 100}


async def test_the_history_shows_full_records(shop: Storefront, client: Client) -> None:
    job = await client.made()
    finish(shop, job)
    (item,) = (await client.get("generations")).body["items"]
    record = (await client.get(f"generations/{job.public_number}")).body
    for one in (item, record):
        one["outputs"][0].pop("url")
    assert item == record


async def test_the_history_can_be_filtered(client: Client) -> None:
    for kind in MODELS:
        await client.create({**asking(kind), "project_id": f"of-{kind}"})
    of_type = (await client.get("generations", generation_type="music")).body
    assert [item["generation_type"] for item in of_type["items"]] == ["music"]
    assert of_type["total"] == 1
    of_project = (await client.get("generations", project_id="of-text")).body
    assert [item["generation_type"] for item in of_project["items"]] == ["text"]


@pytest.mark.parametrize("stage,status", STATUSES)
async def test_the_history_can_be_filtered_by_status(
    client: Client, stage: jobs.Stage.ValueType, status: str
) -> None:
    others = [await client.made() for _ in range(len(STATUSES))]
    for job, (other, _) in zip(others, STATUSES, strict=True):
        job.stage = other
    wanted = sorted((job.public_number for job in others if job.stage == stage), reverse=True)
    both = sorted((job.public_number for job in others[:2]), reverse=True)
    told = (await client.get("generations", status=status)).body
    assert [item["id"] for item in told["items"]] == (both if status == "pending" else wanted)


@pytest.mark.parametrize(
    "params,field",
    [
        ({"page": 0}, "page"),
        ({"page": "x"}, "page"),
        ({"page": 10**9}, "page"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 101}, "page_size"),
        ({"generation_type": "x"}, "generation_type"),
        ({"status": "done"}, "status"),
        ({"project_id": "p" * 101}, "project_id"),
        ({"project_id": "a\0"}, "project_id"),
        ([("page", "1"), ("page", "2")], "page"),
    ],
)
async def test_a_wrong_filter_is_400_and_named(client: Client, params: Any, field: str) -> None:
    assert field in refused(await client.call("GET", GENERATIONS, params=params), 400)


# ---- webhooks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("well", [True, False])
@pytest.mark.parametrize("kind", MODELS)
async def test_a_webhook_says_what_the_record_reads(shop: Storefront, kind: str, well: bool) -> None:
    client = await signed_in(shop)
    job = await client.made({**asking(kind), "prompt": 'say "$?" in {"$": "job_id"} \u2028'})
    finish(shop, job)
    if not well:
        job.stage, job.failure = jobs.STAGE_ENDED_BADLY, jobs.FAILURE_REASON_CONTENT_REFUSED
        job.outputs.clear()
    read = (await client.get(f"generations/{job.public_number}")).body
    for output in read["outputs"]:
        if "url" in output:
            output["url"] = "link"
    forms = {name: form for name, form in WEBHOOK_FORMS.items() if name == kind}
    assert json.loads(told_of(forms.popitem()[1], job, shop.jobs.created[0], link="link")) == read


# ---- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer il_live_unknown", f"Basic {key_of('imaginelab')}", "Bearer lv_live_a"]
)
async def test_what_is_no_token_is_401(shop: Storefront, header: str) -> None:
    for method, path in (("GET", GENERATIONS), ("POST", GENERATIONS), ("GET", "/api/v1/credits/wallet")):
        answer = await shop.request(method, path, headers={"Authorization": header})
        refused(answer, 401, "Invalid token")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    refused(await shop.request("GET", GENERATIONS), 401, "Missing token")


@pytest.mark.parametrize("storefront", ["leonardo", "seedancee2", "seedance2pro", "loova"])
async def test_a_key_of_another_storefront_is_unknown_here(shop: Storefront, storefront: str) -> None:
    refused(await Client(shop, key_of(storefront)).get("credits/wallet"), 401, "Invalid token")


@pytest.mark.parametrize(
    "error,status,detail",
    [
        (ServiceError(Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS", "x"), 402, "Insufficient credits"),
        (ServiceError(Kind.FAILED_PRECONDITION, "SPEND_LIMIT_REACHED", "x"), 402, "Insufficient credits"),
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
async def test_what_goes_wrong_behind_is_spelled_in_one_sentence(
    shop: Storefront, client: Client, error: Exception, status: int, detail: str
) -> None:
    shop.jobs.refusal = error
    answer = await client.create(IMAGE)
    refused(answer, status, detail)
    assert b"canary" not in answer.raw
    if status in {429, 503}:
        assert int(answer.headers["Retry-After"]) > 0


async def test_requests_beyond_the_rate_are_429(shop: Storefront, client: Client) -> None:
    shop.billing.requests_per_minute = 1
    await client.get("credits/wallet")
    answer = await client.get("credits/wallet")
    refused(answer, 429)
    assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"]


@pytest.mark.parametrize("path", ["auth", "auth/nothing", "generations/1/2/3", "credits/nothing"])
async def test_what_is_nowhere_under_its_paths_is_404(shop: Storefront, path: str) -> None:
    refused(await shop.request("GET", f"/api/v1/{path}"), 404)


@pytest.mark.parametrize(
    "method,path,allowed",
    [
        ("GET", "auth/login", {"POST"}),
        ("PUT", "generations", {"GET", "HEAD", "POST"}),
        ("POST", "generations/1", {"GET", "HEAD", "DELETE"}),
        ("POST", "credits/wallet", {"GET", "HEAD"}),
        ("POST", "auth/me", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_405(shop: Storefront, method: str, path: str, allowed: set[str]) -> None:
    answer = await shop.request(method, f"/api/v1/{path}")
    refused(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


async def test_the_models_cannot_be_deleted(client: Client) -> None:
    answer = await client.call("DELETE", f"{GENERATIONS}/models")
    refused(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


async def test_head_answers_what_get_answers_without_the_body(shop: Storefront) -> None:
    headers = {"Authorization": f"Bearer {key_of('imaginelab')}"}
    head = await shop.request("HEAD", "/api/v1/credits/wallet", headers=headers)
    assert (head.status, head.raw) == (200, b"")
