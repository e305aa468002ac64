"""How a network is trained, as one value: what goes into a study file, a fingerprint and a table of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn, optim

from backbones.arguments import explains
from backbones.errors import SecateurError, did_you_mean
from backbones.modes import bfloat16_pays
from search.checks import check_range
from search.data.augment import Augment
from search.data.data import Data

Schedule = Callable[[float, float], float]


def _rise(position: float, warmup: float) -> float:
    """Linear from 0 to 1 over the warm-up."""
    return position / warmup


def _fall(position: float, warmup: float) -> float:
    """How much of the time after the warm-up has gone, 0 to 1."""
    return (position - warmup) / (1 - warmup) if warmup < 1 else 1.0


def cosine_decay(position: float, warmup: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, ICLR 2017) after a linear warm-up."""
    if position < warmup:
        return _rise(position, warmup)
    return 0.5 * (1 + math.cos(math.pi * _fall(position, warmup)))


def one_cycle(position: float, warmup: float) -> float:
    """A cosine from 1/25 up to 1 and one down to 0 (Smith and Topin, arXiv:1708.07120; two-phase form)."""
    if position < warmup:
        return 1 + (0.04 - 1) * 0.5 * (1 + math.cos(math.pi * _rise(position, warmup)))
    return 0.5 * (1 + math.cos(math.pi * _fall(position, warmup)))


def linear_decay(position: float, warmup: float) -> float:
    """A straight line down to 0 after a linear warm-up."""
    return _rise(position, warmup) if position < warmup else 1 - _fall(position, warmup)


def step_decay(position: float, warmup: float) -> float:
    """A tenth after half of the time, a hundredth after three quarters (He et al., CVPR 2016)."""
    if position < warmup:
        return _rise(position, warmup)
    return 1.0 if position < 0.5 else 0.1 if position < 0.75 else 0.01


def constant_rate(position: float, warmup: float) -> float:
    """Always 1 after a linear warm-up."""
    return _rise(position, warmup) if position < warmup else 1.0


# name -> (factor of the learning rate at a position 0..1 of the training, its own share of warm-up)
SCHEDULES: dict[str, tuple[Schedule, float]] = {
    "cosine": (cosine_decay, 0.05),
    "one-cycle": (one_cycle, 0.3),
    "linear": (linear_decay, 0.2),
    "step": (step_decay, 0.0),
    "constant": (constant_rate, 0.0),
}


