"""The first trials of a search: what rules give, exactly, once, and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor, nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.limits import Limits
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure, ScoringTask
from search.space.budget import Budget
from search.space.layer_removal import LAYERS, Removal
from search.space.proposals import WARM, unpack
from search.space.space import KINDS, Space
from search.study.candidates import LOOKED_AT
from search.study.rules import RuleSettings, structure_of
from search.study.samplers import SAMPLERS
from search.study.study import Study
from search.study.warm_start import POINTS, RULES, WarmStart
from tests.search.space.problems import problem
from tests.search.study.study_samples import BUDGETS, finished, journal, small_data, small_graph, small_parts
from tests.search.study.study_samples import make as sample

RANDOM = SCORERS["random"]


def make(folder: Path, **options: Any) -> Study:
    return sample(journal(folder), folder, small_parts(), **options)


def ruled(study: Study) -> list[FrozenTrial]:
    return [one for one in study.store.finished if WARM in one.user_attrs]


@given(
    kind=st.sampled_from(sorted(KINDS)),
    sampler=st.sampled_from(sorted(set(SAMPLERS) - {"gp"})),
    budget=st.sampled_from(["cap", "targets", "band"]),
    share=st.sampled_from([0.05, 0.3, 0.97]),
    scorer=st.sampled_from(["random", "params", "units"]),
    seed=st.integers(0, 9),
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_search_never_ends_below_a_rule(
    tmp_path: Path, kind: str, sampler: str, budget: str, share: float, scorer: str, seed: int
) -> None:
    wanted = Budget(macs=share) if budget == "cap" else BUDGETS[budget]
    study = make(tmp_path, budget=wanted, space=kind, sampler=sampler, scorer=scorer, seed=seed)
    study.search(24, progress=False)
    best = max(one.values[0] for one in study.store.finished if one.values)
    for rule in RULES:
        for target in study.problem.targets:
            structure = structure_of(rule, study.problem, target, RuleSettings(study.space.criterion))
            assert best >= SCORERS[scorer](ScoredStructure(study.problem.task, structure))
    assert [one.user_attrs["rule"] for one in ruled(study)] == [
        rule for rule in RULES for _ in range({"cap": 1, "targets": 2, "band": POINTS}[budget])
    ]


@pytest.mark.parametrize("budget", ["cap", "targets"])
def test_what_wins_on_the_images_of_the_search_alone_is_no_better_than_a_rule(
    tmp_path: Path, budget: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here all that is proposed beats the rules by the search's images, and on fresh ones only rules are good."""
    rules: set[str] = set()
    tasks: list[ScoringTask] = []  # the search's comes first

    def lucky(scored: ScoredStructure) -> float:
        tasks.append(scored.task)
        return float((scored.structure.id in rules) != (scored.task is tasks[0])) + 0.1 * RANDOM(scored)

    monkeypatch.setitem(SCORERS, "reconstruction", lucky)
    study = make(tmp_path, budget=BUDGETS[budget], space="ratios", sampler="evolution", scorer="reconstruction")
    settings, targets = RuleSettings(study.space.criterion), study.problem.targets
    rules |= {structure_of(rule, study.problem, target, settings).id for rule in RULES for target in targets}
    study.search(60, progress=False)
    front = study.front()
    assert not any(one.rule for one in front.points("score"))
    assert sum(one.reason is None and not one.rule for one in front.candidates) > LOOKED_AT
    chosen = study.finalists(len(targets)).members
    assert len(chosen) == len(targets)
    assert all(one.rule for one in chosen)


