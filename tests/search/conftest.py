"""Charts are drawn where charts are what is tested: a report has some twenty, most of the time of a short run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from search.review.drawing import drawn
from tests.graphs import known_trace

BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'


def _blank(call: str, **given: Any) -> Any:
    if call == "javascript_bundle":  # is kept for later tests
        return drawn(call, **given)
    return BLANK.encode() if call.endswith("png") else BLANK


@pytest.fixture(autouse=True, scope="session")
def _known_traces() -> Iterator[None]:
    """Commands take the graph of a network that was traced before: the trace itself is what tests/backbones look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.run.inputs.trace", known_trace)
        yield


@pytest.fixture(scope="session")
def blank_charts() -> Callable[[pytest.MonkeyPatch], None]:
    """Puts blank pictures in the place of charts, for fixtures that several tests share."""
    return lambda patch: patch.setattr("search.review.chart_style.drawn", _blank)


@pytest.fixture(autouse=True)
def _blank_charts(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    blank_charts: Callable[[pytest.MonkeyPatch], None],
) -> None:
    """Blank pictures in the place of charts, but for the tests of `search/review` and those marked `drawn`."""
    if "review" not in request.path.parts and request.node.get_closest_marker("drawn") is None:
        blank_charts(monkeypatch)
