# What type checkers see for `import secateur`: the same names as secateur.py, which a py.typed cannot cover.
from backbones.artefact import load, save
from backbones.checkpoint import load_checkpoint
from backbones.cost import Cost, cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph, Group
from backbones.registry import BACKBONES, build
from backbones.structure import Structure
from backbones.surgery import Origin, prune
from backbones.trace import trace
from scoring.hybrid import hybrid
from scoring.limits import Limits
from scoring.recalibration import recalibrate
from scoring.scorers import SCORERS, score
from scoring.tables import FilterTables, filter_tables
from search.augment import Augment
from search.baselines import baseline
from search.budget import Budget
from search.data import Data
from search.data import load as load_data
from search.depth import Removal
from search.front import Candidate, Front
from search.history import History
from search.measure import accuracy
from search.recipe import Recipe
from search.sources import Split
from search.space import Space
from search.study import Study
from search.study_file import StudyFile, read_study
from search.training import train

__version__: str

__all__ = [
    "BACKBONES",
    "SCORERS",
    "Augment",
    "Budget",
    "Candidate",
    "ChannelGraph",
    "Cost",
    "Data",
    "FilterTables",
    "Front",
    "Group",
    "History",
    "Limits",
    "Origin",
    "Recipe",
    "Removal",
    "SecateurError",
    "Space",
    "Split",
    "Structure",
    "Study",
    "StudyFile",
    "__version__",
    "accuracy",
    "baseline",
    "build",
    "cost",
    "filter_tables",
    "hybrid",
    "load",
    "load_checkpoint",
    "load_data",
    "prune",
    "read_study",
    "recalibrate",
    "save",
    "score",
    "trace",
    "train",
]
