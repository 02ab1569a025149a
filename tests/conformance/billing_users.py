"""User accounts over a real database, with a mailbox, a hand-held clock and a hasher that counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from argon2.exceptions import VerifyMismatchError

from services.billing.access_tokens import AccessTokens
from services.billing.authentication import Authenticator, Secrets
from services.billing.mail import Mail
from services.billing.passwords import Passwords
from services.billing.prices import Limits, Price, Storefront, Storefronts
from services.billing.resets import Resets
from services.billing.user_accounts import UserAccounts
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.gen.billing.v1 import billing_pb2 as pb
from tests.conformance.billing_house import Books

SHOP = Storefront(
    "shop",
    "The Shop",
    "1+cafe",
    "s_live_",
    "s_test_",
    Limits(1, 2, 3),
    500,
    {"a": Price("a", "A", "a", 5)},
    welcome_millis=25_000,
)
OTHER = replace(SHOP, name="other", live_prefix="o_live_", test_prefix="o_test_", welcome_millis=0)
PASSWORD = "correct horse"
PEPPER = Secret("p" * 32)


@dataclass
class CountingHasher:
    """Costs nothing and says how often it was asked. `edition` stands for Argon2's parameters."""

    edition: int = 1
    hashed: int = 0
    compared: list[str] = field(default_factory=list)

    def hash(self, password: str) -> str:
        self.hashed += 1
        return f"{self.edition}:{password}"

    def verify(self, stored: str, password: str, /) -> bool:
        self.compared.append(stored)
        if stored.partition(":")[2] != password:
            raise VerifyMismatchError
        return True

    def check_needs_rehash(self, stored: str, /) -> bool:
        return not stored.startswith(f"{self.edition}:")


@dataclass
class Mailbox:
    """Where mails arrive, after as many failures as it is told."""

    mails: list[Mail] = field(default_factory=list)
    failures: int = 0

    async def send(self, mail: Mail) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError
        self.mails.append(mail)

    def token(self) -> str:
        found = re.search(r"^([A-Za-z0-9_-]{43})$", self.mails[-1].text, re.MULTILINE)
        assert found
        return found[1]


@dataclass
class Desk:
    """Everything a user meets."""

    books: Books
    accounts: UserAccounts
    authenticator: Authenticator
    hasher: CountingHasher
    mailbox: Mailbox
    tokens: AccessTokens
    waiting: Resets

    @property
    def database(self) -> Database:
        return self.books.database

    async def sign_up(self, email: str, password: str = PASSWORD, storefront: str = "shop") -> pb.User:
        request = pb.SignUpRequest(
            storefront=storefront, email=email, password=password, full_name="Ann Example"
        )
        user = await self.accounts.sign_up(request)
        return pb.User(user_id=user.user_id, customer_id=user.customer_id, email=user.email)

    async def log_in(self, email: str, password: str = PASSWORD, storefront: str = "shop") -> str:
        request = pb.LogInRequest(storefront=storefront, email=email, password=password)
        token, _, _ = await self.accounts.log_in(request)
        return token

    async def log_in_refused(self, email: str, password: str = PASSWORD, storefront: str = "shop") -> str:
        try:
            await self.log_in(email, password, storefront)
        except ServiceError as refusal:
            return refusal.reason
        raise AssertionError("it was not refused")

    async def refused(self, token: str) -> bool:
        try:
            await self.authenticator.owner(token)
        except ServiceError as refusal:
            return refusal.reason == "INVALID_API_KEY"
        return False

    async def ask_reset(self, email: str, storefront: str = "shop") -> None:
        """Ask, and wait until nobody has anything left to carry."""
        self.accounts.request_reset(pb.RequestPasswordResetRequest(storefront=storefront, email=email))
        async with asyncio.timeout(30):
            await self.waiting.settled()

    async def reset(self, token: str, password: str, storefront: str = "shop") -> None:
        await self.accounts.reset(
            pb.ResetPasswordRequest(storefront=storefront, token=token, password=password)
        )


@asynccontextmanager
async def opened_desk(books: Books) -> AsyncIterator[Desk]:
    storefronts = Storefronts([SHOP, OTHER])
    hasher, mailbox = CountingHasher(), Mailbox()
    tokens = AccessTokens([Secret("t" * 32)], lifetime_s=3_600)
    hashed = Passwords(hasher)
    authenticator = Authenticator(
        books.database, storefronts.key_prefixes(), Secrets([PEPPER], tokens), books.clock
    )
    async with Resets(books.database, storefronts, mailbox, books.clock) as resets:
        accounts = UserAccounts(books.database, storefronts, hashed, tokens, resets, books.clock)
        hasher.hashed = 0
        yield Desk(books, accounts, authenticator, hasher, mailbox, tokens, resets)
    hashed.close()
