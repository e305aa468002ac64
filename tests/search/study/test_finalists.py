"""Finalists: who competes for which place, in how many trainings, and that these resume and never see test images."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import create_trial
from torch import nn
from torch.nn.functional import cross_entropy

from backbones.artefact import load
from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.graph import ChannelGraph
from backbones.structure import Structure
from search.data.data import Data
from search.data.task import Task
from search.review.candidate import Candidate
from search.review.front import Front
from search.review.summary import finalists_table, result_values, retrained
from search.space.budget import Bound, Target
from search.space.problem import SearchProblem
from search.study.finalists import Finalists, Slot, finalists_of
from search.study.retrain import read_retrainings
from search.study.retraining_task import RetrainConfig
from search.study.stored import open_study
from search.study.study import Study
from search.training import engine
from search.training.metrics import measure
from search.training.recipe import Recipe
from tests.search.study.study_samples import make, small_data, small_graph, small_model

Parts = tuple[nn.Module, ChannelGraph, Data]
RECIPE = Recipe(epochs=8, lr=0.05, batch_size=48, recalibrate=0)
PLAN: dict[str, Any] = {"top": 1, "finalists": 6, "recipe": RECIPE, "progress": False}


@pytest.fixture(scope="module")
def parts() -> Parts:
    model = small_model()
    return model, small_graph(model), small_data()


def searched(folder: Path, parts: Parts) -> Study:
    made = make(f"journal:///{folder}/s.log", folder, parts)
    made.search(8, progress=False)
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Study:
    """With finalists retrained."""
    made = searched(tmp_path_factory.mktemp("whole"), parts)
    looked = Mock(side_effect=measure)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "measure", looked)
        made.retrain(**PLAN)
    assert [call.args[2] for call in looked.call_args_list].count("test") == 1
    return made


def candidate(number: int, score: float, macs: int) -> Candidate:
    widths = (10 + 7 * (number % 13), 100 - 5 * (number % 17))
    kept = tuple((f"group{i}", tuple(range(width))) for i, width in enumerate(widths))
    return Candidate(number, Structure("g", kept), cost=Cost(macs, 50), score=score)


def plan(ones: list[Candidate], top: int, finalists: int | None, *caps: int, band: bool = False) -> Finalists:
    """What is retrained out of candidates under caps on MACs, or over the band up to the only one."""
    targets = tuple(Target((Bound("macs", 0.0, float(cap)),), not band) for cap in caps or (1000,))
    problem = SimpleNamespace(targets=targets, objectives=2 if band or len(targets) > 1 else 1)
    front = Front("made up", Candidate(-1, cost=Cost(2000, 100)), tuple(ones))
    return finalists_of(front, cast(SearchProblem, problem), top, finalists, 16)


def numbers(slot: Slot) -> list[int]:
    return [one.number for one in slot.members]


def test_eight_finalists_cost_two_and_a_half_trainings() -> None:
    found = plan([candidate(i, -float(i), 900) for i in range(12)], 1, 8)
    assert found.trainings == {1: 8, 4: 4, 16: 1}
    assert found.cost == 2.5
    assert str(found) == "8 finalists: 8 x 1, 4 x 4, 1 x 16 epochs, 2.5 times one retraining"
    assert numbers(found.slots[0]) == list(range(8))
    alone = plan([candidate(i, -float(i), 900) for i in range(12)], 3, None)
    assert (alone.trainings, alone.cost) == ({16: 3}, 3.0)
    assert str(alone) == "the best 3, 16 epochs each"


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 200))
def test_every_place_is_filled_and_the_longer_look_has_the_last_word(count: int, places: int, epochs: int) -> None:
    members = tuple(candidate(i, 0.0, 900) for i in range(count))
    slot = Slot(members, places)
    first, second, last = slot.staying
    assert (first, last) == (count, min(count, places))
    assert first >= second >= last
    assert second >= first / 2
    assert (second == last) == (first == last)  # whoever is discarded at the end was trained for a quarter
    found = Finalists((slot,), epochs)
    assert found.trainings[epochs] >= last
    assert (len(found.trainings) == 1) == (first == last or epochs == 1)
    assert found.cost >= last


def test_places_of_several_targets_are_competed_for_within_each() -> None:
    ones = [candidate(i, -float(i), macs) for i, macs in enumerate([990, 980, 970, 960, 490, 480, 470, 150, 140, 500])]
    found = plan(ones, 3, 8, 150, 500, 1000)
    assert [numbers(slot) for slot in found.slots] == [[0, 1, 2], [4, 5, 6], [7, 8]]
    assert [slot.places for slot in found.slots] == [1, 1, 1]
    assert [numbers(slot) for slot in plan(ones, 1, 4, 150, 500, 1000).slots] == [[0, 1, 2, 3]]
    assert [slot.places for slot in plan(ones, 5, 8, 150, 500, 1000).slots] == [2, 2, 1]
    assert [numbers(slot) for slot in plan(ones, 2, 4, 150, 500, 1000).slots] == [[0, 1], [7, 8]]


def test_places_over_a_band_go_to_its_parts() -> None:
    ones = [candidate(i, float(macs), macs) for i, macs in enumerate([100, 110, 120, 540, 550, 980, 990, 1000])]
    found = plan(ones, 3, 6, band=True)
    assert [numbers(slot) for slot in found.slots] == [[7, 6], [4, 3], [2, 1]]
    crowded = plan([one for one in ones if one.number not in (3, 4)], 3, 6, band=True)
    assert [(numbers(slot), slot.places) for slot in crowded.slots] == [([7, 6, 5], 2), ([2, 1, 0], 1)]


def test_a_rule_among_the_best_is_a_finalist_also_as_a_neighbour_of_the_best() -> None:
    best = candidate(0, 10.0, 900)
    assert best.structure is not None
    thin, (name, channels) = best.structure.kept
    beside = Structure("g", (thin, (name, (*channels, 200))))
    near = replace(candidate(1, 9.0, 900), structure=beside, rule="sensitivity")
    others = [best, *(candidate(i, -float(i), 900) for i in range(2, 9))]
    assert numbers(plan([near, *others], 1, 4).slots[0]) == [0, 1, 2, 3]
    proposed = replace(near, rule="")
    assert numbers(plan([proposed, *others], 1, 4).slots[0]) == [0, 2, 3, 4]
    assert numbers(plan([replace(near, score=-20.0), *others], 1, 4).slots[0]) == [0, 2, 3, 4]


def test_what_cannot_be_is_one_line(study: Study) -> None:
    with pytest.raises(SecateurError, match="top <= finalists must hold, but got top=3, finalists=2"):
        study.retrain(3, finalists=2)
    with pytest.raises(SecateurError, match="dense is no feasible trial of study 's', so it cannot be retrained"):
        study.retrain([study.front().dense])
    for top, message in (
        ([], "1 <= top must hold, but got top=0"),
        ([10**6], "trial 1000000 is no feasible trial of study 's'"),
        (["best"], "trial 'best' is no feasible trial of study 's'"),
        ("3", "trial '3' is no feasible trial of study 's'"),
        (None, "top must be a whole number, but got top=None"),
        (2.5, "top must be a whole number, but got top=2.5"),
    ):
        with pytest.raises(SecateurError, match=message):
            study.retrain(top)  # type: ignore[arg-type]
    with pytest.raises(SecateurError, match=r"finalists must be a whole number, but got finalists=3\.5"):
        study.retrain(1, finalists=3.5)  # type: ignore[arg-type]


def network(study: Study, one: Candidate) -> torch.Tensor:
    assert one.artefact is not None
    model = load(one.artefact, study.model)
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def trained(study: Study) -> dict[int, list[Any]]:
    """Number of a trial -> what its retrainings gave, seconds and paths left out."""
    return {
        one.number: [(each.label, each.rungs, each.test_accuracy) for each in one.retrainings]
        for one in study.candidates()
        if one.retrainings
    }


def test_the_better_go_on_by_validation_accuracy_and_only_the_last_see_test_images(
    tmp_path: Path, parts: Parts, study: Study
) -> None:
    promised, front = study.finalists(1, 6, RECIPE.epochs), study.front()
    rungs = {one.number: dict(one.retrainings[0].rungs) for one in front.candidates if one.retrainings}
    assert set(rungs) == {one.number for one in promised.members}
    for short, longer, count in ((1, 2, 3), (2, 8, 1)):
        order = sorted(rungs, key=lambda number: -rungs[number].get(short, -1.0))
        assert sum(longer in found for found in rungs.values()) == count
        worst = min(rungs[number][short] for number in rungs if longer in rungs[number])
        assert all(rungs[number].get(short, -1.0) <= worst for number in order if longer not in rungs[number])
    assert sum(epochs for found in rungs.values() for epochs in found) == promised.cost * RECIPE.epochs
    [winner] = retrained(front)
    assert winner.test_accuracy is not None
    assert all(one.test_accuracy is None for one in front.candidates if one.number != winner.number)
    table = finalists_table(front).splitlines()
    assert table[0].split()[-6:] == ["1", "epoch", "2", "epochs", "8", "epochs"]
    assert [re.findall(r"(\d) of 3", line) for line in table[2:]] == [[i] for i in "322111"]
    assert [one["reached_epochs"] for one in result_values(front, {})["finalists"]] == [8, 2, 2, 1, 1, 1]
    assert open_study(study.store.url).front().best().retrainings[0].rungs == winner.retrainings[0].rungs

    plain = searched(tmp_path, parts)
    [same] = retrained(plain.retrain([winner.number], recipe=RECIPE, progress=False))
    assert torch.equal(network(study, winner), network(plain, same))  # the training that was asked for, and no other


def test_a_rung_has_the_rate_of_its_length_and_belongs_to_the_whole_training() -> None:
    """Also one that a version noted which knew only the whole training's epochs."""
    for lr, rates in (("auto", (0.02, 0.05, 0.1)), (0.2, (0.04, 0.1, 0.2))):
        whole = RetrainConfig(Recipe(epochs=40, lr=cast(Any, lr)))
        configs = [whole.short(3), whole.short(10), whole]
        assert [one.recipe.highest_rate for one in configs] == pytest.approx(rates)
        old = replace(configs[0].recipe, lr=rates[-1]).to_dict()
        noted = json.dumps({**old, "flow": "one-shot", "steps": whole.flow.count, "whole": 40})
        for first in (configs[0].text, noted):
            texts = [first, *(one.text for one in configs[1:])]
            facts = [{"trial": 5, "recipe": text, "accuracy": 0.5, "test_accuracy": 0.4} for text in texts]
            trials = [create_trial(value=0.5, user_attrs=one) for one in facts]
            [retraining] = read_retrainings(None, trials, None)[5]
            assert [epochs for epochs, _ in retraining.rungs] == [3, 10, 40]
            assert retraining.recipe == {"start": "cut", **json.loads(whole.text)}


