"""Faster forward and backward passes of a training step: whether that pays is found out before the first one.

On a CPU, and for several processes, `torch.compile` makes code of its own for the network, in a minute or more. On one
CUDA device the passes are recorded once and replayed as CUDA graphs, in the time of some steps: a pruned network's
kernels are so short that starting them from Python takes longer than they run.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from backbones.inputs import move_tensors, sample_count
from backbones.state import untouched
from search.data.sources import Stream
from search.training.feed import in_memory_order
from search.training.recipe import Recipe
from search.training.train_state import TrainState, step_loss

SECONDS_A_LAYER = 2.0
"""Estimated time to compile one layer with parameters, forward and backward.

A ResNet-56 whose 115 layers all differ in width took 100 to 240 s of processor time on two busy cores.
"""
GAIN = 0.25
"""Share of a step that compiling is expected to save: 16 to 25 % of a ResNet-56 at 20 % of its MACs on one thread."""
MACS_A_SECOND = 15_000_000_000
"""Estimated multiply-adds of a core in uncompiled steps, forward and backward.

Of a ResNet-56 at 20 % of its MACs a thread got through 185 images, 14 G, a second (studies/README.md, "Training step").
"""
RECORDING = 20
"""Steps whose time it takes to record a step as CUDA graphs, at most."""


class CompiledForBatch(nn.Module):
    """A network whose whole batches run as compiled code; a batch of another size runs through the network itself.

    So there is one compilation, of one shape. Left to itself torch compiles general code when it meets a second size,
    and may use it for the first size from then on: a resumed training would round otherwise than a whole one.

    Args:
        model: shares its parameters and buffers with the compiled code, which reads them anew in every call; what
            changes them in place (optimiser, average, masks, soft pruning) needs no care.
        size: samples of a whole batch.
        compiled: what a whole batch runs through; by default the network as `torch.compile` makes it.
    """

    def __init__(self, model: nn.Module, size: int, compiled: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.model, self.size = model, size
        if compiled is None:
            # Deterministic: kernels are not chosen by the clock. Isolated: many networks of a study share one forward,
            # of which torch compiles eight forms and no more.
            compile_: Any = torch.compile  # torch's annotations lack isolate_recompiles
            compiled = compile_(model, dynamic=False, isolate_recompiles=True, options={"deterministic": True})
        # Hidden in a function: a second module would list every parameter twice.
        self._compiled: Callable[..., Any] = lambda *inputs, **names: compiled(*inputs, **names)

    def forward(self, *inputs: Any, **names: Any) -> Any:
        """What `model` gives."""
        whole = sample_count([inputs, names]) == self.size
        return self._compiled(*inputs, **names) if whole else self.model(*inputs, **names)


def compile_training(state: TrainState, decided: int | None, steps: int, *, progress: bool = True) -> None:
    """Lets the steps of a training run as compiled code where the recipe asks for it; notes in `state.compiled` which.

    With `recipe.compile` = "auto" that is where all of these hold:

    1. there is a compiler: a C++ compiler for a CPU, triton for CUDA; and no module of the network has hooks;
    2. `GAIN` of the time that `steps` uncompiled steps take is more than `SECONDS_A_LAYER` for each layer (half of it
       for a layer of the teacher, which has no backward pass): two steps are timed, on the weights as they are;
    3. once compiled, a step is really faster.

    On one CUDA device, for a network that takes one tensor and has no hooks, "compiled" means CUDA graphs
    (`torch.cuda.make_graphed_callables`): the kernels are those of uncompiled steps, no compiler is needed, and
    `RECORDING` steps stand for the time that it takes. The teacher runs as it is. A network that draws from Python's or
    numpy's random numbers is left as it is; one that decides otherwise from call to call by values that its own Python
    code keeps needs compile = false.

    Compiled sums are rounded otherwise than uncompiled ones, and the clock may decide otherwise another time. So the
    decision is made before the first step, holds for the whole training, and is kept in its checkpoint: a training that
    goes on does as it did before, and ends in the same weights as one that was never stopped. One that was killed
    before its first checkpoint begins, and decides, anew. Weights are those of compile = true or of compile = false,
    bit by bit, never of a mixture.

    Where compiling or recording fails a warning says why, and the training runs uncompiled.

    Args:
        state: `network` and `teacher` are replaced; weights, buffers and random numbers stay.
        decided: `state.compiled` of the checkpoint that is continued; None at the beginning.
        steps: batches that are to come.
        progress: show that it compiles when standard error is a terminal.
    """
    wanted = state.recipe.compile
    size = _whole_batch(state) if decided is None else decided
    if wanted is False or size == 0 or steps == 0:
        return
    measured = math.inf
    if wanted == "auto" and decided is None:
        measured = _worth_it(state, size, steps)
    found = measured > 0 and _compiled(state, size, measured, progress and state.processes.rank == 0)
    agreed = state.processes.sum(torch.tensor(int(found), device=state.processes.device))
    if int(agreed) == state.processes.size:
        state.compiled = size
    elif found:
        _run_uncompiled(state)


def is_likely_compiled(model: nn.Module, recipe: Recipe, macs: float) -> bool:
    """Whether a training on a CPU will run as compiled code, as far as that can be told without timing a step.

    Args:
        model: the network before it is pruned, and the teacher.
        recipe: how it is trained.
        macs: multiply-adds of the whole training, forward and backward, of the teacher too.
    """
    if recipe.compile != "auto":
        return bool(recipe.compile)
    cost = _seconds_to_compile(model, model if recipe.distill else None)
    return _has_compiler(torch.device("cpu")) and not _has_hooks(model) and GAIN * macs / MACS_A_SECOND > cost


def _seconds_to_compile(model: nn.Module, teacher: nn.Module | None) -> float:
    return SECONDS_A_LAYER * (_layers(model) + (0 if teacher is None else _layers(teacher) / 2))


def _whole_batch(state: TrainState) -> int:
    """Images that this process sees in a step; 0 where a stream does not say."""
    if isinstance(state.data.train, Stream):
        return state.data.train.loader.batch_size or 0
    return state.recipe.batch_size // state.processes.size


def _worth_it(state: TrainState, size: int, steps: int) -> float:
    """Seconds of an uncompiled step where compiling would pay, else 0."""
    if _can_be_recorded(state, size):
        return _seconds_a_step(state, size, 2) if GAIN * steps > RECORDING else 0.0
    if not _has_compiler(state.processes.device) or _has_hooks(state.model):
        return 0.0
    cost = _seconds_to_compile(state.model, state.teacher)
    # The first step is a slow one: where not even that is slow enough, no second one is needed.
    for times in (1, 2):
        seconds = _seconds_a_step(state, size, times)
        if GAIN * seconds * steps <= cost:
            return 0.0
    return seconds


def _compiled(state: TrainState, size: int, measured: float, progress: bool) -> bool:
    """Compiles network and teacher; puts all back and returns False where that fails or does not pay."""
    recorded = _can_be_recorded(state, size)
    way = "recording CUDA graphs" if recorded else "torch.compile"
    label = "recording CUDA graphs" if recorded else "compiling (a minute or more; `compile = false` does without)"
    try:
        with (
            tqdm(desc=label, bar_format="{desc}", leave=False, disable=None if progress else True),
            warnings.catch_warnings(action="ignore"),  # those of torch about torch
        ):
            if recorded:
                state.network = CompiledForBatch(state.model, size, _recorded(state, size))
            else:
                state.network = CompiledForBatch(state.model, size)
                state.teacher = None if state.teacher is None else CompiledForBatch(state.teacher, size)
            _seconds_a_step(state, size, 1)
        if measured == math.inf or _seconds_a_step(state, size, 2) < measured:
            return True
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(f"{way} failed ({reason}); the training runs uncompiled", UserWarning, stacklevel=2)
    _run_uncompiled(state)
    return False


class _Recorded(nn.Module):
    """Holds the network that is recorded, for torch writes the replay into the module that it is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


