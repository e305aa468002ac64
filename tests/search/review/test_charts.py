"""Charts: every specification compiles without a warning, shows what it should, and becomes the right file."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import vl_convert

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from search.review.candidate import Candidate
from search.review.chart_style import Spec, config, still, to_svg, with_data, write_chart
from search.review.charts import (
    MOST_LINES,
    MOST_PARAMETERS,
    history_chart,
    importances_chart,
    latency_chart,
    parameters_chart,
    proposals_chart,
    stages_chart,
    widths_chart,
)
from search.review.figures import figures
from search.review.front import Front
from search.review.front_chart import BESIDE, HEIGHT, LETTER, LINE, NARROW, front_chart
from search.review.report import Report
from search.review.report_files import plot_front
from search.review.trial_table import axes_measured, trial_rows
from tests.search.review.report_samples import GROUPS, HOSTILE, sample_front

SVG = "{http://www.w3.org/2000/svg}"
FRONT = sample_front(caps=(1_536_000,))
ROWS = trial_rows([FRONT])
BASED = sample_front(baselines=True)
TIMED = sample_front(timed=True)
MANY = [
    Candidate(n, None, {f"keep layer{i}": ((n + 1) * (i + 3)) % 7 / 7 for i in range(20)}, Cost(1, 1), n / 400)
    for n in range(400)
]


def specs() -> Iterator[tuple[str, Spec]]:
    yield "front by score", with_data(front_chart(ROWS, "score", caps=FRONT.caps), trials=ROWS)
    yield "front by accuracy", with_data(front_chart(ROWS, "accuracy", "params"), trials=ROWS)
    both = trial_rows([FRONT, sample_front("other", seed=1)])
    yield "two fronts", with_data(front_chart(both, "score"), trials=both)
    yield "history", with_data(history_chart(ROWS), trials=ROWS)
    yield "history of two", with_data(history_chart(both), trials=both)
    yield "widths", widths_chart(GROUPS, FRONT.best())
    yield "importances", importances_chart({"t_norm": 0.7, "t_dist": 0.3})
    yield "stages", stages_chart({"search": 70.0, "retrain": 0.0})
    yield "nothing took time", stages_chart({"search": 0.0})
    yield "MACs over trials", with_data(proposals_chart(ROWS, "macs", "MACs", form="~s"), trials=ROWS)
    with_baselines = trial_rows([BASED], ["t_norm"])
    yield "baselines", with_data(front_chart(with_baselines, "score"), trials=with_baselines)
    yield "threshold over trials", with_data(proposals_chart(with_baselines, "p0", "t_norm"), trials=with_baselines)
    timed = latency_chart([TIMED.dense, *TIMED.candidates])
    assert timed is not None
    yield "latency", timed
    for name, candidates in {"one": [MANY[0]], "two": FRONT.candidates, "many": MANY}.items():
        chart = parameters_chart(candidates)
        assert chart is not None
        yield f"{name} parameters", chart


@pytest.mark.parametrize(("name", "spec"), [pytest.param(*pair, id=pair[0]) for pair in specs()])
def test_compiles_without_a_warning(name: str, spec: Spec, capfd: pytest.CaptureFixture[str]) -> None:
    for dark in (False, True):
        vega = vl_convert.vegalite_to_vega(spec, config=config(dark=dark), show_warnings=True)
        assert vega["marks"], name
    assert capfd.readouterr().err == ""


def symbols(spec: Spec) -> list[str]:
    """The descriptions of all points that a picture shows, as a screen reader would say them."""
    picture = ElementTree.fromstring(to_svg(spec))
    return [
        path.get("aria-label", "") for path in picture.iter(f"{SVG}path") if path.get("aria-roledescription") == "point"
    ]


def texts(spec: Spec) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(to_svg(spec)).iter(f"{SVG}text")]


def test_every_trial_is_in_the_picture_in_its_place() -> None:
    said = symbols(with_data({**front_chart(ROWS, "score"), "width": 400}, trials=ROWS))
    statuses = FRONT.statuses("score")
    assert sum("on the front" in words for words in said) == statuses.count("front")
    assert sum("dominated" in words for words in said) == statuses.count("dominated")
    assert sum("infeasible" in words for words in said) == statuses.count("infeasible") == 10
    assert sum("place: dense" in words for words in said) == 1


def test_only_the_retrained_have_an_accuracy() -> None:
    said = symbols(with_data({**front_chart(ROWS, "accuracy"), "width": 400}, trials=ROWS))
    assert len(said) == 3 + 1


def test_budget_and_dense_are_written_into_the_picture() -> None:
    words = texts(with_data({**front_chart(ROWS, "accuracy", caps=FRONT.caps), "width": 400}, trials=ROWS))
    assert "budget 1.54M" in words
    assert "dense 97.2%" in words


def test_a_distant_dense_score_does_not_squeeze_the_candidates() -> None:
    far = Candidate(-1, cost=Cost(10_000_000, 10), score=5000.0, label="dense")
    front = Front("far", far, tuple(Candidate(n, cost=Cost(1_000_000 + n, 1), score=100.0 + n) for n in range(10)))
    rows = trial_rows([front])
    encoding = front_chart(rows, "score")["layer"][-1]["encoding"]
    assert encoding["x"]["scale"]["domain"][1] < 1_000_020
    assert encoding["y"]["scale"]["domain"][1] < 120
    assert not [
        word for word in texts(with_data(front_chart(rows, "score"), trials=rows)) if word.startswith("dense 5")
    ]


def test_costs_beyond_macs_are_offered_when_measured() -> None:
    assert axes_measured([FRONT]) == ("macs", "params", "batch_seconds")
    assert axes_measured([sample_front(retrained=0)]) == ("macs", "params")
    timed = Front("timed", FRONT.dense, (Candidate(0, cost=Cost(1, 1, 0.01, 5), score=1.0),))
    assert axes_measured([timed]) == ("macs", "params", "latency", "memory")


def test_latency_is_drawn_with_its_engine_its_budget_and_what_was_predicted() -> None:
    assert axes_measured([TIMED]) == ("macs", "params", "latency", "batch_seconds", "single_seconds")
    rows = trial_rows([TIMED])
    views = {one.name: one.views for one in figures(Report((TIMED,)), rows)}
    words = texts(with_data({**views["front-accuracy"]["measured latency"], "width": 400}, trials=rows))
    assert "measured latency, ms a batchonnxruntime, 1 thread, a batch of 128" in words  # two lines
    assert "budget 1.95 ms" in words
    words = texts(with_data({**views["front-accuracy"]["ms, one sample"], "width": 400}, trials=rows))
    assert "measured latency, ms for one sampleonnxruntime, 1 thread" in words
    [spec] = views["latency"].values()
    said = symbols({**spec, "width": 400})
    assert len(said) == 1 + 3
    places = [one.footprint.over for one in TIMED.candidates if one.footprint is not None]
    assert sum(places) == 1
    assert sum("place: over budget" in one for one in said) == 1
    assert sum("place: held" in one for one in said) == 2
    assert "latency" not in {one.name for one in figures(Report((FRONT,)), ROWS)}  # nothing was predicted


RULES = ("uniform", "global", "sensitivity", "error")
CLUSTERS = [(macs, -0.01 * place) for macs in (370_000, 495_000, 620_000, 745_000) for place in range(1, 5)]


def boxes(chart: Spec, width: float) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom edge, in pixels, of the names of rules in a picture of a width."""
    [named] = [layer for layer in chart["layer"] if "shift" in layer.get("data", {}).get("values", [{}])[0]]
    (left, right), (low, high) = (named["encoding"][channel]["scale"]["domain"] for channel in "xy")
    found = []
    for one in named["data"]["values"]:
        start = width * (one["macs"] - left) / (right - left) + BESIDE * one["side"]
        start -= LETTER * len(one["text"]) * (one["side"] < 0)
        middle = HEIGHT * (high - one["score"]) / (high - low) + one["shift"]
        found.append((start, middle - LINE / 2, start + LETTER * len(one["text"]), middle + LINE / 2))
    return found


