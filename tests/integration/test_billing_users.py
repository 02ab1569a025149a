"""Users over the wire: from signing up to a new password, across restarts and kills."""

from __future__ import annotations

import asyncio
import email
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.admin.__main__ import COMMANDS
from services.admin.command import build_parser
from services.admin.connection import House
from services.chassis.errors import ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.integration.billing_process import Billing, capture, command, hold, running

PRICES = """
version = "1"
title = "The Shop"
[keys]
live_prefix = "shop_live_"
test_prefix = "shop_test_"
[limits]
requests_per_minute = 1
running_jobs = 2
queued_jobs = 3
[test_wallet]
credits = 100
[sign_up]
credits = 25
[[packages]]
id = "starter"
title = "Starter"
credits = 500
price = "9.00"
currency = "USD"
[[prices]]
sku = "image"
title = "An image"
unit = "image"
credits = 5
"""
PASSWORD = "correct horse"


class Folder:
    """What one house keeps on its disk."""

    def __init__(self, root: Path) -> None:
        self.url = f"sqlite:///{root / 'billing.db'}"
        self.pepper, self.tokens, self.outbox = root / "pepper", root / "tokens", root / "outbox"
        self.pepper.write_text("p" * 64)
        self.tokens.write_text("t" * 64)
        (root / "prices").mkdir()
        (root / "prices" / "shop.toml").write_text(PRICES)
        self._prices = root / "prices"

    @asynccontextmanager
    async def billing(self) -> AsyncIterator[Billing]:
        places = {
            "ATELIER_BILLING_TOKEN_SECRET_FILE": self.tokens,
            "ATELIER_BILLING_OUTBOX": self.outbox,
            "ATELIER_BILLING_PRICE_LISTS": self._prices,
        }
        told = {name: str(place) for name, place in places.items()}
        async with running(self.url, self.pepper, **told) as billing:
            yield billing

    async def mailed_token(self) -> str:
        async with asyncio.timeout(30):
            while not (mails := sorted(self.outbox.glob("*.eml"))):
                await asyncio.sleep(0.02)
        text = str(email.message_from_bytes(mails[-1].read_bytes()).get_payload())
        found = re.search(r"^([A-Za-z0-9_-]{43})$", text, re.MULTILINE)
        assert found, text
        return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def sign_up(billing: Billing, address: str = "ann@example.com", password: str = PASSWORD) -> pb.User:
    request = pb.SignUpRequest(storefront="shop", email=address, password=password)
    return (await billing.stub.SignUp(request)).user


async def log_in(billing: Billing, password: str = PASSWORD, address: str = "ann@example.com") -> str:
    request = pb.LogInRequest(storefront="shop", email=address, password=password)
    return (await billing.stub.LogIn(request)).access_token


async def test_from_signing_up_to_a_new_password(folder: Folder) -> None:
    async with folder.billing() as billing:
        user = await sign_up(billing)
        assert await billing.balance(user.customer_id) == (25_000, 0, 25_000)
        token = await log_in(billing)
        caller = await billing.authenticate(token)
        assert (caller.customer_id, caller.user_id, caller.key_id) == (user.customer_id, user.user_id, "")
        assert (caller.mode, caller.storefront, caller.limits.queued_jobs) == (pb.MODE_LIVE, "shop", 3)
        folder.tokens.write_text("n" * 64 + "\n" + "t" * 64)
    async with folder.billing() as billing:
        assert (await billing.authenticate(token)).user_id == user.user_id
        request = pb.RequestPasswordResetRequest(storefront="shop", email="ANN@example.com")
        await billing.stub.RequestPasswordReset(request)
        reset = await folder.mailed_token()
        assert [path.stat().st_mode & 0o777 for path in folder.outbox.iterdir()] == [0o600]
        change = pb.ResetPasswordRequest(storefront="shop", token=reset, password="a new password")
        await billing.stub.ResetPassword(change)
        for refused in (billing.authenticate(token), log_in(billing), billing.stub.ResetPassword(change)):
            with pytest.raises(ServiceError):
                await refused
        caller = await billing.authenticate(await log_in(billing, "a new password"))
        assert caller.user_id == user.user_id
        found = (await billing.stub.GetUser(pb.GetUserRequest(user_id=user.user_id))).user
        assert found == user


