"""Wrong arguments of the public functions: every one ends in one line that names it, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import secateur as sc
from backbones.arguments import explained, explains, fits
from tests.search.study.study_samples import make, small_parts

Calls = dict[str, Callable[[], object]]
NAN = float("nan")
IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 4
PAIR = (IMAGES, LABELS)
ONE = torch.zeros(1, 1, 8, 8)
WRONG: Any = object()
"""What no argument can be."""


class Parts:
    """A small study with everything around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model, self.graph, self.data = small_parts()
        self.full = sc.Structure.full(self.graph)
        self.study = make(f"sqlite:///{folder}/s.db", folder, (self.model, self.graph, self.data))
        self.study.search(6, progress=False)
        self.front = self.study.front()
        self.tables = sc.filter_tables(self.model, self.graph)
        self.pruned = sc.prune(self.model, self.graph, self.full)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"))


def varied(name: str, function: Callable[..., object], right: dict[str, Any], wrong: list[tuple[str, Any]]) -> Calls:
    """The function with one wrong argument a call."""
    return {f"{name} {key}={value!r}": lambda k=key, v=value: function(**(right | {k: v})) for key, value in wrong}  # type: ignore[misc]


def of_networks(given: Parts) -> Calls:
    model, graph, full, folder = given.model, given.graph, given.full, given.folder
    some: Any = torch.rand(64, 1, 8, 8)
    name = graph.groups[0].name
    right = {"model": model, "graph": graph, "structure": full}
    return {
        **varied("trace", sc.trace, {"model": model, "example": ONE}, [
            ("model", None), ("model", 3), ("example", "x"), ("example", None), ("example", np.zeros((1, 1, 8, 8))),
            ("ignore", 3), ("samples", "x"), ("samples", 0), ("sizes", 3), ("kwargs", 3)]),
        **varied("prune", sc.prune, right, [("model", None), ("graph", None), ("structure", None), ("structure", {})]),
        **varied("cost", sc.cost, {"graph": graph, "structure": full}, [("graph", None), ("structure", 3)]),
        **varied("score", sc.score, {**right, "name": "naswot", "batch": some}, [
            ("name", 3), ("name", "x"), ("batch", "x"), ("batch", None), ("structure", None), ("graph", None),
            ("model", None), ("batch", torch.rand(8, 3, 8, 8))]),
        **varied("reconstruct", sc.reconstruct, {**right, "images": some}, [
            ("images", 3), ("rows", "x"), ("method", "x"), ("ridge", "x"), ("structure", 3)]),
        **varied("gather_targets", sc.gather_targets, {"model": model, "graph": graph, "images": some}, [
            ("images", 3), ("images", torch.rand(64, 3, 8, 8)), ("model", None)]),
        **varied("filter_tables", sc.filter_tables, {"model": model, "graph": graph}, [
            ("criterion", 3), ("criterion", "x"), ("jobs", "x"), ("cache", 3), ("linkage", "x"), ("graph", 3)]),
        **varied("hybrid", sc.hybrid, {"tables": given.tables, "t_norm": 0.1, "t_dist": 0.1}, [
            ("t_norm", "x"), ("t_norm", -1), ("t_norm", NAN), ("tables", None), ("rates", {"x": 0.5})]),
        **varied("build", sc.build, {"name": "resnet20", "num_classes": 10}, [
            ("name", 3), ("name", None), ("name", "resnet21"), ("num_classes", "x"), ("num_classes", 0),
            ("num_classes", 1.5), ("num_classes", 10**15), ("in_channels", "x")]),
        **varied("save", sc.save, {"model": given.pruned, "path": folder / "a.safetensors"}, [
            ("model", None), ("model", nn.Linear(1, 1)), ("path", 3), ("path", folder / "no" / "a.safetensors"),
            ("provenance", {"a": WRONG})]),
        **varied("load", sc.load, {}, [("path", 3), ("path", None), ("path", folder), ("path", folder / "s.db")]),
        **varied("load_checkpoint", sc.load_checkpoint, {"model": model, "path": folder / "s.db"}, [
            ("path", 3), ("path", folder / "none.pt"), ("model", None), ("skip", 3)]),
        **varied("latency", sc.latency, {"model": model, "pruned": model, "example": (ONE,)}, [
            ("example", 3), ("rounds", "x"), ("rounds", 1), ("model", None)]),
        **varied("peak_memory", sc.peak_memory, {"model": model, "example": (ONE,)}, [("example", 3), ("model", 3)]),
        **varied("footprints", sc.footprints, {"models": {"a": model}, "images": ONE}, [
            ("images", 3), ("models", 3), ("rounds", "x")]),
        **varied("export_program", sc.export_program, {"model": model, "path": folder / "a.pt2", "example": (ONE,)}, [
            ("path", 3), ("example", 3), ("path", folder / "no" / "a.pt2")]),
        **varied("recalibrate", sc.recalibrate, {"model": model, "batches": [ONE]}, [
            ("batches", 3), ("batches", [3]), ("model", None)]),
        "describe": lambda: sc.describe(WRONG),
        "removable": lambda: sc.removable(WRONG),
        "error_table": lambda: sc.error_table(given.tables, "x"),
        "OnnxNetwork": lambda: sc.OnnxNetwork(folder / "none.onnx"),
        "Structure.full": lambda: sc.Structure.full(WRONG),
        "Structure.of an unknown group": lambda: sc.Structure.of(graph, {"x": [1]}),
        "Structure.of names": lambda: sc.Structure.of(graph, {name: ["a"]}),  # type: ignore[list-item]
        "Structure.of a number": lambda: sc.Structure.of(graph, {name: 3}),  # type: ignore[dict-item]
        "Structure.of None": lambda: sc.Structure.of(graph, WRONG),
        **{f"Structure.from_json {text!r}": lambda t=text: sc.Structure.from_json(t) for text in (3, "[]", "{}")},  # type: ignore[misc]
    }  # fmt: skip