@pytest.mark.parametrize("width", [NARROW, 480, 900])
@pytest.mark.parametrize(
    "places",
    [
        [*CLUSTERS, (300_000, -0.9)],  # an outlier squeezes the others
        CLUSTERS,
        [(500_000, -0.5)] * 16,
        [(macs, -1.0) for macs, _ in CLUSTERS],  # on the floor
        [(750_000, 0.0)] * 5,
    ],
)
def test_names_of_rules_lie_on_nothing_and_within_the_axes(places: list[tuple[int, float]], width: float) -> None:
    rules = tuple(
        Candidate(-1, cost=Cost(macs, 1), score=score, label=RULES[number % 4])
        for number, (macs, score) in enumerate(places)
    )
    trials = tuple(Candidate(n, None, {}, Cost(300_000 + 45_000 * n, 1), -0.1 * n) for n in range(11))
    front = Front("rules", Candidate(-1, cost=Cost(2_000_000, 1), score=0.0, label="dense"), trials, baselines=rules)
    found = boxes(front_chart(trial_rows([front]), "score"), width)
    assert len(found) == len(places)
    assert min(box[1] for box in found) >= 0
    assert max(box[3] for box in found) <= HEIGHT
    assert min(box[0] for box in found) >= 0
    assert max(box[2] for box in found) <= width
    for one, other in itertools.combinations(found, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


def test_baselines_are_named() -> None:
    rows = trial_rows([BASED])
    chart = still(with_data(front_chart(rows, "score"), trials=rows), 480)
    picture = ElementTree.fromstring(to_svg(chart))
    assert {text.text for text in picture.iter(f"{SVG}text")} >= {"uniform", "global"}
    assert sum("place: baseline" in words for words in symbols(chart)) == 2


def test_a_still_picture_has_no_clips_and_nothing_beyond_its_axes() -> None:
    far = Candidate(-1, cost=Cost(10_000_000, 10), score=5000.0, label="dense")
    rows = trial_rows([Front("far", far, FRONT.candidates)])
    chart = with_data(front_chart(rows, "score"), trials=rows)
    assert "clip-path" in to_svg({**chart, "width": 480})
    picture = to_svg(still(chart, 480))
    assert "clip-path" not in picture
    assert "place: dense" not in picture
    assert picture.count("place: on the front") == FRONT.statuses("score").count("front")


def test_costs_in_seconds_are_drawn_in_milliseconds() -> None:
    rows = [row for row in ROWS if row["trial"] is None]
    assert rows[0]["batch_seconds"] == pytest.approx(4.0)
    assert "measured latency, ms a batch" in texts(
        with_data(front_chart(ROWS, "accuracy", "batch_seconds"), trials=ROWS)
    )


def test_widths_are_in_the_order_of_the_network() -> None:
    values = widths_chart(GROUPS, FRONT.best())["data"]["values"]
    best = FRONT.best().structure
    assert best
    assert [row["group"] for row in values] == list(GROUPS)
    assert [(row["kept"], row["dense"]) for row in values] == [
        (best.widths[name], size) for name, size in GROUPS.items()
    ]


def test_of_many_parameters_the_important_and_of_many_trials_the_best() -> None:
    chart = parameters_chart(MANY, first=["keep layer19", "keep layer3"])
    assert chart
    values = chart["data"]["values"]
    shown = list(dict.fromkeys(row["parameter"] for row in values))
    assert len(shown) == MOST_PARAMETERS
    assert shown[:2] == ["keep layer19", "keep layer3"]
    assert {row["name"] for row in values} == {f"trial {n}" for n in range(400 - MOST_LINES, 400)}
    assert all(0 <= row["place"] <= 1 for row in values)
    assert parameters_chart([Candidate(0, score=1.0)]) is None


def test_pictures_by_ending(tmp_path: Path) -> None:
    png = plot_front(FRONT, tmp_path / "front.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24])[0] > 2000  # two panels at two pixels a point
    assert ElementTree.parse(plot_front(FRONT, tmp_path / "front.SVG")).getroot().tag == f"{SVG}svg"
    assert plot_front(FRONT, tmp_path / "front.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_bad_paths_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"ends with \.png, \.svg or \.html, but got 'front\.pdf'"):
        plot_front(FRONT, tmp_path / "front.pdf")
    with pytest.raises(SecateurError, match="nowhere': the folder does not exist"):
        plot_front(FRONT, tmp_path / "nowhere" / "front.png")
    with pytest.raises(SecateurError, match=r"ends with \.png or \.svg, but got 'a\.gif'"):
        write_chart({}, tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_the_points_and_no_hostile_name() -> None:
    front = sample_front(HOSTILE, trials=30)
    shown = front._repr_html_()
    for page in (shown, plot_front(front)._repr_svg_()):
        assert HOSTILE not in page
        assert "<script" not in page
        assert "<img" not in page
    for one in front.points():
        assert f"<td>{one.name}</td>" in shown
