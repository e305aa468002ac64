"""Tasks of study files: found by import path, run, shared by workers; examples that `secateur init` writes."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from backbones.errors import SecateurError
from search.data.task import CLASSIFICATION, MetricSpec
from search.review.front import Front
from search.run.inputs import importable, load_inputs, read_task
from search.run.sections import TaskSection
from search.run.stages import check_before_training
from search.run.study_file import StudyFile, read_study, read_written_study, study_toml
from search.run.template import EXAMPLE_FILES
from search.study.stored import open_study
from tests.search.test_cli import called

MODULE = """
import torch
from torch import nn
import secateur as sc

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 12, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(12, 1)

    def forward(self, signal, gain):
        return {"level": self.head(self.body(signal).mean(2)) * gain}

def net():
    return Net()

def loss(outputs, targets):
    return (outputs["level"] - targets).square().mean()

def error(outputs, targets):
    return (outputs["level"] - targets).abs().flatten()

def task():
    return sc.Task(loss, error, name="error", direction="lower", unit="V")

def signals(task):
    draw = torch.Generator().manual_seed(0)
    signal, gain = torch.randn(120, 1, 16, generator=draw), torch.rand(120, 1, generator=draw)
    level = signal.abs().mean(2) * gain
    parts = [({"signal": signal[w], "gain": gain[w]}, level[w]) for w in (slice(0, 96), slice(96, 120))]
    return sc.Data.from_tensors("signals", parts[0], parts[1], task=task)

def flat():
    return sc.Task(lambda outputs, targets: targets.sum(), error, direction="lower")

class Wrong:
    pass
"""
STUDY = """
name = "volts"
[model]
factory = "volts:net"
[data]
factory = "volts:signals"
[task]
factory = "volts:task"
[dense]
epochs = 2
batch_size = 16
lr = 0.02
[budget]
macs = "30%..60%"
[search]
trials = 6
batch = 24
[retrain]
top = 2
epochs = 1
batch_size = 16
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "volts.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("volts", *(file.removesuffix(".py") for file in EXAMPLE_FILES.values())):
        sys.modules.pop(name, None)


