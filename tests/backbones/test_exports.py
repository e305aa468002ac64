"""Exports compute what the module computes."""

from __future__ import annotations

import copy
import importlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backbones.architectures.resnet_cifar import CifarResNet
from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.onnx_network import OnnxNetwork, export_onnx_int8, on_engine
from backbones.structure import Structure
from backbones.surgery import prune
from tests.graphs import known_trace as trace

Pruned = tuple[nn.Module, torch.Tensor]


@pytest.fixture(scope="module")
def once() -> Pruned:
    torch.manual_seed(0)
    model = CifarResNet(1, 10)
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    return prune(model, graph, Structure.random(graph, keep=0.5)), torch.randn(2, 3, 8, 8)


@pytest.fixture
def pruned(once: Pruned) -> Pruned:
    """A pruned network in training mode, and two images."""
    return copy.deepcopy(once[0]).train(), once[1]


def test_a_torch_program_is_read_back_equal(tmp_path: Path, pruned: Pruned) -> None:
    model, images = pruned
    assert export_program(model, tmp_path / "net.pt2", (images,)) < 1e-5
    assert model.training
    program = torch.export.load(tmp_path / "net.pt2").module()
    assert torch.allclose(program(images), model.eval()(images), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_onnx_runs_equal_on_any_number_of_samples(tmp_path: Path, pruned: Pruned) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="comes with the test extra")
    model, images = pruned
    assert export_onnx(model, tmp_path / "net.onnx", (images,)) < 1e-4
    assert model.training
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), model.eval()(images), atol=1e-4)
    network = OnnxNetwork(tmp_path / "net.onnx")
    assert network.samples is None
    for count in (1, 3, 128):
        samples = torch.randn(count, 3, 8, 8)
        torch.testing.assert_close(network(samples), model.eval()(samples), rtol=1e-3, atol=1e-4)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> Any:
        raise ImportError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SecateurError, match=r"ONNX needs onnx; install it with: pip install onnx"):
        export_onnx(nn.Linear(2, 2), tmp_path / "net.onnx", (torch.zeros(1, 2),))
    assert list(tmp_path.iterdir()) == []


class Branchless(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.relu(self.first(x)))
        return found


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"torch.export cannot export the model: Could not guard"):
        export_program(Branching(), tmp_path / "net.pt2", (torch.ones(2),))
    assert list(tmp_path.iterdir()) == []


def test_as_many_samples_as_the_example_has(tmp_path: Path) -> None:
    export_onnx(nn.Conv2d(3, 2, 3), tmp_path / "two.onnx", (torch.randn(2, 3, 8, 8),), dynamic_batch=False)
    assert OnnxNetwork(tmp_path / "two.onnx").samples == 2


class Unnamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(inputs[0]) * inputs[1]
        return found


def test_inputs_have_the_names_they_are_given(tmp_path: Path) -> None:
    example = (torch.randn(2, 3), torch.randn(2, 2))
    with pytest.raises(SecateurError, match=r"the network takes 2 inputs that its code does not name; give names="):
        export_onnx(Unnamed(), tmp_path / "net.onnx", example)
    with pytest.raises(SecateurError, match=r"names: 2 different ones are needed, one an input, but got \['a', 'a'\]"):
        export_onnx(Unnamed(), tmp_path / "net.onnx", example, names=["a", "a"])
    assert list(tmp_path.iterdir()) == []
    model = Unnamed()
    export_onnx(model, tmp_path / "net.onnx", example, names=["left", "right"])
    network = OnnxNetwork(tmp_path / "net.onnx")
    assert network.names == ["left", "right"]
    torch.testing.assert_close(network(*example), model(*example))


def test_integers_compute_nearly_the_same(tmp_path: Path, pruned: Pruned) -> None:
    model, _ = pruned
    images = torch.randn(64, 3, 8, 8)
    export_onnx_int8(model, tmp_path / "net.onnx", (images[:2],), list(images.split(16)))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    network = OnnxNetwork(tmp_path / "net.onnx")
    for count in (1, 3, 64):
        with torch.no_grad():
            wanted = model.eval()(images[:count])
        error = float((network(images[:count]) - wanted).norm() / wanted.norm())
        assert 0 < error < 0.1


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.memory(x)[0][:, -1])
        return logits


@pytest.mark.parametrize(
    ("model", "example", "calibrated", "message"),
    [
        (Recurrent(), torch.randn(2, 5, 4), True, "onnxruntime does not quantise GRU "),
        (nn.Softmax(1), torch.randn(2, 3), True, "the network has no weights that onnxruntime quantises, only Softmax"),
        (
            nn.Linear(3, 2),
            torch.randn(2, 3),
            False,
            "calibration: at least one batch of inputs is needed, but got none",
        ),
    ],
    ids=["recurrent", "no weights", "no samples"],
)
def test_what_cannot_be_quantised_is_named(
    tmp_path: Path, model: nn.Module, example: torch.Tensor, calibrated: bool, message: str
) -> None:
    with pytest.raises(SecateurError, match=message):
        export_onnx_int8(model, tmp_path / "net.onnx", (example,), [example] if calibrated else [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("not a network")
    with pytest.raises(SecateurError, match=r"onnxruntime cannot run .*net.onnx: "):
        OnnxNetwork(tmp_path / "net.onnx")


def test_another_engine_computes_the_same() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    images = torch.randn(5, 3)
    assert on_engine(model, "eager", (images,)) is model
    torch.testing.assert_close(on_engine(model, "onnxruntime", (images,))(images), model(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(SecateurError, match="engine 'tensorrt'"):
        on_engine(model, "tensorrt", (images,))


@pytest.mark.slow  # torch._inductor alone takes seconds to import
def test_every_network_of_a_class_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself torch compiles eight forms of a forward, and then runs it as it is without a word."""
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    for width in range(1, 7):
        model = Branchless(width).eval()
        for count in (1, 4):
            images = torch.randn(count, 3)
            network = on_engine(model, "compiled", (images,))
            with torch.no_grad():
                torch.testing.assert_close(network(images), model(images))
    assert len(compiled) == 12
