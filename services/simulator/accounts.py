"""The providers' customers: what a key may, what it has left, and what was ever asked of it at once."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

Overflow = Literal["queue", "refuse"]


class AccountRefused(ValueError):
    """An account that cannot be meant."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What an account of a provider is unless it is told otherwise. Latency is how long a task takes, in seconds."""

    balance: Decimal | None = Decimal(100)
    concurrency: int = 10
    latency_s: Mapping[str, float] = field(default_factory=dict)
    overflow: Overflow = "queue"
    plan: str = "standard"


@dataclass(slots=True)
class Account:
    """One key at one provider. `balance` is in the provider's unit; None is without end."""

    provider: str
    key: str
    label: str
    balance: Decimal | None
    concurrency: int
    overflow: Overflow
    plan: str
    latencies_s: dict[str, float]
    latency_s: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    charged: Decimal = Decimal(0)
    least_balance: Decimal | None = None
    running: int = 0
    waiting: int = 0
    most_running: int = 0
    most_unfinished: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def user_id(self) -> str:
        """A lasting UUID of whoever owns the key."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.provider}/{self.key}"))

    def affords(self, cost: Decimal) -> bool:
        return self.balance is None or self.balance >= cost

    def is_spent(self) -> bool:
        return self.balance is not None and self.balance <= 0

    def charge(self, amount: Decimal) -> None:
        """Takes `amount`; a negative one gives back."""
        self.charged += amount
        if self.balance is not None:
            self.balance -= amount
            self.least_balance = min(self.balance, self.least_balance or self.balance)

    def took_one(self) -> None:
        """Notes how much is under way, once more is."""
        self.most_running = max(self.most_running, self.running)
        self.most_unfinished = max(self.most_unfinished, self.running + self.waiting)

    def latency_of(self, kind: str) -> float:
        """How long a task of this kind takes, in seconds, at the pace of the real provider."""
        return self.latency_s if self.latency_s is not None else self.latencies_s.get(kind, _LATENCY_S)

    def as_json(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "key": self.key,
            "label": self.label,
            "balance": _number(self.balance),
            "concurrency": self.concurrency,
            "overflow": self.overflow,
            "plan": self.plan,
            "latency_s": self.latency_s,
            "options": self.options,
            "charged": _number(self.charged),
            "least_balance": _number(self.least_balance),
            "running": self.running,
            "waiting": self.waiting,
            "most_running": self.most_running,
            "most_unfinished": self.most_unfinished,
            "refusals": dict(self.refusals),
        }


# Where neither the account nor its provider says how long a kind takes.
_LATENCY_S: Final = 5.0
_FIELDS: Final = {
    "provider",
    "key",
    "label",
    "balance",
    "concurrency",
    "overflow",
    "plan",
    "latency_s",
    "options",
    "faults",
}


class Accounts:
    """Every account, by provider and key."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}

    def add(self, wish: Mapping[str, Any], usual: Usual) -> Account:
        """Adds one, or makes one anew that is there; what it has under way goes on. Raises AccountRefused."""
        key = wish.get("key")
        if not isinstance(key, str) or not key:
            raise AccountRefused("an account needs a key")
        account = Account(
            provider=str(wish["provider"]),
            key=key,
            label=str(wish.get("label") or key),
            balance=usual.balance,
            concurrency=usual.concurrency,
            overflow=usual.overflow,
            plan=usual.plan,
            latencies_s=dict(usual.latency_s),
        )
        self.change(account, wish)
        known = self._accounts.setdefault((account.provider, key), account)
        if known is not account:
            account.running = account.most_running = known.running
            account.waiting = known.waiting
            account.most_unfinished = known.running + known.waiting
            for name in Account.__slots__:
                setattr(known, name, getattr(account, name))
        return known

    def change(self, account: Account, wish: Mapping[str, Any]) -> None:
        """Sets what `wish` names. Raises AccountRefused, and then changes nothing."""
        if unknown := set(wish) - _FIELDS:
            raise AccountRefused(f"an account has no field {', '.join(sorted(unknown))}")
        try:
            changes = {name: read(wish[name]) for name, read in _READERS.items() if name in wish}
        except (TypeError, ValueError, InvalidOperation) as error:
            raise AccountRefused(str(error)) from error
        for name, value in changes.items():
            setattr(account, name, value)
        if "balance" in changes:
            account.least_balance = account.balance

    def find(self, provider: str, key: str) -> Account | None:
        return self._accounts.get((provider, key))

    def remove(self, provider: str, key: str) -> None:
        self._accounts.pop((provider, key), None)

    def all(self) -> list[Account]:
        return list(self._accounts.values())

    def clear(self) -> None:
        self._accounts.clear()


def _money(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _overflow(value: Any) -> Overflow:
    if value == "queue":
        return "queue"
    if value == "refuse":
        return "refuse"
    raise ValueError("overflow is queue or refuse")


def _optional_seconds(value: Any) -> float | None:
    return None if value is None else float(value)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "label": str,
    "balance": _money,
    "concurrency": int,
    "overflow": _overflow,
    "plan": str,
    "latency_s": _optional_seconds,
    "options": dict,
}
