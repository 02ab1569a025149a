"""`seedancee2` through a whole house: create, poll, fetch, list, and a report that agrees with the journal."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import pytest
import pytest_asyncio
from PIL import Image

from services.gen.billing.v1 import billing_pb2 as billing
from tests.house import Customer, House, Inside, inside, running_house
from tests.webhook_receiver import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIDEOS = "/v1/videos/generations"
SMALL = {"prompt": "a paper boat", "duration": 4, "resolution": "480p"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> AsyncIterator[House]:
    var = tmp_path_factory.mktemp("seedancee2") / "var"
    allowed = f"127.0.0.1/32:{receiver.port}"
    async with running_house(var, ATELIER_EGRESS_ALLOW=allowed) as house, inside(house) as services:
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


async def created(customer: Customer, model: str = "mini", **given: Any) -> dict[str, Any]:
    answer = await customer.call("POST", VIDEOS, {"model": model, "input": {**SMALL, **given}})
    assert answer.status == 200, answer.json
    data: dict[str, Any] = answer.json["data"]
    return data


async def ended(customer: Customer, video_id: str) -> dict[str, Any]:
    """Polls until the video has ended; its words never go backwards."""
    words = ["pending", "processing", "completed"]
    furthest = 0
    async with asyncio.timeout(90):
        while True:
            answer = await customer.call("GET", f"{VIDEOS}/{video_id}")
            assert answer.status == 200, answer.json
            data: dict[str, Any] = answer.json["data"]
            if data["status"] == "failed":
                return data
            assert words.index(data["status"]) >= furthest
            furthest = words.index(data["status"])
            if data["status"] == "completed":
                return data
            await asyncio.sleep(0.2)


def told(body: Any) -> Any:
    """A body without the signatures of its links, which say when they were made."""
    if isinstance(body, dict):
        return {name: told(value) for name, value in body.items()}
    return body.partition("?")[0] if isinstance(body, str) and body.startswith("http") else body


async def fetched(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


@pytest.mark.parametrize("mode", ["live", "test"])
async def test_a_video_is_made_as_asked_and_paid_for(
    house: House, session: aiohttp.ClientSession, mode: str
) -> None:
    customer = Customer(session, house.base_url, house.key(mode, "seedancee2"))
    accepted = await created(customer, generate_audio=True, return_last_frame=True)
    assert (accepted["status"], accepted["credits_reserved"]) == ("pending", 20)
    video = await ended(customer, accepted["id"])
    assert (video["status"], video["credits_charged"], video["model"]) == ("completed", 20, "mini")
    output = video["output"]
    with av.open(io.BytesIO(await fetched(session, output["video_url"])), mode="r") as film:
        (pictures,) = film.streams.video
        assert (pictures.width, pictures.height) == (864, 496)
        assert len(film.streams.audio) == 1
    for name in ("thumbnail_url", "last_frame_url"):
        with Image.open(io.BytesIO(await fetched(session, output[name]))) as still:
            assert (still.format, still.size) == ("JPEG", (864, 496))
    day = accepted["created_at"][:10].replace("-", "/")
    assert f"/videos/{day}/{accepted['id']}.mp4?" in output["video_url"]
    assert f"/video-posters/{day}/{accepted['id']}.jpg?" in output["thumbnail_url"]
    assert f"/video-posters/{day}/{accepted['id']}-last.jpg?" in output["last_frame_url"]


def picture(width: int, height: int, colour: str) -> str:
    """A PNG as a data URL."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


async def test_a_film_from_one_frame_to_another_takes_their_shape(
    house: House, session: aiohttp.ClientSession
) -> None:
    customer = Customer(session, house.base_url, house.key("test", "seedancee2"))
    accepted = await created(
        customer,
        generation_type="first_and_last_frames",
        start_image_url=picture(300, 600, "red"),
        end_image_url=picture(300, 600, "blue"),
        aspect_ratio="adaptive",
        watermark=True,
        seed=7,
    )
    video = await ended(customer, accepted["id"])
    assert video["status"] == "completed"
    with av.open(io.BytesIO(await fetched(session, video["output"]["video_url"])), mode="r") as film:
        (pictures,) = film.streams.video
        assert (pictures.width, pictures.height) == (432, 864)


