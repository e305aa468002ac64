"""Every network of the zoo: what the trace finds, and the law under random structures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import cost
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.trace import check_traced
from tests.backbones.parity import assert_law, stirred
from tests.backbones.zoo import Sample
from tests.backbones.zoo_attention import ATTENTION
from tests.backbones.zoo_casts import CASTS
from tests.backbones.zoo_code import CODE
from tests.backbones.zoo_convnets import CONVNETS
from tests.backbones.zoo_expected import FROZEN, GROUPS
from tests.backbones.zoo_kept import KEPT
from tests.backbones.zoo_norms import NORMS
from tests.backbones.zoo_others import OTHERS
from tests.backbones.zoo_pairs import PAIRS
from tests.backbones.zoo_patterns import COUPLINGS
from tests.backbones.zoo_positions import POSITIONS
from tests.backbones.zoo_values import VALUES
from tests.graphs import known_trace

ZOO: Mapping[str, Callable[[], Sample]] = {
    **COUPLINGS,
    **NORMS,
    **CODE,
    **CONVNETS,
    **OTHERS,
    **PAIRS,
    **KEPT,
    **CASTS,
    **VALUES,
    **POSITIONS,
    **ATTENTION,
}

MIXED = (
    "GroupNorm", "PlainGroupNorm", "LayerNorm", "RmsNorm", "LayerNormOfImage", "SpatialAttention", "GlobalResponseNorm",
    "convnext", "perceptron", "library", "gated_mlp", "HandLayerNorm", "Standardised", "vit of the library",
    "vit with bias_k", "deit", "deit, fused", "swin v1", "swin v1, fused", "bert", "llama", "llama, interleaved",
    "llama, library", "decoder",
)  # fmt: skip


@cache
def traced(name: str) -> tuple[nn.Module, ChannelGraph, Sample]:
    torch.manual_seed(0)
    sample = ZOO[name]()
    model = stirred(sample.model)
    return model, known_trace(model, sample.example), sample


@pytest.mark.parametrize("name", ZOO)
class TestZoo:
    def test_finds_what_it_should(self, name: str) -> None:
        model, graph, _ = traced(name)
        check_traced(model, graph)
        assert " ".join(f"{group.name}:{group.size}" for group in graph.groups) == GROUPS[name]
        frozen = [record for record in graph.frozen if record.op != "output"]
        assert tuple(f"{record.layer}:{len(record.channels)} {record.op}" for record in frozen) == FROZEN.get(name, ())
        assert all(record.reason for record in frozen)

    @settings(max_examples=2, deadline=None)
    @given(seed=st.integers(0, 1000), keep=st.floats(0.05, 1.0))
    def test_law(self, name: str, seed: int, keep: float) -> None:
        model, graph, sample = traced(name)
        structure = Structure.random(graph, keep=keep, seed=seed)
        assert_law(
            model,
            graph,
            structure,
            values=not graph.mixed,
            counted=not sample.uncounted,
            without_gradient=sample.without_gradient,
        )


@pytest.mark.parametrize("name", MIXED)
def test_values_hold_where_no_statistics_are_shared(name: str) -> None:
    """In a network with layer or group norm, the groups outside of it still obey the law."""
    model, graph, _ = traced(name)
    assert graph.mixed
    whole = Structure.random(graph, keep=0.5, seed=1).keep
    kept = {group: channels for group, channels in whole.items() if group not in graph.mixed}
    assert_law(model, graph, Structure.of(graph, kept))


def test_only_shared_statistics_change_values() -> None:
    assert [name for name in ZOO if traced(name)[1].mixed] == list(MIXED)


def macs_of(graph: ChannelGraph, layer: str) -> int:
    macs = zip(graph.costs.op_layers, graph.costs.op_macs(graph.costs.dense_kept).tolist(), strict=True)
    return sum(count for name, count in macs if name == layer)


def test_recurrent_and_bilinear_layers_are_counted_by_hand() -> None:
    """Two layers, two ways, 9 steps of 4 gates of 5 units: (6 + 5), then (10 + 5) inputs each."""
    _, graph, _ = traced("lstm")
    assert macs_of(graph, "cell") == 9 * 2 * 4 * 5 * ((6 + 5) + (10 + 5))
    _, graph, _ = traced("gru")
    assert macs_of(graph, "cell") == 9 * 2 * 3 * 5 * ((6 + 5) + (10 + 5))
    _, graph, _ = traced("bilinear")
    half = cost(graph, Structure.of(graph, {"tower.2": range(4)}))
    assert half.macs == 2 * (6 * 12 + 12 * 4) + 3 * 4 * 4


def test_einsum_is_counted_like_its_product() -> None:
    model, graph, _ = traced("Einsum")
    structure = Structure.of(graph, {"stem": range(5), "mix": range(3), "other": range(7)})
    assert_law(model, graph, structure)


def members(graph: ChannelGraph, group: str) -> dict[tuple[str, int], list[list[int]]]:
    return {(member.tensor, member.dim): member.index.tolist() for member in graph.by_name[group].members}


def test_index_maps_of_concatenation() -> None:
    """The dense block reads the stem at 0-7, the first growth at 8-11 and the second at 12-15."""
    _, graph, _ = traced("DenseConcat")
    assert np.ravel(members(graph, "stem")["tail.weight", 1]).tolist() == list(range(8))
    assert np.ravel(members(graph, "one")["tail.weight", 1]).tolist() == list(range(8, 12))
    assert np.ravel(members(graph, "two")["tail.weight", 1]).tolist() == list(range(12, 16))
    assert np.ravel(members(graph, "one")["norm.running_var", 0]).tolist() == list(range(8, 12))


def test_index_maps_of_halves_and_shuffles() -> None:
    _, graph, _ = traced("ChunkedHalves")
    assert members(graph, "stem")["stem.weight", 0] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert members(graph, "stem")["left.weight", 1] == [[0], [1], [2], [3]]
    _, graph, _ = traced("PixelUnshuffle")
    assert members(graph, "stem")["tail.weight", 1] == [list(range(4 * i, 4 * i + 4)) for i in range(8)]
    _, graph, _ = traced("SpaceToDepth")
    assert members(graph, "stem")["tail.weight", 1] == [[i, i + 8, i + 16, i + 24] for i in range(8)]
    _, graph, _ = traced("Maxout")
    assert members(graph, "stem")["stem.weight", 0] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    _, graph, _ = traced("Depthwise")
    assert members(graph, "stem")["wide.weight", 0] == [[2 * i, 2 * i + 1] for i in range(8)]


def test_index_maps_of_grouped_convolutions() -> None:
    """4 ways of 2 inputs and 3 outputs: the same positions of every way go together."""
    _, graph, _ = traced("Grouped")
    assert members(graph, "stem")["stem.weight", 0] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert members(graph, "stem")["inner.weight", 1] == [[0], [1]]
    assert members(graph, "inner")["inner.weight", 0] == [[i, i + 3, i + 6, i + 9] for i in range(3)]


def test_tied_weights_are_one_tensor_with_two_sides() -> None:
    _, graph, _ = traced("TiedConvolutions")
    roles = {(member.tensor, member.dim): member.role for member in graph.by_name["stem"].members}
    assert roles["code.weight", 1] == "both"
    assert roles["stem.weight", 0] == "filter"
    assert [member.tensor for member in graph.by_name["stem"].inputs] == ["code.weight", "tail.weight"]


def test_a_channel_of_an_outer_product_is_a_row_and_a_column() -> None:
    _, graph, _ = traced("RootedGram")
    assert {*members(graph, "last.0")} >= {("weight", 1), ("weight", 2)}
    assert np.ravel(members(graph, "last.0")["weight", 1]).tolist() == list(range(6))
    _, graph, _ = traced("TwoStreams")
    assert ("weight", 2) not in members(graph, "left.0")
    assert np.ravel(members(graph, "right.0")["weight", 2]).tolist() == list(range(6))


def test_outer_products_are_counted_by_both_widths() -> None:
    """64 positions; 5 classes."""
    model, graph, _ = traced("TwoStreams")
    structure = Structure.of(graph, {"left.0": range(4), "right.0": [0, 5, 3]})
    assert_law(model, graph, structure)
    assert cost(graph, structure).macs == 64 * 27 * (4 + 3) + 64 * 4 * 3 + 5 * 4 * 3


def test_a_norm_over_channels_that_are_no_zero_says_so() -> None:
    _, graph, _ = traced("GatedGram")
    assert (
        "a norm over these channels counts a dropped one"
        in {record.layer: record.reason for record in graph.frozen}["last.0"]
    )


def test_a_flattened_outer_product_says_what_would_be_followed() -> None:
    _, graph, _ = traced("FlatGram")
    assert "read it by tensordot or einsum" in {record.layer: record.reason for record in graph.frozen}["last.0"]
