"""Reading videos, lists, models and usage on `seedancee2`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.seedancee2 import FIGURES, MOMENT, PRO, VIDEOS, Client, fail, finish, made, refused
from tests.contracts.webhook_bodies import told_of
from tests.fakes import NOW_MS, key_of

REQUEST = ("invalid_request", "invalid_request_error")
DAY_MS = 86_400_000


# ---- one video ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage,status",
    [
        (jobs.STAGE_WAITING, "pending"),
        (jobs.STAGE_ACCOUNT_CHOSEN, "pending"),
        (jobs.STAGE_AT_PROVIDER, "processing"),
        (jobs.STAGE_ENDED_WELL, "completed"),
        (jobs.STAGE_ENDED_BADLY, "failed"),
    ],
)
async def test_every_stage_has_its_word(shop: Storefront, stage: jobs.Stage.ValueType, status: str) -> None:
    shop.jobs.stage = stage
    created = (await Client(shop).create(PRO)).body["data"]
    assert created["status"] == status
    assert (await Client(shop).data(f"{VIDEOS}/{created['id']}"))["status"] == status


async def test_a_pending_video_reads_as_documented(shop: Storefront) -> None:
    job = await made(shop, {**PRO, "metadata": {"order": "1842"}})
    assert await Client(shop).data(f"{VIDEOS}/{job.job_id}") == {
        "id": job.job_id,
        "status": "pending",
        "model": "pro",
        "created_at": "2026-06-29T10:00:00.000Z",
        "metadata": {"order": "1842"},
    }
    assert shop.jobs.asked[0].sync


async def test_a_completed_video_reads_as_documented_and_its_links_work(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job, last_frame=True)
    data = await Client(shop).data(f"{VIDEOS}/{job.job_id}")
    output = data.pop("output")
    assert data == {
        "id": job.job_id,
        "status": "completed",
        "model": "pro",
        "created_at": "2026-06-29T10:00:00.000Z",
        "completed_at": "2026-06-29T10:01:30.000Z",
        "credits_charged": 100,
    }
    assert set(output) == {"video_url", "thumbnail_url", "last_frame_url"}
    assert [await shop.fetched(url) for url in output.values()] == [b"video", b"still", b"last"]
    day = f"{shop.url}/media/"
    assert output["video_url"].startswith(f"{day}videos/2026/06/29/{job.job_id}.mp4?")
    assert output["thumbnail_url"].startswith(f"{day}video-posters/2026/06/29/{job.job_id}.jpg?")
    assert output["last_frame_url"].startswith(f"{day}video-posters/2026/06/29/{job.job_id}-last.jpg?")


async def test_a_video_without_a_last_frame_does_not_speak_of_one(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    output = (await Client(shop).data(f"{VIDEOS}/{job.job_id}"))["output"]
    assert set(output) == {"video_url", "thumbnail_url"}


async def test_a_video_that_is_no_longer_kept_is_still_told_of(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    job.media_expires_at_ms = 1
    data = await Client(shop).data(f"{VIDEOS}/{job.job_id}")
    assert (data["status"], data["output"]) == ("completed", {"video_url": None, "thumbnail_url": None})


@pytest.mark.parametrize("reason", jobs.FailureReason.values())
async def test_a_failed_video_reads_as_documented(
    shop: Storefront, reason: jobs.FailureReason.ValueType
) -> None:
    job = await made(shop)
    fail(job, reason)
    data = await Client(shop).data(f"{VIDEOS}/{job.job_id}")
    error = data.pop("error")
    assert data == {
        "id": job.job_id,
        "status": "failed",
        "model": "pro",
        "created_at": "2026-06-29T10:00:00.000Z",
        "credits_charged": 0,
        "credits_refunded": 100,
    }
    name = jobs.FailureReason.Name(reason)
    if "REFERENCE" not in name:
        assert error == {
            "code": "generation_failed",
            "message": "The video could not be generated. Please try again with a different prompt.",
            "type": "generation_error",
        }
    else:
        assert error["type"] == "generation_error"
        assert error["code"] == (
            "reference_unavailable" if name.endswith("UNAVAILABLE") else "invalid_reference_image"
        )


async def test_credits_may_be_parts_of_one(shop: Storefront) -> None:
    job = await made(shop)
    finish(shop, job)
    job.charged_millis = 99_500
    assert (await Client(shop).data(f"{VIDEOS}/{job.job_id}"))["credits_charged"] == 99.5


# ---- webhooks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last_frame", [False, True])
@pytest.mark.parametrize("extra", [{}, {"metadata": {}}, {"metadata": {"ord\u00e9r": ["\u0000", 1.5, None]}}])
async def test_a_webhook_tells_of_a_completed_video_what_polling_does(
    shop: Storefront, extra: dict[str, Any], last_frame: bool
) -> None:
    job = await made(shop, {**PRO, **extra})
    finish(shop, job, last_frame=last_frame)
    polled = (await Client(shop).get(f"{VIDEOS}/{job.job_id}")).body
    output = polled["data"]["output"]
    polled["data"]["output"] = dict.fromkeys(output, "https://link")
    told = told_of(shop.jobs.forms["seedancee2"], job, shop.jobs.created[0], link="https://link")
    assert json.loads(told) == polled


@pytest.mark.parametrize("reason", jobs.FailureReason.values())
async def test_a_webhook_tells_of_a_failed_video_what_polling_does(
    shop: Storefront, reason: jobs.FailureReason.ValueType
) -> None:
    job = await made(shop, {**PRO, "metadata": {"order": "1842"}})
    fail(job, reason)
    told = told_of(shop.jobs.forms["seedancee2"], job, shop.jobs.created[0], link="")
    assert json.loads(told) == (await Client(shop).get(f"{VIDEOS}/{job.job_id}")).body


async def test_webhooks_are_signed_as_the_contract_says_beside_the_standard(shop: Storefront) -> None:
    await made(shop)
    assert shop.jobs.forms["seedancee2"].legacy_signature == jobs.LegacySignature(
        event_header="X-Seedancee2-Event",
        signature_header="X-Seedancee2-Signature",
        completed_event="video.generation.completed",
        failed_event="video.generation.failed",
    )


# ---- lists --------------------------------------------------------------------------------------------------


async def listed(shop: Storefront, count: int) -> list[str]:
    """So many videos were made; their ids, newest first."""
    ids = [(await made(shop, {"model": "mini", "input": {"prompt": "a"}})).job_id for _ in range(count)]
    return sorted(ids, reverse=True)


async def test_a_list_shows_each_video_as_it_shows_alone(shop: Storefront) -> None:
    await listed(shop, 3)
    waiting, done, failed = list(shop.jobs.kept.values())
    finish(shop, done)
    fail(failed)
    page = (await Client(shop).get(VIDEOS)).body
    assert set(page) == {"data", "has_more", "next_cursor"}
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    alone = [await Client(shop).data(f"{VIDEOS}/{each['id']}") for each in page["data"]]
    for one, other in zip(page["data"], alone, strict=True):
        for each in (one, other):
            each.get("output", {}).clear()
    assert page["data"] == alone
    assert {each["id"]: each["status"] for each in alone} == {
        waiting.job_id: "pending",
        done.job_id: "completed",
        failed.job_id: "failed",
    }


async def test_pages_follow_each_other_newest_first(shop: Storefront) -> None:
    ids = await listed(shop, 7)
    seen: list[str] = []
    query = {"limit": "3"}
    for expected in (True, True, False):
        page = (await Client(shop).get(VIDEOS, **query)).body
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] is expected
        query["cursor"] = page["next_cursor"]
    assert seen == ids
    assert query["cursor"] is None


async def test_a_page_that_ends_with_the_last_video_is_the_last(shop: Storefront) -> None:
    await listed(shop, 3)
    page = (await Client(shop).get(VIDEOS, limit="3")).body
    assert (len(page["data"]), page["has_more"], page["next_cursor"]) == (3, False, None)


async def test_no_limit_is_twenty(shop: Storefront) -> None:
    await listed(shop, 21)
    page = (await Client(shop).get(VIDEOS)).body
    assert (len(page["data"]), page["has_more"]) == (20, True)


@pytest.mark.parametrize(
    "status,stages",
    [
        ("pending", [jobs.STAGE_WAITING, jobs.STAGE_ACCOUNT_CHOSEN]),
        ("processing", [jobs.STAGE_AT_PROVIDER]),
        ("completed", [jobs.STAGE_ENDED_WELL]),
        ("failed", [jobs.STAGE_ENDED_BADLY]),
    ],
)
async def test_a_list_can_be_of_one_status(
    shop: Storefront, status: str, stages: list[jobs.Stage.ValueType]
) -> None:
    every = [stage for stage in jobs.Stage.values() if stage]
    await listed(shop, len(every))
    for job, stage in zip(shop.jobs.kept.values(), every, strict=True):
        job.stage = stage
    data = await Client(shop).data(VIDEOS, status=status)
    assert {each["status"] for each in data} == {status}
    assert len(data) == len(stages)


async def test_a_list_is_of_the_callers_own_videos(shop: Storefront) -> None:
    await listed(shop, 2)
    for key in (key_of("seedancee2", test=True), key_of("seedancee2", other=True)):
        assert await Client(shop, key).data(VIDEOS) == []


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "query,param",
    [
        ({"status": "queued"}, "status"),
        ({"status": ""}, "status"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "'; DROP TABLE jobs"}, "cursor"),
        ({"cursor": "\u00fc"}, "cursor"),
        ({"cursor": "A" * 4_000}, "cursor"),
        ({"cursor": cursor_of("job_01jz8b7q4x8k2p9w3m5c6n7r8s")}, "cursor"),
        ({"cursor": cursor_of("vid_01jz8b7q4x8k2p9w3m5c6n7r8s\n")}, "cursor"),
    ],
)
async def test_a_wrong_parameter_of_a_list_is_400_and_named(
    shop: Storefront, query: dict[str, str], param: str
) -> None:
    refused(await Client(shop).get(VIDEOS, **query), 400, *REQUEST, param)
    assert shop.jobs.listed == []


# ---- models -------------------------------------------------------------------------------------------------


async def test_the_models_are_as_documented(shop: Storefront) -> None:
    answer = await Client(shop).get("/v1/models")
    assert answer.status == 200
    seconds = {"min": 4, "max": 15}
    assert answer.body == {
        "data": [
            {
                "id": "pro",
                "status": "active",
                "resolutions": ["480p", "720p", "1080p"],
                "duration": seconds,
            },
            {"id": "fast", "status": "active", "resolutions": ["480p", "720p"], "duration": seconds},
            {"id": "mini", "status": "active", "resolutions": ["480p", "720p"], "duration": seconds},
        ]
    }


# ---- usage --------------------------------------------------------------------------------------------------


def row(day: str, model: str, *figures: int) -> jobs.UsageRow:
    """figures: pending, processing, completed, failed, charged and refunded credits."""
    pending, processing, completed, failed, charged, refunded = figures
    return jobs.UsageRow(
        day=day,
        public_model=model,
        pending_jobs=pending,
        processing_jobs=processing,
        completed_jobs=completed,
        failed_jobs=failed,
        charged_millis=charged * 1000,
        refunded_millis=refunded * 1000,
    )


def figures(*values: float) -> dict[str, float]:
    return dict(zip(FIGURES, values, strict=True))


ROWS = [
    row("2026-07-03", "mini", 1, 0, 2, 0, 100, 0),
    row("2026-07-03", "pro", 0, 2, 0, 0, 0, 0),
    row("2026-07-01", "mini", 0, 0, 3, 1, 200, 40),
    row("2026-07-01", "pro", 0, 0, 3, 0, 300, 0),
]


async def test_the_report_adds_up_and_reads_as_documented(shop: Storefront) -> None:
    shop.jobs.usage = ROWS
    query = {"start": "2026-07-01T00:00:00.000Z", "end": "2026-07-31T23:59:59.999Z"}
    assert await Client(shop).data("/v1/usage", **query) == {
        "range": query,
        "summary": figures(12, 1, 2, 8, 1, 600, 40, 560),
        "by_model": [
            {"model": "mini", **figures(7, 1, 0, 5, 1, 300, 40, 260)},
            {"model": "pro", **figures(5, 0, 2, 3, 0, 300, 0, 300)},
        ],
        "timeline": [
            {"date": "2026-07-03", **figures(5, 1, 2, 2, 0, 100, 0, 100)},
            {"date": "2026-07-01", **figures(7, 0, 0, 6, 1, 500, 40, 460)},
        ],
    }


async def test_an_empty_report_is_one_too(shop: Storefront) -> None:
    data = await Client(shop).data("/v1/usage")
    assert (data["summary"], data["by_model"], data["timeline"]) == (figures(*[0] * 8), [], [])


async def test_limit_bounds_the_days_and_nothing_else(shop: Storefront) -> None:
    shop.jobs.usage = ROWS
    data = await Client(shop).data("/v1/usage", limit="1")
    assert [each["date"] for each in data["timeline"]] == ["2026-07-03"]
    assert data["summary"]["total_jobs"] == 12


async def test_thirty_days_are_shown_unless_more_are_asked_for(shop: Storefront) -> None:
    shop.jobs.usage = [
        row(f"2026-{month:02d}-{day:02d}", "pro", 0, 0, 1, 0, 1, 0)
        for month in (7, 6)
        for day in range(28, 0, -1)
    ]
    assert len((await Client(shop).data("/v1/usage"))["timeline"]) == 30
    assert len((await Client(shop).data("/v1/usage", limit="365"))["timeline"]) == 56


@pytest.mark.parametrize(
    "query,from_ms,before_ms",
    [
        ({"start": "2026-06-29T10:00:00.000Z", "end": "2026-06-29T10:00:01Z"}, 0, 1001),
        ({"start": "2026-06-29T12:00:00+02:00", "end": "2026-06-29T10:00:00.5"}, 0, 501),
        ({"start": "2026-06-29", "end": "2026-06-29"}, -36_000_000, DAY_MS - 36_000_000),
        ({"start": "20260629", "end": "20260629"}, -36_000_000, DAY_MS - 36_000_000),
        ({"start": "2026-W27-1", "end": "2026-W27-1"}, -36_000_000, DAY_MS - 36_000_000),
        ({"end": "2026-06-29T10:00:00Z"}, -30 * DAY_MS, 1),
        ({"end": "2026-06-29"}, -29 * DAY_MS - 36_000_000, DAY_MS - 36_000_000),
        ({"start": "1970-01-01", "end": "2026-06-29T10:00:00Z"}, -NOW_MS, 1),
    ],
)
async def test_a_range_has_both_its_ends(
    shop: Storefront, query: dict[str, str], from_ms: int, before_ms: int
) -> None:
    data = await Client(shop).data("/v1/usage", **query)
    (asked,) = shop.jobs.counted
    assert (asked.from_ms - NOW_MS, asked.before_ms - NOW_MS) == (from_ms, before_ms)
    assert (asked.customer_id, asked.mode) == ("cus_1", jobs.MODE_LIVE)
    assert all(MOMENT.fullmatch(moment) for moment in data["range"].values())


async def test_without_a_range_it_is_the_last_30_days(shop: Storefront) -> None:
    await Client(shop).data("/v1/usage")
    (asked,) = shop.jobs.counted
    assert asked.before_ms - asked.from_ms == 30 * DAY_MS + 1


async def test_test_and_live_usage_are_apart(shop: Storefront) -> None:
    await Client(shop, key_of("seedancee2", test=True)).data("/v1/usage")
    assert shop.jobs.counted[0].mode == jobs.MODE_TEST


@pytest.mark.parametrize(
    "query,param",
    [
        ({"start": "yesterday"}, "start"),
        ({"start": ""}, "start"),
        ({"end": "2026-13-01"}, "end"),
        ({"end": "1969-12-31"}, "end"),
        ({"end": "9999-12-31"}, "end"),
        ({"start": "0001-01-01T00:00:00+23:59"}, "start"),
        ({"start": "\u0661" * 4 + "-01-01"}, "start"),
        ({"start": "2026-07-02", "end": "2026-07-01"}, "start"),
        ({"limit": "0"}, "limit"),
        ({"limit": "366"}, "limit"),
    ],
)
async def test_a_wrong_parameter_of_the_report_is_400_and_named(
    shop: Storefront, query: dict[str, Any], param: str
) -> None:
    refused(await Client(shop).get("/v1/usage", **query), 400, *REQUEST, param)
    assert shop.jobs.counted == []
