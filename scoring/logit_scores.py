"""Scores by what a network gives: beside the dense network's outputs, as cut and refitted, and against the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from backbones.errors import SecateurError
from backbones.inputs import run_on, split_samples
from backbones.modes import evaluating, fast_precision
from scoring.output_distance import relative_distance
from scoring.scoring_task import ScoredStructure

ROUNDING = 1e-12
"""A distance that is no larger is none: that of the dense network from itself."""
SCORED_AT_ONCE = 128
"""Samples at a time: activations of more leave the processor's caches, and a forward pass takes twice as long."""


def fidelity(scored: ScoredStructure) -> float:
    """Mean cosine, over samples, of the logits with the dense network's; without classes minus their relative distance.

    Not published as a pruning score. Needs the batch and recalibration batches; one forward pass beside the
    recalibration (the dense network's is shared). A sample whose logits are all 0 counts 0. The distance of outputs of
    other forms is that of `scoring.output_distance`.
    """
    found, dense = scored.forward_pass("fidelity"), scored.task.dense
    if not scored.task.has_logits:
        return -float(relative_distance(found.outputs, dense.outputs))
    return float(F.cosine_similarity(found.logits, dense.logits, dim=1).mean())


def adaptive_bn(scored: ScoredStructure) -> float:
    """Accuracy on the batch after recalibration, a fraction (Li et al., ECCV 2020, EagleEye).

    Needs the batch, labels and recalibration batches; one forward pass beside the recalibration.
    """
    labels = scored.task.need_labels("adaptive_bn")
    return float((scored.forward_pass("adaptive_bn").logits.argmax(1) == labels).double().mean())


def adaptive_loss(scored: ScoredStructure) -> float:
    """Minus the mean cross entropy on the batch after recalibration: adaptive-BN accuracy without its coarse steps.

    After Li et al., ECCV 2020 (EagleEye), who count right answers. Needs labels and recalibration batches; one forward
    pass beside the recalibration.
    """
    labels = scored.task.need_labels("adaptive_loss")
    return -float(F.cross_entropy(scored.forward_pass("adaptive_loss").logits, labels))


def logit_kl(scored: ScoredStructure) -> float:
    """Minus the mean Kullback-Leibler divergence from the dense network's class probabilities to the pruned one's.

    The loss of distillation at temperature 1 (Hinton et al., 2015), before any training. Needs recalibration batches;
    one forward pass beside the recalibration (the dense network's is shared).
    """
    ours = F.log_softmax(scored.forward_pass("logit_kl").logits, dim=1)
    dense = F.log_softmax(scored.task.dense.logits, dim=1)
    return -float(F.kl_div(ours, dense, reduction="batchmean", log_target=True))


def reconstruction(scored: ScoredStructure) -> float:
    """Minus the distance of the refitted network's outputs from the dense one's, on samples that were not fitted on.

    For logits (B, classes) the mean Kullback-Leibler divergence from the dense network's class probabilities; for other
    outputs their relative distance (`scoring.output_distance`). No labels. Not published as a score; the refit is that
    of `secateur.reconstruct` (after He et al., ICCV 2017). Needs samples to fit, others than those that are looked at;
    one refit and one forward pass.

    Raises:
        SecateurError: without samples to fit, or for outputs that are not finite.
    """
    network, task = scored.refitted("reconstruction"), scored.task
    with evaluating(network), torch.no_grad(), fast_precision(task.held_out_images, task.half):
        if task.has_logits:
            pieces = [run_on(network, piece) for piece in split_samples(task.held_out_images, SCORED_AT_ONCE)]
            ours, dense = (F.log_softmax(one.double(), dim=1) for one in (torch.cat(pieces), task.held_out_outputs))
            found = F.kl_div(ours, dense, reduction="batchmean", log_target=True)
        else:
            found = relative_distance(run_on(network, task.held_out_images), task.held_out_outputs)
    if not bool(found.isfinite()):
        raise SecateurError("the refitted network's outputs are not finite; the structure cannot be scored")
    return -float(found) if found > ROUNDING else 0.0