def of_settings(_: Parts) -> Calls:
    amounts = [[], "x", {}, -1, NAN, True, [0.1, "x"], 1e400, WRONG, [[]]]
    return {
        **varied("Budget", sc.Budget, {}, [*(("macs", one) for one in amounts), ("latency", "x"), ("memory", "x")]),
        **varied("Space", sc.Space, {}, [
            ("kind", 3), ("kind", "x"), ("criterion", 3), ("limits", 3), ("removal", 3), ("fixed", 3)]),
        **varied("Limits", sc.Limits, {}, [
            ("max_rate", "x"), ("max_rate", 2), ("divisor", "x"), ("divisor", 0), ("divisor", 1.5),
            ("min_channels", "x")]),
        **varied("Removal", sc.Removal, {}, [
            ("measure", 3), ("most", "x"), ("most", -1), ("least", "x"), ("layers", 3)]),
        **varied("Recipe", sc.Recipe, {}, [
            ("epochs", "x"), ("lr", "x"), ("lr", None), ("lr", NAN), ("optimiser", 3), ("schedule", None),
            ("slim_layers", 3), ("slim_layers", {"a": "x"}), ("augment", 3), ("precision", 3), ("batch_size", 2.5)]),
        **varied("Flow", sc.Flow, {}, [("name", 3), ("name", "x"), ("steps", "x"), ("steps", 0)]),
        **varied("Augment", sc.Augment, {}, [("crop", "x"), ("crop", -1), ("flip", 3), ("cutout", "x")]),
        **varied("Plan", sc.Plan, {}, [("structures", "x"), ("structures", 0), ("measure", 3), ("scorers", 3)]),
        **varied("Task", sc.Task, {"loss": nn.MSELoss(), "metric": nn.MSELoss(), "direction": "lower"}, [
            ("loss", 3), ("metric", None), ("direction", "up")]),
        **varied("netscore", sc.netscore, {"accuracy": 0.5, "params": 1, "macs": 1}, [
            ("accuracy", "x"), ("accuracy", -1), ("params", 0)]),
    }  # fmt: skip


