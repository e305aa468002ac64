"""Learning from the dense network: its soft labels beside the true ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    weight: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - w) * cross entropy + w * T^2 * KL(teacher || student), both softened by T (Hinton et al., arXiv:1503.02531).

    The factor T^2 keeps the size of the gradients equal for every T.

    Args:
        logits: (N, K) of the network that learns.
        teacher_logits: (N, K), without gradient.
        labels: (N,) true classes.
        weight: w, 0 to 1.
        temperature: T > 0.
        label_smoothing: of the cross entropy.

    Returns:
        the mean over the batch.
    """
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    return (1 - weight) * hard + weight * soft
