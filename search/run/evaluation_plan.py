"""What an evaluation of scorers does: which structures, which retraining, which scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from backbones.arguments import explains
from backbones.errors import SecateurError, check_name
from scoring.scorers import SCORERS, check_scorer
from search.checks import check_range
from search.space.families import FAMILIES
from search.study.retraining_task import STARTS
from search.training.recipe import Recipe

COMBINED = (
    "refitted:naswot",
    "refitted:naswot_last",
    "refitted:region_kernel",
    "refitted:region_separation",
    "reconstruction+naswot",
    "reconstruction+naswot_last",
    "reconstruction+refitted:region_kernel",
    "reconstruction+params",
    "naswot_last+region_kernel+logit_kl",
    "naswot_last+region_kernel",
    "fidelity+params",
)
"""Scores of refitted networks and rank sums that are looked at beside every single scorer."""

AccuracySplit = Literal["validation", "test"]
NOT_OF_TRAININGS = ("structures", "seeds", "scorers", "batch", "statistics", "measure")
"""Settings that may change between two evaluations that add to the same retrainings."""


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Plan:
    """One set of structures and what is done with it.

    Attributes:
        structures: how many; raise it later to go on.
        seeds: retrainings of each structure; raise it later to go on.
        set: 0, 1, ... number of the set: 0 to choose a scorer on, another to confirm the choice on fresh structures.
        families: how widths are drawn, of "layers", "stages", "depth", "extreme", "hybrid"; they take turns.
        images: training images of the retraining, drawn once; all by default.
        scorers: by default all, and a few rank sums; "a+b" is the rank sum of two.
        batch: images the scorers look at.
        statistics: images for the batch-norm statistics of pruned networks; 0 for the scoring batch itself.
        measure: the accuracy that scores are compared with: "validation" to choose a scorer, which never looks at the
            test images; "test" to confirm the choice.
        recipe: of the retraining; no teacher.
        start: what retrainings start from: "cut" weights, "reconstructed" ones, or "auto" as [retrain] start.
    """

    structures: int = 40
    seeds: int = 2
    set: int = 0
    families: tuple[str, ...] = FAMILIES
    images: int | None = None
    scorers: tuple[str, ...] = (*SCORERS, *COMBINED)
    batch: int = 128
    statistics: int = 0
    measure: AccuracySplit = "validation"
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=1, schedule="one-cycle"))
    start: str = "cut"

    def __post_init__(self) -> None:
        for name, low in (("structures", 4), ("seeds", 1), ("set", 0), ("batch", 2), ("statistics", 0), ("images", 1)):
            check_range(name, getattr(self, name), low)
        if not self.families or not self.scorers:
            raise SecateurError("families and scorers need at least one name each")
        for family in self.families:
            check_name("family", family, FAMILIES)
        check_name("start", self.start, STARTS)
        if self.measure not in ("validation", "test"):
            raise SecateurError(f"measure must be 'validation' or 'test', but got {self.measure!r}")
        for scorer in self.scorers:
            check_scorer(scorer)

    @property
    def single(self) -> tuple[str, ...]:
        """Every scorer that has to be computed, the parts of rank sums included."""
        return tuple(dict.fromkeys(part for name in self.scorers for part in name.split("+")))

    @property
    def retraining_seeds(self) -> range:
        """The seeds with which each structure is retrained."""
        return range(self.recipe.seed, self.recipe.seed + self.seeds)

    def identity(self) -> dict[str, Any]:
        """What must be equal for two runs to add to the same results."""
        facts = {**asdict(self), "recipe": self.recipe.to_dict(), "families": list(self.families)}
        if self.start == "cut":
            del facts["start"]  # folders of before do not name it
        return {key: value for key, value in facts.items() if key not in NOT_OF_TRAININGS}
