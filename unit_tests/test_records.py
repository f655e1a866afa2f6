"""Records coerced to their columns, as a pure function."""

import json
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from source_truto_segments.config import Config
from source_truto_segments.records.columns import (
    MAX_RECORD_BYTES,
    REQUIRED_COLUMNS,
    ColumnSelection,
    coerce_record,
    load_schema,
)
from source_truto_segments.records.values import serialize
from source_truto_segments.streams import STREAMS, Streams
from source_truto_segments.truto.account_objects import (
    HAS_OVERRIDE,
    account_record,
    integration_of,
)
from source_truto_segments.truto.responses import Page, parse_page

DATES = ("created_at", "updated_at", "last_calculated_at")
TEXTS = ("id", "name", "description", "status")
MODEL = load_schema("segments")["properties"]
CONNECTOR = ["integrated_account_id", "workspace_id", "_ab_cdc_updated_at", "_ab_cdc_deleted_at"]
VALIDATOR = Draft7Validator(load_schema("segments"), format_checker=Draft7Validator.FORMAT_CHECKER)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def select(properties: Any = None, stream: str = "segments") -> ColumnSelection:
    """Return the columns of a catalog, which without properties selects everything."""
    return ColumnSelection.from_schema(stream, {"properties": properties} if properties else {})


def columns(*names: str, **properties: Any) -> ColumnSelection:
    """Return the columns of a catalog that selects these."""
    return select({**{name: MODEL[name] for name in names}, **properties})


def coerce(
    raw: dict[str, Any], properties: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[Any]]:
    return coerce_record(raw, select(properties))


def named(changes: list[Any]) -> list[tuple[str, str, str]]:
    return [tuple(change) for change in changes]


def nested(levels: int, kind: type) -> Any:
    """Return a text within so many levels of lists or objects."""
    value: Any = "x"
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


# --- the values of the model's columns ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-01-02T03:04:05Z", "2023-01-02T03:04:05Z"),
        ("2023-01-02T03:04:05.000Z", "2023-01-02T03:04:05Z"),
        ("2023-01-02T03:04:05.120Z", "2023-01-02T03:04:05.12Z"),
        ("2023-01-02T03:04:05.123456+00:00", "2023-01-02T03:04:05.123456Z"),
        ("2022-11-08T00:00:00+00:00", "2022-11-08T00:00:00Z"),
        ("2022-11-08T01:30:00+05:30", "2022-11-07T20:00:00Z"),
        ("2022-11-08T01:30:00-0500", "2022-11-08T06:30:00Z"),
        ("2022-11-08T01:30:00+02", "2022-11-07T23:30:00Z"),
        ("2021-08-06 10:17:45", "2021-08-06T10:17:45Z"),
        ("2021-08-06 10:17:45 UTC", "2021-08-06T10:17:45Z"),
        ("2021-08-06 10:17:45Z", "2021-08-06T10:17:45Z"),
        ("2021-08-06t10:17:45Z", "2021-08-06T10:17:45Z"),
        ("2021-08-06T10:17:45z", "2021-08-06T10:17:45Z"),
        ("2021-08-06T00:17:45+23:59", "2021-08-05T00:18:45Z"),
        ("2021-08-06T10:17:45", "2021-08-06T10:17:45Z"),
        ("2021-08-06T10:17", "2021-08-06T10:17:00Z"),
        ("2021-08-06", "2021-08-06T00:00:00Z"),
        (" 2021-08-06t10:17:45z ", "2021-08-06T10:17:45Z"),
        (1670000000, "2022-12-02T16:53:20Z"),
        (99_999_999_999, "5138-11-16T09:46:39Z"),
        (100_000_000_000, "1973-03-03T09:46:40Z"),
        (1670000000.5, "2022-12-02T16:53:20.5Z"),
        (1670000000123, "2022-12-02T16:53:20.123Z"),
        ("1670000000", "2022-12-02T16:53:20Z"),
        ("1670000000123", "2022-12-02T16:53:20.123Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_date_in_any_form(value: Any, expected: str | None) -> None:
    """A date in any form becomes a timestamp in UTC."""
    for name in DATES:
        record, changes = coerce({"id": "1", name: value})
        assert record[name] == expected
        assert changes == []


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "2023-13-01T00:00:00Z",
        "2023-02-30",
        "2023-01-02T25:00:00Z",
        "2023-01-02T03:04:05+24:00",
        "2023-01-02T03:04:05+25:00",
        "2023-01-02T03:04:05-01:60",
        "2023-01-02T03+01:00Z",
        "2023-01-02T03:04+01Z",
        "2023-01-02T030405.1Z",
        "2023-W01-1T03:04:05Z",
        "0001-01-01T00:00:00+05:00",
        "12345",
        "٢٠٢٣-٠١-٠٢T03:04:05Z",
        True,
        10**30,
        -(10**30),
        1e300,
        [],
        {},
        {"date": "2023-01-02"},
    ],
)
def test_invalid_date(value: Any) -> None:
    """An invalid date becomes null, and the change is reported."""
    for name in DATES:
        record, changes = coerce({"id": "1", name: value})
        assert record[name] is None
        assert named(changes) == [(name, "NULLED", "SOURCE_SERIALIZATION_ERROR")]


