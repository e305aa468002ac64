"""The order of channels against a greedy search that solves every least-squares problem anew, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from scoring.criterion_inputs import gather_inputs
from scoring.reconstruction.channel_order import Readers, _Moments, channel_errors, drop_in_order
from scoring.tables import FilterTables, error_table, filter_tables
from tests.backbones.parity import noise
from tests.graphs import known_trace as trace

Matrix = NDArray[np.float64]
# What one layer reads (rows, channels), its weights (channels, outputs), and the columns of the group's channels.
Reader = tuple[Matrix, Matrix, Sequence[int]]
IMAGES = noise(30, 3, 4, 4)
TINY = 1e-10


def direct_errors(readers: Sequence[Reader], size: int, *, centred: bool = True) -> Matrix:
    """(n,) as `channel_errors`, solved from nothing at every step."""

    def error(dropped: list[int]) -> float:
        total = 0.0
        for rows, weight, columns in readers:
            rows = rows - rows.mean(0) if centred else rows
            wanted = rows @ weight
            kept = np.delete(rows, [columns[i] for i in dropped], axis=1)
            left = wanted - kept @ np.linalg.lstsq(kept, wanted, rcond=None)[0] if kept.shape[1] else wanted
            total += float((left**2).sum() / (wanted**2).sum())
        return total

    errors, dropped = np.zeros(size), list[int]()
    while len(dropped) < size:
        best = min((error([*dropped, i]), i) for i in range(size) if i not in dropped)
        errors[best[1]] = best[0]
        dropped.append(best[1])
    return errors


def read_by(model: nn.Module, path: str) -> Tensor:
    """What a layer of the network reads."""
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        model(IMAGES)
    handle.remove()
    return seen[0]


def pixels(values: Tensor) -> Matrix:
    return values.movedim(1, -1).flatten(0, -2).numpy()


def matrix(module: Any) -> Matrix:
    return module.weight.detach().flatten(1).T.numpy()  # type: ignore[no-any-return]


class Net(nn.Module):
    """Layers by name, and a forward pass that is given."""

    def __init__(self, run: Any, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.run(self, x)
        return out


def network(run: Any, images: Tensor = IMAGES, **layers: nn.Module) -> tuple[Any, ChannelGraph]:
    torch.manual_seed(0)
    for layer in layers.values():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()  # type: ignore[operator]
    model = Net(run, **layers).double().eval()
    return model, trace(model, images[:1])


def found(model: nn.Module, graph: ChannelGraph, group: str) -> Matrix:
    return channel_errors(model, graph, IMAGES, rows=10**6, ridge=TINY)[group]


def test_a_residual_stream_counts_all_its_readers() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x = x + self.branch(x).relu()
        return torch.cat([self.one(x), self.two(x)], 1)

    model, graph = network(
        run,
        stem=nn.Conv2d(3, 6, 3, padding=1),
        branch=nn.Conv2d(6, 6, 1),
        one=nn.Conv2d(6, 4, 1),
        two=nn.Conv2d(6, 1, 1),
    )
    readers: list[Reader] = [
        (pixels(read_by(model, path)), matrix(model.get_submodule(path)), range(6)) for path in ("branch", "one", "two")
    ]
    np.testing.assert_allclose(found(model, graph, "stem"), direct_errors(readers, 6), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bias", [True, False])
def test_channels_beside_a_group_stay(bias: bool) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        both: Tensor = self.end(torch.cat([self.a(x).relu(), self.b(x).tanh()], 1))
        return both

    model, graph = network(run, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 5, 3), end=nn.Conv2d(9, 3, 1, bias=bias))
    rows, weight = pixels(read_by(model, "end")), matrix(model.end)
    for group, columns in (("a", range(4)), ("b", range(4, 9))):
        wanted = direct_errors([(rows, weight, columns)], len(columns), centred=bias)
        np.testing.assert_allclose(found(model, graph, group), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_grouped_convolution_is_several_readers(transposed: bool) -> None:
    end: nn.Module = nn.ConvTranspose2d(6, 4, 1, groups=2) if transposed else nn.Conv2d(6, 4, 1, groups=2)
    model, graph = network(lambda self, x: self.end(self.one(x).tanh()), one=nn.Conv2d(3, 6, 3), end=end)
    rows, weight = pixels(read_by(model, "end")), model.end.weight.detach().flatten(1).numpy()
    parts: list[Matrix] = [weight[:3], weight[3:]] if transposed else [weight[:2].T, weight[2:].T]
    readers: list[Reader] = [(rows[:, 3 * part : 3 * part + 3], parts[part], range(3)) for part in range(2)]
    np.testing.assert_allclose(found(model, graph, "one"), direct_errors(readers, 3), rtol=1e-6, atol=1e-8)


def test_behind_a_flatten_the_positions_of_a_channel_are_taps() -> None:
    model, graph = network(
        lambda self, x: self.end(self.one(x).tanh().flatten(1)), one=nn.Conv2d(3, 5, 3), end=nn.Linear(20, 3)
    )
    rows = read_by(model, "end").unflatten(1, (5, 4)).movedim(1, 2).reshape(-1, 5).numpy()
    weight = model.end.weight.detach().unflatten(1, (5, 4)).permute(1, 2, 0).reshape(5, -1).numpy()
    np.testing.assert_allclose(
        found(model, graph, "one"), direct_errors([(rows, weight, range(5))], 5), rtol=1e-6, atol=1e-8
    )


def test_maps_of_several_sizes_behind_a_flatten() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        both: Tensor = self.end(torch.cat([self.a(x).relu().flatten(1), self.b(x).flatten(1)], 1))
        return both

    model, graph = network(run, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 5, 2), end=nn.Linear(61, 6))
    for group in ("a", "b"):
        errors = found(model, graph, group)
        assert (errors > 0).all()
        assert errors.max() < 1.001


def test_rows_and_products_give_the_same_inverse() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 12))
    index = np.asarray([[3], [5], [11]])
    few, many = _Moments(None, rows, 0.01), _Moments(rows.T @ rows / 7, None, 0.01)
    weight = np.random.default_rng(1).normal(size=(12, 4))
    np.testing.assert_allclose(few.inverse(index), many.inverse(index), rtol=1e-8)
    np.testing.assert_allclose(few.block(index), many.block(index), rtol=1e-8)
    np.testing.assert_allclose(few.energy(weight), many.energy(weight), rtol=1e-8)


@pytest.mark.parametrize("size", [1, 31, 33, 70])
def test_downdates_that_are_put_off(size: int) -> None:
    rows = [np.random.default_rng(i).normal(size=(200, size + 3)) ** 3 for i in range(2)]
    weights = [np.random.default_rng(9 + i).normal(size=(size + 3, 5)) for i in range(2)]
    readers = Readers(size)
    for row, weight in zip(rows, weights, strict=True):
        readers.note(_Moments(row.T @ row / 200, None, TINY), weight, np.arange(size)[:, None], refitted=True)
    errors = drop_in_order(readers)
    order = np.argsort(errors)
    for count in {0, size // 2, size - 1}:
        total = 0.0
        for row, weight in zip(rows, weights, strict=True):
            kept, wanted = np.delete(row, order[: count + 1], axis=1), row @ weight
            left = wanted - kept @ np.linalg.lstsq(kept, wanted, rcond=None)[0]
            total += float((left**2).sum() / (wanted**2).sum())
        assert errors[order[count]] == pytest.approx(total, rel=1e-6)


def test_of_two_equal_channels_one_goes_for_nothing_and_the_other_stays() -> None:
    model, graph = network(
        lambda self, x: self.end(self.one(x).relu()), one=nn.Conv2d(3, 6, 3), end=nn.Conv2d(6, 4, 3, padding=1)
    )
    with torch.no_grad():
        model.one.weight[4], model.one.bias[4] = 2 * model.one.weight[1], 2 * model.one.bias[1]
    errors = found(model, graph, "one")
    low, high = sorted([errors[1], errors[4]])
    assert low == errors.min() < 1e-6
    assert high > 1e-3


def test_layers_that_are_not_refitted_count_as_cut() -> None:
    model, graph = network(lambda self, x: self.end(self.one(x).tanh()), one=nn.Conv2d(3, 5, 3), end=nn.Conv2d(5, 4, 1))
    model.end.weight.requires_grad_(False)
    errors = found(model, graph, "one")
    rows, weight = pixels(read_by(model, "end")), matrix(model.end)
    order = np.argsort(errors)
    first = ((rows[:, order[:1]] @ weight[order[:1]]) ** 2).sum() / ((rows @ weight) ** 2).sum()
    alone = [((rows[:, [i]] @ weight[[i]]) ** 2).sum() for i in range(5)]
    assert errors[order[0]] == pytest.approx(first)
    assert int(np.argmin(alone)) == order[0]
    assert errors.max() == pytest.approx(1.0) or errors.max() > 1


class Own(nn.Module):
    """A linear layer that is not torch's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


