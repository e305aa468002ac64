"""NetScore: one number for accuracy against size and work (Wong, ICIAR 2019, arXiv:1806.05512)."""

from __future__ import annotations

import math

from backbones.errors import SecateurError


def netscore(
    accuracy: float, params: float, macs: float, *, alpha: float = 2.0, beta: float = 0.5, gamma: float = 0.5
) -> float:
    """Omega = 20 log10(a^alpha / (p^beta m^gamma)).

    The units decide the number: a in percent, p in millions of parameters, m in billions (10^9) of multiply-adds for
    one sample. Scores with other units or exponents can't be compared.

    Args:
        accuracy: fraction in (0, 1]; taken in percent.
        params: parameters (for a masked network the effective ones); taken in millions.
        macs: multiply-adds of one sample; taken in 10^9.
        alpha: exponent of the accuracy, 2 in the paper.
        beta: exponent of the parameters, 0.5 in the paper.
        gamma: exponent of the multiply-adds, 0.5 in the paper.

    Returns:
        Omega in decibel-like units, higher is better.

    Raises:
        SecateurError: for an accuracy outside of (0, 1], or parameters or MACs that are not positive.
    """
    if not 0 < accuracy <= 1:
        raise SecateurError(f"0 < accuracy <= 1 must hold (a fraction, not percent), but got accuracy={accuracy}")
    for name, value in (("params", params), ("macs", macs)):
        if not value > 0:
            raise SecateurError(f"{name} > 0 must hold, but got {name}={value}")
    logarithm = alpha * math.log10(100 * accuracy) - beta * math.log10(params / 1e6) - gamma * math.log10(macs / 1e9)
    return 20 * logarithm
