"""Scores of several structures at once: the same whoever computes them."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.structure import Structure
from scoring.scoring_task import ScoringTask
from search.study import scores
from search.study.scores import ScoreCache
from tests.graphs import known_trace as trace


def task_of(model: nn.Module) -> ScoringTask:
    images = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = trace(model.eval(), images[:1])
    return ScoringTask(model, graph, images[:16], fit=images[16:32], held_out=images[32:])


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU()) for i, o in ((1, 8), (8, 12))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


def alone(task: ScoringTask, structures: list[Structure], name: str = "reconstruction") -> list[float | None]:
    return [one.score for one in ScoreCache(name, task).of(structures)]


def test_processes_score_as_one_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A network of a class that only this process knows. Where one of them is killed at work, threads go on."""
    home, fatal = os.getpid(), tmp_path / "fatal"

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if fatal.exists() and os.getpid() != home:
                os.kill(os.getpid(), signal.SIGKILL)
            out: torch.Tensor = self.body(x) * 2
            return out

    monkeypatch.setattr(scores, "PROCESSES_FROM", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = task_of(Mine())
        structures = [Structure.random(task.graph, macs=0.5, seed=seed) for seed in range(3)]
        wanted = alone(task, structures)
        assert None not in wanted
        cache = ScoreCache("reconstruction", task)
        list(cache.of([Structure.full(task.graph)]))  # what a score takes is known from now on
        with warnings.catch_warnings(), monkeypatch.context() as patch:
            warnings.simplefilter("error", UserWarning)
            patch.setattr(cache, "_on_threads", None)
            assert [one.score for one in cache.of(structures, 2)] == wanted
        assert all(one.seconds == 0 for one in cache.of(structures, 2))  # known now
        fatal.touch()
        cache.known.clear()
        with pytest.warns(UserWarning, match="scored by threads, slower than by processes: TerminatedWorker"):
            assert [one.score for one in cache.of(structures, 2)] == wanted
    finally:
        torch.set_num_threads(threads)


def test_what_cannot_be_sent_to_processes_is_scored_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "PROCESSES_FROM", 0.0)
    model = network()
    task = task_of(model)
    model.lock = threading.Lock()  # type: ignore[assignment]
    structures = [Structure.random(task.graph, macs=0.5, seed=seed) for seed in range(2)]
    cache = ScoreCache("params", task)
    list(cache.of([Structure.full(task.graph)]))
    with pytest.warns(UserWarning, match="scored by threads, slower than by processes: .*lock"):
        found = [one.score for one in cache.of(structures, 2)]
    assert found == alone(task, structures, "params")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert len(list(cache.of([Structure.random(task.graph, macs=0.3, seed=5), *structures], 2))) == 3


def test_quick_scores_begin_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(network())
    cache = ScoreCache("params", task)
    monkeypatch.setattr(cache, "_by_processes", None)
    for number in range(2):  # not known yet, then known
        structures = [Structure.random(task.graph, macs=0.5, seed=2 * number + one) for one in range(2)]
        assert len(list(cache.of(structures, 2))) == 2
