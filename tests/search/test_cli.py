"""The command line, end to end on a tiny study: what it writes, what it prints, what it refuses, what it survives."""

from __future__ import annotations

import importlib
import json
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur
from search.cli import main
from tests.launcher import Launcher, Process

MODULE = """
import torch
from torch import nn
import secateur as sc

def net(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, num_classes))

def images():
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(80)
    pictures = torch.rand(240, 1, 8, 8, generator=draws) * 0.5
    for label in range(3):
        pictures[labels == label, :, 2 * label : 2 * label + 3] += 0.5
    return sc.Data.from_tensors("stripes", (pictures[:180], labels[:180]), (pictures[180:], labels[180:]))

def frozen(num_classes, in_channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))

class Own(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)

def own(num_classes, in_channels):
    layers = Own(64 * in_channels, 6), nn.ReLU(), Own(6, 5), nn.ReLU(), nn.Linear(5, num_classes)
    return nn.Sequential(nn.Flatten(), *layers)

def poisoned(num_classes, in_channels):
    model = net(num_classes, in_channels)
    model[0].weight.data[0, 0, 0, 0] = float("nan")
    return model

def wrong():
    return 3
"""
STUDY = """
name = "tiny"
[model]
factory = "tiny:net"
[data]
factory = "tiny:images"
[dense]
epochs = 2
batch_size = 32
[budget]
macs = "30%..50%"
[space]
kind = "hybrid"
[search]
trials = 8
batch = 32
scorer = "region_kernel"
sampler = "tpe"
warm_start = []
[retrain]
start = "cut"
top = 2
epochs = 2
batch_size = 32
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("tiny", None)


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which input is refused."""
    code, out, err = called(capsys, *arguments)
    assert (code, out) == (2, ""), err
    [line] = err.splitlines()
    assert line.startswith("secateur: error: ")
    return line.removeprefix("secateur: error: ")


def change(folder: Path, old: str, new: str) -> None:
    assert old in STUDY
    (folder / "study.toml").write_text(STUDY.replace(old, new, 1))


def finished_trials(folder: Path) -> int:
    """Trials that the run's database holds as finished; 0 before there is one."""
    database = folder / "runs/tiny/study.db"
    if not database.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            row = connection.execute("select count(*) from trials where state in ('COMPLETE', 'PRUNED')").fetchone()
    except sqlite3.OperationalError:
        return 0
    return int(row[0])


