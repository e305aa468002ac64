"""What refitting must hold on whole networks: identity, exact repair, never worse, nothing touched, clear refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from scoring.reconstruction.layers import refit_layers
from scoring.reconstruction.reconstruct import reconstruct
from scoring.reconstruction.refit import refit
from scoring.reconstruction.targets import gather_targets
from tests.backbones.parity import noise, stirred
from tests.backbones.test_zoo import ZOO, traced
from tests.graphs import known_trace as trace

IMAGES = noise(24, 3, 16, 16).float()


def small_resnet() -> tuple[Any, ChannelGraph]:
    torch.manual_seed(0)
    model = stirred(build("resnet20", 10)).float().eval()
    return model, trace(model, IMAGES[:1])


def network(*layers: nn.Module) -> tuple[Any, ChannelGraph]:
    torch.manual_seed(0)
    model = nn.Sequential(*layers).double().eval()
    return model, trace(model, noise(1, 3, 8, 8))


def test_a_structure_that_keeps_everything_is_reproduced() -> None:
    model, graph = small_resnet()
    same: Any = reconstruct(model, graph, Structure.full(graph), IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(same(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", [True, False])
def test_a_dropped_duplicate_is_made_up_for(relu: bool) -> None:
    model, graph = network(
        nn.Conv2d(3, 6, 3),
        nn.ReLU() if relu else nn.Identity(),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(80, 4),
    )
    with torch.no_grad():
        model[0].weight[4], model[0].bias[4] = 2 * model[0].weight[1], 2 * model[0].bias[1]
    images = noise(40, 3, 8, 8)
    kept = {graph.groups[0].name: [0, 1, 2, 3, 5]}
    small: Any = reconstruct(model, graph, Structure.of(graph, kept), images, rows=10**6, ridge=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(small(images), model(images), rtol=1e-6, atol=1e-6)


def test_a_linear_mix_of_kept_channels_is_made_up_for() -> None:
    model, graph = network(nn.Conv2d(3, 6, 3), nn.AvgPool2d(2), nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5))
    with torch.no_grad():
        model[0].weight[4] = model[0].weight[1] - 3 * model[0].weight[0]
        model[0].bias[4] = 7.0
    images = noise(40, 3, 8, 8)
    small: Any = reconstruct(model, graph, Structure.of(graph, {"0": [0, 1, 2, 3, 5]}), images, rows=10**6, ridge=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(small(images), model(images), rtol=1e-6, atol=1e-6)


def test_a_branch_makes_up_for_what_the_stream_has_lost() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.outer = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 1), nn.Conv2d(12, 6, 1)
            self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.second(torch.tanh(self.first(x)))  # loses when first is cut
            y: Tensor = x + self.outer(torch.tanh(self.inner(x)))
            return y

    torch.manual_seed(0)
    model = Stream().double().eval()
    images = noise(16, 3, 8, 8)
    graph = trace(model, images[:1])
    structure = Structure.of(graph, {"first": [0]})
    targets = gather_targets(model, graph, images, rows=10**6)
    assert targets.layers["outer"].other is not None
    with torch.no_grad():
        wanted, cut = model(images), prune(model, graph, structure)(images)
        given = reconstruct(model, graph, structure, targets, ridge=1e-9)(images)
        for target in targets.layers.values():
            target.other = None  # each layer by itself, without regard to the sum
        alone = reconstruct(model, graph, structure, targets, ridge=1e-9)(images)
    assert F.mse_loss(given, wanted) < 0.9 * F.mse_loss(alone, wanted) < F.mse_loss(cut, wanted)


def test_no_layer_fits_its_rows_worse_than_as_cut() -> None:
    """Layer by layer, on the inputs that the refitted network really gives: the solution is the least of all."""
    model, graph = small_resnet()
    model = model.double()
    graph = trace(model, IMAGES[:1].double())
    images = IMAGES.double()
    structure = Structure.random(graph, keep=0.5, seed=3)
    targets = gather_targets(model, graph, images, rows=600)
    small: Any = reconstruct(model, graph, structure, targets)
    cut: Any = prune(model, graph, structure)
    entered: dict[str, Tensor] = {}
    for path in targets.layers:
        small.get_submodule(path).register_forward_pre_hook(
            lambda _, args, path=path: entered.__setitem__(path, args[0])
        )
    with torch.no_grad():
        small(images)
        for path, target in targets.layers.items():
            if target.layer.rectified or target.other is not None:
                continue  # these are fitted to other targets
            kept = small.secateur_origin.tensors.get(f"{path}.weight", {}).get(0)
            wanted = target.outputs if kept is None else target.outputs[:, list(kept)]
            errors = []
            for net in (small, cut):
                rows = net.get_submodule(path)(entered[path])
                rows = rows.movedim(1, -1) if rows.ndim == 4 else rows
                residual = rows.reshape(-1, rows.shape[-1])[target.where.outputs] - wanted
                errors.append(float((residual - residual.mean(0)).square().sum()))
            assert errors[0] <= errors[1] * (1 + 1e-9), path


def test_nothing_depends_on_threads_or_on_how_images_are_batched() -> None:
    model, _ = small_resnet()
    images = IMAGES.double()
    graph = trace(model.double(), images[:1])
    structure = Structure.random(graph, macs=0.4, seed=1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, batches in ((1, images), (2, images), (1, list(images.split(7)))):
            torch.set_num_threads(threads)
            found.append(reconstruct(model, graph, structure, batches, rows=500).state_dict())
    finally:
        torch.set_num_threads(before)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-8, atol=1e-8)  # sums in another order
        assert torch.equal(found[2][name], value)


def test_the_given_model_and_its_flags_stay() -> None:
    model, graph = small_resnet()
    model.train()
    model.layer2.eval()
    for parameter in model.layer1.parameters():
        parameter.requires_grad_(False)
    calls: list[int] = []
    model.linear.register_forward_hook(lambda *_: calls.append(1))
    before = copy.deepcopy(model.state_dict())
    small: Any = reconstruct(model, graph, Structure.random(graph, macs=0.4, seed=1), IMAGES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert small.training
    assert not small.layer2.training
    assert len(small.linear._forward_hooks) == 1
    assert all(not module._forward_pre_hooks for module in small.modules())
    assert small.secateur_as_cut["layer1.0.conv1"] == "its weight is frozen (requires_grad=False)"
    assert "layer3.0.conv1" not in small.secateur_as_cut
    cut: Any = prune(model, graph, small.secateur_origin.structure)
    assert torch.equal(small.layer1[0].conv1.weight, cut.layer1[0].conv1.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats(dtype: torch.dtype) -> None:
    model = stirred(build("resnet20", 10)).to(dtype).eval()
    images = IMAGES.to(dtype)
    graph = trace(model, images[:1])
    small: Any = reconstruct(model, graph, Structure.random(graph, macs=0.5, seed=0), images, rows=500)
    assert {value.dtype for value in small.parameters()} == {dtype}
    with torch.no_grad():
        assert bool(small(images).isfinite().all())


def test_constant_channels_dead_layers_and_more_unknowns_than_rows() -> None:
    model, graph = network(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 5, 3),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    with torch.no_grad():
        model[0].bias[:8] = -100.0  # dead
        model[0].weight[9] = 0.0  # constant
        model[2].bias.fill_(-100.0)  # a dead layer
    small: Any = reconstruct(
        model, graph, Structure.of(graph, {"0": [0, 1, 2, 9, 12], "2": [1, 2]}), noise(2, 3, 8, 8), rows=2
    )
    assert all(bool(value.isfinite().all()) for value in small.state_dict().values())


def test_layers_that_cannot_be_refitted_say_why() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.stem = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
            self.twice = nn.Conv2d(8, 8, 1)
            self.computed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
            self.functional = nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.twice(torch.relu(self.twice(self.stem(torch.tanh(self.start(x))))))
            x = self.computed(x) + F.conv2d(x, self.functional.weight)
            logits: Tensor = self.head(x.mean((2, 3)))
            return logits

    model = Odd().double().eval()
    images = noise(6, 3, 5, 5)
    found, left = refit_layers(model, trace(model, images[:1]))
    assert sorted(found) == ["functional", "head", "start", "stem"]
    assert left["twice"] == "it is called several times"
    assert left["computed.parametrizations.weight"] == "ParametrizationList is not refitted"
    small: Any = reconstruct(model, trace(model, images[:1]), Structure.full(trace(model, images[:1])), images)
    assert small.secateur_as_cut["functional"] == "its module is never called"


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=1, deadline=None)
@given(seed=st.integers(0, 1000))
def test_every_network_of_the_zoo(name: str, seed: int) -> None:
    model, graph, sample = traced(name)
    inputs = tuple(noise(12, *value.shape[1:], seed=seed).to(value.dtype) for value in sample.example)
    if not all(value.is_floating_point() for value in sample.example):
        inputs = tuple(value.expand(12, *value.shape[1:]) for value in sample.example)
    model = copy.deepcopy(model).eval()
    try:
        with torch.no_grad():
            dense = model(*inputs)
    except (RuntimeError, ValueError):
        pytest.skip("the network's code takes a batch of one only")
    same: Any = reconstruct(model, graph, Structure.full(graph), inputs)
    structure = Structure.random(graph, keep=0.6, seed=seed)
    small: Any = reconstruct(model, graph, structure, inputs)
    cut: Any = prune(model, graph, structure)
    with torch.no_grad():
        for ours, wanted in zip(tree_leaves(same(*inputs)), tree_leaves(dense), strict=True):
            if isinstance(wanted, Tensor):
                torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-6)
        given, without = tree_leaves(small(*inputs)), tree_leaves(cut(*inputs))
    for ours, wanted in zip(given, without, strict=True):
        if isinstance(wanted, Tensor):
            assert ours.shape == wanted.shape
            assert bool(ours.isfinite().all())
    end = list(small.modules())[-1]
    if isinstance(end, nn.Linear) and len(given) == 1 and isinstance(dense, Tensor):
        assert float(F.mse_loss(given[0], dense)) <= float(F.mse_loss(without[0], dense)) * 1.001


BAD: dict[str, tuple[Any, str]] = {
    "shape": (
        noise(4, 3, 8, 8).float(),
        r"images have shape \(4, 3, 8, 8\); the network was traced with \(B, 3, 16, 16\)",
    ),
    "dtype": (IMAGES.double(), "images are torch.float64; the network was traced with torch.float32"),
    "device": (IMAGES.to("meta"), "images are on meta, the network is on cpu"),
    "one": (IMAGES[:1], "at least 2 are needed to refit on, but got 1"),
    "none": ([], "but got an empty list"),
    "nan": (torch.where(IMAGES > 2, torch.nan, IMAGES), "images: not finite"),
    "several": ((IMAGES, IMAGES), "the network takes 1 inputs, but a batch has 2"),
    "text": ("images.pt", "images must be a tensor like the traced example, but got str"),
}


@pytest.mark.parametrize("name", BAD)
def test_images_that_cannot_be_used_are_named(name: str) -> None:
    model, graph = small_resnet()
    images, message = BAD[name]
    with pytest.raises(SecateurError, match=message):
        reconstruct(model, graph, Structure.full(graph), images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "ridge > 0 must hold, but got ridge=0.0"),
        ({"rows": 0}, "rows >= 1 must hold, but got rows=0"),
        ({"method": "layer"}, "method 'layer'"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    model, graph = small_resnet()
    with pytest.raises(SecateurError, match=message):
        reconstruct(model, graph, Structure.full(graph), IMAGES, **options)


class Residual(nn.Module):
    """A stem, and a block whose sum is read by a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.first, self.second = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.last, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = self.last(self.second(torch.relu(self.first(x))))
        y += x
        logits: Tensor = self.head(torch.relu(y).mean((2, 3)))
        return logits


