"""Files that chance or malice has changed: what comes out is what was saved, or one line that says what is wrong."""

from __future__ import annotations

import json
import random
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.artefact import load, save
from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.surgery import prune
from search.review.front import load_fronts
from search.run.study_file import StudyFile, parse, read_study
from search.run.template import template
from search.study.stored import open_study, status
from search.training.recipe import Recipe
from tests.search.study.study_samples import BUDGETS, make, small_graph, small_model, small_parts

SEEDS = {"artefact": 150, "front": 125, "journal": 125, "study file": 100}
"""How many changed files of each kind are read: five hundred together."""
ABSURD: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 1e308, float("inf"), float("-inf"), float("nan"), "", "x" * 5000, "\x1b[31m\x07", [], {},
    [[]], "../../etc/passwd", 15_000_000,
)  # fmt: skip


def deep(levels: int = 3000) -> str:
    return "[" * levels + "]" * levels


def changed_bytes(content: bytes, dice: random.Random) -> bytes:
    """One byte changed, or a stretch cut out, doubled or cut off."""
    start = dice.randrange(len(content))
    end = min(len(content), start + dice.randint(1, 200))
    kind = dice.randrange(4)
    if kind == 0:
        return content[:start] + bytes([dice.randrange(256)]) + content[start + 1 :]
    return content[:start] + (b"", content[start:end] * 2, b"")[kind - 1] + (b"" if kind == 3 else content[end:])


def changed_value(value: Any, dice: random.Random) -> Any:
    """A copy in which one node, at a random place, is something absurd, missing, or of another place."""
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(sorted(value))
        rest = {name: one for name, one in value.items() if name != key}
        return rest if dice.random() < 0.1 else {**rest, key: changed_value(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], changed_value(value[place], dice), *value[place + 1 :]]
    return dice.choice(ABSURD)


def refused_or(read: Callable[[], Any]) -> Any:
    """What is read, None where it is refused in one line; any other exception fails the test."""
    try:
        return read()
    except SecateurError as error:
        said = str(error)
        assert said
        assert len(said) < 8000
        assert "\n" not in said
        assert "\x1b" not in said
        return None


def with_header(content: bytes, change: Callable[[dict[str, Any]], str]) -> bytes:
    """An artefact with another text in the place of its record."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["secateur"] = change(json.loads(header["__metadata__"]["secateur"]))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def test_artefacts(tmp_path: Path) -> None:
    model = small_model()
    pruned = prune(model, graph := small_graph(model), Structure.random(graph, keep=0.5))
    path = tmp_path / "network.safetensors"
    save(pruned, path, provenance={"accuracy": 0.5})
    content, expected = path.read_bytes(), pruned.state_dict()
    same = 0
    for seed in range(SEEDS["artefact"]):
        dice = random.Random(seed)

        def change(record: dict[str, Any], dice: random.Random = dice) -> str:
            kept = dice.random() < 0.3
            record = record if kept else {key: value for key, value in record.items() if key != "digest"}
            return deep() if dice.random() < 0.05 else json.dumps(changed_value(record, dice))

        path.write_bytes(changed_bytes(content, dice) if dice.random() < 0.3 else with_header(content, change))
        loaded = refused_or(lambda: load(path, model))
        if loaded is not None:
            same += 1
            found = loaded.state_dict()
            assert found.keys() == expected.keys()
            assert all(torch.equal(value, expected[name]) for name, value in found.items()), seed
    assert 0 < same < SEEDS["artefact"] / 2


def test_a_file_that_claims_millions_of_classes_builds_nothing(tmp_path: Path) -> None:
    from backbones.registry import build

    path = tmp_path / "network.safetensors"
    save(build("resnet20", 10), path)

    def change(record: dict[str, Any]) -> str:
        del record["digest"]
        return json.dumps({**record, "spec": {**record["spec"], "num_classes": 15_000_000_000}})

    path.write_bytes(with_header(path.read_bytes(), change))
    with pytest.raises(SecateurError, match="num_classes is 15000000000, which no tensor has"):
        load(path)


def test_fronts(tmp_path: Path) -> None:
    study = make(f"sqlite:///{tmp_path}/s.db", tmp_path, small_parts(), budget=BUDGETS["band"])
    study.search(6, progress=False)
    front = study.front()
    front.save(tmp_path)
    path = tmp_path / "front.json"
    content = path.read_bytes()
    for seed in range(SEEDS["front"]):
        dice = random.Random(seed)
        if seed % 2:
            path.write_bytes(changed_bytes(content, dice))
        else:
            path.write_text(deep() if dice.random() < 0.05 else json.dumps(changed_value(json.loads(content), dice)))
        loaded = refused_or(lambda: load_fronts(tmp_path))
        assert loaded is None or loaded[0].rows() == front.rows(), seed


def test_journals(tmp_path: Path) -> None:
    """Optuna's lines carry no hash: what is read may differ from what was written, but it is read or refused."""
    path = tmp_path / "s.log"
    study = make(f"journal:///{path}", tmp_path, small_parts(), budget=BUDGETS["band"])
    study.search(6, progress=False)
    content = path.read_bytes()
    lines = content.splitlines()
    read = 0
    for seed in range(SEEDS["journal"]):
        dice = random.Random(seed)
        if seed % 4 == 0:
            path.write_bytes(changed_bytes(content, dice))
        else:
            number = dice.randrange(len(lines))
            line = deep() if dice.random() < 0.05 else json.dumps(changed_value(json.loads(lines[number]), dice))
            path.write_bytes(b"\n".join([*lines[:number], line.encode(), *lines[number + 1 :], b""]))
        before = path.read_bytes()

        def look() -> str:
            told = str(status(f"journal:///{path}"))
            front = open_study(f"journal:///{path}").front()
            return f"{told}{front!r}{front.rows()}"

        read += refused_or(look) is not None
        assert path.read_bytes() == before
    assert read


def test_study_files(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    content = template().encode()
    table = tomllib.loads(content.decode())
    read = 0
    for seed in range(SEEDS["study file"]):
        dice = random.Random(seed)
        if seed % 2:
            path.write_bytes(changed_bytes(content, dice))
            found = refused_or(lambda: read_study(path))
        else:
            changed = changed_value(table, dice)
            found = refused_or(lambda changed=changed: parse(changed if isinstance(changed, dict) else {}, tmp_path))  # type: ignore[misc]
        assert found is None or isinstance(found, StudyFile)
        read += found is not None
    assert 0 < read < SEEDS["study file"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"name = {deep()}", "is not TOML"),
        ("[dense]\nlr = 1e308", r"\[dense\] 0 < lr <= 10000 must hold"),
        ("[retrain]\naugment = {crop = 100000000}", r"augment\.crop must be a whole number of pixels, 0 to 512"),
        ("[dense]\nclip = 1e300", r"0 <= clip <= 10000 must hold"),
        ("[data]\nsize = 1000000000", r"1 <= size <= 4096 must hold"),
    ],
)
def test_absurd_study_files_are_refused_before_anything_is_made(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "study.toml"
    section = text.split("\n", maxsplit=1)[0]
    content = template()
    path.write_text(text if "name = " in text else content.replace(f"\n{section}", f"\n{text}", 1))
    with pytest.raises(SecateurError, match=said):
        read_study(path)


def test_a_recipe_has_ends() -> None:
    for changes in ({"lr": 1e308}, {"clip": 1e300}, {"batch_size": 10**12}, {"seed": 2**70}):
        with pytest.raises(SecateurError, match=f"{next(iter(changes))} <= "):
            Recipe(**changes)