def _can_be_recorded(state: TrainState, size: int) -> bool:
    """Whether steps can be replayed as CUDA graphs: one device, one input, and no hooks, which Python runs."""
    if not _is_cuda(state.processes.device) or state.processes.size > 1 or _has_hooks(state.model):
        return False
    return isinstance(_batch(state, size)[0], Tensor)


def _recorded(state: TrainState, size: int) -> Callable[..., Any]:
    """The network, forward and backward, as CUDA graphs of whole batches; its values stay as they are."""
    module = _Recorded(state.model).train()
    inputs, _ = _batch(state, size)
    drawn = _python_draws()
    with untouched(state.model), torch.autocast("cuda", torch.bfloat16, enabled=state.half, cache_enabled=False):
        replayed: Callable[..., Any] = torch.cuda.make_graphed_callables(module, (inputs,), allow_unused_input=True)
    if _python_draws() != drawn:
        raise RuntimeError("its code draws random numbers in Python, which a replay would not")
    return replayed


def _python_draws() -> str:
    """Where the random numbers of Python and numpy are."""
    return repr((random.getstate(), np.random.get_state(legacy=False)))  # noqa: NPY002 (a network may use it)


def _batch(state: TrainState, size: int) -> tuple[Any, Any]:
    """Inputs and targets of a step as far as their form counts, on the device."""
    inputs, targets = move_tensors(state.data.batch(size, state.recipe.seed), state.processes.device)
    return in_memory_order(inputs, state.recipe), targets


def _run_uncompiled(state: TrainState) -> None:
    state.network = state.model
    if isinstance(state.teacher, CompiledForBatch):
        state.teacher = state.teacher.model


def _seconds_a_step(state: TrainState, size: int, times: int) -> float:
    """The least time of a forward and a backward pass; weights, statistics and random numbers stay as they are."""
    device = state.processes.device
    inputs, targets = _batch(state, size)
    state.network.train()
    best = math.inf
    with untouched(state.model):
        for _ in range(times):
            start = time.perf_counter()
            step_loss(state, inputs, targets)[0].backward()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            best = min(best, time.perf_counter() - start)
    state.optimiser.zero_grad(set_to_none=True)
    return best


def _is_cuda(device: torch.device) -> bool:
    return device.type == "cuda"


def _has_compiler(device: torch.device) -> bool:
    """Whether torch finds what it compiles with."""
    if device.type != "cpu":
        return _is_cuda(device) and find_spec("triton") is not None
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX", usual)) is not None


def _has_hooks(model: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in model.modules() for kind in kinds)


def _layers(model: nn.Module) -> int:
    """Modules with parameters of their own."""
    return sum(1 for module in model.modules() if module._parameters)
