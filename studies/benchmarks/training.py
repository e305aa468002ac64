"""Images a second of secateur's training step beside a plain PyTorch loop, in turns, in one run.

    python studies/benchmarks/training.py [--backbone resnet20] [--steps 6] [--rounds 3] [--out result.json]
    python studies/benchmarks/training.py --ways --backbone resnet56 --macs 0.2 [--steps 4] [--out ways.json]

The plain loop is what most training scripts do: a Dataset that pads, crops, flips and normalises each image by itself,
a DataLoader with workers, float32, the default memory order. Both train the same network on the same images (CIFAR-10
where SECATEUR_DATA is set, random bytes of the same shape elsewhere: timing does not depend on the pixels) with SGD and
Nesterov momentum at batch size 128. The last table says where our step spends its time.

With --ways our step alone, in every way that it can run: float32 and bfloat16, uncompiled and compiled (with --device
cuda: replayed as CUDA graphs), in one process with all threads and, on a CPU, in as many processes of one thread as
there are threads, which share the batch and average their gradients. --macs cuts the network at random to that share of
its MACs first. Uncompiled, one process is what ratios refer to. On a machine that others use, two threads wait for each
other in every layer: take OMP_NUM_THREADS=1 there and the images a second of processor time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from backbones.files import write_text  # noqa: E402
from backbones.registry import build  # noqa: E402
from backbones.structure import Structure  # noqa: E402
from backbones.surgery import prune  # noqa: E402
from backbones.trace import trace  # noqa: E402
from search.data.augment import Augment  # noqa: E402
from search.data.cifar import CIFAR10_MEAN, CIFAR10_STD  # noqa: E402
from search.data.data import Data  # noqa: E402
from search.data.readers import load_data  # noqa: E402
from search.data.sources import Split  # noqa: E402
from search.training.compiling import compile_training  # noqa: E402
from search.training.feed import training_batches  # noqa: E402
from search.training.parallel import ProcessGroup  # noqa: E402
from search.training.recipe import Recipe  # noqa: E402
from search.training.train_state import prepare_training, train_step  # noqa: E402

BATCH = 128
Loop = Callable[[int], int]
ALONE = ProcessGroup(0, 1, torch.device("cpu"))


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


def network(backbone: str, data: Data, macs: float | None) -> nn.Module:
    """The network, cut at random to a share of its MACs where one is given; always the same."""
    torch.manual_seed(0)
    model = build(backbone, 10)
    if macs is None:
        return model
    graph = trace(model, data.example)
    return prune(model, graph, Structure.random(graph, macs=macs, seed=0))


def our_loop(data: Data, model: nn.Module, recipe: Recipe, processes: ProcessGroup = ALONE) -> Loop:
    """The step of `search.training.engine`."""
    training = prepare_training(model, data, recipe, None, processes, None)
    compile_training(training, None, 1)
    assert (training.compiled > 0) == recipe.compile
    training.network = processes.wrap(training.network).train()
    batches = training_batches(training.data, recipe, processes, 0)

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
    ours = training_batches(data, recipe, ALONE, 0)
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


def work(rank: int, size: int, meeting: str, orders: Connection, model: nn.Module, recipe: Recipe) -> None:
    """One of several processes: takes numbers of steps, 0 to end, and says when they are done."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    loop = our_loop(images(), model, recipe, ProcessGroup(rank, size, torch.device("cpu")))
    orders.send(0)
    while steps := orders.recv():
        orders.send(loop(steps))
    dist.destroy_process_group()


def together(model: nn.Module, recipe: Recipe, size: int, meeting: str) -> Loop:
    """The same step in `size` processes of one thread; 0 steps end them."""
    pipes = [multiprocessing.Pipe() for _ in range(size)]
    spawning = multiprocessing.get_context("spawn")
    for rank, (_, theirs) in enumerate(pipes):
        spawning.Process(target=work, args=(rank, size, meeting, theirs, model, recipe), daemon=False).start()
    for ours, _ in pipes:
        ours.recv()

    def run(steps: int) -> int:
        for ours, _ in pipes:
            ours.send(steps)
        return max(ours.recv() for ours, _ in pipes) if steps else 0

    return run