def test_where_lower_is_better_the_lowest_go_on(tmp_path: Path, parts: Parts) -> None:
    task = Task(cross_entropy, cross_entropy, name="loss", direction="lower", classes=True)
    front = searched(tmp_path, (*parts[:2], replace(parts[2], task=task))).retrain(**PLAN)
    rungs = {one.number: dict(one.retrainings[0].rungs) for one in front.candidates if one.retrainings}
    for short, longer, count in ((1, 2, 3), (2, 8, 1)):
        stay = [found[short] for found in rungs.values() if longer in found]
        assert len(stay) == count
        assert max(stay) <= min(found[short] for found in rungs.values() if short in found and longer not in found)


def test_stopped_again_and_again_every_rung_goes_on_where_it_was(
    tmp_path: Path, parts: Parts, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = searched(tmp_path, parts)
    keep: Callable[..., None] = engine._save
    done = 0

    def stop(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done % 3 == 0:
            raise KeyboardInterrupt
        keep(*arguments)

    stops = 0
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # of the heartbeat, to see that nobody else is there
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_save", stop)
        while True:
            try:
                front = other.retrain(**PLAN)
                break
            except KeyboardInterrupt:
                stops += 1
    assert stops >= 8
    assert trained(other) == trained(study)
    assert torch.equal(network(study, study.front().best()), network(other, front.best()))


def test_more_finalists_and_places_train_only_what_is_new(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(study)
    count = Mock(side_effect=engine._run)
    monkeypatch.setattr(engine, "_run", count)
    study.retrain(**PLAN)
    assert count.call_count == 0
    study.retrain(**PLAN | {"top": 2, "finalists": 7})
    assert 2 <= count.call_count <= 1 + 2 + 2  # one new finalist, who may come far
    later = trained(study)
    assert len(later) == 7
    assert all(set(later[number][0][1]) >= set(found[0][1]) for number, found in first.items())