@pytest.mark.parametrize("zone", ["Z", "", "+00:00"])
@pytest.mark.parametrize("digits", ["1234567", "123456789", "12345600001"])
def test_long_fraction(digits: str, zone: str) -> None:
    """A fraction of more than six digits is cut, and the change is reported."""
    record, changes = coerce({"id": "1", "updated_at": f"2023-01-02T03:04:05.{digits}{zone}"})

    assert record["updated_at"] == f"2023-01-02T03:04:05.{digits[:6]}Z"
    assert named(changes) == [("updated_at", "TRUNCATED", "SOURCE_FIELD_SIZE_LIMITATION")]


@pytest.mark.parametrize(
    "value",
    ["2023-01-02T03:04:05.1234560Z", "2023-01-02T03:04:05.123456000", "2023-01-02T03:04:05   UTC"],
)
def test_zeros_and_blanks(value: str) -> None:
    """If only zeros or blanks are cut, no change is reported."""
    _, changes = coerce({"updated_at": value})
    assert changes == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), ("", ""), (53, "53"), (2**70, str(2**70)), (1.5, "1.5"), (True, "true")],
)
def test_number_for_text(value: Any, expected: str) -> None:
    """A number or a boolean in a column of texts becomes its text."""
    for name in TEXTS:
        record, changes = coerce({name: value})
        assert record[name] == expected
        assert changes == []


@pytest.mark.parametrize("value", [{}, [], {"en": "x"}, ["x"], 2.0**63, -(2.0**63), 1e300])
def test_object_for_text(value: Any) -> None:
    """Any other value in a column of texts becomes null, and the change is reported."""
    for name in TEXTS:
        record, changes = coerce({name: value})
        assert record[name] is None
        assert [change.field for change in changes] == [name]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("False", False),
        (1, True),
        (0, False),
        (0.0, False),
        ("", None),
    ],
)
def test_boolean_in_any_form(value: Any, expected: bool | None) -> None:
    """A boolean in any form becomes a boolean."""
    record, changes = coerce({"is_starred": value})
    assert record["is_starred"] is expected
    assert changes == []


@pytest.mark.parametrize("value", ["yes", 2, -1, 0.5, [], {}])
def test_invalid_boolean(value: Any) -> None:
    """A value that is no boolean becomes null, and the change is reported."""
    record, changes = coerce({"is_starred": value})
    assert record["is_starred"] is None
    assert [change.field for change in changes] == ["is_starred"]


@pytest.mark.parametrize("value", ["{}", [], [{}], 1, True])
def test_invalid_remote_data(value: Any) -> None:
    """remote_data that is not an object becomes null, and the change is reported."""
    record, changes = coerce({"remote_data": value})
    assert record["remote_data"] is None
    assert [change.field for change in changes] == ["remote_data"]


def test_fields_of_override() -> None:
    """Fields that an override adds pass unchanged."""
    raw = {"id": "1", "score": 10**20, "tags": [None, {"a": "2021-08-06 10:17:45"}], "x": None}
    assert coerce(raw) == (raw, [])


