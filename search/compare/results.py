"""The result of a comparison: as a table for the terminal, and as `compare.json`, `compare.md`, `compare.csv`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.files import write_text
from search.compare.variant import DenseResult, SeedStats, VariantResult
from search.data.task import ACCURACY, MetricSpec
from search.formatting import amount, counted, csv_table, markdown_table, milliseconds, percent, text_table
from search.review.footprint import Footprint, footprint_cells

TERMINAL_HEADER = ("", "MACs", "params", "ms", "test", "drop", "Omega")
PAGE_HEADER = (
    "", "MACs", "parameters", "size", "ms a batch", "ms one", "validation, %", "test, %", "drop, points", "NetScore",
    "search, s", "structures",
)  # fmt: skip
ABOUT = (
    "Shares are of the dense network above. {values}: last epoch, mean ± sample standard deviation over the seeds; "
    "of several structures of a variant the one with the best mean validation {metric}. Milliseconds: a batch of "
    "{batch} images, and one alone, on {threads}, the dense network and its variants measured side by side.{netscore}"
)
NETSCORE = (
    " NetScore (Omega): 20 log10(a² / √(p m)), a in percent of the test images, p in millions of parameters, m in 10⁹ "
    "MACs."
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants of one study beside each other.

    Attributes:
        name: the study's name, with its scale.
        seeds: retrainings of each structure.
        environment: command, versions, machine.
        dense: the dense networks that variants start from.
        variants: the result of each variant, in the order of the study file.
    """

    name: str
    seeds: int
    environment: Mapping[str, Any]
    dense: tuple[DenseResult, ...]
    variants: tuple[VariantResult, ...]

    @property
    def metric(self) -> MetricSpec:
        """What validation and test values are, of all variants."""
        return self.dense[0].metric

    def to_dict(self, base: Path | None = None) -> dict[str, Any]:
        """Plain values; the paths of networks are relative to `base`, where one is given."""
        dense = {one.label: one for one in self.dense}
        variants = [one.to_dict(dense[one.dense]) for one in self.variants]
        if base is not None:
            variants = [
                {**one, "artefacts": [os.path.relpath(path, base) for path in one["artefacts"]]} for one in variants
            ]
        return {
            "name": self.name,
            "seeds": self.seeds,
            "metric": asdict(self.metric),
            "environment": dict(self.environment),
            "dense": [one.to_dict() for one in self.dense],
            "variants": variants,
        }

    def save(self, folder: Path) -> None:
        """Writes the three files into an existing folder."""
        write_text(folder / "compare.json", json.dumps(self.to_dict(folder), indent=1, allow_nan=False) + "\n")
        write_text(folder / "compare.md", self.markdown())
        write_text(folder / "compare.csv", self.csv())

    def shown(self) -> str:
        """The table for a terminal, within 80 columns."""
        rows = []
        for dense, family in self._families():
            cost = (amount(dense.macs), amount(dense.params), footprint_cells(dense.footprint)[0])
            rows.append((dense.label, *cost, _value(dense.test, self.metric), "", _number(dense.netscore)))
            for one in family:
                share = (percent(one.macs.mean / dense.macs), percent(one.params.mean / dense.params))
                drop = self.metric.difference(dense.lost(one.test.mean), 2)
                latency, _ = footprint_cells(one.footprint)
                test = _values(one.test, self.metric)
                rows.append((one.variant, *share, latency, test, drop, _number(one.netscore)))
                if one.sparse is not None:
                    share = (share[0], percent(one.sparse.nonzero.mean / dense.params))
                    drop = self.metric.difference(dense.lost(one.sparse.test.mean), 2)
                    test, score = _values(one.sparse.test, self.metric), _number(one.sparse.netscore)
                    rows.append((_sparse_name(one), *share, "", test, drop, score))
        count = len(TERMINAL_HEADER) - (self.metric != ACCURACY)  # NetScore is of accuracies
        return text_table(TERMINAL_HEADER[:count], [row[:count] for row in rows])

    def markdown(self) -> str:
        """A page with the table, the command, the machine and the seeds."""
        first = next(one.footprint for one in self.dense)
        engine = "" if first is None or first.engine == "eager" else f" by {first.engine}"
        threads = "" if first is None else counted(first.threads, "thread") + engine
        plain = self.metric == ACCURACY
        values = "Accuracies" if plain else f"{self.metric.heading} ({self.metric.direction} is better)"
        told = {"values": values, "metric": self.metric.name, "netscore": NETSCORE if plain else ""}
        facts = self.environment
        versions = ", ".join(f"{name} {facts[name]}" for name in ("secateur", "python", "torch") if name in facts)
        scorers = dict.fromkeys(one.scorer for one in self.variants)
        place = facts["device"] if facts["device"] == "cpu" else facts.get("gpu", facts["device"])
        lines = [
            f"# {self.name}",
            "",
            f"`{facts['command']}`",
            "",
            f"{counted(self.seeds, 'seed')}; {facts['time']}; {versions}; {facts['platform']}, "
            f"{facts['cpus']} cores; trained on {place}. Score: {', '.join(scorers)}.",
            "",
            ABOUT.format(batch="-" if first is None else first.batch, threads=threads, **told),
            "",
        ]
        rows = []
        for dense, family in self._families():
            rows.append(_dense_cells(dense))
            for one in family:
                rows += _cells(one, dense)
        return "\n".join([*lines, markdown_table(_headings(self.metric), rows)]) + "\n"

    def csv(self) -> str:
        """One row a network: `kind` is dense, pruned or sparse; fractions, seconds and bytes."""
        rows: list[dict[str, Any]] = []
        for dense, family in self._families():
            rows.append({"variant": dense.label, "kind": "dense", **_record(dense, dense.footprint)})
            for one in family:
                rows.append({"variant": one.variant, "kind": "pruned", **_record(one, one.footprint)})
                if one.sparse is not None:
                    rows.append({"variant": one.variant, "kind": "sparse", **_record(one.sparse, None)})
        return csv_table(rows)

    def _families(self) -> list[tuple[DenseResult, list[VariantResult]]]:
        """Every dense network with the variants that start from it."""
        return [(dense, [one for one in self.variants if one.dense == dense.label]) for dense in self.dense]


