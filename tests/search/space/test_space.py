"""Every space: proposals become structures inside the budget and the limits, the same on any machine."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from backbones.cost import cost, recount
from backbones.errors import SecateurError
from backbones.removal import residual_blocks
from backbones.surgery import prune
from backbones.trace import trace
from scoring.limits import Limits
from search.space.allocations import QuantileThresholds, WidthAllocation
from search.space.budget import Budget
from search.space.layer_removal import ReducedAllocation, Removal
from search.space.problem import SearchProblem
from search.space.projection import Projected, project
from search.space.proposals import propose
from search.space.space import KINDS, Space
from search.study.samplers import sampler_for
from tests.launcher import Launcher
from tests.search.space.problems import problem, suggested, task

optuna.logging.set_verbosity(optuna.logging.WARNING)


@lru_cache(maxsize=16)
def known_problem(kind: str, removal: bool, limits: Limits = Limits()) -> SearchProblem:  # noqa: B008 - a frozen value
    return problem(Space(kind, limits=limits, removal=Removal(most=4) if removal else None))


def widths_of(allocation: WidthAllocation | ReducedAllocation) -> WidthAllocation:
    return allocation.allocation if isinstance(allocation, ReducedAllocation) else allocation


@pytest.mark.parametrize("removal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_widths_never_rise_with_strength_and_change_only_at_steps(kind: str, removal: bool) -> None:
    for seed in range(4):
        allocation = widths_of(suggested(known_problem(kind, removal), seed))
        steps = np.unique(allocation.breakpoints())
        steps = steps[(steps > 0) & np.isfinite(steps)]
        assert (allocation.widths(0.0) == allocation.widths(0.5 * steps[0])).all()
        between = np.concatenate([(steps[:-1] + steps[1:]) / 2, [2 * steps[-1], 4 * steps[-1]]])
        widths = np.array([allocation.widths(strength) for strength in between])
        assert (np.diff(widths, axis=0) <= 0).all()
        assert (widths[-1] == widths[-2]).all()
        rng = np.random.default_rng(seed)
        for number in rng.integers(0, len(steps) - 1, 20):
            low, high = steps[number], steps[number + 1]
            if high - low > 1e-9 * high:
                inside = low + (high - low) * rng.uniform(0.01, 0.99)
                assert (allocation.widths(inside) == widths[number]).all()


@pytest.mark.parametrize("removal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_almost_all_of_tpes_proposals_become_structures_within_one_percent(kind: str, removal: bool) -> None:
    space = Space(kind, removal=Removal() if removal else None)
    here = problem(space, Budget(macs="19.8%..20.2%"), name="resnet56")
    study = optuna.create_study(directions=["maximize", "minimize"])
    found = []
    for number in range(32):  # the first 20 are drawn at random
        study.sampler = sampler_for("tpe", 0, number)
        trial = study.ask()
        structure = propose(here, trial).found
        if structure is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        share = structure.cost.macs / here.cost_model.dense.macs
        assert 0.198 <= share <= 0.202
        assert cost(here.graph, structure.structure) == structure.cost
        found.append(structure.structure.id)
        study.tell(trial, [sum(structure.structure.widths.values()), structure.cost.macs])
    assert len(found) >= 31
    assert len(set(found)) >= 10


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(list(KINDS)), removal=st.booleans())
def test_divisor_and_rate_hold_in_every_group(seed: int, kind: str, removal: bool) -> None:
    limits = Limits(max_rate=0.8, divisor=8)
    here = known_problem(kind, removal, limits)
    (target,) = Budget(macs="25%..40%").targets(here.cost_model.dense)
    found = project(here, suggested(here, seed), target)
    assert isinstance(found, Projected), found
    for group in here.graph.groups:
        width = found.structure.widths[group.name]
        assert width % 8 == 0
        assert width >= 0.2 * group.size


def test_removed_layers_are_gone_from_the_network_and_the_count() -> None:
    here = known_problem("hybrid+ratios", True)
    graph, model = here.graph, here.task.model
    (target,) = Budget(macs=0.4).targets(here.cost_model.dense)
    removed = set()
    for seed in range(6):
        found = project(here, suggested(here, seed), target)
        assert isinstance(found, Projected)
        pruned = prune(model, graph, found.structure)
        counted = recount(pruned, graph.example)
        assert (counted.macs, counted.params) == (found.cost.macs, found.cost.params)
        removed.add(len(found.structure.removed))
        assert list(found.structure.removed) == sorted(here.removal_order.order[: len(found.structure.removed)])  # type: ignore[union-attr]
    assert len(removed) > 2


def test_the_thresholds_that_were_used_are_kept() -> None:
    here = problem(Space("hybrid"), Budget(macs=0.3))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    facts = propose(here, study.ask()).facts
    assert set(facts["effective"]) == {"t_norm", "t_dist"}
    assert 0 < facts["effective"]["t_norm"] < 3


def test_shares_take_what_they_say() -> None:
    tables = known_problem("hybrid", False).tables
    free = Limits(max_rate=1.0)
    for share in (0.25, 0.5, 0.75):
        t_norm = QuantileThresholds(tables, free, 1.0, 0.0).resolved_params(share)["t_norm"]
        assert np.isclose((tables.norms < t_norm).mean(), share, atol=1 / len(tables.norms))
        t_dist = QuantileThresholds(tables, free, 0.0, 1.0).resolved_params(share)["t_dist"]
        finite = tables.heights[np.isfinite(tables.heights)]
        assert np.isclose((finite < t_dist).mean(), share, atol=1 / len(finite))


def test_caps_bind_half_the_way_and_are_gone_at_its_end() -> None:
    tables = known_problem("hybrid", False).tables
    allocation = QuantileThresholds(tables, Limits(), 1.0, 1.0, np.full(len(tables.sizes), 0.25))
    assert (allocation.widths(0.5) >= 0.75 * tables.sizes).all()
    assert (allocation.widths(1.0) == Limits().floors(tables)).all()


PRINT = """
import torch, optuna
torch.set_num_threads({threads})
optuna.logging.set_verbosity(optuna.logging.WARNING)
from search.space.budget import Budget
from search.space.layer_removal import Removal
from search.space.projection import project
from search.space.space import Space
from tests.search.space.problems import problem, suggested
for kind in ("hybrid", "ratios", "hybrid+ratios", "global"):
    here = problem(Space(kind, removal=Removal(most=3)))
    (target,) = Budget(macs=0.25).targets(here.cost_model.dense)
    print([project(here, suggested(here, s), target).structure.id for s in range(3)])
