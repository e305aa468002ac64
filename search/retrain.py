"""Retraining the few: which structures, and how a finished one is remembered."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from backbones.artefact import save
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.surgery import prune
from search.data import Data
from search.front import Candidate, Front
from search.identity import to_record
from search.lease import Lease
from search.ledger import Ledger, holder
from search.recipe import Recipe
from search.store import Store, make_study
from search.training import train

RETRAINED = " (retrained)"
"""The study that holds the retrainings of another one has this after its name."""
POLL = 1.0
"""Seconds between two looks at what others retrain."""


def choose(front: Front, top: int) -> list[Candidate]:
    """The structures worth retraining: best scores first, spread over the front.

    With one objective the `top` best scores. With two, points of the score front at even steps in MACs, the largest
    first; where the front has fewer, the best scores of the rest. A structure is taken once.

    Raises:
        SecateurError: when `top` is below 1 or no candidate is feasible.
    """
    if top < 1:
        raise SecateurError(f"top >= 1 must hold, but got top={top}")
    points = list(front.points("score"))
    if not points:
        raise SecateurError(f"study {front.name!r} has no feasible trial to retrain; search first")
    feasible = [one for one in front.candidates if one.reason is None and one.value("score") is not None]
    ranked = sorted(feasible, key=lambda one: (-(one.score or 0.0), one.number))
    steps = min(top, len(points))
    spread = [points[round(i * (len(points) - 1) / max(1, steps - 1))] for i in reversed(range(steps))]
    chosen: dict[str, Candidate] = {}
    for one in [*spread, *ranked]:
        if len(chosen) < top:
            chosen.setdefault(one.id, one)
    return list(chosen.values())


class Retrainer:
    """Retrains structures of one study; results are trials of a sibling study in the same storage.

    The sibling is a queue for any number of processes: each claims one structure at a time (a RUNNING trial), and the
    claim of a process that died is free again. Where the folder is shared too, the training goes on after the last
    epoch of the dead.

    Args:
        store: of the search.
        model: the dense network, and the teacher.
        graph: of it.
        data: the task.
        folder: holds one folder per structure: checkpoint, curve, network.
    """

    def __init__(self, store: Store, model: nn.Module, graph: ChannelGraph, data: Data, folder: Path) -> None:
        self.model, self.graph, self.data, self.folder = model, graph, data, folder
        name, one = store.name + RETRAINED, [StudyDirection.MAXIMIZE]
        self.ledger = Ledger(store.url, store.storage, lambda: make_study(name, store.storage, one))

    def results(self) -> dict[str, Mapping[str, Any]]:
        """Structure id -> what its latest retraining gave."""
        done = (trial for trial in self.ledger.trials() if trial.state is TrialState.COMPLETE)
        return {trial.user_attrs["structure"]: trial.user_attrs for trial in done}

    def run(
        self,
        front: Front,
        top: int,
        epochs: int | None = None,
        recipe: Recipe | None = None,
        *,
        device: str = "cpu",
        progress: bool = True,
    ) -> None:
        """Retrains `choose(front, top)`, together with whoever else does; returns when all of them are done.

        What was retrained with this recipe before is left as it is.
        """
        recipe = recipe or Recipe()
        if epochs is not None:
            recipe = replace(recipe, epochs=epochs)
        left = {one.id: one for one in choose(front, top)}
        text = to_record(asdict(recipe))
        with Lease(self.ledger, "work") as lease:
            while left:
                trials = [one for one in self.ledger.trials() if one.user_attrs.get("recipe") == text]
                for trial in trials:
                    if trial.state is TrialState.COMPLETE:
                        left.pop(trial.user_attrs["structure"], None)
                busy = {one.user_attrs["structure"] for one in trials if self._busy(one, lease)}
                free = [one for name, one in left.items() if name not in busy]
                if free:
                    self._claim(free[0], recipe, lease, device, progress)
                elif left:
                    time.sleep(POLL)

    def _busy(self, trial: FrozenTrial, lease: Lease) -> bool:
        """Whether a living process works on it; the claim of a dead one is failed."""
        if trial.state is TrialState.RUNNING and lease.dead(holder(trial)):
            self.ledger.fail(trial)
            return False
        return trial.state is TrialState.RUNNING

    def _claim(self, one: Candidate, recipe: Recipe, lease: Lease, device: str, progress: bool) -> None:
        """Claims a structure and retrains it; of several claims the lowest number stands."""
        facts = {"structure": one.id, "trial": one.number, "recipe": to_record(asdict(recipe))}
        running = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=facts)
        claim = self.ledger.claim(running, f"{lease.token}/{time.monotonic_ns()}")
        for other in self.ledger.trials():
            same = all(other.user_attrs.get(key) == facts[key] for key in ("structure", "recipe"))
            if (
                other.number < claim.number
                and same
                and (other.state is TrialState.COMPLETE or self._busy(other, lease))
            ):
                self.ledger.fail(claim)
                return
        try:
            result = self._retrain(one, recipe, device, progress)
        except BaseException:
            self.ledger.fail(claim)
            raise
        self.ledger.finish(claim, [result["accuracy"]], {**result, **facts})

    def _retrain(self, one: Candidate, recipe: Recipe, device: str, progress: bool) -> dict[str, Any]:
        assert one.structure is not None
        folder = self.folder / one.id
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        pruned = prune(self.model, self.graph, one.structure)
        history = train(pruned, self.data, recipe, teacher=self.model, folder=folder, device=device, progress=progress)
        artefact = folder / "network.safetensors"
        facts = {
            "structure": one.id,
            "trial": one.number,
            "accuracy": history.validation_accuracy,
            "test_accuracy": history.test_accuracy,
            "recalibrated_accuracy": history.start_accuracy,
            "recipe": to_record(asdict(recipe)),
            "seconds": history.seconds,
            "wall_seconds": time.perf_counter() - start,
        }
        save(pruned, artefact, cost=one.cost, provenance=facts)
        return {**facts, "artefact": os.fspath(artefact)}
