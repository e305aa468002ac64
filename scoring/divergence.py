"""Scores by losses of the recalibrated network: against the labels, and against the dense network's distribution."""

from __future__ import annotations

import torch.nn.functional as F

from scoring.subject import Subject


def adaptive_loss(subject: Subject) -> float:
    """Minus the mean cross entropy on the batch after recalibration: adaptive-BN accuracy without its coarse steps.

    After Li et al., ECCV 2020 (EagleEye), who count right answers. Needs labels and recalibration batches; one forward
    pass beside the recalibration.
    """
    labels = subject.task.need_labels("adaptive_loss")
    return -float(F.cross_entropy(subject.view("adaptive_loss").logits, labels))


def logit_kl(subject: Subject) -> float:
    """Minus the mean Kullback-Leibler divergence from the dense network's class probabilities to the pruned one's.

    The loss of distillation at temperature 1 (Hinton et al., 2015), before any training. Needs recalibration batches;
    one forward pass beside the recalibration (the dense network's is shared).
    """
    ours = F.log_softmax(subject.view("logit_kl").logits, dim=1)
    dense = F.log_softmax(subject.task.dense.logits, dim=1)
    return -float(F.kl_div(ours, dense, reduction="batchmean", log_target=True))
