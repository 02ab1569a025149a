"""The whole road of contract `leonardo`, as a customer walks it: real HTTP, real processes, real media."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import pytest
import pytest_asyncio
from PIL import Image

from tests.house import Customer, House, Inside, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with (
        running_house(
            tmp_path_factory.mktemp("road") / "var",
            # A submission in doubt is looked for during this window; two minutes would be a long test.
            ATELIER_POOL_UNKNOWN_WINDOW_S="3",
        ) as house,
        inside(house) as services,
    ):
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
def customer(house: House, session: aiohttp.ClientSession) -> Customer:
    return Customer(session, house.base_url, house.key())


async def _media(session: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, Any, bytes]:
    async with session.get(url, headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


SIZES = {
    "16:9_SMALL": (1376, 768),
    "1:1_SMALL": (1024, 1024),
    "2:3_SMALL": (848, 1264),
    "9:16_SMALL": (768, 1376),
}
FILM_SIZES = {
    "16:9_SMALL": (1280, 720),
    "1:1_SMALL": (960, 960),
    "2:3_SMALL": (720, 1080),
    "9:16_SMALL": (720, 1280),
}


@pytest.mark.parametrize("size", SIZES)
async def test_a_picture_has_exactly_the_pixels_that_were_asked_for(
    customer: Customer, session: aiohttp.ClientSession, size: str
) -> None:
    made = await customer.image(f"picture-{size}", "cinematic product photo", quality="LOW", size=size)
    assert made.status == 202
    assert made.json | {"jobId": "", "status": ""} == {
        "ok": True,
        "jobId": "",
        "status": "",
        "type": "image",
        "chargedCredits": 20,
        "model": "gpt-image-2",
        "idempotentReplay": False,
    }
    ended = await customer.ended(made.json["jobId"])
    assert ended["status"] == "complete"
    result = await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")
    assert result.status == 200
    assert (result.json["width"], result.json["height"]) == SIZES[size]
    assert "previewUrl" not in result.json
    assert "duration" not in result.json
    status, headers, body = await _media(session, result.json["url"])
    assert status == 200
    assert headers["Content-Type"] == result.json["contentType"] == "image/png"
    assert headers["X-Content-Type-Options"] == "nosniff"
    with Image.open(io.BytesIO(body)) as picture:
        assert picture.format == "PNG"
        assert picture.size == SIZES[size]


@pytest.mark.parametrize(("size", "with_audio"), [("16:9_SMALL", True), ("9:16_SMALL", False)])
async def test_a_film_has_exactly_the_length_pixels_and_sound_that_were_asked_for(
    customer: Customer, session: aiohttp.ClientSession, size: str, with_audio: bool
) -> None:
    made = await customer.video(
        f"film-{size}", "drone shot over rice fields", size=size, duration=4, motionHasAudio=with_audio
    )
    assert made.status == 202
    assert made.json["chargedCredits"] == 2400
    ended = await customer.ended(made.json["jobId"])
    assert ended["status"] == "complete"
    assert ended["progress"] == 100
    result = (await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")).json
    assert result["contentType"] == "video/mp4"
    assert result["duration"] == 4.0
    _, _, body = await _media(session, result["url"])
    with av.open(io.BytesIO(body), mode="r") as film:
        (pictures,) = film.streams.video
        assert (pictures.width, pictures.height) == FILM_SIZES[size]
        assert pictures.codec_context.name == "h264"
        assert sum(1 for _ in film.decode(pictures)) == 4 * 24
        assert [stream.codec_context.name for stream in film.streams.audio] == (["aac"] if with_audio else [])
    status, _, preview = await _media(session, result["previewUrl"])
    assert status == 200
    with Image.open(io.BytesIO(preview)) as poster:
        assert poster.size == FILM_SIZES[size]


async def test_the_same_prompt_size_and_seed_make_the_same_picture_in_live_and_test_mode(
    house: House, session: aiohttp.ClientSession
) -> None:
    bodies = []
    for mode in ("live", "test"):
        customer = Customer(session, house.base_url, house.key(mode))
        made = await customer.image("twins", "two boats", size="1:1_SMALL")
        assert (await customer.ended(made.json["jobId"]))["status"] == "complete"
        url = (await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")).json["url"]
        bodies.append((await _media(session, url))[2])
    assert bodies[0] == bodies[1]


async def test_media_can_be_read_in_ranges_and_asked_about(
    customer: Customer, session: aiohttp.ClientSession
) -> None:
    made = await customer.image("ranges", size="1:1_SMALL")
    await customer.ended(made.json["jobId"])
    url = (await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")).json["url"]
    _, _, whole = await _media(session, url)
    status, headers, part = await _media(session, url, Range="bytes=100-199")
    assert status == 206
    assert headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
    assert part == whole[100:200]
    status, _, _ = await _media(session, url, Range=f"bytes={len(whole)}-")
    assert status == 416
    async with session.head(url) as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) == len(whole)
        assert "Content-Disposition" in answer.headers
    tampered = url[:-1] + ("0" if url[-1] != "0" else "1")
    status, _, _ = await _media(session, tampered)
    assert status in {403, 404}


async def test_usage_always_adds_up_and_ends_with_what_was_charged(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    _, key, _ = await services.customer(1000)
    customer = Customer(session, house.base_url, key)
    made = await customer.image("one", quality="MEDIUM")
    seen = (await customer.call("GET", "/v1/usage")).json
    assert set(seen) == {"creditsBalance", "creditsReserved", "creditsAvailable"}
    assert seen["creditsAvailable"] == seen["creditsBalance"] - seen["creditsReserved"]
    ended = await customer.ended(made.json["jobId"])
    assert ended["chargedCredits"] == 60
    assert (await customer.call("GET", "/v1/usage")).json == {
        "creditsBalance": 940,
        "creditsReserved": 0,
        "creditsAvailable": 940,
    }


@pytest.mark.parametrize("marker", ["fail", "refuse", "lost", "bad-output"])
async def test_a_job_that_fails_is_refunded_in_full_and_says_so_without_naming_a_provider(
    house: House, services: Inside, session: aiohttp.ClientSession, marker: str
) -> None:
    _, key, _ = await services.customer(100)
    customer = Customer(session, house.base_url, key)
    made = await customer.image("fails", f"a boat [sandbox:{marker}]")
    assert made.status == 202
    ended = await customer.ended(made.json["jobId"])
    assert ended["status"] == "failed"
    assert (ended["chargedCredits"], ended["refundedCredits"]) == (0, 20)
    assert ended["error"]["code"] == "generation_failed"
    assert "sandbox" not in ended["error"]["message"].lower()
    result = await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")
    assert result.status == 409
    assert result.json["error"]["code"] == "job_failed"
    assert (await customer.call("GET", "/v1/usage")).json["creditsAvailable"] == 100


@pytest.mark.parametrize("marker", ["unknown", "rate-limit", "account-error"])
async def test_what_one_account_cannot_do_another_does_and_the_customer_pays_once(
    house: House, services: Inside, session: aiohttp.ClientSession, marker: str
) -> None:
    _, key, _ = await services.customer(100)
    customer = Customer(session, house.base_url, key)
    made = await customer.image("moves", f"a boat [sandbox:{marker}]")
    ended = await customer.ended(made.json["jobId"])
    assert ended["status"] == "complete"
    assert (await customer.call("GET", "/v1/usage")).json["creditsBalance"] == 80
    from services.gen.provider_pool.v1 import provider_pool_pb2 as pool

    for account in (await services.pool.ListAccounts(pool.ListAccountsRequest())).accounts:
        await services.pool.ResetAccount(pool.ResetAccountRequest(account_id=account.account_id))


async def test_status_words_never_go_backwards(customer: Customer) -> None:
    made = await customer.image("forward", "a boat [sandbox:rate-limit]")
    order = ["queued", "processing", "complete"]
    furthest = order.index(made.json["status"])
    async with asyncio.timeout(60):
        while furthest < 2:
            seen = order.index((await customer.job(made.json["jobId"])).json["status"])
            assert seen >= furthest
            furthest = seen
            await asyncio.sleep(0.05)


async def test_jobs_of_the_other_mode_or_another_customer_do_not_exist(
    house: House, services: Inside, session: aiohttp.ClientSession, customer: Customer
) -> None:
    made = await customer.image("mine")
    job_id = made.json["jobId"]
    _, stranger_key, _ = await services.customer(100)
    never_existed = (await customer.job("job_00000000000000000000000000")).json["error"]
    for key in (house.key("test"), stranger_key):
        answer = await Customer(session, house.base_url, key).job(job_id)
        assert answer.status == 404
        assert answer.json["error"] == never_existed
