"""Attention: each head is a channel, kept or dropped whole, with its queries, keys, values and position biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from backbones.interpret import Interpreter
from backbones.labels import Pairs
from backbones.program import Step
from backbones.rules.pointwise import lift, unite
from backbones.rules.products import product, product_of


def attention(
    run: Interpreter, step: Step, query: Any, key: Any, value: Any, mask: Any = None, *rest: Any, **options: Any
) -> Any:
    """scaled_dot_product_attention of (..., heads, length, width): followed, and counted, as its two products.

    With `enable_gqa` there are several heads of queries for each head of keys and values.
    """
    query, key, value = (run.labels(one, step) for one in (query, key, value))
    mask = options.get("attn_mask", mask)
    if options.get("enable_gqa", len(rest) > 3 and rest[3]):
        key, value = (one.repeat_interleave(query.shape[-3] // one.shape[-3], -3) for one in (key, value))
    stack = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*stack, query.shape[-2], key.shape[-2])
    scores = product_of(run, step, query, key.transpose(-2, -1), shape)
    if isinstance(scores, Pairs):
        return run.unknown(step, (scores, value, mask), "attention over channels")
    if mask is not None:
        scores = unite(run, step, scores, lift(run.labels(mask, step), shape))
    return product_of(run, step, scores, value, step.shape)


def biased_product(run: Interpreter, step: Step, bias: Any, left: Any, right: Any, **scales: Any) -> Any:
    """baddbmm: bias + left @ right."""
    found = product(run, step, left, right)
    if isinstance(found, Pairs):
        return run.unknown(step, (bias, found), "sum with an outer product of channels")
    return unite(run, step, found, lift(run.labels(bias, step), step.shape))


RULES: Mapping[str, Callable[..., Any]] = {"scaled_dot_product_attention": attention, "baddbmm": biased_product}
