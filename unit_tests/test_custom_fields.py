"""The columns of the custom fields in Truto's description of a model."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.custom_fields import parse_columns

TYPES = ["string", "boolean", "number", "integer", "object", "array"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(TYPES), st.sampled_from(["one", "listed", "nullable"]), json_values)
def test_known_type_in_any_form(kind: str, form: str, other: Any) -> None:
    """A known type becomes the column's type, in whatever form it is written."""
    named = {"one": kind, "listed": [kind], "nullable": ["null", kind]}[form]
    column = parse_columns({"schema": {"properties": {"x": {"type": named, "items": other}}}})["x"]

    assert column["type"] == ["null", kind]


@pytest.mark.parametrize("levels", [1, 100, 900])
def test_deep_field(levels: int) -> None:
    """A deeply nested field becomes a flat column."""
    field: Any = {"type": "string"}
    for _ in range(levels):
        field = {"type": "object", "properties": {"inner": field}}

    assert parse_columns({"schema": {"properties": {"x": field}}}) == {
        "x": {"type": ["null", "object"], "additionalProperties": True}
    }


@pytest.mark.parametrize(
    "name", ["", " ", "_airbyte_raw_id", "_AIRBYTE_x", "_ab_cdc_lsn", "_Ab_x", "ID", "Name"]
)
def test_unfit_names(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A name that a destination rejects, or confuses with another, is left out with a warning."""
    properties = {name: {"type": "string"}, "score": {"type": "number"}, "SCORE": {}}

    assert list(parse_columns({"schema": {"properties": properties}})) == ["score"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f'"{name}"' in record.getMessage()
    assert '"SCORE"' in record.getMessage()
