"""What an operator and internal services do with a house: the command line, gRPC, and the logs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from tests.house import ROOT, Customer, House, Inside, environment, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running_house(tmp_path_factory.mktemp("operator") / "var") as house, inside(house) as services:
        await services.set_account_options(render="instant", pace_ms="0")
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(house: House) -> AsyncIterator[Inside]:
    async with inside(house) as services:
        yield services


async def admin(house: House, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    """Runs the command line: (exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.admin",
        *arguments,
        cwd=ROOT,
        env=environment(house.var),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate(typed.encode())
    return process.returncode or 0, said.decode(), complained.decode()


async def answered(house: House, *arguments: str, typed: str = "") -> Any:
    """The JSON that a command prints."""
    code, said, complained = await admin(house, *arguments, "--json", typed=typed)
    assert code == 0, complained
    return json.loads(said)


async def test_an_operator_makes_a_customer_that_can_buy_and_sees_what_it_bought(house: House) -> None:
    customer = await answered(
        house,
        "customers",
        "create",
        "--storefront",
        "leonardo",
        "--name",
        "Example Ltd",
        "--queued-jobs",
        "7",
    )
    customer_id = customer["customer_id"]
    await answered(
        house, "wallets", "top-up", customer_id, "--credits", "100", "--idempotency-key", "invoice-1"
    )
    again = await answered(
        house, "wallets", "top-up", customer_id, "--credits", "100", "--idempotency-key", "invoice-1"
    )
    assert again["replayed"] is True
    key = await answered(house, "keys", "create", customer_id, "--mode", "live", "--label", "laptop")
    async with aiohttp.ClientSession() as session:
        shop = Customer(session, house.base_url, key["api_key"])
        made = await shop.image("one")
        job_id = made.json["jobId"]
        await shop.ended(job_id)
    shown = await answered(house, "customers", "show", customer_id)
    assert shown["limits"]["queued_jobs"] == 7
    assert shown["wallets"]["live"] == {
        "balance_millis": 80_000,
        "reserved_millis": 0,
        "available_millis": 80_000,
    }
    journal = await answered(house, "wallets", "journal", customer_id)
    assert [entry["kind"] for entry in journal] == ["capture", "hold", "top_up"]
    job = await answered(house, "jobs", "show", job_id)
    assert job["state"] == "completed"
    assert [event["state"] for event in job["history"]][-1] == "completed"
    assert [attempt["state"] for attempt in job["tries"]] == ["succeeded"]
    listed = await answered(house, "jobs", "list", "--customer", customer_id, "--state", "completed")
    assert [job["job_id"] for job in listed] == [job_id]


async def test_an_operator_ends_a_job_of_a_customer_s_and_it_costs_nothing(
    house: House, services: Inside
) -> None:
    customer_id, key, _ = await services.customer(1_000_000)
    async with aiohttp.ClientSession() as session:
        shop = Customer(session, house.base_url, key)
        made = await shop.image("slow", "a boat [sandbox:pace=120]")
        asked = await answered(house, "jobs", "cancel", made.json["jobId"])
        assert asked["cancel_asked"] is True
        ended = await shop.ended(made.json["jobId"])
    assert (ended["status"], ended["chargedCredits"]) == ("failed", 0)
    listed = await answered(house, "jobs", "list", "--customer", customer_id, "--state", "canceled")
    assert [job["failure"] for job in listed] == ["canceled"]


async def test_a_key_is_shown_once_and_listed_by_its_hint(house: House) -> None:
    customer_id = house.demo["storefronts"]["leonardo"]["customer_id"]
    made = await answered(house, "keys", "create", customer_id, "--mode", "test", "--label", "once")
    code, said, _ = await admin(house, "keys", "list", customer_id)
    assert code == 0
    assert made["api_key"] not in said
    assert made["hint"] in said
    revoked = await answered(house, "keys", "revoke", made["key_id"])
    assert revoked["revoked_at_ms"] > 0


async def test_accounts_are_added_drained_and_used_again(house: House) -> None:
    added = await answered(
        house,
        "accounts",
        "add",
        "--provider",
        "sandbox",
        "--label",
        "from the command line",
        "--credential",
        "token",
        "--balance",
        "1000",
        "--option",
        "pace_ms=5",
        typed="canary-secret\n",
    )
    assert added["balance_millis"] == 1_000_000
    shown = await answered(house, "accounts", "show", added["account_id"])
    assert "canary-secret" not in json.dumps(shown)
    assert (await answered(house, "accounts", "drain", added["account_id"]))["state"] == "draining"
    assert (await answered(house, "accounts", "activate", added["account_id"]))["state"] == "active"
    files = [
        path for path in house.var.rglob("*") if path.is_file() and path.suffix in {".db", ".log", ".db-wal"}
    ]
    assert files
    assert not any(b"canary-secret" in path.read_bytes() for path in files)


async def test_accounts_are_checked_given_other_credentials_and_looked_ahead_for(house: House) -> None:
    added = await answered(
        house, "accounts", "add", "--provider", "sandbox", "--label", "spare", "--unchecked", "--balance", "5"
    )
    assert (added["slots"], added["balance_read_at_ms"]) == (1, 0)
    checked = await answered(house, "accounts", "check", added["account_id"])
    assert (checked["passed"], checked["detail"]) == (True, "")
    arguments = ("accounts", "replace-credentials", added["account_id"], "--credential", "api_key")
    replaced = await answered(house, *arguments, typed="canary-secret\n")
    assert "canary-secret" not in json.dumps(replaced)
    rows = await answered(house, "accounts", "headroom")
    assert {"gpt-image-2", "seedance-2.0"} <= {row["model"] for row in rows}
    await answered(house, "accounts", "disable", added["account_id"])


async def test_a_key_that_an_account_has_is_refused_in_one_sentence_that_names_the_account(
    house: House,
) -> None:
    def adding(label: str) -> tuple[str, ...]:
        command = ("accounts", "add", "--provider", "openai", "--label", label, "--credential", "api_key")
        return (*command, "--unchecked", "--test-only")

    main = await answered(house, *adding("main"), typed="canary-secret\n")
    spare = await answered(house, *adding("other"), typed="another-secret\n")
    replacing = ("accounts", "replace-credentials", spare["account_id"], "--credential", "api_key")
    for arguments in (adding("again"), replacing, (*replacing, "--unchecked")):
        code, said, complained = await admin(house, *arguments, typed="canary-secret\n")
        assert (code, said) == (1, "")
        (line,) = complained.splitlines()
        assert line.startswith(f'credentials_in_use: the account "main" ({main["account_id"]}) has this key')
        assert "canary-secret" not in line
    for account in (main, spare):
        await answered(house, "accounts", "disable", account["account_id"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("customers", "show", "cus_unknown"), 1, "customer_not_found"),
        (("wallets", "top-up", "x", "--credits", "1.2345", "--idempotency-key", "k"), 2, "three decimals"),
        (("jobs", "list", "--state", "sleeping"), 2, "no such state"),
        (("nothing",), 2, "invalid choice"),
        (("jobs", "show", "job_unknown"), 1, "job_not_found"),
        (("jobs", "cancel", "job_unknown"), 1, "job_not_found"),
        (("wallets", "top-up", "x", "--credits", "-5", "--idempotency-key", "k"), 2, "must be more than 0"),
        (("customers", "limits", "x", "--running-jobs", "-4"), 2, "not a whole number"),
        (("accounts", "update", "x", "--priority", "99999999999"), 2, "not a whole number"),
        (("jobs", "list", "--limit", "9999999999"), 2, "not a whole number"),
    ],
)
async def test_mistakes_are_one_clear_sentence(
    house: House, arguments: tuple[str, ...], code: int, words: str
) -> None:
    exit_code, _, complained = await admin(house, *arguments)
    assert (exit_code, words in complained, "Traceback" in complained) == (code, True, False), complained


