from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Group, Member
from scoring.criteria import CRITERIA, REDUCTIONS, importance
from scoring.criterion_inputs import LabelledImages, gather_inputs
from tests.graphs import known_trace as trace
from tests.scoring.hand_graphs import graph_of, linear_network, member, stream_network

Matrix = NDArray[Any]
WEIGHTS = np.random.default_rng(0).normal(0.3, 1.0, (7, 5)).astype(np.float32)
IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4


def values(
    criterion: str,
    model: nn.Module,
    graph: ChannelGraph,
    data: LabelledImages | None = None,
    reduction: str = "sum",
    seed: int = 0,
) -> NDArray[np.float64]:
    return importance(criterion, graph.groups[0], gather_inputs(model, graph, criterion, data, seed), reduction)


@pytest.mark.parametrize(
    ("criterion", "formula"),
    [
        ("l1", lambda w: np.abs(w).sum(1)),
        ("l2", lambda w: np.sqrt((w**2).sum(1))),
        ("std", lambda w: np.sqrt(((w - w.mean(1, keepdims=True)) ** 2).mean(1))),
        ("geometric_median", lambda w: np.sqrt(((w[:, None] - w[None]) ** 2).sum(2)).mean(1)),
    ],
)
def test_formulas_of_the_weights(criterion: str, formula: Callable[[Matrix], Matrix]) -> None:
    found = values(criterion, *linear_network({"g": WEIGHTS}))
    np.testing.assert_allclose(found, formula(WEIGHTS.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("criterion", ["l1", "l2", "std", "geometric_median"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "max", "first"])
def test_several_layers_make_one_value(criterion: str, reduction: str) -> None:
    model, graph = stream_network()
    stem = linear_network({"g": model.stem.weight.detach().flatten(1).numpy()})
    branch = linear_network({"g": model.branch.weight.detach().flatten(1).numpy()})
    both = np.stack([values(criterion, *stem), values(criterion, *branch)])
    wanted = {"sum": both.sum(0), "mean": both.mean(0), "max": both.max(0), "first": both[0]}[reduction]
    np.testing.assert_allclose(values(criterion, model, graph, reduction=reduction), wanted, rtol=1e-6)


def test_batch_norm_gammas() -> None:
    model, graph = stream_network()
    wanted = model.norm.weight.abs() + model.second.weight.abs()
    np.testing.assert_allclose(values("bn_gamma", model, graph), wanted.detach().numpy(), rtol=1e-6)


def test_taylor_is_the_first_order_change_of_the_loss() -> None:
    model, graph = stream_network()
    found = values("taylor", model, graph, (IMAGES, LABELS), reduction="first")
    model.eval()
    loss = cross_entropy(model(IMAGES), LABELS)
    (gradient,) = torch.autograd.grad(loss, model.stem.weight)
    wanted = (gradient * model.stem.weight).sum((1, 2, 3)).abs().detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)
    step = 1e-3
    for channel in range(6):
        with torch.no_grad():
            kept = model.stem.weight[channel].clone()
            model.stem.weight[channel] *= 1 - step
            fallen = float(cross_entropy(model(IMAGES).double(), LABELS) - loss.double()) / step
            model.stem.weight[channel] = kept
        assert abs(fallen) == pytest.approx(found[channel], rel=0.1, abs=2e-4)


def maps_read(model: nn.Module, layer: str) -> Matrix:
    """(8, C, 6, 6) what a layer of `Stream` reads."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model.eval()(IMAGES)
    handle.remove()
    return seen[0].numpy()


@pytest.mark.parametrize(
    ("criterion", "figure"),
    [
        ("hrank", lambda maps: np.linalg.matrix_rank(maps).mean(0)),
        ("apoz", lambda maps: 1 - (maps == 0).mean((0, 2, 3))),
    ],
)
def test_figures_of_the_activation_maps(criterion: str, figure: Callable[[Matrix], Matrix]) -> None:
    model, graph = stream_network()
    wanted = [figure(maps_read(model, layer)) for layer in ("branch", "head")]
    assert 0 < (maps_read(model, "head") == 0).mean() < 1
    np.testing.assert_allclose(values(criterion, model, graph, (IMAGES, None)), wanted[0] + wanted[1], rtol=1e-6)
    np.testing.assert_allclose(values(criterion, model, graph, (IMAGES, None), "first"), wanted[0], rtol=1e-6)


class Shapes(nn.Module):
    """Grouped and transposed convolutions, a flatten, a linear layer on tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.three = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.four = nn.Linear(6 * 144, 5)
        self.five = nn.Linear(5, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = torch.relu(self.three(torch.relu(self.two(torch.relu(self.one(images))))))
        logits: torch.Tensor = self.five(torch.relu(self.four(images.flatten(1))))
        return logits


def shapes_network() -> tuple[Shapes, ChannelGraph]:
    halves = np.asarray([[0, 2], [1, 3]])
    graph = graph_of(
        Group("one", 2, (Member("one.weight", 0, "filter", halves), member("two.weight", 2, "input", 1))),
        Group("three", 3, (member("three.weight", 3, "filter", 1), Member("four.weight", 1, "input", FLATTENED))),
        Group("four", 5, (member("four.weight", 5), member("five.weight", 5, "input", 1))),
    )
    return Shapes(), graph


#: Channel c of the transposed convolution lies in both of its parts, as output channels c and 3 + c.
FLATTENED = np.stack([np.concatenate([part * 144 + np.arange(144) for part in (c, 3 + c)]) for c in range(3)])


def coupling(group: Group) -> dict[tuple[str, int, str], list[list[int]]]:
    """The weights of a group by name, dimension and role."""
    weights = [part for part in group.members if part.role != "vector"]
    return {(part.tensor, part.dim, part.role): part.index.tolist() for part in weights}


@pytest.mark.parametrize("network", [stream_network, shapes_network])
def test_the_graphs_written_by_hand_are_those_of_the_tracer(
    network: Callable[[], tuple[nn.Module, ChannelGraph]],
) -> None:
    model, graph = network()
    traced = trace(model.eval(), IMAGES[:1]).by_name
    for group in graph.groups:
        assert coupling(traced[group.name]) == coupling(group)


def test_filters_of_grouped_and_transposed_convolutions() -> None:
    model, graph = shapes_network()
    inputs = gather_inputs(model, graph, "l2")
    one, three = model.one.weight.detach(), model.three.weight.detach()
    wanted = torch.stack([one[[0, 2]].norm(), one[[1, 3]].norm()])
    np.testing.assert_allclose(importance("l2", graph.groups[0], inputs), wanted.numpy(), rtol=1e-6)
    np.testing.assert_allclose(
        importance("l2", graph.groups[1], inputs), three.pow(2).sum((0, 2, 3)).sqrt().numpy(), rtol=1e-6
    )


def test_maps_of_grouped_convolutions_and_behind_a_flatten() -> None:
    model, graph = shapes_network()
    with torch.no_grad():
        first = torch.relu(model.one(IMAGES))
        third = torch.relu(model.three(torch.relu(model.two(first))))
        fourth = torch.relu(model.four(third.flatten(1)))
    zeros = gather_inputs(model, graph, "apoz", (IMAGES, None))
    wanted = (first != 0).double().mean((0, 2, 3)).unflatten(0, (2, 2)).mean(0)
    np.testing.assert_allclose(importance("apoz", graph.groups[0], zeros), wanted.numpy())
    wanted = (third != 0).double().mean((0, 2, 3)).unflatten(0, (2, 3)).mean(0)
    np.testing.assert_allclose(importance("apoz", graph.groups[1], zeros), wanted.numpy())
    np.testing.assert_allclose(importance("apoz", graph.groups[2], zeros), (fourth != 0).double().mean(0).numpy())
    ranks = gather_inputs(model, graph, "hrank", (IMAGES, None))
    wanted = torch.linalg.matrix_rank(first).double().mean(0).unflatten(0, (2, 2)).mean(0)
    np.testing.assert_allclose(importance("hrank", graph.groups[0], ranks), wanted.numpy())
    # 288 elements a channel behind the flatten: the two 12 x 12 maps are laid out as 16 x 18.
    laid = third[:, torch.as_tensor(np.asarray([[c, 3 + c] for c in range(3)]))].reshape(8, 3, 16, 18)
    wanted = torch.linalg.matrix_rank(laid).double().mean(0)
    np.testing.assert_allclose(importance("hrank", graph.groups[1], ranks), wanted.numpy())


def test_maps_that_no_layer_reads_are_taken_where_they_are_made() -> None:
    model, _ = stream_network()
    graph = graph_of(Group("branch", 6, (member("branch.weight", 6),)))
    made: list[torch.Tensor] = []
    handle = model.branch.register_forward_hook(lambda _, __, output: made.append(output.detach()))
    model.eval()(IMAGES)
    handle.remove()
    wanted = torch.linalg.matrix_rank(made[0]).double().mean(0)
    np.testing.assert_allclose(values("hrank", model, graph, (IMAGES, None)), wanted.numpy())


def test_maps_of_tokens() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = graph_of(Group("0", 4, (member("0.weight", 4), member("2.weight", 4, "input", 1))))
    tokens = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    wanted = (torch.relu(model.get_submodule("0")(tokens)) != 0).double().mean((0, 1))
    np.testing.assert_allclose(values("apoz", model, graph, (tokens, None)), wanted.numpy())


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_a_model_is_left_as_it_was(criterion: str) -> None:
    model, _ = stream_network()
    graph = trace(model.eval(), IMAGES[:1])
    model.train()
    model.second.eval()
    model.stem.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    first = values(criterion, model, graph, (IMAGES, LABELS))
    assert np.isfinite(first).all()
    assert (first >= 0).all()
    np.testing.assert_array_equal(first, values(criterion, model, graph, (IMAGES, LABELS)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.children()] == [True, True, True, False, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.stem.weight.requires_grad is False
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.get_num_threads() == threads


def test_random_control_depends_on_the_seed_and_the_name_alone() -> None:
    one = values("random", *linear_network({"g": WEIGHTS}))
    other = values("random", *linear_network({"g": WEIGHTS + 1, "h": WEIGHTS}))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, values("random", *linear_network({"g": WEIGHTS}), seed=1))
    assert not np.array_equal(one, values("random", *linear_network({"h": WEIGHTS})))


@pytest.mark.parametrize("criterion", ["l1", "l2", "std", "geometric_median"])
def test_zero_and_constant_filters(criterion: str) -> None:
    found = values(criterion, *linear_network({"g": np.asarray([[0.0] * 5, [2.0] * 5, [-2.0] * 5])}))
    root = np.sqrt(5)
    wanted = {
        "l1": [0, 10, 10],
        "l2": [0, 2 * root, 2 * root],
        "std": [0, 0, 0],
        "geometric_median": [4 / 3 * root, 2 * root, 2 * root],
    }[criterion]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_group_that_only_norms_and_readers_hold() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    graph = graph_of(Group("0", 3, (member("0.weight", 3, "vector"), member("1.weight", 3, "input", 1))))
    wanted = model.get_parameter("1.weight").detach().pow(2).sum((0, 2, 3)).sqrt().numpy()
    np.testing.assert_allclose(values("l2", model, graph), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("criterion", "data", "message"),
    [
        ("taylor", None, r"criterion 'taylor' needs data; give data=\(images, labels\)"),
        ("hrank", None, "criterion 'hrank' needs data"),
        ("apoz", None, "criterion 'apoz' needs data"),
        ("taylor", (IMAGES, None), "criterion 'taylor' needs labels"),
        (
            "apoz",
            (IMAGES[:0], None),
            r"criterion 'apoz' needs at least one image, but got data of shape \(0, 3, 6, 6\)",
        ),
        ("taylor", (IMAGES * float("nan"), LABELS), "criterion 'taylor' is not finite on group 'stem'"),
        ("taylor", (IMAGES, LABELS + 9), r"cannot be measured on data of shape \(8, 3, 6, 6\): Target"),
        ("hrank", (IMAGES[:, :2], None), r"cannot be measured on data of shape \(8, 2, 6, 6\): Given groups=1"),
    ],
)
def test_data_that_is_missing_or_wrong(criterion: str, data: LabelledImages | None, message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        values(criterion, *stream_network(), data)


def test_gamma_without_batch_norm() -> None:
    with pytest.raises(SecateurError, match="needs a batch norm with weights on every group, but 'g' has none"):
        values("bn_gamma", *linear_network({"g": WEIGHTS}))


def test_channels_without_any_weight() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(SecateurError, match="group '0' has no weight that makes or reads its channels"):
        values("l2", model, graph_of(Group("0", 3, (member("0.weight", 3, "vector"),))))


def test_maps_that_cannot_be_watched() -> None:
    model = nn.Sequential(nn.Embedding(4, 3))
    graph = graph_of(Group("0", 3, (member("0.weight", 3, "filter", 1),)))
    with pytest.raises(SecateurError, match="no layer that ran shows the activation maps of group '0'"):
        values("apoz", model, graph, (torch.tensor([[1, 2]]), None))


@pytest.mark.parametrize(
    ("criterion", "reduction", "message"),
    [
        ("L2", "sum", "unknown criterion 'L2'; did you mean 'l2'?"),
        ("taylr", "sum", "unknown criterion 'taylr'; did you mean 'taylor'?"),
        ("l2", "average", "unknown reduction 'average'; known are sum, mean, max, first"),
    ],
)
def test_unknown_names(criterion: str, reduction: str, message: str) -> None:
    model, graph = linear_network({"g": WEIGHTS})
    with pytest.raises(SecateurError, match=message.replace("?", r"\?")):
        importance(criterion, graph.groups[0], gather_inputs(model, graph, "l2"), reduction)


def test_the_registries_are_what_the_documentation_lists() -> None:
    assert list(REDUCTIONS) == ["sum", "mean", "max", "first"]
    assert list(CRITERIA) == [
        "l1", "l2", "std", "bn_gamma", "geometric_median", "taylor", "hrank", "apoz", "reconstruction", "random",
    ]  # fmt: skip
