"""The front against literal examples, its laws, and its files."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.artefact import save
from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.registry import build
from backbones.structure import Structure
from search.data.task import MetricSpec
from search.review.candidate import Candidate, Refit, Retraining, nondominated
from search.review.front import Front, load_fronts, save_fronts
from search.review.records import training_text
from search.review.report import Report
from search.review.report_files import plot_front, write_report
from search.review.summary import final_table, finalists_table, lost_in_training, retrained, validation_table
from search.review.trial_table import details, trial_rows

DENSE = Candidate(-1, cost=Cost(1000, 500), accuracy=0.95, label="dense")


def one(number: int, macs: int, score: float | None = None, accuracy: float | None = None, **rest: object) -> Candidate:
    structure = Structure("g", (("a", tuple(range(1 + number))), ("b", (0, 2, 5))))
    return Candidate(number, structure, {"t_norm": 0.5}, Cost(macs, macs // 2), score, accuracy, **rest)  # type: ignore[arg-type]


# Trial:     0         1         2          3          4              5
LITERAL = [(100, 1.0), (200, 3.0), (200, 2.0), (300, 3.0), (400, 5.0), (50, 0.0)]


def literal() -> Front:
    return Front("toy", DENSE, tuple(one(i, macs, score) for i, (macs, score) in enumerate(LITERAL)))


def test_literal_front() -> None:
    front = literal()
    assert [c.number for c in front.points()] == [5, 0, 1, 4]
    assert front.statuses() == ("front", "front", "dominated", "dominated", "front", "front")


def test_infeasible_and_unmeasured_never_reach_the_front() -> None:
    infeasible = one(0, 10, 99.0, reason="above the budget")
    unscored = one(1, 10)
    broken = one(2, 10, math.nan)
    no_cost = Candidate(3, score=99.0)
    front = Front("toy", DENSE, (infeasible, unscored, broken, no_cost, one(4, 20, 1.0)))
    assert front.statuses() == ("infeasible", "unmeasured", "unmeasured", "unmeasured", "front")
    assert [c.number for c in front.points()] == [4]


def test_equal_candidates_share_the_front_but_a_structure_is_listed_once() -> None:
    twin = Candidate(7, one(0, 100).structure, {}, Cost(100, 50), 1.0)
    other = one(1, 100, 1.0)
    front = Front("toy", DENSE, (one(0, 100, 1.0), other, twin))
    assert front.statuses() == ("front", "front", "front")
    assert [c.number for c in front.points()] == [0, 1]


def test_it_reads_as_a_few_lines() -> None:
    measured = replace(DENSE, test_accuracy=0.94)
    front = Front(
        "toy", measured, (one(0, 300, 2.0, 0.9, test_accuracy=0.92), one(1, 200, 1.0), one(2, 9, reason="no"))
    )
    assert repr(front) == (
        "Front 'toy': 3 trials, 1 infeasible, 1 on the front by accuracy\n"
        "  dense: 1.0k MACs, validation 95.00%, test 94.00%\n"
        f"  best, trial 0, {front.candidates[0].id}: 300 MACs (30.0% of dense), score 2, validation 90.00%, "
        "test 92.00%, −2.00 test against dense"
    )
    assert repr(Front("none", DENSE, ())).count("\n") == 1


def test_ties_are_said_to_be_ties() -> None:
    front = Front("toy", DENSE, tuple(one(number, macs, 1.0) for number, macs in enumerate((300, 200, 200, 400, 500))))
    assert (front.best().number, front.best().name) == (1, "trial 1")
    text = "level with trial 2, trial 0, trial 3 and 1 more; of equals the one of the fewest MACs, then the earliest"
    assert front.ties() == f"{text}, is taken"
    assert text in repr(front)
    twin = replace(one(0, 300, 1.0), number=7)  # the same structure again
    assert Front("toy", DENSE, (one(0, 300, 1.0), twin, one(1, 200, 0.5))).ties() == ""


def test_accuracy_takes_over_as_soon_as_something_was_retrained() -> None:
    front = Front("toy", DENSE, (one(0, 100, 9.0), one(1, 200, 8.0, 0.9), one(2, 300, 7.0, 0.8)))
    assert front.measure == "accuracy"
    assert front.statuses() == ("unmeasured", "front", "dominated")
    assert [c.number for c in front.points("score")] == [0]
    assert front.best().number == 1


def test_a_retrained_infeasible_candidate_does_not_change_the_measure() -> None:
    front = Front("toy", DENSE, (one(0, 100, 9.0), one(1, 200, 8.0, 0.9, reason="too large")))
    assert front.measure == "score"


@pytest.mark.parametrize(
    ("limits", "number"),
    [
        ({}, 4),
        ({"macs": 300}, 1),
        ({"macs": 0.15}, 0),
        ({"params": 0.2}, 1),
        ({"params": 0.1}, 0),
        ({"params": 250}, 4),
        ({"macs": "300"}, 1),
        ({"macs": "0.3k"}, 1),
        ({"macs": "15%"}, 0),
        ({"macs": "0.15"}, 0),
        ({"params": "10%"}, 0),
    ],
)
def test_best_within_limits(limits: dict[str, Any], number: int) -> None:
    assert literal().best(macs=limits.get("macs"), params=limits.get("params")).number == number


def test_best_of_equals_is_the_cheapest() -> None:
    front = Front("toy", DENSE, (one(0, 300, 1.0), one(1, 200, 1.0), one(2, 250, 1.0)))
    assert front.best(params=1.0).number == 1


def test_best_with_a_negative_score() -> None:
    assert Front("toy", DENSE, (one(0, 300, -5.0), one(1, 200, -9.0))).best().number == 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"macs": 20}, r"no candidate with macs <= 20; the smallest with a score have 50 MACs and 25 parameters"),
        ({"macs": 0}, r"macs > 0 must hold, but got macs=0"),
        ({"macs": float("nan")}, r"macs > 0 must hold, but got macs=nan"),
        ({"macs": "20ms"}, r"budget macs: an amount is a fraction \(0.3, '30%'\), absolute \('25M'\).* but got '20ms'"),
        ({"macs": "10%..20%"}, r"but got '10%..20%'"),
    ],
)
def test_best_says_what_is_possible(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        literal().best(macs=limits["macs"])


def test_a_fraction_needs_the_dense_cost() -> None:
    front = Front("toy", Candidate(-1), literal().candidates)
    with pytest.raises(SecateurError, match="fraction of the dense macs"):
        front.best(macs=0.5)


def test_empty_front_says_so() -> None:
    front = Front("toy", DENSE, ())
    assert front.points() == ()
    with pytest.raises(SecateurError, match="run the search first"):
        front.best()
    with pytest.raises(SecateurError, match="run the search first"):
        front.knee()


def test_knee_is_where_the_curve_bends() -> None:
    curve = [(100, 0.0), (200, 0.8), (300, 0.9), (1100, 1.0)]
    front = Front("toy", DENSE, tuple(one(i, macs, score) for i, (macs, score) in enumerate(curve)))
    # Scaled: (0, 0), (.1, .8), (.2, .9), (1, 1): .7 above the diagonal for trials 1 and 2; of equals the cheaper.
    assert front.knee().number == 1
    assert Front("toy", DENSE, (one(3, 100, 1.0),)).knee().number == 3
    assert Front("toy", DENSE, (one(3, 100, 1.0), one(4, 200, 9.0))).knee().number == 3


def test_knee_of_the_curve_that_kneedle_is_explained_with() -> None:
    """Satopaa et al. 2011, figure 2: y = 5 - 1 / (x + 0.1) at ten even steps of [0, 1] has its knee at x = 0.22."""
    steps = [step / 9 for step in range(10)]
    points = tuple(one(i, 1000 + round(9000 * x), 5 - 1 / (x + 0.1)) for i, x in enumerate(steps))
    knee = Front("toy", DENSE, points).knee()
    assert steps[knee.number] == pytest.approx(0.22, abs=0.005)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 100)), min_size=1, max_size=30))
def test_no_point_of_the_front_lies_farther_from_the_chord_than_the_knee(pairs: list[tuple[int, float]]) -> None:
    front = Front("toy", DENSE, tuple(one(i, macs, score) for i, (macs, score) in enumerate(pairs)))
    points, knee = front.points(), front.knee()
    ends = [(point.on("macs") or 0.0, point.value("score") or 0.0) for point in (points[0], points[-1])]
    (left, low), (right, high) = ends

    def above(point: Candidate) -> float:
        x = ((point.on("macs") or 0.0) - left) / max(1.0, right - left)
        y = ((point.value("score") or 0.0) - low) / (high - low) if high > low else 0.0
        return y - x

    assert all(above(point) <= above(knee) + 1e-9 for point in points)


PAIRS = st.lists(st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)), max_size=40)


@given(PAIRS)
def test_no_point_of_the_front_is_dominated_and_every_other_is(pairs: list[tuple[float, float]]) -> None:
    def dominated(i: int) -> bool:
        cost, value = pairs[i]
        return any(c <= cost and v >= value and (c < cost or v > value) for c, v in pairs)

    assert nondominated(pairs) == [not dominated(i) for i in range(len(pairs))]


@given(PAIRS.filter(len))
def test_best_under_any_cap_is_on_the_front(pairs: list[tuple[float, float]]) -> None:
    front = Front("toy", DENSE, tuple(one(i, int(macs) + 2, score) for i, (macs, score) in enumerate(pairs)))
    numbers = {c.number for c in front.points()}
    cap = sorted(macs for macs, _ in pairs)[len(pairs) // 2] + 2
    best = front.best(macs=cap)
    assert best.number in numbers
    assert best.score == max(score for macs, score in pairs if macs + 2 <= cap)
    assert front.knee().number in numbers


def full_front(folder: Path) -> Front:
    retrained = one(1, 200, 8.0, 0.9, test_accuracy=0.89, seconds=1.5, artefact=folder / "retrain" / "a.safetensors")
    removed = Candidate(
        2, Structure("g", (("a", (1,)), ("b", (0, 63, 64))), ("layer1.0",)), {"x": 1.0}, Cost(9, 8, 0.1, 7)
    )
    hostile = one(3, 70, 1.0, reason='</script>"a", b\nc', label="ünï")
    return Front("toy", DENSE, (one(0, 100, 9.0), retrained, removed, hostile), "naswot_last", (300,), (one(-1, 5),))


def test_json_round_trip(tmp_path: Path) -> None:
    front = full_front(tmp_path)
    front.save(tmp_path)
    assert Front.load(tmp_path) == front


def test_a_moved_run_folder_still_finds_its_networks(tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    full_front(before).save(before)
    after = before.rename(tmp_path / "after")
    assert Front.load(after).candidates[1].artefact == after / "retrain" / "a.safetensors"


def test_csv_has_one_row_a_candidate(tmp_path: Path) -> None:
    full_front(tmp_path).save(tmp_path)
    with (tmp_path / "front.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == ["0", "1", "2", "3"]
    assert table[1]["accuracy"] == "0.9"
    assert table[1]["status"] == "front"
    assert table[2]["width b"] == "3"
    assert table[2]["removed"] == "layer1.0"
    assert table[0]["parameter t_norm"] == "0.5"
    assert table[0]["parameter x"] == ""
    assert table[3]["reason"] == '</script>"a", b\nc'


def test_several_fronts_in_one_folder(tmp_path: Path) -> None:
    fronts = (literal(), full_front(tmp_path))
    save_fronts(fronts, tmp_path)
    assert load_fronts(tmp_path) == fronts
    with pytest.raises(SecateurError, match=r"holds 2 fronts \('toy', 'toy'\)"):
        Front.load(tmp_path)


def test_not_finite_numbers_are_saved_as_missing(tmp_path: Path) -> None:
    Front("toy", DENSE, (one(0, 100, math.nan), one(1, 100, -math.inf))).save(tmp_path)
    assert [c.score for c in Front.load(tmp_path).candidates] == [None, None]


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"format": 1, "fronts": [{"name": 1}]}'])
def test_a_broken_file_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "front.json").write_text(text)
    with pytest.raises(SecateurError, match=r"front\.json' is not a front: .*; Front.save writes one"):
        Front.load(tmp_path)


def test_missing_and_newer_files(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"front\.json is missing"):
        Front.load(tmp_path)
    (tmp_path / "front.json").write_text('{"format": 99, "fronts": []}')
    with pytest.raises(SecateurError, match="has format 99; this version reads format 1"):
        Front.load(tmp_path)
    with pytest.raises(SecateurError, match="the folder does not exist"):
        literal().save(tmp_path / "nowhere")


def test_best_saves_the_retrained_network(tmp_path: Path) -> None:
    source = tmp_path / "retrained.safetensors"
    save(build("resnet20", 4), source, provenance={"structure": one(0, 100).id})
    weights = source.read_bytes()
    front = Front("toy", DENSE, (one(0, 100, 9.0, 0.9, artefact=source), one(1, 50, 9.0)))
    assert front.best().save(tmp_path / "small.safetensors").read_bytes() == weights
    with pytest.raises(SecateurError, match=r"trial 1 \(.*\) was not retrained"):
        front.best(measure="score").save(tmp_path / "small.safetensors")
    with pytest.raises(SecateurError, match="nowhere' does not exist"):
        front.best().save(tmp_path / "nowhere" / "small.safetensors")
    source.unlink()
    with pytest.raises(SecateurError, match="is not a file"):
        front.best().save(tmp_path / "small.safetensors")


def test_dataframe(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = literal().to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["macs"]) == [macs for macs, _ in LITERAL]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(SecateurError, match="needs pandas"):
        literal().to_dataframe()


def test_a_notebook_shows_it_escaped_and_without_asking_anyone() -> None:
    hostile = "<script>alert('x')</script>&"
    front = Front(hostile, DENSE, (*literal().candidates, Candidate(9, None, reason=hostile)), scorer=hostile)
    picture, page = plot_front(front)._repr_svg_(), front._repr_html_()
    assert picture.startswith("<svg")
    assert all(point.id in page for point in front.points())
    for text in (picture, page):
        assert "<script" not in text
        assert re.findall(r"""(?:src|href)=["'](?!#)[^"']+|url\((?!["']?#)[^)]+""", text) == []
    assert "&lt;script&gt;" in picture
    assert Front("empty", DENSE, ())._repr_html_()


