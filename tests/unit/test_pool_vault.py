from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from services.chassis.settings import Secret, SettingsError, load
from services.provider_pool.accounts import vault
from services.provider_pool.accounts.vault import KeyRing, SealBroken
from services.provider_pool.settings import VaultSettings

OLD, NEW = b"o" * 32, b"n" * 32
CREDENTIALS = {"api_key": Secret("canary-4711"), "region": Secret("eu")}


def test_what_is_sealed_opens_again() -> None:
    ring = KeyRing({"old": OLD})
    assert ring.open("acc_1", ring.seal("acc_1", CREDENTIALS)) == CREDENTIALS


def test_the_sealed_value_shows_nothing_and_never_repeats() -> None:
    ring = KeyRing({"old": OLD})
    first, second = ring.seal("acc_1", CREDENTIALS), ring.seal("acc_1", CREDENTIALS)
    assert b"canary" not in first
    assert first != second


def test_a_value_copied_to_another_row_does_not_open() -> None:
    ring = KeyRing({"old": OLD})
    sealed = ring.seal("acc_1", CREDENTIALS)
    with pytest.raises(SealBroken):
        ring.open("acc_2", sealed)
    with pytest.raises(SealBroken):
        ring.rewrap("acc_2", sealed)


def test_any_changed_byte_breaks_the_seal() -> None:
    ring = KeyRing({"old": OLD})
    sealed = ring.seal("acc_1", CREDENTIALS)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealBroken):
            ring.open("acc_1", bytes(changed))


@pytest.mark.parametrize("length", [0, 1, 2, 10, 60, 90])
def test_a_cut_value_is_refused(length: int) -> None:
    ring = KeyRing({"old": OLD})
    with pytest.raises(SealBroken):
        ring.open("acc_1", ring.seal("acc_1", CREDENTIALS)[:length])


def test_rewrapping_moves_a_value_to_the_new_key_and_lets_the_old_one_go() -> None:
    sealed = KeyRing({"old": OLD}).seal("acc_1", CREDENTIALS)
    moved = KeyRing({"new": NEW, "old": OLD}).rewrap("acc_1", sealed)
    assert (vault.sealing_key_id(sealed), vault.sealing_key_id(moved)) == ("old", "new")
    assert KeyRing({"new": NEW}).open("acc_1", moved) == CREDENTIALS
    with pytest.raises(SealBroken):
        KeyRing({"new": NEW}).open("acc_1", sealed)


def test_the_first_key_of_a_file_seals_and_all_of_them_open(tmp_path: Path) -> None:
    file = tmp_path / "ring"
    lines = [
        "# made by hand",
        f"new {base64.b64encode(NEW).decode()}",
        f"old {base64.b64encode(OLD).decode()}",
        "",
    ]
    file.write_text("\n".join(lines))
    ring = KeyRing.load(file)
    assert ring.sealing_key_id == "new"
    assert ring.open("acc_1", KeyRing({"old": OLD}).seal("acc_1", CREDENTIALS)) == CREDENTIALS


@pytest.mark.parametrize(
    "text", ["", "k1", "k1 not-base64!", "k1 c2hvcnQ=", "k/1 " + base64.b64encode(OLD).decode()], ids=repr
)
def test_a_ring_that_cannot_be_used_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ring"
    file.write_text(text)
    with pytest.raises(SettingsError, match=str(file)):
        KeyRing.load(file)


def test_a_missing_ring_is_refused_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        KeyRing.load(tmp_path / "nothing")


def test_a_new_ring_is_for_its_owner_only_and_never_replaces_another(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "ring"
    sealed = KeyRing.create(file).seal("acc_1", CREDENTIALS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        KeyRing.create(file)
    assert KeyRing.load(file).open("acc_1", sealed) == CREDENTIALS


def ring_settings(**given: str) -> VaultSettings:
    return load(VaultSettings, {f"ATELIER_POOL_{name}": value for name, value in given.items()})


def test_a_ring_may_come_from_the_environment(tmp_path: Path) -> None:
    lines = [f"{name} {base64.b64encode(key).decode()}" for name, key in (("new", NEW), ("old", OLD))]
    ring = ring_settings(VAULT_KEY_RING=", ".join(lines)).key_ring()
    assert ring.sealing_key_id == "new"
    assert ring.open("acc_1", KeyRing({"old": OLD}).seal("acc_1", CREDENTIALS)) == CREDENTIALS


def test_what_is_wrong_with_a_ring_from_the_environment_is_told_without_a_key() -> None:
    good, bad = f"new {base64.b64encode(NEW).decode()}", f"old {base64.b64encode(OLD[:-1]).decode()}"
    with pytest.raises(SettingsError) as refusal:
        ring_settings(VAULT_KEY_RING=f"{good},{bad}").key_ring()
    assert "ATELIER_POOL_VAULT_KEY_RING: line 2" in str(refusal.value)
    assert bad.split()[1] not in str(refusal.value)


def test_two_rings_or_none_are_refused(tmp_path: Path) -> None:
    text = f"new {base64.b64encode(NEW).decode()}"
    for given in ({}, {"VAULT_KEY_RING": text, "VAULT_KEY_RING_FILE": str(tmp_path / "ring")}):
        with pytest.raises(SettingsError, match="ATELIER_POOL_VAULT_KEY_RING"):
            ring_settings(**given).key_ring(make=True)
    assert not (tmp_path / "ring").exists()
