"""Weights that are computed, tensors that are no leaves, zeros of masks, and errors that are one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as masks

from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred
from tests.launcher import Launcher

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")


class Net(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))
        return y


MAKERS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "weight_norm": (nn.utils.weight_norm, "torch.nn.utils.remove_weight_norm(layer) first"),
    "spectral_norm": (nn.utils.spectral_norm, "torch.nn.utils.remove_spectral_norm(layer) first"),
    "mask": (lambda layer: masks.ln_structured(layer, "weight", 0.5, 2, 0), "prune.remove(layer, 'weight') first"),
    "new weight norm": (nn.utils.parametrizations.weight_norm, "remove_parametrizations(layer, 'weight') first"),
    "new spectral norm": (nn.utils.parametrizations.spectral_norm, "remove_parametrizations(layer, 'weight') first"),
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_with_a_computed_weight_stays_and_says_what_to_call(name: str, warm: bool) -> None:
    torch.manual_seed(0)
    model: Any = Net().double()
    maker, call = MAKERS[name]
    maker(model.a)
    x = noise(1, 3, 8, 8)
    if warm:
        model(x)  # with gradients: the weight is no leaf now
    model.eval()
    wanted = model(x)
    graph = trace(model, x)
    assert torch.equal(model(x), wanted)
    assert [group.name for group in graph.groups] == ["b"]
    record = next(record for record in graph.frozen if record.layer == "a")
    assert record.reason.startswith("the weight is computed by ")
    assert record.reason.endswith(call)
    assert record.channels == tuple(range(8))
    assert_law(model, graph, Structure.random(graph, keep=0.5))
    with pytest.raises(SecateurError, match=r"has no prunable group \(0: the weight is computed by .* first"):
        trace(nn.Sequential(model.a), x)


def test_weights_computed_in_the_code_are_the_cause() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

    with pytest.raises(SecateurError, match=r"no prunable group \(0: the weight is computed, not a parameter; 2: the"):
        trace(nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 4, 3)), torch.zeros(1, 3, 8, 8))


class Remembering(Net):
    """Keeps features with their gradients, on itself and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.a(x)
        self.maps.append(self.last * 2)
        return super().forward(x)


def test_features_kept_with_gradients_are_copied_without() -> None:
    model: Any = stirred(Remembering())
    x = noise(1, 3, 8, 8)
    model(x)
    kept = model.last
    graph = trace(model, x)
    assert model.last is kept
    assert kept.requires_grad
    structure = Structure.random(graph, keep=0.5)
    pruned: Any = prune(model, graph, structure)
    assert not pruned.last.requires_grad
    assert torch.equal(pruned.last, kept)
    assert torch.equal(pruned.maps[0], kept * 2)
    assert_law(model, graph, structure)


def test_the_structure_of_a_mask() -> None:
    torch.manual_seed(0)
    model: Any = Net().double()
    for layer in (model.a, model.b):
        masks.ln_structured(layer, "weight", 0.5, 2, 0)
        masks.remove(layer, "weight")
    graph = trace(model, noise(1, 3, 8, 8))
    structure = Structure.zeroed(graph, model)
    assert structure.widths == {"a": 4, "b": 3}
    assert structure.keep["a"] == tuple(i for i in range(8) if model.a.weight[i].any())
    assert_law(model, graph, structure)
    nn.init.zeros_(model.a.weight)
    assert Structure.zeroed(graph, model).widths == {"a": 1, "b": 3}


def test_layers_that_cannot_be_read_are_named() -> None:
    model: Any = Net()
    with pytest.warns(DeprecationWarning, match="deprecated"):
        model.a = torch.jit.script(model.a)
    with pytest.raises(SecateurError, match=r"layer 'a' is a TorchScript module; put the nn.Module it was made from"):
        trace(model, torch.zeros(1, 3, 8, 8))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.DataParallel(nn.Conv2d(4, 4, 3)))
    with pytest.raises(SecateurError, match=r"layer '1' is wrapped in DataParallel; pass the network inside"):
        trace(model, torch.zeros(1, 3, 8, 8))


UNDECIDED = """
import torch, secateur
class Net(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x * 2 if x.sum() > 0 else x)
try:
    secateur.trace(Net(3, 4), torch.ones(1, 3))
except secateur.SecateurError as error:
    print(error)
"""


def test_one_line_means_one_line(tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start("tests.launcher:run_code", UNDECIDED, folder=tmp_path)
    said = process.end()
    assert process.errors == ""
    assert len(said.splitlines()) == 1
    assert said.startswith("torch.export cannot trace the model: ")
