"""Numbers of custom columns, as pure functions; the other values are in test_records.py."""

from typing import Any

import pytest

from source_truto_segments.values import MisfitError, integer, number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (5.5, 5.5),
        (2**70, 2**70),
        ("5", 5),
        (" -5 ", -5),
        ("5.0", 5.0),
        ("5e2", 500.0),
        ("-1.5E-2", -0.015),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("", None),
        ("  ", None),
    ],
)
def test_given_a_number_in_any_form_when_said_then_it_is_one(value: Any, expected: Any) -> None:
    found = number(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value", ["five", "5,5", "0x5", "1_000", "NaN", "Infinity", ".5", "+5", "٥", True, None, [], {}]
)
def test_given_no_number_when_said_then_it_is_refused(value: Any) -> None:
    with pytest.raises(MisfitError):
        number(value)
    with pytest.raises(MisfitError):
        integer(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (2**70, 2**70),
        (5.0, 5),
        ("5", 5),
        ("-5.0", -5),
        ("5e2", 500),
        (2.0**62, 2**62),
        ("", None),
    ],
)
def test_given_a_whole_number_in_any_form_when_said_then_it_is_one(
    value: Any, expected: int | None
) -> None:
    found = integer(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [5.5, "5.5", 2.0**63, -(2.0**63), 1e300, "1e30"])
def test_given_a_number_that_is_not_whole_or_not_exact_when_said_then_it_is_refused(
    value: Any,
) -> None:
    with pytest.raises(MisfitError):
        integer(value)
