"""What a network is for: the loss it learns by, the metric it is judged by, and how the metric reads."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.errors import SecateurError, one_line
from search.formatting import percent, points, significant

Loss = Callable[[Any, Any], Tensor]
MetricDirection = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """How a metric reads: its name, which way is better, its unit. Plain values, so that fronts and files keep it.

    Attributes:
        name: as it stands on axes and above columns, "IoU".
        direction: "higher" where higher is better, "lower" where lower is.
        unit: "%" for a fraction that is shown as a percentage, else what stands behind the number, "Hz"; may be empty.
    """

    name: str = "accuracy"
    direction: MetricDirection = "higher"
    unit: str = "%"

    @property
    def key(self) -> str:
        """The name in small letters and underscores, for columns of files: `mean_absolute_error`."""
        return re.sub(r"\W+", "_", self.name).strip("_").lower()

    @property
    def heading(self) -> str:
        """The name for an axis, with the unit where it is not percent."""
        return f"{self.name}, {self.unit}" if self.unit not in ("", "%") else self.name

    def worth(self, value: float) -> float:
        """A number that is higher for a better value."""
        return value if self.direction == "higher" else -value

    def text(self, value: float | None, digits: int = 1) -> str:
        """A value with its unit: 97.3 %, or 0.0213 Hz in `digits` + 2 significant digits; a dash for None."""
        if value is None or self.unit == "%":
            return percent(value, digits)
        return f"{significant(value, digits + 2)} {self.unit}".rstrip()

    def compact(self, value: float) -> str:
        """A value for a progress bar: 97.3%, or as `text`."""
        return f"{value:.1%}" if self.unit == "%" else self.text(value)

    def change(self, value: float, dense: float, digits: int = 1) -> str:
        """What was gained or lost, with a sign: in percentage points, or in the metric's unit."""
        if self.unit == "%":
            return f"{100 * (value - dense):+.{digits}f}"
        return f"{value - dense:+.{digits + 2}g}"

    def difference(self, value: float | None, digits: int = 1) -> str:
        """A difference of two values without sign or unit: in percentage points, or a number; a dash for None, NaN."""
        if value is None or self.unit == "%":
            return points(value, digits)
        return significant(None if math.isnan(value) else value, digits + 2)

    @property
    def ticks(self) -> tuple[str, str]:
        """Number formats of an axis and of a tooltip, as d3-format writes them."""
        return (".1%", ".2%") if self.unit == "%" else (".4~g", ".5~g")


ACCURACY = MetricSpec()
TAKEN = frozenset(
    ("study", "trial", "structure", "status", "macs", "params", "latency", "memory", "batch_seconds", "single_seconds",
     "latency_limit", "over_latency", "disk_bytes", "score", "seconds", "reason", "artefact", "removed", "training",
     "epochs", "epoch", "start", "network")
)  # fmt: skip
"""Columns of tables that a metric cannot be called."""


@dataclass(frozen=True, eq=False)
class Task:
    """What a network is trained for and judged by. Classification (`CLASSIFICATION`) is the task unless one is given.

    Attributes:
        loss: function of (outputs, targets) that gives one number with a gradient. Outputs are what the network returns
            in training mode (a tensor, list, dictionary or dataclass), targets those of a batch, on its device.
        metric: what a network is judged by. Either a function of (outputs, targets) that gives one number a sample
            (B,), or the mean over the batch: it is averaged over all samples of a split. Or an object with
            `update(outputs, targets)`, `compute()` and `reset()`, such as those of torchmetrics: `compute` gives one
            number for the whole split. Outputs are those in evaluation mode.
        name: what the metric is called; by default as its function or class.
        direction: "higher" where higher values are better, "lower" where lower ones are; never guessed, but read from a
            metric that says so itself (`higher_is_better` of torchmetrics).
        unit: "%" for a fraction that is shown as a percentage, else what stands behind the number.
        distance: function of (outputs, outputs of the teacher), both in training mode, that distillation minimises; by
            default the softened Kullback-Leibler divergence where there are classes, else the relative distance
            (`scoring.output_distance`).
        classes: the outputs are logits (B, classes), the targets (B,) numbers of classes. Scores, criteria and options
            that need classes are refused without.

    Raises:
        SecateurError: for a loss or metric of another form, or a direction that is missing or contradicts the metric.
    """

    loss: Loss
    metric: Any
    _: KW_ONLY
    name: str = ""
    direction: str = ""
    unit: str = ""
    distance: Loss | None = None
    classes: bool = False

    def __post_init__(self) -> None:
        for part in ("loss", "distance"):
            value = getattr(self, part)
            if (value is not None or part == "loss") and (not callable(value) or isinstance(value, type)):
                raise SecateurError(f"task: {part} must be a function of two arguments, but got {value!r}")
        if isinstance(self.metric, type):
            raise SecateurError(f"task: metric must be an object, {self.metric.__name__}(), but got the class")
        if not self.is_object and not callable(self.metric):
            raise SecateurError(
                "task: metric must be a function of (outputs, targets), or have update, compute and reset, but got "
                f"{self.metric!r}"
            )
        named = self.name or getattr(self.metric, "__name__", "") or type(self.metric).__name__
        object.__setattr__(self, "name", named)
        if not self.spec.key:
            raise SecateurError(f"task: name needs a letter or digit, but got {self.name!r}")
        if self.spec.key in TAKEN:
            raise SecateurError(f"task: name {self.name!r} is that of another column of the tables; give another name")
        object.__setattr__(self, "direction", self._direction())

    def _direction(self) -> str:
        higher = getattr(self.metric, "higher_is_better", None)
        own = {True: "higher", False: "lower"}.get(higher, "") if isinstance(higher, bool) else ""
        given = self.direction or own
        if given not in ("higher", "lower"):
            raise SecateurError(
                f"task: direction of metric {self.name!r} must be 'higher' or 'lower' (which values are better), but "
                f"got {self.direction!r}"
            )
        if own and given != own:
            raise SecateurError(f"task: metric {self.name!r} says that {own} is better, but got direction={given!r}")
        return given

    @property
    def is_object(self) -> bool:
        """Whether the metric has a state of its own: update, compute and reset."""
        return all(callable(getattr(self.metric, name, None)) for name in ("update", "compute", "reset"))

    @property
    def spec(self) -> MetricSpec:
        """How the metric reads."""
        return MetricSpec(self.name, cast("MetricDirection", self.direction), self.unit)

    @property
    def key(self) -> str:
        """Tells one task from another in files: names of loss, metric and distance; empty for classification."""
        if self is CLASSIFICATION:
            return ""
        parts = (self.loss, self.metric, self.distance)
        return " ".join([self.name, self.direction, self.unit, *map(_called, parts), "classes" * self.classes])


