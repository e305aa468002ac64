"""What a pruned network may cost: caps, bands and sets of targets on MACs, parameters, latency and memory."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from backbones.cost_table import Cost
from backbones.errors import SecateurError, check_name
from backbones.onnx_network import ENGINES
from search.checks import check_range

Amount = str | float | int
BUDGET_AXES = ("macs", "params", "latency", "memory")
FILL = 0.02
"""A single number is a cap; a structure fills it to within this share below, or as far as whole steps of widths go."""

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_UNITS: dict[str, dict[str, float]] = {
    "macs": _COUNTS,
    "params": _COUNTS,
    "latency": {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6},
    "memory": {**_COUNTS, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
}
_EXAMPLE = {"macs": "'25M'", "params": "'250k'", "latency": "'20ms'", "memory": "'2MB'"}
_NUMBER = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(%|[A-Za-z]*)\s*")


@dataclass(frozen=True, slots=True)
class Bound:
    """Limits on one axis in absolute units: low <= cost <= high."""

    axis: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Target:
    """Bounds that hold together.

    Attributes:
        bounds: one per axis that the budget names.
        capped: single numbers: the highs alone must hold. The lows say when a structure counts as filled, of several
            axes one is enough.
    """

    bounds: tuple[Bound, ...]
    capped: bool

    @property
    def aimed(self) -> int:
        """The place of the axis along which trials spread over a band: the first that is bounded from below."""
        return next((number for number, bound in enumerate(self.bounds) if bound.low > 0), 0)

    def over(self, cost: Cost) -> bool:
        """Whether some axis is above its high."""
        return any(getattr(cost, bound.axis) > bound.high for bound in self.bounds)

    def under(self, cost: Cost) -> bool:
        """Whether more would fit: for caps when no axis is filled, for bands when any is below its low."""
        low = [getattr(cost, bound.axis) < bound.low for bound in self.bounds]
        return all(low) if self.capped else any(low)

    def __str__(self) -> str:
        if self.capped:
            return " and ".join(f"{bound.axis} <= {cost_text(bound.axis, bound.high)}" for bound in self.bounds)
        return " and ".join(
            f"{cost_text(one.axis, one.low)} <= {one.axis} <= {cost_text(one.axis, one.high)}" for one in self.bounds
        )


def cost_text(axis: str, value: float) -> str:
    """An amount for people: seconds as ms, everything else as a whole number (memory in bytes)."""
    return f"{1e3 * value:,.4g} ms" if axis == "latency" else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class Budget:
    """What the pruned network may cost; at least one of the four, several hold together.

    An amount is a fraction of the dense network (`0.2`, `"20%"`) or absolute (`25_000_000`, `"25M"`): up to 1 a number
    without a unit is a fraction. A single amount is a cap: whatever is below it is feasible, and a structure fills one
    axis to within 2 %, or as well as the widths allow. `"10%..30%"` is a
    band, and a single amount beside one is a cap that need not be filled; a list is a set of targets.

    Attributes:
        macs: multiply-adds of one sample.
        params: number of parameters.
        latency: seconds a batch ("20ms"), predicted from a calibration on this machine.
        memory: peak bytes of activations for the scoring batch ("2MB", "64MiB").
        engine: what runs the network where its time is measured: "eager" (torch as it is), "compiled" (code of
            `torch.compile`), "onnxruntime" (on the CPU).
        latency_batch: samples in the batch that latency is of; by default the scoring batch.

    Raises:
        SecateurError: for an amount that is none, no bound at all, an unknown engine, or a `latency_batch` below 1.
    """

    macs: Amount | Sequence[Amount] | None = None
    params: Amount | Sequence[Amount] | None = None
    latency: Amount | Sequence[Amount] | None = None
    memory: Amount | Sequence[Amount] | None = None
    engine: str = "eager"
    latency_batch: int | None = None

    def __post_init__(self) -> None:
        check_name("engine", self.engine, ENGINES)
        if self.latency_batch is not None:
            check_range("latency_batch", self.latency_batch, 1)
        if not self.axes:
            raise SecateurError('a budget needs macs or params (or latency, memory), such as macs="30%"')
        for axis in self.axes:
            amounts = _listed(getattr(self, axis))
            if not amounts:
                raise SecateurError(f"budget {axis} is an empty list; give at least one amount")
            for amount in amounts:
                _parse(axis, amount)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that are bounded."""
        return tuple(axis for axis in BUDGET_AXES if getattr(self, axis) is not None)

    @property
    def objectives(self) -> int:
        """1 (score alone) for single caps, 2 (score and MACs) for bands and sets of targets."""
        amounts = [_listed(getattr(self, axis)) for axis in self.axes]
        single = all(len(values) == 1 and not _is_band(values[0]) for values in amounts)
        return 1 if single else 2

    def targets(self, dense: Cost) -> tuple[Target, ...]:
        """The targets in absolute units; every combination where two axes have several.

        Raises:
            SecateurError: when the dense cost lacks an axis that the budget bounds.
        """
        axes = self.axes
        for axis in axes:
            if getattr(dense, axis) is None:
                raise SecateurError(f"budget {axis}: the dense network's {axis} was not measured")
        choices = [[_bound(axis, amount, dense) for amount in _listed(getattr(self, axis))] for axis in axes]
        if not any(_is_band(amount) for axis in axes for amount in _listed(getattr(self, axis))):
            return tuple(Target(bounds, True) for bounds in product(*choices))
        only = [axis for axis in axes if not any(map(_is_band, _listed(getattr(self, axis))))]
        return tuple(
            Target(tuple(replace(bound, low=0.0) if bound.axis in only else bound for bound in bounds), False)
            for bounds in product(*choices)
        )

    def to_dict(self) -> dict[str, list[str]]:
        """Plain values, for fingerprints and reports; how latency is measured only where it is bounded."""
        found = {axis: [str(amount) for amount in _listed(getattr(self, axis))] for axis in self.axes}
        if self.latency is not None and self.engine != "eager":
            found["engine"] = [self.engine]
        if self.latency is not None and self.latency_batch is not None:
            found["latency_batch"] = [str(self.latency_batch)]
        return found

    def latency_limit(self, predicted: Cost, dense: Cost, seconds: float) -> float | None:
        """The most seconds that the budget allows a structure, by the clock that measured the dense network.

        Of several targets the least that the structure was predicted to hold counts, the largest where none is.

        Args:
            predicted: the structure's cost.
            dense: that of the dense network, predicted likewise.
            seconds: what the dense network was measured to take, for amounts that are fractions of it.

        Returns:
            None where latency is not bounded.
        """
        if self.latency is None:
            return None
        asked, allowed = (
            [bound.high for target in self.targets(cost) for bound in target.bounds if bound.axis == "latency"]
            for cost in (dense, replace(dense, latency=seconds))
        )
        seen = math.inf if predicted.latency is None else predicted.latency
        held = [place for place, high in enumerate(asked) if seen <= high]
        return allowed[min(held, key=asked.__getitem__) if held else asked.index(max(asked))]


