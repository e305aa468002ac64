"""From a study file to what a search starts from: data, the dense network with its weights, and its channel graph."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.artefact import load as load_artefact
from backbones.checkpoint import load_checkpoint
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.structure import Structure
from backbones.trace import trace
from search.checks import checked_device
from search.data.data import Data, subset
from search.data.readers import load_data
from search.data.task import Task
from search.run.folder import RunFolder
from search.run.sections import DataSection, ModelSection, TaskSection
from search.run.study_file import StudyFile
from search.training.metrics import check_fits
from search.training.parallel import fitting_threads

ROOMS = ("backbones", "scoring", "search")
"""Packages that no module of the user's can be in."""


@contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Within the block modules in `folders` can be imported; installed ones come first."""
    added = [str(folder) for folder in folders if str(folder) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def find(path: str, label: str) -> Callable[..., Any]:
    """The function that `path` names.

    Args:
        path: `package.module:function`.
        label: the key it comes from, `[model] factory`.

    Raises:
        SecateurError: when the text has another form, the module cannot be imported, or has no such function.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name.isidentifier()):
        raise SecateurError(f'{label} must be "package.module:function", but got {path!r}')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        room = module_name.partition(".")[0]
        ours = f"; {room} is a package of secateur's own, so give yours another name" if room in ROOMS else ""
        raise SecateurError(f"{label} {path!r}: importing {module_name} raised {_short(error)}{ours}") from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no such function" if function is None else f"has {name} = {function!r}, which cannot be called"
        raise SecateurError(f"{label} {path!r}: {module_name} ({getattr(module, '__file__', 'built-in')}) {what}")
    result: Callable[..., Any] = function
    return result


def call(path: str, label: str, expected: type, **offers: Any) -> Any:
    """Calls the function that `path` names with those of `offers` that it has parameters for.

    Raises:
        SecateurError: when it cannot be found, raises, or returns something else than an `expected`.
    """
    function = find(path, label)
    taken = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    try:
        value = function(**{name: offer for name, offer in offers.items() if anything or name in taken})
    except SecateurError:
        raise
    except Exception as error:
        raise SecateurError(f"{label} {path!r} raised {_short(error)}") from error
    if not isinstance(value, expected):
        raise SecateurError(f"{label} {path!r} must return a {expected.__name__}, but returned {type(value).__name__}")
    return value


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@dataclass(frozen=True, slots=True, eq=False)
class RunInputs:
    """What the study file of a run names, loaded.

    Attributes:
        data: the task and its samples, split into training, validation and test.
        model: the dense network in eval mode; without a checkpoint its weights are random until `ensure_dense`.
        graph: the network's channel graph.
        device: torch device for training and scoring, "cpu" or "cuda".
    """

    data: Data
    model: nn.Module
    graph: ChannelGraph
    device: str


def run_threads(study: StudyFile, inputs: RunInputs) -> AbstractContextManager[None]:
    """Within the block torch computes on as many threads as fit the network and the larger of a run's batches."""
    return fitting_threads(inputs.graph.costs.dense.macs, max(study.dense.batch_size, study.search.batch))


def load_run_inputs(study: StudyFile, folder: RunFolder, device: str) -> RunInputs:
    """Loads what the study names and checks that it goes together. Nothing is trained, so it takes seconds.

    Raises:
        SecateurError: for data, a model or a checkpoint that cannot be used.
    """
    return load_inputs(study, folder.source.parent, device, folder.dense)


def load_inputs(study: StudyFile, source: Path, device: str, dense: Path | None = None) -> RunInputs:
    """As `load_run_inputs`, without a run folder.

    Args:
        study: what to load.
        source: folder of the study file, where the user's own modules are looked for first.
        device: torch device for training and scoring; "auto" for a GPU where there is one.
        dense: artefact of the trained dense network; where there is none, the checkpoint that the study names.

    Raises:
        SecateurError: as `load_run_inputs`.
    """
    place = choose_device(device)
    with importable(source, Path.cwd()):
        data = read_data(study.data, study.seed, read_task(study.task))
        torch.manual_seed(study.seed)
        model = build_model(study.model, data)
    check_fits(model, data)
    if dense is not None and dense.is_file():
        _take_weights(model, dense)
    elif study.model.checkpoint is not None:
        load_checkpoint(model, study.model.checkpoint)
    elif study.model.pretrained is not None:
        load_checkpoint(model, study.model.pretrained, skip=study.model.skip)
    graph = trace(model.eval(), data.example, ignore=study.space.ignore, only=study.space.only)
    return RunInputs(data, model, graph, place)


