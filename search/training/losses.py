"""What training minimises: the loss of the task, the distance to a teacher, and the scales of batch norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.errors import SecateurError
from scoring.batch_norm import BatchNorm
from scoring.output_distance import relative_distance
from search.data.data import Data
from search.data.task import Loss
from search.training.recipe import Recipe


def check_options(data: Data, recipe: Recipe) -> None:
    """Raises SecateurError for an option of a recipe that means nothing for the task of `data`."""
    task, plain = data.task, Recipe()
    of_classes = {
        "label_smoothing": bool(recipe.label_smoothing) and task.loss is not F.cross_entropy,
        "temperature": recipe.temperature != plain.temperature and (not task.classes or task.distance is not None),
    }
    for name, wrong in of_classes.items():
        if wrong:
            value, own = getattr(recipe, name), "loss" if name == "label_smoothing" else "distance"
            raise SecateurError(
                f"recipe: {name} is of classification, but the task has a {own} of its own (metric {task.name!r}) and "
                f"{name}={value!r}; leave it out"
            )
    if recipe.augment is not None and not data.images:
        raise SecateurError(
            f"recipe: augment is of images with classes, but data {data.name!r} has samples of another form; let the "
            "dataset augment them"
        )


def training_loss(data: Data, recipe: Recipe) -> Loss:
    """The loss of (outputs, targets): that of the task, with the recipe's label smoothing where it is cross entropy."""
    if recipe.label_smoothing:
        return partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)
    return data.task.loss


def teacher_distance(data: Data, recipe: Recipe) -> Loss:
    """The distance of (outputs, outputs of the teacher) that distillation minimises."""
    task = data.task
    if task.distance is not None:
        return task.distance
    return partial(soft_divergence, temperature=recipe.temperature) if task.classes else relative_distance


def soft_divergence(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student), both softened by T (Hinton et al., arXiv:1503.02531), the mean over the batch.

    The factor T^2 keeps the size of the gradients equal for every T.

    Args:
        logits: (N, K) of the network that learns.
        teacher_logits: (N, K), without gradient.
        temperature: T > 0.
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


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
