"""Every measurement, under the name by which it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from tests.bench import (
    calls,
    creates,
    finishing,
    flight,
    ledger,
    memory,
    reads,
    references,
    selection,
    stored,
    waiting,
    webhooks,
)
from tests.bench.findings import Finding, Section, of_slices
from tests.bench.peers import comparison
from tests.bench.plan import Plan

# By the engine's name in the ledger's rows, and wallets.
_LEDGER_FLOORS: Final = {
    ("sqlite", 1): 40.0,
    ("sqlite", ledger.WALLETS_SPREAD): 18.0,
    ("postgresql", 1): 20.0,
    ("postgresql", ledger.WALLETS_SPREAD): 8.0,
}
_ENGINES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

Measurement = Callable[[Plan], Awaitable[Sequence[Section]]]


async def _waiting(plan: Plan) -> list[Section]:
    return [_told("What people wait for", await waiting.measure(plan.folder, plan.slices))]


async def _references(plan: Plan) -> list[Section]:
    return [_told("Reference images, one worker", await references.measure(plan.folder, plan.slices))]


async def _ledger(plan: Plan) -> list[Section]:
    rows = await ledger.rows(plan.folder, plan.slices)
    rates = {
        (row.engine, row.design, row.wallets): [one.operations_per_s for one in row.slices] for row in rows
    }
    findings: list[Finding] = []
    for (engine, wallets), floor in _LEDGER_FLOORS.items():
        mine, base = rates[engine, "ledger", wallets], rates[engine, "baseline", wallets]
        name = "one hot wallet" if wallets == 1 else f"{wallets:,} wallets"
        what = f"hold and capture, {_ENGINES[engine]}, {name}, of one transaction a request"
        findings.append(of_slices(what, _ratios(mine, base), "×", target=floor))
    for engine, name in _ENGINES.items():
        hot, spread = rates[engine, "ledger", 1], rates[engine, "ledger", ledger.WALLETS_SPREAD]
        what = f"hot wallet against {ledger.WALLETS_SPREAD:,}, {name}"
        findings.append(of_slices(what, _ratios(hot, spread), "×", target=1.0))
    text = ledger.as_markdown(rows).split("\n", 1)[1]
    return [Section("The ledger: hold and capture, 64 clients, every commit synced", tuple(findings), text)]


def _ratios(mine: Sequence[float], base: Sequence[float]) -> list[float]:
    return [ours / theirs for ours, theirs in zip(mine, base, strict=True)]


def _told(title: str, markdown: str) -> Section:
    return Section(title, text=markdown.split("\n", 1)[1])


MEASUREMENTS: Final[dict[str, Measurement]] = {
    "create": partial(creates.measure, engines=("SQLite",)),
    "create-postgresql": partial(creates.measure, engines=("PostgreSQL",)),
    "create-followed": creates.measure_followed,
    "reads": reads.measure,
    "calls": calls.measure,
    "ledger": _ledger,
    "finishing": finishing.measure,
    "flight": flight.measure,
    "stored": stored.measure,
    "stored-postgresql": partial(stored.measure, engine="PostgreSQL"),
    "memory": memory.measure,
    "peers": comparison.measure,
    "waiting": _waiting,
    "references": _references,
    "webhooks": webhooks.measure,
    "selection": selection.measure,
}
