"""Scores that compare a pruned network with the dense one, or classes with each other, after recalibration."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.errors import SecateurError
from scoring.alignment import kept_units
from scoring.codes import Agreement, watch
from scoring.naswot import log_det
from scoring.scoring_task import ScoredStructure


def naswot_balanced(scored: ScoredStructure) -> float:
    """Mean over layers of log|det(K_l / N_l)|: NASWOT without the reward for many units.

    Not published. Needs the batch and recalibration batches. One forward pass and one decomposition a layer, beside the
    recalibration. A layer with fewer regions than samples, a dead one above all, counts with lifted eigenvalues
    (`log_det`).
    """
    layers: list[Agreement] = []

    def add(preactivation: Tensor) -> None:
        layers.append(Agreement())
        layers[-1].add(preactivation)

    watch(scored.recalibrated("naswot_balanced"), scored.task.images, add)
    return sum(log_det(layer.kernel() / layer.units) for layer in layers) / len(layers)


def region_separation(scored: ScoredStructure) -> float:
    """Mean of K / N over pairs of one class minus its mean over pairs of two classes, last layer's codes.

    Not published. Needs the batch, labels and recalibration batches; one forward pass beside the recalibration. 0 when
    the last layer is dead.

    Raises:
        SecateurError: when the batch has no two samples of one class, or only one class.
    """
    labels = scored.task.need_labels("region_separation")
    labels = labels.cpu()
    agreement = scored.view("region_separation").agreement
    same = labels[:, None] == labels[None, :]
    other = ~same
    same = same & ~torch.eye(len(labels), dtype=torch.bool)
    if not bool(same.any()) or not bool(other.any()):
        raise SecateurError("region_separation needs a batch with several classes and two samples of at least one")
    return float(agreement[same].mean() - agreement[other].mean())


def region_kernel(scored: ScoredStructure) -> float:
    """Pearson correlation, over pairs of samples, of the last K / N with the dense network's.

    Not published. Needs the batch and recalibration batches; one forward pass beside the recalibration (the dense
    network's is shared). 0 when one of the two kernels is constant: a dead last layer, equal images.
    """
    rows, columns = torch.triu_indices(len(scored.task.batch), len(scored.task.batch), 1)
    ours = scored.view("region_kernel").agreement[rows, columns]
    dense = scored.task.dense.agreement[rows, columns]
    ours, dense = ours - ours.mean(), dense - dense.mean()
    scale = float(ours.norm() * dense.norm())
    return float(ours @ dense) / scale if scale > 0 else 0.0


def region_agreement(scored: ScoredStructure) -> float:
    """Share of the last layer's code bits that equal the dense network's: mean over samples and kept units of [s = s*].

    s are the codes of the recalibrated structure, s* those that the same units (channel and position) have in the dense
    network. Not published. Needs the batch and recalibration batches; one forward pass beside the recalibration (the
    dense network's is shared).

    Raises:
        SecateurError: when the last non-linearity's units cannot be mapped onto the dense network's.
    """
    ours, dense = scored.view("region_agreement").codes, scored.task.dense.codes
    kept = torch.as_tensor(kept_units(scored.task.graph, scored.structure, scored.task.units), device=dense.device)
    if len(kept) != dense.shape[1] or int(kept.sum()) != ours.shape[1]:
        raise SecateurError(
            f"region_agreement expects {int(kept.sum())} of {len(kept)} units in the last non-linearity, but found "
            f"{ours.shape[1]} of {dense.shape[1]}; score on images of the size that was traced"
        )
    return int((ours == dense[:, kept]).sum()) / ours.numel()


def fidelity(scored: ScoredStructure) -> float:
    """Mean cosine, over samples, of the logits with the dense network's.

    Not published as a pruning score. Needs the batch and recalibration batches; one forward pass beside the
    recalibration (the dense network's is shared). A sample whose logits are all 0 counts 0.
    """
    ours = scored.view("fidelity").logits
    return float(F.cosine_similarity(ours, scored.task.dense.logits, dim=1).mean())


def adaptive_bn(scored: ScoredStructure) -> float:
    """Accuracy on the batch after recalibration, a fraction (Li et al., ECCV 2020, EagleEye).

    Needs the batch, labels and recalibration batches; one forward pass beside the recalibration.
    """
    labels = scored.task.need_labels("adaptive_bn")
    return float((scored.view("adaptive_bn").logits.argmax(1) == labels).double().mean())
