"""Crash points: what a listener is told, and that nothing in production can listen."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TypeVar

import pytest

from services.chassis import crash_points
from services.provider_pool.selection.leases import GiveBack
from tests.tidy.source import SERVICES, modules, name, parsed

T = TypeVar("T")


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The points that are passed, in order."""
    told: list[str] = []
    monkeypatch.setattr(crash_points, "_listener", None)
    crash_points.listen(lambda point, subject: told.append(f"{point} {subject}".strip()))
    return told


def test_a_point_is_told_with_its_parts_and_whose_it_is(passed: list[str]) -> None:
    crash_points.reached("provider", "submit", "before", subject="job_1:1")
    assert passed == ["provider.submit.before job_1:1"]


def test_a_batch_passes_one_point_for_each_kind_that_it_carries(passed: list[str]) -> None:
    crash_points.reached_by(["lease", "hold", "lease"], str, "after")
    assert passed == ["commit.hold.after", "commit.lease.after"]


def test_an_item_is_named_by_its_class() -> None:
    assert crash_points.kind_of(GiveBack("job_1:1")) == "give_back"


async def test_a_transaction_passes_before_its_commit_and_after_it(passed: list[str]) -> None:
    async def write(work: Callable[[str], T]) -> T:
        result = work("connection")
        passed.append("COMMIT")
        return result

    def claim(connection: str) -> str:
        passed.append(f"work on the {connection}")
        return "jobs"

    assert await crash_points.committed(write, "claim", claim) == "jobs"
    assert passed == ["work on the connection", "commit.claim.before", "COMMIT", "commit.claim.after"]


def test_no_service_listens_to_its_own_points() -> None:
    listeners = [
        f"{name(path)}:{node.lineno}"
        for path in modules()
        if path.is_relative_to(SERVICES)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "crash_points.listen"
    ]
    assert listeners == []
