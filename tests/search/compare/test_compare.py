"""`secateur compare`: variants side by side, what is shared, what is resumed, what is measured."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

import secateur
from search.compare.results import Comparison
from search.compare.variant import DenseResult, SeedStats, SparseResult, VariantResult, seed_netscores
from search.review.footprint import Footprint
from search.run.stages import search_stage
from search.study.retraining_task import RetrainConfig, RetrainingTask
from tests.search.run.test_task_section import MODULE as VOLTS
from tests.search.run.test_task_section import STUDY as VOLTS_STUDY
from tests.search.test_cli import STUDY, called, folder, refused

__all__ = ["folder"]

COMPARED = (
    'scale = "small"\n'
    + STUDY
    + """
[compare]
seeds = 2
[scales.small.retrain]
epochs = 1
top = 1
[scales.small.data]
images = 90
[variants.search.sparsify]
amount = 0.5
epochs = 1
batch_size = 32
[variants.search.retrain]
epochs = 2
finalists = 2
[variants.uniform.search]
rule = "uniform"
[variants.steps.dense]
slim = 0.01
[variants.steps.space]
kind = "global"
criterion = "bn_gamma"
fixed = {exponent = 0.0}
[variants.steps.retrain]
flow = "iterative"
steps = 2
"""
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was retrained, as it happens."""
    seen: list[str] = []
    whole = RetrainingTask.run

    def watched(self: RetrainingTask, one: Any, config: RetrainConfig, *rest: Any) -> dict[str, Any]:
        seen.append(f"{one.id}-{config.recipe.seed}")
        return whole(self, one, config, *rest)

    monkeypatch.setattr(RetrainingTask, "run", watched)
    return seen


def test_from_variants_to_tables_and_again_without_training(
    folder: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "study.toml").write_text(COMPARED)
    code, out, err = called(capsys, "compare", "study.toml")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    assert len(trained) == 8
    assert len(set(trained)) == 7  # the first seed chose between two, in a short training each
    assert out.count("dense network: 2 epochs") == 2  # one for two variants, one for the slimmed
    place = folder / "runs/tiny-small/compare"
    assert {path.name for path in place.iterdir()} == {
        "compare.json", "compare.md", "compare.csv", "search", "uniform", "steps",
    }  # fmt: skip
    first = json.loads((place / "compare.json").read_text())
    check_numbers(first, place)

    known = secateur.compare("study.toml", variants=["search"], progress=False)
    assert [(one.variant, one.structure) for one in known.variants] == [("search", first["variants"][0]["structure"])]
    code, out, err = called(capsys, "compare", "study.toml", "--json")
    assert code == 0, err
    assert len(trained) == 8
    again = json.loads(out)
    unchanged = ("variant", "structure", "macs", "params", "validation", "test", "sparse", "scored", "search_seconds")
    for one, other in zip(first["variants"], again["variants"], strict=True):
        assert {key: one[key] for key in unchanged} == {key: other[key] for key in unchanged}

    code, out, err = called(capsys, "compare", "study.toml", "--seeds", "3", "--variants", "uniform", "--json")
    assert code == 0, err
    assert trained[8:] == [f"{first['variants'][1]['structure']}-2"]
    [alone] = json.loads(out)["variants"]
    assert alone["test"]["values"][:2] == first["variants"][1]["test"]["values"]
    assert len(alone["test"]["values"]) == 3