def limit(axis: str, amount: str) -> tuple[float, bool]:
    """A single amount, `"20%"` or `"25M"`, as a number and whether that is a fraction of the dense network.

    Raises:
        SecateurError: when it is none.
    """
    return _single(axis, amount, amount)


def _listed(value: Amount | Sequence[Amount] | None) -> list[Amount]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _is_band(amount: Amount) -> bool:
    return isinstance(amount, str) and ".." in amount


def _bound(axis: str, amount: Amount, dense: Cost) -> Bound:
    whole = float(getattr(dense, axis))
    low, high = (value * whole if relative else value for value, relative in _parse(axis, amount))
    return Bound(axis, low if _is_band(amount) else high * (1 - FILL), high)


def _parse(axis: str, amount: Amount) -> tuple[tuple[float, bool], tuple[float, bool]]:
    """((low, relative), (high, relative)); equal for a single amount."""
    if isinstance(amount, str) and ".." in amount:
        first, _, second = amount.partition("..")
        low, high = _single(axis, first, amount), _single(axis, second, amount)
        if low[1] != high[1] or low[0] > high[0]:
            raise SecateurError(f"budget {axis}: low <= high of one unit must hold, but got {amount!r}")
        return low, high
    single = _single(axis, amount, amount)
    return single, single


def _single(axis: str, amount: Amount, given: Amount) -> tuple[float, bool]:
    value, relative = math.nan, False
    if isinstance(amount, str):
        match = _NUMBER.fullmatch(amount)
        unit = match.group(2) if match else ""
        if match and match.group(1).count(".") <= 1 and match.group(1) != "." and unit in {"%", *_UNITS[axis]}:
            number = float(match.group(1))
            relative = unit == "%" or (unit == "" and number <= 1)
            value = number / 100 if unit == "%" else number * _UNITS[axis][unit]
    elif isinstance(amount, int | float) and not isinstance(amount, bool):
        value, relative = float(amount), amount <= 1
    if not (0 < value < math.inf) or (relative and value > 1):
        raise SecateurError(
            f"budget {axis}: an amount is a fraction (0.3, '30%'), absolute ({_EXAMPLE[axis]}) or a band ('10%..30%'), "
            f"above 0 and at most the whole network, but got {given!r}"
        )
    return value, relative
