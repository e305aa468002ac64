"""A dense network that begins from weights of somewhere else: `[model] pretrained`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backbones.errors import SecateurError
from backbones.registry import build
from search.run.inputs import load_inputs
from search.run.study_file import read_study

TEXT = """
name = "begin"
[model]
backbone = "resnet20"
pretrained = "other.pt"
skip = ["linear.*"]
[data]
name = "digits"
images = 100
[budget]
macs = "50%"
"""


def test_training_begins_from_given_weights_with_a_head_of_its_own(tmp_path: Path) -> None:
    other = build("resnet20", 7, 1)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    path = tmp_path / "study.toml"
    path.write_text(TEXT)
    start = load_inputs(read_study(path), tmp_path, "cpu")
    assert len(start.data.train) == 100
    weights = start.model.state_dict()
    same = {name for name, value in other.state_dict().items() if torch.equal(value, weights[name])}
    assert set(weights) - same == {"linear.weight", "linear.bias"}
    assert weights["linear.weight"].shape[0] == 10


def test_weights_are_either_final_or_a_beginning(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(TEXT.replace('skip = ["linear.*"]', 'checkpoint = "dense.pt"'))
    with pytest.raises(SecateurError, match=r"\[model\] takes checkpoint \(trained for this data\) or pretrained"):
        read_study(path)
