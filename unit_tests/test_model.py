"""The customer's model read from Truto's description of it, as a pure function."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from source_truto_segments.envelope import QUOTE_LENGTH
from source_truto_segments.model import columns_of
from source_truto_segments.records import segments_schema

UNIFIED = segments_schema()["properties"]
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
    """Entries of the model: near the documented form, or anything at all in each place of it."""
    return json_values | st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types | json_values, max_size=3) | json_values,
            "format": st.just("date-time") | json_values,
            "description": st.text(max_size=2 * QUOTE_LENGTH) | json_values,
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
def test_given_any_fields_when_read_then_each_new_one_is_a_nullable_column(
    properties: dict[str, Any],
) -> None:
    columns = columns_of({"schema": {"type": "object", "properties": properties}})

    assert set(columns) == set(properties) - set(UNIFIED)
    Draft7Validator.check_schema({"type": "object", "properties": columns})
    for column in columns.values():
        assert column["type"] == ANY_TYPE or column["type"] in (["null", kind] for kind in TYPES)
        assert Draft7Validator(column).is_valid(None)
        assert len(column.get("description", "")) <= QUOTE_LENGTH


@given(st.sampled_from(TYPES), st.sampled_from(["one", "listed", "nullable"]), json_values)
def test_given_a_known_type_in_any_form_when_read_then_it_is_the_columns(
    kind: str, form: str, other: Any
) -> None:
    named = {"one": kind, "listed": [kind], "nullable": ["null", kind]}[form]
    column = columns_of({"schema": {"properties": {"x": {"type": named, "items": other}}}})["x"]

    assert column["type"] == ["null", kind]


@given(
    json_values
    | st.fixed_dictionaries({"properties": json_values})
    | st.fixed_dictionaries({"properties": st.lists(names)}),
    st.dictionaries(st.text(), json_values, max_size=3),
)
def test_given_any_description_when_read_then_the_columns_are_those_it_names(
    schema: Any, others: dict[str, Any]
) -> None:
    named = schema.get("properties") if isinstance(schema, dict) else None
    expected = set(named) - set(UNIFIED) if isinstance(named, dict) else set()

    assert set(columns_of({**others, "schema": schema})) == expected
    others.pop("schema", None)
    assert columns_of(others) == {}


@pytest.mark.parametrize("levels", [1, 100, 900])
def test_given_a_model_that_is_nested_deeply_when_read_then_its_column_is_flat(levels: int) -> None:
    field: Any = {"type": "string"}
    for _ in range(levels):
        field = {"type": "object", "properties": {"inner": field}}

    assert columns_of({"schema": {"properties": {"x": field}}}) == {
        "x": {"type": ["null", "object"], "additionalProperties": True}
    }
