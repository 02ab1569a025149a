"""The documentation: valid, complete, self-contained, and true to what the API answers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from services.gateway.contracts import CONTRACTS
from tests.contracts.conftest import Storefront

CONTRACT = CONTRACTS[0]
OUTSIDE = re.compile(
    rb"""(?:src|href|action|srcset)\s*=\s*["']?\s*(?:https?:)?//"""
    rb"""|url\(\s*["']?\s*(?:https?:)?//"""
    rb"""|@import|(?:fetch|import)\(\s*["'`](?:https?:)?//""",
    re.IGNORECASE,
)


async def described(shop: Storefront) -> dict[str, Any]:
    document: dict[str, Any] = (await shop.request("GET", "/openapi.json")).body
    return document


async def test_the_document_is_valid_openapi_3_1(shop: Storefront) -> None:
    document = await described(shop)
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": shop.url}]


async def test_every_route_and_every_error_code_is_documented(shop: Storefront) -> None:
    document = await described(shop)
    paths = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert paths == {(route.path, route.method.lower()) for route in CONTRACT.routes}
    told = {
        code
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, reply in operation["responses"].items()
        if status >= "400"
        for code in reply["content"]["application/json"]["examples"]
    }
    everywhere = {"not_found", "method_not_allowed"}
    assert told | everywhere == {row.code for row in CONTRACT.error_codes}


async def test_every_example_fits_its_schema(shop: Storefront) -> None:
    document = await described(shop)
    checked = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            for holder in [operation.get("requestBody", {"content": {}}), *operation["responses"].values()]:
                for media in holder["content"].values():
                    schema = {**media["schema"], "components": document["components"]}
                    for example in media["examples"].values():
                        OAS31Validator(schema).validate(example["value"])
                        checked += 1
    assert checked > 30


async def test_what_the_api_answers_fits_what_it_documents(shop: Storefront) -> None:
    document = await described(shop)
    created = await shop.post("/v1/videos/generate", {"prompt": "a"})
    answers = {
        ("/v1/videos/generate", "post"): created,
        ("/v1/jobs/{jobId}", "get"): await shop.get(f"/v1/jobs/{created.body['jobId']}"),
        ("/v1/jobs/{jobId}/result", "get"): await shop.get(f"/v1/jobs/{created.body['jobId']}/result"),
        ("/v1/usage", "get"): await shop.get("/v1/usage"),
    }
    for (path, method), answer in answers.items():
        media = document["paths"][path][method]["responses"][str(answer.status)]["content"][
            "application/json"
        ]
        OAS31Validator({**media["schema"], "components": document["components"]}).validate(answer.body)


PAGES = ["/", "/docs", "/docs/static/site.css", "/docs/static/site.js", "/docs/static/mark.svg"]


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_asks_anybody_else_for_anything(shop: Storefront, path: str) -> None:
    page = await shop.request("GET", path)
    assert page.status == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert not OUTSIDE.search(page.raw)


async def test_the_page_obeys_its_own_policy(shop: Storefront) -> None:
    for path in ("/", "/docs"):
        page = (await shop.request("GET", path)).raw.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page)


async def test_every_link_within_the_site_leads_somewhere(shop: Storefront) -> None:
    for path in ("/", "/docs"):
        page = (await shop.request("GET", path)).raw.decode()
        for target in set(re.findall(r'(?:href|src)="([^"]+)"', page)):
            address, _, anchor = target.partition("#")
            there = await shop.request("GET", address or path)
            assert there.status == 200, target
            assert not anchor or anchor == "content" or f'id="{anchor}"' in there.raw.decode(), target


async def test_the_page_shows_every_endpoint_field_and_code(shop: Storefront) -> None:
    page = (await shop.request("GET", "/docs")).raw.decode()
    document = await described(shop)
    wanted = {route.path for route in CONTRACT.routes} | {row.code for row in CONTRACT.error_codes}
    for schema in document["components"]["schemas"].values():
        wanted |= set(schema["properties"]) - {"code", "message"}
    missing = {word for word in wanted if word not in page}
    assert missing == set()


async def test_the_page_says_where_a_receiver_has_its_secret_from_and_what_its_answers_do(
    shop: Storefront,
) -> None:
    page = (await shop.request("GET", "/docs")).raw.decode()
    chapter = page.partition('id="webhooks"')[2].partition("</section>")[0]
    for word in ("signing secret", "WEBHOOK_SECRET", "410", "Retry-After", "redirects"):
        assert word in chapter, word


async def test_the_storefronts_inner_name_is_shown_nowhere(shop: Storefront) -> None:
    for path in (*PAGES, "/openapi.json"):
        assert CONTRACT.name not in (await shop.request("GET", path)).raw.decode().lower()


async def test_a_slash_more_leads_to_the_page_too(shop: Storefront) -> None:
    assert (await shop.request("GET", "/docs/")).raw == (await shop.request("GET", "/docs")).raw
    for contract in CONTRACTS:
        page = await shop.request("GET", f"/docs/{contract.name}")
        assert page.status == 200
        assert (await shop.request("GET", f"/docs/{contract.name}/")).raw == page.raw


async def test_every_input_of_the_page_has_a_label(shop: Storefront) -> None:
    page = (await shop.request("GET", "/docs")).raw.decode()
    fields = re.findall(r"<(?:input|textarea|select)\b", page)
    assert fields
    assert len(re.findall(r"<label>[^<]+<(?:input|textarea|select)\b", page)) == len(fields)


async def test_a_page_that_the_client_has_already_is_304(shop: Storefront) -> None:
    etag = (await shop.request("GET", "/docs")).headers["ETag"]
    again = await shop.request("GET", "/docs", headers={"If-None-Match": etag})
    assert (again.status, again.raw) == (304, b"")


async def test_a_page_is_compressed_for_who_can_read_that(shop: Storefront) -> None:
    plain = await shop.request("GET", "/docs", headers={"Accept-Encoding": "identity"})
    packed = await shop.request("GET", "/docs", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.raw == plain.raw
