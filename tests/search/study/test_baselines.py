"""Baselines: each on the study's own budget and limits, ready to stand beside its front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backbones.architectures.resnet_cifar import CifarResNet
from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.limits import Limits
from search.data.readers import load_data
from search.run.front_context import baseline
from search.space.budget import Budget
from search.space.space import Space
from search.study.rules import BASELINES, EqualLoss, RuleSettings, structure_of
from search.study.study import Study
from tests.graphs import known_trace as trace
from tests.search.space.problems import problem
from tests.search.study.study_samples import small_data, small_graph, small_model

LIMITS = Limits(max_rate=0.8, divisor=4)


@pytest.mark.parametrize("name", BASELINES)
def test_structures_lie_inside_the_budget_and_the_limits(name: str) -> None:
    here = problem(Space("ratios", limits=LIMITS))
    (target,) = Budget(macs=0.35).targets(here.cost_model.dense)
    structure = structure_of(name, here, target)
    found = cost(here.graph, structure)
    assert not target.over(found)
    assert not target.under(found)
    for group in here.graph.groups:
        assert structure.widths[group.name] % 4 == 0
        assert structure.widths[group.name] >= 0.2 * group.size
    assert structure_of(name, here, target) == structure


def test_uniform_keeps_about_the_same_share_everywhere() -> None:
    here = problem(Space("ratios"))
    (target,) = Budget(macs=0.25).targets(here.cost_model.dense)
    structure = structure_of("uniform", here, target)
    shares = [structure.widths[group.name] / group.size for group in here.graph.groups]
    assert max(shares) - min(shares) < 0.15
    assert 0.4 < float(np.mean(shares)) < 0.6


def test_random_differs_by_seed_and_criteria_choose_other_filters() -> None:
    here = problem(Space("ratios"))
    (target,) = Budget(macs=0.4).targets(here.cost_model.dense)
    assert structure_of("random", here, target, RuleSettings(seed=1)) != structure_of("random", here, target)
    assert structure_of("uniform", here, target, RuleSettings("std")) != structure_of("uniform", here, target)


def test_sensitivity_allows_every_group_the_same_loss() -> None:
    tables = problem(Space("ratios")).tables
    falls = tuple(np.linspace(0, number + 1.0, size) for number, size in enumerate(tables.sizes))
    allocation = EqualLoss(tables, Limits(max_rate=1.0), falls)
    widths = allocation.widths(0.5)
    for fall, width, size in zip(falls, widths, tables.sizes, strict=True):
        assert fall[size - width] <= 0.5
        assert width == 1 or fall[size - width + 1] > 0.5
    assert (allocation.widths(0.0) == tables.sizes).all()


def test_a_study_has_its_baselines_beside_the_front(tmp_path: Path) -> None:
    data = load_data("digits", seed=0)
    model = CifarResNet(1, 10, 1).eval()
    graph = trace(model, data.example)
    budget = Budget(macs=[0.3, 0.5])
    url = f"journal:///{tmp_path}/a.log"
    study = Study("a", model, graph, data, budget=budget, storage=url, scorer="naswot_last", batch=32, folder=tmp_path)
    found = [one for name in BASELINES for one in baseline(name, study)]
    assert [one.label for one in found] == [name for name in BASELINES for _ in range(2)]
    for one, high in zip(found, [0.3, 0.5] * len(BASELINES), strict=True):
        assert one.reason is None
        assert one.cost is not None
        assert 0.97 * high <= one.cost.macs / graph.costs.dense.macs <= high
        assert one.value("score") is not None
    front = replace(study.front(), baselines=tuple(found))
    assert [one.name for one in front.baselines][:2] == ["uniform", "uniform"]
    with pytest.raises(SecateurError, match=r"unknown baseline 'unifrom'; did you mean 'uniform'\?"):
        baseline("unifrom", study)
    with pytest.raises(SecateurError, match="unknown measure 'loss'"):
        baseline("sensitivity", study, measure="loss")


def test_a_study_can_follow_a_rule_instead_of_searching(tmp_path: Path) -> None:
    def opened(name: str) -> Study:
        model = small_model()
        graph = small_graph(model)
        budget = Budget(macs=[0.3, 0.5])
        return Study(name, model, graph, small_data(), budget=budget, storage=f"journal:///{tmp_path}/{name}.log",
                     scorer="params", batch=16, folder=tmp_path / name)  # fmt: skip

    study = opened("ruled")
    study.use_rule("uniform")
    wanted = baseline("uniform", study)
    found = study.front().candidates
    assert [(one.id, one.cost, one.score) for one in found] == [(one.id, one.cost, one.score) for one in wanted]
    study.use_rule("uniform")
    again = opened("ruled")
    again.use_rule("uniform")
    assert [one.id for one in again.front().candidates] == [one.id for one in wanted]
    with pytest.raises(SecateurError, match=r"unknown baseline 'unifrom'"):
        opened("other").use_rule("unifrom")
    searched = opened("searched")
    searched.search(2, progress=False)
    with pytest.raises(SecateurError, match=r"study 'searched' has searched already; a rule needs a study of its own"):
        searched.use_rule("uniform")


def test_a_study_can_take_a_structure_from_elsewhere(tmp_path: Path) -> None:
    model = small_model()
    graph = small_graph(model)

    def opened(name: str, macs: float | list[float]) -> Study:
        return Study(name, model, graph, small_data(), budget=Budget(macs=macs), scorer="params", batch=16,
                     storage=f"journal:///{tmp_path}/{name}.log", folder=tmp_path / name)  # fmt: skip

    given = Structure.random(graph, macs=0.3, seed=3)
    study = opened("given", 0.35)
    study.use_rule(given)
    study.use_rule(given)
    [found] = study.front().candidates
    spent = cost(graph, given)
    assert (found.structure, found.score, found.cost) == (given, spent.params, spent)
    with pytest.raises(SecateurError, match=rf"structure {given.id} is over the budget: [\d,]+ MACs, .* wanted "):
        opened("tight", 0.1).use_rule(given)
    with pytest.raises(SecateurError, match=r"needs a budget of one target, but got 2"):
        opened("two", [0.3, 0.5]).use_rule(given)
    with pytest.raises(SecateurError, match=r"is of graph .*, not of .*; trace the same model"):
        opened("other", 0.35).use_rule(replace(given, graph="0" * 12))
    searched = opened("searched", 0.35)
    searched.search(2, progress=False)
    with pytest.raises(SecateurError, match=r"has searched already"):
        searched.use_rule(given)
