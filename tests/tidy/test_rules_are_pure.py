from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.tidy.source import ROOT, SERVICES, modules, name, parsed

# What makes a rule's answer depend on something that is not among its arguments. What it may not reach through
# others is import-linter's list, in pyproject.toml.
IMPURE = {"asyncio", "os", "random", "socket", "subprocess", "threading", "time"}
ENVIRONMENT = {"environ", "getenv", "putenv"}
# Matters between a process and its parent or child, and no settings: which pipe a supervisor listens on, and
# what a Python needs to start.
FAMILY = {
    SERVICES / "chassis" / "process.py",
    SERVICES / "provider_pool" / "adapters" / "sandbox" / "render_farm.py",
}


def _rules() -> list[Path]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (rules,) = (contract for contract in contracts if contract["id"] == "rules")
    patterns = [pattern.replace(".", "/") + ".py" for pattern in rules["source_modules"]]
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern)})


def _imported(tree: ast.AST) -> set[str]:
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", _rules(), ids=name)
def test_a_rule_depends_on_its_arguments_only(path: Path) -> None:
    assert {module for module in _imported(parsed(path)) if module.split(".")[0] in IMPURE} == set()


def test_only_main_reads_the_environment() -> None:
    readers = [
        f"{name(path)}:{node.lineno}"
        for path in modules()
        if path.is_relative_to(SERVICES) and path.name != "__main__.py" and path not in FAMILY
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) == "os"
    ]
    assert readers == []


def test_every_setting_is_found_under_the_house_s_prefix() -> None:
    strangers = [
        f"{name(path)}:{node.lineno} {ast.unparse(node.args[0])}"
        for path in modules()
        if path.is_relative_to(SERVICES)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "setting" and node.args
        if not ast.unparse(node.args[0]).strip("'\"").startswith("ATELIER_")
    ]
    assert strangers == []
