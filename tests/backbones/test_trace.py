"""Tracing: what it leaves alone, what it refuses, and how it says so."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import pruning_check
from backbones.errors import SecateurError
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred


class Net(nn.Module):
    """Two convolutions and a head; subclasses put something in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.between(F.relu(self.a(x))))
        y: Tensor = self.head(F.relu(x).mean((2, 3)))
        return y


class Untraceable(Net):
    def between(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return x


class Sorted(Net):
    def between(self, x: Tensor) -> Tensor:
        return torch.sort(x, 1).values


class Broken(Net):
    def between(self, x: Tensor) -> Tensor:
        return x.reshape(7, -1)


class Literal(nn.Module):
    """A block that states the number of its input channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.view(-1, 8, 6, 6))
        return y


def test_the_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model: Any = build("resnet20", 10).train()
    model.layer2.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    trace(model, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_ignore_and_only_take_globs_of_module_paths() -> None:
    model, example = build("resnet20", 10), torch.zeros(1, 3, 8, 8)
    names = {group.name for group in trace(model, example, ignore=["layer3.*", "conv1"]).groups}
    # the last stage adds to the stream, which is one with the streams of the stages before (zero-padded shortcuts)
    assert names == {f"layer{stage}.{block}.conv1" for stage in (1, 2) for block in (0, 1, 2)}
    assert {group.name for group in trace(model, example, only=["layer1.0.conv1"]).groups} == {"layer1.0.conv1"}
    records = {record.layer: record for record in trace(model, example, ignore=["layer3.0.conv1"]).frozen}
    assert records["layer3.0.conv1"].reason == "left out by ignore or only"
    assert records["layer3.0.conv1"].op == "ignore"
    with pytest.raises(SecateurError, match=r"pattern 'layer9.\*' matches no module"):
        trace(model, example, ignore=["layer9.*"])


def test_nan_weights_are_named() -> None:
    model: Any = build("resnet20", 10)
    with torch.no_grad():
        model.layer1[0].conv2.weight[0, 0] = float("nan")
    with pytest.raises(SecateurError, match=r"layer1.0.conv2.weight holds NaN or infinite values"):
        trace(model, torch.zeros(1, 3, 8, 8))


def test_an_example_of_the_wrong_shape_is_described() -> None:
    with pytest.raises(SecateurError, match=r"does not run on the example tensor\(1, 1, 8, 8\): .*expected input.*"):
        trace(build("resnet20", 10), torch.zeros(1, 1, 8, 8))


def test_code_that_cannot_run_names_its_line() -> None:
    with pytest.raises(SecateurError, match=r"does not run on the example .*\(at test_trace.py:\d+: return x.reshape"):
        trace(Broken(), torch.zeros(1, 3, 8, 8))


def test_control_flow_on_data_names_its_line() -> None:
    with pytest.raises(SecateurError, match=r"torch.export cannot trace the model: .* \(at test_trace.py:\d+: if x.su"):
        trace(Untraceable(), torch.zeros(1, 3, 8, 8))


def test_an_operation_over_channels_freezes_with_its_place() -> None:
    torch.manual_seed(0)
    model = stirred(Sorted())
    graph = trace(model, noise(1, 3, 6, 6))
    record = next(record for record in graph.frozen if record.layer == "a")
    assert record.op == "aten.sort"
    assert record.channels == tuple(range(8))
    assert record.line.startswith("test_trace.py:")
    assert record.line.endswith("x = self.b(self.between(F.relu(self.a(x))))")  # torch notes the lines of forward
    assert record.reason == "the order of channels"
    assert [group.name for group in graph.groups] == ["b"]
    assert_law(model, graph, Structure.random(graph, keep=0.5))


def test_a_literal_size_deep_in_a_network_costs_few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module whose code broke says where to look: bisecting all the groups took over a minute in a MaxViT."""
    runs = []
    plain = pruning_check.eval_output

    def counted(model: nn.Module, example: Sequence[Any], mode: Any) -> Any:
        runs.append(example)
        return plain(model, example, mode)

    monkeypatch.setattr(pruning_check, "eval_output", counted)
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()) for _ in range(24)]
    graph = trace(
        nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, Literal(), nn.ReLU(), nn.Conv2d(8, 4, 1)), torch.zeros(1, 3, 6, 6)
    )
    [record] = [record for record in graph.frozen if record.op == "trial pruning"]
    assert record.layer == "24.0"
    assert record.line.endswith("y: Tensor = self.conv(x.view(-1, 8, 6, 6))")
    assert len(graph.groups) == 25
    assert len(runs) <= 24


def test_with_and_without_data_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes of large networks are checked without data, which takes longer than computing does in small ones."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), Literal(), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1))
    found, devices = [], []
    plain = pruning_check.eval_output

    def watched(model: nn.Module, example: Sequence[Any], mode: Any) -> Any:
        devices.append(example[0].device.type)
        return plain(model, example, mode)

    monkeypatch.setattr(pruning_check, "eval_output", watched)
    for large in (10**6, 0):
        monkeypatch.setattr(pruning_check, "DATALESS", large)
        devices.clear()
        graph = trace(model, torch.zeros(1, 3, 6, 6))
        assert ("meta" in devices) == (large == 0)
        found.append(([group.name for group in graph.groups], graph.frozen))
    assert found[0] == found[1]
    assert "trial pruning" in {record.op for record in graph.frozen}


def test_a_network_without_a_prunable_group_is_refused() -> None:
    with pytest.raises(SecateurError, match=r"has no prunable group .*network output"):
        trace(nn.Linear(3, 4), torch.zeros(1, 3))
    with pytest.raises(SecateurError, match=r"has no prunable group .*no layer with filters"):
        trace(nn.ReLU(), torch.zeros(1, 3))


def test_parameters_that_the_forward_pass_never_reaches_are_listed() -> None:
    model = Net()
    model.auxiliary = nn.Linear(8, 2)
    graph = trace(model, torch.zeros(1, 3, 6, 6))
    pruned: Any = prune(model, graph, Structure.random(graph, keep=0.5))
    assert graph.unreached == ("auxiliary.weight", "auxiliary.bias")
    assert pruned.auxiliary.weight.shape == (2, 8)


def test_layers_and_activations_are_listed_in_order() -> None:
    graph = trace(Net(), torch.zeros(1, 3, 6, 6))
    assert dict(graph.layers) == {"a": "Conv2d", "b": "Conv2d", "head": "Linear"}
    assert [(entry.op, entry.shape) for entry in graph.activations] == [("aten.relu", (1, 8, 6, 6))] * 2


def test_a_graph_is_pickled_with_its_operators() -> None:
    """Those of torch by name; what is read back prunes, and replays, as what was written."""
    model = build("mobilenet_v3_small_cifar", 10).eval()
    graph = trace(model, torch.zeros(1, 3, 32, 32))
    again = pickle.loads(pickle.dumps(graph))
    assert (again.id, again.program.id) == (graph.id, graph.program.id)
    assert [step.target for step in again.program.steps] == [step.target for step in graph.program.steps]
    structure = Structure.random(graph, keep=0.5)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(prune(model, again, structure)(images), prune(model, graph, structure)(images))
