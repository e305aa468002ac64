"""Scores by the linear-region codes of the recalibrated network: alone, by class, and beside the dense network's."""

from __future__ import annotations

import torch
from torch import Tensor

from backbones.errors import SecateurError
from backbones.inputs import sample_count
from scoring.codes import CodeAgreement, watch_preactivations
from scoring.naswot import log_det
from scoring.scoring_task import ScoredStructure


def naswot_balanced(scored: ScoredStructure) -> float:
    """Mean over layers of log|det(K_l / N_l)|: NASWOT without the reward for many units.

    Not published. Needs the batch and recalibration batches. One forward pass and one decomposition a layer, beside the
    recalibration. A layer with fewer regions than samples, a dead one above all, counts with lifted eigenvalues
    (`log_det`).
    """
    layers: list[CodeAgreement] = []

    def add(preactivation: Tensor) -> None:
        layers.append(CodeAgreement())
        layers[-1].add(preactivation)

    watch_preactivations(scored.recalibrated("naswot_balanced"), scored.task.images, add)
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
    agreement = scored.forward_pass("region_separation").agreement
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
    count = sample_count(scored.task.batch)
    rows, columns = torch.triu_indices(count, count, 1)
    ours = scored.forward_pass("region_kernel").agreement[rows, columns]
    dense = scored.task.dense.agreement[rows, columns]
    ours, dense = ours - ours.mean(), dense - dense.mean()
    scale = float(ours.norm() * dense.norm())
    return float(ours @ dense) / scale if scale > 0 else 0.0
