"""Scales and variants of a study file: what is merged is what is meant, the rest is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.errors import SecateurError
from search.run.schema import at_scale, merged
from search.run.study_file import SECTIONS, read_study, read_variants, study_toml

STUDIES = sorted((Path(__file__).resolve().parents[3] / "studies").glob("*.toml"))
TEXT = """
name = "scaled"
scale = "small"

[model]
backbone = "resnet20"

[budget]
macs = "30%"

[retrain]
top = 2
epochs = 40

[variants.plain]
[variants.uniform.search]
rule = "uniform"

[scales.small.data]
name = "digits"
[scales.small.retrain]
epochs = 2
[scales.small.variants.uniform.retrain]
lr = 0.05

[scales.full.data]
name = "cifar10"
[scales.full.variants.wide.model]
backbone = "resnet56"
"""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_says_which_scale_holds_and_another_can_be_asked_for(tmp_path: Path) -> None:
    small, full = read_study(write(tmp_path)), read_study(write(tmp_path), "full")
    assert (small.name, small.data.name, small.retrain.recipe.epochs, small.retrain.top) == (
        "scaled-small", "digits", 2, 2,
    )  # fmt: skip
    assert (full.name, full.data.name, full.retrain.recipe.epochs) == ("scaled-full", "cifar10", 40)


def test_what_is_rendered_is_the_merged_study(tmp_path: Path) -> None:
    study = read_study(write(tmp_path))
    text = study_toml(study)
    assert "scale" not in text.replace("scaled-small", "")
    assert read_study(write(tmp_path, text)) == study


def test_variants_change_the_scaled_study_and_a_scale_may_change_and_add_variants(tmp_path: Path) -> None:
    path = write(tmp_path)
    small, full = read_variants(path), read_variants(path, "full")
    assert list(small) == ["plain", "uniform"]
    assert list(full) == ["plain", "uniform", "wide"]
    assert small["plain"].name == "plain"
    uniform = small["uniform"]
    assert (uniform.search.rule, uniform.retrain.recipe.lr, uniform.retrain.recipe.epochs) == ("uniform", 0.05, 2)
    assert full["uniform"].retrain.recipe.highest_rate == 0.1
    assert (full["wide"].model.backbone, full["plain"].model.backbone) == ("resnet56", "resnet20")


def test_a_study_without_scales_is_as_it_was(tmp_path: Path) -> None:
    text = '[model]\nbackbone = "resnet20"\n[data]\nname = "digits"\n[budget]\nmacs = 0.3\n'
    path = write(tmp_path, f'name = "plain"\n{text}')
    assert read_study(path).name == "plain"
    assert read_variants(path) == {}
    with pytest.raises(SecateurError, match=r"unknown scale 'small'; the study has no \[scales\]; leave it out"):
        read_study(path, "small")


@pytest.mark.parametrize(
    ("old", "new", "scale", "message"),
    [
        ("", "", "medium", "unknown scale 'medium'; known are 'small', 'full'"),
        ("", "", "smal", "unknown scale 'smal'; known are 'small', 'full' (did you mean 'small'?)"),
        ('scale = "small"', "", None, "scale is missing; add scale = \"small\", one of 'small', 'full'"),
        ('scale = "small"', "scale = 3", None, "scale must be a text, but got 3"),
        ("[scales.small.retrain]", "[scales.small.retain]", None, "[scales.small] has no key 'retain'; did you mean"),
        ("[scales.full.data]", "[scales.full.date]", None, "[scales.full] has no key 'date'; did you mean 'data'?"),
        ("[scales.small.retrain]", "[scales.small]\nretrain = 3\n[scales.x.data]", None, "must hold sections of keys"),
        ("[variants.uniform.search]", "[variants.uniform.seach]", None, "[variants.uniform] has no key 'seach'; did"),
        ("[variants.plain]", "[variants]\nplain = 3", None, "[variants] must hold sections of keys, but got"),
        ("epochs = 2", "epoch = 2", None, "[retrain] has no key 'epoch'; did you mean 'epochs'?"),
        ("rule =", "role =", None, "variant 'uniform': [search] has no key 'role'; did you mean 'rule'?"),
        ('rule = "uniform"', 'rule = "unifrom"', None, "variant 'uniform': [search] unknown rule 'unifrom'; did you"),
        ('rule = "uniform"', 'rule = "uniform"\nstructure = "x.json"', None, "[search] takes rule or structure in the"),
        ("lr = 0.05", 'flow = "soft"', None, "variant 'uniform': [search] rule needs [retrain] flow = \"one-shot\""),
        ("[variants.plain]", '[variants."../x"]', None, "variant '../x': name must be 1 to 100 letters"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, scale: str | None, message: str
) -> None:
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(SecateurError) as caught:
        read_variants(path, scale)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


KEYS = st.sampled_from(["epochs", "lr", "top"])
TABLES = st.dictionaries(
    st.sampled_from(["retrain", "search", "dense"]), st.dictionaries(KEYS, st.integers(0, 9), max_size=3), max_size=3
)


@given(TABLES, TABLES, TABLES)
def test_laws_of_merging(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    assert merged(one, {}) == one
    assert merged({}, one) == one
    assert merged(one, one) == one
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    both = merged(one, two)
    for section in (*one, *two):
        for key in (*one.get(section, {}), *two.get(section, {})):
            last = two if key in two.get(section, {}) else one
            assert both[section][key] == last[section][key]


@given(TABLES, TABLES)
def test_a_scale_never_touches_the_file_s_own_tables(plain: dict[str, Any], changes: dict[str, Any]) -> None:
    table = {"name": "n", **plain, "scale": "s", "scales": {"s": changes}}
    before = repr(table)
    scaled, variants = at_scale(table, None, tuple(SECTIONS))
    assert repr(table) == before
    assert scaled == {**merged(plain, changes), "name": "n-s"}
    assert variants == {}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_parses_at_every_scale_with_all_variants(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_DATA", "/nowhere")
    system = path.stem.startswith("system")
    for scale in ("small", "medium", "full") if system else (None,):
        study = read_study(path, scale)
        variants = read_variants(path, scale)
        assert study.name.endswith(f"-{scale}") is (scale is not None)
        assert len(variants) >= 3 or not system
        assert study.compare.seeds >= (1 if (path.stem, scale) == ("system3_hybrid", "medium") else 3)
        for one in (study, *variants.values()):  # a search goes on behind the rules that it begins with
            assert not one.search.searches or one.search.trials > len(one.search.warm_start)
