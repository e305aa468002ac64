"""One training engine for dense, sparse and pruned networks: exact to resume, safe to interrupt."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from backbones.errors import SecateurError
from backbones.modes import device_of
from scoring.recalibration import recalibrate
from search.data.data import Data
from search.training import feed, learner, snapshot
from search.training.history import Epoch, History
from search.training.learner import Learner
from search.training.measure import accuracy, count_right
from search.training.recipe import Recipe
from search.training.team import joined

__all__ = ["History", "Recipe", "accuracy", "recalibrate", "train"]

AfterEpoch = Callable[[nn.Module, int], None]


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
    random draw follows from (seed, epoch, process), and a snapshot holds the rest. After Ctrl-C, SIGTERM turned into
    KeyboardInterrupt, or an error, the model is as it was after the last whole epoch. Under `torchrun` all processes
    train the one network together; `batch_size` is then shared out among them.

    Args:
        model: takes normalised images (B, C, H, W), gives logits (B, num_classes). Afterwards in evaluation mode, where
            it was before, with the weights of the last epoch (their average when `recipe.ema` is set).
        data: the task.
        recipe: how.
        teacher: the dense network to learn from beside the labels (`recipe.distill`); it is not changed.
        folder: snapshot (`checkpoint.pt`) and curve (`history.csv`) after each epoch; a training that is found there is
            continued, a finished one returned.
        device: "cpu", "cuda", ...
        progress: show a bar when standard error is a terminal.
        masks: parameter name -> mask of its shape; where it is False the weight is held at zero.
        after_epoch: called with the model and the number of epochs done after each pass over the training split, before
            the model is evaluated and saved; what it does must follow from its arguments for an exact resume. Its
            attribute `key`, where it has one, must be equal too.
        test: look at the test split after the last epoch; not wanted where trainings are still compared.

    Returns:
        the curve, the accuracy before the first step and the test accuracy.

    Raises:
        SecateurError: for a batch larger than the data, a network that does not fit the data, a snapshot of another
            training, or a loss or weight that is no longer finite (the last snapshot stays).
    """
    learner.check(model, data, recipe)
    with joined(device) as team:
        place = Path(folder) if folder is not None else None
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        home = device_of(model)
        run = learner.prepare(model, data, recipe, teacher, team, masks)
        wanted = snapshot.identity(model, data, recipe, teacher, masks) if place is not None else {}
        wanted["after_epoch"] = str(getattr(after_epoch, "key", ""))
        wanted["arithmetic"] = "bfloat16" if run.half else "float32"
        try:
            with torch.random.fork_rng(devices=[team.device] if team.device.type == "cuda" else []):
                return _run(run, place, wanted, after_epoch, progress, test)
        finally:
            learner.move(model, home, torch.contiguous_format)
            model.eval()


def _run(
    run: Learner,
    folder: Path | None,
    wanted: dict[str, Any],
    after_epoch: AfterEpoch | None,
    progress: bool,
    test: bool,
) -> History:
    state = snapshot.read(folder, wanted) if folder is not None else None
    history = _begin(run) if state is None else _restore(run, state)
    good = _clone(run.model)
    total = run.steps * run.recipe.epochs
    bar = tqdm(
        total=total,
        initial=run.steps * len(history.epochs),
        desc=run.data.name,
        unit="step",
        leave=None,  # stays on the screen, unless it stands below the bar of several trainings
        disable=None if progress and run.team.rank == 0 else True,  # None: quiet when not a terminal
    )
    try:
        with bar:
            while len(history.epochs) < run.recipe.epochs:
                latest = _epoch(run, len(history.epochs), bar, after_epoch)
                history = History((*history.epochs, latest), history.start_accuracy)
                good = _clone(run.model)
                _save(run, folder, wanted, history)
    except BaseException:
        run.model.load_state_dict(good)
        raise
    return _finish(run, folder, wanted, history, test)


