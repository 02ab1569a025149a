from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from services.gen.jobs.v1 import jobs_pb2 as pb
from tests.jobs_house import sqlite_url
from tests.webhook_receiver import Receiver, Telling, failing, fine, telling

ROOT = Path(__file__).resolve().parents[2]


async def told(here: Telling, *arguments: str) -> tuple[int, str]:
    """What the operator's command line says, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.admin",
        "webhooks",
        *arguments,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "ATELIER_JOBS_ADDRESS": here.house.address,
            "ATELIER_BILLING_ADDRESS": here.house.fakes.billing_address,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def rows(here: Telling, *arguments: str) -> Any:
    code, said = await told(here, *arguments, "--json")
    assert code == 0, said
    return json.loads(said)


async def test_an_operator_sees_every_attempt_and_sends_again(tmp_path: Path) -> None:
    async with Receiver(failing) as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        url = receiver.url("/hook?token=canary")
        code, said = await told(here, "set", "cus_a", url)
        assert (code, url in said) == (0, True)
        rotated = await rows(here, "rotate", "cus_a", "--overlap-hours", "1")
        assert rotated["secret"].startswith("whsec_")
        shown = await rows(here, "show", "cus_a")
        assert shown == {name: value for name, value in rotated.items() if name != "secret"}
        await here.create("k1")
        await here.until_state(pb.DELIVERY_STATE_DEAD)
        code, said = await told(here, "deliveries", "--state", "dead")
        assert code == 0
        assert f"127.0.0.1:{receiver.port}/hook" in said
        assert "canary" not in said
        (dead,) = await rows(here, "deliveries", "--customer", "cus_a")
        attempts = await rows(here, "attempts", dead["delivery_id"])
        assert [(one["status"], one["error"]) for one in attempts] == [(500, "status")] * 4
        receiver.answers = fine
        (again,) = await rows(here, "resend", dead["delivery_id"])
        assert again["delivery_id"] == dead["delivery_id"]
        await here.until_state(pb.DELIVERY_STATE_DELIVERED)


async def test_what_cannot_be_done_is_said_with_its_reason(tmp_path: Path) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        code, said = await told(here, "set", "cus_a", "http://10.0.0.1/")
        assert (code, said.split(":")[0]) == (1, "webhook_address_refused")
        code, said = await told(here, "resend", "whd_none")
        assert (code, said.split(":")[0]) == (1, "delivery_not_found")
        code, said = await told(here, "deliveries", "--state", "lost")
        assert (code, "waiting, delivered, dead" in said) == (2, True)


@pytest.mark.parametrize("command", [("set", "cus_none", "https://example.com/"), ("rotate", "cus_none")])
async def test_nothing_is_kept_for_a_customer_that_there_is_not(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    async with Receiver() as receiver, telling(sqlite_url(tmp_path), receiver) as here:
        code, said = await told(here, *command)
        assert (code, said.split(":")[0]) == (1, "customer_not_found")
        shown = await here.house.stub.GetWebhookEndpoint(pb.GetWebhookEndpointRequest(customer_id="cus_none"))
        assert (shown.endpoint.url, shown.endpoint.secret_made_at_ms) == ("", 0)
