"""A task that is not classification: a U-Net that finds disks in noise, judged by intersection over union.

Run it with: .venv/bin/python studies/tutorials/segmentation.py    (seconds)
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur as sc


def block(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = block(1, 16), nn.Sequential(block(16, 32), block(32, 32))
        self.up, self.out = nn.ConvTranspose2d(32, 16, 2, stride=2), nn.Sequential(block(32, 16), nn.Conv2d(16, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        wide = self.down(images)
        outputs: Tensor = self.out(torch.cat([wide, self.up(self.middle(F.max_pool2d(wide, 2)))], 1))
        return outputs


def iou(logits: Tensor, masks: Tensor) -> Tensor:
    """One for each image; a metric may also be an object with update, compute and reset (torchmetrics)."""
    found, true = (logits > 0).flatten(1), (masks > 0.5).flatten(1)
    return (found & true).sum(1) / (found | true).sum(1).clamp(min=1)


def disks(count: int) -> tuple[Tensor, Tensor]:
    x, y, rows = torch.rand(count, 1, 1, 1), torch.rand(count, 1, 1, 1), torch.linspace(0, 1, 24)
    masks = ((rows - x) ** 2 + (rows[:, None] - y) ** 2 < 0.06).float()
    return 0.6 * masks + 0.4 * torch.randn(masks.shape), masks


def main() -> None:
    torch.manual_seed(0)
    Path("runs").mkdir(exist_ok=True)
    task = sc.Task(F.binary_cross_entropy_with_logits, iou, name="IoU", direction="higher", unit="%")
    data = sc.Data.from_tensors("disks", disks(160), disks(60), task=task)  # from_datasets: your Dataset or DataLoader
    model, recipe = UNet(), sc.Recipe(epochs=5, batch_size=16, lr=0.05)
    sc.train(model, data, recipe)
    graph, place = sc.trace(model, data.example), "sqlite:///runs/unet.db"
    study = sc.Study("unet", model, graph, data, budget=sc.Budget(macs=1 / 3), storage=place, batch=32)
    study.search(trials=12)
    best = study.retrain(top=1, recipe=recipe, start="reconstructed").best()  # the highest IoU, for task.direction
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
