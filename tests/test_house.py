"""The rules of the house: who may import whom, what stands at the top, how long things get, what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import secateur
from tests.import_graph import circle, imported, imports, modules, public_names, syntax, upward

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("backbones", "scoring", "search")
# The floors of the house, the lowest first. Each room may import the floors below it, and nothing else of ours.
FLOORS = (
    ("backbones",),
    ("scoring",),
    ("search", "search.formatting", "search.checks"),
    ("search.data",),
    ("search.space",),
    ("search.training", "search.review"),
    ("search.study",),
    ("search.run",),
    ("search.evaluate", "search.compare"),
    ("search.commands",),
    ("search.cli",),
)
TOP = {
    "backbones", "scoring", "search", "studies", "tests", "secateur.py", "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "LICENSE", "Makefile", "constraints.txt", "pyproject.toml", ".gitignore", ".ci",
}  # fmt: skip
STUB = ROOT / "search/typing/secateur-stubs/__init__.pyi"
LINES_A_FILE = {"tests": 600}  # 400 elsewhere
LINES_A_FUNCTION = 70
# Names that several files define, and why.
SEVERAL = {
    "BACKBONES": "each architecture's part of the registry, joined in backbones/registry.py",
    "RULES": "each file's part of the rules of the trace, joined in backbones/rules/__init__.py",
    "Ints": "an alias of numpy's, equal everywhere", "Floats": "likewise",
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def graph() -> dict[str, frozenset[str]]:
    return {name: found for name, found in imports(ROOT, PACKAGES).items() if not name.startswith("search.typing")}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(graph()) == []


def test_every_import_points_down() -> None:
    assert upward(graph(), FLOORS) == []


def test_the_floors_name_every_room() -> None:
    rooms = {room for floor in FLOORS for room in floor}
    standing = {f"search.{path.stem}" for path in (ROOT / "search").iterdir() if not path.name.startswith("_")}
    assert rooms == {*PACKAGES, *standing} - {"search.typing", "search.py"}


def test_no_room_knows_the_public_face_the_tests_or_the_studies() -> None:
    for path in sources(*PACKAGES):
        found = {module.partition(".")[0] for _, module, _ in imported(syntax(path))}
        assert not found & {"secateur", "tests", "studies"}, path


CIRCLES = {
    "inside a function": ("def later():\n    from house.two import b\n", "from house.one import a\n"),
    "for types": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.two import b\n",
        "import house.one\n",
    ),
}


@pytest.mark.parametrize("kind", CIRCLES)
def test_a_circle_is_found_wherever_the_import_stands(tmp_path: Path, kind: str) -> None:
    house = tmp_path / "house"
    house.mkdir()
    one, two = CIRCLES[kind]
    (house / "__init__.py").write_text("")
    (house / "one.py").write_text(one)
    (house / "two.py").write_text("")
    assert circle(imports(tmp_path, ["house"])) == []
    (house / "two.py").write_text(two)
    assert set(circle(imports(tmp_path, ["house"]))) == {"house.one", "house.two"}


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    for room in ("low", "beside", "high"):
        (tmp_path / "house" / room).mkdir(parents=True)
        (tmp_path / "house" / room / "part.py").write_text("")
    floors = (("house.low",), ("house.beside", "house.high"))
    (tmp_path / "house/high/part.py").write_text("from house.low.part import value\n")
    assert upward(imports(tmp_path, ["house"]), floors) == []
    (tmp_path / "house/low/part.py").write_text("def later():\n    import house.high.part\n")
    (tmp_path / "house/beside/part.py").write_text("from house.high import part\n")
    assert upward(imports(tmp_path, ["house"]), floors) == [
        "house.beside.part imports house.high.part",
        "house.low.part imports house.high.part",
    ]


def test_no_public_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for module, path in modules(ROOT, PACKAGES).items():
        for name in public_names(syntax(path)):
            places[name].append(module)
    several = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in several.items() if name not in SEVERAL} == {}
    assert SEVERAL.keys() <= several.keys(), "the list of exceptions names one that is none"


def test_the_tests_have_a_folder_for_each_room() -> None:
    for package in PACKAGES:
        assert (ROOT / "tests" / package).is_dir()
    rooms = {path.name for path in (ROOT / "search").iterdir() if (path / "__init__.py").is_file()}
    held = {path.parent.name for path in (ROOT / "tests/search").glob("*/test_*.py")}
    assert held == rooms


@pytest.mark.parametrize(("room", "library"), [("backbones", "optuna"), ("scoring", "optuna")])
def test_rooms_that_know_nothing_of_the_search(room: str, library: str) -> None:
    for path in sources(room):
        assert library not in {module.partition(".")[0] for _, module, _ in imported(syntax(path))}


@pytest.mark.parametrize("library", ["torchvision", "timm", "pandas", "onnx", "PIL"])
def test_optional_libraries_are_never_imported_at_module_level(library: str) -> None:
    for path in sources(*PACKAGES):
        top = [node for node in syntax(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = imported(ast.Module(list(top), []))
        assert library not in {module.partition(".")[0] for _, module, _ in found}, path


def test_only_the_known_things_stand_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {line.partition("/")[0] for line in listed.stdout.splitlines()} <= TOP


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert [path for path in sources(*PACKAGES) if path.stem in {"utils", "helpers", "misc", "common"}] == []


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in sources("backbones", "scoring", "search", "tests"):
        lines = len(path.read_text().splitlines())
        if lines > LINES_A_FILE.get(path.relative_to(ROOT).parts[0], 400):
            long.append(f"{path}: {lines} lines")
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                if (node.end_lineno or 0) - (start or 0) >= LINES_A_FUNCTION:
                    long.append(f"{path}: {node.name}")
    assert long == []


def test_the_public_list_is_complete_and_documented() -> None:
    assert len(set(secateur.__all__)) == len(secateur.__all__)
    tree = syntax(ROOT / "secateur.py")
    taken = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES
        for alias in node.names
    }
    assert taken - {"VERSION"} | {"__version__"} == set(secateur.__all__)
    for name in secateur.__all__:
        assert name == "__version__" or getattr(secateur, name).__doc__, name


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    def reexports(path: Path) -> dict[str, str]:
        return {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in syntax(path).body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }

    face = reexports(ROOT / "secateur.py")
    del face["Path"], face["VERSION"]
    assert reexports(STUB) == face
    [listed] = [node for node in syntax(STUB).body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(listed.value) == secateur.__all__


def test_a_plain_folder_of_the_users_does_not_stand_in_front_of_a_checkout(tmp_path: Path) -> None:
    for room in PACKAGES:
        (tmp_path / room).mkdir()
        (tmp_path / room / "mine.py").touch()
    lines = (
        "import importlib.util as machinery, sys",
        f"sys.path[0] = {str(tmp_path)!r}",
        "sys.modules['torch'] = None",  # the import ends there, long before all of it is loaded
        # as editable installs do
        f"spec = machinery.spec_from_file_location('secateur', {str(ROOT / 'secateur.py')!r})",
        "try: spec.loader.exec_module(machinery.module_from_spec(spec))",
        "except ImportError as error: print(error)",
        f"print(*(machinery.find_spec(room).origin for room in {PACKAGES!r}))",
    )
    done = subprocess.run([sys.executable, "-I", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    found = [str(ROOT / room / "__init__.py") for room in PACKAGES]
    assert done.stdout.splitlines() == ["import of torch halted; None in sys.modules", " ".join(found)]


def test_a_folder_of_the_users_in_front_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "scoring").mkdir()
    (tmp_path / "scoring" / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import secateur"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: secateur needs its own package 'scoring' from ")
    assert f"Python finds {tmp_path / 'scoring'}" in last
