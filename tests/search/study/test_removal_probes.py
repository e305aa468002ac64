"""Which layers may go is tried first: each alone, then the best together, inside the budget, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import Tensor, nn

from backbones.graph import ChannelGraph
from backbones.structure import Structure
from search.space.budget import Budget
from search.space.layer_removal import LayerRemovalOrder, Removal
from search.space.problem import SearchProblem
from search.space.proposals import WARM, propose, unpack
from search.space.space import Space
from search.study.removal_probes import MISSES, PROBE, base_rule, next_removal
from search.study.samplers import SamplerHistory, Window, sampler_for
from search.study.warm_start import WarmStart
from tests.graphs import known_trace as trace
from tests.search.space.problems import problem
from tests.search.study.study_samples import finished, journal, searched_with_kills, small_data
from tests.search.study.study_samples import make as sample

EACH = Space("ratios", removal=Removal(choice="each"))
WORTH = {"layer1.0": 1.0, "layer1.1": -1.0, "layer1.2": 3.0, "layer2.1": 2.0, "layer2.2": 0.5, "layer3.1": -2.0}
"""What it brings that a layer goes; others bring nothing, and each pair of the first stage costs two."""


def brings(removed: Sequence[str]) -> float:
    first = sum(layer.startswith("layer1") for layer in removed)
    return sum(WORTH.get(layer, 0.0) for layer in removed) - 2.0 * max(0, first - 1)


def searched(
    here: SearchProblem, trials: int, score: Callable[[Structure], float], window: Window | None = None
) -> Iterator[FrozenTrial]:
    """A search by local moves in memory, without networks: the rule "uniform", then what the sampler proposes."""
    directions = [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE][: here.objectives]
    seen, history = SamplerHistory(directions, window), []
    warm = WarmStart.of(here, ("uniform",), 0)
    for place in range(len(warm.places)):
        first = warm.proposed(place)
        values = here.values(score(unpack(here.graph, first.user_attrs)), first.user_attrs["macs"])
        history.append(
            create_trial(
                params=first.params, distributions=first.distributions, user_attrs=first.user_attrs, values=values
            )
        )
    for number in range(len(history), trials):
        study = seen.at(history, number)
        study.sampler = sampler_for("evolution", 0, number, problem=here)
        trial = study.ask()
        proposal = propose(here, trial)
        if proposal.found is None:
            history.append(seen.tell(trial, None, proposal.facts))
        else:
            structure = unpack(here.graph, proposal.facts)
            values = here.values(score(structure), proposal.facts["macs"])
            history.append(seen.tell(trial, values, proposal.facts))
        yield history[-1]


def probes(trials: Iterator[FrozenTrial]) -> list[tuple[str, ...]]:
    return [tuple(one.system_attrs[PROBE]["layers"]) for one in trials if PROBE in one.system_attrs]


@pytest.mark.parametrize(("macs", "parts"), [(0.3, [1]), ([0.2, 0.3], [1, 3]), ("15%..35%", [0, 1])])
def test_each_layer_alone_then_the_best_together_then_moves(macs: Any, parts: list[int]) -> None:
    here = problem(EACH, Budget(macs=macs))
    assert here.removal_order is not None
    layers = here.removal_order.order
    trials = list(searched(here, 36, lambda structure: brings(structure.removed)))
    tried = [one for one in trials if PROBE in one.system_attrs]
    assert {one.system_attrs[PROBE]["part"] for one in tried} == set(parts)
    for part in parts:
        found = probes(one for one in tried if one.system_attrs[PROBE]["part"] == part)
        assert found == [
            *((layer,) for layer in layers),
            ("layer1.2", "layer2.1"),
            ("layer1.0", "layer1.2", "layer2.1"),  # a pair of the first stage: not worth it
            ("layer1.2", "layer2.1", "layer2.2"),
        ]
    for one in tried:
        assert set(one.user_attrs.get("removed", ())) == set(one.system_attrs[PROBE]["layers"])
    if len(parts) == 1:
        assert trials[: len(tried)] == tried


def test_the_other_widths_of_the_rule_are_scaled_onto_the_budget() -> None:
    here = problem(EACH, Budget(macs=0.3))
    [cap] = here.targets
    rule = WarmStart.of(here, ("uniform",), 0).proposed(0)
    before = unpack(here.graph, rule.user_attrs).widths
    order = here.removal_order
    assert order is not None
    for one in searched(here, 1 + len(order.order), lambda structure: 0.0):
        structure = unpack(here.graph, one.user_attrs)
        assert not cap.over(here.cost_model_without(structure.removed).evaluate(_reduced(here, structure)))
        [layer] = structure.removed
        for name, width in structure.widths.items():
            if not name.startswith(layer):
                assert before[name] <= width <= 1.35 * before[name] + 1


def _reduced(here: SearchProblem, structure: Structure) -> Any:
    assert here.removal_order is not None
    network = here.removal_order.without(structure.removed)
    widths = np.array(list(structure.widths.values()))
    return widths[network.dense_groups]


def test_what_was_tried_first_stays_in_the_window_of_a_long_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.study.samplers.STEP", 4)
    here = problem(EACH, Budget(macs=0.3))
    assert here.removal_order is not None
    found = probes(searched(here, 50, lambda structure: brings(structure.removed), Window(4, 4, first=True)))
    assert len(found) == len(set(found))


def trial(state: TrialState, layers: Sequence[str], score: float = 0.0, macs: int = 100) -> FrozenTrial:
    values = [score] if state is TrialState.COMPLETE else None
    return create_trial(
        state=state,
        values=values,
        user_attrs={"macs": macs},
        system_attrs={PROBE: {"part": 1, "layers": list(layers)}} if layers else {},
    )


def order_of(*layers: str, most: int = 9) -> LayerRemovalOrder:
    here = problem(EACH).removal_order
    assert here is not None
    return LayerRemovalOrder(here.graph, layers, (0.0,) * len(layers), here.make, 0, most, here.dense)


def test_what_is_infeasible_or_still_scored_brings_nothing_yet() -> None:
    done, running, pruned = TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED
    rules, order = [trial(done, (), 1.0)], order_of("a", "b", "c")
    known = [trial(done, "a", 3.0), trial(running, "b"), trial(pruned, "c")]
    assert next_removal(known[:2], rules, order, "macs", 1) == ("c",)
    assert next_removal(known, rules, order, "macs", 1) == ()  # two together need two that gain
    known[1] = trial(done, "b", 2.0)
    assert next_removal(known, rules, order, "macs", 1) == ("a", "b")
    known.append(trial(running, "ab"))
    assert next_removal(known, rules, order, "macs", 1) == ()
    assert next_removal([*known, trial(done, "ab", 0.0), trial(running, "a")], rules, order, "macs", 1) == ()


def test_no_more_layers_than_may_go_and_an_end_after_misses() -> None:
    done = TrialState.COMPLETE
    rules, letters = [trial(done, (), 0.0)], "abcdefgh"
    alone = [trial(done, letter, 9.0 - number) for number, letter in enumerate(letters)]
    assert next_removal(alone, rules, order_of(*letters, most=1), "macs", 1) == ()
    bad = [trial(done, ("a", letter), -1.0) for letter in letters[1 : 1 + MISSES]]
    assert next_removal([*alone, *bad[:-1]], rules, order_of(*letters), "macs", 1) == ("a", letters[MISSES])
    assert next_removal([*alone, *bad], rules, order_of(*letters), "macs", 1) == ()


def test_trials_at_other_costs_are_compared_with_the_rules_there() -> None:
    done = TrialState.COMPLETE
    cheap, dear = trial(done, (), -2.0, 100), trial(done, (), -1.0, 200)
    poor = trial(done, (), -5.0, 101)  # about as dear as the cheap one, and no measure of what comes between
    rules, order = [poor, dear, cheap], order_of("a", "b")
    alone = [trial(done, "a", -1.6, 100), trial(done, "b", -0.9, 200)]
    assert next_removal([*alone, trial(done, "ab", -1.4, 101)], rules, order, "macs", 1) == ()
    assert next_removal(alone, rules, order, "macs", 1) == ("a", "b")
    assert next_removal([trial(done, "a", -2.1, 100), alone[1]], rules, order, "macs", 1) == ()  # a alone lost
    assert next_removal(alone, rules, order, "macs", 0) == ("a",)  # another part of the budget
    assert base_rule(rules, "macs", 99) is cheap
    assert base_rule(rules, "macs", 1000) is dear


class Residual(nn.Module):
    """Four small blocks that add to their input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(4)))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.first(images)).mean((2, 3)))
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(self.norm(self.up(x)).relu())
        return out


