"""A problem is prepared whole: families of widths at one cost, what rank sums rank among, how structures are stored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from scoring.limits import Limits
from scoring.reconstruction import channel_order
from scoring.reconstruction.grams import DenseGrams, gather_grams
from scoring.scoring_task import ScoringTask
from search.run.sections import SpaceSection
from search.space.budget import Budget
from search.space.families import FAMILIES, draw
from search.space.feasibility import feasibility_table
from search.space.layer_removal import Removal
from search.space.prepare import REFERENCES, ImageDraws, confirming_task, prepare_problem, scoring_task
from search.space.problem import SearchProblem
from search.space.projection import Infeasible, project
from search.space.proposals import cost_of, kept_counts, pack, unpack
from search.space.space import Space
from search.study.rules import RuleSettings, structure_of
from tests.graphs import known_trace as trace
from tests.scoring.hand_graphs import digest
from tests.search.space.problems import problem, suggested, task
from tests.search.study.study_samples import BY_L2, small_data, small_graph, small_model


def small_problem(
    budget: Budget, scorer: str = "params", limits: Limits | None = None, criterion: str = "l2", images: int = 16
) -> SearchProblem:
    model, data = small_model(), small_data()
    small = ScoringTask(model, small_graph(model), *data.batch(images))
    return prepare_problem(Space("ratios", criterion, limits=limits or Limits()), small, budget, scorer=scorer)


def problem_in(folder: Path, space: Space) -> SearchProblem:
    return prepare_problem(space, task(), Budget(macs="0.1%..100%"), scorer="params", folder=folder)


class Plain(nn.Module):
    """A linear layer of one's own: nothing measures what it reads or makes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


def test_filters_go_by_reconstruction_where_no_criterion_is_chosen() -> None:
    by_default, asked = (small_problem(Budget(macs=0.4), criterion=name) for name in ("auto", "reconstruction"))
    assert Space().criterion == SpaceSection().criterion == "auto"
    assert by_default.space == asked.space
    assert by_default.tables.key == asked.tables.key
    assert "filters go by" not in feasibility_table(by_default)
    target = by_default.targets[0]
    uniform = structure_of("uniform", by_default, target)
    assert uniform == structure_of("uniform", by_default, target, RuleSettings("reconstruction"))
    assert uniform != structure_of("uniform", by_default, target, RuleSettings("l2"))


