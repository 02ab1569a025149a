"""Whether a ledger kept every promise: its own invariants, and against what its customers were answered."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Connection, func, select

from services.billing import admission, ledger, replies, settings
from services.billing.ledger import Entry, Receipt
from services.billing.offline import reader
from services.billing.operations import Operation, WalletId
from services.billing.schema import HOLDS, IS_OPEN, JOURNAL
from services.billing.store.ledger import ENTRY_COLUMNS, entry_of
from services.billing.verification import verify
from tests.faults.ledger_tellers import ADJUST, CAPTURE, HOLD, RELEASE, TOP_UP, Answer, Branch

Journal = dict[tuple[WalletId, str], Entry]

# The longest pause of the sweep, and as much again for a busy machine.
SWEEP_SLACK_MS = 5_000
# Refusals that follow from a hold's state alone, so that no entry is written for them.
UNRECORDED = {"HOLD_NOT_FOUND", "HOLD_RELEASED", "HOLD_CAPTURED", "AMOUNT_EXCEEDS_HOLD"}

_STOREFRONTS = settings.storefronts(settings._SHIPPED_PRICE_LISTS)
_SHOWN = {
    HOLD: replies.held,
    CAPTURE: replies.captured,
    RELEASE: replies.released,
    TOP_UP: replies.topped_up,
    ADJUST: replies.adjusted,
}


async def judge(url: str, branch: Branch, now_ms: int) -> list[str]:
    """Everything that is wrong with the database at `url` (I1 to I11); it may be in use or not."""
    async with reader(url) as read:
        report = await verify(read)
        journal = await read(_journal)
        overdue = await read(lambda connection: _overdue(connection, now_ms - SWEEP_SLACK_MS))
    faults = [f"{finding.invariant} {finding.subject}: {finding.problem}" for finding in report.findings]
    faults += [f"unexpected: {refusal}" for refusal in branch.unexpected]
    faults += [f"I10 {fault}" for answer in branch.log if (fault := _contradiction(answer, journal))]
    faults += [f"I10 {fault}" for fault in _unasked(branch, journal)]
    faults += [f"I10 {fault}" for fault in _told_differently(branch)]
    if overdue:
        faults.append(f"I11 {overdue} holds are open long after their expiry")
    return faults


def operation(method: str, request: Any) -> Operation:
    """What a request asks of the ledger."""
    match method:
        case "Hold":
            return admission.hold(request, _STOREFRONTS)
        case "Capture":
            return admission.capture(request)
        case "Release":
            return admission.release(request)
        case "TopUp":
            return admission.top_up(request)
    return admission.adjustment(request)


def _contradiction(answer: Answer, journal: Journal) -> str:
    """How the journal contradicts an answer that somebody was given."""
    asked = operation(answer.method, answer.request)
    entry = journal.get((asked.wallet, asked.key))
    if entry is None:
        known = answer.message is None and answer.reason in UNRECORDED
        return "" if known else f"{asked.key} was answered {answer.content()!r} and is not in the journal"
    recorded = ledger.answer(entry, replayed=False)
    if isinstance(recorded, Receipt):
        stored = Answer(answer.method, answer.request, _SHOWN[answer.method](recorded))
    else:
        stored = Answer(answer.method, answer.request, None, recorded.reason, recorded.metadata)
    if stored.content() == answer.content():
        return ""
    return f"{asked.key} was answered {answer.content()!r}, the journal says {stored.content()!r}"


def _unasked(branch: Branch, journal: Journal) -> list[str]:
    """Entries that nobody asked for: of the ledger's own only expiries are known."""
    asked = {(op.wallet, op.key) for op in (operation(*each) for each in branch.sent)}
    ours = {wallet for wallet, _ in asked}
    return [
        f"{key} is in the journal of {wallet} and nobody asked for it"
        for (wallet, key), entry in journal.items()
        if wallet in ours and (wallet, key) not in asked and entry.kind != "expire"
    ]


def _told_differently(branch: Branch) -> list[str]:
    """Keys under which answers differed, or which were done for the first time more than once."""
    contents: dict[tuple[WalletId, str], set[object]] = {}
    firsts: Counter[tuple[WalletId, str]] = Counter()
    for answer in branch.log:
        asked = operation(answer.method, answer.request)
        contents.setdefault((asked.wallet, asked.key), set()).add(repr(answer.content()))
        firsts[asked.wallet, asked.key] += answer.message is not None and not answer.replayed
    differed = [
        f"{key} was answered in {len(told)} ways" for (_, key), told in contents.items() if len(told) > 1
    ]
    return differed + [f"{key} was done {times} times" for (_, key), times in firsts.items() if times > 1]


def _journal(connection: Connection) -> Journal:
    rows = map(entry_of, connection.execute(select(*ENTRY_COLUMNS).where(JOURNAL.c.sequence > 0)))
    return {(entry.wallet, entry.idempotency_key): entry for entry in rows}


def _overdue(connection: Connection, before_ms: int) -> int:
    late = select(func.count()).select_from(HOLDS).where(IS_OPEN, HOLDS.c.expires_at_ms < before_ms)
    return connection.execute(late).scalar_one()
