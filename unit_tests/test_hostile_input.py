"""Malformed and extreme responses, headers and catalogs."""

import gzip
import json
import math
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from source_truto_segments.records.columns import (
    ColumnSelection,
    FieldChange,
    coerce_record,
    load_schema,
)
from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH, excerpt
from source_truto_segments.truto.pagination import PaginationLoopDetector
from source_truto_segments.truto.rate_limiter import RateLimiter, parse_retry_after
from source_truto_segments.truto.responses import (
    MalformedResponseError,
    Page,
    Speaker,
    parse_error,
    parse_page,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
MAX_WAIT = 366 * 86_400.0
# A vendor's announced budget is a hint: it blocks for no longer.
MAX_ANNOUNCED_WAIT = 60.0
COLUMNS = ColumnSelection.from_schema("segments", {})

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
# Forms that Python's own encoder does not write.
unusual_texts = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 400, "1" * 5000, "-0", "1E+2", "01"]
    + ['"\\ud800"', '"\\udfff\\ud83d"', '"\\u0000"', '"\ufeff"', '"\\x"', "'a'", "", "{}", "[]"]
    + ['{"a": 1, "a": 2}', '{"id": "1", "id": null}', "[1,]", '{"a"}', "\ufeff[]", "true false"]
)
json_texts = json_values.map(json.dumps) | unusual_texts
# What can be nested: parsers, encoders and readers of a tree each have a depth of their own.
NESTED = {
    "lists": ("[", "]", ""),
    "objects": ('{"a":', "}", "1"),
    "messages": ('{"message":', "}", "1"),
    "errors": ('{"errors":[', "]}", '"x"'),
    "both": ('[{"name":', "}]", "1"),
}
# About as many levels as can be parsed, and more. Hypothesis gives its tests a deeper stack than a
# process has, so these tests do without it.
LEVELS = [250, 490, 990, 200_000]


def nested(form: str, times: int) -> str:
    head, tail, inner = NESTED[form]
    return head * times + inner + tail * times


def parsed(content: str) -> Page | str:
    """The page, or the message about a response that is none."""
    try:
        return parse_page(content.encode())
    except MalformedResponseError as malformed:
        return str(malformed)


# --- pages ----------------------------------------------------------------------------------------


@given(
    st.lists(json_values | st.dictionaries(st.text(max_size=5), json_values), max_size=5),
    st.text(max_size=20) | st.none(),
    json_values,
)
def test_given_any_entries_when_parsed_then_each_is_a_record_or_counted(
    entries: list[Any], cursor: str | None, partial: Any
) -> None:
    body = {"result": entries, "next_cursor": cursor, "is_partial_response": partial}
    page = parsed(json.dumps(body))

    assert isinstance(page, Page)
    assert page.records == [entry for entry in entries if isinstance(entry, dict)]
    assert len(page.records) + page.invalid_entries == len(entries)
    assert page.next_cursor == (cursor or None)
    assert page.is_partial is (partial is True)


@given(json_texts, json_texts, json_texts, st.booleans())
def test_given_any_text_in_any_place_when_parsed_then_it_is_a_page_or_malformed(
    result: str, cursor: str, other: str, twice: bool
) -> None:
    again = f', "result": {other}' if twice else ""
    page = parsed(
        f'{{"result": {result}, "next_cursor": {cursor}, "is_partial_response": {other}{again}}}'
    )

    if isinstance(page, str):
        assert 0 < len(page) <= MAX_EXCERPT_LENGTH + 50
        assert len(page.splitlines()) == 1
        return
    assert page.next_cursor is None or page.next_cursor.encode()
    assert PaginationLoopDetector().is_new(page)
    for record in page.records:
        coerced, _ = coerce(record, page)
        assert set(coerced) == {name.replace("\0", "\N{REPLACEMENT CHARACTER}") for name in record}


def coerce(record: dict[str, Any], page: Page) -> tuple[dict[str, Any], list[FieldChange]]:
    return coerce_record(
        record,
        COLUMNS,
        may_be_deep=page.digest is None,
        may_have_nul=page.may_have_nul,
        max_size=page.size,
    )


