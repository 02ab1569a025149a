"""Inline references: taken in piece by piece, bounded, and nothing of them left where they are not taken."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.database import Database, migrate
from services.chassis.errors import Kind, ServiceError
from services.provider_pool.adapters.interface import (
    Reference,
    Strength,
)
from services.provider_pool.attempts.states import FailureReason
from services.provider_pool.references import staging as staging_rules
from services.provider_pool.references.staging import punctual
from services.provider_pool.settings import MIGRATIONS
from tests.unit.reference_house import LIMITS, House, image, pieces, stalls
from tests.unit.test_pool_calls import PICTURE, ToyAdapter


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    house = House(database, tmp_path / "references", ToyAdapter())
    await house.toy.account()
    yield house
    await house.close()


async def test_an_upload_becomes_a_reference_of_a_job(house: House) -> None:
    content = image("inline")
    staged = await house.staging.stage("picture", LIMITS, pieces(content))
    assert staged.received_sha256 == hashlib.sha256(content).digest()
    wanted = replace(
        PICTURE,
        references=(Reference(Strength.HIGH, reference_id=staged.reference_id),),
        reference_limits=LIMITS,
    )
    assert await house.prepare(wanted) is None
    (file,) = await house.files("job_1", wanted)
    assert file is not None
    assert (file.path.read_bytes(), file.strength) == (content, Strength.HIGH)
    await house.preparation.drop("", [staged.reference_id])
    failure = await house.prepare(wanted)
    assert failure is not None
    assert failure.reason is FailureReason.REFERENCE_UNAVAILABLE


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"GIF89a" + bytes(100), "format_not_taken"),
        (image("broken"), "bad_checksum"),
        (image("x" * 10_000), "too_many_bytes"),
        (image(width=7), "unsuitable_size"),
        (b"", "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_upload_that_is_not_taken_names_the_rule_and_leaves_nothing(
    house: House, content: bytes, rule: str
) -> None:
    with pytest.raises(ServiceError) as refusal:
        await house.stage(content)
    assert (refusal.value.reason, refusal.value.metadata["rule"]) == ("REFERENCE_REFUSED", rule)
    assert house.left() == []


async def test_a_size_is_no_matter_for_a_model_that_takes_no_references_at_all(house: House) -> None:
    assert await house.stage(image(width=7), model="nobody's")


async def test_an_upload_of_too_many_bytes_is_heard_out_so_far_and_no_further(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_rules, "HEARD_OUT_BYTES", 20_000)
    seen = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        yield image()
        while True:
            seen += 1000
            yield bytes(1000)

    with pytest.raises(ServiceError) as refusal:
        await house.staging.stage("picture", LIMITS, endless())
    assert refusal.value.metadata["rule"] == "too_many_bytes"
    assert seen <= 32_000


async def test_uploads_beyond_the_bound_are_refused_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_rules, "UPLOADS_LIMIT", 2)
    waiting = [asyncio.create_task(house.staging.stage("picture", LIMITS, stalls(image()))) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(ServiceError) as refusal:
        await house.stage(image())
    assert refusal.value.kind is Kind.RESOURCE_EXHAUSTED
    for upload in waiting:
        upload.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await house.stage(image())


async def test_an_upload_that_pauses_or_drags_on_is_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_rules, "PIECE_S", 0.05)
    with pytest.raises(ServiceError) as refusal:
        await house.staging.stage("picture", LIMITS, punctual(stalls(image())))
    assert refusal.value.kind is Kind.DEADLINE_EXCEEDED
    monkeypatch.setattr(staging_rules, "UPLOAD_S", 0.05)
    with pytest.raises(ServiceError) as refusal:
        await house.staging.stage("picture", LIMITS, stalls(image()))
    assert refusal.value.kind is Kind.DEADLINE_EXCEEDED
    assert house.left() == []


async def test_a_stream_that_breaks_leaves_nothing(house: House) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield image()
        raise RuntimeError("the gateway is gone")

    with pytest.raises(RuntimeError):
        await house.staging.stage("picture", LIMITS, breaking())
    assert house.left() == []
