"""What the templates show, drawn from a contract's OpenAPI document."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Final

from markupsafe import Markup, escape

from services.gateway.contract import WEBHOOKS, Contract, ErrorCode, Section
from services.gateway.docs_site.samples import Request, Sample, receivers, samples_of
from services.gateway.openapi import FORM

_REFERENCE_PREFIX: Final = "#/components/schemas/"
_OF_EVERY_WEBHOOK: Final = (
    (
        "Your signing secret, `whsec_…`, is given to you as your key is, and shown once. When it is replaced, the one "
        "before it can go on signing beside it for a while: `webhook-signature` then holds several signatures with "
        "blanks between them, of which one has to fit."
    ),
    (
        "An attempt that fails is repeated with the same `webhook-id` and body. 410 stops the repeats at once, "
        "`Retry-After` with 429 or 503 puts the next one off, by a day at most, and redirects are not followed."
    ),
)
_INLINE: Final = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


@dataclass(frozen=True, slots=True)
class Field:
    """A row of a table of fields; `depth` indents the fields of an object within."""

    name: str
    type: str
    required: bool
    default: str
    choices: tuple[str, ...]
    description: Markup
    depth: int


@dataclass(frozen=True, slots=True)
class Example:
    """A titled piece of JSON."""

    title: str
    status: str
    json: Markup


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter of a path or a query, as one is typed in to try a request."""

    name: str
    place: str
    required: bool
    example: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A section of the reference."""

    anchor: str
    method: str
    path: str
    summary: str
    description: Markup
    parameters: tuple[Field, ...]
    fields: tuple[Field, ...]
    reply_fields: tuple[Field, ...]
    samples: tuple[Sample, ...]
    replies: tuple[Example, ...]
    failures: tuple[ErrorCode, ...]
    body: str
    # The body is a form.
    form: bool
    # It needs no key.
    public: bool
    keyed: bool
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """A section of the guide."""

    anchor: str
    title: str
    paragraphs: tuple[Markup, ...]
    code: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything on one documentation page."""

    title: str
    summary: str
    server: str
    openapi_path: str
    key_example: str
    # As JSON, for the page's script.
    tracking: str
    chapters: tuple[Chapter, ...]
    endpoints: tuple[Endpoint, ...]
    errors: tuple[ErrorCode, ...]
    error_example: Markup


