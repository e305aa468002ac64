"""Numbers of channels that code keeps in attributes: declared or found, set in what is pruned, saved and removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.artefact import load, save
from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.trace import trace
from tests.backbones.parity import assert_law, stirred
from tests.backbones.zoo import image


class Block(nn.Module):
    """Keeps the number of its channels, and reshapes by it."""

    def __init__(self, before: int, c: int) -> None:
        super().__init__()
        self.c = c
        self.conv, self.norm = nn.Conv2d(before, c, 3, padding=1), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return x * x.view(-1, self.c, 64).mean(2).reshape(-1, self.c, 1, 1)


class Net(nn.Module):
    """Two such blocks and a number of the network itself that counts what the first makes."""

    def __init__(self, one: int = 12, two: int = 10) -> None:
        super().__init__()
        self.one, self.two = Block(3, one), Block(one, two)
        self.middle, self.head = one, nn.Linear(two, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).flatten(1).reshape(-1, self.middle, 8, 8)
        logits: Tensor = self.head(self.two(x).mean((2, 3)))
        return logits


class Shifted(Net):
    """The number is used as a value too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.two.c


DECLARED = {"one.c": "one.conv", "middle": "one.conv", "two.c": "two.conv"}


@pytest.mark.parametrize(("widths", "sizes"), [((12, 10), None), ((12, 12), DECLARED), ((12, 10), DECLARED)])
def test_attributes_are_set_in_what_is_pruned(
    tmp_path: Path, widths: tuple[int, int], sizes: Mapping[str, str] | None
) -> None:
    model = stirred(Net(*widths))
    graph = trace(model, image(), sizes=sizes)
    assert [group.name for group in graph.groups] == ["one.conv", "two.conv"]
    assert {(attribute, layer) for attribute, layer, _ in graph.fixed.sizes} == {*DECLARED.items()}
    small: Any = assert_law(model, graph, Structure.random(graph, keep=0.5, seed=1))
    widths = (small.one.conv.out_channels, small.two.conv.out_channels)
    assert (small.one.c, small.middle, small.two.c) == (widths[0], widths[0], widths[1])
    assert model.one.c == 12  # type: ignore[union-attr]
    save(small, tmp_path / "small.safetensors")
    back = load(tmp_path / "small.safetensors", Net(12, model.two.c))  # type: ignore[arg-type,union-attr]
    assert back.middle == widths[0]
    assert (back(image()) == small.eval()(image())).all()


def test_equal_numbers_have_to_be_told_apart() -> None:
    graph = trace(stirred(Net(12, 12)), image(), sizes={"one.c": "one.conv", "middle": "one.conv"})
    assert [group.name for group in graph.groups] == ["one.conv"]
    with pytest.raises(SecateurError, match="a literal size in the code"):
        trace(Net(12, 12), image().float())


def test_a_number_that_is_used_as_a_value_freezes() -> None:
    graph = trace(stirred(Shifted()), image())
    assert [group.name for group in graph.groups] == ["one.conv"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"one.d": "one.conv"}, "'one.d' is no attribute of the network that holds a whole number"),
        ({"three.c": "one.conv"}, "'three.c' is no attribute"),
        ({"one.c": "one.norm"}, "'one.norm' is no layer that makes channels"),
        ({"one.c": "two.conv"}, "one.c is 12, but two.conv makes 10 channels"),
    ],
)
def test_wrong_declarations_are_one_line(sizes: Mapping[str, str], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        trace(Net(), image().float(), sizes=sizes)