async def test_every_command_explains_itself_with_an_example(house: House) -> None:
    from services.admin.__main__ import COMMANDS

    for command in COMMANDS:
        code, said, _ = await admin(house, command.noun, command.verb, "--help")
        assert code == 0
        assert command.summary.split(".", maxsplit=1)[0] in " ".join(said.split())
        assert f"services.admin {command.noun} {command.verb}" in said


async def test_without_a_house_the_command_line_says_how_to_find_one(house: House) -> None:
    code, _, complained = await admin(house, "customers", "list", "--var", "/nonexistent")
    assert code == 3
    assert "make run" in complained


async def test_a_damaged_description_of_the_house_is_one_clear_sentence(house: House, tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{")
    code, _, complained = await admin(house, "customers", "list", "--var", str(tmp_path))
    assert (code, "is damaged" in complained, "Traceback" in complained) == (3, True, False)


async def test_common_options_are_read_before_the_noun_too(house: House) -> None:
    code, said, _ = await admin(house, "--json", "--var", str(house.var), "accounts", "list")
    assert code == 0
    assert json.loads(said)[0]["account_id"]


async def test_the_ledger_of_a_running_house_is_proved_sound(house: House) -> None:
    process = await asyncio.create_subprocess_exec(
        "make",
        "-s",
        "verify-ledger",
        cwd=ROOT,
        env=environment(house.var),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    assert b"The ledger is sound." in said


async def test_internal_services_make_and_watch_jobs_over_grpc(services: Inside) -> None:
    customer_id, _, _ = await services.customer(100)
    request = jobs.CreateJobRequest(
        customer_id=customer_id,
        mode=jobs.MODE_LIVE,
        storefront="leonardo",
        idempotency_key="internal",
        fingerprint=b"1",
        generation=jobs.Generation(
            kind=jobs.KIND_IMAGE, model="gpt-image-2", prompt="a boat", width=1024, height=1024, quality="low"
        ),
        sku="image.low",
        quantity=1,
        limits=jobs.Limits(running_jobs=10, queued_jobs=10),
        id_prefix="job",
    )
    made = await services.jobs.CreateJob(request)
    watched = jobs.WatchJobRequest(job_id=made.job.job_id, customer_id=customer_id, mode=jobs.MODE_LIVE)
    seen = [news.job async for news in services.jobs.WatchJob(watched)]
    assert seen[-1].state == jobs.JOB_STATE_COMPLETED
    assert seen[-1].charged_millis == 20_000
    assert [job.stage for job in seen] == sorted(job.stage for job in seen)
    assert (await services.jobs.CreateJob(request)).replayed is True


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"sku": "film.hour"}, Kind.INVALID_ARGUMENT, "UNKNOWN_SKU"),
        ({"customer_id": "cus_unknown"}, Kind.NOT_FOUND, "CUSTOMER_NOT_FOUND"),
        ({"quantity": 6}, Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS"),
        ({"idempotency_key": ""}, Kind.INVALID_ARGUMENT, "INVALID_REQUEST"),
    ],
)
async def test_refusals_cross_two_hops_as_they_were_made(
    services: Inside, changes: dict[str, Any], kind: Kind, reason: str
) -> None:
    customer_id, _, _ = await services.customer(100)
    request = jobs.CreateJobRequest(
        customer_id=customer_id,
        mode=jobs.MODE_LIVE,
        storefront="leonardo",
        idempotency_key="refused",
        fingerprint=b"1",
        generation=jobs.Generation(
            kind=jobs.KIND_IMAGE, model="gpt-image-2", prompt="x", width=512, height=512
        ),
        sku="image.low",
        quantity=1,
        limits=jobs.Limits(running_jobs=10, queued_jobs=10),
        id_prefix="job",
    )
    for name, value in changes.items():
        setattr(request, name, value)
    with pytest.raises(ServiceError) as refusal:
        await services.jobs.CreateJob(request)
    assert (refusal.value.kind, refusal.value.reason) == (kind, reason)
    balance = await services.billing.GetBalance(
        billing.GetBalanceRequest(customer_id=customer_id, mode=billing.MODE_LIVE)
    )
    assert balance.balance.reserved_millis == 0


