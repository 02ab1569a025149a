"""Media links: what they open, for how long, and what they never open."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.chassis.clock import SystemClock
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret, SettingsError
from services.gateway.media import MediaLinks, SigningKeys
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.contracts.conftest import Answer, Storefront

KEY = "outputs/job_1/image.png"
CONTENT = bytes(range(256)) * 40
HOUR_MS = 3_600_000


def link(shop: Storefront, object_key: str = KEY, validity_ms: int = HOUR_MS, key: str = "k" * 40) -> str:
    """A link as the gateway itself makes it, relative to its address."""
    links = MediaLinks(SigningKeys(Secret(key)), "", validity_ms, SystemClock())
    return links.link("leonardo", object_key, 0).url


async def fetch(shop: Storefront, path: str, method: str = "GET", **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await shop.request(method, path, headers=names)


@pytest.fixture
def stored(shop: Storefront) -> Storefront:
    shop.put(KEY, CONTENT)
    return shop


async def test_a_link_opens_the_whole_file_with_safe_headers(stored: Storefront) -> None:
    answer = await fetch(stored, link(stored))
    assert (answer.status, answer.raw) == (200, CONTENT)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'inline; filename="outputs-job_1-image.png"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"].startswith("private, max-age=")
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "asked,start,stop",
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, 10240),
        ("bytes=-10", 10230, 10240),
        ("bytes=0-99999", 0, 10240),
    ],
)
async def test_a_range_opens_a_part(stored: Storefront, asked: str, start: int, stop: int) -> None:
    answer = await fetch(stored, link(stored), Range=asked)
    assert (answer.status, answer.raw) == (206, CONTENT[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/10240"


async def test_a_range_beyond_the_end_is_416_and_nobody_keeps_that(stored: Storefront) -> None:
    answer = await fetch(stored, link(stored), Range="bytes=99999-")
    assert (answer.status, answer.raw) == (416, b"")
    assert answer.headers["Content-Range"] == "bytes */10240"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "image" not in answer.headers.get("Content-Type", "")


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,3-4",
        "bytes=" + ",".join(["0-"] * 1500),
        "bytes=5-2",
        "bytes=-0",
        "bytes=" + "9" * 4000 + "-",
        "bytes=\u00b2-",
        "lines=1-2",
        "junk",
    ],
)
async def test_a_range_that_is_not_one_plain_range_is_ignored(stored: Storefront, asked: str) -> None:
    answer = await fetch(stored, link(stored), Range=asked)
    assert (answer.status, answer.raw) == (200, CONTENT)


async def test_head_ignores_a_range(stored: Storefront) -> None:
    answer = await fetch(stored, link(stored), "HEAD", Range="bytes=0-9")
    assert (answer.status, answer.headers["Content-Length"]) == (200, "10240")


async def test_a_range_of_the_file_that_the_tag_names_is_a_part(stored: Storefront) -> None:
    etag = (await fetch(stored, link(stored))).headers["ETag"]
    answer = await fetch(stored, link(stored), Range="bytes=0-9", If_Range=etag)
    assert (answer.status, answer.raw) == (206, CONTENT[:10])


@pytest.mark.parametrize(
    "condition", ['"another"', 'W/"weak"', "neither", "Mon, 01 Jan 99999999999 00:00:00 GMT"]
)
async def test_a_range_of_another_file_is_the_whole_file(stored: Storefront, condition: str) -> None:
    answer = await fetch(stored, link(stored), Range="bytes=0-9", If_Range=condition)
    assert (answer.status, answer.raw) == (200, CONTENT)


@pytest.mark.parametrize("name", ["If_Modified_Since", "If_Unmodified_Since"])
@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "yesterday"])
async def test_a_date_that_is_none_is_ignored(stored: Storefront, name: str, date: str) -> None:
    answer = await fetch(stored, link(stored), **{name: date})
    assert (answer.status, answer.raw) == (200, CONTENT)


async def test_a_condition_that_fails_is_412_and_nobody_keeps_that(stored: Storefront) -> None:
    answer = await fetch(stored, link(stored), If_Match='"another"')
    assert (answer.status, answer.raw, answer.headers["Cache-Control"]) == (412, b"", "no-store")


async def test_head_tells_the_length_without_the_body(stored: Storefront) -> None:
    answer = await fetch(stored, link(stored), "HEAD")
    assert (answer.status, answer.raw, answer.headers["Content-Length"]) == (200, b"", "10240")


async def test_what_the_client_has_already_is_304(stored: Storefront) -> None:
    etag = (await fetch(stored, link(stored))).headers["ETag"]
    again = await fetch(stored, link(stored), If_None_Match=etag)
    assert (again.status, again.raw) == (304, b"")


async def test_a_range_of_a_file_that_changed_is_the_whole_file(stored: Storefront) -> None:
    answer = await fetch(stored, link(stored), Range="bytes=0-9", If_Range="Sat, 01 Jan 2000 00:00:00 GMT")
    assert (answer.status, answer.raw) == (200, CONTENT)


async def test_an_expired_link_is_404_and_says_what_to_do(stored: Storefront) -> None:
    address = link(stored, validity_ms=1000)
    await asyncio.sleep(1.1)
    answer = await fetch(stored, address)
    assert answer.status == 404
    assert "expired" in answer.body["error"]["message"]


def tampered(address: str) -> list[str]:
    path, _, query = address.partition("?")
    given = {name: values[0] for name, values in parse_qs(query).items()}
    later = str(int(given["expires"]) + 3600)
    return [
        path,
        f"{path}?expires={given['expires']}",
        f"{path}?signature={given['signature']}",
        f"{path}?expires={later}&signature={given['signature']}",
        f"{path}?expires={given['expires']}&signature={given['signature'][:-1]}",
        f"{path}?expires={given['expires']}&signature={given['signature']}A",
        f"{path}?expires={given['expires']}&signature=",
        f"{path}?expires={given['expires']}&signature=%F0%9F%98%80",
        f"{path}?expires=-1&signature={given['signature']}",
        f"{path}?expires={'9' * 30}&signature={given['signature']}",
        f"/media/outputs/job_2/image.png?{query}",
    ]


@pytest.mark.parametrize("number", range(11))
async def test_a_tampered_link_is_404(stored: Storefront, number: int) -> None:
    stored.put("outputs/job_2/image.png", b"somebody else's")
    answer = await fetch(stored, tampered(link(stored))[number])
    assert (answer.status, answer.code) == (404, "not_found")


async def test_a_link_signed_with_another_key_is_404(stored: Storefront) -> None:
    assert (await fetch(stored, link(stored, key="x" * 40))).status == 404


@pytest.mark.parametrize(
    "object_key",
    [
        "../secret.txt",
        "outputs/../../secret.txt",
        "/etc/passwd",
        "outputs//image.png",
        ".hidden",
        "outputs",
        "a\\b",
        "a\nb",
    ],
)
async def test_even_a_signed_link_leaves_the_store_nowhere(stored: Storefront, object_key: str) -> None:
    (stored.media.parent / "secret.txt").write_text("secret")
    (stored.media / ".hidden").write_text("secret")
    signed = SigningKeys(Secret("k" * 40)).sign(object_key, 9_999_999_999)
    encoded = object_key.replace("/", "%2F").replace(".", "%2E").replace("\\", "%5C").replace("\n", "%0A")
    answered = await stored.bytes_back(
        f"GET /media/{encoded}?expires=9999999999&signature={signed} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    )
    assert answered.startswith(b"HTTP/1.1 404 ")
    assert b"secret" not in answered


async def test_a_symbolic_link_in_the_store_leads_nowhere(stored: Storefront) -> None:
    (stored.media.parent / "secret.txt").write_text("secret")
    (stored.media / "link.txt").symlink_to(stored.media.parent / "secret.txt")
    assert (await fetch(stored, link(stored, "link.txt"))).status == 404


async def test_a_file_that_left_the_store_is_404(stored: Storefront) -> None:
    (stored.media / KEY).unlink()
    answer = await fetch(stored, link(stored))
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "noextension"])
async def test_what_a_browser_might_run_is_a_download(stored: Storefront, name: str) -> None:
    stored.put(name, b"<script>alert(1)</script>")
    answer = await fetch(stored, link(stored, name))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")


async def result_of(shop: Storefront, media_expires_at_ms: int) -> Any:
    created = await shop.post("/v1/images/generate", {"prompt": "a"})
    job = shop.jobs.kept[created.body["jobId"]]
    job.stage, job.media_expires_at_ms = jobs.STAGE_ENDED_WELL, media_expires_at_ms
    job.outputs.add(role=jobs.Output.ROLE_PRIMARY, object_key=KEY, content_type="image/png")
    return await shop.get(f"/v1/jobs/{job.job_id}/result")


def millis(moment: str) -> int:
    return int(datetime.fromisoformat(moment).astimezone(UTC).timestamp() * 1000)


async def test_a_link_works_for_a_day(stored: Storefront) -> None:
    now_ms = SystemClock().now_ms()
    body = (await result_of(stored, 0)).body
    assert abs(millis(body["expiresAt"]) - now_ms - 24 * HOUR_MS) < 60_000
    assert parse_qs(urlsplit(body["url"]).query)["expires"] == [str(millis(body["expiresAt"]) // 1000)]


async def test_a_link_never_outlives_the_media(stored: Storefront) -> None:
    ends_ms = SystemClock().now_ms() + HOUR_MS
    body = (await result_of(stored, ends_ms)).body
    assert millis(body["expiresAt"]) == ends_ms // 1000 * 1000


async def test_a_result_whose_media_are_gone_is_404(stored: Storefront) -> None:
    answer = await result_of(stored, SystemClock().now_ms() - 1)
    assert (answer.status, answer.code) == (404, "job_not_found")


def test_an_old_key_still_opens_what_it_signed_and_the_new_one_signs() -> None:
    old, new = SigningKeys(Secret("o" * 40)), SigningKeys(Secret("n" * 40 + "\n" + "o" * 40))
    assert new.verifies(KEY, 5, old.sign(KEY, 5))
    assert not old.verifies(KEY, 5, new.sign(KEY, 5))


@pytest.mark.parametrize("secret", ["short", "k" * 40 + "\nshort", "\n"])
def test_a_key_too_short_to_protect_anything_is_refused_at_start(secret: str) -> None:
    with pytest.raises(SettingsError):
        SigningKeys(Secret(secret))


def test_a_link_to_what_is_gone_is_never_made() -> None:
    links = MediaLinks(SigningKeys(Secret("k" * 40)), "", HOUR_MS, SystemClock())
    with pytest.raises(ServiceError, match="MEDIA_GONE"):
        links.link("leonardo", KEY, 1)
