"""Routes of generations: models, making, reading, the history, deleting."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from services.chassis.errors import ServiceError
from services.gateway import errors, pairs, reading
from services.gateway.contract import (
    CREATE_DEADLINE_S,
    Answer,
    Call,
    Operation,
    PathPart,
    Reply,
    Route,
)
from services.gateway.contracts.imaginelab import inward, outward
from services.gateway.contracts.imaginelab.settings import schema_of
from services.gateway.contracts.imaginelab.wire import (
    Generation,
    GenerationRequest,
    GenerationStatus,
    History,
    HistoryQuery,
    ModelsQuery,
    ModelView,
)
from services.gateway.creating import Order, create, replay_headers
from services.gen.jobs.v1 import jobs_pb2 as pb

_MODELS_PATH: Final = "/api/v1/generations/models"


async def list_models(call: Call) -> Answer:
    query = pairs.query(call.request, ModelsQuery)
    prices = await call.house.prices.of(call.contract.name)
    return Answer(200, outward.models(prices, query.generation_type))


async def create_generation(call: Call) -> Answer:
    reading.require_json(call.request)
    asked = inward.read_generation(call.body.json)
    echo = inward.Echo(call.caller.user_id, asked.prompt)
    order = Order(
        request=inward.generation_job(asked, echo),
        compared=lambda _: asked,
        webhook_form=outward.WEBHOOK_FORMS[asked.generation_type],
    )
    answer = await create(call, order)
    return Answer(201, outward.accepted(answer.job, echo), replay_headers(answer))


async def list_generations(call: Call) -> Answer:
    query = pairs.query(call.request, HistoryQuery)
    found = await call.house.backends.list_jobs(call.caller, inward.page_of(query))
    items = [outward.generation(job, partial(_link, call, job)) for job in found.jobs]
    return Answer(200, History(items, found.total, query.page, query.page_size))


async def get_generation(call: Call) -> Answer:
    job = await _job(call)
    return Answer(200, outward.generation(job, partial(_link, call, job)))


async def get_status(call: Call) -> Answer:
    return Answer(200, outward.progress(await _job(call)))


async def delete_generation(call: Call) -> Answer:
    if call.request.path == _MODELS_PATH:
        # A path of its own, which for other methods than its own looks like an id.
        raise errors.method_not_allowed({"GET", "HEAD"})
    job = await _job(call, sync=False)
    await call.house.backends.delete_job(call.caller, job.job_id)
    return Answer(204, None)


async def _job(call: Call, *, sync: bool = True) -> pb.Job:
    number = inward.generation_id(call.request.match_info["id"])
    return await call.house.backends.numbered_job(call.caller, number, sync=sync)


def _link(call: Call, job: pb.Job, object_key: str) -> str | None:
    try:
        return call.link(object_key, job.media_expires_at_ms).url
    except ServiceError:
        # The record is remembered longer than its media are kept.
        return None


_ID: Final = {"id": PathPart("The id that the create request answered.", 1842)}
_REQUEST: Final[dict[str, Any]] = {
    "generation_type": "image",
    "model_name": "seedream-5.0-lite",
    "prompt": "A neon city skyline at dusk",
    "settings": {"aspect_ratio": "16:9"},
    "project_id": None,
}
_PENDING: Final[dict[str, Any]] = {
    "id": 1842,
    "user_id": 17,
    "generation_type": "image",
    "model_name": "seedream-5.0-lite",
    "prompt": "A neon city skyline at dusk",
    "status": "pending",
    "credit_cost": 5,
    "created_at": "2026-06-07T12:00:00Z",
    "outputs": [],
}
_COMPLETED: Final[dict[str, Any]] = {
    **_PENDING,
    "status": "completed",
    "outputs": [
        {
            "type": "image",
            "url": "https://api.example.com/media/image.png?expires=1780920000&signature=…",
            "mime_type": "image/png",
            "width": 1280,
            "height": 720,
        }
    ],
}
_VOICE: Final[dict[str, Any]] = {
    **_PENDING,
    "id": 2024,
    "generation_type": "voice",
    "model_name": "eleven-multilingual-v2",
    "prompt": "Good evening, and welcome aboard.",
    "status": "completed",
    "credit_cost": 3,
    "outputs": [
        {
            "type": "voice",
            "url": "https://api.example.com/media/voice.mp3?expires=1780920000&signature=…",
            "mime_type": "audio/mpeg",
            "duration": 2.4,
        }
    ],
}
_TEXT: Final[dict[str, Any]] = {
    **_PENDING,
    "id": 2025,
    "generation_type": "text",
    "model_name": "gpt-5-mini",
    "prompt": "A slogan for a ferry line",
    "status": "completed",
    "credit_cost": 2,
    "outputs": [{"type": "text", "text": "Cross calmly."}],
}
_FAILED: Final[dict[str, Any]] = {
    **_PENDING,
    "status": "failed",
    "credit_cost": 0,
    "error": "The generation failed. Your credits were returned; please try again.",
}

_MODELS: Final = Operation(
    summary="List the models",
    description="What can be asked for, at what cost, and what each model lets you set, as JSON Schema.",
    query=ModelsQuery,
    reply=Reply(
        200,
        "The models.",
        list[ModelView],
        {
            "models": [
                {
                    "name": "seedream-5.0-lite",
                    "generation_type": "image",
                    "credit_cost": 5,
                    "settings": schema_of("seedream-5.0-lite"),
                }
            ]
        },
    ),
    errors=("400", "401", "429", "503"),
)
_CREATE: Final = Operation(
    summary="Generate",
    description="Accepts one generation. Its cost is reserved at once, charged when it completes, and returned in full if it "
    "fails.",
    request=GenerationRequest,
    example=_REQUEST,
    more_examples={
        "video": {
            "generation_type": "video",
            "model_name": "seedance-2.0-fast",
            "prompt": "A paper boat in the rain",
            "settings": {"aspect_ratio": "9:16", "duration": 6, "generate_audio": True},
        },
        "voice": {
            "generation_type": "voice",
            "model_name": "eleven-multilingual-v2",
            "prompt": "Good evening, and welcome aboard.",
            "settings": {"voice": "george", "format": "mp3"},
        },
        "music": {
            "generation_type": "music",
            "model_name": "eleven-music-v1",
            "prompt": "A slow waltz for piano and strings",
            "settings": {"duration": 30},
        },
        "infographic": {
            "generation_type": "infographic",
            "model_name": "infographic-1",
            "prompt": "Passengers by quarter: Q1 20, Q2 35, Q3 45, Q4 30",
            "settings": {"style": "bold"},
        },
        "text": {
            "generation_type": "text",
            "model_name": "gpt-5-mini",
            "prompt": "A slogan for a ferry line",
            "settings": {"max_words": 20},
        },
    },
    reply=Reply(201, "The generation was accepted.", Generation, {"pending": _PENDING}),
    errors=("400", "401", "402", "409", "413", "429", "503"),
)
_LIST: Final = Operation(
    summary="List generations",
    description="The history, newest first, in pages.",
    query=HistoryQuery,
    reply=Reply(
        200, "A page.", History, {"page": {"items": [_COMPLETED], "total": 1, "page": 1, "page_size": 20}}
    ),
    errors=("400", "401", "429", "503"),
)
_GET: Final = Operation(
    summary="Get a generation",
    description="The full record. Each read gives fresh links, for as long as the media are kept.",
    reply=Reply(
        200,
        "The record.",
        Generation,
        {"pending": _PENDING, "completed": _COMPLETED, "voice": _VOICE, "text": _TEXT, "failed": _FAILED},
    ),
    errors=("401", "404", "429", "503"),
    path=_ID,
)
_STATUS: Final = Operation(
    summary="Get the status of a generation",
    description="No older than two seconds. Ask every few seconds until it is `completed` or `failed`.",
    reply=Reply(
        200,
        "The status.",
        GenerationStatus,
        {"completed": {"id": 1842, "status": "completed", "progress": 100}},
    ),
    errors=("401", "404", "429", "503"),
    path=_ID,
)
_DELETE: Final = Operation(
    summary="Delete a generation",
    description="Takes the record and its media away. One that runs is cancelled, and its credits are returned.",
    reply=Reply(204, "It is gone.", None, {}),
    errors=("401", "404", "429", "503"),
    path=_ID,
)

ROUTES: Final = (
    Route("listModels", "GET", _MODELS_PATH, list_models, _MODELS),
    Route(
        "createGeneration",
        "POST",
        "/api/v1/generations",
        create_generation,
        _CREATE,
        creates=True,
        reads_body=True,
        deadline_s=CREATE_DEADLINE_S,
    ),
    Route("listGenerations", "GET", "/api/v1/generations", list_generations, _LIST),
    Route("getGenerationStatus", "GET", "/api/v1/generations/{id}/status", get_status, _STATUS),
    Route("getGeneration", "GET", "/api/v1/generations/{id}", get_generation, _GET),
    Route("deleteGeneration", "DELETE", "/api/v1/generations/{id}", delete_generation, _DELETE),
)