def retraining(epochs: int, *rungs: tuple[int, float], **rest: Any) -> Retraining:
    recipe = {"epochs": epochs, "lr": 0.1, "start": "cut"}
    return Retraining(recipe, f"{epochs} epochs", rungs, cost=Cost(200, 100), structure=one(1, 200).structure, **rest)


def several(folder: Path) -> Front:
    """One structure retrained by two recipes, and two that lost as finalists of the longer one."""
    place = folder / "retrain"
    longer = retraining(16, (1, 0.5), (4, 0.7), (16, 0.9), test_accuracy=0.88, artefact=place / "long.safetensors")
    shorter = retraining(4, (4, 0.72), test_accuracy=0.7, artefact=place / "short.safetensors")
    both = one(1, 200, 8.0)
    lost = [replace(one(n, 250, 9.0 - n), retrainings=(retraining(16, *rungs),)) for n, rungs in LOST.items()]
    return Front("toy", DENSE, (one(0, 100, 1.0), replace(both.after(longer), retrainings=(longer, shorter)), *lost))


def refitted(front: Front, accuracy: float) -> Front:
    """The front with its retrained structure refitted."""
    refit = Refit(Path("refitted.safetensors"), accuracy, 0.2)
    return replace(
        front, candidates=tuple(replace(one, refit=refit) if one.number == 1 else one for one in front.candidates)
    )


