"""How charts look, and how they become files. Every plot is a Vega-Lite specification: a plain dict."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError
from backbones.files import atomic_write
from search.review.drawing import drawn

Spec = dict[str, Any]
Row = Mapping[str, Any]

# Told apart in the common forms of colour blindness (after Okabe and Ito, 2008), at least 3:1 against white and against
# the dark page; each state also has a shape of its own.
BLUE, GREY, VERMILLION, PURPLE, GREEN, OCHRE = "#2b83c6", "#858d9b", "#cf5b24", "#a862a8", "#1b9475", "#b27d0e"
CATEGORIES = (BLUE, VERMILLION, GREEN, PURPLE, OCHRE, GREY)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def config(*, dark: bool = False) -> Spec:
    """The Vega-Lite config of one colour scheme; marks keep their colours in both."""
    ink, faint, grid, back = (
        ("#e4e7ec", "#a7afbd", "#333a46", "#1b1f27") if dark else ("#1c2430", "#5b6472", "#e3e6ea", "#ffffff")
    )
    return {
        "background": back,
        "font": FONT,
        "view": {"stroke": None},
        "title": {
            "color": ink,
            "subtitleColor": faint,
            "fontSize": 15,
            "subtitleFontSize": 12,
            "anchor": "start",
            "offset": 12,
        },
        "axis": {
            "labelColor": faint,
            "titleColor": ink,
            "gridColor": grid,
            "domainColor": faint,
            "tickColor": faint,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "titleLimit": 320,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "labelLimit": 220,
            # Below each other: side by side two legends do not fit on a phone.
            "layout": {"top": {"direction": "vertical", "anchor": "start", "margin": 4}},
        },
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": faint},
        "range": {"category": list(CATEGORIES)},
    }


def legend_columns(names: Iterable[str]) -> Spec:
    """How many names stand beside each other above a chart: as many as fit, on a phone too."""
    longest = 7 * max(map(len, names), default=0) + 34
    wide, narrow = (max(1, min(5, room // longest)) for room in (480, 280))
    return {"expr": f"width && width < 380 ? {narrow} : {wide}"}


def reads_trials(spec: Spec) -> bool:
    """Whether the chart draws the table `trials`."""
    return bool(spec.get("data", {}).get("name") == "trials")


def with_data(spec: Spec, **tables: Sequence[Row]) -> Spec:
    """The specification with its named tables put in."""
    return {**spec, "datasets": {name: [dict(row) for row in rows] for name, rows in tables.items()}}


MOST_DESCRIBED = 1500
"""Points up to which each carries a description for screen readers; thousands make a picture several megabytes."""


def quieter(spec: Spec, points: int) -> Spec:
    """The specification without descriptions of single points when there are too many of them."""
    return {**spec, "config": {"aria": False}} if points > MOST_DESCRIBED else spec


def still(spec: Spec, width: int) -> Spec:
    """The chart as a picture of a fixed width: nothing to zoom, and points beyond the axes are left out.

    On a page they are clipped, which each layer of a PNG pays for with a mask of the whole picture.
    """
    layers = [_unclipped(layer) for layer in spec.get("layer", ())]
    return {**spec, "width": width, **({"layer": layers} if layers else {})}


def _unclipped(layer: Spec) -> Spec:
    layer = {key: value for key, value in layer.items() if key != "params"}
    mark = layer.get("mark")
    if not isinstance(mark, dict) or not mark.get("clip"):
        return layer
    inside = []
    for channel in (layer["encoding"].get("x", {}), layer["encoding"].get("y", {})):
        if "field" in channel and "domain" in channel.get("scale", {}):
            low, high = channel["scale"]["domain"]
            inside.append({"filter": {"field": channel["field"], "range": [low, high]}})
    layer["mark"] = {key: value for key, value in mark.items() if key != "clip"}
    return {**layer, "transform": [*layer.get("transform", ()), *inside]}


def to_svg(spec: Spec) -> str:
    """SVG text in the light scheme.

    Raises:
        SecateurError: when the process that draws dies of it.
    """
    return str(drawn("vegalite_to_svg", vl_spec=spec, config=config(), allowed_base_urls=[]))


def to_png(spec: Spec) -> bytes:
    """PNG in the light scheme, two pixels a point; errors as `to_svg`."""
    return bytes(drawn("vegalite_to_png", vl_spec=spec, config=config(), scale=2, allowed_base_urls=[]))


def svg_to_png(svg: str) -> bytes:
    """PNG of an SVG picture, two pixels a point: a chart wanted as both is drawn once; errors as `to_svg`."""
    return bytes(drawn("svg_to_png", svg=svg, scale=2))


def write_chart(spec: Spec, path: str | os.PathLike[str]) -> Path:
    """Writes a picture, in one step: PNG or SVG by the ending of `path`.

    Raises:
        SecateurError: for another ending, when the folder does not exist, or the process that draws dies of it.
    """
    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg"):
        raise SecateurError(f"a picture ends with .png or .svg, but got {target.name!r}")
    if not target.parent.is_dir():
        raise SecateurError(f"cannot write {str(target)!r}: the folder {str(target.parent)!r} does not exist")
    content = to_png(spec) if target.suffix.lower() == ".png" else to_svg(spec).encode()
    with atomic_write(target) as part:
        part.write_bytes(content)
    return target


def write_both(spec: Spec, place: Path) -> bool:
    """Writes a picture of a report as SVG and PNG; where it cannot be drawn it is left out, with a warning.

    Args:
        spec: the picture.
        place: path of the two files without their endings.

    Returns:
        whether it was drawn.

    Warns:
        UserWarning: when the process that draws died; files of an earlier picture are removed.
    """
    svg, png = place.with_name(f"{place.name}.svg"), place.with_name(f"{place.name}.png")
    try:
        text = to_svg(spec)
        content = svg_to_png(text)
    except SecateurError as error:
        warnings.warn(f"{place.parent}: pictures are missing: {error}", UserWarning, stacklevel=2)
        for path in (svg, png):
            path.unlink(missing_ok=True)
        return False
    for path, found in ((svg, text.encode()), (png, content)):
        with atomic_write(path) as part:
            part.write_bytes(found)
    return True


@cache
def vega_bundle() -> str:
    """JavaScript of Vega, Vega-Lite and Vega-Embed, to stand inside a page's script tag; errors as `to_svg`."""
    return str(drawn("javascript_bundle", snippet="window.vegaEmbed = vegaEmbed; window.vega = vega;"))