def test_a_task_by_import_path_is_run_and_shared_by_workers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "run", "study.toml")
    assert code == 0, err
    assert "refitted (validation error)" in out
    assert "test error, V (lower is better)" in out
    assert "The first is the best by validation error" in out
    front = Front.load(folder / "runs/volts")
    assert front.metric == MetricSpec("error", "lower", "V")
    best = front.best()
    assert best.accuracy == min(one.accuracy for one in front.candidates if one.accuracy is not None)
    with (folder / "runs/volts/front.csv").open() as file:
        assert "test_error" in next(csv.reader(file))
    stored = open_study(folder / "runs/volts")
    assert stored.front().best().id == best.id
    assert " V error (validation), " in str(stored.status())
    assert "Error after retraining, against MACs" in (folder / "runs/volts/report.html").read_text()
    code, out, err = called(capsys, "work", "study.toml", "--json")  # a worker imports the task by its path
    assert code == 0, err
    assert json.loads(out)["retrained"][0]["validation_error"] == best.accuracy
    assert not [path for path in (folder / "runs").rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_loss_and_metric_by_import_path(folder: Path) -> None:
    with importable(folder):
        task = read_task(TaskSection(loss="volts:loss", metric="torchmetrics:MeanAbsoluteError", unit="V"))
        assert task is not None
        assert task.spec == MetricSpec("MeanAbsoluteError", "lower", "V")
        assert read_task(TaskSection()) is None
        own = read_task(TaskSection(loss="volts:loss", metric="volts:error", direction="lower", name="e"))
        assert own is not None
        assert own.metric.__module__ == "volts"


BAD = {
    'loss = "volts:loss"': "needs loss and metric, but got loss without metric",
    'factory = "volts:task"\nunit = "V"': "takes factory or the parts of a task, but got factory and unit",
    'factory = "volts:nothing"': "has no such function",
    'factory = "volts:net"': "must return a Task, but returned Net",
    'loss = "volts:loss"\nmetric = "volts:error"': "direction of metric 'error' must be 'higher' or 'lower'",
    'loss = "volts:loss"\nmetric = "volts:Wrong"': "metric must be a function",
    'loss = "volts:loss"\nmetric = "volts:error"\ndirection = "up"': "must be 'higher' or 'lower', but got 'up'",
    'factory = "volts:flat"': "a number without a gradient",
}


@pytest.mark.parametrize("section", BAD)
def test_a_task_that_cannot_be_used_is_one_line(section: str, folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace('factory = "volts:task"', section))
    with pytest.raises(SecateurError, match=BAD[section]):
        checked(folder)


def checked(folder: Path) -> None:
    """What a run does before it trains anything."""
    study = read_study(folder / "study.toml")
    check_before_training(study, load_inputs(study, folder, "cpu"))


CLASSES = {
    '[search]\nscorer = "adaptive_bn"': r"scorer 'adaptive_bn' needs classes, which the task has not; these do not: n",
    '[search]\nscorer = "fidelity+region_separation"': "scorer 'region_separation' needs classes",
    '[space]\ncriterion = "taylor"\n[search]': "criterion 'taylor' needs classes, which the task has not; these do",
    '[space]\nremoval = "accuracy"\n[search]': "removal by 'accuracy' needs classes",
    "[retrain]\nlabel_smoothing = 0.1\n[search]": "label_smoothing is of classification",
}


@pytest.mark.parametrize("section", CLASSES)
def test_what_needs_classes_is_refused_by_name(section: str, folder: Path) -> None:
    text = STUDY.replace("[search]", section)
    (folder / "study.toml").write_text(text.rpartition("[retrain]")[0])
    with pytest.raises(SecateurError, match=CLASSES[section]):
        checked(folder)


def test_a_data_set_with_classes_refuses_a_task_without(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace('factory = "volts:signals"', 'name = "digits"'))
    with pytest.raises(
        SecateurError, match="num_classes and classes are of tasks with classes, not of one with metric"
    ):
        load_inputs(read_study(folder / "study.toml"), folder, "cpu")


def test_a_study_without_a_task_is_what_it_was(folder: Path) -> None:
    study = read_study(folder / "study.toml")
    plain = StudyFile(study.name, study.model, study.data, study.budget)
    assert "[task]" in study_toml(study)
    (folder / "old.toml").write_text(study_toml(plain).replace("[task]\n", ""))
    assert read_written_study(folder / "old.toml").fingerprint == plain.fingerprint != study.fingerprint


@pytest.mark.parametrize("task", EXAMPLE_FILES)
def test_examples_are_written_whole_and_can_be_loaded(
    task: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, "init", "--task", task, "own.toml")
    assert code == 0, err
    assert f"wrote own.toml and {EXAMPLE_FILES[task]}; to run it: secateur run own.toml" in out
    assert called(capsys, "init", "--task", task, "other.toml")[0] == 2  # the Python file is there
    assert not (folder / "other.toml").exists()
    study = read_study(folder / "own.toml")
    inputs = load_inputs(study, folder, "cpu")
    check_before_training(study, inputs)
    assert (inputs.data.task is CLASSIFICATION) == (task == "classification")
    runpy.run_path(EXAMPLE_FILES[task])  # by itself it does nothing
    assert torch.is_tensor(inputs.data.example)


@pytest.mark.slow
@pytest.mark.parametrize("task", EXAMPLE_FILES)
def test_examples_run(task: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "init", "--task", task, "own.toml")[0] == 0
    code, out, err = called(capsys, "run", "own.toml", "--json")
    assert code == 0, err
    found, metric = json.loads(out), json.loads(out)["metric"]
    key = MetricSpec(**metric).key
    [best], dense = found["retrained"], found["dense"]
    gap = abs(best[f"cut_{key}"] - dense[f"validation_{key}"])
    assert abs(best[f"validation_{key}"] - dense[f"validation_{key}"]) <= 0.5 * gap  # a good cut may lose nothing