def check_numbers(result: dict[str, Any], place: Path) -> None:
    assert (result["name"], result["seeds"]) == ("tiny-small", 2)
    assert {"command", "time", "torch", "platform", "cpus", "device", "threads"} <= set(result["environment"])
    assert str(place.parent) not in json.dumps(result)  # the file can be published as it is
    plain, slimmed = result["dense"]
    assert plain["label"] == "dense net (search)"
    assert slimmed["label"] == "dense net (steps)"
    search, uniform, steps = result["variants"]
    assert [one["whole"] for one in (search, uniform, steps)] == [plain["label"], plain["label"], slimmed["label"]]
    assert (search["scored"] > 1, uniform["scored"]) == (True, 1)
    for one, dense in ((search, plain), (uniform, plain), (steps, slimmed)):
        assert 0.3 <= one["macs_share"] <= 0.5
        assert one["drop"] == pytest.approx(dense["test"] - statistics.fmean(one["test"]["values"]))
        assert one["footprint"]["disk"] < dense["footprint"]["disk"]
        model = secateur.load(place / one["artefacts"][0], __import__("tiny").net(3, 1))
        assert sum(value.numel() for value in model.parameters()) == one["params"]["values"][0]
        score = secateur.netscore(one["test"]["values"][0], one["params"]["values"][0], one["macs"]["values"][0])
        assert one["netscore"]["values"][0] == pytest.approx(score)
    sparse = search["sparse"]
    assert uniform["sparse"] is None
    assert sparse["masked"]["values"][0] + sparse["nonzero"]["values"][0] == search["params"]["values"][0]
    assert 0 < sparse["sparsity"] <= 0.5  # of the weights half, but norms and biases stay
    [*_, weights] = sorted((place / "search/sparse").glob("*/network.safetensors"))
    zero = sum(int((value == 0).sum()) for value in secateur.load(weights, __import__("tiny").net(3, 1)).parameters())
    assert zero >= sparse["masked"]["values"][-1]
    rows = list(csv.DictReader((place / "compare.csv").read_text().splitlines()))
    assert [row["kind"] for row in rows] == ["dense", "pruned", "sparse", "pruned", "dense", "pruned"]
    assert float(rows[1]["test"]) == pytest.approx(search["test"]["mean"])


def test_a_variant_is_a_run_of_its_own_that_other_commands_know(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "study.toml").write_text(COMPARED)
    assert called(capsys, "compare", "study.toml", "--variants", "uniform", "--seeds", "1", "--quiet")[0] == 0
    code, out, err = called(capsys, "report", "runs/tiny-small/compare/uniform")
    assert code == 0, err
    assert (folder / "runs/tiny-small/compare/uniform/report.html").is_file()
    code, out, err = called(capsys, "resume", "runs/tiny-small/compare/uniform", "--json")
    assert code == 0, err
    assert [one["trial"] for one in json.loads(out)["retrained"]] == [0]


def test_killed_between_two_retrainings_it_goes_on(
    folder: Path, trained: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "study.toml").write_text(COMPARED)
    monkeypatch.setattr("search.compare.variant.search_stage", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, _, err = called(capsys, "compare", "study.toml", "--variants", "uniform")
    assert code == 130
    assert "to go on: the same command" in err
    monkeypatch.setattr("search.compare.variant.search_stage", search_stage)
    code, out, err = called(capsys, "compare", "study.toml", "--variants", "uniform")
    assert code == 0, err
    assert "dense network" not in out
    assert len(trained) == 2


def test_variants_at_the_same_time_end_as_in_turn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "study.toml").write_text(COMPARED)
    asked = ("compare", "study.toml", "--seeds", "2", "--variants", "search,uniform")
    code, out, err = called(capsys, *asked, "--jobs", "2", "--runs", "together")
    assert code == 0, err
    assert "2 variants, 2 processes" in out
    assert out.count("is retrained") == 4
    assert called(capsys, *asked, "--quiet")[0] == 0
    both = [
        json.loads((folder / runs / "tiny-small/compare/compare.json").read_text()) for runs in ("together", "runs")
    ]
    same = ("variant", "whole", "structure", "score", "macs", "params", "validation", "test", "sparse", "scored")
    for one, other in zip(*(record["variants"] for record in both), strict=True):
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
    assert [one["test"] for one in both[0]["dense"]] == [one["test"] for one in both[1]["dense"]]


def test_a_variant_that_fails_in_its_process_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poor = COMPARED + '[variants.poor.budget]\nmacs = "1%"\n'
    (folder / "study.toml").write_text(poor)
    said = refused(capsys, "compare", "study.toml", "--variants", "uniform,poor", "--jobs", "2", "--quiet")
    assert "budget" in said
    assert "\n" not in said


def test_what_cannot_be_compared_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the study has no variants to compare" in refused(capsys, "compare", "study.toml")
    (folder / "study.toml").write_text(COMPARED)
    assert refused(capsys, "compare", "study.toml", "--variants", "search,other") == (
        "unknown variant 'other'; known are search, uniform, steps"
    )
    assert refused(capsys, "compare", "study.toml", "--seeds", "0") == "1 <= seeds must hold, but got seeds=0"
    (folder / "study.toml").write_text(COMPARED.replace('rule = "uniform"', 'structure = "none.json"'))
    said = refused(capsys, "compare", "study.toml", "--variants", "uniform", "--quiet")
    assert said == f"[search] structure {folder}/none.json cannot be read: No such file or directory"
    (folder / "none.json").write_text("[]")
    assert "none.json: not a structure record" in refused(
        capsys, "compare", "study.toml", "--variants", "uniform", "--quiet"
    )
    (folder / "study.toml").write_text(COMPARED)
    assert "unknown scale 'tiny'; known are 'small'" in refused(capsys, "compare", "study.toml", "--scale", "tiny")
    assert "unknown scale 'tiny'; known are 'small'" in refused(capsys, "inspect", "study.toml", "--scale", "tiny")
    (folder / "study.toml").write_text(COMPARED.replace("images = 90", "images = 9000"))
    assert "[data] images <= 162 training images must hold, but got images=9000" in refused(
        capsys, "compare", "study.toml", "--runs", "other", "--quiet"
    )


