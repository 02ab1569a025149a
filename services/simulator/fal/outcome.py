"""What a request of the queue has come to: its status, its result or its failure, and its webhook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from services.chassis.clock import rfc3339
from services.simulator.drawings import Film, Picture
from services.simulator.fal import errors
from services.simulator.tasks import ENDED, State, Task
from services.simulator.world import World

# How long payloads can be read, by whether storage is on; smaller results live longer than that without it.
_STORED_MS: Final = 30 * 24 * 3600 * 1000
_UNSTORED_MS: Final = 3600 * 1000
_POLICY: Final = (
    "The content could not be processed because it contained material flagged by a content checker."
)


def failure_of(task: Task) -> errors.Refusal | None:
    """Why an ended request has no output; None when it succeeded."""
    if task.state is State.SUCCEEDED:
        return None
    if task.state is State.CANCELED:
        return errors.NOT_STARTED if task.facts.get("is_late") else errors.CANCELLED
    if (findings := task.facts.get("findings")) is not None:
        return errors.Refusal(422, {"detail": findings}, str(findings[0]["type"]))
    if task.is_moderated:
        return errors.model_refused(("body", "prompt"), _POLICY, "content_policy_violation", task.prompt)
    return errors.model_refused(
        ("body",), "The model failed to generate.", "downstream_service_error", status=500
    )


def is_purged(task: Task, now_ms: int) -> bool:
    """Whether the payload of an ended request is gone."""
    kept_ms = _STORED_MS if task.facts["is_stored"] else _UNSTORED_MS
    return task.ended_ms is not None and now_ms >= task.ended_ms + kept_ms


def status(task: Task, world: World, *, with_logs: bool) -> tuple[int, dict[str, Any]]:
    """HTTP status and body: 202 while it goes on, 200 when it has ended, however it ended."""
    shown = task.shown(world.now_ms())
    body: dict[str, Any] = {"request_id": task.id, "response_url": address(task)}
    if shown is State.QUEUED:
        # One that has gone back to the queue is shown at its head.
        position = world.tasks.place(task) if task.state is State.QUEUED else 0
        return 202, {"status": "IN_QUEUE", **body, "queue_position": position}
    body["logs"] = list(_logs(task)) if with_logs else None
    if shown not in ENDED:
        return 202, {"status": "IN_PROGRESS", **body}
    body = {"status": "COMPLETED", **body, "metrics": {"inference_time": _seconds(task)}}
    if failure := failure_of(task):
        body |= {"error": _sentence(failure), "error_type": failure.error_type}
    return 200, body


async def result(task: Task, world: World) -> dict[str, Any]:
    """The output of a request that succeeded."""
    if task.kind == "image":
        images = [_picture(task, file.drawing, file.url(task.base_url)) for file in task.files]
        return {"images": images, **_of_model(task)}
    video = None
    for file in task.files:
        content = await world.studio.draw(file.drawing)
        video = {
            "url": file.url(task.base_url),
            "content_type": file.drawing.content_type,
            "file_name": f"output.{file.drawing.extension}",
            "file_size": len(content),
        }
    return {"video": video, "seed": task.facts["seed"]}


async def webhook(task: Task, world: World) -> dict[str, Any]:
    """What is posted when a request has ended."""
    failure = failure_of(task)
    body: dict[str, Any] = {"request_id": task.id, "gateway_request_id": task.id}
    if failure is None:
        return {**body, "status": "OK", "payload": await result(task, world)}
    detail = failure.body["detail"]
    payload = {"detail": detail} if isinstance(detail, list) else None
    return {**body, "status": "ERROR", "error": _sentence(failure), "payload": payload}


def address(task: Task) -> str:
    """Where the result is: owner and application only, whatever the endpoint's path."""
    return f"{task.base_url}/fal/queue/{task.facts['app']}/requests/{task.id}"


def _logs(task: Task) -> Iterable[dict[str, str]]:
    if task.started_ms is not None:
        yield _line(task.started_ms, "Generation started")
    if task.ended_ms is not None:
        yield _line(task.ended_ms, "Generation ended")


def _line(at_ms: int, message: str) -> dict[str, str]:
    return {"message": message, "level": "INFO", "source": "USER", "timestamp": rfc3339(at_ms)}


def _seconds(task: Task) -> float:
    if task.started_ms is None or task.ended_ms is None:
        return 0.0
    return (task.ended_ms - task.started_ms) / 1000


def _sentence(failure: errors.Refusal) -> str:
    detail = failure.body["detail"]
    return str(detail[0]["msg"]) if isinstance(detail, list) else str(detail)


def _picture(task: Task, drawing: object, url: str) -> dict[str, Any]:
    assert isinstance(drawing, Picture | Film)
    return {
        "url": url,
        "width": drawing.width,
        "height": drawing.height,
        "content_type": drawing.content_type,
        "file_name": f"output.{drawing.extension}",
    }


def _of_model(task: Task) -> dict[str, Any]:
    if not task.model.startswith("fal-ai/flux"):
        return {}
    return {
        "seed": task.facts["seed"],
        "has_nsfw_concepts": [False for _ in task.files],
        "timings": {"inference": _seconds(task)},
        "prompt": task.prompt,
    }
