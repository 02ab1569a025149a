"""Every rule of money, as one pure function over a batch of operations.

`apply` neither reads nor writes anything: the store loads the rows that a batch names, calls it, and writes
what it returns in the same transaction. Applying a batch gives the same results as applying its operations one
at a time, however it is cut.

Which refusals are recorded ("sticky"): those of a Hold and an Adjust that depend on the wallet, because a
repeat that succeeded after its "no" was shown would leave a hold that nobody knows of. Refusals of a Capture
and a Release follow from the hold's state alone, so that they need no record of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.billing import errors, spending
from services.billing.operations import (
    CAPTURE,
    EXPIRE,
    HOLD,
    RELEASE,
    TOP_UP,
    Capture,
    Expire,
    Grant,
    Hold,
    Operation,
    Release,
    WalletId,
    fingerprint,
)
from services.billing.spending import UNLIMITED, WHOLE_WALLET, Counts, SpendId, SpendLimits
from services.chassis.errors import ServiceError

# Room for a trillion credits in a wallet, and for nine of them before a signed 64-bit column overflows.
MAX_BALANCE_MILLIS = 10**15

OPEN, CAPTURED, RELEASED, EXPIRED = "open", "captured", "released", "expired"
# Outcomes of an entry beside plain success (""): the first three are answers, the others recorded refusals.
TOMBSTONE, LATE, UNBILLED = "TOMBSTONE", "LATE", "UNBILLED"
INSUFFICIENT_CREDITS, CUSTOMER_INACTIVE = "INSUFFICIENT_CREDITS", "CUSTOMER_INACTIVE"
BALANCE_TOO_LOW, SPEND_LIMIT_REACHED = "BALANCE_TOO_LOW", "SPEND_LIMIT_REACHED"


class Wallet(NamedTuple):
    """A wallet as stored, with what its customer's row says about spending."""

    id: WalletId
    storefront: str
    active: bool
    balance_millis: int
    reserved_millis: int
    sequence: int
    spend_limits: SpendLimits = UNLIMITED


class HoldRow(NamedTuple):
    """The state of one job's hold. A tombstone is a released hold of amount 0."""

    job_id: str
    wallet: WalletId
    amount_millis: int
    captured_millis: int
    state: str
    created_at_ms: int
    expires_at_ms: int
    closed_at_ms: int | None
    # The line of keys whose own limit it counts against; empty: none.
    key_id: str = ""


class Entry(NamedTuple):
    """One row of the journal: what was asked, what it moved from where to where, and the reply."""

    wallet: WalletId
    sequence: int
    kind: str
    applied: bool
    outcome: str
    idempotency_key: str
    fingerprint: str
    debit_account: str
    credit_account: str
    amount_millis: int
    # Only of a capture: the rest of the hold, moved from reserved to available by the same row.
    released_millis: int
    job_id: str
    sku: str
    quantity: int
    price_version: str
    note: str
    balance_after_millis: int
    reserved_after_millis: int
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to an operation that was not refused."""

    amount_millis: int
    released_millis: int
    outcome: str
    price_version: str
    balance_millis: int
    reserved_millis: int
    replayed: bool


@dataclass(slots=True)
class WriteSet:
    """Everything that a batch changes. A hold made and closed in one batch is in `new_holds` only."""

    entries: list[Entry] = field(default_factory=list)
    wallets: list[Wallet] = field(default_factory=list)
    new_holds: list[HoldRow] = field(default_factory=list)
    changed_holds: list[HoldRow] = field(default_factory=list)
    # Captures that came too late and could not be paid: entries of outcome UNBILLED.
    unbilled: list[Entry] = field(default_factory=list)
    spent: list[tuple[SpendId, int]] = field(default_factory=list)


Seen = Mapping[tuple[WalletId, str], Entry]
Result = Receipt | ServiceError


def apply(
    batch: Sequence[Operation],
    wallets: Mapping[WalletId, Wallet],
    holds: Mapping[str, HoldRow],
    seen: Seen,
    now_ms: int,
    counts: Counts | None = None,
) -> tuple[list[Result], WriteSet]:
    """Apply `batch` in order and say what to answer and what to write.

    `wallets`, `holds` (by job) and `seen` (entries by wallet and key) must hold every row that the batch names,
    as far as it exists. None of them is changed. `counts` is what is spent where there is a limit, and is used up.
    The results are in the order of the batch.
    """
    books = _Books(wallets, holds, seen, now_ms, counts or Counts({}, {}))
    results = [books.operate(operation) for operation in batch]
    return results, books.write_set()


def wallet_account(wallet: WalletId) -> str:
    """The account of what a wallet may still spend."""
    return f"wallet:{wallet.customer_id}:{wallet.mode}"


def reserved_account(wallet: WalletId) -> str:
    """The account of what a wallet's open holds keep."""
    return f"reserved:{wallet.customer_id}:{wallet.mode}"