def _sgd(groups: Any, recipe: Recipe) -> optim.Optimizer:
    return optim.SGD(groups, lr=recipe.highest_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _adamw(groups: Any, recipe: Recipe) -> optim.Optimizer:
    return optim.AdamW(groups, lr=recipe.highest_rate, betas=(recipe.momentum, 0.999))


OPTIMISERS: dict[str, Callable[[Any, Recipe], optim.Optimizer]] = {"sgd": _sgd, "adamw": _adamw}
RATES: dict[str, tuple[tuple[float, float], ...]] = {
    "sgd": ((5, 0.02), (20, 0.05), (math.inf, 0.1)),
    "adamw": ((math.inf, 0.002),),
}
"""Optimiser -> (epochs up to which, highest learning rate), the shortest first: what `lr = "auto"` stands for.

By accuracy on validation images of pruned networks from cut and from refitted weights (studies/README.md, "Rates by
length"): a rate that a long training comes down from ends a short one below where refitted weights began.
"""
MOST_STEPS, LARGEST_RATE = 10**7, 1e4
"""Whole numbers and rates of a recipe beyond which a slip is sure."""
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Recipe:
    """One training.

    Attributes:
        epochs: passes over the training split.
        lr: highest learning rate; "auto" goes by optimiser and epochs (`RATES`), for weights that work already. In
            a few epochs random weights learn faster at the rate of a long training (0.1 of SGD).
        batch_size: samples a step, over all processes together, where no loader decides; an incomplete last batch is
            left out.
        optimiser: a key of `OPTIMISERS`; "sgd" uses Nesterov momentum.
        momentum: momentum of SGD, or the first beta of AdamW.
        weight_decay: on every parameter, as in He et al. (CVPR 2016).
        schedule: a key of `SCHEDULES`.
        warmup: share of all steps in which the learning rate rises; the schedule's own when not given.
        label_smoothing: of the cross entropy: share of the target spread over all classes.
        distill: weight of the distance to the teacher's outputs against the task's loss, used only when a teacher is
            given.
        temperature: of tasks with classes: softens both distributions in distillation. 4 is usual for hundreds of
            epochs; in two epochs on 20,000 CIFAR-10 images (ResNet-20 at 33 % MACs, one seed) test accuracy was 82.2 %
            without a teacher, 82.0 % at 2 and 80.4 % at 4.
        ema: decay per step of a running average of the weights that is evaluated and kept instead; 0 for none.
        clip: highest norm of the gradient; 0 for no limit.
        precision: "float32", "bfloat16" (autocast; weights stay float32), or "auto": for classes of images bfloat16 on
            CUDA and, from 24 x 24 pixels on, on a CPU with bfloat16 instructions (a step of ResNet-20 takes half the
            time); for other tasks float32.
        channels_last: keep images and weights in that memory order while training, which is faster (on a CPU by a
            quarter in float32).
        compile: run the steps as code from `torch.compile`: true, false, or "auto": where there is a compiler and the
            training is long enough to earn the minutes of compiling back, and on one CUDA device as CUDA graphs
            (`search.training.compiling`). It changes rounding, not what is trained: trainings that differ in it alone
            count as the same.
        recalibrate: batches that renew the batch-norm statistics before anything is evaluated; 0 for none.
        augment: instead of the data's own.
        slim: lambda of the L1 penalty on batch-norm gammas (`search.training.losses`); 0 for none.
        slim_layers: batch-norm layer -> factor on lambda; layers not named have factor 1.
        seed: draws the order of images, augmentation and dropout.
    """

    epochs: int = 40
    lr: float | Literal["auto"] = "auto"
    batch_size: int = 128
    optimiser: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup: float | None = None
    label_smoothing: float = 0.0
    distill: float = 0.9
    temperature: float = 2.0
    ema: float = 0.0
    clip: float = 0.0
    precision: str = "auto"
    channels_last: bool = True
    compile: Literal["auto"] | bool = "auto"
    recalibrate: int = 20
    augment: Augment | None = None
    slim: float = 0.0
    slim_layers: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        _known("optimiser", self.optimiser, OPTIMISERS)
        _known("schedule", self.schedule, SCHEDULES)
        _known("precision", self.precision, PRECISIONS)
        if self.compile != "auto" and not isinstance(self.compile, bool):
            raise SecateurError(f"recipe: compile must be 'auto', True or False, but got compile={self.compile!r}")
        for name, low in (("epochs", 1), ("batch_size", 1), ("recalibrate", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise SecateurError(f"recipe: {name} must be a whole number >= {low}, but got {name}={value!r}")
            check_range(name, value, low, 2**63 - 1 if name == "seed" else MOST_STEPS, where="recipe")
        if isinstance(self.lr, str) and self.lr != "auto":
            raise SecateurError(f"recipe: lr must be a number or 'auto', but got lr={self.lr!r}")
        for name, value in (("lr", self.highest_rate), ("temperature", self.temperature)):
            check_range(name, value, 0, LARGEST_RATE, above=True, where="recipe")
        for name in ("weight_decay", "clip", "slim"):
            check_range(name, getattr(self, name), 0, LARGEST_RATE, where="recipe")
        check_range("distill", self.distill, 0, 1, where="recipe")
        for name in ("momentum", "label_smoothing", "ema", "warmup"):
            check_range(name, getattr(self, name), 0, 1, below=True, where="recipe")
        for layer, factor in self.slim_layers.items():
            check_range(f"slim_layers[{layer!r}]", factor, 0, where="recipe")

    @property
    def highest_rate(self) -> float:
        """The number that `lr` stands for."""
        return _usual_rate(self.optimiser, self.epochs) if self.lr == "auto" else self.lr

    def in_epochs(self, epochs: int) -> Recipe:
        """The same training in so many epochs; a rate that was given changes as "auto" does between the lengths."""
        if self.lr == "auto":
            return replace(self, epochs=epochs)
        change = _usual_rate(self.optimiser, epochs) / _usual_rate(self.optimiser, self.epochs)
        return replace(self, epochs=epochs, lr=min(self.lr * change, LARGEST_RATE))

    def rate(self, position: float) -> float:
        """The learning rate at a position 0..1 of the training."""
        schedule, own = SCHEDULES[self.schedule]
        return self.highest_rate * schedule(position, own if self.warmup is None else self.warmup)

    def build_optimiser(self, model: nn.Module) -> optim.Optimizer:
        """The optimiser over all parameters of `model` that want a gradient."""
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not wanted:
            raise SecateurError("no parameter of the network has requires_grad=True; there is nothing to train")
        return OPTIMISERS[self.optimiser]([{"params": wanted, "weight_decay": self.weight_decay}], self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, checkpoints and fingerprints: `lr` is a number, and there is no `compile`."""
        values = {**asdict(self), "lr": self.highest_rate, "slim_layers": dict(self.slim_layers)}
        del values["compile"]
        return values


def _usual_rate(optimiser: str, epochs: int) -> float:
    return next(rate for most, rate in RATES[optimiser] if epochs <= most)


def bfloat16(recipe: Recipe, data: Data, device: torch.device) -> bool:
    """Whether `recipe` means bfloat16 for this data on this device."""
    if recipe.precision == "auto" and not data.images:
        return False
    if recipe.precision != "auto" or device.type == "cuda":
        return recipe.precision != "float32"
    _, height, width = data.train.shape
    return bfloat16_pays(device, height, width)


def _known(name: str, value: str, choices: Iterable[str]) -> None:
    choices = list(choices)
    if value not in choices:
        hint = did_you_mean(value, choices) or f"known are {', '.join(choices)}"
        raise SecateurError(f"recipe: unknown {name} {value!r}; {hint}")
