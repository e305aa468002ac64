"""What an earlier secateur wrote is opened, resumed and loaded: `before/` was made by commit 8b42087.

It holds a run folder (`secateur run study.toml`, `secateur evaluate study.toml`), one of `secateur compare
compare.toml`, a journal storage, an artefact and a training that was stopped after its first epoch. Databases are kept
as SQL text, paths as `@HERE@`; pages, pictures and checkpoints of finished trainings are left out. `expected.json`
holds the trials.
"""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

import secateur
from search.cli import main
from search.study.storage import open_storage
from search.training.engine import train

BEFORE = Path(__file__).parent / "before"
FACTS = ("structure", "kept", "removed", "macs", "params", "reason", "effective")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of all that was written, where a test may go on with it."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "kept").rename(tmp_path / "runs")
    for path in (*tmp_path.rglob("*.sql"), *tmp_path.rglob("run.json"), *tmp_path.rglob("front.csv")):
        path.write_text(path.read_text().replace("@HERE@", str(tmp_path)))
    for path in tmp_path.rglob("study.sql"):
        database = sqlite3.connect(path.with_suffix(".db"))
        database.executescript(path.read_text())
        database.close()
        path.unlink()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("tiny", None)


def parts() -> tuple[nn.Module, secateur.ChannelGraph, secateur.Data]:
    """Network, graph and images of `tiny.py`, which lies in the working folder."""
    torch.manual_seed(0)
    sys.path.insert(0, "")
    try:
        from tiny import images, net  # type: ignore[import-not-found]
    finally:
        sys.path.remove("")
    model, data = net(3, 1).eval(), images()
    return model, secateur.trace(model, data.example), data


def assert_expected(trials: list[FrozenTrial], name: str) -> None:
    """The first trials of a study are those that were written before; those that followed have other aims."""
    expected = json.loads((BEFORE / "expected.json").read_text())[name]
    assert len(trials) > len(expected) > 0
    for one, then in zip(trials, expected, strict=False):
        assert (one.number, one.state.name) == (then["number"], then["state"])
        assert one.params == pytest.approx(then["params"], rel=1e-6)
        assert one.values == (then["values"] and pytest.approx(then["values"], rel=1e-4))
        now = {key: one.user_attrs[key] for key in FACTS if key in one.user_attrs}
        assert now.pop("effective", {}) == pytest.approx(then["attributes"].pop("effective", {}), rel=1e-6)
        assert now == then["attributes"]


def finished(url: str, name: str) -> list[FrozenTrial]:
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return optuna.load_study(study_name=name, storage=open_storage(url)).get_trials(states=done)


def written(folder: Path, pattern: str) -> dict[str, int]:
    """When the files were written last, in nanoseconds."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob(pattern))}


def candidates(here: Path) -> list[dict[str, Any]]:
    """Those of the run folder's front, as its file has them."""
    found: list[dict[str, Any]] = json.loads((here / "runs/tiny/front.json").read_text())["fronts"][0]["candidates"]
    return found


