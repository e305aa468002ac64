"""Which structures are retrained: by score, over the front, and not all alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbones.cost import Cost
from backbones.errors import SecateurError
from backbones.structure import Structure
from search.review.front import Candidate, Front
from search.study.selection import APART, choose, distance


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
    assert [one.number for one in choose(front(*near, *far), 2)] == [0, 2]
    assert [one.number for one in choose(front(*near, *far), 3)] == [0, 2, 3]
    assert [one.number for one in choose(front(*near, *far), 4)] == [0, 2, 3, 1]
    assert len(choose(front(*near, *far), 9)) == 4


def test_more_begin_with_fewer() -> None:
    several = [candidate(i, float(-i), 10 + 7 * (i % 5), 90 - 3 * i) for i in range(12)]
    whole = [one.number for one in choose(front(*several), 12)]
    for top in range(1, 12):
        assert [one.number for one in choose(front(*several), top)] == whole[:top]


def test_nothing_to_choose_from_is_told() -> None:
    with pytest.raises(SecateurError, match=r"top >= 1 must hold, but got top=0"):
        choose(front(candidate(0, 1.0, 5, 5)), 0)
    with pytest.raises(SecateurError, match=r"study 'made up' has no feasible trial to retrain; search first"):
        choose(front(), 1)
