"""The demo of studies/digits.toml from Python: train, search under a budget, retrain the best three, save the best.

Run it with: .venv/bin/python studies/from_python.py
"""

from pathlib import Path

import torch

import secateur as sc

RUN = Path("runs/from_python")


def main() -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    data = sc.load_data("digits")
    torch.manual_seed(0)
    model = sc.build("resnet20", num_classes=10, in_channels=1)
    history = sc.train(model, data, sc.Recipe(epochs=24, batch_size=64), folder=RUN / "dense")

    graph = sc.trace(model, data.example)
    budget, storage = sc.Budget(macs=0.30), f"sqlite:///{RUN}/study.db"
    study = sc.Study("digits", model, graph, data, budget=budget, space="hybrid+ratios", storage=storage, folder=RUN)
    print(study.feasibility())
    study.search(trials=300)
    front = study.retrain(top=3, recipe=sc.Recipe(epochs=16, lr=0.05, batch_size=64))

    best = front.best()
    best.save(RUN / "small.safetensors")
    sc.plot_front(front, RUN / "front.png")
    small = sc.load(RUN / "small.safetensors")
    print(f"dense {history.test_accuracy:.1%}, pruned {sc.accuracy(small, data):.1%} with {best.cost}")


if __name__ == "__main__":
    main()
