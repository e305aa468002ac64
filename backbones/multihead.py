"""torch's attention layer, after it has lost heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention with fewer heads, each as wide as it was, on inputs of any width.

    torch's own takes the width of a head from that of its inputs, `embed_dim // num_heads`. Arguments and results are
    those of `nn.MultiheadAttention.forward`.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(N, L, E), (N, S, K), (N, S, V) if `batch_first`, else with N second, or without it -> the same, weights."""
        batched = query.ndim == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        queries, keys, values = self._projected(query, key, value)
        is_causal = is_causal and not need_weights and key_padding_mask is None  # then the mask says no more than that
        mask = None if is_causal else self._mask(attn_mask, key_padding_mask, keys, queries)
        weights = None
        if need_weights:
            scores = queries * self.head_dim**-0.5 @ keys.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = F.dropout(weights, self.dropout, self.training)
            found = weights @ values
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            dropped = self.dropout if self.training else 0.0
            found = F.scaled_dot_product_attention(queries, keys, values, mask, dropped, is_causal)
        result: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        if not batched:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result if self.batch_first else result.transpose(0, 1), weights

    def _projected(self, *inputs: Tensor) -> list[Tensor]:
        """Queries, keys and values, (N, heads, length, width of a head) each."""
        matrices: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            matrices = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        found: list[Tensor] = []
        for x, weight, bias, more in zip(inputs, matrices, biases, (None, self.bias_k, self.bias_v), strict=True):
            y = F.linear(x, weight, bias)
            if more is not None:
                y = torch.cat([y, more.expand(len(y), 1, -1)], 1)
            if self.add_zero_attn and found:  # not to the queries
                y = F.pad(y, (0, 0, 0, 1))
            found.append(y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2))
        return found

    def _mask(self, mask: Tensor | None, padding: Tensor | None, keys: Tensor, queries: Tensor) -> Tensor | None:
        """Both masks in one that is added to the scores, None where there is none."""
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (len(keys), -1))
        if padding is not None:
            padding = padding[:, None, None]
        merged: Tensor | None = None
        for one in (mask, padding):
            if one is not None:
                added = (
                    torch.zeros_like(one, dtype=queries.dtype).masked_fill(one, -torch.inf)
                    if one.dtype == torch.bool
                    else one
                )
                merged = added if merged is None else merged + added
        return None if merged is None else F.pad(merged, (0, keys.shape[2] - merged.shape[-1]))


def drops_heads(module: nn.Module) -> bool:
    """Whether heads of a module can be dropped: it is torch's own layer."""
    return type(module) in (nn.MultiheadAttention, PrunedMultiheadAttention)


def drop_heads(module: nn.MultiheadAttention, heads: int) -> None:
    """Makes a layer one of so many heads, after its weights were cut."""
    module.__class__ = PrunedMultiheadAttention
    module.num_heads = heads
    module._qkv_same_embed_dim = False  # torch's encoder would else go past the forward of this class
    matrices: Any = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    if matrices[0] is None:
        matrices = (module.in_proj_weight,) * 3
    module.embed_dim, module.kdim, module.vdim = (matrix.shape[1] for matrix in matrices)