@pytest.mark.parametrize(
    ("before", "lost"),
    [(0.95, True), (0.9004, False), (0.9, False), (0.6, False)],  # 90.04 % reads as 90.0 %; the better recipe counts
)
def test_what_retraining_made_worse_than_refitting_is_said(tmp_path: Path, before: float, lost: bool) -> None:
    front = refitted(several(tmp_path), before)
    assert bool(lost_in_training(front)) == ("Note: by validation accuracy worse" in validation_table(front)) == lost
    page = write_report(Report((front,)), tmp_path).read_text()
    assert ("toy: by validation accuracy worse as retrained than as refitted: trial 1" in page) == lost
    if lost:
        assert "trial 1 (95.0 % before, 90.0 % after);" in lost_in_training(front)
    hertz = MetricSpec("mean error", "lower", "Hz")
    assert bool(lost_in_training(replace(front, metric=hertz))) == (before < 0.72)  # the shorter one


LOST = {2: ((1, 0.45), (4, 0.6)), 3: ((1, 0.4),)}


def test_results_of_several_recipes_stand_side_by_side(tmp_path: Path) -> None:
    front = several(tmp_path)
    front.save(tmp_path)
    assert Front.load(tmp_path) == front
    assert (len(front.candidates), front.best().accuracy, front.recipes) == (4, 0.9, ("16 epochs", "4 epochs"))
    assert [(row.accuracy, row.test_accuracy) for row in retrained(front)] == [(0.9, 0.88), (0.72, 0.7)]
    texts = [training_text(row) for row in front.highlights()]
    assert texts == [
        "–",
        "16 epochs: 50.00% after 1, 70.00% after 4",
        "4 epochs",
        "4 of 16 epochs: 45.00% after 1, 60.00% after 4",
        "1 of 16 epochs: 40.00% after 1",
    ]
    with (tmp_path / "front.csv").open(encoding="utf-8", newline="") as file:
        names = ("trial", "epochs", "start", "score", "accuracy")
        table = [tuple(row[name] for name in names) for row in csv.DictReader(file)]
    assert table[1:] == [
        ("1", "16", "cut", "8.0", "0.9"),
        ("2", "16", "cut", "7.0", ""),
        ("3", "16", "cut", "6.0", ""),
        ("1", "4", "cut", "", "0.72"),  # a trial's score stands in one row
    ]
    rows = trial_rows((front,))
    assert len(rows) == len(details((front,), 10**6)["of"]) == 4 + 1 + 1
    assert [row["accuracy_by_macs"] for row in rows if row["accuracy"] is not None and row["trial"] is not None] == [
        "on the front",
        "dominated",
    ]


