"""What became of the variants of a study, as values: means over seeds, shares of the dense network, NetScores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from search.review.footprint import Footprint
from search.training.metrics import netscore


@dataclass(frozen=True, slots=True)
class Spread:
    """One number for every seed.

    Attributes:
        values: in the order of the seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None of a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"mean": self.mean, "std": self.std, "values": list(self.values)}

    @staticmethod
    def over(function: Callable[..., float], *columns: Spread) -> Spread:
        """A function of several numbers, seed by seed."""
        rows = zip(*(column.values for column in columns), strict=True)
        return Spread(tuple(function(*row) for row in rows))


@dataclass(frozen=True, slots=True)
class Whole:
    """A dense network that variants start from.

    Attributes:
        label: as tables name it.
        macs: multiply-adds of one sample.
        params: parameters.
        validation: accuracy, a fraction.
        test: likewise.
        footprint: latency and size on disk.
    """

    label: str
    macs: int
    params: int
    validation: float
    test: float
    footprint: Footprint | None = None

    @property
    def netscore(self) -> float | None:
        """Of the test accuracy; None where it is zero."""
        return omega(self.test, self.params, self.macs)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "netscore": self.netscore}


@dataclass(frozen=True, slots=True)
class Sparser:
    """A pruned network without its smallest weights.

    Attributes:
        nonzero: parameters that are left.
        masked: parameters held at zero.
        validation, test: accuracy after tuning.
        netscore: with the parameters that are left.
    """

    nonzero: Spread
    masked: Spread
    validation: Spread
    test: Spread
    netscore: Spread | None

    @property
    def sparsity(self) -> float:
        """Share of the pruned network's parameters that is held at zero."""
        return self.masked.mean / (self.masked.mean + self.nonzero.mean)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"sparsity": self.sparsity, **_plain(self)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One structure of one variant, retrained with every seed.

    Attributes:
        variant: its name.
        whole: label of the dense network.
        structure: id.
        settings: fingerprint of the variant's study.
        scored: different structures that the search scored; of a rule those that it gave.
        search_seconds: it took, as far as the record knows.
        score: of the structure, by the study's scorer.
        scorer: which.
        removed: layers that are gone as a whole.
        macs, params: of what was retrained; a flow that chooses again may end elsewhere with every seed.
        validation, test: accuracy at the last epoch.
        retrain_seconds: of each retraining.
        artefacts: the retrained networks.
        sparse: what double pruning makes of it.
        footprint: latency and size on disk, of the first seed's network.
    """

    variant: str
    whole: str
    structure: str
    settings: str
    scored: int
    search_seconds: float | None
    score: float | None
    scorer: str
    removed: tuple[str, ...]
    macs: Spread
    params: Spread
    validation: Spread
    test: Spread
    retrain_seconds: Spread
    artefacts: tuple[str, ...] = field(default=(), repr=False)
    sparse: Sparser | None = None
    footprint: Footprint | None = None

    @property
    def netscore(self) -> Spread | None:
        """Seed by seed; None where an accuracy is zero."""
        return omegas(self.test, self.params, self.macs)

    def to_dict(self, whole: Whole) -> dict[str, Any]:
        """Plain values, with shares of the dense network and the drop in test accuracy (a fraction, above 0: lost)."""
        return {
            **_plain(self),
            "macs_share": self.macs.mean / whole.macs,
            "params_share": self.params.mean / whole.params,
            "drop": whole.test - self.test.mean,
            "netscore": self.netscore and self.netscore.to_dict(),
            "sparse": self.sparse and {**self.sparse.to_dict(), "drop": whole.test - self.sparse.test.mean},
            "footprint": self.footprint and asdict(self.footprint),
            "removed": list(self.removed),
            "artefacts": list(self.artefacts),
        }


def omega(accuracy: float, params: float, macs: float) -> float | None:
    """NetScore, None for a network that is never right."""
    return netscore(accuracy, params, macs) if accuracy > 0 else None


def omegas(accuracy: Spread, params: Spread, macs: Spread) -> Spread | None:
    """NetScore of every seed, None where one of the networks is never right."""
    return Spread.over(netscore, accuracy, params, macs) if min(accuracy.values) > 0 else None


def _plain(value: Any) -> dict[str, Any]:
    found: Mapping[str, Any] = {name: getattr(value, name) for name in value.__dataclass_fields__}
    return {name: one.to_dict() if isinstance(one, Spread) else one for name, one in found.items()}
