"""Drawing in a process of its own: what is lost when it dies, and that it ends."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backbones.errors import SecateurError
from search.review import drawing
from search.review.chart_style import to_svg, vega_bundle, write_both
from search.review.drawing import drawn, one_drawing_process
from search.review.front import Front
from search.review.report import Report
from search.review.report_files import plot_front, write_report
from tests.search.review.report_samples import sample_front

DOT: dict[str, Any] = {"mark": "point", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a"}}}
PROCESS = subprocess.Popen


@pytest.fixture(autouse=True)
def _no_process_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of other tests go on in their block."""
    monkeypatch.setattr(drawing, "_OPEN", [])


def starved(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """A process with a quarter of a gigabyte of addresses, as below `ulimit -v`."""
    process = PROCESS(*arguments, **options)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (2**28, 2**28))
    return process


def test_without_memory_pictures_are_missing_and_results_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", starved)
    vega_bundle.cache_clear()
    (tmp_path / "front.png").write_bytes(b"of an earlier report")
    front = sample_front(trials=20)
    with pytest.warns(UserWarning, match="the process that draws died") as caught:
        page = write_report(Report((front,)), tmp_path).read_text(encoding="utf-8")
    said = {str(one.message) for one in caught}
    assert len(said) == 3  # the front, the other pictures, the page
    assert [one.score for one in Front.load(tmp_path).candidates] == [one.score for one in front.candidates]
    assert front.candidates[0].id in page
    assert list(tmp_path.rglob("*.png")) == list(tmp_path.rglob("*.svg")) == []
    with pytest.raises(SecateurError, match=r"draws died .* raise ulimit -v"):
        plot_front(front)


def test_without_the_drawing_library_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "drawer.py"
    program.write_text(drawing.PROGRAM.read_text().replace("import vl_convert", "import vl_convert_is_gone"))
    monkeypatch.setattr(drawing, "PROGRAM", program)
    with pytest.raises(SecateurError, match="pictures need vl-convert-python, which is not there: pip"):
        drawn("vegalite_to_svg", vl_spec=DOT)
    with pytest.warns(UserWarning, match="pictures are missing"):
        assert not write_both(DOT, tmp_path / "dot")


def test_the_next_picture_is_drawn_by_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with one_drawing_process():
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", starved)
            with pytest.warns(UserWarning, match="pictures are missing"):
                assert not write_both(DOT, tmp_path / "dot")
        assert write_both(DOT, tmp_path / "dot")
        with pytest.raises(RuntimeError, match="could not be drawn"):
            drawn("vegalite_to_svg", vl_spec={"mark": 3})
    assert (tmp_path / "dot.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "dot.svg").read_text().startswith("<svg")


def test_a_block_has_one_process_which_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(PROCESS(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    with one_drawing_process():
        with one_drawing_process():
            before = to_svg(DOT)
        assert to_svg(DOT) == before
    assert len(started) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)
    to_svg(DOT)  # outside of a block, one of its own
    assert [one.returncode is not None for one in started] == [True, True]
