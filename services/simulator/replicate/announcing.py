"""Replicate's webhooks: the whole prediction, at the events that were asked for, signed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from services.simulator.replicate import prediction
from services.simulator.standard_webhooks import secret_of, signed_headers
from services.simulator.tasks import ENDED, State, Task
from services.simulator.world import World

# A few times, in seconds at the real pace; and how long a receiver may take.
_RETRIES_S: Final = (2, 10, 60)
_TIMEOUT_S: Final = 10.0


def announce(task: Task, world: World) -> None:
    """Sends what the state that a task has just come to is worth, once for each event."""
    if not task.facts["webhook"]:
        return
    for event in _events(task):
        if event in task.facts["events"]:
            _send(task, world)


def _events(task: Task) -> list[str]:
    if task.state is State.RUNNING:
        return ["start", "logs"]
    if task.state is State.SUCCEEDED:
        return ["output", "completed"]
    return ["completed"] if task.state in ENDED else []


def _send(task: Task, world: World) -> None:
    body = json.dumps(prediction.shown(task, world)).encode()
    secret = secret_of(world.seed, task.account.user_id)
    message_id = f"msg_{world.new_word(26)}"

    def sent(_attempt: int) -> tuple[bytes, Mapping[str, str]]:
        signed = signed_headers(secret, message_id, world.now_ms() // 1000, body)
        return body, {"Content-Type": "application/json", **signed}

    waits_s = [wait_s / world.pace for wait_s in _RETRIES_S]
    world.hooks.send("replicate", task.facts["webhook"], sent, waits_s=waits_s, timeout_s=_TIMEOUT_S)
