"""What a training-free scorer may look at: the dense network, one structure cut out of it, and some images.

A `ScoringTask` is shared by all structures of a search, a `ScoredStructure` by all scorers of one structure; what is
computed for one of them is kept for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.inputs import run_on
from backbones.memory_order import in_order, keep_order
from backbones.modes import evaluating
from backbones.state import untouched
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.batch_norm import FoldedNetwork, fold_batch_norms, recalibrate, recalibrating
from scoring.channel_weights import Floats
from scoring.codes import CodeAgreement, RunMode, codes_of, watch_preactivations
from scoring.reconstruction.refit import refit
from scoring.reconstruction.targets import DenseTargets, gather_targets

FIT_ROWS = 8_192
"""Output positions a layer is refitted at for a score.

Fewer are quicker (`gather_targets(rows_per_unknown=16)`, one round of `refit`), but a search then fits the positions:
for ResNet-20 at 33 % it ended .13 above the score of equal sensitivity and .03 above it on fresh images (one seed),
where with all positions and both rounds it ended .19 and .09 above, and as much on fresh images (two seeds).
"""


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What one forward pass of a network over a batch shows.

    Attributes:
        outputs: what the network returned: a tensor, or tensors in lists, dictionaries, dataclasses.
        codes: (B, N) of the last non-linearity, True where the pre-activation is above 0.
    """

    outputs: Any
    codes: Tensor

    @cached_property
    def logits(self) -> Tensor:
        """(B, classes) float64 outputs.

        Raises:
            SecateurError: for outputs of another form.
        """
        if not isinstance(self.outputs, Tensor) or self.outputs.ndim != 2:
            raise SecateurError("this score needs a classifier that returns logits (B, classes)")
        return self.outputs.double()

    @cached_property
    def agreement(self) -> Tensor:
        """(B, B) float64 share of the last layer's units on which two samples agree, on the CPU: K / N."""
        agreement = CodeAgreement()
        agreement.add(self.codes)
        return agreement.kernel() / agreement.units


def forward_pass(model: nn.Module, batch: Any, mode: RunMode = evaluating) -> ForwardPass:
    """Runs a network once over a batch.

    Args:
        model: any network; left in the mode it was in.
        batch: its inputs: a tensor (B, ...), a tuple of arguments or a dictionary of arguments by name.
        mode: the state to run it in, `evaluating` or `recalibrating`.

    Raises:
        SecateurError: without activations, or for NaN.
    """
    last: list[Tensor] = []

    def keep(preactivation: Tensor) -> None:
        last[:] = [codes_of(preactivation)]

    outputs = watch_preactivations(model, batch, keep, mode)
    return ForwardPass(outputs, last[0])


