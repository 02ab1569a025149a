"""fal's webhooks, verified as its documents say, with nothing of the simulator's own."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.simulator.receivers import Post, receiver
from tests.simulator.worlds import Simulated, simulated

KEY = "id-1:secret-1"
INPUT = {"prompt": "dots", "image_size": "square_hd"}


@pytest.fixture
async def world() -> AsyncIterator[Simulated]:
    async with simulated() as world:
        await world.account("fal", KEY)
        yield world


async def submit(world: Simulated, url: str, prompt: str = "dots") -> str:
    async with world.client.post(
        f"{world.address}/fal/queue/fal-ai/flux/schnell",
        params={"fal_webhook": url},
        json={**INPUT, "prompt": prompt},
        headers={"Authorization": f"Key {KEY}"},
    ) as answer:
        return str((await answer.json())["request_id"])


async def published(world: Simulated) -> list[Ed25519PublicKey]:
    async with world.client.get(f"{world.address}/fal/rest/.well-known/jwks.json") as answer:
        keys = (await answer.json())["keys"]
    assert all((key["kty"], key["crv"]) == ("OKP", "Ed25519") for key in keys)
    return [Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "==")) for key in keys]


def is_signed(post: Post, keys: list[Ed25519PublicKey]) -> bool:
    names = ("request-id", "user-id", "timestamp")
    parts = [post.headers[f"x-fal-webhook-{name}"] for name in names]
    text = "\n".join([*parts, hashlib.sha256(post.body).hexdigest()]).encode()
    signature = bytes.fromhex(post.headers["x-fal-webhook-signature"])
    for key in keys:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            continue
        return True
    return False


async def test_the_end_is_announced_and_signed(world: Simulated) -> None:
    async with receiver() as received:
        request_id = await submit(world, received.url)
        post = await received.next()
    body: Any = post.json()
    assert (body["request_id"], body["status"]) == (request_id, "OK")
    assert body["payload"]["images"][0]["width"] == 1024
    assert abs(int(post.headers["x-fal-webhook-timestamp"]) - time.time()) < 30
    keys = await published(world)
    assert is_signed(post, keys)
    assert not is_signed(Post(post.headers, post.body + b" "), keys)


async def test_several_keys_are_published_and_one_signs(world: Simulated) -> None:
    async with receiver() as received:
        await submit(world, received.url)
        post = await received.next()
    keys = await published(world)
    assert [is_signed(post, [key]) for key in keys].count(True) == 1
    assert len(keys) > 1


async def test_a_failure_is_announced_with_its_findings(world: Simulated) -> None:
    async with receiver() as received:
        await submit(world, received.url, "[[sim:moderated_after]]")
        body = (await received.next()).json()
    assert body["status"] == "ERROR"
    assert body["payload"]["detail"][0]["type"] == "content_policy_violation"


async def test_a_receiver_that_fails_is_told_again_with_the_same_body(world: Simulated) -> None:
    async with receiver(500, 503) as received:
        await submit(world, received.url)
        posts = [await received.next() for _ in range(3)]
    assert len({post.body for post in posts}) == 1
    keys = await published(world)
    assert all(is_signed(post, keys) for post in posts)
