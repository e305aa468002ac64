"""What each ATen operation does to labels: operation name (without `aten.` and the in-place underscore) -> rule.

A rule takes the interpreter, the step and the step's arguments with values filled in, and returns the labels of the
result. Where an argument is an outer product of channels, the rule is the one named `… of pairs`. What has no rule
freezes what it reads, so a missing rule costs prunability, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backbones.rules import attention, layers, pairs, pointwise, positions, products, recurrent, shapes, spatial

RULES: Mapping[str, Callable[..., Any]] = {
    **pointwise.RULES,
    **spatial.RULES,
    **shapes.RULES,
    **layers.RULES,
    **products.RULES,
    **attention.RULES,
    **positions.RULES,
    **recurrent.RULES,
    **pairs.RULES,
}
