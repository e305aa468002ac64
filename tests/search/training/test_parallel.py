"""Two processes on the CPU train one network together (gloo, launched as torchrun does)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.readers import load_data
from search.training.engine import train
from search.training.metrics import accuracy
from search.training.parallel import ProcessGroup
from search.training.recipe import Recipe
from search.training.train_state import prepare_training
from tests.search.training.test_training import network

SCRIPT = """
import os, sys, torch
from search.data.readers import load_data
from search.training.recipe import Recipe
from search.training.engine import train
from tests.search.training.test_training import network
rank = int(os.environ["RANK"])
model = network(seed=rank)
history = train(model, load_data("digits"), Recipe(epochs=int(sys.argv[2]), batch_size=64), folder=sys.argv[1])
torch.save({"model": model.state_dict(), "test": history.test_accuracy}, f"{sys.argv[1]}/rank{rank}.pt")
"""


@pytest.mark.timeout(120)
def test_two_processes_hold_one_network(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path), "4"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    data: Data = load_data("digits")
    model = network(seed=9)
    model.load_state_dict(first["model"])
    assert accuracy(model, data) == pytest.approx(first["test"])
    assert first["test"] > 0.9
    # the snapshot is one of a whole training: a single process returns it
    assert train(network(), data, Recipe(epochs=4, batch_size=64), folder=tmp_path).test_accuracy == first["test"]


def test_shared_stream_is_refused() -> None:
    data = load_data("digits")
    loader = DataLoader(TensorDataset(*data.batch(64)), 32)
    stream = Data.from_datasets("s", loader, loader, validation=loader, num_classes=10, stream=True)
    group = ProcessGroup(0, 2, torch.device("cpu"))
    with pytest.raises(SecateurError, match="2 processes would all read the same stream"):
        prepare_training(network(), stream, Recipe(), None, group, None)
    with pytest.raises(SecateurError, match="batch_size must be a multiple of the 2 processes, but got 63"):
        prepare_training(network(), data, Recipe(batch_size=63), None, group, None)
