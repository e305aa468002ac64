"""Study files: what is read is what is meant, and everything else is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.errors import SecateurError
from search.data.augment import Augment
from search.run.evaluation_plan import Plan
from search.run.folder import open_run
from search.run.sections import RetrainSection
from search.run.study_file import differences, read_study, read_written_study, settings, study_toml
from search.run.template import template
from search.space.budget import Budget
from search.space.layer_removal import Removal
from search.training.recipe import Recipe

SMALL = """
name = "small"

[model]
backbone = "resnet20"

[data]
name = "digits"

[budget]
macs = "30%"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    """The message without the file's name in front."""
    path = write(folder, text)
    with pytest.raises(SecateurError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}")
    return message.removeprefix(f"{path}").removeprefix(":").strip()


@pytest.mark.parametrize("scorer", ["zico", "fidelity+zico"])
def test_a_scorer_that_is_gone_is_refused_with_what_took_its_place(tmp_path: Path, scorer: str) -> None:
    searched = refused(tmp_path, f'{SMALL}\n[search]\nscorer = "{scorer}"\n')
    assert "scorer 'zico' is no longer offered; 'region_kernel' took its place" in searched
    evaluated = refused(tmp_path, f'{SMALL}\n[evaluate]\nscorers = ["params", "{scorer}"]\n')
    assert "scorer 'zico' is no longer offered; 'region_kernel' took its place" in evaluated


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, SMALL))
    assert (study.name, study.seed, study.model.backbone, study.data.name) == ("small", 0, "resnet20", "digits")
    assert study.budget.macs == "30%"
    assert study.budget.params is None
    assert (study.search.trials, study.search.sampler, study.space.kind) == (200, "evolution", "ratios")
    assert study.retrain.top == 3


def test_every_form_of_a_value(tmp_path: Path) -> None:
    text = SMALL.replace('macs = "30%"', 'macs = ["20%", 0.35, 25_000_000]\nparams = "0.5M..1M"')
    text = text.replace('backbone = "resnet20"', 'factory = "mine.nets:small"\ncheckpoint = "w/dense.pt"')
    text += "\n[retrain]\nepochs = 2\nlr = 1\naugment = {crop = 1, flip = true}\nslim_layers = {'layer3.bn' = 10}\n"
    study = read_study(write(tmp_path, text))
    assert study.budget.macs == ("20%", 0.35, 25_000_000)
    assert study.budget.params == "0.5M..1M"
    assert study.model.checkpoint == tmp_path / "w/dense.pt"
    assert study.retrain.recipe.lr == 1.0
    assert isinstance(study.retrain.recipe.lr, float)
    assert study.retrain.recipe.augment == Augment(crop=1, flip=True)
    assert study.retrain.recipe.slim_layers == {"layer3.bn": 10.0}


def test_trainings_take_the_seed_of_the_study_unless_they_have_their_own(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, "seed = 7\n" + SMALL + "[retrain]\nseed = 3\n"))
    assert (study.dense.seed, study.retrain.recipe.seed) == (7, 3)


def test_retraining_has_batch_size_and_rate_of_the_dense_training_unless_it_has_its_own(tmp_path: Path) -> None:
    def read(dense: str, retrain: str) -> tuple[object, ...]:
        study = read_study(write(tmp_path, f"{SMALL}[dense]\n{dense}\n[retrain]\n{retrain}\n"))
        recipe = study.retrain.recipe
        assert read_study(write(tmp_path, study_toml(study))).retrain.recipe == recipe
        return recipe.batch_size, recipe.lr, recipe.optimiser

    plain = Recipe().batch_size
    dense = 'batch_size = 16\nlr = 0.01\noptimiser = "adamw"'
    assert read(dense, "") == (16, 0.01, "adamw")
    assert read(dense, "lr = 0.5\nbatch_size = 8") == (8, 0.5, "adamw")
    assert read(dense, 'optimiser = "sgd"') == (16, Recipe().lr, "sgd")
    assert read("", "") == (plain, "auto", "sgd")
    assert read("lr = 0.2", "") == (plain, 0.2, "sgd")
    assert read("lr = 0.2", "epochs = 2") == (plain, 0.2 * Recipe(epochs=2).highest_rate / Recipe().highest_rate, "sgd")
    assert read("lr = 0.2", 'epochs = 2\nlr = "auto"') == (plain, "auto", "sgd")


