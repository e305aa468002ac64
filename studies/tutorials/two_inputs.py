"""Several inputs, by name, and outputs in a dictionary: a picture and some numbers that say how it is to be read.

Run it with: .venv/bin/python studies/tutorials/two_inputs.py    (seconds)
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import secateur as sc

Tensors = dict[str, Tensor]


class Network(nn.Module):
    """The inputs of a sample are its arguments; a tuple would be given by position."""

    def __init__(self) -> None:
        super().__init__()
        body = [nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
        self.picture, self.numbers = nn.Sequential(*body, nn.Flatten()), nn.Sequential(nn.Linear(2, 32), nn.ReLU())
        self.joint, self.out = nn.Sequential(nn.Linear(512 + 32, 64), nn.ReLU()), nn.Linear(64, 1)

    def forward(self, picture: Tensor, numbers: Tensor) -> Tensors:
        return {"level": self.out(self.joint(torch.cat([self.picture(picture), self.numbers(numbers)], 1)))}


def loss(outputs: Tensors, targets: Tensors) -> Tensor:
    return mse_loss(outputs["level"], targets["level"])


def error(outputs: Tensors, targets: Tensors) -> Tensor:
    return (outputs["level"] - targets["level"]).abs().flatten()


def samples(count: int) -> tuple[Tensors, Tensors]:
    """The brightness of a picture, scaled and shifted by two numbers."""
    light, numbers = torch.rand(count, 1, 1, 1), torch.rand(count, 2)
    inputs = {"picture": light + 0.2 * torch.randn(count, 1, 16, 16), "numbers": numbers}
    return inputs, {"level": light[:, :, 0, 0] * (1 + numbers[:, :1]) + numbers[:, 1:]}


def main() -> None:
    torch.manual_seed(0)
    Path("runs").mkdir(exist_ok=True)
    task = sc.Task(loss, error, name="error", direction="lower")
    data = sc.Data.from_tensors("levels", samples(300), samples(100), task=task)
    model, recipe = Network(), sc.Recipe(epochs=8, batch_size=20, lr=0.02)
    sc.train(model, data, recipe)
    graph, budget = sc.trace(model, data.example), sc.Budget(macs=1 / 3)
    study = sc.Study("levels", model, graph, data, budget=budget, storage="sqlite:///runs/levels.db", batch=64)
    study.search(trials=12)
    best = study.retrain(top=1, recipe=recipe, start="reconstructed").best()
    cut, refitted = sc.prune(model, graph, study.structure(best.number)), study.reconstruct(best)
    sc.recalibrate(cut, [data.batch(128)[0]])
    networks = {
        "dense": model,
        "cut": cut,
        "refitted": refitted,
        "retrained": sc.load(best.save("runs/small.st"), model),
    }
    print(", ".join(f"{name} {sc.measure(network, data):.4f}" for name, network in networks.items()))


if __name__ == "__main__":
    main()
