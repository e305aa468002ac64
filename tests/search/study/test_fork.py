"""A study that takes over what another one found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure
from search.data.data import Data
from search.space.budget import Budget
from search.study.stored import status
from tests.search.study.study_samples import make, small_data, small_graph, small_model

Parts = tuple[nn.Module, ChannelGraph, Data]
RANDOM = SCORERS["random"]


@pytest.fixture(scope="module")
def parts() -> Parts:
    model = small_model()
    return model, small_graph(model), small_data()


@pytest.fixture
def scored(monkeypatch: Any) -> list[str]:
    """The structures that were scored, in order, but for the dense network, which a new study begins with."""
    seen: list[str] = []

    def counting(scored: ScoredStructure) -> float:
        if scored.structure != Structure.full(scored.task.graph):
            seen.append(scored.structure.id)
        return RANDOM(scored)

    monkeypatch.setitem(SCORERS, "random", counting)
    return seen


def test_another_budget_takes_over_what_lies_inside_and_every_score(
    tmp_path: Path, parts: Parts, scored: list[str]
) -> None:
    url = f"journal:///{tmp_path}/s.log"
    old = make(url, tmp_path, parts, name="old", budget=Budget(macs=[0.2, 0.4]))
    old.search(40, progress=False)
    structures = set(scored)
    scored.clear()
    new = make(url, tmp_path, parts, name="new", budget=Budget(macs=[0.1, 0.4, 0.6]))
    forked = new.fork("old")
    feasible = [
        one for one in old.candidates() if one.reason is None and one.cost and one.cost.macs > 0.98 * 0.4 * 1_193_632
    ]
    assert forked.trials == len(feasible) > 5
    assert forked.scores == len(structures) + 1  # and that of the dense network
    taken = new.candidates()
    assert [one.score for one in taken] == [one.score for one in feasible]
    assert {one.parameters["target"] for one in taken} == {1}
    again = make(url, tmp_path, parts, name="new", budget=Budget(macs=[0.1, 0.4, 0.6]))  # another process
    again.search(60, progress=False)
    assert len(again.candidates()) == 60
    assert scored
    assert not structures & set(scored)
    assert len(scored) == len(set(scored))
    assert status(url, "new").trials["scored"] + status(url, "new").trials.get("infeasible", 0) == 60


def test_a_band_places_what_it_takes_over(tmp_path: Path, parts: Parts) -> None:
    url = f"journal:///{tmp_path}/s.log"
    make(url, tmp_path, parts, name="old", budget=Budget(macs=[0.2, 0.4])).search(20, progress=False)
    new = make(url, tmp_path, parts, name="new", budget=Budget(macs="10%..30%"))
    assert new.fork("old").trials > 0
    for one in new.candidates():
        assert one.cost is not None
        share = one.cost.macs / parts[1].costs.dense.macs
        assert one.parameters["macs aimed at"] == pytest.approx(share)
        assert share <= 0.3
    new.search(30, progress=False)
    assert len(new.candidates()) == 30


def test_another_space_takes_over_scores_alone(tmp_path: Path, parts: Parts) -> None:
    url = f"journal:///{tmp_path}/s.log"
    make(url, tmp_path, parts, name="old").search(12, progress=False)
    forked = make(url, tmp_path, parts, name="new", space="hybrid").fork("old")
    assert forked.trials == 0
    assert forked.scores > 0


def test_scores_that_do_not_hold_are_refused(tmp_path: Path, parts: Parts) -> None:
    url = f"journal:///{tmp_path}/s.log"
    make(url, tmp_path, parts, name="old").search(3, progress=False)
    for item, options in (("scorer", {"scorer": "macs"}), ("seed", {"seed": 1})):
        with pytest.raises(SecateurError, match=f"scores of study 'old' do not hold for .*: another {item}"):
            make(url, tmp_path, parts, name=f"new-{item}", **options).fork("old")
    with pytest.raises(SecateurError, match="another weights"):
        make(url, tmp_path, (small_model(1), *parts[1:]), name="new").fork("old")
    with pytest.raises(SecateurError, match="has no study 'older'; it has "):
        make(url, tmp_path, parts, name="empty").fork("older")
    with pytest.raises(SecateurError, match="has 3 trials; only a new study"):
        make(url, tmp_path, parts, name="old").fork("old")
