"""Compiled steps: the same training but for rounding, resumed exactly, decided once, done without where they fail."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from search.data.data import Data
from search.data.readers import load_data
from search.training import compiling
from search.training.compiling import is_likely_compiled
from search.training.engine import train
from search.training.parallel import ProcessGroup
from search.training.recipe import Recipe
from search.training.train_state import TrainState, prepare_training
from tests.search.training.test_training import StopError, assert_same, network, stop_at, weights


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 3, "lr": 0.05, "batch_size": 64, **changes})


def decision(folder: Path) -> int:
    found: int = torch.load(folder / "checkpoint.pt", weights_only=True)["compiled"]
    return found


def state_of(data: Data, teacher: nn.Module | None = None, **changes: Any) -> TrainState:
    group = ProcessGroup(0, 1, torch.device("cpu"))
    return prepare_training(network(), data, recipe(**changes), teacher, group, None)


class Rounded:
    """In the place of `torch.compile`: code that rounds otherwise, or that can't be made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: str = "") -> None:
        self.error, self.sizes = error, list[int]()
        monkeypatch.setattr(torch, "compile", self)

    def __call__(self, model: nn.Module, **_: Any) -> Any:
        def run(images: Tensor) -> Tensor:
            if self.error:
                raise RuntimeError(self.error)
            self.sizes.append(len(images))
            outputs: Tensor = model(images) * 1.001
            return outputs

        return run


def clock(monkeypatch: pytest.MonkeyPatch, uncompiled: float, compiled: float) -> list[str]:
    """Steps take so many seconds; what was timed stands in the list."""
    timed: list[str] = []
    real = compiling._seconds_a_step

    def seconds(state: TrainState, size: int, times: int) -> float:
        real(state, size, 1)
        timed.append("compiled" if isinstance(state.network, compiling.CompiledForBatch) else "uncompiled")
        return compiled if timed[-1] == "compiled" else uncompiled

    monkeypatch.setattr(compiling, "_seconds_a_step", seconds)
    monkeypatch.setattr(compiling, "_has_compiler", lambda device: True)
    return timed


needs_compiler = pytest.mark.skipif(not compiling._has_compiler(torch.device("cpu")), reason="needs a C++ compiler")


@needs_compiler
def test_compiled_training_is_the_same_one_and_is_resumed_exactly(digits: Data, tmp_path: Path) -> None:
    everything = recipe(epochs=2, ema=0.9, clip=1.0, slim=1e-3, label_smoothing=0.1)
    masks = {"0.weight": torch.arange(36).reshape(4, 1, 3, 3) % 3 > 0}

    def silence(model: nn.Module, done: int) -> None:
        if done == 1:
            with torch.no_grad():
                model.get_parameter("1.weight")[:2] = 0.0

    def stop(model: nn.Module, done: int) -> None:
        silence(model, done)
        stop_at(1)(model, done)

    def run(compiled: bool, folder: Path | None = None, after: Any = silence) -> nn.Module:
        model = nn.Sequential(*list(network(4))[:3], nn.Flatten(), nn.Linear(4 * 64, 10))
        train(model, digits, replace(everything, compile=compiled), folder=folder, after_epoch=after, masks=masks)
        return model

    with pytest.raises(StopError):
        run(True, tmp_path, stop)
    assert decision(tmp_path) == 64
    whole = run(True)
    assert_same(run(True, tmp_path), whole)
    plain = weights(run(False))
    torch.testing.assert_close(weights(whole), plain, rtol=0.01, atol=1e-3)


SCRIPT = """
import sys
from search.data.readers import load_data
from search.training.engine import train
from tests.search.training.test_compiling import recipe
from tests.search.training.test_training import network
def after(model, done):
    print(done, flush=True)
    if done == 2:
        sys.stdin.readline()
data, teacher = load_data("digits"), network(12, seed=1)
train(network(dropout=0.2), data, recipe(compile=True), teacher=teacher, folder=sys.argv[1], after_epoch=after)
"""


@pytest.mark.slow
@needs_compiler
def test_killed_compiled_training_is_resumed_exactly_by_another_process(digits: Data, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(2)] == ["1", "2"]
        process.send_signal(signal.SIGKILL)
    resumed, whole = network(dropout=0.2), network(dropout=0.2)
    teacher = network(12, seed=1)
    train(resumed, digits, recipe(compile=True), teacher=teacher, folder=tmp_path)
    train(whole, digits, recipe(compile=True), teacher=teacher)
    assert_same(resumed, whole)


