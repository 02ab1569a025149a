"""Media that an output is to follow, as requests bring them: what can be checked at once is, and inline images go to the pool.

Knows no contract. A contract says what it takes as `ReferenceLimits` and hands over what it was given, each with its field.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import prometheus_client

from services.chassis import egress_url
from services.chassis.egress_address import MEANINGS
from services.chassis.egress_policy import EgressPolicy, EgressRefused
from services.chassis.errors import Kind, ServiceError
from services.gateway import errors, inline_images
from services.gateway.backends import Backends
from services.gateway.inline_images import InlineImage, NotAnImage
from services.gateway.inline_uploads import Body
from services.gateway.lifting import LiftedText
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool

_MB: Final = 1024 * 1024
IMAGE_BYTES: Final = 20 * _MB
VIDEO_BYTES: Final = 100 * _MB
AUDIO_BYTES: Final = 20 * _MB

# No base64 and no data URL holds a colon this early but `data:`.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DATA: Final = "data:"
# Whoever could not take the image now may be able to soon: nothing was made, and the request may be repeated.
_PASSING: Final = frozenset(
    {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.RESOURCE_EXHAUSTED, Kind.ABORTED, Kind.CANCELLED}
)
# Such an error may hide a job that was made: what it needs must stay. What no job needs is swept within a day.
_IN_DOUBT: Final = frozenset(
    {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.ABORTED, Kind.CANCELLED, Kind.INTERNAL}
)

_REFERENCES = prometheus_client.Counter(
    "atelier_gateway_references_total",
    "References of create requests, by form (url, inline) and outcome (taken, refused, unavailable).",
    ["form", "outcome"],
)

# Nothing was looked up yet, so these tell a stranger nothing but what the URL itself says.
_NOT_PUBLIC: Final = "must name a public host"
_URL_SENTENCES: Final = {
    "scheme": "must be a URL that begins with https://",
    "too_long": f"must be a URL of at most {egress_url.LENGTH_LIMIT:,} characters",
    "port": "must be on the standard port for HTTPS",
    "userinfo": "must be a URL without a user name or an @ in front of the path",
    "one_label": _NOT_PUBLIC,
    "special_use": _NOT_PUBLIC,
    "denied": _NOT_PUBLIC,
    **dict.fromkeys(MEANINGS, _NOT_PUBLIC),
}
_URL_MALFORMED: Final = "is a URL whose host or characters are not in their plain form"

_CONTENT_SENTENCES: Final = {
    "too_many_pixels": "has more than 50 megapixels",
    "side_too_long": "has a side of more than 16,384 pixels",
    "unsupported_coding": "is coded in a rare way that is not taken",
    "empty": "holds no picture",
    "animated": "is animated; only still images are taken",
    "unsuitable_size": "is not of a size in pixels that this model takes",
}
_WRONG_TYPE: Final = frozenset({"unknown_format", "unknown_type", "format_not_taken"})
_TOO_LARGE: Final = "too_many_bytes"
_DAMAGED: Final = "is damaged, or holds what is not taken"
_SPELLED: Final = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "gif": "GIF",
}

# What is not named here is a picture, whatever it is for.
_MEDIA: Final[Mapping[jobs.Reference.Role.ValueType, str]] = {
    jobs.Reference.ROLE_VIDEO: "video",
    jobs.Reference.ROLE_AUDIO: "audio",
}
# "input.image_urls[9]" is one of many in "input.image_urls".
_PLACE: Final = re.compile(r"\[\d+\]\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLimits:
    """What a contract takes in one request. image_formats: in the words of the pool, "jpeg", "png" …

    First and last frames count as images. Of videos and audio the pool knows the formats.
    """

    images: int
    image_formats: tuple[str, ...]
    first_frame_of_animations: bool
    image_bytes: int = IMAGE_BYTES
    videos: int = 0
    video_bytes: int = VIDEO_BYTES
    audios: int = 0
    audio_bytes: int = AUDIO_BYTES

    def spelled_formats(self) -> str:
        """Of images, for people: "JPEG, PNG or WebP"."""
        *others, last = (_SPELLED[each] for each in self.image_formats)
        return f"{', '.join(others)} or {last}" if others else last

    def most(self, medium: str) -> int:
        """How many of a medium, "image", "video" or "audio", there may be."""
        return {"video": self.videos, "audio": self.audios}.get(medium, self.images)


FULL: Final = ReferenceLimits(
    images=9,
    image_formats=("jpeg", "png", "webp", "bmp", "tiff", "gif"),
    first_frame_of_animations=True,
    videos=3,
    audios=3,
)
"""What most contracts take."""


@dataclass(frozen=True, slots=True)
class GivenReference:
    """One medium as the customer gave it. field: where, as errors name it: "input.image_urls[2]".

    text: a URL; of an image also a data URL, base64, or a placeholder for what was lifted out of the body.
    """

    field: str
    text: str
    role: jobs.Reference.Role.ValueType = jobs.Reference.ROLE_IMAGE
    strength: jobs.Reference.Strength.ValueType = jobs.Reference.STRENGTH_MID

    @property
    def medium(self) -> str:
        """One of "image", "video" and "audio"."""
        return _MEDIA.get(self.role, "image")


@dataclass(frozen=True, slots=True)
class Taken:
    """References that were taken in. identities: what stands for each where requests are compared."""

    references: tuple[jobs.Reference, ...] = ()
    identities: tuple[str, ...] = ()

    def staged_ids(self) -> list[str]:
        """Of those that the pool keeps."""
        return [reference.reference_id for reference in self.references if reference.reference_id]


class ReferenceMedia:
    """Takes references in, and has the job made that they are for."""

    def __init__(self, backends: Backends, policy: EgressPolicy) -> None:
        self._backends = backends
        self._policy = policy

    async def take(
        self,
        given: Sequence[GivenReference],
        limits: ReferenceLimits,
        request: jobs.CreateJobRequest,
        body: Body,
    ) -> Taken:
        """Checks all that was given, has the pool keep what is inline, and puts it into the request's generation.

        References and identities are in the order of `given`. Whose repetition is a replay is for the caller to say.
        Raises REFERENCE_IMAGE_REFUSED, naming the field, and OVERLOADED; nothing is kept then.
        """
        if not given:
            return Taken()
        _check_counts(given, limits)
        inline = [self._inline_text(each, body) for each in given]
        taken = await self._taken(given, inline, limits, request.generation.model, body)
        request.generation.references.extend(taken.references)
        request.generation.reference_limits.CopyFrom(
            jobs.ReferenceLimits(
                image_formats=limits.image_formats,
                image_bytes=limits.image_bytes,
                images=limits.images,
                first_frame_of_animations=limits.first_frame_of_animations,
                videos=limits.videos,
                video_bytes=limits.video_bytes if limits.videos else 0,
                audios=limits.audios,
                audio_bytes=limits.audio_bytes if limits.audios else 0,
            )
        )
        return taken

    async def create_job(self, request: jobs.CreateJobRequest, taken: Taken) -> jobs.CreateJobResponse:
        """Has the job made; has the pool let go of what was staged when no new job needs it."""
        staged = taken.staged_ids()
        try:
            answer = await self._backends.create_job(request)
        except ServiceError as refusal:
            if refusal.kind not in _IN_DOUBT or refusal.reason == "PROVIDER_UNAVAILABLE":
                self._backends.drop_references(staged)
            raise
        if answer.replayed:
            self._backends.drop_references(staged)
        return answer

    def _inline_text(self, given: GivenReference, body: Body) -> str | LiftedText | None:
        """The text of an inline image; None where a URL was given, which is checked then."""
        text = body.texts.get(given.text, given.text)
        head = inline_images.beginning(text)
        if not _SCHEME.match(head) or head[: len(_DATA)].lower() == _DATA:
            if given.medium == "image":
                return text
            _REFERENCES.labels("inline", "refused").inc()
            raise _refused(_URL_SENTENCES["scheme"], given)
        try:
            if isinstance(text, LiftedText):
                raise EgressRefused("too_long", "Lifted out for its length.")
            egress_url.parse(text, self._policy)
        except EgressRefused as refused:
            _REFERENCES.labels("url", "refused").inc()
            raise _refused(_URL_SENTENCES.get(refused.rule, _URL_MALFORMED), given) from None
        _REFERENCES.labels("url", "taken").inc()
        return None

    async def _taken(
        self,
        given: Sequence[GivenReference],
        inline: Sequence[str | LiftedText | None],
        limits: ReferenceLimits,
        model: str,
        body: Body,
    ) -> Taken:
        references: list[jobs.Reference] = []
        identities: list[str] = []
        try:
            for each, text in zip(given, inline, strict=True):
                reference = jobs.Reference(role=each.role, strength=each.strength)
                references.append(reference)
                if text is None:
                    reference.url = each.text
                    identities.append(each.text)
                else:
                    image = await self._inline_image(each, text, limits, body)
                    identities.append(f"sha256:{image.sha256}")
                    reference.reference_id = await self._staged(each, image, limits, model)
        except ServiceError:
            self._backends.drop_references(Taken(tuple(references)).staged_ids())
            raise
        finally:
            body.let_go()
        return Taken(tuple(references), tuple(identities))

    async def _inline_image(
        self, given: GivenReference, text: str | LiftedText, limits: ReferenceLimits, body: Body
    ) -> InlineImage:
        # A small one came without a place; what follows costs the pool as much as a large one.
        await body.place.take()
        try:
            return await inline_images.decoded(text, limits.image_bytes)
        except NotAnImage as fault:
            _REFERENCES.labels("inline", "refused").inc()
            raise _refused(str(fault), given) from None

    async def _staged(
        self, given: GivenReference, image: InlineImage, limits: ReferenceLimits, model: str
    ) -> str:
        try:
            reference_id = await self._backends.stage_reference(_parts(image, limits, model))
        except ServiceError as error:
            if error.reason == "REFERENCE_REFUSED":
                _REFERENCES.labels("inline", "refused").inc()
                raise _refused(_content_sentence(error.metadata.get("rule", ""), limits), given) from None
            _REFERENCES.labels("inline", "unavailable").inc()
            if error.kind in _PASSING:
                # Not passed on: the pool's own words for "full" mean another thing at the edge.
                raise errors.overloaded() from error
            raise
        _REFERENCES.labels("inline", "taken").inc()
        return reference_id


async def _parts(
    image: InlineImage, limits: ReferenceLimits, model: str
) -> AsyncIterator[pool.StageReferenceRequest]:
    taken = pool.ReferenceLimits(
        image_formats=limits.image_formats,
        image_bytes=limits.image_bytes,
        images=limits.images,
        first_frame_of_animations=limits.first_frame_of_animations,
    )
    yield pool.StageReferenceRequest(head=pool.StageReferenceRequest.Head(limits=taken, model=model))
    while image.pieces:
        yield pool.StageReferenceRequest(content=image.pieces.popleft())


def _check_counts(given: Sequence[GivenReference], limits: ReferenceLimits) -> None:
    counted = Counter[str]()
    for each in given:
        medium = each.medium
        counted[medium] += 1
        most = limits.most(medium)
        if counted[medium] > most:
            # A sound has no plural of its own in the contracts' words.
            several = "reference audio files" if medium == "audio" else f"reference {medium}s"
            noun = several if most != 1 else several.removesuffix("s")
            sentence = f"There may be at most {most} {noun}." if most else f"There may be no {several}."
            raise errors.reference_image_refused(sentence, _PLACE.sub("", each.field))


def _refused(sentence: str, given: GivenReference) -> ServiceError:
    return errors.reference_image_refused(f"The reference {given.medium} {sentence}.", given.field)


def _content_sentence(rule: str, limits: ReferenceLimits) -> str:
    if rule == _TOO_LARGE:
        return inline_images.too_large(limits.image_bytes)
    if rule in _WRONG_TYPE:
        return f"must be {limits.spelled_formats()}; its bytes decide, whatever type is declared"
    return _CONTENT_SENTENCES.get(rule, _DAMAGED)