def test_a_run_goes_on_at_the_rates_that_it_was_begun_with(tmp_path: Path) -> None:
    """Where they are left out: another default since then makes neither another study nor other trainings."""
    begun = read_study(write(tmp_path, SMALL + "[dense]\nepochs = 2\nlr = 0.1\n[retrain]\nepochs = 3\nlr = 0.1\n"))
    open_run(tmp_path, begun, tmp_path / "study.toml")
    for epochs, rate in ((3, 0.1), (2, Recipe(epochs=2).highest_rate)):
        here = read_study(write(tmp_path, f"{SMALL}[dense]\nepochs = 2\n[retrain]\nepochs = {epochs}\n"))
        _, study = open_run(tmp_path, here, tmp_path / "study.toml")
        assert study.retrain.recipe.highest_rate == rate
    for line, rate in (("lr = 0.5", 0.5), ("", Recipe(epochs=2).highest_rate)):  # one taken out counts no more
        here = read_study(write(tmp_path, f"{SMALL}[dense]\nepochs = 2\n[retrain]\nepochs = 2\n{line}\n"))
        _, study = open_run(tmp_path, here, tmp_path / "study.toml")
        assert study.retrain.recipe.highest_rate == rate
    other = read_study(write(tmp_path, f"{SMALL}[dense]\nepochs = 2\nlr = 0.05\n"))
    with pytest.raises(SecateurError, match=r"\[dense\] lr is 0.05, not 0.1 there"):
        open_run(tmp_path, other, tmp_path / "study.toml")


def test_a_dense_network_of_random_weights_has_the_rate_of_a_long_training_at_any_length(tmp_path: Path) -> None:
    for optimiser in ("sgd", "adamw"):
        given = f'{SMALL}[dense]\noptimiser = "{optimiser}"\nepochs = 2\n'
        found = [read_study(write(tmp_path, text)).dense.highest_rate for text in (given, f'{given}lr = "auto"\n')]
        assert found == [Recipe(optimiser=optimiser, epochs=epochs).highest_rate for epochs in (40, 2)]