def figures(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What a comparison says of its variants, without what a clock measured."""
    left_out = {"footprint", "search_seconds", "retrain_seconds", "artefacts"}
    return [{key: value for key, value in row.items() if key not in left_out} for row in record["variants"]]


def test_run_folder_is_opened_from_its_storage(here: Path) -> None:
    study = secateur.open_study(here / "runs/tiny")
    assert study.made_with["weights"] == "78ee948b7d390c96"
    front = study.front()
    then = candidates(here)
    assert [(one.number, one.id) for one in front.candidates] == [(one["number"], one["id"]) for one in then]
    retrained = {one.id: one.accuracy for one in front.candidates if one.accuracy is not None}
    assert retrained == {one["id"]: one["accuracy"] for one in then if one["accuracy"] is not None}
    assert set(retrained) == {"babf44e4c7c6", "e410be685a98"}
    assert study.status().retrained == {"scored": 2}


def test_run_folder_is_resumed_and_nothing_is_retrained_again(here: Path) -> None:
    before = written(here / "runs/tiny/retrain", "network.safetensors")
    assert main(["resume", "runs/tiny", "--trials", "12", "--top", "3", "-q"]) == 0
    assert_expected(finished("sqlite:///runs/tiny/study.db", "tiny"), "tiny")
    after = written(here / "runs/tiny/retrain", "network.safetensors")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1  # a third, not those of before


def test_another_recipe_adds_its_results_to_a_run_of_before(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder names neither `start` nor `finalists`, and has the rates of its day where none is given."""
    run = here / "runs/tiny"
    before = {path: path.read_bytes() for path in sorted((run / "retrain").rglob("network.safetensors"))}
    old = {one.id: one.accuracy for one in secateur.Front.load(run).candidates if one.accuracy is not None}
    text = (here / "study.toml").read_text()
    (here / "study.toml").write_text(text.replace('start = "cut"', 'start = "reconstructed"'))
    assert main(["run", "study.toml", "--epochs", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    labels = ("2 epochs, lr 0.1, start cut", "3 epochs, lr 0.02, start reconstructed")
    assert {(one["structure"], one["training"]) for one in result["retrained"]} == {
        (structure, label) for structure in old for label in labels
    }
    assert {one["structure"]: one["validation_accuracy"] for one in result["retrained"] if one["epochs"] == 2} == old
    assert {path: path.read_bytes() for path in before} == before
    page = (run / "report.html").read_text()
    assert all(f"<td>{label}</td>" in page for label in labels)
    with (run / "tables/curves.csv").open(encoding="utf-8") as file:
        networks = {row["network"] for row in csv.DictReader(file)}
    assert {name.partition(", ")[2] for name in networks} == {"", *labels}  # the dense network has no recipe

    after = written(run / "retrain", "network.safetensors")
    assert main(["retrain", "runs/tiny", "--epochs", "3", "--start", "reconstructed", "-q"]) == 0
    assert written(run / "retrain", "network.safetensors") == after  # nothing was left to do
    assert all(f"{label}:" in capsys.readouterr().out.splitlines() for label in labels[1:])
    (here / "study.toml").write_text(text.replace('start = "cut"', 'start = "cut"\nlr = 0.1'))
    assert main(["run", "study.toml", "-q"]) == 0  # the recipe of before
    assert written(run / "retrain", "network.safetensors") == after  # nothing was left to do
    assert all(f"{label}:" in capsys.readouterr().out.splitlines() for label in labels[:1])


def test_journal_is_resumed(here: Path) -> None:
    assert here
    model, graph, data = parts()
    url, budget = "journal:///study.log", secateur.Budget(macs="30%..55%")
    study = secateur.Study(
        "journal", model, graph, data, budget=budget, storage=url, space="ratios", scorer="naswot+params", batch=32,
        folder="journal", sampler="tpe",
    )  # fmt: skip
    recipe = secateur.Recipe(epochs=1, lr=0.05, batch_size=32)
    study.retrain(top=1, recipe=recipe, progress=False)
    assert (here / "journal/retrain").exists()  # its network was not kept, so it is made again
    study.search(9, progress=False)
    assert_expected(finished(url, "journal"), "journal")


def test_artefacts_are_loaded(here: Path) -> None:
    then = json.loads((here / "resnet20.json").read_text())
    small = secateur.load("resnet20.safetensors").eval()
    torch.manual_seed(1)
    torch.testing.assert_close(small(torch.randn(2, 3, 32, 32)), torch.tensor(then["output"]))
    model, graph, data = parts()
    best = secateur.load("runs/tiny/best.safetensors", model).eval()
    [accuracy] = [one["test_accuracy"] for one in candidates(here) if one["id"] == "babf44e4c7c6"]
    assert secateur.accuracy(best, data, "test") == pytest.approx(accuracy)
    assert graph.id == "4f7fd83f1a3a"


def test_stopped_training_goes_on(here: Path) -> None:
    recipe = secateur.Recipe(epochs=3, lr=0.05, batch_size=32)
    (resumed, _, data), (whole, _, _) = parts(), parts()
    train(resumed, data, recipe, folder=here / "interrupted", progress=False)
    train(whole, data, recipe, progress=False)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_evaluation_trains_nothing_again(here: Path) -> None:
    place = here / "runs/tiny/evaluate/set-0"
    before, then = written(place, "trainings/*.json"), json.loads((place / "evidence.json").read_text())
    assert main(["evaluate", "study.toml", "-q"]) == 0
    assert written(place, "trainings/*.json") == before
    now = json.loads((place / "evidence.json").read_text())
    for row, old in zip(now["rows"], then["rows"], strict=True):
        scores, known = row.pop("scores"), old.pop("scores")
        assert row == old
        both = [name for name, score in scores.items() if score is not None and name in known]
        assert len(both) > 10
        assert [scores[name] for name in both] == pytest.approx([known[name] for name in both], rel=1e-3)


def test_comparison_trains_nothing_again(here: Path) -> None:
    place = here / "runs/compared/compare"
    before, then = written(place, "network.safetensors"), json.loads((place / "compare.json").read_text())
    assert main(["compare", "compare.toml", "-q"]) == 0
    assert {path: time for path, time in written(place, "network.safetensors").items() if "/sparse/" not in path} == {
        path: time for path, time in before.items() if "/sparse/" not in path
    }
    now = json.loads((place / "compare.json").read_text())
    assert figures(now) == figures(then)
