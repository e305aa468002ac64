"""Wrong names are answered with the nearest right one."""

from __future__ import annotations

import pytest

from backbones.errors import SecateurError, check_name, did_you_mean, first_line, one_line


def test_a_known_name_passes() -> None:
    check_name("sampler", "tpe", ("tpe", "random"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpee", "unknown sampler 'tpee'; did you mean 'tpe'? known are tpe, random"),
        ("x", "unknown sampler 'x'; known are tpe, random"),
    ],
)
def test_an_unknown_name_is_named_with_its_nearest(name: str, message: str) -> None:
    with pytest.raises(SecateurError) as raised:
        check_name("sampler", name, ("tpe", "random"))
    assert str(raised.value) == message


def test_capitals_do_not_matter_to_the_nearest_name() -> None:
    assert did_you_mean("L2", ("l1", "l2")) == "did you mean 'l2'?"
    assert did_you_mean("mixed_5b", ("Mixed_5b", "Mixed_7c")) == "did you mean 'Mixed_5b'?"
    assert did_you_mean("", ("l1",)) == ""


def test_what_an_exception_says_fits_one_line() -> None:
    error = RuntimeError("\nshapes differ:\n  1 and 2\n")
    assert first_line(error) == "shapes differ:"
    assert first_line(RuntimeError()) == "RuntimeError"
    assert one_line(error) == "shapes differ: 1 and 2"
    assert one_line(error, 9) == "shapes …"
    assert one_line(RuntimeError()) == "RuntimeError"
    assert one_line(RuntimeError("\x1b[1mdo\x1b[0m \x07this\n")) == "do this"
