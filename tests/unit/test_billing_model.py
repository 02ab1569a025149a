from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from services.billing.operations import WalletId
from services.billing.spending import SpendLimits
from tests.unit.billing_machine import Ledger, LedgerMachine, MemoryLedger, Rows

# The rules alone run a thousand times faster than a database: more examples for the same time.
EXAMPLES = settings(max_examples=2 * settings().max_examples)


def test_the_rules_answer_as_the_oracle_however_batches_are_cut() -> None:
    run_state_machine_as_test(LedgerMachine, settings=EXAMPLES)


class _Generous(MemoryLedger):
    """Keeps a thousandth of a credit too much in one wallet."""

    def rows(self) -> Rows:
        rows = super().rows()
        first, *rest = rows.wallets
        return rows._replace(wallets=[first._replace(balance_millis=first.balance_millis + 1), *rest])


def test_the_machine_notices_a_thousandth_of_a_credit() -> None:
    class Machine(LedgerMachine):
        def made(self, sizes: Sequence[int]) -> list[Ledger]:
            return [_Generous()]

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=settings(max_examples=2))


class _Spendthrift(MemoryLedger):
    """Forgets every limit as soon as it is set."""

    def set_limits(self, wallet: WalletId, limits: SpendLimits, now_ms: int) -> None:
        pass


def test_the_machine_notices_a_limit_that_does_not_hold() -> None:
    class Machine(LedgerMachine):
        def made(self, sizes: Sequence[int]) -> list[Ledger]:
            return [_Spendthrift()]

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=settings(EXAMPLES, phases=[Phase.generate]))
