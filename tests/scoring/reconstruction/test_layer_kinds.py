"""Every kind of layer against a direct least-squares solution in float64, and the problems it falls into."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.structure import Structure
from scoring.reconstruction.patches import gather, join_outputs, padded, parts, sample, weight_matrix, weight_of
from scoring.reconstruction.reconstruct import reconstruct
from scoring.reconstruction.refit import refit
from scoring.reconstruction.targets import gather_targets
from tests.backbones.parity import noise
from tests.graphs import known_trace as trace

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(6, 4, 3, padding=1), (5, 6, 11)),
    "conv2d": (nn.Conv2d(6, 4, 3, padding=1), (3, 6, 7, 5)),
    "strided": (nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (3, 6, 7, 5)),
    "dilated": (nn.Conv2d(6, 4, 3, dilation=2, padding=2, bias=False), (3, 6, 7, 6)),
    "same": (nn.Conv2d(6, 4, (5, 3), dilation=(1, 2), padding="same"), (3, 6, 7, 6)),
    "reflected": (nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect"), (3, 6, 7, 6)),
    "circular": (nn.Conv1d(6, 4, 3, padding=1, padding_mode="circular"), (3, 6, 9)),
    "grouped": (nn.Conv2d(6, 4, 3, padding=1, groups=2), (3, 6, 7, 5)),
    "depthwise": (nn.Conv2d(6, 12, 3, padding=1, groups=6), (3, 6, 7, 5)),
    "conv3d": (nn.Conv3d(4, 6, (1, 2, 3), padding=(0, 1, 1)), (2, 4, 3, 5, 4)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (3, 6, 5, 4)),
    "transposed grouped": (nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2), (3, 6, 5, 4)),
    "transposed dilated": (nn.ConvTranspose1d(6, 4, 3, dilation=2, bias=False), (3, 6, 9)),
    "transposed depthwise": (nn.ConvTranspose2d(6, 12, 2, stride=2, groups=6), (3, 6, 4, 4)),
    "linear": (nn.Linear(6, 4), (9, 6)),
    "tokens": (nn.Linear(6, 4, bias=False), (3, 7, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_patches_times_weights_are_the_layers_outputs(name: str, layout: str) -> None:
    module, shape = LAYERS[name]
    module = module.double()
    x = noise(*shape)
    if layout == "channels last":
        if x.ndim != 4:
            pytest.skip("only images have that layout")
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y = module(x)
        rows = y.movedim(1, -1) if isinstance(module, nn.modules.conv._ConvNd) else y
        where = sample(module, padded(x, module).shape, y.shape, rows=40, seed=3)
        patches = gather(module, x, where, torch.float64)
        matrix = weight_matrix(module, module.weight)
        assert torch.equal(weight_of(module, matrix, module.weight), module.weight)
        given = join_outputs(torch.bmm(patches, matrix))
        if module.bias is not None:
            given = given + module.bias
        torch.testing.assert_close(given, rows.reshape(-1, rows.shape[-1])[where.outputs], rtol=1e-10, atol=1e-10)
    assert patches.shape[0] == parts(module)
    assert len(where.outputs.unique()) == len(where.outputs)


class Chain(nn.Module):
    """A convolution whose outputs can be pruned, an activation that keeps them, and the layer under test."""

    def __init__(self, kind: str, bias: bool, norm: bool) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "conv": nn.Conv2d(6, 5, 3, padding=1, bias=bias),
            "strided": nn.Conv2d(6, 5, 3, stride=2, bias=bias),
            "grouped": nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=bias),
            "transposed": nn.ConvTranspose2d(6, 5, 3, stride=2, bias=bias),
            "tokens": nn.Linear(6, 5, bias=bias),
        }
        self.kind = kind
        self.first = nn.Conv2d(3, 6, 1)
        self.last = layers[kind]
        self.norm = nn.BatchNorm2d(4 if kind == "grouped" else 5) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.kind == "tokens":
            tokens: Tensor = self.last(x.flatten(2).mT)
            return tokens
        y: Tensor = self.norm(self.last(x))
        return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["conv", "strided", "grouped", "transposed", "tokens"])
def test_a_refitted_layer_is_the_least_squares_solution(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    model = Chain(kind, bias, norm=False).double().eval()
    images = noise(12, 3, 6, 6)
    graph = trace(model, images[:1])
    kept = [0, 2] if kind == "grouped" else [0, 2, 3]  # a position of every part goes
    structure = Structure.of(graph, {graph.groups[0].name: kept})
    ridge = 1e-9
    small: Any = reconstruct(model, graph, structure, images, rows=10**6, ridge=ridge)
    with torch.no_grad():
        wanted, x = model(images), torch.tanh(small.first(images))
        module = small.last
        if kind == "tokens":
            patches, target = x.flatten(2).mT.reshape(1, -1, 3), wanted.reshape(-1, 5)
        else:
            where = sample(module, padded(x, module).shape, wanted.shape, 10**6, 0)
            patches, target = (
                gather(module, x, where, torch.float64),
                wanted.movedim(1, -1).reshape(-1, wanted.shape[1]),
            )
        groups, width = parts(module), target.shape[1] // parts(module)
        for part in range(groups):
            ones = torch.ones(patches.shape[1], 1, dtype=torch.float64)
            a = torch.cat([patches[part], ones], 1) if bias else patches[part]
            y = target[:, part * width : (part + 1) * width]
            best = (y - a @ torch.linalg.lstsq(a, y).solution).square().sum()
            given = small(images).movedim(1, -1).reshape(-1, 4 if kind == "grouped" else 5)
            if kind == "tokens":
                given = small(images).reshape(-1, 5)
            ours = (y - given[:, part * width : (part + 1) * width]).square().sum()
            assert float(ours) == pytest.approx(float(best), rel=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_the_norm_behind_a_fit_keeps_the_dense_scale_in_both_modes(bias: bool) -> None:
    torch.manual_seed(1)
    model = Chain("conv", bias, norm=True).double()
    images = noise(40, 3, 6, 6)
    model.train()
    for _ in range(200):
        model(images)
    model.eval()
    graph = trace(model, images[:1])
    structure = Structure.of(graph, {graph.groups[0].name: [0, 2, 3]})
    small: Any = reconstruct(model, graph, structure, images, rows=10**6, ridge=1e-9)
    with torch.no_grad():
        in_evaluation = small(images)
        small.norm.train()
        in_training = small(images)
    difference = (in_training - in_evaluation).abs().max() / in_evaluation.abs().max()
    assert float(difference) < 0.02  # the dense network's running statistics are not quite those of these images
    error = (in_evaluation - model(images)).square().mean() / model(images).var()
    assert float(error.detach()) < 0.6


def test_targets_that_a_relu_leaves_free_lower_the_error_behind_it() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 6, 3), nn.ReLU()).double().eval()
    images = noise(16, 3, 9, 9)
    graph = trace(model, images[:1])
    structure = Structure.of(graph, {graph.groups[0].name: [0, 1, 4]})
    targets = gather_targets(model, graph, images, rows=10**6)
    with torch.no_grad():
        errors = [
            float(F.mse_loss(refit(targets, structure, ridge=1e-6, rounds=rounds)(images), model(images)))
            for rounds in (0, 1, 4)
        ]
    assert errors[0] > errors[1] > errors[2]