def residual() -> tuple[Any, ChannelGraph]:
    torch.manual_seed(0)
    model = stirred(Residual()).eval()
    return model, trace(model, noise(1, 3, 8, 8))


@pytest.mark.parametrize("watched", ["stem", "norm", "second", "last"])
def test_hooks_on_a_layer_or_its_norm_see_what_they_see_without_refitting(watched: str) -> None:
    """Layers that nothing looks at run as one with their norm, and late; the others one after the other."""
    model, graph = residual()
    images, structure = noise(16, 3, 8, 8), Structure.of(residual()[1], {"first": [0, 2, 3, 6]})
    targets = gather_targets(model, graph, images, rows=500)
    alone: Any = refit(targets, structure)
    seen: list[Tensor] = []
    handle = model.get_submodule(watched).register_forward_hook(lambda _, __, output: seen.append(output))
    looked_at: Any = refit(gather_targets(model, graph, images, rows=500), structure)
    handle.remove()
    assert seen
    assert all(bool(value.isfinite().all()) for value in seen)
    seen.clear()
    with torch.no_grad():
        expected = looked_at(images)
    assert len(seen) == 1
    if watched in ("stem", "norm"):  # not part of the sum, so nothing changes but the order of the arithmetic
        with torch.no_grad():
            torch.testing.assert_close(alone(images), expected, rtol=1e-6, atol=1e-6)