async def test_packages_and_topped_up_credit_are_told(folder: Folder) -> None:
    async with folder.billing() as billing:
        answer = await billing.stub.GetPriceList(pb.GetPriceListRequest(storefront="shop"))
        expected = pb.Package(
            package_id="starter", title="Starter", credit_millis=500_000, price="9.00", currency="USD"
        )
        assert list(answer.packages) == [expected]
        user = await sign_up(billing)
        job: dict[str, Any] = {"storefront": "shop", "sku": "image"}
        await billing.stub.Hold(hold(user.customer_id, "job1", **job))
        await billing.stub.Capture(capture(user.customer_id, "job1", 5_000))
        request = pb.GetBalanceRequest(customer_id=user.customer_id, mode=pb.MODE_LIVE, with_topped_up=True)
        told = await billing.stub.GetBalance(request)
        assert (told.balance.available_millis, told.topped_up_millis) == (20_000, 25_000)


async def test_limits_of_customer_and_key_reach_the_wire(folder: Folder) -> None:
    async with folder.billing() as billing:
        user = await sign_up(billing)
        limits = pb.SpendLimits(day_millis=10_000, month_millis=20_000)
        changed = await billing.stub.UpdateCustomer(
            pb.UpdateCustomerRequest(customer_id=user.customer_id, spend_limits=limits)
        )
        assert changed.customer.spend_limits == limits
        rules = pb.KeyRules(models=["pro"], spend_limits=pb.SpendLimits(day_millis=5_000))
        made = await billing.key(user.customer_id, rules=rules)
        caller = await billing.authenticate(made.api_key)
        assert (caller.rules, caller.user_id) == (rules, user.user_id)
        job: dict[str, Any] = {"storefront": "shop", "sku": "image"}
        await billing.stub.Hold(hold(user.customer_id, "job1", key_id=made.key.key_id, **job))
        with pytest.raises(ServiceError, match="SPEND_LIMIT_REACHED") as refusal:
            await billing.stub.Hold(hold(user.customer_id, "job2", key_id=made.key.key_id, **job))
        told = {"period": "day", "limit_millis": "5000", "spent_millis": "5000"}
        assert dict(refusal.value.metadata) == told | {"required_millis": "5000", "available_millis": "0"}
        await billing.stub.Hold(hold(user.customer_id, "job3", **job))
        with pytest.raises(ServiceError, match="SPEND_LIMIT_REACHED"):
            await billing.stub.Hold(hold(user.customer_id, "job4", **job))
        rotated = await billing.stub.RotateKey(pb.RotateKeyRequest(key_id=made.key.key_id, overlap_ms=60_000))
        assert (await billing.authenticate(rotated.api_key)).rules == rules
        assert (await billing.authenticate(made.api_key)).key_id == made.key.key_id


async def test_a_kill_leaves_users_whole_or_not_at_all(folder: Folder) -> None:
    answered: set[str] = set()

    async def crowd(billing: Billing, round_number: int) -> None:
        async def one(number: int) -> None:
            address = f"u{round_number}.{number}@example.com"
            try:
                await sign_up(billing, address)
            except (ServiceError, grpc.RpcError):
                return
            answered.add(address)

        await asyncio.gather(*(one(number) for number in range(30)))

    for round_number in range(2):
        async with folder.billing() as billing:
            going = asyncio.create_task(crowd(billing, round_number))
            while len(answered) < 5 * (round_number + 1):
                await asyncio.sleep(0.001)
            await billing.kill()
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
    async with folder.billing() as billing:
        for address in answered:
            await log_in(billing, address=address)
        users = set()
        request = pb.ListCustomersRequest(storefront="shop", limit=1_000)
        for customer in (await billing.stub.ListCustomers(request)).customers:
            found = await billing.stub.GetUser(pb.GetUserRequest(customer_id=customer.customer_id))
            users.add(found.user.email)
            assert await billing.balance(customer.customer_id) == (25_000, 0, 25_000)
        assert answered <= users
    code, out, _ = await command(folder.url, folder.pepper, "verify-ledger")
    assert code == 0, out


