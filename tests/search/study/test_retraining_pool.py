"""Retrainings side by side: results as of one after the other, and nothing lost where a process or this one ends."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.sources import Stream
from search.review.front import Front
from search.study.networks import Refitter
from search.study.retraining_pool import LONG_TRAINING, Turn, turns_of
from search.study.retraining_task import RetrainConfig
from search.study.stored import status
from search.study.study import Study
from search.training.compiling import is_likely_compiled
from search.training.recipe import Recipe
from tests.launcher import Launcher, Process
from tests.search.study.study_samples import make, small_data, small_graph, small_model

RECIPE = Recipe(epochs=2, lr=0.05, batch_size=32, distill=0.5)
SLOW = Recipe(epochs=40, lr=0.05, batch_size=32)


def searched(folder: Path, model: nn.Module | None = None, data: Data | None = None) -> Study:
    model = model or small_model()
    study = make(f"sqlite:///{folder}/s.db", folder, (model, small_graph(model), data or small_data()))
    study.search(6, progress=False)
    return study


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weights_of(front: Front) -> dict[str, dict[str, Tensor]]:
    """Structure -> the values of its retrained network; where training ended is compared bit by bit."""
    ones = {one.id: one.artefact for one in front.candidates if one.artefact is not None}
    return {name: load_file(path) for name, path in ones.items()}


def assert_same(found: Front, wanted: Front) -> None:
    ours, theirs = weights_of(found), weights_of(wanted)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, state in theirs.items():
        assert all(torch.equal(ours[name][key], value) for key, value in state.items())
    for one, other in zip(found.candidates, wanted.candidates, strict=True):
        assert (one.id, one.accuracy, one.test_accuracy) == (other.id, other.accuracy, other.test_accuracy)


def test_processes_train_as_one_after_the_other_does(tmp_path: Path) -> None:
    """A network of a class that only this process knows. Where one of them is killed at work, this one goes on."""
    home, fatal = os.getpid(), tmp_path / "fatal"

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small_model()

        def forward(self, images: Tensor) -> Tensor:
            if fatal.exists() and os.getpid() != home:
                os.kill(os.getpid(), signal.SIGKILL)
            warnings.warn(f"trained by {'this one' if os.getpid() == home else 'another'}", stacklevel=2)
            out: Tensor = self.body(images) * 2
            return out

    how: dict[str, Any] = {"recipe": RECIPE, "start": "reconstructed", "progress": False}
    with on_threads(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alone, together, killed = (searched(tmp_path / name, Mine()) for name in ("alone", "together", "killed"))
        wanted = alone.retrain(2, **how)
        caught.clear()
        found = together.retrain(2, **how, jobs=2)
        assert "trained by another" in {str(one.message) for one in caught}  # told here
        fatal.touch()
        after = killed.retrain(2, **how, jobs=2)
    assert_same(found, wanted)
    assert_same(after, wanted)
    [told] = {str(one.message) for one in caught if "one after the other" in str(one.message)}
    assert told.startswith("structures are retrained one after the other, slower than by processes: TerminatedWorker")
    trainings = status(f"sqlite:///{tmp_path}/killed/s.db").retrained
    assert trainings == status(f"sqlite:///{tmp_path}/alone/s.db").retrained == {"scored": 2}


def test_what_cannot_be_sent_to_processes_is_trained_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = searched(tmp_path / "sent")
    lock = threading.Lock()
    monkeypatch.setattr(Refitter, "__reduce__", lambda refitter: (type(lock), (lock,)))
    with pytest.warns(UserWarning, match="retrained one after the other, slower than by processes: .*lock"):
        found = study.retrain(2, recipe=RECIPE, progress=False, jobs=2)
    assert_same(found, searched(tmp_path / "whole").retrain(2, recipe=RECIPE, progress=False))


def test_what_fails_in_a_process_is_raised_here_and_ends_the_others(tmp_path: Path) -> None:
    study = searched(tmp_path)
    recipe = replace(SLOW, lr=1e4, schedule="constant", epochs=1000)
    with pytest.raises(SecateurError, match="lower lr or set clip"):
        study.retrain(2, recipe=recipe, progress=False, jobs=2)
    assert status(f"sqlite:///{tmp_path}/s.db").retrained == {"failed": 2}
    assert not children(os.getpid())


def children(parent: int) -> set[int]:
    """Processes that train for another one."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            facts = (place / "stat").read_text().rpartition(")")[2].split()
            if int(facts[1]) == parent and facts[0] != "Z" and b"loky" in (place / "cmdline").read_bytes():
                found.add(int(place.name))
        except OSError:
            continue
    return {one for one in found if b"tracker" not in Path(f"/proc/{one}/cmdline").read_bytes()}


def _epochs(folder: Path) -> int:
    return sum(max(0, curve.read_text().count("\n") - 1) for curve in folder.glob("retrain/*/*/history.csv"))


def _until(holds: Callable[[], bool], process: Process | None = None) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        assert process is None or process.is_running(), process.errors
        time.sleep(0.05)


