from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, files, name

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
LISTS = sorted((ROOT / "requirements").glob("*.in"))

# Where a package came from, or where somebody's checkout lies, is that machine's business. Put together from
# parts so that this file does not hold what it forbids.
MACHINE = {
    "a registry": (
        "python" + "hosted",
        "pypi" + r"\.org/simple",
        "registry" + r"\.npmjs",
        "/simple" + r"/\S*\.whl",
    ),
    "a registry option": (r"\bindex" + "-url", r"\bfind" + "-links", r"\btrusted" + "-host"),
    "a machine's folder": (r"(?<![\w.<}])/" + "work/", r"(?<![\w.<}])/" + "root/"),
}
REQUIREMENT = re.compile(r"^([a-z0-9][\w.-]*)(?:\[[\w,-]+\])?==([^\s;\\]+)", re.MULTILINE)


@pytest.mark.parametrize("kind", MACHINE)
def test_no_file_names(kind: str) -> None:
    pattern = re.compile("|".join(MACHINE[kind]).encode())
    assert [name(path) for path in files() if pattern.search(path.read_bytes())] == []


@pytest.mark.parametrize("lock", LOCKS, ids=name)
def test_a_lock_pins_every_package_by_hash_and_names_no_address(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE).strip())
    assert entries
    assert [entry for entry in entries if not REQUIREMENT.match(entry) or "--hash=sha256:" not in entry] == []
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("wanted", LISTS, ids=name)
def test_a_lock_holds_what_its_list_asks_for(wanted: Path) -> None:
    asked = set(REQUIREMENT.findall(wanted.read_text()))
    lines = [line for line in wanted.read_text().splitlines() if line and not line.startswith(("#", "-c "))]
    assert len(asked) == len(lines), "every line pins one exact version"
    assert asked <= set(REQUIREMENT.findall(wanted.with_suffix(".lock").read_text()))


def test_the_lists_agree_on_every_version_they_share() -> None:
    run, sandbox, dev = (
        set(REQUIREMENT.findall((ROOT / "requirements" / f"{kind}.lock").read_text()))
        for kind in ("run", "sandbox", "dev")
    )
    running = {package for package, _ in run | sandbox}
    assert {entry for entry in dev if entry[0] in running} <= run | sandbox