def of_data(given: Parts) -> Calls:
    floats, last = IMAGES.float(), IMAGES.permute(0, 2, 3, 1).contiguous()
    dataset = TensorDataset(IMAGES, LABELS)
    scale = {"mean": [0.5], "std": [0.5]}
    return {
        **varied("from_tensors", sc.Data.from_tensors, {"name": "d", "train": PAIR, "test": PAIR}, [
            ("train", None), ("train", 3), ("train", (IMAGES,)), ("train", ([[1, 2]], [1])), ("train", ("ab", "cd")),
            ("train", (IMAGES.to(torch.complex64), LABELS)), ("train", (floats.to_sparse(), LABELS)),
            ("train", (np.array([None, 1]), [1, 2])), ("train", (IMAGES, None)), ("train", (last, LABELS)),
            ("train", (IMAGES * 0, LABELS)), ("validation", "x"), ("validation", 2), ("num_classes", "x"),
            ("mean", 3), ("mean", [NAN]), ("mean", ["x"]), ("std", [float("inf")]), ("std", [0.0]), ("augment", 3),
            ("task", 3), ("seed", "x"), ("seed", -1), ("classes", 3)]),
        "floats of 0 to 255": lambda: sc.Data.from_tensors("d", (floats, LABELS), (floats, LABELS), **scale),  # type: ignore[arg-type]
        **varied("from_datasets", sc.Data.from_datasets, {"name": "d", "train": dataset, "test": dataset}, [
            ("train", None), ("train", 3), ("train", [(IMAGES[0], "cat")]), ("train", [IMAGES[0]]), ("train", {"a": 1}),
            ("train", [("x", 1)]), ("validation", "x"), ("stream", True)]),
        **varied("load_data", sc.load_data, {"name": "digits"}, [
            ("name", 3), ("name", None), ("sizee", 3), ("seed", "x"), ("validation", "x"), ("mean", "x")]),
        "load_data folder": lambda: sc.load_data("folder", folder=3),
        **varied("measure", sc.measure, {"model": given.model, "data": given.data}, [
            ("split", "x"), ("device", "nope"), ("batch_size", "x"), ("model", None), ("data", 3)]),
        **varied("accuracy", sc.accuracy, {"model": given.model, "data": given.data}, [
            ("model", None), ("data", None)]),
    }  # fmt: skip