async def test_lists_and_the_report_agree_with_the_journal(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    customer_id, key, _ = await services.customer(1000, storefront="seedancee2")
    customer = Customer(session, house.base_url, key)
    good = await created(customer, "fast")
    bad = await created(customer, "mini", prompt="a boat [sandbox:fail]")
    assert (await ended(customer, good["id"]))["credits_charged"] == 32
    failed = await ended(customer, bad["id"])
    assert (failed["credits_charged"], failed["credits_refunded"]) == (0, 20)
    assert failed["error"] == {
        "code": "generation_failed",
        "message": "The video could not be generated. Please try again with a different prompt.",
        "type": "generation_error",
    }
    page = (await customer.call("GET", f"{VIDEOS}?limit=1")).json
    assert [each["id"] for each in page["data"]] == [bad["id"]]
    rest = (await customer.call("GET", f"{VIDEOS}?cursor={page['next_cursor']}")).json
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([good["id"]], False)
    report = (await customer.call("GET", "/v1/usage")).json["data"]
    assert report["summary"] == {
        "total_jobs": 2,
        "pending_jobs": 0,
        "processing_jobs": 0,
        "completed_jobs": 1,
        "failed_jobs": 1,
        "credits_charged": 52,
        "credits_refunded": 20,
        "net_credits": 32,
    }
    assert [(each["model"], each["net_credits"]) for each in report["by_model"]] == [
        ("fast", 32),
        ("mini", 0),
    ]
    assert [each["date"] for each in report["timeline"]] == [good["created_at"][:10]]
    wallet = await services.billing.GetBalance(
        billing.GetBalanceRequest(customer_id=customer_id, mode=billing.MODE_LIVE)
    )
    assert wallet.balance.balance_millis == 1_000_000 - report["summary"]["net_credits"] * 1000


async def test_a_repeated_request_is_one_video(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    _, key, _ = await services.customer(20, storefront="seedancee2")
    customer = Customer(session, house.base_url, key)
    body = {"model": "mini", "input": SMALL}
    answers = [await customer.call("POST", VIDEOS, body, {"Idempotency-Key": "order-1"}) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert len({answer.json["data"]["id"] for answer in answers}) == 1
    poor = await customer.call("POST", VIDEOS, body)
    assert (poor.status, poor.json["error"]["code"]) == (402, "insufficient_credits")


@pytest.mark.parametrize("prompt,event", [("a boat", "completed"), ("a boat [sandbox:fail]", "failed")])
async def test_the_end_is_told_as_polling_tells_it_and_signed(
    house: House, session: aiohttp.ClientSession, receiver: Receiver, prompt: str, event: str
) -> None:
    customer = Customer(session, house.base_url, house.key("live", "seedancee2"))
    body = {
        "model": "mini",
        "input": {**SMALL, "prompt": prompt},
        "metadata": {"order": "1842", "grüße": [1, None]},
        "callback_url": f"http://127.0.0.1:{receiver.port}/hooks/{event}?x=1",
    }
    answer = await customer.call("POST", VIDEOS, body)
    assert answer.status == 200, answer.json
    video = await ended(customer, answer.json["data"]["id"])
    async with asyncio.timeout(20):
        while not (received := [each for each in receiver.received if event in each.path]):
            await asyncio.sleep(0.1)
    assert video["metadata"] == body["metadata"]
    assert told(received[0].json) == told({"data": video})
    headers = {name.lower(): value for name, value in received[0].headers.items()}
    assert headers["x-seedancee2-event"] == f"video.generation.{event}"
    at, _, signature = headers["x-seedancee2-signature"].removeprefix("t=").partition(",v1=")
    secret = house.demo["storefronts"]["seedancee2"]["webhook_secret"].encode()
    assert signature == hmac.new(secret, f"{at}.".encode() + received[0].body, hashlib.sha256).hexdigest()
    for url in received[0].json["data"].get("output", {}).values():
        assert await fetched(session, url)
