"""The state of a training after each epoch, on disk: its curve, and what must be equal before it may be continued."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.files import atomic_write, write_text
from backbones.fingerprint import tensor_bytes
from backbones.surgery import cuts_of
from search.data.data import Data
from search.data.task import ACCURACY, MetricSpec
from search.formatting import csv_table
from search.training.recipe import Recipe

_FORMAT = 1
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        epoch: its number, from 1.
        lr: learning rate at its end.
        loss: mean over the training samples, all parts of the loss included except the slimming penalty.
        train_accuracy: fraction, on augmented images, while learning; None without classes.
        validation_accuracy: the metric of the task (accuracy, with classes) after the epoch (of the averaged weights
            where there are).
        seconds: training and evaluation.
    """

    epoch: int
    lr: float
    loss: float
    train_accuracy: float | None
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class History:
    """What a training did.

    Attributes:
        epochs: a row per epoch, in order.
        start_accuracy: the metric of the task (accuracy, with classes) on the validation split before the first step,
            batch-norm statistics renewed.
        test_accuracy: the same on the test split with the weights of the last epoch; the split is looked at only for
            this. None until then.
        metric: what the metric is.
    """

    epochs: tuple[Epoch, ...]
    start_accuracy: float
    test_accuracy: float | None = None
    metric: MetricSpec = ACCURACY

    @property
    def validation_accuracy(self) -> float:
        """The metric on the validation split after the last epoch, not the best one: to choose would overstate it."""
        return self.epochs[-1].validation_accuracy

    @property
    def seconds(self) -> float:
        """Time of all epochs together, interruptions not counted."""
        return sum(epoch.seconds for epoch in self.epochs)

    def to_csv(self) -> str:
        """A header and a row per epoch; columns are named after the metric, `validation_iou`."""
        names = {entry.name: entry.name.replace("accuracy", self.metric.key) for entry in fields(Epoch)}
        rows = [{names[key]: value for key, value in asdict(one).items() if value is not None} for one in self.epochs]
        return csv_table(rows, list(names.values()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_csv` to `path` in one step."""
        write_text(path, self.to_csv())

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` reads them back."""
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "start_accuracy": self.start_accuracy,
            "test_accuracy": self.test_accuracy,
            "metric": asdict(self.metric),
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> History:
        """Reads what `to_dict` wrote."""
        epochs = tuple(Epoch(**row) for row in record["epochs"])
        metric = MetricSpec(**record.get("metric", {}))  # which older versions did not write
        return History(epochs, record["start_accuracy"], record["test_accuracy"], metric)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """12 hex digits over names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:12]


def training_identity(
    model: nn.Module, data: Data, recipe: Recipe, teacher: nn.Module | None, masks: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    """What makes two trainings the same one, part by part.

    The structure is the network as it prints with the shapes of its tensors, and, of a pruned network, the kept
    channels: two structures of equal widths are still different networks.
    """
    kept = "".join(cut.structure.id for cut in cuts_of(model))
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    printed = re.sub(r" at 0x[0-9a-f]+", "", str(model))  # addresses differ from process to process
    text = repr((printed, shapes, kept))
    return {
        "format": _FORMAT,
        "structure": hashlib.sha256(text.encode()).hexdigest()[:12],
        "recipe": recipe.to_dict(),
        "data": data.fingerprint + repr(data.augment),
        "teacher": weights_digest(teacher.state_dict()) if teacher is not None and recipe.distill > 0 else "",
        "masks": weights_digest(masks) if masks else "",
    }


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replaces the checkpoint in `folder` in one step: a kill leaves the one before."""
    with atomic_write(folder / CHECKPOINT) as part:
        torch.save(state, part)


def read_checkpoint(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint in `folder`, None when there is none.

    Args:
        folder: the folder that was given to `train`.
        wanted: the `training_identity` of the training that wants to go on.

    Raises:
        SecateurError: when the file cannot be read, or belongs to another training; says what differs.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["identity"]
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise SecateurError(f"{path} is not a training checkpoint ({reason}); remove it to start again") from None
    for part, value in wanted.items():
        if found.get(part) != value:
            raise SecateurError(
                f"{path} was made with {_difference(part, found.get(part), value)}; "
                "give the same again or another folder"
            )
    return dict(state)


def _difference(part: str, found: Any, wanted: Any) -> str:
    if part == "recipe" and isinstance(found, dict):
        for name, value in wanted.items():
            if found.get(name) != value:
                return f"{name}={found.get(name)!r} in the recipe, not {value!r}"
    if part == "arithmetic":
        return f"{found} arithmetic, not {wanted}"
    what = {
        "structure": "another structure (widths, layers or kept channels)",
        "teacher": "another teacher",
        "after_epoch": "another flow",
    }
    if part == "data" and found.partition(" ")[0] == wanted.partition(" ")[0]:
        return "another task (loss, metric or distance)"
    return what.get(part, f"other {part}")
