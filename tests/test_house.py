"""The rules of the house: who may import whom, what stands at the top, how long things get, what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import secateur

ROOT = Path(__file__).resolve().parent.parent
ROOMS: dict[str, set[str]] = {"backbones": set(), "scoring": {"backbones"}, "search": {"backbones", "scoring"}}
TOP = {
    "backbones", "scoring", "search", "studies", "tests", "secateur.py", "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "LICENSE", "Makefile", "constraints.txt", "pyproject.toml", ".gitignore", ".ci",
}  # fmt: skip
STUB = ROOT / "search/typing/secateur-stubs/__init__.pyi"
LINES_A_FILE = {"tests": 600}  # 400 elsewhere
LINES_A_FUNCTION = 70


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def imported_rooms(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield node.lineno, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    forbidden = {*ROOMS, "secateur", "tests", "studies"} - ROOMS[room] - {room}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(room)
        for line, name in imported_rooms(ast.parse(path.read_text()))
        if name in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize(("room", "library"), [("backbones", "optuna"), ("scoring", "optuna")])
def test_rooms_that_know_nothing_of_the_search(room: str, library: str) -> None:
    names = {name for path in sources(room) for _, name in imported_rooms(ast.parse(path.read_text()))}
    assert library not in names


@pytest.mark.parametrize("library", ["torchvision", "timm", "pandas", "onnx", "PIL"])
def test_optional_libraries_are_never_imported_at_module_level(library: str) -> None:
    for path in sources(*ROOMS):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert library not in {name for _, name in imported_rooms(ast.Module(list(top), []))}, path


def test_only_the_known_things_stand_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {line.partition("/")[0] for line in listed.stdout.splitlines()} <= TOP


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert [path for path in sources(*ROOMS) if path.stem in {"utils", "helpers", "misc", "common"}] == []


@pytest.mark.parametrize("path", sources("backbones", "scoring", "search", "tests"), ids=lambda path: path.stem)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_A_FILE.get(path.relative_to(ROOT).parts[0], 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            assert (node.end_lineno or 0) - (start or 0) < LINES_A_FUNCTION, node.name


def test_the_public_list_is_complete_and_documented() -> None:
    assert len(set(secateur.__all__)) == len(secateur.__all__)
    tree = ast.parse((ROOT / "secateur.py").read_text())
    taken = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ROOMS
        for alias in node.names
    }
    assert taken - {"VERSION"} | {"__version__"} == set(secateur.__all__)
    for name in secateur.__all__:
        assert name == "__version__" or getattr(secateur, name).__doc__, name


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    def reexports(path: Path) -> dict[str, str]:
        return {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }

    face = reexports(ROOT / "secateur.py")
    del face["Path"], face["VERSION"]
    assert reexports(STUB) == face
    [listed] = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(listed.value) == secateur.__all__


def test_a_folder_of_the_users_in_front_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "scoring").mkdir()
    (tmp_path / "scoring" / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import secateur"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: secateur needs its own package 'scoring' from ")
    assert f"Python finds {tmp_path / 'scoring'}" in last
