"""Customers: who they are, what they may do, and when a repeated creation is the same creation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

from services.billing.operations import TOP_UP, Grant, WalletId
from services.billing.prices import Limits, Storefront
from services.billing.spending import UNLIMITED, SpendLimits
from services.chassis.ids import new_id

ACTIVE, SUSPENDED = "active", "suspended"
MODES = ("live", "test")

# The first entry of every test wallet is made under this key.
PLAY_CREDIT_KEY = "play-credit"


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer of one storefront."""

    customer_id: str
    storefront: str
    name: str
    state: str
    limits: Limits
    created_at_ms: int
    # Of each of its wallets.
    spend_limits: SpendLimits = UNLIMITED

    @property
    def wallets(self) -> tuple[WalletId, ...]:
        """Every customer has one wallet a mode, from the first moment on."""
        return tuple(WalletId(self.customer_id, mode) for mode in MODES)


@dataclass(frozen=True, slots=True)
class NewCustomer:
    """A customer to be made, unless `idempotency_key` (None: no key) shows that it was made before."""

    customer: Customer
    idempotency_key: str | None
    fingerprint: str
    play_credit: Grant


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to change of a customer; None leaves a field as it is."""

    name: str | None = None
    state: str | None = None
    limits: Limits | None = None
    spend_limits: SpendLimits | None = None

    def of(self, customer: Customer) -> Customer:
        """`customer` with the changes made."""
        return replace(
            customer,
            name=customer.name if self.name is None else self.name,
            state=customer.state if self.state is None else self.state,
            limits=customer.limits if self.limits is None else self.limits,
            spend_limits=customer.spend_limits if self.spend_limits is None else self.spend_limits,
        )


def opened(
    storefront: Storefront,
    name: str,
    limits: Limits | None,
    idempotency_key: str,
    play_credit_millis: int,
    now_ms: int,
    spend_limits: SpendLimits = UNLIMITED,
) -> NewCustomer:
    """A new customer with what the storefront gives where nothing else was asked (limits None or 0, play credit 0)."""
    asked: tuple[object, ...] = (storefront.name, name, limits, play_credit_millis)
    if spend_limits.are_set:
        # Only then: a creation from before there were any must still find itself.
        asked = (*asked, spend_limits)
    filled = _filled(limits, storefront.limits)
    customer = Customer(new_id("cus"), storefront.name, name, ACTIVE, filled, now_ms, spend_limits)
    return NewCustomer(
        customer=customer,
        idempotency_key=idempotency_key or None,
        fingerprint=blake2b(repr(asked).encode(), digest_size=16).hexdigest(),
        play_credit=Grant(
            wallet=WalletId(customer.customer_id, "test"),
            kind=TOP_UP,
            amount_millis=play_credit_millis or storefront.play_credit_millis,
            idempotency_key=PLAY_CREDIT_KEY,
            note="Play credit",
        ),
    )


def _filled(asked: Limits | None, given: Limits) -> Limits:
    if asked is None:
        return given
    return Limits(
        asked.requests_per_minute or given.requests_per_minute,
        asked.running_jobs or given.running_jobs,
        asked.queued_jobs or given.queued_jobs,
    )
