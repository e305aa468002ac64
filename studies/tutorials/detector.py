"""A detector: two heads, other outputs in evaluation than in training, any number of boxes an image, a metric object.

Run it with: .venv/bin/python studies/tutorials/detector.py    (seconds)
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur as sc

CELLS, MOST = 8, 6


class Detector(nn.Module):
    """Heat and size of a box for each of 8 x 8 cells; in evaluation the boxes (x, y, width, height) of the hottest."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1))
        layers = [nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, s in sizes]
        self.body, self.heat, self.size = nn.Sequential(*layers), nn.Conv2d(32, 1, 1), nn.Conv2d(32, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shared = self.body(images)
        heat, size = self.heat(shared), self.size(shared).sigmoid()
        if self.training:
            return {"heat": heat, "size": size}
        scores, cells = (heat.sigmoid() * (heat == F.max_pool2d(heat, 3, 1, 1))).flatten(1).topk(MOST)
        places = torch.stack([cells % CELLS, cells // CELLS], 2) / CELLS + 0.5 / CELLS
        return {
            "scores": scores,
            "boxes": torch.cat([places, size.flatten(2).mT.gather(1, cells[..., None].expand(-1, -1, 2))], 2),
        }


def loss(outputs: dict[str, Tensor], targets: list[Tensor]) -> Tensor:
    image = torch.cat([torch.full((len(boxes),), i) for i, boxes in enumerate(targets)])
    boxes = torch.cat(targets)
    x, y = (boxes[:, :2] * CELLS).long().T
    wanted = torch.zeros_like(outputs["heat"])
    wanted[image, 0, y, x] = 1.0
    heat = F.binary_cross_entropy_with_logits(outputs["heat"], wanted, pos_weight=torch.tensor(10.0))
    return heat + 2 * F.l1_loss(outputs["size"][image, :, y, x], boxes[:, 2:])


def overlap(one: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of a box with each of the others."""
    low = torch.maximum(one[:2] - one[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = torch.minimum(one[:2] + one[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    shared = (high - low).clamp(min=0).prod(1)
    return shared / (one[2:].prod() + others[:, 2:].prod(1) - shared)


class AveragePrecision:
    """Area under precision over recall, a box being right that overlaps a true one by half; as in torchmetrics."""

    def reset(self) -> None:
        self.found: list[tuple[float, bool]] = []
        self.true = 0

    def update(self, outputs: dict[str, Tensor], targets: list[Tensor]) -> None:
        for scores, boxes, true in zip(outputs["scores"], outputs["boxes"], targets, strict=True):
            left = true.clone()
            for score, box in zip(scores.tolist(), boxes, strict=True):
                fits = overlap(box, left)
                right = len(left) > 0 and bool(fits.max() >= 0.5)
                left = left[torch.arange(len(left)) != fits.argmax()] if right else left
                self.found.append((score, right))
            self.true += len(true)

    def compute(self) -> Tensor:
        right = torch.tensor([right for _, right in sorted(self.found, reverse=True)]).double()
        precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
        return (precision.flip(0).cummax(0).values.flip(0) * right).sum() / self.true


class Scenes(torch.utils.data.Dataset[Any]):
    """One to three bright boxes in noise."""

    def __init__(self, count: int) -> None:
        self.boxes = [
            torch.cat([0.2 + 0.6 * torch.rand(n, 2), 0.2 + 0.2 * torch.rand(n, 2)], 1) for n in [1, 2, 3] * (count // 3)
        ]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rows, image = torch.linspace(0, 1, 32), 0.3 * torch.randn(1, 32, 32)  # drawn anew, by the seed of the training
        for x, y, width, height in self.boxes[number]:
            image[0] += ((rows - x).abs() < width / 2) * ((rows - y).abs() < height / 2)[:, None]
        return image, self.boxes[number]


def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    return torch.stack([image for image, _ in samples]), [boxes for _, boxes in samples]


def main() -> None:
    torch.manual_seed(0)
    Path("runs").mkdir(exist_ok=True)
    task = sc.Task(loss, AveragePrecision(), name="AP50", direction="higher", unit="%")
    data = sc.Data.from_datasets("scenes", Scenes(240), Scenes(60), validation=Scenes(60), task=task, collate=collate)
    model, recipe = Detector(), sc.Recipe(epochs=10, batch_size=20, lr=0.05)
    sc.train(model, data, recipe)
    graph, budget = sc.trace(model, data.example), sc.Budget(macs=1 / 3)
    study = sc.Study("scenes", model, graph, data, budget=budget, storage="sqlite:///runs/scenes.db", batch=32)
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
    print(", ".join(f"{name} {sc.measure(network, data):.1%}" for name, network in networks.items()))


if __name__ == "__main__":
    main()
