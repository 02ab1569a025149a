"""The whole road of contract `imaginelab`, as a user walks it: real HTTP, real processes, real media of all six types."""

from __future__ import annotations

import asyncio
import email
import email.policy
import io
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import pytest
import pytest_asyncio
from PIL import Image

from services.gen.billing.v1 import billing_pb2 as billing
from tests.house import Customer, House, Inside, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "correct horse battery"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running_house(tmp_path_factory.mktemp("road") / "var") as house, inside(house) as services:
        await services.set_account_options(pace_ms="100")
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(house: House) -> AsyncIterator[Inside]:
    async with inside(house) as services:
        yield services


@pytest.fixture
def tester(house: House, session: aiohttp.ClientSession) -> Customer:
    """The demo customer's test key: play credits."""
    return Customer(session, house.base_url, house.key("test", "imaginelab"))


async def log_in(house: House, session: aiohttp.ClientSession, address: str, password: str) -> Any:
    form = {"username": address, "password": password}
    async with session.post(house.base_url + "/api/v1/auth/login", data=form) as answer:
        return answer.status, await answer.json()


async def signed_up(house: House, session: aiohttp.ClientSession) -> tuple[str, dict[str, Any], Customer]:
    """A new user: its address, what signing up told, and its client."""
    address = f"{os.urandom(6).hex()}@example.com"
    body = {"email": address, "password": PASSWORD, "full_name": "Ada"}
    async with session.post(house.base_url + "/api/v1/auth/signup", json=body) as answer:
        assert answer.status == 201
        user = await answer.json()
    status, token = await log_in(house, session, address, PASSWORD)
    assert (status, token["token_type"]) == (200, "bearer")
    return address, user, Customer(session, house.base_url, token["access_token"])


async def made(customer: Customer, kind: str, model: str, prompt: str, **settings: Any) -> dict[str, Any]:
    body = {"generation_type": kind, "model_name": model, "prompt": prompt, "settings": settings}
    answer = await customer.call("POST", "/api/v1/generations", body)
    assert answer.status == 201, answer.body
    return answer.json


async def ended(customer: Customer, number: int) -> dict[str, Any]:
    """Asks as a customer would until the generation has ended; returns its record."""
    async with asyncio.timeout(90):
        while True:
            answer = await customer.call("GET", f"/api/v1/generations/{number}/status")
            if answer.status == 200 and answer.json["status"] in {"completed", "failed"}:
                return (await customer.call("GET", f"/api/v1/generations/{number}")).json
            await asyncio.sleep(0.2)


async def wallet(customer: Customer) -> dict[str, Any]:
    return (await customer.call("GET", "/api/v1/credits/wallet")).json


async def content(session: aiohttp.ClientSession, output: dict[str, Any]) -> bytes:
    async with session.get(output["url"]) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, output["mime_type"])
        return await answer.read()


async def test_a_user_signs_up_buys_generates_and_pays(
    house: House, session: aiohttp.ClientSession, services: Inside
) -> None:
    _, user, customer = await signed_up(house, session)
    assert (await customer.call("GET", "/api/v1/auth/me")).json == user
    assert await wallet(customer) == {"balance": 0, "reserved": 0, "available": 0}
    poor = await customer.call(
        "POST",
        "/api/v1/generations",
        {"generation_type": "image", "model_name": "seedream-5.0-lite", "prompt": "a red boat"},
    )
    assert (poor.status, poor.json) == (402, {"detail": "Insufficient credits"})
    found = await services.billing.GetUser(billing.GetUserRequest(user_id=user["id"]))
    await services.billing.TopUp(
        billing.TopUpRequest(
            customer_id=found.user.customer_id,
            mode=billing.MODE_LIVE,
            amount_millis=120_000,
            idempotency_key="first",
        )
    )
    record = await made(customer, "image", "seedream-5.0-lite", "a red boat", aspect_ratio="16:9")
    assert (record["user_id"], record["status"], record["credit_cost"]) == (user["id"], "pending", 5)
    done = await ended(customer, record["id"])
    (output,) = done["outputs"]
    with Image.open(io.BytesIO(await content(session, output))) as picture:
        assert picture.size == (output["width"], output["height"]) == (1280, 720)
    assert await wallet(customer) == {"balance": 115, "reserved": 0, "available": 115}
    history = (await customer.call("GET", "/api/v1/generations")).json
    assert (history["total"], [item["id"] for item in history["items"]]) == (1, [record["id"]])


