"""What can be asked of the ledger: each operation with the key that makes its repeats harmless."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

HOLD, CAPTURE, RELEASE, EXPIRE = "hold", "capture", "release", "expire"
TOP_UP: Final = "top_up"
ADJUST: Final = "adjust"
GrantKind = Literal["top_up", "adjust"]


class WalletId(NamedTuple):
    """A wallet is named by its customer and the mode, "live" or "test"."""

    customer_id: str
    mode: str


class Quote(NamedTuple):
    """What a hold costs, by which price list."""

    amount_millis: int
    price_version: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Reserve a job's price. `quote` is None where the price list has no such SKU."""

    wallet: WalletId
    job_id: str
    storefront: str
    sku: str
    quantity: int
    quote: Quote | None
    ttl_ms: int
    # The key that asks, if it has a spend limit of its own.
    key_id: str = ""

    @property
    def key(self) -> str:
        return f"hold:{self.job_id}"

    def parameters(self) -> tuple[object, ...]:
        # Neither price nor lifetime nor key: a repeat after a new price list, or by another road, is still the same.
        return (HOLD, self.storefront, self.sku, self.quantity)


@dataclass(frozen=True, slots=True)
class Capture:
    """Charge a job's hold, or part of it; the rest is given back."""

    wallet: WalletId
    job_id: str
    amount_millis: int

    @property
    def key(self) -> str:
        return f"capture:{self.job_id}"

    def parameters(self) -> tuple[object, ...]:
        return (CAPTURE, self.amount_millis)


@dataclass(frozen=True, slots=True)
class Release:
    """Give a job's hold back, or leave a tombstone where there is none."""

    wallet: WalletId
    job_id: str

    @property
    def key(self) -> str:
        return f"release:{self.job_id}"

    def parameters(self) -> tuple[object, ...]:
        return (RELEASE,)


@dataclass(frozen=True, slots=True)
class Expire:
    """Close a job's hold if its time is over; otherwise nothing."""

    wallet: WalletId
    job_id: str

    @property
    def key(self) -> str:
        return f"expire:{self.job_id}"

    def parameters(self) -> tuple[object, ...]:
        return (EXPIRE,)


@dataclass(frozen=True, slots=True)
class Grant:
    """A top-up (positive amount) or an adjustment (signed amount), under the caller's idempotency key."""

    wallet: WalletId
    kind: GrantKind
    amount_millis: int
    idempotency_key: str
    note: str

    @property
    def key(self) -> str:
        # The wallet is part of it so that a look-up by key never meets other customers' rows.
        return f"request:{self.wallet.customer_id}:{self.wallet.mode}:{self.idempotency_key}"

    def parameters(self) -> tuple[object, ...]:
        return (self.kind, self.amount_millis, self.note)


Operation = Hold | Capture | Release | Expire | Grant


def fingerprint(operation: Operation) -> str:
    """What tells a repeat from another request under the same key."""
    return _digest(operation.parameters())


# Operations of one kind mostly differ in their job alone, which is no parameter.
@lru_cache(maxsize=4096)
def _digest(parameters: tuple[object, ...]) -> str:
    return blake2b(repr(parameters).encode(), digest_size=16).hexdigest()
