"""The invariants of the ledger, checked against what is stored. Every one must hold at every moment.

I1 a wallet's balance is what its entries brought and took   I2 its reserved credit is its open holds
I3 0 ≤ reserved ≤ balance, after every entry                 I4 its entries are numbered without a gap
I5 every entry follows from the one before it                I6 a hold is closed by exactly one entry, an open one by none
I7 an idempotency key is used once in a wallet, and a job has one hold
I8 a remembered sum over the journal is that sum: there is no count that lives a life of its own
I9 over all wallets, what was issued and adjusted is what was sold and what is left
I10 every entry says what one of its kind may say, so that the reply in it is the one that was given
I11 what nobody could pay is listed once for the operator, as the journal says
I12 what is counted against a spend limit is what the holds of that day or month cost

That no hold stays open long after its expiry holds while the service runs only; the report counts those that are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.billing import errors, ledger
from services.billing.ledger import Entry, HoldRow
from services.billing.operations import ADJUST, CAPTURE, EXPIRE, HOLD, RELEASE, TOP_UP, WalletId
from services.billing.spending import WHOLE_WALLET, periods, reached

INVARIANTS = {
    "I1": "balance equals what the journal brought and took",
    "I2": "reserved equals the open holds",
    "I3": "reserved is between 0 and the balance",
    "I4": "entries are numbered without a gap",
    "I5": "every entry follows from the one before it",
    "I6": "every hold is closed by one entry, or open",
    "I7": "every idempotency key is used once, every job has one hold",
    "I8": "remembered sums equal the journal's",
    "I9": "issued and adjusted equals sold and left over",
    "I10": "every entry says what its kind may say",
    "I11": "what nobody could pay is listed once",
    "I12": "what is counted as spent is what the holds cost",
}

# More than anybody reads at once.
LISTED_FINDINGS = 50


class Finding(NamedTuple):
    """One thing that is wrong: which invariant, of what, and how."""

    invariant: str
    subject: str
    problem: str


class WalletFacts(NamedTuple):
    """A wallet as stored, with its open holds at the same moment."""

    wallet: WalletId
    balance_millis: int
    reserved_millis: int
    sequence: int
    # The largest sequence in the journal; 0 where it has no entry.
    last_entry: int
    open_holds_millis: int
    # What was charged up to an entry, as it is remembered: that entry's sequence (0: nothing is), captured, unbilled,
    # topped up.
    remembered: tuple[int, ...]
    # What is counted against spend limits, by line of keys (empty: the whole wallet) and period.
    spent: Mapping[tuple[str, str], int]


class Made(NamedTuple):
    """When a hold was made, and which line of keys it counts for."""

    at_ms: int
    key_id: str


class HoldFacts(NamedTuple):
    """A hold as stored, with the applied entries that name it at the same moment (None: no such entry)."""

    hold: HoldRow
    held: Entry | None
    captured: Entry | None
    released: Entry | None
    expired: Entry | None
    # The entry that says that nobody could pay, and the amount that is listed for the operator.
    unpaid: Entry | None
    listed_millis: int | None


@dataclass(slots=True)
class Fold:
    """A wallet's journal read so far, from its first entry on."""

    wallet: WalletId
    sequence: int = 0
    balance_millis: int = 0
    reserved_millis: int = 0
    captured_millis: int = 0
    unbilled_millis: int = 0
    topped_up_millis: int = 0
    # Counted only where there is something to compare it with: most wallets have no limit.
    spent: dict[tuple[str, str], int] | None = None

    def add(self, entry: Entry) -> list[Finding]:
        """Take the next entry in; what does not fit is found, and the fold goes on from what the entry says."""
        balance_change, reserved_change = ledger.changes(entry)
        findings = []
        if entry.sequence != self.sequence + 1:
            findings.append(self._finding("I4", f"entry {entry.sequence} comes after entry {self.sequence}"))
        expected = (self.balance_millis + balance_change, self.reserved_millis + reserved_change)
        stated = (entry.balance_after_millis, entry.reserved_after_millis)
        if expected != stated:
            findings.append(
                self._finding("I5", f"entry {entry.sequence} leads to {expected} and says {stated}")
            )
        if not 0 <= entry.reserved_after_millis <= entry.balance_after_millis:
            findings.append(self._finding("I3", f"entry {entry.sequence} leaves {stated}"))
        self.sequence = entry.sequence
        self.balance_millis, self.reserved_millis = expected
        if entry.kind == CAPTURE:
            self.captured_millis += entry.amount_millis * entry.applied
            self.unbilled_millis += entry.amount_millis * (entry.outcome == ledger.UNBILLED)
        elif entry.kind in {TOP_UP, ADJUST}:
            self.topped_up_millis += max(0, balance_change)
        return findings

    def count(self, entry: Entry, made: Made | None) -> None:
        """Take in what an entry changes of what its hold, made then, counts for."""
        if self.spent is None or made is None or not entry.applied:
            return
        late = entry.outcome == ledger.LATE
        captured_millis = entry.amount_millis if late else -entry.released_millis
        change_millis = {HOLD: entry.amount_millis, CAPTURE: captured_millis}.get(
            entry.kind, -entry.amount_millis
        )
        for line in {WHOLE_WALLET, made.key_id}:
            for period in periods(made.at_ms):
                self.spent[line, period] = self.spent.get((line, period), 0) + change_millis

    def compare_spent(self, facts: WalletFacts) -> list[Finding]:
        """Whether every count is what the holds of its period cost."""
        by_journal = self.spent or {}
        return [
            self._finding("I12", f"{line or 'all'} spent {millis} in {period}, by journal {counted}")
            for (line, period), millis in facts.spent.items()
            if millis != (counted := by_journal.get((line, period), 0))
        ]

    def compare_remembered(self, facts: WalletFacts) -> list[Finding]:
        """Whether the remembered sums are these, if this is the entry up to which they go."""
        counted = (self.sequence, self.captured_millis, self.unbilled_millis, self.topped_up_millis)
        if facts.remembered[0] != self.sequence or facts.remembered == counted:
            return []
        problem = (
            f"captured, unbilled and topped up by entry {self.sequence} are {counted[1:]}, "
            f"not {facts.remembered[1:]}"
        )
        return [self._finding("I8", problem)]

    def compare(self, facts: WalletFacts) -> list[Finding]:
        """What the wallet's row says otherwise than its journal and its holds."""
        findings = []
        if facts.balance_millis != self.balance_millis:
            findings.append(
                self._finding(
                    "I1", f"the balance is {facts.balance_millis}, by journal {self.balance_millis}"
                )
            )
        if not facts.reserved_millis == self.reserved_millis == facts.open_holds_millis:
            findings.append(
                self._finding(
                    "I2",
                    f"reserved is {facts.reserved_millis}, by journal {self.reserved_millis}, "
                    f"by open holds {facts.open_holds_millis}",
                )
            )
        if not 0 <= facts.reserved_millis <= facts.balance_millis:
            findings.append(
                self._finding("I3", f"{facts.reserved_millis} of {facts.balance_millis} are reserved")
            )
        if facts.sequence != facts.last_entry:
            findings.append(
                self._finding(
                    "I4", f"the wallet counts {facts.sequence} entries, the last is {facts.last_entry}"
                )
            )
        return findings

    def _finding(self, invariant: str, problem: str) -> Finding:
        return Finding(invariant, f"wallet {self.wallet.customer_id} {self.wallet.mode}", problem)