def system_account(name: str, mode: str) -> str:
    """Where credits come from or go to: `issued`, `sales` or `adjustments`. Derived, never stored."""
    return f"system:{name}:{mode}"


def changes(entry: Entry) -> tuple[int, int]:
    """What an entry does to its wallet, by its accounts: (change of balance, change of reserved), in millis."""
    amount_millis = entry.amount_millis if entry.applied else 0
    return _effect(
        entry.wallet, entry.debit_account, entry.credit_account, amount_millis, entry.released_millis
    )


def _effect(
    wallet: WalletId, debit_account: str, credit_account: str, amount_millis: int, released_millis: int
) -> tuple[int, int]:
    reserved = reserved_account(wallet)
    own = (wallet_account(wallet), reserved)
    balance = amount_millis * ((credit_account in own) - (debit_account in own))
    held = amount_millis * ((credit_account == reserved) - (debit_account == reserved))
    return balance, held - released_millis


def answer(entry: Entry, *, replayed: bool) -> Result:
    """The reply that an entry records; the first answer and every replay are made here."""
    refusal = None if entry.applied else _refusal(entry)
    if refusal is not None:
        return refusal
    return Receipt(
        entry.amount_millis if entry.applied else 0,
        entry.released_millis,
        entry.outcome,
        entry.price_version,
        entry.balance_after_millis,
        entry.reserved_after_millis,
        replayed,
    )


def _refusal(entry: Entry) -> ServiceError | None:
    available_millis = entry.balance_after_millis - entry.reserved_after_millis
    if entry.outcome == INSUFFICIENT_CREDITS:
        return errors.insufficient_credits(entry.amount_millis, available_millis)
    if entry.outcome == BALANCE_TOO_LOW:
        return errors.balance_too_low(entry.amount_millis, available_millis)
    if entry.outcome == CUSTOMER_INACTIVE:
        return errors.customer_inactive(entry.wallet.customer_id)
    if entry.outcome == SPEND_LIMIT_REACHED and (limit := spending.reached(entry.note)) is not None:
        return errors.spend_limit_reached(*limit, entry.amount_millis)
    return None


def counted_millis(hold: HoldRow) -> int:
    """What a hold counts for in the period in which it was made."""
    return hold.amount_millis if hold.state == OPEN else hold.captured_millis


class _Account:
    """A wallet while its batch is applied."""

    __slots__ = ("balance_millis", "entries", "reserved_millis", "row", "sequence")

    def __init__(self, row: Wallet) -> None:
        self.row = row
        self.balance_millis = row.balance_millis
        self.reserved_millis = row.reserved_millis
        self.sequence = row.sequence

    @property
    def available_millis(self) -> int:
        return self.balance_millis - self.reserved_millis

    def as_row(self) -> Wallet:
        row = self.row
        money = (self.balance_millis, self.reserved_millis, self.sequence)
        return Wallet(row.id, row.storefront, row.active, *money, row.spend_limits)


