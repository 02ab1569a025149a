"""Lists hold what others put there too: one entry that nobody understands hides no other."""

from __future__ import annotations

from typing import Any, Final

import pytest

from services.provider_pool.adapters.ark.adapter import ArkAdapter
from services.provider_pool.adapters.ark.requests import mark_of
from services.provider_pool.adapters.fal.adapter import FalAdapter
from services.provider_pool.adapters.interface import Adapter, Feature, Generation, Kind, Prepared, TaskRef
from services.provider_pool.adapters.leonardo.adapter import LeonardoAdapter
from services.provider_pool.adapters.replicate.adapter import ReplicateAdapter
from tests.adapters.scripted import ScriptedCalls, account, answer, context
from tests.clocks import T0_MS

ADAPTERS: Final[list[Adapter]] = [ArkAdapter(), LeonardoAdapter(), FalAdapter(), ReplicateAdapter()]
FILM: Final = Generation(Kind.VIDEO, "seedance-2.0", "a mill", 1280, 720, 5)
ME: Final = {"user_details": [{"user": {"id": "u"}}]}
AT: Final = "2027-01-15T08:00:02Z"
STRANGE: Final[list[object]] = [
    7,
    None,
    {"id": "odd", "request_id": "odd", "status": 9, "sent_at": {}, "logs": 3},
]


def _entry(adapter: Adapter, prepared: Prepared) -> dict[str, Any]:
    sent = prepared.body
    entries: dict[str, dict[str, Any]] = {
        "ark": {
            "id": "t",
            "status": "running",
            "created_at": 1_800_000_002,
            "safety_identifier": mark_of("a:1"),
        },
        "leonardo": {"id": "t", "status": "PENDING", "createdAt": AT, "prompt": "a mill"},
        "fal": {"request_id": "t", "sent_at": AT, "json_input": sent},
        "replicate": {"id": "t", "status": "starting", "created_at": AT, "input": sent},
    }
    return entries[adapter.name]


def _script(adapter: Adapter, entries: list[object]) -> ScriptedCalls:
    name = {"ark": "items", "leonardo": "generations", "fal": "items", "replicate": "results"}[adapter.name]
    page = answer({name: entries, "next": None})
    return ScriptedCalls(*([answer(ME), page] if adapter.name == "leonardo" else [page]))


def _prepared(adapter: Adapter) -> Prepared:
    return adapter.prepare(FILM, next(spec for spec in adapter.models() if spec.model == FILM.model))


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
async def test_an_attempt_in_doubt_is_found_among_entries_that_nobody_understands(adapter: Adapter) -> None:
    prepared = _prepared(adapter)
    calls = _script(adapter, [*STRANGE, _entry(adapter, prepared)])
    found = await adapter.list_tasks(context(calls), account(adapter.name), prepared, T0_MS, "a:1")
    assert [task.task_id for task in found] == ["t"]


@pytest.mark.parametrize(
    "adapter",
    [one for one in ADAPTERS if Feature.POLL_MANY in one.features],
    ids=lambda adapter: adapter.name,
)
async def test_a_task_that_nobody_understands_keeps_no_other_waiting(adapter: Adapter) -> None:
    odd = {"id": "odd", "status": 9}
    ids = ["t", "odd", "x", "y"]
    entries = [{**_entry(adapter, _prepared(adapter)), "id": one} for one in ids if one != "odd"]
    calls = _script(adapter, [odd, *entries])
    if adapter.name != "ark":
        calls = ScriptedCalls(*calls.left(), answer({"generations_by_pk": odd, **odd}))
    tasks = [TaskRef(one, T0_MS, {"kind": "video", "model": FILM.model}) for one in ids]
    found = await adapter.poll_many(context(calls), account(adapter.name), tasks)
    assert set(found) == set(ids)