def wait_for_trials(folder: Path, process: Process, count: int) -> None:
    end = time.monotonic() + 120
    while finished_trials(folder) < count:
        assert process.is_running(), process.errors
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.drawn
def test_from_study_file_to_a_network_that_loads_in_a_new_process(
    folder: Path, capsys: pytest.CaptureFixture[str], launcher: Launcher
) -> None:
    code, out, err = called(capsys, "run", "study.toml")
    assert code == 0, err
    run = folder / "runs/tiny"
    written = {path.name for path in run.iterdir()}
    assert written >= {
        "study.toml", "study.db", "dense.safetensors", "front.json", "front.csv", "front.png", "front.svg",
        "report.html", "best.safetensors", "best.json", "run.json",
    }  # fmt: skip
    assert not [name for name in written if name.endswith(".part")]
    assert "smallest reachable" in out
    assert "secateur resume runs/tiny" in out
    assert "runs/tiny/report.html" in out
    assert max(len(line) for line in out.splitlines()) <= 80

    code, out, err = called(capsys, "run", "study.toml", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["name"], result["trials"], len(result["retrained"])) == ("tiny", 8, 2)
    best = result["retrained"][0]
    assert best["macs"] <= 0.5 * result["dense"]["macs"]
    script = (
        "import sys; sys.path.append('.'); import secateur as sc, tiny\n"
        f"model = sc.load({str(run / 'best.safetensors')!r}, tiny.net(3, 1))\n"
        "print(sc.accuracy(model, tiny.images()), sum(p.numel() for p in model.parameters()))"
    )
    accuracy, params = launcher.printed(script, folder).split()
    assert float(accuracy) == best["test_accuracy"]
    assert int(params) == best["params"]
    card = json.loads((run / "best.json").read_text())
    assert (card["structure"], card["test"]["retrained"]) == (best["structure"], best["test_accuracy"])
    assert card["study"]["budget"]["macs"] == "30%..50%"
    assert card["footprint"]["network"]["single"] > 0
    assert card["environment"]["torch"] == torch.__version__

    pytest.importorskip("onnxruntime", reason="comes with the test extra")
    code, out, err = called(capsys, "export", "runs/tiny", "--to", "onnx-int8", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["file"].endswith("runs/tiny/best.int8.onnx")
    assert found["module"]["test"] == best["test_accuracy"]
    assert found["export"]["test"] >= best["test_accuracy"] - 0.02
    assert json.loads((run / "run.json").read_text())["exports"] == {"best.int8.onnx": found}


def test_an_engine_that_is_not_there_is_told_before_anything_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name.startswith("onnx"):
            raise ImportError(name=name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    (folder / "study.toml").write_text(STUDY.replace("[budget]", '[budget]\nengine = "onnxruntime"'))
    assert refused(capsys, "run", "study.toml", "--quiet") == (
        "ONNX needs onnx; install it with: pip install onnx onnxruntime onnxscript"
    )
    assert not (folder / "runs/tiny/dense").exists()


@pytest.mark.slow  # a dozen exports
def test_a_budget_of_latency_in_onnxruntime(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="comes with the test extra")
    budget = 'latency = "90%"\nengine = "onnxruntime"\nlatency_batch = 8'
    (folder / "study.toml").write_text(STUDY.replace('macs = "30%..50%"', budget))
    code, out, err = called(capsys, "run", "study.toml")
    assert code == 0, err
    assert max(len(line) for line in out.splitlines()) <= 80
    assert re.search(r"^onnxruntime, \d+ threads?, a batch of 8; predictions are off by up to \d", out, re.MULTILINE)
    figures = r"\d+\.\d +\d+\.\d +\d+\.\d +[+-]\d+\.\d % +(held|over)"
    assert re.search(rf"^[0-9a-f]{{12}} +\d+.* {figures}$", out, re.MULTILINE)
    assert re.search(r"^ms, 1 sample, onnxruntime, \d", out, re.MULTILINE)
    footprint = json.loads((folder / "runs/tiny/best.json").read_text())["footprint"]["network"]
    assert (footprint["engine"], footprint["batch"]) == ("onnxruntime", 8)
    assert (folder / "runs/tiny/plots/latency.png").is_file()
    code, out, err = called(capsys, "run", "study.toml", "--json")
    assert code == 0, err
    one = json.loads(out)["retrained"][0]
    assert one["over_latency"] == (one["batch_seconds"] > one["latency_limit"])


def test_search_alone_then_retrain_then_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "search", "study.toml")
    assert code == 0, err
    assert "secateur retrain runs/tiny" in out
    assert not (folder / "runs/tiny/best.safetensors").exists()
    code, out, err = called(capsys, "retrain", "runs/tiny", "--top", "1", "--json")
    assert code == 0, err
    assert len(json.loads(out)["retrained"]) == 1

    code, out, err = called(capsys, "retrain", "runs/tiny", "--finalists", "4", "--epochs", "8")
    assert code == 0, err
    assert "Retraining: 4 finalists: 4 x 1, 2 x 2, 1 x 8 epochs, 2 times one retraining\n" in out
    assert {"2 epochs, lr 0.02:", "8 epochs, lr 0.05:"} <= set(out.splitlines())  # the retraining before, and this one
    assert re.search(r"^finalist .* rung  1 epoch  2 epochs  8 epochs$", out, flags=re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
    code, out, err = called(capsys, "status", "runs/tiny")
    assert re.findall(r"^  trial \d+(?: \(\w+\))?, \w+  (\S+ of \S+ epochs), lr 0\.05:", out, flags=re.MULTILINE) == [
        "2 of 8 epochs",
        *2 * ["1 of 8 epochs"],
    ]
    (folder / "runs/tiny/report.html").unlink()
    code, out, err = called(capsys, "report", "runs/tiny")
    assert (code, out) == (0, f"wrote {folder / 'runs/tiny/report.html'}\n"), err
    assert "several" not in out
    assert (folder / "runs/tiny/report.html").stat().st_size > 10_000


def test_running_again_does_nothing_twice_and_more_trials_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    before = json.loads((folder / "runs/tiny/front.json").read_text())
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    assert json.loads((folder / "runs/tiny/front.json").read_text()) == before
    assert called(capsys, "search", "study.toml", "--quiet", "--trials", "12")[0] == 0
    after = json.loads((folder / "runs/tiny/front.json").read_text())
    assert len(after["fronts"][0]["candidates"]) == 12
    first, now = ([{**one, "refit": None} for one in each["fronts"][0]["candidates"]] for each in (before, after))
    assert now[:8] == first  # but for another structure that may be refitted


def test_killed_in_mid_search_and_resumed_it_ends_as_if_it_never_was(
    folder: Path, capsys: pytest.CaptureFixture[str], launcher: Launcher
) -> None:
    change(folder, "trials = 8", "trials = 30")
    process = launcher.start("search.cli:main", "search", "study.toml", "--quiet", folder=folder)
    wait_for_trials(folder, process, 5)
    assert process.kill() == -signal.SIGKILL
    assert finished_trials(folder) < 30
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    killed = facts(folder / "runs/tiny/front.json")

    code, _, err = called(capsys, "search", "study.toml", "--quiet", "--runs", "whole")
    assert code == 0, err
    assert killed == facts(folder / "whole/tiny/front.json")
    assert len(killed) == 30


def facts(front: Path) -> list[tuple[object, ...]]:
    """Of every finished trial: what was proposed, the structure, its cost and its score."""
    [record] = json.loads(front.read_text())["fronts"]
    return [(one["parameters"], one["structure"], one["cost"], one["score"]) for one in record["candidates"]]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_says_how_to_go_on(folder: Path, launcher: Launcher, sent: signal.Signals, code: int) -> None:
    change(folder, "trials = 8", "trials = 5000")
    process = launcher.start("search.cli:main", "run", "study.toml", "--quiet", folder=folder)
    wait_for_trials(folder, process, 3)
    process.send(sent)
    assert process.wait() == code, process.errors
    assert process.out == ""
    assert process.errors.splitlines()[-2:] == ["stopped", "to go on: secateur resume runs/tiny"]
    with sqlite3.connect(folder / "runs/tiny/study.db") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials = 8", "trails = 8", "study.toml: [search] has no key 'trails'; did you mean 'trials'?"),
        ("trials = 8", 'trials = "8"', "study.toml: [search] trials must be a whole number, but got '8'"),
        (
            '"30%..50%"',
            '"0.1%"',
            "cannot be reached; under the rate limits (max_rate=0.9, min_channels=1) the nearest",
        ),
        ('"tiny:net"', '"tiny:frozen"', "the network has no prunable group"),
        ('"tiny:net"', '"tiny:poisoned"', "0.weight holds NaN or infinite values; every weight must be finite"),
        ('"tiny:net"', '"tiny:nett"', "[model] factory 'tiny:nett': tiny ({folder}/tiny.py) has no such function"),
        ('"tiny:net"', '"search.net:make"', "search is a package of secateur's own, so give yours another name"),
        ('"tiny:net"', '"tinyy:net"', "[model] factory 'tinyy:net': importing tinyy raised ModuleNotFoundError"),
        ('"tiny:net"', '"tiny.net"', "[model] factory must be \"package.module:function\", but got 'tiny.net'"),
        ('"tiny:images"', '"tiny:wrong"', "[data] factory 'tiny:wrong' must return a Data, but returned int"),
        (
            'factory = "tiny:net"',
            'backbone = "resnet21"',
            "[model] unknown backbone 'resnet21'; did you mean 'resnet",
        ),
        ('factory = "tiny:images"', 'name = "digit"', "[data] unknown data set 'digit'; did you mean 'digits'?"),
        ('sampler = "tpe"', 'sampler = "tpee"', "did you mean 'tpe'?"),
        ('scorer = "region_kernel"', 'scorer = "naswott"', "did you mean 'naswot'?"),
        ("epochs = 2", "epochs = 0", "[dense] epochs must be a whole number >= 1, but got epochs=0"),
        ("batch = 32", "batch = 9999", "1 <= batch size <= "),
    ],
)
def test_bad_input_costs_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    change(folder, old, new)
    assert message.replace("{folder}", str(folder)) in refused(capsys, "run", "study.toml")
    assert not (folder / "runs/tiny/dense.safetensors").exists(), "found out only after a training"


