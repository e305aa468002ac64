"""MACs are those of one sample, wherever the samples of the example stand; inputs have places or names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from backbones.cost import recount
from backbones.errors import SecateurError
from backbones.inputs import NamedInputs, named, output_of
from backbones.structure import Structure
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred


class Images(nn.Module):
    """Two convolutions and a head, for images with a batch or, where `dims` says so, without one."""

    def __init__(self, *dims: int, group: nn.Module | None = None) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.head, self.dims = group or nn.Identity(), nn.Linear(6, 4), dims or (2, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.two(self.norm(torch.relu(self.one(x))))).mean(self.dims))
        return logits


class Tokens(nn.Module):
    """Features of time steps, mixed by attention over time; (time, batch, channels) unless `first`."""

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        self.read, self.wide, self.head = nn.Linear(5, 12), nn.Linear(12, 8), nn.Linear(8, 4)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.read(x if self.first else x.transpose(0, 1)))
        x = torch.relu(self.wide(torch.softmax(x @ x.transpose(1, 2), 2) @ x))
        logits: Tensor = self.head(x if self.first else x.transpose(0, 1))
        return logits


class Named(Images):
    """NamedInputs in a dictionary, or by name only."""

    def forward(self, batch: Any = None, *, image: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
        found = batch["image"] if image is None else image
        return super().forward(found) * (1.0 if scale is None else scale)


class Rows(Images):
    """Code that knows its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(4, 3, 8, 8))


CASES: dict[str, tuple[Callable[[], nn.Module], Any, int]] = {
    "batch first": (Images, noise(4, 3, 8, 8), 4),
    "one image, no batch": (lambda: Images(1, 2), noise(3, 8, 8), 1),
    "batch of one": (Images, noise(1, 3, 8, 8), 1),
    "time first": (Tokens, noise(7, 2, 5), 2),
    "time first, batch of one": (Tokens, noise(7, 1, 5), 1),
    "batch before time": (lambda: Tokens(first=True), noise(2, 7, 5), 2),
    "dictionary": (Named, {"image": noise(3, 3, 8, 8)}, 3),
    "batch norm": (lambda: Images(group=nn.BatchNorm2d(8)), noise(3, 3, 8, 8), 3),
    "group norm": (lambda: Images(group=nn.GroupNorm(2, 8)), noise(2, 3, 8, 8), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_batch_is_found(name: str) -> None:
    torch.manual_seed(0)
    make, example, samples = CASES[name]
    model = stirred(make())
    graph = trace(model, example)
    assert graph.program.batch == samples
    assert graph.costs.dense.macs * samples == recount(model, (example,)).macs


def test_samples_that_see_each_other_have_to_be_counted_by_the_user() -> None:
    coupled = Images(group=nn.BatchNorm2d(8, track_running_stats=False))
    for model in (Rows(), coupled):
        with pytest.raises(SecateurError, match=r"begin with shape \(4, 3, 8, 8\).* or samples=4"):
            trace(model, torch.randn(4, 3, 8, 8))
        graph = trace(model, torch.randn(4, 3, 8, 8), samples=4)
        assert graph.costs.dense.macs * 4 == recount(model, graph.example).macs
    assert trace(coupled, torch.randn(1, 3, 8, 8)).program.batch == 1
    with pytest.raises(SecateurError, match="1 <= samples must hold, but got samples=0"):
        trace(coupled, torch.randn(1, 3, 8, 8), samples=0)


@pytest.mark.parametrize("example", [(), ({"image": noise(1, 3, 8, 8)},)], ids=["all named", "some named"])
def test_inputs_by_name(example: Any) -> None:
    torch.manual_seed(0)
    model = stirred(Named())
    given = {"scale": noise(1)} | ({} if example else {"image": noise(1, 3, 8, 8)})
    graph = trace(model, example, kwargs=given)
    assert named(graph.example) == given
    pruned = assert_named_law(model, graph)
    assert pruned.one.out_channels < 8
    with pytest.raises(SecateurError, match=r"does not run on the example scale=tensor\(1,\)"):
        trace(model, (), kwargs={"scale": noise(1)})


def assert_named_law(model: nn.Module, graph: Any) -> Any:
    return assert_law(model, graph, Structure.random(graph, keep=0.5, seed=1))


def test_named_inputs_survive_copies_and_maps() -> None:
    inputs = NamedInputs((torch.ones(1),), {"a": torch.ones(2)})
    for other in (copy.deepcopy(inputs), tree_map(lambda value: value * 1, inputs)):
        assert isinstance(other, NamedInputs)
        assert [tuple(leaf.shape) for leaf in tree_leaves(other)] == [(1,), (2,)]
        assert list(named(other)) == ["a"]
    assert named((1,)) == {}
    assert output_of(nn.Identity(), (3,)) == 3
