"""Where the networks of retrainings lie, wherever a study was moved to, and whether they are what was retrained.

A storage notes the last two parts of a network's path, `<structure>-<recipe>/network.safetensors`; the rest is the
folder that the study is opened with. So a run can be moved or copied, and no storage names a file outside of it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from backbones.artefact import read_artefact
from backbones.errors import SecateurError

RETRAIN_FOLDER = "retrain"
"""Name of the folder inside a study's that holds its retrained networks."""
NETWORK = "network.safetensors"


def noted_network(path: Path) -> dict[str, str]:
    """What a storage notes of a network that this machine has saved: where it lies in the folder, and the machine."""
    return {"artefact": f"{path.parent.name}/{path.name}", "host": socket.gethostname()}


def network_path(folder: Path, facts: Mapping[str, Any]) -> Path:
    """The path of a retrained network.

    Args:
        folder: the study's folder of retrained networks.
        facts: what the storage notes of the retraining; older versions noted the whole path.

    Raises:
        SecateurError: for a path that cannot be one of ours.
    """
    parts = PurePosixPath(str(facts.get("artefact"))).parts[-2:]
    if len(parts) != 2 or parts[1] != NETWORK or not parts[0].startswith(f"{facts.get('structure')}-") or ".." in parts:
        raise SecateurError(f"a stored network has the path {facts.get('artefact')!r}; was the storage edited?")
    return folder.joinpath(*parts)


def check_network(path: Path, structure: str, recipe: str | None = None) -> None:
    """Looks whether a network is whole, and of the structure (and recipe) that it should be.

    Args:
        path: of the artefact.
        structure: id of the structure that was retrained, or that its training ended with.
        recipe: text of the recipe; any when not given.

    Raises:
        SecateurError: when it is gone, damaged, or another network.
    """
    told = read_artefact(path)[0].get("provenance", {})
    if structure not in (told.get("structure"), told.get("ended")) or recipe not in (None, told.get("recipe")):
        raise SecateurError(f"{path} holds another network than the one that was retrained there")


def is_here(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the network of a retraining is whole at its place."""
    try:
        check_network(path, str(facts["structure"]), str(facts["recipe"]))
    except SecateurError:
        return False
    return True


def is_elsewhere(facts: Mapping[str, Any]) -> bool:
    """Whether another machine has retrained it; what older versions retrained counts as made here."""
    return str(facts.get("host", socket.gethostname())) != socket.gethostname()