def retrain_slowly(arguments: list[str]) -> None:
    """In a process of its own: two trainings side by side."""
    [folder] = arguments
    torch.set_num_threads(2)
    searched(Path(folder)).retrain(2, recipe=SLOW, progress=False, jobs=2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_processes_end_with_the_one_that_began_them_and_their_trainings_go_on(
    tmp_path: Path, launcher: Launcher, number: int, code: int
) -> None:
    """Killed or by Ctrl-C; what is gone on with ends as one that was never stopped, and no file is left."""
    folder, environment = tmp_path / "stopped", {"TMPDIR": str(tmp_path)}
    process = launcher.start(f"{__name__}:retrain_slowly", str(folder), folder=tmp_path, environment=environment)
    _until(lambda: _epochs(folder) > 3, process)
    at_work = children(process.pid)
    assert len(at_work) == 2
    process.send(number)
    assert process.wait() == code, process.errors
    _until(lambda: not any(Path(f"/proc/{one}").exists() for one in at_work))
    assert not [*tmp_path.glob("secateur-*")]
    assert not [*folder.glob("retrain/*/network.safetensors")]
    how: dict[str, Any] = {"recipe": SLOW, "progress": False}
    with on_threads(1):
        found = searched(folder).retrain(2, **how)
        wanted = searched(tmp_path / "whole").retrain(2, **how)
    assert_same(found, wanted)


@given(
    threads=st.integers(1, 64),
    members=st.integers(0, 20),
    epochs=st.integers(1, 10**7),
    jobs=st.none() | st.integers(1, 9),
)
def test_what_trains_at_the_same_time_shares_the_threads(
    shared: Study, threads: int, members: int, epochs: int, jobs: int | None
) -> None:
    task, one = shared._retrainer().task, shared.front().best()
    chosen = [replace(one, number=number) for number in range(members)]
    with on_threads(threads):
        turns = turns_of(task, chosen, RetrainConfig(Recipe(epochs=epochs)), "cpu", jobs)
    assert [member for turn in turns for member in turn.members] == chosen
    for turn in turns:
        assert len(turn.members) % turn.jobs == 0  # none has cores that wait for it
        assert turn.threads == max(1, threads // turn.jobs)
    at_once = max((turn.jobs for turn in turns), default=1)
    if jobs is not None:
        assert at_once == max(1, min(jobs, members))
        return
    assert at_once <= min(threads, 8)
    assert one.cost is not None
    macs = (3 * one.cost.macs + shared.graph.costs.dense.macs) * epochs * len(shared.data.train)  # the recipe distils
    each = 2 if is_likely_compiled(shared.model, Recipe(), macs) else 1
    assert (at_once > 1) == (macs >= LONG_TRAINING and min(threads // each, members) > 1)
    assert at_once == 1 or at_once * each <= threads


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return searched(tmp_path_factory.mktemp("shared"))


def test_what_trains_one_after_the_other_by_default(shared: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, from a loader or from images that fill the memory, or where processes train one network already."""
    task, members = shared._retrainer().task, shared.finalists(2).members
    config = RetrainConfig(Recipe(epochs=10**7, compile=False))
    one, two = [Turn(tuple(members), 1, 2)], [Turn(tuple(members), 2, 1)]
    with on_threads(2):
        assert turns_of(task, members, config, "cpu") == two
        assert turns_of(task, members, replace(config, recipe=Recipe(epochs=10**7, compile=True)), "cpu") == one
        assert turns_of(task, members, replace(config, recipe=Recipe(epochs=10, compile=False)), "cpu") == one  # short
        assert turns_of(task, members, config, "cuda:0") == one
        assert turns_of(task, members, config, "cuda:0", 2) == two
        with monkeypatch.context() as patch:
            patch.setattr("search.study.retraining_pool.LARGE_DATA", 160 * 64 - 1)  # bytes of the images of all splits
            assert turns_of(task, members, config, "cpu") == one
            patch.setattr("search.study.retraining_pool.LARGE_DATA", 160 * 64)
            assert turns_of(task, members, config, "cpu") == two
        loader = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.arange(8) % 4))
        streamed = replace(task, data=replace(shared.data, train=Stream(loader)))
        assert turns_of(streamed, members, config, "cpu") == one
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "0")
        assert turns_of(task, members, config, "cpu") == turns_of(task, members, config, "cpu", 2) == one


def test_so_many_at_the_same_time_must_be_a_number(shared: Study) -> None:
    for jobs, problem in ((0, "1 <= jobs must hold"), (1.5, "jobs must be a whole number"), ("2", "a whole number")):
        with pytest.raises(SecateurError, match=problem):
            shared.retrain(1, recipe=RECIPE, progress=False, jobs=jobs)  # type: ignore[arg-type]
        with pytest.raises(SecateurError, match=problem):
            shared.search(1, progress=False, jobs=jobs)  # type: ignore[arg-type]
