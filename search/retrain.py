"""Retraining the few: which structures, and how a finished one is remembered."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from torch import nn

from backbones.artefact import save
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.surgery import prune
from search.data import Data
from search.front import Candidate, Front
from search.recipe import Recipe
from search.store import Store, quiet, to_record
from search.training import train


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

    Args:
        store: of the search.
        model: the dense network, and the teacher.
        graph: of it.
        data: the task.
        folder: holds one folder per structure: checkpoint, curve, network.
    """

    def __init__(self, store: Store, model: nn.Module, graph: ChannelGraph, data: Data, folder: Path) -> None:
        self.model, self.graph, self.data, self.folder = model, graph, data, folder
        with quiet():
            self.study = optuna.create_study(
                study_name=f"{store.study.study_name} (retrained)",
                storage=store.storage,
                direction="maximize",
                load_if_exists=True,
            )

    def results(self) -> dict[str, Mapping[str, Any]]:
        """Structure id -> what its latest retraining gave."""
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
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
        """Retrains `choose(front, top)`; what was retrained with this recipe before is left as it is."""
        recipe = recipe or Recipe()
        if epochs is not None:
            recipe = replace(recipe, epochs=epochs)
        for one in choose(front, top):
            known = self.results().get(one.id)
            if known is None or known["recipe"] != to_record(asdict(recipe)):
                self._retrain(one, recipe, device, progress)

    def _retrain(self, one: Candidate, recipe: Recipe, device: str, progress: bool) -> None:
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
        trial = optuna.trial.create_trial(
            value=history.validation_accuracy, user_attrs={**facts, "artefact": os.fspath(artefact)}
        )
        with quiet():
            self.study.add_trial(trial)
