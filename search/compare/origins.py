"""Which variants start from the same dense network, what they start from, and what tables call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from search.run.dense import take_twin
from search.run.folder import RunFolder
from search.run.inputs import RunInputs, load_run_inputs
from search.run.study_file import StudyFile


def origin(study: StudyFile) -> str:
    """Equal for studies whose dense network is the same."""
    return repr((study.model, study.data, study.dense, study.seed))


def start_of(
    variants: Mapping[str, StudyFile],
    name: str,
    place: Path,
    starts: dict[str, RunInputs],
    device: str,
) -> RunInputs:
    """Data, dense network and graph of a variant, those of another one where they are the same.

    Layers that [space] leaves out are marked in the graph, so that it is shared only where those agree.
    """
    study, run = variants[name], RunFolder(place / name)
    for other, twin in variants.items():
        if other != name and origin(twin) == origin(study):
            take_twin(run, RunFolder(place / other))
    for other, start in starts.items():
        twin = variants[other]
        left_out = (twin.space.ignore, twin.space.only) == (study.space.ignore, study.space.only)
        if left_out and origin(twin) == origin(study):
            starts[name] = start
            return start
    starts[name] = load_run_inputs(study, run, device)
    return starts[name]


def firsts(variants: Mapping[str, StudyFile], names: Iterable[str]) -> dict[str, str]:
    """Origin -> the first of the variants that has it."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(origin(variants[name]), name)
    return found


def label(variants: Mapping[str, StudyFile], name: str) -> str:
    """Names the dense network: its architecture, and the first variant that has it where there are several of those."""
    first = firsts(variants, variants)
    kinds = [_architecture(variants[one]) for one in first.values()]
    kind = _architecture(variants[name])
    return f"dense {kind}" if kinds.count(kind) == 1 else f"dense {kind} ({first[origin(variants[name])]})"


def _architecture(study: StudyFile) -> str:
    return study.model.backbone or str(study.model.factory).rpartition(":")[2]
