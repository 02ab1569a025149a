"""Credentials at rest: every row has a data key of its own, wrapped by a key of the ring, both AES-256-GCM.

What is sealed is bound to the id of its row, so that a sealed value copied to another row does not open. The ring is a
file of lines `<key id> <base64 of 32 bytes>`; the first seals, all of them open, and `rewrap` moves a row to the first
without touching the credentials themselves.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.chassis.settings import Secret, SettingsError

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_WRAPPED_BYTES: Final = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PURPOSE: Final = b"atelier provider account\x00"


class SealBroken(Exception):
    """A sealed value does not open: changed, moved to another row, or sealed under a key that is not in the ring."""


class KeyRing:
    """The keys that wrap data keys. Printing one shows nothing of it."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by id, the sealing one first. Raises ValueError if there is none or one has not 32 bytes."""
        if not keys or any(len(key) != _KEY_BYTES for key in keys.values()):
            raise ValueError("a key ring needs at least one key, and every key has 32 bytes")
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.sealing_key_id = next(iter(keys))

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a ring. Raises SettingsError with every line that is wrong."""
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as fault:
            raise SettingsError(
                [f"the key ring {path} cannot be read ({fault.__class__.__name__})"]
            ) from None
        keys: dict[str, bytes] = {}
        faults = []
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#") and not _read_key(line, keys):
                faults.append(f"the key ring {path}: line {number} is not '<key id> <base64 of 32 bytes>'")
        if not keys and not faults:
            faults.append(f"the key ring {path} holds no key")
        if faults:
            raise SettingsError(faults)
        return cls(keys)

    @classmethod
    def create(cls, path: Path) -> KeyRing:
        """Write a new ring of one key, readable by its owner only. Raises FileExistsError rather than replace one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        key_id, key = f"k{secrets.token_hex(4)}", secrets.token_bytes(_KEY_BYTES)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{key_id} {base64.b64encode(key).decode()}\n")
            file.flush()
            os.fsync(file.fileno())
        return cls({key_id: key})

    def seal(self, row_id: str, credentials: Mapping[str, Secret]) -> bytes:
        """Credentials as one opaque value that opens for this row only."""
        data_key, nonce = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(_NONCE_BYTES)
        plain = json.dumps({name: secret.reveal() for name, secret in credentials.items()}).encode()
        body = nonce + AESGCM(data_key).encrypt(nonce, plain, _bound_to(row_id))
        return self._wrapped(row_id, data_key) + body

    def open(self, row_id: str, sealed: bytes) -> dict[str, Secret]:
        """The credentials of this row. Raises SealBroken."""
        data_key, body = self._unwrapped(row_id, sealed)
        try:
            plain = AESGCM(data_key).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], _bound_to(row_id))
        except (InvalidTag, ValueError):
            raise SealBroken(f"the credentials of {row_id} do not open") from None
        return {name: Secret(value) for name, value in json.loads(plain).items()}

    def rewrap(self, row_id: str, sealed: bytes) -> bytes:
        """The same credentials under the sealing key of this ring. Raises SealBroken."""
        data_key, body = self._unwrapped(row_id, sealed)
        return self._wrapped(row_id, data_key) + body

    def _wrapped(self, row_id: str, data_key: bytes) -> bytes:
        key_id, nonce = self.sealing_key_id.encode(), secrets.token_bytes(_NONCE_BYTES)
        header = _VERSION + bytes([len(key_id)]) + key_id
        return (
            header
            + nonce
            + self._keys[self.sealing_key_id].encrypt(nonce, data_key, header + _bound_to(row_id))
        )

    def _unwrapped(self, row_id: str, sealed: bytes) -> tuple[bytes, bytes]:
        header_length = 2 + (sealed[1] if len(sealed) > 1 else 0)
        body_at = header_length + _WRAPPED_BYTES
        if sealed[:1] != _VERSION or len(sealed) < body_at + _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken(f"the credentials of {row_id} are not a sealed value")
        header, wrapped = sealed[:header_length], sealed[header_length:body_at]
        key = self._keys.get(header[2:].decode("ascii", "replace"))
        if key is None:
            raise SealBroken(f"the credentials of {row_id} are sealed under a key that is not in the ring")
        try:
            data_key = key.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], header + _bound_to(row_id))
        except InvalidTag:
            raise SealBroken(f"the credentials of {row_id} do not open") from None
        return data_key, sealed[body_at:]


def sealing_key_id(sealed: bytes) -> str:
    """The id of the key that a sealed value is wrapped under; what a rotation still has to move."""
    return sealed[2 : 2 + sealed[1]].decode("ascii", "replace") if len(sealed) > 2 else ""


def _bound_to(row_id: str) -> bytes:
    return _PURPOSE + row_id.encode()


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
