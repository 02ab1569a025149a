"""Every contract's OpenAPI document and page: valid, complete, and its examples true to its schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from services.gateway import openapi
from services.gateway.contract import Contract
from services.gateway.contracts import CONTRACTS
from services.gateway.docs_site.page import page_of
from services.gateway.docs_site.samples import Sample

EVERY = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)


def described(contract: Contract) -> dict[str, Any]:
    return openapi.document(contract, "https://api.example.com")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


@EVERY
def test_the_document_is_valid_openapi_3_1(contract: Contract) -> None:
    document = described(contract)
    validate(document)
    assert document["openapi"].startswith("3.1")


@EVERY
def test_every_open_route_is_documented_once_and_no_other(contract: Contract) -> None:
    told = sorted((path, method) for path, method, _ in operations(described(contract)))
    assert told == sorted((route.path, route.method.lower()) for route in contract.routes if not route.bound)


@EVERY
def test_every_part_of_a_path_that_varies_is_described(contract: Contract) -> None:
    for path, _, operation in operations(described(contract)):
        told = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert told == {part[1:-1] for part in path.split("/") if part.startswith("{")}


@EVERY
def test_every_example_fits_its_schema(contract: Contract) -> None:
    document = described(contract)
    for path, method, operation in operations(document):
        holders = [operation.get("requestBody", {}), *operation["responses"].values()]
        for media in (media for holder in holders for media in holder.get("content", {}).values()):
            schema = {**media["schema"], "components": document["components"]}
            assert media["examples"], (path, method)
            for example in media["examples"].values():
                OAS31Validator(schema).validate(example["value"])


@EVERY
def test_what_is_sent_when_a_job_ends_is_described_as_what_asking_for_it_answers(contract: Contract) -> None:
    document, tracking = described(contract), contract.tracking
    asked = document["paths"][tracking.status_path]["get"]["responses"]["200"]["content"]["application/json"]
    sent = document["webhooks"]["jobEnded"]["post"]
    body = sent["requestBody"]["content"]["application/json"]
    assert body["schema"] == asked["schema"]
    ended = set()
    for name, example in body["examples"].items():
        assert example == asked["examples"][name]
        told = example["value"]
        for member in tracking.status.split("."):
            told = told[member]
        ended.add(told)
    assert ended == set(tracking.ended)
    headers = {each["name"] for each in sent["parameters"]}
    assert headers >= {"webhook-id", "webhook-timestamp", "webhook-signature"}
    own = contract.webhook_form.legacy_signature
    assert {own.event_header, own.signature_header} - {""} == headers - {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert sent["security"] == []


@EVERY
def test_what_needs_no_credential_says_so_and_nothing_else_does(contract: Contract) -> None:
    free = {
        operation["operationId"]
        for _, _, operation in operations(described(contract))
        if operation.get("security") == []
    }
    assert free == {route.name for route in contract.routes if route.public}


@EVERY
def test_a_page_shows_every_endpoint_with_a_request_in_three_languages(contract: Contract) -> None:
    document = described(contract)
    page = page_of(contract, document, "/openapi.json")
    assert [endpoint.anchor for endpoint in page.endpoints] == [
        operation["operationId"] for _, _, operation in operations(document)
    ]
    for endpoint in page.endpoints:
        assert [sample.language for sample in endpoint.samples] == ["curl", "python", "javascript"]
        for sample in endpoint.samples:
            assert "{id}" not in sample.code
            assert "{jobId}" not in sample.code


def sample_of(name: str, operation: str, language: str) -> str:
    (contract,) = (contract for contract in CONTRACTS if contract.name == name)
    page = page_of(contract, described(contract), "/openapi.json")
    (endpoint,) = (endpoint for endpoint in page.endpoints if endpoint.anchor == operation)
    samples: tuple[Sample, ...] = endpoint.samples
    return next(sample.code for sample in samples if sample.language == language)


def test_a_sample_sends_a_form_as_a_form_and_without_a_key() -> None:
    curl, python, javascript = (
        sample_of("imaginelab", "logIn", each) for each in ("curl", "python", "javascript")
    )
    assert "--data-urlencode 'username=ada@example.com'" in curl
    assert "data={" in python
    assert "new URLSearchParams(" in javascript
    for code in (curl, python, javascript):
        assert "Authorization" not in code


def test_a_sample_names_what_the_query_needs() -> None:
    assert '"https://api.example.com/api/v1/tasks?task_id=task_' in sample_of("loova", "getTask", "curl")


@pytest.mark.parametrize("operation", ["signUp", "createGeneration", "getWallet", "deleteGeneration"])
def test_python_samples_are_python(operation: str) -> None:
    compile(sample_of("imaginelab", operation, "python"), "sample", "exec")
