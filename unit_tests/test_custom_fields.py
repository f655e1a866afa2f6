"""The custom fields in Truto's description of a model, and the request for it."""

import logging
import threading
from typing import Any

import pytest
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from source_truto_segments import custom_fields
from source_truto_segments.config import Config
from source_truto_segments.custom_fields import custom_columns, parse_columns
from source_truto_segments.records.columns import load_schema
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import Request
from source_truto_segments.truto.errors import ReadError, Resolution
from source_truto_segments.truto.responses import MAX_EXCERPT_LENGTH, parse_object

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
CONFIG = Config("t0ken", ACCOUNT_ID)
OPERATION = f"Asking for the custom fields of integrated account {ACCOUNT_ID}"
NO_MODEL = (
    "Truto has no model description (custom fields) for integrated account "
    f"{ACCOUNT_ID} (HTTP 404). Refresh"
)
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

    assert set(columns) == set(properties) - set(UNIFIED)
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

    assert set(parse_columns({**others, "schema": schema})) == expected
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


class FakeClient:
    """Gives a model's description, or fails."""

    def __init__(self, result: dict[str, Any] | ReadError) -> None:
        self._result = result
        self.requests: list[Request[dict[str, Any]]] = []

    def fetch_once(self, request: Request[dict[str, Any]]) -> dict[str, Any]:
        self.requests.append(request)
        if isinstance(self._result, ReadError):
            raise self._result
        return self._result


def fetch(client: Any) -> dict[str, Any]:
    return custom_columns(ACCOUNT_ID, client)


def test_given_a_model_when_asked_for_then_its_custom_fields_are_columns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = FakeClient({"schema": {"properties": {"id": {}, "score": {"type": "number"}}}})

    assert fetch(client) == {"score": {"type": ["null", "number"]}}
    path = "unified/marketing-automation/segments/meta/list"
    params = {"integrated_account_id": ACCOUNT_ID}
    assert client.requests == [Request(path, OPERATION, parse_object, ACCOUNT_ID, params)]
    assert not caplog.records


@pytest.mark.parametrize(
    ("resolution", "reason"),
    [
        (errors.ACCOUNT_NOT_FOUND, NO_MODEL),
        (errors.VENDOR_NOT_FOUND, NO_MODEL),
        (
            Resolution(ResponseAction.RETRY, FailureType.transient_error, "it rained", "Wait."),
            f"{OPERATION} failed: it rained (HTTP 404). Refresh",
        ),
    ],
    ids=["truto", "vendor", "other"],
)
def test_given_a_failure_when_asked_for_then_one_warning_gives_the_reason(
    resolution: Resolution, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = ReadError(resolution, OPERATION, ACCOUNT_ID, " (HTTP 404)")

    assert fetch(FakeClient(error)) == {}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert reason in record.message


def test_given_no_response_when_asked_for_then_it_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    class HangingClient(FakeClient):
        def fetch_once(self, *_: Any) -> dict[str, Any]:
            release.wait()
            return {}

    monkeypatch.setattr(custom_fields, "_TIMEOUT", 0.01)
    try:
        assert fetch(HangingClient({})) == {}
    finally:
        release.set()
    (record,) = caplog.records
    assert "No response came within 0 s. Refresh" in record.message
