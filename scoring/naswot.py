"""NASWOT: the log-determinant of the kernel of linear-region codes (Mellor et al., ICML 2021, section 3, equation 2).

With codes s in {-1, +1}^N per sample and layer, N_l - d_H(s_i, s_j) = (N_l + s_i . s_j) / 2, so each layer adds one
matrix product to the kernel. Sums of up to 2^24 units are exact in float32, and the kernel is kept in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from scoring.codes import signs, watch

RELATIVE_FLOOR = 1e-12
"""Eigenvalues of a kernel are lifted to this share of the largest one before the logarithm."""


def kernel(codes: Tensor) -> Tensor:
    """(B, B) float64 number of units on which two samples agree, from (B, N) codes of -1 and +1."""
    agree: Tensor = (codes.shape[1] + (codes @ codes.T).double()) / 2
    return agree


def log_det(matrix: Tensor) -> float:
    """log|det| of a kernel, from its eigenvalues in float64.

    A singular kernel (two samples with equal codes, duplicated images, a layer with fewer regions than samples) has
    no logarithm; eigenvalues below `RELATIVE_FLOOR` times the largest are lifted to that floor, which gives a finite
    value far below that of any regular kernel, the lower the more directions are lost. Never -inf.

    Raises:
        SecateurError: for a kernel that is zero or not finite.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise SecateurError("the kernel of linear-region codes is not finite; the structure cannot be scored")
    eigenvalues = torch.linalg.eigvalsh(matrix.double())
    largest = float(eigenvalues[-1])
    if largest <= 0:
        raise SecateurError("the kernel of linear-region codes is zero; the structure cannot be scored")
    return float(eigenvalues.clamp(min=RELATIVE_FLOOR * largest).log().sum())


def naswot(model: nn.Module, batch: Tensor) -> float:
    """The score as published: log|det sum_l K_l| over all layers, raw counts.

    Args:
        model: in its final form (pruned); run once in eval mode.
        batch: (B, ...) normalised inputs.

    Returns:
        the score; higher means that the network tells the samples apart by more linear regions.

    Raises:
        SecateurError: without activations, or for NaN.
    """
    total = torch.zeros(len(batch), len(batch), dtype=torch.float64, device=batch.device)

    def add(preactivation: Tensor) -> None:
        total.add_(kernel(signs(preactivation)))

    watch(model, batch, add)
    return log_det(total)


def naswot_last(model: nn.Module, batch: Tensor) -> float:
    """log|det(K / N)| of the last non-linearity's codes alone, free of the number of units N.

    Arguments, result and errors as for `naswot`. Not a published score: measured in this project to rank pruned
    structures of one network far better than the sum over all layers.
    """
    last: list[Tensor] = []

    def keep(preactivation: Tensor) -> None:
        last[:] = [preactivation.detach().clone()]

    watch(model, batch, keep)
    codes = signs(last[0])
    return log_det(kernel(codes) / codes.shape[1])