def check_hold(facts: HoldFacts) -> list[Finding]:
    """Whether a hold's state is what the entries that name it make of it."""
    hold = facts.hold
    if facts.held is None:
        outcome = facts.released.outcome if facts.released else ""
        as_entered = (hold.amount_millis, hold.state, outcome) == (0, ledger.RELEASED, ledger.TOMBSTONE)
    else:
        as_entered = facts.held.amount_millis == hold.amount_millis and _closed_as_entered(facts)
    if as_entered:
        return []
    entries = [entry.kind for entry in facts[1:5] if isinstance(entry, Entry)]
    problem = (
        f"it is {hold.state} with {hold.amount_millis} held and {hold.captured_millis} captured, "
        f"which its entries ({', '.join(entries) or 'none'}) do not say"
    )
    return [Finding("I6", f"hold {hold.job_id}", problem)]


def check_unpaid(facts: HoldFacts) -> list[Finding]:
    """Whether a hold that nobody could pay is listed for the operator, and no other is."""
    owed_millis = facts.unpaid.amount_millis if facts.unpaid else None
    if owed_millis == facts.listed_millis:
        return []
    problem = f"unbilled is {owed_millis} by journal and {facts.listed_millis} by list"
    return [Finding("I11", f"job {facts.hold.job_id}", problem)]


