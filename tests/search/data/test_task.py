"""Tasks, their metrics, and samples of any form."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from backbones.errors import SecateurError
from backbones.inputs import NamedInputs
from search.data.augment import Augment
from search.data.data import Data, subset
from search.data.task import ACCURACY, CLASSIFICATION, Meter, MetricSpec, Task


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().flatten()


ERROR = Task(mse_loss, error, name="mean error", direction="lower", unit="Hz")


def value(task: Task, batches: list[tuple[Any, Any]]) -> float:
    meter = Meter(task, torch.device("cpu"))
    for outputs, targets in batches:
        meter.update(outputs, targets, len(targets))
    return meter.value(lambda sums: sums, "test")


def test_a_function_is_averaged_over_samples_whatever_the_batches() -> None:
    outputs, targets = torch.randn(7, 1), torch.randn(7, 1)
    batches = [(outputs[:5], targets[:5]), (outputs[5:], targets[5:])]
    wanted = float((outputs - targets).abs().mean())
    assert value(ERROR, batches) == pytest.approx(wanted, rel=1e-6)
    mean = Task(mse_loss, lambda a, b: (a - b).abs().mean(), direction="lower", name="mean")
    assert value(mean, batches) == pytest.approx(wanted, rel=1e-6)
    number = Task(mse_loss, lambda a, b: float((a - b).abs().mean()), direction="lower", name="number")
    assert value(number, batches) == pytest.approx(wanted, rel=1e-6)


def test_metrics_of_torchmetrics_fit_and_say_their_direction() -> None:
    outputs, targets = torch.randn(9), torch.randn(9)
    own = torchmetrics.MeanAbsoluteError()
    task = Task(mse_loss, own)
    assert (task.name, task.direction) == ("MeanAbsoluteError", "lower")
    batches = [(outputs[:4], targets[:4]), (outputs[4:], targets[4:])]
    assert value(task, batches) == pytest.approx(float((outputs - targets).abs().mean()), rel=1e-6)
    assert value(task, batches) == pytest.approx(float((outputs - targets).abs().mean()), rel=1e-6)  # reset
    assert own.update_count == 0  # a copy was worked on
    logits, labels = torch.randn(20, 3), torch.randint(3, (20,))
    f1 = Task(
        torch.nn.functional.cross_entropy, torchmetrics.F1Score("multiclass", num_classes=3, average="macro"),
        classes=True,
    )  # fmt: skip
    wanted = torchmetrics.functional.f1_score(logits, labels, "multiclass", num_classes=3, average="macro")
    assert value(f1, [(logits[:7], labels[:7]), (logits[7:], labels[7:])]) == pytest.approx(float(wanted))
    with pytest.raises(
        SecateurError, match="'MeanAbsoluteError' says that lower is better, but got direction='higher'"
    ):
        Task(mse_loss, own, direction="higher")


BAD_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "no direction": ({"metric": error}, "direction of metric 'error' must be 'higher' or 'lower'"),
    "another direction": ({"metric": error, "direction": "up"}, "but got 'up'"),
    "a class": ({"metric": torchmetrics.MeanAbsoluteError}, r"must be an object, MeanAbsoluteError\(\), but got the"),
    "no metric": ({"metric": 3, "direction": "lower"}, "metric must be a function .* but got 3"),
    "no loss": ({"loss": "mse", "metric": error, "direction": "lower"}, "loss must be a function .* but got 'mse'"),
    "no name": ({"metric": error, "direction": "lower", "name": "%"}, "name needs a letter or digit, but got '%'"),
    "taken": ({"metric": error, "direction": "lower", "name": "score"}, "name 'score' is that of another column"),
}


@pytest.mark.parametrize("kind", BAD_TASKS)
def test_tasks_that_cannot_be_used(kind: str) -> None:
    parts, message = BAD_TASKS[kind]
    with pytest.raises(SecateurError, match=message):
        Task(**{"loss": mse_loss, **parts})


class Kept:
    """Forgets nothing when it is reset."""

    higher_is_better = False

    def __init__(self) -> None:
        self.all: list[float] = []

    def reset(self) -> None: ...

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.all += (outputs - targets).abs().tolist()

    def compute(self) -> np.float32:
        return np.float32(np.mean(self.all))


def test_a_metric_that_keeps_its_state_tells_splits_apart_all_the_same() -> None:
    task = Task(mse_loss, Kept(), name="kept")
    assert value(task, [(torch.ones(3), torch.zeros(3))]) == 1.0
    assert value(task, [(torch.ones(3), torch.ones(3))]) == 0.0
    assert task.metric.all == []


def test_a_metric_may_be_computed_by_numpy() -> None:
    task = Task(mse_loss, lambda a, b: (a - b).abs().numpy(), name="m", direction="lower")
    assert value(task, [(torch.ones(3), torch.zeros(3))]) == 1.0
    mean = Task(mse_loss, lambda a, b: (a - b).abs().numpy().mean(), name="m", direction="lower")
    assert value(mean, [(torch.ones(3), torch.zeros(3))]) == 1.0


class Locked(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Unwilling(Kept):
    def reset(self) -> None:
        raise RuntimeError("never")


class Broken:
    def __init__(self, found: Any) -> None:
        self.found = found

    def reset(self) -> None: ...

    def update(self, outputs: Tensor, targets: Tensor) -> None: ...

    def compute(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "nan": (lambda a, b: torch.full((4,), math.nan), "metric 'm' is nan on the test split"),
    "size": (lambda a, b: torch.zeros(3), r"must give one number, or 4 for 4 samples, but gave shape \(3,\)"),
    "text": (lambda a, b: "good", "must give one number, or 4 for 4 samples, but gave str"),
    "raises": (lambda a, b: a.nothing, "metric 'm' raised AttributeError: "),
    "object of nan": (Broken(torch.tensor(math.nan)), "metric 'm' is nan on the test split"),
    "object of many": (Broken(torch.zeros(2)), r"must compute one number, but gave shape \(2,\)"),
    "object of a dictionary": (Broken({"map": 1.0}), "must compute one number, but gave dict"),
    "object that cannot be copied": (Locked(), "metric 'm' raised TypeError: cannot pickle '_thread.lock' object"),
    "object that cannot be reset": (Unwilling(), "metric 'm' raised RuntimeError: never"),
    "object raises": (Broken(RuntimeError("no data")), "metric 'm' raised RuntimeError: no data"),
}


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_values_that_are_no_metric(kind: str) -> None:
    metric, message = BAD_VALUES[kind]
    with pytest.raises(SecateurError, match=message):
        value(Task(mse_loss, metric, name="m", direction="lower"), [(torch.zeros(4), torch.zeros(4))])


def test_a_metric_reads_as_its_unit_says() -> None:
    hertz = ERROR.spec
    assert (hertz.key, hertz.heading) == ("mean_error", "mean error, Hz")
    assert (hertz.text(0.25), hertz.text(None), hertz.change(0.5, 0.25)) == ("0.25 Hz", "-", "+0.25")
    assert hertz.worth(0.25) > hertz.worth(0.5)
    assert (ACCURACY.text(0.973), ACCURACY.compact(0.973), ACCURACY.change(0.5, 0.25)) == ("97.3 %", "97.3%", "+25.0")
    assert CLASSIFICATION.spec == ACCURACY == MetricSpec()


class Signals(Dataset[Any]):
    """Number i is (i, i); with noise of all three kinds where asked for."""

    def __init__(self, count: int, noisy: bool = False) -> None:
        self.count, self.noisy = count, noisy

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        noise = float(torch.rand(())) + np.random.rand() if self.noisy else 0.0  # noqa: NPY002
        return {"signal": torch.full((1, 8), number + noise), "gain": torch.ones(1)}, {"level": torch.tensor([number])}


def test_samples_of_a_dataset_are_read_anew_and_follow_the_seed() -> None:
    data = Data.from_datasets("s", Signals(12, noisy=True), Signals(4), validation=0.25, task=ERROR)
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 3, 4)
    (inputs, targets), (again, _) = data.batch(5, 3), data.batch(5, 3)
    assert isinstance(inputs, NamedInputs)
    assert inputs.named["signal"].shape == (5, 1, 8)
    assert torch.equal(inputs.named["signal"], again.named["signal"])
    noise = inputs.named["signal"][:, 0, 0] - targets["level"].flatten()
    assert bool(((noise > 0) & (noise < 2)).all())
    same = Data.from_datasets("s", Signals(12, noisy=True), Signals(4), validation=0.25, task=ERROR)
    assert data.fingerprint == same.fingerprint
    assert data.example.named["gain"].shape == (1, 1)
    assert len(subset(data, 4, 0).train) == 4


def test_the_same_samples_are_the_same_data_and_another_task_another() -> None:
    pair = (torch.randn(10, 1, 8), torch.randn(10, 1))
    one, same = (Data.from_tensors("t", pair, pair, task=ERROR) for _ in range(2))
    other = Data.from_tensors("t", pair, pair, task=Task(mse_loss, error, name="mean error", direction="higher"))
    assert one.fingerprint == same.fingerprint
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint.partition(" ")[0] == other.fingerprint.partition(" ")[0]


def test_loaders_are_read_as_they_are() -> None:
    loader = DataLoader(Signals(10), 4)
    data = Data.from_datasets("s", loader, loader, validation=loader, task=ERROR)
    inputs, targets = data.batch(6)
    assert inputs.named["signal"].shape == (6, 1, 8)
    assert targets["level"].shape == (6, 1)
    assert [len(targets["level"]) for _, targets in data.batches("test")] == [4, 4, 2]


class Odd(Signals):
    def __getitem__(self, number: int) -> Any:
        return torch.zeros(1, 8 + number), torch.zeros(1)


PAIR = (torch.randn(10, 1, 8), torch.randn(10, 1))
BAD_DATA: dict[str, tuple[Any, str]] = {
    "lengths": (lambda: Data.from_tensors("d", (PAIR[0], PAIR[1][:4]), PAIR, task=ERROR), r"lengths \[4, 10\]"),
    "no pair": (lambda: Data.from_tensors("d", PAIR[0], PAIR, task=ERROR), "train must be a pair"),  # type: ignore[arg-type]
    "text": (lambda: Data.from_tensors("d", (["a"], PAIR[1]), PAIR, task=ERROR), "one entry a sample, but got str"),
    "classes": (lambda: Data.from_tensors("d", PAIR, PAIR, num_classes=3, task=ERROR), "num_classes and classes are"),
    "augment": (lambda: Data.from_tensors("d", PAIR, PAIR, augment=Augment(flip=True), task=ERROR), "are of images"),
    "mean": (lambda: Data.from_tensors("d", PAIR, PAIR, mean=(0.0,), std=(1.0,), task=ERROR), "are of images"),
    "unequal": (
        lambda: Data.from_datasets("d", Odd(8), Odd(8), task=ERROR).batch(3),
        r"data 'd': train: samples \d to \d cannot be put into one batch .* make them equal, or give `collate`",
    ),
    "unequal in a loader": (
        lambda: Data.from_datasets("d", *[DataLoader(Odd(8), 4)] * 2, validation=DataLoader(Odd(8), 4), task=ERROR),
        r"the loader cannot make a batch \(stack expects .*\); make its samples equal, or give it a collate_fn",
    ),
    "empty": (lambda: Data.from_datasets("d", Signals(4), Signals(0), task=ERROR), "the test split is empty"),
    "empty loader": (
        lambda: Data.from_datasets("d", Signals(4), Signals(4), validation=DataLoader(Signals(0)), task=ERROR),
        "the loader yields no batch",
    ),
    "other inputs": (
        lambda: Data.from_datasets("d", Signals(4), Odd(4), task=ERROR),
        "test inputs are float32 of 3 dimensions, training inputs .*, by name signal, gain",
    ),
    "no dataset": (lambda: Data.from_datasets("d", 3, Signals(4), task=ERROR), "must be a Dataset with"),  # type: ignore
    "fraction of a loader": (
        lambda: Data.from_datasets("d", DataLoader(Signals(4)), Signals(4), task=ERROR), "need validation=<DataLoader>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_cannot_be_used(kind: str) -> None:
    make, message = BAD_DATA[kind]
    with pytest.raises(SecateurError, match=message):
        make()
