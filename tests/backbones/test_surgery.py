"""Surgery: exact index maps, nothing lost on the way, the original untouched."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.module_copy import copy_with
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from tests.backbones.parity import assert_law, noise, stirred
from tests.graphs import known_trace as trace


class Flat(nn.Module):
    """conv (6) -> norm -> flatten -> linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.norm(self.conv(x))).flatten(1))
        return y


@lru_cache(maxsize=1)
def flat() -> tuple[Flat, ChannelGraph]:
    torch.manual_seed(0)
    model = Flat()
    stirred(model)
    return model, trace(model, noise(1, 3, 2, 2))


def test_every_tensor_is_the_slice_that_the_kept_channels_own() -> None:
    model: Any
    model, graph = flat()
    kept = [1, 2, 5]
    pruned: Any = prune(model, graph, Structure.of(graph, {"conv": kept}))
    assert type(pruned).__name__ == "Flat"
    columns = [position * 1 for channel in kept for position in range(channel * 4, channel * 4 + 4)]
    assert torch.equal(pruned.conv.weight, model.conv.weight[kept])
    assert torch.equal(pruned.conv.bias, model.conv.bias[kept])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(pruned.norm, name), getattr(model.norm, name)[kept])
    assert torch.equal(pruned.head.weight, model.head.weight[:, columns])
    assert torch.equal(pruned.head.bias, model.head.bias)
    assert (pruned.conv.out_channels, pruned.norm.num_features, pruned.head.in_features) == (3, 3, 12)
    assert pruned.secateur_origin.tensors["head.weight"] == {1: tuple(columns)}


def test_members_say_where_each_channel_lives() -> None:
    _, graph = flat()
    (group,) = graph.groups
    assert {(member.tensor, member.dim, member.role, member.index.shape) for member in group.members} == {
        ("conv.weight", 0, "filter", (6, 1)),
        ("conv.bias", 0, "vector", (6, 1)),
        ("norm.weight", 0, "vector", (6, 1)),
        ("norm.bias", 0, "vector", (6, 1)),
        ("norm.running_mean", 0, "vector", (6, 1)),
        ("norm.running_var", 0, "vector", (6, 1)),
        ("head.weight", 1, "input", (6, 4)),
    }
    head = next(member for member in group.members if member.tensor == "head.weight")
    assert head.index.tolist() == [list(range(4 * channel, 4 * channel + 4)) for channel in range(6)]


def test_the_original_is_untouched_and_shares_nothing() -> None:
    model, graph = flat()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = prune(model, graph, Structure.full(graph))
    with torch.no_grad():
        for value in pruned.state_dict().values():
            value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not hasattr(model, "secateur_origin")


def test_a_pruned_network_can_be_traced_and_pruned_again() -> None:
    model, graph = flat()
    once = prune(model, graph, Structure.of(graph, {"conv": [0, 1, 3, 4]}))
    second = trace(once, graph.example)
    assert [group.size for group in second.groups] == [4]
    assert_law(once, second, Structure.of(second, {"conv": [1, 2]}))


def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
    module.seen = tuple(output.shape)  # type: ignore[assignment]


def test_hooks_flags_types_and_modes_are_kept() -> None:
    torch.manual_seed(0)
    model: Any = Flat().to(torch.bfloat16).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.note = ["anything", {"nested": 1}]
    graph = trace(model, torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16))
    model.conv.register_forward_hook(hook)
    pruned: Any = prune(model, graph, Structure.of(graph, {"conv": [0, 5]}), check=False)
    assert (pruned.training, pruned.norm.training, pruned.conv.training) == (True, False, True)
    assert not pruned.conv.weight.requires_grad
    assert pruned.head.weight.requires_grad
    assert pruned.conv.weight.dtype == torch.bfloat16
    assert pruned.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert pruned.note == model.note
    assert pruned.note is not model.note
    pruned(torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16))
    assert pruned.conv.seen == (1, 2, 2, 2)
    assert not hasattr(model.conv, "seen")


class Careful(nn.Conv2d):
    """A layer with a copy constructor of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Careful:
        new = Careful(self.in_channels, self.out_channels, 1)
        new.weight = copy.deepcopy(self.weight, memo)
        new.bias = copy.deepcopy(self.bias, memo)
        new.copies = getattr(self, "copies", 0) + 1  # type: ignore[assignment]
        return new


def test_a_copy_constructor_is_honoured() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Careful(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    graph = trace(model, torch.zeros(1, 3, 4, 4))
    pruned: Any = prune(model, graph, Structure.of(graph, {"0": [1, 2]}))
    assert pruned[0].copies == 1
    assert pruned[0].weight.shape == (2, 3, 1, 1)


def test_copying_with_the_same_tensors_is_a_deep_copy() -> None:
    model = build("resnet20", 10)
    twin = copy_with(model, {id(value): value.detach().clone() for value in model.buffers()})
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    for (name, one), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
        assert one.data_ptr() != other.data_ptr(), name


def test_pruning_another_model_than_the_traced_one_is_one_clear_line() -> None:
    _, graph = flat()
    with pytest.raises(SecateurError, match=r"traced with conv.weight of shape \(6, 3, 3, 3\), this model has none"):
        prune(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten()), graph, Structure.full(graph))
