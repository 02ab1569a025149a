"""Films and sounds among a job's references: how they are fetched, bounded, judged, and handed to the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.chassis.database import Database, migrate
from services.chassis.errors import ServiceError
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool.adapters.costs import PerImage
from services.provider_pool.adapters.interface import (
    Capability,
    Generation,
    Kind,
    ModelSpec,
    Range,
    Reference,
    ReferenceCapability,
    ReferenceFile,
    ReferenceLimits,
    ReferenceRole,
    Strength,
)
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.states import FailureReason, NextStep
from services.provider_pool.references import preparation as rules
from services.provider_pool.references import requests
from services.provider_pool.settings import MIGRATIONS
from tests.unit.reference_house import House, image
from tests.unit.test_pool_calls import PICTURE, ToyAdapter

LIMITS = ReferenceLimits(frozenset({"png"}), 10_000, 9, False, 3, 50_000, 3, 20_000)
FILM = b"\0\0\0\x18ftypisom" + bytes(16)
SOUND = b"ID3\4" + bytes(28)
BY_PATH = {"film": FILM, "sound": SOUND, "cat": image()}
TAKES = ReferenceCapability(9, Range(8, 4_000), 3, Range(256, 1_280), 3, Range(1_000, 15_000), frames=True)
ID = "ref_01jz8b7q4x8k2p9w3m5c6n7r8s"


class FilmAdapter(ToyAdapter):
    """Takes films and sounds as well."""

    takes = TAKES

    def models(self) -> Sequence[ModelSpec]:
        capability = Capability(Range(1, 100), references=self.takes)
        return [ModelSpec("picture", "p", Kind.IMAGE, capability, PerImage({"": 100}))]


def reference(path: str, role: ReferenceRole) -> Reference:
    return Reference(Strength.MID, f"https://media.example.com/{path}", role=role)


def following(*references: Reference, limits: ReferenceLimits = LIMITS) -> Generation:
    return replace(PICTURE, references=references, reference_limits=limits)


ALL = following(
    reference("cat", ReferenceRole.FIRST_FRAME),
    reference("film", ReferenceRole.VIDEO),
    reference("sound", ReferenceRole.AUDIO),
)
FILM_ALONE = following(reference("film", ReferenceRole.VIDEO))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    running = House(database, tmp_path / "references", FilmAdapter())
    await running.toy.account()

    async def answer(url: str) -> bytes:
        return BY_PATH[url.rpartition("/")[2]]

    running.egress.answer = answer
    yield running
    await running.close()
    await database.close()


async def test_each_medium_is_fetched_within_its_own_time_and_size(house: House) -> None:
    assert await house.prepare(ALL) is None
    allowed = dict(zip(house.egress.fetched, house.egress.allowed, strict=True))
    assert allowed == {
        "https://media.example.com/cat": (15.0, 10_000),
        "https://media.example.com/film": (60.0, 50_000),
        "https://media.example.com/sound": (15.0, 20_000),
    }


async def test_the_provider_gets_each_file_with_its_role_type_size_and_length(house: House) -> None:
    await house.prepare(ALL)
    files = [file for file in await house.files("job_1", ALL) if isinstance(file, ReferenceFile)]
    assert [(one.role, one.content_type, one.width, one.duration_ms) for one in files] == [
        (ReferenceRole.FIRST_FRAME, "image/png", 64, 0),
        (ReferenceRole.VIDEO, "video/mp4", 640, 4_000),
        (ReferenceRole.AUDIO, "audio/mpeg", 0, 2_000),
    ]
    assert [one.path.suffix for one in files] == [".png", ".mp4", ".mp3"]


async def test_the_same_file_in_another_role_is_another_question(house: House) -> None:
    await house.prepare(ALL)
    files = await house.files("job_1", ALL)
    references = (replace(ALL.references[0], role=ReferenceRole.LAST_FRAME), *ALL.references[1:])
    other = replace(ALL, references=references)
    assert codec.fingerprint(ALL, files) != codec.fingerprint(other, files)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (image(), "unknown_format"),
        (SOUND + bytes(64), "format_not_taken"),
        (FILM + b"broken", "truncated"),
        (FILM + bytes(50_000), "too_many_bytes"),
        (b"", "empty"),
    ],
)
async def test_what_is_no_film_fails_the_job_as_an_image_would(
    house: House, monkeypatch: pytest.MonkeyPatch, content: bytes, rule: str
) -> None:
    monkeypatch.setitem(BY_PATH, "film", content)
    failure = await house.prepare(FILM_ALONE)
    assert failure is not None
    assert (failure.reason, failure.next_step) == (FailureReason.INVALID_REFERENCE, NextStep.FAIL)
    assert failure.detail.endswith(rule)
    assert house.left() == []


async def test_where_films_cannot_be_examined_none_is_fetched(house: House) -> None:
    house.recordings.installed = False
    failure = await house.prepare(ALL)
    assert failure is not None
    assert (failure.reason, failure.next_step) == (FailureReason.REFERENCE_UNAVAILABLE, NextStep.FAIL)
    assert "https://media.example.com/film" not in house.egress.fetched


async def test_a_film_and_images_of_one_request_share_its_allowance(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "REQUEST_LIMIT_BYTES", len(image()) + len(FILM) + len(SOUND) - 1)
    failure = await house.prepare(ALL)
    assert failure is not None
    assert failure.detail.endswith("too_many_bytes_in_all")


@pytest.mark.parametrize(
    "takes",
    [
        replace(TAKES, video_sides_px=Range(720, 1_280)),
        replace(TAKES, durations_ms=Range(5_000, 15_000)),
        replace(TAKES, durations_ms=Range(1_000, 3_000)),
    ],
    ids=["too small", "too short", "too long"],
)
async def test_a_film_that_the_model_does_not_take_fails_the_job(
    house: House, monkeypatch: pytest.MonkeyPatch, takes: ReferenceCapability
) -> None:
    suits = takes.suits
    monkeypatch.setattr(ReferenceCapability, "suits", lambda _, file: suits(file))
    failure = await house.prepare(FILM_ALONE)
    assert failure is not None
    assert failure.reason == FailureReason.REFERENCE_UNSUITABLE


@pytest.mark.parametrize(
    ("references", "takes"),
    [
        ([ReferenceRole.IMAGE] * 9 + [ReferenceRole.VIDEO] * 3 + [ReferenceRole.AUDIO] * 3, True),
        ([ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME], True),
        ([ReferenceRole.IMAGE] * 10, False),
        ([ReferenceRole.IMAGE] * 9 + [ReferenceRole.FIRST_FRAME], False),
        ([ReferenceRole.VIDEO] * 4, False),
        ([ReferenceRole.AUDIO] * 4, False),
    ],
)
def test_a_model_takes_so_many_of_each(references: list[ReferenceRole], takes: bool) -> None:
    named = [Reference(url="u", role=role) for role in references]
    assert TAKES.takes(named) is takes
    assert not ReferenceCapability(images=9).takes([Reference(url="u", role=ReferenceRole.VIDEO)])
    assert not ReferenceCapability(images=9).takes([Reference(url="u", role=ReferenceRole.LAST_FRAME)])


def wire(*references: pb.Reference, **limits: Any) -> pb.Generation:
    known = pb.ReferenceLimits(
        image_formats=["png"],
        image_bytes=1,
        **({"images": 1, "videos": 1, "video_bytes": 5, "audios": 1, "audio_bytes": 5} | limits),
    )
    return pb.Generation(references=references, reference_limits=known)


def named(role: int, **source: str) -> pb.Reference:
    return pb.Reference(
        role=pb.Reference.Role.ValueType(role), strength=pb.Reference.STRENGTH_MID, **(source or {"url": "u"})
    )


VIDEO, AUDIO = pb.Reference.ROLE_VIDEO, pb.Reference.ROLE_AUDIO


def test_every_role_arrives_as_it_was_sent() -> None:
    sent = [named(role) for role in pb.Reference.Role.values() if role]
    found, limits = requests.references(wire(*sent, images=3))
    assert [one.role for one in found] == list(ReferenceRole)
    assert limits == ReferenceLimits(frozenset({"png"}), 1, 3, False, 1, 5, 1, 5)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (wire(named(VIDEO), named(VIDEO)), "generation.references"),
        (wire(named(AUDIO), named(AUDIO)), "generation.references"),
        (wire(named(VIDEO), videos=0), "generation.references"),
        (wire(named(VIDEO, reference_id=ID)), "generation.references.reference_id"),
        (wire(named(6)), "generation.references.role"),
        (wire(named(VIDEO), video_bytes=0), "generation.reference_limits.video_bytes"),
        (wire(named(VIDEO), video_bytes=2**40), "generation.reference_limits.video_bytes"),
        (wire(named(AUDIO), audio_bytes=-1), "generation.reference_limits.audio_bytes"),
        (wire(named(AUDIO), audios=33), "generation.reference_limits.audios"),
    ],
)
def test_an_odd_role_or_limit_is_refused_by_its_field(message: pb.Generation, field: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        requests.references(message)
    assert refusal.value.metadata["field"] == field
