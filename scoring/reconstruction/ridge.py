"""The least-squares step: solved by Cholesky, in the smaller of two forms, and never a crash on a singular matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE_STEPS = 8
"""How often the ridge is raised tenfold before a layer is given up."""
FLOAT64_UNKNOWNS = 1024
"""Systems of at most so many unknowns are decomposed in float64."""
GRAM_BLOCK = 70
"""Columns of a Gram that are one product; more of them are split, so that no half is computed twice."""
FAR_MEANS = 100.0
"""How much larger the squares of the means may be than the rest before patches are centred themselves."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """argmin over D of |residual - patches D|^2 + l |D|^2, for as many residuals as come.

    With residual = targets - patches W0 this is ridge regression drawn to W0; in this form weights that fit already
    stay as they are to the last bit.

    Attributes:
        patches: (parts, rows, unknowns), centred or not: residuals without a mean do not see the difference.
        means: (parts, 1, unknowns) the means that `patches` have, where a constant is free; 0 otherwise.
        taken: (parts, 1, unknowns) what was taken off them.
        gram: (parts, unknowns, unknowns) of the centred patches, its lower half; None where the factor is not of it.
        shift: (parts,) the ridge: l.
        factor: (parts, n, n) Cholesky factor of the Gram with the ridge on its diagonal; n is the smaller of rows and
            unknowns (more unknowns than rows: the dual system).
    """

    patches: Tensor
    means: Tensor
    taken: Tensor
    gram: Tensor | None
    shift: Tensor
    factor: Tensor

    @staticmethod
    def of(patches: Tensor, ridge: float, *, centred: bool = False) -> Ridge | None:
        """Decomposes once; None when no ridge makes the Gram positive definite (values that overflow).

        Args:
            patches: (parts, rows, unknowns), float32 or float64; centred in place where that is more exact.
            ridge: l over the mean diagonal of patches' patches.
            centred: whether the mean of every column is taken off.
        """
        rows, unknowns = patches.shape[1:]
        taken = torch.zeros_like(patches[:, :1])
        means = means_of(patches) if centred else taken
        if unknowns > rows:
            patches, means, taken = patches.sub_(means), taken, means
            gram = multiply(patches, patches.mT)
        else:
            gram = lower_gram(patches)
            if centred:
                level = rows * means.square().sum((-2, -1))
                if bool((level > FAR_MEANS * (_trace(gram) - level)).any()):
                    patches, means, taken = patches.sub_(means), taken, means
                    gram = lower_gram(patches)
                else:
                    gram -= rows * (means.mT * means)
        found = cholesky(gram, ridge * _trace(gram) / unknowns)
        return None if found is None else Ridge(patches, means, taken, None if unknowns > rows else gram, *found[::-1])

    def solve(self, residual: Tensor, added: Tensor | None = None) -> Tensor | None:
        """D, or a better one; None when it is not finite.

        Args:
            residual: (parts, rows, outputs) what D = `added` leaves.
            added: (parts, unknowns, outputs) what D is so far; None for 0.

        Returns:
            (parts, unknowns, outputs)
        """
        if self.gram is None:
            right = residual if added is None else residual + multiply(self.patches, added)
            return _finite(multiply(self.patches.mT, self._divided(right)))
        right = self._projected(residual)
        if added is None:
            return _finite(self._divided(right))
        return _finite(added + self._divided(right - self.shift[:, None, None].to(right.dtype) * added))

    def roughly(self, wanted: Tensor, old: Tensor) -> Tensor | None:
        """D for the residual wanted - patches W0 (its mean taken off), up to rounding; a product with patches cheaper.

        None where that has no solution, or where it would not be cheaper.
        """
        if self.gram is None:
            return None
        whole = self.gram.tril() + self.gram.tril(-1).mT
        return _finite(self._divided(self._projected(wanted - means_of(wanted)) - multiply(whole, old)))

    def _projected(self, residual: Tensor) -> Tensor:
        """The patches' product with a residual, the faster way round."""
        return multiply(residual.mT, self.patches).mT

    def _divided(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve(right.to(self.factor.dtype), self.factor).to(right.dtype)


def _finite(values: Tensor) -> Tensor | None:
    return values if bool(values.sum().isfinite()) else None


def cholesky(gram: Tensor, shift: Tensor) -> tuple[Tensor, Tensor] | None:
    """The lower factor of gram + shift I, in float64 while that is cheap; the shift is raised where it is refused.

    Args:
        gram: (parts, n, n) positive semi-definite up to rounding; only its lower half is read.
        shift: (parts,) >= 0.

    Returns:
        (parts, n, n) the factor and (parts,) the shift, or None where even a much larger shift does not help.
    """
    precise = torch.float64 if gram.shape[-1] <= FLOAT64_UNKNOWNS else gram.dtype
    gram = gram.to(precise)
    shift = shift.to(precise).clamp(min=torch.finfo(torch.float32).tiny)
    for _ in range(RIDGE_STEPS):
        shifted = gram.clone()
        shifted.diagonal(dim1=-2, dim2=-1).add_(shift[:, None])
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not bool(info.any()) and bool(factor.isfinite().all()):
            return factor, shift
        shift = shift * 10
    return None


def _trace(gram: Tensor) -> Tensor:
    """(parts,) sum of the diagonal."""
    return gram.diagonal(dim1=-2, dim2=-1).sum(-1)


def lower_gram(patches: Tensor) -> Tensor:
    """(parts, unknowns, unknowns) of (parts, rows, unknowns): patches' patches, at least its lower half."""
    unknowns = patches.shape[2]
    if len(patches) > 1 or unknowns <= GRAM_BLOCK:
        return multiply(patches.mT, patches)
    found = patches.new_zeros(1, unknowns, unknowns)
    for start in range(0, unknowns, GRAM_BLOCK):
        end = start + GRAM_BLOCK
        found[:, start:end, :end] = multiply(patches[:, :, start:end].mT, patches[:, :, :end])
    return found


def means_of(values: Tensor) -> Tensor:
    """(parts, 1, n) of (parts, rows, n)."""
    return values.mean(1, keepdim=True)


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """(parts, n, m) of (parts, n, k) and (parts, k, m); a single part as one plain product, which is faster."""
    return (left[0] @ right[0])[None] if len(left) == 1 else torch.bmm(left, right)
