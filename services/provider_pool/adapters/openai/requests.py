"""Generations in OpenAI's words: pictures, pictures after others, and texts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.chassis.settings import Secret
from services.provider_pool.adapters.calls import FormPart
from services.provider_pool.adapters.costs import TextTokens
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
    ReferenceFile,
)

PROMPT_LIMIT_CHARACTERS: Final = 32_000
"""Of a picture's whole prompt, with what a chart is told beside it."""

_EXTENSIONS: Final[Mapping[str, str]] = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


def body_of(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    """What goes over the wire, without references. Raises InvalidRequest where the whole prompt is too long."""
    return text_body(generation, spec) if generation.kind is Kind.TEXT else picture_body(generation, spec)


def picture_body(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    """Everything that has to do with the price is said, also where it is what is usual."""
    prompt = _instructed(generation, spec.extras)
    if len(prompt) > PROMPT_LIMIT_CHARACTERS:
        raise InvalidRequest(f"{spec.upstream} takes shorter prompts for this")
    return {
        "model": spec.upstream,
        "prompt": prompt,
        "n": 1,
        "size": f"{generation.width}x{generation.height}",
        "quality": generation.quality or str(spec.extras.get("quality", "medium")),
        "output_format": "png",
    }


def text_body(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    """One question and one answer of at most so many words, with room for the thinking before it."""
    if not isinstance(spec.cost, TextTokens):
        raise InvalidRequest(f"{spec.upstream} has no price by tokens")
    told = str(spec.extras.get("instruction", "")).replace("{max_words}", str(generation.max_words))
    body: dict[str, object] = {
        "model": spec.upstream,
        "messages": [
            {"role": "system", "content": told},
            {"role": "user", "content": generation.prompt},
        ],
        "n": 1,
        "max_completion_tokens": spec.cost.most_tokens(generation),
    }
    if effort := spec.extras.get("reasoning_effort"):
        body["reasoning_effort"] = effort
    return body


def for_account(body: Mapping[str, object], account: AccountAccess) -> dict[str, object]:
    """The same for a compatible provider that has another name for its model and knows no reasoning effort."""
    model = account.options.get("text_model")
    if not model:
        return dict(body)
    return {name: value for name, value in body.items() if name != "reasoning_effort"} | {"model": model}


def edit_form(body: Mapping[str, object], references: Sequence[ReferenceFile]) -> list[FormPart]:
    """The same request as a form, with the pictures that the new one is to follow."""
    parts = [FormPart(name, text=str(value)) for name, value in body.items()]
    name = "image" if len(references) == 1 else "image[]"
    for number, file in enumerate(references):
        extension = _EXTENSIONS.get(file.content_type)
        if extension is None:
            raise InvalidRequest("a reference that is no PNG, JPEG or WebP")
        parts.append(
            FormPart(name, path=file.path, file_name=f"{number}.{extension}", content_type=file.content_type)
        )
    return parts


def headers_of(account: AccountAccess, reference: str = "") -> dict[str, str | Secret]:
    """Credentials, and the attempt's name for their support to find it by."""
    key = account.secrets["api_key"]
    headers: dict[str, str | Secret] = {"authorization": Secret(f"Bearer {key.reveal()}")}
    for option, name in (("organization", "openai-organization"), ("project", "openai-project")):
        if value := account.options.get(option):
            headers[name] = value
    if reference:
        headers["x-client-request-id"] = reference
    return headers


def _instructed(generation: Generation, extras: Mapping[str, object]) -> str:
    instruction = extras.get("instruction")
    if not instruction:
        return generation.prompt
    styles = extras.get("styles")
    style = styles.get(generation.style, "") if isinstance(styles, Mapping) else ""
    return "\n\n".join(part for part in (str(instruction), str(style), generation.prompt) if part)