def test_a_budget_between_two_structures_names_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, '"30%..50%"', '"29.4%..30%"')
    line = refused(capsys, "run", "study.toml")
    assert "no structure of this network lies within 17,622 <= macs <= 17,982" in line
    assert "the nearest reachable are macs 17,307 and 18,441" in line


def test_a_missing_data_folder_says_where_the_data_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, 'factory = "tiny:images"', 'name = "cifar10"\nfolder = "nowhere"')
    line = refused(capsys, "run", "study.toml")
    assert f"{folder}: nowhere is missing; CIFAR-10 is published at https://" in line


def test_a_checkpoint_that_does_not_fit_names_three_tensors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"module.conv.weight": torch.zeros(1)}}, folder / "weights.pt")
    change(folder, 'factory = "tiny:net"', 'factory = "tiny:net"\ncheckpoint = "weights.pt"')
    line = refused(capsys, "run", "study.toml")
    assert (
        "weights.pt does not fit Sequential: 0.weight is missing; 0.bias is missing; 1.weight is missing and " in line
    )


def test_a_checkpoint_that_fits_is_not_trained_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    other = STUDY.replace('"tiny"', '"other"').replace(
        'factory = "tiny:net"', 'factory = "tiny:net"\ncheckpoint = "runs/tiny/dense.safetensors"'
    )
    (folder / "study.toml").write_text(other)
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    assert not (folder / "runs/other/dense").exists()
    assert facts(folder / "runs/other/front.json") == facts(folder / "runs/tiny/front.json")