@pytest.mark.parametrize("times", LEVELS)
@pytest.mark.parametrize(
    "place",
    ['{"result":[{"id":%s}]}', '{"result":[{"x":%s}]}', '{"result":[{"remote_data":%s}]}']
    + ['{"result":%s}', '{"result":[],"next_cursor":%s}', '{"result":[],"other":%s}', "%s"],
)
def test_given_a_response_nested_deeply_when_parsed_then_it_is_a_page_or_malformed(
    place: str, times: int
) -> None:
    for form in NESTED:
        page = parsed(place % nested(form, times))
        if isinstance(page, str):
            assert 0 < len(page) <= MAX_EXCERPT_LENGTH + 50
            continue
        assert PaginationLoopDetector().is_new(page)
        for record in page.records:
            coerced, changes = coerce(record, page)
            assert {change.field for change in changes} == {
                name for name, value in coerced.items() if value is None
            }


@pytest.mark.parametrize("times", [100, 300, 490])
def test_given_deep_records_without_ids_when_they_differ_then_it_is_no_loop(times: int) -> None:
    detector = PaginationLoopDetector()
    for number in range(3):
        page = parsed(f'{{"result":[{{"name":"{number}","x":{nested("objects", times)}}}]}}')
        assert isinstance(page, Page)
        assert detector.is_new(page)


@given(
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]),
    st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=3), max_size=3),
    st.text(),
)
def test_given_any_encoding_of_unicode_when_parsed_then_the_page_is_the_same(
    encoding: str, records: list[Any], cursor: str
) -> None:
    text = json.dumps({"result": records, "next_cursor": cursor}, ensure_ascii=False)
    page = parse_page(text.encode(encoding))

    assert page.records == records
    assert page.next_cursor == (cursor or None)


@given(st.dictionaries(st.text(), json_values), st.sampled_from(["gzip", "cp037", "utf-7", "cut"]))
def test_given_bytes_that_are_not_json_when_parsed_then_it_is_malformed_in_one_line(
    body: dict[str, Any], how: str
) -> None:
    whole = json.dumps({"result": [body], "text": "é"}, ensure_ascii=False)
    content = {
        "gzip": gzip.compress(whole.encode()),
        "cp037": json.dumps({"result": []}).encode("cp037"),
        "utf-7": b"+AHsAfQ-",
        "cut": whole.encode()[:-3],
    }[how]

    with pytest.raises(MalformedResponseError, match="not JSON") as malformed:
        parse_page(content)
    assert len(str(malformed.value).splitlines()) == 1
    assert parse_error(content).speaker is Speaker.GATEWAY


# --- errors ---------------------------------------------------------------------------------------

insights = st.fixed_dictionaries(
    {},
    optional={
        name: json_values | st.fixed_dictionaries({"description": json_values, "value": value})
        for name, value in {
            "missing_required_query_parameters": json_values
            | st.lists(st.fixed_dictionaries({"name": json_values})),
            "forbidden_error": json_values
            | st.fixed_dictionaries(
                {"missing_scopes": st.lists(st.text(max_size=5)) | json_values}
            ),
            "rate_limit_error": json_values,
        }.items()
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "statusCode": json_values,
            "error": json_values,
            "message": json_values,
            "raw_response": json_values,
            "truto_is_remote_error": st.booleans() | json_values,
            "truto_error_insight": insights | json_values,
        },
    )
)
def test_given_any_error_body_when_parsed_then_each_part_is_a_short_line(
    body: dict[str, Any],
) -> None:
    error = parse_error(json.dumps(body).encode())

    is_remote = body.get("truto_is_remote_error") is True
    assert (error.speaker is Speaker.VENDOR) is is_remote
    for text in (error.reason, *error.missing_parameters, *error.missing_scopes):
        assert len(text) <= MAX_EXCERPT_LENGTH
        assert len(text.splitlines()) <= 1
    message = body.get("message")
    if isinstance(message, str) and excerpt(message):
        assert error.reason == excerpt(message)


