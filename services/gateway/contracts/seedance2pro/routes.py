"""Routes: the handlers, what the documentation says of them, and the contract itself."""

from __future__ import annotations

from typing import Final

from services.gateway import reading
from services.gateway.contract import (
    CREATE_DEADLINE_S,
    Answer,
    Call,
    Contract,
    Operation,
    Reply,
    Route,
    Tracking,
)
from services.gateway.contracts.seedance2pro import inward, outward
from services.gateway.contracts.seedance2pro.errors import ERROR_CODES, error_example, render_error
from services.gateway.contracts.seedance2pro.guide import GUIDE
from services.gateway.contracts.seedance2pro.wire import (
    AcceptedTask,
    ErrorBody,
    TaskQuery,
    TaskRequest,
    TaskView,
)
from services.gateway.creating import Order, create, replay_headers

_ID: Final = "task_01jz8b7q4x8k2p9w3m5c6n7r8s"


async def create_task(call: Call) -> Answer:
    reading.require_json(call.request)
    task = inward.read(call.body.json)
    order = Order(
        inward.job(task),
        compared=lambda identities: inward.compared(task, identities),
        references=inward.references(task),
        limits=inward.LIMITS,
    )
    answer = await create(call, order)
    return Answer(200, outward.accepted(answer), replay_headers(answer))


async def get_task(call: Call) -> Answer:
    task_id = inward.task_id(call.request)
    job = await call.house.backends.job(call.caller, task_id, tell_of_others=True)
    return Answer(200, outward.view(job, call.link))


_CREATE: Final = Operation(
    summary="Create a task",
    description="Accepts one video. Its price is reserved at once, charged when it is ready, and returned in full if it "
    "fails. With an `Idempotency-Key` header a repeated request answers the first task instead of making another.",
    request=TaskRequest,
    example={
        "model": "wan22-video-generation",
        "inputs": {
            "model": "seedance-20",
            "prompt": "A paper boat sails down a rainy street",
            "resolution": "1280x720",
            "duration": "5s",
        },
    },
    more_examples={
        "firstAndLastFrame": {
            "model": "wan22-video-generation",
            "inputs": {
                "model": "seedance-20",
                "prompt": "The flower opens",
                "videoInputMode": "keyframe",
                "urls": ["https://example.com/closed.png", "https://example.com/open.png"],
                "duration": "8s",
            },
            "callBackUrl": "https://example.com/hooks/tasks",
        },
        "references": {
            "model": "seedance-20",
            "inputs": {
                "prompt": "The bottle of @1 moves as in @2",
                "videoInputMode": "reference",
                "urls": ["https://example.com/bottle.png"],
                "videoUrls": ["https://example.com/motion.mp4"],
                "duration": 5,
            },
        },
    },
    reply=Reply(200, "The task was accepted.", AcceptedTask, {"accepted": {"taskId": _ID}}),
    errors=(
        "Invalid request parameters",
        "Invalid inputs for model",
        "Unsupported NewAPI workflow",
        "Insufficient credits",
        "Access denied",
        "Idempotency key already used with different parameters",
        "Payload too large",
        "Concurrency limit reached",
    ),
)
_WAITING: Final = {
    "taskId": _ID,
    "model": "seedance20-video-generation",
    "status": "waiting",
    "state": "waiting",
    "creditsUsed": 200,
    "output": None,
    "error": None,
    "createTime": 1735599634000,
    "completeTime": None,
}
_GET: Final = Operation(
    summary="Get a task",
    description="The task as it stands, no older than two seconds. Ask every few seconds until `status` is `success` or "
    "`fail`; it goes from `waiting` to `generating` to one of these, and never back.",
    reply=Reply(
        200,
        "The task as it stands.",
        TaskView,
        {
            "waiting": _WAITING,
            "success": {
                **_WAITING,
                "status": "success",
                "state": "success",
                "output": [{"url": "https://api.example.com/media/video.mp4", "width": 1280, "height": 720}],
                "completeTime": 1735599754000,
            },
            "fail": {
                **_WAITING,
                "status": "fail",
                "state": "fail",
                "creditsUsed": 0,
                "error": "Task execution failed",
                "completeTime": 1735599754000,
            },
        },
    ),
    errors=("Missing taskId parameter", "Access denied", "Task not found"),
    query=TaskQuery,
)

CONTRACT: Final = Contract(
    name="seedance2pro",
    title="Atelier Video Tasks API",
    summary="Videos as tasks: make one, ask for its record, or be told when it has ended.",
    paths=("/api/v1/jobs",),
    key_prefixes=("zimg_",),
    routes=(
        Route(
            "createTask",
            "POST",
            "/api/v1/jobs/createTask",
            create_task,
            _CREATE,
            creates=True,
            deadline_s=CREATE_DEADLINE_S,
        ),
        Route("recordInfo", "GET", "/api/v1/jobs/recordInfo", get_task, _GET),
    ),
    render_error=render_error,
    error_body=ErrorBody,
    error_codes=ERROR_CODES,
    error_example=error_example,
    common_errors=(
        "Missing Authorization header",
        "Invalid API Key",
        "API access not enabled for this account",
        "Rate limit exceeded",
        "Internal server error",
        "Model temporarily unavailable",
    ),
    guide=GUIDE,
    webhook_form=outward.WEBHOOK_FORM,
    tracking=Tracking("taskId", "taskId", "/api/v1/jobs/recordInfo", "status", ("success", "fail")),
)
