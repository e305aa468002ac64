"""Completion scripts, read and used by the shells themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from search.cli import main

# What bash does when Tab is pressed after the words: fill COMP_WORDS, call the function that `complete` names.
TAB = """
source ./script
name=$(complete -p secateur | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
tab() { COMP_WORDS=(secateur "$@"); COMP_CWORD=$#; COMPREPLY=(); "$name"; printf '%s\\n' "${COMPREPLY[@]}"; }
"""


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "runs/digits").mkdir(parents=True)
    (tmp_path / "study.toml").touch()
    (tmp_path / "notes.md").touch()
    return tmp_path


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    (folder / "script").write_text(capsys.readouterr().out)


def shown(folder: Path, *command: str) -> list[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("re", ["resume", "retrain", "report"]),
        ("run --tr", ["--trials"]),
        ("run ''", ["study.toml", "runs"]),  # study files and folders on the way to them, no others
        ("inspect st", ["study.toml"]),
        ("resume runs/", ["runs/digits"]),
        ("search study.toml --runs ru", ["runs"]),
        ("run study.toml --fork runs/d", ["runs/digits"]),
        ("report runs/digits -o ru", ["runs"]),
        ("status runs/", ["runs/digits"]),
        ("completion ''", ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(words: str, offered: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("bash", folder, capsys)
    assert shown(folder, "bash", "-c", f"{TAB}\ntab {words}") == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("fish", folder, capsys)

    def tab(words: str) -> list[str]:
        return shown(folder, "fish", "--no-config", "-c", f'source script; complete -C "secateur {words}"')

    assert sorted(tab("re")) == ["report", "resume", "retrain"]
    assert tab("run --tr") == ["--trials"]
    assert tab("inspect st") == ["study.toml"]
    assert tab("resume runs/") == ["runs/digits/"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_the_script(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script("zsh", folder, capsys)
    code = (
        'autoload -U compinit; compinit -D -u; eval "$(cat script)"; print $_comps[secateur]; whence -w _shtab_secateur'
    )
    assert shown(folder, "zsh", "-fc", code) == ["_shtab_secateur", "_shtab_secateur: function"]


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["shell"] == "zsh"
    assert record["script"].startswith("#compdef secateur")
