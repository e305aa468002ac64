"""The line of a candidate in the table of results that a report and a notebook show."""

from __future__ import annotations

from search.formatting import amount
from search.review.candidate import Candidate
from search.review.footprint import footprint_cells

HEADINGS = (
    "candidate",
    "MACs",
    "of dense",
    "parameters",
    "ms",
    "size",
    "score",
    "as cut",
    "refitted",
    "validation",
    "test",
    "against dense",
    "structure",
)


def result_cells(dense: Candidate, one: Candidate) -> tuple[str, ...]:
    """The text below each of the `HEADINGS`, with a dash where something was not measured.

    Args:
        dense: the network that the search started from, which shares and differences refer to.
        one: the candidate; may be `dense` itself.
    """
    macs, dense_macs, score = one.on("macs"), dense.on("macs"), one.value("score")
    return (
        one.name,
        long_dash(amount(macs)),
        f"{macs / dense_macs:.1%}" if macs is not None and dense_macs else "–",
        long_dash(amount(one.on("params"))),
        *map(long_dash, footprint_cells(one.footprint)),
        "–" if score is None else f"{score:.5g}",
        percent_cell(one.cut_accuracy),
        percent_cell(one.refitted_accuracy),
        percent_cell(one.accuracy),
        percent_cell(one.test_accuracy),
        "" if one is dense else accuracy_change(dense, one),
        one.id or "–",
    )


def accuracy_change(dense: Candidate, one: Candidate) -> str:
    """Percentage points of test accuracy gained or lost against the dense network; of validation without test."""
    for mine, theirs, word in (
        (one.test_accuracy, dense.test_accuracy, "test"),
        (one.accuracy, dense.accuracy, "validation"),
    ):
        if mine is not None and theirs is not None:
            points = round(100 * (mine - theirs), 2)
            return f"{'+' if points > 0 else '−' if points < 0 else '±'}{abs(points):.2f} {word}"
    return "–"


def percent_cell(fraction: float | None) -> str:
    """An accuracy as a percentage of two digits, 97.31%; a long dash for None."""
    return "–" if fraction is None else f"{fraction:.2%}"


def long_dash(text: str) -> str:
    """The text, with a long dash in the place of a short one that stands alone."""
    return "–" if text == "-" else text
