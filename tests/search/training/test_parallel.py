"""Two processes on the CPU train one network together (gloo, with what torchrun tells them)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.readers import load_data
from search.training.engine import train
from search.training.metrics import accuracy
from search.training.parallel import ProcessGroup, end_with_parent, kept_from_children
from search.training.recipe import Recipe
from search.training.train_state import prepare_training
from tests.launcher import Launcher
from tests.search.training.test_training import network

SCRIPT = """
import sys
from tests.search.training.test_parallel import train_together
train_together(sys.argv[1:])
"""


def train_together(arguments: list[str]) -> None:
    """In one of two processes: trains with the other, and leaves what it has."""
    rank, folder, epochs, compiled, stop = int(os.environ["RANK"]), *arguments

    def after(model: nn.Module, done: int) -> None:
        if done == int(stop):
            sys.exit(3)

    model, recipe = network(seed=rank), Recipe(epochs=int(epochs), batch_size=64, ema=0.9, compile=compiled == "True")
    history = train(model, load_data("digits"), recipe, folder=Path(folder), after_epoch=after)
    torch.save({"model": model.state_dict(), "test": history.test_accuracy}, f"{folder}/rank{rank}.pt")


def torchrun(folder: Path, epochs: int, *, compiled: bool = False, stop: int = 0) -> str:
    """Two processes of one thread; what they wrote to standard error, empty after a whole training."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(script), str(folder), str(epochs), str(compiled), str(stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr[-2000:] if done.returncode else ""


def weights_of(folder: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"rank{rank}.pt", weights_only=True)
    return found


@pytest.mark.timeout(120)
def test_two_processes_hold_one_network(tmp_path: Path, launcher: Launcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [told | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]  # as torchrun tells them
    call = (f"{__name__}:train_together", str(tmp_path), "4", "False", "0")
    for process in [launcher.start(*call, folder=tmp_path, environment=one) for one in ranks]:
        process.end()
    first, second = weights_of(tmp_path, 0), weights_of(tmp_path, 1)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    data: Data = load_data("digits")
    model = network(seed=9)
    model.load_state_dict(first["model"])
    assert accuracy(model, data) == pytest.approx(first["test"])
    assert first["test"] > 0.9
    # the snapshot is one of a whole training: a single process returns it
    recipe = Recipe(epochs=4, batch_size=64, ema=0.9)
    assert train(network(), data, recipe, folder=tmp_path).test_accuracy == first["test"]


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_processes_resume_exactly(compiled: bool, tmp_path: Path) -> None:
    parted, whole = tmp_path / "parted", tmp_path / "whole"
    assert torchrun(parted, 3, compiled=compiled, stop=2)  # in the second epoch, one is on disk
    assert torchrun(parted, 3, compiled=compiled) == ""
    assert torchrun(whole, 3, compiled=compiled) == ""
    for rank in (0, 1):
        torch.testing.assert_close(weights_of(parted, rank), weights_of(whole, rank), rtol=0, atol=0)
    saved = torch.load(parted / "checkpoint.pt", weights_only=True)
    assert saved["compiled"] == (32 if compiled else 0)


def test_shared_stream_is_refused() -> None:
    data = load_data("digits")
    loader = DataLoader(TensorDataset(*data.batch(64)), 32)
    stream = Data.from_datasets("s", loader, loader, validation=loader, num_classes=10, stream=True)
    group = ProcessGroup(0, 2, torch.device("cpu"))
    with pytest.raises(SecateurError, match="2 processes would all read the same stream"):
        prepare_training(network(), stream, Recipe(), None, group, None)
    with pytest.raises(SecateurError, match="batch_size must be a multiple of the 2 processes, but got 63"):
        prepare_training(network(), data, Recipe(batch_size=63), None, group, None)


def test_processes_begun_inside_a_block_never_see_ctrl_c() -> None:
    """Those of multiprocessing and joblib too, whose trackers let signals through when they are begun themselves."""
    ask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"

    def blocked() -> bool:
        shown = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True).stdout
        return shown.strip() == "True"

    seen: list[bool] = []

    def look_inside() -> None:
        with kept_from_children():
            for tracker in (resource_tracker, loky_tracker):
                tracker.ensure_running()
            seen.append(blocked())
            signal.raise_signal(signal.SIGINT)  # ours: late, not lost

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        assert not blocked()
        with pytest.raises(KeyboardInterrupt):
            look_inside()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [True]
    assert not blocked()


def _parent(told: Connection) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_child, args=(told,))
    child.start()
    child.join()


def _child(told: Connection) -> None:
    end_with_parent()
    told.send("begun")
    time.sleep(60)


def test_a_process_ends_with_the_one_that_began_it() -> None:
    """Killed, so that it can tell nobody; what the processes hold of the pipe is closed when both are gone."""
    context = multiprocessing.get_context("fork")
    heard, told = context.Pipe(duplex=False)
    parent = context.Process(target=_parent, args=(told,))
    parent.start()
    told.close()
    assert heard.recv() == "begun"
    assert not heard.poll(0.2)
    parent.kill()
    assert heard.poll(20)
    with pytest.raises(EOFError):
        heard.recv()
    parent.join()
