"""The smallest image a network can take, said before a layer deep inside fails."""

from __future__ import annotations

from torch import Tensor

from backbones.errors import SecateurError


def check_at_least(x: Tensor, pixels: int, name: str) -> None:
    """Raises SecateurError when an image batch (N, C, H, W) has sides below `pixels`."""
    if x.ndim == 4 and min(x.shape[2:]) < pixels:
        raise SecateurError(
            f"{name} takes images of {pixels}x{pixels} pixels or more, but got {x.shape[2]}x{x.shape[3]}; "
            f"resize them, or build a form for small images"
        )
