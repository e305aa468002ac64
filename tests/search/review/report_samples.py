"""Made-up studies for the tests of charts and reports: the shape of real ones, hostile names included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from backbones.cost_table import Cost
from backbones.structure import Structure
from search.review.candidate import Candidate
from search.review.footprint import Footprint
from search.review.front import Front

GROUPS = {"conv1": 16, "layer1.0.conv1": 16, "layer1.1.conv1": 16, "layer2.0.conv1": 32, "layer3.0.conv1": 64}
HOSTILE = '</script><script>document.title="pwned"</script><img src=x onerror=alert(1)>'


def sample_front(
    name: str = "digits",
    *,
    trials: int = 200,
    retrained: int = 3,
    groups: dict[str, int] | None = None,
    caps: tuple[int, ...] = (),
    seed: int = 0,
    baselines: bool = False,
    timed: bool = False,
) -> Front:
    """A front whose scores grow with the MACs and scatter; every twentieth trial is infeasible.

    `timed`: its budget is one of latency, 1.95 ms in onnxruntime.
    """
    rng = np.random.default_rng(seed)
    groups = groups or GROUPS
    dense_macs, dense_params = 5_120_000, 272_000
    candidates = []
    for number in range(trials):
        keep = float(rng.uniform(0.2, 0.7))
        kept = tuple((group, tuple(range(max(1, int(size * keep))))) for group, size in groups.items())
        infeasible = number % 20 == 19
        candidates.append(
            Candidate(
                number,
                Structure("sample", kept),
                {"t_norm": float(rng.uniform(0, 1)), "t_dist": keep},
                Cost(int(dense_macs * keep**1.7), int(dense_params * keep**1.8)),
                None if infeasible else 0.5 + 0.4 * keep**0.5 + float(rng.normal(0, 0.02)),
                seconds=float(rng.uniform(0.05, 0.2)),
                reason="cannot reach 20 % of the MACs under max_rate=0.5" if infeasible else None,
            )
        )
    feasible = [one for one in candidates if one.score is not None]
    for place, one in enumerate(sorted(feasible, key=lambda one: -(one.score or 0))[:retrained]):
        accuracy = 0.9 + 0.07 * (one.score or 0)
        size, cost = Footprint(0.002 * accuracy, 1e-4, 9000, 128, 1), one.cost
        if timed and cost is not None:
            cost = replace(cost, latency=0.0019)
            measured = size.latency if place else 0.0021  # the best is over
            size = replace(size, latency=measured, single=1e-4, engine="onnxruntime", limit=0.00195, error=0.05)
        candidates[one.number] = Candidate(
            one.number, one.structure, one.parameters, cost, one.score, accuracy, accuracy - 0.004, one.seconds,
            artefact=Path(f"retrain/{one.id}/small.safetensors"), footprint=size,
        )  # fmt: skip
    full = Structure("sample", tuple((group, tuple(range(size))) for group, size in groups.items()))
    dense = Candidate(
        -1, full, {}, Cost(dense_macs, dense_params, 0.0041 if timed else None), 0.97, 0.972, 0.969, label="dense",
        footprint=Footprint(0.004, 1e-4, 90000, 128, 1, engine="onnxruntime" if timed else "eager"),
    )  # fmt: skip
    half = Structure("sample", tuple((group, tuple(range(max(1, size // 2)))) for group, size in groups.items()))
    others = tuple(
        Candidate(-1, half, {"keep": 0.5}, Cost(1_400_000, 70_000), score, label=label)
        for label, score in (("uniform", 0.8), ("global", 0.805))
    )
    return Front(name, dense, tuple(candidates), "naswot_last", caps, others if baselines else ())
