"""Training for any task: equal to classification where it is one, exact to resume, with outputs of any form."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor, nn

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.sources import Split
from search.data.task import Task, right_answers
from search.space.allocations import GlobalThreshold
from search.space.budget import Budget
from search.space.space import Space
from search.training.choosing import Chooser
from search.training.double_pruning import sparsify
from search.training.engine import train
from search.training.flows import Flow, run_flow
from search.training.losses import gammas
from search.training.metrics import accuracy, measure
from search.training.recipe import Recipe
from tests.graphs import known_trace as trace
from tests.search.training.test_training import StopError, assert_same, digits, network, stop_at

__all__ = ["digits"]
FAST = Recipe(epochs=3, lr=0.02, batch_size=16)


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return F.mse_loss(outputs["sum"], targets["sum"]) + outputs["spread"].square().mean()


def error(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    return (outputs["sum"] - targets["sum"]).abs().flatten()


ERROR = Task(loss, error, name="error", direction="lower", unit="V")


class Sums(nn.Module):
    """A signal and a number by name; a dictionary out, with one output more in training."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1),
            nn.Conv1d(width, 12, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(12, 1)

    def forward(self, signal: Tensor, gain: Tensor) -> dict[str, Tensor]:
        hidden = self.body(signal).mean(2)
        outputs = {"sum": self.head(hidden) * gain}
        return {**outputs, "spread": outputs["sum"] * 0.1} if self.training else outputs


def sums(seed: int = 0, width: int = 8) -> Sums:
    torch.manual_seed(seed)
    return Sums(width)


def signals(task: Task = ERROR) -> Data:
    draw = torch.Generator().manual_seed(0)
    signal, gain = torch.randn(96, 1, 16, generator=draw), torch.rand(96, 1, generator=draw)
    inputs, targets = {"signal": signal, "gain": gain}, {"sum": signal.abs().mean(2) * gain}
    parts = [
        ({key: value[where] for key, value in inputs.items()}, {"sum": targets["sum"][where]})
        for where in (slice(0, 64), slice(64, 80), slice(80, 96))
    ]
    return Data.from_tensors("signals", parts[0], parts[2], validation=parts[1], task=task)


def test_classification_through_a_task_is_classification_bit_by_bit(digits: Data) -> None:
    recipe = Recipe(epochs=2, lr=0.05, batch_size=64, label_smoothing=0.1, ema=0.9, temperature=3.0, augment=Augment())
    own = Task(F.cross_entropy, right_answers, name="accuracy", direction="higher", unit="%", classes=True)
    parts = []
    for source in (digits.train, digits.validation, digits.test):
        assert isinstance(source, Split)
        parts.append((digits.normalise(source.images), source.labels))
    through = Data.from_tensors("digits", parts[0], parts[2], validation=parts[1], num_classes=10, task=own)
    whole, other, teacher = network(dropout=0.2), network(dropout=0.2), network(12, seed=1)
    expected = train(whole, digits, recipe, teacher=teacher)
    plain = Recipe(**{**{f: getattr(recipe, f) for f in Recipe.__dataclass_fields__}, "augment": None})
    history = train(other, through, plain, teacher=teacher)
    assert_same(whole, other)
    for name in ("lr", "loss", "train_accuracy", "validation_accuracy"):
        assert [getattr(one, name) for one in history.epochs] == [getattr(one, name) for one in expected.epochs]
    assert (history.start_accuracy, history.test_accuracy) == (expected.start_accuracy, expected.test_accuracy)
    assert accuracy(other, through) == measure(other, through) == accuracy(whole, digits)


def test_a_training_with_inputs_by_name_is_resumed_exactly(tmp_path: Path) -> None:
    data, teacher = signals(), sums(1, 12)
    whole, parted, fresh = sums(), sums(), sums(7)
    recipe = Recipe(epochs=3, lr=0.02, batch_size=16, ema=0.9, distill=0.3)
    expected = train(whole, data, recipe, teacher=teacher)
    with pytest.raises(StopError):
        train(parted, data, recipe, teacher=teacher, folder=tmp_path, after_epoch=stop_at(2))
    history = train(fresh, data, recipe, teacher=teacher, folder=tmp_path)
    assert_same(whole, fresh)
    assert [one.loss for one in history.epochs] == [one.loss for one in expected.epochs]
    assert history.test_accuracy == expected.test_accuracy == measure(fresh, data)
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header == "epoch,lr,loss,validation_error,seconds"
    assert train(sums(), data, recipe, teacher=teacher, folder=tmp_path) == history
    other = signals(Task(loss, error, name="error", direction="higher"))
    with pytest.raises(SecateurError, match="was made with another task"):
        train(sums(), other, recipe, teacher=teacher, folder=tmp_path)


def test_a_training_that_is_killed_is_resumed_exactly(tmp_path: Path) -> None:
    data, resumed, whole = signals(), sums(), sums()
    child = os.fork()
    if child == 0:  # no interpreter has to start for a process to be killed

        def after(model: nn.Module, done: int) -> None:
            if done == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        train(sums(), data, FAST, folder=tmp_path, after_epoch=after)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    train(resumed, data, FAST, folder=tmp_path)
    train(whole, data, FAST)
    assert_same(resumed, whole)


def test_a_teacher_gives_what_it_gives_in_training_where_that_differs() -> None:
    data, teacher = signals(), sums(1, 12)
    train(teacher, data, Recipe(epochs=20, lr=0.02, batch_size=16))
    learned, alone = sums(2), sums(2)
    only = Recipe(epochs=15, lr=0.02, batch_size=16, distill=1.0)
    history = train(learned, data, only, teacher=teacher)
    train(alone, data, Recipe(epochs=1, lr=1e-9, batch_size=16))
    assert measure(learned, data) < measure(alone, data)
    assert history.epochs[-1].loss < history.epochs[0].loss


def distance(outputs: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    return (outputs["sum"] - teacher["sum"]).abs().mean()


def test_a_distance_of_the_users_own_is_what_distillation_minimises() -> None:
    teacher, one = sums(1, 12), sums()
    own = signals(Task(loss, error, direction="lower", distance=distance))
    first = train(one, own, Recipe(epochs=1, lr=1e-9, batch_size=16, distill=1.0, recalibrate=0), teacher=teacher)
    assert (
        0
        < first.epochs[0].loss
        != train(
            sums(), signals(), Recipe(epochs=1, lr=1e-9, batch_size=16, distill=1.0, recalibrate=0), teacher=teacher
        )
        .epochs[0]
        .loss
    )


def test_metrics_of_torchmetrics_judge_a_training() -> None:
    class Error(torchmetrics.MeanAbsoluteError):
        def update(self, outputs: Any, targets: Any) -> None:
            super().update(outputs["sum"], targets["sum"])

    model, data = sums(), signals(Task(loss, Error(), name="error"))
    history = train(model, data, FAST)
    assert history.test_accuracy == pytest.approx(measure(model, signals()), rel=1e-5)
    assert history.metric.direction == "lower"


def test_flows_and_double_pruning_go_by_the_task() -> None:
    data, model = signals(), sums()
    train(model, data, FAST)
    graph = trace(model, data.example)
    [target] = Budget(macs=0.5).targets(graph.costs.dense)
    for name in ("iterative", "soft"):
        found = run_flow(Flow(name, 2), model, graph, data, FAST, Chooser(GlobalThreshold, Space("global")), target)
        measured = measure(found.model, data)  # soft pruning measured it before it cut zeros out
        assert found.histories[-1].test_accuracy == pytest.approx(measured, rel=1e-6)
    tuned = sparsify(found.model, data, FAST, 0.3)
    assert tuned.history.metric == ERROR.spec
    with pytest.raises(SecateurError, match="NetScore is of an accuracy, not of 'error'"):
        tuned.netscore(1e6)


def test_slimming_makes_scales_small_by_any_loss() -> None:
    plain, slim = sums(), sums()
    train(plain, signals(), FAST)
    train(slim, signals(), Recipe(epochs=3, lr=0.02, batch_size=16, slim=1.0))
    before, after = (gammas(model)["body.1"].abs().sum() for model in (plain, slim))
    assert after < 0.9 * before


BAD: dict[str, tuple[Task, Recipe, str]] = {
    "no gradient": (
        Task(lambda o, t: o["sum"].detach().mean(), error, direction="lower"), FAST, "a number without a gradient"
    ),
    "many numbers": (
        Task(lambda o, t: o["sum"].flatten(), error, direction="lower"), FAST, r"shape \(8,\); take its mean\(\)"
    ),
    "one number in a list": (
        Task(lambda o, t: loss(o, t)[None], error, direction="lower"), FAST, r"gave shape \(1,\); take its mean"
    ),
    "loss of nan": (
        Task(lambda o, t: loss(o, t) * math.nan, error, direction="lower"), FAST, "loss is nan on the first training"
    ),
    "no weight": (
        Task(lambda o, t: torch.ones((), requires_grad=True), error, direction="lower"), FAST, "reaches no weight"
    ),
    "raises": (Task(lambda o, t: o["nothing"], error, direction="lower"), FAST, "loss raised KeyError: 'nothing'"),
    "nan": (Task(loss, lambda o, t: math.nan, name="m", direction="lower"), FAST, "'m' is nan on the validation"),
    "smoothing": (ERROR, Recipe(batch_size=16, label_smoothing=0.1), "label_smoothing is of classification"),
    "temperature": (ERROR, Recipe(batch_size=16, temperature=4.0), "temperature is of classification"),
    "augment": (ERROR, Recipe(batch_size=16, augment=Augment(flip=True)), "augment is of images with classes"),
    "batch": (ERROR, Recipe(batch_size=65), "batch_size <= 64 training images must hold"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_fit_is_refused_before_anything_is_trained(kind: str) -> None:
    task, recipe, message = BAD[kind]
    model = sums()
    with pytest.raises(SecateurError, match=message):
        train(model, signals(task), recipe)
    assert_same(model, sums())


def test_a_network_for_other_inputs_is_refused() -> None:
    with pytest.raises(SecateurError, match=r"does not take inputs \(.* by name signal, gain\)"):
        train(network(), signals(), FAST)
    with pytest.raises(
        SecateurError, match="accuracy needs classes, but data 'signals' has a task with metric 'error'"
    ):
        accuracy(sums(), signals())
