"""Records made to fit their columns, as a pure function."""

import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from source_truto_segments import records
from source_truto_segments.records import Columns, segments_schema
from source_truto_segments.streams import Segments

DATES = ("created_at", "updated_at", "last_calculated_at")
TEXTS = ("id", "name", "description", "status")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


VALIDATOR = Draft7Validator(segments_schema(), format_checker=Draft7Validator.FORMAT_CHECKER)


def fit(
    raw: dict[str, Any], properties: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[Any]]:
    """Makes a record fit the columns of a catalog; without properties, of one that asks for all."""
    return records.fit(raw, Columns.of({"properties": properties} if properties else {}))


def columns(*names: str, **properties: Any) -> Columns:
    """The columns of a catalog that asks for these."""
    model = segments_schema()["properties"]
    return Columns.of({"properties": {**{name: model[name] for name in names}, **properties}})


def nested(levels: int, kind: type) -> Any:
    """A value with so many levels of lists or objects around a text."""
    value: Any = "x"
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


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
def test_given_a_date_in_any_form_when_fitted_then_it_comes_out_in_one(
    value: Any, expected: str | None
) -> None:
    for name in DATES:
        record, changes = fit({"id": "1", name: value})
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
def test_given_a_date_that_is_none_when_fitted_then_it_is_null_and_named(value: Any) -> None:
    for name in DATES:
        record, changes = fit({"id": "1", name: value})
        assert record[name] is None
        ((field, change, reason),) = [(c.field, c.change.value, c.reason.value) for c in changes]
        assert (field, change, reason) == (name, "NULLED", "SOURCE_SERIALIZATION_ERROR")


@pytest.mark.parametrize("zone", ["Z", "", "+00:00"])
@pytest.mark.parametrize("digits", ["1234567", "123456789", "12345600001"])
def test_given_more_digits_than_a_timestamp_holds_when_fitted_then_the_cut_is_named(
    digits: str, zone: str
) -> None:
    record, changes = fit({"id": "1", "updated_at": f"2023-01-02T03:04:05.{digits}{zone}"})

    assert record["updated_at"] == f"2023-01-02T03:04:05.{digits[:6]}Z"
    ((change),) = changes
    assert (change.field, change.change.value) == ("updated_at", "TRUNCATED")
    assert change.reason.value == "SOURCE_FIELD_SIZE_LIMITATION"


@pytest.mark.parametrize(
    "value",
    ["2023-01-02T03:04:05.1234560Z", "2023-01-02T03:04:05.123456000", "2023-01-02T03:04:05   UTC"],
)
def test_given_nothing_but_zeros_to_cut_when_fitted_then_no_change_is_named(value: str) -> None:
    _, changes = fit({"updated_at": value})
    assert changes == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", "a"), ("", ""), (53, "53"), (2**70, str(2**70)), (1.5, "1.5"), (True, "true")],
)
def test_given_a_number_for_a_text_when_fitted_then_it_is_its_text(
    value: Any, expected: str
) -> None:
    for name in TEXTS:
        record, changes = fit({name: value})
        assert record[name] == expected
        assert changes == []


@pytest.mark.parametrize("value", [{}, [], {"en": "x"}, ["x"], 2.0**63, -(2.0**63), 1e300])
def test_given_an_object_for_a_text_when_fitted_then_it_is_null_and_named(value: Any) -> None:
    for name in TEXTS:
        record, changes = fit({name: value})
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
def test_given_a_boolean_in_any_form_when_fitted_then_it_is_one(
    value: Any, expected: bool | None
) -> None:
    record, changes = fit({"is_starred": value})
    assert record["is_starred"] is expected
    assert changes == []


@pytest.mark.parametrize("value", ["yes", 2, -1, 0.5, [], {}])
def test_given_no_boolean_when_fitted_then_it_is_null_and_named(value: Any) -> None:
    record, changes = fit({"is_starred": value})
    assert record["is_starred"] is None
    assert [change.field for change in changes] == ["is_starred"]


@pytest.mark.parametrize("value", ["{}", [], [{}], 1, True])
def test_given_remote_data_that_is_no_object_when_fitted_then_it_is_null_and_named(
    value: Any,
) -> None:
    record, changes = fit({"remote_data": value})
    assert record["remote_data"] is None
    assert [change.field for change in changes] == ["remote_data"]


def test_given_fields_of_an_override_when_fitted_then_they_pass_untouched() -> None:
    raw = {"id": "1", "score": 10**20, "tags": [None, {"a": "2021-08-06 10:17:45"}], "x": None}
    assert fit(raw) == (raw, [])


# --- the columns that a catalog asks for ---


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
        ({"type": "unheard of"}, 5, 5),
        ({"type": {"odd": 1}}, 5, 5),
        ({"type": [{"odd": 1}]}, 5, 5),
        ({}, 5, 5),
        (True, 5, 5),
        (None, 5, 5),
    ],
)
def test_given_a_custom_column_when_fitted_then_its_type_is_made(
    schema: Any, value: Any, expected: Any
) -> None:
    record, changes = fit({"custom": value}, {"custom": schema})

    assert record["custom"] == expected
    assert type(record["custom"]) is type(expected)
    assert changes == []


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "object", "array"])
def test_given_a_text_for_another_type_when_fitted_then_it_is_null_and_named(kind: str) -> None:
    record, changes = fit({"custom": "x"}, {"custom": {"type": ["null", kind]}})

    assert record == {"custom": None}
    assert [(change.field, change.change.value) for change in changes] == [("custom", "NULLED")]