def test_the_folder_of_another_study_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    before = (folder / "runs/tiny/study.toml").read_text()
    change(folder, 'sampler = "tpe"', 'sampler = "random"')
    line = refused(capsys, "run", "study.toml")
    assert line.startswith('runs/tiny holds another study: [search] sampler is "random", not "tpe" there; ')
    assert (folder / "runs/tiny/study.toml").read_text() == before


def test_a_folder_that_is_no_run_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs/tiny").mkdir(parents=True)
    (folder / "runs/tiny/thesis.tex").touch()
    assert "runs/tiny exists and is no run folder" in refused(capsys, "run", "study.toml")
    assert "runs/none is no run folder: it has no study.toml" in refused(capsys, "resume", "runs/none")
    assert [path.name for path in (folder / "runs/tiny").iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_share_a_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], launcher: Launcher
) -> None:
    change(folder, "trials = 8", "trials = 5000")
    process = launcher.start("search.cli:main", "search", "study.toml", folder=folder)
    try:
        wait_for_trials(folder, process, 1)
        assert f"runs/tiny is in use by process {process.pid}" in refused(capsys, "search", "study.toml")
    finally:
        process.kill()


def test_inspect_shows_groups_and_what_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "study.toml"]) == 0
    out = capsys.readouterr().out
    assert "prunable groups" in out
    assert "network output" in out
    assert main(["inspect", "study.toml", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["dense"]["macs"] > record["minimum"]["macs"] > 0
    assert all(group["layers"] for group in record["groups"])
    assert record["criterion"] == {"name": "reconstruction", "reason": "", "in_flow": "reconstruction"}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("batch = 32", "batch = 32", "filters go by reconstruction"),
        ('kind = "hybrid"', 'kind = "hybrid"\ncriterion = "l1"', "filters go by l1"),
        ('kind = "hybrid"', 'kind = "hybrid"\nremoval = "cosine"', "filters go by l2: reconstruction was measured in .*"
         "here layers may go"),
        ('factory = "tiny:net"', 'factory = "tiny:own"', "filters go by l2: criterion 'reconstruction' needs a "
         "convolution or linear layer that .* but group '1' has none that ran; .*"),
        ("top = 2", 'top = 2\nflow = "soft"', "filters go by reconstruction the flow soft chooses them again as "
         "weights change, by l2"),
    ],
)  # fmt: skip
def test_inspect_says_by_what_filters_go(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, line: str
) -> None:
    change(folder, old, new)
    code, out, err = called(capsys, "inspect", "study.toml")
    assert (code, err) == (0, "")
    assert re.fullmatch(line, " ".join(out[out.index("filters go by") :].split()))


def test_inspect_says_that_a_group_is_too_wide(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.space.space.WIDEST_ORDERED", 3)
    out = called(capsys, "inspect", "study.toml")[1]
    assert "filters go by l2: reconstruction takes minutes for groups of more than 3 channels" in " ".join(out.split())
    assert not (folder / "runs").exists()


def test_init_writes_a_study_and_replaces_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "init", "new.toml")
    assert (code, out) == (0, "wrote new.toml; to run it: secateur run new.toml\n")
    assert "new.toml exists; choose another name, or --force" in refused(capsys, "init", "new.toml")
    assert called(capsys, "init", "new.toml", "--force")[0] == 0
    assert "the folder nowhere does not exist" in refused(capsys, "init", "nowhere/new.toml")


def test_arguments_that_do_not_exist_cost_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice: 'shrink'" in refused(capsys, "shrink")
    assert "unrecognized arguments: --fast (see secateur --help)" in refused(capsys, "run", "x.toml", "--fast")
    assert "the following arguments are required: STUDY.toml" in refused(capsys, "run")
    assert "--device nonsense cannot be used here" not in refused(capsys, "run", "x.toml", "--device", "nonsense")


def test_help_fits_a_terminal_and_shows_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = called(capsys, "--help")
    assert code == 0
    assert "secateur run study.toml" in out
    assert "130  stopped by Ctrl-C" in out
    for command in ("init", "inspect", "run", "search", "resume", "retrain", "report"):
        code, page, _ = called(capsys, command, "--help")
        assert code == 0
        assert max(len(line) for line in (out + page).splitlines()) <= 80
    assert called(capsys, "--version")[1] == f"secateur {secateur.__version__}\n"


def test_a_bug_is_called_one_and_debug_shows_where(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("search.commands.study_file.write_text", broken)
    code, out, err = called(capsys, "init", "new.toml")
    assert (code, out) == (1, "")
    assert err == "secateur: error: a bug in secateur: ZeroDivisionError: of all things; --debug shows where\n"
    code, _, err = called(capsys, "init", "new.toml", "--debug")
    assert code == 1
    assert "Traceback" in err
