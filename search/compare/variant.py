"""One variant, from its study to its figures; what its run folder has is not done again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from backbones.artefact import load as load_artefact
from backbones.artefact import save
from search.data.task import ACCURACY, MetricSpec
from search.formatting import counted
from search.review.candidate import Candidate
from search.review.footprint import Footprint
from search.run.console import Console
from search.run.dense import ensure_dense
from search.run.folder import RunFolder, locked, timed
from search.run.front_context import with_dense_accuracy
from search.run.inputs import RunInputs, run_threads
from search.run.sections import SparsifySection
from search.run.stages import check_before_training, note_command, search_stage, study_from_file
from search.run.study_file import StudyFile
from search.study.finalists import Finalists
from search.study.retraining_task import RetrainConfig
from search.study.study import Study
from search.training.double_pruning import sparsify
from search.training.metrics import netscore
from search.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class SeedStats:
    """A number that was measured once for every seed.

    Attributes:
        values: one for each seed, in the order of the seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"mean": self.mean, "std": self.std, "values": list(self.values)}

    @staticmethod
    def over(function: Callable[..., float], *columns: SeedStats) -> SeedStats:
        """What a function gives for several columns of numbers, seed by seed."""
        rows = zip(*(column.values for column in columns), strict=True)
        return SeedStats(tuple(function(*row) for row in rows))


