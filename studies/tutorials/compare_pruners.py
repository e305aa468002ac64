"""Compare with another pruner: its structure and the search's, of one budget, scored and retrained alike.

Run it with: .venv/bin/python studies/tutorials/compare_pruners.py    (seconds)
"""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

import secateur as sc

FOLDER = Path("runs/compare_pruners")


def other_pruner(model: nn.Module, share: float) -> dict[str, list[int]]:
    """PyTorch's own: masks the filters of the smallest L1 norm in each convolution. Returns layer -> filters left.

    What cuts instead of masking, such as Torch-Pruning, leaves rows of the weights: `studies/torch_pruning_peer.py`.
    """
    kept = {}
    for name, layer in copy.deepcopy(model).named_modules():
        if isinstance(layer, nn.Conv2d):
            prune.ln_structured(layer, "weight", share, n=1, dim=0)
            kept[name] = layer.get_buffer("weight_mask").flatten(1).any(1).nonzero().flatten().tolist()
    return kept


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    data = sc.load_data("digits")
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(i, o, 3, 1, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in ((1, 24), (24, 48))]
    model = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Conv2d(48, 48, 3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10))
    sc.train(model, data, sc.Recipe(epochs=6, batch_size=64, lr=0.05))

    # A group is named by the layer that makes its channels; groups that are not named stay whole.
    graph = sc.trace(model, data.example)
    theirs = sc.Structure.of(graph, other_pruner(model, 0.6))
    (FOLDER / "other.json").write_text(theirs.to_json())  # for `[search] structure` and `secateur compare`
    budget = sc.Budget(macs=sc.cost(graph, theirs).macs)  # what theirs costs is what a search may spend
    print(f"dense {sc.accuracy(model, data):.1%}; the other pruner: {sc.cost(graph, theirs)}")

    recipe = sc.Recipe(epochs=2, batch_size=64, lr=0.02)
    for name in ("other", "search"):
        storage = f"sqlite:///{FOLDER}/{name}.db"
        study = sc.Study(name, model, graph, data, budget=budget, storage=storage, folder=FOLDER / name, batch=64)
        if name == "other":
            study.use_rule(theirs)  # instead of a search; in Study(warm_start=[theirs]) a search begins with it
        else:
            study.search(trials=20)
        best = study.retrain(top=1, recipe=recipe).best()
        print(f"{name}: {best.on('macs'):,.0f} MACs, {study.scorer} {best.score:.4f}, {best.test_accuracy:.1%} on test")
    # One seed is no result: `secateur compare` retrains each with several, and says how much they differ.


if __name__ == "__main__":
    main()
