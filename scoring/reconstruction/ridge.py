"""The least-squares step: solved by Cholesky, in the smaller of two forms, and never a crash on a singular matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE_STEPS = 8
"""How often the ridge is raised tenfold before a layer is given up."""
FLOAT64_UNKNOWNS = 1024
"""Systems of at most so many unknowns are decomposed in float64."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """argmin over D of |residual - patches D|^2 + l |D|^2, for as many residuals as come.

    With residual = targets - patches W0 this is ridge regression drawn to W0; in this form weights that fit already
    stay as they are to the last bit.

    Attributes:
        patches: (parts, rows, unknowns).
        factor: (parts, n, n) Cholesky factor of the Gram with the ridge on its diagonal; n is the smaller of rows and
            unknowns (more unknowns than rows: the dual system).
    """

    patches: Tensor
    factor: Tensor

    @staticmethod
    def of(patches: Tensor, ridge: float) -> Ridge | None:
        """Decomposes once; None when no ridge makes the Gram positive definite (values that overflow).

        Args:
            patches: (parts, rows, unknowns), float32 or float64.
            ridge: l over the mean diagonal of patches' patches.
        """
        rows, unknowns = patches.shape[1:]
        gram = multiply(patches, patches.mT) if unknowns > rows else multiply(patches.mT, patches)
        shift = ridge * gram.diagonal(dim1=-2, dim2=-1).sum(-1) / unknowns
        factor = cholesky(gram, shift)
        return None if factor is None else Ridge(patches, factor)

    def solve(self, residual: Tensor) -> Tensor | None:
        """(parts, unknowns, outputs) for a residual (parts, rows, outputs); None when it is not finite."""
        dual = self.factor.shape[-1] < self.patches.shape[2]
        right = residual if dual else multiply(self.patches.mT, residual)
        found = torch.cholesky_solve(right.to(self.factor.dtype), self.factor).to(residual.dtype)
        found = multiply(self.patches.mT, found) if dual else found
        return found if bool(found.isfinite().all()) else None


def cholesky(gram: Tensor, shift: Tensor) -> Tensor | None:
    """The lower factor of gram + shift I, in float64 while that is cheap; the shift is raised where it is refused.

    Args:
        gram: (parts, n, n) positive semi-definite up to rounding.
        shift: (parts,) >= 0.

    Returns:
        (parts, n, n), or None where even a much larger shift does not help.
    """
    precise = torch.float64 if gram.shape[-1] <= FLOAT64_UNKNOWNS else gram.dtype
    gram = gram.to(precise)
    shift = shift.to(precise).clamp(min=torch.finfo(torch.float32).tiny)
    for _ in range(RIDGE_STEPS):
        shifted = gram.clone()
        shifted.diagonal(dim1=-2, dim2=-1).add_(shift[:, None])
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not bool(info.any()) and bool(factor.isfinite().all()):
            found: Tensor = factor
            return found
        shift = shift * 10
    return None


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """(parts, n, m) of (parts, n, k) and (parts, k, m); a single part as one plain product, which is faster."""
    return (left[0] @ right[0])[None] if len(left) == 1 else torch.bmm(left, right)
