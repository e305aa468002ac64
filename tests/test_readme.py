"""What the README and the scripts in studies/ show is run, as it stands there, and every name they use is public."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sklearn.datasets import load_digits
from torch import nn

import secateur as sc
from backbones.architectures.resnet_cifar import CifarResNet
from search.run.study_file import read_study
from tests.graphs import known_trace
from tests.launcher import Launcher

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = {"README.md": README} | {
    path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "studies").rglob("*.py"))
}


def small_resnet(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """A block in each stage, in the place of three."""
    assert name == "resnet20"
    return CifarResNet(1, num_classes, in_channels)


@pytest.fixture(params=["quick", pytest.param("whole", marks=pytest.mark.slow)])
def scale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Quick: what is shown goes through the same lines with ten trials, half of the epochs, the digits, the blocks."""
    if request.param == "quick":
        search, recipe, (images, labels) = sc.Study.search, sc.Recipe, load_digits(return_X_y=True)
        monkeypatch.setattr(
            sc.Study, "search", lambda study, trials, **others: search(study, min(trials, 10), **others)
        )
        monkeypatch.setattr(sc, "Recipe", lambda *, epochs, **others: recipe(epochs=max(2, epochs // 2), **others))
        monkeypatch.setattr(sc, "build", small_resnet)
        monkeypatch.setattr(sc, "trace", known_trace)
        # 8 bits are compared with the accuracy of a network that has learned; a second process has all digits
        if not re.search("deploy|workers", request.node.name):
            monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (images[::2], labels[::2]))
    return str(request.param)


def test_python_blocks_run_one_after_the_other(
    scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in (blocks[0], *blocks):  # the script goes on where it was when it is run again
        scope: dict[str, object] = {"__name__": "readme"}  # each has all its imports
        exec(compile(block, "README.md", "exec"), scope)
    said = capsys.readouterr().out
    assert float(re.findall(r"^(\d+\.\d)%$", said, flags=re.MULTILINE)[0]) > 50
    assert re.search(r"^trials: .*\b\d+ scored", said, flags=re.MULTILINE)
    trials = 10 if scale == "quick" else 50
    assert re.search(rf"^[0-9a-f]{{12}} Cost\(macs=.* {trials}$", said, flags=re.MULTILINE)
    assert (tmp_path / "front.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", SHOWN)
def test_every_name_that_is_shown_is_public(name: str) -> None:
    assert set(re.findall(r"\bsc\.([A-Za-z_0-9]+)", SHOWN[name])) <= set(sc.__all__)


def test_commands_that_are_shown_exist() -> None:
    from search.cli import COMMANDS

    shown = set(re.findall(r"(?:^    |`|\()secateur ([a-z]+)", README, flags=re.MULTILINE))
    assert shown <= {command.name for command in COMMANDS}
    assert {"init", "inspect", "run", "resume", "search", "retrain", "report", "work", "status", "completion"} <= shown


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]+)(#[^)]*)?\)", text):
            assert (ROOT / target).exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", (ROOT / target).read_text(encoding="utf-8"), flags=re.MULTILINE)
                slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor[1:] in slugs, anchor


def test_every_path_in_contributing_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:backbones|scoring|search|tests|studies)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_study_files_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_DATA", "/somewhere")
    scale = tomllib.loads(path.read_text(encoding="utf-8")).get("scale", "")
    name = read_study(path).name.removesuffix(f"-{scale}").replace("-", "_")
    assert f"{path.stem}_".startswith(f"{name}_")  # system1 is system1_filters_and_layers.toml


FOUR = "dense {0}, cut {0}, refitted {0}, retrained {0}$"
TUTORIALS = {
    "detector": FOUR.format(r"(\d+\.\d)%"),
    "regression": FOUR.format(r"(\d+\.\d+) Hz"),
    "segmentation": FOUR.format(r"(\d+\.\d)%"),
    "two_inputs": FOUR.format(r"(\d+\.\d+)"),
    "own_network": r"^dense \d+\.\d%, pruned \d+\.\d% with Cost\(macs=[45]\d{6}, ",
    "read_a_front": r"^best: [0-9a-f]{12}, best within 30 %: [0-9a-f]{12}, knee: [0-9a-f]{12}$",
    "compare_pruners": r"^other: 128,956 MACs, .* on test\nsearch: 12[0-8],\d{3} MACs, .* on test$",
    "deploy": r"^small: (\d+\.\d)%, .*\nonnx: \1%, .*\nint8: [89]\d\.\d%, ",
    "resume_and_workers": r"^stopped: 5 trials\nalone: 8 trials\nstudy 'shared' .*\ntrials: 10 scored; ",
}


def test_every_tutorial_is_run() -> None:
    assert {path.stem for path in (ROOT / "studies/tutorials").glob("*.py")} == set(TUTORIALS)


@dataclass
class Forked:
    """In the place of multiprocessing's processes: the same function of the same script, without seconds of imports."""

    launcher: Launcher
    script: Path
    folder: Path

    def Process(self, target: Callable[[], None]) -> Forked:  # noqa: N802 - as in multiprocessing
        self.name = target.__name__
        return self

    def start(self) -> None:
        self.process = self.launcher.start(f"{__name__}:call", str(self.script), self.name, folder=self.folder)

    def join(self) -> None:
        self.process.end()


def call(arguments: list[str]) -> None:
    """Calls a function of a script that is imported as multiprocessing does it."""
    script, name = arguments
    runpy.run_path(script, run_name="__mp_main__")[name]()


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials(
    name: str,
    scale: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = ROOT / f"studies/tutorials/{name}.py"
    if (name, scale) == ("resume_and_workers", "quick"):
        context = multiprocessing.get_context
        forked = Forked(request.getfixturevalue("launcher"), path, tmp_path)
        monkeypatch.setattr(
            "multiprocessing.get_context", lambda method=None: forked if method == "spawn" else context(method)
        )
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (130 if name == "detector" else 70)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "warnoptions", ["error"])  # of processes that it starts, whose main module it is
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    found = re.search(TUTORIALS[name], said, flags=re.MULTILINE)
    assert found, said
    if FOUR[:6] in TUTORIALS[name] and len(found.groups()) == 4:
        dense, cut, refitted, retrained = map(float, found.groups())
        lower = name in ("regression", "two_inputs")
        assert (cut > refitted) if lower else (cut < refitted)
        assert abs(retrained - dense) < 0.5 * abs(cut - dense)
    if name == "deploy":
        widths = [int(width) for width in re.findall(r" (\d+)(?:,|$)", said.splitlines()[0])]
        assert len(widths) == 3
        assert all(width % 8 == 0 for width in widths)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "studies/from_python.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert re.search(
        r"^dense 9\d\.\d%, pruned 9\d\.\d% with Cost\(macs=\d+, params=\d+", done.stdout, flags=re.MULTILINE
    )
    assert (tmp_path / "runs/from_python/small.safetensors").is_file()
