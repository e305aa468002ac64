"""The variants of a comparison one after the other, or several at a time in processes of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from search.compare.origins import firsts, start_of
from search.compare.outcome import Outcome
from search.compare.variant import follow_variant
from search.run.console import Console
from search.run.dense import ensure_dense
from search.run.folder import RunFolder, locked
from search.run.inputs import RunInputs
from search.run.stages import check_before_training, timed
from search.run.study_file import StudyFile
from search.training.parallel import in_processes


@dataclass(frozen=True, slots=True)
class Work:
    """What all variants have in common.

    Attributes:
        variants: name -> study.
        place: holds their run folders, which exist.
        device: for training, or "auto".
        seeds: retrainings of each structure.
    """

    variants: Mapping[str, StudyFile]
    place: Path
    device: str
    seeds: int


def follow_in_turn(
    work: Work, names: Sequence[str], console: Console
) -> tuple[dict[str, Outcome], dict[str, RunInputs]]:
    """One variant after the other: what became of each, and what it started from."""
    starts: dict[str, RunInputs] = {}
    found = {}
    for number, name in enumerate(names, 1):
        console.head(f"Variant {number} of {len(names)}: {name}")
        start = start_of(work.variants, name, work.place, starts, work.device)
        found[name] = follow_variant(work.variants[name], start, RunFolder(work.place / name), console, work.seeds)
    return found, starts


def follow_together(work: Work, names: Sequence[str], processes: int, console: Console) -> dict[str, Outcome]:
    """Several variants at a time: first the dense networks, each by the first variant that has it, then all."""
    console.head(f"{len(names)} variants, {processes} at a time")
    leaders = list(firsts(work.variants, names).values())
    for name in in_processes([partial(_dense, work, name) for name in leaders], processes):
        console.say(f"  {name}: the dense network is there")
    found: dict[str, Outcome] = {}
    for name, outcome in in_processes([partial(_variant, work, name) for name in names], processes):
        found[name] = outcome
        console.say(f"  {name}: done ({len(found)} of {len(names)})")
    return found


def _dense(work: Work, name: str) -> str:
    """Trains the dense network of a variant, where it needs training."""
    study, folder = work.variants[name], RunFolder(work.place / name)
    start = start_of(work.variants, name, work.place, {}, work.device)
    with locked(folder):
        check_before_training(study, start)
        with timed(folder, "dense network"):
            ensure_dense(start, study, folder, Console(quiet=True))
    return name


def _variant(work: Work, name: str) -> tuple[str, Outcome]:
    start = start_of(work.variants, name, work.place, {}, work.device)
    folder = RunFolder(work.place / name)
    return name, follow_variant(work.variants[name], start, folder, Console(quiet=True), work.seeds)
