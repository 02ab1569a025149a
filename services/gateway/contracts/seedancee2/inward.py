"""Inward: wire to gRPC requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from services.gateway import errors, lifting, reading
from services.gateway.contracts.seedancee2.wire import AspectRatio, Resolution, VideoInput, VideoRequest
from services.gateway.reference_media import GivenReference
from services.gen.jobs.v1 import jobs_pb2 as pb

_METADATA_BYTES: Final = 16 * 1024
_METADATA_KEYS: Final = 50
# Deeper than anybody's own, and half of what reading and writing JSON can follow wherever it is done.
_METADATA_LEVELS: Final = 500
_PROMPT_LIMIT: Final = 4_000
_decoder: Final = msgspec.json.Decoder(VideoRequest)


@dataclass(frozen=True, slots=True)
class Edition:
    """A model as it is sold: the name inside the house, and what it makes."""

    model: str
    resolutions: tuple[Resolution, ...]


EDITIONS: Final[Mapping[str, Edition]] = {
    "pro": Edition("seedance-2.0", ("480p", "720p", "1080p")),
    "fast": Edition("seedance-2.0-fast", ("480p", "720p")),
    "mini": Edition("seedance-2.0-mini", ("480p", "720p")),
}
SECONDS: Final = (4, 15)
_PIXELS: Final[Mapping[Resolution, Mapping[AspectRatio, tuple[int, int]]]] = {
    "480p": {
        "21:9": (992, 432),
        "16:9": (864, 496),
        "4:3": (752, 560),
        "1:1": (640, 640),
        "3:4": (560, 752),
        "9:16": (496, 864),
    },
    "720p": {
        "21:9": (1470, 630),
        "16:9": (1280, 720),
        "4:3": (1112, 834),
        "1:1": (960, 960),
        "3:4": (834, 1112),
        "9:16": (720, 1280),
    },
    "1080p": {
        "21:9": (2206, 946),
        "16:9": (1920, 1080),
        "4:3": (1664, 1248),
        "1:1": (1440, 1440),
        "3:4": (1248, 1664),
        "9:16": (1080, 1920),
    },
}


def read(body: bytes) -> VideoRequest:
    """The request in `body`, trimmed and checked, but for its references. Raises MALFORMED_REQUEST, MODEL_NOT_FOUND."""
    wire = reading.parsed(body, _decoder)
    edition = EDITIONS.get(wire.model)
    if edition is None:
        raise errors.model_not_found("model")
    given = wire.input
    if given.resolution not in edition.resolutions:
        sentence = f"input.resolution of {wire.model} must be {' or '.join(edition.resolutions)}."
        raise errors.malformed_request(sentence, "input.resolution")
    _check_frames(given)
    if isinstance(given.video_url, str) and given.video_urls:
        raise errors.malformed_request(
            "input.video_url must not be given beside input.video_urls.", "input.video_url"
        )
    if wire.callback_url == "":
        raise errors.malformed_request("callback_url must be a public HTTPS address.", "callback_url")
    if isinstance(wire.metadata, dict):
        _check_metadata(wire.metadata)
    prompt = reading.text(given.prompt, "input.prompt", _PROMPT_LIMIT)
    if prompt == given.prompt:
        return wire
    return msgspec.structs.replace(wire, input=msgspec.structs.replace(given, prompt=prompt))


def _check_frames(given: VideoInput) -> None:
    frames = {"input.start_image_url": given.start_image_url, "input.end_image_url": given.end_image_url}
    named = [field for field, value in frames.items() if isinstance(value, str)]
    if given.generation_type == "omni_reference":
        if named:
            raise errors.malformed_request(f"{named[0]} is for first_and_last_frames only.", named[0])
        return
    if (len(named), len(given.image_urls)) not in {(2, 0), (0, 2)}:
        absent = [field for field in frames if field not in named]
        alone = len(named) == 1 and not given.image_urls
        raise errors.malformed_request(
            "first_and_last_frames takes exactly two images: input.start_image_url and input.end_image_url, or two "
            "input.image_urls.",
            absent[0] if alone else "input.image_urls",
        )
    others = {
        "input.video_url": isinstance(given.video_url, str),
        "input.video_urls": given.video_urls,
        "input.audio_urls": given.audio_urls,
    }
    for field, value in others.items():
        if value:
            raise errors.malformed_request(f"{field} must not be given with first_and_last_frames.", field)


def _check_metadata(metadata: Mapping[str, object]) -> None:
    if _levels(metadata, _METADATA_LEVELS) > _METADATA_LEVELS:
        sentence = f"metadata must be nested at most {_METADATA_LEVELS} levels deep."
        raise errors.malformed_request(sentence, "metadata")
    encoded = _echo(metadata)
    if len(metadata) > _METADATA_KEYS:
        raise errors.malformed_request(f"metadata must have at most {_METADATA_KEYS} keys.", "metadata")
    # What stands for a string of more than 8 KiB is short.
    if len(encoded) > _METADATA_BYTES or lifting.holds_placeholder(encoded):
        raise errors.malformed_request("metadata must have at most 16 KiB as JSON.", "metadata")


def _levels(value: object, enough: int) -> int:
    """How deep objects and arrays lie in each other; counted until it is more than `enough`."""
    count, level = 0, [value]
    while level and count <= enough:
        count += 1
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
    return count


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _echo(metadata: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(metadata)


def job(wire: VideoRequest) -> pb.CreateJobRequest:
    """What to make, what to charge, and what to give back; who and under which key comes later."""
    given = wire.input
    adaptive = given.aspect_ratio == "adaptive" and _follows_pictures(given)
    width, height = _pixels(given, adaptive)
    generation = pb.Generation(
        kind=pb.KIND_VIDEO,
        model=EDITIONS[wire.model].model,
        prompt=given.prompt,
        width=width,
        height=height,
        duration_s=given.duration,
        audio=given.generate_audio,
        adaptive_ratio=adaptive,
        watermark=given.watermark,
        last_frame=given.return_last_frame,
    )
    if isinstance(given.seed, int) and given.seed >= 0:
        generation.seed = given.seed
    return pb.CreateJobRequest(
        generation=generation,
        sku=f"{wire.model}.{given.resolution}.second",
        quantity=given.duration,
        id_prefix="vid",
        public_model=wire.model,
        echo=_echo(wire.metadata) if isinstance(wire.metadata, dict) else b"",
        callback_url=wire.callback_url if isinstance(wire.callback_url, str) else "",
    )


def _pixels(given: VideoInput, adaptive: bool) -> tuple[int, int]:
    sizes = _PIXELS[given.resolution]
    if given.aspect_ratio != "adaptive":
        return sizes[given.aspect_ratio]
    # Nothing to adapt to: the default. Else room for lying and standing pictures alike.
    long_side = max(sizes["16:9"])
    return (long_side, long_side) if adaptive else sizes["16:9"]


def _follows_pictures(given: VideoInput) -> bool:
    return bool(given.image_urls or given.video_urls) or not (
        given.video_url is msgspec.UNSET and given.start_image_url is msgspec.UNSET
    )


def references(wire: VideoRequest) -> list[GivenReference]:
    """The media that the video is to follow, as they were given: images, videos, sounds."""
    given = wire.input
    images = pb.Reference.ROLE_IMAGE
    if given.generation_type == "first_and_last_frames":
        roles = (pb.Reference.ROLE_FIRST_FRAME, pb.Reference.ROLE_LAST_FRAME)
        frames = _frames(given)
        return [GivenReference(field, text, role) for (field, text), role in zip(frames, roles, strict=True)]
    found = [
        GivenReference(f"input.image_urls[{place}]", text, images)
        for place, text in enumerate(given.image_urls)
    ]
    if isinstance(given.video_url, str):
        found.append(GivenReference("input.video_url", given.video_url, pb.Reference.ROLE_VIDEO))
    for field, texts, role in (
        ("input.video_urls", given.video_urls, pb.Reference.ROLE_VIDEO),
        ("input.audio_urls", given.audio_urls, pb.Reference.ROLE_AUDIO),
    ):
        found += [GivenReference(f"{field}[{place}]", text, role) for place, text in enumerate(texts)]
    return found


def _frames(given: VideoInput) -> list[tuple[str, str]]:
    if isinstance(given.start_image_url, str) and isinstance(given.end_image_url, str):
        return [
            ("input.start_image_url", given.start_image_url),
            ("input.end_image_url", given.end_image_url),
        ]
    return [(f"input.image_urls[{place}]", text) for place, text in enumerate(given.image_urls)]


def compared(wire: VideoRequest, identities: Sequence[str]) -> VideoRequest:
    """The request as it is compared with a repeat of it: each reference as its identity, whichever way it came."""
    given = wire.input
    rest = iter(identities)
    if given.generation_type == "first_and_last_frames" and not given.image_urls:
        start, end = rest
        given = msgspec.structs.replace(given, start_image_url=start, end_image_url=end)
    else:
        given = msgspec.structs.replace(
            given,
            image_urls=_next(rest, len(given.image_urls)),
            video_url=next(rest) if isinstance(given.video_url, str) else msgspec.UNSET,
            video_urls=_next(rest, len(given.video_urls)),
            audio_urls=_next(rest, len(given.audio_urls)),
        )
    return msgspec.structs.replace(wire, input=given)


def _next(rest: Iterable[str], count: int) -> list[str]:
    return list(islice(rest, count))
