"""Hostile and careless requests to `leonardo`: each is answered 400 or 413 in shape, and none reaches jobs."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from typing import Any

import pytest

from tests.contracts.conftest import Opening, Storefront
from tests.fakes import LIVE_KEY

IMAGES = "/v1/images/generate"
VIDEOS = "/v1/videos/generate"


@pytest.mark.parametrize(
    "path,body,field",
    [
        (IMAGES, {}, "prompt"),
        (IMAGES, {"prompt": 5}, "prompt"),
        (IMAGES, {"prompt": None}, "prompt"),
        (IMAGES, {"prompt": ["a"]}, "prompt"),
        (IMAGES, {"prompt": "a\u0000b"}, "prompt"),
        (IMAGES, {"prompt": "a\u001bb"}, "prompt"),
        (IMAGES, {"prompt": "a\u007fb"}, "prompt"),
        (IMAGES, {"prompt": "\n\t "}, "prompt"),
        (IMAGES, {"prompt": "a", "quality": "HIGH"}, "quality"),
        (IMAGES, {"prompt": "a", "quality": "low"}, "quality"),
        (IMAGES, {"prompt": "a", "quality": None}, "quality"),
        (IMAGES, {"prompt": "a", "size": "16:9"}, "size"),
        (IMAGES, {"prompt": "a", "size": 1}, "size"),
        (VIDEOS, {"prompt": "a", "duration": 3}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": 16}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": 10**30}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": -5}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": "15"}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": 15.0}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": 7.5}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": True}, "duration"),
        (VIDEOS, {"prompt": "a", "duration": None}, "duration"),
        (VIDEOS, {"prompt": "a", "motionHasAudio": "true"}, "motionHasAudio"),
        (VIDEOS, {"prompt": "a", "motionHasAudio": 1}, "motionHasAudio"),
        (IMAGES, {"prompt": "a", "referenceImage": 5}, "referenceImage"),
        (IMAGES, {"prompt": "a", "referenceImage": None}, "referenceImage"),
        (IMAGES, {"prompt": "a", "referenceImage": ["x"]}, "referenceImage"),
        (IMAGES, {"prompt": "a", "referenceImage": {}}, "referenceImage.imageUrl"),
        (IMAGES, {"prompt": "a", "referenceImage": {"imageUrl": 1}}, "referenceImage.imageUrl"),
        (
            VIDEOS,
            {"prompt": "a", "referenceImage": {"imageUrl": "x", "strength": "MAX"}},
            "referenceImage.strength",
        ),
    ],
)
async def test_a_field_of_a_wrong_type_or_value_is_named(
    shop: Storefront, path: str, body: Any, field: str
) -> None:
    answer = await shop.post(path, body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.body["error"]["field"] == field
    assert field in answer.body["error"]["message"]
    assert shop.jobs.created == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"prompt"',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf" + b'{"prompt": "a"}',
        b'{"prompt": "a"} {}',
        b"{'prompt': 'a'}",
        b'{"prompt": "a", "duration": NaN}',
        b'{"prompt": "a", "x": Infinity}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "a", "x": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a\x01b"}',
        b'{"prompt": "a",}',
        b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"prompt=a",
    ],
)
async def test_what_is_not_one_json_object_is_400(shop: Storefront, body: bytes) -> None:
    answer = await shop.post(IMAGES, body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert shop.jobs.created == []


async def test_the_last_of_two_equal_names_counts(shop: Storefront) -> None:
    assert (await shop.post(IMAGES, b'{"prompt": "a", "prompt": "b"}')).status == 202
    assert shop.jobs.created[0].generation.prompt == "b"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"],
)
async def test_another_content_type_is_400(shop: Storefront, content_type: str) -> None:
    answer = await shop.post(IMAGES, b'{"prompt": "a"}', headers={"Content-Type": content_type})
    assert (answer.status, answer.code) == (400, "invalid_request")


@pytest.mark.parametrize("header", [b"", b"Content-Type: Application/JSON; charset=utf-8\r\n"])
async def test_json_is_taken_with_its_type_or_without_any(shop: Storefront, header: bytes) -> None:
    assert (await shop.raw(IMAGES, header, key=b"k")).status == 202


async def test_a_large_body_is_taken_up_to_28_mib(shop: Storefront) -> None:
    filler = b"x" * (28 * 1024 * 1024 - 24)
    assert (await shop.post(IMAGES, b'{"prompt":"a","x":"' + filler + b'"}')).status == 202


async def test_what_is_beside_long_strings_is_taken_up_to_1_mib(shop: Storefront) -> None:
    filler = b'"short",' * 140_000
    answer = await shop.post(IMAGES, b'{"prompt":"a","x":[' + filler + b'"' + b"y" * 9000 + b'"]}')
    assert (answer.status, answer.code) == (413, "payload_too_large")
    assert "1,048,576 bytes beside inline images" in answer.body["error"]["message"]


LONG = "x" * 100_000


@pytest.mark.parametrize("beside", [{}, {"x": "y" * 1_500_000}])
@pytest.mark.parametrize(
    "body,message",
    [
        ({"prompt": LONG}, "prompt must have 1 to 4,000 characters."),
        ({"prompt": "a" * 1_100_000}, "prompt must have 1 to 4,000 characters."),
        (
            {"prompt": LONG, "referenceImage": "https://example.com/a.png"},
            "prompt must have 1 to 4,000 characters.",
        ),
        ({"prompt": "a", "quality": LONG}, "quality must be LOW or MEDIUM."),
        ({"prompt": "a", "quality": "x" * 1_100_000}, "quality must be LOW or MEDIUM."),
        ({"prompt": "a", "x\n" * 10_000: 1, "size": 5}, "size: expected string, got integer."),
    ],
)
async def test_a_long_text_that_is_no_image_is_refused_in_the_words_of_its_field(
    shop: Storefront, body: Any, beside: Any, message: str
) -> None:
    answer = await shop.post(IMAGES, {**body, **beside})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.body["error"]["message"] == message
    assert shop.jobs.created == []


async def test_a_long_text_full_of_blanks_is_still_trimmed(shop: Storefront) -> None:
    assert (await shop.post(IMAGES, {"prompt": " " * 100_000 + "a", "x": "y" * 2_000_000})).status == 202
    assert shop.jobs.created[0].generation.prompt == "a"


async def test_a_body_that_lies_about_its_length_is_cut_at_the_limit(shop: Storefront) -> None:
    async def endless() -> Any:
        for _ in range(29):
            yield b" " * 1024 * 1024

    headers = {"Authorization": f"Bearer {LIVE_KEY}", "Content-Type": "application/json"}
    answer = await shop.request("POST", IMAGES, headers=headers, data=endless())
    assert (answer.status, answer.code) == (413, "payload_too_large")


async def test_a_compressed_bomb_is_cut_at_the_limit(shop: Storefront) -> None:
    bomb = gzip.compress(b" " * (64 * 1024 * 1024))
    answer = await shop.post(IMAGES, bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.code) == (413, "payload_too_large")


async def test_a_compressed_body_is_read(shop: Storefront) -> None:
    body = zlib.compress(b'{"prompt": "a"}')
    assert (await shop.post(IMAGES, body, headers={"Content-Encoding": "deflate"})).status == 202


async def test_a_body_that_is_not_what_its_encoding_says_is_400(shop: Storefront) -> None:
    answer = await shop.post(IMAGES, b"not gzip at all", headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.code) == (400, "invalid_request")


@pytest.mark.parametrize("path", [IMAGES, "/nowhere"])
async def test_a_body_that_is_not_what_its_encoding_says_makes_no_noise(
    shop: Storefront, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
    answer = await shop.raw(path, headers, b"not gzip at all", key=b"k")
    assert answer.status in {400, 404}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("hosts", [(), (("api.example.com", "leonardo"),)])
async def test_a_request_without_a_host_has_no_name_looked_up_for_it(
    opening: Opening, monkeypatch: pytest.MonkeyPatch, hosts: tuple[tuple[str, str], ...]
) -> None:
    shop = await opening(storefront_hosts=hosts)
    looked_up: list[str] = []

    def look_up(name: str = "") -> str:
        # A resolver may take seconds, and every other request would wait for it.
        looked_up.append(name)
        return "nobody"

    monkeypatch.setattr(socket, "getfqdn", look_up)
    for path in ("/v1/usage", "/v1/models", "/nowhere", "/docs"):
        assert await shop.bytes_back(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert looked_up == []


@pytest.mark.parametrize("path", [IMAGES, "/v1/usage", "/nowhere"])
async def test_an_expectation_that_nobody_knows_is_400_in_shape(shop: Storefront, path: str) -> None:
    answered = await shop.bytes_back(
        f"POST {path} HTTP/1.1\r\nHost: a\r\nExpect: teapot\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"invalid_request"' in answered
    assert b"Server: atelier\r\n" in answered
    assert b"X-Request-Id: req_" in answered


@pytest.mark.parametrize(
    "path,body,message",
    [
        (IMAGES, {"prompt": 5}, "prompt: expected string, got integer."),
        (
            IMAGES,
            {"prompt": "a", "referenceImage": 1.5},
            "referenceImage: expected string or object, got number.",
        ),
        (VIDEOS, {"prompt": "a", "motionHasAudio": "x"}, "motionHasAudio: expected boolean, got string."),
        (IMAGES, {"prompt": "a", "quality": "low"}, "quality must be LOW or MEDIUM."),
        (
            IMAGES,
            {"prompt": "a", "referenceImage": {"imageUrl": "https://example.com/a.png", "strength": "mid"}},
            "referenceImage.strength must be HIGH, LOW or MID.",
        ),
    ],
)
async def test_a_wrong_type_is_told_in_the_words_of_json(
    shop: Storefront, path: str, body: Any, message: str
) -> None:
    assert (await shop.post(path, body)).body["error"]["message"] == message


async def test_a_client_that_leaves_does_not_stop_the_next_one(shop: Storefront) -> None:
    shop.jobs.answer_after_s = 0.2
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await shop.post(IMAGES, {"prompt": "a"}, key="k")
    again = await shop.post(IMAGES, {"prompt": "a"}, key="k")
    assert (again.status, again.body["idempotentReplay"]) == (202, True)


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v1/usage HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/images/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/images/generate HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"GET /v1/us\x00age HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_not_http_is_400_in_shape_and_closed(shop: Storefront, start: bytes) -> None:
    answered = await shop.bytes_back(start)
    assert answered.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b'"code":"invalid_request"' in answered
    assert b"X-Request-Id: req_" in answered