def of_studies(given: Parts) -> Calls:
    model, graph, data, study, front = given.model, given.graph, given.data, given.study, given.front
    folder = given.folder
    right = {
        "name": "n", "model": model, "graph": graph, "data": data, "budget": sc.Budget(macs=0.3), "scorer": "random",
        "batch": 16, "storage": f"sqlite:///{folder}/q.db", "folder": folder,
    }  # fmt: skip
    return {
        **varied("Study", sc.Study, right, [
            ("name", 3), ("model", "net"), ("graph", None), ("data", 3), ("budget", "30%"), ("space", 3), ("scorer", 3),
            ("sampler", 3), ("batch", "x"), ("batch", 0), ("batch", 16.5), ("seed", "a"), ("seed", -1), ("seed", 1.5),
            ("seed", 2**70), ("storage", 3), ("folder", 3), ("warm_start", 3), ("warm_start", None),
            ("warm_start", "uniform"), ("warm_start", ["unifrom"]), ("statistics", "x"), ("statistics", -1)]),
        **varied("search", study.search, {"trials": 7, "progress": False}, [
            ("trials", "x"), ("trials", None), ("trials", 0), ("jobs", "x"), ("jobs", 1.5), ("timeout", "x"),
            ("callbacks", 3)]),
        **varied("retrain", study.retrain, {"top": 1, "epochs": 1, "progress": False}, [
            ("top", "x"), ("top", 0), ("top", 1.5), ("top", [99]), ("top", None), ("epochs", "x"), ("epochs", 0),
            ("finalists", "x"), ("recipe", 3), ("flow", "soft"), ("start", 3), ("device", "nope")]),
        **varied("train", sc.train, {"model": model, "data": data, "recipe": sc.Recipe(epochs=1, batch_size=16)}, [
            ("model", 3), ("data", 3), ("recipe", None), ("teacher", 3), ("folder", 3), ("device", "nope"),
            ("masks", 3), ("masks", {"x": torch.ones(1)}), ("after_epoch", 3)]),
        **varied("best", front.best, {}, [("macs", []), ("macs", "x"), ("macs", -1), ("macs", ""), ("measure", "x")]),
        **varied("plot_front", sc.plot_front, {"front": front}, [("front", 3), ("path", 3), ("path", "x.bmp")]),
        **varied("open_study", sc.open_study, {}, [("storage", one) for one in (3, None, "x://y", folder / "no")]),
        **varied("read_study", sc.read_study, {}, [("path", one) for one in (3, None, folder, folder / "no")]),
        **varied("evaluate", sc.evaluate, {"model": model, "graph": graph, "data": data, "folder": folder / "e"}, [
            ("budget", 3)]),
        "structure": lambda: study.structure(99),
        "reconstruct None": lambda: study.reconstruct(WRONG),
        "use_rule": lambda: study.use_rule(WRONG),
        "finalists": lambda: study.finalists(WRONG),
        "knee": lambda: front.knee(WRONG),
        "statuses": lambda: front.statuses(axis=WRONG),
        "front.save": lambda: front.save(WRONG),
        "Front.load": lambda: sc.Front.load(WRONG),
        "Candidate.save": lambda: front.best().save(WRONG),
        "compare": lambda: sc.compare(WRONG),
        "baseline": lambda: sc.baseline("uniform", WRONG),
        "sparsify": lambda: sc.sparsify(model, data, sc.Recipe(epochs=1), 2.0),
        "transfer_optimizer": lambda: sc.transfer_optimizer(WRONG, model, model),
    }  # fmt: skip


@pytest.mark.parametrize("calls", [of_networks, of_settings, of_data, of_studies])
def test_every_wrong_argument_ends_in_one_line(parts: Parts, calls: Callable[[Parts], Calls]) -> None:
    problems = []
    for name, call in calls(parts).items():
        try:
            call()
            problems.append(f"{name}: taken")
        except sc.SecateurError as error:
            if "\n" in str(error):
                problems.append(f"{name}: {error}")
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    assert problems == []


def test_a_source_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(IterableDataset[tuple[torch.Tensor, int]]):
        def __iter__(self) -> Any:
            while True:
                yield torch.rand(1, 8, 8), 1

    class NoLength:
        def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
            return torch.rand(1, 8, 8), place % 4

    class Sized(Endless):
        def __len__(self) -> int:
            return 40

    monkeypatch.setattr("search.data.materialise.UNSIZED", 100)
    ends = TensorDataset(IMAGES, LABELS)
    endless: Any
    for endless in (Endless(), DataLoader(Endless()), NoLength()):
        with pytest.raises(sc.SecateurError, match="data 'd': train has no length and does not end after 100 samples"):
            sc.Data.from_datasets("d", endless, ends)
    monkeypatch.setattr("search.data.materialise.UNSIZED_BYTES", 50 * 8 * 8 * 4)
    with pytest.raises(sc.SecateurError, match="train has no length and does not end after 50 samples"):
        sc.Data.from_datasets("d", Endless(), ends)
    task = sc.Task(nn.CrossEntropyLoss(), lambda outputs, targets: 0.0, name="m", direction="higher")
    loaders: Any = {"train": DataLoader(Endless(), 4), "test": DataLoader(ends, 4), "validation": DataLoader(ends, 4)}
    for options in ({"stream": True, "num_classes": 4}, {"task": task}):
        with pytest.raises(sc.SecateurError, match="the loader's dataset has no length, and may never end; give it a"):
            sc.Data.from_datasets("d", **loaders, **options)
    loaders["train"] = DataLoader(Sized(), 4)
    assert len(sc.Data.from_datasets("d", **loaders, stream=True, num_classes=4).train) == 40


