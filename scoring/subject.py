"""What a training-free scorer may look at: the dense network, one structure of it, and some images; work shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.modes import evaluating
from backbones.graph import ChannelGraph, Index
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.alignment import activation_units
from scoring.codes import signs, watch
from scoring.recalibration import recalibrate


@dataclass(frozen=True, eq=False)
class View:
    """One network on one batch: what a single forward pass shows.

    Attributes:
        logits: (B, classes) output.
        codes: (B, N) of the last non-linearity, -1 and +1.
    """

    logits: Tensor
    codes: Tensor

    @cached_property
    def agreement(self) -> Tensor:
        """(B, B) float64 share of the last layer's units on which two samples agree: K / N."""
        return (self.codes.shape[1] + (self.codes @ self.codes.T).double()) / (2 * self.codes.shape[1])


def view(model: nn.Module, batch: Tensor) -> View:
    """Runs the network once in eval mode.

    Raises:
        SecateurError: without activations, for NaN, or when the output is not (B, classes).
    """
    last: list[Tensor] = []

    def keep(preactivation: Tensor) -> None:
        last[:] = [signs(preactivation)]

    logits = watch(model, batch, keep)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise SecateurError("this score needs a classifier that returns logits (B, classes)")
    return View(logits.double(), last[0])


@dataclass(frozen=True, eq=False)
class Task:
    """The part of the question that all structures share.

    Attributes:
        model: the dense network. Never changed.
        graph: its channel graph.
        batch: (B, C, H, W) normalised training images, on the model's device.
        labels: (B,) their classes, or None.
        recalibrate: small batches for batch-norm statistics, or None.
    """

    model: nn.Module
    graph: ChannelGraph
    batch: Tensor
    labels: Tensor | None = None
    recalibrate: Sequence[Tensor] | None = None

    @cached_property
    def dense(self) -> View:
        """The dense network's own view of the batch; one forward pass for all structures."""
        return view(self.model, self.batch)

    @cached_property
    def dense_on_recalibration(self) -> Tensor:
        """(images, classes) float64 logits of the dense network on the recalibration images."""
        with evaluating(self.model), torch.no_grad():
            return torch.cat([self.model(batch) for batch in self.recalibrate or ()]).double()

    @cached_property
    def units(self) -> dict[int, Index | None]:
        """The channel of every unit of every non-linearity, see `activation_units`; found once for all structures."""
        return activation_units(self.graph)

    def need_labels(self, name: str) -> Tensor:
        """The labels.

        Raises:
            SecateurError: when there are none.
        """
        if self.labels is None:
            raise SecateurError(f"scorer {name!r} needs labels; pass labels=(B,) class numbers")
        return self.labels

    def need_batches(self, name: str) -> Sequence[Tensor]:
        """The recalibration batches.

        Raises:
            SecateurError: when there are none.
        """
        if not self.recalibrate:
            raise SecateurError(f"scorer {name!r} needs recalibrate=[…], small batches for batch-norm statistics")
        return self.recalibrate


@dataclass(frozen=True, eq=False)
class Subject:
    """One structure of a task; what several scorers need is computed once.

    Attributes:
        task: what all structures share.
        structure: what is scored.
    """

    task: Task
    structure: Structure

    @cached_property
    def pruned(self) -> nn.Module:
        """The structure cut out of the model, with the dense network's batch-norm statistics."""
        return prune(self.task.model, self.task.graph, self.structure, check=False)

    def recalibrated(self, name: str) -> nn.Module:
        """The same with batch-norm statistics of its own, measured on the task's recalibration batches.

        Raises:
            SecateurError: when the task has none; `name` is the scorer that asks.
        """
        self.task.need_batches(name)
        return self._recalibrated

    @cached_property
    def _recalibrated(self) -> nn.Module:
        model = prune(self.task.model, self.task.graph, self.structure, check=False)
        recalibrate(model, self.task.recalibrate or ())
        return model

    @cached_property
    def _view(self) -> View:
        return view(self._recalibrated, self.task.batch)

    def view(self, name: str) -> View:
        """What the recalibrated network shows of the batch; `name` is the scorer that asks.

        Raises:
            SecateurError: as `recalibrated` and `view`.
        """
        self.task.need_batches(name)
        return self._view
