"""What training minimises beside the cross entropy: the teacher's soft labels, and the scales of batch norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import SecateurError
from scoring.batch_norm import BatchNorm


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
        label_smoothing: share of the target of the cross entropy that is spread over all classes.

    Returns:
        the mean over the batch.
    """
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    return (1 - weight) * hard + weight * soft


def gammas(model: nn.Module) -> dict[str, Tensor]:
    """Batch-norm layer -> its scale (C,), the parameter itself, in the order of the modules."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, BatchNorm) and module.affine:
            found[name] = module.weight
    return found


def l1_subgradient(model: nn.Module, strength: float, factors: Mapping[str, float]) -> Callable[[], None]:
    """A step, run between `backward` and the optimiser, that adds lambda * factor * sign(gamma) to the gradients.

    The subgradient of the L1 norm in place of a term in the loss: nothing is built for autograd, and gamma = 0 stays
    where it is (sign 0).

    Args:
        model: with batch norm.
        strength: the global lambda, 1e-5 to 1e-4 in the paper.
        factors: layer -> factor on lambda; 1 for layers not named, 0 to spare one.

    Returns:
        the step; it reads the parameters of `model` as they are when it is called.

    Raises:
        SecateurError: when there is no batch norm with a scale, or `factors` names another layer.
    """
    found = gammas(model)
    if not found:
        raise SecateurError("slimming needs batch-norm layers with a scale; the network has none")
    unknown = sorted(set(factors) - set(found))
    if unknown:
        raise SecateurError(f"slim_layers names {unknown[0]!r}; the batch-norm layers are {', '.join(found)}")
    weights = [gamma for gamma in found.values() if gamma.requires_grad]
    strengths = [strength * factors.get(name, 1.0) for name, gamma in found.items() if gamma.requires_grad]

    def add() -> None:
        with torch.no_grad():
            for gamma, amount in zip(weights, strengths, strict=True):
                if gamma.grad is not None:
                    gamma.grad.add_(torch.sign(gamma), alpha=amount)

    return add
