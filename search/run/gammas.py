"""What slimming does to the batch-norm scales of a run's dense network, kept in its folder for the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from backbones.errors import SecateurError
from backbones.files import write_text
from search.run.folder import RunFolder
from search.training.losses import gammas

GAMMAS = "gammas.json"


@contextmanager
def recorded(model: nn.Module, folder: RunFolder, *, slimmed: bool) -> Iterator[None]:
    """Notes the scales before and after the block in `gammas.json`; does nothing unless `slimmed`."""
    before = _plain(model) if slimmed else {}
    yield
    if slimmed:
        write_text(folder.path / GAMMAS, json.dumps({"before": before, "after": _plain(model)}))


def read_gammas(folder: RunFolder) -> dict[str, dict[str, Tensor]]:
    """Stage -> layer -> scales (C,); empty when the run did no slimming.

    Raises:
        SecateurError: when the file is not what `recorded` wrote.
    """
    path = folder.path / GAMMAS
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            stage: {layer: torch.tensor(values, dtype=torch.float32) for layer, values in layers.items()}
            for stage, layers in record.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SecateurError(f"{path} cannot be read: {error}; remove it to leave the picture out") from None


def _plain(model: nn.Module) -> dict[str, list[float]]:
    return {name: gamma.detach().cpu().tolist() for name, gamma in gammas(model).items()}