def _called(part: Any) -> str:
    """Module and name of a function, or what an object prints as; without addresses, which change."""
    if part is None:
        return "-"
    own = getattr(part, "__qualname__", None)
    named = f"{part.__module__}.{own}" if own else f"{type(part).__module__}.{part!r}"
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(named.split()))


def right_answers(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) whether the highest of the logits (B, classes) is that of the label (B,)."""
    return logits.argmax(1) == labels


CLASSIFICATION = Task(F.cross_entropy, right_answers, name="accuracy", direction="higher", unit="%", classes=True)
"""Cross entropy, and the share of right answers."""


class Meter:
    """Takes in the batches of one split, and then tells the metric.

    Args:
        task: whose metric.
        device: where the batches are.

    Attributes:
        shares: processes may share the batches out; else each one looks at all of them.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.shares = task, not task.is_object
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)  # of the values, and samples
        self._state: Any = None
        if task.is_object:
            with _Naming(task.name):
                self._state = copy.deepcopy(task.metric)  # the user's own stays as it is
                self._state.reset()
                if hasattr(self._state, "to"):
                    self._state.to(device)
                if hasattr(self._state, "sync_on_compute"):
                    self._state.sync_on_compute = False  # every process looks at all batches

    def update(self, outputs: Any, targets: Any, count: int) -> None:
        """Takes in one batch of `count` samples.

        Raises:
            SecateurError: when the metric fails, or gives something of another size.
        """
        with _Naming(self.task.name):
            if self._state is not None:
                self._state.update(outputs, targets)
                return
            self._sums[0] += batch_sum(self.task, outputs, targets, count).to(self._sums.device)
            self._sums[1] += count

    def value(self, together: Callable[[Tensor], Tensor], split: str) -> float:
        """The metric over all batches.

        Args:
            together: adds up over the processes that share the work.
            split: what was looked at, for messages.

        Raises:
            SecateurError: when the metric fails, or is not one finite number.
        """
        if self._state is None:
            total, count = together(self._sums).tolist()
            return self._finite(total / count if count else math.nan, split)
        with _Naming(self.task.name):
            found = self._state.compute()
        if isinstance(found, Tensor | np.ndarray | np.generic) and math.prod(found.shape) == 1:
            found = found.item()
        if isinstance(found, bool) or not isinstance(found, int | float):
            shape = getattr(found, "shape", None)
            what = f"{type(found).__name__} {found!r}" if shape is None else f"shape {tuple(shape)}"
            raise SecateurError(
                f"metric {self.task.name!r} must compute one number, but gave {one_line(Exception(what), 100)}"
            )
        return self._finite(float(found), split)

    def _finite(self, value: float, split: str) -> float:
        if not math.isfinite(value):
            raise SecateurError(
                f"metric {self.task.name!r} is {value} on the {split} split; it must be a finite number for every "
                "network, an untrained one too"
            )
        return value


def batch_sum(task: Task, outputs: Any, targets: Any, count: int) -> Tensor:
    """Sum over the samples of a batch of a metric that is a function, float64, still on its device.

    Raises:
        SecateurError: when it gives something else than one number or one a sample.
    """
    found = task.metric(outputs, targets)
    numbers = isinstance(found, Tensor | np.ndarray | np.generic | int | float)
    values = torch.as_tensor(found) if numbers else None
    if values is None or values.shape not in ((), (count,)):
        what = f"shape {tuple(values.shape)}" if values is not None else type(found).__name__
        raise SecateurError(
            f"metric {task.name!r} must give one number, or {count} for {count} samples, but gave {what}"
        )
    values = values.detach().double()
    return values.sum() if values.ndim else values * count


class _Naming:
    """Says of what goes wrong inside the block that it went wrong in a metric."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, SecateurError):
            raise SecateurError(f"metric {self.name!r} raised {type(error).__name__}: {one_line(error)}") from error
