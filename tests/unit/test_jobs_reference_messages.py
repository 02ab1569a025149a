"""References as a job keeps them: every role and limit comes in, is counted, and goes on to the pool as it came."""

from __future__ import annotations

from typing import Any

import pytest

from services.chassis.errors import ServiceError
from services.gen.jobs.v1 import jobs_pb2 as pb
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from services.jobs.reference import ReferenceLimits, Role
from services.jobs.reference_messages import pool_limits, pool_reference, references_of

ROLES = [role for role in pb.Reference.Role.values() if role]


def asking(*roles: int, **limits: int) -> pb.Generation:
    known: dict[str, Any] = {
        "images": 9,
        "videos": 3,
        "video_bytes": 500,
        "audios": 3,
        "audio_bytes": 50,
    } | limits
    references = [
        pb.Reference(
            role=pb.Reference.Role.ValueType(role),
            strength=pb.Reference.STRENGTH_HIGH,
            url="https://a.example/b",
        )
        for role in roles
    ]
    return pb.Generation(
        references=references,
        reference_limits=pb.ReferenceLimits(image_formats=["png"], image_bytes=10, **known),
    )


def test_every_role_and_limit_goes_to_the_pool_as_it_came() -> None:
    asked = asking(*ROLES)
    references, limits = references_of(asked)
    assert limits is not None
    for came, kept in zip(asked.references, references, strict=True):
        assert pool_reference(kept).SerializeToString() == came.SerializeToString()
    assert pool_limits(limits).SerializeToString() == asked.reference_limits.SerializeToString()
    assert [reference.role for reference in references] == list(Role)
    assert {role.name for role in Role} == {
        name.removeprefix("ROLE_") for name, value in pool.Reference.Role.items() if value
    }


@pytest.mark.parametrize(
    "roles",
    [
        [pb.Reference.ROLE_IMAGE] * 10,
        [pb.Reference.ROLE_IMAGE] * 8 + [pb.Reference.ROLE_FIRST_FRAME, pb.Reference.ROLE_LAST_FRAME],
        [pb.Reference.ROLE_VIDEO] * 4,
        [pb.Reference.ROLE_AUDIO] * 4,
    ],
)
def test_more_of_a_medium_than_the_storefront_takes_are_refused(roles: list[int]) -> None:
    with pytest.raises(ServiceError) as refusal:
        references_of(asking(*roles))
    assert refusal.value.metadata["field"] == "generation.references"
    references, _ = references_of(asking(*roles[1:]))
    assert len(references) == len(roles) - 1


@pytest.mark.parametrize("medium", ["video", "audio"])
def test_a_medium_that_is_taken_has_a_limit_of_bytes(medium: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        references_of(asking(pb.Reference.ROLE_IMAGE, **{f"{medium}_bytes": 0}))
    assert refusal.value.metadata["field"] == f"generation.reference_limits.{medium}_bytes"


def test_limits_that_know_no_films_take_none() -> None:
    assert ReferenceLimits(("png",), 10, 1).allow(())
    with pytest.raises(ServiceError):
        references_of(asking(pb.Reference.ROLE_VIDEO, videos=0))
