"""Modules as people really write them: state that moves, wrappers, hooks, locks, lazy layers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred


class Net(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))
        return y


class Counting(Net):
    """Counts its calls, in a buffer and in an attribute, and remembers its last features."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.number = 0
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.number += 1
        self.last = self.a(x)
        return super().forward(x)


def law(model: nn.Module) -> nn.Module:
    stirred(model)
    graph = trace(model, noise(1, 3, 8, 8))
    return assert_law(model, graph, Structure.random(graph, keep=0.5, seed=3))


def test_what_a_forward_pass_writes_down_is_put_back() -> None:
    model = Counting()
    stirred(model)
    graph = trace(model, noise(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["a", "b"]
    assert float(model.calls) == 0
    assert model.number == 0
    assert model.last is None
    assert_law(model, graph, Structure.random(graph, keep=0.5))


class Holding(Net):
    """Holds something that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.classes = {"cat": 0, "dog": 1}


def test_what_cannot_be_copied_is_shared() -> None:
    model = Holding()
    pruned: Any = law(model)
    assert pruned.lock is model.lock
    assert pruned.classes == model.classes
    assert pruned.classes is not model.classes


class Listed(nn.Module):
    """Layers and parameters in every kind of container."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"stem": nn.Conv2d(3, 8, 3), "rest": nn.ModuleList([nn.Conv2d(8, 6, 3)])})
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(8, 1, 1))])
        self.more = nn.ParameterDict({"shift": nn.Parameter(torch.rand(6))})

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers["stem"](x) * self.scales[0]
        x = self.layers["rest"][0](x).mean((2, 3)) + self.more["shift"]  # type: ignore[index]
        return x @ x.T


def test_containers() -> None:
    model = stirred(Listed())
    graph = trace(model, noise(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["layers.stem"]
    pruned: Any = assert_law(model, graph, Structure.of(graph, {"layers.stem": [1, 4]}))
    assert pruned.scales[0].shape == (2, 1, 1)


def test_layers_with_a_weight_made_by_a_hook_stay() -> None:
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        model: Any = Net()
        model.a = wrap(model.a)
        stirred(model)
        graph = trace(model, noise(1, 3, 8, 8))
        assert [group.name for group in graph.groups] == ["b"]
        assert_law(model, graph, Structure.random(graph, keep=0.5))


def test_old_spectral_norm_stays_too() -> None:
    model = Net()
    model.a = torch.nn.utils.spectral_norm(model.a)
    stirred(model)
    graph = trace(model, noise(1, 3, 8, 8))
    assert "a" not in graph.by_name
    assert_law(model, graph, Structure.random(graph, keep=0.5))


def test_a_wrapper_for_many_devices_is_to_be_taken_off() -> None:
    with pytest.raises(SecateurError, match="the model is wrapped in DataParallel; pass the network inside"):
        trace(nn.DataParallel(Net()), torch.zeros(1, 3, 8, 8))


def test_a_layer_that_has_not_seen_data_is_named() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(SecateurError, match=r"0.weight has no shape yet; run the model once on an example"):
        trace(model, torch.zeros(1, 3, 8, 8))


def test_a_scripted_module_is_refused_in_one_line() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    with pytest.warns(DeprecationWarning, match="deprecated"):
        model = torch.jit.trace(plain, torch.zeros(1, 3, 8, 8))
    with pytest.raises(SecateurError, match=r"TorchScript module; pass the nn.Module it was made from"):
        trace(model, torch.zeros(1, 3, 8, 8))


class Noisy(Net):
    """Random numbers in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


def test_random_numbers_do_not_look_like_a_mistake() -> None:
    graph = trace(stirred(Noisy()), noise(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["a", "b"]


class Squeezed(Net):
    """`squeeze` drops a channel dimension of one."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)).squeeze()
        y: Tensor = self.head(x.unsqueeze(0))
        return y


def test_code_that_breaks_at_one_channel_is_found() -> None:
    graph = trace(Squeezed(), torch.zeros(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["a"]
    record = next(record for record in graph.frozen if record.layer == "b")
    assert record.reason.endswith("the network's output has shapes [(4,)] instead of [(1, 4)]")


def test_video_memory_format_is_kept() -> None:
    model = nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 3))
    model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    graph = trace(model, torch.zeros(1, 3, 6, 6, 6))
    pruned: Any = prune(model, graph, Structure.of(graph, {"0": [0, 3]}))
    assert pruned[0].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_half_precision_is_traced_and_pruned() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model = Net().to(dtype)
        graph = trace(model, torch.randn(1, 3, 8, 8).to(dtype))
        assert [group.name for group in graph.groups] == ["a", "b"]
        assert next(prune(model, graph, Structure.random(graph, keep=0.5)).parameters()).dtype == dtype