def test_the_default_criterion_refuses_no_network_that_l2_takes() -> None:
    model = nn.Sequential(nn.Flatten(), Plain(16, 6), nn.ReLU(), Plain(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    small = ScoringTask(model, trace(model, torch.zeros(1, 1, 4, 4)), torch.randn(8, 1, 4, 4))
    here = prepare_problem(Space(), small, Budget(macs=0.6), scorer="params")
    assert here.space == Space(criterion="l2")
    assert here.tables.key == Space(criterion="l2").tables(model, small.graph).key
    told = " ".join(feasibility_table(here).split())
    assert "filters go by l2: criterion 'reconstruction' needs a convolution or linear layer" in told
    with pytest.raises(SecateurError, match="take another criterion"):
        prepare_problem(Space(criterion="reconstruction"), small, Budget(macs=0.6), scorer="params")
    assert small_problem(Budget(macs=0.4), criterion="auto", images=1).space.criterion == "l2"


def test_of_very_wide_groups_the_default_criterion_is_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.space.space.WIDEST_ORDERED", 5)
    here = small_problem(Budget(macs=0.4), criterion="auto")
    assert here.space.criterion == "l2"
    told = " ".join(feasibility_table(here).split())
    assert "filters go by l2: reconstruction takes minutes for groups of more than 5 channels" in told
    assert small_problem(Budget(macs=0.4), criterion="reconstruction").space.criterion == "reconstruction"


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many times Grams were gathered: an entry each."""
    calls: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> DenseGrams:
        calls.append(len(calls))
        return gather_grams(*args, **kwargs)

    monkeypatch.setattr(channel_order, "gather_grams", counted)
    return calls


def test_a_study_that_is_opened_again_measures_no_filter_again(tmp_path: Path, gathered: list[int]) -> None:
    def opened(images: int = 16, weights: int = 0, folder: Path | None = tmp_path / "runs" / "one") -> SearchProblem:
        model = small_model(weights)
        small = ScoringTask(model, small_graph(model), *small_data().batch(images))
        return prepare_problem(Space(), small, Budget(macs=0.4), scorer="params", folder=folder)

    def measured(before: int, **other: Any) -> bool:
        opened(**other)
        return len(gathered) > before

    fresh, again, without = opened(), opened(), opened(folder=None)
    assert len(gathered) == 2
    assert fresh.space == again.space == Space(criterion="reconstruction")
    assert fresh.tables.key == again.tables.key == without.tables.key
    assert digest(fresh.tables) == digest(again.tables) == digest(without.tables)
    assert measured(2, images=17)
    assert measured(3, weights=1)
    assert not any(measured(4, **other) for other in ({}, {"images": 17}, {"weights": 1}))
    assert structure_of("error", again, again.targets[0]) == structure_of("error", fresh, fresh.targets[0])
    kept = sorted((tmp_path / "runs" / "one" / "filters").iterdir())
    assert len(kept) == 3
    for file in kept:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"cache .*tables-\w+\.npz cannot be read and is made again"):
        mended = opened()
    assert digest(mended.tables) == digest(fresh.tables)
    assert not measured(5)


def test_a_study_whose_folder_cannot_be_written_begins_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    model = small_model()
    small = ScoringTask(model, small_graph(model), *small_data().batch(16))
    with pytest.warns(UserWarning, match=r"tables-\w+\.npz cannot be written"):
        here = prepare_problem(Space(), small, Budget(macs=0.4), scorer="params", folder=tmp_path / "runs")
    assert here.space.criterion == "reconstruction"


def test_rules_and_networks_without_layers_keep_their_tables_too(tmp_path: Path, gathered: list[int]) -> None:
    for _ in range(2):
        model = small_model()
        small = ScoringTask(model, small_graph(model), *small_data().batch(16))
        here = prepare_problem(BY_L2, small, Budget(macs=0.4), scorer="params", folder=tmp_path)
        structure_of("error", here, here.targets[0])  # by the error table, whatever the space's criterion
    assert len(gathered) == 1
    found = problem_in(tmp_path / "fewer layers", Space(removal=Removal(most=2)))
    assert len(list((tmp_path / "fewer layers" / "filters").iterdir())) == 3
    assert found.space.criterion == "l2"


def test_where_layers_may_go_the_default_criterion_is_l2() -> None:
    here = problem(Space(removal=Removal(most=2)))
    assert here.space.criterion == here.tables.criterion == "l2"
    assert "layers may go" in here.second_choice


def test_a_set_is_in_the_band_different_and_grows_without_changing() -> None:
    here = small_problem(Budget(macs=0.4))
    [target] = here.targets
    whole = draw(here, target, 20, FAMILIES, 0)
    assert Counter(one.family for one in whole) == dict.fromkeys(FAMILIES, 4)
    assert len({one.structure.id for one in whole}) == 20
    assert not any(target.over(one.cost) or target.under(one.cost) for one in whole)
    assert draw(here, target, 7, FAMILIES, 0) == whole[:7]
    fresh = {one.structure.id for one in draw(here, target, 20, FAMILIES, 1)}
    assert len(fresh & {one.structure.id for one in whole}) < 10


def test_families_differ_in_what_they_say() -> None:
    here = small_problem(Budget(macs=0.4))
    [target] = here.targets
    sizes = here.tables.sizes
    spread = {
        family: np.mean(
            [np.std([len(k) for _, k in one.structure.kept] / sizes) for one in draw(here, target, 8, (family,), 0)]
        )
        for family in ("depth", "extreme")
    }
    assert spread["extreme"] > spread["depth"]


def test_a_rank_sum_has_its_reference_structures_spread_over_the_targets_and_a_single_scorer_none() -> None:
    budget = Budget(macs=[0.3, 0.5])
    assert small_problem(budget).task.reference == ()
    here = small_problem(budget, "params+fidelity")
    costs = [cost(here.graph, structure) for structure in here.task.reference]
    assert len(set(here.task.reference)) == REFERENCES
    for target in here.targets:
        assert sum(not target.over(one) and not target.under(one) for one in costs) == REFERENCES // 2
    assert small_problem(budget, "params+fidelity").task.reference == here.task.reference


def test_a_budget_out_of_reach_is_refused_while_preparing() -> None:
    with pytest.raises(SecateurError, match=r"budget macs: .* cannot be reached; under the rate limits \(max_rate=0.3"):
        small_problem(Budget(macs=0.1), limits=Limits(max_rate=0.3))


def test_a_scoring_task_renews_statistics_on_the_batch_itself_or_on_others() -> None:
    model, data = small_model(), small_data()
    graph = small_graph(model)
    alone = scoring_task(model, graph, data, 16, 0)
    assert alone.recalibrate is not None
    assert alone.recalibrate[0] is alone.batch
    others = scoring_task(model, graph, data, 16, 0, statistics=80)
    assert [len(images) for images in others.recalibrate or ()] == [64, 16]


def test_why_a_reduced_network_is_infeasible_names_the_layers_that_are_gone() -> None:
    here = problem(Space("ratios", removal=Removal(most=3, least=3)))
    assert here.removal_order is not None
    target, gone = Budget(macs=0.001).targets(here.cost_model.dense)[0], sorted(here.removal_order.order)
    found = project(here, suggested(here, 0), target)
    assert isinstance(found, Infeasible)
    assert found.reason.startswith(f"without {', '.join(gone)} cannot be scaled into the budget: macs ")


@pytest.mark.parametrize("removed", [(), ("layer2.1",)])
def test_a_packed_structure_comes_back_with_its_cost(removed: tuple[str, ...]) -> None:
    graph = task().graph
    drawn = Structure.random(graph, keep=0.5, seed=1)
    structure = Structure.of(graph, drawn.keep, removed)
    spent = cost(graph, structure)
    facts = pack(graph, structure, spent)
    assert set(facts) == {"kept", "macs", "params"} | ({"removed"} if removed else set())
    assert unpack(graph, facts) == structure
    assert cost_of(facts) == spent
    whole = pack(graph, Structure.full(graph), graph.costs.dense)
    assert kept_counts(graph, [facts, whole]).tolist() == [
        [structure.widths[group.name] for group in graph.groups],
        [group.size for group in graph.groups],
    ]
    for read in (unpack, lambda graph, damaged: kept_counts(graph, [whole, damaged])):
        for kept in ("xyz", None):
            with pytest.raises(SecateurError, match="a stored structure cannot be read"):
                read(graph, {**facts, "kept": kept})
    with pytest.raises(SecateurError, match="a stored structure cannot be read"):
        kept_counts(graph, [whole, {**facts, "kept": facts["kept"][:-2]}])


@given(images=st.integers(2, 5000), batch=st.integers(2, 400))
def test_no_image_is_in_two_draws(images: int, batch: int) -> None:
    if images < 10:
        with pytest.raises(
            SecateurError, match="scores of refitted networks need at least 10 training images, but there"
        ):
            ImageDraws.of(images, batch)
        return
    draws = ImageDraws.of(images, batch)
    parts = [draws.fit, draws.held_out, draws.confirm]
    every = [number for part in ([draws.batch] if images - batch >= 10 else []) + parts for number in part]
    assert len(set(every)) == len(every)
    assert max(every) < images
    assert min(len(draws.fit), len(draws.held_out), len(draws.confirm)) >= 2


def test_images_to_fit_to_score_and_to_confirm_are_apart() -> None:
    model, data = small_model(), small_data()
    graph = small_graph(model)
    task = scoring_task(model, graph, data, 16, 0, scorer="reconstruction")
    fresh = confirming_task(task, data, 0)

    def keys(images: Tensor) -> set[bytes]:
        return {image.numpy().tobytes() for image in images}

    parts = [keys(one) for one in (task.batch, task.fit, task.held_out, fresh.held_out)]
    assert all(len(part) > 1 for part in parts)
    assert sum(len(part) for part in parts) == len(set.union(*parts))
    assert keys(fresh.fit) == parts[1] | parts[2]
    assert keys(fresh.batch) <= parts[3]
    assert torch.equal(task.batch, scoring_task(model, graph, data, 16, 0).batch)
    assert scoring_task(model, graph, data, 16, 0, scorer="naswot").fit is None
