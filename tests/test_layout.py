"""The package as a house: its rooms do not depend on each other in a circle, and few files lie loose."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

import pscx

ROOT = Path(pscx.__file__).parent
LOOSE = 5  # Python files at the top of the package
CLASS_LINES, FUNCTION_LINES = 150, 50


def module_of(file: Path) -> str:
    parts = ("pscx", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imported(file: Path) -> set[str]:
    """Modules of pscx that a file imports anywhere, for types alone or in a function too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & MODULES.keys() - {module_of(file)}


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Names along a circle of arrows, or nothing."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for following in sorted(arrows.get(name, ())):
            found = walk(following, [*way, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, []))), [])


def within_package(name: str) -> str:
    """The room of a module: ``pscx.samplers.ddrm`` lies in ``pscx.samplers``."""
    return ".".join(name.split(".")[:2])


def arrows_of_modules() -> dict[str, set[str]]:
    # A package's __init__ re-exports what lies in it: an arrow from it to its own modules is no dependency.
    def apart(name: str, other: str) -> bool:
        return not other.startswith(f"{name}.") and not name.startswith(f"{other}.")

    return {name: {other for other in imported(file) if apart(name, other)} for name, file in MODULES.items()}


def test_no_module_is_imported_in_a_circle() -> None:
    assert circle(arrows_of_modules()) == []


def test_no_room_depends_on_itself_through_others() -> None:
    rooms: dict[str, set[str]] = {}
    for name, others in arrows_of_modules().items():
        if name != "pscx":
            rooms.setdefault(within_package(name), set()).update(
                {within_package(other) for other in others} - {within_package(name), "pscx"}
            )
    assert circle(rooms) == []


def test_few_files_lie_loose() -> None:
    assert len(list(ROOT.glob("*.py"))) <= LOOSE


def test_classes_and_functions_are_short() -> None:
    long = set()
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
                if (node.end_lineno or node.lineno) - node.lineno + 1 > limit:
                    long.add(f"{module}.{node.name}")
    assert long == set()


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c", "b"]),
        ({"a": {"a"}}, ["a", "a"]),
    ],
)
def test_circles_are_found(arrows: dict[str, set[str]], expected: list[str]) -> None:
    assert circle(arrows) == expected
