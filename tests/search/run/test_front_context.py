"""What a run is compared with, and reports over run folders: the dense score, baselines, several runs of one name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.graph import ChannelGraph
from search.review.candidate import Refit
from search.review.footprint import Footprint
from search.review.front import Front, load_fronts
from search.review.summary import latency_table
from search.run.folder import RunFolder
from search.run.front_context import comparison, known_references, with_footprints, with_references
from search.run.inputs import RunInputs
from search.run.pages import joint_report, run_report
from search.space.budget import Budget
from search.space.latency import LatencyTable
from search.study.rules import BASELINES
from search.study.study import Study
from tests.search.study.study_samples import make, small_parts


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    study = make(f"sqlite:///{folder}/study.db", folder, small_parts(), scorer="params")
    study.search(6, progress=False)
    return study


@pytest.fixture(scope="module")
def front(study: Study) -> Front:
    return with_references(study.front(), study)


def run_folder(path: Path, front: Front, **facts: object) -> RunFolder:
    path.mkdir(parents=True)
    front.save(path)
    folder = RunFolder(path)
    folder.note(**facts)
    return folder


def test_dense_and_baselines_are_scored_like_the_trials(front: Front) -> None:
    assert [one.label for one in front.baselines] == list(BASELINES)
    assert front.dense.cost
    assert front.dense.score == front.dense.cost.params  # what the scorer of this study counts
    for one in front.baselines:
        assert one.cost
        assert one.cost.macs <= front.caps[0]
        assert one.score == one.cost.params
    assert front.points("score") == replace(front, baselines=()).points("score")


def test_a_baseline_that_was_retrained_as_a_trial_shows_its_accuracy(study: Study, front: Front) -> None:
    uniform = front.baselines[0]
    trained = replace(study.front().candidates[0], structure=uniform.structure, accuracy=0.5, test_accuracy=0.4)
    found = with_references(replace(front, candidates=(trained,)), study).baselines
    assert {(one.accuracy, one.test_accuracy) for one in found if one.id == uniform.id} == {(0.5, 0.4)}
    assert all(one.accuracy is None for one in found if one.id != uniform.id)


def test_they_are_taken_from_the_run_folder_when_it_has_them_all(front: Front, study: Study, tmp_path: Path) -> None:
    assert known_references(study.front(), RunFolder(tmp_path)) is None
    folder = run_folder(tmp_path / "run", front)
    assert known_references(study.front(), folder) == front
    assert known_references(replace(study.front(), scorer="naswot"), folder) is None
    replace(front, baselines=front.baselines[:2]).save(folder.path)
    assert known_references(study.front(), folder) is None


def test_what_a_budget_of_latency_predicted_is_measured_of_all_that_were_refitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, asked = small_parts(), []

    def by_macs(model: nn.Module, graph: ChannelGraph, *_: object) -> LatencyTable:
        rates = dict.fromkeys(graph.costs.op_layers, 1e-9)  # the clock of a busy machine may leave one structure only
        return LatencyTable(1e-6, {}, rates, 0.0, 16, error=0.1)

    monkeypatch.setattr("search.space.latency._fit", by_macs)
    timed = make(f"sqlite:///{tmp_path}/s.db", tmp_path, parts, scorer="params", budget=Budget(latency="70%"))
    timed.search(6, progress=False)
    inputs = RunInputs(parts[2], parts[0], parts[1], "cpu")

    def clock(
        models: Mapping[str, nn.Module], batch: torch.Tensor, *, engine: str, files: Mapping[str, Path]
    ) -> dict[str, Footprint]:
        assert set(files) == {"dense"}  # the others were not retrained
        asked.append((len(batch), engine))
        taken = [2.0, 1.3, 1.5]
        return {
            name: Footprint(now, 0.0, 9, len(batch), 1, 0.1, engine) for name, now in zip(models, taken, strict=True)
        }

    monkeypatch.setattr("search.run.front_context.footprints", clock)
    found = timed.front()
    assert with_footprints(found, inputs, RunFolder(tmp_path), timed) == found  # nothing is refitted yet
    different = list({one.id: one for one in found.candidates if one.reason is None}.values())[:2]
    refits = {one.id: Refit(tmp_path / "net.safetensors", 0.5, 0.25) for one in different}
    ones = tuple(replace(one, refit=refits.get(one.id)) for one in found.candidates)
    shown = with_footprints(replace(found, candidates=ones), inputs, RunFolder(tmp_path), timed)
    assert asked == [(16, "eager")]
    table = timed.problem.cost_model.latency
    assert table is not None
    sizes = {one.id: one.footprint for one in shown.candidates if one.footprint is not None}
    assert [one.limit for one in sizes.values()] == pytest.approx([1.4] * len(sizes))
    assert {one.error for one in sizes.values()} == {table.error}
    assert [sizes[one.id].over for one in different] == [False, True]
    lines = latency_table(shown).splitlines()
    assert lines[0].startswith("eager, 1 thread, a batch of 16; predictions are off by up to ")
    assert sorted(line.split()[-1] for line in lines[4:]) == ["held", "over"]
    assert [row["over_latency"] for row in shown.rows() if row["structure"] == different[1].id][:1] == [True]
    assert with_footprints(replace(found, candidates=ones), inputs, RunFolder(tmp_path), timed) == shown
    assert len(asked) == 1  # what is known is not measured again


def test_the_comparison_is_a_table_of_scores(front: Front) -> None:
    lines = comparison(front).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["dense", *BASELINES, "best,"]
    assert f"{front.dense.score:.6g}" in lines[2]
    missed = replace(front, baselines=(replace(front.baselines[0], cost=None, score=None, reason="too large"),))
    assert comparison(missed).splitlines()[3].split() == ["uniform", "-", "-"]


def test_a_report_of_a_run_shows_what_the_folder_knows(front: Front, tmp_path: Path) -> None:
    folder = run_folder(
        tmp_path / "run",
        front,
        commands=["secateur run a.toml", "secateur resume run"],
        seconds={"search": 3.0},
        importances={"keep a": 1.0},
        environment={"torch": "2.13", "cpus": 2, "command": "secateur resume run"},
    )
    page = run_report(folder).read_text(encoding="utf-8")
    for words in ("secateur run a.toml", "secateur resume run", "3.0 s in all", 'href="run.json"', "importances"):
        assert words in page
    assert load_fronts(folder.path)[0].baselines == front.baselines
    record = json.loads((folder.path / "report.json").read_text())
    assert [row["network"] for row in record["compared"]] == ["dense", *BASELINES]
    assert record["stages"] == [{"study": front.name, "stage": "search", "seconds": 3.0}]


def test_a_report_of_what_has_not_changed_is_not_drawn_again(front: Front, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", front)

    def drawn_again(*, anew: bool = True) -> bool:
        before = folder.report.stat().st_mtime_ns if folder.report.is_file() else 0
        return run_report(folder, anew=anew).stat().st_mtime_ns != before

    assert drawn_again(anew=False)
    folder.note(commands=["secateur resume run"], seconds={"search": 4.0})
    assert not drawn_again(anew=False)
    assert drawn_again()  # `secateur report`
    (folder.path / "plots/plots.json").unlink()
    assert drawn_again(anew=False)
    first = replace(front.candidates[0], accuracy=0.5)
    replace(front, candidates=(first, *front.candidates[1:])).save(folder.path)
    assert drawn_again(anew=False)


def test_runs_of_one_name_are_told_apart(front: Front, tmp_path: Path) -> None:
    folders = [
        run_folder(tmp_path / place / "s", front, commands=[f"secateur run {place}.toml"]) for place in ("a", "b")
    ]
    output = tmp_path / "both"
    output.mkdir()
    page = joint_report(folders, output).read_text(encoding="utf-8")
    names = [one.name for one in load_fronts(output)]
    assert names == [str(folder.path) for folder in folders]
    for words in ("secateur run a.toml", "secateur run b.toml", 'href="../a/s/front.csv"', 'href="../b/s/front.csv"'):
        assert words in page