def test_the_pass_leaves_no_forward_behind() -> None:
    model, graph = residual()
    targets = gather_targets(model, graph, noise(16, 3, 8, 8), rows=500)
    small = refit(targets, Structure.of(graph, {"first": [0, 2, 3, 6]}))
    assert all("forward" not in vars(module) for module in [*small.modules(), *model.modules()])


def test_for_forward_passes_only_or_not_is_one_function_in_evaluation() -> None:
    model, graph = residual()
    images, structure = noise(16, 3, 8, 8), Structure.of(graph, {"first": [0, 2, 3, 6], "stem": [0, 1, 4]})
    targets = gather_targets(model, graph, images, rows=500)
    with torch.no_grad():
        ready, quick = (refit(targets, structure, forward_only=way).eval()(images) for way in (False, True))
    torch.testing.assert_close(quick, ready, rtol=1e-9, atol=1e-9)


def test_a_convolution_may_be_removed_with_its_norm() -> None:
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    model, graph = network(*layers, nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    images = noise(16, 3, 8, 8)
    kept = [0, 1, 3, 4]
    small: Any = reconstruct(model, graph, Structure.of(graph, {"0": kept, "3": kept}, removed=["3"]), images)
    assert isinstance(small[3], nn.Identity)
    assert small.secateur_as_cut == {}
    cut: Any = prune(model, graph, small.secateur_origin.structure)
    with torch.no_grad():
        wanted = model(images)
        assert F.mse_loss(small(images), wanted) < F.mse_loss(cut(images), wanted)


def test_layers_whose_norm_is_called_twice_stay_as_cut() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.first(x)))
            x = torch.relu(self.norm(self.second(x)))
            logits: Tensor = self.head(x.mean((2, 3)))
            return logits

    torch.manual_seed(0)
    model = stirred(Shared()).eval()
    images = noise(16, 3, 8, 8)
    graph = trace(model, images[:1])
    small: Any = reconstruct(model, graph, Structure.random(graph, keep=0.6, seed=0), images)
    assert small.secateur_as_cut["first"] == "the batch norm behind it was removed, or is not called once"
    with torch.no_grad():
        assert bool(small(images).isfinite().all())


