"""How long filter tables take to build and a network to cut, beside the plain way, in one run.

    python studies/benchmarks/tables.py [--networks resnet56 resnet50 vgg16_bn] [--rounds 3] [--out result.json]
    python studies/benchmarks/tables.py --criterion reconstruction --networks resnet56 vgg16_bn_cifar

Build: the default tables (L2, average linkage, fan-in) with one thread and with all, and the distances alone in threads
and in processes (loky), workers warm. Cut: kept sets of a whole network for fresh random thresholds, kept widths alone,
and sixteen widths at once (a step of a bisection); beside them the plain way, which clusters with scipy's `fcluster`
group by group on ready linkages. Goals: ResNet-56 tables 1 s, ResNet-50 and VGG-16 20 s on two cores, a cut of
ResNet-56 1 ms. Weights are random: the time does not depend on them.

With --criterion the tables by that criterion alone, with all threads, on 128 random images. Goals for reconstruction,
error tables included: ResNet-56 3 s, VGG-16 60 s on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import scipy
import torch
from joblib import Parallel, delayed
from scipy.cluster.hierarchy import fcluster
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from backbones.files import write_text  # noqa: E402
from backbones.graph import ChannelGraph  # noqa: E402
from backbones.registry import build  # noqa: E402
from backbones.trace import trace  # noqa: E402
from scoring.channel_weights import feature_blocks  # noqa: E402
from scoring.clusters import Blocks, condensed_distances  # noqa: E402
from scoring.hybrid import hybrid, hybrid_widths  # noqa: E402
from scoring.limits import Limits  # noqa: E402
from scoring.tables import (  # noqa: E402
    FilterTables,
    filter_tables,
    tables_key,
)

LIMITS = Limits(max_rate=0.9, divisor=4)
CUTS = 200


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a residual connection (He et al. 2016), stride in the 3x3."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        leaving = 4 * width
        sizes = [(entering, width, 1, 1), (width, width, 3, stride), (width, leaving, 1, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, s, k // 2, bias=False) for a, b, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b, _, _ in sizes)
        self.short: nn.Module = nn.Identity()
        if entering != leaving or stride > 1:
            self.short = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, images: Tensor) -> Tensor:
        """(N, entering, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        short = self.short(images)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            last = conv is self.convs[2]
            images = norm(conv(images)) if last else torch.relu(norm(conv(images)))
        return torch.relu(images + short)


def resnet50() -> nn.Sequential:
    """ResNet-50 for 224 x 224 images: 25.6 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    entering = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            layers.append(Bottleneck(entering, 64 << stage, 2 if stage and not block else 1))
            entering = 256 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def network(name: str) -> tuple[nn.Module, ChannelGraph]:
    """A network by name, with random weights, traced."""
    torch.manual_seed(0)
    side = side_of(name)
    model = resnet50() if name == "resnet50" else build(name, 10 if side == 32 else 1000)
    return model, trace(model.eval(), torch.zeros(1, 3, side, side))


def side_of(name: str) -> int:
    """Pixels of the images."""
    return 224 if name in ("resnet50", "vgg16_bn") else 32


def seconds(step: Callable[[], object], rounds: int) -> list[float]:
    """The time of each round."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return found


def plain_cut(tables: FilterTables, t_norm: float, t_dist: float) -> dict[str, list[int]]:
    """The two stages without limits, group by group on ready linkages."""
    kept = {}
    for name, table in tables.groups.items():
        labels = fcluster(table.tree, np.nextafter(t_dist, -1), "distance") if table.size > 1 else np.ones(1, int)
        best = [max(np.flatnonzero(labels == label), key=lambda i: table.norms[i]) for label in np.unique(labels)]
        kept[name] = sorted(int(i) for i in best if table.norms[i] >= t_norm)
    return kept


def building(model: nn.Module, graph: ChannelGraph, cores: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every way to build."""
    tensors = model.state_dict()
    blocks = [feature_blocks(group, tensors, "fan_in") for group in graph.groups]
    found = {
        "tables, 1 thread": seconds(lambda: filter_tables(model, graph, jobs=1), rounds),
        f"tables, {cores} threads": seconds(lambda: filter_tables(model, graph, jobs=cores), rounds),
        "of that, fingerprint": seconds(lambda: tables_key(model, graph, {}, None), rounds),
    }
    for kind in ("threads", "processes"):
        with threadpool_limits(1), Parallel(n_jobs=cores, prefer=kind) as workers:  # loky gives each process one core
            workers(delayed(condensed_distances)(part[:1]) for part in blocks[:cores])
            step = partial(_distances, workers, blocks)
            found[f"distances, {cores} {kind}"] = seconds(step, rounds)
    return found


def by_criterion(
    model: nn.Module, graph: ChannelGraph, criterion: str, side: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of the tables by a criterion that looks at images."""
    images, labels = torch.randn(128, 3, side, side), torch.arange(128) % 10
    step = partial(filter_tables, model, graph, criterion=criterion, data=(images, labels))
    return {f"tables by {criterion}": seconds(step, rounds)}


def cutting(tables: FilterTables) -> dict[str, list[float]]:
    """Seconds of every way to cut, at fresh thresholds."""
    rng = np.random.default_rng(0)
    pairs = rng.uniform(0, 1.3, (CUTS, 2)).tolist()
    scales = np.linspace(0, 1, 16)
    ways: dict[str, Callable[[float, float], object]] = {
        "cut, kept sets": lambda norm, dist: hybrid(tables, norm, dist, LIMITS),
        "cut, widths": lambda norm, dist: hybrid_widths(tables, norm, dist, LIMITS),
        "cut, 16 widths at once": lambda norm, dist: hybrid_widths(tables, scales * norm, scales * dist, LIMITS),
        "plain cut (fcluster)": lambda norm, dist: plain_cut(tables, norm, dist),
    }
    found = {}
    for name, way in ways.items():
        way(*pairs[0])
        found[name] = [seconds(partial(way, *pair), 1)[0] for pair in pairs]
    return found


def _distances(workers: Parallel, blocks: list[Blocks]) -> None:
    workers(delayed(condensed_distances)(part) for part in blocks)


def main() -> None:
    """Runs everything, prints one table and writes one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--networks", nargs="+", default=["resnet56", "resnet50", "vgg16_bn"])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--criterion", help="nothing but the tables by this one")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    cores = joblib.cpu_count()
    machine = {
        "processor": _processor(),
        "cores": cores,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "joblib": joblib.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    results = {}
    for name in chosen.networks:
        model, graph = network(name)
        print(f"\n{name}: {len(graph.groups)} groups, {graph.channels} channels")
        if chosen.criterion:
            times = by_criterion(model, graph, chosen.criterion, side_of(name), chosen.rounds)
        else:
            times = building(model, graph, cores, chosen.rounds)
            times |= cutting(filter_tables(model, graph))
        for way, values in times.items():
            print(f"  {way:28s} median {statistics.median(values) * 1e3:11.3f} ms, worst {max(values) * 1e3:11.3f} ms")
        results[name] = {"groups": len(graph.groups), "channels": graph.channels, "seconds": times}
    if chosen.out:
        settings = {"rounds": chosen.rounds, "cuts": CUTS, "limits": repr(LIMITS)}
        write_text(chosen.out, json.dumps({"machine": machine, "settings": settings, "results": results}) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