def check_entry(entry: Entry) -> list[Finding]:
    """Whether an entry's key, outcome and accounts are those of its kind."""
    misfits = [
        ("key", entry.idempotency_key, _key_fits(entry)),
        ("outcome", entry.outcome, entry.outcome in _OUTCOMES.get((entry.kind, entry.applied), ())),
        ("accounts", f"{entry.debit_account} → {entry.credit_account}", _accounts_fit(entry)),
        ("note", entry.note, entry.outcome != ledger.SPEND_LIMIT_REACHED or reached(entry.note) is not None),
        ("released amount", entry.released_millis, entry.released_millis == 0 or _gives_rest_back(entry)),
    ]
    wallet, what = entry.wallet, "" if entry.applied else "refused "
    return [
        Finding(
            "I10",
            f"wallet {wallet.customer_id} {wallet.mode}",
            f"entry {entry.sequence}, a {what}{entry.kind}, has the {name} {found}",
        )
        for name, found, fits in misfits
        if not fits
    ]


_OUTCOMES = {
    (HOLD, True): ("",),
    (HOLD, False): (ledger.INSUFFICIENT_CREDITS, ledger.CUSTOMER_INACTIVE, ledger.SPEND_LIMIT_REACHED),
    (CAPTURE, True): ("", ledger.LATE),
    (CAPTURE, False): (ledger.UNBILLED,),
    (RELEASE, True): ("", ledger.TOMBSTONE),
    (EXPIRE, True): ("",),
    (TOP_UP, True): ("",),
    (ADJUST, True): ("",),
    (ADJUST, False): (ledger.BALANCE_TOO_LOW,),
}


def _key_fits(entry: Entry) -> bool:
    if entry.kind in {TOP_UP, ADJUST}:
        wallet = entry.wallet
        prefix = f"request:{wallet.customer_id}:{wallet.mode}:"
        return entry.idempotency_key.startswith(prefix) and not entry.job_id
    return bool(entry.job_id) and entry.idempotency_key == f"{entry.kind}:{entry.job_id}"


def _accounts_fit(entry: Entry) -> bool:
    wallet, reserved = ledger.wallet_account(entry.wallet), ledger.reserved_account(entry.wallet)
    issued, sales, adjustments = (
        ledger.system_account(name, entry.wallet.mode) for name in ("issued", "sales", "adjustments")
    )
    moved = (entry.debit_account, entry.credit_account)
    if not entry.applied:
        return moved == ("", "")
    late = entry.outcome == ledger.LATE
    allowed = {
        HOLD: [(wallet, reserved)],
        CAPTURE: [(wallet if late else reserved, sales)],
        RELEASE: [(reserved, wallet)],
        EXPIRE: [(reserved, wallet)],
        TOP_UP: [(issued, wallet)],
        ADJUST: [(adjustments, wallet), (wallet, adjustments)],
    }
    return moved in allowed.get(entry.kind, [])


def _gives_rest_back(entry: Entry) -> bool:
    return entry.kind == CAPTURE and entry.applied and entry.outcome == ""


def _closed_as_entered(facts: HoldFacts) -> bool:
    hold, captured, released, expired = facts.hold, facts.captured, facts.released, facts.expired
    if expired is not None and expired.amount_millis != hold.amount_millis:
        return False
    if hold.state == ledger.OPEN:
        return captured is None and released is None and expired is None
    if hold.state == ledger.EXPIRED:
        return captured is None and released is None and expired is not None
    if hold.state == ledger.RELEASED:
        given_back = hold.amount_millis if expired is None else 0
        return captured is None and released is not None and released.amount_millis == given_back
    if captured is None or released is not None:
        return False
    rest = hold.amount_millis - hold.captured_millis if expired is None else 0
    late = captured.outcome == ledger.LATE
    amounts = (captured.amount_millis, captured.released_millis)
    return amounts == (hold.captured_millis, rest) and late == (expired is not None)


