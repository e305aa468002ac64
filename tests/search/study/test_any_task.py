"""Studies of tasks of every form: outputs in dataclasses, targets of any tree, streams, any number of dimensions."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset, IterableDataset

from backbones.errors import SecateurError
from backbones.exports import export_program
from backbones.masked_reference import relative_difference
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.scorers import scorer_of
from scoring.scoring_task import ScoredStructure
from search.data.data import Data
from search.data.task import Task
from search.space.budget import Budget
from search.study.study import Study
from search.training.engine import train
from search.training.metrics import measure
from search.training.recipe import Recipe
from tests.graphs import known_trace as trace

FAST = Recipe(epochs=1, batch_size=16, lr=0.02)


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().flatten()


ERROR = Task(mse_loss, error, name="error", direction="lower", unit="V")


@dataclass(frozen=True)
class Found:
    """What `Levels` returns."""

    level: Tensor
    extras: tuple[dict[str, Tensor], ...] = ()
    note: str = "nothing to add"
    none: None = None


class Levels(nn.Module):
    """A dataclass out, with another entry in training."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 8), (8, 12), (12, 12))
        layers = [nn.Sequential(nn.Conv1d(i, o, 3, padding=1), nn.BatchNorm1d(o), nn.ReLU()) for i, o in sizes]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(12, 1)

    def forward(self, signal: Tensor) -> Found:
        level = self.head(self.body(signal).mean(2))
        return Found(level, ({"spread": 0.1 * level},)) if self.training else Found(level)


def signals(count: int) -> tuple[Tensor, Tensor]:
    signal = torch.randn(count, 1, 16, generator=torch.Generator().manual_seed(count))
    return signal, signal.abs().mean(2)


def study_of(model: nn.Module, data: Data, tmp_path: Path, scorer: str = "fidelity") -> Study:
    place = f"journal:///{tmp_path / 'study.log'}"
    return Study(
        "s", model, trace(model, data.example), data, budget=Budget(macs=0.5), scorer=scorer, batch=24, storage=place,
        folder=tmp_path,
    )  # fmt: skip


def test_outputs_in_a_dataclass_go_through_a_whole_study(tmp_path: Path) -> None:
    def loss(outputs: Found, targets: Tensor) -> Tensor:
        return mse_loss(outputs.level, targets) + outputs.extras[0]["spread"].square().mean()

    def found_error(outputs: Found, targets: Tensor) -> Tensor:
        return error(outputs.level, targets)

    torch.manual_seed(0)
    task = Task(loss, found_error, name="error", direction="lower", unit="V")
    data, model = Data.from_tensors("levels", signals(96), signals(32), task=task), Levels()
    train(model, data, FAST)
    study = study_of(model, data, tmp_path, "reconstruction")
    graph, task_of = study.problem.graph, study.problem.task
    assert len(graph.groups) == 3
    for scorer in ("fidelity", "region_kernel", "refitted:naswot"):
        assert math.isfinite(scorer_of(scorer)(ScoredStructure(task_of, Structure.random(graph, keep=0.5))))
    study.search(trials=3, progress=False)
    best = study.front().best()
    assert measure(study.reconstruct(best), data) < 2 * measure(model, data)
    taught = study.retrain(top=1, recipe=Recipe(epochs=1, batch_size=16, lr=0.02, distill=0.5, ema=0.9)).best()
    assert taught.accuracy is not None
    small = prune(model, graph, study.structure(best.number))
    assert isinstance(small(data.example), Found)
    assert export_program(small, tmp_path / "small.pt2", (data.example,)) < 1e-5
    loaded = torch.export.load(tmp_path / "small.pt2").module()(data.example)
    assert loaded.keys() == {"level"}  # only tensors leave: a program needs none of the network's code


def test_outputs_in_dataclasses_are_compared_by_their_tensors() -> None:
    one, other = Found(torch.ones(2)), Found(torch.ones(2), none=None, note="else")
    assert relative_difference(one, other) == 0.0
    assert relative_difference(one, Found(2 * torch.ones(2))) == 0.5
    assert relative_difference(one, Found(torch.ones(2), ({"spread": torch.ones(1)},))) == float("inf")


class Described(Dataset[Any]):
    """Targets in a nested dictionary, with strings, None and boxes of any number in it."""

    def __init__(self, count: int) -> None:
        self.signal, self.level = signals(count)

    def __len__(self) -> int:
        return len(self.signal)

    def __getitem__(self, number: int) -> Any:
        boxes = None if number % 2 else torch.zeros(number % 5, 4)
        return self.signal[number], {"level": self.level[number], "meta": {"name": f"s{number}", "boxes": boxes}}


def described(samples: list[Any]) -> Any:
    meta = [target["meta"] for _, target in samples]
    level = torch.stack([target["level"] for _, target in samples])
    return torch.stack([signal for signal, _ in samples]), {"level": level, "deep": {"meta": meta, "none": None}}