async def admin(billing: Billing, *words: str) -> Any:
    """What an operator's command answers."""
    chosen = build_parser(COMMANDS).parse_args(list(words))
    async with House({"billing": billing.addresses["grpc"]}) as house:
        return await chosen.command.run(house, chosen)


async def test_a_limit_of_nothing_is_one_from_the_start(folder: Folder) -> None:
    asked = ("--storefront", "shop", "--name", "Ann", "--requests-per-minute", "0", "--running-jobs", "7")
    async with folder.billing() as billing:
        plain = await admin(billing, "customers", "create", "--storefront", "shop", "--name", "Bob")
        made = await admin(billing, "customers", "create", *asked)
        assert made["limits"] == plain["limits"] | {"requests_per_minute": 0, "running_jobs": 7}
        assert plain["limits"]["requests_per_minute"] > 0


async def test_an_operator_sets_limits_and_rules_rotates_keys_and_finds_users(folder: Folder) -> None:
    async with folder.billing() as billing:
        user = await sign_up(billing)
        customer = await admin(billing, "customers", "limits", user.customer_id, "--day-limit", "500")
        assert customer["spend_limits"] == {"day_millis": 500_000, "month_millis": 0}
        customer = await admin(
            billing, "customers", "limits", user.customer_id, "--month-limit", "5000", "--queued-jobs", "9"
        )
        assert customer["spend_limits"] == {"day_millis": 500_000, "month_millis": 5_000_000}
        assert customer["limits"]["queued_jobs"] == 9
        customer = await admin(
            billing, "customers", "limits", user.customer_id, "--day-limit", "0", "--month-limit", "0"
        )
        assert customer["spend_limits"] is None
        rules = ("--model", "pro", "--network", "203.0.113.0/24", "--day-limit", "50")
        key = await admin(billing, "keys", "create", user.customer_id, "--label", "laptop", *rules)
        assert key["rules"] == {
            "models": ["pro"],
            "networks": ["203.0.113.0/24"],
            "spend_limits": {"day_millis": 50_000, "month_millis": 0},
        }
        mapped = ("--network", "::ffff:203.0.113.0/120", "--network", "2001:db8::7")
        other = await admin(billing, "keys", "create", user.customer_id, *mapped)
        assert other["rules"]["networks"] == ["203.0.113.0/24", "2001:db8::7/128"]
        listed = await admin(billing, "keys", "list", user.customer_id)
        assert "limited_to" in listed.columns
        assert {row["key_id"]: row["limited_to"] for row in listed.rows} == {
            key["key_id"]: ["pro", "203.0.113.0/24", "50 a day"],
            other["key_id"]: ["203.0.113.0/24", "2001:db8::7/128"],
        }
        rotated = await admin(billing, "keys", "rotate", key["key_id"], "--overlap-hours", "0")
        assert rotated["rules"] == key["rules"]
        assert (await billing.authenticate(rotated["api_key"])).key_id == rotated["key_id"]
        with pytest.raises(ServiceError, match="INVALID_API_KEY"):
            await billing.authenticate(key["api_key"])
        for name in (user.customer_id, str(user.user_id)):
            assert (await admin(billing, "users", "show", name))["email"] == "ann@example.com"
        await admin(billing, "users", "mail-reset", "--storefront", "shop", "--email", "ann@example.com")
        assert await folder.mailed_token()
