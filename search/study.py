"""The search: ask for a proposal, project it onto the budget, score the structure, tell; without any training."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch
from optuna.trial import FrozenTrial
from torch import nn
from tqdm import tqdm

from backbones.cost import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.recount import recount
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.names import check_name
from scoring.scorers import SCORERS, score
from scoring.tables import FilterTables, filter_tables
from search.budget import Bound, Budget, Target
from search.candidates import candidate, pack, unpack
from search.data import Data
from search.front import Candidate, Front
from search.projection import Projected, check_reachable, feasibility, project
from search.retrain import Retrainer
from search.samplers import SAMPLERS, sampler_for
from search.space import Space
from search.store import Store, to_record

if TYPE_CHECKING:
    import pandas

    from search.recipe import Recipe

FORMAT = 1
RECALIBRATION_IMAGES = 1280
RECALIBRATION_BATCH = 64
"""Training images for the batch-norm statistics of a pruned network, for scorers that recalibrate."""
Callback = Callable[["Study", FrozenTrial], None]


class Study:
    """One search on one network, kept in an Optuna storage; the same arguments open it again and go on.

    Args:
        name: of the study in its storage, and of its folder for retrained networks.
        model: the dense network. Never changed.
        graph: of `trace(model, …)`.
        data: the task; the scoring batch is drawn from its training images.
        budget: what a structure may cost.
        storage: Optuna storage URL.
        space: what is proposed; a kind by name, or a `Space`.
        scorer: a key of `SCORERS`.
        sampler: a key of `SAMPLERS`.
        batch: images the scorer looks at.
        seed: of the proposals and the scoring batch.
        folder: for retrained networks and the cache of the filter tables; `runs/<name>` by default.

    Raises:
        SecateurError: for unknown names, a budget that cannot be reached (the nearest value is named), or a study of
            that name that was made with anything else (the differing item is named).
    """

    def __init__(  # noqa: PLR0913 - every argument is a part of the study's identity, and all are keywords
        self,
        name: str,
        model: nn.Module,
        graph: ChannelGraph,
        data: Data,
        *,
        budget: Budget,
        storage: str | None = None,
        space: Space | str = "hybrid",
        scorer: str = "naswot",
        sampler: str = "tpe",
        batch: int = 128,
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        check_name("scorer", scorer, SCORERS)
        check_name("sampler", sampler, SAMPLERS)
        self.name, self.model, self.graph, self.data = name, model, graph, data
        self.budget, self.scorer, self.sampler, self.seed = budget, scorer, sampler, seed
        self.space = Space(space) if isinstance(space, str) else space
        self.folder = Path("runs") / name if folder is None else Path(folder)
        self.images, self.labels = data.batch(batch, seed)
        renewal = min(len(data.train), RECALIBRATION_IMAGES)
        self.recalibrate = list(data.batch(renewal, seed + 1)[0].split(RECALIBRATION_BATCH))
        self.tables: FilterTables = filter_tables(
            model, graph, criterion=self.space.criterion, linkage=self.space.linkage
        )
        self.targets = budget.targets(graph.costs.dense)
        check_reachable(graph, self.tables, self.space.limits, budget)
        self.store = Store(name, storage or f"sqlite:///{name}.db", budget.objectives, self._identity(batch))
        self._scores: dict[str, float] = {}

    def _identity(self, batch: int) -> dict[str, str]:
        return {
            "format": str(FORMAT),
            "weights": fingerprint(self.model),
            "graph": self.graph.id,
            "data": self.data.fingerprint,
            "budget": to_record(self.budget.to_dict()),
            "space": to_record(asdict(self.space)),
            "scorer": f"{self.scorer}, {batch} images",
            "sampler": self.sampler,
            "seed": str(self.seed),
        }

    @property
    def optuna_study(self) -> optuna.Study:
        """The underlying Optuna study."""
        return self.store.study

    def feasibility(self) -> str:
        """A table: dense cost, largest and smallest reachable cost under the rate limits, the budget."""
        return feasibility(self.graph, self.tables, self.space.limits, self.budget)

    def search(
        self,
        trials: int,
        *,
        timeout: float | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
    ) -> None:
        """Goes on until the study has `trials` finished trials, infeasible ones included.

        Killed at any moment and called again, it finishes with the same trials as without the interruption.

        Args:
            trials: the study's total, not how many to add.
            timeout: seconds after which no further trial is begun.
            callbacks: called with the study and each finished trial.
            progress: show a bar when standard error is a terminal.
        """
        if trials < 1:
            raise SecateurError(f"trials >= 1 must hold, but got trials={trials}")
        done = self.store.finished
        self._scores = {t.user_attrs["structure"]: t.user_attrs["score"] for t in done if "score" in t.user_attrs}
        stop = None if timeout is None else time.monotonic() + timeout
        bar = tqdm(total=trials, initial=len(done), unit="trial", disable=None if progress else True)
        try:
            while len(self.store.finished) < trials and (stop is None or time.monotonic() < stop):
                frozen = self._trial()
                bar.update()
                if self._scores:
                    bar.set_postfix_str(f"best {max(self._scores.values()):.6g}", refresh=False)
                for callback in callbacks:
                    callback(self, frozen)
        except BaseException:
            self.store.forget()
            raise
        finally:
            bar.close()

    def _trial(self) -> FrozenTrial:
        start = time.perf_counter()
        mirror = self.store.mirror
        mirror.sampler = sampler_for(self.sampler, self.seed, len(self.store.finished))
        trial = mirror.ask()
        target = self._target(trial)
        ray = self.space.propose(trial, self.tables)
        found = project(self.graph, self.tables, self.space.limits, ray, target)
        facts: dict[str, Any] = {"reason": found} if isinstance(found, str) else self._facts(found)
        values = None
        if isinstance(found, Projected):
            try:
                facts["score"] = self._score(found.structure)
                values = [facts["score"], float(found.cost.macs)][: self.budget.objectives]
            except SecateurError as error:
                facts["reason"] = str(error)
        facts["seconds"] = time.perf_counter() - start
        return self.store.tell(trial, values, facts)

    def _target(self, trial: optuna.Trial) -> Target:
        """What this trial aims at: the cap, one of several targets, or a point inside a band."""
        number = trial.suggest_int("target", 0, len(self.targets) - 1) if len(self.targets) > 1 else 0
        target = self.targets[number]
        if target.capped:
            return target
        first = target.bounds[0]
        dense = getattr(self.graph.costs.dense, first.axis)
        aim = trial.suggest_float(f"{first.axis} aimed at", first.low / dense, first.high / dense) * dense
        return replace(target, bounds=(Bound(first.axis, first.low, max(first.low, aim)), *target.bounds[1:]))

    def _facts(self, found: Projected) -> dict[str, Any]:
        return {
            "structure": found.structure.id,
            "kept": pack(self.graph, found.structure),
            "macs": found.cost.macs,
            "params": found.cost.params,
            "strength": found.strength,
        }

    def _score(self, structure: Structure) -> float:
        """A structure seen before is not scored again."""
        if structure.id not in self._scores:
            if not self._scores:
                self._verify(structure)
            value = score(self.scorer, self.model, self.graph, structure, self.images, self.labels, self.recalibrate)
            self._scores[structure.id] = value
        return self._scores[structure.id]

    def _verify(self, structure: Structure) -> None:
        """Once per search: the arithmetic of the cost agrees with a count on the pruned network."""
        pruned = prune(self.model, self.graph, structure)
        counted = recount(pruned, self.graph.example)
        stated = self.graph.costs.evaluate(torch.tensor(list(structure.widths.values())).numpy())
        batch = self.graph.program.batch
        if Cost(stated.macs * batch, stated.params) != counted:
            raise RuntimeError(f"cost() says {stated}, a count on the pruned network {counted} for a batch of {batch}")

    def candidates(self) -> tuple[Candidate, ...]:
        """Every finished trial, with the result of its retraining where there is one."""
        results = self._retrainer().results()
        return tuple(candidate(self.graph, trial, results) for trial in self.store.finished)

    def front(self) -> Front:
        """The Pareto front of what is known so far."""
        return Front(
            name=self.name,
            dense=Candidate(-1, Structure.full(self.graph), cost=self.graph.costs.dense, label="dense"),
            candidates=self.candidates(),
            scorer=self.scorer,
            caps=tuple(int(b.high) for target in self.targets for b in target.bounds if b.axis == "macs"),
        )

    def retrain(
        self,
        top: int = 3,
        epochs: int | None = None,
        *,
        recipe: Recipe | None = None,
        device: str = "cpu",
        progress: bool = True,
    ) -> Front:
        """Retrains the most promising structures, spread over the front, and returns the front of accuracy.

        A finished retraining is not repeated; an interrupted one loses at most an epoch.

        Args:
            top: how many.
            epochs: instead of the recipe's.
            recipe: how; the default recipe distils from the dense network.
            device: where.
            progress: show bars when standard error is a terminal.

        Raises:
            SecateurError: when nothing feasible was found yet.
        """
        self._retrainer().run(self.front(), top, epochs, recipe, device=device, progress=progress)
        return self.front()

    def _retrainer(self) -> Retrainer:
        return Retrainer(self.store, self.model, self.graph, self.data, self.folder / "retrain")

    def structure(self, number: int) -> Structure:
        """The structure of a finished trial."""
        return unpack(self.graph, self.store.finished[number].user_attrs["kept"])

    def trials_dataframe(self) -> pandas.DataFrame:
        """All trials as a pandas data frame.

        Raises:
            SecateurError: when pandas is not installed.
        """
        return self.front().to_dataframe()


def fingerprint(model: nn.Module) -> str:
    """16 hex digits over every parameter and buffer, their names, shapes and types."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
