"""What a simulator keeps from one run to the next."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from services.chassis.settings import SettingsError
from services.simulator.accounts import Account, Usual
from services.simulator.drawings import Drawing, Film, Picture, Sound, Text
from services.simulator.faults import Fault
from services.simulator.files import File
from services.simulator.tasks import Charge, State, Task
from services.simulator.world import World

# Between two looks whether there is something new to keep.
_INTERVAL_S: Final = 2.0
# The latest ones: of older tasks nobody asks again after a restart.
_TASKS_KEPT: Final = 2_000
_ACCOUNT: Final = (
    "provider",
    "key",
    "label",
    "balance",
    "concurrency",
    "overflow",
    "plan",
    "latency_s",
    "options",
)
_RULE: Final = ("fault", "provider", "key", "calls", "share", "times", "after", "until", "value")
_DRAWINGS: Final[Mapping[str, type[Film | Picture | Sound | Text]]] = {
    kind.__name__: kind for kind in (Film, Picture, Sound, Text)
}


class Kept:
    """The file that holds accounts, faults and tasks; without one, nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._written = ""

    async def load(self, world: World) -> None:
        """Raises SettingsError for a file that is not one of ours."""
        if self._file is None or not self._file.exists():
            return
        try:
            whole = json.loads(await asyncio.to_thread(self._file.read_text, "utf-8"))
            for account in whole["accounts"]:
                _restore_account(world, account)
            for rule in whole["faults"]:
                world.faults.add(rule, world.now_ms())
            for shown in whole["tasks"]:
                _restore_task(world, shown)
        except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as fault:
            sentence = f"ATELIER_SIMULATOR_STATE_FILE names a file that is not usable: {fault!r}"
            raise SettingsError([sentence]) from fault

    @asynccontextmanager
    async def saving(self, world: World) -> AsyncIterator[None]:
        """Keeps the file up to date while entered."""
        if self._file is None:
            yield
            return
        task = asyncio.create_task(self._again_and_again(world, self._file), name="simulator-state")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._save(world, self._file)

    async def _again_and_again(self, world: World, file: Path) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self._save(world, file)

    def _save(self, world: World, file: Path) -> None:
        text = json.dumps(_whole(world))
        if text == self._written:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
        self._written = text


def _whole(world: World) -> dict[str, Any]:
    rules = world.faults.rules()
    accounts = []
    for account in world.accounts.all():
        shown = account.as_json()
        mine = [_rule(r.as_json()) for r in rules if r.is_of_account and r.key == account.key]
        money = {"balance": _text(account.balance), "charged": str(account.charged)}
        accounts.append({name: shown[name] for name in _ACCOUNT} | money | {"faults": mine})
    return {
        "accounts": accounts,
        "faults": [_rule(r.as_json()) for r in rules if not r.is_of_account],
        "tasks": [_task(task) for task in world.tasks.all()[-_TASKS_KEPT:]],
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


def _rule(shown: dict[str, Any]) -> dict[str, Any]:
    return {name: shown[name] for name in _RULE if shown[name] is not None}


def _restore_account(world: World, shown: dict[str, Any]) -> None:
    faults, charged = shown.pop("faults"), shown.pop("charged")
    account = world.accounts.add(shown, Usual())
    account.charged = Decimal(charged)
    world.faults.of_account(account.provider, account.key, faults, world.now_ms())


def _task(task: Task) -> dict[str, Any]:
    shown = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    return shown | {
        "account": [task.provider, task.account.key],
        "cost": str(task.cost),
        "charged": str(task.charged),
        "drawings": [_drawing(drawing) for drawing in task.drawings],
        "faults": sorted(task.faults),
        "files": [
            [file.token, _drawing(file.drawing), file.expires_ms, file.has_wrong_type] for file in task.files
        ],
    }


def _drawing(drawing: Drawing) -> list[Any]:
    return [type(drawing).__name__, dataclasses.asdict(drawing)]


def _drawn(kept: list[Any]) -> Drawing:
    return _DRAWINGS[kept[0]](**kept[1])


def _restore_task(world: World, shown: dict[str, Any]) -> None:
    account = world.accounts.find(*shown["account"])
    if account is None:
        return
    files = [_file(account, *kept) for kept in shown["files"]]
    known = {
        "account": account,
        "cost": Decimal(shown["cost"]),
        "charged": Decimal(shown["charged"]),
        "charge": Charge(shown["charge"]),
        "state": State(shown["state"]),
        "drawings": tuple(map(_drawn, shown["drawings"])),
        "faults": frozenset(map(Fault, shown["faults"])),
        "files": files,
    }
    for file in files:
        world.files.restore(file)
    world.tasks.restore(Task(**(shown | known)))


def _file(account: Account, token: str, drawing: list[Any], expires_ms: int | None, wrong: bool) -> File:
    return File(token, account.provider, account.key, _drawn(drawing), expires_ms, wrong)
