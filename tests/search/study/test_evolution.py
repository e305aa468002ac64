"""Local moves: inside the budget, near a good parent, in every space. Resuming is tested with all samplers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.stats import kendalltau

from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.limits import Limits
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure
from search.space.budget import Budget
from search.space.layer_removal import LAYERS, Removal
from search.space.problem import SearchProblem
from search.space.proposals import propose, unpack
from search.space.space import KINDS, Space
from search.study.evolution import PARENTS, guess_from
from search.study.samplers import SamplerHistory, sampler_for
from search.study.study import Study
from search.study.warm_start import WarmStart, parameters
from tests.search.space.problems import problem
from tests.search.study.study_samples import BUDGETS, journal, small_parts
from tests.search.study.study_samples import make as sample


def searched(folder: Path, trials: int = 60, **options: Any) -> Study:
    study = sample(journal(folder), folder, small_parts(), **({"sampler": "evolution"} | options))
    study.search(trials, progress=False)
    return study


def widths(study: Study) -> list[list[int]]:
    return [
        [len(channels) for _, channels in study.structure(number).kept] for number in range(len(study.store.finished))
    ]


@pytest.mark.parametrize("divisor", [1, 4])
@pytest.mark.parametrize("budget", sorted(BUDGETS))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_proposed_meets_the_budget_and_the_limits(tmp_path: Path, kind: str, budget: str, divisor: int) -> None:
    limits = Limits(divisor=divisor)
    study = searched(tmp_path, 30, space=Space(kind, limits=limits), budget=BUDGETS[budget])
    infeasible = [one for one in study.store.finished if one.values is None]
    assert len(infeasible) <= 2
    floors = limits.floors(study.problem.tables)
    for one, kept in zip(study.candidates(), widths(study), strict=False):
        if one.cost is not None:
            assert any(not target.over(one.cost) for target in study.problem.targets)
            assert (np.array(kept) >= floors).all()


def test_a_neighbour_differs_in_few_groups_and_fills_the_budget(tmp_path: Path) -> None:
    """Most of these groups stay, of three; the score makes the first structure the only parent."""
    study = sample(journal(tmp_path), tmp_path, small_parts(), sampler="evolution", warm_start=("uniform",))
    study.search(1, progress=False)
    [cap] = study.problem.targets
    for seed in range(20):
        seen = study.store.history_at(1)
        seen.sampler = sampler_for("evolution", seed, 1, problem=study.problem)
        trial = seen.ask()
        allocation = study.problem.suggest(trial)
        found = allocation.widths(1.0)  # type: ignore[union-attr]
        spent = study.problem.cost_model.evaluate(found)
        assert not cap.over(spent)
        assert all(cap.over(study.problem.cost_model.evaluate(found + one)) for one in np.eye(3, dtype=np.int64))


def test_it_climbs_where_a_random_search_does_not(tmp_path: Path, monkeypatch: Any) -> None:
    goal = np.array([5, 20, 30])

    def near(scored: ScoredStructure) -> float:
        return -float(np.abs(np.array(list(scored.structure.widths.values())) - goal).sum())

    monkeypatch.setitem(SCORERS, "random", near)
    costs = small_parts()[1].costs
    budget = Budget(macs=float(costs.evaluate(goal).macs) / costs.dense.macs * 1.001)
    best = {
        sampler: max(
            one.values[0]
            for one in searched(tmp_path, 80, sampler=sampler, budget=budget, space="ratios").store.finished
            if one.values
        )
        for sampler in ("evolution", "random")
    }
    assert best["evolution"] > best["random"]
    assert best["evolution"] >= -3


def test_parents_are_the_best_and_distinct(tmp_path: Path, monkeypatch: Any) -> None:
    """All children come from structures among the best: none of the dead end that scores lowest."""
    bad = Structure.random(small_parts()[1], macs=0.3, seed=1)

    def scored_by_id(scored: ScoredStructure) -> float:
        return -100.0 if scored.structure.id == bad.id else float(scored.structure.widths["body.0"])

    monkeypatch.setitem(SCORERS, "random", scored_by_id)
    study = searched(tmp_path, 60, budget=Budget(macs=0.305), warm_start=("uniform", bad))
    firsts = [kept[0] for kept in widths(study)]
    assert np.mean(firsts[-PARENTS:]) > np.mean(firsts[:PARENTS])


def climbed(here: SearchProblem, goal: Structure, trials: int, seed: int) -> float:
    """The best score after some trials where a structure's score is how near it is to a goal."""
    seen = SamplerHistory([optuna.study.StudyDirection.MAXIMIZE], None)
    warm = WarmStart.of(here, ("uniform",), 0)
    history: list[optuna.trial.FrozenTrial] = []
    for number in range(trials):
        study = seen.at(history, number)
        study.sampler = sampler_for("evolution", 1000 * seed + number, number, problem=here)
        if number == 0:
            first = warm.proposed(0)
            history.append(
                optuna.trial.create_trial(
                    params=first.params, distributions=first.distributions, user_attrs=first.user_attrs, values=[-99.0]
                )
            )
            continue
        trial = study.ask()
        proposal = propose(here, trial)
        assert proposal.found is not None
        kept = unpack(here.graph, proposal.facts)
        far = np.log([kept.widths[name] / goal.widths[name] for name in goal.widths])
        history.append(seen.tell(trial, [-float(np.square(far).sum())], proposal.facts))
    return max(float(one.values[0]) for one in history)


