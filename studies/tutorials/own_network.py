"""Your own network, and images of your own in one folder a class: from files on disk to a smaller network.

Run it with: .venv/bin/python studies/tutorials/own_network.py    (seconds; needs the extra `images`)
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import nn

import secateur as sc

FOLDER = Path("runs/own_network")


def draw_images(home: Path) -> None:
    """Pictures in `circle/` and `square/`; yours are there already."""
    for number, (x, y) in enumerate(torch.randint(2, 12, (200, 2)).tolist()):
        name = ("circle", "square")[number % 2]
        picture = Image.new("RGB", (32, 32), "white")
        pen = ImageDraw.Draw(picture)
        (pen.ellipse if name == "circle" else pen.rectangle)((x, y, x + 16, y + 16), fill="teal")
        (home / name).mkdir(parents=True, exist_ok=True)
        picture.save(home / name / f"{number}.png")


def main() -> None:
    torch.manual_seed(0)
    draw_images(FOLDER / "images")
    data = sc.load_data("folder", folder=FOLDER / "images", size=32, validation=0.2, test=0.2)

    # Any network that `torch.export` can follow.
    layers = [(3, 16), (16, 16), (16, 32), (32, 32)]
    body = [nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in layers]
    model = nn.Sequential(*body, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, data.num_classes))
    recipe = sc.Recipe(epochs=10, batch_size=32, lr=0.05)
    sc.train(model, data, recipe)  # or sc.load_checkpoint(model, "weights.pt")

    graph = sc.trace(model, data.example)  # which channels hang together, once
    budget, storage = sc.Budget(macs=0.3), f"sqlite:///{FOLDER}/study.db"
    study = sc.Study("own", model, graph, data, budget=budget, space="ratios", storage=storage, folder=FOLDER)
    print(study.feasibility())  # what the budget allows on this network
    study.search(trials=30)
    best = study.retrain(top=1, recipe=recipe).best()

    best.save(FOLDER / "small.safetensors")
    small = sc.load(FOLDER / "small.safetensors", model)  # an ordinary nn.Module
    print(f"dense {sc.accuracy(model, data):.1%}, pruned {sc.accuracy(small, data):.1%} with {best.cost}")


if __name__ == "__main__":
    main()