@dataclass(frozen=True, slots=True)
class DenseResult:
    """A dense network that variants start from.

    Attributes:
        label: the name that tables give it.
        macs: multiply-adds for one image.
        params: number of parameters.
        validation: the task's metric (accuracy, with classes) on the validation split; a percentage is a fraction.
        test: the same on the test split.
        footprint: latency and size on disk; None before they were measured.
        metric: what `validation` and `test` are.
    """

    label: str
    macs: int
    params: int
    validation: float
    test: float
    footprint: Footprint | None = None
    metric: MetricSpec = ACCURACY

    @property
    def netscore(self) -> float | None:
        """NetScore of the test accuracy; None where that is zero, and for another metric."""
        return known_netscore(self.test, self.params, self.macs) if self.metric == ACCURACY else None

    def lost(self, test: float) -> float:
        """How much worse than the dense network's a value on the test split is; below 0 where it is better."""
        return self.metric.worth(self.test) - self.metric.worth(test)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the metric is told once, beside them."""
        return {**{key: value for key, value in asdict(self).items() if key != "metric"}, "netscore": self.netscore}


@dataclass(frozen=True, slots=True)
class SparseResult:
    """A pruned network without its smallest weights.

    Attributes:
        nonzero: number of parameters that are not held at zero.
        masked: number of parameters that are held at zero.
        validation: validation accuracy after tuning, a fraction.
        test: test accuracy after tuning, a fraction.
        netscore: computed with the nonzero parameters; None where a test accuracy is zero.
    """

    nonzero: SeedStats
    masked: SeedStats
    validation: SeedStats
    test: SeedStats
    netscore: SeedStats | None

    @property
    def sparsity(self) -> float:
        """Share of the pruned network's parameters that is held at zero."""
        return self.masked.mean / (self.masked.mean + self.nonzero.mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"sparsity": self.sparsity, **_plain(self)}


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One structure of one variant, retrained with every seed.

    Attributes:
        variant: name of the variant.
        dense: label of the dense network that it starts from.
        structure: id of the structure.
        settings: fingerprint of the variant's study.
        scored: number of different structures that the search scored, or that a rule gave.
        search_seconds: that the search took; None where the record of the run does not know.
        score: what the study's scorer said of the structure; None where it could not score it.
        scorer: name of that scorer.
        removed: names of the layers that are gone as a whole.
        macs: multiply-adds for one image; a flow that chooses again may end with others for every seed.
        params: number of parameters; it too may differ between seeds.
        validation: validation accuracy after the last epoch, a fraction.
        test: test accuracy after the last epoch, a fraction.
        retrain_seconds: that each retraining took.
        artefacts: paths of the retrained networks.
        sparse: what double pruning makes of the retrained networks.
        footprint: latency and size on disk of the first seed's network; None before they were measured.
        metric: what `validation` and `test` are.
    """

    variant: str
    dense: str
    structure: str
    settings: str
    scored: int
    search_seconds: float | None
    score: float | None
    scorer: str
    removed: tuple[str, ...]
    macs: SeedStats
    params: SeedStats
    validation: SeedStats
    test: SeedStats
    retrain_seconds: SeedStats
    artefacts: tuple[str, ...] = field(default=(), repr=False)
    sparse: SparseResult | None = None
    footprint: Footprint | None = None
    metric: MetricSpec = ACCURACY

    @property
    def netscore(self) -> SeedStats | None:
        """NetScore of every seed; None where a test accuracy is zero, and for another metric."""
        return seed_netscores(self.test, self.params, self.macs, self.metric)

    def to_dict(self, dense: DenseResult) -> dict[str, Any]:
        """Plain values, with shares of the dense network and the drop on the test split (above 0: lost)."""
        plain = {"whole" if name == "dense" else name: value for name, value in _plain(self).items()}
        del plain["metric"]  # told once, beside all of them
        return {
            **plain,
            "macs_share": self.macs.mean / dense.macs,
            "params_share": self.params.mean / dense.params,
            "drop": dense.lost(self.test.mean),
            "netscore": self.netscore and self.netscore.to_dict(),
            "sparse": self.sparse and {**self.sparse.to_dict(), "drop": dense.lost(self.sparse.test.mean)},
            "footprint": self.footprint and asdict(self.footprint),
            "removed": list(self.removed),
            "artefacts": list(self.artefacts),
        }


def known_netscore(accuracy: float, params: float, macs: float) -> float | None:
    """The NetScore of a network; None for one that is never right.

    Args:
        accuracy: a fraction.
        params: number of parameters.
        macs: multiply-adds for one image.
    """
    return netscore(accuracy, params, macs) if accuracy > 0 else None


def seed_netscores(
    accuracy: SeedStats, params: SeedStats, macs: SeedStats, metric: MetricSpec = ACCURACY
) -> SeedStats | None:
    """NetScore of every seed, None where one of the networks is never right, or for a metric that is not accuracy."""
    known = metric == ACCURACY and min(accuracy.values) > 0
    return SeedStats.over(netscore, accuracy, params, macs) if known else None


def _plain(value: Any) -> dict[str, Any]:
    found: Mapping[str, Any] = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: one.to_dict() if isinstance(one, SeedStats) else one for name, one in found.items()}


Results = Sequence[Mapping[str, Any]]
"""Facts of the retrainings of one structure, one for each seed."""


def run_variant(study: StudyFile, inputs: RunInputs, folder: RunFolder, console: Console, seeds: int) -> VariantResult:
    """Searches, retrains with every seed, and prunes single weights where [sparsify] says so.

    Args:
        study: the variant's settings.
        inputs: data, dense network and graph; the network is trained here where the folder has no trained one.
        folder: the variant's run folder.
        console: where the user reads on.
        seeds: retrainings of each structure.

    Returns:
        the figures of the structure with the best mean validation accuracy; the label of the dense network is empty.

    Raises:
        SecateurError: as the stages of `secateur run`.
    """
    with locked(folder), searched(study, inputs, folder, console) as opened:
        best, results = _retrain(opened, study, seeds, inputs, folder, console)
        with_dense_accuracy(opened.front(), inputs, folder).save(folder.path)
        result = replace(_variant_result(study, opened, best, results, folder), metric=inputs.data.task.spec)
        if study.sparsify.amount > 0:
            with timed(folder, "double pruning"):
                result = replace(result, sparse=_sparsify(study.sparsify, result, inputs, folder, console))
    return result


@contextmanager
def searched(study: StudyFile, inputs: RunInputs, folder: RunFolder, console: Console) -> Iterator[Study]:
    """The search of a variant, done as far as it was not; in the block torch computes on as many threads as fit."""
    check_before_training(study, inputs)
    note_command(folder, inputs.device)
    with run_threads(study, inputs):
        with timed(folder, "dense network"):
            ensure_dense(inputs, study, folder, console)
        opened = study_from_file(study, inputs, folder)
        search_stage(opened, study, folder, console)
        yield opened


def retrain_seed(study: StudyFile, inputs: RunInputs, folder: RunFolder, seed: int) -> None:
    """Retrains, after the search, with one of the seeds; beside others that retrain with another one.

    Args:
        study: the variant's settings.
        inputs: data, dense network and graph.
        folder: the variant's run folder, not locked: trainings are claimed in the study's storage.
        seed: its number, from 0; with finalists the first one chooses what the others train.
    """
    with run_threads(study, inputs):
        opened, wanted = study_from_file(study, inputs, folder), study.retrain
        places: int | list[Candidate] = wanted.top
        if seed and wanted.finalists:
            places = _chosen(opened, study, opened.finalists(wanted.top, wanted.finalists, wanted.recipe.epochs))
        _retrain_with(opened, study, seed, places, inputs.device, progress=False)


def _retrain(
    opened: Study, study: StudyFile, seeds: int, inputs: RunInputs, folder: RunFolder, console: Console
) -> tuple[Candidate, Results]:
    wanted = study.retrain
    plan = opened.finalists(wanted.top, wanted.finalists, wanted.recipe.epochs)
    console.head(f"Retraining, {counted(seeds, 'seed')}: {plan}")
    places: int | list[Candidate] = wanted.top
    by_seed = []
    for seed in range(seeds):
        with timed(folder, "retraining"):
            by_seed.append(_retrain_with(opened, study, seed, places, inputs.device, progress=console.progress))
        if not seed:
            places = _chosen(opened, study, plan)
    assert isinstance(places, list)
    worth = inputs.data.task.spec.worth
    best = max(places, key=lambda one: worth(sum(results[one.id]["accuracy"] for results in by_seed)))
    return best, [results[best.id] for results in by_seed]


def _chosen(opened: Study, study: StudyFile, plan: Finalists) -> list[Candidate]:
    """What the first seed trained to the end: the other seeds train these."""
    wanted = study.retrain
    done = opened.retrained(_recipe(study, 0), wanted.way, wanted.start)
    return [one for one in plan.members if one.id in done]


def _recipe(study: StudyFile, seed: int) -> Recipe:
    return replace(study.retrain.recipe, seed=study.retrain.recipe.seed + seed)


def _retrain_with(
    opened: Study, study: StudyFile, seed: int, places: int | list[Candidate], device: str, *, progress: bool
) -> Mapping[str, Mapping[str, Any]]:
    """Retrains with one seed what is not retrained; structure id -> what came out."""
    wanted, recipe = study.retrain, _recipe(study, seed)
    opened.retrain(
        places,
        finalists=None if seed else wanted.finalists,
        recipe=recipe,
        flow=wanted.way,
        start=wanted.start,
        device=device,
        progress=progress,
    )
    return opened.retrained(recipe, wanted.way, wanted.start)


def _variant_result(
    study: StudyFile, opened: Study, best: Candidate, results: Results, folder: RunFolder
) -> VariantResult:
    macs, params = best.on("macs") or 0.0, best.on("params") or 0.0
    return VariantResult(
        variant=study.name,
        dense="",
        structure=best.id,
        settings=study.fingerprint,
        scored=len({one.id for one in opened.candidates(retrained=False) if one.score is not None}),
        search_seconds=folder.record().get("seconds", {}).get("search"),
        score=best.score,
        scorer=study.search.scorer,
        removed=best.structure.removed if best.structure is not None else (),
        macs=SeedStats(tuple(one.get("macs", macs) for one in results)),
        params=SeedStats(tuple(one.get("params", params) for one in results)),
        validation=SeedStats(tuple(one["accuracy"] for one in results)),
        test=SeedStats(tuple(one["test_accuracy"] for one in results)),
        retrain_seconds=SeedStats(tuple(one["seconds"] for one in results)),
        artefacts=tuple(one["artefact"] for one in results),
    )


def _sparsify(
    section: SparsifySection, result: VariantResult, inputs: RunInputs, folder: RunFolder, console: Console
) -> SparseResult:
    """Double pruning of every seed's network; each has a folder named by what was done, so that nothing is repeated."""
    console.head(f"Double pruning: {section.amount:.0%} of the weights, {section.recipe.epochs} epochs")
    found = []
    for number, path in enumerate(result.artefacts):
        network = Path(path)
        recipe = replace(section.recipe, seed=section.recipe.seed + number)
        name = f"{network.parent.name}-{RetrainConfig(recipe).key}-{section.scope}-{section.amount:g}"
        place = folder.path / "sparse" / (name + "".join(f"-{layer}" for layer in section.spare))
        model = load_artefact(network, inputs.model)
        sparse = sparsify(
            model,
            inputs.data,
            recipe,
            section.amount,
            scope=section.scope,
            spare=section.spare,
            teacher=inputs.model,
            folder=place,
            device=inputs.device,
            progress=console.progress,
        )
        save(model, place / "network.safetensors")
        found.append((sparse.parameters, sparse.history))
    test = SeedStats(tuple(history.test_accuracy or 0.0 for _, history in found))
    nonzero = SeedStats(tuple(float(parameters.effective) for parameters, _ in found))
    return SparseResult(
        nonzero=nonzero,
        masked=SeedStats(tuple(float(parameters.masked) for parameters, _ in found)),
        validation=SeedStats(tuple(history.validation_accuracy for _, history in found)),
        test=test,
        netscore=seed_netscores(test, nonzero, result.macs, result.metric),
    )
