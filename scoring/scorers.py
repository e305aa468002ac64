"""Training-free scores by name: what a pruned structure is worth before it is retrained. Higher is better."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from backbones.arguments import explained
from backbones.cost import cost
from backbones.errors import SecateurError, check_name
from backbones.export_program import run
from backbones.graph import ChannelGraph
from backbones.inputs import as_arguments
from backbones.modes import fast_precision
from backbones.state import untouched
from backbones.structure import Structure
from scoring.combination import rank_sum_score
from scoring.logit_scores import adaptive_bn, adaptive_loss, fidelity, logit_kl, reconstruction
from scoring.naswot import naswot, naswot_last
from scoring.region_scores import naswot_balanced, region_kernel, region_separation
from scoring.scoring_task import ScoredStructure, Scorer, ScoringTask
from scoring.synflow import synflow


def _naswot(scored: ScoredStructure) -> float:
    """log|det sum_l K_l|, K_l the pairs' agreeing units of layer l (Mellor et al., ICML 2021, equation 2).

    Needs the batch only; one forward pass of the pruned network, batch norms folded into convolutions.
    """
    with fast_precision(scored.task.images, bool(scored.task.half)):
        return naswot(scored.folded, scored.task.images)


def _naswot_last(scored: ScoredStructure) -> float:
    """log|det(K / N)| of the last non-linearity alone; not published.

    Needs the batch only; one forward pass of the pruned network, batch norms folded into convolutions.
    """
    with fast_precision(scored.task.images, bool(scored.task.half)):
        return naswot_last(scored.folded, scored.task.images)


def _macs(scored: ScoredStructure) -> float:
    """Control: multiply-adds of one sample. No forward pass."""
    return float(cost(scored.task.graph, scored.structure).macs)


def _params(scored: ScoredStructure) -> float:
    """Control: number of parameters. No forward pass."""
    return float(cost(scored.task.graph, scored.structure).params)


def _units(scored: ScoredStructure) -> float:
    """Control: number of kept channels. No forward pass."""
    return float(sum(scored.structure.widths.values()))


def _random(scored: ScoredStructure) -> float:
    """Control: a number in [0, 1) drawn by the structure's id, equal on every machine. No forward pass."""
    seed = int.from_bytes(hashlib.sha256(scored.structure.id.encode()).digest()[:8], "big")
    return float(np.random.default_rng(seed).random())


SCORERS: dict[str, Scorer] = {
    "naswot": _naswot,
    "naswot_last": _naswot_last,
    "naswot_balanced": naswot_balanced,
    "region_kernel": region_kernel,
    "region_separation": region_separation,
    "fidelity": fidelity,
    "logit_kl": logit_kl,
    "adaptive_bn": adaptive_bn,
    "adaptive_loss": adaptive_loss,
    "reconstruction": reconstruction,
    "synflow": synflow,
    "macs": _macs,
    "params": _params,
    "units": _units,
    "random": _random,
}

REFITTED = "refitted:"
"""Before the name of a scorer: asked of the refitted network, "refitted:naswot"."""
HALVED = ("naswot", "naswot_last", "reconstruction")
"""Scorers that a study computes in bfloat16 where that is faster: structures keep their order (studies/README.md)."""
OF_WIDTHS = ("macs", "params", "units", "random", "reconstruction")
"""Scorers that see the same network refitted or not, and the one that refits by itself."""

DEFAULT_SCORER = "reconstruction"
"""What a study scores by unless told otherwise: see studies/README.md for the evidence."""

REPLACED: dict[str, str] = {"region_agreement": "region_kernel", "readout": "fidelity", "zico": "region_kernel"}
"""Scorers of before and what took the place of each. Their columns stay in the tables of `studies/results`."""


OF_CLASSES = ("region_separation", "logit_kl", "adaptive_bn", "adaptive_loss")
"""Scorers that need classes: labels, or logits that are probabilities."""


def check_scorer(name: str, classes: bool = True) -> None:
    """Checks that a name is a key of `SCORERS`, one asked of refitted networks, or several joined by "+".

    Args:
        name: as it was given.
        classes: whether the task has classes.

    Raises:
        SecateurError: when it is not; for a scorer that is no longer offered the message names what took its place;
            for one that needs classes where the task has none.
    """
    parts = name.split("+")
    for part in parts:
        plain = part.removeprefix(REFITTED)
        if plain in REPLACED:
            raise SecateurError(f"scorer {plain!r} is no longer offered; {REPLACED[plain]!r} took its place")
        check_name("scorer", plain, SCORERS)
        if plain != part and plain in OF_WIDTHS:
            raise SecateurError(f"scorer {plain!r} gives the same with and without {REFITTED!r}; leave it out")
        if plain in OF_CLASSES and not classes:
            others = ", ".join(one for one in SCORERS if one not in OF_CLASSES)
            raise SecateurError(f"scorer {plain!r} needs classes, which the task has not; these do not: {others}")
    if len(set(parts)) < len(parts):
        raise SecateurError(f"scorer {name!r} names a part twice; a rank sum is of different scorers")


def scorer_of(name: str) -> Scorer:
    """The scorer of a name.

    Args:
        name: a key of `SCORERS`; "refitted:a" is a of the refitted network; "a+b" is the rank sum of a and b
            (`scoring.combination`).

    Raises:
        SecateurError: for an unknown name.
    """
    check_scorer(name)
    if "+" in name:
        return partial(rank_sum_score, {part: scorer_of(part) for part in name.split("+")})
    if name.startswith(REFITTED):
        return partial(_refitted, SCORERS[name.removeprefix(REFITTED)])
    return SCORERS[name]


def halved(name: str) -> bool:
    """Whether a scorer, or a part of a rank sum, is one that a study may compute in bfloat16."""
    return any(part.removeprefix(REFITTED) in HALVED for part in name.split("+"))


def refits(name: str) -> bool:
    """Whether a scorer, or a part of a rank sum, looks at refitted networks, and so needs images to fit."""
    return any(part == "reconstruction" or part.startswith(REFITTED) for part in name.split("+"))


def _refitted(scorer: Scorer, scored: ScoredStructure) -> float:
    return scorer(scored.after_refit)


@explained
def score(
    name: str,
    model: nn.Module,
    graph: ChannelGraph,
    structure: Structure,
    batch: Any,
    labels: Tensor | None = None,
    recalibrate: Sequence[Any] | None = None,
    reference: Sequence[Structure] = (),
    fit: Tensor | None = None,
) -> float:
    """The score of one structure.

    Args:
        name: a key of `SCORERS`, of the refitted network "refitted:naswot", or a rank sum of several,
            "region_separation+fidelity".
        model: the dense, traced network.
        graph: its channel graph.
        structure: what is scored.
        batch: (B, C, H, W) normalised images, or inputs of another form, as the network takes them: a tuple of
            arguments, a dictionary of arguments by name.
        labels: (B,) their classes, for scorers that need them.
        recalibrate: small batches for batch-norm statistics, for scorers that need them.
        reference: structures of about the same cost that a rank sum ranks among; a study draws them itself.
        fit: (F, C, H, W) normalised images to refit on, none of the batch, for scorers of refitted networks.

    Raises:
        SecateurError: for an unknown name, a structure of another graph, or a structure that cannot be scored.
    """
    scorer = scorer_of(name)
    structure.check(graph)
    with untouched(model):
        run(model, as_arguments(batch))
        task = ScoringTask(model, graph, batch, labels, recalibrate, tuple(reference), fit=fit)
        return scorer(ScoredStructure(task, structure))
