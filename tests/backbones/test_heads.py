"""Attention heads: which channels are one, what is set in the pruned copy, torch's own layer with fewer heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.artefact import load, save
from backbones.cost import cost, recount
from backbones.errors import SecateurError
from backbones.inspect_table import describe
from backbones.modes import evaluating
from backbones.multihead import PrunedMultiheadAttention
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import assert_law, noise, stirred
from tests.backbones.test_zoo import members, traced
from tests.backbones.zoo_attention import ATTENTION, DeitAttention


def test_a_head_is_its_queries_keys_values_and_what_reads_it() -> None:
    _, graph, _ = traced("deit")
    assert graph.heads == {"blocks.0.attention.qkv", "blocks.1.attention.qkv"}
    found = members(graph, "blocks.0.attention.qkv")
    second = [*range(4, 8), *range(16, 20), *range(28, 32)]
    assert found["blocks.0.attention.qkv.weight", 0][1] == second
    assert found["blocks.0.attention.qkv.bias", 0][1] == second
    assert found["blocks.0.attention.proj.weight", 1][1] == [4, 5, 6, 7]
    assert ("blocks.0.attention.qkv.weight", 1) not in found


def test_a_head_of_keys_takes_all_its_queries_along() -> None:
    _, graph, _ = traced("llama")
    found = members(graph, "attention.q")
    assert found["attention.q.weight", 0][1] == list(range(8, 16))
    assert found["attention.k.weight", 0][1] == found["attention.v.weight", 0][1] == list(range(4, 8))
    assert found["attention.o.weight", 1][1] == list(range(8, 16))


def test_position_biases_go_with_their_heads() -> None:
    _, graph, _ = traced("swin v1, fused")
    table = members(graph, "two.attention.qkv")["two.attention.relative_position_bias_table", 1]
    assert table == [[0], [1], [2]]
    _, graph, _ = traced("einsum attention")
    assert members(graph, "kv")["bias", 0] == members(graph, "kv")["temperature", 0] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("name", "kept", "attributes"),
    [
        (
            "deit",
            {"blocks.1.attention.qkv": [0, 2]},
            {"blocks.1.attention": {"num_heads": 2, "attn_dim": 8, "head_dim": 4}},
        ),
        ("swin v1", {"three.attention.qkv": [3]}, {"three.attention": {"num_heads": 1, "window_area": 4}}),
        (
            "bert",
            {"layers.0.attention.query": [1, 2, 3]},
            {
                "layers.0.attention": {"num_attention_heads": 3, "all_head_size": 9, "attention_head_size": 3},
                "layers.1.attention": {"num_attention_heads": 4, "all_head_size": 12},
            },
        ),
        ("llama", {"attention.q": [2]}, {"attention": {"n_heads": 2, "n_kv_heads": 1, "n_rep": 2, "head_dim": 4}}),
    ],
)
def test_numbers_of_heads_are_set(
    tmp_path: Path, name: str, kept: dict[str, list[int]], attributes: dict[str, dict[str, int]]
) -> None:
    model, graph, sample = traced(name)
    structure = Structure.of(graph, kept)
    small = assert_law(model, graph, structure)
    for path, wanted in attributes.items():
        module = small.get_submodule(path)
        assert {attribute: getattr(module, attribute) for attribute in wanted} == wanted
    save(small, tmp_path / "small.safetensors")
    back = load(tmp_path / "small.safetensors", ATTENTION[name]().model.double())
    with evaluating(back), evaluating(small), torch.no_grad():
        assert torch.equal(back(*sample.example), small(*sample.example))


def test_macs_of_fewer_heads() -> None:
    """BERT, five words: a head of 3 takes 3 layers of 12 x 3, two products of 5 x 5 x 3 and 3 x 12 behind them."""
    _, graph, sample = traced("bert")
    structure = Structure.of(graph, {"layers.1.attention.query": [0, 3]})
    saved = graph.costs.dense.macs - cost(graph, structure).macs
    assert saved == 2 * (5 * 3 * 12 * 3 + 2 * 5 * 5 * 3 + 5 * 3 * 12)
    assert recount(prune(traced("bert")[0], graph, structure), sample.example).macs == cost(graph, structure).macs


class Square(nn.Module):
    """As many heads as each is wide, in several attributes: only some of them are numbers of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.heads = 3, 3
        self.qkv, self.proj = nn.Linear(6, 27), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        found: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return found


def test_an_attribute_of_the_same_value_stays() -> None:
    model = stirred(Square())
    graph = trace(model, noise(2, 5, 6))
    small: Any = assert_law_of_samples(model, graph, Structure.of(graph, {"qkv": [1, 2]}))
    assert (small.heads, small.width) == (2, 3)


def assert_law_of_samples(model: nn.Module, graph: Any, structure: Structure, samples: int = 2) -> nn.Module:
    """The law for an example of several samples: the recount is that of all."""
    pruned = assert_law(model, graph, structure, counted=False)
    assert samples * cost(graph, structure).macs == recount(pruned, graph.example).macs
    return pruned


