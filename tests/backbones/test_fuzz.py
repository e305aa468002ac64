"""Random small networks out of blocks: parity or a named freeze, never a crash."""

from __future__ import annotations

import random
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.modes import evaluating
from backbones.structure import Structure
from tests.backbones.fuzz_blocks import BLOCKS
from tests.backbones.parity import assert_law, noise, stirred
from tests.graphs import known_trace


class Random(nn.Module):
    """A chain of random steps that can reach back, and a head of one of three kinds."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.stem = nn.Conv2d(3, rng.choice([4, 6, 8, 12]), 3, padding=1)
        widths = [self.stem.out_channels]
        self.steps = nn.ModuleList()
        self.uncounted = False
        probe = [torch.zeros(1, widths[0], 8, 8)]
        for _ in range(rng.randint(2, 7)):
            step = rng.choice(BLOCKS)(rng, widths[-1], widths)
            try:
                with evaluating(step), torch.no_grad():
                    out = step(probe[-1], probe)
            except ValueError as error:  # torch refuses an instance norm of one pixel
                assert "more than 1 spatial element" in str(error)  # noqa: PT017
                continue
            if out.shape[1] > 64 or out.shape[2] > 16:
                continue
            self.steps.append(step)
            self.uncounted |= step.uncounted
            probe.append(out)
            widths.append(out.shape[1])
        self.way = rng.choice(["pool", "flatten", "map"])
        last = probe[-1]
        self.head = nn.Linear(widths[-1] * (last[0, 0].numel() if self.way == "flatten" else 1), 3)
        self.map = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for step in self.steps:
            maps.append(step(maps[-1], maps))
        if self.way == "map":
            out: Tensor = self.map(maps[-1])
        else:
            out = self.head(maps[-1].flatten(1) if self.way == "flatten" else maps[-1].mean((2, 3)))
        return out


@lru_cache(maxsize=100)
def traced(seed: int) -> tuple[Random, ChannelGraph | None]:
    """The network of this seed in float64 and its graph, None where no channel of it can be pruned."""
    torch.manual_seed(seed)
    network = Random(seed)
    stirred(network, seed)
    try:
        return network, known_trace(network, noise(1, 3, 8, 8, seed=seed))
    except SecateurError as error:
        if "has no prunable group (" in str(error):
            return network, None
        raise


def check(seed: int) -> bool:
    """Whether the network of this seed was prunable; any breach of the law raises."""
    network, graph = traced(seed)
    if graph is None:
        return False
    assert all(record.reason and record.op for record in graph.frozen)
    unused = ["head.weight", "head.bias", "map.weight", "map.bias"]
    used = {member.tensor for group in graph.groups for member in group.members}
    silent = [name for name, _ in network.named_parameters() if name not in used] + unused
    for number in range(2):
        structure = Structure.random(graph, keep=0.5, seed=seed + number)
        counted = not network.uncounted
        assert_law(network, graph, structure, values=not graph.mixed, counted=counted, without_gradient=silent)
    return True


@pytest.mark.parametrize("start", range(0, 36, 12))
def test_three_dozen_networks(start: int) -> None:
    assert sum(check(seed) for seed in range(start, start + 12)) >= 9


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_networks() -> None:
    """Most are prunable, the others refused by name (every channel frozen), none is against the law.

    The counts that were found stand in studies/README.md.
    """
    assert sum(check(seed) for seed in range(1000)) >= 900
