"""Evidence for scorers: sets of structures, retraining that goes on after a kill, results, the command."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.scorers import OF_CLASSES, SCORERS
from scoring.scoring_task import ScoredStructure
from search.cli import main
from search.data.data import subset
from search.data.task import MetricSpec
from search.evaluate import measurements
from search.evaluate.evaluation import _fitting, evaluate
from search.evaluate.evidence import Evidence, scatter_chart, with_rank_sums
from search.run.evaluation_plan import Plan
from search.space.budget import Budget
from search.space.families import SampledStructure
from search.training.recipe import Recipe
from tests.graphs import known_trace as trace
from tests.search.study.study_samples import small_data, small_graph, small_model
from tests.search.training.test_tasks import signals, sums

RECIPE = Recipe(epochs=1, batch_size=32, lr=0.05, schedule="one-cycle")
PLAN = Plan(structures=6, seeds=1, scorers=("params", "random", "fidelity", "params+fidelity"), batch=16, recipe=RECIPE)
CONFIRM = replace(PLAN, measure="test")


def run(folder: Path, plan: Plan = PLAN, **options: Any) -> Evidence:
    model = small_model()
    wanted: dict[str, Any] = {"budget": Budget(macs=0.4), "progress": False, "folder": folder, **options}
    return evaluate(model, small_graph(model), small_data(), plan=plan, **wanted)


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, blank_charts: Callable[[pytest.MonkeyPatch], None]
) -> tuple[Path, Evidence]:
    """An evaluation of PLAN and its folder, which tests must leave as it is."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        blank_charts(patch)
        return folder, run(folder)


