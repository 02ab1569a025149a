"""A prediction as Replicate shows it: states, output, logs, and what is left of it after an hour."""

from __future__ import annotations

from typing import Any, Final

from services.chassis.clock import rfc3339
from services.simulator.replicate.models import MODELS
from services.simulator.tasks import ENDED, State, Task
from services.simulator.world import World

# Input, output and logs of predictions that were made through the API are deleted so long after the end.
KEPT_S: Final = 3600
_SENSITIVE: Final = (
    "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
)
_UNKNOWN: Final = "Prediction failed for an unknown reason. It might have run out of memory? (E1000)"
_STATES: Final = {
    State.QUEUED: "starting",
    State.RUNNING: "processing",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
}


def status(task: Task, now_ms: int) -> str:
    """Replicate's word. A deadline that passes before the start aborts, a later one cancels."""
    shown = task.shown(now_ms)
    if shown is State.EXPIRED:
        return "aborted" if task.started_ms is None else "canceled"
    return _STATES.get(shown, "canceled")


def is_removed(task: Task, now_ms: int) -> bool:
    """Whether its data is gone."""
    return task.ended_ms is not None and now_ms >= task.ended_ms + KEPT_S * 1000


def shown(task: Task, world: World) -> dict[str, Any]:
    """The whole object."""
    now_ms = world.now_ms()
    removed = is_removed(task, now_ms)
    return {
        "id": task.id,
        "model": task.model,
        "version": MODELS[task.model].version,
        "input": {} if removed else task.facts["input"],
        "logs": "" if removed else _logs(task, now_ms),
        "output": None if removed else _output(task),
        "data_removed": removed,
        "error": _error(task),
        "source": "api",
        "status": status(task, now_ms),
        "created_at": rfc3339(task.created_ms),
        "started_at": _moment(task.started_ms),
        "completed_at": _moment(task.ended_ms),
        "metrics": _metrics(task),
        "urls": _urls(task),
    }


def in_list(task: Task, world: World) -> dict[str, Any]:
    """As the list shows it: without the logs."""
    whole = shown(task, world)
    del whole["logs"]
    return whole


def _urls(task: Task) -> dict[str, str]:
    own = f"{task.base_url}/replicate/v1/predictions/{task.id}"
    return {
        "get": own,
        "cancel": f"{own}/cancel",
        "stream": f"{task.base_url}/replicate/stream/{task.id}",
        "web": f"https://replicate.com/p/{task.id}",
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)


def _output(task: Task) -> Any:
    urls = [file.url(task.base_url) for file in task.files]
    if task.state is not State.SUCCEEDED:
        return None
    if MODELS[task.model].is_list:
        return urls
    return urls[0] if urls else None


def _error(task: Task) -> str | None:
    if task.state is not State.FAILED:
        return None
    if task.is_moderated:
        return _SENSITIVE
    return str(task.facts.get("error") or _UNKNOWN)


def _logs(task: Task, now_ms: int) -> str:
    """Progress is to be had from here alone, as the bars that models print."""
    if task.started_ms is None:
        return ""
    done = round(task.progress(now_ms) * 100) if task.state not in ENDED else 100
    steps = sorted({0, done // 2, done})
    return f"Using seed: {task.seed}\n" + "".join(
        f"{step:3d}%|{'█' * (step // 10):<10}| {step}/100\n" for step in steps
    )


def _metrics(task: Task) -> dict[str, float]:
    if task.ended_ms is None:
        return {}
    total_s = (task.ended_ms - task.created_ms) / 1000
    if task.started_ms is None:
        return {"total_time": total_s}
    return {"predict_time": (task.ended_ms - task.started_ms) / 1000, "total_time": total_s}
