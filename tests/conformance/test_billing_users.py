"""Users: one account an address, one wallet each, one way in, and nothing to be learnt from a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from services.billing import keys, users
from services.billing.keys import KeyOwner
from services.billing.operations import WalletId
from services.billing.schema import CUSTOMERS, JOURNAL, PASSWORD_RESETS, USERS
from services.billing.store import keys as key_rows
from services.billing.store import ledger
from services.billing.users import TokenOwner
from services.chassis.errors import ServiceError
from services.gen.billing.v1 import billing_pb2 as pb
from tests.conformance.billing_house import Books
from tests.conformance.billing_users import PASSWORD, PEPPER, Desk, opened_desk
from tests.unit.billing_keys import key

HOUR_MS = 3_600_000


@pytest.fixture
async def desk(books: Books) -> AsyncIterator[Desk]:
    async with opened_desk(books) as opened:
        yield opened


async def test_signing_up_makes_a_customer_with_both_wallets_and_a_welcome(desk: Desk) -> None:
    user = await desk.sign_up("Ann@Example.COM")
    assert user.email == "Ann@example.com"
    assert 0 < user.user_id < 2**53
    assert await desk.books.money(WalletId(user.customer_id, "live")) == (25_000, 0)
    assert await desk.books.money(WalletId(user.customer_id, "test")) == (500, 0)
    stored = await desk.accounts.find(pb.GetUserRequest(customer_id=user.customer_id))
    assert (stored.user_id, stored.full_name) == (user.user_id, "Ann Example")
    assert stored == await desk.accounts.find(pb.GetUserRequest(user_id=user.user_id))


async def test_where_there_is_no_welcome_the_live_wallet_is_empty(desk: Desk) -> None:
    user = await desk.sign_up("ann@example.com", storefront="other")
    assert await desk.books.money(WalletId(user.customer_id, "live")) == (0, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ann@example.com", "ann@example.com"),
        ("ann@example.com", " ANN@EXAMPLE.com "),
        ("straße@example.com", "STRASSE@example.com"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
        ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
        ("\u212aim@example.com", "kim@example.com"),
    ],
)
async def test_an_address_is_taken_however_it_is_typed(desk: Desk, first: str, second: str) -> None:
    await desk.sign_up(first)
    before = await desk.books.count("customers")
    with pytest.raises(ServiceError, match="SIGN_UP_REFUSED"):
        await desk.sign_up(second, "another password")
    assert await desk.books.count("customers") == before
    await desk.log_in(second)
    assert await desk.log_in_refused(second, "another password") == "INVALID_LOGIN"


async def test_one_address_may_have_an_account_in_each_storefront(desk: Desk) -> None:
    one, other = (
        await desk.sign_up("ann@example.com"),
        await desk.sign_up("ann@example.com", storefront="other"),
    )
    assert one.customer_id != other.customer_id


async def test_of_many_who_sign_up_one_address_at_once_one_gets_it_whole(desk: Desk) -> None:
    before = await desk.books.count("customers")
    answers = await asyncio.gather(
        *(desk.sign_up("ann@example.com", f"password {n}") for n in range(20)), return_exceptions=True
    )
    made = [answer for answer in answers if isinstance(answer, pb.User)]
    reasons = {answer.reason for answer in answers if isinstance(answer, ServiceError)}
    assert (len(made), reasons) == (1, {"SIGN_UP_REFUSED"})
    assert await desk.books.count("customers") == before + 1
    assert await desk.books.findings() == set()


async def test_a_sign_up_that_breaks_off_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {table: await desk.books.count(table) for table in ("customers", "wallets", "users", "journal")}

    def broken(*_: object) -> None:
        raise RuntimeError("the last statement of all")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "commit", _after(2, broken, ledger.commit))
        with pytest.raises(RuntimeError):
            await desk.sign_up("ann@example.com")
    assert {table: await desk.books.count(table) for table in before} == before
    await desk.sign_up("ann@example.com")


def _after(turn: int, broken: object, real: object) -> object:
    """`real` until the given turn, which is `broken`."""
    turns = iter(range(1, turn + 1))

    def call(*args: object) -> object:
        return (broken if next(turns) == turn else real)(*args)  # type: ignore[operator]  # both are functions

    return call


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("email", {"email": "nobody"}),
        ("email", {"email": "a@b"}),
        ("email", {"email": "a b@example.com"}),
        ("email", {"email": "a@example.com\nBcc: b@example.com"}),
        ("email", {"email": "a" * 1_000_000 + "@example.com"}),
        ("password", {"password": "7 chars"}),
        ("password", {"password": "x" * 129}),
        ("password", {"password": "x" * 1_000_000}),
        ("full_name", {"full_name": "two\nlines"}),
        ("full_name", {"full_name": "x" * 201}),
    ],
)
async def test_a_sign_up_that_cannot_be_names_the_field_and_costs_no_hash(
    desk: Desk, field: str, changes: dict[str, str]
) -> None:
    fields = {"storefront": "shop", "email": "ann@example.com", "password": PASSWORD} | changes
    with pytest.raises(ServiceError, match="INVALID_REQUEST") as refusal:
        await desk.accounts.sign_up(pb.SignUpRequest(**fields))
    assert refusal.value.metadata == {"field": field}
    assert desk.hasher.hashed == 0


async def test_a_login_costs_one_comparison_whoever_asks(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    desk.hasher.hashed = 0
    await desk.log_in("ann@example.com")
    assert await desk.log_in_refused("ann@example.com", "not her password") == "INVALID_LOGIN"
    assert await desk.log_in_refused("nobody@example.com") == "INVALID_LOGIN"
    assert await desk.log_in_refused("ann@example.com", storefront="other") == "INVALID_LOGIN"
    assert (len(desk.hasher.compared), desk.hasher.hashed) == (4, 0)


async def test_the_password_that_is_compared_for_nobody_lets_nobody_in(desk: Desk) -> None:
    assert await desk.log_in_refused("nobody@example.com", "\0" * 128) == "INVALID_LOGIN"


@pytest.mark.parametrize(
    ("email", "password"), [("ann@example.com", "x" * 1_000_000), ("@", PASSWORD), ("", "")]
)
async def test_what_nobody_can_have_signed_up_with_is_refused_without_a_hash(
    desk: Desk, email: str, password: str
) -> None:
    await desk.sign_up("ann@example.com")
    desk.hasher.compared.clear()
    assert await desk.log_in_refused(email, password) == "INVALID_LOGIN"
    assert desk.hasher.compared == []


async def test_a_password_is_the_same_however_the_keyboard_writes_it(desk: Desk) -> None:
    await desk.sign_up("ann@example.com", "ancien re\u0301gime")
    await desk.log_in("ann@example.com", "ancien r\u00e9gime")


@pytest.mark.parametrize(("letter", "spelled"), [("\u00e9", "e\u0301"), ("\u01d6", "u\u0308\u0304")])
async def test_a_password_has_the_same_length_however_the_keyboard_writes_it(
    desk: Desk, letter: str, spelled: str
) -> None:
    with pytest.raises(ServiceError, match="INVALID_REQUEST"):
        await desk.sign_up("ann@example.com", spelled * 7)
    await desk.sign_up("ann@example.com", spelled * 128)
    await desk.log_in("ann@example.com", letter * 128)


async def test_a_login_renews_a_hash_of_older_parameters(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    desk.hasher.edition = 2
    await desk.log_in("ann@example.com")
    stored = await desk.database.read(lambda c: c.execute(select(USERS.c.password_hash)).scalar_one())
    assert stored == f"2:{PASSWORD}"


async def test_a_token_opens_the_live_wallet_of_its_user_until_it_ends(desk: Desk) -> None:
    user = await desk.sign_up("ann@example.com")
    token = await desk.log_in("ann@example.com")
    owner = await desk.authenticator.owner(token)
    assert isinstance(owner, TokenOwner)
    assert owner.login.user.customer_id == user.customer_id
    assert owner.limits.queued_jobs == 3
    desk.books.clock.at_ms += 3_600_000
    assert await desk.refused(token)


async def test_a_suspended_customer_neither_signs_in_nor_uses_a_token(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    token = await desk.log_in("ann@example.com")
    await desk.books.execute(CUSTOMERS.update().values(state="suspended"))
    assert await desk.log_in_refused("ann@example.com") == "INVALID_LOGIN"
    assert await desk.refused(token)
    await desk.ask_reset("ann@example.com")
    assert desk.mailbox.mails == []


async def test_a_token_of_one_storefront_is_no_token_of_another(desk: Desk) -> None:
    user = await desk.sign_up("ann@example.com")
    token, _ = desk.tokens.issue(user.user_id, "other", 1, desk.books.clock.now_ms())
    assert await desk.refused(token)


async def test_a_token_of_a_user_who_is_not_there_is_refused(desk: Desk) -> None:
    token, _ = desk.tokens.issue(4711, "shop", 1, desk.books.clock.now_ms())
    assert await desk.refused(token)


async def test_a_new_password_ends_the_old_one_and_every_token_and_reset(desk: Desk) -> None:
    await desk.sign_up("Ann@example.com")
    old = await desk.log_in("ann@example.com")
    await desk.ask_reset("ann@example.com")
    first = desk.mailbox.token()
    await desk.ask_reset("ann@example.com")
    second = desk.mailbox.token()
    assert (desk.mailbox.mails[0].to, first != second) == ("Ann@example.com", True)
    await desk.reset(first, "a new password")
    assert await desk.refused(old)
    assert await desk.log_in_refused("ann@example.com") == "INVALID_LOGIN"
    assert not await desk.refused(await desk.log_in("ann@example.com", "a new password"))
    for used in (first, second):
        with pytest.raises(ServiceError, match="INVALID_RESET_TOKEN"):
            await desk.reset(used, "another password")
    assert await desk.books.count("password_resets") == 0


async def test_of_two_who_use_one_token_at_once_one_sets_the_password(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    await desk.ask_reset("ann@example.com")
    token = desk.mailbox.token()
    answers = await asyncio.gather(
        *(desk.reset(token, f"password {n}") for n in range(5)), return_exceptions=True
    )
    refusals = [answer for answer in answers if isinstance(answer, ServiceError)]
    assert [one.reason for one in refusals] == ["INVALID_RESET_TOKEN"] * 4


@pytest.mark.parametrize("token", ["", "x" * 43, "x" * 1_000_000, "\u2028", "' OR 1=1 --"])
async def test_a_made_up_token_costs_no_hash(desk: Desk, token: str) -> None:
    with pytest.raises(ServiceError, match="INVALID_RESET_TOKEN"):
        await desk.reset(token, PASSWORD)
    assert desk.hasher.hashed == 0


async def test_a_reset_is_over_after_an_hour_and_is_good_in_its_storefront_alone(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    await desk.ask_reset("ann@example.com")
    token = desk.mailbox.token()
    with pytest.raises(ServiceError, match="INVALID_RESET_TOKEN"):
        await desk.reset(token, PASSWORD, storefront="other")
    desk.books.clock.at_ms += HOUR_MS
    with pytest.raises(ServiceError, match="INVALID_RESET_TOKEN"):
        await desk.reset(token, PASSWORD)


async def test_nobody_is_mailed_where_nobody_is_known(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    await desk.ask_reset("nobody@example.com")
    await desk.ask_reset("ann@example.com", storefront="other")
    assert desk.mailbox.mails == []


async def test_asking_often_leaves_the_newest_tokens(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    for _ in range(users.MAX_RESETS + 3):
        desk.books.clock.at_ms += 1
        await desk.ask_reset("ann@example.com")
    assert await desk.books.count("password_resets") == users.MAX_RESETS
    await desk.reset(desk.mailbox.token(), "a new password")


async def test_no_secret_is_stored(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    await desk.ask_reset("ann@example.com")
    token = desk.mailbox.token()

    def everything(connection: Connection) -> str:
        tables = (USERS, PASSWORD_RESETS, CUSTOMERS, JOURNAL)
        return repr([connection.execute(select(table)).all() for table in tables])

    assert token not in await desk.database.read(everything)
    assert token not in repr(desk.mailbox.mails)


async def test_a_mail_server_that_comes_back_gets_the_mail(desk: Desk) -> None:
    await desk.sign_up("ann@example.com")
    desk.mailbox.failures = 2
    await desk.ask_reset("ann@example.com")
    await desk.reset(desk.mailbox.token(), "a new password")


async def test_an_api_key_says_whose_user_it_is(desk: Desk) -> None:

    user = await desk.sign_up("ann@example.com")
    made = keys.make("s_live_")

    row = replace(key("key_1"), customer_id=user.customer_id)
    await desk.database.write(lambda c: key_rows.add(c, row, keys.digest(made, PEPPER)))
    owner = await desk.authenticator.owner(made)
    assert isinstance(owner, KeyOwner)
    assert owner.user_id == user.user_id