def test_fewer_rows_for_layers_with_few_weights() -> None:
    model, graph = residual()
    targets = gather_targets(model, graph, noise(16, 3, 8, 8), rows=500, rows_per_unknown=4)
    rows = {path: len(target.outputs) for path, target in targets.layers.items()}
    assert rows == {"stem": 16, "first": 4 * 54 // 16 * 16, "second": 4 * 72 // 16 * 16, "head": 16}
    with pytest.raises(SecateurError, match="rows_per_unknown >= 1 must hold, but got rows_per_unknown=0"):
        gather_targets(model, graph, noise(16, 3, 8, 8), rows_per_unknown=0)


def test_for_forward_passes_only_norms_are_folded_into_the_layers_before_them() -> None:
    model, graph = residual()
    targets = gather_targets(model, graph, noise(16, 3, 8, 8), rows=500)
    quick = refit(targets, Structure.of(graph, {"first": [0, 2, 3, 6]}), forward_only=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_a_pass_in_bfloat16_gives_float32_layers_close_to_those_of_a_pass_in_float32() -> None:
    model, graph = residual()
    model, images = model.float(), noise(16, 3, 8, 8).float()
    graph = trace(model, images[:1])
    structure = Structure.of(graph, {"first": [0, 2, 3, 6], "stem": [0, 1, 4]})
    targets = gather_targets(model, graph, images, rows=500)
    exact, quick = (refit(targets, structure, forward_only=True, half=half).eval() for half in (False, True))
    assert {value.dtype for value in quick.parameters()} == {torch.float32}
    with torch.no_grad():
        wanted, found = exact(images), quick(images)
    assert not torch.equal(found, wanted)
    assert F.mse_loss(found, wanted) < 1e-4 * wanted.square().mean()
