"""What each ATen operation does to labels: operation name (without `aten.` and the in-place underscore) -> rule.

A rule takes the interpreter, the step and the step's arguments with values filled in, and returns the labels of the
result. An operation without a rule freezes what it reads, so a missing rule costs prunability, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backbones.rules import layers, pointwise, products, shapes, spatial

RULES: Mapping[str, Callable[..., Any]] = {
    **pointwise.RULES,
    **spatial.RULES,
    **shapes.RULES,
    **layers.RULES,
    **products.RULES,
}
