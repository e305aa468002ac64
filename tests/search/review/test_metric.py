"""Fronts, tables, pictures and pages by a metric of another name and direction."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from search.data.task import MetricSpec
from search.review.candidate import Candidate, ranked
from search.review.front import Front
from search.review.front_chart import HEIGHT, LINE, front_chart
from search.review.records import result_cells
from search.review.report import Report
from search.review.report_files import write_report
from search.review.summary import final_table, result_values, retrained, validation_table
from search.review.training_charts import curves_chart
from search.review.trial_table import trial_rows

LOWER = MetricSpec("mean error", "lower", "Hz")
ERRORS = (9.0, 3.0, 3.5, 1.0, 0.9)
ONES = tuple(
    Candidate(i, cost=Cost(100 * (i + 1), 10), score=float(i), accuracy=error, test_accuracy=error + 0.5, label=f"n{i}")
    for i, error in enumerate(ERRORS)
)
DENSE = Candidate(-1, cost=Cost(1000, 100), accuracy=0.5, test_accuracy=0.75, label="dense")
FRONT = Front("tones", DENSE, ONES, metric=LOWER)


def test_front_best_and_knee_turn_round() -> None:
    assert FRONT.statuses() == ("front", "front", "dominated", "front", "front")
    assert [one.number for one in FRONT.points()] == [0, 1, 3, 4]
    assert FRONT.best().number == 4
    assert FRONT.best(macs=400).number == 3
    assert FRONT.knee().number == 1
    assert FRONT.best(measure="score").number == 4  # a score is always better when higher
    assert [one.number for one in ranked(ONES, "accuracy", LOWER)] == [4, 3, 1, 2, 0]
    assert [one.number for one in retrained(FRONT)][:1] == [0]  # of one structure, and all of these have none
    higher = replace(FRONT, metric=MetricSpec("mean error", "higher", "Hz"))
    assert [one.number for one in higher.points()] == [0]
    assert higher.best().number == 0


def test_its_name_stands_on_every_axis_and_column(tmp_path: Path) -> None:
    FRONT.save(tmp_path)
    assert Front.load(tmp_path) == FRONT
    with (tmp_path / "front.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["mean_error"], row["test_mean_error"]) == ("9.0", "9.5")
    assert "accuracy" not in "".join(row)
    assert result_values(FRONT, {})["dense"]["test_mean_error"] == 0.75
    assert result_cells(DENSE, ONES[3], LOWER)[-6:-1] == ("–", "1 Hz", "1.5 Hz", "+0.75 test", "–")
    assert "test mean error, Hz (lower is better)" in final_table(FRONT)
    assert "validation mean error, Hz (lower is better)" in validation_table(FRONT)
    chart = front_chart(trial_rows([FRONT]), "accuracy", metric=LOWER)
    titles = [
        layer["encoding"]["y"].get("title") for layer in chart["layer"] if "title" in layer["encoding"].get("y", {})
    ]
    assert set(titles) == {"validation mean error, Hz after retraining (lower is better)"}
    lines = {tuple(layer["encoding"]["y"]["axis"]["title"]) for layer in chart["layer"] if layer["encoding"].get("y")}
    assert lines == {("validation mean error, Hz after retraining", "(lower is better)")}  # one line would be cut
    curves = curves_chart({"one": [{"epoch": 1, "validation_mean_error": 2.0}]}, "validation_mean_error", LOWER)
    assert curves["encoding"]["y"]["title"] == "validation mean error, Hz"


def test_the_report_says_it_and_fronts_of_two_metrics_are_refused(tmp_path: Path) -> None:
    page = write_report(Report((FRONT,)), tmp_path).read_text()
    assert "Mean error after retraining, against MACs" in page
    assert "Candidates are chosen by validation mean error" in page
    assert '"metric":{"name":"mean error, Hz","percent":false,"lower":true}' in page
    assert "accuracy</th>" not in page
    other = replace(FRONT, name="other", metric=MetricSpec())
    with pytest.raises(SecateurError, match=r"need one metric, but have mean error, Hz \(lower is better\), accuracy"):
        write_report(Report((FRONT, other)), tmp_path)


def test_names_of_rules_stay_above_the_axis_where_the_best_is_at_the_bottom() -> None:
    rules = tuple(replace(ONES[4], number=-1, label=f"rule {i}") for i in range(5))
    chart = front_chart(trial_rows([replace(FRONT, baselines=rules)]), "accuracy", metric=LOWER)
    [named] = [layer for layer in chart["layer"] if "shift" in layer.get("data", {}).get("values", [{}])[0]]
    low, high = named["encoding"]["y"]["scale"]["domain"]
    at = [HEIGHT * (high - one["accuracy"]) / (high - low) + one["shift"] for one in named["data"]["values"]]
    assert len(at) == 5
    assert max(at) <= HEIGHT - LINE / 2
    for side in (-1, 1):
        beside = sorted(y for y, one in zip(at, named["data"]["values"], strict=True) if one["side"] == side)
        assert all(after - before >= LINE for before, after in itertools.pairwise(beside))
