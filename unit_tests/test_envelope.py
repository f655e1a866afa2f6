"""Answers read from their bytes, as pure functions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.envelope import (
    QUOTE_LENGTH,
    MalformedAnswerError,
    Origin,
    parse_error,
    parse_page,
    quote,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
envelope_keys = st.sampled_from(
    ["result", "results", "next_cursor", "is_partial_response", "message", "raw_response", "error"]
    + ["truto_error_insight", "truto_is_remote_error", "forbidden_error", "value", "missing_scopes"]
    + ["missing_required_query_parameters"]
)
envelopes = st.recursive(
    json_values,
    lambda inner: st.dictionaries(envelope_keys, inner, max_size=5),
    max_leaves=12,
)


def page(**body: Any) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("result", "ids"),
    [
        ([], []),
        ([{"id": "1"}, {"id": "2"}], ["1", "2"]),
        ({"1": {"id": "1"}, "2": {"id": "2"}}, ["1", "2"]),
        ({"id": {"id": "id"}}, ["id"]),
        ({"id": "1", "name": "only", "remote_data": {}}, ["1"]),
        ({"name": "without id"}, [None]),
        ({}, []),
    ],
)
def test_given_any_form_of_result_when_parsed_then_its_records_are_found(
    result: Any, ids: list[str | None]
) -> None:
    assert [record.get("id") for record in parse_page(page(result=result)).records] == ids


def test_given_the_admin_key_when_parsed_then_its_records_are_found() -> None:
    assert parse_page(page(results=[{"id": "1"}])).records == [{"id": "1"}]


@pytest.mark.parametrize("cursor", [None, ""])
def test_given_no_cursor_when_parsed_then_it_is_the_end(cursor: str | None) -> None:
    assert parse_page(page(result=[], next_cursor=cursor)).next_cursor is None
    assert parse_page(page(result=[])).next_cursor is None


@pytest.mark.parametrize("cursor", ["0", " ", 'a+b/c=&%{}"é漢', 7, "x" * 10_000])
def test_given_a_cursor_when_parsed_then_it_is_kept(cursor: Any) -> None:
    assert parse_page(page(result=[], next_cursor=cursor)).next_cursor == str(cursor)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"{}", b'{"result": null}', b'{"result": 5}']
    + [b'{"result": [], "next_cursor": []}', b'{"result": [], "next_cursor": true}']
    + [b'{"result": [Infinity]}', b"\xff\xfe", b"[" * 100_000],
)
def test_given_another_body_when_parsed_then_it_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswerError) as malformed:
        parse_page(body)
    assert 0 < len(str(malformed.value)) <= QUOTE_LENGTH + 50


def test_given_a_huge_number_when_parsed_as_surrogates_are_then_it_stays() -> None:
    body = b'{"result": [{"id": "\\ud83d", "n": 123456789012345678901234567890}]}'
    (record,) = parse_page(body).records
    assert record == {"id": "\N{REPLACEMENT CHARACTER}", "n": 123456789012345678901234567890}


@given(st.binary() | envelopes.map(lambda value: json.dumps(value).encode()))
def test_given_any_bytes_when_parsed_then_there_is_a_page_or_it_is_malformed(body: bytes) -> None:
    try:
        parsed = parse_page(body)
    except MalformedAnswerError:
        return
    assert all(isinstance(record, dict) for record in parsed.records)
    assert parsed.next_cursor is None or parsed.next_cursor


@given(st.binary() | envelopes.map(lambda value: json.dumps(value).encode()))
def test_given_any_bytes_when_read_as_an_error_then_it_never_fails(body: bytes) -> None:
    error = parse_error(body)
    assert len(error.reason) <= QUOTE_LENGTH
    assert "\n" not in error.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"message": "Says it"}, "Says it"),
        ({"message": "", "raw_response": "vendor text", "error": "Bad Request"}, "vendor text"),
        ({"message": "", "raw_response": {"errors": [{"detail": "Not found"}]}}, "Not found"),
        ({"message": "", "raw_response": {"error": "x", "error_description": "why"}}, "why"),
        ({"message": ["a", "b"]}, "a; b"),
        ({"error": "Bad Request"}, "Bad Request"),
        ({"raw_response": {"code": 5}}, '{"code": 5}'),
        ({}, ""),
    ],
)
def test_given_an_error_body_when_read_then_the_telling_text_is_found(
    body: dict[str, Any], reason: str
) -> None:
    assert parse_error(json.dumps(body).encode()).reason == reason


@pytest.mark.parametrize(
    "value",
    [["workspace[id]"], "workspace[id]", {"workspace[id]": "x"}, [{"name": "workspace[id]"}]],
)
def test_given_missing_parameters_in_any_form_when_read_then_they_are_named(value: Any) -> None:
    insight = {"missing_required_query_parameters": {"description": "d", "value": value}}
    body = json.dumps({"message": "m", "truto_error_insight": insight}).encode()
    assert parse_error(body).missing_parameters == ("workspace[id]",)


@pytest.mark.parametrize(
    ("flag", "origin"),
    [(True, Origin.VENDOR), (False, Origin.TRUTO), (None, Origin.TRUTO), ("true", Origin.TRUTO)],
)
def test_given_the_remote_flag_when_read_then_it_says_who_failed(flag: Any, origin: Origin) -> None:
    assert parse_error(json.dumps({"truto_is_remote_error": flag}).encode()).origin is origin


@given(st.text(max_size=2000))
def test_given_any_text_when_quoted_then_it_is_one_short_line(text: str) -> None:
    line = quote(text)
    assert len(line) <= QUOTE_LENGTH
    assert line == line.strip()
    assert not set(line) & set("\n\r\t\x00\x1b")