# --- the columns that a catalog selects ---


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, 5, "5"),
        ({"type": ["null", "string"]}, 5, "5"),
        ({"type": ["string"], "format": "date-time"}, "2021-08-06", "2021-08-06T00:00:00Z"),
        ({"type": "string", "format": "uuid"}, "2021-08-06", "2021-08-06"),
        ({"type": "number", "format": "date-time"}, "4.5", 4.5),
        ({"type": ["null", "number"]}, "4.5", 4.5),
        ({"type": "integer"}, "45", 45),
        ({"type": "boolean"}, "true", True),
        ({"type": "object"}, {"a": 1}, {"a": 1}),
        ({"type": "array"}, [1], [1]),
        ({"type": ["string", "number"]}, 5, 5),
        ({"type": ["null"]}, 5, 5),
        ({"type": "unknown"}, 5, 5),
        ({"type": {"any": 1}}, 5, 5),
        ({"type": [{"any": 1}]}, 5, 5),
        ({}, 5, 5),
        (True, 5, 5),
        (None, 5, 5),
    ],
)
def test_custom_column(schema: Any, value: Any, expected: Any) -> None:
    """A value in a custom column is converted to the column's type, if that is clear."""
    record, changes = coerce({"custom": value}, {"custom": schema})

    assert record["custom"] == expected
    assert type(record["custom"]) is type(expected)
    assert changes == []


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "object", "array"])
def test_text_for_another_type(kind: str) -> None:
    """A text that cannot be converted becomes null, and the change is reported."""
    record, changes = coerce({"custom": "x"}, {"custom": {"type": ["null", kind]}})

    assert record == {"custom": None}
    assert named(changes) == [("custom", "NULLED", "SOURCE_SERIALIZATION_ERROR")]


def test_type_of_model() -> None:
    """A column of the model has the model's type, whatever the catalog declares."""
    record, _ = coerce({"id": 5, "updated_at": 0}, {"id": {"type": "integer"}, "updated_at": {}})
    assert record == {"id": "5", "updated_at": "1970-01-01T00:00:00Z"}


def test_columns_of_connector() -> None:
    """The connector's own columns are not converted, except workspace_id."""
    # An override can add a workspace_id of its own.
    raw = {"integrated_account_id": 5, "workspace_id": 6}
    assert coerce(raw) == ({**raw, "workspace_id": "6"}, [])


def test_reserved_columns() -> None:
    """The _ab_cdc_ columns of a record from the API are dropped; the connector sets its own."""
    raw = {"id": "1", "_ab_cdc_updated_at": "2021-08-06", "_ab_cdc_deleted_at": "2021-08-06"}
    for page in (None, page_of(raw)):
        assert coerce_on(page, raw, select()) == ({"id": "1"}, [])
    assert len(raw) == 3


def test_excluded_column() -> None:
    """The value of an excluded column is not converted."""
    raw = {"id": 1, "created_at": "yesterday", "updated_at": "2021-08-06"}
    record, changes = coerce_record(raw, columns("name", "updated_at"))

    assert record == {**raw, "id": "1", "updated_at": "2021-08-06T00:00:00Z"}
    assert changes == []


@pytest.mark.parametrize(
    "schema",
    [None, {}, {"type": "object"}, {"properties": {}}, {"properties": []}, {"properties": ["id"]}],
)
@pytest.mark.parametrize("stream", STREAMS)
def test_no_columns(stream: str, schema: dict[str, Any] | None) -> None:
    """A catalog without columns selects everything."""
    selected = ColumnSelection.from_schema(stream, schema)
    record = {"id": "1", "unknown": 5}

    assert selected.query_params() == {}
    assert selected.project(record) == record
    assert selected.has_deletions
    whole = ColumnSelection.from_schema(stream, load_schema(stream))
    assert whole.query_params() == {}
    assert whole.project(record) == {"id": "1"}


def test_selected_columns() -> None:
    """The request excludes the columns that are not selected."""
    selected = columns("name", "remote_data")
    others = ["created_at", "description", "is_starred", "last_calculated_at", "status"]
    params = {"truto_exclude_fields[]": [*others, "updated_at"]}

    assert selected.query_params() == params
    assert selected.query_params(needs_remote_data=True) == params


