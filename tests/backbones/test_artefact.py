"""Artefacts: what is saved comes back equal, in another process too; what is broken is named in one line."""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backbones.artefact import load, read_artefact, save
from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from tests.backbones.parity import stirred
from tests.graphs import known_trace as trace
from tests.launcher import Launcher

EXAMPLE = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)


@lru_cache(maxsize=1)
def traced() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    model = stirred(build("resnet20", 10)).float().eval()
    return model, trace(model, EXAMPLE)


def pruned(seed: int = 0) -> nn.Module:
    model, graph = traced()
    return prune(model, graph, Structure.random(graph, keep=0.5, seed=seed))


class Own(nn.Module):
    """A user's network that `build` does not know, with tied layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twin = nn.Conv2d(8, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.again.weight = self.twin.weight
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(torch.relu(self.twin(torch.relu(self.stem(x)))))
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


def test_round_trip_of_a_pruned_backbone(tmp_path: Path) -> None:
    model, graph = traced()
    structure = Structure.random(graph, keep=0.5, seed=0)
    small = prune(model, graph, structure)
    save(small, tmp_path / "small.safetensors", cost=cost(graph, structure), provenance={"trial": 7})
    back = load(tmp_path / "small.safetensors")
    assert torch.equal(back(EXAMPLE), small.eval()(EXAMPLE))
    assert back.secateur_origin.structure == structure  # type: ignore[union-attr]
    record, _ = read_artefact(tmp_path / "small.safetensors")
    assert record["provenance"] == {"trial": 7}
    assert record["cost"]["macs"] == cost(graph, structure).macs


def test_a_loaded_network_can_be_saved_again(tmp_path: Path) -> None:
    save(pruned(), tmp_path / "one.safetensors")
    save(load(tmp_path / "one.safetensors"), tmp_path / "two.safetensors")
    assert torch.equal(load(tmp_path / "two.safetensors")(EXAMPLE), load(tmp_path / "one.safetensors")(EXAMPLE))


def test_a_fresh_process_computes_the_same(tmp_path: Path, launcher: Launcher) -> None:
    small = pruned().eval()
    save(small, tmp_path / "small.safetensors")
    code = (
        "import torch; from backbones.artefact import load;"
        f"model = load({str(tmp_path / 'small.safetensors')!r});"
        "print(model(torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)).detach().double().tolist())"
    )
    there = torch.tensor(json.loads(launcher.printed(code)), dtype=torch.float64)
    assert torch.allclose(there, small(EXAMPLE).double(), rtol=1e-6, atol=1e-7)


def test_a_dense_backbone_round_trips_too(tmp_path: Path) -> None:
    model, _ = traced()
    save(model, tmp_path / "dense.safetensors")
    back = load(tmp_path / "dense.safetensors")
    assert torch.equal(back(EXAMPLE), model(EXAMPLE))
    assert not hasattr(back, "secateur_origin")


def test_a_users_own_network_needs_its_dense_module(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Own().eval()
    graph = trace(model, EXAMPLE)
    small: Any = prune(model, graph, Structure.random(graph, keep=0.5, seed=1))
    assert small.twin.weight is small.again.weight
    save(small, tmp_path / "own.safetensors")
    with pytest.raises(SecateurError, match=r"holds a user's own network; pass its dense module: load\(path, model\)"):
        load(tmp_path / "own.safetensors")
    back: Any = load(tmp_path / "own.safetensors", Own())
    assert back.twin.weight is back.again.weight
    assert torch.equal(back(EXAMPLE), small.eval()(EXAMPLE))
    with pytest.raises(SecateurError, match="does not fit the model Linear"):
        load(tmp_path / "own.safetensors", nn.Linear(3, 4))


def test_a_stranger_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"made neither by prune\(\) nor by build\(\)"):
        save(nn.Linear(2, 2), tmp_path / "no.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="does not exist"):
        load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("cut", [0, 4, 100, 5000, -1])
def test_truncated_files(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "small.safetensors"
    save(pruned(), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SecateurError, match="is not a whole secateur artefact"):
        load(path)


def test_corrupted_header(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save(pruned(), path)
    data = bytearray(path.read_bytes())
    data[8:40] = b"\xff" * 32
    path.write_bytes(bytes(data))
    with pytest.raises(SecateurError, match="is not a whole secateur artefact"):
        load(path)


def test_someone_elses_safetensors(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SecateurError, match="is not a whole secateur artefact"):
        load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99, this secateur reads up to 2; upgrade secateur"),
        ({"format": "x"}, "is not a whole secateur artefact"),
        ({"origin": {"structure": 1}}, "is not a whole secateur artefact|does not fit"),
        ({"spec": {"name": "resnet20"}}, "is not a whole secateur artefact|does not fit"),
        ({"spec": {"name": "resnet9", "num_classes": 10, "in_channels": 3}}, "unknown backbone 'resnet9'"),
        ({"spec": {"name": "resnet32", "num_classes": 10, "in_channels": 3}}, "does not fit the model CifarResNet"),
    ],
)
def test_records_that_do_not_hold(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "small.safetensors"
    save(pruned(), path)
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    record = {**json.loads(header["__metadata__"]["secateur"]), **change}
    del record["digest"]  # as in files of before, or by somebody who knows what he does
    header["__metadata__"]["secateur"] = json.dumps(record)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(SecateurError, match=message):
        load(path)
