"""What the ledger promises, written down a second time and as slowly as possible: nothing but a list of what has
happened, counted anew for every answer. It shares no rule with the ledger, so that a mistake would have to be made
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from services.billing.ledger import Receipt, Result
from services.billing.operations import Capture, Expire, Grant, Hold, Operation, Release, WalletId

# A trillion credits.
LARGEST_BALANCE_MILLIS = 1_000_000_000_000_000


class Yes(NamedTuple):
    """What was done, and how the wallet stood right after it."""

    amount_millis: int = 0
    released_millis: int = 0
    outcome: str = ""
    price_version: str = ""
    balance_millis: int = 0
    reserved_millis: int = 0
    replayed: bool = False


class No(NamedTuple):
    """Why nothing was done, with the numbers of the message."""

    reason: str
    numbers: tuple[tuple[str, str], ...] = ()


Reply = Yes | No


@dataclass
class Job:
    """What became of the one hold that a job can have."""

    owner: WalletId
    held_millis: int
    expires_at_ms: int
    made_at_ms: int = 0
    line: str = ""
    charged_millis: int = 0
    end: Literal["", "captured", "released", "expired"] = ""


@dataclass
class Oracle:
    """Knows every answer. `active` says of each wallet's customer whether he may spend."""

    active: dict[WalletId, bool]
    storefront: str = "shop"
    # What came (positive) and went (negative), in its order.
    movements: list[tuple[WalletId, int]] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    unbilled: dict[str, int] = field(default_factory=dict)
    # By wallet and key: what was asked, and what was answered the first time.
    remembered: dict[tuple[WalletId, str], tuple[object, Reply]] = field(default_factory=dict)

    # What may be spent in a day and in a month, 0 for any amount, of wallets and of lines of keys; and whose line and
    # whose key each key is.
    limits: dict[WalletId, tuple[int, int]] = field(default_factory=dict)
    lines: dict[str, tuple[WalletId, str, tuple[int, int]]] = field(default_factory=dict)

    def spent_millis(self, wallet: WalletId, line: str, period: str) -> int:
        """What everything begun in a day ("1970-01-01") or month ("1970-01") has cost or may yet cost."""
        costs = 0
        for job in self.jobs.values():
            day = datetime.fromtimestamp(job.made_at_ms / 1000, UTC).strftime("%Y-%m-%d")
            if job.owner == wallet and line in ("", job.line) and day.startswith(period):
                costs += job.held_millis if not job.end else job.charged_millis
        return costs

    def balance_millis(self, wallet: WalletId) -> int:
        return sum(amount for owner, amount in self.movements if owner == wallet)

    def reserved_millis(self, wallet: WalletId) -> int:
        return sum(job.held_millis for job in self.jobs.values() if job.owner == wallet and not job.end)

    def entries(self, wallet: WalletId) -> int:
        """How many rows the wallet's journal must have: every answer that is remembered is one."""
        return sum(owner == wallet for owner, _ in self.remembered)

    def due(self, now_ms: int) -> set[str]:
        """The jobs whose hold must be closed by the next sweep."""
        return {name for name, job in self.jobs.items() if not job.end and job.expires_at_ms <= now_ms}

    def extend(self, job_ids: Sequence[str], until_ms: int) -> list[str]:
        """Let open holds live longer; the jobs that have none are returned."""
        closed = []
        for name in dict.fromkeys(job_ids):
            job = self.jobs.get(name)
            if job is None or job.end:
                closed.append(name)
            else:
                job.expires_at_ms = max(job.expires_at_ms, until_ms)
        return closed

    def ask(self, operation: Operation, now_ms: int) -> Reply:
        """The one right answer, after which the oracle remembers what was done."""
        wallet = operation.wallet
        if wallet not in self.active:
            return No("CUSTOMER_NOT_FOUND", (("customer_id", wallet.customer_id),))
        asked = _asked(operation)
        before = self.remembered.get((wallet, _key(operation)))
        if before is not None:
            if before[0] != asked:
                return No("IDEMPOTENCY_KEY_CONFLICT")
            return before[1]._replace(replayed=True) if isinstance(before[1], Yes) else before[1]
        kept, reply = self._decide(operation, now_ms)
        if isinstance(reply, Yes):
            reply = reply._replace(
                balance_millis=self.balance_millis(wallet), reserved_millis=self.reserved_millis(wallet)
            )
        if kept:
            self.remembered[wallet, _key(operation)] = (asked, reply)
        return reply

    def _free_millis(self, wallet: WalletId) -> int:
        return self.balance_millis(wallet) - self.reserved_millis(wallet)

    def _decide(self, operation: Operation, now_ms: int) -> tuple[bool, Reply]:
        """Whether the answer is remembered, and the answer."""
        match operation:
            case Grant():
                return self._grant(operation)
            case Hold():
                return self._hold(operation, now_ms)
            case Capture():
                return self._capture(operation)
            case Release():
                return self._release(operation)
            case Expire():
                return self._expire(operation, now_ms)

    def _grant(self, grant: Grant) -> tuple[bool, Reply]:
        free_millis = self._free_millis(grant.wallet)
        if free_millis + grant.amount_millis < 0:
            return True, No("BALANCE_TOO_LOW", _short(-grant.amount_millis, free_millis))
        if grant.amount_millis > 0:
            room_millis = LARGEST_BALANCE_MILLIS - self.balance_millis(grant.wallet)
            if grant.amount_millis > room_millis:
                return False, No("INVALID_REQUEST", (("field", "amount_millis"),))
        self.movements.append((grant.wallet, grant.amount_millis))
        return True, Yes(abs(grant.amount_millis))

    def _hold(self, hold: Hold, now_ms: int) -> tuple[bool, Reply]:
        job = self.jobs.get(hold.job_id)
        if job is not None:
            if job.owner == hold.wallet and job.end == "released":
                return False, No("HOLD_RELEASED", (("job_id", hold.job_id),))
            return False, No("IDEMPOTENCY_KEY_CONFLICT")
        if hold.storefront != self.storefront:
            return False, No("INVALID_REQUEST", (("field", "storefront"),))
        if hold.quote is None:
            return False, No("UNKNOWN_SKU", (("storefront", hold.storefront), ("sku", hold.sku)))
        if hold.key_id in self.lines and self.lines[hold.key_id][0] != hold.wallet:
            return False, No("INVALID_REQUEST", (("field", "key_id"),))
        if not self.active[hold.wallet]:
            return True, No("CUSTOMER_INACTIVE", (("customer_id", hold.wallet.customer_id),))
        price_millis, version = hold.quote
        free_millis = self._free_millis(hold.wallet)
        if price_millis > free_millis:
            return True, No("INSUFFICIENT_CREDITS", _short(price_millis, free_millis))
        limit = self._limit_reached(hold.wallet, hold.key_id, price_millis, now_ms)
        if limit is not None:
            return True, limit
        line = self.lines[hold.key_id][1] if hold.key_id in self.lines else ""
        self.jobs[hold.job_id] = Job(hold.wallet, price_millis, now_ms + hold.ttl_ms, now_ms, line)
        return True, Yes(price_millis, price_version=version)

    def _limit_reached(self, wallet: WalletId, key_id: str, price_millis: int, now_ms: int) -> No | None:
        today = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d")
        asked = [("", *self.limits.get(wallet, (0, 0)))]
        if key_id in self.lines:
            _, line, limits = self.lines[key_id]
            asked.append((line, *limits))
        for line, *both in asked:
            for word, period, limit_millis in zip(("day", "month"), (today, today[:7]), both, strict=True):
                spent_millis = self.spent_millis(wallet, line, period)
                if limit_millis and price_millis and spent_millis + price_millis > limit_millis:
                    numbers = (("limit_millis", str(limit_millis)), ("spent_millis", str(spent_millis)))
                    left = _short(price_millis, max(0, limit_millis - spent_millis))
                    return No("SPEND_LIMIT_REACHED", (("period", word), *numbers, *left))
        return None

    def _capture(self, capture: Capture) -> tuple[bool, Reply]:
        job, named = self.jobs.get(capture.job_id), (("job_id", capture.job_id),)
        if job is None or job.owner != capture.wallet:
            return False, No("HOLD_NOT_FOUND", named)
        if job.end in {"released", "captured"}:
            return False, No(f"HOLD_{job.end.upper()}", named)
        amount_millis = capture.amount_millis
        if amount_millis > job.held_millis:
            numbers = (("amount_millis", str(amount_millis)), ("held_millis", str(job.held_millis)))
            return False, No("AMOUNT_EXCEEDS_HOLD", numbers)
        expired = job.end == "expired"
        if expired and amount_millis > self._free_millis(capture.wallet):
            self.unbilled[capture.job_id] = amount_millis
            return True, Yes(outcome="UNBILLED")
        job.end, job.charged_millis = "captured", amount_millis
        self.movements.append((capture.wallet, -amount_millis))
        if expired:
            return True, Yes(amount_millis, outcome="LATE")
        return True, Yes(amount_millis, job.held_millis - amount_millis)

    def _release(self, release: Release) -> tuple[bool, Reply]:
        job, named = self.jobs.get(release.job_id), (("job_id", release.job_id),)
        if job is None:
            self.jobs[release.job_id] = Job(release.wallet, 0, 0, end="released")
            return True, Yes(outcome="TOMBSTONE")
        if job.owner != release.wallet:
            return False, No("HOLD_NOT_FOUND", named)
        if job.end == "captured":
            return False, No("HOLD_CAPTURED", named)
        given_back_millis = 0 if job.end else job.held_millis
        job.end = "released"
        return True, Yes(given_back_millis)

    def _expire(self, expire: Expire, now_ms: int) -> tuple[bool, Reply]:
        job = self.jobs.get(expire.job_id)
        if job is None or job.owner != expire.wallet or job.end or job.expires_at_ms > now_ms:
            return False, Yes()
        job.end = "expired"
        return True, Yes(job.held_millis)


def as_reply(result: Result) -> Reply:
    """What the ledger answered, in the oracle's words."""
    if isinstance(result, Receipt):
        return Yes(
            result.amount_millis,
            result.released_millis,
            result.outcome,
            result.price_version,
            result.balance_millis,
            result.reserved_millis,
            result.replayed,
        )
    return No(result.reason, tuple(result.metadata.items()))


def _short(required_millis: int, available_millis: int) -> tuple[tuple[str, str], ...]:
    return (("required_millis", str(required_millis)), ("available_millis", str(available_millis)))


def _key(operation: Operation) -> str:
    """Under which name a repeat is known: a job's for its own operations, the caller's for a grant."""
    if isinstance(operation, Grant):
        return f"the caller's {operation.idempotency_key}"
    return f"the {type(operation).__name__} of {operation.job_id}"


def _asked(operation: Operation) -> Any:
    """What must be the same in a repeat."""
    match operation:
        case Grant():
            return operation.kind, operation.amount_millis, operation.note
        case Hold():
            return operation.storefront, operation.sku, operation.quantity
        case Capture():
            return operation.amount_millis
        case Release() | Expire():
            return None