@pytest.mark.parametrize(
    ("needs_remote_data", "params"), [(False, {"truto_ignore_remote_data": "true"}), (True, {})]
)
def test_all_but_remote_data(needs_remote_data: bool, params: dict[str, Any]) -> None:
    """Without the column remote_data, the request ignores it, unless the read needs it."""
    selected = columns(*(set(MODEL) - {"remote_data", "workspace_id", "_ab_cdc_deleted_at"}))

    assert selected.query_params(needs_remote_data=needs_remote_data) == params


def test_name_alone() -> None:
    """If only the name is selected, the request leaves out every other field but the id."""
    params = columns("name").query_params()
    assert params["truto_ignore_remote_data"] == "true"
    assert "id" not in params["truto_exclude_fields[]"]
    assert len(params["truto_exclude_fields[]"]) == len(MODEL) - len(CONNECTOR) - 3


def test_projection() -> None:
    """A projection keeps the selected and the required columns."""
    record = {
        "integrated_account_id": "a",
        "workspace_id": "w",
        "id": "1",
        "name": "n",
        "created_at": "2021-08-06T00:00:00Z",
        "score": 5,
        "unknown": 6,
        "_ab_cdc_updated_at": "2026-01-02T03:04:05.000006Z",
        "_ab_cdc_deleted_at": "2026-01-02T03:04:05.000006Z",
    }
    projected = columns("name", score={"type": "integer"}).project(record)

    assert list(projected) == [
        "integrated_account_id",
        "id",
        "name",
        "score",
        "_ab_cdc_updated_at",
    ]
    assert {**record, **projected} == record
    known = {name: value for name, value in record.items() if name in MODEL}
    assert columns(*MODEL).project(record) == known


@pytest.mark.parametrize("names", [list(MODEL), ["name", "status"]])
def test_projection_of_nulls(names: list[str]) -> None:
    """A projection leaves out nulls."""
    record = {"id": "1", "name": None, "status": "", "unknown": None}
    assert columns(*names).project(record) == {"id": "1", "status": ""}


@pytest.mark.parametrize("stream", STREAMS)
def test_column_of_deletions(stream: str) -> None:
    """A catalog that lacks the column of deletions gets none."""
    schema = load_schema(stream)["properties"]
    names = set(schema) - {"_ab_cdc_deleted_at"}

    assert select(schema, stream).has_deletions
    assert not select({name: schema[name] for name in names}, stream).has_deletions
    assert select({"_ab_cdc_deleted_at": {}}, stream).has_deletions


def test_projection_of_account() -> None:
    """A projection of an account keeps its id."""
    selected = select({"status": {}}, "integrated_accounts")
    record = {"id": "1", "status": "active", "region": "eu", "_ab_cdc_updated_at": "x"}

    assert selected.project(record) == {"id": "1", "status": "active", "_ab_cdc_updated_at": "x"}


# --- what a message or a destination cannot hold ---


def coerce_on(page: Page | None, raw: dict[str, Any], columns: ColumnSelection) -> Any:
    """Coerce a record that was on a page."""
    if page is None:
        return coerce_record(raw, columns)
    return coerce_record(
        raw,
        columns,
        may_be_deep=page.digest is None,
        may_have_nul=page.may_have_nul,
        max_size=page.size,
    )


def page_of(*records: dict[str, Any]) -> Page:
    """Return a page as Truto sends it."""
    return parse_page(json.dumps({"result": records}).encode())


@pytest.mark.parametrize("kind", [list, dict])
def test_many_levels(kind: type) -> None:
    """A value with too many levels to be written becomes null, and the change is reported."""
    raw = {"id": "1", "writable": nested(199, kind), "deep": nested(200, kind), "empty": kind()}
    record, changes = coerce_on(Page([raw], None), raw, select())

    assert record == {**raw, "deep": None}
    assert named(changes) == [("deep", "NULLED", "SOURCE_SERIALIZATION_ERROR")]
    assert orjson.dumps([[[[record]]]])


def test_writable_page() -> None:
    """If a whole page can be written, the levels of its records are not counted."""
    raw = {"remote_data": nested(200, dict)}

    assert coerce(raw) == (raw, [])
    assert coerce_on(Page([raw], None, digest=b"known"), raw, select()) == (raw, [])


