"""Charts are drawn where charts are what is tested: a report has some twenty, most of the time of a short run."""

from __future__ import annotations

import pytest
import vl_convert

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


@pytest.fixture(autouse=True)
def _blank_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank pictures in the place of charts, but for the tests of `search/review` and those marked `drawn`."""
    if "review" in request.path.parts or request.node.get_closest_marker("drawn") is not None:
        return
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: BLANK)
    monkeypatch.setattr(vl_convert, "vegalite_to_png", lambda *_, **__: BLANK.encode())
    monkeypatch.setattr(vl_convert, "svg_to_png", lambda *_, **__: BLANK.encode())
