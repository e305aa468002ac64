"""Rank sums: standings by hand, shared work, and what a study makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.combination import rank_among
from scoring.scorers import SCORERS, check_scorer, score, scorer_of
from scoring.scoring_task import ScoredStructure, ScoringTask
from tests.graphs import known_trace as trace
from tests.search.study.study_samples import make, small_parts

NUMBERS = st.floats(-1e6, 1e6)


def test_standings_by_hand() -> None:
    reference = np.array([1.0, 2.0, 2.0, 4.0])
    assert rank_among(1.0, reference) == 0.125
    assert rank_among(2.0, reference) == 0.5
    assert rank_among(3.0, reference) == pytest.approx(0.6875)
    assert rank_among(4.0, reference) == 0.875
    assert rank_among(7.0, reference) == pytest.approx(1.875)
    assert rank_among(-2.0, reference) == pytest.approx(-0.875)
    assert rank_among(3.0, np.array([2.0, 2.0])) > rank_among(2.5, np.array([2.0, 2.0])) > 0.5


@given(st.lists(NUMBERS, min_size=2, max_size=10), NUMBERS, NUMBERS)
def test_a_higher_score_never_stands_lower(reference: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    ordered = np.sort(np.array(reference))
    assert rank_among(low, ordered) <= rank_among(high, ordered) + 1e-12


def test_standings_go_on_rising_outside_the_reference_set() -> None:
    values = [rank_among(float(v), np.array([0.0, 1.0])) for v in range(-3, 5)]
    assert np.all(np.diff(values) > 0)


def setting() -> tuple[ScoringTask, list[Structure]]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4)).eval()
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    some = [Structure.random(graph, keep=0.5, seed=seed) for seed in range(8)]
    return ScoringTask(model, graph, torch.randn(16, 3, 8, 8), reference=tuple(some[:6])), some


def test_the_sum_is_the_mean_of_the_standings_and_its_order_of_names_does_not_matter() -> None:
    task, some = setting()
    scored = ScoredStructure(task, some[7])
    found = scorer_of("params+naswot")(scored)
    by_hand = []
    for name in ("params", "naswot"):
        reference = np.sort([SCORERS[name](ScoredStructure(task, one)) for one in some[:6]])
        by_hand.append(rank_among(SCORERS[name](scored), reference))
    assert found == pytest.approx(np.mean(by_hand))
    assert scorer_of("naswot+params")(scored) == found
    assert score("params+naswot", task.model, task.graph, some[7], task.batch, reference=some[:6]) == found


def test_the_reference_set_is_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, some = setting()
    calls: list[str] = []
    real = SCORERS["params"]

    def counted(scored: ScoredStructure) -> float:
        calls.append(scored.structure.id)
        return real(scored)

    monkeypatch.setitem(SCORERS, "params", counted)
    for structure in some:
        scorer_of("params+units")(ScoredStructure(task, structure))
    assert len(calls) == 6 + 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("naswot+", r"unknown scorer ''"),
        ("naswot+fidelty", r"unknown scorer 'fidelty'; did you mean 'fidelity'\?"),
        ("zico", r"^scorer 'zico' is no longer offered; 'region_kernel' took its place$"),
        ("readout", r"^scorer 'readout' is no longer offered; 'fidelity' took its place$"),
        ("fidelity+region_agreement", r"^scorer 'region_agreement' is no longer offered; 'region_kernel' took its"),
        ("naswot+naswot", r"scorer 'naswot\+naswot' names a part twice"),
    ],
)
def test_names_are_checked(name: str, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        check_scorer(name)


def test_without_company_there_are_no_ranks() -> None:
    task, some = setting()
    with pytest.raises(
        SecateurError, match=r"a rank sum needs at least 2 reference structures that 'params' can score"
    ):
        score("params+units", task.model, task.graph, some[0], task.batch)


def test_a_study_searches_by_a_rank_sum_and_resumes_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    parts = small_parts()
    study = make(url, tmp_path, parts, scorer="fidelity+params")
    study.search(4, progress=False)
    again = make(url, tmp_path, parts, scorer="fidelity+params")
    again.search(8, progress=False)
    whole = make(f"sqlite:///{tmp_path}/w.db", tmp_path, parts, scorer="fidelity+params")
    whole.search(8, progress=False)
    assert [one.score for one in again.candidates()] == [one.score for one in whole.candidates()]
    with pytest.raises(SecateurError, match=r"made with another scorer"):
        make(url, tmp_path, parts, scorer="fidelity+units")
