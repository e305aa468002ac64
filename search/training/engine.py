"""One training engine for dense, sparse and pruned networks: exact to resume, safe to interrupt."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from backbones.arguments import explained
from backbones.errors import SecateurError
from backbones.inputs import move_tensors, sample_count, split_samples
from backbones.modes import device_of, same_sums
from scoring.batch_norm import recalibrate
from search.data.data import Data
from search.data.task import Meter
from search.formatting import counted
from search.training.checkpoint import Epoch, History, read_checkpoint, training_identity, write_checkpoint
from search.training.compiling import compile_training
from search.training.feed import seed_of, training_batches
from search.training.metrics import forward, measure
from search.training.parallel import process_group
from search.training.recipe import Recipe
from search.training.train_state import (
    TrainState,
    check_finite,
    check_trainable,
    move_model,
    prepare_training,
    train_step,
)

FEWEST_STEPS = 10
"""Of an epoch; a training with fewer warns."""
AfterEpoch = Callable[[nn.Module, int], None]


@explained
def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    folder: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
    masks: Mapping[str, Tensor] | None = None,
    after_epoch: AfterEpoch | None = None,
    test: bool = True,
) -> History:
    """Trains `model` in place on the training split; looks at the test split once, after the last epoch.

    The same model, data, recipe and number of processes and threads give the same weights, interrupted or not: every
    random draw follows from (seed, epoch, process), and a checkpoint holds the rest, also whether steps are compiled
    (`search.training.compiling`: compiled sums are rounded otherwise). After Ctrl-C, SIGTERM turned into
    KeyboardInterrupt, or an error, the model is as it was after the last whole epoch. Under `torchrun` all processes
    train the one network together; they share `batch_size` out, and each one's batch norms see its share.

    Args:
        model: takes the data's inputs: normalised images (B, C, H, W), and gives logits (B, num_classes); or what
            another task has. Afterwards in evaluation mode, where it was before, with the weights of the last epoch
            (their average when `recipe.ema` is set).
        data: the task and its samples.
        recipe: how to train: epochs, learning rate, optimiser, ...
        teacher: the dense network to learn from beside the targets (`recipe.distill`); it is not changed.
        folder: holds a checkpoint (`checkpoint.pt`) and the curve (`history.csv`) after each epoch; a training that is
            found there is continued, a finished one returned.
        device: where to compute: "cpu", "cuda", ...
        progress: show a bar when standard error is a terminal.
        masks: parameter name -> mask of its shape; where it is False the weight is held at zero.
        after_epoch: called with the model and the number of epochs done after each pass over the training split, before
            the model is evaluated and saved; what it does must follow from its arguments for an exact resume. Its
            attribute `key`, where it has one, must be equal too.
        test: look at the test split after the last epoch; not wanted where trainings are still compared.

    Returns:
        the curve, and what the metric of the task (accuracy, with classes) was before the first step and on the test
        split.

    Raises:
        SecateurError: for a batch larger than the data, a network that does not fit the data, a loss or metric that
            cannot be used, a checkpoint of another training, or a loss, metric or weight that is no longer finite (the
            last checkpoint stays).
    """
    check_trainable(model, data, recipe)
    with process_group(device) as processes:
        place = Path(folder) if folder is not None else None
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        home = device_of(model)
        state = prepare_training(model, data, recipe, teacher, processes, masks)
        wanted = training_identity(model, data, recipe, teacher, masks) if place is not None else {}
        wanted["after_epoch"] = str(getattr(after_epoch, "key", ""))
        wanted["arithmetic"] = "bfloat16" if state.half else "float32"
        try:
            with (
                torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []),
                same_sums(),
            ):
                return _run(state, place, wanted, after_epoch, progress, test)
        finally:
            move_model(model, home, torch.contiguous_format)
            model.eval()


def _run(
    state: TrainState,
    folder: Path | None,
    wanted: dict[str, Any],
    after_epoch: AfterEpoch | None,
    progress: bool,
    test: bool,
) -> History:
    saved = read_checkpoint(folder, wanted) if folder is not None else None
    history = _begin(state) if saved is None else _restore(state, saved)
    decided = None if saved is None else int(saved.get("compiled", 0))
    left = state.recipe.epochs - len(history.epochs)
    if left and state.steps < FEWEST_STEPS and state.processes.rank == 0:
        warnings.warn(
            f"{state.data.name}: an epoch has {counted(state.steps, 'step')}; {FEWEST_STEPS} and more train better: "
            f"take smaller batches (batch_size {state.recipe.batch_size}, {len(state.data.train)} training samples)",
            UserWarning,
            stacklevel=3,
        )
    compile_training(state, decided, state.steps * left, progress=progress)
    state.network = state.processes.wrap(state.network)
    good = _clone(state.model)
    total = state.steps * state.recipe.epochs
    bar = tqdm(
        total=total,
        initial=state.steps * len(history.epochs),
        desc=state.data.name,
        unit="step",
        leave=None,  # stays on the screen, unless it stands below the bar of several trainings
        disable=None if progress and state.processes.rank == 0 else True,  # None: quiet when not a terminal
    )
    try:
        with bar:
            while len(history.epochs) < state.recipe.epochs:
                latest = _epoch(state, len(history.epochs), bar, after_epoch)
                history = replace(history, epochs=(*history.epochs, latest))
                good = _clone(state.model)
                _save(state, folder, wanted, history)
    except BaseException:
        state.model.load_state_dict(good)
        raise
    return _finish(state, folder, wanted, history, test)


def _begin(state: TrainState) -> History:
    """Renews the batch-norm statistics and looks once before the first step."""
    recipe = state.recipe
    if recipe.recalibrate:
        size = min(len(state.data.train), recipe.recalibrate * recipe.batch_size)
        inputs, _ = state.data.batch(size, recipe.seed)
        pieces = split_samples(inputs, recipe.batch_size)
        recalibrate(state.model, [piece for piece in pieces if sample_count(piece) > 1])
    return History((), _validate(state), metric=state.data.task.spec)


def _epoch(state: TrainState, done: int, bar: tqdm[Any], after_epoch: AfterEpoch | None) -> Epoch:
    """One pass over the training split and one over the validation split."""
    started = time.perf_counter()
    device, recipe = state.processes.device, state.recipe
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, right answers, samples
    every = 1 if device.type == "cpu" else 20  # reading a number back makes a device wait
    metric = state.data.task.spec
    state.network.train()
    torch.manual_seed(seed_of(recipe.seed, done, state.processes.rank + 1))
    for step, (inputs, targets) in enumerate(training_batches(state.data, recipe, state.processes, done)):
        rate = recipe.rate((done * state.steps + step + 0.5) / (recipe.epochs * state.steps))
        loss, right = train_step(state, inputs, targets, rate)
        count = sample_count(inputs)
        sums += torch.stack([loss * count, right, torch.tensor(float(count), device=device)])
        if step % every == 0 or step + 1 == state.steps:
            mean = float(sums[0] / sums[2])
            if not math.isfinite(mean):
                raise SecateurError(
                    f"the loss became {mean} in epoch {done + 1}, step {step + 1} of {state.steps} (lr {rate:.4g}): "
                    f"lower lr or set clip; the weights after epoch {done} are kept"
                )
            learned = {metric.key: metric.compact(float(sums[1] / sums[2]))} if state.counts else {}
            bar.set_postfix({"loss": f"{mean:.3f}", **learned}, refresh=False)
        bar.update()
    check_finite(state.model, "the loss was finite, but", f"after epoch {done + 1}; lower lr or set clip")
    state.processes.same(state.model.buffers())  # each process gathered its own batch-norm statistics
    if state.ema is not None:
        state.processes.same(state.ema.state_dict()["mean"])
    if after_epoch is not None:
        after_epoch(state.model, done + 1)
    loss_sum, right_sum, seen = state.processes.sum(sums).tolist()
    return Epoch(
        epoch=done + 1,
        lr=rate,
        loss=loss_sum / seen,
        train_accuracy=right_sum / seen if state.counts else None,
        validation_accuracy=_validate(state),
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _validate(state: TrainState) -> float:
    """The metric on the validation split, the processes sharing the work where it can be shared."""
    processes, meter = state.processes, Meter(state.data.task, state.processes.device)
    state.model.eval()
    with state.ema.applied() if state.ema is not None else nullcontext():
        for number, batch in enumerate(state.data.batches("validation")):
            if not meter.shares or number % processes.size == processes.rank:
                inputs, targets = move_tensors(batch, processes.device)
                meter.update(forward(state.model, inputs, state.data), targets, sample_count(inputs))
    return meter.value(processes.sum, "validation")


def _save(state: TrainState, folder: Path | None, wanted: dict[str, Any], history: History) -> None:
    if folder is None:
        return
    if state.processes.rank == 0:
        saved = {
            "identity": wanted,
            "model": state.model.state_dict(),
            "optimiser": state.optimiser.state_dict(),
            "compiled": state.compiled,
            "average": None if state.ema is None else state.ema.state_dict(),
            "history": history.to_dict(),
        }
        write_checkpoint(folder, saved)
        history.save(folder / "history.csv")
    state.processes.wait()


def _restore(state: TrainState, saved: dict[str, Any]) -> History:
    state.model.load_state_dict(saved["model"])
    state.optimiser.load_state_dict(saved["optimiser"])
    if state.ema is not None:
        state.ema.load_state_dict(saved["average"])
    return History.from_dict(saved["history"])


def _finish(state: TrainState, folder: Path | None, wanted: dict[str, Any], history: History, test: bool) -> History:
    """Looks at the test split, once at most in the life of a training, and leaves the averaged weights in the model."""
    if test and history.test_accuracy is None:
        with state.ema.applied() if state.ema is not None else nullcontext():
            history = replace(history, test_accuracy=measure(state.model, state.data, "test"))
        _save(state, folder, wanted, history)
    if state.ema is not None:
        state.ema.apply()
    return history


def _clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