async def test_every_service_answers_health_and_describes_itself_on_loopback(house: House) -> None:
    for name, address in house.demo["grpc"].items():
        async with grpc.aio.insecure_channel(address) as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
        with grpc.insecure_channel(address) as plain:
            described = await asyncio.to_thread(ProtoReflectionDescriptorDatabase(plain).get_services)
        assert any(service.startswith(f"{name}.v1.") for service in described)


async def test_one_request_id_joins_the_lines_of_every_process_and_no_line_tells_a_prompt(
    tmp_path: Path,
) -> None:
    async with (
        running_house(tmp_path / "var", ATELIER_LOG_LEVEL="debug") as house,
        aiohttp.ClientSession() as session,
    ):
        shop = Customer(session, house.base_url, house.key())
        made = await shop.call(
            "POST",
            "/v1/images/generate",
            {"prompt": "canary prompt"},
            {"Idempotency-Key": os.urandom(8).hex(), "X-Request-Id": "joins-lines"},
        )
        await shop.ended(made.json["jobId"])
    logs = {path.stem: path.read_text(encoding="utf-8") for path in house.var.glob("logs/*.log")}
    for service in ("gateway", "jobs", "billing", "provider_pool"):
        lines = [json.loads(line) for line in logs[service].splitlines() if line.startswith("{")]
        assert any(line.get("request_id") == "joins-lines" for line in lines), service
        assert "canary prompt" not in logs[service]
        assert house.key() not in logs[service]
