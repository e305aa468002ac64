"""What a network reaches on its data, whether it fits them, and one number for accuracy against size."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from backbones.arguments import explained
from backbones.errors import SecateurError, one_line
from backbones.inputs import move_tensors, run_on, sample_count
from backbones.modes import device_of, evaluating, training
from backbones.state import untouched
from search.checks import check_dtype, check_range, checked_device
from search.data.data import Data, SplitName
from search.data.items import form_of
from search.data.task import CLASSIFICATION, Loss, Meter

CHECKED = 8
"""Samples on which loss and metric are tried out."""


@explained
def measure(
    model: nn.Module,
    data: Data,
    split: SplitName = "test",
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
) -> float:
    """The metric of the data's task over a split, in evaluation mode; of classification the accuracy.

    Args:
        model: takes the data's inputs: normalised images (B, C, H, W), or what the task's samples hold.
        data: the task.
        split: "train", "validation" or "test".
        device: the model is moved there for the measurement and back; where it is when not given.
        batch_size: samples at a time, where no loader decides; by default 500 images, or 64 samples of another form. It
            matters only to a metric that is a function and gives the mean over a batch of what is no mean over samples.

    Returns:
        one number, in the metric's unit; a percentage is a fraction in [0, 1].

    Raises:
        SecateurError: when the network does not take such inputs or has another number of classes, or the metric fails
            or is no finite number.
    """
    home = device_of(model)
    place = home if device is None else checked_device(device)
    meter = Meter(data.task, place)
    with evaluating(model), torch.inference_mode():
        model.to(place)
        try:
            for batch in data.batches(split, batch_size):
                inputs, targets = move_tensors(batch, place)
                meter.update(forward(model, inputs, data), targets, sample_count(inputs))
            return meter.value(lambda sums: sums, split)
        finally:
            model.to(home)


@explained
def accuracy(
    model: nn.Module,
    data: Data,
    split: SplitName = "test",
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
) -> float:
    """Share of samples of a split whose highest logit is the true class, in evaluation mode.

    Args:
        model: takes normalised images (B, C, H, W), gives logits (B, num_classes).
        data: the task, with classes.
        split: "train", "validation" or "test".
        device: the model is moved there for the measurement and back; where it is when not given.
        batch_size: images at a time.

    Returns:
        a fraction in [0, 1].

    Raises:
        SecateurError: when the task has no classes, the network does not take such images or has another number of
            outputs.
    """
    if not data.task.classes:
        raise SecateurError(
            f"accuracy needs classes, but data {data.name!r} has a task with metric {data.task.name!r}; use measure"
        )
    return measure(model, replace(data, task=CLASSIFICATION), split, device=device, batch_size=batch_size)


def forward(model: nn.Module, inputs: Any, data: Data) -> Any:
    """The outputs of the network; of a task with classes (B, num_classes) logits.

    Raises:
        SecateurError: when logits have another shape.
    """
    outputs = run_on(model, inputs)
    wanted = (sample_count(inputs), data.num_classes)
    if data.task.classes and (not isinstance(outputs, Tensor) or outputs.shape != wanted):
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise SecateurError(
            f"the network gives {found} for {wanted[0]} images; logits of shape {wanted} are needed, one for each "
            "class of the data"
        )
    return outputs


def check_fits(model: nn.Module, data: Data) -> None:
    """Raises SecateurError unless `model` takes the data's inputs and, with classes, gives one logit a class."""
    with evaluating(model), torch.no_grad():
        inputs = move_tensors(data.example, device_of(model))
        check_dtype(model, inputs)
        try:
            forward(model, inputs, data)
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, SecateurError):
                raise
            reason = str(error).partition("\n")[0]
            taken = f"images of shape {tuple(inputs.shape)}" if data.images else f"inputs ({form_of(inputs)})"
            raise SecateurError(f"the network does not take {taken} of data {data.name!r}: {reason}") from error


def check_task(model: nn.Module, data: Data) -> None:
    """Looks at one batch: the loss must be one finite number whose gradient reaches weights, the metric finite.

    Of classification, whose loss and metric are known, only that the network fits. The network stays as it was.

    Raises:
        SecateurError: for a network that does not fit, a loss or metric that fails or gives something else.
    """
    check_fits(model, data)
    if data.task is CLASSIFICATION:
        return
    place = device_of(model)
    inputs, targets = move_tensors(next(data.batches("train", CHECKED)), place)
    with untouched(model), training(model):
        _check_loss(model, loss_of(data.task.loss, forward(model, inputs, data), targets))
    meter = Meter(data.task, place)
    inputs, targets = move_tensors(next(data.batches("validation", CHECKED)), place)
    with untouched(model), evaluating(model), torch.no_grad():
        meter.update(forward(model, inputs, data), targets, sample_count(inputs))
    meter.value(lambda sums: sums, "validation")


def _check_loss(model: nn.Module, loss: Tensor) -> None:
    """Raises SecateurError for a loss that is not finite, or does not depend on any weight that can learn."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not math.isfinite(loss.item()):
        raise SecateurError(f"the task's loss is {loss.item()} on the first training samples; it must be finite")
    try:
        gradients = torch.autograd.grad(loss, weights, allow_unused=True) if weights else ()
    except RuntimeError as error:
        raise SecateurError(f"the gradient of the task's loss cannot be computed: {one_line(error)}") from error
    if all(one is None for one in gradients):
        raise SecateurError(
            "the gradient of the task's loss reaches no weight of the network; compute it of the outputs"
        )


def loss_of(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    """The loss of a batch.

    Raises:
        SecateurError: when it fails, or is not one number with a gradient.
    """
    try:
        found = loss(outputs, targets)
    except SecateurError:
        raise
    except Exception as error:
        raise SecateurError(f"the task's loss raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(found, Tensor) or found.ndim or not found.requires_grad:
        what = type(found).__name__
        if isinstance(found, Tensor):
            shaped = f"shape {tuple(found.shape)}; take its mean() or sum()"
            what = shaped if found.ndim else "a number without a gradient"
        raise SecateurError(
            f"the task's loss must give one number (a tensor of shape ()) with a gradient, but gave {what}"
        )
    return found


@explained
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
