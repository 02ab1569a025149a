"""The tree as the tidy tests see it: the files a commit could hold, and the Python among them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "services"
GENERATED = SERVICES / "gen"

# Made by tools or by running the house; .gitignore names the same.
SKIPPED = {
    ".git",
    ".venv",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".import_linter_cache",
    ".hypothesis",
    "__pycache__",
    "node_modules",
    "var",
}


@cache
def files() -> tuple[Path, ...]:
    return tuple(sorted(_walk(ROOT)))


@cache
def modules() -> tuple[Path, ...]:
    """Every Python module of ours: not what protoc wrote."""
    ours = (path for path in files() if path.suffix == ".py")
    return tuple(path for path in ours if not path.is_relative_to(GENERATED))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in folder.iterdir():
        if entry.name in SKIPPED or entry.name.startswith(".gen-"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            found += _walk(entry)
        elif entry.is_file():
            found.append(entry)
    return found