@cache
def parts() -> tuple[nn.Module, ChannelGraph, Any]:
    model, data = Residual().eval(), small_data()
    return model, trace(model, data.batch(1, 0)[0]), data


@pytest.mark.parametrize("jobs", [1, 3])
def test_killed_and_resumed_it_tries_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    options: dict[str, Any] = {"sampler": "evolution", "space": EACH, "budget": Budget(macs=0.4)}
    straight = sample(f"journal:///{tmp_path}/whole.log", tmp_path, parts(), **options)
    straight.search(22, progress=False, jobs=jobs)
    assert {one.system_attrs[PROBE]["layers"][0] for one in straight.store.finished if PROBE in one.system_attrs} == {
        f"blocks.{number}" for number in range(4)
    }
    url = f"journal:///{tmp_path}/parts.log"
    broken = searched_with_kills(monkeypatch, lambda: sample(url, tmp_path, parts(), **options), 22, 5, jobs)
    assert finished(broken) == finished(straight)


def test_workers_do_not_try_what_another_is_trying(tmp_path: Path) -> None:
    options: dict[str, Any] = {"sampler": "evolution", "space": EACH, "budget": Budget(macs=0.4)}
    study = sample(journal(tmp_path), tmp_path, parts(), **options)
    study.search(5, progress=False)
    assert sum(WARM in one.user_attrs for one in study.store.finished) == 4
    store = study.store
    [first] = [one for one in store.finished if PROBE in one.system_attrs]
    asked: list[FrozenTrial] = []
    for _ in range(3):
        seen = store.history_at(len(store.finished))
        seen.sampler = sampler_for("evolution", 0, 5, "1/1", study.problem, asked)
        new = seen.ask()
        propose(study.problem, new)
        asked.append(seen.get_trials()[new.number])
        seen.tell(new, state=TrialState.FAIL)
        asked[-1].state = TrialState.RUNNING
    layers = [tuple(one.system_attrs[PROBE]["layers"]) for one in (first, *asked)]
    assert sorted(layers) == [(f"blocks.{number}",) for number in range(4)]
