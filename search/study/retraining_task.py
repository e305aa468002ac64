"""One retraining of a structure: how it is trained, from its start to the saved network."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import nn

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
from search.study.identity import to_record
from search.study.networks import NETWORK, noted_network
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
        whole: of a short training, which decides between finalists, the recipe of the whole one.
    """

    recipe: Recipe = field(default_factory=Recipe)
    flow: Flow = field(default_factory=Flow)
    start: str = DEFAULT_START
    whole: Recipe | None = None

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
        if self.whole is None:
            return to_record(self._training)
        own = self.recipe.to_dict()
        whole = {name: value for name, value in self.whole.to_dict().items() if value != own[name]}
        return to_record({**self._training, "whole": whole})

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
        return replace(self, recipe=self.recipe.in_epochs(epochs), whole=self.recipe, start=start)


@dataclass(frozen=True, slots=True)
class RetrainingTask:
    """What the retrainings of a study have in common.

    Attributes:
        model: the dense network, and the teacher.
        graph: the dense network's channel graph.
        data: the task.
        folder: holds one folder per structure and config: network, checkpoint and curve of each training.
        space: the search's space, for flows that choose again.
        refit: makes the network of a structure with refitted weights.
    """

    model: nn.Module
    graph: ChannelGraph
    data: Data
    folder: Path
    space: Space
    refit: Callable[[Structure], nn.Module]

    def place(self, one: Candidate, config: RetrainConfig) -> Path:
        """The folder of one retraining."""
        return self.folder / f"{one.id}-{config.key}"

    def run(self, one: Candidate, config: RetrainConfig, device: str, progress: bool) -> dict[str, Any]:
        """Trains a structure, or goes on with its training; saves the network of a whole one.

        Returns:
            what a storage notes of it: validation and test accuracy, seconds, where the network lies.
        """
        assert one.structure is not None
        assert one.cost is not None
        folder = self.place(one, config)
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

    def _chooser(self, one: Candidate) -> Chooser:
        """The trial's own proposal; of a rule, which proposed nothing in some spaces, the shares that it keeps."""
        if not one.rule or one.structure is None:
            return chooser_of(self.space, one.parameters)
        sizes = {group.name: group.size for group in self.graph.groups}
        shares = {f"keep {name}": width / sizes[name] for name, width in one.structure.widths.items()}
        return chooser_of(replace(self.space, kind="ratios", fixed=()), shares)


def within(spent: Cost) -> Target:
    """The target of a flow that chooses again: no more MACs and no more parameters than its first structure had.

    So the structure that the flow ends with meets the budget that the first one met.
    """
    most = {"macs": float(spent.macs), "params": float(spent.params)}
    return Target(tuple(Bound(axis, (1 - FILL) * high, high) for axis, high in most.items()), capped=True)
