"""The documents of `seedancee2` and `seedance2pro`: valid, complete, and their examples what the types say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from services.gateway import openapi
from services.gateway.contract import Contract
from services.gateway.contracts import seedance2pro, seedancee2
from services.gateway.docs_site.page import page_of

CONTRACTS = [seedancee2.CONTRACT, seedance2pro.CONTRACT]
# Said of the router, not of any operation.
EVERYWHERE = {404: {"not_found", "Not found"}, 405: {"method_not_allowed", "Method not allowed"}}


@pytest.fixture(params=CONTRACTS, ids=lambda contract: contract.name)
def contract(request: pytest.FixtureRequest) -> Contract:
    found: Contract = request.param
    return found


@pytest.fixture
def document(contract: Contract) -> dict[str, Any]:
    return openapi.document(contract, "https://api.example.com")


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_route_and_every_error_is_documented(contract: Contract, document: dict[str, Any]) -> None:
    paths = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert paths == {(route.path, route.method.lower()) for route in contract.routes}
    told = {
        (int(status), code)
        for operation in operations(document)
        for status, reply in operation["responses"].items()
        if status >= "400"
        for code in reply["content"]["application/json"]["examples"]
    }
    rest = {(row.status, row.code) for row in contract.error_codes} - told
    assert {status for status, _ in rest} == {404, 405}
    assert all(code in EVERYWHERE[status] for status, code in rest)


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for operation in operations(document):
        for holder in [operation.get("requestBody", {"content": {}}), *operation["responses"].values()]:
            for media in holder["content"].values():
                schema = {**media["schema"], "components": document["components"]}
                for example in media["examples"].values():
                    OAS31Validator(schema).validate(example["value"])
                    checked += 1
    assert checked > 20


def test_every_parameter_of_a_query_is_documented(document: dict[str, Any]) -> None:
    queries = {
        parameter["name"]
        for operation in operations(document)
        for parameter in operation["parameters"]
        if parameter["in"] == "query"
    }
    assert queries in ({"status", "limit", "cursor", "start", "end"}, {"taskId"})


def test_the_ways_to_send_a_key_are_documented(contract: Contract, document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {each["type"] for each in schemes.values()} == (
        {"http", "apiKey"} if contract.name == "seedancee2" else {"http"}
    )
    assert document["security"] == [{name: []} for name in schemes]


def test_an_idempotency_key_may_be_left_out(document: dict[str, Any]) -> None:
    keys = [
        parameter["required"]
        for operation in operations(document)
        for parameter in operation["parameters"]
        if parameter["name"] == "Idempotency-Key"
    ]
    assert keys == [False]


def test_the_page_is_drawn_and_every_chapter_is_on_it(contract: Contract, document: dict[str, Any]) -> None:
    page = page_of(contract, document, "/openapi.json")
    assert [chapter.anchor for chapter in page.chapters] == [section.anchor for section in contract.guide]
    assert len(page.endpoints) == len(contract.routes)
    assert all(endpoint.samples and endpoint.replies for endpoint in page.endpoints)
    anchors = [chapter.anchor for chapter in page.chapters] + [endpoint.anchor for endpoint in page.endpoints]
    assert len(anchors) == len(set(anchors))


def test_no_description_is_missing(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        assert schema.get("description") or "enum" in schema
    for operation in operations(document):
        assert operation["summary"]
        assert re.search(r"[.`]$", operation["description"])
