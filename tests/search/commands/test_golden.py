"""What the command line prints, word for word: help pages, error lines, tables."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import secateur
from backbones.cost_table import Cost
from backbones.structure import Structure
from search.cli import COMMANDS, main
from search.review.candidate import Candidate, Refit
from search.review.footprint import Footprint
from search.review.front import Front
from search.review.summary import final_table, gain, latency_table, result_tables, score_table, validation_table
from search.run.console import BOLD, Console, paint
from tests.search.commands.golden_files import check_golden, masked
from tests.search.test_cli import MODULE, STUDY

ROOT = Path(__file__).resolve().parents[3]
NAMES = [command.name for command in COMMANDS]
SAME_ARGPARSE = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays pages out by its own version")


def structure(*widths: int) -> Structure:
    return Structure("graph", tuple((f"layer{i}", tuple(range(width))) for i, width in enumerate(widths)))


FRONT = Front(
    name="fixed",
    scorer="naswot_last",
    dense=Candidate(
        -1,
        structure(16, 64),
        cost=Cost(125_485_696, 853_018),
        accuracy=0.941,
        test_accuracy=0.9437,
        footprint=Footprint(0.1875, 0.001, 3_480_000, 128, 1, 0.0121),
        label="dense",
    ),
    candidates=(
        Candidate(0, structure(4, 20), cost=Cost(25_097_139, 171_200), score=-12.25, accuracy=0.931,
                  refit=Refit(Path("a.safetensors"), 0.6125, 0.2034),
                  test_accuracy=0.9299, footprint=Footprint(0.061, 0.001, 702_000, 128, 1)),
        Candidate(1, structure(3, 30), cost=Cost(24_600_000, 190_000), score=-11.5, accuracy=0.934,
                  test_accuracy=0.9361, footprint=Footprint(0.0625, 0.001, 770_000, 128, 1, 0.0064)),
        Candidate(2, structure(9, 9), cost=Cost(24_400_000, 210_000), score=-19.75,
                  refit=Refit(Path("b.safetensors"), 0.655, 0.1)),
        Candidate(3, None, reason="no structure lies within the budget"),
    ),
)  # fmt: skip


def with_latency_budget(front: Front) -> Front:
    """As a budget of 61.5 ms in onnxruntime leaves it: the best takes longer than was predicted."""

    def timed(one: Candidate, predicted: float, limit: float | None) -> Candidate:
        size, cost = one.footprint, one.cost
        if size is None or cost is None:
            return one
        measured = replace(size, engine="onnxruntime", limit=limit, error=0.043 if limit else None)
        return replace(one, cost=replace(cost, latency=predicted), footprint=measured)

    ones = tuple(timed(one, 0.0611, 0.0615) for one in front.candidates)
    return replace(front, dense=timed(front.dense, 0.1839, None), candidates=ones)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@SAME_ARGPARSE
@pytest.mark.parametrize("name", ["secateur", *NAMES])
def test_help(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main(["--help"] if name == "secateur" else [name, "--help"])
    page = capsys.readouterr().out
    assert end.value.code == 0
    assert max(map(len, page.splitlines())) <= 80
    check_golden(f"help_{name}", page)


def test_error_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.toml").write_text("name = \n")
    (folder / "typo.toml").write_text(STUDY.replace("trials = 8", "trails = 8"))
    (folder / "wide.toml").write_text(STUDY.replace('"30%..50%"', '"130%"'))
    lines = []
    for line in (
        "", "shrink", "run", "run none.toml", "run broken.toml", "run typo.toml", "run wide.toml",
        "run study.toml --fast",
        "run study.toml --trials 0", "run study.toml --device gpu", "search study.toml --jobs 0", "resume nowhere",
        "retrain nowhere --top 3", "report a b", "status nowhere", "status sqlite:///none.db", "status x://y",
        "init study.toml", "inspect none.toml", "completion tcsh",
    ):  # fmt: skip
        try:
            code = main(line.split())
        except SystemExit as end:
            code = int(str(end.code))
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), line
        assert err.count("\n") == 1, line
        lines.append(f"$ secateur {line}".rstrip() + f"\n{err}")
    check_golden("errors", "".join(lines))


def test_tables_of_fixed_numbers() -> None:
    untrained = replace(FRONT, candidates=tuple(replace(one, accuracy=None) for one in FRONT.candidates))
    tables = [
        final_table(FRONT), validation_table(FRONT), validation_table(untrained), score_table(FRONT), gain(FRONT),
    ]  # fmt: skip
    assert (gain(untrained), latency_table(FRONT)) == ("", "")
    timed = with_latency_budget(FRONT)
    tables += [final_table(timed), gain(timed), latency_table(timed)]
    assert latency_table(timed) in result_tables(timed)
    text = "\n\n".join(tables)
    assert max(map(len, text.splitlines())) <= 80
    check_golden("tables", f"{text}\n")


def test_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "study.toml"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\033" not in out  # no terminal
    assert re.search(r"^dense +\d", out, flags=re.MULTILINE)
    for word in ("What the budget allows", "Search: 8 trials", "Retraining: the best 2", "Result"):
        assert word in out
    whole = out
    assert main(["run", "study.toml", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (err, out) == ("", whole[whole.index("\nstructure ") + 1 : whole.index("\n\nThe first")] + "\n")
    check_golden("run_quiet", masked(out))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_show_how_long_it_takes_and_the_best_so_far(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["run", "study.toml"]) == 0
    for bar in (r"8/8 \[\d\d:\d\d<\d\d:\d\d, .*trial.*best -?\d", r"retrained: 100%.* 2/2 .*<.*best \d+\.\d%"):
        assert re.search(bar, screen.getvalue()), bar
    screen.truncate(0)
    assert main(["resume", "runs/tiny", "--trials", "9", "--quiet"]) == 0
    assert screen.getvalue() == ""


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("word", BOLD, io.StringIO()) == "word"
    assert paint("word", BOLD, Terminal()) == "\033[1mword\033[0m"
    monkeypatch.setenv("TERM", "dumb")
    assert paint("word", BOLD, Terminal()) == "word"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("word", BOLD, Terminal()) == "word"


def test_json_stands_alone_and_quiet_leaves_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    for console in (Console(as_json=True), Console(quiet=True), Console()):
        console.say("on the way")
        console.result("result")
        console.record({"a": 1})
    assert capsys.readouterr().out == '{\n  "a": 1\n}\nresult\non the way\nresult\n'


def test_who_stops_reading_gets_no_traceback(tmp_path: Path) -> None:
    script = f"set -o pipefail; {sys.executable} -m secateur completion bash | :; echo $?"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "141\n"
    assert done.stderr == ""


def test_the_readme_lists_the_exit_codes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "tests/search/commands/golden/help_secateur.txt").read_text(encoding="utf-8")
    codes = re.findall(r"^  (\d+)  ", page.partition("exit codes:")[2], flags=re.MULTILINE)
    assert codes == ["0", "1", "2", "130", "141"]
    assert all(re.search(rf"^\| `{code}`", readme, flags=re.MULTILINE) for code in codes)
    assert secateur.__version__