def test_a_rate_counts_as_the_number_that_it_stands_for(tmp_path: Path) -> None:
    left_out = read_study(write(tmp_path, SMALL))
    given = read_study(write(tmp_path, f"{SMALL}[dense]\nlr = 0.1\n[retrain]\nlr = 0.1\n"))
    assert (left_out.retrain.recipe.lr, given.retrain.recipe.lr) == ("auto", 0.1)
    assert differences(left_out, given) == []
    assert left_out.fingerprint == given.fingerprint
    assert "[dense] lr must be a number, 'auto', but got 'fast'" in refused(tmp_path, f'{SMALL}[dense]\nlr = "fast"\n')


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("backbone =", "backbon =", "[model] has no key 'backbon'; did you mean 'backbone'?"),
        ("[budget]", "[budgets]", "there is no key 'budgets'; did you mean 'budget'?"),
        ("[model]", "sead = 3\n[model]", "there is no key 'sead'; did you mean 'seed'?"),
        ("[model]", "dense = 3\n[model]", "[dense] must be a section of keys, but got 3"),
        ('"resnet20"', "20", "[model] backbone must be a text, but got 20"),
        ('"30%"', "true", "[budget] macs must be a text, a number, a whole number, a list, but got True"),
        ('"30%"', '"0%"', "[budget] macs: an amount is a fraction (0.3, '30%'), absolute ('25M')"),
        ('"30%"', '"thirty"', "above 0 and at most the whole network, but got 'thirty'"),
        ('macs = "30%"', "", '[budget] needs macs or params (or latency, memory), such as macs = "30%"'),
        ('macs = "30%"', 'macs = "30%"\nengine = "tensorrt"', "[budget] unknown engine 'tensorrt'; known are eager, "),
        ('macs = "30%"', 'latency = "30%"\nlatency_batch = 0', "[budget] 1 <= latency_batch must hold, but got"),
        ('backbone = "resnet20"', "", "[model] needs exactly one of backbone and factory, but got neither"),
        ('[data]\nname = "digits"', "", "section [data] is missing"),
        ('name = "small"', "", "name is missing; every study has one"),
        ('name = "small"', 'name = "../up"', "name must be 1 to 100 letters, digits"),
        ('name = "small"', 'name = "small', "is not TOML: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    assert message in refused(tmp_path, SMALL.replace(old, new, 1))


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ("retrain", "epoch = 3", "[retrain] has no key 'epoch'; did you mean 'epochs'?"),
        ("space", "zzz = 1", "[space] has no key 'zzz'; known keys are kind, criterion, linkage, features, "),
        ("retrain", "augment = {flop = true}", "[retrain] augment has no key 'flop'; did you mean 'flip'?"),
        ("search", 'trials = "many"', "[search] trials must be a whole number, but got 'many'"),
        ("search", "trials = 2.5", "[search] trials must be a whole number, but got 2.5"),
        ("search", "trials = true", "[search] trials must be a whole number, but got True"),
        ("space", 'only = "conv1"', "[space] only must be a list, but got 'conv1'"),
        (
            "space",
            'kind = "ratio"',
            "[space] unknown kind 'ratio'; did you mean 'ratios'? known are hybrid, ratios, ",
        ),
        ("search", "trials = 0", "[search] 1 <= trials must hold, but got trials=0"),
        ("retrain", "top = 0", "[retrain] 1 <= top must hold, but got top=0"),
        ("dense", "lr = -1", "[dense] 0 < lr <= 10000 must hold, but got lr=-1.0"),
        ("space", "max_rate = 1.5", "[space] 0 <= max_rate <= 1 must hold, but got max_rate=1.5"),
        ("space", 'criterion = "l3"', "[space] unknown criterion 'l3'; known are l1, l2, "),
    ],
)
def test_what_is_wrong_in_a_section_that_may_be_left_out(tmp_path: Path, section: str, line: str, message: str) -> None:
    assert message in refused(tmp_path, f"{SMALL}[{section}]\n{line}\n")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(SecateurError, match=r"none\.toml does not exist; `secateur init .*none\.toml` writes one"):
        read_study(path)
    with pytest.raises(SecateurError, match="cannot be read: Is a directory"):
        read_study(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(b"name = \xff")
    with pytest.raises(SecateurError, match="cannot be read"):
        read_study(path)


def test_the_template_is_a_study_that_runs_and_explains_itself(tmp_path: Path) -> None:
    text = template()
    study = read_study(write(tmp_path, text))
    assert study.name == "digits"
    assert max(len(line) for line in text.splitlines()) <= 120
    for key in settings(study):
        section, _, name = key.rpartition("] ")
        if section != "[retrain":
            assert f"# {name}: " in text, f"{key} is not explained"


def test_every_example_of_the_template_has_the_right_type(tmp_path: Path) -> None:
    uncommented = []
    for line in template().splitlines():
        key, equals, value = line.removeprefix("# ").partition(" = ")
        plain = line.startswith("# ") and equals and key.isidentifier() and value
        uncommented.append(f"{key} = {value}" if plain else line)
    text = "\n".join(line for line in uncommented if not line.startswith(("factory", "pretrained", "fixed")))
    assert read_study(write(tmp_path, text)).name == "digits"


def test_rendered_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    text = SMALL.replace('"30%"', '["20%", 0.5, 9]') + '[retrain]\naugment = {crop = 2}\nslim_layers = {"a.b" = 2.0}\n'
    text = text.replace("[data]\n", "[data]\nmean = [0.5]\nstd = [0.25]\n")
    study = read_study(write(tmp_path, text))
    (tmp_path / "else").mkdir()
    again = read_study(write(tmp_path / "else", study_toml(study)))
    assert again == study
    assert again.fingerprint == study.fingerprint


@given(st.text(max_size=12))
def test_any_text_survives_rendering(text: str) -> None:
    import tomllib

    from search.run.schema import to_toml

    assert tomllib.loads(f"key = {to_toml(text)}") == {"key": text}


def test_more_trials_is_the_same_study_and_another_sampler_is_not(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, SMALL))
    longer = dataclasses.replace(study, search=dataclasses.replace(study.search, trials=999))
    other = dataclasses.replace(study, search=dataclasses.replace(study.search, sampler="nsga2"))
    assert longer.fingerprint == study.fingerprint
    assert differences(longer, study) == []
    assert other.fingerprint != study.fingerprint
    assert differences(other, study) == ['[search] sampler is "nsga2", not "evolution"']


@pytest.mark.parametrize(("key", "then", "another"), [("criterion", "l2", "std"), ("removal", "none", "cosine")])
def test_a_run_folder_keeps_what_its_study_left_to_the_defaults(
    tmp_path: Path, key: str, then: str, another: str
) -> None:
    before = read_study(write(tmp_path, SMALL + f'[space]\n{key} = "{then}"\n'))
    open_run(tmp_path, before, tmp_path / "study.toml")
    folder, study = open_run(tmp_path, read_study(write(tmp_path, SMALL)), tmp_path / "study.toml")
    assert study == folder.study() == before
    other = read_study(write(tmp_path, SMALL + f'[space]\n{key} = "{another}"\n'))
    with pytest.raises(SecateurError, match=rf'\[space\] {key} is "{another}", not "{then}" there'):
        open_run(tmp_path, other, tmp_path / "study.toml")