def fast_layout(model: nn.Module, batch: Any) -> torch.memory_format:
    """Channels last for images on the CPU, where convolutions are fastest so, unless the network's code objects.

    `x.view(len(x), -1)` behind a convolution does; it is asked with one sample.
    """
    if not isinstance(batch, Tensor) or batch.device.type != "cpu" or batch.ndim != 4:
        return torch.contiguous_format
    try:
        with evaluating(model), torch.no_grad():
            model(batch[:1].contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


@dataclass(frozen=True, eq=False)
class ScoringTask:
    """What the scores of all structures of one network share.

    Attributes:
        model: the dense network. Never changed.
        graph: its channel graph.
        batch: (B, C, H, W) normalised training images, on the model's device; or inputs of another form: a tuple of
            arguments, a dictionary of arguments by name.
        labels: (B,) their classes, or None.
        classes: whether outputs are logits of classes; None where a tensor (B, classes) is to be taken for that.
        recalibrate: small batches for batch-norm statistics, or None.
        reference: structures among which rank sums rank; none for single scorers.
        reference_scores: scorer -> its sorted scores of the reference structures, filled when first asked for.
        fit: inputs that structures are refitted on, none of the batch; None where no scorer refits.
        held_out: inputs that the scorer `reconstruction` looks at, none of `fit`; None for the batch.
        half: whether the scorers `HALVED` run networks on images in bfloat16; None: `reconstruction` does where the
            processor has instructions for it, its refit too, and so does accuracy, the others do not.
    """

    model: nn.Module
    graph: ChannelGraph
    batch: Any
    labels: Tensor | None = None
    recalibrate: Sequence[Any] | None = None
    reference: tuple[Structure, ...] = ()
    reference_scores: dict[str, Floats] = field(default_factory=dict, repr=False)
    classes: bool | None = None
    fit: Any = None
    held_out: Any = None
    half: bool | None = None

    @cached_property
    def dense(self) -> ForwardPass:
        """What the dense network shows of the batch; one forward pass for all structures."""
        with untouched(self.model):
            return forward_pass(self.model, self.images)

    @cached_property
    def layout(self) -> torch.memory_format:
        """How images are laid out in memory for a forward pass."""
        with untouched(self.model):
            return fast_layout(self.model, self.batch)

    @cached_property
    def images(self) -> Any:
        """The batch in the layout of `layout`."""
        return self._laid_out(self.batch)

    @cached_property
    def recalibration_images(self) -> tuple[Any, ...]:
        """The recalibration batches in the layout of `layout`."""
        return tuple(self._laid_out(batch) for batch in self.recalibrate or ())

    def _laid_out(self, batch: Any) -> Any:
        return in_order(batch, self.layout) if isinstance(batch, Tensor) else batch

    @cached_property
    def has_logits(self) -> bool:
        """Whether outputs are logits (B, classes): what they mean is then known, else only how far they are apart."""
        if self.classes is not None:
            return self.classes
        return isinstance(self.dense.outputs, Tensor) and self.dense.outputs.ndim == 2

    @property
    def recalibrates_on_batch(self) -> bool:
        """Whether the scoring batch alone recalibrates: one pass then gives statistics, logits and codes together.

        It normalises by the batch's own variance, running statistics by n / (n - 1) times that.
        """
        return self.recalibrate is not None and len(self.recalibrate) == 1 and self.recalibrate[0] is self.batch

    @cached_property
    def held_out_images(self) -> Any:
        """`held_out`, or the batch, in the layout of `layout`."""
        return self._laid_out(self.batch if self.held_out is None else self.held_out)

    @cached_property
    def held_out_outputs(self) -> Any:
        """What the dense network gives for `held_out_images`, in eval mode."""
        with untouched(self.model), evaluating(self.model), torch.no_grad():
            return run_on(self.model, self.held_out_images)

    def targets(self, scorer: str) -> DenseTargets:
        """What structures are refitted to; gathered once.

        Args:
            scorer: who asks, for the message.

        Raises:
            SecateurError: when there are no images to fit on, or these cannot be used (`gather_targets`).
        """
        if self.fit is None:
            raise SecateurError(f"scorer {scorer!r} needs fit=(F, …) images to refit on, others than the batch")
        return self._targets

    @cached_property
    def _targets(self) -> DenseTargets:
        assert self.fit is not None
        return gather_targets(self.model, self.graph, self._laid_out(self.fit), rows=FIT_ROWS)

    @cached_property
    def folded(self) -> FoldedNetwork:
        """The dense network without the batch norms that can be folded away; structures are cut out of it to be run."""
        return fold_batch_norms(self.model, self.graph)

    def need_labels(self, scorer: str) -> Tensor:
        """The labels.

        Args:
            scorer: who asks, for the message.

        Raises:
            SecateurError: when there are none.
        """
        if self.labels is None:
            raise SecateurError(f"scorer {scorer!r} needs labels; pass labels=(B,) class numbers")
        return self.labels

    def need_batches(self, scorer: str) -> Sequence[Any]:
        """The recalibration batches.

        Args:
            scorer: who asks, for the message.

        Raises:
            SecateurError: when there are none.
        """
        if not self.recalibrate:
            raise SecateurError(f"scorer {scorer!r} needs recalibrate=[…], small batches for batch-norm statistics")
        return self.recalibrate


@dataclass(frozen=True, eq=False)
class ScoredStructure:
    """One structure of a task; what several scorers need of it is computed once.

    Attributes:
        task: what all structures share.
        structure: what is scored.
    """

    task: ScoringTask
    structure: Structure

    @cached_property
    def pruned(self) -> nn.Module:
        """The structure cut out of the model, with the dense network's batch-norm statistics."""
        return self._cut()

    def _cut(self) -> nn.Module:
        found = prune(self.task.model, self.task.graph, self.structure, check=False)
        keep_order(found, self.task.layout)
        return found

    @cached_property
    def folded(self) -> nn.Module:
        """The same function as `pruned` up to rounding, with batch norms folded away: for forward passes only."""
        found = self.task.folded.prune(self.task.graph, self.structure)
        if found is None:
            return self.pruned
        keep_order(found, self.task.layout)
        return found

    def refitted(self, scorer: str) -> nn.Module:
        """The pruned network refitted to the dense network's outputs on the task's images to fit, in eval mode.

        Args:
            scorer: who asks, for the message.

        Raises:
            SecateurError: when the task has no images to fit on.
        """
        self.task.targets(scorer)
        return self._refitted

    @cached_property
    def _refitted(self) -> nn.Module:
        return refit(self.task.targets(""), self.structure, forward_only=True, half=self.task.half).eval()

    @cached_property
    def after_refit(self) -> RefittedStructure:
        """The same structure as other scorers see it when they are asked of its refitted network."""
        return RefittedStructure(self.task, self.structure, self)

    def recalibrated(self, scorer: str) -> nn.Module:
        """The pruned network with batch-norm statistics measured on the task's recalibration batches.

        Args:
            scorer: who asks, for the message.

        Raises:
            SecateurError: when the task has no recalibration batches.
        """
        self.task.need_batches(scorer)
        return self._recalibrated

    def forward_pass(self, scorer: str) -> ForwardPass:
        """What the recalibrated network shows of the batch.

        Args:
            scorer: who asks, for the message.

        Raises:
            SecateurError: when the task has no recalibration batches, or the pass fails (`forward_pass`).
        """
        self.task.need_batches(scorer)
        return self._forward_pass

    @cached_property
    def _recalibrated(self) -> nn.Module:
        model = self._cut()
        recalibrate(model, self.task.recalibration_images)
        return model

    @cached_property
    def _forward_pass(self) -> ForwardPass:
        if self.task.recalibrates_on_batch:
            model = self._cut()
            return forward_pass(model, self.task.images, recalibrating)
        return forward_pass(self._recalibrated, self.task.images)


@dataclass(frozen=True, eq=False)
class RefittedStructure(ScoredStructure):
    """A structure whose pruned network is the refitted one; its statistics come with the refit and are not renewed.

    Attributes:
        as_cut: the same structure as cut, which keeps the refitted network.
    """

    as_cut: ScoredStructure

    @cached_property
    def pruned(self) -> nn.Module:
        """The refitted network."""
        return self.as_cut.refitted("refitted:…")

    @cached_property
    def folded(self) -> nn.Module:
        """The refitted network."""
        return self.pruned

    def recalibrated(self, scorer: str) -> nn.Module:
        """The refitted network.

        Args:
            scorer: who asks; any task with images to fit will do.
        """
        return self.pruned

    def forward_pass(self, scorer: str) -> ForwardPass:
        """What the refitted network shows of the batch.

        Args:
            scorer: who asks.
        """
        return self._forward_pass

    @cached_property
    def _forward_pass(self) -> ForwardPass:
        return forward_pass(self.pruned, self.task.images)


Scorer = Callable[[ScoredStructure], float]
"""What a network of this structure is worth without training; higher is better."""
