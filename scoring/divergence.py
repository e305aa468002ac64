"""Scores by losses of the recalibrated network: against the labels, and against the dense network's distribution."""

from __future__ import annotations

import torch.nn.functional as F

from scoring.scoring_task import ScoredStructure


def adaptive_loss(scored: ScoredStructure) -> float:
    """Minus the mean cross entropy on the batch after recalibration: adaptive-BN accuracy without its coarse steps.

    After Li et al., ECCV 2020 (EagleEye), who count right answers. Needs labels and recalibration batches; one forward
    pass beside the recalibration.
    """
    labels = scored.task.need_labels("adaptive_loss")
    return -float(F.cross_entropy(scored.view("adaptive_loss").logits, labels))


def logit_kl(scored: ScoredStructure) -> float:
    """Minus the mean Kullback-Leibler divergence from the dense network's class probabilities to the pruned one's.

    The loss of distillation at temperature 1 (Hinton et al., 2015), before any training. Needs recalibration batches;
    one forward pass beside the recalibration (the dense network's is shared).
    """
    ours = F.log_softmax(scored.view("logit_kl").logits, dim=1)
    dense = F.log_softmax(scored.task.dense.logits, dim=1)
    return -float(F.kl_div(ours, dense, reduction="batchmean", log_target=True))
