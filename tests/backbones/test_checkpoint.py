"""Checkpoints from elsewhere: the usual layouts load, misfits are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backbones.checkpoint import load_checkpoint
from backbones.errors import SecateurError
from backbones.registry import build


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


def convert(state: dict[str, torch.Tensor], *spellings: tuple[str, str]) -> dict[str, torch.Tensor]:
    for old, new in spellings:
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


@pytest.mark.parametrize(
    "spellings", [(("linear", "fc"),), (("shortcut", "downsample"),), (("linear", "fc"), ("shortcut", "downsample"))]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_other_spellings_of_cifar_resnets(tmp_path: Path, spellings: tuple[tuple[str, str], ...], prefix: str) -> None:
    """The head is `linear` at akamaster and kuangliu, `fc` at chenyaofo; the projection `shortcut` or `downsample`."""
    source, target = build("resnet20_proj", 10), build("resnet20_proj", 10)
    state = {prefix + name: value for name, value in convert(source.state_dict(), *spellings).items()}
    torch.save({"net": state}, tmp_path / "net.pth")
    load_checkpoint(target, tmp_path / "net.pth")
    assert equal(source, target)


def test_resnet18_for_small_images_reads_what_kuangliu_trains(tmp_path: Path) -> None:
    source, target = build("resnet18_tiny", 10), build("resnet18_tiny", 10)
    state = convert(source.state_dict(), ("fc", "linear"), ("downsample", "shortcut"))
    torch.save({"net": {f"module.{name}": value for name, value in state.items()}, "acc": 95.0}, tmp_path / "ckpt.pth")
    load_checkpoint(target, tmp_path / "ckpt.pth")
    assert equal(source, target)


def test_a_projection_does_not_fit_a_zero_padded_shortcut(tmp_path: Path) -> None:
    torch.save(convert(build("resnet20_proj", 10).state_dict(), ("shortcut", "downsample")), tmp_path / "net.pth")
    with pytest.raises(SecateurError, match=r"layer2.0.downsample.0.weight is unknown; .* and 9 more$"):
        load_checkpoint(model(0), tmp_path / "net.pth")


def test_the_bilinear_network_takes_the_convolutions_of_a_vgg(tmp_path: Path) -> None:
    """A torchvision checkpoint of vgg16_bn: `features.*` fit, its three linear layers do not."""
    source, target = build("bcnn_vgg16_bn", 4), build("bcnn_vgg16_bn", 4)
    state = {name: value for name, value in source.state_dict().items() if name.startswith("features.")}
    state |= {f"classifier.{i}.{kind}": torch.zeros(3) for i in (0, 3, 6) for kind in ("weight", "bias")}
    torch.save(state, tmp_path / "vgg16_bn.pth")
    message = r"classifier.weight is missing; .* and 5 more; skip=\('classifier.\*',\) would load the rest$"
    with pytest.raises(SecateurError, match=message):
        load_checkpoint(target, tmp_path / "vgg16_bn.pth")
    before = {name: value.clone() for name, value in target.state_dict().items()}
    load_checkpoint(target, tmp_path / "vgg16_bn.pth", skip=["classifier.*"])
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("classifier.") else source.state_dict()[name]), name


def test_a_head_of_other_classes_is_skipped(tmp_path: Path) -> None:
    source, target = build("resnet20", 100), model(1)
    torch.save(source.state_dict(), tmp_path / "net.pth")
    with pytest.raises(SecateurError, match=r"linear.weight has shape \(100, 64\).* skip=\('linear.\*',\) would load"):
        load_checkpoint(target, tmp_path / "net.pth")
    load_checkpoint(target, tmp_path / "net.pth", skip=["linear.*"])
    assert torch.equal(target.state_dict()["conv1.weight"], source.state_dict()["conv1.weight"])
    assert target.state_dict()["linear.weight"].shape == (10, 64)


def test_skips_that_cannot_be_meant(tmp_path: Path) -> None:
    torch.save(model(0).state_dict(), tmp_path / "net.pth")
    with pytest.raises(SecateurError, match=r"skip pattern 'head.\*' matches no parameter; .* like 'conv1.weight'"):
        load_checkpoint(model(1), tmp_path / "net.pth", skip=["head.*"])
    with pytest.raises(SecateurError, match=r"leaves nothing of checkpoint .* to load"):
        load_checkpoint(model(1), tmp_path / "net.pth", skip=["*"])


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source, target = model(0), model(1)
    before = target.state_dict()["conv1.weight"].clone()
    source.state_dict()["linear.weight"][0, 0] = float("inf")
    torch.save(source.state_dict(), tmp_path / "net.pth")
    with pytest.raises(SecateurError, match=r"net.pth: linear.weight holds NaN or infinite values"):
        load_checkpoint(target, tmp_path / "net.pth")
    assert torch.equal(target.state_dict()["conv1.weight"], before)
    load_checkpoint(target, tmp_path / "net.pth", skip=["linear.*"])


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
