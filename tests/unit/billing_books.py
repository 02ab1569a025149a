"""The ledger's rules with memory for a database, and operations to feed them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from services.billing import ledger
from services.billing.ledger import Entry, HoldRow, Receipt, Result, Wallet
from services.billing.operations import Capture, Expire, Grant, Hold, Operation, Quote, Release, WalletId
from services.billing.spending import Counts, KeyLine, SpendId, SpendLimits, periods

ANN, BEN, EVE = WalletId("ann", "live"), WalletId("ben", "live"), WalletId("eve", "live")
STRANGER = WalletId("nobody", "live")
STOREFRONT = "shop"
PRICE_VERSION = "1+cafe"
T0_MS = 1_000_000
HOUR_MS = 3_600_000
# Two keys of one line, the second in the place of the first, and one of somebody else.
LINES = {
    "k_ann": KeyLine(ANN, "k_ann", SpendLimits(8, 20)),
    "k_ann2": KeyLine(ANN, "k_ann", SpendLimits(8, 20)),
    "k_ben": KeyLine(BEN, "k_ben", SpendLimits(0, 9)),
}


def wallet(wallet_id: WalletId, balance_millis: int = 0, *, active: bool = True) -> Wallet:
    return Wallet(wallet_id, STOREFRONT, active, balance_millis, 0, 0)


class MemoryBooks:
    """Rows in dictionaries; every batch is written as the store writes it."""

    def __init__(self, wallets: Iterable[Wallet]) -> None:
        self.wallets = {row.id: row for row in wallets}
        self.holds: dict[str, HoldRow] = {}
        self.journal: list[Entry] = []
        self.unbilled: list[Entry] = []
        self.lines: dict[str, KeyLine] = {}
        self.spent: dict[SpendId, int] = {}
        self._seen: dict[tuple[WalletId, str], Entry] = {}

    def limit(self, wallet_id: WalletId, limits: SpendLimits, now_ms: int = T0_MS) -> None:
        """As the store does it: the first limit begins with what the holds of the day and the month cost."""
        row = self.wallets[wallet_id]
        self.wallets[wallet_id] = row._replace(spend_limits=limits)
        mine = [hold for hold in self.holds.values() if hold.wallet == wallet_id]
        if not limits.are_set:
            self.spent = {name: n for name, n in self.spent.items() if name[:2] != (wallet_id, "")}
        elif not row.spend_limits.are_set:
            for period in {p for ms in (-300_000, 0, 300_000) for p in periods(now_ms + ms)}:
                cost = sum(
                    ledger.counted_millis(hold) for hold in mine if period in periods(hold.created_at_ms)
                )
                self.spent[SpendId(wallet_id, "", period)] = cost

    def run(self, *batch: Operation, now_ms: int = T0_MS) -> list[Result]:
        counts = Counts(self.lines, self.spent)
        results, writes = ledger.apply(batch, self.wallets, self.holds, self._seen, now_ms, counts)
        self.spent |= dict(writes.spent)
        for entry in writes.entries:
            key = (entry.wallet, entry.idempotency_key)
            assert key not in self._seen
            self._seen[key] = entry
        self.journal += writes.entries
        self.unbilled += writes.unbilled
        for hold in writes.new_holds:
            assert hold.job_id not in self.holds
            self.holds[hold.job_id] = hold
        for hold in writes.changed_holds:
            assert hold.job_id in self.holds
            self.holds[hold.job_id] = hold
        self.wallets |= {row.id: row for row in writes.wallets}
        return results

    def one(self, operation: Operation, now_ms: int = T0_MS) -> Receipt:
        [result] = self.run(operation, now_ms=now_ms)
        assert isinstance(result, Receipt), result
        return result

    def refusal(self, operation: Operation, now_ms: int = T0_MS) -> str:
        [result] = self.run(operation, now_ms=now_ms)
        assert not isinstance(result, Receipt), result
        return result.reason

    def money(self, wallet_id: WalletId = ANN) -> tuple[int, int]:
        row = self.wallets[wallet_id]
        return row.balance_millis, row.reserved_millis


def hold(
    job_id: str, amount_millis: int, wallet_id: WalletId = ANN, ttl_ms: int = 1_000, key_id: str = ""
) -> Hold:
    quote = Quote(amount_millis, PRICE_VERSION)
    return Hold(wallet_id, job_id, STOREFRONT, "thing", max(1, amount_millis), quote, ttl_ms, key_id)


def capture(job_id: str, amount_millis: int, wallet_id: WalletId = ANN) -> Capture:
    return Capture(wallet_id, job_id, amount_millis)


def release(job_id: str, wallet_id: WalletId = ANN) -> Release:
    return Release(wallet_id, job_id)


def expire(job_id: str, wallet_id: WalletId = ANN) -> Expire:
    return Expire(wallet_id, job_id)


def top_up(key: str, amount_millis: int, wallet_id: WalletId = ANN, note: str = "") -> Grant:
    return Grant(wallet_id, "top_up", amount_millis, key, note)


def adjust(key: str, amount_millis: int, wallet_id: WalletId = ANN) -> Grant:
    return Grant(wallet_id, "adjust", amount_millis, key, "")


def shown(results: Sequence[Result]) -> list[object]:
    """Results as plain values that compare equal when the answers do."""
    return [r if isinstance(r, Receipt) else (r.reason, dict(r.metadata)) for r in results]


_wallets = st.sampled_from([ANN, ANN, ANN, BEN, EVE, STRANGER])
_jobs = st.sampled_from(["j1", "j2", "j3", "j4", "j5"])
_amounts = st.integers(0, 6)
_keys = st.sampled_from(["", "", *LINES, "k_unlimited"])
_holds = st.builds(hold, _jobs, _amounts, _wallets, st.sampled_from([1, 50, 1_000]), _keys)

OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    _holds,
    _holds,
    _holds.map(lambda operation: replace(operation, quote=None, sku="unknown")),
    _holds.map(lambda operation: replace(operation, storefront="other")),
    st.builds(capture, _jobs, _amounts, _wallets),
    st.builds(capture, _jobs, _amounts, _wallets),
    st.builds(release, _jobs, _wallets),
    st.builds(expire, _jobs, _wallets),
    st.builds(top_up, st.sampled_from(["k1", "k2"]), st.integers(1, 9), _wallets),
    st.builds(adjust, st.sampled_from(["k2", "k3"]), st.integers(-9, 9).filter(bool), _wallets),
)
# Moments that follow each other; what happens in one moment may share a batch.
HISTORIES = st.lists(
    st.tuples(st.sampled_from([0, 1, 49, 60, 2_000]), st.lists(OPERATIONS, max_size=12)), max_size=8
)


def starting_wallets() -> list[Wallet]:
    return [wallet(ANN), wallet(BEN), wallet(EVE, active=False)]
