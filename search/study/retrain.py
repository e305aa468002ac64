"""Retraining the few, and how a finished retraining is remembered."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import nn
from tqdm import tqdm

from backbones.artefact import save
from backbones.cost import cost
from backbones.cost_table import Cost
from backbones.errors import check_name
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from search.data.data import Data
from search.review.candidate import Candidate
from search.space.budget import FILL, Bound, Target
from search.space.proposals import pack
from search.space.space import Space
from search.study.heartbeat import Heartbeat
from search.study.identity import to_record
from search.study.trials import TrialStore, TrialWriter, claimant, make_study
from search.training.choosing import chooser_of
from search.training.flows import Flow, run_flow
from search.training.recipe import Recipe

STARTS = ("cut", "reconstructed")
DEFAULT_START = "cut"


@dataclass(frozen=True, slots=True)
class RetrainConfig:
    """How a structure is retrained.

    Attributes:
        recipe: optimiser, schedule and losses of each training.
        flow: how pruning and training alternate. Any flow but "one-shot" follows the trial's proposal anew as the
            weights change, within the same MACs and parameters, and may end with other filters.
        start: what a one-shot training starts from: "cut" (the dense network's weights, as they are left) or
            "reconstructed" (refitted in closed form first). Other flows start as they always do.
    """

    recipe: Recipe = field(default_factory=Recipe)
    flow: Flow = field(default_factory=Flow)
    start: str = "cut"

    def __post_init__(self) -> None:
        check_name("start", self.start, STARTS)

    @property
    def refits(self) -> bool:
        """Whether the training starts from refitted weights."""
        return self.start == "reconstructed" and not self.flow.chooses_again

    @property
    def text(self) -> str:
        """The settings as canonical JSON: equal for equal settings; of "cut" what it was before there was a choice."""
        start = {"start": "reconstructed"} if self.refits else {}
        return to_record({**self.recipe.to_dict(), "flow": self.flow.name, "steps": self.flow.count, **start})

    @property
    def key(self) -> str:
        """Six hex digits that stand for the settings in names of folders."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:6]


RETRAINED = " (retrained)"
"""The study that holds the retrainings of another one has this after its name."""
RETRAIN_POLL = 1.0
"""Seconds between two looks at what others retrain."""


def results_of(trials: Iterable[FrozenTrial]) -> dict[str, Mapping[str, Any]]:
    """Structure id -> what its latest retraining gave, of the trials of a `RETRAINED` study."""
    done = (trial for trial in trials if trial.state is TrialState.COMPLETE)
    return {trial.user_attrs["structure"]: trial.user_attrs for trial in done}


class Retrainer:
    """Retrains structures of one study; results are trials of a sibling study in the same storage.

    The sibling is a queue for any number of processes: each claims one structure at a time (a RUNNING trial), and the
    claim of a process that died is free again. Where the folder is shared too, the training goes on after the last
    epoch of the dead.

    Args:
        store: the trials of the search.
        model: the dense network, and the teacher.
        graph: the dense network's channel graph.
        data: the task.
        folder: holds one folder per structure and config: network, checkpoint and curve of each training.
        space: the search's space, for flows that choose again.
        refit: makes the network of a structure with refitted weights.
    """

    def __init__(
        self,
        store: TrialStore,
        model: nn.Module,
        graph: ChannelGraph,
        data: Data,
        folder: Path,
        space: Space,
        refit: Callable[[Structure], nn.Module],
    ) -> None:
        self.model, self.graph, self.data, self.folder, self.space = model, graph, data, folder, space
        self.refit = refit
        name, one = store.name + RETRAINED, [StudyDirection.MAXIMIZE]
        self.writer = TrialWriter(store.url, store.storage, lambda: make_study(name, store.storage, one))

    def results(self, config: RetrainConfig | None = None) -> dict[str, Mapping[str, Any]]:
        """Structure id -> what its latest retraining gave; with one config only, where it is given."""
        trials = self.writer.trials()
        return results_of(one for one in trials if config is None or one.user_attrs.get("recipe") == config.text)

    def run(
        self, chosen: Sequence[Candidate], config: RetrainConfig, *, device: str = "cpu", progress: bool = True
    ) -> None:
        """Retrains structures, together with whoever else does; returns when all of them are done.

        What was retrained with the same settings before is left as it is.
        """
        left = {one.id: one for one in chosen}
        text, done = config.text, dict[str, float]()
        bar = tqdm(total=len(left), desc="retrained", unit="structure", disable=None if progress else True)
        with Heartbeat(self.writer, "work") as heartbeat, bar:
            while left:
                trials = [one for one in self.writer.trials() if one.user_attrs.get("recipe") == text]
                for trial in trials:
                    structure = trial.user_attrs["structure"]
                    if trial.state is TrialState.COMPLETE and structure in left:
                        del left[structure]
                        done[structure] = trial.values[0]
                        bar.set_postfix_str(f"best {max(done.values()):.1%}", refresh=False)
                        bar.update()
                busy = {one.user_attrs["structure"] for one in trials if self._busy(one, heartbeat)}
                free = [one for name, one in left.items() if name not in busy]
                if free:
                    self._claim(free[0], config, heartbeat, device, progress)
                elif left:
                    time.sleep(RETRAIN_POLL)

    def _busy(self, trial: FrozenTrial, heartbeat: Heartbeat) -> bool:
        """Whether a living process works on a claimed trial; the claim of a dead process is failed."""
        if trial.state is TrialState.RUNNING and heartbeat.is_dead(claimant(trial)):
            self.writer.fail(trial)
            return False
        return trial.state is TrialState.RUNNING

    def _claim(self, one: Candidate, config: RetrainConfig, heartbeat: Heartbeat, device: str, progress: bool) -> None:
        """Claims a structure and retrains it; of several claims the lowest number stands."""
        facts = {"structure": one.id, "trial": one.number, "recipe": config.text}
        running = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=facts)
        claim = self.writer.claim(running, f"{heartbeat.token}/{time.monotonic_ns()}")
        for other in self.writer.trials():
            same = all(other.user_attrs.get(key) == facts[key] for key in ("structure", "recipe"))
            if (
                other.number < claim.number
                and same
                and (other.state is TrialState.COMPLETE or self._busy(other, heartbeat))
            ):
                self.writer.fail(claim)
                return
        try:
            result = self._retrain(one, config, device, progress)
        except BaseException:
            self.writer.fail(claim)
            raise
        self.writer.finish(claim, [result["accuracy"]], {**result, **facts})

    def _retrain(self, one: Candidate, config: RetrainConfig, device: str, progress: bool) -> dict[str, Any]:
        assert one.structure is not None
        assert one.cost is not None
        folder = self.folder / f"{one.id}-{config.key}"
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        chosen = one.structure
        again = chooser_of(self.space, one.parameters)
        small = run_flow(
            config.flow,
            self.model,
            self.graph,
            self.data,
            config.recipe,
            again if config.flow.chooses_again else lambda model, graph, target: chosen,
            within(one.cost),
            cut=self.refit if config.refits else None,
            folder=folder,
            device=device,
            progress=progress,
        )
        spent = cost(self.graph, small.structure)
        last = small.histories[-1]
        facts = {
            "structure": one.id,
            "trial": one.number,
            "accuracy": last.validation_accuracy,
            "test_accuracy": last.test_accuracy,
            "recalibrated_accuracy": last.start_accuracy,
            "recipe": config.text,
            "seconds": sum(history.seconds for history in small.histories),
            "wall_seconds": time.perf_counter() - start,
        }
        if small.structure != chosen:
            facts |= {"ended": small.structure.id, **pack(self.graph, small.structure, spent)}
        artefact = folder / "network.safetensors"
        save(small.model, artefact, cost=spent, provenance=facts)
        return {**facts, "artefact": os.fspath(artefact)}


def within(spent: Cost) -> Target:
    """The target of a flow that chooses again: no more MACs and no more parameters than its first structure had.

    So the structure that the flow ends with meets the budget that the first one met.
    """
    most = {"macs": float(spent.macs), "params": float(spent.params)}
    return Target(tuple(Bound(axis, (1 - FILL) * high, high) for axis, high in most.items()), capped=True)
