"""An OpenAPI 3.1 document for a contract, made from the very structs that read and write its JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from services.gateway.contract import Contract, ErrorCode, Route

_VERSION: Final = "1.0.0"
_JSON: Final = "application/json"
_SECURITY: Final = "apiKey"
_PATH_PARAMETERS: Final = {
    "jobId": ("The id that the create request answered.", "job_01jz8b7q4x8k2p9w3m5c6n7r8s")
}

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
_RATE_HEADERS: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_TITLES: Final = {
    400: "The request is not valid.",
    401: "The API key is not valid.",
    402: "There are not enough credits.",
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
    schemas = _schemas(contract)
    paths: dict[str, dict[str, Any]] = {}
    for route in contract.routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(contract, route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": contract.title, "version": _VERSION, "description": contract.summary},
        "servers": [{"url": public_url}],
        "security": [{_SECURITY: []}],
        "paths": paths,
        "components": {
            "schemas": {name.rpartition("/")[2]: schema for name, schema in schemas["components"].items()},
            "headers": {
                name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()
            },
            "securitySchemes": {
                _SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": " or ".join(f"`{prefix}…`" for prefix in contract.key_prefixes),
                }
            },
        },
    }


def _schemas(contract: Contract) -> dict[str, Any]:
    types: list[type[msgspec.Struct]] = [contract.error_body]
    for route in contract.routes:
        types.append(route.operation.reply.body)
        if route.operation.request is not None:
            types.append(route.operation.request)
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
        "parameters": _parameters(route),
        "responses": _responses(contract, route, schemas),
    }
    if told.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {
                _JSON: {
                    "schema": schemas["references"][told.request],
                    "examples": {
                        name: {"value": value}
                        for name, value in {"request": told.example, **told.more_examples}.items()
                    },
                }
            },
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name, (text, example) in _PATH_PARAMETERS.items():
        if f"{{{name}}}" in route.path:
            parameters.append(_parameter(name, "path", text, True, {"type": "string", "examples": [example]}))
    if route.creates:
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
        text = "One for each job that you want; the same key with the same request never makes a second job."
        parameters.append(_parameter("Idempotency-Key", "header", text, True, key))
    text = "Kept and sent back; made up when absent."
    request_id = {"type": "string", "maxLength": 128, "pattern": "^[ -~]+$"}
    parameters.append(_parameter("X-Request-Id", "header", text, False, request_id))
    return parameters


def _parameter(name: str, place: str, text: str, required: bool, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "description": text, "required": required, "schema": schema}


def _responses(contract: Contract, route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    reply = route.operation.reply
    names = ["X-Request-Id", *_RATE_HEADERS] + (["Idempotent-Replayed"] if route.creates else [])
    responses: dict[str, Any] = {
        str(reply.status): {
            "description": reply.description,
            "headers": _header_references(names),
            "content": {
                _JSON: {
                    "schema": schemas["references"][reply.body],
                    "examples": {name: {"value": value} for name, value in reply.examples.items()},
                }
            },
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
            _JSON: {
                "schema": schemas["references"][contract.error_body],
                "examples": {row.code: {"value": contract.error_example(row)} for row in rows},
            }
        },
    }


def _header_references(names: list[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