def test_decision_of_auto_holds_for_the_whole_training(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Rounded(monkeypatch)
    timed = clock(monkeypatch, uncompiled=9.0, compiled=1.0)
    whole, always = network(dropout=0.2), network(dropout=0.2)
    train(whole, digits, recipe())
    train(always, digits, recipe(compile=True))
    assert_same(whole, always)
    with pytest.raises(StopError):
        train(network(dropout=0.2), digits, recipe(), folder=tmp_path, after_epoch=stop_at(1))
    assert decision(tmp_path) == 64
    timed.clear()
    clock(monkeypatch, uncompiled=0.0, compiled=1.0)  # would decide otherwise
    resumed = network(dropout=0.2)
    train(resumed, digits, recipe(), folder=tmp_path)
    assert_same(resumed, whole)
    assert "uncompiled" not in timed
    assert set(made.sizes) == {64}


def test_training_that_began_uncompiled_goes_on_so(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Rounded(monkeypatch)
    clock(monkeypatch, uncompiled=0.0, compiled=1.0)
    with pytest.raises(StopError):
        train(network(), digits, recipe(), folder=tmp_path, after_epoch=stop_at(1))
    clock(monkeypatch, uncompiled=9.0, compiled=1.0)
    resumed, whole = network(), network()
    train(resumed, digits, recipe(), folder=tmp_path)
    train(whole, digits, recipe(compile=False))
    assert_same(resumed, whole)
    assert made.sizes == []


@pytest.mark.parametrize(
    ("uncompiled", "compiled", "steps", "size"),
    [
        (1.0, 0.7, 1000, 64),
        (1.0, 0.7, 30, 0),  # a quarter of 30 s against 5 layers of 2 s
        (1.0, 1.1, 1000, 0),  # no faster once compiled
        (0.01, 0.007, 1000, 0),
    ],
)
def test_auto_compiles_what_earns_it_back(
    uncompiled: float, compiled: float, steps: int, size: int, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rounded(monkeypatch)
    clock(monkeypatch, uncompiled, compiled)
    state = state_of(digits, network(12, seed=1))
    before, teacher = weights(state.model), state.teacher
    compiling.compile_training(state, None, steps)
    assert state.compiled == size
    torch.testing.assert_close(weights(state.model), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in state.model.parameters())
    if size == 0:
        assert state.network is state.model
        assert state.teacher is teacher


def test_auto_leaves_networks_with_hooks_and_machines_without_a_compiler(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rounded(monkeypatch)
    clock(monkeypatch, uncompiled=9.0, compiled=1.0)
    hooked = state_of(digits)
    hooked.model[0].register_forward_hook(lambda *_: None)  # type: ignore[index]
    compiling.compile_training(hooked, None, 10**6)
    assert hooked.compiled == 0
    monkeypatch.setattr(compiling, "_has_compiler", lambda device: False)
    bare = state_of(digits)
    compiling.compile_training(bare, None, 10**6)
    assert bare.compiled == 0


def test_compiler_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", sys.executable)
    assert compiling._has_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not compiling._has_compiler(torch.device("cpu"))


def test_what_is_likely_compiled_follows_from_what_the_training_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 15 G MACs a second a quarter of the time must exceed 2 s a layer, and half of that for one of the teacher."""
    monkeypatch.setattr(compiling, "_has_compiler", lambda device: True)
    model = network()
    layers = sum(1 for module in model.modules() if list(module.parameters(recurse=False)))
    for distill, least in ((0.0, 2 * layers * 4 * 15e9), (0.5, 3 * layers * 4 * 15e9)):
        assert is_likely_compiled(model, recipe(distill=distill, compile="auto"), 1.01 * least)
        assert not is_likely_compiled(model, recipe(distill=distill, compile="auto"), 0.99 * least)
    assert is_likely_compiled(model, recipe(compile=True), 1)
    assert not is_likely_compiled(model, recipe(compile=False), 1e30)
    monkeypatch.setattr(compiling, "_has_compiler", lambda device: False)
    assert not is_likely_compiled(model, recipe(compile="auto"), 1e30)
    monkeypatch.setattr(compiling, "_has_compiler", lambda device: True)
    model.register_forward_hook(lambda *_: None)
    assert not is_likely_compiled(model, recipe(compile="auto"), 1e30)


def test_failed_compilation_is_done_without(digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rounded(monkeypatch, error="g++: internal error\nand much more")
    plain, failed = network(), network()
    train(plain, digits, recipe(compile=False))
    message = r"^torch.compile failed \(g\+\+: internal error\); the training runs uncompiled$"
    with pytest.warns(UserWarning, match=message):
        train(failed, digits, recipe(compile=True), folder=tmp_path)
    assert_same(failed, plain)
    assert decision(tmp_path) == 0


def test_batches_of_another_size_run_uncompiled(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Rounded(monkeypatch)
    model = network().eval()
    compiled = compiling.CompiledForBatch(model, 64)
    images = digits.batch(65)[0]
    torch.testing.assert_close(compiled(images), model(images), rtol=0, atol=0)
    torch.testing.assert_close(compiled(images[:64]), model(images[:64]) * 1.001)
    assert made.sizes == [64]
    assert [name for name, _ in compiled.named_parameters()] == [
        f"model.{name}" for name, _ in model.named_parameters()
    ]


class Replayed:
    """In the place of CUDA: steps of the first device replay what was recorded, which rounds otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: str = "") -> None:
        self.error, self.sizes = error, list[int]()
        monkeypatch.setattr(compiling, "_is_cuda", lambda device: True)
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", self)
        Rounded(monkeypatch, error="nothing is to be compiled here")

    def __call__(self, module: nn.Module, inputs: tuple[Tensor], **_: object) -> Any:
        if self.error:
            raise RuntimeError(self.error)
        for _warm_up in range(3):
            module(*inputs).sum().backward()  # writes batch-norm statistics
        module.zero_grad()

        def replay(images: Tensor) -> Tensor:
            self.sizes.append(len(images))
            outputs: Tensor = module(images) * 1.001
            return outputs

        return replay


def test_on_cuda_steps_are_recorded_and_replayed(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Replayed(monkeypatch)
    clock(monkeypatch, uncompiled=0.01, compiled=0.002)
    state = state_of(digits, network(12, seed=1))
    before, teacher = weights(state.model), state.teacher
    compiling.compile_training(state, None, 1000)
    assert state.compiled == 64
    assert state.teacher is teacher  # runs as it is
    torch.testing.assert_close(weights(state.model), before, rtol=0, atol=0)
    images = digits.batch(65)[0]
    made.sizes.clear()
    state.network(images[:64])
    state.network(images)
    assert made.sizes == [64]
    assert [name for name, _ in state.network.named_parameters()] == [
        f"model.{name}" for name, _ in state.model.named_parameters()
    ]
    short = state_of(digits)
    compiling.compile_training(short, None, 4 * compiling.RECORDING)
    assert short.compiled == 0


def test_recorded_training_is_decided_once_and_resumed_exactly(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Replayed(monkeypatch)
    clock(monkeypatch, uncompiled=0.01, compiled=0.002)
    whole, resumed, plain = (network(dropout=0.2) for _ in range(3))
    train(whole, digits, recipe(compile=True))
    train(plain, digits, recipe(compile=False))
    assert any(not torch.equal(one, weights(plain)[name]) for name, one in weights(whole).items())
    with pytest.raises(StopError):
        train(network(dropout=0.2), digits, recipe(compile=True), folder=tmp_path, after_epoch=stop_at(1))
    assert decision(tmp_path) == 64
    train(resumed, digits, recipe(), folder=tmp_path)
    assert_same(resumed, whole)


class Chance(nn.Module):
    """Leaves itself out of every other pass, as Python draws it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if random.random() < 0.5 else inputs * 2


def test_hooks_are_not_recorded(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    Replayed(monkeypatch)
    hooked = state_of(digits)
    hooked.model[0].register_forward_hook(lambda *_: None)  # type: ignore[index]
    assert not compiling._can_be_recorded(hooked, 64)
    assert compiling._can_be_recorded(state_of(digits), 64)


def test_what_python_draws_in_a_pass_is_not_replayed(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    Replayed(monkeypatch)
    chance = state_of(digits, compile=True)
    chance.model.append(Chance())  # type: ignore[operator]
    with pytest.warns(UserWarning, match=r"CUDA graphs failed \(its code draws random numbers in Python"):
        compiling.compile_training(chance, None, 1000)
    assert chance.network is chance.model
    assert chance.compiled == 0


def test_a_recording_that_fails_is_done_without(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    Replayed(monkeypatch, error="operation not permitted when stream is capturing")
    plain, failed = network(), network()
    train(plain, digits, recipe(compile=False))
    with pytest.warns(UserWarning, match="operation not permitted when stream is capturing.; the training runs uncomp"):
        train(failed, digits, recipe(compile=True))
    assert_same(failed, plain)


def test_compile_changes_no_meaning() -> None:
    assert Recipe(compile=True).to_dict() == Recipe(compile=False).to_dict() == Recipe().to_dict()
    with pytest.raises(SecateurError, match="compile must be 'auto', True or False, but got compile='yes'"):
        Recipe(compile="yes")  # type: ignore[arg-type]
