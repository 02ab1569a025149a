"""`make run`: one command from nothing to a working house, and one clear sentence where that cannot be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from tests.house import House, launch, running_house


async def _said_and_code(house: House) -> tuple[str, int]:
    async with asyncio.timeout(60):
        code = await house.process.wait()
    await house.stop()
    return "\n".join(house.said), code


async def test_a_house_describes_itself_for_scripts_and_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house:
        described = house.demo
        assert set(described) == {"base_url", "storefronts", "operations", "grpc"}
        assert set(described["operations"]) == {"gateway", "billing", "jobs", "provider_pool"}
        assert set(described["grpc"]) == {"billing", "jobs", "provider_pool"}
        store = described["storefronts"]["leonardo"]
        assert store["live_key"].startswith("ak_live_")
        assert store["test_key"].startswith("ak_test_")
        assert stat.S_IMODE((house.var / "demo.json").stat().st_mode) == 0o600
        said = "\n".join(house.said)
        assert store["live_key"] in said
        assert "curl" in said
        pids = [house.pid_of(service) for service in described["operations"]]
        assert await house.stop() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_house_says_where_mails_to_users_are(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house:
        await house.heard(f"mails to users in {house.var / 'outbox'}.")
    server = {"ATELIER_BILLING_SMTP_HOST": "mail.example.com", "ATELIER_BILLING_SMTP_FROM": "us@example.com"}
    async with running_house(tmp_path / "var", **server) as house:
        await house.heard("mails to users go out over mail.example.com.")


async def test_every_process_is_ready_and_shows_metrics_on_its_operations_port(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house, aiohttp.ClientSession() as session:
        for service, url in house.demo["operations"].items():
            for path, expected in (("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", "atelier_")):
                async with session.get(url + path) as answer:
                    assert answer.status == 200, (service, path, await answer.text())
                    assert expected in await answer.text()
        async with session.get(house.base_url + "/metrics") as answer:
            assert answer.status == 404


async def test_a_second_start_finds_the_same_customer_and_keys(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house:
        first = house.demo["storefronts"]
    async with running_house(tmp_path / "var") as house:
        assert house.demo["storefronts"] == first


async def test_a_process_that_crashes_is_reported_and_started_again(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house, aiohttp.ClientSession() as session:
        for service in ("billing", "jobs", "provider_pool", "gateway"):
            os.kill(house.pid_of(service), signal.SIGKILL)
            await house.heard(f"{service} ended by itself (signal SIGKILL)")
            await house.heard(f"{service} is ready again")
        headers = {"Authorization": f"Bearer {house.key()}"}
        async with session.get(house.base_url + "/v1/usage", headers=headers) as answer:
            assert answer.status == 200


async def test_a_second_ctrl_c_does_not_wait_for_a_process_that_hangs(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house:
        gateway = house.pid_of("gateway")
        os.kill(gateway, signal.SIGSTOP)
        house.process.send_signal(signal.SIGINT)
        await house.heard("stopping")
        house.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await house.process.wait()
        assert not Path(f"/proc/{gateway}/cmdline").exists()


async def test_nothing_of_a_house_outlives_it_even_when_it_is_killed(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house:
        pids = [house.pid_of(service) for service in house.demo["operations"]]
        house.process.kill()
        async with asyncio.timeout(20):
            while any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids):
                await asyncio.sleep(0.05)


async def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said, code = await _said_and_code(await launch(tmp_path / "var", ATELIER_PORT=str(port)))
    assert code == 2
    assert f"port {port} cannot be used" in said
    assert "Traceback" not in said


async def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file, not a folder", encoding="utf-8")
    said, code = await _said_and_code(await launch(tmp_path / "var"))
    assert code == 2
    assert "cannot write to the folder" in said
    assert "Traceback" not in said


async def test_a_second_house_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var"):
        said, code = await _said_and_code(await launch(tmp_path / "var"))
    assert code == 2
    assert "another house is running" in said


async def test_wrong_settings_are_refused_all_at_once(tmp_path: Path) -> None:
    said, code = await _said_and_code(
        await launch(tmp_path / "var", ATELIER_PORT="eighty", ATELIER_LOG_LEVEL="loud")
    )
    assert code == 2
    assert "ATELIER_PORT" in said
    assert "ATELIER_LOG_LEVEL" in said


@pytest.mark.parametrize(
    "address", ["mysql://u:secret@h/db", "postgresql:///db", "postgresql://u:secret@h:port/db"]
)
async def test_a_database_address_that_is_none_is_one_clear_sentence(tmp_path: Path, address: str) -> None:
    said, code = await _said_and_code(await launch(tmp_path / "var", ATELIER_DATABASE_URL=address))
    assert code == 2
    assert "ATELIER_DATABASE_URL must be an address such as postgresql://" in said
    assert "Traceback" not in said
    assert "secret" not in said


async def test_a_damaged_description_is_written_anew_and_the_customer_stays(tmp_path: Path) -> None:
    async with running_house(tmp_path / "var") as house:
        first = house.demo["storefronts"]["leonardo"]
    (tmp_path / "var" / "demo.json").write_text("{", encoding="utf-8")
    async with running_house(tmp_path / "var") as house:
        again = house.demo["storefronts"]["leonardo"]
    assert again["customer_id"] == first["customer_id"]
    assert again["live_key"] != first["live_key"]


async def test_two_houses_live_side_by_side(tmp_path: Path) -> None:
    async with running_house(tmp_path / "one") as one, running_house(tmp_path / "two") as two:
        assert one.base_url != two.base_url
        async with aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {one.key()}"}
            async with session.get(two.base_url + "/v1/usage", headers=headers) as answer:
                assert answer.status == 401