def test_variants_of_a_task_are_compared_by_its_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "volts", raising=False)
    (tmp_path / "volts.py").write_text(VOLTS)
    rules = "".join(f'[variants.{rule}.search]\nrule = "{rule}"\n' for rule in ("uniform", "global"))
    (tmp_path / "study.toml").write_text(
        VOLTS_STUDY.replace("30%..60%", "50%") + f"[compare]\nseeds = 2\n{rules}[variants.uniform.sparsify]\n"
        "amount = 0.5\nepochs = 1\nbatch_size = 16\n"
    )
    code, out, err = called(capsys, "compare", "study.toml")
    assert code == 0, err
    assert "Result: test error, V of 2 seeds (lower is better)" in out
    assert "Omega" not in out
    assert max(map(len, out.splitlines())) <= 80
    record = json.loads((tmp_path / "runs/volts/compare/compare.json").read_text())
    assert record["metric"] == {"name": "error", "direction": "lower", "unit": "V"}
    [dense], variants = record["dense"], record["variants"]
    for one in variants:
        assert one["drop"] == pytest.approx(statistics.fmean(one["test"]["values"]) - dense["test"])
        assert one["netscore"] is None
    sparse = variants[0]["sparse"]
    assert (sparse["netscore"], sparse["drop"]) == (None, pytest.approx(sparse["test"]["mean"] - dense["test"]))
    page = (tmp_path / "runs/volts/compare/compare.md").read_text()
    assert "| validation error, V | test error, V | lost, V | NetScore |" in page
    assert "error, V (lower is better): last epoch" in page
    assert "percent of the test images" not in page
    with (tmp_path / "study.toml").open("a") as file:
        file.write('[variants.other.task]\nloss = "volts:loss"\nmetric = "volts:error"\ndirection = "higher"\n')
    text = (tmp_path / "study.toml").read_text().replace('[task]\nfactory = "volts:task"\n', "")
    (tmp_path / "study.toml").write_text(text + '[variants.uniform.task]\nfactory = "volts:task"\n')
    assert (
        "the variants of a comparison need one metric, but have error, V (lower is better), error (higher"
        in refused(capsys, "compare", "study.toml", "--variants", "uniform,other", "--quiet")
    )


def test_the_terminal_table_keeps_to_80_columns_whatever_the_names() -> None:
    size = Footprint(0.0123, 0.001, 1_234_567, 128, 1)
    whole = DenseResult("dense mobilenet_v3_small_cifar (a-very-long-name)", 125_485_696, 853_018, 0.94, 0.9339, size)
    test = SeedStats((0.9211, 0.9187, 0.93))
    masked = SeedStats((1e5, 1e5, 1e5))
    sparse = SparseResult(masked, masked, test, test, seed_netscores(test, masked, masked))
    one = VariantResult(
        "a-variant-with-a-name-that-is-really-much-too-long", whole.label, "0" * 12, "", 500, 12.5, 1.0, "naswot", (),
        SeedStats((2.5e7,) * 3), SeedStats((2e5,) * 3), test, test, SeedStats((60.0,) * 3),
        ("a", "b", "c"), sparse, size,
    )  # fmt: skip
    result = Comparison("long", 3, {"command": "secateur compare x.toml", "time": "t", "platform": "p", "cpus": 2,
                                    "device": "cpu"}, (whole,), (one,))  # fmt: skip
    assert max(map(len, result.shown().splitlines())) <= 80
    assert "92.33 ± 0.60" in result.shown()
    assert "| a-variant-with-a-name-that-is-really-much-too-long | 19.9 % | 23.45 % |" in result.markdown()
    assert SeedStats((0.5,)).std is None
    assert seed_netscores(SeedStats((0.5, 0.0)), masked, masked) is None
