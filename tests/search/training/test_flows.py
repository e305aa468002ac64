"""One-shot, iterative and soft flows reach the budget, resume exactly, and let filters grow back."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.architectures.resnet_cifar import CifarResNet
from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.limits import Limits
from scoring.tables import filter_tables
from search.data.data import Data
from search.data.readers import load_data
from search.space.allocations import GlobalThreshold
from search.space.budget import Budget, Target
from search.space.space import Space
from search.training.choosing import Chooser, chooser_of, intermediate_target
from search.training.engine import train
from search.training.flows import FLOWS, Flow, FlowResult, compose, run_flow
from search.training.metrics import accuracy
from search.training.recipe import Recipe
from search.training.soft import asymptotic, nonzero_structure, scales_suffice, zero_channels
from tests.graphs import known_trace as trace

RECIPE = Recipe(epochs=4, lr=0.05, batch_size=64)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


@pytest.fixture(scope="module")
def dense(digits: Data) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, 2, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )
    train(model, digits, Recipe(epochs=6, lr=0.1, batch_size=64))
    return model


@pytest.fixture(scope="module")
def graph(dense: nn.Module, digits: Data) -> ChannelGraph:
    return trace(dense, digits.example)


def third(graph: ChannelGraph) -> Target:
    return Budget(macs=0.33).targets(graph.costs.dense)[0]


@pytest.mark.parametrize("name", list(FLOWS))
def test_every_flow_ends_within_the_budget_as_an_ordinary_small_network(
    name: str, dense: nn.Module, graph: ChannelGraph, digits: Data, tmp_path: Path
) -> None:
    before = {key: tensor.clone() for key, tensor in dense.state_dict().items()}
    flow, target = Flow(name, steps=2), third(graph)
    shrunk = run_flow(flow, dense, graph, digits, RECIPE, Chooser(GlobalThreshold), target, folder=tmp_path)
    found = cost(graph, shrunk.structure)
    assert 0.9 * target.bounds[0].high < found.macs <= target.bounds[0].high
    fresh = prune(dense, graph, shrunk.structure)
    shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (shrunk.model, fresh)]
    assert shapes[0] == shapes[1]
    assert shrunk.model.secateur_origin.structure == shrunk.structure  # type: ignore[union-attr]
    history = shrunk.histories[-1]
    assert accuracy(shrunk.model, digits) == pytest.approx(history.test_accuracy)
    assert history.validation_accuracy > 0.9
    assert len(shrunk.histories) == (2 if name == "iterative" else 1)
    torch.testing.assert_close(dict(dense.state_dict()), before, rtol=0, atol=0)
    again = run_flow(flow, dense, graph, digits, RECIPE, Chooser(GlobalThreshold), target, folder=tmp_path)
    assert same(again, shrunk)


def same(first: FlowResult, second: FlowResult) -> bool:
    weights = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    return first.structure == second.structure and all(torch.equal(a, b) for a, b in weights)


def test_flows_take_any_criterion_and_space(dense: nn.Module, graph: ChannelGraph, digits: Data) -> None:
    recipe = Recipe(epochs=1, batch_size=64)
    target = third(graph)
    found = set()
    for choose in (
        Chooser(GlobalThreshold, Space(criterion="l1")),
        Chooser(GlobalThreshold, Space(criterion="bn_gamma", limits=Limits(max_rate=0.8))),
    ):
        shrunk = run_flow(Flow(), dense, graph, digits, recipe, choose, target)
        assert not target.over(cost(graph, shrunk.structure))
        found.add(shrunk.structure)
    assert len(found) == 2


def test_soft_pruning_revives_filters(dense: nn.Module, graph: ChannelGraph, digits: Data) -> None:
    chosen: list[Structure] = []
    grown: list[int] = []
    rule = Chooser(GlobalThreshold, Space(criterion="bn_gamma"))

    def choose(model: nn.Module, graph: ChannelGraph, target: Target) -> Structure:
        if chosen:
            silenced = set(range(24)) - set(chosen[-1].keep["3"])
            scale = model.get_parameter("4.weight").detach()
            grown.append(sum(bool(scale[channel] != 0) for channel in silenced))
        chosen.append(rule(model, graph, target))
        return chosen[-1]

    # The penalty lets silenced scales catch up with kept ones.
    recipe = Recipe(epochs=4, lr=0.1, batch_size=32, slim=0.05)
    run_flow(Flow("soft"), dense, graph, digits, recipe, choose, third(graph))
    assert len(chosen) == recipe.epochs
    assert all(count > 0 for count in grown)
    revived = 0
    for earlier, later in itertools.pairwise(chosen):
        revived += sum(len(set(kept) - set(earlier.keep[name])) for name, kept in later.kept)
    assert revived > 0


@pytest.mark.parametrize("scales", [True, False])
@pytest.mark.parametrize("name", ["plain", "padded", "projected"])
def test_silenced_network_is_the_pruned_one(name: str, scales: bool, dense: nn.Module, digits: Data) -> None:
    torch.manual_seed(0)
    model = dense if name == "plain" else CifarResNet(1, 10, 1, projection=name == "projected").eval()
    graph = trace(model, digits.example)
    images, _ = digits.batch(8)
    for seed in range(2):
        structure = Structure.random(graph, keep=0.5, seed=seed)
        quiet = prune(model, graph, Structure.full(graph))
        zero_channels(quiet, graph, structure, scales=scales)
        with torch.no_grad():
            expected = prune(model, graph, structure)(images)
            torch.testing.assert_close(quiet(images), expected, rtol=1e-3, atol=1e-4)
        assert nonzero_structure(graph, quiet, scales=scales).kept == structure.kept
    assert scales_suffice(model, graph, digits.example)


def test_scales_do_not_suffice_where_channels_are_read_before_the_norm(digits: Data) -> None:
    class Around(nn.Module):
        """The second layer reads the first both through a batch norm and past it."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
            self.second, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden = self.first(images)
            hidden = self.second(self.norm(hidden).relu() + hidden.relu())
            return self.head(hidden.relu().mean((2, 3)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Around().eval()
    graph = trace(model, digits.example)
    assert not scales_suffice(model, graph, digits.example)
    target = Budget(macs=0.5).targets(graph.costs.dense)[0]
    shrunk = run_flow(
        Flow("soft"), model, graph, digits, Recipe(epochs=2, batch_size=64), Chooser(GlobalThreshold), target
    )
    assert accuracy(shrunk.model, digits) == pytest.approx(shrunk.histories[0].test_accuracy)


def test_asymptotic_cut_passes_three_quarters_after_an_eighth() -> None:
    assert asymptotic(0) == 0
    assert asymptotic(1 / 8) == pytest.approx(0.75, abs=1e-5)
    assert asymptotic(1) == pytest.approx(1)


def test_steps_on_the_way_take_equal_factors_or_amounts(graph: ChannelGraph) -> None:
    target = Budget(macs=0.125, params=0.5).targets(graph.costs.dense)[0]
    whole = graph.costs.dense
    halves = [intermediate_target(whole, target, share / 3, "factors").bounds for share in range(4)]
    assert [bounds[0].high / whole.macs for bounds in halves] == pytest.approx([1, 0.5, 0.25, 0.125])
    assert halves[3] == target.bounds
    thirds = [intermediate_target(whole, target, share / 3, "amounts").bounds for share in range(4)]
    assert [bounds[0].high / whole.macs for bounds in thirds] == pytest.approx(
        [1, 0.875 * 2 / 3 + 0.125, 0.875 / 3 + 0.125, 0.125]
    )
    assert [bound.high for bound in thirds[3]] == pytest.approx([bound.high for bound in target.bounds])


def test_structures_compose(graph: ChannelGraph) -> None:
    outer = Structure.of(graph, {"0": [1, 3, 5, 7], "3": [0, 2, 4]})
    inner = Structure(graph.id, (("0", (0, 2)), ("3", (1, 2))))
    assert compose(graph, outer, inner) == Structure.of(graph, {"0": [1, 5], "3": [2, 4]})
    with pytest.raises(SecateurError, match="group '3' of the later structure does not fit"):
        compose(graph, outer, Structure(graph.id, (("3", (1, 5)),)))
    with pytest.raises(SecateurError, match="removes no layers"):
        compose(graph, outer, Structure(graph.id, (), ("3",)))


def test_global_threshold_is_that_of_network_slimming(dense: nn.Module, graph: ChannelGraph) -> None:
    tables = filter_tables(dense, graph, criterion="bn_gamma")
    limits = Limits(max_rate=1.0)
    allocation = GlobalThreshold(tables, limits)
    gammas = [dense[1].weight.detach().abs().numpy(), dense[4].weight.detach().abs().numpy()]  # type: ignore[index]
    mean = sum(float(gamma.mean()) for gamma in gammas) / 2
    for threshold in (0.1, 0.7, 1.0, 1.2):
        expected = [max(1, int((gamma / mean >= threshold).sum())) for gamma in gammas]
        assert allocation.widths(threshold).tolist() == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flow("sofft"), "unknown flow 'sofft'; did you mean 'soft'?"),
        (lambda: Flow("iterative", steps=0), "steps must be a whole number >= 1, but got steps=0"),
    ],
)
def test_unknown_flows_are_refused(make: object, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        make()  # type: ignore[operator]


def test_what_a_flow_cannot_do_is_refused(dense: nn.Module, graph: ChannelGraph, digits: Data, tmp_path: Path) -> None:
    target = third(graph)
    averaged = Recipe(epochs=2, batch_size=64, ema=0.9)
    with pytest.raises(SecateurError, match="a soft flow cannot average weights"):
        run_flow(Flow("soft"), dense, graph, digits, averaged, Chooser(GlobalThreshold), target)
    tight = Chooser(GlobalThreshold, Space(limits=Limits(max_rate=0.1)))
    with pytest.raises(SecateurError, match="no structure can be chosen: cannot be scaled into the budget"):
        run_flow(Flow(), dense, graph, digits, RECIPE, tight, target)
    quick = Recipe(epochs=1, batch_size=64)
    run_flow(Flow("soft"), dense, graph, digits, quick, Chooser(GlobalThreshold), target, folder=tmp_path)
    with pytest.raises(SecateurError, match="another flow"):
        run_flow(
            Flow("soft"),
            dense,
            graph,
            digits,
            quick,
            Chooser(GlobalThreshold, Space(criterion="l1")),
            target,
            folder=tmp_path,
        )


def test_training_of_other_kept_channels_is_not_continued(
    dense: nn.Module, graph: ChannelGraph, digits: Data, tmp_path: Path
) -> None:
    quick = Recipe(epochs=1, batch_size=64)
    train(prune(dense, graph, Structure.of(graph, {"0": [0, 1]})), digits, quick, folder=tmp_path)
    with pytest.raises(SecateurError, match="another structure"):
        train(prune(dense, graph, Structure.of(graph, {"0": [0, 2]})), digits, quick, folder=tmp_path)


def test_the_rule_of_a_trial_is_written_into_checkpoints_as_ever() -> None:
    assert chooser_of(Space("hybrid"), {"b": 0.25, "a": 0.5}).key == (
        "Proposed(kind='hybrid', parameters=(('a', 0.5), ('b', 0.25))) l2 average fan_in sum "
        "Limits(max_rate=0.9, min_channels=1, divisor=1)"
    )
