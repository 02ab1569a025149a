"""Chat completions: the wire shape that many providers share."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from services.simulator.drawings import Text
from services.simulator.faults import Fault
from services.simulator.field_rules import Field, flaws_of
from services.simulator.provider import Exchange
from services.simulator.tasks import Charge, Task

_FLAG: Final = Field("boolean")
_ROLES: Final = frozenset({"developer", "system", "user", "assistant", "tool"})
_FIELDS: Final[Mapping[str, Field]] = {
    "model": Field("string", required=True),
    "messages": Field("objects", required=True, low=1),
    "max_completion_tokens": Field("integer", low=1),
    "max_tokens": Field("integer", low=1),
    "temperature": Field("number", low=0, high=2),
    "top_p": Field("number", low=0, high=1),
    "n": Field("integer", low=1, high=8),
    "stop": Field("any"),
    "seed": Field("integer"),
    "stream": _FLAG,
    "stream_options": Field("object"),
    "response_format": Field("object"),
    "tools": Field("objects"),
    "tool_choice": Field("any"),
    "parallel_tool_calls": _FLAG,
    "reasoning_effort": Field("string", choices=("none", "minimal", "low", "medium", "high", "xhigh", "max")),
    "service_tier": Field("string", choices=("auto", "default", "flex", "scale", "priority", "fast")),
    "metadata": Field("object"),
    "user": Field("string"),
    "safety_identifier": Field("string"),
    "prompt_cache_key": Field("string"),
    "logprobs": _FLAG,
    "modalities": Field("strings"),
    "store": _FLAG,
    "verbosity": Field("string", choices=("low", "medium", "high")),
}
_WORDS: Final = [
    "The",
    "harbour",
    "wakes",
    "before",
    "the",
    "light",
    "does,",
    "and",
    "whoever",
    "works",
    "there",
    "knows",
    "the",
    "hour",
    "by",
    "its",
    "sounds:",
    "a",
    "winch,",
    "a",
    "gull,",
    "the",
    "slow",
    "knock",
    "of",
    "hulls",
    "against",
    "old",
    "timber.",
]
# One answer in usual length, where nothing asks for another.
_WORDS_LIMIT: Final = 120
_CHARACTERS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class ChatOrder:
    """A sound request, and the words that answer it."""

    model: str
    prompt: str
    words: tuple[str, ...]
    choices: int
    usage: dict[str, Any]
    finish_reason: str
    is_streamed: bool
    has_usage_chunk: bool

    def answer(self, task: Task) -> web.Response:
        """The completion, whole or as a stream of chunks."""
        text = "" if Fault.NO_OUTPUT in task.faults else " ".join(self.words)
        head = {"id": task.id, "created": task.created_ms // 1000, "model": self.model}
        if self.is_streamed:
            return _streamed(head, text, self)
        message = {"role": "assistant", "content": text, "refusal": None}
        choices = [
            {"index": n, "message": message, "finish_reason": self.finish_reason, "logprobs": None}
            for n in range(self.choices)
        ]
        body = {**head, "object": "chat.completion", "choices": choices, "usage": self.usage}
        return web.json_response(body | {"service_tier": "default"})


def order_of(body: Mapping[str, Any], models: Collection[str]) -> ChatOrder | str:
    """The order, or the name of the field that is not sound."""
    flaw = next(flaws_of(body, _FIELDS), None)
    if flaw is not None:
        return flaw.field
    if body["model"] not in models:
        return "model"
    texts = [_text_of(message) for message in body["messages"]]
    if any(text is None for text in texts):
        return "messages"
    prompt = "\n".join(filter(None, texts))
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    # A word here is a token there.
    words = tuple(_WORDS[n % len(_WORDS)] for n in range(min(limit or _WORDS_LIMIT, _WORDS_LIMIT)))
    choices = int(body.get("n") or 1)
    tokens_in, tokens_out = max(1, len(prompt) // _CHARACTERS_PER_TOKEN), len(words) * choices
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    return ChatOrder(
        model=body["model"],
        prompt=prompt,
        words=words,
        choices=choices,
        usage=usage,
        finish_reason="length" if limit is not None and limit < _WORDS_LIMIT else "stop",
        is_streamed=bool(body.get("stream")),
        has_usage_chunk=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _text_of(message: Mapping[str, Any]) -> str | None:
    """What a message says; None if it is none."""
    content = message.get("content")
    if str(message.get("role")) not in _ROLES:
        return None
    if isinstance(content, str):
        return content
    if content is None and message["role"] == "assistant":
        return ""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return None
    return " ".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


async def completed(exchange: Exchange, order: ChatOrder, task_id: str, cost: Decimal = Decimal(0)) -> Task:
    """Takes the order on and waits for its end. Raises Refused, Gone."""
    task = exchange.accept(
        task_id,
        kind="text",
        model=order.model,
        prompt=order.prompt,
        drawings=(Text(" ".join(order.words)),),
        cost=cost,
        charge=Charge.ON_SUCCESS,
    )
    return await exchange.finished(task)


def _streamed(head: Mapping[str, Any], text: str, order: ChatOrder) -> web.Response:
    chunks: list[dict[str, Any]] = [_chunk(head, {"role": "assistant", "content": ""}, None)]
    chunks += [_chunk(head, {"content": f"{word} "}, None) for word in text.split()]
    chunks.append(_chunk(head, {}, order.finish_reason))
    if order.has_usage_chunk:
        chunks.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": order.usage})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return web.Response(text="".join([*lines, "data: [DONE]\n\n"]), content_type="text/event-stream")


def _chunk(head: Mapping[str, Any], delta: Mapping[str, Any], finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}
