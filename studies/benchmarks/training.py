"""Images a second of secateur's training step beside a plain PyTorch loop, in turns, in one run.

    python studies/benchmarks/training.py [--backbone resnet20] [--steps 6] [--rounds 3] [--out result.json]

The plain loop is what most training scripts do: a Dataset that pads, crops, flips and normalises each image by itself,
a DataLoader with workers, float32, the default memory order. Both train the same network on the same images (CIFAR-10
where SECATEUR_DATA is set, random bytes of the same shape elsewhere: timing does not depend on the pixels) with SGD and
Nesterov momentum at batch size 128. The last table says where our step spends its time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from backbones.files import write_text  # noqa: E402
from backbones.registry import build  # noqa: E402
from search.data.augment import Augment  # noqa: E402
from search.data.cifar import CIFAR10_MEAN, CIFAR10_STD  # noqa: E402
from search.data.data import Data  # noqa: E402
from search.data.readers import load_data  # noqa: E402
from search.data.sources import Split  # noqa: E402
from search.training.feed import training_batches  # noqa: E402
from search.training.parallel import ProcessGroup  # noqa: E402
from search.training.recipe import Recipe  # noqa: E402
from search.training.train_state import prepare_training, train_step  # noqa: E402

BATCH = 128
Loop = Callable[[int], int]


def images() -> Data:
    """CIFAR-10, or noise of its shape."""
    if "SECATEUR_DATA" in os.environ:
        return load_data("cifar10")
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6000, 3, 32, 32), generator=draws, dtype=torch.uint8)
    split = (pixels, torch.arange(6000) % 10)
    return Data.from_tensors(
        "noise", split, split, mean=CIFAR10_MEAN, std=CIFAR10_STD, augment=Augment(crop=4, flip=True)
    )


class PerSample(Dataset[tuple[Tensor, int]]):
    """One image at a time, as torchvision's transforms would."""

    def __init__(self, split: Split) -> None:
        self.images, self.labels = split.images, split.labels.tolist()
        self.mean, self.std = torch.tensor(CIFAR10_MEAN)[:, None, None], torch.tensor(CIFAR10_STD)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        padded = F.pad(self.images[index], (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = padded[:, top : top + 32, left : left + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() / 255 - self.mean) / self.std, self.labels[index]


def plain_loop(data: Data, backbone: str, workers: int) -> Loop:
    """The loop of a plain script; returns a function that runs a number of steps and counts images."""
    assert isinstance(data.train, Split)
    model = build(backbone, 10).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    loader = DataLoader(PerSample(data.train), BATCH, shuffle=True, num_workers=workers, drop_last=True)
    batches: Iterator[tuple[Tensor, Tensor]] = iter(loader)

    def run(steps: int) -> int:
        for _ in range(steps):
            pixels, labels = next(batches)
            optimiser.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(pixels), labels)
            loss.backward()
            optimiser.step()
        return steps * BATCH

    return run


def our_loop(data: Data, backbone: str, recipe: Recipe) -> Loop:
    """The step of `search.training.engine`."""
    model = build(backbone, 10)
    training = prepare_training(model, data, recipe, None, ProcessGroup(0, 1, torch.device("cpu")), None)
    training.network.train()
    batches = training_batches(training.data, recipe, training.processes, 0)

    def run(steps: int) -> int:
        for _ in range(steps):
            pixels, labels = next(batches)
            loss, _ = train_step(training, pixels, labels, 0.01)
            float(loss)
        return steps * BATCH

    return run


def feeding(data: Data, recipe: Recipe) -> tuple[float, float]:
    """Images a second of the input alone: (ours, per sample in one process)."""
    assert isinstance(data.train, Split)
    ours = training_batches(data, recipe, ProcessGroup(0, 1, torch.device("cpu")), 0)
    theirs = iter(DataLoader(PerSample(data.train), BATCH, shuffle=True, drop_last=True))
    rates = []
    for batches in (ours, theirs):
        next(batches)
        start = time.perf_counter()
        for _ in range(10):
            next(batches)
        rates.append(10 * BATCH / (time.perf_counter() - start))
    return rates[0], rates[1]


def profile(run: Loop, steps: int) -> list[dict[str, float | str]]:
    """The eight operations that take most time in themselves."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        run(steps)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [{"operation": event.key, "share": event.self_cpu_time_total / total} for event in events[:8]]


def main() -> None:
    """Runs everything and prints one table and one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--backbone", default="resnet20")
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    data = images()
    same = Recipe(batch_size=BATCH, precision="float32", channels_last=False)
    loops: dict[str, Loop] = {
        "plain loop, no workers": plain_loop(data, chosen.backbone, 0),
        "plain loop, 2 workers": plain_loop(data, chosen.backbone, 2),
        "ours, float32, default order": our_loop(data, chosen.backbone, same),
        "ours, default recipe": our_loop(data, chosen.backbone, Recipe(batch_size=BATCH)),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop(1)
    for _ in range(chosen.rounds):
        for name, loop in loops.items():
            start = time.perf_counter()
            count = loop(chosen.steps)
            rates[name].append(count / (time.perf_counter() - start))
    ours, theirs = feeding(data, same)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    plain = max(medians[name] for name in medians if name.startswith("plain"))
    threads = torch.get_num_threads()
    result = {
        "backbone": chosen.backbone,
        "images_per_second": rates,
        "median": medians,
        "ratio_to_better_plain_loop": {name: value / plain for name, value in medians.items()},
        "images_per_second_and_core": medians["ours, default recipe"] / threads,
        "input_alone": {"ours": ours, "per sample, one process": theirs, "ratio": ours / theirs},
        "profile_of_default_recipe": profile(loops["ours, default recipe"], 2),
        "machine": {"processor": _processor(), "threads": threads, "torch": torch.__version__},
        "settings": {"batch": BATCH, "steps": chosen.steps, "rounds": chosen.rounds, "data": data.name},
    }
    for name, value in medians.items():
        print(f"{name:32s} {value:8.0f} images/s   {value / plain:5.2f} x the better plain loop")
    print(f"input alone: ours {ours:.0f} images/s, per sample {theirs:.0f}, ratio {ours / theirs:.1f}")
    for row in result["profile_of_default_recipe"]:
        print(f"  {row['share']:6.1%}  {row['operation']}")
    if chosen.out:
        write_text(chosen.out, json.dumps(result, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
