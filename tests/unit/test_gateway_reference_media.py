"""References as requests bring them: counts, fields, roles, and what stands for each where requests are compared."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from services.chassis.egress_policy import EgressPolicy
from services.chassis.errors import Kind, ServiceError
from services.gateway.backends import Backends
from services.gateway.inline_uploads import Body, InlineUploads
from services.gateway.reference_media import (
    FULL,
    GivenReference,
    ReferenceLimits,
    ReferenceMedia,
    Taken,
)
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool

URL = "https://example.com/{}"
PICTURE = bytes(range(256)) * 3
INLINE = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
ROLE = jobs.Reference


@dataclass
class Pool:
    """Keeps what is staged. `rule`: refuses it by that."""

    rule: str = ""
    heads: list[pool.StageReferenceRequest.Head] = field(default_factory=list)
    staged: list[bytes] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    async def stage_reference(self, parts: AsyncIterator[pool.StageReferenceRequest]) -> str:
        content = b""
        async for part in parts:
            if part.HasField("head"):
                self.heads.append(part.head)
            content += part.content
        if self.rule and self.staged:
            raise ServiceError(
                Kind.INVALID_ARGUMENT, "REFERENCE_REFUSED", "words of another service", {"rule": self.rule}
            )
        self.staged.append(content)
        return f"ref_{len(self.staged)}"

    def drop_references(self, reference_ids: Sequence[str]) -> None:
        self.dropped.extend(reference_ids)


@dataclass
class Desk:
    """Where references are taken in for one request."""

    pool: Pool = field(default_factory=Pool)
    request: jobs.CreateJobRequest = field(default_factory=jobs.CreateJobRequest)

    async def take(self, *given: GivenReference, limits: ReferenceLimits = FULL) -> Taken:
        media = ReferenceMedia(cast("Backends", self.pool), EgressPolicy())
        with InlineUploads(4).place("cus_1") as place:
            return await media.take(given, limits, self.request, Body(b"", {}, place))

    async def refusal(self, *given: GivenReference, limits: ReferenceLimits = FULL) -> tuple[str, str]:
        """The field that is named, and what is said."""
        with pytest.raises(ServiceError) as caught:
            await self.take(*given, limits=limits)
        assert caught.value.reason == "REFERENCE_IMAGE_REFUSED"
        assert not self.request.generation.references
        return caught.value.metadata["field"], caught.value.message


def many(field: str, count: int, role: ROLE.Role.ValueType = ROLE.ROLE_IMAGE) -> list[GivenReference]:
    return [GivenReference(f"{field}[{place}]", URL.format(place), role) for place in range(count)]


async def test_references_of_all_roles_are_taken_in_their_order() -> None:
    desk = Desk()
    taken = await desk.take(
        GivenReference("input.start_image_url", URL.format("a"), ROLE.ROLE_FIRST_FRAME),
        GivenReference("input.end_image_url", INLINE, ROLE.ROLE_LAST_FRAME),
        GivenReference("input.video_url", URL.format("b"), ROLE.ROLE_VIDEO),
        GivenReference("input.audio_urls[0]", URL.format("c"), ROLE.ROLE_AUDIO, ROLE.STRENGTH_HIGH),
    )
    assert taken.identities == (
        URL.format("a"),
        f"sha256:{hashlib.sha256(PICTURE).hexdigest()}",
        URL.format("b"),
        URL.format("c"),
    )
    sent = desk.request.generation.references
    assert [(one.role, one.url, one.reference_id) for one in sent] == [
        (ROLE.ROLE_FIRST_FRAME, URL.format("a"), ""),
        (ROLE.ROLE_LAST_FRAME, "", "ref_1"),
        (ROLE.ROLE_VIDEO, URL.format("b"), ""),
        (ROLE.ROLE_AUDIO, URL.format("c"), ""),
    ]
    assert sent[3].strength == ROLE.STRENGTH_HIGH
    assert desk.pool.staged == [PICTURE]


async def test_the_limits_travel_with_the_request_and_with_each_upload() -> None:
    desk = Desk()
    await desk.take(GivenReference("input.image_urls[0]", INLINE))
    mib = 1024 * 1024
    images: dict[str, Any] = {
        "image_formats": ["jpeg", "png", "webp", "bmp", "tiff", "gif"],
        "image_bytes": 20 * mib,
        "images": 9,
        "first_frame_of_animations": True,
    }
    assert desk.request.generation.reference_limits == jobs.ReferenceLimits(
        **images, videos=3, video_bytes=100 * mib, audios=3, audio_bytes=20 * mib
    )
    assert [head.limits for head in desk.pool.heads] == [pool.ReferenceLimits(**images)]


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        (
            many("input.image_urls", 10),
            "input.image_urls",
            "There may be at most 9 reference images.",
        ),
        (
            [*many("input.image_urls", 9), GivenReference("input.end_image_url", URL, ROLE.ROLE_LAST_FRAME)],
            "input.end_image_url",
            "There may be at most 9 reference images.",
        ),
        (
            many("video_urls", 4, ROLE.ROLE_VIDEO),
            "video_urls",
            "There may be at most 3 reference videos.",
        ),
        (
            many("audio_urls", 4, ROLE.ROLE_AUDIO),
            "audio_urls",
            "There may be at most 3 reference audio files.",
        ),
    ],
)
async def test_too_many_are_refused_before_anything_is_looked_at(
    given: list[GivenReference], field: str, message: str
) -> None:
    desk = Desk()
    worse = GivenReference("image", "ftp://example.com")
    assert await desk.refusal(*given, worse) == (field, message)
    assert desk.pool.heads == []


async def test_as_many_as_there_may_be_are_taken() -> None:
    given = [*many("a", 9), *many("b", 3, ROLE.ROLE_VIDEO), *many("c", 3, ROLE.ROLE_AUDIO)]
    assert len((await Desk().take(*given)).references) == 15


async def test_where_videos_are_not_taken_there_may_be_none() -> None:
    limits = ReferenceLimits(images=1, image_formats=("png",), first_frame_of_animations=False)
    refused = await Desk().refusal(*many("video_urls", 1, ROLE.ROLE_VIDEO), limits=limits)
    assert refused == ("video_urls", "There may be no reference videos.")
    refused = await Desk().refusal(*many("image_urls", 2), limits=limits)
    assert refused == ("image_urls", "There may be at most 1 reference image.")


@pytest.mark.parametrize(("medium", "role"), [("video", ROLE.ROLE_VIDEO), ("audio", ROLE.ROLE_AUDIO)])
@pytest.mark.parametrize("text", [INLINE, "data:video/mp4;base64,AAAA", "AAAA", "", "/film.mp4", "DATA:,a"])
async def test_videos_and_audio_come_by_url_alone(medium: str, role: ROLE.Role.ValueType, text: str) -> None:
    refused = await Desk().refusal(GivenReference("input.urls[0]", text, role))
    assert refused == (
        "input.urls[0]",
        f"The reference {medium} must be a URL that begins with https://.",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://example.com/a", "The reference video must be a URL that begins with https://."),
        ("https://127.0.0.1/a", "The reference video must name a public host."),
        (
            "https://u:p@example.com/a",
            "The reference video must be a URL without a user name or an @ in front of the path.",
        ),
        (
            "https://example.com/" + "a" * 2_048,
            "The reference video must be a URL of at most 2,048 characters.",
        ),
    ],
)
async def test_a_url_is_checked_at_once_whatever_it_is_of(text: str, message: str) -> None:
    fine = many("video_urls", 1, ROLE.ROLE_VIDEO)
    desk = Desk()
    refused = await desk.refusal(*fine, GivenReference("video_urls[1]", text, ROLE.ROLE_VIDEO))
    assert refused == ("video_urls[1]", message)


async def test_each_refused_image_is_named_by_its_own_field_and_none_is_kept() -> None:
    desk = Desk(Pool(rule="animated"))
    refused = await desk.refusal(
        GivenReference("image_urls[0]", INLINE), GivenReference("image_urls[1]", INLINE)
    )
    assert refused[0] == "image_urls[1]"
    assert desk.pool.dropped == ["ref_1"]
