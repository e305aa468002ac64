"""Layers that may go: which, in what order or each by itself, and what is left of groups that a removal unites."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest

from backbones.cost import cost, recount
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.tables import FilterTables
from search.space.budget import Budget
from search.space.feasibility import reachable
from search.space.layer_removal import KEPT_NETWORKS, LayerRemovalOrder, ReducedAllocation, Removal, reduced_network
from search.space.projection import Projected, project
from search.space.space import Space
from tests.search.space.problems import problem, suggested, task


def removal_order(removal: Removal, name: str = "resnet20", side: int = 16) -> LayerRemovalOrder:
    here = task(name, side)

    def make(graph: ChannelGraph) -> FilterTables:
        return Space().tables(here.model, graph)

    return LayerRemovalOrder.of(removal, here, make, "naswot_last", make(here.graph))


def test_half_of_the_blocks_may_go_by_default_the_least_essential_first() -> None:
    found = removal_order(Removal())
    assert len(found.order) == 4  # of 7 blocks with equal ends
    assert list(found.essentiality) == sorted(found.essentiality)
    assert removal_order(Removal(most=2)).order == found.order[:2]
    assert len(removal_order(Removal(most=100)).order) == 7


def test_layers_can_be_named_and_inner_ones_do_not_go_with_outer_ones_twice() -> None:
    graph = task().graph
    named = Removal(layers=("layer3.1*",)).candidates(graph)
    assert named == ("layer3.1",)
    assert Removal(layers=("layer3.1.conv1",)).candidates(graph) == ("layer3.1.conv1",)


def test_united_groups_keep_equal_indices_and_the_network_runs() -> None:
    here = problem(Space("hybrid+ratios", removal=Removal(most=6)), name="vgg16_bn_cifar", side=8)
    graph, model = here.graph, here.task.model
    (target,) = Budget(macs=0.3).targets(here.cost_model.dense)
    sizes = set()
    for seed in range(8):
        allocation = suggested(here, seed)
        found = project(here, allocation, target)
        assert isinstance(found, Projected), found
        assert not target.over(found.cost)
        assert not target.under(found.cost)
        assert cost(graph, found.structure) == found.cost
        sizes.add(len(found.structure.removed))
        if isinstance(allocation, ReducedAllocation):
            united = [sources for sources in allocation.network.reduction.sources.values() if len(sources) > 1]
            assert united
    assert len(sizes) > 2
    assert isinstance(found, Projected)
    counted = recount(prune(model, graph, found.structure), graph.example)
    assert (counted.macs, counted.params) == (found.cost.macs, found.cost.params)


@pytest.mark.parametrize(("name", "side"), [("resnet20", 16), ("vgg16_bn_cifar", 32)])
def test_lifting_is_undone_by_translating(name: str, side: int) -> None:
    found = removal_order(Removal(most=3), name, side)
    thin = found.without(found.order)
    smaller = Structure.random(thin.reduction.graph, keep=0.5, seed=1)
    lifted = thin.lift(smaller)
    assert lifted.removed == tuple(sorted(found.order))
    assert thin.reduction.translate(lifted) == smaller


def test_a_group_of_the_reduced_graph_knows_its_own_in_the_dense_one() -> None:
    here = task()
    thin = reduced_network(here.graph, ["layer1.1"], lambda graph: Space().tables(here.model, graph))
    names = [here.graph.groups[number].name for number in thin.dense_groups]
    assert names == [group.name for group in thin.reduction.graph.groups]
    assert "layer1.1.conv1" not in names
    assert (np.diff(thin.dense_groups) > 0).all()


def test_each_layer_may_go_by_itself() -> None:
    found = removal_order(Removal(most=3, least=1, choice="each"))
    assert len(found.order) == 7
    assert found.ranges == {f"remove {layer}": (0, 1) for layer in found.order}
    first, second, *_, last = found.order
    assert found.chosen(found.params((last, second))) == (second, last)
    assert found.chosen(found.params()) == (first,)  # one must go
    assert found.chosen({}) == (first,)
    assert found.chosen(found.params(found.order)) == found.order[:3]  # no more than three may
    assert removal_order(Removal(most=3, least=2)).ranges == {"layers removed": (2, 3)}
    with pytest.raises(SecateurError, match=r"unknown choice 'any'"):
        Removal(choice="any")
    assert "choice" not in Space(removal=Removal()).to_dict()["removal"]  # studies of before keep their identity
    assert Space(removal=Removal(choice="each")).to_dict()["removal"]["choice"] == "each"


def test_tables_without_a_block_are_part_of_the_dense_ones() -> None:
    here = task()
    dense = Space().tables(here.model, here.graph)
    found = LayerRemovalOrder.of(Removal(choice="each"), here, never, "naswot_last", dense)
    thin = found.without(("layer1.1", "layer3.2"))
    assert list(thin.tables.groups) == [group.name for group in thin.reduction.graph.groups]
    assert thin.tables.groups.keys() == dense.groups.keys() - {"layer1.1.conv1", "layer3.2.conv1"}
    for name, table in thin.tables.groups.items():
        assert table.norms is dense.groups[name].norms
    names = [group.name for group in here.graph.groups]
    for layer in ("layer1.1", "layer3.2"):
        assert [names[place] for place in found.gone_with(layer)] == [f"{layer}.conv1"]
    assert found.without(("layer1.1", "layer3.2")) is thin
    for removed in itertools.combinations(found.order, 3):
        found.without(removed)
    assert len(found._networks) <= KEPT_NETWORKS


def never(graph: ChannelGraph) -> FilterTables:
    raise AssertionError("made anew")


def test_united_groups_have_tables_of_their_own() -> None:
    found = removal_order(Removal(choice="each"), "vgg16_bn_cifar", 32)
    thin = found.without(found.order[:1])
    assert any(len(sources) > 1 for sources in thin.reduction.sources.values())
    assert list(thin.tables.groups) == [group.name for group in thin.reduction.graph.groups]
    assert not len(found.gone_with(found.order[0]))


@pytest.mark.parametrize("most", [1, 3])
def test_the_smallest_reachable_cost_is_that_of_the_best_layers_to_go(most: int) -> None:
    here = problem(Space("ratios", removal=Removal(most=most, choice="each")))
    order = here.removal_order
    assert order is not None
    costs = [
        here.cost_model_without(removed).evaluate(here.limits.floors(order.without(removed).tables))
        for removed in itertools.combinations(order.order, most)
    ]
    least = reachable(here)
    assert least.macs == min(one.macs for one in costs)
    assert least.params == min(one.params for one in costs)


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_bad_numbers_of_layers_are_refused(most: float) -> None:
    with pytest.raises(SecateurError, match=f"most must be a share in .* but got most={most}"):
        Removal(most=most)


def test_as_many_layers_go_as_must() -> None:
    here = problem(Space("ratios", removal=Removal(most=3, least=2)))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    counts = set()
    for _ in range(20):
        allocation = here.suggest(study.ask())
        assert isinstance(allocation, ReducedAllocation)
        counts.add(len(allocation.network.removed))
    assert counts == {2, 3}
    with pytest.raises(SecateurError, match=r"0 <= least <= most must hold, but got least=3, most=2"):
        Removal(most=2, least=3)
    with pytest.raises(SecateurError, match=r"least <= 7 must hold where 7 layers may go, but got least=8"):
        removal_order(Removal(most=100, least=8))
    assert "least" not in Space(removal=Removal()).to_dict()["removal"]  # studies of before keep their identity


def test_a_measure_or_layers_that_do_not_exist_are_named() -> None:
    with pytest.raises(SecateurError, match=r"unknown essentiality 'cosin'; did you mean 'cosine'\?"):
        Removal("cosin")
    with pytest.raises(SecateurError, match=r"no layer of layer9\.\*, conv1 can be removed"):
        removal_order(Removal(layers=("layer9.*", "conv1")))
