from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.chassis.errors import ServiceError
from services.chassis.settings import SettingsError, load
from services.house.child import Child
from services.simulator.settings import Settings

ACCOUNT = {
    "provider": "ark",
    "key": "k",
    "balance": 5,
    "concurrency": 1,
    "latency_s": 0.05,
    "faults": ["slow_drip"],
}
TASK = {
    "model": "dreamina-seedance-2-0-260128",
    "content": [{"type": "text", "text": "A boat"}],
}


@asynccontextmanager
async def running(folder: Path, **environ: str) -> AsyncIterator[Child]:
    child = Child("simulator", {**os.environ, **environ}, folder / "simulator.log")
    await child.start()
    try:
        yield child
    finally:
        await child.stop()


async def control(client: aiohttp.ClientSession, child: Child, path: str, body: Any = None) -> Any:
    method = "GET" if body is None else "POST"
    async with client.request(method, f"{child.addresses['http']}/_control/{path}", json=body) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_it_announces_where_it_is_and_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as child, aiohttp.ClientSession() as client:
        async with client.get(f"{child.addresses['operations']}/readyz") as ready:
            assert ready.status == 200
        assert await control(client, child, "accounts") == {"accounts": []}


async def test_accounts_faults_tasks_and_links_outlive_a_restart(tmp_path: Path) -> None:
    state = str(tmp_path / "simulator" / "state.json")
    headers = {"Authorization": "Bearer k"}
    async with (
        running(tmp_path, ATELIER_SIMULATOR_STATE_FILE=state) as child,
        aiohttp.ClientSession() as client,
    ):
        await control(client, child, "accounts", ACCOUNT | {"faults": []})
        await control(client, child, "faults", {"fault": "forbidden", "provider": "fal"})
        url = f"{child.addresses['http']}/ark/api/v3/contents/generations/tasks"
        for _ in range(2):
            async with client.post(url, json=TASK, headers=headers) as answer:
                assert answer.status == 200
        await asyncio.sleep(0.3)
        before = await control(client, child, "tasks")
        [account] = (await control(client, child, "accounts"))["accounts"]
    async with (
        running(tmp_path, ATELIER_SIMULATOR_STATE_FILE=state) as child,
        aiohttp.ClientSession() as client,
    ):
        assert await control(client, child, "tasks") == before
        [kept] = (await control(client, child, "accounts"))["accounts"]
        assert (kept["balance"], kept["charged"]) == (account["balance"], account["charged"])
        [rule] = (await control(client, child, "faults"))["faults"]
        assert (rule["fault"], rule["provider"]) == ("forbidden", "fal")
        url = f"{child.addresses['http']}/ark/api/v3/contents/generations/tasks/{before['tasks'][0]['id']}"
        async with client.get(url, headers=headers) as answer:
            task = await answer.json()
        link = task["content"]["video_url"].partition("/_files/")[2]
        async with client.get(f"{child.addresses['http']}/_files/{link}") as film:
            assert film.content_type == "video/mp4"


async def test_a_state_file_that_is_none_is_one_clear_sentence(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text('{"accounts": [{}]}')
    with pytest.raises(ServiceError, match="ATELIER_SIMULATOR_STATE_FILE names a file that is not usable"):
        async with running(tmp_path, ATELIER_SIMULATOR_STATE_FILE=str(file)):
            raise AssertionError("it started")


@pytest.mark.parametrize("address", ["0.0.0.0:80", "192.168.1.4:80", "[::]:80", "example.com:80"])
def test_it_listens_on_this_machine_only(address: str) -> None:
    with pytest.raises(SettingsError, match="must be a loopback address"):
        load(Settings, {"ATELIER_SIMULATOR_LISTEN": address})


def test_it_takes_a_loopback_address() -> None:
    assert load(Settings, {"ATELIER_SIMULATOR_LISTEN": "[::1]:4000"}).listen == "[::1]:4000"
