"""Surgery beside Torch-Pruning's, in one run: ResNet-56, filters inside the blocks cut to a random half.

    pip install torch-pruning==1.6.1        # for this comparison only, no dependency of secateur
    python studies/benchmarks/surgery.py [--rounds 30] [--threads 1]

Both start from the dense network and end with a smaller copy that has run the example once. Torch-Pruning copies the
module, builds its dependency graph, and prunes the same number of filters in the same layers; secateur traces once
(printed apart) and cuts. Times are medians of interleaved rounds, the quotient is the median within a round.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_pruning  # type: ignore[import-untyped,import-not-found,unused-ignore]
from torch import nn

from backbones.cost import cost
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace


def peer(model: nn.Module, example: torch.Tensor, keep: float) -> nn.Module:
    """Torch-Pruning on a copy: magnitude pruner, every block's first convolution, then the example once."""
    twin: Any = copy.deepcopy(model).eval()
    inner = {block.conv1: 1.0 - keep for stage in (twin.layer1, twin.layer2, twin.layer3) for block in stage}
    ignored = [layer for layer in twin.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer not in inner]
    pruner = torch_pruning.pruner.MagnitudePruner(
        twin,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.0,
        pruning_ratio_dict=inner,
        ignored_layers=ignored,
    )
    pruner.step()
    with torch.no_grad():
        twin(example)
    return twin  # type: ignore[no-any-return]


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = build("resnet56", 10).eval()
    example = torch.randn(1, 3, 32, 32)
    start = time.perf_counter()
    graph = trace(model, example)
    traced = time.perf_counter() - start
    kept = {
        group.name: range(group.size // 2)
        for group in graph.groups
        if group.name.endswith("conv1") and "layer" in group.name
    }
    structure = Structure.of(graph, kept)
    runs: dict[str, Callable[[], object]] = {
        "torch_pruning": lambda: peer(model, example, 0.5),
        "prune": lambda: prune(model, graph, structure),
        "prune_unchecked": lambda: prune(model, graph, structure, check=False),
        "deepcopy": lambda: copy.deepcopy(model),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds + 2):
        for name, run in runs.items():
            taken = seconds(run)
            if number >= 2:
                times[name].append(taken)
    pairs = {name: [a / b for a, b in zip(times["torch_pruning"], times[name], strict=True)] for name in runs}
    each = [seconds(lambda: cost(graph, structure)) for _ in range(2000)]
    parameters = [sum(value.numel() for value in runs[name]().parameters()) for name in ("torch_pruning", "prune")]  # type: ignore[attr-defined]
    result = {
        "milliseconds": {name: round(1000 * statistics.median(values), 2) for name, values in times.items()},
        "times_faster_than_torch_pruning": {
            name: round(statistics.median(values), 2) for name, values in pairs.items()
        },
        "trace_seconds_once": round(traced, 2),
        "cost_microseconds": round(1e6 * statistics.median(each), 1),
        "parameters_left": dict(zip(("torch_pruning", "prune"), parameters, strict=True)),
        "rounds": options.rounds,
        "threads": options.threads,
        "versions": {
            "torch": torch.__version__,
            "torch_pruning": torch_pruning.__version__,
            "python": platform.python_version(),
        },
        "machine": platform.processor() or platform.machine(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