"""


def test_the_same_structures_in_every_process_with_any_number_of_threads(
    capsys: pytest.CaptureFixture[str], launcher: Launcher
) -> None:
    threads = torch.get_num_threads()
    other = launcher.printed(PRINT.format(threads=2))
    try:
        exec(PRINT.format(threads=1), {})
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out == other
    assert other.count("[") == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "hybird"}, "unknown space 'hybird'; did you mean 'hybrid'?"),
        ({"criterion": "l3"}, "unknown criterion 'l3'"),
        ({"linkage": "ward2"}, "unknown linkage 'ward2'; did you mean 'ward'?"),
        ({"features": "fan"}, "unknown features 'fan'"),
        ({"reduction": "min"}, "unknown reduction 'min'"),
    ],
)
def test_unknown_names_are_refused(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(SecateurError, match=message.replace("?", r"\?")):
        Space(**wrong)  # type: ignore[arg-type]


@given(balance=st.floats(0, 1), seed=st.integers(0, 20))
@settings(deadline=None, max_examples=20)
def test_what_is_fixed_is_not_proposed_and_still_recorded(balance: float, seed: int) -> None:
    study = optuna.create_study(sampler=sampler_for("random", seed, 0))
    trial = study.ask()
    space = Space("hybrid", fixed=(("balance", balance),))
    allocation = replace(known_problem("hybrid", False), space=space).suggest(trial)
    assert trial.params["balance"] == balance
    assert isinstance(allocation, QuantileThresholds)
    assert (allocation.norm, allocation.dist) == (min(1.0, 2.0 - 2.0 * balance), min(1.0, 2.0 * balance))
    assert 0.45 <= trial.params["rate"] <= 0.9


def test_a_fixed_value_keeps_to_the_limits_of_its_parameter() -> None:
    study = optuna.create_study(sampler=sampler_for("random", 0, 0))
    trial = study.ask()
    replace(known_problem("hybrid", False), space=Space("hybrid", fixed=(("rate", 1.0),))).suggest(trial)
    assert trial.params["rate"] == 0.9


@pytest.mark.parametrize(
    ("kind", "fixed", "message"),
    [
        ("hybrid", ("balanse", 0.0), "space 'hybrid' has no parameter 'balanse' to fix; it has balance, rate"),
        ("ratios", ("balance", 0.0), "space 'ratios' has no parameter 'balance' to fix; it has none"),
        ("global", ("exponent", 2.0), "fixed: 0 <= exponent <= 1 must hold, but got exponent=2.0"),
    ],
)
def test_what_cannot_be_fixed_is_named(kind: str, fixed: tuple[str, float], message: str) -> None:
    with pytest.raises(SecateurError) as caught:
        Space(kind, fixed=(fixed,))
    assert str(caught.value) == message


def test_any_residual_block_may_go_where_scores_tell() -> None:
    graph = task().graph
    removal = Space().for_search(graph, tells=True).removal
    assert removal == Removal(choice="each")
    assert removal.candidates(graph) == residual_blocks(graph)
    vgg = task("vgg16_bn_cifar", 32).graph
    for space, where, tells in ((Space(), graph, False), (Space("hybrid"), graph, True), (Space(), vgg, True)):
        assert space.for_search(where, tells).removal is None
    for chosen in (None, Removal(most=2)):
        assert Space(removal=chosen).for_search(graph, tells=True).removal == chosen
    assert Space().layers is None  # outside of searches none goes
    with pytest.raises(SecateurError, match=r"removal must be a Removal, None or 'auto', but got removal='each'"):
        Space(removal="each")


@pytest.mark.parametrize(("ignore", "only", "left"), [(["layer3.*", "layer1.1.conv2"], [], 4), ([], ["layer2.*"], 2)])
def test_what_is_to_stay_as_it_is_does_not_go(ignore: list[str], only: list[str], left: int) -> None:
    graph = trace(task().model, task().images[:1], ignore=ignore, only=only)
    removal = Space().for_search(graph, tells=True).removal
    assert isinstance(removal, Removal)
    assert len(removal.candidates(graph)) == left
    assert not any(layer.startswith("layer3") or layer == "layer1.1" for layer in removal.candidates(graph))


def test_a_study_goes_on_with_the_layers_that_might_go_when_it_began() -> None:
    for begun in (None, Removal(choice="each"), Removal("accuracy", 3, ("layer3.*",), 1)):
        record = json.loads(json.dumps(Space(removal=begun).to_dict()))
        assert Space().as_noted(record).removal == begun
        assert Space(removal=Removal(most=2)).as_noted(record).removal == Removal(most=2)
    assert Space().as_noted(None).removal == "auto"


def test_a_space_with_nothing_fixed_is_recorded_as_before_there_was_such_a_thing() -> None:
    assert "fixed" not in Space("hybrid").to_dict()
    assert Space("hybrid", fixed=(("balance", 0.0),)).to_dict()["fixed"] == (("balance", 0.0),)


@pytest.mark.parametrize(
    ("budget", "ends"), [("20%..60%", [(0.2, 0.6)]), (["20%..40%", "50%..60%"], [(0.2, 0.4), (0.5, 0.6)])]
)
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_trials_lie_evenly_over_bands_whatever_the_sampler_learns(
    budget: str | list[str], ends: list[tuple[float, float]], sampler: str
) -> None:
    here = problem(Space("ratios"), Budget(macs=budget), side=8)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(60):
        study.sampler = sampler_for(sampler, 0, number)
        trial = study.ask()
        found = propose(here, trial).found
        study.tell(trial, None if found is None else [0.0, found.cost.macs], state=None if found else TrialState.PRUNED)
    shares = np.array([trial.values[1] for trial in study.trials if trial.values]) / here.graph.costs.dense.macs
    for low, high in ends:
        counts, _ = np.histogram(shares, np.linspace(low, high, 4))
        assert counts.min() > 0.5 * 60 / len(ends) / 3
