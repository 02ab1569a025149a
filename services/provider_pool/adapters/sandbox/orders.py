"""What the sandbox provider remembers: a file for every order it took, in a folder for every account.

This is the provider's own memory, not the pool's: the pool finds out about it only through the adapter's calls, as it would
with a provider across the network. Files appear whole, so that a killed process leaves no half order behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from services.provider_pool.adapters.interface import Generation, OutputRef, ReferenceRole, Strength

KEPT_S: Final = 86_400.0
"""Orders that nobody collected are forgotten after a day, as a provider's would be."""

_CACHED_ORDERS: Final = 50_000
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Ending(StrEnum):
    """How an order ends."""

    WELL = "well"
    FAILED = "failed"
    NEVER = "never"
    BAD_OUTPUT = "bad_output"


@dataclass(frozen=True, slots=True)
class Upload:
    """A reference that came with an order, by its content, what it is for, and how closely it is to be followed."""

    sha256: str
    strength: Strength
    role: ReferenceRole = ReferenceRole.IMAGE
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """One task that the provider took. `outputs` is empty until everything is drawn.

    `generation` is without its references: what came of them are the `uploads`.
    """

    task_id: str
    account_id: str
    generation: Generation
    accepted_at_ms: int
    pace_ms: int
    ending: Ending
    instant: bool = False
    outputs: tuple[OutputRef, ...] = ()
    uploads: tuple[Upload, ...] = ()


class OrderBook:
    """All orders. Its methods touch the disk: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "orders"
        self._uploads = folder / "uploads"
        self._known: OrderedDict[str, Order] = OrderedDict()

    def add(self, order: Order, uploads: Sequence[Path] = ()) -> None:
        """Take an order with copies of its uploads' files, which may be left out where nothing will be drawn.

        Raises OSError, FileNotFoundError if an upload is gone; the order is not taken then.
        """
        try:
            if uploads:
                self._copy(uploads, self.upload_paths(order))
            self._create(order)
        except OSError:
            self._remove_uploads(order)
            raise

    def upload_paths(self, order: Order) -> list[Path]:
        """Where the files of an order's uploads are; the same content is kept once."""
        names = [f"{order.task_id}-{upload.sha256}" for upload in order.uploads]
        if not all(map(_SAFE_NAME.fullmatch, names)):
            raise ValueError("an upload's hash becomes a file name and must be letters, digits, '-' or '_'")
        return [self._uploads / name for name in names]

    def find(self, account_id: str, task_id: str) -> Order | None:
        """An order of this account, or None if there is none (any more)."""
        if not (_SAFE_NAME.fullmatch(account_id) and _SAFE_NAME.fullmatch(task_id)):
            return None
        known = self._known.get(task_id)
        if known is not None:
            return known if known.account_id == account_id else None
        order = _read(self._path(account_id, task_id))
        if order is not None:
            self._remember(order)
        return order

    def recall(self, account_id: str, task_id: str) -> Order | None:
        """The same where that needs no look at the disk; None where it does. The one method that needs no thread."""
        known = self._known.get(task_id)
        return known if known is not None and known.account_id == account_id else None

    def finish(self, order: Order, outputs: tuple[OutputRef, ...]) -> Order:
        """Note that everything is drawn."""
        done = replace(order, outputs=outputs)
        self._write(done)
        return done

    def since(self, account_id: str, since_ms: int) -> list[Order]:
        """The account's orders taken at or after a time, oldest first."""
        if not _SAFE_NAME.fullmatch(account_id):
            return []
        paths = (self._folder / account_id).glob("*.json")
        found = [
            order for order in map(_read, paths) if order is not None and order.accepted_at_ms >= since_ms
        ]
        return sorted(found, key=lambda order: (order.accepted_at_ms, order.task_id))

    def remove(self, account_id: str, task_id: str) -> None:
        """Forget an order and its files."""
        order = self.find(account_id, task_id)
        self._known.pop(task_id, None)
        for output in order.outputs if order is not None else ():
            if output.location:
                Path(output.location).unlink(missing_ok=True)
        if order is not None:
            self._remove_uploads(order)
        self._path(account_id, task_id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Forget orders that are older than KEPT_S."""
        before_s = time.time() - KEPT_S
        for path in self._folder.glob("*/*.json"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before_s:
                    self.remove(path.parent.name, path.stem)
        for path in self._uploads.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                # Of an order that a crash kept from being written.
                if path.stat().st_mtime < before_s:
                    path.unlink()

    def _copy(self, sources: Sequence[Path], targets: Sequence[Path]) -> None:
        self._uploads.mkdir(parents=True, exist_ok=True)
        for source, target in zip(sources, targets, strict=True):
            shutil.copyfile(source, target)

    def _remove_uploads(self, order: Order) -> None:
        for path in self.upload_paths(order):
            path.unlink(missing_ok=True)

    def _path(self, account_id: str, task_id: str) -> Path:
        if not (_SAFE_NAME.fullmatch(account_id) and _SAFE_NAME.fullmatch(task_id)):
            raise ValueError("an order's ids become file names and must be letters, digits, '-' or '_'")
        return self._folder / account_id / f"{task_id}.json"

    def _create(self, order: Order) -> None:
        # Straight under its name: one small write is there whole or not at all, and what is empty is no order.
        path, content = self._path(order.account_id, order.task_id), msgspec.json.encode(order)
        try:
            _write_new(path, content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(path, content)
        self._remember(order)

    def _write(self, order: Order) -> None:
        path = self._path(order.account_id, order.task_id)
        # Of an order, this process writes one version at a time; another replica may have drawn it as well.
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(msgspec.json.encode(order))
        part.replace(path)
        self._remember(order)

    def _remember(self, order: Order) -> None:
        self._known[order.task_id] = order
        self._known.move_to_end(order.task_id)
        while len(self._known) > _CACHED_ORDERS:
            self._known.popitem(last=False)


def _write_new(path: Path, content: bytes) -> None:
    # Through a buffer: one call of the system may write a part and say nothing.
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _read(path: Path) -> Order | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Order)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