@given(st.lists(st.text(min_size=1, max_size=9), max_size=4), st.lists(st.text(max_size=9)))
def test_given_any_insight_of_the_documented_form_when_parsed_then_all_of_it_is_found(
    scopes: list[str], parameters: list[str]
) -> None:
    insight = {
        "forbidden_error": {"description": "d", "value": {"missing_scopes": scopes}},
        "missing_required_query_parameters": {"description": "d", "value": parameters},
    }
    error = parse_error(json.dumps({"truto_error_insight": insight}).encode())

    assert error.missing_scopes == tuple(map(excerpt, scopes))
    assert error.missing_parameters == tuple(map(excerpt, parameters))


@pytest.mark.parametrize("times", LEVELS)
@pytest.mark.parametrize(
    "place",
    ['{"message":%s}', '{"raw_response":%s}', '{"error":[%s]}', '{"message":"m","x":%s}', "%s"]
    + ['{"truto_error_insight":{"missing_required_query_parameters":{"value":%s}}}']
    + ['{"truto_error_insight":{"forbidden_error":{"value":{"missing_scopes":%s}}}}'],
)
def test_given_an_error_nested_deeply_when_parsed_then_it_never_fails(
    place: str, times: int
) -> None:
    for form in NESTED:
        error = parse_error((place % nested(form, times)).encode())
        for text in (error.reason, *error.missing_parameters, *error.missing_scopes):
            assert len(text) <= MAX_EXCERPT_LENGTH


# --- headers --------------------------------------------------------------------------------------

digits = st.from_regex(r"[0-9]{1,400}", fullmatch=True)
date_parts = st.sampled_from(
    ["Fri,", "Fri", "02", "31", "0", "-1", "999999999999", "Jan", "Foo", "2026", "26", "9999"]
    + ["10000", "00", "03:04:05", "3:4", "99:99:99", "03.04.05", ":", "::", "GMT", "+0000", "-9999"]
    + ["+99999999", "EST", "Z", ",", "-", "+", "(", ")", "02-Jan-2026", "٢", "²", "1e3", "0x10"]
)
header_values = (
    digits
    | st.text(max_size=30)
    | st.lists(date_parts, max_size=8).map(" ".join)
    | st.lists(date_parts, max_size=8).map("".join)
    | st.sampled_from(["-0", "-5", "+5", "inf", "nan", "Infinity", "1e9", "1_000", "5.", ".5", "٥"])
    | st.builds(
        lambda sign, number, unit: f"{sign}{number}{unit}",
        st.sampled_from(["", "-", "+", " "]),
        digits,
        st.sampled_from(["", "s", ".5", ";w=10", " ", ",5"]),
    )
)
headers = st.dictionaries(
    st.sampled_from(
        ["Retry-After", "ratelimit-reset", "ratelimit-remaining", "ratelimit-limit"]
        + ["x-ratelimit-reset", "x-ratelimit-remaining"]
    ),
    header_values,
)


class FakeClock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(headers)
def test_given_any_headers_when_parsed_then_the_wait_is_a_finite_time_or_unknown(
    sent: dict[str, str],
) -> None:
    seconds = parse_retry_after(sent, NOW)

    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
    if "Retry-After" not in sent and "ratelimit-reset" not in sent:
        assert seconds is None
    without_time = parse_retry_after(sent)
    assert (without_time is None) == (seconds is None)


def seconds_until(reset: int) -> float:
    """The seconds until a vendor's reset: a number too large for seconds is a timestamp."""
    if reset < 1_000_000_000:
        return reset
    seconds = reset // 1000 if reset >= 1_000_000_000_000 else reset
    return float(min(max(0, seconds - int(NOW.timestamp())), int(MAX_WAIT)))


@given(
    digits, st.sampled_from(["Retry-After", "ratelimit-reset"]), st.sampled_from(["", " ", "\t"])
)
@example("9" * 400, "Retry-After", "")
@example("9" * 400, "ratelimit-reset", "")
def test_given_any_number_of_seconds_when_parsed_then_it_is_that_or_a_year(
    number: str, name: str, space: str
) -> None:
    seconds = parse_retry_after({name: f"{space}{number}{space}"}, NOW)

    expected = seconds_until(int(number)) if name == "ratelimit-reset" else int(number)
    assert seconds == pytest.approx(min(expected, MAX_WAIT))


