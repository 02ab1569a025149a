"""Attempts in the database, and what their outcomes change of accounts and breakers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from services.chassis.database import Change as WriteChange
from services.chassis.database import (
    Insertion,
    locked,
    member_of,
    member_of_named,
    prepared,
    read_together,
    write_together,
)
from services.chassis.prepared_statements import Rows
from services.provider_pool import errors
from services.provider_pool.attempts import states as rules
from services.provider_pool.attempts.history import Event, events_of
from services.provider_pool.attempts.records import Answer, Begin, Begun, Change, Item, Signal
from services.provider_pool.attempts.states import Attempt, AttemptState, Failure
from services.provider_pool.schema import ATTEMPTS, IS_UNDECIDED
from services.provider_pool.selection import concurrency, health
from services.provider_pool.selection.leases import Lease, LeaseState
from services.provider_pool.selection.pool import WHOLE_ACCOUNT, Account, booked
from services.provider_pool.store import accounts, events, leases

_NAMES = tuple(column.name for column in ATTEMPTS.columns)
_NAMED = select(*ATTEMPTS.columns).where(member_of_named(ATTEMPTS.c.attempt_id, "attempt_ids"))
_LOAD = prepared(_NAMED)
_LOCK = prepared(locked(_NAMED, ATTEMPTS.c.attempt_id))
# What never changes of an attempt.
_FIXED = frozenset({"job_id", "account_id", "provider", "model", "fingerprint", "sender_id", "created_at_ms"})
_CHANGING_NAMES = tuple(name for name in _NAMES if name not in _FIXED)


def apply(connection: Connection, items: Sequence[Item]) -> list[Answer]:
    """Apply a batch of beginnings and changes, in this order, and answer every item."""
    changes = [item for item in items if isinstance(item, Change)]
    begins = [item for item in items if isinstance(item, Begin)]
    held, lent, known = _locked(connection, changes, begins)
    providers = _providers(connection, lent.values())
    book = _Book(known, held)
    answers: dict[int, Answer] = {}
    for turn, item in enumerate(items):
        answers[turn] = book.begin(item, lent, providers) if isinstance(item, Begin) else book.change(item)
    book.write(connection)
    return [answers[turn] for turn in range(len(items))]


def _locked(
    connection: Connection, changes: Sequence[Change], begins: Sequence[Begin]
) -> tuple[dict[str, Account], dict[str, Lease], dict[str, Attempt]]:
    """Accounts, then leases, then attempts: the order in which everybody locks them."""
    others = (leases.LOCK_NAMED, _LOCK) if begins else (_LOCK,)
    begun = {item.attempt_id for item in begins}
    values = {"attempt_ids": sorted(begun | {item.attempt_id for item in changes})}
    if begins:
        values["begun_ids"] = sorted(begun)
    held: dict[str, Account] = {}
    if changes:
        held, rows = accounts.lock_accounts_and(connection, _accounts_touched(changes), others, **values)
    else:
        rows = read_together(connection, others, **values)
    lent = leases.by_attempt(rows[0]) if begins else {}
    return held, lent, _by_id(rows[-1])


class _Book:
    """Records while a batch is applied to them."""

    def __init__(self, known: dict[str, Attempt], held: dict[str, Account]) -> None:
        self._attempts = known
        self._accounts = held
        self._new: set[str] = set()
        self._changed: set[str] = set()
        self._paying: set[str] = set()
        self._learning: set[str] = set()
        self._breakers: dict[tuple[str, str], health.Breaker] = {}
        self._events: dict[str, list[Event]] = {}

    def begin(self, item: Begin, lent: Mapping[str, Lease], providers: Mapping[str, str]) -> Answer:
        known = self._attempts.get(item.attempt_id)
        if known is not None:
            # The same call again, after a COMMIT whose answer was lost: its caller has sent nothing yet.
            mine = known.state is AttemptState.SUBMITTING and known.sender_id == item.sender_id
            return Begun(known, fresh=mine)
        lease = lent.get(item.attempt_id)
        if lease is None:
            return errors.attempt_not_found(item.attempt_id)
        if lease.state is not LeaseState.OPEN or item.now_ms >= lease.expires_at_ms:
            return errors.lease_ended(item.attempt_id)
        attempt = Attempt(
            attempt_id=item.attempt_id,
            job_id=item.job_id,
            account_id=lease.account_id,
            provider=providers[lease.account_id],
            model=item.model,
            state=AttemptState.SUBMITTING,
            generation=item.generation,
            fingerprint=item.fingerprint,
            sender_id=item.sender_id,
            created_at_ms=item.now_ms,
        )
        self._attempts[item.attempt_id] = attempt
        self._new.add(item.attempt_id)
        return Begun(attempt, fresh=True)

    def change(self, item: Change) -> Answer:
        for signal in item.signals:
            self._signal(signal, item.now_ms)
        known = self._attempts.get(item.attempt_id)
        if known is None:
            return errors.attempt_not_found(item.attempt_id)
        if item.to is not None and not rules.may_become(known, item.to, item.seen):
            return known
        if item.collected is not None and known.state is not AttemptState.SUCCEEDED:
            # Another replica found the outputs unusable meanwhile, and has told so.
            return known
        after = self._booked(changed(known, item), item)
        if told := item.events + events_of(known, after, item.now_ms):
            self._events.setdefault(item.attempt_id, []).extend(told)
        if after != known:
            self._attempts[item.attempt_id] = after
            self._changed.add(item.attempt_id)
        return after

    def _booked(self, attempt: Attempt, item: Change) -> Attempt:
        account = self._accounts.get(attempt.account_id)
        if item.cost_millis is None or account is None:
            return attempt
        owed_millis = item.cost_millis - (attempt.cost_millis if attempt.booked else 0)
        if owed_millis:
            self._accounts[attempt.account_id] = booked(account, owed_millis)
            self._paying.add(attempt.account_id)
        return replace(attempt, booked=True, cost_millis=item.cost_millis)

    def _signal(self, signal: Signal, now_ms: int) -> None:
        account = self._accounts.get(signal.account_id)
        if account is None:
            return
        if signal.model == WHOLE_ACCOUNT:
            self._learn(account, signal)
        if (
            signal.fault is not None
            and signal.fault.kind is health.FaultKind.CROWDED
            and not concurrency.is_at_least(account)
        ):
            return
        key = (signal.account_id, signal.model)
        before = self._breakers.get(key, account.breakers.get(signal.model, health.CLOSED))
        if signal.fault is None:
            after = health.after_success(before, signal.sent_at_ms)
        else:
            after = health.after_fault(before, signal.fault, now_ms)
        if after != before:
            self._breakers[key] = after

    def _learn(self, account: Account, signal: Signal) -> None:
        """How many tasks at once the account has, from one that was taken or refused."""
        after = account
        if signal.fault is None:
            after = concurrency.after_success(account)
        elif signal.fault.kind is health.FaultKind.CROWDED:
            after = concurrency.after_refusal(account)
        if after != account:
            self._accounts[account.account_id] = after
            self._learning.add(account.account_id)

    def write(self, connection: Connection) -> None:
        new = [tuple(_row(self._attempts[name]).values()) for name in sorted(self._new)]
        changed = [self._attempts[name] for name in sorted(self._changed - self._new)]
        balances = accounts.balances_step(self._accounts[name] for name in self._paying)
        write_together(connection, (Insertion(ATTEMPTS, _NAMES, new), changes_step(changed), balances))
        # Rare, and of rows that the statement above may have written.
        write_together(connection, (accounts.learnt_step(self._accounts[name] for name in self._learning),))
        accounts.save_breakers(connection, self._breakers)
        events.add_events(connection, self._events)


def changed(attempt: Attempt, item: Change) -> Attempt:
    """The record after a change that may follow it, but for what is booked."""
    given: dict[str, Any] = {
        "state": item.to,
        "task_id": item.task_id,
        "task": item.task,
        "submitted_at_ms": item.submitted_at_ms,
        "outputs": item.outputs,
        "generation": item.generation,
        "failure": item.failure,
        "collected": item.collected,
        # What is off the balance already is changed together with the balance only.
        "cost_millis": None if attempt.booked else item.expected_cost_millis,
    }
    after = replace(attempt, **{name: value for name, value in given.items() if value is not None})
    if item.to in rules.TERMINAL:
        after = replace(after, ended_at_ms=item.now_ms)
    return after


def mark_orphans(
    connection: Connection, senders: rules.Senders, answer_by_ms: Callable[[str], int], now_ms: int
) -> list[str]:
    """Turn attempts that nobody is sending any more into `unknown` ones, and name them.

    `answer_by_ms`: given a provider, how long after its beginning a submission to it has an outcome.
    """
    statement = select(ATTEMPTS).where(IS_UNDECIDED, ATTEMPTS.c.state == "submitting")
    rows = connection.execute(locked(statement, ATTEMPTS.c.attempt_id)).all()
    orphans = [
        replace(attempt, state=AttemptState.UNKNOWN)
        for attempt in map(_attempt, rows)
        if senders.are_gone_from(
            attempt.sender_id, attempt.created_at_ms, answer_by_ms(attempt.provider), now_ms
        )
    ]
    save_attempts(connection, orphans)
    told = {orphan.attempt_id: orphan for orphan in orphans}
    before = {attempt.attempt_id: attempt for attempt in map(_attempt, rows) if attempt.attempt_id in told}
    events.add_events(
        connection, {name: events_of(before[name], orphan, now_ms) for name, orphan in told.items()}
    )
    return sorted(told)


def owned_tasks(connection: Connection, account_id: str, task_ids: Iterable[str]) -> set[str]:
    """Which of these tasks an attempt on the account has already."""
    statement = select(ATTEMPTS.c.task_id).where(
        ATTEMPTS.c.account_id == account_id, ATTEMPTS.c.task_id != "", member_of(ATTEMPTS.c.task_id, task_ids)
    )
    return set(connection.execute(statement).scalars())


def sending_since_ms(connection: Connection, attempt: Attempt) -> int | None:
    """When the first of the requests that are being sent on the account began; None without one.

    A task that was begun since then may be that one's. Neither by fingerprint nor by model: providers' lists tell less than
    that, and two of our models may be one of theirs.
    """
    statement = select(func.min(ATTEMPTS.c.created_at_ms)).where(
        IS_UNDECIDED,
        ATTEMPTS.c.state == "submitting",
        ATTEMPTS.c.account_id == attempt.account_id,
    )
    since_ms: int | None = connection.execute(statement).scalar_one()
    return since_ms


def count_abandoned(connection: Connection, job_id: str) -> int:
    """How many attempts of the job were given up in doubt."""
    statement = select(func.count()).where(ATTEMPTS.c.job_id == job_id, ATTEMPTS.c.state == "abandoned")
    return connection.execute(statement).scalar_one()


def load_attempt(connection: Connection, attempt_id: str) -> Attempt | None:
    """One attempt."""
    return next(iter(load_named(connection, [attempt_id])), None)


def load_named(connection: Connection, attempt_ids: Iterable[str]) -> list[Attempt]:
    """These attempts, as far as they are there, in no order."""
    return [_attempt(row) for row in _LOAD.rows(connection, attempt_ids=sorted(set(attempt_ids)))]


def load_by_task(connection: Connection, account_id: str, task_ids: Sequence[str]) -> list[Attempt]:
    """The attempts on the account that have these tasks."""
    statement = select(ATTEMPTS).where(
        ATTEMPTS.c.account_id == account_id, ATTEMPTS.c.task_id != "", member_of(ATTEMPTS.c.task_id, task_ids)
    )
    return [_attempt(row) for row in connection.execute(statement)]


def load_attempts(
    connection: Connection, job_id: str, state: AttemptState | None, after_attempt_id: str, limit: int
) -> list[Attempt]:
    """Attempts in the order of their ids."""
    statement = select(ATTEMPTS).where(ATTEMPTS.c.attempt_id > after_attempt_id)
    if job_id:
        statement = statement.where(ATTEMPTS.c.job_id == job_id)
    if state is not None:
        statement = statement.where(ATTEMPTS.c.state == state.value)
    return [
        _attempt(row) for row in connection.execute(statement.order_by(ATTEMPTS.c.attempt_id).limit(limit))
    ]


def count_in_doubt(connection: Connection) -> int:
    """How many attempts are `unknown` now."""
    in_doubt = select(func.count()).where(IS_UNDECIDED, ATTEMPTS.c.state == "unknown")
    return connection.execute(in_doubt).scalar_one()


def lock_attempts(connection: Connection, attempt_ids: Iterable[str]) -> dict[str, Attempt]:
    """These attempts, locked in order until the end of the transaction."""
    return _by_id(_LOCK.rows(connection, attempt_ids=sorted(attempt_ids)))


def _by_id(rows: Rows) -> dict[str, Attempt]:
    return {attempt.attempt_id: attempt for attempt in map(_attempt, rows)}


def changes_step(changed: Sequence[Attempt]) -> WriteChange:
    """Attempts that are there already and locked, in the order of their ids."""
    rows = [tuple([value for name, value in _row(one).items() if name not in _FIXED]) for one in changed]
    return WriteChange(ATTEMPTS, ("attempt_id",), _CHANGING_NAMES, rows)


def save_attempts(connection: Connection, changed: Sequence[Attempt]) -> None:
    """Write attempts that are there already and locked."""
    write_together(connection, (changes_step(changed),))


def _accounts_touched(changes: Sequence[Change]) -> set[str]:
    booking = {item.account_id for item in changes if item.cost_millis is not None}
    return booking | {signal.account_id for item in changes for signal in item.signals}


def _providers(connection: Connection, lent: Iterable[Lease]) -> dict[str, str]:
    named = {lease.account_id for lease in lent if lease.account_id}
    return accounts.load_providers(connection, named) if named else {}


def _row(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt_id": attempt.attempt_id,
        "job_id": attempt.job_id,
        "account_id": attempt.account_id,
        "provider": attempt.provider,
        "model": attempt.model,
        "state": attempt.state.value,
        "generation": attempt.generation,
        "fingerprint": attempt.fingerprint,
        "sender_id": attempt.sender_id,
        "created_at_ms": attempt.created_at_ms,
        "submitted_at_ms": attempt.submitted_at_ms,
        "ended_at_ms": attempt.ended_at_ms,
        "task_id": attempt.task_id,
        "task": attempt.task,
        "outputs": attempt.outputs,
        "failure": "" if attempt.failure is None else msgspec.json.encode(attempt.failure).decode(),
        "collected": attempt.collected,
        "cost_millis": attempt.cost_millis,
        "booked": attempt.booked,
    }


def _attempt(row: Sequence[Any]) -> Attempt:
    fields = dict(zip(_NAMES, row, strict=True))
    fields["state"] = AttemptState(fields["state"])
    failure = fields["failure"]
    fields["failure"] = msgspec.json.decode(failure, type=Failure) if failure else None
    return Attempt(**fields)
