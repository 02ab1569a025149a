"""A whole house that keeps its media in a bucket, as its customers see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from services.chassis.egress_objects import ObjectStore
from tests.house import Customer, House, inside, running_house
from tests.object_server import ObjectServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Scene:
    """A house, its bucket, and who asks it."""

    house: House
    objects: ObjectStore
    client: aiohttp.ClientSession

    def customer(self, storefront: str) -> Customer:
        return Customer(self.client, self.house.base_url, self.house.key("test", storefront))

    async def keys(self) -> set[str]:
        return {one.key async for page in self.objects.pages("") for one in page}

    def files(self) -> list[str]:
        return [str(path) for path in (self.house.var / "media").rglob("*") if path.is_file()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(
    object_server: ObjectServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    place = object_server.bucket()
    settings = object_server.settings("ATELIER_POOL_MEDIA_S3_", place)
    settings |= object_server.settings("ATELIER_GATEWAY_MEDIA_S3_", place)
    async with (
        running_house(tmp_path_factory.mktemp("bucket") / "var", **settings) as house,
        inside(house) as services,
        ObjectStore(place) as objects,
        aiohttp.ClientSession() as client,
    ):
        await services.set_account_options(pace_ms="100")
        yield Scene(house, objects, client)


async def test_a_picture_and_a_film_come_out_of_the_bucket_whole_and_in_parts(scene: Scene) -> None:
    customer = scene.customer("leonardo")
    picture = (await customer.image("p")).json["jobId"]
    film = (await customer.video("f")).json["jobId"]
    for job_id, content_type, ending in ((picture, "image/png", "png"), (film, "video/mp4", "mp4")):
        assert (await customer.ended(job_id))["status"] == "complete"
        url = (await customer.call("GET", f"/v1/jobs/{job_id}/result")).json["url"]
        assert f"{job_id}.{ending}?" in url
        async with scene.client.get(url) as whole:
            content = await whole.read()
            assert (whole.status, whole.content_type) == (200, content_type)
        async with scene.client.get(url, headers={"Range": "bytes=100-199"}) as part:
            assert (part.status, await part.read()) == (206, content[100:200])
        key = next(key for key in await scene.keys() if job_id in key and key.endswith(ending))
        assert await scene.objects.read(key, 10**8) == content
    assert scene.files() == []


async def test_what_its_customer_deletes_leaves_the_bucket(scene: Scene) -> None:
    customer = scene.customer("imaginelab")
    body = {"generation_type": "image", "model_name": "seedream-5.0-lite", "prompt": "a red boat"}
    path = f"/api/v1/generations/{(await customer.call('POST', '/api/v1/generations', body)).json['id']}"
    before = await scene.keys()
    async with asyncio.timeout(60):
        while (await customer.call("GET", path)).json["status"] != "completed":
            await asyncio.sleep(0.2)
    url = (await customer.call("GET", path)).json["outputs"][0]["url"]
    own = await scene.keys() - before
    assert own
    assert (await customer.call("DELETE", path)).status == 204
    async with asyncio.timeout(30):
        while own & await scene.keys():
            await asyncio.sleep(0.2)
    async with scene.client.get(url) as gone:
        assert gone.status == 404
