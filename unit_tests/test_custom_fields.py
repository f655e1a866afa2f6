"""The custom fields in Truto's description of a model, and the request for it."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from source_truto_segments.config import Config
from source_truto_segments.custom_fields import parse_columns
from source_truto_segments.records.columns import load_schema
from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
CONFIG = Config("t0ken", ACCOUNT_ID)
OPERATION = f"Asking for the custom fields of integrated account {ACCOUNT_ID}"
UNIFIED = load_schema("segments")["properties"]
ANY_TYPE = ["null", "string", "number", "boolean", "object", "array"]
TYPES = ["string", "boolean", "number", "integer", "object", "array"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=5) | st.sampled_from(
    [*UNIFIED, "", "ID", "Name", "a.b", "a/b", "\x00", "$ref", "type", "properties", "__proto__"]
)
types = st.sampled_from([*TYPES, "null", "enum", "", "date"])


def fields_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Entries of the model: near the documented form, or anything in any part of it."""
    return json_values | st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types | json_values, max_size=3) | json_values,
            "format": st.just("date-time") | json_values,
            "description": st.text(max_size=2 * MAX_EXCERPT_LENGTH) | json_values,
            "required": st.booleans() | json_values,
            "enum": json_values,
            "items": inner,
            "properties": st.dictionaries(names, inner, max_size=2) | json_values,
            "$ref": st.sampled_from(["#", "#/properties/id", "https://example.com/x"]),
            "additionalProperties": json_values,
        },
    )


fields = st.recursive(json_values, fields_of, max_leaves=4)


@given(st.dictionaries(names, fields_of(fields), max_size=5))
def test_given_any_fields_when_parsed_then_each_new_one_is_a_nullable_column(
    properties: dict[str, Any],
) -> None:
    columns = parse_columns({"schema": {"type": "object", "properties": properties}})

    assert set(columns) <= set(properties) - set(UNIFIED)
    lowered = [name.lower() for name in [*UNIFIED, *columns]]
    assert len(set(lowered)) == len(lowered)
    left_out = set(properties) - set(UNIFIED) - set(columns)
    assert {name.strip().lower() for name in left_out} <= {"", *lowered}
    Draft7Validator.check_schema({"type": "object", "properties": columns})
    for column in columns.values():
        assert column["type"] == ANY_TYPE or column["type"] in (["null", kind] for kind in TYPES)
        assert Draft7Validator(column).is_valid(None)
        assert len(column.get("description", "")) <= MAX_EXCERPT_LENGTH


@given(st.sampled_from(TYPES), st.sampled_from(["one", "listed", "nullable"]), json_values)
def test_given_a_known_type_in_any_form_when_parsed_then_it_is_the_columns(
    kind: str, form: str, other: Any
) -> None:
    named = {"one": kind, "listed": [kind], "nullable": ["null", kind]}[form]
    column = parse_columns({"schema": {"properties": {"x": {"type": named, "items": other}}}})["x"]

    assert column["type"] == ["null", kind]


@given(
    json_values
    | st.fixed_dictionaries({"properties": json_values})
    | st.fixed_dictionaries({"properties": st.lists(names)}),
    st.dictionaries(st.text(), json_values, max_size=3),
)
def test_given_any_description_when_parsed_then_the_columns_are_those_it_names(
    schema: Any, others: dict[str, Any]
) -> None:
    named = schema.get("properties") if isinstance(schema, dict) else None
    expected = set(named) - set(UNIFIED) if isinstance(named, dict) else set()

    columns = set(parse_columns({**others, "schema": schema}))
    assert columns <= expected
    assert bool(columns) is any(name.strip().lower() not in {"", *UNIFIED} for name in expected)
    others.pop("schema", None)
    assert parse_columns(others) == {}


@pytest.mark.parametrize("levels", [1, 100, 900])
def test_given_a_model_that_is_nested_deeply_when_parsed_then_its_column_is_flat(
    levels: int,
) -> None:
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
