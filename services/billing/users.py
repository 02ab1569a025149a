"""Users: people who sign in with a password, each with a customer of their own."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final

from services.billing import customers
from services.billing.customers import NewCustomer
from services.billing.emails import Email
from services.billing.operations import TOP_UP, Grant, WalletId
from services.billing.prices import Limits, Storefront

# Numbers up to here are the same in every JSON reader.
_LARGEST_ID: Final = 2**53 - 1
# A mail is read within the hour, or asked for again.
RESET_LIFETIME_MS: Final = 3_600_000
# 256 bits in 43 characters: no guess, hence no slow hash.
_RESET_BYTES: Final = 32
# Longer texts are no token of ours.
MAX_RESET_CHARACTERS: Final = 128
# Of one user at once; the oldest gives way. Whoever asks more often has lost none of them.
MAX_RESETS: Final = 5

# What a customer's name may have; an address may be longer.
NAME_CHARACTERS: Final = 200

# The first entry of a live wallet that was opened with a welcome.
WELCOME_KEY: Final = "welcome"


@dataclass(frozen=True, slots=True)
class User:
    """A user as they may be shown."""

    user_id: int
    storefront: str
    email: str
    full_name: str
    customer_id: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Login:
    """What proves a user: the hash of the password, and the version that tokens must have."""

    user: User
    password_hash: str = field(repr=False)
    token_version: int
    customer_active: bool


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """What an access token gives its bearer: the live wallet of the user's customer."""

    login: Login
    limits: Limits


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made, with the customer and, where the storefront gives one, a welcome."""

    user: User
    address: str
    password_hash: str = field(repr=False)
    customer: NewCustomer
    welcome: Grant | None


def signed_up(
    storefront: Storefront, email: Email, full_name: str, password_hash: str, now_ms: int
) -> NewUser:
    """A new user of a storefront, and the customer that goes with it."""
    name = (full_name or email.written)[:NAME_CHARACTERS]
    customer = customers.opened(storefront, name, None, "", 0, now_ms)
    customer_id = customer.customer.customer_id
    welcome = Grant(
        wallet=WalletId(customer_id, "live"),
        kind=TOP_UP,
        amount_millis=storefront.welcome_millis,
        idempotency_key=WELCOME_KEY,
        note="Welcome",
    )
    return NewUser(
        user=User(
            user_id=1 + secrets.randbelow(_LARGEST_ID),
            storefront=storefront.name,
            email=email.written,
            full_name=full_name,
            customer_id=customer_id,
            created_at_ms=now_ms,
        ),
        address=email.address,
        password_hash=password_hash,
        customer=customer,
        welcome=welcome if storefront.welcome_millis else None,
    )


def new_reset_token() -> str:
    """What is mailed; only its digest is kept."""
    return secrets.token_urlsafe(_RESET_BYTES)


def reset_digest(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
