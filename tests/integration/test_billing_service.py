from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from services.billing import keys
from services.chassis.coalesce import Coalescer, unary_of
from services.chassis.errors import Kind, ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.integration.billing_process import (
    MINUTE_MS,
    Billing,
    capture,
    command,
    connected,
    hold,
    start,
    stop,
)


@dataclass
class Shared:
    """The one process that most tests use, each with customers of its own."""

    url: str
    pepper: Path
    process: subprocess.Popen[bytes]
    addresses: dict[str, str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("billing")
    (folder / "pepper").write_text("0123456789abcdef" * 4)
    url = f"sqlite:///{folder / 'billing.db'}"
    process, addresses = start(url, folder / "pepper")
    yield Shared(url, folder / "pepper", process, addresses)
    stop(process)


@pytest.fixture
async def billing(shared: Shared) -> AsyncIterator[Billing]:
    async with connected(shared.process, shared.addresses) as client:
        yield client


async def test_a_job_is_held_and_charged(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    held = await billing.stub.Hold(hold(customer_id, f"{customer_id}.1", "video.second", 1))
    assert (held.amount_millis, held.balance.available_millis) == (600_000, 400_000)
    assert held.price_version.startswith("1+")
    captured = await billing.stub.Capture(capture(customer_id, f"{customer_id}.1", 500_000))
    assert (captured.captured_millis, captured.released_millis) == (500_000, 100_000)
    assert await billing.balance(customer_id) == (500_000, 0, 500_000)
    request = pb.ListJournalRequest(customer_id=customer_id, mode=pb.MODE_LIVE)
    entries = (await billing.stub.ListJournal(request)).entries
    assert [entry.kind for entry in entries] == ["capture", "hold", "top_up"]


async def test_a_release_gives_everything_back(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    await billing.stub.Hold(hold(customer_id, f"{customer_id}.1"))
    request = pb.ReleaseRequest(customer_id=customer_id, mode=pb.MODE_LIVE, job_id=f"{customer_id}.1")
    assert (await billing.stub.Release(request)).released_millis == 20_000
    assert (await billing.stub.Release(request)).replayed
    assert await billing.balance(customer_id) == (1_000_000, 0, 1_000_000)


async def test_the_prices_are_the_contracts(billing: Billing) -> None:
    answer = await billing.stub.GetPriceList(pb.GetPriceListRequest(storefront="leonardo"))
    assert {price.sku: price.unit_price_millis for price in answer.prices} == {
        "image.low": 20_000,
        "image.medium": 60_000,
        "video.second": 600_000,
    }


async def test_insufficient_credits_say_how_much(billing: Billing) -> None:
    customer_id = await billing.rich_customer(10_000)
    with pytest.raises(ServiceError) as refused:
        await billing.stub.Hold(hold(customer_id, f"{customer_id}.1"))
    assert (refused.value.kind, refused.value.reason) == (Kind.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")
    assert dict(refused.value.metadata) == {"required_millis": "20000", "available_millis": "10000"}


async def test_five_hundred_holds_at_once_on_money_for_a_hundred_make_a_hundred(billing: Billing) -> None:
    customer_id = await billing.rich_customer(100 * 20_000)
    calls = (billing.stub.Hold(hold(customer_id, f"{customer_id}.{n}")) for n in range(500))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(answers) - len(refusals) == 100
    assert {refusal.reason for refusal in refusals if isinstance(refusal, ServiceError)} == {
        "INSUFFICIENT_CREDITS"
    }
    assert await billing.balance(customer_id) == (2_000_000, 2_000_000, 0)
    request = pb.ListJournalRequest(customer_id=customer_id, mode=pb.MODE_LIVE, limit=1_000)
    entries = (await billing.stub.ListJournal(request)).entries
    assert [entry.sequence for entry in entries] == list(range(501, 0, -1))


async def test_the_hot_calls_travel_on_one_stream(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    coalescer = Coalescer(
        billing.stub.Dispatch,
        batch=pb.DispatchRequest,
        item=pb.DispatchItem,
        unary=unary_of(billing.stub),
        name="billing",
    )
    try:
        holds = [
            coalescer.call("Hold", hold(customer_id, f"{customer_id}.{n}"), pb.HoldResponse, timeout_s=5)
            for n in range(60)
        ]
        answers = await asyncio.gather(*holds, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, ServiceError)]
        assert [refusal.reason for refusal in refused] == ["INSUFFICIENT_CREDITS"] * 10
        wallet = pb.GetBalanceRequest(customer_id=customer_id, mode=pb.MODE_LIVE)
        answer = await coalescer.call("GetBalance", wallet, pb.GetBalanceResponse, timeout_s=5)
        assert answer.balance.available_millis == 0
        key = (await billing.key(customer_id)).api_key
        who = await coalescer.call(
            "Authenticate", pb.AuthenticateRequest(api_key=key), pb.AuthenticateResponse, timeout_s=5
        )
        assert who.customer_id == customer_id
        extend = pb.ExtendHoldsRequest(job_ids=[f"{customer_id}.0", f"{customer_id}.x"], ttl_ms=MINUTE_MS)
        extended = await coalescer.call("ExtendHolds", extend, pb.ExtendHoldsResponse, timeout_s=5)
        assert list(extended.not_open_job_ids) == [f"{customer_id}.x"]
    finally:
        await coalescer.close()


async def test_a_hold_that_nobody_extends_expires_by_itself(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    await billing.stub.Hold(hold(customer_id, f"{customer_id}.1", ttl_ms=50))
    await billing.stub.Hold(hold(customer_id, f"{customer_id}.2"))
    async with asyncio.timeout(10):
        while (await billing.balance(customer_id))[1] != 20_000:
            await asyncio.sleep(0.05)
    both = pb.ListHoldsRequest(state=pb.HOLD_STATE_EXPIRED, job_ids=[f"{customer_id}.1", f"{customer_id}.2"])
    listed = await billing.stub.ListHolds(both)
    assert [record.job_id for record in listed.holds] == [f"{customer_id}.1"]
    late = await billing.stub.Capture(capture(customer_id, f"{customer_id}.1", 20_000))
    assert (late.captured_millis, late.unbilled) == (20_000, False)


async def test_a_key_tells_whose_it_is_and_is_shown_once(billing: Billing) -> None:
    customer_id = await billing.customer(
        limits=pb.Limits(requests_per_minute=5, running_jobs=2, queued_jobs=1)
    )
    made = await billing.key(customer_id, pb.MODE_TEST, label="first")
    assert made.api_key.startswith("ak_test_")
    assert len(made.api_key) == len("ak_test_") + 38
    owner = await billing.authenticate(made.api_key)
    assert (owner.customer_id, owner.storefront, owner.mode) == (customer_id, "leonardo", pb.MODE_TEST)
    assert (owner.key_id, owner.limits.requests_per_minute) == (made.key.key_id, 5)
    [listed] = (await billing.stub.ListKeys(pb.ListKeysRequest(customer_id=customer_id))).keys
    assert listed.label == "first"
    assert made.api_key.startswith(listed.hint)
    assert len(listed.hint) == len("ak_test_") + 4


async def test_a_revoked_key_is_refused_at_once_and_others_are_not(billing: Billing) -> None:
    customer_id = await billing.customer()
    old, new = await billing.key(customer_id), await billing.key(customer_id)
    await billing.authenticate(old.api_key)
    revoked = (await billing.stub.RevokeKey(pb.RevokeKeyRequest(key_id=old.key.key_id))).key
    with pytest.raises(ServiceError) as refused:
        await billing.authenticate(old.api_key)
    assert (refused.value.kind, refused.value.reason) == (Kind.UNAUTHENTICATED, "INVALID_API_KEY")
    assert (await billing.authenticate(new.api_key)).key_id == new.key.key_id
    again = (await billing.stub.RevokeKey(pb.RevokeKeyRequest(key_id=old.key.key_id))).key
    assert again.revoked_at_ms == revoked.revoked_at_ms > 0


async def test_a_suspended_customers_keys_and_holds_are_refused(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    api_key = (await billing.key(customer_id)).api_key
    suspend = pb.UpdateCustomerRequest(customer_id=customer_id, state=pb.CUSTOMER_STATE_SUSPENDED)
    await billing.stub.UpdateCustomer(suspend)
    # To who holds a good key only: contracts that have words for it tell them.
    with pytest.raises(ServiceError, match="CUSTOMER_INACTIVE"):
        await billing.authenticate(api_key)
    with pytest.raises(ServiceError, match="CUSTOMER_INACTIVE"):
        await billing.stub.Hold(hold(customer_id, f"{customer_id}.1"))
    await billing.stub.UpdateCustomer(
        pb.UpdateCustomerRequest(customer_id=customer_id, state=pb.CUSTOMER_STATE_ACTIVE)
    )
    assert (await billing.authenticate(api_key)).customer_id == customer_id


@pytest.mark.parametrize(
    "api_key",
    ["", "ak_live_", "x", "ak_live_" + "0" * 38, "é" * 46, "ak_live_\x00" + "0" * 37, "a" * 100_000],
)
async def test_what_is_no_key_is_refused_like_every_other(billing: Billing, api_key: str) -> None:
    with pytest.raises(ServiceError) as refused:
        await billing.authenticate(api_key)
    assert refused.value.kind is Kind.UNAUTHENTICATED


async def test_a_well_formed_key_that_was_never_made_is_refused(billing: Billing) -> None:
    with pytest.raises(ServiceError, match="INVALID_API_KEY"):
        await billing.authenticate(keys.make("ak_live_"))


HOSTILE: list[tuple[str, Any, str]] = [
    ("Hold", hold("", "job_1"), "customer_id"),
    ("Hold", hold("cus_1", ""), "job_id"),
    ("Hold", hold("cus_1", "job\x001"), "job_id"),
    ("Hold", hold("cus_1", "j" * 10_000), "job_id"),
    ("Hold", hold("cus_1", "job_1", quantity=0), "quantity"),
    ("Hold", hold("cus_1", "job_1", ttl_ms=-1), "ttl_ms"),
    ("Hold", hold("cus_1", "job_1", ttl_ms=2**63 - 1), "ttl_ms"),
    ("Hold", hold("cus_1", "job_1", mode=0), "mode"),
    ("Hold", hold("cus_1", "job_1", mode=77), "mode"),
    ("Hold", hold("cus_1", "job_1", sku="\x00"), "sku"),
    ("Capture", capture("cus_1", "job_1", -1), "amount_millis"),
    ("Capture", capture("cus_1", "job_1", 2**63 - 1), "amount_millis"),
    ("Release", pb.ReleaseRequest(customer_id="cus 1", mode=pb.MODE_LIVE, job_id="job_1"), "customer_id"),
    ("ExtendHolds", pb.ExtendHoldsRequest(job_ids=["job_1", "\x00"], ttl_ms=1), "job_ids"),
    ("ExtendHolds", pb.ExtendHoldsRequest(job_ids=["j"] * 10_001, ttl_ms=1), "job_ids"),
    (
        "TopUp",
        pb.TopUpRequest(customer_id="c", mode=pb.MODE_LIVE, amount_millis=-5, idempotency_key="k"),
        "amount_millis",
    ),
    (
        "TopUp",
        pb.TopUpRequest(customer_id="c", mode=pb.MODE_LIVE, amount_millis=2**63 - 1, idempotency_key="k"),
        "amount_millis",
    ),
    ("TopUp", pb.TopUpRequest(customer_id="c", mode=pb.MODE_LIVE, amount_millis=5), "idempotency_key"),
    (
        "TopUp",
        pb.TopUpRequest(customer_id="c", mode=pb.MODE_LIVE, amount_millis=5, idempotency_key="k\x00"),
        "idempotency_key",
    ),
    (
        "TopUp",
        pb.TopUpRequest(
            customer_id="c", mode=pb.MODE_LIVE, amount_millis=5, idempotency_key="k", note="n\x00"
        ),
        "note",
    ),
    (
        "Adjust",
        pb.AdjustRequest(customer_id="c", mode=pb.MODE_LIVE, amount_millis=-(2**63), idempotency_key="k"),
        "amount_millis",
    ),
    ("Adjust", pb.AdjustRequest(customer_id="c", mode=pb.MODE_LIVE, idempotency_key="k"), "amount_millis"),
    ("CreateCustomer", pb.CreateCustomerRequest(storefront="leonardo", name="n" * 10_000), "name"),
    ("CreateCustomer", pb.CreateCustomerRequest(storefront="leonardo", name=" "), "name"),
    ("CreateCustomer", pb.CreateCustomerRequest(storefront="leonardo", name="a\x00b"), "name"),
    (
        "CreateCustomer",
        pb.CreateCustomerRequest(storefront="leonardo", name="a", test_credit_millis=-1),
        "test_credit_millis",
    ),
    ("GetCustomer", pb.GetCustomerRequest(customer_id="' OR 1=1"), "customer_id"),
    ("ListHolds", pb.ListHoldsRequest(after_job_id="job_nobody_knows"), "after_job_id"),
    ("ListHolds", pb.ListHoldsRequest(state=cast("pb.HoldState.ValueType", 99)), "state"),
    ("CreateKey", pb.CreateKeyRequest(customer_id="\x00", mode=pb.MODE_LIVE), "customer_id"),
    ("RevokeKey", pb.RevokeKeyRequest(key_id=""), "key_id"),
]


async def test_hostile_fields_are_refused_by_name(billing: Billing) -> None:
    for method, request, field in HOSTILE:
        with pytest.raises(ServiceError) as refused:
            await getattr(billing.stub, method)(request)
        told = (refused.value.kind, refused.value.reason, dict(refused.value.metadata))
        assert told == (Kind.INVALID_ARGUMENT, "INVALID_REQUEST", {"field": field}), (method, request)


async def test_what_is_not_there_is_not_found(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    asked: list[tuple[Any, Kind, str]] = [
        (
            billing.stub.GetCustomer(pb.GetCustomerRequest(customer_id="cus_0")),
            Kind.NOT_FOUND,
            "CUSTOMER_NOT_FOUND",
        ),
        (billing.stub.Hold(hold("cus_0", f"{customer_id}.1")), Kind.NOT_FOUND, "CUSTOMER_NOT_FOUND"),
        (billing.stub.Capture(capture(customer_id, f"{customer_id}.0", 1)), Kind.NOT_FOUND, "HOLD_NOT_FOUND"),
        (billing.stub.RevokeKey(pb.RevokeKeyRequest(key_id="key_0")), Kind.NOT_FOUND, "KEY_NOT_FOUND"),
        (
            billing.stub.Hold(hold(customer_id, f"{customer_id}.1", "gold")),
            Kind.INVALID_ARGUMENT,
            "UNKNOWN_SKU",
        ),
        (
            billing.stub.GetPriceList(pb.GetPriceListRequest(storefront="elsewhere")),
            Kind.NOT_FOUND,
            "UNKNOWN_STOREFRONT",
        ),
        (billing.key("cus_0"), Kind.NOT_FOUND, "CUSTOMER_NOT_FOUND"),
    ]
    for call, kind, reason in asked:
        with pytest.raises(ServiceError) as refused:
            await call
        assert (refused.value.kind, refused.value.reason) == (kind, reason)


async def test_the_largest_quantity_is_merely_too_expensive(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    with pytest.raises(ServiceError, match="INSUFFICIENT_CREDITS"):
        await billing.stub.Hold(hold(customer_id, f"{customer_id}.1", "video.second", 2**32 - 1))


async def test_the_operations_port_shows_the_ledger(billing: Billing) -> None:
    customer_id = await billing.rich_customer()
    await billing.stub.Hold(hold(customer_id, f"{customer_id}.1"))
    async with aiohttp.ClientSession(billing.addresses["operations"]) as session:
        async with session.get("/readyz") as ready:
            assert ready.status == 200
        async with session.get("/metrics") as answer:
            shown = await answer.text()
    assert 'atelier_billing_operations_total{kind="hold",result="ok"}' in shown
    assert "atelier_billing_ledger_drift 0.0" in shown
    assert 'atelier_group_commit_batch_items_count{batch="billing_ledger"}' in shown


async def test_the_ledger_is_verified_beside_the_running_service(billing: Billing, shared: Shared) -> None:
    customer_id = await billing.rich_customer()
    await billing.stub.Hold(hold(customer_id, f"{customer_id}.1"))
    code, out, _ = await command(shared.url, shared.pepper, "verify-ledger", "--json")
    report = json.loads(out)
    assert (code, report["findings"]) == (0, [])
    assert report["holds"] >= 1
    assert report["entries"] >= 3
    assert report["accounts_millis"]["system:issued:live"] <= -1_000_000


async def test_a_second_process_on_one_file_is_refused_in_one_sentence(shared: Shared) -> None:
    code, _, err = await command(shared.url, shared.pepper)
    assert code == 2
    assert "is in use by process" in err.strip().splitlines()[-1]
