"""Retraining the few, and how a finished retraining is remembered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

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
from search.data.task import ACCURACY, MetricSpec
from search.formatting import counted
from search.review.candidate import Candidate, Retraining
from search.space.budget import FILL, Bound, Target
from search.space.proposals import Layout, cost_of, pack, unpack
from search.space.space import Space
from search.study.finalists import Finalists
from search.study.heartbeat import Heartbeat
from search.study.identity import to_record
from search.study.interrupts import pause
from search.study.networks import NETWORK, is_elsewhere, is_here, network_path, noted_network
from search.study.storage import folder_url
from search.study.trials import TrialStore, TrialWriter, claimant, make_study
from search.training.choosing import Chooser, chooser_of
from search.training.flows import Flow, run_flow
from search.training.recipe import Recipe

STARTS = ("auto", "cut", "reconstructed")
DEFAULT_START = "auto"
SHORT_EPOCHS = 3
"""Epochs up to which a training starts from refitted weights unless told otherwise.

After one pass over 10,000 CIFAR-10 images ResNet-20 at 33 % is 3 to 4 points ahead of the same from cut weights, after
four over all images level with it or a few tenths behind (studies/README.md, "What refitting is worth").
"""


@dataclass(frozen=True, slots=True)
class RetrainConfig:
    """How a structure is retrained.

    Attributes:
        recipe: optimiser, schedule and losses of each training.
        flow: how pruning and training alternate. Any flow but "one-shot" follows the trial's proposal anew as the
            weights change, within the same MACs and parameters, and may end with other filters.
        start: what a one-shot training starts from: "cut" (the dense network's weights, as they are left),
            "reconstructed" (refitted in closed form first) or "auto" (refitted up to `SHORT_EPOCHS`). Other flows
            start as they always do.
        whole: of a short training, which decides between finalists, the epochs of the whole one; 0 for a whole one.
    """

    recipe: Recipe = field(default_factory=Recipe)
    flow: Flow = field(default_factory=Flow)
    start: str = DEFAULT_START
    whole: int = 0

    def __post_init__(self) -> None:
        check_name("start", self.start, STARTS)

    @property
    def refits(self) -> bool:
        """Whether the training starts from refitted weights."""
        refitted = self.start == "reconstructed" or (self.start == "auto" and self.recipe.epochs <= SHORT_EPOCHS)
        return refitted and not self.flow.chooses_again

    @property
    def text(self) -> str:
        """The settings as canonical JSON: equal for equal settings; of "cut" what it was before there was a choice."""
        return to_record({**self._training, "whole": self.whole} if self.whole else self._training)

    @property
    def key(self) -> str:
        """Six hex digits that stand for the training in names of folders, whatever it is made for."""
        return hashlib.sha256(to_record(self._training).encode()).hexdigest()[:6]

    @property
    def _training(self) -> dict[str, Any]:
        start = {"start": "reconstructed"} if self.refits else {}
        return {**self.recipe.to_dict(), "flow": self.flow.name, "steps": self.flow.count, **start}

    def short(self, epochs: int) -> Self:
        """The short training of so many epochs; the whole one when it has no more."""
        if epochs >= self.recipe.epochs:
            return self
        start = "reconstructed" if self.refits else "cut"  # as the whole one starts
        return replace(self, recipe=replace(self.recipe, epochs=epochs), whole=self.recipe.epochs, start=start)


RETRAINED = " (retrained)"
"""The study that holds the retrainings of another one has this after its name."""
RETRAIN_POLL = 1.0
"""Seconds between two looks at what others retrain."""


def read_retrainings(
    layout: Layout | None, trials: Iterable[FrozenTrial], folder: Path | None, metric: MetricSpec = ACCURACY
) -> dict[int, list[Retraining]]:
    """Number of a trial of the search -> the retrainings of its structure, the best first.

    Args:
        layout: the network's channel graph or its layout; without one the structures stay unknown.
        trials: of a `RETRAINED` study.
        folder: where the networks lie, None when that is not known.
        metric: which way its values are better.
    """
    found: dict[tuple[int, str], dict[int, Mapping[str, Any]]] = {}
    for facts in (trial.user_attrs for trial in trials if trial.state is TrialState.COMPLETE):
        settings = {"start": "cut", **json.loads(facts["recipe"])}
        own = settings["epochs"]
        settings["epochs"] = settings.pop("whole", own)
        found.setdefault((facts["trial"], to_record(settings)), {})[own] = facts
    labels = _labels(dict.fromkeys(text for _, text in found))
    retrainings: dict[int, list[Retraining]] = {}
    for (number, text), by_epochs in found.items():
        rungs = tuple((epochs, by_epochs[epochs]["accuracy"]) for epochs in sorted(by_epochs))
        one = Retraining(json.loads(text), labels[text], rungs)
        if (last := by_epochs.get(one.epochs)) is not None:
            one = replace(
                one,
                test_accuracy=last["test_accuracy"],
                artefact=None if folder is None else network_path(folder, last),
                structure=unpack(layout, last) if layout is not None and "kept" in last else None,
                cost=cost_of(last) if "macs" in last else None,
            )
        retrainings.setdefault(number, []).append(one)
    for ones in retrainings.values():
        ones.sort(key=lambda one: one.place(metric))
    return retrainings


def _labels(texts: Iterable[str]) -> dict[str, str]:
    """Text of a recipe -> its epochs, and every other setting in which the recipes differ."""
    recipes = {text: json.loads(text) for text in texts}
    names = dict.fromkeys(name for recipe in recipes.values() for name in recipe if name != "epochs")
    differ = [name for name in names if len({to_record(recipe.get(name)) for recipe in recipes.values()}) > 1]
    return {
        text: ", ".join(
            [counted(recipe["epochs"], "epoch"), *(f"{name} {recipe[name]}" for name in differ if name in recipe)]
        )
        for text, recipe in recipes.items()
    }


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
        self._shared = store.url != folder_url(folder.parent)
        self._whole: set[int] = set()
        self.metric = data.task.spec
        better = StudyDirection.MAXIMIZE if self.metric.direction == "higher" else StudyDirection.MINIMIZE
        name, one = store.name + RETRAINED, [better]
        self.writer = TrialWriter(store.url, store.storage, lambda: make_study(name, store.storage, one))

    def results(self, config: RetrainConfig) -> dict[str, Mapping[str, Any]]:
        """Structure id -> what its latest training by this config gave; "artefact" is a path in this study's folder."""
        done = (one.user_attrs for one in self.writer.trials() if one.state is TrialState.COMPLETE)
        found: dict[str, Mapping[str, Any]]
        found = {facts["structure"]: facts for facts in done if facts.get("recipe") == config.text}
        if config.whole:
            return found
        return {key: {**facts, "artefact": str(network_path(self.folder, facts))} for key, facts in found.items()}

    def retrainings(self) -> dict[int, list[Retraining]]:
        """Number of a trial -> the retrainings of its structure, the best first."""
        return read_retrainings(self.graph, self.writer.trials(), self.folder, self.metric)

    def run(self, finalists: Finalists, config: RetrainConfig, *, device: str = "cpu", progress: bool = True) -> None:
        """Retrains structures, together with whoever else does; returns when all of them are done.

        Finalists are trained briefly first, and those with the best validation accuracy go on. What was trained with
        the same settings before is left as it is, unless its network is gone or damaged: then it is trained again.

        Args:
            finalists: what is retrained, and how many of it to the end.
            config: how, to the end.
            device: where training computes.
            progress: show bars when standard error is a terminal.
        """
        stay = [list(slot.members) for slot in finalists.slots]
        with Heartbeat(self.writer, "work") as heartbeat:
            for rung, epochs in enumerate(finalists.lengths):
                short = config.short(epochs)
                counts = [slot.staying[rung + 1] for slot in finalists.slots]
                open_slots = [(ones, count) for ones, count in zip(stay, counts, strict=True) if len(ones) > count]
                self._train([one for ones, _ in open_slots for one in ones], short, heartbeat, device, progress)
                found = {one: self.metric.worth(facts["accuracy"]) for one, facts in self.results(short).items()}
                for ones, count in open_slots:
                    ones.sort(key=lambda one: -found[one.id])  # of equals the better score stays in front
                    del ones[count:]
            self._train([one for ones in stay for one in ones], config, heartbeat, device, progress)

    def _train(
        self,
        chosen: Sequence[Candidate],
        config: RetrainConfig,
        heartbeat: Heartbeat,
        device: str,
        progress: bool,
    ) -> None:
        """Trains all of these by one config, as far as nobody has; waits for those that others train."""
        left = {one.id: one for one in chosen}
        text, done = config.text, dict[str, float]()
        desc = f"{config.recipe.epochs} of {config.whole} epochs" if config.whole else "retrained"
        with tqdm(total=len(left), desc=desc, unit="structure", disable=None if progress and left else True) as bar:
            while left:
                trials = [one for one in self.writer.trials() if one.user_attrs.get("recipe") == text]
                for trial in trials:
                    structure = trial.user_attrs["structure"]
                    if structure in left and self._is_done(trial, config):
                        del left[structure]
                        done[structure] = trial.values[0]
                        best = max(done.values(), key=self.metric.worth)
                        bar.set_postfix_str(f"best {self.metric.compact(best)}", refresh=False)
                        bar.update()
                busy = {one.user_attrs["structure"]: claimant(one) for one in trials if self._busy(one, heartbeat)}
                free = [one for name, one in left.items() if name not in busy]
                if free:
                    self._claim(free[0], config, heartbeat, device, progress)
                elif left:
                    heartbeat.waits((busy[name] for name in left), "retrains")
                    pause(RETRAIN_POLL)

    def _is_done(self, trial: FrozenTrial, config: RetrainConfig) -> bool:
        """Whether a retraining is finished and its network there, or with another worker on another machine."""
        if trial.state is not TrialState.COMPLETE or config.whole or trial.number in self._whole:
            return trial.state is TrialState.COMPLETE
        facts = trial.user_attrs
        if is_here(network_path(self.folder, facts), facts) or (self._shared and is_elsewhere(facts)):
            self._whole.add(trial.number)
            return True
        return False

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
            if other.number < claim.number and same and (self._is_done(other, config) or self._busy(other, heartbeat)):
                self.writer.fail(claim)
                return
        try:
            result = self._retrain(one, config, device, progress)
        except BaseException:
            self.writer.fail(claim)
            raise
        self.writer.finish(claim, [result["accuracy"]], {**result, **facts})

    def _chooser(self, one: Candidate) -> Chooser:
        """The trial's own proposal; of a rule, which proposed nothing in some spaces, the shares that it keeps."""
        if not one.rule or one.structure is None:
            return chooser_of(self.space, one.parameters)
        sizes = {group.name: group.size for group in self.graph.groups}
        shares = {f"keep {name}": width / sizes[name] for name, width in one.structure.widths.items()}
        return chooser_of(replace(self.space, kind="ratios", fixed=()), shares)

    def _retrain(self, one: Candidate, config: RetrainConfig, device: str, progress: bool) -> dict[str, Any]:
        assert one.structure is not None
        assert one.cost is not None
        folder = self.folder / f"{one.id}-{config.key}"
        folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        chosen = one.structure
        again = self._chooser(one)
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
            test=not config.whole,
        )
        spent = cost(self.graph, small.structure)
        last = small.histories[-1]
        facts = {
            "structure": one.id,
            "trial": one.number,
            "accuracy": last.validation_accuracy,
            "recalibrated_accuracy": last.start_accuracy,
            "recipe": config.text,
            "seconds": sum(history.seconds for history in small.histories),
            "wall_seconds": time.perf_counter() - start,
        }
        if small.structure != chosen:
            facts |= {"ended": small.structure.id, **pack(self.graph, small.structure, spent)}
        if config.whole:
            return facts
        facts["test_accuracy"] = last.test_accuracy
        save(small.model, folder / NETWORK, cost=spent, provenance=facts)
        return {**facts, **noted_network(folder / NETWORK)}


def within(spent: Cost) -> Target:
    """The target of a flow that chooses again: no more MACs and no more parameters than its first structure had.

    So the structure that the flow ends with meets the budget that the first one met.
    """
    most = {"macs": float(spent.macs), "params": float(spent.params)}
    return Target(tuple(Bound(axis, (1 - FILL) * high, high) for axis, high in most.items()), capped=True)