def in_turns(
    loops: dict[str, Loop], rounds: int, steps: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Images a second of each loop in each round, by a clock."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop(1)
    for _ in range(rounds):
        for name, loop in loops.items():
            start = clock()
            count = loop(steps)
            rates[name].append(count / (clock() - start))
    return rates


def ways(chosen: argparse.Namespace, data: Data) -> dict[str, object]:
    """Our step in every way that it can run."""
    device = torch.device(chosen.device)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    own = f"{threads} threads" if threads > 1 else "1 thread" if device.type == "cpu" else "CUDA"
    by_wall = threads > 1 or device.type != "cpu"
    result: dict[str, object] = {"clock": "wall" if by_wall else "processor"}
    with tempfile.TemporaryDirectory() as folder:
        for precision in chosen.precisions:
            loops: dict[str, Loop] = {}
            for compiled in (False, True):
                recipe = Recipe(batch_size=BATCH, precision=precision, compile=compiled)
                word = "compiled" if compiled else "uncompiled"
                model = network(chosen.backbone, data, chosen.macs)
                loops[f"1 process, {own}, {word}"] = our_loop(data, model, recipe, ProcessGroup(0, 1, device))
                if threads > 1:
                    meeting = f"{folder}/{precision}-{word}"
                    model = network(chosen.backbone, data, chosen.macs)
                    loops[f"{threads} processes, 1 thread, {word}"] = together(model, recipe, threads, meeting)
            clock = time.perf_counter if by_wall else time.process_time
            rates = in_turns(loops, chosen.rounds, chosen.steps, clock)
            for name, loop in loops.items():
                if "processes" in name:
                    loop(0)
            first = rates[f"1 process, {own}, uncompiled"]
            ratios = {
                name: [one / base for one, base in zip(values, first, strict=True)] for name, values in rates.items()
            }
            result[precision] = {"images_per_second": rates, "ratio": ratios}
            for name, values in rates.items():
                middle = statistics.median(values)
                print(f"{precision:9s} {name:34s} {middle:6.0f} images/s {statistics.median(ratios[name]):5.2f} x")
    return result


def main() -> None:
    """Runs what is asked for."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--backbone", default="resnet20")
    options.add_argument("--macs", type=float)
    options.add_argument("--ways", action="store_true")
    options.add_argument("--device", default="cpu", help="of --ways")
    options.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"], help="of --ways")
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    data = images()
    result = ways(chosen, data) if chosen.ways else beside_plain_loops(chosen, data)
    result |= {
        "backbone": chosen.backbone,
        "machine": {
            "processor": _processor(), "device": _device(chosen.device),
            "threads": torch.get_num_threads(), "torch": torch.__version__,
        },
        "settings": {
            "batch": BATCH, "steps": chosen.steps, "rounds": chosen.rounds, "data": data.name, "macs": chosen.macs,
        },
    }  # fmt: skip
    if chosen.out:
        write_text(chosen.out, json.dumps(result, indent=1) + "\n")


def beside_plain_loops(chosen: argparse.Namespace, data: Data) -> dict[str, object]:
    """Our step, uncompiled, beside plain loops."""
    same = Recipe(batch_size=BATCH, precision="float32", channels_last=False, compile=False)
    loops: dict[str, Loop] = {
        "plain loop, no workers": plain_loop(data, chosen.backbone, 0),
        "plain loop, 2 workers": plain_loop(data, chosen.backbone, 2),
        "ours, float32, default order": our_loop(data, network(chosen.backbone, data, None), same),
        "ours, default recipe": our_loop(
            data, network(chosen.backbone, data, None), Recipe(batch_size=BATCH, compile=False)
        ),
    }
    rates = in_turns(loops, chosen.rounds, chosen.steps)
    ours, theirs = feeding(data, same)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    plain = max(medians[name] for name in medians if name.startswith("plain"))
    for name, value in medians.items():
        print(f"{name:32s} {value:8.0f} images/s   {value / plain:5.2f} x the better plain loop")
    print(f"input alone: ours {ours:.0f} images/s, per sample {theirs:.0f}, ratio {ours / theirs:.1f}")
    operations = profile(loops["ours, default recipe"], 2)
    for row in operations:
        print(f"  {row['share']:6.1%}  {row['operation']}")
    return {
        "images_per_second": rates,
        "median": medians,
        "ratio_to_better_plain_loop": {name: value / plain for name, value in medians.items()},
        "images_per_second_and_core": medians["ours, default recipe"] / torch.get_num_threads(),
        "input_alone": {"ours": ours, "per sample, one process": theirs, "ratio": ours / theirs},
        "profile_of_default_recipe": operations,
    }


def _device(name: str) -> str:
    return torch.cuda.get_device_name() if name.startswith("cuda") else name


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
