"""Branches that only run in training: the pruned network takes them too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.removal import removable
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred


class Net(nn.Module):
    """Two convolutions and a head, and what subclasses do in training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)
        self.extra = nn.Linear(8, 4)
        self.norm = nn.BatchNorm1d(8)

    def train_only(self, x: Tensor, features: Tensor) -> Any:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        features = F.relu(self.a(x))
        out = self.head(F.relu(self.b(features)).mean((2, 3)))
        return (out, self.train_only(x, features)) if self.training else out


class Auxiliary(Net):
    def train_only(self, x: Tensor, features: Tensor) -> Any:
        return self.extra(features.mean((2, 3)))


class Normed(Net):
    """A batch norm of single pixels: it takes two samples to train."""

    def train_only(self, x: Tensor, features: Tensor) -> Any:
        return self.extra(F.batch_norm(features.mean((2, 3)), None, None, training=True))


class Reshaped(Net):
    def train_only(self, x: Tensor, features: Tensor) -> Any:
        return features.reshape(len(x), 8, -1).amax(2).sum(1)


class Nested(Net):
    """The switch is in a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = Switch()

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.b(self.switch(F.relu(self.a(x))))).mean((2, 3)))


class Switch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x) if self.training else x


class Function(Net):
    """The switch is an argument of a function."""

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.b(noised(F.relu(self.a(x)), self.training))).mean((2, 3)))


def noised(x: Tensor, training: bool) -> Tensor:
    return x + torch.linspace(0, 1, 8, dtype=x.dtype)[:, None, None] if training else x


class Dropped(Net):
    """Noise of the channels' shape: nothing to hold on to."""

    def train_only(self, x: Tensor, features: Tensor) -> Any:
        return F.dropout(features, 0.5, self.training).mean((1, 2, 3))


class Targets(Net):
    """It trains with more inputs than there are here: what it then does is not known."""

    def train_only(self, x: Tensor, features: Tensor) -> Any:
        raise ValueError("In training mode, targets should be passed")


class Supervised(nn.Module):
    """A layer that gives an auxiliary output too while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aux = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.conv(x))
        return (x, self.aux(x.mean((2, 3)))) if self.training else x


class Layered(nn.Module):
    """Three layers, each of one tensor in and one of the same shape out; how they are used in training varies."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.stem, self.head = way, nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        self.one, self.two, self.three = Supervised(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.stem(x))
        x, extra = self.one(x) if self.training else (self.one(x), None)
        x = self.three(F.relu(self.two(x)))
        penalty: Any = 0
        if self.way == "always" or (self.way == "training" and self.training):
            penalty = self.two.weight.square().mean()
        out = self.head(x.mean((2, 3))) + penalty
        return (out, extra) if self.training else out


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("never", None),
        ("training", "code that only runs in training does not run without it: 'Identity' object has no"),
        ("always", "the code does not run without it: 'Identity' object has no attribute 'weight'"),
    ],
)
def test_layers_that_training_needs_cannot_be_removed(way: str, reason: str | None) -> None:
    torch.manual_seed(0)
    model = stirred(Layered(way))
    graph = trace(model, noise(1, 3, 8, 8))
    wanted = ["one.conv", "two", "three"] if reason is None else ["one.conv", "three"]
    assert list(removable(graph)) == wanted
    held = {record.layer: record.reason for record in graph.fixed.irremovable}
    assert held["one"].startswith(
        "code that only runs in training does not run without it: not enough values to unpack"
    )
    assert held.keys() == {"one"} | ({"two"} if reason else set())
    assert held.get("two", "").startswith(reason or "")
    with pytest.raises(SecateurError, match="layer 'one' cannot be removed: code that only runs in training does not"):
        cost(graph, Structure.of(graph, {}, removed=["one"]))
    pruned = prune(model, graph, Structure.of(graph, {}, removed=wanted)).train()
    out, extra = pruned(noise(2, 3, 8, 8))
    torch.autograd.backward([out.sum(), extra.sum()])


@pytest.mark.parametrize("kind", [Auxiliary, Normed, Reshaped, Nested, Function, Dropped])
def test_a_pruned_network_trains(kind: type[Net]) -> None:
    torch.manual_seed(0)
    model = stirred(kind())
    graph = trace(model, noise(1, 3, 8, 8))
    assert "b" in graph.by_name
    silent = ("extra.weight", "extra.bias", "norm.weight", "norm.bias", "switch.mix.weight", "switch.mix.bias")
    for seed in range(3):
        structure = Structure.random(graph, keep=0.5, seed=seed)
        assert_law(model, graph, structure, without_gradient=silent)
        pruned = prune(model, graph, structure).train()
        found, wanted = pruned(noise(2, 3, 8, 8)), model.train()(noise(2, 3, 8, 8))
        assert len(found) == len(wanted)
        outputs = found if isinstance(found, tuple) else (found,)
        torch.autograd.backward([output.sum() for output in outputs])


def test_what_freezes_says_so() -> None:
    graph = trace(stirred(Reshaped()), noise(1, 3, 8, 8))
    record = next(record for record in graph.frozen if record.layer == "a")
    assert record.reason.startswith("code that only runs in training: shape")
    assert record.line.endswith("return features.reshape(len(x), 8, -1).amax(2).sum(1)")


def test_code_that_does_not_run_here_is_left_alone() -> None:
    graph = trace(stirred(Targets()), noise(1, 3, 8, 8))
    assert [group.name for group in graph.groups] == ["a", "b"]
