"""The training engine: learning, exact resume, interruption, distillation, and what it refuses."""

from __future__ import annotations

import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.data.data import Data
from search.data.readers import load_data
from search.data.sources import Split
from search.training.checkpoint import History
from search.training.engine import train
from search.training.metrics import accuracy
from search.training.recipe import Recipe
from search.training.train_state import train_step
from tests.launcher import Launcher

FAST = Recipe(epochs=3, lr=0.05, batch_size=64)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


def network(width: int = 8, *, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * width * 16, 10),
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(weights(first), weights(second), rtol=0, atol=0)


class StopError(Exception):
    """Ends a training from the inside."""


def stop_at(epoch: int) -> Any:
    """Stops a training so that this many epochs are on disk."""

    def after(model: nn.Module, done: int) -> None:
        if done == epoch + 1:
            raise StopError

    return after


def test_learns_digits(digits: Data) -> None:
    model = network(16)
    history = train(model, digits, Recipe(epochs=10, batch_size=64))
    assert history.test_accuracy is not None
    assert history.test_accuracy > 0.96
    assert history.start_accuracy < 0.3
    assert accuracy(model, digits, "validation") == pytest.approx(history.validation_accuracy)
    assert accuracy(model, digits) == pytest.approx(history.test_accuracy)
    assert not model.training


VARIANTS = {
    "plain": FAST,
    "everything": Recipe(
        epochs=3,
        lr=0.05,
        batch_size=64,
        schedule="one-cycle",
        label_smoothing=0.1,
        ema=0.9,
        clip=1.0,
        slim=1e-3,
        precision="bfloat16",
        channels_last=True,
        augment=Augment(crop=1, flip=True, cutout=2),
    ),
    "adamw": Recipe(epochs=3, lr=0.002, batch_size=64, optimiser="adamw", schedule="linear"),
}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_resumed_training_ends_in_the_same_weights(variant: str, digits: Data, tmp_path: Path) -> None:
    recipe, teacher = VARIANTS[variant], network(12, seed=1)
    whole, parted = network(dropout=0.2), network(dropout=0.2)
    expected = train(whole, digits, recipe, teacher=teacher)
    with pytest.raises(StopError):
        train(parted, digits, recipe, teacher=teacher, folder=tmp_path, after_epoch=stop_at(2))
    fresh = network(dropout=0.2, seed=7)
    torch.manual_seed(99)
    history = train(fresh, digits, recipe, teacher=teacher, folder=tmp_path)
    assert_same(whole, fresh)
    assert [epoch.loss for epoch in history.epochs] == [epoch.loss for epoch in expected.epochs]
    assert history.test_accuracy == expected.test_accuracy
    again = train(network(dropout=0.2), digits, recipe, teacher=teacher, folder=tmp_path)
    assert again == history
    assert (tmp_path / "history.csv").read_text() == history.to_csv()


def test_interrupted_model_holds_the_last_whole_epoch(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    one = network()
    seen: list[int] = []
    real = train_step

    def interrupted(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 20:  # in the second epoch of 17 steps
            raise KeyboardInterrupt
        return real(*arguments)

    kept: dict[int, dict[str, torch.Tensor]] = {}
    monkeypatch.setattr("search.training.engine.train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(one, digits, FAST, after_epoch=lambda model, done: kept.update({done: weights(model)}))
    torch.testing.assert_close(weights(one), kept[1], rtol=0, atol=0)


def train_and_wait(arguments: list[str]) -> None:
    """In another process: three epochs, then it waits for its end."""

    def after(model: nn.Module, done: int) -> None:
        print(done, flush=True)
        if done == 3:
            signal.pause()

    [folder] = arguments
    train(network(), load_data("digits"), FAST, folder=Path(folder), after_epoch=after)


def test_killed_process_is_resumed_exactly(digits: Data, tmp_path: Path, launcher: Launcher) -> None:
    process = launcher.start(f"{__name__}:train_and_wait", str(tmp_path), folder=tmp_path)
    while process.out != "1\n2\n3\n":
        assert process.is_running(), process.errors
        time.sleep(0.02)
    assert process.kill() == -signal.SIGKILL
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    resumed, whole = network(), network()
    train(resumed, digits, FAST, folder=tmp_path)
    train(whole, digits, FAST)
    assert_same(resumed, whole)


def test_global_random_state_and_teacher_are_left_alone(digits: Data) -> None:
    teacher, model = network(seed=3).train(), network(dropout=0.5)
    before, state = weights(teacher), torch.get_rng_state()
    train(model, digits, Recipe(epochs=1), teacher=teacher)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(weights(teacher), before, rtol=0, atol=0)
    assert teacher.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())


def test_distillation_pulls_towards_the_teacher(digits: Data) -> None:
    teacher = network(16)
    train(teacher, digits, Recipe(epochs=5, lr=0.05, batch_size=64))
    images, _ = digits.batch(200)

    def distance(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(images).softmax(1) - teacher(images).softmax(1)).abs().sum(1).mean())

    alone, taught = network(4), network(4)
    train(alone, digits, FAST)
    train(taught, digits, FAST, teacher=teacher)
    assert distance(taught) < distance(alone)


def test_averaged_weights_are_what_is_kept(digits: Data) -> None:
    plain, averaged = network(), network()
    train(plain, digits, FAST)
    history = train(averaged, digits, Recipe(epochs=3, lr=0.05, batch_size=64, ema=0.95))
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), averaged.parameters(), strict=True))
    assert accuracy(averaged, digits) == pytest.approx(history.test_accuracy)
    assert accuracy(averaged, digits, "validation") == pytest.approx(history.validation_accuracy)


