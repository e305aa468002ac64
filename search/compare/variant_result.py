"""The figures of a variant, of its dense network and of its sparse network: means over seeds, shares, NetScores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from search.review.footprint import Footprint
from search.training.metrics import netscore


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
        validation: validation accuracy, a fraction.
        test: test accuracy, a fraction.
        footprint: latency and size on disk; None before they were measured.
    """

    label: str
    macs: int
    params: int
    validation: float
    test: float
    footprint: Footprint | None = None

    @property
    def netscore(self) -> float | None:
        """NetScore of the test accuracy; None where that is zero."""
        return known_netscore(self.test, self.params, self.macs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "netscore": self.netscore}


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

    @property
    def netscore(self) -> SeedStats | None:
        """NetScore of every seed; None where a test accuracy is zero."""
        return seed_netscores(self.test, self.params, self.macs)

    def to_dict(self, dense: DenseResult) -> dict[str, Any]:
        """Plain values, with shares of the dense network and the drop in test accuracy (a fraction, above 0: lost)."""
        plain = {"whole" if name == "dense" else name: value for name, value in _plain(self).items()}
        return {
            **plain,
            "macs_share": self.macs.mean / dense.macs,
            "params_share": self.params.mean / dense.params,
            "drop": dense.test - self.test.mean,
            "netscore": self.netscore and self.netscore.to_dict(),
            "sparse": self.sparse and {**self.sparse.to_dict(), "drop": dense.test - self.sparse.test.mean},
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


def seed_netscores(accuracy: SeedStats, params: SeedStats, macs: SeedStats) -> SeedStats | None:
    """NetScore of every seed, None where one of the networks is never right."""
    return SeedStats.over(netscore, accuracy, params, macs) if min(accuracy.values) > 0 else None


def _plain(value: Any) -> dict[str, Any]:
    found: Mapping[str, Any] = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: one.to_dict() if isinstance(one, SeedStats) else one for name, one in found.items()}
