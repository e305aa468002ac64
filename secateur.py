"""Prunes PyTorch networks to a budget: the public face.

    import secateur as sc

Everything in `__all__` is stable; the rooms behind it (`backbones`, `scoring`, `search`) are where it lives.
`python -m secateur` is the command line.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _check_rooms() -> None:
    """Raises ImportError in one line when a package of the user's stands in front of one of ours.

    A plain folder, without `__init__.py`, stands in front only of a checkout that is installed as such: on the path
    the checkout's packages go before it, as those of a wheel do.
    """
    home = Path(__file__).resolve().parent
    for room in ("backbones", "scoring", "search"):
        spec = importlib.util.find_spec(room)
        if spec is not None and spec.origin is None and str(home) not in sys.path:
            sys.path.append(str(home))
            spec = importlib.util.find_spec(room)
        origin = None if spec is None else spec.origin
        if origin is None or Path(origin).resolve().parent != home / room:
            where = origin or next(iter((spec and spec.submodule_search_locations) or ()), "nowhere")
            raise ImportError(
                f"secateur needs its own package {room!r} from {home}, but Python finds {where}; "
                f"rename that one or move it off the path"
            )


_check_rooms()

from backbones.artefact import load, save
from backbones.checkpoint import load_checkpoint
from backbones.cost import cost
from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.exports import export_onnx, export_program
from backbones.graph import ChannelGraph, Group
from backbones.inspect_table import describe
from backbones.measure import latency, peak_memory
from backbones.onnx_network import OnnxNetwork, export_onnx_int8
from backbones.optimizers import transfer_optimizer
from backbones.registry import BACKBONES, build
from backbones.removal import removable
from backbones.structure import Structure
from backbones.surgery import PruningPlan, prune
from backbones.trace import trace
from backbones.version import VERSION
from scoring.batch_norm import recalibrate
from scoring.hybrid import hybrid
from scoring.limits import Limits
from scoring.reconstruction.grams import DenseGrams, gather_grams
from scoring.reconstruction.reconstruct import reconstruct
from scoring.reconstruction.targets import DenseTargets, gather_targets
from scoring.scorers import SCORERS, score
from scoring.tables import FilterTables, error_table, filter_tables
from search.compare.comparison import compare
from search.compare.results import Comparison
from search.data.augment import Augment
from search.data.data import Data
from search.data.readers import load_data
from search.data.sources import Split
from search.data.task import CLASSIFICATION, MetricSpec, Task
from search.evaluate.evaluation import evaluate
from search.evaluate.evidence import Evidence
from search.review.candidate import Candidate
from search.review.footprint import footprints
from search.review.front import Front
from search.review.report_files import plot_front
from search.run.evaluation_plan import Plan
from search.run.front_context import baseline
from search.run.study_file import StudyFile, read_study
from search.space.budget import Budget
from search.space.layer_removal import Removal
from search.space.space import Space
from search.study.stored import StoredStudy, open_study
from search.study.study import Study
from search.training.checkpoint import History
from search.training.double_pruning import sparsify
from search.training.engine import train
from search.training.flows import Flow
from search.training.metrics import accuracy, measure, netscore
from search.training.recipe import Recipe

__version__ = VERSION

__all__ = [
    "BACKBONES",
    "CLASSIFICATION",
    "SCORERS",
    "Augment",
    "Budget",
    "Candidate",
    "ChannelGraph",
    "Comparison",
    "Cost",
    "Data",
    "DenseGrams",
    "DenseTargets",
    "Evidence",
    "FilterTables",
    "Flow",
    "Front",
    "Group",
    "History",
    "Limits",
    "MetricSpec",
    "OnnxNetwork",
    "Plan",
    "PruningPlan",
    "Recipe",
    "Removal",
    "SecateurError",
    "Space",
    "Split",
    "StoredStudy",
    "Structure",
    "Study",
    "StudyFile",
    "Task",
    "__version__",
    "accuracy",
    "baseline",
    "build",
    "compare",
    "cost",
    "describe",
    "error_table",
    "evaluate",
    "export_onnx",
    "export_onnx_int8",
    "export_program",
    "filter_tables",
    "footprints",
    "gather_grams",
    "gather_targets",
    "hybrid",
    "latency",
    "load",
    "load_checkpoint",
    "load_data",
    "measure",
    "netscore",
    "open_study",
    "peak_memory",
    "plot_front",
    "prune",
    "read_study",
    "recalibrate",
    "reconstruct",
    "removable",
    "save",
    "score",
    "sparsify",
    "trace",
    "train",
    "transfer_optimizer",
]

if __name__ == "__main__":
    from search.cli import main

    sys.exit(main())