@dataclass(slots=True)
class Report:
    """What a verification read, and everything it found."""

    wallets: int = 0
    entries: int = 0
    refusals: int = 0
    holds: int = 0
    open_holds: int = 0
    # Open although their time is over: the service closes them when it runs.
    overdue_holds: int = 0
    unbilled_jobs: int = 0
    unbilled_millis: int = 0
    findings: list[Finding] = field(default_factory=list)
    # By account: `system:sales:live`, and the sums of all wallets as `wallets:live`.
    accounts_millis: dict[str, int] = field(default_factory=dict)

    def book(self, account: str, amount_millis: int) -> None:
        """Add to one of the accounts that the trial balance is made of."""
        self.accounts_millis[account] = self.accounts_millis.get(account, 0) + amount_millis

    def book_entry(self, entry: Entry) -> None:
        """Count an entry, and book what it did to the system accounts."""
        self.entries += 1
        self.refusals += not entry.applied and entry.outcome != ledger.UNBILLED
        if entry.applied and entry.debit_account.startswith("system:"):
            self.book(entry.debit_account, -entry.amount_millis)
        if entry.applied and entry.credit_account.startswith("system:"):
            self.book(entry.credit_account, entry.amount_millis)

    def book_hold(self, facts: HoldFacts) -> None:
        """Count a hold."""
        self.holds += 1
        self.open_holds += facts.hold.state == ledger.OPEN
        if facts.unpaid is not None:
            self.unbilled_jobs += 1
            self.unbilled_millis += facts.unpaid.amount_millis

    def close(self) -> None:
        """Draw the trial balance: the sum of all accounts of a mode must be 0."""
        for mode in ("live", "test"):
            own = [total for name, total in self.accounts_millis.items() if name.endswith(f":{mode}")]
            if sum(own) != 0:
                self.findings.append(Finding("I9", f"mode {mode}", f"the accounts add up to {sum(own)}"))

    def broken(self, invariant: str) -> int:
        """How often an invariant does not hold."""
        return sum(finding.invariant == invariant for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "wallets": self.wallets,
            "entries": self.entries,
            "refusals": self.refusals,
            "holds": self.holds,
            "open_holds": self.open_holds,
            "overdue_holds": self.overdue_holds,
            "unbilled_jobs": self.unbilled_jobs,
            "unbilled_millis": self.unbilled_millis,
            "accounts_millis": self.accounts_millis,
            "invariants": {name: self.broken(name) for name in INVARIANTS},
            "findings": [finding._asdict() for finding in self.findings],
            "sound": not self.findings,
        }

    def as_text(self) -> str:
        """For people."""
        read = f"{self.wallets} wallets, {self.entries} entries and {self.holds} holds"
        owed = f"{self.unbilled_jobs} jobs, {errors.credits_text(self.unbilled_millis)} credits"
        lines = [
            f"Read {read}.",
            f"Entries that are refusals: {self.refusals}.",
            f"Open holds: {self.open_holds}, {self.overdue_holds} of them past their expiry.",
            f"Unbilled, because their wallets could not pay any more: {owed}.",
            "",
        ]
        for account, amount_millis in sorted(self.accounts_millis.items()):
            lines.append(f"  {account:<28} {errors.credits_text(amount_millis):>24} credits")
        lines.append("")
        for name, meaning in INVARIANTS.items():
            broken = self.broken(name)
            lines.append(f"  {name:<3}  {meaning}: {f'BROKEN {broken} times' if broken else 'holds'}")
        lines += ["", *(f"{f.invariant} {f.subject}: {f.problem}" for f in self.findings[:LISTED_FINDINGS])]
        if len(self.findings) > LISTED_FINDINGS:
            lines.append(f"… and {len(self.findings) - LISTED_FINDINGS} more; --json lists all.")
        lines.append("The ledger has DRIFTED." if self.findings else "The ledger is sound.")
        return "\n".join(lines)