def test_another_retraining_is_the_same_study_with_other_results(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, SMALL))
    text = '[retrain]\nepochs = 80\nlr = 0.02\nflow = "soft"\nstart = "reconstructed"\naugment = {flip = true}\n'
    other = read_study(write(tmp_path, SMALL + text))
    assert differences(other, study) == []
    assert other.fingerprint != study.fingerprint
    more = read_study(write(tmp_path, SMALL + "[retrain]\ntop = 2\nfinalists = 8\n"))
    assert (differences(more, study), more.fingerprint) == ([], study.fingerprint)
    assert "[retrain] top <= finalists must hold, but got top=3, finalists=2" in refused(
        tmp_path, SMALL + "[retrain]\nfinalists = 2\n"
    )


def test_compiling_is_a_key_of_every_training_and_makes_no_other_study(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, SMALL))
    text = SMALL + "[dense]\ncompile = true\n[retrain]\ncompile = false\n"
    compiled = read_study(write(tmp_path, text))
    assert (study.dense.compile, compiled.dense.compile, compiled.retrain.recipe.compile) == ("auto", True, False)
    assert compiled.fingerprint == study.fingerprint
    message = "[dense] compile must be 'auto', true or false, but got 1"
    assert message in refused(tmp_path, SMALL + "[dense]\ncompile = 1\n")


def test_removal_features_latency_and_memory_reach_the_study(tmp_path: Path) -> None:
    how = 'engine = "onnxruntime"\nlatency_batch = 1'
    text = SMALL.replace('macs = "30%"', f'latency = "20ms"\nmemory = "1MB..2MB"\n{how}')
    text += '[space]\nfeatures = "both"\nreduction = "max"\nremoval = "accuracy"\nremoval_most = 3\nremoval_least = 1\n'
    study = read_study(write(tmp_path, text))
    assert study.budget.budget() == Budget(latency="20ms", memory="1MB..2MB", engine="onnxruntime", latency_batch=1)
    space = study.space.space()
    assert (space.features, space.reduction, space.removal) == ("both", "max", Removal("accuracy", 3, least=1))


def test_layers_may_go_by_default_but_not_in_a_run_of_before(tmp_path: Path) -> None:
    study, before = read_study(write(tmp_path, SMALL)), read_written_study(write(tmp_path, SMALL))
    none = read_study(write(tmp_path, SMALL + '[space]\nremoval = "none"\n'))
    assert (study.space.removal, study.space.space().removal) == ("auto", "auto")
    assert (before.space.removal, before.space.space().removal) == ("none", None)
    assert none.fingerprint == "d4d0949aee836420"  # commit 349df1d, which had no "auto", without the line
    assert study.fingerprint != none.fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('removal = "guess"', "[space] unknown removal 'guess'; known are cosine, accuracy, score"),
        ('removal = "cosine"\nremoval_most = 0', "[space] removal_most must be a share in (0, 1) or a whole number"),
        ("removal_most = 3", "[space] removal_most needs a removal that is not 'auto': 'cosine', 'accuracy', 'score'"),
        ('removal = "cosine"\nremoval_most = 2.5', "but got removal_most=2.5"),
        (
            'removal = "cosine"\nremoval_most = 2\nremoval_least = 3',
            "[space] 0 <= removal_least <= removal_most must hold, but got removal_least=3, removal_most=2",
        ),
        ('features = "fan"', "[space] unknown features 'fan'; did you mean 'fan_in'?"),
        ('reduction = "min"', "[space] unknown reduction 'min'"),
    ],
)
def test_bad_spaces_are_named(tmp_path: Path, line: str, message: str) -> None:
    assert message in refused(tmp_path, f"{SMALL}[space]\n{line}\n")


@pytest.mark.parametrize("section", [RetrainSection, Plan])
def test_no_key_of_a_section_is_also_one_of_its_recipe(section: type) -> None:
    own = {item.name for item in dataclasses.fields(section)} - {"recipe"}
    assert own.isdisjoint(item.name for item in dataclasses.fields(Recipe))