def test_channels_that_no_layer_reads_are_looked_at_where_they_are_made() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.one(x).relu().mean((2, 3)))
        return out

    model, graph = network(run, one=nn.Conv2d(3, 5, 3, padding=1), end=Own(5, 4))
    with torch.no_grad():
        rows = pixels(model.one(IMAGES))
    wanted = direct_errors([(rows, np.eye(5), range(5))], 5)
    np.testing.assert_allclose(found(model, graph, "one"), wanted, rtol=1e-6, atol=1e-8)


def test_a_group_that_no_layer_shows() -> None:
    model, graph = network(lambda self, x: self.end(self.one(x.flatten(1)).relu()), one=Own(48, 5), end=Own(5, 4))
    with pytest.raises(SecateurError, match=r"needs a convolution or linear layer .* group 'one' has none"):
        channel_errors(model, graph, IMAGES)


@pytest.mark.parametrize("kind", ["dead", "constant", "few images", "float16", "all dead"])
def test_networks_without_much_to_see(kind: str) -> None:
    model, graph = network(
        lambda self, x: self.two(self.end(self.one(x).relu().flatten(1)).relu()),
        one=nn.Conv2d(3, 8, 3),
        end=nn.Linear(32, 40),
        two=nn.Linear(40, 3),
    )
    images = IMAGES[:2] if kind == "few images" else IMAGES
    with torch.no_grad():
        if kind in ("dead", "constant"):
            model.one.weight[:3], model.one.bias[:3] = 0, -1 if kind == "dead" else 1
        if kind == "all dead":
            model.one.weight.zero_()
            model.one.bias.fill_(-1)
    if kind == "float16":
        model, images = model.half(), images.half()
        graph = trace(model, images[:1])
    errors = channel_errors(model, graph, images)
    for values in errors.values():
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    if kind in ("dead", "constant"):
        assert set(np.argsort(errors["one"])[:3].tolist()) == {0, 1, 2}


