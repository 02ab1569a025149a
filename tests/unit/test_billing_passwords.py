from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from services.billing import passwords
from services.billing.passwords import Passwords
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret

GOOD = Secret("correct horse")


async def test_a_password_is_kept_as_argon2id_and_found_again() -> None:
    kept = Passwords(passwords.argon2id())
    stored = await kept.hash(GOOD)
    parameters = extract_parameters(stored)
    assert (parameters.type, parameters.memory_cost, parameters.time_cost) == (Type.ID, 19_456, 2)
    assert GOOD.reveal() not in stored
    assert await kept.hash(GOOD) != stored
    assert await kept.compare(stored, GOOD) == (True, None)
    assert not (await kept.compare(stored, Secret("another one"))).right
    assert not (await kept.compare(None, GOOD)).right
    kept.close()


async def test_a_hash_of_weaker_parameters_is_believed_and_made_anew() -> None:
    kept = Passwords(passwords.argon2id())
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD.reveal())
    right, stronger = await kept.compare(weak, GOOD)
    assert right
    assert stronger is not None
    assert await kept.compare(stronger, GOOD) == (True, None)
    assert await kept.compare(weak, Secret("another one")) == (False, None)
    kept.close()


async def test_a_hash_that_is_none_is_never_right() -> None:
    kept = Passwords(passwords.argon2id())
    for stored in ("", "plain", "$argon2id$v=19$m=8,t=1,p=1$!!!$???"):
        assert not (await kept.compare(stored, Secret(stored or "empty one"))).right
    kept.close()


class _Slow:
    """Hashes when it is let to, and remembers how many were at it at once."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def hash(self, password: str) -> str:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.gate.wait(10)
        with self._lock:
            self.at_once -= 1
        return password

    def verify(self, stored: str, password: str, /) -> bool:
        return stored == self.hash(password)

    def check_needs_rehash(self, stored: str, /) -> bool:
        return False


async def test_a_flood_of_logins_takes_two_threads_and_is_turned_away_beyond_a_bound() -> None:
    hasher = _Slow()
    kept = Passwords(hasher)
    hasher.gate.clear()
    flood = [
        asyncio.create_task(kept.compare("x", Secret(f"password {n}")))
        for n in range(passwords.WAITING_LIMIT)
    ]
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as refusal:
        await kept.compare("x", GOOD)
    assert (refusal.value.kind, refusal.value.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    hasher.gate.set()
    await asyncio.gather(*flood)
    assert hasher.most == passwords.WORKERS
    await kept.compare("x", GOOD)
    kept.close()


@pytest.mark.parametrize(("length", "right"), [(0, False), (7, False), (8, True), (128, True), (129, False)])
def test_a_password_is_eight_to_a_hundred_and_twenty_eight_characters(length: int, right: bool) -> None:
    assert passwords.acceptable(Secret("ä" * length)) is right