def test_epochs_of_a_few_steps_warn(digits: Data) -> None:
    with pytest.warns(
        UserWarning, match=r"digits: an epoch has 2 steps; 10 and more .* \(batch_size 500, \d+ training"
    ):
        train(network(), digits, Recipe(epochs=1, batch_size=500))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(network(), digits, Recipe(epochs=1, batch_size=100))


def test_test_split_is_looked_at_once(digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = Data.batches

    def batches(self: Data, split: Any, size: int | None = None) -> Any:
        looked.append(split)
        return real(self, split, size)

    monkeypatch.setattr(Data, "batches", batches)
    for _ in range(2):
        train(network(), digits, FAST, folder=tmp_path)
    assert looked.count("test") == 1
    assert looked.count("validation") == FAST.epochs + 1


def test_stream_of_batches_trains_like_tensors_and_resumes(digits: Data, tmp_path: Path) -> None:
    assert isinstance(digits.train, Split)
    held = digits.batch(287, seed=1)
    loader = DataLoader(TensorDataset(*digits.batch(1151)), 64, shuffle=True, drop_last=True)
    rest = DataLoader(TensorDataset(*held), 100)
    data = Data.from_datasets("stream", loader, rest, validation=rest, num_classes=10, stream=True)
    whole, resumed = network(), network()
    history = train(whole, data, FAST)
    assert history.validation_accuracy > 0.9
    with pytest.raises(StopError):
        train(network(), data, FAST, folder=tmp_path, after_epoch=stop_at(1))
    train(resumed, data, FAST, folder=tmp_path)
    assert_same(whole, resumed)


def test_loss_that_turns_nan_stops_and_keeps_the_last_epoch(digits: Data, tmp_path: Path) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def poison(model: nn.Module, done: int) -> None:
        if done == 2:
            with torch.no_grad():
                next(model.parameters()).fill_(3e38)
        kept[done] = weights(model)

    model = network()
    with pytest.raises(SecateurError, match=r"the loss became nan in epoch 3, step 1 of 17 .*after epoch 2 are kept"):
        train(model, digits, FAST, folder=tmp_path, after_epoch=poison)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    torch.testing.assert_close(dict(saved), kept[2], rtol=0, atol=0)
    torch.testing.assert_close(weights(model), kept[2], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": network(6)}, "another structure"),
        ({"recipe": Recipe(epochs=3, lr=0.1, batch_size=64)}, r"lr=0.05 in the recipe, not 0.1"),
        ({"data": load_data("digits", seed=1)}, "other data"),
        ({"teacher": network()}, "another teacher"),
        ({"masks": {"0.weight": torch.zeros(8, 1, 3, 3)}}, "other masks"),
    ],
)
def test_snapshot_of_another_training_is_refused(
    change: dict[str, Any], message: str, digits: Data, tmp_path: Path
) -> None:
    with pytest.raises(StopError):
        train(network(), digits, FAST, folder=tmp_path, after_epoch=stop_at(1))
    options: dict[str, Any] = {"model": network(), "data": digits, "recipe": FAST, "folder": tmp_path, **change}
    with pytest.raises(SecateurError, match=message):
        train(**options)


def test_unreadable_snapshot_is_refused(digits: Data, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(SecateurError, match="is not a training checkpoint"):
        train(network(), digits, FAST, folder=tmp_path)


def bad_weights() -> nn.Module:
    model = network()
    with torch.no_grad():
        next(model.parameters())[0] = float("inf")
    return model


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        (network(), Recipe(batch_size=2000), "batch_size <= 1151 training images must hold, but got batch_size=2000"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), FAST, r"logits of shape \(1, 10\) are needed"),
        (nn.Conv2d(3, 10, 3), FAST, r"does not take images of shape \(1, 1, 8, 8\) of data 'digits'"),
        (bad_weights(), FAST, r"0.weight holds NaN or infinity before training"),
        (network().requires_grad_(False), FAST, "nothing to train"),
        (network(), Recipe(slim=1e-4, slim_layers={"bn9": 2.0}), "slim_layers names 'bn9'"),
    ],
)
def test_what_does_not_fit_is_refused(model: nn.Module, recipe: Recipe, message: str, digits: Data) -> None:
    with pytest.raises(SecateurError, match=message) as caught:
        train(model, digits, recipe)
    assert "\n" not in str(caught.value)


def test_unknown_device_is_refused(digits: Data) -> None:
    with pytest.raises(SecateurError, match="device warp cannot be used here: no such device"):
        train(network(), digits, FAST, device="warp")


def test_history_is_values_and_csv(digits: Data) -> None:
    history = train(network(), digits, FAST)
    assert History.from_dict(history.to_dict()) == history
    lines = history.to_csv().splitlines()
    assert lines[0] == "epoch,lr,loss,train_accuracy,validation_accuracy,seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]


def test_network_that_prints_an_address_is_resumed(digits: Data, tmp_path: Path) -> None:
    class Odd(nn.Sequential):
        def extra_repr(self) -> str:
            return object().__repr__()

    with pytest.raises(StopError):
        train(Odd(network()), digits, FAST, folder=tmp_path, after_epoch=stop_at(1))
    history = train(Odd(network()), digits, FAST, folder=tmp_path)
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
