"""The structure that Torch-Pruning gives for a study's network and budget, as a file for `[search] structure`.

    pip install torch-pruning==1.6.1        # for this comparison only
    SECATEUR_DATA=... python studies/torch_pruning_peer.py studies/system3_hybrid.toml --scale small

Group L2 norms, one global threshold over the filters inside the blocks of a ResNet, in 400 steps: its graph does not
see through the zero-padded shortcuts, and with the residual stream the pruned network does not run. The structure lies
in studies/peers/, so that who repeats the comparison needs no Torch-Pruning.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateur as sc
from backbones.cost import recount
from backbones.files import write_text
from backbones.surgery import prune
from search.run.inputs import load_inputs
from search.run.study_file import read_study

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--scale")
    options = parser.parse_args()
    file = read_study(options.study, options.scale)
    start = load_inputs(file, options.study.resolve().parent, "cpu")
    [target] = file.budget.budget().targets(sc.cost(start.graph, sc.Structure.full(start.graph)))
    structure = torch_pruning_structure(start.model, start.graph, start.data.example, target.bounds[0].high)
    path = HERE / "peers" / f"torch_pruning_{file.model.backbone}_{file.budget.macs}.json".replace("%", "")
    path.parent.mkdir(exist_ok=True)
    write_text(path, structure.to_json() + "\n")
    print(path, sc.cost(start.graph, structure))


def torch_pruning_structure(
    model: nn.Module, graph: sc.ChannelGraph, example: torch.Tensor, macs: float
) -> sc.Structure:
    """What Torch-Pruning keeps inside the blocks of a CIFAR ResNet at no more than `macs`."""
    import torch_pruning  # type: ignore[import-untyped,import-not-found,unused-ignore]

    smaller: Any = copy.deepcopy(model).eval()
    names = [name for name, _ in model.named_modules() if name.startswith("layer") and name.endswith(".conv1")]
    inside = [smaller.get_submodule(name) for name in names]
    pruner = torch_pruning.pruner.MetaPruner(
        smaller,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.98,
        max_pruning_ratio=0.98,
        iterative_steps=400,
        ignored_layers=[
            layer
            for layer in smaller.modules()
            if isinstance(layer, nn.Conv2d | nn.Linear) and all(layer is not one for one in inside)
        ],
    )
    while recount(smaller, (example,)).macs > macs:
        pruner.step()
    kept = {name: _rows(model.get_submodule(name), smaller.get_submodule(name)) for name in names}
    structure = sc.Structure.of(graph, kept)
    same = prune(model, graph, structure)
    with torch.no_grad():
        torch.testing.assert_close(same(example), smaller(example), rtol=1e-4, atol=1e-4)
    return structure


def _rows(whole: Any, rest: Any) -> list[int]:
    """Which filters of a layer are left: their weights are as they were."""
    equal = (whole.weight.flatten(1)[:, None] == rest.weight.flatten(1)[None]).all(2)
    return [int(row) for row in equal.any(1).nonzero()]


if __name__ == "__main__":
    main()
