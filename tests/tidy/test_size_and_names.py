from __future__ import annotations

import ast

from tests.tidy.source import ROOT, SERVICES, modules, name, parsed

FUNCTION_LINES = 70
MODULE_LINES = 500
# Names that say nothing about their subject, so that everything ends up in them.
NAMELESS = {"utils", "util", "common", "helpers", "helper", "core", "base", "misc", "manager"}


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name} has {lines} lines"
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert long == []


def test_a_module_is_one_subject() -> None:
    long = [
        f"{name(path)} has {lines} lines"
        for path in modules()
        if (lines := len(path.read_text().splitlines())) > MODULE_LINES
    ]
    assert long == []


def test_modules_and_folders_are_nouns_of_the_domain() -> None:
    assert [
        name(path) for path in modules() if NAMELESS & {*path.relative_to(ROOT).parts[:-1], path.stem}
    ] == []


def test_every_folder_of_services_is_a_package() -> None:
    # Python finds a module in a folder without __init__.py, import-linter does not, and then checks nothing.
    folders = {
        folder
        for path in SERVICES.rglob("*.py")
        for folder in path.parents
        if folder.is_relative_to(SERVICES) and "migrations" not in folder.parts
    }
    assert [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_annotations_are_never_evaluated_at_import() -> None:
    def imports_annotations(tree: ast.Module) -> bool:
        return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)

    def only_a_docstring(tree: ast.Module) -> bool:
        return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body)

    assert [
        name(path)
        for path in modules()
        if not only_a_docstring(parsed(path)) and not imports_annotations(parsed(path))
    ] == []
