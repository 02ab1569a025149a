"""An OpenAPI 3.1 document for a contract, made from the very structs that read and write its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from services.gateway.contract import Contract, ErrorCode, Route

_VERSION: Final = "1.0.0"
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
_SECURITY: Final = "apiKey"
_HEADER_KEY: Final = "apiKeyHeader"
_TOKEN: Final = "accessToken"  # noqa: S105 - the name of a scheme

_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "X-Request-Id": ("Names this request; the one that was sent, or a new one.", {"type": "string"}),
    "RateLimit-Limit": ("Requests allowed in any 60 seconds.", {"type": "integer"}),
    "RateLimit-Remaining": ("Requests left now.", {"type": "integer"}),
    "RateLimit-Reset": ("Seconds until the oldest counted request leaves the window.", {"type": "integer"}),
    "Retry-After": ("Seconds to wait before the next try.", {"type": "integer"}),
    "Idempotent-Replayed": (
        "`true` when an earlier request made this job.",
        {"type": "string", "enum": ["true"]},
    ),
    "Allow": ("The methods that this path answers.", {"type": "string"}),
    "WWW-Authenticate": ("Always `Bearer`.", {"type": "string"}),
}
_SIGNING_HEADERS: Final = {
    "webhook-id": "The same for every attempt.",
    "webhook-timestamp": "When this attempt was made, in seconds since 1970.",
    "webhook-signature": "`v1,` and base64 of the HMAC-SHA-256 of `{webhook-id}.{webhook-timestamp}.{body}`; several, "
    "with blanks between them, while a secret is being replaced.",
}
_RATE_HEADERS: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_TITLES: Final = {
    400: "The request is not valid.",
    401: "The API key is not valid.",
    402: "There are not enough credits.",
    403: "Not allowed.",
    404: "Not found.",
    405: "Method not allowed.",
    409: "Conflict with the state of things.",
    413: "The body is too large.",
    429: "Too many requests or jobs.",
    500: "A fault on our side.",
    503: "Not available right now.",
}


def document(contract: Contract, public_url: str) -> dict[str, Any]:
    """The whole document, ready to be encoded as JSON."""
    routes = [route for route in contract.routes if not route.bound]
    schemas = _schemas(contract, routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(contract, route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.title, "version": _VERSION, "description": contract.summary},
        "servers": [{"url": public_url}],
        "security": [{name: []} for name in _security_schemes(contract)],
        "paths": paths,
        "webhooks": _webhooks(contract, schemas),
        "components": {
            "schemas": {name.rpartition("/")[2]: schema for name, schema in schemas["components"].items()},
            "headers": {
                name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()
            },
            "securitySchemes": _security_schemes(contract),
        },
    }


def _security_schemes(contract: Contract) -> dict[str, Any]:
    schemes: dict[str, Any] = {
        _SECURITY: {
            "type": "http",
            "scheme": "bearer",
            "description": " or ".join(f"`{prefix}…`" for prefix in contract.key_prefixes),
        }
    }
    if contract.key_header:
        schemes[_HEADER_KEY] = {"type": "apiKey", "in": "header", "name": contract.key_header}
    if contract.token_prefixes:
        schemes[_TOKEN] = {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "What logging in answered.",
        }
    return schemes


def _schemas(contract: Contract, routes: Sequence[Route]) -> dict[str, Any]:
    types: list[Any] = [contract.error_body]
    for route in routes:
        told = route.operation
        types += [each for each in (told.reply.body, told.request) if each is not None]
    # One reply may serve several operations.
    types = list(dict.fromkeys(types))
    references, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {"components": components, "references": dict(zip(types, references, strict=True))}


def _operation(contract: Contract, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    told = route.operation
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": told.summary,
        "description": told.description,
        "parameters": _parameters(contract, route),
        "responses": _responses(contract, route, schemas),
    }
    if route.public:
        operation["security"] = []
    if told.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {
                FORM if route.form else JSON: {
                    "schema": schemas["references"][told.request],
                    "examples": {
                        name: {"value": value}
                        for name, value in {"request": told.example, **told.more_examples}.items()
                    },
                }
            },
        }
    return operation


def _webhooks(contract: Contract, schemas: dict[str, Any]) -> dict[str, Any]:
    """What is sent when a job ends, where the contract has a job that can be asked for."""
    status = ("GET", contract.tracking.status_path)
    asked = next((route for route in contract.routes if (route.method, route.path) == status), None)
    return {} if asked is None else {"jobEnded": {"post": _told_of_an_end(contract, asked, schemas)}}


def _told_of_an_end(contract: Contract, asked: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    """What is sent when a job ends: what asking for it answers then."""
    tracking = contract.tracking
    reply = asked.operation.reply
    examples = {
        name: {"value": value}
        for name, value in reply.examples.items()
        if _looked_up(value, tracking.status) in tracking.ended
    }
    return {
        "summary": "The end of a job",
        "description": f"Sent to the address that is set for your account, and to the job's own where it has one, at "
        f"least once: what `GET {asked.path}` answers.",
        "security": [],
        "parameters": [
            _parameter(name, "header", text, True, {"type": "string"})
            for name, text in _signing_headers(contract).items()
        ],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": schemas["references"][reply.body], "examples": examples}},
        },
        "responses": {
            "2XX": {
                "description": "You have it. Anything else, or nothing within ten seconds, is tried again."
            },
            "410": {"description": "It is not sent again."},
        },
    }


def _signing_headers(contract: Contract) -> dict[str, str]:
    own = contract.webhook_form.legacy_signature
    events = f"`{own.completed_event}` or `{own.failed_event}`."
    named = {own.event_header: events, own.signature_header: "`t=<seconds>,v1=<hex>`."}
    return _SIGNING_HEADERS | {name: text for name, text in named.items() if name}


def _looked_up(value: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        value = value[name]
    return value


def _parameters(contract: Contract, route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name, part in route.operation.path.items():
        kind = "integer" if isinstance(part.example, int) else "string"
        schema = {"type": kind, "examples": [part.example]}
        parameters.append(_parameter(name, "path", part.description, True, schema))
    parameters += _query_parameters(route)
    if route.creates:
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        text = "One for each job that you want; the same key with the same request never makes a second job."
        parameters.append(_parameter("Idempotency-Key", "header", text, contract.key_required, key))
    text = "Kept and sent back; made up when absent."
    request_id = {"type": "string"}
    parameters.append(_parameter("X-Request-Id", "header", text, False, request_id))
    return parameters


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.operation.query is None:
        return []
    (_,), components = msgspec.json.schema_components([route.operation.query])
    (schema,) = components.values()
    required = schema.get("required", ())
    return [
        _parameter(name, "query", field.pop("description", ""), name in required, field)
        for name, field in schema["properties"].items()
    ]


def _parameter(name: str, place: str, text: str, required: bool, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "description": text, "required": required, "schema": schema}


def _responses(contract: Contract, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    reply = route.operation.reply
    names = ["X-Request-Id"] + ([] if route.public else [*_RATE_HEADERS])
    names += ["Idempotent-Replayed"] if route.creates else []
    responses: dict[str, Any] = {
        str(reply.status): {"description": reply.description, "headers": _header_references(names)}
    }
    if reply.body is not None:
        responses[str(reply.status)]["content"] = {
            JSON: {
                "schema": schemas["references"][reply.body],
                "examples": {name: {"value": value} for name, value in reply.examples.items()},
            }
        }
    wanted = {*contract.common_errors, *route.operation.errors}
    for status in sorted({row.status for row in contract.error_codes if row.code in wanted}):
        rows = [row for row in contract.error_codes if row.status == status and row.code in wanted]
        responses[str(status)] = _failure(contract, status, rows, schemas)
    return responses


def _failure(
    contract: Contract, status: int, rows: list[ErrorCode], schemas: dict[str, Any]
) -> dict[str, Any]:
    names = ["X-Request-Id"]
    if status in {429, 503} or any(row.code.endswith("not_complete") for row in rows):
        names.append("Retry-After")
    if status not in {401, 500}:
        names += _RATE_HEADERS
    if status == 401:
        names.append("WWW-Authenticate")
    return {
        "description": _TITLES[status],
        "headers": _header_references(names),
        "content": {
            JSON: {
                "schema": schemas["references"][contract.error_body],
                "examples": {row.code: {"value": contract.error_example(row)} for row in rows},
            }
        },
    }


def _header_references(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
