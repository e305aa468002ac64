"""Networks of other types, compiled ones, with state of their own: what is written of them comes back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.artefact import load, read_artefact, save
from backbones.checkpoint import PREFIXES, load_checkpoint
from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.structure import Structure
from backbones.surgery import prune
from tests.graphs import known_trace as trace


class Net(nn.Module):
    """A scale per channel that no state dict holds; a block that can be compiled or removed."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("scale", torch.linspace(0.5, 2, 8).reshape(8, 1, 1), persistent=False)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.block(torch.relu(self.stem(x)) * self.scale)).mean((2, 3)))
        return logits


class Keeping(Net):
    """Keeps something beside tensors."""

    def __init__(self, kept: object = None) -> None:
        super().__init__()
        self.kept = kept

    def get_extra_state(self) -> object:
        return self.kept

    def set_extra_state(self, state: object) -> None:
        self.kept = state


def example(dtype: torch.dtype = torch.float32, count: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


def halved(model: nn.Module, dtype: torch.dtype = torch.float32, removed: str = "") -> nn.Module:
    """Half of the channels; without the layer that is named."""
    graph = trace(model, example(dtype))
    kept = {group.name: range(0, group.size, 2) for group in graph.groups}
    return prune(model, graph, Structure.of(graph, kept, [removed] if removed else [])).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_artefacts_keep_the_type_of_every_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    small = halved(Net().to(dtype), dtype)
    save(small, tmp_path / "small.safetensors")
    back = load(tmp_path / "small.safetensors", Net())
    assert {value.dtype for value in [*back.parameters(), *back.buffers()]} == {dtype, torch.int64}
    assert torch.equal(back(example(dtype)), small(example(dtype)))


def test_types_that_differ_within_a_network_are_kept(tmp_path: Path) -> None:
    small: Any = halved(Net())
    small.head.double()
    small.scale = small.scale.double()
    save(small, tmp_path / "small.safetensors")
    back: Any = load(tmp_path / "small.safetensors", Net())
    assert (back.stem.weight.dtype, back.head.bias.dtype, back.scale.dtype) == (
        torch.float32,
        torch.float64,
        torch.float64,
    )


def compiled(part: str) -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    if part == "whole":
        return torch.compile(model, backend="eager")  # type: ignore[return-value]
    if part == "block":
        model.block = torch.compile(model.block, backend="eager")  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("part", "removed"), [("whole", ""), ("whole", "_orig_mod.block"), ("block", ""), ("block", "block._orig_mod.0")]
)
def test_the_artefact_of_a_compiled_network_fits_the_plain_class(tmp_path: Path, part: str, removed: str) -> None:
    small = halved(compiled(part), removed=removed)
    save(small, tmp_path / "small.safetensors")
    _, tensors = read_artefact(tmp_path / "small.safetensors")
    assert not [name for name in tensors if "_orig_mod" in name]
    for dense in (Net(), compiled("whole"), compiled("block")):
        back = load(tmp_path / "small.safetensors", dense)
        with torch.no_grad():  # dynamo warns of tensors with gradients between compiled parts
            assert torch.allclose(back(example()), small(example()), atol=1e-6)


def test_a_pruned_network_may_be_compiled_before_it_is_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = halved(Net())
    save(torch.compile(small, backend="eager"), tmp_path / "small.safetensors")  # type: ignore[arg-type]
    assert torch.equal(load(tmp_path / "small.safetensors", Net())(example()), small(example()))


@pytest.mark.parametrize("kept", [{"seen": 3, "names": ["a", "b"]}, None, torch.arange(3)], ids=repr)
def test_extra_state_is_saved(tmp_path: Path, kept: Any) -> None:
    small = halved(Keeping(kept))
    save(small, tmp_path / "small.safetensors")
    back: Any = load(tmp_path / "small.safetensors", Keeping("other"))
    assert torch.equal(back.kept, kept) if isinstance(kept, Tensor) else back.kept == kept


def test_extra_state_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecateurError, match=r"_extra_state .* cannot be written as JSON: .*complex"):
        save(halved(Keeping(1j)), tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []


PLACES = ("state_dict", "model_state_dict", "model", "net")


@pytest.mark.parametrize("wrapper", ["", *PREFIXES, "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("place", ["", *PLACES])
def test_checkpoints_of_other_trainers(tmp_path: Path, place: str, wrapper: str) -> None:
    torch.manual_seed(1)
    other = Net()
    state: Any = {wrapper + name: value for name, value in other.state_dict().items()}
    torch.save({"epoch": 3, place: state} if place else state, tmp_path / "weights.pt")
    for model in (Net(), compiled("whole"), compiled("block")):
        load_checkpoint(model, tmp_path / "weights.pt")
        assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_checkpoints_with_compiled_parts_nested_places_and_averages(tmp_path: Path) -> None:
    states: list[Any] = [
        compiled("block").state_dict(),
        {"state": 1, "model": {"state_dict": compiled("whole").state_dict()}},
        torch.optim.swa_utils.AveragedModel(compiled("")).state_dict(),
    ]
    for state in states:
        torch.save(state, tmp_path / "weights.pt")
        model = Net()
        load_checkpoint(model, tmp_path / "weights.pt")
        wanted = compiled("").state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


class Literal(Net):
    """Code that knows its batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(2, 3, 8, 8))


class Dictionary(Net):
    """Inputs in a dictionary, a factor by name."""

    def forward(self, batch: dict[str, Tensor], *, factor: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(batch["image"]) * batch["scale"] * factor


def test_exports_take_any_number_of_samples(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="comes with the test extra")
    small = halved(Net())
    export_program(small, tmp_path / "net.pt2", (example(),))
    export_onnx(small, tmp_path / "net.onnx", (example(),))
    program = torch.export.load(tmp_path / "net.pt2").module()
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    for count in (1, 2, 7):
        images = example(count=count)
        assert torch.allclose(program(images), small(images), atol=1e-5)
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert torch.allclose(torch.from_numpy(found), small(images), atol=1e-4)
    assert session.get_inputs()[0].shape[0] == "batch"


def test_a_batch_that_is_literal_in_the_code_stays_fixed(tmp_path: Path) -> None:
    assert export_program(Literal(), tmp_path / "net.pt2", (example(count=2),)) < 1e-5
    program = torch.export.load(tmp_path / "net.pt2").module()
    with pytest.raises(Exception, match=r"Guard failed|shape"):
        program(example(count=3))


def test_exports_of_dictionaries_and_named_inputs(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="comes with the test extra")
    given = {"image": example(count=2), "scale": torch.full((2, 1), 0.5)}
    model = Dictionary()
    graph = trace(model, (given,), kwargs={"factor": torch.full((1,), 3.0)})
    small = prune(model, graph, Structure.random(graph, keep=0.5)).eval()
    assert export_program(small, tmp_path / "net.pt2", graph.example) < 1e-4
    assert export_onnx(small, tmp_path / "net.onnx", graph.example) < 1e-4
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    assert len(session.get_inputs()) == 3
