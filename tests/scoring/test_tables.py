from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import pdist
from torch import nn

from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Group
from backbones.program import Program, Step
from backbones.registry import build
from scoring import tables as module
from scoring.channel_weights import FEATURES
from scoring.clusters import LINKAGES
from scoring.criteria import CRITERIA
from scoring.hybrid import hybrid, hybrid_widths
from scoring.limits import Limits
from scoring.ratios import ratios
from scoring.tables import filter_tables
from tests.graphs import known_trace as trace
from tests.launcher import Launcher
from tests.scoring.hand_graphs import digest, graph_of, linear_network, member, stream_network

STEP = Step("output", "", None, (), {}, None, (), "")
WEIGHTS = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = build("resnet20", 10).eval()
    return model, trace(model, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("linkage", LINKAGES)
def test_a_table_by_its_formulas(linkage: str) -> None:
    table = filter_tables(*linear_network({"g": WEIGHTS}), linkage=linkage).groups["g"]
    weights = WEIGHTS.astype(np.float64)
    norms, distances = np.linalg.norm(weights, axis=1), pdist(weights)
    np.testing.assert_allclose(table.norms, norms / norms.mean())
    assert table.mean_norm == pytest.approx(norms.mean())
    assert table.mean_distance == pytest.approx(distances.mean() / norms.mean())
    np.testing.assert_allclose(table.tree, scipy_linkage(distances / distances.mean(), linkage), rtol=1e-6)
    assert np.isinf(table.heights[norms.argmax()])
    assert sorted(table.heights[np.isfinite(table.heights)]) == table.tree[:, 2].tolist()


def test_units_follow_the_graph(resnet: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = resnet
    tables = filter_tables(model, graph)
    assert list(tables.groups) == [group.name for group in graph.groups]
    assert tables.sizes.tolist() == [group.size for group in graph.groups]
    assert dict(zip(tables.groups, tables.starts.tolist(), strict=True)) == graph.offsets
    assert len(tables.norms) == len(tables.heights) == graph.channels


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_one_threshold_means_the_same_in_every_layer(scale: float) -> None:
    model, graph = linear_network({"a": WEIGHTS, "b": WEIGHTS * np.float32(scale)})
    one, other = filter_tables(model, graph).groups.values()
    np.testing.assert_allclose(one.norms, other.norms, rtol=1e-6)
    np.testing.assert_allclose(one.heights, other.heights, rtol=1e-6)


@pytest.mark.parametrize("features", FEATURES)
def test_features_of_a_stream(features: str) -> None:
    model, graph = stream_network()

    def unit(rows: torch.Tensor) -> NDArray[np.float64]:
        matrix = rows.detach().flatten(1).double().numpy()
        return np.asarray(matrix / np.linalg.norm(matrix, axis=1).mean())

    made = [unit(model.stem.weight), unit(model.branch.weight)]
    read = [unit(model.branch.weight.transpose(0, 1)), unit(model.head.weight.transpose(0, 1))]
    vectors = np.concatenate({"fan_in": made, "fan_out": read, "both": made + read}[features], axis=1)
    table = filter_tables(model, graph, features=features).groups["stem"]
    distances = pdist(vectors)
    np.testing.assert_allclose(table.tree, scipy_linkage(distances / distances.mean(), "average"), rtol=1e-6)
    assert table.mean_distance == pytest.approx(distances.mean())


def test_duplicates_merge_and_negated_duplicates_do_not() -> None:
    rows = np.stack([WEIGHTS[0], WEIGHTS[0], -WEIGHTS[0], WEIGHTS[1], -WEIGHTS[1]])
    tables = filter_tables(*linear_network({"g": rows}))
    assert hybrid(tables, 0, 1e-6) == {"g": (0, 2, 3, 4)}
    assert hybrid(tables, 0, 0) == {"g": (0, 1, 2, 3, 4)}


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("criterion", ["l1", "l2", "std", "geometric_median", "random"])
def test_equal_zero_and_single_filters(criterion: str, linkage: str) -> None:
    weights = {"zero": np.zeros((4, 3)), "equal": np.ones((4, 3)), "one": np.ones((1, 3)), "none": np.zeros((1, 3))}
    tables = filter_tables(*linear_network(weights), criterion=criterion, linkage=linkage)
    assert np.isfinite(tables.norms).all()
    assert hybrid(tables, 0, 0) == {name: tuple(range(len(rows))) for name, rows in weights.items()}
    kept = hybrid(tables, 0, 1e-9, Limits(max_rate=1))
    assert [len(channels) for channels in kept.values()] == [1, 1, 1, 1]
    assert all(len(channels) == 1 for channels in hybrid(tables, 99, 99, Limits(max_rate=1)).values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_number_formats(dtype: torch.dtype) -> None:
    model, graph = linear_network({"g": WEIGHTS})
    wanted = filter_tables(model, graph).norms
    np.testing.assert_allclose(filter_tables(model.to(dtype), graph).norms, wanted, rtol=1e-2)


# --- the same on any number of cores, in any process ---


def test_any_number_of_threads(resnet: tuple[nn.Module, ChannelGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADED_ABOVE", 0)
    model, graph = resnet
    data = (torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    for criterion in ("l2", "taylor"):
        found = [digest(filter_tables(model, graph, criterion=criterion, data=data, jobs=jobs)) for jobs in (1, 2, 5)]
        assert len(set(found)) == 1


PRINT = """
import threadpoolctl, torch
from scoring.tables import filter_tables
from tests.scoring.hand_graphs import digest, stream_network
torch.set_num_threads({threads})
data = (torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4)
with threadpoolctl.threadpool_limits({threads}):
    model, graph = stream_network()
    print(digest(filter_tables(model, graph)), digest(filter_tables(model, graph, criterion="taylor", data=data)))
"""


def test_any_process(capsys: pytest.CaptureFixture[str], launcher: Launcher) -> None:
    there = launcher.printed(PRINT.format(threads=2))  # another hash seed, another number of threads
    exec(PRINT.format(threads=torch.get_num_threads()), {})
    assert capsys.readouterr().out == there
    assert len(there.split()) == 2


# --- the cache ---


def refuse(*_: Any) -> Any:
    raise AssertionError("the tables were made again")


def test_a_cache_is_read_back_bit_equal(
    resnet: tuple[nn.Module, ChannelGraph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = filter_tables(*resnet, cache=tmp_path / "deep" / "tables.npz")
    monkeypatch.setattr(module, "_build", refuse)
    read = filter_tables(*resnet, cache=tmp_path / "deep" / "tables.npz")
    assert digest(read) == digest(made)
    assert list(read.groups) == list(made.groups)
    assert [(t.mean_norm, t.mean_distance) for t in read.groups.values()] == [
        (t.mean_norm, t.mean_distance) for t in made.groups.values()
    ]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tables.npz"]


def test_a_folder_holds_many_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = linear_network({"g": WEIGHTS})
    made = [filter_tables(*network, criterion=criterion, cache=tmp_path) for criterion in ("l1", "l2")]
    assert len(list(tmp_path.glob("tables-*.npz"))) == 2
    monkeypatch.setattr(module, "_build", refuse)
    read = [filter_tables(*network, criterion=criterion, cache=tmp_path) for criterion in ("l1", "l2")]
    assert [digest(tables) for tables in read] == [digest(tables) for tables in made]


def test_the_key_tells_everything_apart() -> None:
    model, graph = stream_network()
    images, labels = torch.zeros(2, 3, 4, 4), torch.arange(2)
    calls: list[dict[str, Any]] = [
        {},
        {"criterion": "l1"},
        {"linkage": "ward"},
        {"features": "both"},
        {"reduction": "max"},
        {"criterion": "random"},
        {"criterion": "random", "seed": 1},
        {"criterion": "taylor", "data": (images, labels)},
        {"criterion": "taylor", "data": (images + 1, labels)},
        {"criterion": "taylor", "data": (images, 1 - labels)},
        {"criterion": "apoz", "data": (images, None)},
    ]
    keys = [filter_tables(model, graph, **call).key for call in calls]
    with torch.no_grad():
        model.get_buffer("norm.running_mean")[0] += 1
    keys.append(filter_tables(model, graph).key)
    other = graph_of(Group("stem", 6, graph.groups[0].members[:1]))
    keys.append(filter_tables(model, other).key)
    keys += [
        filter_tables(model, one, criterion="apoz", data=(images, None)).key
        for one in (graph, dataclasses.replace(graph, program=Program((STEP,), graph.program.tensors, 1)))
    ]
    assert len(set(keys)) == len(keys)
    plain = filter_tables(model, graph, criterion="l1").key
    assert filter_tables(model, graph, criterion="l1", data=(images, labels), seed=3).key == plain


def test_other_weights_replace_a_cache(tmp_path: Path) -> None:
    cache = tmp_path / "tables.npz"
    filter_tables(*linear_network({"g": WEIGHTS}), cache=cache)
    fresh = filter_tables(*linear_network({"g": WEIGHTS[::-1].copy()}), cache=cache)
    np.testing.assert_allclose(fresh.norms[::-1], filter_tables(*linear_network({"g": WEIGHTS})).norms)
    with np.load(cache, allow_pickle=False) as stored:
        assert str(stored["key"]) == fresh.key


def corrupt(path: Path, how: str, key: str) -> None:
    whole = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "flipped":
        middle = whole.index(b"norms.npy") + 200
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    elif how == "text":
        path.write_text("not an archive")
    elif how == "pickled":
        np.savez(path, key=np.asarray({"key": key}, dtype=object))
    elif how == "keyless":
        np.savez(path, norms=np.zeros(3))
    elif how == "other shapes":
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        np.savez(path, **{**arrays, "heights": arrays["heights"][1:]})
    else:
        np.savez(path, key=np.asarray(key), sizes=np.asarray([9]))


@pytest.mark.parametrize(
    "how", ["empty", "cut short", "flipped", "text", "pickled", "keyless", "other shapes", "incomplete"]
)
def test_a_corrupted_cache_is_made_again_with_a_warning(tmp_path: Path, how: str) -> None:
    network, cache = linear_network({"g": WEIGHTS}), tmp_path / "tables.npz"
    made = filter_tables(*network, cache=cache)
    corrupt(cache, how, made.key)
    with pytest.warns(UserWarning, match=r"tables\.npz cannot be read and is made again"):
        again = filter_tables(*network, cache=cache)
    assert digest(again) == digest(made)
    assert digest(filter_tables(*network, cache=cache)) == digest(made)


def test_a_failed_write_leaves_nothing_but_the_tables_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    network = linear_network({"g": WEIGHTS})
    with pytest.warns(UserWarning, match=r"tables\.npz cannot be written: No space left on device"):
        made = filter_tables(*network, cache=tmp_path / "tables.npz")
    assert list(tmp_path.iterdir()) == []
    assert digest(made) == digest(filter_tables(*network))


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.warns(UserWarning, match=r"tables\.npz cannot be written: "):
        filter_tables(*linear_network({"g": WEIGHTS}), cache=tmp_path / "runs" / "tables.npz")
    assert (tmp_path / "runs").read_text() == "a file"


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"criterion": "l3"}, "unknown criterion 'l3'; known are l1, l2, std"),
        ({"linkage": "wards"}, r"unknown linkage 'wards'; did you mean 'ward'\?"),
        ({"linkage": "kmeans"}, "unknown linkage 'kmeans'; known are average, complete, ward"),
        ({"features": "fanin"}, r"unknown features 'fanin'; did you mean 'fan_in'\?"),
        ({"reduction": "min"}, "unknown reduction 'min'"),
        ({"criterion": "hrank"}, "criterion 'hrank' needs data"),
        ({"criterion": "bn_gamma"}, "needs a batch norm"),
        ({"jobs": 0}, "jobs >= 1 must hold, but got jobs=0"),
    ],
)
def test_wrong_arguments(call: dict[str, Any], message: str) -> None:
    with pytest.raises(SecateurError, match=message):
        filter_tables(*linear_network({"g": WEIGHTS}), **call)


def test_no_group_at_all() -> None:
    with pytest.raises(SecateurError, match="the network has no prunable group"):
        filter_tables(nn.Linear(2, 3), graph_of())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float) -> None:
    model, graph = linear_network({"fine": WEIGHTS, "broken": np.where(WEIGHTS > 1, value, WEIGHTS)})
    with pytest.raises(SecateurError, match=r"'broken\.weight' holds NaN or infinite weights"):
        filter_tables(model, graph)


def test_a_graph_of_another_model() -> None:
    model, _ = linear_network({"g": WEIGHTS})
    with pytest.raises(SecateurError, match=r"the graph names 'h\.weight', which the model lacks"):
        filter_tables(model, graph_of(Group("h", 9, (member("h.weight", 9),))))
    with pytest.raises(SecateurError, match=r"'g\.weight' has shape \(9, 6\), which the graph does not fit"):
        filter_tables(model, graph_of(Group("g", 12, (member("g.weight", 12),))))


# --- on a traced network ---


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion_on_a_residual_network(resnet: tuple[nn.Module, ChannelGraph], criterion: str) -> None:
    model, graph = resnet
    data = (torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    tables = filter_tables(model, graph, criterion=criterion, data=data, linkage="ward", features="both")
    assert (tables.norms >= 0).all()
    np.testing.assert_allclose([table.norms.mean() for table in tables.groups.values()], 1.0)
    kept = hybrid(tables, 1.0, 0.5, Limits(max_rate=0.8, divisor=4))
    assert all(0 < len(channels) <= group.size for group, channels in zip(graph.groups, kept.values(), strict=True))
    assert all(len(channels) % 4 == 0 for channels in kept.values())
    assert ratios(tables, 0.5) == ratios(tables, dict.fromkeys(tables.groups, 0.5))


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(0, 2)] * 4), st.sampled_from([0.3, 0.9, 1.0]), st.sampled_from([1, 4]), st.booleans())
def test_macs_never_rise_with_a_threshold(
    resnet: tuple[nn.Module, ChannelGraph], pairs: tuple[float, ...], rate: float, divisor: int, wards: bool
) -> None:
    model, graph = resnet
    tables = filter_tables(model, graph, linkage="ward" if wards else "average")
    (n1, n2), (d1, d2) = sorted(pairs[:2]), sorted(pairs[2:])
    norms, distances = np.asarray([0, n1, n2, n1, n2]), np.asarray([0, d1, d1, d2, d2])
    widths = hybrid_widths(tables, norms, distances, Limits(rate, 1, divisor))
    macs = [graph.costs.evaluate(kept).macs for kept in widths]
    assert macs[0] == graph.costs.dense.macs
    assert macs[0] >= macs[1] >= max(macs[2:4])
    assert min(macs[2:4]) >= macs[4]


def test_the_stream_of_a_residual_network_is_the_sum_over_its_layers(resnet: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = resnet
    stream = max(graph.groups, key=lambda group: len(group.filters))
    assert len(stream.filters) > 2
    tensors = model.state_dict()
    norms = sum(
        torch.linalg.vector_norm(tensors[part.tensor][torch.as_tensor(part.index[:, 0])].flatten(1), dim=1)
        for part in stream.filters
    )
    assert isinstance(norms, torch.Tensor)
    np.testing.assert_allclose(
        filter_tables(model, graph).groups[stream.name].norms, (norms / norms.mean()).numpy(), rtol=1e-5
    )
