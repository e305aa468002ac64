"""Scores of a set of structures by every scorer, kept so that a new scorer costs only itself."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from backbones.errors import SecateurError
from backbones.files import write_text
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure, ScoringTask
from search.space.families import SampledStructure

TIMED = 3
"""Structures on which each scorer works alone, so that its own time is known; on the others they share passes."""


@dataclass(slots=True)
class ScoreTable:
    """The scores of a set of structures, in one JSON file.

    Attributes:
        values: scorer -> structure id -> score; None where the scorer could not score the structure.
        seconds: scorer -> seconds for one structure, the least of a few on which the scorer worked alone.
    """

    values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes JSON in one step."""
        write_text(path, json.dumps({"values": self.values, "seconds": self.seconds}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> ScoreTable:
        """What `save` wrote; empty when there is no file."""
        return ScoreTable(**json.loads(path.read_text())) if path.is_file() else ScoreTable()


def score_all(
    task: ScoringTask, structures: Sequence[SampledStructure], scorers: Sequence[str], path: Path, progress: bool = True
) -> ScoreTable:
    """Scores what `path` does not hold yet.

    Args:
        task: the dense network and the images that scorers look at.
        structures: what is scored.
        scorers: keys of `SCORERS`.
        path: JSON file of the table, written after every structure.
        progress: show a bar when standard error is a terminal.
    """
    table = ScoreTable.load(path)
    bar = tqdm(structures, desc="scoring", unit="net", disable=None if progress else True)
    for number, one in enumerate(bar):
        new = [name for name in scorers if one.structure.id not in table.values.get(name, {})]
        shared = ScoredStructure(task, one.structure)
        for name in new:
            start = time.perf_counter()
            scored = ScoredStructure(task, one.structure) if number < TIMED else shared
            table.values.setdefault(name, {})[one.structure.id] = _score(name, scored)
            if number < TIMED:
                table.seconds[name] = round(min(time.perf_counter() - start, table.seconds.get(name, 1e9)), 4)
        if new:
            table.save(path)
    return table


def _score(name: str, scored: ScoredStructure) -> float | None:
    try:
        return SCORERS[name](scored)
    except SecateurError:
        return None
