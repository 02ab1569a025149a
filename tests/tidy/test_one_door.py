from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.tidy.source import SERVICES, modules, name, parsed

# Who may open a connection to an address that a customer named: docs/decisions/0012.
DOOR = SERVICES / "chassis"
# What opens HTTP connections, and would do so past every check.
OPENERS = {"ClientSession", "TCPConnector", "aiohttp.request", "create_connection", "open_connection"}
CLIENTS = {"ftplib", "http.client", "httpx", "niquests", "pycurl", "requests", "urllib.request", "urllib3"}


def _services() -> list[Path]:
    return [path for path in modules() if path.is_relative_to(SERVICES)]


def _is_the_door(path: Path) -> bool:
    return path.parent == DOOR and path.stem.startswith("egress")


def _named(tree: ast.AST) -> set[str]:
    """Names, attributes by their last half and after a plain name as a whole, and what is imported from where."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found |= {node.attr, f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else ""}
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found |= {name for alias in node.names for name in (alias.name, f"{node.module}.{alias.name}")}
    return found


def _imported(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from urllib import request` names the module in two halves.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _is_client(module: str) -> bool:
    return any(module == client or module.startswith(f"{client}.") for client in CLIENTS)


def test_only_the_door_opens_connections_of_aiohttp() -> None:
    openers = {name(path) for path in _services() if _named(parsed(path)) & OPENERS}
    assert {opener for opener in openers if not _is_the_door(SERVICES.parent / opener)} == set()
    assert openers, "the rule looks for what the door itself no longer uses"


@pytest.mark.parametrize(
    "line",
    [
        "aiohttp.ClientSession()",
        "from aiohttp import TCPConnector as C",
        "await aiohttp.request('GET', url)",
        "from aiohttp import request",
        "await loop.create_connection(protocol, host)",
    ],
)
def test_an_opener_is_recognised_however_it_is_written(line: str) -> None:
    assert _named(ast.parse(line)) & OPENERS


def test_no_other_client_of_http_is_used() -> None:
    users = {
        name(path): sorted(filter(_is_client, _imported(parsed(path))))
        for path in _services()
        if any(map(_is_client, _imported(parsed(path))))
    }
    assert users == {}


@pytest.mark.parametrize(
    "line",
    ["import requests", "from urllib import request", "import urllib.request as r", "from httpx import get"],
)
def test_a_client_is_recognised_however_it_is_imported(line: str) -> None:
    assert any(map(_is_client, _imported(ast.parse(line))))


def test_no_limit_of_pixels_is_lifted() -> None:
    lifted = [
        f"{name(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(parsed(path))
        if _lifts_the_limit(node)
    ]
    assert lifted == []


@pytest.mark.parametrize(
    "line",
    ["Image.MAX_IMAGE_PIXELS = None", "MAX_IMAGE_PIXELS: int | None = None", "a = b.MAX_IMAGE_PIXELS = None"],
)
def test_a_lifted_limit_is_recognised_however_it_is_written(line: str) -> None:
    assert any(map(_lifts_the_limit, ast.walk(ast.parse(line))))


def _lifts_the_limit(node: ast.AST) -> TypeGuard[ast.stmt]:
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    to_none = isinstance(node.value, ast.Constant) and node.value.value is None
    return to_none and any("MAX_IMAGE_PIXELS" in ast.unparse(target) for target in targets)
