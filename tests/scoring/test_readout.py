"""Scores by losses and by a renewed last layer, each against a direct computation."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from scoring.readout import RIDGE
from scoring.recalibration import recalibrate
from scoring.scorers import score


@pytest.fixture(scope="module")
def setting() -> tuple[nn.Module, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.BatchNorm2d(10), nn.ReLU()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4)).eval()
    return model, torch.randn(24, 3, 8, 8), torch.randint(0, 4, (24,)), list(torch.randn(3, 16, 3, 8, 8))


def test_losses_are_those_of_torch(setting: tuple[nn.Module, torch.Tensor, torch.Tensor, list[torch.Tensor]]) -> None:
    model, batch, labels, renewal = setting
    graph = trace(model, batch[:1])
    structure = Structure.random(graph, keep=0.5, seed=3)
    small = prune(model, graph, structure)
    recalibrate(small, renewal)
    with torch.no_grad():
        ours, dense = small(batch), model(batch)
    wanted = -kl_div(log_softmax(ours, 1), log_softmax(dense, 1).exp(), reduction="batchmean")
    found = score("logit_kl", model, graph, structure, batch, recalibrate=renewal)
    assert found == pytest.approx(float(wanted), rel=1e-4)
    found = score("adaptive_loss", model, graph, structure, batch, labels, renewal)
    assert found == pytest.approx(-float(cross_entropy(ours, labels)), rel=1e-4)


def test_the_readout_is_a_ridge_regression_on_the_features(
    setting: tuple[nn.Module, torch.Tensor, torch.Tensor, list[torch.Tensor]],
) -> None:
    model, batch, _, renewal = setting
    graph = trace(model, batch[:1])
    structure = Structure.random(graph, keep=0.5, seed=4)
    small = prune(model, graph, structure)
    recalibrate(small, renewal)
    assert isinstance(small, nn.Sequential)
    images = torch.cat(renewal)
    with torch.no_grad():
        features, dense = small[:-1](images).double().numpy(), model(images).double().numpy()
        unseen, wanted = small[:-1](batch).double().numpy(), model(batch).double().numpy()
    centred = features - features.mean(0)
    fit = Ridge(alpha=RIDGE * (centred**2).sum(0).mean()).fit(features, dense)
    explained = 1 - ((wanted - fit.predict(unseen)) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
    assert score("readout", model, graph, structure, batch, recalibrate=renewal) == pytest.approx(explained, rel=1e-4)


def test_features_that_never_vary_explain_nothing(
    setting: tuple[nn.Module, torch.Tensor, torch.Tensor, list[torch.Tensor]],
) -> None:
    _, batch, _, renewal = setting
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    graph = trace(model, batch[:1])
    bias = model.get_parameter("0.bias")
    with torch.no_grad():
        bias.fill_(-1e6)
    assert score("readout", model, graph, Structure.full(graph), batch, recalibrate=renewal) == 0.0


def test_a_network_without_a_last_linear_layer_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 6), nn.Flatten()).eval()
    batch = torch.randn(6, 3, 8, 8)
    graph = trace(model, batch[:1])
    with pytest.raises(SecateurError, match=r"readout needs a network that ends in a linear layer"):
        score("readout", model, graph, Structure.full(graph), batch, recalibrate=[batch.clone()])


def test_the_batch_itself_cannot_judge_what_was_fitted_to_it(
    setting: tuple[nn.Module, torch.Tensor, torch.Tensor, list[torch.Tensor]],
) -> None:
    model, batch, _, _ = setting
    graph = trace(model, batch[:1])
    with pytest.raises(SecateurError, match=r"readout needs recalibration images other than the batch"):
        score("readout", model, graph, Structure.full(graph), batch, recalibrate=[batch])
