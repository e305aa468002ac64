"""Which structures are retrained: by score, over the front, and not all alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.cost_table import Cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from search.review.candidate import Candidate
from search.review.front import Front
from search.study.candidates import APART, choose, distance


def structure(*widths: int, removed: tuple[str, ...] = ()) -> Structure:
    return Structure("g", tuple((f"group{i}", tuple(range(width))) for i, width in enumerate(widths)), removed)


def front(*candidates: Candidate) -> Front:
    return Front("made up", Candidate(-1, structure(100, 100), cost=Cost(1000, 100)), candidates, "naswot")


def candidate(number: int, score: float, *widths: int, macs: int = 500) -> Candidate:
    return Candidate(number, structure(*widths), cost=Cost(macs, 50), score=score)


WIDTHS = st.lists(st.integers(1, 64), min_size=3, max_size=3)


@given(WIDTHS, WIDTHS)
def test_distance_is_symmetric_and_zero_for_equal_widths_alone(one: list[int], other: list[int]) -> None:
    there, back = distance(structure(*one), structure(*other)), distance(structure(*other), structure(*one))
    assert there == back
    assert 0 <= there < 1
    assert (there == 0) == (one == other)


def test_distance_by_hand() -> None:
    assert distance(structure(10, 20), structure(5, 20)) == pytest.approx(0.25)
    assert distance(structure(10, 20), structure(10, 20, removed=("layer1",))) == 1.0


def test_neighbours_of_the_best_come_last() -> None:
    near = [candidate(i, 10.0 - i, 60, 40 + (i > 0)) for i in range(2)]
    far = [candidate(2, 5.0, 30, 80), candidate(3, 4.0, 90, 20)]
    assert distance(structure(60, 40), structure(60, 41)) < APART
    assert [one.number for one in choose(front(*near, *far), 2, spread=False)] == [0, 2]
    assert [one.number for one in choose(front(*near, *far), 3, spread=False)] == [0, 2, 3]
    assert [one.number for one in choose(front(*near, *far), 4, spread=False)] == [0, 2, 3, 1]
    assert len(choose(front(*near, *far), 9, spread=False)) == 4


def test_more_begin_with_fewer() -> None:
    several = [candidate(i, float(-i), 10 + 7 * (i % 5), 90 - 3 * i) for i in range(12)]
    whole = [one.number for one in choose(front(*several), 12, spread=False)]
    for top in range(1, 12):
        assert [one.number for one in choose(front(*several), top, spread=False)] == whole[:top]


def test_under_a_cap_scores_alone_count_and_not_who_is_cheapest() -> None:
    """Filled to within 2 %, structures still differ by some MACs, and the cheapest of a front has its least score."""
    several = [candidate(i, float(i), 10 + 9 * i, 90 - 9 * i, macs=490 + i) for i in range(10)]
    assert [one.number for one in choose(front(*several), 1, spread=False)] == [9]
    assert [one.number for one in choose(front(*several), 3, spread=False)] == [9, 8, 7]


def test_over_a_band_the_best_score_comes_first_and_then_even_steps_in_macs() -> None:
    macs = [100, 110, 120, 130, 140, 150, 300, 500]  # crowded at the cheap end
    several = [candidate(i, float(i), 10 + 9 * i, 90 - 9 * i, macs=some) for i, some in enumerate(macs)]
    assert [one.number for one in choose(front(*several), 1, spread=True)] == [7]
    assert [one.number for one in choose(front(*several), 2, spread=True)] == [7, 0]
    assert [one.number for one in choose(front(*several), 3, spread=True)] == [7, 6, 0]
    assert [one.number for one in choose(front(*several), 5, spread=True)] == [7, 6, 5, 0, 4]


def test_a_step_of_a_band_takes_what_scores_best_at_about_its_macs() -> None:
    macs = [1000, 1015, 1025, 2000]  # the second costs 1.5 % more than the cheapest, the third 2.5 %
    several = [candidate(i, float(i), 10 + 9 * i, 90 - 9 * i, macs=some) for i, some in enumerate(macs)]
    assert [one.number for one in choose(front(*several), 2, spread=True)] == [3, 1]


def test_nothing_to_choose_from_is_told() -> None:
    with pytest.raises(SecateurError, match=r"1 <= top must hold, but got top=0"):
        choose(front(candidate(0, 1.0, 5, 5)), 0, spread=True)
    with pytest.raises(SecateurError, match=r"study 'made up' has no feasible trial to retrain; search first"):
        choose(front(), 1, spread=False)
