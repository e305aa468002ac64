"""What a run has before any training: refitted networks, saved, measured, in every table; `secateur prune`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import secateur
from backbones.artefact import read_artefact
from backbones.errors import SecateurError
from search.cli import main
from search.review.front import Front
from search.run import front_context
from search.run.study_file import read_study, read_written_study, settings, study_toml
from search.training import engine
from tests.search.test_cli import STUDY, called, folder, refused

__all__ = ["folder"]
RUN = Path("runs/tiny")


def written() -> dict[str, int]:
    """The refitted networks and when each was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in (RUN / "refitted").iterdir()}


def with_checkpoint(folder: Path, name: str = "pruned") -> None:
    """`study.toml` of another run, which starts from the network that `tiny` has trained."""
    text = STUDY.replace('"tiny"', f'"{name}"')
    (folder / "study.toml").write_text(
        text.replace('"tiny:net"', '"tiny:net"\ncheckpoint = "runs/tiny/dense.safetensors"')
    )


def test_a_search_ends_with_networks_that_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "search", "study.toml")
    assert code == 0, err
    assert "Refitting: the best 2, on 162 images, nothing trained" in out
    assert 'secateur.load("runs/tiny/refitted.safetensors", dense)' in out
    front = Front.load(RUN)
    shown = [one for one in front.candidates if one.refit is not None]
    assert len(shown) == 2 == len(written())
    tiny: Any = sys.modules["tiny"]
    data = tiny.images()
    for one in shown:
        assert one.refit is not None
        small = secateur.load(one.refit.artefact, tiny.net(3, 1))
        assert secateur.accuracy(small, data, "validation") == one.refit.accuracy
        facts = read_artefact(one.refit.artefact)[0]["provenance"]
        assert (facts["structure"], facts["refitted_on"], facts["left_as_cut"]) == (one.id, 162, {})
        with (RUN / "front.csv").open() as file:
            row = next(row for row in csv.DictReader(file) if row["trial"] == str(one.number))
        assert float(row["refitted_accuracy"]) == one.refit.accuracy
        assert float(row["cut_accuracy"]) == one.refit.cut_accuracy
        page = (RUN / "report.html").read_text()
        assert f"refitted/{one.id}.safetensors" in page
    best = max(shown, key=lambda one: one.refitted_accuracy or 0)
    saved = read_artefact(RUN / "refitted.safetensors")[0]["provenance"]
    assert saved["refitted_accuracy"] == best.refitted_accuracy


def test_what_is_refitted_is_not_refitted_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, made = front_context._refit, list[str]()

    def killed(study: object, one: secateur.Candidate, path: Path, device: str) -> None:
        if made:
            raise KeyboardInterrupt
        made.append(one.id)
        whole(study, one, path, device)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(front_context, "_refit", killed)
        code, _, err = called(capsys, "run", "study.toml", "--quiet")
    assert (code, err.splitlines()[-1]) == (130, "to go on: secateur resume runs/tiny")
    [(name, time)] = written().items()
    assert name == f"{made[0]}.safetensors"
    assert not (RUN / "refitted.safetensors").exists()
    code, out, err = called(capsys, "resume", "runs/tiny", "--json")
    assert code == 0, err
    after = written()
    assert after[name] == time
    assert len(after) == 2
    result = json.loads(out)
    assert len(result["refitted"]) == 2 == len(result["retrained"])
    for one in result["retrained"]:
        assert None not in (one["cut_accuracy"], one["refitted_accuracy"], one["validation_accuracy"])
    assert result["best_refitted"] == str((RUN / "refitted.safetensors").resolve())
    assert called(capsys, "resume", "runs/tiny", "--quiet")[0] == 0
    assert written() == after


def test_pruning_trains_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refused(capsys, "prune", "study.toml")
    assert line == (
        "`secateur prune` trains nothing, so it needs a dense network that is trained: a [model] checkpoint, or "
        "runs/tiny/dense.safetensors, which `secateur search` makes"
    )
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    with_checkpoint(folder)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_run", lambda *given: pytest.fail("a training"))
        code, out, err = called(capsys, "prune", "study.toml")
        assert code == 0, err
        assert 'secateur.load("runs/pruned/refitted.safetensors", dense)' in out
        assert "secateur retrain runs/pruned" in out
        code, result, err = called(capsys, "prune", "study.toml", "--top", "1", "--json")
        assert code == 0, err
    made = json.loads(result)
    assert made["retrained"] == []
    assert "report" not in made
    assert Path(made["best_refitted"]).is_file()
    assert not Path("runs/pruned/report.html").exists()
    assert called(capsys, "run", "study.toml", "--quiet")[0] == 0  # goes on from there
    assert len(Front.load("runs/pruned").baselines) == 5
    front = Path("runs/pruned/front.json").read_text()
    assert called(capsys, "prune", "study.toml", "--quiet")[0] == 0
    assert Path("runs/pruned/front.json").read_text() == front


def test_a_damaged_network_is_refitted_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "search", "study.toml", "--quiet")[0] == 0
    path = next((RUN / "refitted").iterdir())
    whole = path.read_bytes()
    path.write_bytes(b"broken")
    assert called(capsys, "retrain", "runs/tiny", "--quiet")[0] == 0
    assert path.stat().st_size == len(whole)
    secateur.load(path, sys.modules["tiny"].net(3, 1))


def test_retraining_starts_as_the_study_file_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STUDY.replace("top = 2", "top = 1\nrecalibrate = 0").replace('start = "cut"', 'start = "reconstructed"')
    (folder / "study.toml").write_text(text)
    code, out, err = called(capsys, "run", "study.toml")
    assert code == 0, err
    assert "Retraining: the best 1, 2 epochs each, from refitted weights" in out
    assert 'start = "reconstructed"' in (RUN / "study.toml").read_text()
    [one] = [one for one in Front.load(RUN).candidates if one.accuracy is not None]
    assert one.artefact is not None
    assert read_artefact(one.artefact)[0]["provenance"]["recalibrated_accuracy"] == one.refitted_accuracy


def test_a_start_that_does_not_exist_is_refused(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace('start = "cut"', 'start = "refitted"'))
    with pytest.raises(
        SecateurError, match=r"\[retrain\] unknown start 'refitted'; known are auto, cut, reconstructed"
    ):
        read_study(folder / "study.toml")


def test_a_run_of_before_started_as_cut(folder: Path) -> None:
    study = read_study(folder / "study.toml")
    written = study_toml(study)
    assert settings(study)["[retrain] start"] == "cut"
    (folder / "old.toml").write_text("".join(row for row in written.splitlines(True) if not row.startswith("start =")))
    assert read_written_study(folder / "old.toml").fingerprint == study.fingerprint
    (folder / "new.toml").write_text(written.replace('start = "cut"', 'start = "reconstructed"'))
    assert read_written_study(folder / "new.toml").fingerprint != study.fingerprint


def test_the_template_names_the_start(folder: Path) -> None:
    assert main(["init", "new.toml", "--quiet"]) == 0
    assert '# start = "cut"' in (folder / "new.toml").read_text()
