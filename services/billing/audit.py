"""The invariants of the ledger, checked against what is stored. Every one must hold at every moment.

I1 a wallet's balance is what its entries brought and took   I2 its reserved credit is its open holds
I3 0 ≤ reserved ≤ balance, after every entry                 I4 its entries are numbered without a gap
I5 every entry follows from the one before it                I6 a hold is closed by exactly one entry, an open one by none
I7 an idempotency key is used once in a wallet, and a job has one hold
I8 usage is read from the journal itself: there is no second count that could differ
I9 over all wallets, what was issued and adjusted is what was sold and what is left
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.billing import errors, ledger
from services.billing.ledger import Entry, HoldRow
from services.billing.operations import WalletId

INVARIANTS = {
    "I1": "balance equals what the journal brought and took",
    "I2": "reserved equals the open holds",
    "I3": "reserved is between 0 and the balance",
    "I4": "entries are numbered without a gap",
    "I5": "every entry follows from the one before it",
    "I6": "every hold is closed by one entry, or open",
    "I7": "every idempotency key is used once, every job has one hold",
    "I8": "usage has no second count beside the journal",
    "I9": "issued and adjusted equals sold and left over",
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


class HoldFacts(NamedTuple):
    """A hold as stored, with the applied entries that name it at the same moment (None: no such entry)."""

    hold: HoldRow
    held: Entry | None
    captured: Entry | None
    released: Entry | None
    expired: Entry | None


@dataclass(slots=True)
class Fold:
    """A wallet's journal read so far, from its first entry on."""

    wallet: WalletId
    sequence: int = 0
    balance_millis: int = 0
    reserved_millis: int = 0

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
        return findings

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
    entries = [entry.kind for entry in facts[1:] if isinstance(entry, Entry)]
    problem = f"it is {hold.state}, which its entries ({', '.join(entries) or 'none'}) do not say"
    return [Finding("I6", f"hold {hold.job_id}", problem)]


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
    holds: int = 0
    findings: list[Finding] = field(default_factory=list)
    # By account: `system:sales:live`, and the sums of all wallets as `wallets:live`.
    accounts_millis: dict[str, int] = field(default_factory=dict)

    def book(self, account: str, amount_millis: int) -> None:
        """Add to one of the accounts that the trial balance is made of."""
        self.accounts_millis[account] = self.accounts_millis.get(account, 0) + amount_millis

    def book_entry(self, entry: Entry) -> None:
        """Book what an entry did to the system accounts."""
        if entry.applied and entry.debit_account.startswith("system:"):
            self.book(entry.debit_account, -entry.amount_millis)
        if entry.applied and entry.credit_account.startswith("system:"):
            self.book(entry.credit_account, entry.amount_millis)

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
            "holds": self.holds,
            "accounts_millis": self.accounts_millis,
            "invariants": {name: self.broken(name) for name in INVARIANTS},
            "findings": [finding._asdict() for finding in self.findings],
        }

    def as_text(self) -> str:
        """For people."""
        lines = [f"Read {self.wallets} wallets, {self.entries} entries and {self.holds} holds.", ""]
        for account, amount_millis in sorted(self.accounts_millis.items()):
            lines.append(f"  {account:<28} {errors.credits_text(amount_millis):>24} credits")
        lines.append("")
        for name, meaning in INVARIANTS.items():
            broken = self.broken(name)
            lines.append(f"  {name}  {meaning}: {f'BROKEN {broken} times' if broken else 'holds'}")
        lines += ["", *(f"{f.invariant} {f.subject}: {f.problem}" for f in self.findings[:LISTED_FINDINGS])]
        if len(self.findings) > LISTED_FINDINGS:
            lines.append(f"… and {len(self.findings) - LISTED_FINDINGS} more; --json lists all.")
        lines.append("The ledger has DRIFTED." if self.findings else "The ledger is sound.")
        return "\n".join(lines)
