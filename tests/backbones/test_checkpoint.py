"""Checkpoints from elsewhere: the usual layouts load, misfits are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backbones import SecateurError, build, load_checkpoint


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build("resnet20", 10)


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("key", [None, "state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_usual_layouts(tmp_path: Path, key: str | None, prefix: str) -> None:
    source, target = model(0), model(1)
    state = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "net.th")
    load_checkpoint(target, tmp_path / "net.th")
    assert equal(source, target)


def test_safetensors(tmp_path: Path) -> None:
    source, target = model(0), model(1)
    save_file(source.state_dict(), tmp_path / "net.safetensors")
    load_checkpoint(target, tmp_path / "net.safetensors")
    assert equal(source, target)


def test_old_checkpoints_lack_the_batch_counters(tmp_path: Path) -> None:
    source, target = model(0), model(1)
    state = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.th")
    load_checkpoint(target, tmp_path / "old.th")
    assert equal(source, target)


def test_misfits_name_the_first_three(tmp_path: Path) -> None:
    state = model(0).state_dict()
    for name in ("conv1.weight", "bn1.weight"):
        del state[name]
    state["extra.weight"] = torch.zeros(1)
    state["linear.weight"] = torch.zeros(5, 64)
    torch.save(state, tmp_path / "net.th")
    target = model(1)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    message = (
        "does not fit CifarResNet: conv1.weight is missing; bn1.weight is missing; extra.weight is unknown and 1 more"
    )
    with pytest.raises(SecateurError, match=message):
        load_checkpoint(target, tmp_path / "net.th")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo unpickled",)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match="does not exist"):
        load_checkpoint(model(0), tmp_path / "nowhere.th")
    (tmp_path / "text.th").write_text("not a checkpoint")
    with pytest.raises(SecateurError, match="cannot be read as plain tensors"):
        load_checkpoint(model(0), tmp_path / "text.th")
    torch.save([1, 2], tmp_path / "list.th")
    with pytest.raises(SecateurError, match="holds no state dict"):
        load_checkpoint(model(0), tmp_path / "list.th")
    torch.save(Evil(), tmp_path / "evil.th")
    with pytest.raises(SecateurError, match="cannot be read as plain tensors"):
        load_checkpoint(model(0), tmp_path / "evil.th")
