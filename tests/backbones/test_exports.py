"""Exports compute what the module computes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.registry import build
from backbones.structure import Structure
from backbones.surgery import prune
from backbones.trace import trace


def pruned() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = build("resnet20", 10)
    graph = trace(model, torch.zeros(1, 3, 8, 8))
    return prune(model, graph, Structure.random(graph, keep=0.5)).train(), torch.randn(2, 3, 8, 8)


def test_a_torch_program_is_read_back_equal(tmp_path: Path) -> None:
    model, images = pruned()
    assert export_program(model, tmp_path / "net.pt2", (images,)) < 1e-5
    assert model.training
    program = torch.export.load(tmp_path / "net.pt2").module()
    assert torch.allclose(program(images), model.eval()(images), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_onnx_runs_equal(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="comes with the test extra")
    model, images = pruned()
    assert export_onnx(model, tmp_path / "net.onnx", (images,)) < 1e-4
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), model.eval()(images), atol=1e-4)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> Any:
        raise ImportError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SecateurError, match=r"ONNX needs onnx; install it with: pip install 'secateur\[onnx\]'"):
        export_onnx(nn.Linear(2, 2), tmp_path / "net.onnx", (torch.zeros(1, 2),))
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_what_cannot_be_exported_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"torch.export cannot export the model: Could not guard"):
        export_program(Branching(), tmp_path / "net.pt2", (torch.ones(2),))
    assert list(tmp_path.iterdir()) == []