def _headings(metric: MetricSpec) -> list[str]:
    """The `PAGE_HEADER`, with the name and unit of a metric that is not accuracy."""
    if metric == ACCURACY:
        return list(PAGE_HEADER)
    unit = "%" if metric.unit == "%" else metric.unit
    own = {
        "validation, %": f"validation {metric.name}, {unit}".removesuffix(", "),
        "test, %": f"test {metric.name}, {unit}".removesuffix(", "),
        "drop, points": "lost, points" if unit == "%" else f"lost, {unit}".removesuffix(", "),
    }
    return [own.get(name, name) for name in PAGE_HEADER]


def _dense_cells(dense: DenseResult) -> list[str]:
    accuracies = [_value(dense.validation, dense.metric), _value(dense.test, dense.metric)]
    return [
        dense.label, amount(dense.macs), amount(dense.params), *_footprint_cells(dense.footprint), *accuracies, "",
        _number(dense.netscore), "", "",
    ]  # fmt: skip


def _cells(one: VariantResult, dense: DenseResult) -> list[list[str]]:
    shares = [percent(one.macs.mean / dense.macs), percent(one.params.mean / dense.params, 2)]
    metric = dense.metric
    drop = metric.difference(dense.lost(one.test.mean), 2)
    search = ["-" if one.search_seconds is None else f"{one.search_seconds:.1f}", str(one.scored)]
    accuracies = [_values(one.validation, metric), _values(one.test, metric)]
    measured = _footprint_cells(one.footprint)
    rows = [[one.variant, *shares, *measured, *accuracies, drop, _with_deviation(one.netscore), *search]]
    if one.sparse is not None:
        shares[1] = percent(one.sparse.nonzero.mean / dense.params, 2)
        accuracies = [_values(one.sparse.validation, metric), _values(one.sparse.test, metric)]
        drop = metric.difference(dense.lost(one.sparse.test.mean), 2)
        rows.append(
            [_sparse_name(one), *shares, "", "", "", *accuracies, drop, _with_deviation(one.sparse.netscore), "", ""]
        )
    return rows


def _footprint_cells(footprint: Footprint | None) -> list[str]:
    """Size, milliseconds of a batch and of one sample."""
    latency, size = footprint_cells(footprint)
    return [size, latency, milliseconds(None if footprint is None else footprint.single)]


def _sparse_name(one: VariantResult) -> str:
    return "" if one.sparse is None else f"  {one.variant}, {percent(one.sparse.sparsity, 0)} of it zero"


def _record(one: Any, footprint: Footprint | None) -> dict[str, Any]:
    """The numbers of a row; what was measured for every seed as mean and deviation."""
    names = ("structure", "macs", "params", "nonzero", "validation", "test", "netscore", "scored", "search_seconds")
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(one, name, None)
        if isinstance(value, SeedStats):
            found |= {name: value.mean, f"{name}_std": value.std}
        else:
            found[name] = value
    if footprint is not None:
        found |= {"latency": footprint.latency, "single": footprint.single, "disk_bytes": footprint.disk}
    return found


def _value(value: float, metric: MetricSpec) -> str:
    """A value of a metric as a bare number: a fraction in percent, 97.31."""
    return metric.difference(value, 2)


def _values(value: SeedStats, metric: MetricSpec) -> str:
    """Likewise over the seeds: 97.31 ± 0.22."""
    return _value(value.mean, metric) + ("" if value.std is None else f" ± {_value(value.std, metric)}")


def _with_deviation(value: SeedStats | None) -> str:
    return "-" if value is None else f"{value.mean:.2f}" + ("" if value.std is None else f" ± {value.std:.2f}")


def _number(value: SeedStats | float | None) -> str:
    return "-" if value is None else f"{value.mean if isinstance(value, SeedStats) else value:.1f}"
