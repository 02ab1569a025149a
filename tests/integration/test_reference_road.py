"""Reference images from a customer's request to the finished media, through a whole house."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.egress.certificates import Credentials
from tests.egress.evil_server import Canary, EvilServer
from tests.egress.scenes import answer, redirect
from tests.house import Customer, House, Inside, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"hidden-in-the-original"
# Loopback, but not the address that the house's operator allows.
FORBIDDEN = "127.0.0.3"


def _picture(kind: str = "PNG", **options: Any) -> bytes:
    """Four fields of strong colour, with something hidden behind them."""
    image = Image.new("RGB", (640, 480), (220, 30, 40))
    pen = ImageDraw.Draw(image)
    pen.rectangle((320, 0, 640, 240), (30, 60, 220))
    pen.rectangle((0, 240, 320, 480), (250, 220, 40))
    pen.rectangle((320, 240, 640, 480), (20, 160, 70))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue() + SECRET


PICTURE = _picture()


@dataclass
class Surroundings:
    """A house whose operator allows one address beside the public ones, and who listens at it."""

    house: House
    services: Inside
    customer: Customer
    server: EvilServer
    canary: Canary
    session: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.server.port}{path}"

    def staged(self) -> list[Path]:
        folder = self.house.var / "references"
        return [path for path in folder.rglob("*") if path.is_file()]

    async def nothing_staged(self) -> None:
        async with asyncio.timeout(10):
            while self.staged():
                await asyncio.sleep(0.05)

    async def made(self, key: str, **fields: Any) -> dict[str, Any]:
        accepted = await self.customer.image(key, "a quiet valley", **fields)
        assert accepted.status == 202, accepted.body
        return await self.customer.ended(accepted.json["jobId"])

    async def output(self, job_id: str) -> Image.Image:
        result = (await self.customer.call("GET", f"/v1/jobs/{job_id}/result")).json
        async with self.session.get(result["url"]) as response:
            return Image.open(io.BytesIO(await response.read())).convert("RGB")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def around(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Surroundings]:
    credentials = Credentials(tmp_path_factory.mktemp("certificates"))
    async with (
        EvilServer(credentials.good) as server,
        Canary(FORBIDDEN, 0) as canary,
        running_house(
            tmp_path_factory.mktemp("references") / "var",
            ATELIER_EGRESS_ALLOW=f"127.0.0.1/32:{server.port}",
            ATELIER_EGRESS_CA_FILE=str(credentials.trusted.file),
        ) as house,
        inside(house) as services,
        aiohttp.ClientSession() as session,
    ):
        await services.set_account_options(pace_ms="100")
        server.scenes |= {
            "/picture.png": answer(PICTURE, "Content-Type: image/png"),
            "/page.html": answer(b"<!doctype html><title>not an image</title>", "Content-Type: image/png"),
            "/missing.png": answer(b"no such file", status="404 Not Found"),
            "/elsewhere.png": redirect(f"https://{FORBIDDEN}:{server.port}/picture.png"),
        }
        customer = Customer(session, house.base_url, house.key())
        yield Surroundings(house, services, customer, server, canary, session)


def _likeness(picture: Image.Image) -> float:
    """How much of the four fields is in a picture: 0 for nothing, 1 for all of it."""
    found = picture.resize((2, 2), Image.Resampling.BOX).tobytes()
    wanted = bytes((220, 30, 40, 30, 60, 220, 250, 220, 40, 20, 160, 70))
    distance = sum(abs(seen - field) for seen, field in zip(found, wanted, strict=True))
    return 1 - distance / (len(wanted) * 255)


async def test_a_picture_follows_a_reference_behind_a_url(around: Surroundings) -> None:
    plain = await around.made("url-none")
    ended = await around.made(
        "url-high", referenceImage={"imageUrl": around.url("/picture.png"), "strength": "HIGH"}
    )
    assert ended["status"] == "complete"
    with_reference = _likeness(await around.output(ended["jobId"]))
    without = _likeness(await around.output(plain["jobId"]))
    assert with_reference > without + 0.1


@pytest.mark.parametrize(
    ("form", "kind"), [("data:image/png;base64,", "PNG"), ("", "JPEG"), ("data:;base64,", "WEBP")]
)
async def test_a_picture_follows_an_inline_reference(around: Surroundings, form: str, kind: str) -> None:
    inline = form + base64.b64encode(_picture(kind)).decode()
    ended = await around.made(f"inline-{kind}", referenceImage=inline)
    assert ended["status"] == "complete"


async def test_a_film_follows_a_reference(around: Surroundings) -> None:
    accepted = await around.customer.video(
        "film", "a quiet valley", duration=4, referenceImage={"imageUrl": around.url("/picture.png")}
    )
    assert accepted.status == 202
    assert (await around.customer.ended(accepted.json["jobId"]))["status"] == "complete"


async def test_references_are_gone_once_their_jobs_have_ended(around: Surroundings) -> None:
    inline = base64.b64encode(PICTURE).decode()
    await around.made("gone-inline", referenceImage=inline)
    await around.made("gone-url", referenceImage=around.url("/picture.png"))
    await around.nothing_staged()


async def test_the_same_image_under_the_same_key_is_the_same_request_in_either_inline_form(
    around: Surroundings,
) -> None:
    plain = base64.b64encode(PICTURE).decode()
    first = await around.customer.image("same", "a boat", referenceImage=plain)
    again = await around.customer.image(
        "same", "a boat", referenceImage={"imageUrl": f"data:image/png;base64,{plain}"}
    )
    assert (first.status, again.status) == (202, 202)
    assert again.json["jobId"] == first.json["jobId"]
    assert again.json["idempotentReplay"] is True
    other = base64.b64encode(_picture("WEBP")).decode()
    conflict = await around.customer.image("same", "a boat", referenceImage=other)
    assert (conflict.status, conflict.json["error"]["code"]) == (409, "idempotency_key_conflict")
    await around.customer.ended(first.json["jobId"])
    await around.nothing_staged()


@pytest.mark.parametrize(
    "reference",
    [
        "http://example.com/cat.png",
        "https://127.0.0.1/cat.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/cat.png",
        "https://user@example.com/cat.png",
        "data:text/html;base64,PGI+",
        "data:image/png;base64,not-base64!",
        base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
        base64.b64encode(PICTURE[: len(PICTURE) // 2]).decode(),
    ],
)
async def test_what_needs_no_network_is_refused_before_a_credit_is_reserved(
    around: Surroundings, reference: str
) -> None:
    before = (await around.customer.call("GET", "/v1/usage")).json
    refused = await around.customer.image("refused", "a boat", referenceImage={"imageUrl": reference})
    assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_reference_image")
    assert refused.json["error"]["field"].startswith("referenceImage")
    assert (await around.customer.call("GET", "/v1/usage")).json == before


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/page.html", "invalid_reference_image"),
        ("/missing.png", "reference_unavailable"),
        ("/elsewhere.png", "reference_unavailable"),
    ],
)
async def test_a_job_whose_reference_fails_gives_its_credits_back_and_says_why(
    around: Surroundings, path: str, code: str
) -> None:
    before = (await around.customer.call("GET", "/v1/usage")).json["creditsAvailable"]
    ended = await around.made(f"fails-{path}", referenceImage=around.url(path))
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == code
    assert (ended["chargedCredits"], ended["refundedCredits"]) == (0, 20)
    assert (await around.customer.call("GET", "/v1/usage")).json["creditsAvailable"] == before
    assert around.canary.connections == 0
    leases = await around.services.pool.ListLeases(pool.ListLeasesRequest())
    assert not [lease for lease in leases.leases if lease.job_id == ended["jobId"]]


async def test_nothing_is_fetched_before_an_account_is_held(around: Surroundings) -> None:
    around.server.scenes["/later.png"] = answer(PICTURE)
    await around.services.set_concurrency(1)
    try:
        accounts = (await around.services.pool.ListAccounts(pool.ListAccountsRequest())).accounts
        holding = [
            await around.customer.image(f"holds-{place}", "a boat [sandbox:pace=2]")
            for place, _ in enumerate(accounts)
        ]
        waiting = await around.customer.image("waits", "a boat", referenceImage=around.url("/later.png"))
        assert waiting.json["status"] == "queued"
        assert "/later.png" not in around.server.paths()
        for job in holding:
            await around.customer.ended(job.json["jobId"])
        assert (await around.customer.ended(waiting.json["jobId"]))["status"] == "complete"
        assert around.server.paths().count("/later.png") == 1
    finally:
        await around.services.set_concurrency(8)


async def test_no_log_holds_a_path_or_a_query_of_a_customers_address(around: Surroundings) -> None:
    around.server.scenes["/private-path.png?token=private-query"] = answer(b"gone", status="410 Gone")
    await around.made("private", referenceImage=around.url("/private-path.png?token=private-query"))
    written = b"".join(path.read_bytes() for path in (around.house.var / "logs").glob("*.log"))
    assert b"reference_unavailable" in written or b"127.0.0.1" in written
    assert b"private-path" not in written
    assert b"private-query" not in written
