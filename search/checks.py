"""Checks of what people give, shared by the rooms of the search; what is wrong is one line that names it."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from backbones.errors import SecateurError, first_line
from backbones.inputs import tensors_in

STUDY_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def check_study_name(name: str) -> None:
    """Raises SecateurError unless `name` can be the name of a folder below another one, and nothing else."""
    if not STUDY_NAME.fullmatch(name):
        raise SecateurError(
            f'name must be 1 to 100 letters, digits, ".", "_" or "-", and not begin with a dot, but got {name!r}'
        )


def check_dtype(model: nn.Module, inputs: Any) -> None:
    """Raises SecateurError unless a network computes in the type of the inputs of a batch that it is given."""
    found = {value.dtype for value in model.parameters() if value.is_floating_point()}
    for given in {tensor.dtype for tensor in tensors_in(inputs) if tensor.is_floating_point()}:
        if found and given not in found:
            names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
            raise SecateurError(
                f"the network's weights are {names}, its inputs {str(given).removeprefix('torch.')}; call "
                "model.float(), and change the type of the network that comes out"
            )


def checked_device(device: str | torch.device) -> torch.device:
    """The device that is meant.

    Raises:
        SecateurError: for one that torch does not know or this machine does not have.
    """
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
        return place
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = first_line(error)
        known = reason.startswith("Expected one of")
        what = "no such device; give auto, cpu, cuda or cuda:1" if known else reason
        raise SecateurError(f"device {device} cannot be used here: {what}") from error


def check_range(
    name: str,
    value: float | None,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    where: str = "",
) -> None:
    """Raises SecateurError unless a setting is a finite number between its limits.

    Args:
        name: of the setting, as the user knows it.
        value: what was given; None stands for a setting that was left out, and passes.
        low: the least value that it may have.
        high: the largest value that it may have.
        above: whether it must be larger than `low`, not equal to it.
        below: whether it must be smaller than `high`, not equal to it.
        where: what the setting belongs to; begins the message, with a colon behind it.
    """
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    enough = number and (value > low if above else value >= low)
    if not enough or not (value < high if below or high == math.inf else value <= high):
        place = f"{where}: " if where else ""
        least = f"{low:g} {'<' if above else '<='}"
        most = "" if high == math.inf else f" {'<' if below else '<='} {high:g}"
        raise SecateurError(f"{place}{least} {name}{most} must hold, but got {name}={value!r}")


def check_count(name: str, value: int) -> None:
    """Raises SecateurError unless a setting is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise SecateurError(f"{name} must be a whole number, but got {name}={value!r}")
    check_range(name, value, 1)