def test_tables_of_several_recipes_stand_below_their_names(tmp_path: Path) -> None:
    front = several(tmp_path)
    for table in (final_table(front), validation_table(front)):
        assert re.findall(r"^(.* epochs):$", table, flags=re.MULTILINE) == ["16 epochs", "4 epochs"]
        assert table.count(front.candidates[1].id) == 2
        assert max(map(len, table.splitlines())) <= 80
    lines = finalists_table(front).splitlines()
    assert [line.split()[5:8] for line in lines[2:]] == [["3", "of", "3"], ["2", "of", "3"], ["1", "of", "3"]]
    assert lines[3].split()[8:] == ["45.0", "%", "60.0", "%", "-"]
    single = replace(front, candidates=front.candidates[:1])
    assert (finalists_table(single), ":" in validation_table(single)) == ("", False)


def test_the_best_retraining_comes_first_whichever_way_the_metric_reads() -> None:
    ones = [retraining(4, (4, 0.2)), retraining(8, (8, 0.3)), retraining(16, (1, 0.9)), retraining(16, (4, 0.1))]
    lower = MetricSpec("error", "lower", "")
    assert sorted(ones, key=lambda one: one.place()) == [ones[1], ones[0], ones[3], ones[2]]
    assert sorted(ones, key=lambda one: one.place(lower)) == [ones[0], ones[1], ones[3], ones[2]]
