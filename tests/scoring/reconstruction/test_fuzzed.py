"""Random small networks refitted: finite, the same shapes, and no worse on the images they were fitted to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from backbones.structure import Structure
from backbones.surgery import prune
from scoring.reconstruction.refit import refit
from scoring.reconstruction.targets import gather_targets
from tests.backbones.parity import noise
from tests.backbones.test_fuzz import traced


def check_refit(seed: int) -> tuple[float, float] | None:
    """Relative error of the outputs on the fitting images, as cut and refitted; None for a network without groups."""
    network, graph = traced(seed)
    if graph is None:
        return None
    model, images = network.eval(), noise(24, 3, 8, 8, seed=seed)
    structure = Structure.random(graph, keep=0.6, seed=seed)
    targets = gather_targets(model, graph, images, rows=10**6)
    with torch.no_grad():
        wanted = model(images)
        whole = refit(targets, Structure.full(graph))(images)
        small, cut = refit(targets, structure), prune(model, graph, structure)
        given, without = small(images), cut(images)
    torch.testing.assert_close(whole, wanted, rtol=1e-6, atol=1e-6)
    assert given.shape == wanted.shape
    assert bool(given.isfinite().all())
    head = "map" if network.way == "map" else "head"
    assert head not in small.secateur_as_cut  # type: ignore[operator]
    size = float(wanted.square().mean())
    return float(F.mse_loss(without, wanted)) / size, float(F.mse_loss(given, wanted)) / size


@pytest.mark.parametrize("start", [0, 12])
def test_random_networks_are_refitted_and_lose_less_than_as_cut(start: int) -> None:
    """The last layer is linear in its inputs and solved for: it cannot end above what the cut network loses."""
    found = [pair for seed in range(start, start + 12) if (pair := check_refit(seed)) is not None]
    assert len(found) >= 9
    assert all(refitted <= cut * 1.001 for cut, refitted in found)
