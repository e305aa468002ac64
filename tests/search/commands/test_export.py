"""`secateur export`: what it refuses, and what 8-bit integers cost on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from backbones.inputs import split_samples
from backbones.onnx_network import OnnxNetwork, export_onnx_int8
from search.cli import main
from search.data.readers import load_data
from search.training.engine import train
from search.training.metrics import accuracy
from search.training.recipe import Recipe


def test_integers_lose_less_than_two_points_on_digits(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="comes with the test extra")
    torch.manual_seed(0)
    data = load_data("digits")
    sizes = [(1, 16), (16, 32)]
    layers = [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)) for i, o in sizes
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))
    train(model, data, Recipe(epochs=3, lr=0.1), progress=False)
    calibration = split_samples(data.batch(256)[0], 32)
    export_onnx_int8(model, tmp_path / "net.onnx", (data.example,), calibration)
    floats, integers = accuracy(model, data, "test"), accuracy(OnnxNetwork(tmp_path / "net.onnx"), data, "test")
    assert floats > 0.8
    assert integers >= floats - 0.02


def test_a_run_without_a_network_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["export", str(run)]) == 2
    assert "is no run folder" in capsys.readouterr().err
    run.mkdir()
    (run / "study.toml").write_text(
        'name = "run"\n[model]\nbackbone = "resnet20"\n[data]\nname = "digits"\n[budget]\nmacs = "30%"\n'
    )
    assert main(["export", str(run)]) == 2
    assert "has no network yet; secateur resume" in capsys.readouterr().err
    (run / "refitted.safetensors").touch()
    assert main(["export", str(run), "-o", str(tmp_path / "no/net.onnx")]) == 2
    assert "no does not exist" in capsys.readouterr().err
