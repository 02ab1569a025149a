from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing import keys
from services.billing.keys import Key, KeyOwner
from services.billing.prices import Limits
from services.chassis.settings import Secret

PREFIXES = frozenset({"ak_live_", "ak_test_", "ak_"})
PEPPER = Secret("p" * 32)
NOW_MS = 1_000_000
KEY = Key("key_1", "cus_1", "live", "", "ak_live_abcd", 1, 0, 0, 0)


def owner(**changes: Any) -> KeyOwner:
    return KeyOwner(replace(KEY, **changes), "d" * 64, "shop", customer_active=True, limits=Limits(1, 1, 1))


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_a_made_key_is_well_formed(prefix: str) -> None:
    key = keys.make(prefix)
    assert keys.is_well_formed(key, PREFIXES)
    assert len(key) == len(prefix) + 38
    assert key[len(prefix) :].isalnum()


def test_keys_are_never_the_same() -> None:
    assert len({keys.make("ak_live_") for _ in range(1_000)}) == 1_000


@given(st.integers(0, 37), st.sampled_from(keys.ALPHABET))
def test_one_wrong_character_is_noticed_without_a_database(place: int, character: str) -> None:
    key = keys.make("ak_live_")
    at = len("ak_live_") + place
    changed = key[:at] + character + key[at + 1 :]
    assert keys.is_well_formed(changed, PREFIXES) == (changed == key)


def test_the_prefix_is_part_of_the_checksum() -> None:
    assert not keys.is_well_formed("ak_test_" + keys.make("ak_live_")[8:], PREFIXES)


@given(st.text(max_size=200))
def test_any_text_can_be_asked_about(text: str) -> None:
    assert not keys.is_well_formed(text, PREFIXES)


def test_a_key_of_another_house_is_not_ours() -> None:
    assert not keys.is_well_formed(keys.make("zz_live_"), PREFIXES)


def test_the_digest_depends_on_the_pepper() -> None:
    key = keys.make("ak_live_")
    assert keys.digest(key, PEPPER) == keys.digest(key, PEPPER)
    assert keys.digest(key, PEPPER) != keys.digest(key, Secret("q" * 32))
    assert key not in keys.digest(key, PEPPER)


def test_the_hint_is_the_prefix_and_four_characters() -> None:
    key = keys.make("ak_live_")
    assert keys.hint(key) == key[:12]


def test_a_key_may_be_used_until_it_expires() -> None:
    assert keys.may_be_used(owner(), ["d" * 64], NOW_MS)
    assert keys.may_be_used(owner(expires_at_ms=NOW_MS + 1), ["d" * 64], NOW_MS)
    assert not keys.may_be_used(owner(expires_at_ms=NOW_MS), ["d" * 64], NOW_MS)


def test_a_revoked_key_and_another_digest_are_refused() -> None:
    assert not keys.may_be_used(owner(revoked_at_ms=1), ["d" * 64], NOW_MS)
    assert not keys.may_be_used(owner(), ["e" * 64], NOW_MS)


def test_a_use_is_recorded_once_a_minute() -> None:
    assert keys.use_is_worth_recording(KEY, 60_000)
    assert not keys.use_is_worth_recording(replace(KEY, last_used_at_ms=1), 60_000)
    assert keys.use_is_worth_recording(replace(KEY, last_used_at_ms=1), 60_001)
