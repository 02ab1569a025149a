"""What stands in `content`: text, and references in roles that do not mix."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.simulator.ark.errors import invalid, missing
from services.simulator.ark.models import Model

_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "image_url": ("first_frame", "last_frame", "reference_image"),
    "video_url": ("reference_video",),
    "audio_url": ("reference_audio",),
}
# `data:` is the start of what may stand in an address of this medium; a video has no such form.
_DATA: Final = {"image_url": "data:image/", "audio_url": "data:audio/"}
_IMAGE_BYTES: Final = 30 * 1024 * 1024
_AUDIO_BYTES: Final = 15 * 1024 * 1024


@dataclass(slots=True)
class Content:
    """A sound list of items."""

    text: str = ""
    roles: Counter[str] = field(default_factory=Counter)
    # A preview that is to be made in full.
    draft_id: str = ""

    @property
    def has_video(self) -> bool:
        return self.roles["reference_video"] > 0

    @property
    def is_of_frames(self) -> bool:
        return self.roles["first_frame"] > 0


def content_of(items: Any, model: Model) -> Content:
    """Reads and judges the items. Raises Refused."""
    if items is None:
        raise missing("content")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise invalid("content", "a list of items is needed")
    content = Content()
    alone = sum(item.get("type") == "image_url" for item in items) == 1
    for number, item in enumerate(items):
        _read(content, item, f"content[{number}]", alone)
    _check_together(content, model)
    return content


def _read(content: Content, item: Mapping[str, Any], where: str, alone: bool) -> None:
    kind = str(item.get("type"))
    if kind == "text":
        if set(item) != {"type", "text"} or not isinstance(item["text"], str):
            raise invalid(f"{where}.text", "a text is needed")
        if content.text:
            raise invalid(f"{where}.type", "only one text is allowed")
        content.text = item["text"]
        return
    if kind == "draft_task":
        _read_draft(content, item, where)
        return
    if kind not in _ROLES:
        raise invalid(f"{where}.type", "unknown type")
    if set(item) - {"type", kind, "role"}:
        raise invalid(where, "unknown field")
    role = item.get("role") or ("first_frame" if kind == "image_url" and alone else None)
    if role not in _ROLES[kind]:
        raise invalid(f"{where}.role", "the role does not fit")
    holder = item.get(kind)
    if not isinstance(holder, dict) or set(holder) != {"url"} or not isinstance(holder["url"], str):
        raise invalid(f"{where}.{kind}", "an object with a url is needed")
    _check_address(holder["url"], kind, where)
    content.roles[str(role)] += 1


def _read_draft(content: Content, item: Mapping[str, Any], where: str) -> None:
    draft = item.get("draft_task")
    if set(item) != {"type", "draft_task"} or not isinstance(draft, dict) or set(draft) != {"id"}:
        raise invalid(f"{where}.draft_task", "an object with an id is needed")
    content.draft_id = str(draft["id"])


def _check_address(url: str, kind: str, where: str) -> None:
    if url.startswith(("http://", "https://", "asset://")):
        return
    start = _DATA.get(kind)
    head, comma, encoded = url.partition(",")
    if start is None or not url.startswith(start) or not comma or not head.endswith(";base64"):
        raise invalid(f"{where}.{kind}.url", "the address is not of a form that is taken")
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except binascii.Error:
        raise invalid(f"{where}.{kind}.url", "the content is not base64") from None
    if size > (_IMAGE_BYTES if kind == "image_url" else _AUDIO_BYTES):
        raise invalid(f"{where}.{kind}.url", "the file is too large")


def _check_together(content: Content, model: Model) -> None:
    roles = content.roles
    references = [name for name in roles if name.startswith("reference_") and roles[name]]
    if content.draft_id and model.generation != "1.5":
        raise invalid("content", "drafts are for 1.5 pro only")
    if not content.text and not roles and not content.draft_id:
        raise missing("content.text")
    if roles["last_frame"] and not roles["first_frame"]:
        raise invalid("content", "a last frame needs a first frame")
    if max(roles["first_frame"], roles["last_frame"]) > 1:
        raise invalid("content", "one first and one last frame are allowed")
    if content.is_of_frames and references:
        raise invalid("content", "frames cannot be mixed with reference media")
    limits = {
        "reference_image": model.images,
        "reference_video": model.videos,
        "reference_audio": model.audios,
    }
    for name in references:
        if roles[name] > limits[name]:
            raise invalid("content", f"{name} is allowed {limits[name]} times at most")
    if references == ["reference_audio"] and model.generation == "2.0":
        raise invalid("content", "reference audio needs an image or a video too")


def addresses_of(value: Any) -> Sequence[str]:
    """`image` of the image call: one address or several. Raises Refused."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(url, str) for url in given):
        raise invalid("image", "an address or a list of addresses is needed")
    for url in given:
        _check_address(url, "image_url", "image")
    return given
