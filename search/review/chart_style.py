"""How charts look, and how they become files. Every plot is a Vega-Lite specification: a plain dict."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from backbones.errors import SecateurError
from backbones.files import replacing

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
        "legend": {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 220},
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": faint},
        "range": {"category": list(CATEGORIES)},
    }


def with_data(spec: Spec, **tables: Sequence[Row]) -> Spec:
    """The specification with its named tables put in."""
    return {**spec, "datasets": {name: [dict(row) for row in rows] for name, rows in tables.items()}}


def to_svg(spec: Spec) -> str:
    """SVG text in the light scheme."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec, config=config(), allowed_base_urls=[]))


def to_png(spec: Spec) -> bytes:
    """PNG in the light scheme, two pixels a point."""
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(spec, config=config(), scale=2, allowed_base_urls=[]))


def render(spec: Spec, path: str | os.PathLike[str]) -> Path:
    """Writes a picture, in one step: PNG or SVG by the ending of `path`.

    Raises:
        SecateurError: for another ending, or when the folder does not exist.
    """
    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg"):
        raise SecateurError(f"a picture ends with .png or .svg, but got {target.name!r}")
    if not target.parent.is_dir():
        raise SecateurError(f"cannot write {str(target)!r}: the folder {str(target.parent)!r} does not exist")
    content = to_png(spec) if target.suffix.lower() == ".png" else to_svg(spec).encode()
    with replacing(target) as part:
        part.write_bytes(content)
    return target


@cache
def vega_bundle() -> str:
    """JavaScript of Vega, Vega-Lite and Vega-Embed, to stand inside a page's script tag."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed; window.vega = vega;"))
