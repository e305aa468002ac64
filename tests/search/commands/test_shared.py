"""The commands around a shared study: work, status, --fork, --jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backbones.errors import SecateurError
from search.cli import main
from search.run.folder import RunFolder
from search.study.stored import open_study
from tests.search.test_cli import MODULE, STUDY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_work_status_and_fork_go_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work", "study.toml", "--trials", "8", "--top", "1", "--quiet"]) == 0  # trains the dense network too
    assert main(["search", "study.toml", "--jobs", "2", "--quiet"]) == 0
    assert main(["status", "runs/tiny"]) == 0
    assert "trials: 8 scored" in capsys.readouterr().out
    assert main(["work", "study.toml", "--trials", "12", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["trials"] == 12
    assert len(result["retrained"]) in (2, 3)  # the two best of 12, and the best of the first 8 where it is another
    assert main(["status", "runs/tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["retrained"] == {"scored": len(result["retrained"])}
    assert told["trials"]["scored"] + told["trials"].get("infeasible", 0) == 12

    (folder / "new.toml").write_text(STUDY.replace('"tiny"\n[model]', '"new"\n[model]').replace("30%..50%", "20%..45%"))
    assert main(["search", "new.toml", "--fork", "runs/tiny", "--trials", "20"]) == 0
    assert "taken from runs/tiny: " in capsys.readouterr().out
    assert main(["search", "new.toml", "--fork", "runs/tiny", "--trials", "22"]) == 0  # goes on
    assert "has trials of its own" in capsys.readouterr().out
    assert main(["search", "new.toml", "--fork", "runs/new"]) == 2
    assert "cannot be forked from itself" in capsys.readouterr().err


def test_status_of_what_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "runs/none"]) == 2
    assert main(["status", "sqlite:///none.db"]) == 2
    assert main(["status", "postgresql+psycopg://me:hunter2@127.0.0.1:1/none"]) == 2
    said = capsys.readouterr().err
    assert said.count("secateur: error:") == 3
    assert "hunter2" not in said
    assert not (folder / "none.db").exists()


def test_a_folder_knows_which_storage_it_belongs_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["work", "study.toml", "--storage", "journal:///shared.log", "--top", "1", "-q"]) == 0
    assert not (folder / "runs/tiny/study.db").exists()
    best = (folder / "runs/tiny/best.safetensors").read_bytes()
    capsys.readouterr()
    for command in (["status", "runs/tiny"], ["resume", "runs/tiny", "--trials", "10", "-q"], ["status", "runs/tiny"]):
        assert main(command) == 0
    said = capsys.readouterr().out
    assert "in journal:///" in said
    assert "trials: 10 scored" in said
    assert not (folder / "runs/tiny/study.db").exists()
    assert (folder / "runs/tiny/best.safetensors").read_bytes() == best
    assert [one.number for one in open_study("runs/tiny").candidates()] == list(range(10))
    assert main(["work", "study.toml", "--storage", "sqlite:///other.db"]) == 2
    assert "runs/tiny holds the results of the study in journal:///" in capsys.readouterr().err
    assert not (folder / "other.db").exists()
    shutil.copytree(folder / "runs/tiny", folder / "elsewhere/tiny")
    (folder / "elsewhere/tiny/dense.safetensors").unlink()
    assert main(["work", "study.toml", "--runs", "elsewhere"]) == 2
    assert "has begun with a dense network that is not here: copy dense.safetensors" in capsys.readouterr().err
    assert main(["search", "study.toml", "--runs", "alone", "-q"]) == 0
    assert main(["work", "study.toml", "--runs", "alone", "--storage", "sqlite:///other.db"]) == 2
    assert "alone/tiny holds the results of the study in its own study.db" in capsys.readouterr().err


def test_the_password_of_a_storage_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(folder / "run")
    run.path.mkdir()
    url = "postgresql+psycopg://me:hunter2@host/db"
    run.belongs_to(url)
    assert "hunter2" not in run.record_file.read_text()
    with pytest.raises(SecateurError, match=r"belongs to the study in .*me:\*\*\*@host/db: export SECATEUR_STORAGE"):
        run.storage  # noqa: B018 - it is read
    monkeypatch.setenv("SECATEUR_STORAGE", url)
    assert run.storage == url