@given(st.datetimes(min_value=datetime(1900, 1, 1)), st.integers(-23 * 60, 23 * 60), st.booleans())
def test_given_any_date_when_parsed_then_the_wait_lasts_until_it(
    local: datetime, minutes: int, is_gmt: bool
) -> None:
    zone = timezone.utc if is_gmt else timezone(timedelta(minutes=minutes))
    date = local.replace(microsecond=0, tzinfo=zone)
    header = format_datetime(date, usegmt=is_gmt)

    seconds = (date - NOW).total_seconds()
    assert parse_retry_after({"Retry-After": header}, NOW) == min(max(0, seconds), 366 * 86_400)


@given(headers)
def test_given_any_headers_when_received_then_only_an_exhausted_budget_blocks_only_its_account(
    sent: dict[str, str],
) -> None:
    clock = FakeClock()
    limiter = RateLimiter(clock)
    limiter.update_from_headers("a", sent)
    delay = limiter.try_acquire("a")

    assert limiter.try_acquire("b") is None
    assert limiter.try_acquire(None) is None
    if delay is not None:
        assert set(sent) >= {"ratelimit-remaining", "ratelimit-reset"}
        assert not sent["ratelimit-remaining"].strip().strip("0.")
        assert (delay.account_id, delay.for_token) == ("a", False)
        assert 0 < delay.seconds <= MAX_ANNOUNCED_WAIT
        clock.now += delay.seconds
        assert limiter.try_acquire("a") is None


@given(
    st.integers(1, 999_999_999) | st.integers(10**11, 10**12 - 1) | st.integers(10**15, 10**400),
    st.integers(1, 10**400),
)
def test_given_any_reset_when_received_then_the_account_waits_for_it_if_nothing_remains(
    reset: int, remaining: int
) -> None:
    limiter = RateLimiter(FakeClock())
    budget = {"ratelimit-remaining": str(remaining), "ratelimit-reset": str(reset)}
    limiter.update_from_headers("a", budget)
    assert limiter.try_acquire("a") is None
    limiter.update_from_headers("a", {**budget, "ratelimit-remaining": "0"})
    delay = limiter.try_acquire("a")

    assert delay is not None
    assert delay.seconds == pytest.approx(min(reset, MAX_ANNOUNCED_WAIT))


# --- catalogs -------------------------------------------------------------------------------------

MODEL = load_schema("segments")["properties"]
column_types = st.sampled_from(
    ["null", "string", "boolean", "number", "integer", "object", "array", "x"]
)
columns = json_values | st.fixed_dictionaries(
    {},
    optional={
        "type": column_types | st.lists(column_types | json_values, max_size=3) | json_values,
        "format": st.just("date-time") | json_values,
        "airbyte_type": json_values,
        "properties": json_values,
    },
)
column_names = st.sampled_from([*MODEL, "custom", "other"]) | st.text(max_size=5)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "type": json_values,
            "properties": st.dictionaries(column_names, columns) | json_values,
            "$ref": json_values,
            "required": json_values,
        },
    ),
    st.dictionaries(column_names, json_values),
)
def test_given_any_schema_in_a_catalog_when_records_come_then_they_have_key_and_cursor(
    schema: dict[str, Any], raw: dict[str, Any]
) -> None:
    columns = ColumnSelection.from_schema("segments", schema)
    raw = {**raw, "id": 7, "updated_at": "2021-08-06 10:17:45"}
    record, changes = coerce_record(raw, columns)
    added = {"integrated_account_id": "a", "workspace_id": None, "_ab_cdc_updated_at": "now"}
    record |= added
    projected = columns.project(record)

    assert projected["id"] == "7"
    assert (projected["integrated_account_id"], projected["_ab_cdc_updated_at"]) == ("a", "now")
    if "updated_at" in columns.excluded:
        assert "updated_at" not in projected
    else:
        assert projected["updated_at"] == "2021-08-06T10:17:45Z"
    assert not {change.field for change in changes} - set(raw)
    selected = schema.get("properties")
    for name in (set(selected) if isinstance(selected, dict) else set()) & set(raw):
        assert (name in projected) is (record.get(name) is not None)
    for values in columns.query_params().values():
        assert values
