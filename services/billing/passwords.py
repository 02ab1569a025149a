"""Passwords: hashed with Argon2id, off the event loop, a few at a time."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from prometheus_client import Counter

from services.billing import errors
from services.chassis.settings import Secret

T = TypeVar("T")

MIN_CHARACTERS: Final = 8
# Long enough for any phrase; a longer one would only cost time before it is hashed.
MAX_CHARACTERS: Final = 128

# Characters in which a keyboard may write one letter: as many as Unicode takes any apart into.
_LONGEST_SPELLING: Final = 4

# OWASP's choice for Argon2id: some 20 ms of one core. Memory is what makes a guess dear on other hardware, and
# with WORKERS of them it is what a flood of logins can take from this machine.
MEMORY_KIB: Final = 19_456
ITERATIONS: Final = 2
LANES: Final = 1
# Hashing must never take every core from the calls beside it.
WORKERS: Final = 2
# Two seconds of work; whoever comes later would not wait so long anyway.
WAITING_LIMIT: Final = 200

_HASHES = Counter(
    "atelier_billing_password_hashes_total", "Argon2id computations, by what they were for.", ["purpose"]
)


class Hasher(Protocol):
    """Argon2id with its parameters; `argon2.PasswordHasher` is one."""

    def hash(self, password: str) -> str: ...

    def verify(self, stored: str, password: str, /) -> bool:
        """Raises VerificationError where the password is another one."""

    def check_needs_rehash(self, stored: str, /) -> bool: ...


class Verdict(NamedTuple):
    """Whether the password is right, and the hash to keep in place of one made with other parameters."""

    right: bool
    new_hash: str | None = None


def acceptable(password: Secret) -> bool:
    """Whether this may be a password: its length is all that is asked of it, the same however it is typed."""
    if len(password.reveal()) > MAX_CHARACTERS * _LONGEST_SPELLING:
        return False
    return MIN_CHARACTERS <= len(_typed(password)) <= MAX_CHARACTERS


def argon2id() -> PasswordHasher:
    """The parameters in use."""
    return PasswordHasher(time_cost=ITERATIONS, memory_cost=MEMORY_KIB, parallelism=LANES)


class Passwords:
    """Hashes and compares. Every comparison costs one hash, whether or not there is something to compare with."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="passwords")
        self._waiting = 0
        # Of a password that nobody can type, with the parameters of the others.
        self._nobodys = hasher.hash("\0" * MAX_CHARACTERS)

    async def hash(self, password: Secret) -> str:
        """What is stored of a password. Raises ServiceError OVERLOADED when too many wait."""
        return await self._worked(lambda: self._hash(password))

    async def compare(self, stored: str | None, password: Secret) -> Verdict:
        """Whether `password` is the one of the hash; of None it never is, which takes as long to say.

        Raises ServiceError OVERLOADED when too many wait.
        """
        return await self._worked(lambda: self._compare(stored, password))

    def close(self) -> None:
        """Let the workers go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hash(self, password: Secret) -> str:
        _HASHES.labels("store").inc()
        return self._hasher.hash(_typed(password))

    def _compare(self, stored: str | None, password: Secret) -> Verdict:
        _HASHES.labels("compare").inc()
        try:
            self._hasher.verify(stored or self._nobodys, _typed(password))
        except (VerificationError, InvalidHashError):
            return Verdict(right=False)
        if stored is None:
            return Verdict(right=False)
        stale = self._hasher.check_needs_rehash(stored)
        return Verdict(right=True, new_hash=self._hash(password) if stale else None)

    async def _worked(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_LIMIT:
            raise errors.too_busy()
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1


def _typed(password: Secret) -> str:
    # Keyboards write the same letter in several ways.
    return unicodedata.normalize("NFC", password.reveal())
