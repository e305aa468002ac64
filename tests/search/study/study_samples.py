"""A small network, small data and a study of them; run as a script, one process of a search that a test can kill."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

import alembic.util
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

import search.study.heartbeat
import search.study.loops
import search.study.retrain
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.trace import trace
from scoring import scorers
from scoring.scoring_task import ScoredStructure
from search.data.data import Data
from search.space.budget import Budget
from search.space.space import Space
from search.study.samplers import DEFAULT_SAMPLER
from search.study.study import Study
from search.training.recipe import Recipe
from tests.migrations import read_once

BUDGETS = {"cap": Budget(macs=0.3), "targets": Budget(macs=[0.2, 0.4]), "band": Budget(macs="20%..40%")}
BY_L2 = Space("ratios", criterion="l2")
"""Asks for no forward pass; most tests need any criterion."""


class Small(nn.Module):
    """Three convolutions and a linear layer: traced in a moment, pruned in three groups."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 24), (24, 32), (32, 40)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(40, 4)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(images).mean((2, 3)))
        return out


def small_data() -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (160, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(160) % 4
    images[:, 0, :2, :2] = (labels * 60)[:, None, None].to(torch.uint8)
    train, test = (images[:120], labels[:120]), (images[120:], labels[120:])
    return Data.from_tensors("small", train, test, validation=0.2)


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Small().eval()


def small_graph(model: nn.Module) -> ChannelGraph:
    return trace(model, torch.zeros(1, 1, 8, 8))


def make(url: str, folder: Path, parts: tuple[nn.Module, ChannelGraph, Data], **options: Any) -> Study:
    settings: dict[str, Any] = {"budget": BUDGETS["cap"], "space": BY_L2, "scorer": "random", "batch": 16}
    model, graph, data = parts
    name = options.pop("name", "s")
    return Study(name, model, graph, data, storage=url, folder=folder, **(settings | options))


def journal(folder: Path) -> str:
    """A storage of its own. A trial costs a third of what it does in SQLite, which counts where there are many."""
    return f"journal:///{folder}/{uuid.uuid4().hex}.log"


def finished(study: Study) -> list[tuple[Any, ...]]:
    """What must be equal after an interruption, from the storage."""
    keep = ("structure", "kept", "macs", "reason")
    return [
        (t.number, t.params, t.values, {k: t.user_attrs.get(k) for k in keep})
        for t in study.optuna_study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    ]


def main(arguments: list[str] | None = None, parts: tuple[nn.Module, ChannelGraph, Data] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--sampler", default=DEFAULT_SAMPLER)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a score takes at least")
    parser.add_argument("--heartbeat", type=float, default=3.0)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--finalists", type=int)
    parser.add_argument("--room", type=int, help="bytes that a file may hold")
    parser.add_argument("--log", type=Path, help="gets the id of each structure that is scored")
    options = parser.parse_args(arguments)
    if options.room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.room, options.room))
    search.study.heartbeat.SECONDS = options.heartbeat
    search.study.retrain.RETRAIN_POLL = search.study.loops.SCORE_POLL = 0.05
    known = scorers.SCORERS["random"]

    def slow(scored: ScoredStructure) -> float:
        if options.log and scored.structure != Structure.full(scored.task.graph):  # every new study begins with it
            with options.log.open("a") as file:
                file.write(scored.structure.id + "\n")
        time.sleep(options.pause)
        return known(scored)

    scorers.SCORERS["random"] = slow
    study = make(options.url, options.folder, parts or small_parts(), sampler=options.sampler)
    if options.work:
        recipe = Recipe(epochs=2, lr=0.05, batch_size=16)
        study.work(options.trials, top=options.top, finalists=options.finalists, recipe=recipe, progress=False)
    else:
        study.search(options.trials, progress=False, jobs=options.jobs)


def small_parts() -> tuple[nn.Module, ChannelGraph, Data]:
    model = small_model()
    return model, small_graph(model), small_data()


class Process:
    """A process of its own that runs `main`, with its output in a file."""

    def __init__(self, launcher: Launcher, process: int, out: Path) -> None:
        self.launcher, self.process, self.out = launcher, process, out

    def kill(self) -> int:
        """SIGKILL; returns 0 when the process had ended well before."""
        os.kill(self.process, signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        return self.launcher.ask({"wait": self.process})

    def end(self) -> str:
        """The output, after a good end."""
        code = self.wait()
        said = self.out.read_text()
        assert code == 0, said
        return said


class Launcher:
    """Starts processes without the seconds that the imports take: by forking one that has them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.search.study.study_samples"]
        self._helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._count = 0

    def start(self, url: str, folder: Path, *options: str) -> Process:
        self._count += 1
        out = folder / f"out{self._count}"
        return Process(self, self.ask({"run": [url, str(folder), *options], "out": str(out)}), out)

    def ask(self, command: dict[str, Any]) -> int:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.write(json.dumps(command) + "\n")
        self._helper.stdin.flush()
        return int(self._helper.stdout.readline())

    def close(self) -> None:
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        self._helper.stdin.close()
        self._helper.wait()
        self._helper.stdout.close()


def serve() -> None:
    """The helper of a `Launcher`: forks on command, waits on command."""
    torch.set_num_threads(1)
    alembic.util.load_python_file = read_once()
    parts = small_parts()
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        process = os.fork()
        if process:
            print(process, flush=True)
            continue
        with open(command["out"], "w") as out:  # noqa: PTH123 - its descriptor is what is needed
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        code = 1
        try:
            main(command["run"], parts)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    main() if len(sys.argv) > 1 else serve()