def test_of_many_neighbours_the_best_guess_is_tried(monkeypatch: Any) -> None:
    """The guesses bring a search nearer its goal in as many trials than moves at random do."""
    here = problem(Space("ratios"), Budget(macs=0.3))
    goals = [Structure.random(here.graph, macs=0.299, seed=seed) for seed in range(2)]
    guessed = [climbed(here, goal, 50, seed) for seed, goal in enumerate(goals)]
    monkeypatch.setattr("search.study.evolution.LEARNED_FROM", 10**6)
    by_chance = [climbed(here, goal, 50, seed) for seed, goal in enumerate(goals)]
    assert np.mean(guessed) > np.mean(by_chance)


def test_guesses_order_what_was_not_scored() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.normal(0, 0.5, (60, 6)), rng.normal(0, 0.5, (40, 6))

    def truth(rows: Any) -> Any:
        return -np.square(rows - 0.2).sum(1)

    guesses = guess_from(points, truth(points))(others)
    assert kendalltau(guesses, truth(others)).statistic > 0.6
    assert np.array_equal(guesses, guess_from(points, np.exp(truth(points)) * 1e6)(others))  # only ranks count
    assert np.isfinite(guess_from(points[:1], np.array([1.0]))(others)).all()
    same = np.repeat(points[:1], 30, axis=0)
    assert np.isfinite(guess_from(same, np.ones(30))(others)).all()


def proposals_of(here: SearchProblem, first: optuna.trial.FrozenTrial, number: int) -> Iterator[tuple[Any, Structure]]:
    """Trials of a search whose every proposal scores better than the one before, and their structures."""
    seen = SamplerHistory([optuna.study.StudyDirection.MAXIMIZE], None)
    history = [
        optuna.trial.create_trial(
            params=first.params, distributions=first.distributions, user_attrs=first.user_attrs, values=[0.0]
        )
    ]
    for place in range(number):
        study = seen.at(history, place + 1)
        study.sampler = sampler_for("evolution", place, place, problem=here)
        trial = study.ask()
        proposal = propose(here, trial)
        assert proposal.found is not None
        assert not here.targets[0].over(proposal.found.cost)
        yield trial, proposal.found.structure
        history.append(seen.tell(trial, [float(place)], proposal.facts))


def test_layers_go_and_come_back(tmp_path: Path) -> None:
    here = problem(Space("ratios", removal=Removal(most=4)), Budget(macs=0.3))
    first = WarmStart.of(here, ("uniform",), 0).proposed(0)
    assert parameters(here, Structure.full(here.graph))[0][LAYERS] == 0
    counts = [trial.params[LAYERS] for trial, _ in proposals_of(here, first, 25)]
    assert set(counts) >= {0, 1}
    assert any(after < before for before, after in itertools.pairwise(counts))


def test_each_layer_goes_and_comes_back_thin() -> None:
    here = problem(Space("ratios", removal=Removal(most=4, choice="each")), Budget(macs=0.3))
    order = here.removal_order
    assert order is not None
    first = WarmStart.of(here, ("uniform",), 0).proposed(0)
    assert not any(first.params[name] for name in order.ranges)
    assert parameters(here, Structure.of(here.graph, {}, ("layer2.1",)))[0]["remove layer2.1"] == 1
    floors = here.limits.floors(here.tables) / here.tables.sizes
    thinnest = dict(zip(here.tables.groups, floors.tolist(), strict=True))
    gone: list[set[str]] = []
    for trial, structure in proposals_of(here, first, 60):
        assert structure.removed == tuple(sorted(order.chosen(trial.params)))
        for layer in structure.removed:
            name = f"{layer}.conv1"
            assert trial.params[f"keep {name}"] == pytest.approx(thinnest[name])
        gone.append(set(structure.removed))
    assert len(set().union(*gone)) > 3
    assert max(map(len, gone)) <= 4
    assert any(before - after for before, after in itertools.pairwise(gone))


def test_it_needs_the_problem() -> None:
    with pytest.raises(SecateurError, match="sampler 'evolution' needs the search problem"):
        sampler_for("evolution", 0, 0)
