"""What a training-free scorer may look at: the dense network, one structure of it, and some images; work shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Index
from backbones.modes import evaluating
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.alignment import activation_units
from scoring.codes import Agreement, RunMode, watch
from scoring.folding import Folded, fold
from scoring.recalibration import recalibrate, renewing


@dataclass(frozen=True, eq=False)
class View:
    """One network on one batch: what a single forward pass shows.

    Attributes:
        logits: (B, classes) output.
        codes: (B, N) of the last non-linearity, True where the pre-activation is above 0.
    """

    logits: Tensor
    codes: Tensor

    @cached_property
    def agreement(self) -> Tensor:
        """(B, B) float64 share of the last layer's units on which two samples agree, on the CPU: K / N."""
        agreement = Agreement()
        agreement.add(self.codes)
        return agreement.kernel() / agreement.units


def view(model: nn.Module, batch: Tensor, mode: RunMode = evaluating) -> View:
    """Runs the network once, in eval mode unless told otherwise.

    Raises:
        SecateurError: without activations, for NaN, or when the output is not (B, classes).
    """
    last: list[Tensor] = []

    def keep(preactivation: Tensor) -> None:
        last[:] = [preactivation > 0]

    logits = watch(model, batch, keep, mode)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise SecateurError("this score needs a classifier that returns logits (B, classes)")
    return View(logits.double(), last[0].flatten(1))


def fast_layout(model: nn.Module, batch: Tensor) -> torch.memory_format:
    """Channels last for images on the CPU, where convolutions are fastest so, unless the network's code objects.

    `x.view(len(x), -1)` behind a convolution does; it is asked with one sample.
    """
    if batch.device.type != "cpu" or batch.ndim != 4:
        return torch.contiguous_format
    try:
        with evaluating(model), torch.no_grad():
            model(batch[:1].contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


@dataclass(frozen=True, eq=False)
class ScoringTask:
    """The part of the question that all structures share.

    Attributes:
        model: the dense network. Never changed.
        graph: its channel graph.
        batch: (B, C, H, W) normalised training images, on the model's device.
        labels: (B,) their classes, or None.
        recalibrate: small batches for batch-norm statistics, or None.
        reference: structures among which rank sums rank; none for single scorers.
        standings: scorer -> its sorted scores of the reference structures, filled when first asked for.
    """

    model: nn.Module
    graph: ChannelGraph
    batch: Tensor
    labels: Tensor | None = None
    recalibrate: Sequence[Tensor] | None = None
    reference: tuple[Structure, ...] = ()
    standings: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @cached_property
    def dense(self) -> View:
        """The dense network's own view of the batch; one forward pass for all structures."""
        return view(self.model, self.images)

    @cached_property
    def layout(self) -> torch.memory_format:
        """How images are laid out in memory for a pass."""
        return fast_layout(self.model, self.batch)

    @cached_property
    def images(self) -> Tensor:
        """The batch, laid out."""
        return self.batch.contiguous(memory_format=self.layout)

    @cached_property
    def renewal(self) -> tuple[Tensor, ...]:
        """The recalibration batches, laid out."""
        return tuple(batch.contiguous(memory_format=self.layout) for batch in self.recalibrate or ())

    @property
    def renews_itself(self) -> bool:
        """Whether the scoring batch alone is what recalibrates: one pass then gives statistics and view together.

        It normalises by the batch's own variance, running statistics by n / (n - 1) times that.
        """
        return self.recalibrate is not None and len(self.recalibrate) == 1 and self.recalibrate[0] is self.batch

    @cached_property
    def folded(self) -> Folded:
        """The dense network without the batch norms that can be folded away; structures are cut out of it to be run."""
        return fold(self.model, self.graph)

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
class ScoredStructure:
    """One structure of a task; what several scorers need is computed once.

    Attributes:
        task: what all structures share.
        structure: what is scored.
    """

    task: ScoringTask
    structure: Structure

    @cached_property
    def pruned(self) -> nn.Module:
        """The structure cut out of the model, with the dense network's batch-norm statistics."""
        return prune(self.task.model, self.task.graph, self.structure, check=False)

    @cached_property
    def lean(self) -> nn.Module:
        """The same function as `pruned` up to rounding, with batch norms folded away: for forward passes only."""
        return self.task.folded.cut(self.task.graph, self.structure) or self.pruned

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
        recalibrate(model, self.task.renewal)
        return model

    @cached_property
    def _view(self) -> View:
        if self.task.renews_itself:
            model = prune(self.task.model, self.task.graph, self.structure, check=False)
            return view(model, self.task.images, renewing)
        return view(self._recalibrated, self.task.images)

    def view(self, name: str) -> View:
        """What the recalibrated network shows of the batch; `name` is the scorer that asks.

        Raises:
            SecateurError: as `recalibrated` and `view`.
        """
        self.task.need_batches(name)
        return self._view
