"""What every scorer keeps, whatever it measures: each key of `SCORERS` runs through the same questions."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from backbones.architectures.resnet_cifar import CifarResNet
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from scoring.scorers import SCORERS, score
from tests.graphs import known_trace as trace

NEED_LABELS = {"region_separation", "adaptive_bn", "adaptive_loss"}
NEED_BATCHES = {
    "naswot_balanced",
    "region_kernel",
    "region_separation",
    "fidelity",
    "logit_kl",
    "adaptive_bn",
    "adaptive_loss",
}
COUNTING = {"macs", "params", "units", "random"}
NEED_FIT = {"reconstruction"}
LABELS = torch.arange(12) % 10


def images(seed: int, count: int = 12) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


BATCHES = [images(1, 16), images(2, 16)]


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = CifarResNet(1, 10, 1)
    with torch.no_grad():
        model(images(3, 32))  # batch-norm statistics that are not the initial ones
    return model, trace(model, images(4, 1))


def value(
    name: str,
    network: tuple[nn.Module, ChannelGraph],
    structure: Structure,
    labels: Tensor | None = LABELS,
    batches: Sequence[Tensor] | None = BATCHES,
    fit: bool = True,
) -> float:
    return score(name, *network, structure, images(0), labels, batches, fit=images(5, 24) if fit else None)


def snapshot(model: nn.Module) -> tuple[dict[str, Tensor], list[bool], list[bool], list[bool]]:
    parameters = list(model.parameters())
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in parameters],
        [parameter.grad is None for parameter in parameters],
    )


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_finite_repeatable_and_the_model_is_left_alone(name: str, network: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = network
    model.train()
    model.get_submodule("layer1.0").eval()  # modes are kept module by module
    before = snapshot(model)
    for structure in (Structure.full(graph), Structure.random(graph, keep=0.5, seed=1)):
        found = value(name, network, structure)
        assert isinstance(found, float)
        assert math.isfinite(found)
        assert value(name, network, structure) == found
    after = snapshot(model)
    assert after[1:] == before[1:]
    assert all(torch.equal(before[0][key], tensor) for key, tensor in after[0].items())


@pytest.mark.parametrize("name", sorted(set(SCORERS) - COUNTING - {"synflow"}))
def test_the_order_of_the_batch_does_not_matter(name: str, network: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = network
    structure = Structure.random(graph, keep=0.5, seed=2)
    order = torch.tensor([5, 0, 3, 1, 4, 2, 11, 6, 9, 7, 10, 8])
    moved = score(name, model, graph, structure, images(0)[order], LABELS[order], BATCHES, fit=images(5, 24))
    assert moved == pytest.approx(value(name, network, structure), rel=1e-5)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_what_is_missing_is_named_in_one_line(name: str, network: tuple[nn.Module, ChannelGraph]) -> None:
    structure = Structure.random(network[1], keep=0.5, seed=1)
    if name in NEED_LABELS:
        with pytest.raises(SecateurError, match=rf"^scorer '{name}' needs labels; .*$"):
            value(name, network, structure, labels=None)
    else:
        assert value(name, network, structure, labels=None) == value(name, network, structure)
    if name in NEED_BATCHES:
        nothing: tuple[Sequence[Tensor] | None, ...] = (None, [])
        for missing in nothing:
            with pytest.raises(SecateurError, match=rf"^scorer '{name}' needs recalibrate=.*$"):
                value(name, network, structure, batches=missing)
    else:
        assert value(name, network, structure, batches=None) == value(name, network, structure)
    if name in NEED_FIT:
        with pytest.raises(SecateurError, match=rf"^scorer '{name}' needs fit=.*$"):
            value(name, network, structure, fit=False)
    else:
        assert value(name, network, structure, fit=False) == value(name, network, structure)


@pytest.mark.parametrize("name", sorted(set(SCORERS) - COUNTING))
@pytest.mark.parametrize("place", ["layer1.0.conv2.weight", "linear.weight"])
def test_nan_weights_are_an_error(name: str, place: str, network: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = network
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.get_parameter(place).view(-1)[0] = math.nan
    with pytest.raises(SecateurError, match=r"^[^\n]*$"):
        value(name, (broken, graph), Structure.full(graph))


@pytest.mark.parametrize("name", sorted(set(SCORERS) - COUNTING))
def test_a_layer_whose_units_are_all_dead_is_finite(name: str, network: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = network
    dead = copy.deepcopy(model).eval()
    with torch.no_grad():
        dead.get_parameter("layer2.0.bn1.weight").zero_()
        dead.get_parameter("layer2.0.bn1.bias").fill_(-1.0)
    assert math.isfinite(value(name, (dead, graph), Structure.full(graph)))


@pytest.mark.parametrize("name", ["naswot", "naswot_last", "naswot_balanced", "region_kernel", "fidelity"])
def test_a_network_without_activation(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    graph = trace(model, torch.randn(1, 4))
    batch = torch.randn(8, 4)
    with pytest.raises(SecateurError, match="the network has no activation"):
        score(name, model, graph, Structure.full(graph), batch, None, [batch])


@pytest.mark.parametrize("name", ["naswot", "region_kernel", "fidelity", "synflow"])
def test_the_number_of_threads_does_not_matter(name: str, network: tuple[nn.Module, ChannelGraph]) -> None:
    structure = Structure.random(network[1], keep=0.5, seed=3)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(value(name, network, structure))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_singular_kernel_is_finite_for_every_scorer(network: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = network
    same = images(0)[:1].expand(12, -1, -1, -1).contiguous()
    for name in SCORERS:
        found = score(name, model, graph, Structure.full(graph), same, LABELS, BATCHES, fit=images(5, 24))
        assert math.isfinite(found), name
