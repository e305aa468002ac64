"""Networks that were pruned, traced and pruned again: what is saved of them comes back, whatever each cut took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backbones.artefact import load, read_artefact, save
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.optimizers import transfer_optimizer
from backbones.registry import build
from backbones.removal import removable
from backbones.structure import Structure
from backbones.surgery import cuts_of, prune
from tests.backbones.parity import assert_law, noise, stirred
from tests.graphs import known_trace as trace

EXAMPLE = noise(1, 3, 8, 8)


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())


class Scaled(nn.Module):
    """A scale per channel in a buffer that no state dict holds, tied convolutions, a norm without parameters."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.register_buffer("scale", torch.linspace(0.5, 2, 16).reshape(16, 1, 1), persistent=False)
        self.norm = nn.BatchNorm2d(16, affine=False)
        self.body = nn.Sequential(*(conv() for _ in range(2)))
        self.twin = nn.Conv2d(16, 16, 1)
        self.again = nn.Conv2d(16, 16, 1)
        self.again.weight = self.twin.weight
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.relu(self.norm(self.stem(x)) * self.scale))
        logits: Tensor = self.head(self.again(torch.relu(self.twin(x))).mean((2, 3)))
        return logits


class Bare(nn.Module):
    """A norm that only its size tells how many channels come."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(3, 12),
            nn.LayerNorm(12, elementwise_affine=False),
            nn.Linear(12, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.first(x.mean((2, 3)))))
        return y


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "Scaled": Scaled,
    "Bare": Bare,
    "resnet20": lambda: build("resnet20", 10),
}


def smaller(model: nn.Module, seed: int, removed: bool = False) -> tuple[nn.Module, ChannelGraph]:
    """Half of what is there, channels and, where asked, one layer."""
    graph = trace(model, EXAMPLE)
    gone = [next(path for path in removable(graph) if path)] if removed else []
    kept = {group.name: range(seed % 2, group.size, 2) for group in graph.groups}
    return prune(model, graph, Structure.of(graph, kept, gone)), graph


@pytest.mark.parametrize(("name", "cuts"), [("Scaled", 3), ("Bare", 2), ("resnet20", 2)])
def test_what_was_cut_several_times_comes_back(name: str, cuts: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = stirred(NETWORKS[name]())
    small: nn.Module = dense
    for seed in range(cuts):
        small, _ = smaller(small, seed)
    save(small, tmp_path / "small.safetensors")
    back = load(tmp_path / "small.safetensors", NETWORKS[name]().double())
    assert torch.equal(back(EXAMPLE), small.eval()(EXAMPLE))
    assert cuts_of(back) == cuts_of(small)
    save(back, tmp_path / "again.safetensors")
    again = load(tmp_path / "again.safetensors", NETWORKS[name]().double())
    assert torch.equal(again(EXAMPLE), small(EXAMPLE))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_layers_may_go_in_any_cut(first: bool, second: bool, tmp_path: Path) -> None:
    one, _ = smaller(stirred(Scaled()), 0, first)
    two, _ = smaller(one, 1, second)
    save(two, tmp_path / "small.safetensors")
    back = load(tmp_path / "small.safetensors", Scaled().double())
    assert torch.equal(back(EXAMPLE), two.eval()(EXAMPLE))


def test_the_second_cut_obeys_the_law_too() -> None:
    one, _ = smaller(stirred(Scaled()), 0)
    graph = trace(one, EXAMPLE)
    assert_law(one, graph, Structure.random(graph, keep=0.5, seed=3))


def test_any_module_on_the_way_can_be_cut_to_the_saved_one(tmp_path: Path) -> None:
    dense = stirred(Scaled())
    one, _ = smaller(dense, 0)
    two, _ = smaller(one, 1)
    other, _ = smaller(dense, 1)
    save(two, tmp_path / "small.safetensors")
    for start in (dense, one, two):
        before = {name: value.clone() for name, value in start.state_dict().items()}
        back = load(tmp_path / "small.safetensors", start)
        assert back is not start
        assert torch.equal(back(EXAMPLE), two.eval()(EXAMPLE))
        assert cuts_of(back) == cuts_of(two)
        assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    with pytest.raises(SecateurError, match="does not fit the model Scaled"):
        load(tmp_path / "small.safetensors", other)


def test_a_single_cut_is_written_as_ever(tmp_path: Path) -> None:
    one, _ = smaller(stirred(Scaled()), 0)
    two, _ = smaller(one, 1)
    save(one, tmp_path / "one.safetensors")
    save(two, tmp_path / "two.safetensors")
    (first, _), (second, _) = read_artefact(tmp_path / "one.safetensors"), read_artefact(tmp_path / "two.safetensors")
    assert (first["format"], second["format"]) == (1, 2)
    assert "before" not in first["origin"]
    assert second["origin"]["before"] == first["origin"]


def test_momentum_goes_through_all_cuts() -> None:
    dense = stirred(Scaled())
    one, graph = smaller(dense, 1)
    two, _ = smaller(one, 0)
    optimizer = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.9)
    dense(EXAMPLE).square().sum().backward()
    optimizer.step()
    whole = transfer_optimizer(optimizer, dense, two)
    steps = transfer_optimizer(transfer_optimizer(optimizer, dense, one), one, two)
    for name, value in two.named_parameters():
        assert whole.state[value]["momentum_buffer"].shape == value.shape, name
        assert torch.equal(whole.state[value]["momentum_buffer"], steps.state[value]["momentum_buffer"]), name
    other = prune(dense, graph, Structure.full(graph))
    with pytest.raises(SecateurError, match="was not cut out of this model"):
        transfer_optimizer(torch.optim.SGD(other.parameters()), other, two)