def test_floats_of_0_to_255_warn_where_their_scale_is_measured() -> None:
    with pytest.warns(UserWarning, match=r"float images go up to 255, but 0 to 1 is meant; divide by 255"):
        sc.Data.from_tensors("d", (IMAGES.float(), LABELS), (IMAGES.float(), LABELS))
    normal = torch.randn(40, 1, 8, 8)
    sc.Data.from_tensors("d", (normal, LABELS), (normal, LABELS), mean=[0], std=[1])


@pytest.mark.parametrize(
    ("train", "held", "said"),
    [
        (IMAGES.float() / 0, IMAGES, "train images hold NaN or infinite values"),
        (IMAGES, IMAGES.float(), r"test images go up to 2\d\d, training images to [01].*; give both in one scale"),
        (IMAGES.float() / 255, IMAGES.float(), r"test images go up to 2\d\d, training images to"),
        (IMAGES, IMAGES * 0, "test: every pixel is 0; nothing can be learned from them"),
    ],
)
def test_images_of_another_scale_or_of_one_colour_are_refused_in_every_split(
    train: torch.Tensor, held: torch.Tensor, said: str
) -> None:
    with pytest.raises(sc.SecateurError, match=f"data 'd': {said}"):
        sc.Data.from_tensors("d", (train, LABELS), (held, LABELS))


def streamed(images: torch.Tensor) -> sc.Data:
    loader = DataLoader(TensorDataset(images, LABELS), 20)
    good = DataLoader(TensorDataset(IMAGES.float() / 255, LABELS), 20)
    return sc.Data.from_datasets("d", loader, good, validation=good, num_classes=4, stream=True)


def test_the_first_images_of_a_loader_are_looked_at() -> None:
    with pytest.warns(UserWarning, match=r"data 'd': float images go up to 2\d\d, but 0 to 1 is meant"):
        streamed(IMAGES.float())
    with pytest.raises(sc.SecateurError, match=r"data 'd': every pixel of the training images is 0\.5"):
        streamed(torch.full_like(IMAGES, 0.5, dtype=torch.float32))
    with pytest.raises(sc.SecateurError, match="data 'd': the loader's images hold NaN or infinite values"):
        streamed(IMAGES.float() / 0)
    assert len(streamed(torch.randn(40, 1, 8, 8)).train) == 40


def test_what_behaves_like_the_type_is_taken_and_foreign_errors_pass() -> None:
    @explained
    def shared(number: int, names: tuple[str, ...] = (), *, way: str | None = None) -> float:
        """Divides."""
        return 1 / number

    assert shared(2.0) == 0.5  # type: ignore[arg-type]
    assert shared.__doc__ == "Divides."
    with pytest.raises(ZeroDivisionError):
        shared(0)
    with pytest.raises(sc.SecateurError, match=r"shared: number must be int, but got 'x' \(str\)$") as caught:
        shared("x")  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(sc.SecateurError, match=r"shared: way must be str \| None, but got 3 \(int\)"):
        shared(0, way=3)  # type: ignore[arg-type]
    with pytest.raises(sc.SecateurError, match="got an unexpected keyword argument 'wya'"):
        shared(1, wya="x")  # type: ignore[call-arg]
    assert [fits(one, tuple[str, ...]) for one in (("a",), ["a"], "a")] == [True, True, False]
    assert [fits(one, float) for one in (1, np.float32(1), True, "1")] == [True, True, False, False]

    @explains("__init__")
    class Thing:
        def __init__(self, size: int) -> None:
            self.size = size + 1

    with pytest.raises(sc.SecateurError, match=r"^Thing: size must be int, but got None"):
        Thing(None)  # type: ignore[arg-type]
