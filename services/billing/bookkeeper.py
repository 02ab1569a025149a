"""The one way in to the ledger: every operation of this process is committed with those that wait beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

from prometheus_client import Counter
from sqlalchemy import Connection

from services.billing.ledger import Receipt
from services.billing.operations import Grant, Operation
from services.billing.store import ledger
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.group_commit import GroupCommit

log = logging.getLogger(__name__)

_OPERATIONS = Counter(
    "atelier_billing_operations_total",
    "Money operations answered, by kind and result: ok, replayed, or the reason of the refusal.",
    ["kind", "result"],
)
# Finding a labelled child costs more than using it.
_counted = cache(_OPERATIONS.labels)


class Bookkeeper:
    """Commits operations in batches and answers each after its batch is durable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._clock = clock
        self._commits: GroupCommit[Operation, Receipt] = GroupCommit(
            database, self._commit, name="billing_ledger", lane=lambda operation: operation.wallet.customer_id
        )

    async def submit(self, operation: Operation) -> Receipt:
        """Raises the ServiceError that the rules answer, or GroupCommit's when it could not be tried."""
        try:
            receipt = await self._commits.submit(operation)
        except ServiceError as refusal:
            _note(operation, refusal.reason)
            raise
        _note(operation, "replayed" if receipt.replayed else receipt.outcome or "ok")
        return receipt

    async def close(self) -> None:
        """Finish what waits and refuse what comes."""
        await self._commits.close()

    def _commit(self, connection: Connection, batch: Sequence[Operation]) -> Sequence[Receipt | Exception]:
        return ledger.commit(connection, batch, self._clock.now_ms)


def _note(operation: Operation, result: str) -> None:
    kind = operation.kind if isinstance(operation, Grant) else type(operation).__name__.lower()
    _counted(kind, result).inc()
    # Somebody's decision, and rare. What a job does to a wallet is in the journal, and in the jobs service's line.
    level = logging.INFO if isinstance(operation, Grant) else logging.DEBUG
    if log.isEnabledFor(level):
        wallet = operation.wallet
        told = {"customer_id": wallet.customer_id, "mode": wallet.mode, "result": result}
        if not isinstance(operation, Grant):
            told["job_id"] = operation.job_id
        log.log(level, "wallet.%s", kind, extra=told)
