"""Accounts on `imaginelab`: signing up, logging in, forgotten passwords, and how often each may be tried."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from services.chassis.errors import Kind, ServiceError
from services.gateway.client_address import networks
from tests.contracts.conftest import Opening, Storefront
from tests.contracts.imaginelab import ADA, LOGIN, Client, log_in, refused, sign_up, signed_in
from tests.fakes import key_of

FORGOT = "/api/v1/auth/forgot-password"
RESET = "/api/v1/auth/reset-password"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_a_user_signs_up_logs_in_and_is_told_who_it_is(shop: Storefront) -> None:
    made = await sign_up(shop)
    assert made.status == 201
    assert made.body == {
        "id": 17,
        "email": "ada@example.com",
        "full_name": "Ada Lovelace",
        "created_at": "2026-06-29T10:00:00Z",
    }
    answer = await log_in(shop)
    assert answer.status == 200
    token = answer.body["access_token"]
    assert answer.body == {"access_token": token, "token_type": "bearer"}
    me = await Client(shop, token).get("auth/me")
    assert (me.status, me.body) == (200, made.body)


async def test_a_name_is_optional(shop: Storefront) -> None:
    for email, name in (("a@example.com", {}), ("b@example.com", {"full_name": None})):
        made = await sign_up(shop, {"email": email, "password": "12345678", **name})
        assert (made.status, made.body["full_name"]) == (201, None)


async def test_a_taken_address_is_refused_without_saying_so(shop: Storefront) -> None:
    await sign_up(shop)
    told = refused(await sign_up(shop, {**ADA, "password": "another password"}), 400)
    assert not {"taken", "exists", "already", "known"} & set(told.lower().split())


@pytest.mark.parametrize(
    "changes,field",
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "a@example.com\r\nBcc: b@example.com"}, "email"),
        ({"email": "a" * 250 + "@example.com"}, "email"),
        ({"email": None}, "email"),
        ({"password": "1234567"}, "password"),
        ({"password": "1" * 129}, "password"),
        ({"password": 12345678}, "password"),
        ({"full_name": "a" * 201}, "full_name"),
        ({"full_name": "a\x00"}, "full_name"),
        ({"full_name": 1}, "full_name"),
    ],
)
async def test_a_wrong_field_of_a_sign_up_is_400_and_named(
    shop: Storefront, changes: dict[str, Any], field: str
) -> None:
    assert field in refused(await sign_up(shop, {**ADA, **changes}), 400)
    assert shop.billing.users == {}


@pytest.mark.parametrize("missing", ["email", "password"])
async def test_what_a_sign_up_needs_is_named(shop: Storefront, missing: str) -> None:
    body = {name: value for name, value in ADA.items() if name != missing}
    refused(await sign_up(shop, body), 400, f"{missing} is required.")


async def test_a_password_may_be_any_characters(shop: Storefront) -> None:
    password = " pässwörd&=%+\t\U0001f511"
    await sign_up(shop, {**ADA, "password": password})
    assert (await log_in(shop, password=password)).status == 200


async def test_a_wrong_login_is_401_and_the_same_for_unknown_addresses(shop: Storefront) -> None:
    await sign_up(shop)
    wrong = (
        (ADA["email"], "wrong password"),
        ("nobody@example.com", ADA["password"]),
        (ADA["email"], "1" * 129),
        (f"{'a' * 300}@example.com", ADA["password"]),
    )
    for email, password in wrong:
        answer = await log_in(shop, email, password)
        refused(answer, 401, "Incorrect email or password")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_login_is_a_form(shop: Storefront) -> None:
    await sign_up(shop)
    assert "Content-Type" in refused(await shop.request("POST", LOGIN, json=ADA), 400)
    told = await shop.request("POST", LOGIN, data="username=ada%40example.com", headers=FORM)
    refused(told, 400, "password is required.")
    twice = "username=a%40example.com&username=b%40example.com&password=12345678"
    assert "username" in refused(await shop.request("POST", LOGIN, data=twice, headers=FORM), 400)
    for broken in (b"\xff=a", b"username=%ff", b"&".join(b"a=b" for _ in range(100))):
        refused(await shop.request("POST", LOGIN, data=broken, headers=FORM), 400)


@pytest.mark.parametrize(
    "grant,status", [({"grant_type": "password"}, 200), ({"grant_type": "refresh"}, 400)]
)
async def test_a_grant_type_is_optional(shop: Storefront, grant: dict[str, str], status: int) -> None:
    await sign_up(shop)
    form = {"username": ADA["email"], "password": ADA["password"], "scope": "", **grant}
    assert (await shop.request("POST", LOGIN, data=form)).status == status


async def test_a_forgotten_password_is_answered_alike_and_reset_once(shop: Storefront) -> None:
    client = await signed_in(shop)
    known, unknown = [
        await shop.request("POST", FORGOT, json={"email": email})
        for email in (ADA["email"], "nobody@example.com")
    ]
    assert (known.status, known.raw) == (200, unknown.raw)
    ((email, token),) = shop.billing.mailed
    assert email == ADA["email"]
    new = {"token": token, "password": "staple battery horse"}
    assert (await shop.request("POST", RESET, json=new)).status == 200
    assert "token" in refused(await shop.request("POST", RESET, json=new), 400)
    assert (await log_in(shop, password=new["password"])).status == 200
    refused(await log_in(shop), 401)
    # Known for a few seconds at most; another gateway never heard of it.
    assert (await client.get("auth/me")).status in {200, 404, 401}


@pytest.mark.parametrize(
    "path,body,field",
    [
        (FORGOT, {}, "email"),
        (FORGOT, {"email": "nobody"}, "email"),
        (RESET, {"password": "12345678"}, "token"),
        (RESET, {"token": "", "password": "12345678"}, "token"),
        (RESET, {"token": "t" * 201, "password": "12345678"}, "token"),
        (RESET, {"token": "t", "password": "1234567"}, "password"),
    ],
)
async def test_a_wrong_field_of_a_reset_is_400_and_named(
    shop: Storefront, path: str, body: dict[str, str], field: str
) -> None:
    assert field in refused(await shop.request("POST", path, json=body), 400)


async def test_a_key_without_a_user_is_nobody(shop: Storefront) -> None:
    refused(await Client(shop, key_of("imaginelab")).get("auth/me"), 404)


async def test_a_token_that_nobody_gave_is_401(shop: Storefront) -> None:
    refused(await Client(shop, "eyJhbGciOiJub25lIn0.e30.").get("auth/me"), 401, "Invalid token")
    refused(await shop.request("GET", "/api/v1/auth/me"), 401, "Missing token")


# ---- how often ----------------------------------------------------------------------------------------------


async def test_wrong_logins_of_an_address_are_counted_however_many_come_at_once(shop: Storefront) -> None:
    await sign_up(shop)
    spellings = (ADA["email"], " ADA@Example.com ", "\uff41da@example.com.", "ada@exam\u00adple.com")
    answers = await asyncio.gather(*(log_in(shop, spellings[n % 4], f"guess {n}") for n in range(30)))
    assert Counter(answer.status for answer in answers) == {401: 10, 429: 20}
    late = await log_in(shop)
    refused(late, 429)
    assert 0 < int(late.headers["Retry-After"]) <= 300
    assert late.headers["RateLimit-Remaining"] == "0"
    assert late.headers["RateLimit-Reset"] == late.headers["Retry-After"]
    # Somebody else is not locked out.
    refused(await log_in(shop, "eve@example.com"), 401)


async def test_good_logins_are_not_counted(shop: Storefront) -> None:
    await sign_up(shop)
    assert {(await log_in(shop)).status for _ in range(30)} == {200}


async def test_logins_that_billing_could_not_judge_are_not_counted(shop: Storefront) -> None:
    await sign_up(shop)
    shop.billing.refusal = ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "away")
    for _ in range(12):
        refused(await log_in(shop), 503)
    shop.billing.refusal = None
    assert (await log_in(shop)).status == 200


async def test_wrong_logins_from_a_client_are_counted_over_addresses(shop: Storefront) -> None:
    answers = [await log_in(shop, f"user{n}@example.com") for n in range(101)]
    assert Counter(answer.status for answer in answers) == {401: 100, 429: 1}
    assert shop.billing.logins == 100


async def test_mails_to_an_address_are_counted(shop: Storefront) -> None:
    await sign_up(shop)
    answers = [await shop.request("POST", FORGOT, json={"email": ADA["email"]}) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert len(shop.billing.mailed) == 5


async def test_mails_asked_for_by_a_client_are_counted_over_addresses(shop: Storefront) -> None:
    answers = [await shop.request("POST", FORGOT, json={"email": f"u{n}@example.com"}) for n in range(31)]
    assert [answer.status for answer in answers] == [200] * 30 + [429]


async def test_clients_behind_a_trusted_proxy_are_counted_apart(opening: Opening) -> None:
    shop = await opening(trusted_proxies=networks("127.0.0.1/32"))

    async def guessed(client: str, number: int) -> int:
        form = {"username": f"u{number}@example.com", "password": "12345678"}
        headers = {"X-Forwarded-For": client}
        return (await shop.request("POST", LOGIN, data=form, headers=headers)).status

    assert {await guessed("203.0.113.7", n) for n in range(100)} == {401}
    assert await guessed("203.0.113.7", 100) == 429
    assert await guessed("203.0.113.8", 101) == 401


async def test_neither_addresses_nor_passwords_are_logged(
    opening: Opening, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shop = await opening(access_log=True)
    await sign_up(shop)
    await log_in(shop)
    await log_in(shop, password="wrong password")
    await shop.request("POST", FORGOT, json={"email": ADA["email"]})
    said = "".join(capfd.readouterr()) + caplog.text
    assert not [word for word in ("ada@", "ada%40", "battery", "wrong password") if word in said]
