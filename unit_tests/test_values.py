"""Numbers, JSON and NUL, as pure functions; test_records.py tests the other values."""

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.records.values import (
    CoercionError,
    integer,
    number,
    serialize,
    without_nul,
)


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
def test_number_in_any_form(value: Any, expected: Any) -> None:
    """A number in any form becomes a number."""
    found = number(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value", ["five", "5,5", "0x5", "1_000", "NaN", "Infinity", ".5", "+5", "٥", True, None, [], {}]
)
def test_invalid_number(value: Any) -> None:
    """A value that is no number is rejected."""
    with pytest.raises(CoercionError):
        number(value)
    with pytest.raises(CoercionError):
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
def test_integer_in_any_form(value: Any, expected: int | None) -> None:
    """An integer in any form becomes an integer."""
    found = integer(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("value", [5.5, "5.5", 2.0**63, -(2.0**63), 1e300, "1e30"])
def test_inexact_integer(value: Any) -> None:
    """A number that is not an exact integer is rejected."""
    with pytest.raises(CoercionError):
        integer(value)


texts = st.text() | st.sampled_from(["\0", "a\0b", "\0\0"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def strings(value: Any) -> Iterator[str]:
    """Yield all strings and keys of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        entries = [*value, *value.values()] if isinstance(value, dict) else value
        for entry in entries:
            yield from strings(entry)


@given(json_values)
def test_any_value_without_nul(value: Any) -> None:
    """Replacing NUL leaves none, and changes nothing else."""
    clean = without_nul(value)

    assert not any("\0" in text for text in strings(clean))
    assert without_nul(clean) == clean
    if not any("\0" in text for text in strings(value)):
        assert clean == value


def test_nul_at_any_depth() -> None:
    """Replacing a NUL keeps the rest of its string, at any depth."""
    value = {"a\0": ["b\0c", {"\0": "\0", "d": None}], "e": 1.5}
    assert without_nul(value) == {"a�": ["b�c", {"�": "�", "d": None}], "e": 1.5}


json_objects = st.dictionaries(
    st.text(), json_values | st.floats(allow_nan=False, allow_infinity=False), max_size=4
)


@given(json_objects, st.sampled_from([0, 2**63, 2**70, -(2**70)]))
def test_any_serialized_value(value: dict[str, Any], number: int) -> None:
    """Any value is serialized as one line of JSON that has the same value."""
    value = {**value, "number": number}

    for option in (0, orjson.OPT_SORT_KEYS):
        found = serialize(value, option=option)
        assert json.loads(found) == value
        assert len(found.splitlines()) == 1
    assert serialize(value) == serialize(value, option=0)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**64, -(2**63) - 1])
def test_order_of_keys(number: int) -> None:
    """Keys are sorted only if the caller asks for it."""
    value = {"b": {"d": number, "c": 1}, "a": 2}
    as_given, in_order = serialize(value), serialize(value, option=orjson.OPT_SORT_KEYS)

    assert list(json.loads(as_given)) == ["b", "a"]
    assert list(json.loads(as_given)["b"]) == ["d", "c"]
    assert list(json.loads(in_order)) == ["a", "b"]
    assert list(json.loads(in_order)["b"]) == ["c", "d"]
    assert json.loads(as_given) == json.loads(in_order) == value


def test_unserializable_value() -> None:
    """A value without a JSON form cannot be serialized."""
    with pytest.raises(TypeError):
        serialize({"a": object()})
