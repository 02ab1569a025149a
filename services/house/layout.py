"""The folder of a house: where things lie, which keys it needs, and who may use it."""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.chassis.errors import Kind, ServiceError

_KEY_BYTES = 32
_FOLDERS = (
    "billing",
    "jobs",
    "provider_pool",
    "media",
    "references",
    "results",
    "sandbox",
    "outbox",
    "logs",
    "keys",
)
_SECRETS = ("api_key_pepper", "media_signing", "access_tokens", "simulated_accounts")
_RINGS = ("vault_ring", "webhook_ring")


@dataclass(frozen=True)
class Layout:
    """Paths below one folder (`var`), all of them absolute."""

    root: Path

    def database(self, service: str) -> Path:
        return self.root / service / f"{service}.db"

    def log(self, service: str) -> Path:
        return self.root / "logs" / f"{service}.log"

    def key(self, name: str) -> Path:
        return self.root / "keys" / name

    @property
    def media(self) -> Path:
        return self.root / "media"

    @property
    def references(self) -> Path:
        return self.root / "references"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def sandbox(self) -> Path:
        return self.root / "sandbox"

    @property
    def simulator_state(self) -> Path:
        return self.root / "simulator.json"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def demo(self) -> Path:
        return self.root / "demo.json"


def take_possession(root: Path) -> tuple[Layout, IO[str]]:
    """Makes the folder, locks it, and creates the keys that are missing.

    Returns the layout and the lock, which is held while it is open. Raises ServiceError with one
    sentence where the folder cannot be written or another house lives in it.
    """
    layout = Layout(root.absolute())
    try:
        for folder in (root, *(root / name for name in _FOLDERS)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (layout.root / "house.lock").open("a", encoding="utf-8")
        _make_missing_keys(layout)
    except OSError as fault:
        raise _unusable(
            f"cannot write to the folder {layout.root}: {fault.strerror}; set ATELIER_VAR"
        ) from fault
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise _unusable(f"another house is running in {layout.root}; stop it, or set ATELIER_VAR") from None
    return layout, lock


def write_privately(path: Path, text: str) -> None:
    """Replaces a file in one step; only its owner may read it."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _make_missing_keys(layout: Layout) -> None:
    for name in _SECRETS:
        if not layout.key(name).exists():
            write_privately(layout.key(name), secrets.token_hex(_KEY_BYTES) + "\n")
    for name in _RINGS:
        if not layout.key(name).exists():
            key = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
            write_privately(layout.key(name), f"k1 {key}\n")


def _unusable(sentence: str) -> ServiceError:
    return ServiceError(Kind.FAILED_PRECONDITION, "HOUSE_UNUSABLE", sentence)