def test_nul() -> None:
    """NUL characters in names and values are replaced, and the changes are reported."""
    raw = {
        "id": "1",
        "name": "a\0b",
        "description": "clean",
        "remote_data": {"list": ["c", {"d\0": "e\0"}]},
        "cus\0tom": 5,
        "other\0": "\0",
    }
    before = dict(raw)
    record, changes = coerce_on(page_of(raw), raw, select())

    assert record == {
        "id": "1",
        "name": "a\ufffdb",
        "description": "clean",
        "remote_data": {"list": ["c", {"d\ufffd": "e\ufffd"}]},
        "cus\ufffdtom": 5,
        "other\ufffd": "\ufffd",
    }
    assert named(changes) == [
        (name, "TRUNCATED", "SOURCE_SERIALIZATION_ERROR")
        for name in ("name", "remote_data", "cus\ufffdtom", "other\ufffd")
    ]
    assert raw == before


def test_page_without_nul() -> None:
    """If a page has no NUL, its records are not searched for it."""
    raw = {"id": "1", "name": "a\0b"}
    assert coerce_on(Page([raw], None, digest=b"known"), raw, select()) == (raw, [])
    clean = {"id": "1", "name": "ab"}
    assert coerce_on(page_of(clean, raw), clean, select()) == (clean, [])


def test_nul_and_many_levels() -> None:
    """If a column with NUL in its name has too many levels, the change has the new name."""
    raw = {"id": "1", "de\0ep": nested(200, dict)}
    record, changes = coerce_on(Page([raw], None, may_have_nul=True), raw, select())

    assert record == {"id": "1", "de\ufffdep": None}
    first, *_ = named(changes)
    assert first == ("de\ufffdep", "NULLED", "SOURCE_SERIALIZATION_ERROR")
    assert {change.field for change in changes} == {"de\ufffdep"}


@pytest.mark.parametrize("over", [0, 1])
def test_record_above_limit(over: int) -> None:
    """A record above the size limit loses its remote_data, and the change is reported."""
    raw: dict[str, Any] = {"id": "1", "remote_data": {"text": ""}}
    raw["remote_data"]["text"] = "x" * (MAX_RECORD_BYTES - len(serialize(raw)) + over)
    record, changes = coerce_on(page_of(raw), raw, select())

    assert record == ({"id": "1", "remote_data": None} if over else raw)
    reason = ("remote_data", "NULLED", "SOURCE_RECORD_SIZE_LIMITATION")
    assert named(changes) == ([reason] if over else [])


def test_page_below_limit() -> None:
    """If a whole page is within the size limit, its records are not measured."""
    raw = {"id": "1", "remote_data": {"text": "x" * MAX_RECORD_BYTES}}
    small = Page([raw], None, digest=b"known", size=MAX_RECORD_BYTES)

    assert coerce_on(small, raw, select()) == (raw, [])


# --- integrated accounts ---

NO_ACCOUNT: dict[str, Any] = {
    **dict.fromkeys(set(load_schema("integrated_accounts")["properties"]) - set(CONNECTOR)),
    HAS_OVERRIDE: False,
}


def test_account_record() -> None:
    """The record of an account has its columns, and no secrets."""
    copied = {
        "tenant_id": "acme",
        "status": "active",
        "authentication_method": "oauth2",
        "is_sandbox": False,
        "region": "eu",
        "created_at": "2021-08-06T10:17:45.000Z",
        "updated_at": "2021-08-07T10:17:45.000Z",
    }
    forbidden = {
        "resource": "segments",
        "method": "list",
        "missing_scopes": ["a:read"],
        "occurred_at": "2021-08-06T10:17:45.000Z",
    }
    entry = {
        **copied,
        "id": "62A9F3F0",
        "integration": {"name": "klaviyo", "label": "Klaviyo", "config": {"label": "Other"}},
        "last_error": {"message": "Token expired", "code": 5},
        "last_forbidden_error": {**forbidden, "headers": {"authorization": "a secret"}},
        "context": {"api_key": "a secret"},
        "authentication": "a secret",
        "unified_model_override": {"marketing-automation": "a secret"},
    }

    assert account_record(entry) == {
        **copied,
        "id": "62a9f3f0",
        "integration": "klaviyo",
        "integration_label": "Klaviyo",
        "last_error": "Token expired",
        "last_forbidden_error": forbidden,
        HAS_OVERRIDE: True,
    }
    assert set(account_record(entry)) == set(NO_ACCOUNT)


