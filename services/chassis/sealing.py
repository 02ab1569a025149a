"""Secrets at rest: every value has a data key of its own, wrapped by a key of the ring, both AES-256-GCM.

What is sealed is bound to a purpose and to the id of its row, so that a sealed value copied to another row does not
open. The ring is a file of lines `<key id> <base64 of 32 bytes>`; the first seals, all of them open, and `rewrap`
moves a value to the first without touching what is sealed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.chassis.settings import SettingsError

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_WRAPPED_BYTES: Final = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class SealBroken(Exception):
    """A sealed value does not open: changed, moved to another row, or sealed under a key that is not in the ring."""


class SealingKeys:
    """The keys that wrap data keys. Printing one shows nothing of it."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by id, the sealing one first. Raises ValueError if there is none or one has not 32 bytes."""
        if not keys or any(len(key) != _KEY_BYTES for key in keys.values()):
            raise ValueError("a key ring needs at least one key, and every key has 32 bytes")
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.sealing_key_id = next(iter(keys))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ring. Raises SettingsError with every line that is wrong."""
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as fault:
            raise SettingsError(
                [f"the key ring {path} cannot be read ({fault.__class__.__name__})"]
            ) from None
        return cls.read(lines, f"the key ring {path}")

    @classmethod
    def read(cls, lines: Iterable[str], source: str) -> Self:
        """A ring from its lines. Raises SettingsError with every one that is wrong; `source` is what it calls them."""
        keys: dict[str, bytes] = {}
        faults = []
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#") and not _read_key(line, keys):
                faults.append(f"{source}: line {number} is not '<key id> <base64 of 32 bytes>'")
        if not keys and not faults:
            faults.append(f"{source} holds no key")
        if faults:
            raise SettingsError(faults)
        return cls(keys)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Write a new ring of one key, readable by its owner only. Raises FileExistsError rather than replace one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        key_id, key = f"k{secrets.token_hex(4)}", secrets.token_bytes(_KEY_BYTES)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{key_id} {base64.b64encode(key).decode()}\n")
            file.flush()
            os.fsync(file.fileno())
        return cls({key_id: key})

    def seal_value(self, bound_to: bytes, plain: bytes) -> bytes:
        """`plain` as one opaque value that opens only where the same `bound_to` is named: a purpose and a row."""
        data_key, nonce = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(_NONCE_BYTES)
        body = nonce + AESGCM(data_key).encrypt(nonce, plain, bound_to)
        return self._wrapped(bound_to, data_key) + body

    def open_value(self, bound_to: bytes, sealed: bytes) -> bytes:
        """What was sealed. Raises SealBroken."""
        data_key, body = self._unwrapped(bound_to, sealed)
        try:
            return AESGCM(data_key).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise SealBroken(f"{_named(bound_to)} does not open") from None

    def rewrap_value(self, bound_to: bytes, sealed: bytes) -> bytes:
        """The same under the sealing key of this ring. Raises SealBroken."""
        data_key, body = self._unwrapped(bound_to, sealed)
        return self._wrapped(bound_to, data_key) + body

    def _wrapped(self, bound_to: bytes, data_key: bytes) -> bytes:
        key_id, nonce = self.sealing_key_id.encode(), secrets.token_bytes(_NONCE_BYTES)
        header = _VERSION + bytes([len(key_id)]) + key_id
        return header + nonce + self._keys[self.sealing_key_id].encrypt(nonce, data_key, header + bound_to)

    def _unwrapped(self, bound_to: bytes, sealed: bytes) -> tuple[bytes, bytes]:
        header_length = 2 + (sealed[1] if len(sealed) > 1 else 0)
        body_at = header_length + _WRAPPED_BYTES
        if sealed[:1] != _VERSION or len(sealed) < body_at + _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken(f"{_named(bound_to)} is not a sealed value")
        header, wrapped = sealed[:header_length], sealed[header_length:body_at]
        key = self._keys.get(header[2:].decode("ascii", "replace"))
        if key is None:
            raise SealBroken(f"{_named(bound_to)} is sealed under a key that is not in the ring")
        try:
            data_key = key.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], header + bound_to)
        except InvalidTag:
            raise SealBroken(f"{_named(bound_to)} does not open") from None
        return data_key, sealed[body_at:]


def sealing_key_id(sealed: bytes) -> str:
    """The id of the key that a sealed value is wrapped under; what a rotation still has to move."""
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace") if len(sealed) > 2 else ""


def _named(bound_to: bytes) -> str:
    """What a value is bound to, purpose and row, as a person reads it."""
    return bound_to.decode("utf-8", "replace").replace("\x00", " ")


def _read_key(line: str, keys: dict[str, bytes]) -> bool:
    parts = line.split()
    if len(parts) != 2 or not _KEY_ID.fullmatch(parts[0]) or parts[0] in keys:
        return False
    try:
        key = base64.b64decode(parts[1], validate=True)
    except binascii.Error:
        return False
    keys[parts[0]] = key
    return len(key) == _KEY_BYTES
