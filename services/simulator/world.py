"""Everything that the simulated providers share: time, chance, accounts, faults, tasks, files, records."""

from __future__ import annotations

import random
import uuid
from typing import Final

from services.chassis.clock import Clock
from services.simulator.accounts import Accounts
from services.simulator.faults import Fault, Faults
from services.simulator.files import File, Files
from services.simulator.hooks import Hooks
from services.simulator.records import Records
from services.simulator.studio import Studio
from services.simulator.tasks import Task, Tasks
from services.simulator.uploads import Uploads

# No two tasks take quite the same time: this share more or less.
_JITTER: Final = 0.1


class WorldClock:
    """The machine's time, moved on by whoever rules the simulator; it never goes back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.ahead_ms

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s() + self.ahead_ms / 1000

    async def sleep(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s)


class World:
    """One simulated world. `pace` is how many times faster than the real one work is done in it."""

    def __init__(self, clock: Clock, *, seed: int = 1, pace: float = 1.0) -> None:
        self.clock = WorldClock(clock)
        self.seed = seed
        self.pace = pace
        self.chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._names = random.Random()  # noqa: S311 - names of what nobody wants to guess
        self.accounts = Accounts()
        self.faults = Faults(seed)
        self.files = Files()
        self.records = Records()
        self.studio = Studio()
        self.hooks = Hooks(self.clock)
        self.uploads = Uploads()
        self.tasks = Tasks(self._publish)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def advance(self) -> None:
        """Lets everything happen that is due by now."""
        self.tasks.advance(self.now_ms())

    def reset(self) -> None:
        """Forgets accounts, faults, tasks and records. Links and time stay as they are."""
        for account in self.accounts.all():
            self.faults.of_account(account.provider, account.key, (), self.now_ms())
        self.accounts.clear()
        self.faults.clear()
        self.tasks.clear()
        self.records.clear()

    # Names are no part of what a seed repeats: what was named before a restart must not be met again after it.
    def new_uuid(self) -> str:
        return str(uuid.UUID(int=self._names.getrandbits(128), version=4))

    def new_word(self, length: int, letters: str = "abcdefghijklmnopqrstuvwxyz0123456789") -> str:
        return "".join(self._names.choices(letters, k=length))

    def paced_ms(self, latency_s: float) -> int:
        """How long that takes here, with the jitter that keeps tasks apart."""
        return round(1000 * latency_s / self.pace * self.chance.uniform(1 - _JITTER, 1 + _JITTER))

    def _publish(self, task: Task) -> list[File]:
        lifetime_s = task.output_lifetime_s
        expires_ms = None if lifetime_s is None else task_end_ms(task) + round(lifetime_s * 1000)
        if Fault.OUTPUT_EXPIRED in task.faults:
            expires_ms = task_end_ms(task)
        return [
            self.files.publish(
                task.provider,
                task.account.key,
                drawing,
                expires_ms=expires_ms,
                has_wrong_type=Fault.WRONG_TYPE in task.faults,
            )
            for drawing in task.drawings
        ]


def task_end_ms(task: Task) -> int:
    """When it ends if nothing interferes, in milliseconds since the epoch."""
    return (task.started_ms if task.started_ms is not None else task.created_ms) + task.length_ms
