"""Which file imports which, read from the text alone: imports inside functions and under TYPE_CHECKING count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

Imports = Mapping[str, frozenset[str]]
"""Module -> the modules of the same packages that it imports."""


def modules(root: Path, packages: Sequence[str]) -> dict[str, Path]:
    """Dotted name -> file of every module of the packages, which lie in `root`."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def syntax(path: Path) -> ast.Module:
    """The syntax tree of a file; parsed once, however many tests look at it."""
    return _parsed(path.read_text(encoding="utf-8"))


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def imported(tree: ast.Module) -> Sequence[tuple[int, str, str]]:
    """(line, module, name) of every import; the name is empty in `import module`."""
    return tuple(_imported(tree))


def _imported(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def imports(root: Path, packages: Sequence[str]) -> Imports:
    """What every module of the packages imports of them."""
    files = modules(root, packages)
    graph = {}
    for name, path in files.items():
        found = set()
        for _, module, part in imported(syntax(path)):
            whole = f"{module}.{part}"
            found |= {whole} & files.keys() or {module} & files.keys()
        graph[name] = frozenset(found)
    return graph


def circle(graph: Imports) -> list[str]:
    """A circle of modules that import each other, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room_of(module: str, rooms: Sequence[str]) -> str:
    """The room that a module belongs to: the longest name in `rooms` that it begins with."""
    held = [room for room in rooms if module == room or module.startswith(f"{room}.")]
    assert held, f"{module} belongs to no room"
    return max(held, key=len)


def upward(graph: Imports, floors: Sequence[Sequence[str]]) -> list[str]:
    """Imports that do not point down.

    Args:
        graph: what every module imports.
        floors: rooms, the lowest floor first; a room may import itself and the floors below, not its neighbours.
    """
    height = {room: floor for floor, rooms in enumerate(floors) for room in rooms}
    rooms = list(height)
    wrong = []
    for module, found in graph.items():
        here = room_of(module, rooms)
        for other in sorted(found):
            there = room_of(other, rooms)
            if here != there and height[there] >= height[here]:
                wrong.append(f"{module} imports {other}")
    return wrong


def public_names(tree: ast.Module) -> set[str]:
    """What a module defines at its top and does not hide: classes, functions, values."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return {name for name in found if not name.startswith("_")}