@pytest.mark.parametrize("loader", [False, True])
def test_targets_are_whatever_the_collate_function_makes(loader: bool, tmp_path: Path) -> None:
    seen: set[str] = set()

    def loss(outputs: Tensor, targets: Any) -> Tensor:
        meta = targets["deep"]["meta"]
        assert targets["deep"]["none"] is None
        assert len(meta) == len(outputs)
        seen.update(one["name"] for one in meta)
        return mse_loss(outputs, targets["level"])

    task = Task(loss, lambda outputs, targets: error(outputs, targets["level"]), name="error", direction="lower")
    parts: list[Any] = [Described(count) for count in (64, 32, 16)]
    if loader:
        parts = [DataLoader(part, 16, collate_fn=described) for part in parts]
    collate = None if loader else described
    data = Data.from_datasets("told", parts[0], parts[1], validation=parts[2], task=task, collate=collate)
    model = network("1-d")
    train(model, data, FAST)
    assert seen == {f"s{number}" for number in range(64)}
    study = study_of(model, data, tmp_path)
    study.search(trials=2, progress=False)
    assert study.retrain(top=1, recipe=FAST).best().accuracy is not None


def test_targets_that_torch_cannot_put_together_need_a_collate_function() -> None:
    data = Data.from_datasets("told", Described(8), Described(8), validation=Described(8), task=ERROR)
    with pytest.raises(SecateurError, match=r"samples 0 to 7 cannot be put into one batch .* or give `collate`"):
        next(data.batches("train"))


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "table":
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 1))
    conv: Any = {"1-d": nn.Conv1d, "3-d": nn.Conv3d}[kind]
    norm: Any = {"1-d": nn.BatchNorm1d, "3-d": nn.BatchNorm3d}[kind]
    pool: nn.Module = nn.AdaptiveAvgPool1d(1) if kind == "1-d" else nn.AdaptiveAvgPool3d(1)
    layers = (conv(1, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, 12, 3, padding=1), nn.ReLU())
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(12, 1))


@pytest.mark.parametrize(("kind", "shape"), [("table", (6,)), ("1-d", (1, 16)), ("3-d", (1, 4, 6, 6))])
def test_inputs_have_any_number_of_dimensions(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    inputs = torch.randn(96, *shape, generator=torch.Generator().manual_seed(0))
    pair = (inputs, inputs.flatten(1).abs().mean(1, keepdim=True))
    model, data = network(kind), Data.from_tensors("any", pair, pair, task=ERROR)
    train(model, data, FAST)
    study = study_of(model, data, tmp_path, "reconstruction")
    study.search(trials=2, progress=False)
    best = study.retrain(top=1, recipe=FAST).best()
    assert best.cost is not None
    assert best.cost.macs <= 0.5 * study.problem.graph.costs.dense.macs


class Endless(IterableDataset[Any]):
    """So many samples, each made when it is asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __iter__(self) -> Iterator[Any]:
        draw = torch.Generator().manual_seed(0)
        for _ in range(self.count):
            self.read += 1
            signal = torch.randn(1, 16, generator=draw)
            yield signal, signal.abs().mean(1)


class Counted(Endless):
    def __len__(self) -> int:
        return self.count


class Held:
    """Makes batches, and knows how many of them are held at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __call__(self, samples: list[Any]) -> Any:
        inputs, targets = (torch.stack(parts) for parts in zip(*samples, strict=True))
        self.now += 1
        self.most = max(self.most, self.now)
        weakref.finalize(inputs, self.gone)
        return inputs, targets

    def gone(self) -> None:
        self.now -= 1


def test_a_stream_is_never_held_in_memory(tmp_path: Path) -> None:
    train_set, held = Counted(100_000), Held()
    streams = [DataLoader(some, 16, collate_fn=held) for some in (train_set, Counted(640), Counted(640))]
    data = Data.from_datasets("stream", streams[0], streams[1], validation=streams[2], task=ERROR)
    assert len(data.train) == 100_000
    study = study_of(network("1-d"), data, tmp_path, "reconstruction")
    study.search(trials=2, progress=False)
    assert train_set.read < 10_000  # a few thousand samples to score on, each draw from the beginning
    few = Data.from_datasets("few", streams[1], streams[1], validation=streams[2], task=ERROR)
    held.most = held.now
    train(network("1-d"), few, Recipe(epochs=1, batch_size=16, lr=0.02, recalibrate=0))
    assert held.most <= held.now + 5  # of 40 batches in each split; a fingerprint is of 64 samples


def test_a_stream_without_a_length_is_refused() -> None:
    loader = DataLoader(Endless(8), 4)
    with pytest.raises(SecateurError, match=r"data 's': train: the loader's dataset has no length"):
        Data.from_datasets("s", loader, loader, validation=loader, task=ERROR)