@pytest.fixture
def first(done: tuple[Path, Evidence], tmp_path: Path) -> Evidence:
    """The same, in a copy of its folder that is the test's own."""
    shutil.copytree(done[0], tmp_path, dirs_exist_ok=True)
    return done[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"families": ("layer",)}, r"unknown family 'layer'; did you mean 'layers'\?"),
        ({"scorers": ("fidelity+parms",)}, r"unknown scorer 'parms'; did you mean 'params'\?"),
        ({"structures": 3}, r"4 <= structures must hold, but got structures=3"),
        ({"seeds": 0}, r"1 <= seeds must hold, but got seeds=0"),
        ({"measure": "train"}, r"measure must be 'validation' or 'test', but got 'train'"),
        ({"scorers": ()}, r"families and scorers need at least one name each"),
    ],
)
def test_plans_check_themselves(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        replace(PLAN, **change)


def test_a_family_that_has_no_further_structure_says_so(tmp_path: Path) -> None:
    said = r"family 'depth' gives no further structure that fills macs <= .* in 200 draws: "
    with pytest.raises(SecateurError, match=said):
        run(tmp_path, replace(PLAN, families=("depth",), structures=2000))


@pytest.mark.drawn
def test_an_evaluation_is_not_done_twice_and_grows(tmp_path: Path, first: Evidence) -> None:
    place = tmp_path / "evaluate/set-0"
    files = {path.name: path.stat().st_mtime_ns for path in (place / "trainings").iterdir()}
    assert len(files) == 6
    again = run(tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in (place / "trainings").iterdir()} == files
    assert again.results == first.results
    more = run(tmp_path, replace(PLAN, seeds=2, structures=7, scorers=(*PLAN.scorers, "macs")))
    assert more.accuracies["validation"].shape == (7, 2)
    assert np.array_equal(more.accuracies["validation"][:6, 0], first.accuracies["validation"][:, 0])
    written = json.loads((place / "evidence.json").read_text())
    assert {one["scorer"] for one in written["verdicts"]} == {*PLAN.scorers, "macs"}
    assert written["rows"][0]["scores"]["params"] == more.structures[0].cost.params
    assert {"scatter.png", "scatter.svg", "tau.png", "tau.svg", "evidence.md"} <= {p.name for p in place.iterdir()}


def test_a_killed_evaluation_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: tuple[Path, Evidence]
) -> None:
    whole = done[1]
    real, count = measurements._train_one, iter(range(3))

    def breaks(*arguments: Any) -> measurements.TrainingResult:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(measurements, "_train_one", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert len(list((tmp_path / "cut/evaluate/set-0/trainings").iterdir())) == 3
    monkeypatch.setattr(measurements, "_train_one", real)
    resumed = run(tmp_path / "cut")
    assert np.array_equal(resumed.accuracies["validation"], whole.accuracies["validation"])
    assert resumed.results[0].tau == whole.results[0].tau


def test_several_processes_give_the_same_accuracies(tmp_path: Path) -> None:
    alone, together = run(tmp_path / "alone", CONFIRM), run(tmp_path / "together", CONFIRM, jobs=2)
    for split in ("validation", "test"):
        assert np.array_equal(alone.accuracies[split], together.accuracies[split])


def test_test_images_are_looked_at_only_when_asked_for(tmp_path: Path, first: Evidence) -> None:
    chosen = first
    assert set(chosen.accuracies) == {"validation"}
    assert all(json.loads(p.read_text())["test"] is None for p in (tmp_path / "evaluate/set-0/trainings").iterdir())
    confirmed = run(tmp_path, CONFIRM)
    assert np.array_equal(confirmed.accuracies["validation"], chosen.accuracies["validation"])
    assert 0 <= confirmed.accuracies["test"].min() <= confirmed.accuracies["test"].max() <= 1


def test_results_of_another_recipe_or_network_are_not_mixed(tmp_path: Path, first: Evidence) -> None:
    with pytest.raises(
        SecateurError, match=r"evaluate/set-0 holds results with another recipe \(.*\); give another folder"
    ):
        run(tmp_path, replace(PLAN, recipe=replace(RECIPE, lr=0.1)))
    with pytest.raises(SecateurError, match=r"holds results with another budget"):
        run(tmp_path, budget=Budget(macs=0.5))
    run(tmp_path, replace(PLAN, set=1))  # another set has a folder of its own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": Budget(macs=[0.3, 0.5])}, r"an evaluation needs one target, but the budget has 2"),
        ({"jobs": 0}, r"1 <= jobs must hold, but got jobs=0"),
        ({"plan": replace(PLAN, images=500)}, r"images <= 96 training images must hold, but got images=500"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        run(tmp_path, **options)


def test_the_retraining_may_see_a_part_of_the_images_classes_in_proportion() -> None:
    data = small_data()
    part = subset(data, 40, 0)
    assert len(part.train) == 40
    assert Counter(part.source("train").labels.tolist()) == dict.fromkeys(range(4), 10)  # type: ignore[union-attr]
    assert subset(data, None, 0) is data


def evidence(scores: dict[str, np.ndarray], accuracies: np.ndarray) -> Evidence:
    drawn = tuple(
        SampledStructure("layers", Structure("g", (("a", (i,)),)), Cost(10, 10)) for i in range(len(accuracies))
    )
    both = {"validation": accuracies, "test": accuracies - 0.1}
    return Evidence("made up", {}, drawn, scores, both, {"good": 0.5})


def test_results_on_made_up_scores() -> None:
    rng = np.random.default_rng(0)
    truth = np.linspace(0.5, 0.9, 30)
    seeds = truth[:, None] + 0.001 * rng.normal(size=(30, 2))
    failing = truth.copy()
    failing[-1] = np.nan
    found = {
        one.scorer: one
        for one in evidence(
            {"good": truth, "bad": -truth, "params": rng.normal(size=30), "failing": failing}, seeds
        ).results
    }
    assert next(iter(found)) == "good"
    assert found["good"].tau.value > 0.98
    assert found["good"].regret < 0.002
    assert found["good"].beats["params"] == 1.0
    assert found["bad"].tau.value < -0.98
    assert found["bad"].regret == pytest.approx(0.4, abs=0.01)
    assert found["failing"].failed == 1
    assert found["failing"].regret > 0.01  # the best structure counts as the worst
    assert found["good"].seconds == 0.5


def test_results_turn_round_where_lower_is_better() -> None:
    errors = np.linspace(0.5, 0.9, 30)[:, None] + np.array([[0.0, 0.001]])
    turned = replace(
        evidence({"good": -errors[:, 0], "bad": errors[:, 0]}, errors), metric=MetricSpec("error", "lower", "Hz")
    )
    good, bad = turned.results
    assert good.scorer == "good"
    assert [good.tau.value, good.tau_top.value, good.regret] == pytest.approx([1.0, 1.0, 0.0])
    assert [bad.tau.value, bad.regret, turned.ceiling[0]] == pytest.approx([-1.0, 0.4, 1.0])
    said = turned.summary().splitlines()
    assert said[0] == "30 structures, 2 seeds each; validation error: best 0.5 Hz, mean 0.7 Hz, worst 0.901 Hz"
    assert said[1].endswith("one retraining varies by 0.0007071 Hz")
    assert "| `bad` | -1.00 [-1.00 -1.00] |" in turned.markdown()
    assert turned.to_dict()["error"] == pytest.approx({"best": 0.5005, "mean": 0.7005, "worst": 0.9005})
    chart = scatter_chart(turned)
    assert chart["title"]["text"] == "made up: scores before retraining, error after"
    assert chart["spec"]["encoding"]["y"]["title"] == "validation error, Hz"


def test_a_task_without_classes_is_evaluated_by_its_metric(tmp_path: Path) -> None:
    model, data = sums(width=32), signals()
    graph = trace(model, data.example)
    own: dict[str, Any] = {"budget": Budget(macs="30%..50%"), "progress": False, "folder": tmp_path}
    recipe = replace(RECIPE, batch_size=16)
    plan = Plan(structures=4, seeds=1, families=("layers",), scorers=("params", "fidelity"), batch=16, recipe=recipe)
    found = evaluate(model, graph, data, plan=plan, **own)
    assert found.metric == data.task.spec
    assert found.summary().startswith("4 structures, 1 seed each; validation error: best ")
    record = json.loads((tmp_path / "evaluate/set-0/evidence.json").read_text())
    assert record["error"]["best"] == min(found.truth) <= record["error"]["worst"]
    assert record["metric"] == {"name": "error", "direction": "lower", "unit": "V"}
    with pytest.raises(SecateurError, match="scorer 'adaptive_bn' needs classes, which the task has not; these do not"):
        evaluate(model, graph, data, plan=replace(plan, scorers=("params", "adaptive_bn")), **own)
    offered = _fitting(Plan(), data).scorers
    assert {"reconstruction", "refitted:naswot", "fidelity+params"} < {*offered}
    assert not [name for name in offered if set(name.replace("refitted:", "").split("+")) & set(OF_CLASSES)]
    assert _fitting(Plan(), small_data()).scorers == Plan().scorers


def test_rank_sums_are_over_the_set() -> None:
    columns = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([30.0, 10.0, 20.0])}
    assert with_rank_sums(columns, ["a+b", "b"])["a+b"].tolist() == [0.5, 0.25, 0.75]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.search.test_cli import MODULE, STUDY

    text = STUDY + "[evaluate]\nstructures = 5\nseeds = 1\nbatch = 32\nbatch_size = 32\n"
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "study.toml", "--quiet", "--on", "test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("5 structures, 1 seed each; test accuracy: best ")
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines[4:]} >= set(SCORERS)
    assert main(["evaluate", "study.toml", "--json", "--structures", "6"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["structures"] == 6
    assert record["measure"] == "validation"


def test_scorers_that_cannot_score_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(scored: ScoredStructure) -> float:
        raise SecateurError("never")

    monkeypatch.setitem(SCORERS, "random", refuses)
    [found] = [one for one in run(tmp_path).results if one.scorer == "random"]
    assert found.failed == 6
    assert np.isnan([found.tau.value, found.regret]).all()
    assert "| `random` | - | - | - | - |" in (tmp_path / "evaluate/set-0/evidence.md").read_text()
    gone = with_rank_sums({"a": np.full(3, np.nan), "b": np.arange(3.0)}, ["a+b"])["a+b"]
    assert np.isnan(gone).all()
