"""Networks that lost attention heads are refitted: the layers behind the heads, whole heads fewer in front of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backbones.structure import Structure
from backbones.surgery import prune
from scoring.reconstruction.reconstruct import reconstruct
from tests.backbones.parity import noise
from tests.backbones.test_zoo import traced

AS_CUT: dict[str, set[str]] = {
    "deit": set(),
    "swin v1, fused": {"one.attention", "two.attention", "three.attention"},
    "vit of the library": {f"blocks.{block}.attention.inner{layer}" for block in (0, 1) for layer in ("", ".out_proj")},
}
"""Network -> what stays as cut: tables of position biases, and the layers inside torch's attention, never called."""


@pytest.mark.parametrize("name", AS_CUT)
def test_what_lost_heads_is_refitted(name: str) -> None:
    model, graph, sample = traced(name)
    model.eval()
    images = noise(48, *sample.example[0].shape[1:])
    structure = Structure.of(graph, {heads: range(1, graph.by_name[heads].size) for heads in graph.heads})
    small = reconstruct(model, graph, structure, images)
    with torch.no_grad():
        wanted = model(images)
        cut, refitted = (float(F.mse_loss(one(images), wanted)) for one in (prune(model, graph, structure), small))
    assert 0 < refitted < 0.6 * cut
    left: dict[str, str] = small.secateur_as_cut  # type: ignore[assignment]
    assert {one.layer for heads in graph.heads for one in graph.by_name[heads].members} & left.keys() == AS_CUT[name]