@pytest.mark.parametrize(
    ("kind", "model", "settings", "cost"),
    [
        ("voice", "eleven-multilingual-v2", {"voice": "george", "format": "wav"}, 3),
        ("music", "eleven-music-v1", {"duration": 6}, 8),
    ],
)
async def test_what_is_heard_has_its_length(
    session: aiohttp.ClientSession,
    tester: Customer,
    kind: str,
    model: str,
    settings: dict[str, Any],
    cost: int,
) -> None:
    record = await made(tester, kind, model, "Good evening, and welcome aboard.", **settings)
    assert record["credit_cost"] == cost
    (output,) = (await ended(tester, record["id"]))["outputs"]
    assert set(output) == {"type", "url", "mime_type", "duration"}
    assert output["type"] == kind
    if kind == "music":
        assert output["duration"] == pytest.approx(6, abs=0.1)
    with av.open(io.BytesIO(await content(session, output)), mode="r") as sound:
        (stream,) = sound.streams.audio
        heard_s = sum(frame.samples for frame in sound.decode(stream)) / stream.rate
    assert heard_s == pytest.approx(output["duration"], abs=0.2)


async def test_an_infographic_is_a_picture(session: aiohttp.ClientSession, tester: Customer) -> None:
    record = await made(
        tester, "infographic", "infographic-1", "Q1 20, Q2 35, Q3 45", aspect_ratio="3:4", style="dark"
    )
    (output,) = (await ended(tester, record["id"]))["outputs"]
    with Image.open(io.BytesIO(await content(session, output))) as picture:
        assert picture.size == (output["width"], output["height"]) == (864, 1152)


async def test_a_film_has_the_length_that_was_asked_for(
    session: aiohttp.ClientSession, tester: Customer
) -> None:
    record = await made(tester, "video", "seedance-2.0-fast", "a red boat", duration=4, generate_audio=True)
    (output,) = (await ended(tester, record["id"]))["outputs"]
    with av.open(io.BytesIO(await content(session, output)), mode="r") as film:
        (pictures,) = film.streams.video
        assert sum(1 for _ in film.decode(pictures)) == 4 * 24
        assert len(film.streams.audio) == 1


async def test_a_text_comes_inline_and_keeps_to_its_length(tester: Customer) -> None:
    record = await made(tester, "text", "gpt-5-mini", "a ferry line", max_words=40)
    (output,) = (await ended(tester, record["id"]))["outputs"]
    assert set(output) == {"type", "text"}
    assert 0 < len(output["text"].split()) <= 40


async def test_a_deleted_generation_is_gone_with_its_media(
    session: aiohttp.ClientSession, tester: Customer
) -> None:
    record = await made(tester, "image", "gpt-image-2", "a red boat")
    (output,) = (await ended(tester, record["id"]))["outputs"]
    path = f"/api/v1/generations/{record['id']}"
    assert (await tester.call("DELETE", path)).status == 204
    for suffix in ("", "/status"):
        assert (await tester.call("GET", path + suffix)).status == 404
    listed = (await tester.call("GET", "/api/v1/generations?page_size=100")).json
    assert record["id"] not in [item["id"] for item in listed["items"]]
    async with asyncio.timeout(30):
        while True:
            async with session.get(output["url"]) as answer:
                if answer.status == 404:
                    break
            await asyncio.sleep(0.2)


async def test_a_running_generation_that_is_deleted_costs_nothing(
    house: House, session: aiohttp.ClientSession
) -> None:
    customer = Customer(session, house.base_url, house.key("live", "imaginelab"))
    before = await wallet(customer)
    record = await made(customer, "video", "seedance-2.0", "a red boat [sandbox:slow]")
    assert (await wallet(customer))["reserved"] >= 15
    assert (await customer.call("DELETE", f"/api/v1/generations/{record['id']}")).status == 204
    async with asyncio.timeout(60):
        while await wallet(customer) != before:
            await asyncio.sleep(0.2)


async def test_a_forgotten_password_is_set_anew_by_mail_and_ends_the_login(
    house: House, session: aiohttp.ClientSession
) -> None:
    address, _, customer = await signed_up(house, session)
    base = house.base_url + "/api/v1/auth"
    async with session.post(f"{base}/forgot-password", json={"email": address}) as answer:
        assert answer.status == 200
    token = await mailed_token(house, address)
    new = {"token": token, "password": "staple battery horse"}
    async with session.post(f"{base}/reset-password", json=new) as answer:
        assert answer.status == 200, await answer.text()
    async with session.post(f"{base}/reset-password", json=new) as answer:
        assert answer.status == 400
    assert (await log_in(house, session, address, PASSWORD))[0] == 401
    assert (await log_in(house, session, address, new["password"]))[0] == 200
    async with asyncio.timeout(10):
        while (await customer.call("GET", "/api/v1/auth/me")).status != 401:
            await asyncio.sleep(0.2)


async def mailed_token(house: House, address: str) -> str:
    """The token in the mail that lies in the local outbox."""
    async with asyncio.timeout(15):
        while True:
            for file in house.var.rglob("*.eml"):
                mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
                found = re.search(r"[A-Za-z0-9_-]{40,}", mail.get_content())
                if address in str(mail["To"]) and found:
                    return found[0]
            await asyncio.sleep(0.1)


async def test_the_demo_user_can_log_in(house: House, session: aiohttp.ClientSession) -> None:
    demo = house.demo["storefronts"]["imaginelab"]
    status, _ = await log_in(house, session, demo["email"], demo["password"])
    assert status == 200
