"""References as they come in over the wire: every field is checked and named, and no URL is repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from services.chassis.errors import ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool import admission
from services.provider_pool.adapters.interface import Reference, ReferenceLimits, Strength
from services.provider_pool.references import requests
from tests.integration.pool_process import following

URL = "https://images.example.com/cat.png?key=4711"
ID = "ref_01jz8b7q4x8k2p9w3m5c6n7r8s"


def changed(**changes: Any) -> pb.Generation:
    wanted = following(URL)
    for name, value in changes.items():
        target = wanted.reference_limits if hasattr(wanted.reference_limits, name) else wanted.references[0]
        if isinstance(value, list):
            getattr(target, name)[:] = value
        else:
            setattr(target, name, value)
    return wanted


def without_limits() -> pb.Generation:
    wanted = following(URL)
    wanted.ClearField("reference_limits")
    return wanted


def without_source() -> pb.Generation:
    wanted = following(URL)
    wanted.references[0].ClearField("url")
    return wanted


def test_references_and_their_limits_arrive_as_they_were_sent() -> None:
    found = admission.generation(following(URL, ID, strength=pb.Reference.STRENGTH_LOW, images=9))
    assert found.references == (
        Reference(Strength.LOW, url=URL),
        Reference(Strength.LOW, reference_id=ID),
    )
    assert found.reference_limits == ReferenceLimits(frozenset({"jpeg", "png", "webp"}), 20 * 1024**2, 9)
    assert "4711" not in repr(found)


def test_without_references_there_are_no_limits() -> None:
    wanted = following(URL)
    wanted.ClearField("references")
    assert admission.generation(wanted).reference_limits is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (without_limits(), "generation.reference_limits"),
        (without_source(), "generation.references"),
        (following(URL, URL, images=1), "generation.references"),
        (changed(role=0), "generation.references.role"),
        (changed(strength=0), "generation.references.strength"),
        (changed(strength=9), "generation.references.strength"),
        (changed(url=""), "generation.references.url"),
        (changed(url=URL + "x" * 2_048), "generation.references.url"),
        (changed(reference_id="../../etc/passwd"), "generation.references.reference_id"),
        (changed(reference_id=ID[:-1]), "generation.references.reference_id"),
        (changed(reference_id=ID + "\n"), "generation.references.reference_id"),
        (changed(image_formats=[]), "generation.reference_limits.image_formats"),
        (changed(image_formats=["png", "svg"]), "generation.reference_limits.image_formats"),
        (changed(image_bytes=0), "generation.reference_limits.image_bytes"),
        (changed(image_bytes=-1), "generation.reference_limits.image_bytes"),
        (changed(image_bytes=100 * 1024**2 + 1), "generation.reference_limits.image_bytes"),
        (changed(images=33), "generation.reference_limits.images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_out_of_range_is_named_and_its_url_is_not(wanted: pb.Generation, field: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        admission.generation(wanted)
    assert (refusal.value.reason, refusal.value.metadata["field"]) == ("INVALID_REQUEST", field)
    assert "4711" not in f"{refusal.value} {refusal.value.metadata}"


HEAD = pb.StageReferenceRequest(
    head=pb.StageReferenceRequest.Head(
        limits=pb.ReferenceLimits(image_formats=["png"], image_bytes=1_000, images=1), model="gpt-image-2"
    )
)
PIECE = pb.StageReferenceRequest(content=b"piece")


async def stream(messages: Sequence[pb.StageReferenceRequest]) -> AsyncIterator[pb.StageReferenceRequest]:
    for message in messages:
        yield message


def test_an_upload_begins_with_its_head() -> None:
    assert requests.head(HEAD) == ("gpt-image-2", ReferenceLimits(frozenset({"png"}), 1_000, 1))
    for message in (None, PIECE, pb.StageReferenceRequest()):
        with pytest.raises(ServiceError) as refusal:
            requests.head(message)
        assert refusal.value.metadata["field"] == "head"
    with pytest.raises(ServiceError) as refusal:
        requests.head(pb.StageReferenceRequest(head=pb.StageReferenceRequest.Head(model="gpt-image-2")))
    assert refusal.value.metadata["field"] == "head.limits.image_formats"


@pytest.mark.parametrize(
    "message",
    [HEAD, pb.StageReferenceRequest(), pb.StageReferenceRequest(content=bytes(1024**2 + 1))],
    ids=["a second head", "nothing", "too much at once"],
)
async def test_after_the_head_comes_content_in_bounded_pieces(message: pb.StageReferenceRequest) -> None:
    contents = requests.contents(stream([PIECE, message]))
    assert await anext(contents) == b"piece"
    with pytest.raises(ServiceError) as refusal:
        await anext(contents)
    assert refusal.value.metadata["field"] == "content"


def test_only_ids_of_ours_can_be_dropped_and_not_too_many() -> None:
    assert requests.reference_ids([ID]) == [ID]
    for values in ([""], ["job_1-0"], ["ref_../../etc"], [ID] * 1_001):
        with pytest.raises(ServiceError) as refusal:
            requests.reference_ids(values)
        assert refusal.value.metadata["field"] == "reference_ids"