class _Books:
    """The rows of one batch while it is applied, and what has changed in them so far."""

    def __init__(
        self,
        wallets: Mapping[WalletId, Wallet],
        holds: Mapping[str, HoldRow],
        seen: Seen,
        now_ms: int,
        counts: Counts,
    ) -> None:
        self._accounts = {wallet_id: _Account(row) for wallet_id, row in wallets.items()}
        self._holds = dict(holds)
        self._stored_holds = holds
        self._seen = dict(seen)
        self._now_ms = now_ms
        self._counts = counts
        self._entries: list[Entry] = []
        self._unbilled: list[Entry] = []
        self._touched_holds: dict[str, None] = {}

    def operate(self, operation: Operation) -> Result:
        account = self._accounts.get(operation.wallet)
        if account is None:
            return errors.customer_not_found(operation.wallet.customer_id)
        earlier = self._seen.get((operation.wallet, operation.key))
        if earlier is not None:
            if earlier.fingerprint != fingerprint(operation):
                return errors.idempotency_key_conflict()
            return answer(earlier, replayed=True)
        match operation:
            case Hold():
                return self._hold(account, operation)
            case Capture():
                return self._capture(account, operation)
            case Release():
                return self._release(account, operation)
            case Expire():
                return self._expire(account, operation)
            case Grant():
                return self._grant(account, operation)

    def write_set(self) -> WriteSet:
        touched = [self._holds[job_id] for job_id in self._touched_holds]
        return WriteSet(
            entries=self._entries,
            wallets=[a.as_row() for a in self._accounts.values() if a.sequence != a.row.sequence],
            new_holds=[hold for hold in touched if hold.job_id not in self._stored_holds],
            changed_holds=[hold for hold in touched if hold.job_id in self._stored_holds],
            unbilled=self._unbilled,
            spent=self._counts.changed(),
        )

    def _hold(self, account: _Account, operation: Hold) -> Result:
        existing = self._holds.get(operation.job_id)
        if existing is not None:
            if existing.wallet == operation.wallet and existing.state == RELEASED:
                return errors.hold_released(operation.job_id)
            return errors.idempotency_key_conflict()
        if operation.storefront != account.row.storefront:
            return errors.invalid_request("storefront", "is not the customer's")
        if operation.quote is None:
            return errors.unknown_sku(operation.storefront, operation.sku)
        line = self._counts.line(operation.key_id)
        if line is not None and line.wallet != operation.wallet:
            return errors.invalid_request("key_id", "is not a key of this wallet")
        amount_millis = operation.quote.amount_millis
        if not account.row.active:
            return self._refuse(account, operation, CUSTOMER_INACTIVE, amount_millis)
        if account.available_millis < amount_millis:
            return self._refuse(account, operation, INSUFFICIENT_CREDITS, amount_millis)
        limit = self._counts.in_the_way(
            operation.wallet, account.row.spend_limits, line, amount_millis, self._now_ms
        )
        if limit is not None:
            return self._refuse(account, operation, SPEND_LIMIT_REACHED, amount_millis, limit.note)
        self._keep(_opened(operation, amount_millis, line.key_id if line else "", self._now_ms))
        wallet = operation.wallet
        return self._post(
            account, operation, HOLD, wallet_account(wallet), reserved_account(wallet), amount_millis
        )

    def _capture(self, account: _Account, operation: Capture) -> Result:
        hold = self._holds.get(operation.job_id)
        if hold is None or hold.wallet != operation.wallet:
            return errors.hold_not_found(operation.job_id)
        if hold.state == RELEASED:
            return errors.hold_released(operation.job_id)
        if hold.state == CAPTURED:
            return errors.hold_captured(operation.job_id)
        if operation.amount_millis > hold.amount_millis:
            return errors.amount_exceeds_hold(operation.amount_millis, hold.amount_millis)
        if hold.state == EXPIRED:
            return self._capture_late(account, operation, hold)
        # A hold past its expiry that nobody has closed yet still keeps the money: it is captured as usual.
        self._close(hold, CAPTURED, operation.amount_millis)
        return self._post(
            account,
            operation,
            CAPTURE,
            reserved_account(operation.wallet),
            system_account("sales", operation.wallet.mode),
            operation.amount_millis,
            released_millis=hold.amount_millis - operation.amount_millis,
        )

    def _capture_late(self, account: _Account, operation: Capture, hold: HoldRow) -> Result:
        if account.available_millis < operation.amount_millis:
            result = self._refuse(account, operation, UNBILLED, operation.amount_millis)
            self._unbilled.append(self._entries[-1])
            return result
        self._close(hold, CAPTURED, operation.amount_millis)
        return self._post(
            account,
            operation,
            CAPTURE,
            wallet_account(operation.wallet),
            system_account("sales", operation.wallet.mode),
            operation.amount_millis,
            outcome=LATE,
        )

    def _release(self, account: _Account, operation: Release) -> Result:
        hold = self._holds.get(operation.job_id)
        if hold is None:
            self._keep(_tombstone(operation, self._now_ms))
            return self._give_back(account, operation, RELEASE, 0, outcome=TOMBSTONE)
        if hold.wallet != operation.wallet:
            return errors.hold_not_found(operation.job_id)
        if hold.state == CAPTURED:
            return errors.hold_captured(operation.job_id)
        # What an expired hold kept went back when it expired; from now on it cannot be captured either.
        amount_millis = hold.amount_millis if hold.state == OPEN else 0
        self._close(hold, RELEASED, 0)
        return self._give_back(account, operation, RELEASE, amount_millis)

    def _expire(self, account: _Account, operation: Expire) -> Result:
        hold = self._holds.get(operation.job_id)
        due = hold is not None and hold.state == OPEN and hold.expires_at_ms <= self._now_ms
        if hold is None or hold.wallet != operation.wallet or not due:
            return Receipt(0, 0, "", "", account.balance_millis, account.reserved_millis, replayed=False)
        self._close(hold, EXPIRED, 0)
        return self._give_back(account, operation, EXPIRE, hold.amount_millis)

    def _grant(self, account: _Account, operation: Grant) -> Result:
        amount_millis = abs(operation.amount_millis)
        if operation.amount_millis < 0:
            if account.available_millis < amount_millis:
                return self._refuse(account, operation, BALANCE_TOO_LOW, amount_millis)
        elif account.balance_millis + amount_millis > MAX_BALANCE_MILLIS:
            return errors.invalid_request("amount_millis", "would make the balance too large")
        source = system_account(
            "issued" if operation.kind == TOP_UP else "adjustments", operation.wallet.mode
        )
        wallet = wallet_account(operation.wallet)
        debit, credit = (wallet, source) if operation.amount_millis < 0 else (source, wallet)
        return self._post(account, operation, operation.kind, debit, credit, amount_millis)

    def _keep(self, hold: HoldRow) -> None:
        before = self._holds.get(hold.job_id)
        self._holds[hold.job_id] = hold
        limited = self._accounts[hold.wallet].row.spend_limits.are_set
        if limited or hold.key_id:
            self._count(hold, before, limited=limited)
        self._touched_holds[hold.job_id] = None

    def _count(self, hold: HoldRow, before: HoldRow | None, *, limited: bool) -> None:
        change_millis = counted_millis(hold) - (counted_millis(before) if before else 0)
        lines = ([WHOLE_WALLET] if limited else []) + ([hold.key_id] if hold.key_id else [])
        for line in lines if change_millis else ():
            self._counts.move(hold.wallet, line, hold.created_at_ms, change_millis, begins=before is None)

    def _close(self, hold: HoldRow, state: str, captured_millis: int) -> None:
        self._keep(HoldRow(*hold[:3], captured_millis, state, *hold[5:7], self._now_ms, hold.key_id))

    def _give_back(
        self, account: _Account, operation: Operation, kind: str, amount_millis: int, outcome: str = ""
    ) -> Result:
        reserved, wallet = reserved_account(operation.wallet), wallet_account(operation.wallet)
        return self._post(account, operation, kind, reserved, wallet, amount_millis, outcome=outcome)

    def _refuse(
        self, account: _Account, operation: Operation, outcome: str, amount_millis: int, note: str = ""
    ) -> Result:
        kind = operation.kind if isinstance(operation, Grant) else type(operation).__name__.lower()
        return self._post(
            account, operation, kind, "", "", amount_millis, outcome=outcome, applied=False, note=note
        )

    def _post(
        self,
        account: _Account,
        operation: Operation,
        kind: str,
        debit_account: str,
        credit_account: str,
        amount_millis: int,
        *,
        released_millis: int = 0,
        outcome: str = "",
        applied: bool = True,
        note: str = "",
    ) -> Result:
        """Write one entry and move its wallet by what the entry's accounts say."""
        balance_change, reserved_change = _effect(
            operation.wallet, debit_account, credit_account, amount_millis if applied else 0, released_millis
        )
        account.sequence += 1
        account.balance_millis += balance_change
        account.reserved_millis += reserved_change
        key = operation.key
        hold = operation if isinstance(operation, Hold) else None
        grant = operation if isinstance(operation, Grant) else None
        # By position, in the order of the fields: by name it would take three times as long, for every operation.
        entry = Entry(
            operation.wallet,
            account.sequence,
            kind,
            applied,
            outcome,
            key,
            fingerprint(operation),
            debit_account,
            credit_account,
            amount_millis,
            released_millis,
            "" if isinstance(operation, Grant) else operation.job_id,
            hold.sku if hold else "",
            hold.quantity if hold else 0,
            hold.quote.price_version if hold and hold.quote else "",
            grant.note if grant else note,
            account.balance_millis,
            account.reserved_millis,
            self._now_ms,
        )
        self._entries.append(entry)
        self._seen[operation.wallet, key] = entry
        return answer(entry, replayed=False)


def _opened(operation: Hold, amount_millis: int, key_id: str, now_ms: int) -> HoldRow:
    return HoldRow(
        job_id=operation.job_id,
        wallet=operation.wallet,
        amount_millis=amount_millis,
        captured_millis=0,
        state=OPEN,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + operation.ttl_ms,
        closed_at_ms=None,
        key_id=key_id,
    )


def _tombstone(operation: Release, now_ms: int) -> HoldRow:
    return HoldRow(
        job_id=operation.job_id,
        wallet=operation.wallet,
        amount_millis=0,
        captured_millis=0,
        state=RELEASED,
        created_at_ms=now_ms,
        expires_at_ms=now_ms,
        closed_at_ms=now_ms,
    )
