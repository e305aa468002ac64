"""The figures of a report as pictures for papers: `plots/NAME.png` and `.svg` for every view of every figure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backbones.files import atomic_write, write_text
from search.review.chart_style import Row, quieter, reads_trials, still, svg_to_png, to_svg, with_data
from search.review.figures import Figure

PLOTS_FOLDER, INDEX = "plots", "plots.json"
PICTURE_WIDTH = 480
LONGEST_NAME = 80


def write_plots(shown: Iterable[Figure], rows: Sequence[Row], folder: Path) -> list[dict[str, str]]:
    """Writes every picture and `plots.json`, a list of them; pictures of an earlier list that are gone are removed.

    Args:
        shown: the figures of the report, from `search.review.figures.figures`.
        rows: the table `trials`, which some of the figures read, from `trial_rows`.
        folder: an existing folder; the pictures are written into `plots` inside it.

    Returns:
        a record for each picture: `name`, `title`, `view`, and the paths `png` and `svg` relative to `folder`.
    """
    place = folder / PLOTS_FOLDER
    place.mkdir(exist_ok=True)
    names: dict[str, tuple[Figure, str]] = {}
    for figure in shown:
        for view in figure.views:
            names[_unused(_name(figure, view), names)] = (figure, view)
    for name, (figure, view) in names.items():
        spec = quieter({**still(figure.views[view], PICTURE_WIDTH), "padding": 12}, len(rows))
        svg = to_svg(with_data(spec, trials=rows if reads_trials(spec) else ()))
        write_text(place / f"{name}.svg", svg)
        with atomic_write(place / f"{name}.png") as part:
            part.write_bytes(svg_to_png(svg))
    for name in _listed(place) - names.keys():
        for ending in ("svg", "png"):
            (place / f"{name}.{ending}").unlink(missing_ok=True)
    index = [
        {
            "name": name,
            "title": figure.title,
            "view": view,
            **{ending: f"{PLOTS_FOLDER}/{name}.{ending}" for ending in ("png", "svg")},
        }
        for name, (figure, view) in names.items()
    ]
    write_text(place / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def _name(figure: Figure, view: str) -> str:
    """A file name of small letters, digits and dashes, whatever the network's layers are called."""
    text = figure.name if len(figure.views) == 1 else f"{figure.name}-{view}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_NAME].strip("-")


def _unused(name: str, taken: Iterable[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _listed(place: Path) -> set[str]:
    """The names that the last list has; only those that could be ours."""
    try:
        record: Any = json.loads((place / INDEX).read_text(encoding="utf-8"))
        names = {str(one["name"]) for one in record}
    except (OSError, ValueError, TypeError, KeyError):
        return set()
    return {name for name in names if re.fullmatch(r"[a-z0-9-]+", name)}
