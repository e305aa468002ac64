"""From a study file to what a search starts from: data, the dense network with its weights, and its channel graph."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from backbones.artefact import load as load_artefact
from backbones.checkpoint import load_checkpoint
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import build
from backbones.trace import trace
from search.data.data import Data, subset
from search.data.readers import load_data
from search.run.factories import call, importable
from search.run.folder import RunFolder
from search.run.sections import DataSection, ModelSection
from search.run.study_file import StudyFile
from search.training.metrics import check_fits


@dataclass(frozen=True, slots=True, eq=False)
class RunInputs:
    """What the study file of a run names, loaded.

    Attributes:
        data: the images, split into training, validation and test.
        model: the dense network in eval mode; without a checkpoint its weights are random until `ensure_dense`.
        graph: the network's channel graph.
        device: torch device for training and scoring, "cpu" or "cuda".
    """

    data: Data
    model: nn.Module
    graph: ChannelGraph
    device: str


def load_run_inputs(study: StudyFile, folder: RunFolder, device: str) -> RunInputs:
    """Loads what the study names and checks that it goes together. Nothing is trained, so it takes seconds.

    Raises:
        SecateurError: for data, a model or a checkpoint that cannot be used.
    """
    source = Path(folder.record().get("source", folder.study_file)).parent
    return load_inputs(study, source, device, folder.dense)


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
        data = read_data(study.data, study.seed)
        torch.manual_seed(study.seed)
        model = build_model(study.model, data)
    check_fits(model, data)
    if dense is not None and dense.is_file():
        model.load_state_dict(load_artefact(dense, model).state_dict())
    elif study.model.checkpoint is not None:
        load_checkpoint(model, study.model.checkpoint)
    elif study.model.pretrained is not None:
        load_checkpoint(model, study.model.pretrained, skip=study.model.skip)
    graph = trace(model.eval(), data.example, ignore=study.space.ignore, only=study.space.only)
    return RunInputs(data, model, graph, place)


def choose_device(name: str) -> str:
    """`auto` to the GPU when there is one.

    Raises:
        SecateurError: for a device that torch does not know or this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        if reason.startswith("Expected one of"):
            reason = "no such device; give auto, cpu, cuda or cuda:1"
        raise SecateurError(f"--device {name} cannot be used here: {reason}") from error
    return name


def read_data(section: DataSection, seed: int) -> Data:
    """The images that `[data]` names.

    Raises:
        SecateurError: for an unknown name, missing files, options the data set does not have, a factory that fails.
    """
    if section.factory is not None:
        data = call(section.factory, "[data] factory", Data, seed=seed, **section.options())
    else:
        try:
            data = load_data(str(section.name), seed=seed, **section.options())
        except SecateurError as error:
            raise SecateurError(f"[data] {error}") from error
    changes = {key: value for key, value in (("mean", section.mean), ("std", section.std)) if value is not None}
    loaded: Data = dataclasses.replace(data, **changes) if changes else data
    try:
        return subset(loaded, section.images, seed)
    except SecateurError as error:
        raise SecateurError(f"[data] {error}") from None


def build_model(section: ModelSection, data: Data) -> nn.Module:
    """The untrained network that `[model]` names, made for the data.

    Raises:
        SecateurError: for an unknown backbone, or a factory that fails.
    """
    classes = section.num_classes or data.num_classes
    channels = section.in_channels or data.example.shape[1]
    if section.factory is not None:
        model: nn.Module = call(
            section.factory, "[model] factory", nn.Module, num_classes=classes, in_channels=channels
        )
        return model
    try:
        return build(str(section.backbone), num_classes=classes, in_channels=channels)
    except SecateurError as error:
        raise SecateurError(f"[model] {error}") from None
