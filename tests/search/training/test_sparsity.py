"""Network slimming drives gammas down, masks stay zero, and effective parameters are counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.surgery import prune
from search.data.data import Data
from search.data.readers import load_data
from search.training.double_pruning import sparsify
from search.training.engine import train
from search.training.losses import gammas, l1_subgradient
from search.training.masks import effective_parameters, hold, magnitude_masks
from search.training.metrics import netscore
from search.training.recipe import Recipe
from tests.graphs import known_trace as trace


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def test_subgradient_is_the_sign_times_lambda() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    model[0].load_state_dict({**model[0].state_dict(), "weight": torch.tensor([2.0, 0.0, -0.5])})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    l1_subgradient(model, 0.1, {"1": 5.0})()
    torch.testing.assert_close(model[0].weight.grad, torch.tensor([1.1, 1.0, 0.9]))
    torch.testing.assert_close(model[1].weight.grad, torch.full((3,), 1.5))
    torch.testing.assert_close(model[0].bias.grad, torch.ones(3))


def test_slimming_shrinks_gammas_and_the_heavier_layer_more(digits: Data) -> None:
    mean = {}
    for name, slim, layers in [("none", 0.0, {}), ("even", 0.03, {}), ("heavy", 0.03, {"4": 3.0})]:
        model = network()
        train(model, digits, Recipe(epochs=4, lr=0.05, batch_size=64, slim=slim, slim_layers=layers))
        mean[name] = {layer: float(gamma.detach().abs().mean()) for layer, gamma in gammas(model).items()}
    assert mean["even"]["1"] < 0.8 * mean["none"]["1"]
    assert mean["even"]["4"] < 0.8 * mean["none"]["4"]
    assert mean["heavy"]["4"] < 0.7 * mean["even"]["4"]
    assert mean["heavy"]["1"] > 0.8 * mean["even"]["1"]


def test_slimming_without_batch_norm_is_refused() -> None:
    with pytest.raises(SecateurError, match="slimming needs batch-norm layers"):
        l1_subgradient(nn.Linear(2, 2), 1e-4, {})
    with pytest.raises(SecateurError, match="slim_layers names 'x'; the batch-norm layers are 0"):
        l1_subgradient(nn.Sequential(nn.BatchNorm1d(2)), 1e-4, {"x": 1.0})


def test_global_masks_drop_the_smallest_weights_of_all_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model.load_state_dict(
        {"0.weight": torch.tensor([[1.0, -2.0], [0.1, 6.0]]), "1.weight": torch.tensor([[-0.5, 3.0]])}
    )
    everywhere = magnitude_masks(model, 0.5)
    assert everywhere["0.weight"].tolist() == [[False, True], [False, True]]
    assert everywhere["1.weight"].tolist() == [[False, True]]
    each = magnitude_masks(model, 0.5, scope="layer")
    assert each["0.weight"].tolist() == [[False, True], [False, True]]
    assert each["1.weight"].tolist() == [[False, True]]
    assert list(magnitude_masks(model, 0.5, spare=["0"])) == ["1.weight"]
    assert bool(magnitude_masks(model, 0.0)["0.weight"].all())


def test_masks_stay_zero_through_fine_tuning_and_parameters_are_counted(digits: Data) -> None:
    model = network()
    train(model, digits, Recipe(epochs=5, lr=0.1, batch_size=64))
    masks = magnitude_masks(model, 0.8, spare=["0"])
    names = set(model.state_dict())
    history = train(model, digits, Recipe(epochs=5, lr=0.02, batch_size=64, ema=0.9), masks=masks)
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        assert bool((parameters[name][~mask] == 0).all())
        assert bool((parameters[name][mask] != 0).any())
    assert set(model.state_dict()) == names
    assert history.test_accuracy is not None
    assert history.test_accuracy > 0.93
    count = effective_parameters(model, masks)
    weights = 8 * 16 * 9 + 256 * 10
    assert count.params == 8 * 9 + weights + 2 * 8 + 2 * 16 + 10
    assert count.masked == round(0.8 * weights)
    assert count.effective == count.params - count.masked


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: magnitude_masks(model, 1.0), "0 <= amount < 1 must hold, but got amount=1.0"),
        (lambda model: magnitude_masks(model, 0.5, scope="all"), "scope must be 'global' or 'layer', but got 'all'"),  # type: ignore[arg-type]
        (
            lambda model: magnitude_masks(model, 0.5, spare=["fc"]),
            "spare names 'fc'; .* are 0, 3, 7",
        ),
        (lambda model: magnitude_masks(nn.ReLU(), 0.5), "no convolution or linear layer"),
        (lambda model: hold(model, {"9.weight": torch.ones(1)}), "the network has no such parameter"),
        (lambda model: hold(model, {"7.weight": torch.ones(1)}), r"has shape \(1,\); the parameter has \(10, 256\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(call: Callable[[nn.Module], object], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        call(network())


def test_double_pruning_reports_what_is_effective(digits: Data) -> None:
    dense = network()
    train(dense, digits, Recipe(epochs=5, lr=0.1, batch_size=64))
    graph = trace(dense, digits.example)
    structure = Structure.random(graph, macs=0.5, seed=1)
    small = prune(dense, graph, structure)
    result = sparsify(small, digits, Recipe(epochs=4, lr=0.05, batch_size=64), 0.5, teacher=dense)
    macs = cost(graph, structure).macs
    assert result.parameters.params == cost(graph, structure).params
    zeros = sum(int((parameter == 0).sum()) for parameter in small.parameters())
    assert zeros == result.parameters.masked
    assert result.history.test_accuracy is not None
    assert result.history.test_accuracy > 0.9
    expected = netscore(result.history.test_accuracy, result.parameters.params - zeros, macs)
    assert result.netscore(macs) == pytest.approx(expected)
    # Sparser at about the same accuracy is worth more.
    assert result.netscore(macs) > netscore(result.history.test_accuracy, result.parameters.params, macs)
