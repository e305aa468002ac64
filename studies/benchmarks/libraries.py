"""Every classifier of torchvision and the common families of timm: what can be pruned, how exactly, how fast.

    pip install torchvision==0.28.0 timm==1.0.31    # for this table only, no dependency of secateur
    python studies/benchmarks/libraries.py --out studies/benchmarks/libraries.json [--names resnet18 timm:ghostnet_100]

Random weights, all constant vectors stirred. Each network is traced, a random structure keeps about 60 % of every
group, and the pruned network is compared with the dense one whose dropped channels nobody reads (largest difference
relative to the largest output) and recounted. Groups under layer norm change the values of others by nature: they are
pruned for the recount and left whole for the comparison.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import timm  # type: ignore[import-untyped,import-not-found,unused-ignore]
import torch
import torchvision  # type: ignore[import-untyped,import-not-found,unused-ignore]
from torch import Tensor, nn

from backbones.cost import cost, recount
from backbones.files import atomic_write
from backbones.graph import ChannelGraph
from backbones.masked_reference import masked_reference, relative_difference
from backbones.modes import evaluating
from backbones.pruning_check import nonconstant_weights
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace
from tests.backbones.parity import stirred
from tests.backbones.test_libraries import SMALL, TIMM, classifiers


def made(name: str) -> tuple[nn.Module, int]:
    """A network in eval mode and the side of its images."""
    torch.manual_seed(0)
    library, _, plain = name.partition(":")
    if library == "timm":
        model: nn.Module = timm.create_model(plain, pretrained=False)
        size = int(model.default_cfg["input_size"][-1])  # type: ignore[index]
    else:
        model = torchvision.models.get_model(name, weights=None)
        size = 299 if name == "inception_v3" else 224
    return nonconstant_weights(stirred(model).float()).eval(), 128 if SMALL.search(name) else size


def share(model: nn.Module, graph: ChannelGraph) -> float:
    """The share of all layers' outputs that can be pruned, those of the network itself left out."""
    found = [0, -sum(len(record.channels) for record in graph.frozen if record.op == "output")]
    weights = dict(model.named_parameters())
    for layer, kind in graph.layers.items():
        name = f"{layer}.in_proj_weight" if kind == "MultiheadAttention" else f"{layer}.weight"
        weight = weights.get(name)
        if weight is not None and weight.ndim > 1:
            dim = 1 if "Transpose" in kind or kind == "Embedding" else 0
            units = graph.tensors[name].units if name in graph.tensors else {}
            found[0] += int((units[dim] >= 0).sum()) if dim in units else 0
            found[1] += weight.shape[dim]
    return found[0] / found[1]


def gap(model: nn.Module, graph: ChannelGraph, structure: Structure) -> tuple[float, float]:
    """Difference of the pruned network to the masked dense one, and to the dense one (which it must not equal)."""
    pruned = prune(model, graph, structure)
    with evaluating(model), evaluating(pruned), torch.no_grad():
        output = pruned(*graph.example)
        masked = masked_reference(model, graph, structure, graph.example)
        return relative_difference(output, masked), relative_difference(output, model(*graph.example))


def measured(name: str) -> dict[str, Any]:
    """One row."""
    model, size = made(name)
    example: Tensor = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    torch.export.export(model, (example,), strict=False)
    middle = time.perf_counter()
    graph = trace(model, example)
    end = time.perf_counter()
    structure = Structure.random(graph, keep=0.6, seed=0)
    counted, arithmetic = recount(prune(model, graph, structure), graph.example), cost(graph, structure)
    exact = {group: kept for group, kept in structure.keep.items() if group not in graph.mixed}
    gaps = gap(model, graph, Structure.of(graph, exact)) if exact else (None, None)
    frozen = Counter[str]()
    for record in graph.frozen:
        if record.op != "output":
            frozen[record.reason] += len(record.channels)
    return {
        "network": name,
        "size": size,
        "groups": len(graph.groups),
        "mixed": len(graph.mixed),
        "share": round(share(model, graph), 4),
        "frozen": dict(frozen.most_common()),
        "unreached": len(graph.unreached),
        "macs": graph.costs.dense.macs,
        "params": graph.costs.dense.params,
        "pruned_macs": arithmetic.macs,
        "recount_equal": (counted.macs, counted.params) == (arithmetic.macs, arithmetic.params),
        "difference_to_masked": gaps[0],
        "difference_to_dense": gaps[1],
        "export_seconds": round(middle - start, 2),
        "trace_seconds": round(end - middle, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="*", default=[*classifiers(), *(f"timm:{name}" for name in TIMM)])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    rows = []
    for name in options.names:
        rows.append(measured(name))
        print(json.dumps(rows[-1]), flush=True)
        with atomic_write(options.out) as path:
            path.write_text(json.dumps({"machine": platform.processor(), **versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