def test_attributes_can_be_declared() -> None:
    graph = trace(stirred(Square()), noise(1, 5, 6), sizes={"heads": "qkv"})
    assert [(group.name, group.size) for group in graph.groups] == [("qkv", 3)]
    with pytest.raises(SecateurError, match="sizes: heads is 3, but proj makes 4 channels"):
        trace(stirred(Square()), noise(1, 5, 6), sizes={"heads": "proj"})


class WidthOfInput(nn.Module):
    """The width of a head is that of the input by the number of heads: nothing that could be set."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = 2, nn.Linear(8, 24), nn.Linear(8, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        found: Tensor = self.out(self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return found


def test_what_cannot_be_set_stays_and_says_why() -> None:
    graph = trace(stirred(WidthOfInput()), noise(1, 5, 8))
    assert [group.name for group in graph.groups] == ["proj"]
    [record] = [record for record in graph.frozen if record.layer == "qkv"]
    assert record.line.endswith(
        "q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)"
    )
    assert record.reason.startswith("a literal size in the code: shape ")


class Wrapped(nn.Module):
    """torch's layer with all it takes, and its weights returned."""

    def __init__(self, *, first: bool = True, **options: Any) -> None:
        super().__init__()
        self.first = first
        self.attention = nn.MultiheadAttention(12, 4, batch_first=first, **options)
        self.head = nn.Linear(12, 3)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor | None = None, padding: Tensor | None = None) -> Any:
        if not self.first:
            query, memory = query.transpose(0, 1), memory.transpose(0, 1)
        found, _ = self.attention(query, memory, memory, key_padding_mask=padding, attn_mask=mask)
        return self.head(found)


MASKS = {
    "none": (),
    "bool": (torch.ones(3, 5, dtype=torch.bool).triu(2),),
    "added": (torch.arange(15.0).double().reshape(3, 5), torch.tensor([[0.0] * 4 + [-9.0]]).double()),
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize(
    "options", [{}, {"first": False, "bias": False}, {"add_bias_kv": True, "kdim": 7, "vdim": 7}], ids=str
)
def test_torchs_layer_with_fewer_heads(options: dict[str, Any], masks: str) -> None:
    torch.manual_seed(0)
    model = stirred(Wrapped(**options))
    samples = 1 if masks == "added" else 2
    example = (noise(samples, 3, 12), noise(samples, 5, options.get("kdim", 12), seed=1), *MASKS[masks])
    graph = trace(model, example, samples=samples)
    assert graph.by_name["attention"].size == 4
    small: Any = assert_law_of_samples(model, graph, Structure.of(graph, {"attention": [0, 2, 3]}), samples)
    assert isinstance(small.attention, nn.MultiheadAttention)
    assert (small.attention.num_heads, small.attention.head_dim) == (3, 3)
    assert type(model.attention) is nn.MultiheadAttention


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("weights", [{}, {"average_attn_weights": False}, {"need_weights": False}], ids=str)
def test_with_all_heads_it_computes_what_torch_does(weights: dict[str, bool], batched: bool, first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=first, add_zero_attn=True, dtype=torch.float64).eval()
    ours = nn.MultiheadAttention(6, 2, batch_first=first, add_zero_attn=True, dtype=torch.float64).eval()
    ours.load_state_dict(layer.state_dict())
    ours.__class__ = PrunedMultiheadAttention
    x = noise(3, 3, 6) if batched else noise(3, 6)
    causal = torch.ones(3, 3, dtype=torch.bool).triu(1)
    for masks in ({}, {"attn_mask": causal}, {"attn_mask": causal, "is_causal": True}):
        for found, wanted in zip(ours(x, x, x, **masks, **weights), layer(x, x, x, **masks, **weights), strict=True):
            assert (found is None) == (wanted is None)
            assert wanted is None or torch.allclose(found, wanted, atol=1e-12)


def test_torchs_encoder_does_not_go_past_it() -> None:
    """Its fast path computes with the weights alone, as if no head were gone."""
    model, graph, sample = traced("library")
    small = prune(model, graph, Structure.of(graph, {"encoder.layers.0.self_attn": [1]})).eval()
    with torch.no_grad():
        fast = small(*sample.example)
    assert torch.allclose(fast, small(*sample.example), atol=1e-12)


def test_a_second_cut() -> None:
    model, graph, sample = traced("vit of the library")
    small = prune(model, graph, Structure.of(graph, {"blocks.0.attention.inner": [0, 2]}))
    again = trace(small, sample.example)
    assert again.by_name["blocks.0.attention.inner"].size == 2
    assert_law(small, again, Structure.of(again, {"blocks.0.attention.inner": [1]}))


def test_the_attention_of_a_block_can_be_removed() -> None:
    model, graph, _ = traced("deit")
    structure = Structure.of(graph, {"blocks.1.attention.qkv": [0]}, removed=["blocks.0.attention"])
    pruned = prune(model, graph, structure)
    assert isinstance(pruned.get_submodule("blocks.0.attention"), nn.Identity)
    assert cost(graph, structure).macs == recount(pruned, graph.example).macs


def test_inspect_says_what_are_heads() -> None:
    assert "attention heads" in describe(traced("deit")[1])


def test_a_single_head_stays() -> None:
    graph = trace(stirred(nn.Sequential(DeitAttention(6, 1, fused=True), nn.Linear(6, 3))), noise(1, 5, 6))
    assert "0.qkv" in {record.layer for record in graph.frozen}
