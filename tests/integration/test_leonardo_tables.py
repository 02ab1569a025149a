"""Every row of contract `leonardo`'s tables, over real HTTP against separate processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.gen.billing.v1 import billing_pb2 as billing
from services.gen.jobs.v1 import jobs_pb2 as jobs
from services.gen.provider_pool.v1 import provider_pool_pb2 as pool
from tests.house import Answer, Customer, House, Inside, inside, running_house

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running_house(tmp_path_factory.mktemp("tables") / "var") as house, inside(house) as services:
        await services.set_account_options(render="instant", pace_ms="0")
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(house: House) -> AsyncIterator[Inside]:
    async with inside(house) as services:
        yield services


@pytest.fixture
def customer(house: House, session: aiohttp.ClientSession) -> Customer:
    return Customer(session, house.base_url, house.key())


def refused(answer: Answer, status: int, code: str, **more: Any) -> dict[str, Any]:
    """Asserts that an answer is this error in the contract's shape, and returns its error object."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json
    assert set(body) == {"ok", "error", "requestId"}
    assert body["ok"] is False
    assert body["requestId"] == answer.headers["X-Request-Id"]
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    for name, value in more.items():
        assert body["error"][name] == value
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("images", {}, "prompt"),
        ("images", {"prompt": ""}, "prompt"),
        ("images", {"prompt": "   "}, "prompt"),
        ("images", {"prompt": "x" * 4001}, "prompt"),
        ("images", {"prompt": 7}, "prompt"),
        ("images", {"prompt": "x", "quality": "HIGH"}, "quality"),
        ("images", {"prompt": "x", "size": "4:3"}, "size"),
        ("videos", {"prompt": "x", "duration": 3}, "duration"),
        ("videos", {"prompt": "x", "duration": 16}, "duration"),
        ("videos", {"prompt": "x", "duration": "5"}, "duration"),
        ("videos", {"prompt": "x", "motionHasAudio": "yes"}, "motionHasAudio"),
    ],
)
async def test_400_invalid_request_names_the_field(
    customer: Customer, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await customer.call("POST", f"/v1/{path}/generate", body, {"Idempotency-Key": "k"})
    refused(answer, 400, "invalid_request", field=field)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "x" * 256}, {"Idempotency-Key": "clé"}])
@pytest.mark.parametrize("path", ["images", "videos"])
async def test_400_idempotency_key_required(customer: Customer, path: str, headers: dict[str, str]) -> None:
    answer = await customer.call("POST", f"/v1/{path}/generate", {"prompt": "x"}, headers)
    refused(answer, 400, "idempotency_key_required")


@pytest.mark.parametrize("reference", ["http://example.com/a.png", {"imageUrl": "https://10.0.0.1/a.png"}])
async def test_400_invalid_reference_image(customer: Customer, reference: object) -> None:
    refused(await customer.image("reference", referenceImage=reference), 400, "invalid_reference_image")


