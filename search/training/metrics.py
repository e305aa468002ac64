"""What a network reaches on its data, whether it fits them, and one number for accuracy against size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.modes import device_of, evaluating
from search.checks import check_dtype, check_range
from search.data.data import Data, SplitName


def accuracy(
    model: nn.Module,
    data: Data,
    split: SplitName = "test",
    *,
    device: str | torch.device | None = None,
    batch_size: int = 500,
) -> float:
    """Share of images of a split whose highest logit is the true class, in evaluation mode.

    Args:
        model: takes normalised images (B, C, H, W), gives logits (B, num_classes).
        data: the task.
        split: "train", "validation" or "test".
        device: the model is moved there for the measurement and back; where it is when not given.
        batch_size: images at a time.

    Returns:
        a fraction in [0, 1].

    Raises:
        SecateurError: when the network does not take such images or has another number of outputs.
    """
    home = device_of(model)
    place = home if device is None else torch.device(device)
    correct, total = torch.zeros((), dtype=torch.int64), 0
    with evaluating(model), torch.inference_mode():
        model.to(place)
        try:
            for images, labels in data.batches(split, batch_size):
                right, number = count_right(model, images.to(place), labels.to(place), data)
                correct += right.cpu()
                total += number
        finally:
            model.to(home)
    return int(correct) / total


def count_right(model: nn.Module, images: Tensor, labels: Tensor, data: Data) -> tuple[Tensor, int]:
    """Number of right answers (a scalar tensor) and of images in one batch."""
    logits = forward(model, images, data.num_classes)
    return (logits.argmax(1) == labels).sum(), len(labels)


def forward(model: nn.Module, images: Tensor, num_classes: int) -> Tensor:
    """(B, num_classes) logits.

    Raises:
        SecateurError: when the output has another shape.
    """
    logits = model(images)
    if not isinstance(logits, Tensor) or logits.shape != (len(images), num_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise SecateurError(
            f"the network gives {found} for {len(images)} images; logits of shape ({len(images)}, {num_classes}) are "
            "needed, one for each class of the data"
        )
    return logits


def check_fits(model: nn.Module, data: Data) -> None:
    """Raises SecateurError unless `model` takes the data's images and gives one logit a class."""
    with evaluating(model), torch.no_grad():
        images = data.example.to(device_of(model))
        check_dtype(model, images)
        try:
            forward(model, images, data.num_classes)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, SecateurError):
                raise
            reason = str(error).partition("\n")[0]
            raise SecateurError(
                f"the network does not take images of shape {tuple(images.shape)} of data {data.name!r}: {reason}"
            ) from error


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
    check_range("params", params, 0, above=True)
    check_range("macs", macs, 0, above=True)
    logarithm = alpha * math.log10(100 * accuracy) - beta * math.log10(params / 1e6) - gamma * math.log10(macs / 1e9)
    return 20 * logarithm
