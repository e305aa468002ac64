"""One-dimensional signals and a metric where lower is better: a network that hears the frequency of a tone.

Run it with: .venv/bin/python studies/tutorials/regression.py    (seconds)
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

import secateur as sc


def error(outputs: Tensor, frequencies: Tensor) -> Tensor:
    """One number for each tone: the metric is their mean."""
    return (outputs - frequencies).abs().flatten()


def tones(count: int) -> tuple[Tensor, Tensor]:
    """Tones (count, 1, 128) in noise, and their frequencies (count, 1)."""
    frequency, phase = 2 + 10 * torch.rand(count, 1), 6.28 * torch.rand(count, 1)
    clean = torch.sin(6.28 * frequency * torch.linspace(0, 1, 128) + phase)
    return (clean + 0.3 * torch.randn(clean.shape))[:, None], frequency


def main() -> None:
    torch.manual_seed(0)
    Path("runs").mkdir(exist_ok=True)
    task = sc.Task(smooth_l1_loss, error, name="mean absolute error", direction="lower", unit="Hz")
    data = sc.Data.from_tensors("tones", tones(300), tones(100), task=task)
    layers = [nn.Sequential(nn.Conv1d(i, o, 7, 2, 3), nn.BatchNorm1d(o), nn.ReLU()) for i, o in ((1, 16), (16, 32))]
    model = nn.Sequential(*layers, nn.Conv1d(32, 32, 7, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 1))
    sc.train(model, data, sc.Recipe(epochs=15, batch_size=25, lr=0.02))

    graph, place = sc.trace(model, data.example), "sqlite:///runs/tones.db"
    study = sc.Study("tones", model, graph, data, budget=sc.Budget(macs=1 / 3), storage=place, batch=64)
    study.search(trials=12)
    front = study.retrain(top=1, recipe=sc.Recipe(epochs=8, batch_size=25, lr=0.01), start="reconstructed")
    best = front.best()  # the lowest error
    sc.plot_front(front, "runs/tones.png")  # its axis says "mean absolute error, Hz"

    cut, refitted = sc.prune(model, graph, study.structure(best.number)), study.reconstruct(best)
    sc.recalibrate(cut, [data.batch(128)[0]])
    networks = {
        "dense": model,
        "cut": cut,
        "refitted": refitted,
        "retrained": sc.load(best.save("runs/small.st"), model),
    }
    print(", ".join(f"{name} {sc.measure(network, data):.2f} Hz" for name, network in networks.items()))


if __name__ == "__main__":
    main()
