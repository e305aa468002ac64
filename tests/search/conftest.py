"""Charts are drawn where charts are what is tested: a report has some twenty, most of the time of a short run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import vl_convert

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


@pytest.fixture(scope="session")
def blank_charts() -> Callable[[pytest.MonkeyPatch], None]:
    """Puts blank pictures in the place of charts, for fixtures that several tests share."""

    def patched(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(vl_convert, "vegalite_to_svg", lambda *_, **__: BLANK)
        patch.setattr(vl_convert, "vegalite_to_png", lambda *_, **__: BLANK.encode())
        patch.setattr(vl_convert, "svg_to_png", lambda *_, **__: BLANK.encode())

    return patched


@pytest.fixture(autouse=True)
def _blank_charts(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    blank_charts: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """Blank pictures in the place of charts, but for the tests of `search/review` and those marked `drawn`."""
    if "review" not in request.path.parts and request.node.get_closest_marker("drawn") is None:
        blank_charts(monkeypatch)