def test_given_another_type_for_a_column_of_the_model_when_fitted_then_the_models_holds() -> None:
    record, _ = fit({"id": 5, "updated_at": 0}, {"id": {"type": "integer"}, "updated_at": {}})
    assert record == {"id": "5", "updated_at": "1970-01-01T00:00:00Z"}


def test_given_columns_of_the_connector_when_fitted_then_they_are_not_touched() -> None:
    raw = {"integrated_account_id": 5, "workspace_id": 6}
    assert fit(raw) == (raw, [])


def test_given_a_column_that_is_left_out_when_fitted_then_its_value_is_not_looked_at() -> None:
    raw = {"id": "1", "created_at": "yesterday", "updated_at": "2021-08-06"}
    record, changes = records.fit(raw, columns("id", "name"))

    assert record == {**raw, "updated_at": "2021-08-06T00:00:00Z"}
    assert changes == []


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "object"}, {"properties": {}}, {"properties": []}, {"properties": ["id"]}],
)
def test_given_no_columns_when_asked_then_it_is_for_everything(schema: dict[str, Any]) -> None:
    asked = Columns.of(schema)
    record = {"id": "1", "surprise": 5}

    assert asked.params(needs_remote_data=False) == {}
    assert asked.chosen(record) == record
    assert asked == Columns.of(segments_schema())


def test_given_columns_when_asked_then_truto_leaves_out_the_others() -> None:
    asked = columns("name", "remote_data")
    others = ["created_at", "description", "is_starred", "last_calculated_at", "status"]

    assert asked.params(needs_remote_data=False) == {"truto_exclude_fields[]": others}
    assert asked.params(needs_remote_data=True) == {"truto_exclude_fields[]": others}


@pytest.mark.parametrize(
    ("needs_remote_data", "params"), [(False, {"truto_ignore_remote_data": "true"}), (True, {})]
)
def test_given_all_but_remote_data_when_asked_then_it_is_ignored_where_nobody_needs_it(
    needs_remote_data: bool,
    params: dict[str, Any],
) -> None:
    asked = columns(*(set(segments_schema()["properties"]) - {"remote_data", "workspace_id"}))

    assert asked.params(needs_remote_data=needs_remote_data) == params


def test_given_columns_when_chosen_then_the_key_the_cursor_and_what_was_named_stay() -> None:
    record = {
        "integrated_account_id": "a",
        "workspace_id": "w",
        "id": "1",
        "name": "n",
        "updated_at": "2021-08-06T00:00:00Z",
        "created_at": "2021-08-06T00:00:00Z",
        "score": 5,
        "surprise": 6,
    }
    chosen = columns("name", score={"type": "integer"}).chosen(record)

    assert list(chosen) == ["integrated_account_id", "id", "name", "updated_at", "score"]
    assert {**record, **chosen} == record


# --- what is too deep to be written ---


@pytest.mark.parametrize("kind", [list, dict])
def test_given_many_levels_when_not_plain_then_only_what_can_be_written_stays(kind: type) -> None:
    raw = {"id": "1", "writable": nested(199, kind), "deep": nested(200, kind), "empty": kind()}
    record, changes = records.fit(raw, Columns.of({}), is_plain=False)

    assert record == {**raw, "deep": None}
    assert [(change.field, change.change.value, change.reason.value) for change in changes] == [
        ("deep", "NULLED", "SOURCE_SERIALIZATION_ERROR")
    ]


def test_given_a_plain_record_when_fitted_then_its_levels_are_not_counted() -> None:
    raw = {"remote_data": nested(200, dict)}
    assert fit(raw) == (raw, [])
    assert records.fit(raw, Columns.of({}), is_plain=True) == (raw, [])


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(segments_schema()["properties"], json_values))
)
def test_given_any_json_in_any_field_when_fitted_then_it_validates_and_stays(
    raw: dict[str, Any],
) -> None:
    for name in ("integrated_account_id", "workspace_id"):
        raw.pop(name, None)
    record, changes = fit(raw)
    written = {name: value for name, value in record.items() if value is not None}

    assert [error.message for error in VALIDATOR.iter_errors(written)] == []
    again, more = fit(record)
    assert again == record
    assert more == []
    named = {change.field for change in changes}
    for name, value in raw.items():
        if value not in (None, "") and not isinstance(value, str) and name not in named:
            assert record[name] is not None


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),
    st.integers(-14 * 60, 14 * 60),
)
def test_given_any_moment_in_any_zone_when_fitted_then_it_is_the_same_moment(
    local: datetime, minutes: int
) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    record, changes = fit({"updated_at": moment.isoformat()})

    assert changes == []
    text = record["updated_at"]
    assert text.endswith("Z")
    whole, _, fraction = text[:-1].partition(".")
    got = datetime.fromisoformat(whole).replace(
        tzinfo=timezone.utc, microsecond=int(fraction.ljust(6, "0") or 0)
    )
    assert got == moment


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=4e12))
def test_given_any_epoch_when_fitted_then_it_is_near(value: float) -> None:
    record, _ = fit({"updated_at": value})
    seconds = value / 1000 if value >= 1e11 else value
    assert record["updated_at"] is not None
    whole, _, fraction = record["updated_at"][:-1].partition(".")
    got = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    assert math.isclose(got + float(f"0.{fraction or 0}"), seconds, abs_tol=1e-3)


def test_the_schema_names_the_fields_of_the_stream() -> None:
    assert Segments.primary_key == [["integrated_account_id"], ["id"]]
    assert set(segments_schema()["properties"]) >= {*DATES, *TEXTS, "is_starred", "remote_data"}
