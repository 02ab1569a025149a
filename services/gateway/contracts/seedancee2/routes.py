"""Routes: the handlers, and the contract itself."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from services.gateway import reading
from services.gateway.auth import bearer_or
from services.gateway.contract import CREATE_DEADLINE_S, Answer, Call, Contract, Route, Tracking
from services.gateway.contracts.seedancee2 import inward, inward_queries, operations, outward
from services.gateway.contracts.seedancee2.errors import ERROR_CODES, error_example, render_error
from services.gateway.contracts.seedancee2.guide import GUIDE
from services.gateway.contracts.seedancee2.wire import ErrorBody, VideoBody
from services.gateway.creating import Order, create, replay_headers
from services.gateway.reference_media import FULL
from services.gen.jobs.v1 import jobs_pb2 as pb

_KEY_HEADER: Final = "x-api-key"


def credential_of(request: web.BaseRequest) -> str:
    """The token of the Authorization header; only without one, the key in `x-api-key`."""
    return bearer_or(request, _KEY_HEADER)


async def create_video(call: Call) -> Answer:
    reading.require_json(call.request)
    wire = inward.read(call.body.json)
    order = Order(
        inward.job(wire),
        compared=lambda identities: inward.compared(wire, identities),
        references=inward.references(wire),
        limits=FULL,
    )
    answer = await create(call, order)
    return Answer(200, outward.accepted(answer), replay_headers(answer))


async def get_video(call: Call) -> Answer:
    video_id = inward_queries.video_id(call.request.match_info["id"])
    job = await call.house.backends.job(call.caller, video_id)
    return Answer(200, VideoBody(outward.video(job, call.link)))


async def list_videos(call: Call) -> Answer:
    asked = inward_queries.page(call.request)
    # One more than is shown says whether there are older ones.
    request = pb.ListJobsRequest(stages=asked.stages, before_job_id=asked.before_id, limit=asked.limit + 1)
    answer = await call.house.backends.list_jobs(call.caller, request)
    return Answer(200, outward.page(answer.jobs, asked.limit, call.link))


async def list_models(call: Call) -> Answer:
    return Answer(200, outward.all_models())


async def get_usage(call: Call) -> Answer:
    asked = inward_queries.usage(call.request, call.house.clock.now_ms())
    rows = await call.house.backends.usage(call.caller, asked.start_ms, asked.end_ms + 1)
    return Answer(200, outward.usage(rows, asked))


CONTRACT: Final = Contract(
    name="seedancee2",
    title="Atelier Video Generation API",
    summary="Videos from words, images, clips and sounds, behind three stable model names.",
    paths=("/v1/videos/generations", "/v1/models", "/v1/usage"),
    key_prefixes=("sk_seedancee2_live_", "sk_seedancee2_test_"),
    routes=(
        Route(
            "createVideo",
            "POST",
            "/v1/videos/generations",
            create_video,
            operations.CREATE,
            creates=True,
            deadline_s=CREATE_DEADLINE_S,
        ),
        Route("getVideo", "GET", "/v1/videos/generations/{id}", get_video, operations.GET),
        Route("listVideos", "GET", "/v1/videos/generations", list_videos, operations.LIST),
        Route("listModels", "GET", "/v1/models", list_models, operations.MODELS),
        Route("getUsage", "GET", "/v1/usage", get_usage, operations.USAGE),
    ),
    render_error=render_error,
    error_body=ErrorBody,
    error_codes=ERROR_CODES,
    error_example=error_example,
    common_errors=("invalid_api_key", "rate_limited", "internal_error", "service_unavailable"),
    guide=GUIDE,
    webhook_form=outward.WEBHOOK_FORM,
    tracking=Tracking("data.id", "id", "/v1/videos/generations/{id}", "data.status", ("completed", "failed")),
    credentials=credential_of,
    key_header=_KEY_HEADER,
)