@pytest.mark.parametrize(
    ("entry", "fields"),
    [
        ({}, {}),
        ({"id": 5}, {"id": 5}),
        ({"integration": "brevo"}, {"integration": "brevo"}),
        ({"integration": 5}, {}),
        ({"integration": {"name": ["brevo"]}}, {}),
        (
            {"integration": {"name": "brevo", "config": {"label": "Brevo"}}},
            {"integration": "brevo", "integration_label": "Brevo"},
        ),
        ({"integration": {"label": "", "config": "Brevo"}}, {}),
        ({"last_error": "Broken"}, {"last_error": "Broken"}),
        ({"last_error": {}}, {}),
        ({"last_forbidden_error": "No"}, {}),
        (
            {"last_forbidden_error": {"method": None, "other": 5}},
            {"last_forbidden_error": {"method": None}},
        ),
    ],
)
def test_account_in_any_form(entry: dict[str, Any], fields: dict[str, Any]) -> None:
    """An account in any form becomes a record, in which null stands for what is missing."""
    assert account_record(entry) == {**NO_ACCOUNT, **fields}


@pytest.mark.parametrize(
    ("entry", "integration"),
    [
        ({}, {"name": None}),
        ({"integration": "brevo"}, {"name": "brevo"}),
        ({"integration": ["brevo"]}, {"name": None}),
        ({"integration": {"name": 5, "category": "x"}}, {"name": None, "category": "x"}),
        ({"integration": {"name": "brevo", "category": "x"}}, {"name": "brevo", "category": "x"}),
    ],
)
def test_integration_of_account(entry: dict[str, Any], integration: dict[str, Any]) -> None:
    """An account's integration is an object, whose name can be None."""
    assert integration_of(entry) == integration


# --- any record ---


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(MODEL, json_values)))
def test_any_json_in_any_field(raw: dict[str, Any]) -> None:
    """Any JSON in any field becomes a valid record, which does not change again."""
    for name in CONNECTOR:
        raw.pop(name, None)
    record, changes = coerce(raw)
    written = {name: value for name, value in record.items() if value is not None}

    assert [error.message for error in VALIDATOR.iter_errors(written)] == []
    again, more = coerce(record)
    assert again == record
    assert more == []
    changed = {change.field for change in changes}
    for name, value in raw.items():
        if value not in (None, "") and not isinstance(value, str) and name not in changed:
            assert record[name] is not None


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),
    st.integers(-14 * 60, 14 * 60),
)
def test_any_moment_in_any_zone(local: datetime, minutes: int) -> None:
    """A moment in any zone stays the same moment."""
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    record, changes = coerce({"updated_at": moment.isoformat()})

    assert changes == []
    text = record["updated_at"]
    assert text.endswith("Z")
    whole, _, fraction = text[:-1].partition(".")
    got = datetime.fromisoformat(whole).replace(
        tzinfo=timezone.utc, microsecond=int(fraction.ljust(6, "0") or 0)
    )
    assert got == moment


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=4e12))
def test_any_epoch(value: float) -> None:
    """A timestamp in seconds or milliseconds is right to the millisecond."""
    record, _ = coerce({"updated_at": value})
    seconds = value / 1000 if value >= 1e11 else value
    assert record["updated_at"] is not None
    whole, _, fraction = record["updated_at"][:-1].partition(".")
    got = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    assert math.isclose(got + float(f"0.{fraction or 0}"), seconds, abs_tol=1e-3)


@pytest.mark.parametrize("stream", STREAMS)
def test_schemas(stream: str) -> None:
    """Each schema has the key of its stream, the cursor and the column of deletions."""
    schema = load_schema(stream)
    key: Any = getattr(Streams.build(Config("t", "a")), stream).primary_key

    Draft7Validator.check_schema(schema)
    required = {*([key] if isinstance(key, str) else key), "_ab_cdc_updated_at"}
    assert required <= REQUIRED_COLUMNS
    assert {*required, "_ab_cdc_deleted_at"} <= set(schema["properties"])


def test_unknown_stream() -> None:
    """Loading the schema of an unknown stream fails."""
    with pytest.raises(FileNotFoundError):
        load_schema("contacts")
