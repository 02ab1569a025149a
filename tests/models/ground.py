"""What a stateful model stands on: one event loop, one database opened several times, clocks that are set by hand.

Hypothesis calls its rules one after another and synchronously; the stores are asynchronous and keep connections
that belong to a loop. So all examples of a test share one loop and the opened databases, and each finds them empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from sqlalchemy import Connection, MetaData

from services.chassis.database import Database, migrate
from services.chassis.storage_failures import commit_outcome_unknown

T = TypeVar("T")
Cut = Literal["", "before", "after"]

# Most transactions go well.
_CUT: Final[tuple[Cut, ...]] = ("", "before", "after")
CUTS: Final = st.just(()) | st.just(()) | st.lists(st.sampled_from(_CUT), max_size=2).map(tuple)

SPACIOUS: Final = 3
"""Databases opened on PostgreSQL: as many processes as meet on one row at once in practice."""


def bounded(share: float) -> settings:
    """The profile in force, with `share` of its examples: `--hypothesis-profile=thorough` looks further."""
    profile = settings()
    return settings(
        profile,
        max_examples=max(1, int(profile.max_examples * share)),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def searching(examples: int) -> settings:
    """For finding a planted bug: any example will do, so that nothing is made smaller or remembered."""
    return settings(
        bounded(1),
        max_examples=examples,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        print_blob=False,
    )


# Of the loop that runs in this task; None where sleeping is not counted.
_turns_left: ContextVar[int | None] = ContextVar("turns_left", default=None)


def explore(machine: Callable[[], RuleBasedStateMachine], how: settings) -> None:
    """Lets the machine run into whatever it can. Raises what its rules and invariants raise."""
    # Hypothesis calls what it is given, and says in its annotation that this is a class.
    run_state_machine_as_test(cast("type[RuleBasedStateMachine]", machine), settings=how)


class TurnOverError(Exception):
    """A loop that runs for ever has run once."""


class HandClock:
    """A process's clocks, moved by hand. `sleep` lets a loop that runs for ever have as many turns as it was given."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = now_ms
        self.steady_ms = 0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return self.steady_ms / 1000

    async def sleep(self, delay_s: float) -> None:
        left = _turns_left.get()
        if left == 0:
            raise TurnOverError
        if left is not None:
            _turns_left.set(left - 1)
        await asyncio.sleep(0)

    async def one_turn(self, loop: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Runs a loop that begins each turn with a sleep, for one turn."""
        before = _turns_left.set(1)
        try:
            await loop()
        except TurnOverError:
            return
        finally:
            _turns_left.reset(before)
        raise AssertionError("a loop that runs for ever has ended")


class CutDatabase(Database):
    """A process's way to the database.

    `cuts` says of its next transactions, one after another, whether the connection breaks at COMMIT, and whether
    that COMMIT happens ("after") or not ("before").
    """

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.dialect = inner.dialect
        # Several workers share one SQLite here, and only a restart is alone with it.
        self.sole_owner = False
        self.cuts: list[Cut] = []

    async def read(self, work: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        return await self._inner.read(work, snapshot=snapshot)

    async def write(self, work: Callable[[Connection], T]) -> T:
        cut = self.cuts.pop(0) if self.cuts else ""
        if cut == "before":
            raise commit_outcome_unknown()
        result = await self._inner.write(work)
        if cut == "after":
            raise commit_outcome_unknown()
        return result

    async def close(self) -> None:
        """The connections are the ground's; a process that ends leaves them open for the next one."""


class Ground:
    """Enter it to get a loop; `prepare` migrates and opens the database."""

    def __init__(self, url: str, processes: int) -> None:
        self.url = url
        self.databases: list[Database] = []
        # What the database takes for the time, where a model sets it.
        self.database_ms = 0
        self._processes = 1 if url.startswith("sqlite") else processes
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._close())
        self._runner.__exit__(kind, error, trace)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Drives `work` to its end on the one loop."""
        return self._runner.run(work)

    def prepare(self, migrations: Path) -> None:
        """Makes the tables and opens the database."""
        self.run(self._open(migrations))

    def clear(self, metadata: MetaData) -> None:
        """Empties every table."""

        def work(connection: Connection) -> None:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())

        self.run(self.databases[0].write(work))

    def process(self, number: int) -> CutDatabase:
        """The database as one process has it."""
        return CutDatabase(self.databases[number % len(self.databases)])

    def read(self, work: Callable[[Connection], T]) -> T:
        """What is committed now, in one snapshot."""
        return self.run(self.databases[0].read(work, snapshot=True))

    async def _open(self, migrations: Path) -> None:
        await migrate(self.url, migrations)
        for _ in range(self._processes):
            self.databases.append(await Database.open(self.url, application_name="model"))

    async def _close(self) -> None:
        for database in self.databases:
            await database.close()
