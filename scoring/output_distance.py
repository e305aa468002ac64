"""How far outputs are from others of the same form: without classes there is no divergence of probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backbones.errors import SecateurError
from backbones.inputs import tensors_in

LEAST_SIZE = 1e-12
"""Added to the size of outputs, so that zeros have a distance too."""


def relative_distance(outputs: Any, wanted: Any) -> Tensor:
    """Mean over the tensors of ||a - b||^2 / ||b||^2: 0 for equal outputs, about 1 for outputs that are all zero.

    Args:
        outputs: what a network returned: a tensor, or tensors in lists, dictionaries, dataclasses; floating point ones
            count.
        wanted: of the same form, from another network.

    Returns:
        a scalar, with a gradient where `outputs` have one.

    Raises:
        SecateurError: when the two are not of one form, or hold no floating-point tensor.
    """
    ours, theirs = ([tensor for tensor in tensors_in(tree) if tensor.is_floating_point()] for tree in (outputs, wanted))
    if not ours or [one.shape for one in ours] != [one.shape for one in theirs]:
        shapes = [", ".join(str(tuple(one.shape)) for one in found) or "nothing" for found in (ours, theirs)]
        raise SecateurError(f"outputs of two networks cannot be compared: {shapes[0]} of one, {shapes[1]} of the other")
    parts = [(a - b).square().sum() / (b.square().sum() + LEAST_SIZE) for a, b in zip(ours, theirs, strict=True)]
    return torch.stack(parts).mean()
