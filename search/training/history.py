"""The curve of one training: a row per epoch, as values and as CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from backbones.files import write_text


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        epoch: from 1.
        lr: learning rate at its end.
        loss: mean over its images, all parts of the loss included except the slimming penalty.
        train_accuracy: fraction, on augmented images, while learning.
        validation_accuracy: fraction, after the epoch (of the averaged weights where there are).
        seconds: training and evaluation.
    """

    epoch: int
    lr: float
    loss: float
    train_accuracy: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class History:
    """What a training did.

    Attributes:
        epochs: in order.
        start_accuracy: validation accuracy before the first step, batch-norm statistics renewed.
        test_accuracy: of the last epoch's weights; the test split is looked at only for this.
    """

    epochs: tuple[Epoch, ...]
    start_accuracy: float
    test_accuracy: float | None = None

    @property
    def validation_accuracy(self) -> float:
        """Of the last epoch, not of the best: choosing an epoch would overstate it."""
        return self.epochs[-1].validation_accuracy

    @property
    def seconds(self) -> float:
        """Over all epochs, interruptions not counted."""
        return sum(epoch.seconds for epoch in self.epochs)

    def to_csv(self) -> str:
        """A header and a row per epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [entry.name for entry in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in self.epochs)
        return text.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_csv` to `path` in one step."""
        write_text(path, self.to_csv())

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` reads them back."""
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "start_accuracy": self.start_accuracy,
            "test_accuracy": self.test_accuracy,
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> History:
        """Reads what `to_dict` wrote."""
        epochs = tuple(Epoch(**row) for row in record["epochs"])
        return History(epochs, record["start_accuracy"], record["test_accuracy"])
