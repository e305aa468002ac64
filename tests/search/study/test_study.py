"""A study: the same trials however often it is interrupted, nothing scored twice, nothing mixed up."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial
from torch import Tensor, nn

from backbones import modes
from backbones.artefact import load
from backbones.cost import cost
from backbones.errors import SecateurError
from backbones.fingerprint import fingerprint
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from backbones.surgery import cuts_of
from backbones.trace import trace
from scoring.scorers import SCORERS
from scoring.scoring_task import ScoredStructure
from search.data.data import Data
from search.space.budget import Budget
from search.space.space import Space
from search.study import samplers
from search.study.identity import IDENTITY, VERSIONS
from search.study.samplers import DEFAULT_SAMPLER, SAMPLERS, Window
from search.study.study import Study
from search.training.engine import train
from search.training.recipe import Recipe
from tests.search.study.study_samples import (
    BUDGETS,
    Small,
    finished,
    searched_with_kills,
    small_data,
    small_graph,
    small_model,
)
from tests.search.study.study_samples import make as sample

Parts = tuple[nn.Module, ChannelGraph, Data]
RANDOM = SCORERS["random"]


@pytest.fixture(scope="module")
def parts() -> Parts:
    model = small_model()
    return model, small_graph(model), small_data()


def make(folder: Path, parts: Parts, url: str = "journal:///{}/s.log", **options: Any) -> Study:
    """In a journal: proposals do not depend on the storage, and a trial costs a third of what it does in SQLite."""
    folder.mkdir(exist_ok=True)
    return sample(url.format(folder), folder, parts, **options)


@pytest.mark.parametrize(
    ("budget", "jobs", "sampler"),
    [(budget, jobs, sampler) for budget, jobs in (("cap", 1), ("targets", 3)) for sampler in sorted(SAMPLERS)]
    + [("band", 1, "evolution"), ("band", 1, "tpe")],  # where a band's trials lie does not depend on the sampler
)
def test_an_interrupted_search_ends_with_the_same_trials(
    tmp_path: Path, parts: Parts, sampler: str, budget: str, jobs: int, monkeypatch: Any
) -> None:
    options: dict[str, Any] = {"sampler": sampler, "budget": BUDGETS[budget]}
    if (sampler, budget) == (DEFAULT_SAMPLER, "cap"):
        options["url"] = "sqlite:///{}/s.db"
    trials = {"gp": 13, "nsga2": 47}.get(sampler, 30)  # past the 20 random ones of tpe, the first 40 of nsga2
    straight = make(tmp_path / "whole", parts, **options)
    straight.search(trials, progress=False, jobs=jobs)
    broken = searched_with_kills(monkeypatch, lambda: make(tmp_path / "parts", parts, **options), trials, 7, jobs)
    assert finished(broken) == finished(straight)


def test_the_window_of_the_history_does_not_depend_on_interruptions(
    tmp_path: Path, parts: Parts, monkeypatch: Any
) -> None:
    monkeypatch.setattr("search.study.samplers.STEP", 8)
    monkeypatch.setitem(samplers.WINDOWS, "tpe", Window(4, 20))
    options: dict[str, Any] = {"budget": BUDGETS["targets"], "sampler": "tpe"}
    make(tmp_path / "whole", parts, **options).search(44, progress=False)
    for trials in (13, 16, 31, 44):
        study = make(tmp_path / "parts", parts, **options)
        study.search(trials, progress=False)
    assert finished(study) == finished(make(tmp_path / "whole", parts, **options))


def test_jobs_score_at_the_same_time(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    now, most = 0, 0

    def slow(scored: ScoredStructure) -> float:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.05)
        now -= 1
        return RANDOM(scored)

    monkeypatch.setitem(SCORERS, "random", slow)
    study = make(tmp_path, parts)
    study.search(12, progress=False, jobs=4)
    assert 2 <= most <= 4
    assert len(study.candidates()) == 12


def test_a_structure_is_scored_once(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    seen: list[str] = []

    def counting(scored: ScoredStructure) -> float:
        seen.append(scored.structure.id)
        return RANDOM(scored)

    monkeypatch.setitem(SCORERS, "random", counting)
    make(tmp_path, parts, space="hybrid").search(20, progress=False)
    study = make(tmp_path, parts, space="hybrid")  # another process would start here
    study.search(40, progress=False)
    assert len(seen) == len(set(seen))
    assert len(study.candidates()) == 40


class Tanh(nn.Sequential):
    """A network without a linear region."""

    def __init__(self) -> None:
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh(), *pool, nn.Linear(8, 4))


class Named(Tanh):
    """A network whose outputs are a dictionary."""

    def forward(self, images: Tensor) -> Any:
        return {"out": super().forward(images)}  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("network", "scorer", "message"),
    [
        (Tanh, "naswot", "scorer 'naswot' cannot score this network, not even whole: the network has no activation"),
        (Tanh, "refitted:naswot_last", "cannot score this network, not even whole: the network has no activation"),
        (Named, "reconstruction", r"the network gives dict for 1 images; logits of shape \(1, 4\) are needed"),
        (Named, "fidelity", "the network gives dict for 1 images"),
    ],
)
def test_what_no_trial_can_score_is_refused_once(
    tmp_path: Path, parts: Parts, network: type[nn.Module], scorer: str, message: str
) -> None:
    torch.manual_seed(0)
    model = network().eval()
    with pytest.raises(SecateurError, match=message) as caught:
        make(tmp_path, (model, small_graph(model), parts[2]), scorer=scorer)
    assert "\n" not in str(caught.value)


def test_what_can_be_scored_is_looked_at_before_the_first_trial_alone(
    tmp_path: Path, parts: Parts, monkeypatch: Any
) -> None:
    seen: list[str] = []

    def counting(scored: ScoredStructure) -> float:
        seen.append(scored.structure.id)
        return RANDOM(scored)

    monkeypatch.setitem(SCORERS, "random", counting)
    make(tmp_path, parts).search(3, progress=False)
    assert seen[0] == Structure.full(parts[1]).id
    count = len(seen)
    make(tmp_path, parts)
    assert len(seen) == count


@pytest.mark.parametrize(("begun", "elsewhere"), [(True, False), (False, True)])
def test_a_study_goes_on_in_the_arithmetic_that_it_was_begun_in(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch, begun: bool, elsewhere: bool
) -> None:
    def machine(fast: bool) -> None:
        monkeypatch.setattr(modes, "bfloat16_pays", lambda *_: fast)

    def scores(study: Study) -> list[float | None]:
        study.search(5, progress=False)
        return [trial.value for trial in study.optuna_study.trials]

    machine(begun)
    first = make(tmp_path, parts, scorer="naswot", warm_start=[])
    first.search(2, progress=False)
    assert first.store.identity["scorer"] == f"naswot, 16 images, in {'bfloat16' if begun else 'float32'}"
    whole = scores(make(tmp_path / "whole", parts, scorer="naswot", warm_start=[]))
    machine(elsewhere)
    assert scores(make(tmp_path, parts, scorer="naswot", warm_start=[])) == whole
    fresh = make(tmp_path / "fresh", parts, scorer="naswot", warm_start=[])
    assert fresh.problem.task.half is elsewhere
    other = scores(fresh)
    assert other != whole  # it does matter
    assert other == pytest.approx(whole, abs=1)
    with pytest.raises(
        SecateurError, match=r"another scorer \(naswot, 16 images, in \w+, now naswot, 16 images, in \w+\)"
    ):
        make(tmp_path, parts, name="next", scorer="naswot").fork("s")


def test_studies_of_before_that_tell_no_arithmetic_go_on_as_they_were(
    tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "bfloat16_pays", lambda *_: True)
    study = make(tmp_path, parts, scorer="naswot")
    study.search(2, progress=False)
    known = study.optuna_study.user_attrs[IDENTITY]
    study.optuna_study.set_user_attr(IDENTITY, {**known, "scorer": "naswot, 16 images"})
    assert make(tmp_path, parts, scorer="naswot").problem.task.half is None  # which is float32
    assert make(tmp_path, parts, name="next", scorer="naswot").fork("s").scores >= 2
    assert make(tmp_path, parts, name="controls", scorer="params").store.identity["scorer"] == "params, 16 images"


class Steeper(Small):
    """The same weights, other code."""

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(2 * images).mean((2, 3)))
        return out


def test_code_that_changed_between_equal_weights_is_noticed(tmp_path: Path, parts: Parts) -> None:
    make(tmp_path, parts).search(3, progress=False)
    torch.manual_seed(0)
    steeper = Steeper().eval()
    assert fingerprint(steeper) == fingerprint(parts[0])
    with pytest.raises(
        SecateurError, match=r"made with another operations \(\w+, now \w+\); the code of model's forward"
    ):
        make(tmp_path, (steeper, small_graph(steeper), parts[2]))
    other = make(tmp_path, (steeper, small_graph(steeper), parts[2]), name="other")
    with pytest.raises(SecateurError, match=r"do not hold for 'other': another operations"):
        other.fork("s")
    anew = trace(small_model(), torch.zeros(1, 1, 8, 8))
    again = make(tmp_path, (small_model(), anew, parts[2]))
    assert again.graph.program.id == parts[1].program.id
    attributes = dict(again.optuna_study.user_attrs)
    again.optuna_study.set_user_attr(VERSIONS, {**attributes[VERSIONS], "torch": "1.0"})  # other operations anyway
    with pytest.warns(UserWarning, match=r"was begun with torch 1.0"):
        make(tmp_path, (steeper, small_graph(steeper), parts[2]))
    again.optuna_study.set_user_attr(VERSIONS, attributes[VERSIONS])
    older = {key: value for key, value in attributes[IDENTITY].items() if key != "operations"}
    again.optuna_study.set_user_attr(IDENTITY, older)
    make(tmp_path, (steeper, small_graph(steeper), parts[2]))


def test_every_trial_holds_its_facts(tmp_path: Path, parts: Parts) -> None:
    study = make(tmp_path, parts, budget=Budget(macs="20%..40%"))
    told: list[FrozenTrial] = []
    study.search(12, callbacks=[lambda _, trial: told.append(trial)], progress=False)
    assert [trial.number for trial in told] == list(range(12))
    for one in study.candidates():
        if one.structure is None or one.cost is None:
            assert one.reason is not None
            continue
        assert one.cost == cost(parts[1], one.structure)
        assert 0.2 <= one.cost.macs / parts[1].costs.dense.macs <= 0.4
        assert study.structure(one.number) == one.structure
        assert one.seconds > 0


@pytest.mark.parametrize(
    ("item", "options"),
    [
        ("budget", {"budget": Budget(macs=0.5)}),
        ("space", {"space": "hybrid"}),
        ("scorer", {"scorer": "macs"}),
        ("sampler", {"sampler": "random"}),
        ("seed", {"seed": 1}),
    ],
)
def test_another_study_of_that_name_is_refused_by_item(
    tmp_path: Path, parts: Parts, item: str, options: dict[str, Any]
) -> None:
    make(tmp_path, parts).search(2, progress=False)
    with pytest.raises(SecateurError, match=f"another {item}"):
        make(tmp_path, parts, **options)


@pytest.mark.parametrize("criterion", ["l2", "reconstruction", "std"])
def test_a_study_goes_on_by_the_criterion_that_no_criterion_meant_when_it_was_begun(
    tmp_path: Path, parts: Parts, criterion: str
) -> None:
    space = Space("hybrid", criterion=criterion)
    make(tmp_path / "whole", parts, space=space).search(12, progress=False)
    make(tmp_path, parts, space=space).search(8, progress=False)
    if criterion == "std":  # it never was the default: chosen once, it is chosen again
        with pytest.raises(SecateurError, match=r"another space .*std.*, now .*reconstruction"):
            make(tmp_path, parts, space="hybrid")
        return
    again = make(tmp_path, parts, space="hybrid")
    again.search(12, progress=False)
    assert again.problem.space == replace(space, removal=None)
    assert finished(again) == finished(make(tmp_path / "whole", parts, space=space))


def test_other_weights_are_refused(tmp_path: Path, parts: Parts) -> None:
    make(tmp_path, parts)
    with pytest.raises(SecateurError, match="another weights"):
        make(tmp_path, (small_model(1), *parts[1:]))


def test_other_data_and_an_older_format_are_refused_and_every_difference_is_named(
    tmp_path: Path, parts: Parts, monkeypatch: Any
) -> None:
    make(tmp_path, parts)
    other = dataclasses.replace(parts[2], mean=(0.1,))
    with pytest.raises(SecateurError, match=r"another data .*; also another sampler, seed"):
        make(tmp_path, (*parts[:2], other), sampler="random", seed=1)
    monkeypatch.setattr("search.study.identity.STUDY_FORMAT", 1)
    with pytest.raises(SecateurError, match=r"another format \(3, now 1\)"):
        make(tmp_path, parts)


def test_other_library_versions_are_told(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    make(tmp_path, parts)
    monkeypatch.setattr("search.study.identity._installed", lambda name: "0.0" if name == "torch" else version(name))
    with pytest.warns(UserWarning, match=r"was begun with torch .* \(now 0\.0\)"):
        make(tmp_path, parts)


def test_a_study_killed_while_it_is_made_is_made_by_the_next(tmp_path: Path, parts: Parts, monkeypatch: Any) -> None:
    write, written = optuna.Study.set_user_attr, list[str]()

    def killed(study: optuna.Study, key: str, value: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(key)
        write(study, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "set_user_attr", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, parts)
    make(tmp_path, parts)
    make(tmp_path, parts)  # nothing is missing that the first would have written: no warning


@pytest.mark.parametrize("name", ["../s", "a/b", "", ".hidden", "a\x00b", "x" * 101])
def test_a_name_cannot_leave_its_folder(tmp_path: Path, parts: Parts, name: str) -> None:
    with pytest.raises(SecateurError, match="name must be"):
        make(tmp_path, parts, name=name)


def test_a_timeout_ends_the_search_between_two_trials(tmp_path: Path, parts: Parts) -> None:
    study = make(tmp_path, parts)
    study.search(10_000, timeout=0.3, progress=False)
    assert 0 < len(study.candidates()) < 10_000
    assert len(study.trials_dataframe()) == len(study.candidates())


def test_an_impossible_budget_names_the_reachable_minimum(tmp_path: Path, parts: Parts) -> None:
    with pytest.raises(SecateurError, match=r"cannot be reached.*the nearest value is 17,872 "):
        make(tmp_path, parts, budget=Budget(macs=0.001))


def test_unknown_names_and_numbers(tmp_path: Path, parts: Parts) -> None:
    with pytest.raises(SecateurError, match="unknown sampler 'tpee'; did you mean 'tpe'"):
        make(tmp_path, parts, sampler="tpee")
    with pytest.raises(SecateurError, match="unknown space"):
        make(tmp_path, parts, space="hybird")
    with pytest.raises(SecateurError, match="1 <= trials must hold"):
        make(tmp_path, parts).search(0)
    with pytest.raises(SecateurError, match="no feasible trial"):
        make(tmp_path, parts).retrain()


@pytest.mark.parametrize(("dtype", "name"), [(torch.float64, "float64"), (torch.half, "float16")])
def test_a_network_of_another_type_than_the_images_is_one_line(
    tmp_path: Path, parts: Parts, dtype: torch.dtype, name: str
) -> None:
    model = small_model().to(dtype)
    graph = trace(model, torch.zeros(1, 1, 8, 8, dtype=dtype))
    line = rf"the network's weights are {name}, its inputs float32; call model.float\(\)"
    with pytest.raises(SecateurError, match=line):
        make(tmp_path, (model, graph, parts[2]))
    with pytest.raises(SecateurError, match=line):
        train(model, parts[2], Recipe(epochs=1, batch_size=32))


def test_a_storage_that_cannot_be_opened_hides_the_password(tmp_path: Path, parts: Parts) -> None:
    with pytest.raises(SecateurError, match="cannot be opened") as caught:
        sample("nonsense://user:secret@host/db", tmp_path, parts)
    assert "secret" not in str(caught.value)


def test_retraining_goes_from_scores_to_accuracies(tmp_path: Path, parts: Parts) -> None:
    study = make(tmp_path, parts, budget=Budget(macs=[0.3, 0.5]))
    study.search(10, progress=False)
    assert study.front().measure == "score"
    recipe = Recipe(epochs=1, lr=0.05, batch_size=64)
    front = study.retrain(2, recipe=recipe, progress=False)
    assert front.measure == "accuracy"
    trained = [one for one in front.candidates if one.accuracy is not None]
    assert len({one.id for one in trained}) == 2
    best = front.best()
    best.save(tmp_path / "best.safetensors")
    rebuilt = load(tmp_path / "best.safetensors", small_model())
    assert best.cost is not None
    assert sum(p.numel() for p in rebuilt.parameters()) == best.cost.params
    before = len(study.optuna_study.get_trials())
    again = study.retrain(2, recipe=recipe, progress=False)
    assert [one.accuracy for one in again.candidates] == [one.accuracy for one in front.candidates]
    assert len(study.optuna_study.get_trials()) == before


def test_a_study_of_what_another_study_found_saves_both_cuts(tmp_path: Path, parts: Parts) -> None:
    model, _, data = parts
    path = tmp_path / "best.safetensors"
    for name in ("first", "second"):
        study = make(tmp_path, (model, small_graph(model), data), budget=Budget(macs=0.5), name=name)
        study.search(4, progress=False)
        best = study.retrain(1, recipe=Recipe(epochs=1, lr=0.05, batch_size=64), progress=False).best()
        best.save(path)
        model = load(path, small_model())
        assert best.cost is not None
        assert sum(p.numel() for p in model.parameters()) == best.cost.params
    assert len(cuts_of(model)) == 2
    start = load(path, model)
    assert torch.equal(start(data.example), model(data.example))


@pytest.mark.parametrize("budget", ["cap", "band", "targets"])
def test_the_best_score_is_retrained_first_whatever_the_budget(tmp_path: Path, parts: Parts, budget: str) -> None:
    study = make(tmp_path, parts, budget=BUDGETS[budget], scorer="random")
    study.search(12, progress=False)
    best = study.front().best(measure="score")
    assert [one.id for one in study.finalists(1).members] == [best.id]
    assert study.finalists(3).members[0].id == best.id


def test_a_graph_of_another_model_is_refused(tmp_path: Path, parts: Parts) -> None:
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = trace(other, torch.zeros(1, 1, 8, 8))
    with pytest.raises(SecateurError, match=r"the graph was traced with .* trace the same model"):
        make(tmp_path, (parts[0], graph, parts[2]))
    assert not list(tmp_path.iterdir())


class Wider(Small):
    """One layer more."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(4, 4)


def test_a_graph_of_a_model_with_equal_tensors_is_refused(tmp_path: Path, parts: Parts) -> None:
    _, graph, data = parts
    wider = type("Small", (Wider,), {})()  # as when the cell of a notebook that defines the class was run again
    steeper = type("Small", (Steeper,), {})()
    for model, said in (
        (Steeper(), "was traced with the network a Small, in this model it is a Steeper; trace the same model"),
        (wider, "was traced with no layer 'extra', in this model it is a Linear"),
        (steeper, "was traced with other code: it gives other outputs than this Small with the same weights"),
    ):
        with pytest.raises(SecateurError, match=said):
            make(tmp_path, (model.eval(), graph, data))
    assert not list(tmp_path.iterdir())
    make(tmp_path, (small_model(7), graph, data))  # other weights are another study, with the same graph