def test_a_rule_is_told_from_what_was_proposed(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.search(6, progress=False)
    names = [one.name for one in study.candidates()]
    assert names[:4] == [f"trial {number} ({rule})" for number, rule in enumerate(RULES)]
    assert names[4:] == ["trial 4", "trial 5"]


def test_the_parameters_of_a_rule_propose_its_widths(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.search(4, progress=False)
    for one in ruled(study):
        structure = unpack(study.graph, one.user_attrs)
        allocation = study.problem.suggest(_Fixed(one.params))  # type: ignore[arg-type]
        assert allocation.widths(1.0).tolist() == [len(channels) for _, channels in structure.kept]  # type: ignore[union-attr]


class _Fixed:
    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def suggest_float(self, name: str, low: float, high: float) -> Any:
        assert low <= self.values[name] <= high
        return self.values[name]


def test_samplers_that_know_no_parameters_of_a_rule_do_not_see_it(tmp_path: Path) -> None:
    study = make(tmp_path, space="hybrid+ratios")
    study.search(7, progress=False)
    assert [one.params == {} for one in study.store.finished] == [True] * 4 + [False] * 3
    assert len(study.store.history_at(7).get_trials()) == 3


def test_a_search_killed_between_two_rules_goes_on_with_the_next(tmp_path: Path, monkeypatch: Any) -> None:
    whole = make(tmp_path / "whole")
    whole.search(9, progress=False)
    url = f"journal:///{tmp_path}/s.log"
    calls = 0

    def fragile(scored: ScoredStructure) -> float:
        nonlocal calls
        if scored.structure == Structure.full(small_parts()[1]):  # when a study begins
            return RANDOM(scored)
        calls += 1
        if calls % 2 == 0:
            raise KeyboardInterrupt
        return RANDOM(scored)

    monkeypatch.setitem(SCORERS, "random", fragile)
    for _ in range(30):
        study = sample(url, tmp_path, small_parts())
        try:
            study.search(9, progress=False)
            break
        except KeyboardInterrupt:
            continue
    assert calls > 4
    assert finished(study) == finished(whole)


def test_workers_share_the_rules(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path}/s.log"
    first, second = sample(url, tmp_path, small_parts()), sample(url, tmp_path, small_parts())
    first.search(2, progress=False, shared=True)
    second.search(6, progress=False, shared=True)
    assert [one.user_attrs.get("rule") for one in second.store.finished] == [*RULES, None, None]


def test_a_rule_that_misses_the_budget_does_not_stop_the_search(tmp_path: Path) -> None:
    whole = Structure.full(small_parts()[1])
    study = make(tmp_path, warm_start=("uniform", whole))
    study.search(5, progress=False)
    missed = study.store.finished[1]
    assert missed.state is TrialState.PRUNED
    assert missed.user_attrs["reason"].startswith("is over the budget: wanted macs <= ")
    assert sum(one.state is TrialState.COMPLETE for one in study.store.finished) == 4


def test_a_structure_made_elsewhere_is_tried_first_and_asks_for_a_study_of_its_own(tmp_path: Path) -> None:
    given = Structure.random(small_parts()[1], macs=0.3, seed=3)
    url = f"journal:///{tmp_path}/s.log"
    study = sample(url, tmp_path, small_parts(), warm_start=(given,), budget=Budget(macs=0.31))
    study.search(2, progress=False)
    assert study.structure(0) == given
    assert study.store.finished[0].user_attrs["macs"] == cost(small_parts()[1], given).macs
    with pytest.raises(SecateurError, match="sampler"):
        sample(url, tmp_path, small_parts(), budget=Budget(macs=0.31))
    with pytest.raises(SecateurError, match=r"unknown rule 'unifrom'.*uniform"):
        make(tmp_path, warm_start=("unifrom",))


def test_without_a_warm_start_a_search_begins_with_its_sampler(tmp_path: Path) -> None:
    study = make(tmp_path, warm_start=())
    study.search(3, progress=False)
    assert ruled(study) == []


@pytest.mark.parametrize("choice", ["order", "each"])
def test_rules_leave_out_the_layers_that_must_go(choice: str) -> None:
    here = problem(Space("ratios", removal=Removal(most=3, least=2, choice=choice)), Budget(macs=0.3))
    start = WarmStart.of(here, ("uniform", "global"), 0)
    for place in range(2):
        one = start.proposed(place)
        assert here.removal_order is not None
        assert unpack(here.graph, one.user_attrs).removed == tuple(sorted(here.removal_order.order[:2]))
        assert choice == "each" or one.params[LAYERS] == 2
        assert not here.targets[0].over(cost(here.graph, unpack(here.graph, one.user_attrs)))


def test_one_group_only(tmp_path: Path) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(1, 12, 3), nn.Linear(12, 4)

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.head(torch.relu(self.first(images)).mean((2, 3)))
            return out

    model = One().eval()
    study = sample(journal(tmp_path), tmp_path, (model, small_graph(model), small_data()), sampler="evolution")
    study.search(8, progress=False)
    assert {one.user_attrs["macs"] for one in study.store.finished} == {study.store.finished[0].user_attrs["macs"]}


@pytest.mark.parametrize("limits", [Limits(), Limits(max_rate=0.5, divisor=4)])
def test_budgets_at_both_ends_of_what_can_be_reached(tmp_path: Path, limits: Limits) -> None:
    space = Space("ratios", limits=limits)
    floors = limits.floors(make(tmp_path).problem.tables)
    costs = small_parts()[1].costs
    for amount in (costs.evaluate(floors).macs, costs.dense.macs):
        study = make(tmp_path, space=space, budget=Budget(macs=f"{amount}"), sampler="evolution")
        study.search(7, progress=False)
        assert {one.user_attrs["macs"] for one in study.store.finished} == {amount}