def page_of(contract: Contract, document: dict[str, Any], openapi_path: str) -> Page:
    """The page of `contract`; `document` is what `openapi.document` made of it."""
    server = document["servers"][0]["url"]
    endpoints = tuple(
        _endpoint(contract, document, server, path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return Page(
        title=contract.title,
        summary=contract.summary,
        server=server,
        openapi_path=openapi_path,
        key_example=f"{contract.key_prefixes[-1]}…",
        tracking=json.dumps(asdict(contract.tracking)),
        chapters=tuple(_chapter(section) for section in contract.guide),
        endpoints=endpoints,
        errors=contract.error_codes,
        error_example=highlighted(contract.error_example(contract.error_codes[0])),
    )


def _chapter(section: Section) -> Chapter:
    paragraphs = tuple(prose(paragraph) for paragraph in section.paragraphs)
    if section.anchor != WEBHOOKS:
        return Chapter(section.anchor, section.title, paragraphs, section.code, ())
    common = tuple(map(prose, _OF_EVERY_WEBHOOK))
    return Chapter(section.anchor, section.title, paragraphs + common, section.code, receivers())


def _endpoint(
    contract: Contract,
    document: dict[str, Any],
    server: str,
    path: str,
    method: str,
    operation: dict[str, Any],
) -> Endpoint:
    body = _first_example(operation.get("requestBody", {}))
    good = {status: reply for status, reply in operation["responses"].items() if status < "300"}
    wanted = {
        code
        for status, reply in operation["responses"].items()
        if status >= "400"
        for code in reply["content"]["application/json"]["examples"]
    }
    request = _request(method.upper(), server + path, body, operation)
    return Endpoint(
        anchor=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        description=prose(operation["description"]),
        parameters=tuple(
            _parameter(each) for each in operation["parameters"] if each["name"] != "X-Request-Id"
        ),
        fields=_fields(document, operation.get("requestBody", {})),
        reply_fields=tuple(field for reply in good.values() for field in _fields(document, reply)),
        samples=samples_of(request),
        replies=tuple(example for status, reply in good.items() for example in _examples(status, reply)),
        failures=tuple(row for row in contract.error_codes if row.code in wanted),
        body=json.dumps(body, indent=2, ensure_ascii=False) if body else "",
        form=request.form,
        public=request.public,
        keyed=request.keyed,
        inputs=tuple(
            Input(
                each["name"],
                each["in"],
                each["required"],
                str(next(iter(each["schema"].get("examples", ())), "")),
            )
            for each in operation["parameters"]
            if each["in"] in {"path", "query"}
        ),
    )


def _request(method: str, url: str, body: Any, operation: dict[str, Any]) -> Request:
    asked = []
    for parameter in operation["parameters"]:
        example = str(next(iter(parameter["schema"].get("examples", ())), "…"))
        if parameter["in"] == "path":
            url = url.replace(f"{{{parameter['name']}}}", example)
        elif parameter["in"] == "query" and parameter["required"]:
            asked.append(f"{parameter['name']}={example}")
    return Request(
        method=method,
        url="?".join([url, *(["&".join(asked)] if asked else [])]),
        body=body,
        form=FORM in operation.get("requestBody", {}).get("content", {}),
        keyed=any(each["name"] == "Idempotency-Key" for each in operation["parameters"]),
        public=operation.get("security") == [],
    )


def _media(holder: dict[str, Any]) -> dict[str, Any]:
    """The one type of content that a body has; nothing where there is no body."""
    return next(iter(holder.get("content", {}).values()), {})


def _first_example(holder: dict[str, Any]) -> Any:
    return next((example["value"] for example in _media(holder).get("examples", {}).values()), None)


def _examples(status: str, reply: dict[str, Any]) -> list[Example]:
    label = f"{status} {HTTPStatus(int(status)).phrase}"
    examples = _media(reply).get("examples", {})
    return [Example(name, label, highlighted(example["value"])) for name, example in examples.items()]


def _parameter(parameter: dict[str, Any]) -> Field:
    text, schema = prose(parameter["description"]), parameter["schema"]
    choices = tuple(str(choice) for choice in schema.get("enum", ()))
    default = json.dumps(schema["default"]) if schema.get("default") else ""
    kind = f"{parameter['in']}, {_type(schema)}"
    return Field(parameter["name"], kind, parameter["required"], default, choices, text, 0)


def _fields(document: dict[str, Any], holder: dict[str, Any]) -> tuple[Field, ...]:
    schema = _media(holder).get("schema")
    return tuple(_rows(document, schema, 0)) if schema else ()


def _rows(document: dict[str, Any], schema: dict[str, Any], depth: int) -> list[Field]:
    schema = _resolved(document, schema.get("items", schema))
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        options = field.get("anyOf", [field])
        choices = tuple(str(choice) for choice in field.get("enum", ()) if not isinstance(choice, bool))
        default = json.dumps(field["default"]) if "default" in field else ""
        text = prose(field.get("description", ""))
        kinds = dict.fromkeys(_type(option) for option in options)
        if "number" in kinds:
            # Every integer is one; saying both only makes a reader wonder.
            kinds.pop("integer", None)
        kind = " or ".join(kinds)
        rows.append(Field(name, kind, name in required, default, choices, text, depth))
        for option in options:
            if "$ref" in option or "$ref" in option.get("items", {}):
                rows += _rows(document, option, depth + 1)
    return rows


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return "object"
    if "enum" in schema:
        return "boolean" if isinstance(schema["enum"][0], bool) else "string"
    kind = str(schema.get("type", "any"))
    bounds = [str(schema[key]) for key in ("minimum", "maximum") if key in schema]
    return f"{kind}, {' to '.join(bounds)}" if len(bounds) == 2 else kind


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    if not reference:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.removeprefix(_REFERENCE_PREFIX)]
    return found


def prose(text: str) -> Markup:
    """Escaped text in which `code` and **strong** are marked up."""

    def mark(match: re.Match[str]) -> str:
        return f"<code>{match[1]}</code>" if match[1] else f"<strong>{match[2]}</strong>"

    return Markup(_INLINE.sub(mark, str(escape(text))))  # noqa: S704 - escaped first


_TOKEN: Final = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?)')


def highlighted(value: Any) -> Markup:
    """JSON, indented, with its keys, strings, numbers and words in classes of their own."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    parts: list[str] = []
    end = 0
    for match in _TOKEN.finditer(text):
        parts.append(str(escape(text[end : match.start()])))
        string, colon, word, number = match.groups()
        name = "key" if colon else "string" if string else "word" if word else "number"
        parts.append(f'<span class="{name}">{escape(string or word or number)}</span>{colon or ""}')
        end = match.end()
    parts.append(str(escape(text[end:])))
    return Markup("".join(parts))  # noqa: S704 - every part escaped above
