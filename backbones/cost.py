"""What a structure costs, by arithmetic; and what a module costs, counted while it runs, to hold one to the other.

What counts as a MAC is said in `backbones.cost_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from backbones.arguments import explained
from backbones.cost_table import Cost
from backbones.graph import ChannelGraph
from backbones.inputs import output_of
from backbones.modes import evaluating
from backbones.removal import reduced
from backbones.structure import Structure


@explained
def cost(graph: ChannelGraph, structure: Structure) -> Cost:
    """MACs and parameters of `structure`, for one sample, without building it.

    Equal to a recount on the pruned module by `torch.utils.flop_counter` (halved).

    Raises:
        SecateurError: when the structure belongs to another graph.
    """
    structure.check(graph)
    if structure.removed:
        reduction = reduced(graph, structure.removed)
        graph, structure = reduction.graph, reduction.translate(structure)
    return graph.costs.evaluate(np.fromiter((len(channels) for _, channels in structure.kept), np.int64))


def recount(model: nn.Module, example: Sequence[Any]) -> Cost:
    """MACs (by `torch.utils.flop_counter`, which counts two FLOPs per multiply-add) and parameters of a module.

    Attention is spelled out as its two products, which the counter would not see in a fused kernel. The counter knows
    nothing of nn.LSTM and its like, nor of nn.Bilinear.

    Args:
        model: run once in eval mode, on the device it is on.
        example: its inputs; the MACs are those of the whole batch.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # with gradients: without, the counter trips over parameters that are handed to a module as an argument
        math, counter = sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False)
        with evaluating(model), torch.enable_grad(), math, counter:
            output_of(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return Cost(counter.get_total_flops() // 2, sum(value.numel() for value in model.parameters()))
