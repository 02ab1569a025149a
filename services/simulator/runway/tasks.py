"""A task as Runway shows it, and its links, which every read renews."""

from __future__ import annotations

from typing import Any, Final

from services.chassis.clock import rfc3339
from services.simulator.faults import Fault
from services.simulator.tasks import ENDED, State, Task
from services.simulator.world import World

# A link lives for a day; it is renewed when half of that has gone.
LINK_S: Final = 24 * 3600.0
_RENEWED_MS: Final = 12 * 3600 * 1000
# A task that has just got its slot is not at work yet.
_BEGINNING: Final = 0.05


def shown(task: Task, world: World) -> dict[str, Any]:
    """The whole object, with the members of its state only."""
    now_ms = world.now_ms()
    state = _state(task, now_ms)
    body: dict[str, Any] = {"id": task.id, "createdAt": rfc3339(task.created_ms), "status": state}
    if task.state not in ENDED:
        body["estimatedCost"] = {"credits": int(task.cost)}
        return {**body, "progress": round(task.progress(now_ms), 3)} if state == "RUNNING" else body
    body["cost"] = {"credits": int(task.charged)}
    if task.state is State.SUCCEEDED:
        _renew(task, world)
        body["output"] = [file.url(task.base_url) for file in task.files]
    elif task.state is State.FAILED:
        body |= _failure(task)
    return body


def _state(task: Task, now_ms: int) -> str:
    if task.state is State.QUEUED:
        return "THROTTLED"
    if task.state is State.RUNNING:
        is_beginning = task.progress(now_ms) < _BEGINNING
        return "PENDING" if is_beginning or task.shown(now_ms) is State.QUEUED else "RUNNING"
    return {State.SUCCEEDED: "SUCCEEDED", State.FAILED: "FAILED"}.get(task.state, "CANCELLED")


def _failure(task: Task) -> dict[str, str]:
    if code := task.facts.get("failure_code"):
        return {"failure": "The input did not pass moderation.", "failureCode": str(code)}
    if task.is_moderated:
        code = "SAFETY.OUTPUT.IMAGE" if task.kind == "image" else "SAFETY.OUTPUT.VIDEO"
        return {"failure": "The output did not pass moderation.", "failureCode": code}
    return {"failure": "An unexpected error occurred.", "failureCode": "INTERNAL.BAD_OUTPUT.CODE01"}


def _renew(task: Task, world: World) -> None:
    """Puts fresh links in the place of old ones; an expired one is shown once where that is the fault."""
    is_first_read = not task.facts.get("was_read")
    task.facts["was_read"] = True
    if Fault.OUTPUT_EXPIRED in task.faults and is_first_read:
        return
    now_ms = world.now_ms()
    task.files = [
        world.files.publish(
            file.provider,
            file.key,
            file.drawing,
            expires_ms=now_ms + round(LINK_S * 1000),
            has_wrong_type=file.has_wrong_type,
        )
        if file.expires_ms is not None and file.expires_ms - now_ms < _RENEWED_MS
        else file
        for file in task.files
    ]