def tables_of(model: nn.Module, graph: ChannelGraph, **more: Any) -> FilterTables:
    return filter_tables(model, graph, criterion="reconstruction", data=(IMAGES, None), **more)


def test_the_tables_sort_by_the_order_and_hold_the_errors(tmp_path: Path) -> None:
    model, graph = network(lambda self, x: self.end(self.one(x).tanh()), one=nn.Conv2d(3, 9, 3), end=nn.Conv2d(9, 4, 2))
    errors = channel_errors(model, graph, IMAGES)["one"]
    tables = tables_of(model, graph, cache=tmp_path)
    np.testing.assert_array_equal(tables.sorted_by_norm, np.argsort(-errors))
    np.testing.assert_allclose(error_table(tables, "one"), -np.sort(-errors))
    assert (np.diff(error_table(tables, "one")) < 0).all()
    assert error_table(tables, "one")[0] == pytest.approx(1.0, abs=0.01)
    np.testing.assert_array_equal(tables_of(model, graph, cache=tmp_path).norms, tables.norms)
    with pytest.raises(SecateurError, match="needs criterion='reconstruction', but got tables of 'l2'"):
        error_table(filter_tables(model, graph), "one")
    with pytest.raises(SecateurError, match="unknown group 'two'"):
        error_table(tables, "two")


def test_the_number_of_threads_does_not_matter() -> None:
    model, graph = network(
        lambda self, x: self.end(self.one(x).relu()), one=nn.Conv2d(3, 40, 3), end=nn.Conv2d(40, 9, 1)
    )
    threads, seen = torch.get_num_threads(), list[Matrix]()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            seen.append(gather_inputs(model, graph, "reconstruction", (IMAGES, None)).maps["one"][0])
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "criterion 'reconstruction' needs data"),
        ((IMAGES[:0], None), "needs at least one image"),
        ((IMAGES[:1], None), "at least 2 are needed"),
        ((IMAGES[:, :2], None), r"images have shape \(30, 2, 4, 4\); the network was traced with \(B, 3, 4, 4\)"),
        ((IMAGES.float(), None), "images are torch.float32; the network was traced with torch.float64"),
        ((IMAGES * float("nan"), None), "images: not finite"),
    ],
)
def test_data_that_is_missing_or_wrong(data: Any, message: str) -> None:
    model, graph = network(lambda self, x: self.end(self.one(x)), one=nn.Conv2d(3, 9, 3), end=nn.Conv2d(9, 4, 1))
    with pytest.raises(SecateurError, match=message):
        filter_tables(model, graph, criterion="reconstruction", data=data)
