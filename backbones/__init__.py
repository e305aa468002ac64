"""What a network is: architectures, channel graph, structure, cost, surgery. No data, no Optuna."""

from backbones.artefact import load, save
from backbones.checkpoint import load_checkpoint
from backbones.cost import Cost, cost
from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.graph import ChannelGraph
from backbones.inspect_table import describe
from backbones.measure import latency, peak_memory
from backbones.optimizers import transfer_optimizer
from backbones.recount import recount
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
    "describe",
    "export_onnx",
    "export_program",
    "latency",
    "load",
    "load_checkpoint",
    "peak_memory",
    "prune",
    "recount",
    "removable",
    "save",
    "trace",
    "transfer_optimizer",
]