def _begin(run: Learner) -> History:
    """Renews the batch-norm statistics and looks once before the first step."""
    recipe = run.recipe
    if recipe.recalibrate:
        size = min(len(run.data.train), recipe.recalibrate * recipe.batch_size)
        images, _ = run.data.batch(size, recipe.seed)
        recalibrate(run.model, [piece for piece in images.split(recipe.batch_size) if len(piece) > 1])
    return History((), _validate(run))


def _epoch(run: Learner, done: int, bar: tqdm[Any], after_epoch: AfterEpoch | None) -> Epoch:
    """One pass over the training split and one over the validation split."""
    started = time.perf_counter()
    device, recipe = run.team.device, run.recipe
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, right answers, images
    every = 1 if device.type == "cpu" else 20  # reading a number back makes a device wait
    run.network.train()
    torch.manual_seed(feed.seed_of(recipe.seed, done, run.team.rank + 1))
    for step, (images, labels) in enumerate(feed.batches(run.data, recipe, run.team, done)):
        rate = recipe.rate((done * run.steps + step + 0.5) / (recipe.epochs * run.steps))
        loss, right = learner.step(run, images, labels, rate)
        sums += torch.stack([loss * len(labels), right, torch.tensor(float(len(labels)), device=device)])
        if step % every == 0 or step + 1 == run.steps:
            mean = float(sums[0] / sums[2])
            if not math.isfinite(mean):
                raise SecateurError(
                    f"the loss became {mean} in epoch {done + 1}, step {step + 1} of {run.steps} (lr {rate:.4g}): "
                    f"lower lr or set clip; the weights after epoch {done} are kept"
                )
            bar.set_postfix(loss=f"{mean:.3f}", accuracy=f"{float(sums[1] / sums[2]):.1%}", refresh=False)
        bar.update()
    learner.check_finite(run.model, "the loss was finite, but", f"after epoch {done + 1}; lower lr or set clip")
    run.team.same_buffers(run.model)
    if after_epoch is not None:
        after_epoch(run.model, done + 1)
    loss_sum, right_sum, count = run.team.sum(sums).tolist()
    return Epoch(
        epoch=done + 1,
        lr=rate,
        loss=loss_sum / count,
        train_accuracy=right_sum / count,
        validation_accuracy=_validate(run),
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def _validate(run: Learner) -> float:
    """Validation accuracy, the team sharing the work."""
    right = torch.zeros(2, dtype=torch.int64, device=run.team.device)
    run.model.eval()
    with run.average.applied() if run.average is not None else nullcontext():
        for number, (images, labels) in enumerate(run.data.batches("validation", 500)):
            if number % run.team.size == run.team.rank:
                images, labels = images.to(run.team.device), labels.to(run.team.device)
                found, count = count_right(run.model, images, labels, run.data)
                right += torch.stack([found, torch.tensor(count, device=right.device)])
    found_all, total = run.team.sum(right).tolist()
    return float(found_all / total)


def _save(run: Learner, folder: Path | None, wanted: dict[str, Any], history: History) -> None:
    if folder is None:
        return
    if run.team.rank == 0:
        state = {
            "identity": wanted,
            "model": run.model.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "average": None if run.average is None else run.average.state(),
            "history": history.to_dict(),
        }
        snapshot.write(folder, state)
        history.save(folder / "history.csv")
    run.team.wait()


def _restore(run: Learner, state: dict[str, Any]) -> History:
    run.model.load_state_dict(state["model"])
    run.optimiser.load_state_dict(state["optimiser"])
    if run.average is not None:
        run.average.restore(state["average"])
    return History.from_dict(state["history"])


def _finish(run: Learner, folder: Path | None, wanted: dict[str, Any], history: History, test: bool) -> History:
    """Looks at the test split, once at most in the life of a training, and leaves the averaged weights in the model."""
    if test and history.test_accuracy is None:
        with run.average.applied() if run.average is not None else nullcontext():
            history = History(history.epochs, history.start_accuracy, accuracy(run.model, run.data, "test"))
        _save(run, folder, wanted, history)
    if run.average is not None:
        run.average.apply()
    return history


def _clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