def _take_weights(model: nn.Module, dense: Path) -> None:
    """Gives the model the weights of a run's dense network.

    Raises:
        SecateurError: when `[model]` makes another network than that one: its code was edited since.
    """
    weights = load_artefact(dense, model).state_dict()
    for name, value in model.state_dict().items():
        if weights[name].shape != value.shape:
            raise SecateurError(
                f"{dense} does not fit the model {type(model).__name__}: {name} has shape {tuple(weights[name].shape)} "
                f"there, {tuple(value.shape)} in what [model] makes now; put its code back, or give the study another "
                "name"
            )
    model.load_state_dict(weights)


def choose_device(name: str) -> str:
    """`auto` to the GPU when there is one.

    Raises:
        SecateurError: for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        checked_device(name)
    except SecateurError as error:
        raise SecateurError(f"--{error}") from error
    return name


def read_task(section: TaskSection) -> Task | None:
    """The task that `[task]` names; None where it is left out.

    Raises:
        SecateurError: for a function or class that cannot be found, or a task that cannot be made of them.
    """
    if not section.given:
        return None
    if section.factory is not None:
        made: Task = call(section.factory, "[task] factory", Task)
        return made
    metric: Any = find(str(section.metric), "[task] metric")
    if isinstance(metric, type):
        metric = call(str(section.metric), "[task] metric", metric)
    try:
        return Task(
            find(str(section.loss), "[task] loss"),
            metric,
            name=section.name or "",
            direction=section.direction or "",
            unit=section.unit or "",
            distance=None if section.distance is None else find(section.distance, "[task] distance"),
            classes=bool(section.classes),
        )
    except SecateurError as error:
        raise SecateurError(f"[task] {str(error).removeprefix('task: ')}") from None


def read_data(section: DataSection, seed: int, task: Task | None = None) -> Data:
    """The samples that `[data]` names, for the task that `[task]` names.

    Raises:
        SecateurError: for an unknown name, missing files, options the data set does not have, a factory that fails,
            data that do not go with the task.
    """
    if section.factory is not None:
        offers = {**section.options(), **({} if task is None else {"task": task})}
        data = call(section.factory, "[data] factory", Data, seed=seed, **offers)
    else:
        try:
            data = load_data(str(section.name), seed=seed, **section.options())
        except SecateurError as error:
            raise SecateurError(f"[data] {error}") from error
    changes: dict[str, Any] = {
        key: value for key, value in (("mean", section.mean), ("std", section.std)) if value is not None
    }
    if task is not None and data.task is not task:
        changes["task"] = task
    try:
        loaded: Data = dataclasses.replace(data, **changes) if changes else data
        return subset(loaded, section.images, seed)
    except SecateurError as error:
        raise SecateurError(f"[data] {error}") from None


def build_model(section: ModelSection, data: Data) -> nn.Module:
    """The untrained network that `[model]` names, made for the data.

    A factory is offered `num_classes` where the task has classes, and `in_channels` where inputs are one tensor.

    Raises:
        SecateurError: for an unknown backbone, or a factory that fails.
    """
    example = data.example
    inside = example.shape[1] if isinstance(example, Tensor) and example.ndim > 1 else None
    known = {"num_classes": section.num_classes or data.num_classes, "in_channels": section.in_channels or inside}
    offers = {key: value for key, value in known.items() if value}
    if section.factory is not None:
        model: nn.Module = call(section.factory, "[model] factory", nn.Module, **offers)
        return model
    if len(offers) < len(known):
        missing = next(key for key in known if key not in offers)
        raise SecateurError(f"[model] {missing} is needed: a task without classes of images does not tell it")
    try:
        return build(str(section.backbone), **offers)
    except SecateurError as error:
        raise SecateurError(f"[model] {error}") from None


def read_structure(path: Path) -> Structure:
    """The structure in a file.

    Raises:
        SecateurError: when it is missing or holds none.
    """
    try:
        return Structure.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SecateurError(f"[search] structure {path} cannot be read: {reason}") from None
    except SecateurError as error:
        raise SecateurError(f"[search] structure {path}: {error}") from None


def warm_sources(study: StudyFile) -> list[str | Structure]:
    """What a search begins with: names of rules, and the structures of files.

    Raises:
        SecateurError: for a file that is missing or holds no structure.
    """
    return [read_structure(Path(one)) if one.endswith(".json") else one for one in study.search.warm_start]
