"""Runs the variants of a comparison, in turn or several at a time, from one dense network where they agree on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from search.compare.variant import VariantResult, retrain_seed, run_variant, searched
from search.run.console import Console
from search.run.dense import ensure_dense, take_twin
from search.run.folder import RunFolder, locked, timed
from search.run.inputs import RunInputs, load_run_inputs
from search.run.stages import check_before_training
from search.run.study_file import StudyFile
from search.training.parallel import process_pool, results_of


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What is compared, and what all variants have in common.

    Attributes:
        variants: name of the variant -> its study.
        folder: holds a run folder for each variant, under the variant's name.
        device: for training: "cpu", "cuda", or "auto" for a GPU when there is one.
        seeds: retrainings of each structure.
    """

    variants: Mapping[str, StudyFile]
    folder: Path
    device: str
    seeds: int

    def run_folder(self, name: str) -> RunFolder:
        """The run folder of a variant."""
        return RunFolder(self.folder / name)


def load_variant(plan: ComparisonPlan, name: str, loaded: dict[str, RunInputs]) -> RunInputs:
    """Data, dense network and graph of a variant; those of another variant where they are the same.

    The trained dense network of another variant is taken over into the run folder. Layers that [space] leaves out are
    marked in the graph, so that a graph is shared only where those agree.

    Args:
        plan: what is compared.
        name: the variant's name.
        loaded: what was loaded for other variants; the variant is added.
    """
    study = plan.variants[name]
    for other, twin in plan.variants.items():
        if other != name and dense_key(twin) == dense_key(study):
            take_twin(plan.run_folder(name), plan.run_folder(other))
    for other, inputs in loaded.items():
        twin = plan.variants[other]
        left_out = (twin.space.ignore, twin.space.only) == (study.space.ignore, study.space.only)
        if left_out and dense_key(twin) == dense_key(study):
            loaded[name] = inputs
            return inputs
    loaded[name] = load_run_inputs(study, plan.run_folder(name), plan.device)
    return loaded[name]


def dense_key(study: StudyFile) -> str:
    """A text that is equal for studies whose dense network is the same."""
    return repr((study.model, study.data, study.task, study.dense, study.seed))


def first_variants(variants: Mapping[str, StudyFile], names: Iterable[str]) -> dict[str, str]:
    """`dense_key` of each different dense network -> the first of the named variants that starts from it."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(dense_key(variants[name]), name)
    return found


def dense_label(variants: Mapping[str, StudyFile], name: str) -> str:
    """What tables call the dense network of a variant.

    It is the architecture; where several dense networks have the same one, the first variant that starts from this one
    is added.
    """
    first = first_variants(variants, variants)
    kinds = [_architecture(variants[one]) for one in first.values()]
    kind = _architecture(variants[name])
    return f"dense {kind}" if kinds.count(kind) == 1 else f"dense {kind} ({first[dense_key(variants[name])]})"


def _architecture(study: StudyFile) -> str:
    return study.model.backbone or str(study.model.factory).rpartition(":")[2]


def run_in_turn(
    plan: ComparisonPlan, names: Sequence[str], console: Console
) -> tuple[dict[str, VariantResult], dict[str, RunInputs]]:
    """Runs one variant after the other.

    Args:
        plan: what is compared.
        names: names of the variants to run.
        console: where the user reads on.

    Returns:
        by name of the variant: its result, and what it started from.
    """
    loaded: dict[str, RunInputs] = {}
    found = {}
    for number, name in enumerate(names, 1):
        console.head(f"Variant {number} of {len(names)}: {name}")
        inputs = load_variant(plan, name, loaded)
        found[name] = run_variant(plan.variants[name], inputs, plan.run_folder(name), console, plan.seeds)
    return found, loaded


def run_together(
    plan: ComparisonPlan, names: Sequence[str], processes: int, console: Console
) -> tuple[dict[str, VariantResult], dict[str, RunInputs]]:
    """As `run_in_turn`, several at a time: the different dense networks, then all searches, then all retrainings.

    Args:
        plan: what is compared.
        names: names of the variants to run.
        processes: how many dense networks, searches or retrainings at a time.
        console: where the user reads on.
    """
    console.head(f"{len(names)} variants, {processes} processes")
    leaders = list(first_variants(plan.variants, names).values())
    # Where finalists are trained the first seed finds out which of them the other seeds train.
    later = [name for name in names if plan.variants[name].retrain.finalists]
    sooner = [name for name in names if name not in later]
    firsts = [(name, 0) for name in later]
    others = [(name, seed) for seed in range(1, plan.seeds) for name in later]
    with process_pool(processes) as pool:
        run = partial(results_of, pool, processes=processes)
        for name in run([partial(_train_dense, plan, name) for name in leaders]):
            console.say(f"  {name}: the dense network is there")
        for name in run([partial(_search, plan, name) for name in names]):
            console.say(f"  {name}: the structure is there")
        for ones in ([*firsts, *((name, seed) for seed in range(plan.seeds) for name in sooner)], others):
            for name, seed in run([partial(_retrain, plan, *one) for one in ones]):
                console.say(f"  {name}: seed {seed} is retrained")
        found = dict(run([partial(_run_alone, plan, name) for name in names]))
    loaded: dict[str, RunInputs] = {}
    for name in names:
        load_variant(plan, name, loaded)
    return found, loaded


def _train_dense(plan: ComparisonPlan, name: str) -> str:
    """Trains the dense network of a variant, where it needs training; returns the variant's name."""
    study, folder = plan.variants[name], plan.run_folder(name)
    inputs = load_variant(plan, name, {})
    with locked(folder):
        check_before_training(study, inputs)
        with timed(folder, "dense network"):
            ensure_dense(inputs, study, folder, Console(quiet=True))
    return name


def _search(plan: ComparisonPlan, name: str) -> str:
    """Searches one variant and looks again at its best, once for all seeds; returns its name."""
    study, inputs, folder = plan.variants[name], load_variant(plan, name, {}), plan.run_folder(name)
    with locked(folder), searched(study, inputs, folder, Console(quiet=True)) as opened:
        opened.finalists(study.retrain.top, study.retrain.finalists, study.retrain.recipe.epochs)
    return name


def _retrain(plan: ComparisonPlan, name: str, seed: int) -> tuple[str, int]:
    """Retrains one variant with one of the seeds; returns both."""
    retrain_seed(plan.variants[name], load_variant(plan, name, {}), plan.run_folder(name), seed)
    return name, seed


def _run_alone(plan: ComparisonPlan, name: str) -> tuple[str, VariantResult]:
    """What is left to do of one variant; returns its name and result."""
    inputs = load_variant(plan, name, {})
    return name, run_variant(plan.variants[name], inputs, plan.run_folder(name), Console(quiet=True), plan.seeds)
