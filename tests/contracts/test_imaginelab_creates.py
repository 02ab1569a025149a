"""Generating on `imaginelab`: the example, every type with its settings, costs, idempotency."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Storefront
from tests.contracts.imaginelab import (
    GENERATIONS,
    IMAGE,
    MODELS,
    Client,
    asking,
    refused,
    signed_in,
)
from tests.fakes import key_of

COSTS = {"text": 2, "voice": 3, "image": 5, "music": 8, "infographic": 10, "video": 15}


@pytest.fixture
def client(shop: Storefront) -> Client:
    return Client(shop)


async def test_the_example_is_answered_as_documented(shop: Storefront) -> None:
    answer = await (await signed_in(shop)).create(IMAGE)
    assert answer.status == 201
    assert 0 < answer.body["id"] < 2**53
    assert answer.body == {
        "id": answer.body["id"],
        "user_id": 17,
        "generation_type": "image",
        "model_name": "seedream-5.0-lite",
        "prompt": "A neon city skyline at dusk",
        "status": "pending",
        "credit_cost": 5,
        "created_at": "2026-06-29T10:00:00Z",
        "outputs": [],
    }
    assert list(answer.body)[:3] == ["id", "user_id", "generation_type"]
    assert "Idempotent-Replayed" not in answer.headers


@pytest.mark.parametrize("kind", COSTS)
async def test_every_type_costs_what_the_document_says(client: Client, kind: str) -> None:
    answer = await client.create({"generation_type": kind, "model_name": MODELS[kind], "prompt": "a"})
    assert (answer.status, answer.body["credit_cost"], answer.body["status"]) == (201, COSTS[kind], "pending")


@pytest.mark.parametrize(
    "kind,settings,made",
    [
        ("image", {}, {"width": 1024, "height": 1024}),
        ("image", {"aspect_ratio": "16:9"}, {"width": 1280, "height": 720}),
        ("image", {"aspect_ratio": "9:16"}, {"width": 720, "height": 1280}),
        ("image", {"aspect_ratio": "4:3"}, {"width": 1152, "height": 864}),
        ("image", {"aspect_ratio": "3:4"}, {"width": 864, "height": 1152}),
        ("video", {}, {"width": 1280, "height": 720, "duration_s": 5}),
        (
            "video",
            {"aspect_ratio": "1:1", "duration": 15, "generate_audio": True},
            {"width": 960, "height": 960, "duration_s": 15, "audio": True},
        ),
        ("voice", {}, {"voice": "alice", "format": "mp3"}),
        ("voice", {"voice": "george", "format": "wav"}, {"voice": "george", "format": "wav"}),
        ("music", {}, {"duration_s": 15}),
        ("music", {"duration": 60}, {"duration_s": 60}),
        ("infographic", {}, {"width": 1280, "height": 720, "style": "clean"}),
        (
            "infographic",
            {"aspect_ratio": "9:16", "style": "dark"},
            {"width": 720, "height": 1280, "style": "dark"},
        ),
        ("text", {}, {"max_words": 500}),
        ("text", {"max_words": 2000, "temperature": 1}, {"max_words": 2000}),
    ],
)
async def test_settings_say_what_is_made(
    shop: Storefront, client: Client, kind: str, settings: dict[str, Any], made: dict[str, Any]
) -> None:
    assert (await client.create(asking(kind, **settings))).status == 201
    sent = shop.jobs.created[0]
    kinds = {name: jobs.Kind.Value(f"KIND_{name.upper()}") for name in MODELS}
    assert sent.generation == jobs.Generation(kind=kinds[kind], model=MODELS[kind], prompt="a", **made)
    assert (sent.sku, sent.quantity, sent.numbered) == (f"{kind}.{MODELS[kind]}", 1, True)


@pytest.mark.parametrize(
    "kind,settings,field",
    [
        ("image", {"aspect_ratio": "2:1"}, "settings.aspect_ratio"),
        ("image", {"aspect_ratio": None}, "settings.aspect_ratio"),
        ("video", {"duration": 3}, "settings.duration"),
        ("video", {"duration": 16}, "settings.duration"),
        ("video", {"duration": 5.0}, "settings.duration"),
        ("video", {"duration": "5"}, "settings.duration"),
        ("video", {"duration": True}, "settings.duration"),
        ("video", {"generate_audio": 1}, "settings.generate_audio"),
        ("voice", {"voice": "hal"}, "settings.voice"),
        ("voice", {"format": "ogg"}, "settings.format"),
        ("music", {"duration": 4}, "settings.duration"),
        ("music", {"duration": 61}, "settings.duration"),
        ("infographic", {"style": "ugly"}, "settings.style"),
        ("text", {"max_words": 0}, "settings.max_words"),
        ("text", {"max_words": 2001}, "settings.max_words"),
    ],
)
async def test_a_wrong_setting_is_400_and_named(
    shop: Storefront, client: Client, kind: str, settings: dict[str, Any], field: str
) -> None:
    assert field in refused(await client.create(asking(kind, **settings)), 400)
    assert shop.jobs.created == []


@pytest.mark.parametrize(
    "changes,field",
    [
        ({"generation_type": "hologram"}, "generation_type"),
        ({"model_name": "dall-e"}, "model_name"),
        ({"model_name": "gpt-5-mini"}, "model_name"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a" * 4001}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"settings": []}, "settings"),
        ({"settings": "{}"}, "settings"),
        ({"project_id": "p" * 101}, "project_id"),
        ({"project_id": ["p"]}, "project_id"),
    ],
)
async def test_a_wrong_field_is_400_and_named(client: Client, changes: dict[str, Any], field: str) -> None:
    assert field in refused(await client.create({**IMAGE, **changes}), 400)


@pytest.mark.parametrize("missing", ["generation_type", "model_name", "prompt"])
async def test_what_a_request_needs_is_named(client: Client, missing: str) -> None:
    body = {name: value for name, value in IMAGE.items() if name != missing}
    refused(await client.create(body), 400, f"{missing} is required.")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null"])
async def test_what_is_no_request_is_400(client: Client, body: bytes) -> None:
    refused(await client.create(body), 400)


async def test_a_body_of_more_than_a_mebibyte_is_413(client: Client) -> None:
    refused(await client.create({**IMAGE, "x": "a" * (1024 * 1024)}), 413)


@pytest.mark.parametrize("project_id,kept", [("site", "site"), (12, "12"), (None, "")])
async def test_a_project_is_a_number_or_a_text(
    shop: Storefront, client: Client, project_id: Any, kept: str
) -> None:
    assert (await client.create({**IMAGE, "project_id": project_id})).status == 201
    assert shop.jobs.created[0].project_id == kept


async def test_jobs_is_told_whose_generation_it_is(shop: Storefront) -> None:
    await Client(shop, key_of("imaginelab", test=True)).create(IMAGE)
    sent = shop.jobs.created[0]
    assert (sent.customer_id, sent.mode, sent.storefront) == ("cus_1", jobs.MODE_TEST, "imaginelab")
    assert (sent.public_model, sent.id_prefix) == ("seedream-5.0-lite", "gen")
    assert sent.webhook_form_id
    assert json.loads(sent.echo) == {"user_id": 0, "prompt": IMAGE["prompt"]}


# ---- models and credits -------------------------------------------------------------------------------------


async def test_models_say_what_they_cost_and_what_can_be_set(client: Client) -> None:
    answer = await client.get("generations/models")
    assert answer.status == 200
    listed = {model["name"]: model for model in answer.body}
    assert set(listed) == set(MODELS.values()) | {"gpt-image-2", "seedance-2.0-fast"}
    for model in listed.values():
        assert list(model) == ["name", "generation_type", "credit_cost", "settings"]
        assert model["credit_cost"] == COSTS[model["generation_type"]]
        OAS31Validator.check_schema(model["settings"])
        assert model["settings"]["type"] == "object"
    video = OAS31Validator(listed["seedance-2.0"]["settings"])
    assert video.is_valid({"duration": 15, "aspect_ratio": "9:16", "generate_audio": True, "x": 1})
    assert not video.is_valid({"duration": 16})


async def test_models_can_be_filtered_by_type(client: Client) -> None:
    for kind in MODELS:
        answer = await client.get("generations/models", generation_type=kind)
        assert {model["generation_type"] for model in answer.body} == {kind}
    assert "generation_type" in refused(await client.get("generations/models", generation_type="x"), 400)


async def test_prices_are_asked_for_once_in_a_while(shop: Storefront, client: Client) -> None:
    await asyncio.gather(*(client.get("generations/models") for _ in range(20)))
    assert shop.billing.price_questions == 1


async def test_the_wallet_reads_as_documented(shop: Storefront, client: Client) -> None:
    shop.billing.balance = billing.Balance(balance_millis=120_000, reserved_millis=15_000)
    assert (await client.get("credits/wallet")).raw == b'{"balance":120,"reserved":15,"available":105}'
    shop.billing.balance = billing.Balance(balance_millis=2_500, reserved_millis=0)
    assert (await client.get("credits/wallet")).body == {"balance": 2.5, "reserved": 0, "available": 2.5}


async def test_packages_read_as_documented(client: Client) -> None:
    answer = await client.get("credits/packages")
    assert answer.status == 200
    assert answer.body[0] == {
        "id": "starter",
        "name": "Starter",
        "credits": 500,
        "price": "9.00",
        "currency": "USD",
    }


# ---- idempotency --------------------------------------------------------------------------------------------


async def test_a_request_without_an_idempotency_key_makes_a_generation_each_time(client: Client) -> None:
    first, second = await client.create(IMAGE), await client.create(IMAGE)
    assert first.body["id"] != second.body["id"]


async def test_a_repeated_request_gets_the_first_generation_with_its_live_status(
    shop: Storefront, client: Client
) -> None:
    first = await client.create(IMAGE, key="order-1")
    for job in shop.jobs.kept.values():
        job.stage = jobs.STAGE_AT_PROVIDER
    same = {**IMAGE, "settings": {"x": 1, "aspect_ratio": "16:9"}, "prompt": f" {IMAGE['prompt']} "}
    del same["project_id"]
    again = await client.create(same, key="order-1")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.body == {**first.body, "status": "processing"}


async def test_a_repeat_gets_the_first_answer_after_its_generation_was_deleted(
    shop: Storefront, client: Client
) -> None:
    first = await client.create(IMAGE, key="order-1")
    for job in shop.jobs.kept.values():
        # What jobs remember of it.
        job.stage, job.echo, job.project_id = jobs.STAGE_ENDED_BADLY, b"", ""
    again = await client.create(IMAGE, key="order-1")
    assert again.body == {**first.body, "status": "failed"}


@pytest.mark.parametrize(
    "changes", [{"settings": {}}, {"model_name": "gpt-image-2"}, {"prompt": "b"}, {"project_id": "p"}]
)
async def test_a_key_used_with_another_request_is_a_conflict(client: Client, changes: dict[str, Any]) -> None:
    await client.create(IMAGE, key="order-1")
    refused(await client.create({**IMAGE, **changes}, key="order-1"), 409)


async def test_50_simultaneous_identical_requests_make_one_generation(
    shop: Storefront, client: Client
) -> None:
    shop.jobs.answer_after_s = 0.01
    answers = await asyncio.gather(*(client.create(IMAGE, key="order-1") for _ in range(50)))
    assert len({answer.body["id"] for answer in answers}) == 1


async def test_a_malformed_idempotency_key_is_400(shop: Storefront) -> None:
    answer = await shop.raw(
        GENERATIONS,
        f"Authorization: Bearer {key_of('imaginelab')}\r\nIdempotency-Key: {'x' * 256}\r\n".encode(),
        json.dumps(IMAGE).encode(),
    )
    assert answer.status == 400
    assert shop.jobs.created == []
