"""What structures of equal MACs take by the clock: a batch of 128 and one image, side by side.

    SECATEUR_DATA=... python studies/search_pays.py --network resnet56 ...    # finds the structures
    OMP_NUM_THREADS=1 SECATEUR_DATA=... python studies/benchmarks/milliseconds.py --network resnet56
    OMP_NUM_THREADS=1 python studies/benchmarks/milliseconds.py --uniform vgg16_bn_cifar resnet110    # system 4

Every structure in runs/search-pays/<network>/, cut and not trained; or, of networks with random weights, for images of
32 x 32 pixels, uniform widths at 70 % of the MACs. In torch; medians of fifteen rounds in which the networks take turns
(`search.review.footprint`), and shares of the dense network's. Kept in milliseconds.json by network, with the machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from backbones.files import write_text
from search.review.footprint import footprints
from search.run.folder import environment
from search.run.inputs import load_inputs
from search.run.study_file import read_study

HERE = Path(__file__).resolve().parent
OUT = HERE / "milliseconds.json"
BATCH = 128
SHARE = 0.7


def measured(networks: Mapping[str, nn.Module], images: Tensor) -> dict[str, dict[str, Any]]:
    """Name -> milliseconds, and shares of the network `dense`."""
    found = footprints(networks, images)
    rows = {}
    for name, one in found.items():
        dense = found["dense"]
        assert one.single is not None
        assert dense.single is not None
        rows[name] = {
            "batch": one.latency / dense.latency,
            "single": one.single / dense.single,
            "ms": [round(1000 * one.latency, 2), round(1000 * one.single, 2)],
        }
        print(f"{name:50s} of the dense network's time {rows[name]['batch']:.3f}, one image {rows[name]['single']:.3f}")
    return rows


def found_by_searches(network: str) -> dict[str, dict[str, Any]]:
    """The structures in runs/search-pays/, with how many layers went."""
    inputs = load_inputs(read_study(HERE.parent / f"scorers_{network}.toml"), HERE.parent, "cpu")
    networks, gone = {"dense": inputs.model.eval()}, {"dense": 0}
    for path in sorted(Path("runs/search-pays", network).glob("*.json")):
        structure = sc.Structure.from_json(json.dumps(json.loads(path.read_text())["structure"]))
        networks[path.stem] = sc.prune(inputs.model, inputs.graph, structure, check=False).eval()
        gone[path.stem] = len(structure.removed)
    rows = measured(networks, inputs.data.batch(BATCH, 0)[0])
    return {name: {"layers removed": gone[name], **row} for name, row in rows.items()}


def uniform(network: str) -> dict[str, dict[str, Any]]:
    """Uniform widths: latency does not depend on the weights."""
    torch.manual_seed(0)
    model, images = sc.build(network, num_classes=10).eval(), torch.rand(2 * BATCH, 3, 32, 32)
    noise = images, torch.arange(2 * BATCH) % 10
    data = sc.Data.from_tensors("noise", noise, noise)
    graph = sc.trace(model, data.example)
    with tempfile.TemporaryDirectory() as folder:
        budget, storage = sc.Budget(macs=SHARE), f"sqlite:///{folder}/study.db"
        study = sc.Study("uniform", model, graph, data, budget=budget, scorer="macs", storage=storage)
        [structure] = [one.structure for one in sc.baseline("uniform", study)]
    assert structure is not None
    share = sc.cost(graph, structure).macs / graph.costs.dense.macs
    print(f"{network}, uniform widths, {share:.1%} of the MACs")
    pruned = sc.prune(model, graph, structure, check=False).eval()
    return {**measured({"dense": model, "uniform": pruned}, images[:BATCH]), "macs": {"share": share}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet56", help="whose searches' structures are measured")
    parser.add_argument("--uniform", nargs="+", default=[], metavar="NETWORK", help="in their place")
    options = parser.parse_args()
    rows = {one: uniform(one) for one in options.uniform} or {options.network: found_by_searches(options.network)}
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    for network, found in rows.items():
        known[network] = {"environment": environment(), "rows": found}
    write_text(OUT, json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
