"""Structures: what they accept, how they travel, what identifies them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from tests.graphs import known_trace as trace


@lru_cache(maxsize=2)
def traced(name: str = "resnet20") -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = build(name, 10)
    return model, trace(model, torch.zeros(1, 3, 8, 8))


def test_groups_not_named_stay_whole_and_kept_channels_are_sorted() -> None:
    _, graph = traced()
    first, *rest = graph.groups
    structure = Structure.of(graph, {first.name: [5, 3, 3, 9]})
    assert structure.keep[first.name] == (3, 5, 9)
    assert all(structure.widths[group.name] == group.size for group in rest)
    assert Structure.of(graph, {}) == Structure.full(graph)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), keep=st.floats(0.01, 1.0))
def test_json_round_trip_keeps_value_hash_and_id(seed: int, keep: float) -> None:
    _, graph = traced()
    structure = Structure.random(graph, keep=keep, seed=seed)
    back = Structure.from_json(structure.to_json())
    assert back == structure
    assert hash(back) == hash(structure)
    assert back.id == structure.id
    assert len(structure.id) == 12
    assert all(1 <= width <= graph.by_name[name].size for name, width in structure.widths.items())


def test_different_structures_have_different_ids() -> None:
    _, graph = traced()
    name = graph.groups[0].name
    assert Structure.of(graph, {name: [0]}).id != Structure.of(graph, {name: [1]}).id


def test_random_is_reproducible_and_not_uniform() -> None:
    _, graph = traced()
    structure = Structure.random(graph, keep=0.5, seed=3)
    assert structure == Structure.random(graph, keep=0.5, seed=3)
    assert structure != Structure.random(graph, keep=0.5, seed=4)
    ratios = {structure.widths[group.name] / group.size for group in graph.groups}
    assert len(ratios) > 5


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"nowhere": [0]}, "structure names group 'nowhere'; the graph has conv1"),
        ({"layer1.0.conv1": []}, "group 'layer1.0.conv1' keeps no channel; at least one must stay"),
        ({"layer1.0.conv1": [0, 16]}, "group 'layer1.0.conv1' keeps channel 16; indices go from 0 to 15"),
        ({"layer1.0.conv1": [-1]}, "group 'layer1.0.conv1' keeps channel -1; indices go from 0 to 15"),
    ],
)
def test_impossible_keep_lists(kept: dict[str, list[int]], message: str) -> None:
    _, graph = traced()
    with pytest.raises(SecateurError, match=message.replace("(", r"\(")):
        Structure.of(graph, kept)


def test_a_structure_of_another_graph_is_refused_everywhere() -> None:
    model, graph = traced()
    _, other = traced("resnet20_proj")
    foreign = Structure.full(other)
    for use in (lambda: cost(graph, foreign), lambda: prune(model, graph, foreign), lambda: foreign.check(graph)):
        with pytest.raises(SecateurError, match=f"is of graph {other.id}, not of {graph.id}; trace the same model"):
            use()


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([], "keeps no channel; at least one must stay"),
        ([3, 1], "sorted"),
        ([0, 99], "keeps channel 99; indices go from 0 to 15"),
    ],
)
def test_a_record_written_by_hand_is_checked_before_use(kept: list[int], message: str) -> None:
    """`from_json` checks what needs no graph, `prune` the rest."""
    model, graph = traced()
    record = json.loads(Structure.full(graph).to_json())
    record["kept"]["layer1.0.conv1"] = kept
    with pytest.raises(SecateurError, match=message):
        prune(model, graph, Structure.from_json(json.dumps(record)))


def test_a_record_with_missing_groups_is_refused() -> None:
    model, graph = traced()
    record = json.loads(Structure.full(graph).to_json())
    del record["kept"]["layer1.0.conv1"]
    with pytest.raises(SecateurError, match="lists 11 groups"):
        prune(model, graph, Structure.from_json(json.dumps(record)))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"graph": "x", "kept": 3, "removed": []}'])
def test_text_that_is_no_structure(text: str) -> None:
    with pytest.raises(SecateurError, match="not a structure record"):
        Structure.from_json(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of keep and macs"),
        ({"keep": 0.5, "macs": 0.5}, "give exactly one of keep and macs"),
        ({"keep": 0.0}, "0 < keep <= 1 must hold, but got keep=0.0"),
        ({"macs": 1.5}, "0 < macs <= 1 must hold, but got macs=1.5"),
        ({"macs": 1e-6}, "macs=1e-06 cannot be reached; one channel a group still has 0.00"),
    ],
)
def test_impossible_random_structures(options: dict[str, Any], message: str) -> None:
    _, graph = traced()
    with pytest.raises(SecateurError, match=message):
        Structure.random(graph, **options)