@pytest.mark.parametrize("authorization", [None, "Bearer ak_live_your_key", "Basic x", "Bearer "])
async def test_401_invalid_api_key(
    house: House, session: aiohttp.ClientSession, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in (
        ("GET", "/v1/usage"),
        ("GET", "/v1/jobs/job_x"),
        ("POST", "/v1/images/generate"),
        ("POST", "/v1/videos/generate"),
    ):
        async with session.request(method, house.base_url + path, headers=headers) as response:
            answer = Answer(response.status, response.headers, await response.read())
        refused(answer, 401, "invalid_api_key")


async def test_401_for_a_revoked_key_within_five_seconds(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    customer_id, key, _ = await services.customer(0)
    customer = Customer(session, house.base_url, key)
    assert (await customer.call("GET", "/v1/usage")).status == 200
    keys = await services.billing.ListKeys(billing.ListKeysRequest(customer_id=customer_id))
    live = next(known for known in keys.keys if known.mode == billing.MODE_LIVE)
    await services.billing.RevokeKey(billing.RevokeKeyRequest(key_id=live.key_id))
    await asyncio.sleep(5.5)
    refused(await customer.call("GET", "/v1/usage"), 401, "invalid_api_key")


async def test_402_says_what_is_required_and_what_is_available(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    _, key, _ = await services.customer(100)
    answer = await Customer(session, house.base_url, key).video("too-dear", duration=15)
    refused(answer, 402, "insufficient_credits", required=9000, available=100)


@pytest.mark.parametrize(
    "job_id", ["job_00000000000000000000000000", "job_x", "x", "job_%00", "..", "%2e%2e"]
)
async def test_404_job_not_found(customer: Customer, job_id: str) -> None:
    answer = await customer.job(job_id)
    if answer.status == 404 and answer.json["error"]["code"] == "not_found":
        assert job_id in {"..", "%2e%2e"}
        return
    refused(answer, 404, "job_not_found")


async def test_409_for_the_same_key_with_another_payload(customer: Customer) -> None:
    assert (await customer.image("conflict", "one")).status == 202
    refused(await customer.image("conflict", "two"), 409, "idempotency_key_conflict")
    refused(await customer.video("conflict", "one"), 409, "idempotency_key_conflict")


async def test_a_replay_is_the_same_answer_with_a_header_whatever_the_bytes(
    house: House, session: aiohttp.ClientSession
) -> None:
    headers = {
        "Authorization": f"Bearer {house.key()}",
        "Idempotency-Key": "bytes",
        "Content-Type": "application/json",
    }
    bodies = ['{"prompt":"a","quality":"LOW"}', ' { "later": 1, "quality": "LOW",\n "prompt": "a" } ']
    answers = []
    for body in bodies:
        url = house.base_url + "/v1/images/generate"
        async with session.post(url, data=body, headers=headers) as response:
            answers.append(Answer(response.status, response.headers, await response.read()))
    first, again = answers
    assert (first.status, again.status) == (202, 202)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    live = {"status", "idempotentReplay"}
    assert {k: v for k, v in first.json.items() if k not in live} == {
        k: v for k, v in again.json.items() if k not in live
    }


async def test_409_job_not_complete_until_it_is(customer: Customer) -> None:
    made = await customer.image("unfinished", "a boat [sandbox:pace=30]")
    answer = await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")
    refused(answer, 409, "job_not_complete")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_409_job_failed_repeats_the_jobs_own_error(customer: Customer) -> None:
    made = await customer.image("failed", "a boat [sandbox:fail]")
    ended = await customer.ended(made.json["jobId"])
    answer = await customer.call("GET", f"/v1/jobs/{made.json['jobId']}/result")
    assert refused(answer, 409, "job_failed")["message"] == ended["error"]["message"]


async def test_413_payload_too_large(house: House, session: aiohttp.ClientSession) -> None:
    headers = {
        "Authorization": f"Bearer {house.key()}",
        "Idempotency-Key": "large",
        "Content-Type": "application/json",
    }
    body = io.BytesIO(json.dumps({"prompt": "x", "padding": "x" * (29 * 1024 * 1024)}).encode())
    url = house.base_url + "/v1/images/generate"
    async with session.post(url, data=body, headers=headers) as response:
        answer = Answer(response.status, response.headers, await response.read())
    refused(answer, 413, "payload_too_large")


async def test_429_rate_limited(house: House, services: Inside, session: aiohttp.ClientSession) -> None:
    _, key, _ = await services.customer(0, limits={"requests_per_minute": 5})
    customer = Customer(session, house.base_url, key)
    answers = [await customer.call("GET", "/v1/usage") for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    refused(answers[-1], 429, "rate_limited")
    assert answers[-1].headers["RateLimit-Limit"] == "5"
    assert answers[-1].headers["RateLimit-Remaining"] == "0"
    assert 0 < int(answers[-1].headers["RateLimit-Reset"]) <= 60
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("limits", "marker", "code"),
    [
        ({"running_jobs": 2}, "[sandbox:pace=20]", "concurrency_limited"),
        ({"queued_jobs": 2}, "[sandbox:pace=20]", "queue_full"),
    ],
)
async def test_429_for_jobs_running_and_jobs_waiting(
    house: House,
    services: Inside,
    session: aiohttp.ClientSession,
    limits: dict[str, int],
    marker: str,
    code: str,
) -> None:
    customer_id, key, _ = await services.customer(10_000, limits=limits)
    customer = Customer(session, house.base_url, key)
    answers = [await customer.image(f"{code}-{n}", f"a boat {marker}") for n in range(14)]
    assert {answer.status for answer in answers} == {202, 429}
    over = next(answer for answer in answers if answer.status == 429)
    refused(over, 429, code)
    assert over.headers["RateLimit-Limit"] == "2"
    assert over.headers["RateLimit-Remaining"] == "0"
    assert int(over.headers["Retry-After"]) >= 1
    accepted = sum(answer.status == 202 for answer in answers)
    balance = await services.billing.GetBalance(
        billing.GetBalanceRequest(customer_id=customer_id, mode=billing.MODE_LIVE)
    )
    # Finished or not, only what was accepted is held or charged.
    assert balance.balance.available_millis == 10_000_000 - accepted * 20_000


async def test_503_provider_unavailable_holds_nothing_and_frees_the_key(
    house: House, services: Inside, session: aiohttp.ClientSession
) -> None:
    _, key, _ = await services.customer(100)
    customer = Customer(session, house.base_url, key)
    accounts = (await services.pool.ListAccounts(pool.ListAccountsRequest())).accounts

    async def set_all(state: pool.AccountState.ValueType) -> None:
        for account in accounts:
            await services.pool.UpdateAccount(
                pool.UpdateAccountRequest(account_id=account.account_id, state=state)
            )

    await set_all(pool.ACCOUNT_STATE_DISABLED)
    try:
        answer = await customer.image("later")
        refused(answer, 503, "provider_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        usage = (await customer.call("GET", "/v1/usage")).json
        assert usage == {"creditsBalance": 100, "creditsReserved": 0, "creditsAvailable": 100}
    finally:
        await set_all(pool.ACCOUNT_STATE_ACTIVE)
    assert (await customer.image("later")).status == 202


async def test_503_job_status_unavailable_when_the_last_answer_is_too_old(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with (
        running_house(tmp_path / "var", ATELIER_JOBS_STALE_AFTER_S="1") as silent,
        inside(silent) as services,
    ):
        customer = Customer(session, silent.base_url, silent.key())
        made = await customer.image("silent", "a boat [sandbox:pace=60]")
        wanted = jobs.ListJobsRequest(job_ids=[made.json["jobId"]], state=jobs.JOB_STATE_RUNNING)
        async with asyncio.timeout(10):
            while not (await services.jobs.ListJobs(wanted)).jobs:
                await asyncio.sleep(0.05)
        pool_pid = silent.pid_of("provider_pool")
        os.kill(pool_pid, signal.SIGSTOP)
        try:
            # Older than a synchronised answer may be, and older than one that is given while the provider is silent.
            await asyncio.sleep(3)
            answer = await customer.job(made.json["jobId"])
            refused(answer, 503, "job_status_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        finally:
            os.kill(pool_pid, signal.SIGCONT)
        assert (await customer.job(made.json["jobId"])).json["status"] == "processing"


async def test_404_and_405_for_unknown_paths_and_methods(customer: Customer) -> None:
    refused(await customer.call("GET", "/v1/nothing"), 404, "not_found")
    refused(await customer.call("GET", "/nothing"), 404, "not_found")
    for method, path, allowed in (
        ("GET", "/v1/images/generate", "POST"),
        ("DELETE", "/v1/usage", "GET"),
        ("PUT", "/v1/jobs/job_x", "GET"),
    ):
        answer = await customer.call(method, path)
        refused(answer, 405, "method_not_allowed")
        assert allowed in answer.headers["Allow"]


async def test_head_is_answered_where_get_is(house: House, session: aiohttp.ClientSession) -> None:
    headers = {"Authorization": f"Bearer {house.key()}"}
    async with session.head(house.base_url + "/v1/usage", headers=headers) as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_request_id_is_kept_or_made(house: House, session: aiohttp.ClientSession) -> None:
    url = house.base_url + "/v1/usage"
    async with session.get(url, headers={"X-Request-Id": "mine-1"}) as answer:
        assert answer.headers["X-Request-Id"] == "mine-1"
        assert (await answer.json())["requestId"] == "mine-1"
    async with session.get(url, headers={"X-Request-Id": "x" * 129}) as answer:
        assert answer.headers["X-Request-Id"] not in {"", "x" * 129}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"prompt": NaN}', b'{"prompt": "\\ud800"}']
)
async def test_hostile_bodies_are_400_and_never_500(
    house: House, session: aiohttp.ClientSession, body: bytes
) -> None:
    headers = {
        "Authorization": f"Bearer {house.key()}",
        "Idempotency-Key": "hostile",
        "Content-Type": "application/json",
    }
    url = house.base_url + "/v1/images/generate"
    async with session.post(url, data=body, headers=headers) as response:
        answer = Answer(response.status, response.headers, await response.read())
    refused(answer, 400, "invalid_request")


async def test_documentation_and_openapi_are_served(house: House, session: aiohttp.ClientSession) -> None:
    async with session.get(house.base_url + "/docs") as answer:
        assert answer.status == 200
        assert "text/html" in answer.headers["Content-Type"]
    async with session.get(house.base_url + "/openapi/leonardo.json") as answer:
        assert answer.status == 200
        described = await answer.json(content_type=None)
    assert described["openapi"].startswith("3.1")
    assert set(described["paths"]) == {
        "/v1/images/generate",
        "/v1/videos/generate",
        "/v1/jobs/{jobId}",
        "/v1/jobs/{jobId}/result",
        "/v1/usage",
    }
