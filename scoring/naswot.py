"""NASWOT: log-determinant of the kernel of linear-region codes (Mellor et al., ICML 2021, section 3, equation 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from scoring.codes import CodeAgreement, codes_of, watch_preactivations

RELATIVE_FLOOR = 1e-12
"""Eigenvalues of a kernel are lifted to this share of the largest one before the logarithm."""


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


def naswot(model: nn.Module, batch: Any) -> float:
    """The score as published: log|det sum_l K_l| over all layers, raw counts.

    A layer whose units are all dead gives a constant K_l: it says nothing, and is no error.

    Args:
        model: in its final form (pruned); run once in eval mode.
        batch: its inputs: a tensor (B, ...), a tuple of arguments or a dictionary of arguments by name.

    Returns:
        the score; higher means that the network tells the samples apart by more linear regions.

    Raises:
        SecateurError: without activations, or for NaN.
    """
    agreement = CodeAgreement()
    watch_preactivations(model, batch, agreement.add)
    return log_det(agreement.kernel())


def naswot_last(model: nn.Module, batch: Any) -> float:
    """log|det(K / N)| of the last non-linearity's codes alone, free of the number of units N.

    Arguments, result and errors as for `naswot`. Not a published score: measured in this project to rank pruned
    structures of one network far better than the sum over all layers.
    """
    last: list[Tensor] = []

    def keep(preactivation: Tensor) -> None:
        last[:] = [codes_of(preactivation)]

    watch_preactivations(model, batch, keep)
    agreement = CodeAgreement()
    agreement.add(last[0])
    return log_det(agreement.kernel() / agreement.units)
