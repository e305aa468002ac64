"""What a network is: architectures, channel graph, structure, cost, surgery. No data, no Optuna."""

from backbones.artefact import load, save
from backbones.checkpoint import load_checkpoint
from backbones.cost import Cost, cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.registry import BACKBONES, build
from backbones.removal import removable
from backbones.structure import Structure
from backbones.surgery import Origin, prune
from backbones.trace import trace

__all__ = [
    "BACKBONES",
    "ChannelGraph",
    "Cost",
    "Origin",
    "SecateurError",
    "Structure",
    "build",
    "cost",
    "load",
    "load_checkpoint",
    "prune",
    "removable",
    "save",
    "trace",
]
