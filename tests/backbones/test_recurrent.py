"""Recurrent layers: which rows and columns are a unit's, and what keeps the units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from backbones.errors import SecateurError
from backbones.structure import Structure
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred
from tests.backbones.test_zoo import macs_of, members, traced


def test_a_unit_has_a_row_for_every_gate_and_a_column_for_what_reads_it() -> None:
    """Two layers, two ways, 5 units: unit 1 of all of them."""
    _, graph, _ = traced("lstm")
    found = members(graph, "cell")
    for name in ("l0", "l0_reverse", "l1", "l1_reverse"):
        for tensor in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            assert found[f"cell.{tensor}_{name}", 0][1] == [1, 6, 11, 16]
        assert found[f"cell.weight_hh_{name}", 1][1] == [1]
    assert found["cell.weight_ih_l1", 1][1] == found["head.0.weight", 1][1] == [1, 6]
    assert ("cell.weight_ih_l0", 1) not in found


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3)])
def test_fewer_units_are_set_and_counted(name: str, gates: int) -> None:
    model, graph, _ = traced(name)
    small: Any = assert_law(model, graph, Structure.of(graph, {"cell": [0, 3]}), counted=False)
    assert (small.cell.hidden_size, small.cell.input_size) == (2, 6)
    kept = graph.costs.dense_kept.copy()
    kept[list(graph.by_name).index("cell")] = 2
    macs = sum(
        count
        for layer, count in zip(graph.costs.op_layers, graph.costs.op_macs(kept).tolist(), strict=True)
        if layer == "cell"
    )
    assert macs == 9 * 2 * gates * 2 * ((6 + 2) + (4 + 2))
    assert macs_of(graph, "cell") == 9 * 2 * gates * 5 * ((6 + 5) + (10 + 5))


class Begun(nn.Module):
    """A state to begin with: made by a layer, a parameter, or from outside; the number of units in an attribute."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.units = way, 7
        self.cell, self.first = nn.GRU(4, 7, batch_first=True), nn.Linear(4, 7)
        self.start, self.head = nn.Parameter(torch.randn(1, 1, 7)), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "layer":
            start = torch.tanh(self.first(x[:, 0]))[None]
        elif self.way == "parameter":
            start = self.start.expand(1, x.shape[0], -1)
        elif self.way == "zeros":
            start = x.new_zeros(1, x.shape[0], self.units)
        else:
            start = x.mean() * torch.linspace(0, 1, 7, dtype=x.dtype).expand(1, x.shape[0], 7)
        _, last = self.cell(x, start)
        found: Tensor = self.head(last[-1])
        return found


@pytest.mark.parametrize("way", ["layer", "parameter", "zeros", "constant"])
def test_states_to_begin_with(way: str) -> None:
    torch.manual_seed(0)
    model = stirred(Begun(way))
    example = noise(1, 6, 4)
    if way == "constant":
        with pytest.raises(SecateurError, match=r"cell: coupled with values that always stay"):
            trace(model, example)
        return
    graph = trace(model, example)
    assert [(group.name, group.size) for group in graph.groups] == [("first" if way == "layer" else "cell", 7)]
    unused = ["first.weight", "first.bias", "start"]
    for kept in ([0, 2, 6], [4]):
        structure = Structure.of(graph, {graph.groups[0].name: kept})
        small: Any = assert_law(model, graph, structure, counted=False, without_gradient=unused)
        assert small.cell.hidden_size == len(kept)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(4, 7, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        last: Tensor = self.cell(packed)[1]
        return last


def test_packed_sequences_are_refused_with_the_way_out() -> None:
    with pytest.raises(SecateurError, match=r"\(at test_recurrent.py:.*; the sizes of packed sequences depend"):
        trace(Packed(), (torch.randn(2, 6, 4), torch.tensor([6, 4])))
