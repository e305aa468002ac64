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
from search.space.families import Drawn

TIMED = 3
"""Structures on which each scorer works alone, so that its own time is known; on the others they share passes."""


@dataclass(slots=True)
class Sheet:
    """What scorers said.

    Attributes:
        values: scorer -> structure id -> score; None where it could not be scored.
        seconds: scorer -> least seconds a structure of a few, working alone.
    """

    values: dict[str, dict[str, float | None]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes JSON in one step."""
        write_text(path, json.dumps({"values": self.values, "seconds": self.seconds}, indent=1) + "\n")

    @staticmethod
    def load(path: Path) -> Sheet:
        """What `save` wrote; empty when there is no file."""
        return Sheet(**json.loads(path.read_text())) if path.is_file() else Sheet()


def score_all(
    task: ScoringTask, drawn: Sequence[Drawn], scorers: Sequence[str], path: Path, progress: bool = True
) -> Sheet:
    """Scores what `path` does not hold yet.

    Args:
        task: dense network and images.
        drawn: structures.
        scorers: keys of `SCORERS`.
        path: JSON file of the sheet, written after every structure.
        progress: show a bar when standard error is a terminal.
    """
    sheet = Sheet.load(path)
    bar = tqdm(drawn, desc="scoring", unit="net", disable=None if progress else True)
    for number, one in enumerate(bar):
        new = [name for name in scorers if one.structure.id not in sheet.values.get(name, {})]
        shared = ScoredStructure(task, one.structure)
        for name in new:
            start = time.perf_counter()
            scored = ScoredStructure(task, one.structure) if number < TIMED else shared
            sheet.values.setdefault(name, {})[one.structure.id] = _score(name, scored)
            if number < TIMED:
                sheet.seconds[name] = round(min(time.perf_counter() - start, sheet.seconds.get(name, 1e9)), 4)
        if new:
            sheet.save(path)
    return sheet


def _score(name: str, scored: ScoredStructure) -> float | None:
    try:
        return SCORERS[name](scored)
    except SecateurError:
        return None
