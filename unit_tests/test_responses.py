"""Responses parsed from their bytes, as pure functions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH, error_text, excerpt
from source_truto_segments.truto.responses import (
    ErrorBody,
    MalformedResponseError,
    Speaker,
    counted,
    parse_cursor,
    parse_error,
    parse_json,
    parse_object,
    parse_page,
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
def test_any_form_of_result(result: Any, ids: list[str | None]) -> None:
    """The parser finds the records in any form of result."""
    assert [record.get("id") for record in parse_page(page(result=result)).records] == ids


def test_admin_key() -> None:
    """The parser finds the records under results, the admin API's key, as well."""
    assert parse_page(page(results=[{"id": "1"}])).records == [{"id": "1"}]


def test_size_of_page() -> None:
    """A page has the size of its response in bytes."""
    assert parse_page(b'{"result": []}').size == 14
    assert parse_page('{"result": ["é"]}'.encode()).size == 18


@pytest.mark.parametrize("cursor", [None, ""])
def test_last_page(cursor: str | None) -> None:
    """A missing, null or empty cursor marks the last page."""
    assert parse_page(page(result=[], next_cursor=cursor)).next_cursor is None
    assert parse_page(page(result=[])).next_cursor is None


@pytest.mark.parametrize("cursor", ["0", " ", 'a+b/c=&%{}"é漢', 7, "x" * 10_000])
def test_cursor(cursor: Any) -> None:
    """Any other cursor is kept as it is, as a string."""
    assert parse_page(page(result=[], next_cursor=cursor)).next_cursor == str(cursor)


@pytest.mark.parametrize(
    ("flag", "is_partial"),
    [(True, True), (False, False), (None, False), ("true", False), (1, False)],
)
def test_partial_flag(flag: Any, is_partial: bool) -> None:
    """Only the value true marks a page as partial."""
    assert parse_page(page(result=[], is_partial_response=flag)).is_partial is is_partial
    assert parse_page(page(result=[])).is_partial is False


@pytest.mark.parametrize(
    ("result", "count", "invalid"),
    [
        ([{"id": "1"}, None, "x", [], {"id": "2"}], 2, 3),
        ({"1": {"id": "1"}, "2": None}, 1, 1),
        ({"1": None, "2": None}, 1, 0),
        ({"id": None, "remote_data": {}}, 1, 0),
    ],
)
def test_invalid_entries(result: Any, count: int, invalid: int) -> None:
    """The parser counts entries that are not objects."""
    parsed = parse_page(page(result=result))
    assert (len(parsed.records), parsed.invalid_entries) == (count, invalid)


def test_digest() -> None:
    """The digest of a page depends on its records alone."""
    record = {"id": "1", "n": 1.5}
    digest = parse_page(page(result=[record], next_cursor="a")).digest

    assert digest is not None
    assert len(digest) == 16
    assert parse_page(page(result=[record], next_cursor="b", other=5)).digest == digest
    for records in ([], [{**record, "n": 1.25}], [record, record]):
        assert parse_page(page(result=records)).digest != digest


def test_no_digest() -> None:
    """A page whose records cannot be written has no digest."""
    depth = 250
    deep = b'{"result":[{"x":%s1%s}]}' % (b'{"a":' * depth, b"}" * depth)
    assert parse_page(deep).digest is None
    assert parse_page(page(result=[{"n": 2**70}])).digest is not None
    assert parse_page(b'{"result":[{"id":"\\ud800", "n": %d}]}' % 2**70).digest is None


# These bodies begin like JSON. Truto's list of accounts has secrets, so no part of them is shown.
BROKEN = [b'{"secret": 1', b'[{"secret": 1', b' \r\n\t{"secret"}', b'\xef\xbb\xbf[{"secret": 1']


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the response is empty"),
        (b" \n", "the response is empty"),
        (b"<html>\n no", "the response is not JSON: <html> no"),
        (b"\xff", "the response is not JSON: \ufffd"),
        (b"X{5}", "the response is not JSON: X{5}"),
        *((body, "the response is not JSON: it breaks off or is invalid") for body in BROKEN),
        (b"[]", "the response is not a JSON object"),
        (b"{}", "the response has no result"),
        (b'{"results_": null}', "the response has no result"),
        (b'{"result": 5}', "the result is neither a list nor an object: 5"),
        (b'{"result": "no\\nlist"}', "the result is neither a list nor an object: no list"),
        (b'{"result": [], "next_cursor": [5]}', "the next_cursor is not a string: 5"),
        (b'{"result": [], "next_cursor": true}', "the next_cursor is not a string: true"),
        (b'{"result": [], "next_cursor": 1.5}', "the next_cursor is not a string: 1.5"),
    ],
)
def test_malformed_page(body: bytes, message: str) -> None:
    """The error for any other body describes what is wrong with it."""
    with pytest.raises(MalformedResponseError) as malformed:
        parse_page(body)
    assert str(malformed.value) == message


def test_object() -> None:
    """A JSON object is parsed, and anything else is malformed."""
    assert parse_object(b' {"a": [1]} ') == {"a": [1]}
    with pytest.raises(MalformedResponseError, match="the response is not a JSON object"):
        parse_object(b'"a"')


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'"\\ud83d x \\udfff"', "\ufffd x \ufffd"),
        (b'{"\\ud800": ["\\ud83d\\ude00", {"a": "\\ud800"}]}', {"\ufffd": ["😀", {"a": "\ufffd"}]}),
        (b"[1e400, -1e400, 1.5, 5]", ["1e400", "-1e400", 1.5, 5]),
        (b'["\\ud800", %d, 1.5, null]' % 2**70, ["\ufffd", 2**70, 1.5, None]),
    ],
)
def test_replaced_values(content: bytes, value: Any) -> None:
    """Values that are valid JSON but cannot be written as JSON again are replaced."""
    assert parse_json(content) == value


@pytest.mark.parametrize("content", [b"nan", b"[1,]", b"+1", b"", b"{", b"'a'"])
def test_invalid_json(content: bytes) -> None:
    """Bytes that are not JSON cannot be parsed."""
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        parse_json(content)


def test_deep_json() -> None:
    """JSON that is nested too deeply cannot be parsed."""
    with pytest.raises(ValueError, match=r"^the JSON is nested too deeply$"):
        parse_json(b"[" * 100_000 + b"]" * 100_000)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(), max_size=3), max_size=3))
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encoding(encoding: str, records: list[Any]) -> None:
    """A page is the same in each encoding of Unicode."""
    text = json.dumps({"result": records, "next_cursor": "é"}, ensure_ascii=False)
    parsed = parse_page(text.encode(encoding))
    assert (parsed.records, parsed.next_cursor) == (records, "é")


@given(st.binary() | envelopes.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(body: bytes) -> None:
    """Any bytes are either a page or malformed."""
    try:
        parsed = parse_page(body)
    except MalformedResponseError:
        return
    assert all(isinstance(record, dict) for record in parsed.records)
    assert parsed.next_cursor is None or parsed.next_cursor


@given(st.binary() | envelopes.map(lambda value: json.dumps(value).encode()))
def test_any_error(body: bytes) -> None:
    """Any bytes can be parsed as an error, whose reason is one short line."""
    error = parse_error(body)
    assert len(error.reason) <= MAX_EXCERPT_LENGTH
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
        ({"raw_response": {"code": 5}}, "5"),
        ({"raw_response": {"status": 5, "apiKey": "x"}}, "{status, apiKey}"),
        ({}, ""),
    ],
)
def test_reason(body: dict[str, Any], reason: str) -> None:
    """The first text in the body of an error is its reason."""
    assert parse_error(json.dumps(body).encode()).reason == reason


KEYS_IN_ORDER = ["message", "error_description", "error", "detail", "title", "errors", "reason"]


@pytest.mark.parametrize("index", range(len(KEYS_IN_ORDER)))
def test_order_of_texts(index: int) -> None:
    """If an error has several texts, the names of their keys decide which one is its text."""
    error = {key: f"of {key}" for key in reversed(KEYS_IN_ORDER[index:])}
    assert error_text({**error, "code": "x"}) == f"of {KEYS_IN_ORDER[index]}"
    assert error_text({"message": "", "error": [], "reason": {"message": "inner"}}) == "inner"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", ""),
        ([], ""),
        ({}, ""),
        (0, "0"),
        (False, "false"),
        ("é", "é"),
        ({"code": "é"}, "é"),
        ({"status": "é", "a": {}}, "{status, a}"),
        ([1, 2], "1; 2"),
        (["a", 5, {"b": 1}], "a; 5; {b}"),
        (["a", {"message": "b"}, "", {"detail": "c"}], "a; b; c"),
        (list("abcdefg"), "a; b; c; d; e"),
        ({"message": {"message": {"message": "inner"}}}, "inner"),
    ],
)
def test_text_of_error(value: Any, text: str) -> None:
    """An error in any form has a text, unless it is empty."""
    assert error_text(value) == text


def test_levels_of_error() -> None:
    """The search for an error's text goes ten levels deep."""

    def nest(value: Any, levels: int) -> Any:
        for _ in range(levels):
            value = {"message": value}
        return value

    assert error_text(nest("found", 9)) == "found"
    assert error_text(nest("found", 10)) == "found"
    assert error_text(nest("found", 11)) == "…"
    assert error_text([nest("found", 9)]) == "found"
    assert error_text([nest("found", 10)]) == "…"


def test_bottomless_error() -> None:
    """An error that is too deep for JSON still has a text."""
    deep: Any = 5
    for _ in range(100_000):
        deep = {"x": deep}

    assert error_text(deep) == "{x}"
    assert error_text({"message": deep}) == "{x}"


def test_whole_error() -> None:
    """Each part of an error is parsed."""
    body = {
        "message": "Forbidden",
        "truto_is_remote_error": True,
        "truto_error_insight": {
            "missing_required_query_parameters": {"value": ["workspace[id]", 5, {"name": "x"}]},
            "forbidden_error": {"value": {"missing_scopes": ["a:read", "b:read"]}},
        },
    }
    assert parse_error(json.dumps(body).encode()) == ErrorBody(
        Speaker.VENDOR, "Forbidden", ("workspace[id]", "x"), ("a:read", "b:read")
    )
    body["truto_error_insight"] = {
        "missing_required_query_parameters": ["y"],
        "forbidden_error": {"value": {"missing_scopes": "c:read"}},
    }
    found = parse_error(json.dumps(body).encode())
    assert (found.missing_parameters, found.missing_scopes) == (("y",), ("c:read",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>\n Bad gateway", "<html> Bad gateway"),
        (b"\xff", "\ufffd"),
        (b"", ""),
        *((body, "") for body in BROKEN),
        (b'"a text"', "a text"),
        (b'["a", {"message": "b"}]', "a; b"),
        (b"5", "5"),
    ],
)
def test_error_without_object(content: bytes, reason: str) -> None:
    """If an error's body is not an object, a gateway sent it, and its text is the reason."""
    assert parse_error(content) == ErrorBody(Speaker.GATEWAY, reason)


@pytest.mark.parametrize(
    "value",
    [["workspace[id]"], "workspace[id]", {"workspace[id]": "x"}, [{"name": "workspace[id]"}]],
)
def test_missing_parameters_in_any_form(value: Any) -> None:
    """The parser finds missing parameters in any form."""
    insight = {"missing_required_query_parameters": {"description": "d", "value": value}}
    body = json.dumps({"message": "m", "truto_error_insight": insight}).encode()
    assert parse_error(body).missing_parameters == ("workspace[id]",)


ENVELOPE = {"statusCode": 503, "error": "Service Unavailable", "message": ""}


@pytest.mark.parametrize(
    ("body", "speaker"),
    [
        ({**ENVELOPE, "truto_is_remote_error": True}, Speaker.VENDOR),
        ({"truto_is_remote_error": True}, Speaker.VENDOR),
        ({**ENVELOPE, "truto_is_remote_error": False}, Speaker.TRUTO),
        ({**ENVELOPE, "truto_is_remote_error": "true"}, Speaker.TRUTO),
        (ENVELOPE, Speaker.TRUTO),
        # Load balancers, firewalls and API gateways are known to send these.
        ({"message": "Forbidden"}, Speaker.GATEWAY),
        ({"statusCode": 401, "message": "Access denied due to missing key"}, Speaker.GATEWAY),
        ({"statusCode": "503", "error": "x", "message": "y"}, Speaker.GATEWAY),
        ({"error": "no healthy upstream", "message": "y"}, Speaker.GATEWAY),
        ([ENVELOPE], Speaker.GATEWAY),
        ("<html>503</html>", Speaker.GATEWAY),
        ("", Speaker.GATEWAY),
    ],
)
def test_speaker(body: Any, speaker: Speaker) -> None:
    """Without the vendor's mark, an error is Truto's only if it has Truto's whole envelope."""
    content = body if isinstance(body, str) else json.dumps(body)
    assert parse_error(content.encode()).speaker is speaker


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" a \n\t b\x00\x1b c\x7f", "a b c"),
        ("x" * MAX_EXCERPT_LENGTH, "x" * MAX_EXCERPT_LENGTH),
        ("x" * (MAX_EXCERPT_LENGTH + 1), "x" * (MAX_EXCERPT_LENGTH - 1) + "…"),
    ],
)
def test_excerpt(text: str, line: str) -> None:
    """An excerpt joins blanks, drops control characters, and marks where it is cut."""
    assert excerpt(text) == line


@given(st.text(max_size=2000))
def test_any_text(text: str) -> None:
    """The excerpt of any text is one short line."""
    line = excerpt(text)
    assert len(line) <= MAX_EXCERPT_LENGTH
    assert line == line.strip()
    assert not set(line) & set("\n\r\t\x00\x1b")


@given(json_values)
def test_any_value(value: Any) -> None:
    """The excerpt of any value is one short line."""
    line = excerpt(value)
    assert len(line) <= MAX_EXCERPT_LENGTH
    assert not set(line) & set("\n\r\t\x00\x1b")


@given(st.lists(st.dictionaries(st.text(), st.text() | st.just("a\0b"), max_size=3), max_size=3))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32"])
def test_nul_anywhere(encoding: str, records: list[dict[str, str]]) -> None:
    """A page with a NUL anywhere is marked, in each encoding."""
    parsed = parse_page(page(result=records).decode().encode(encoding))

    assert parsed.records == records
    has_nul = any("\0" in text for record in records for pair in record.items() for text in pair)
    assert parsed.may_have_nul or not has_nul


@pytest.mark.parametrize(
    "record", [{"id": "1"}, {"id": "\x01\n\\"}, {"id": "u0000"}, {"id": "0000", "n": 0}]
)
def test_no_nul(record: dict[str, Any]) -> None:
    """A page without a NUL is not marked, even if it has similar texts."""
    assert not parse_page(page(result=[record], next_cursor="0")).may_have_nul


# --- pages of which a part is not JSON ---


@pytest.mark.parametrize(
    ("content", "ids", "invalid"),
    [
        (b'{"result": [{"id": 1}, {"id": 2]], {"id": 3}]}', None, 0),
        (b'{"result": [{"id": 1}, {"id": 2, x}, {"id": 3}]}', [1, 3], 1),
        (b'{"result": [{"id": x}, {"id": 2}]}', [2], 1),
        (b'{"result":[{"id":1},{"id":x},{"id":3}]}', [1, 3], 1),
        (b'{"result": [{"id": 1}, {"id": tru}]}', [1], 1),
        (b'{"result": [{x}]}', [], 1),
        (b'{"result": [{"id": 1}, ]}', None, 0),
        (
            b'{"x": [1, [2, 3]], "result": [{"id": 1, "t": [1, [y]]}, {"id": 2, "t": [[1], {}]}]}',
            [2],
            1,
        ),
        (b'{"result": [{"id": 1, "t": "a,]}["}, {"id": z}], "next_cursor": "a"}', [1], 1),
        (b'{"result": [{"id": z}], "next_cursor": x}', None, 0),
        (b'[{"id": z}]', None, 0),
    ],
)
def test_one_bad_record(content: bytes, ids: list[int] | None, invalid: int) -> None:
    """A record that is not JSON costs only itself; what is broken elsewhere costs the page."""
    if ids is None:
        with pytest.raises(MalformedResponseError):
            parse_page(content)
        return
    page = parse_page(content)
    assert [record["id"] for record in page.records] == ids
    assert page.invalid_entries == invalid
    assert page.next_cursor == ("a" if b"next_cursor" in content else None)


def test_deep_record() -> None:
    """A record that is nested too deeply costs only itself."""
    deep = b"[" * 100_000 + b"]" * 100_000
    page = parse_page(b'{"result": [{"id": 1}, {"id": 2, "t": ' + deep + b"}]}")
    assert [record["id"] for record in page.records] == [1]


def test_cursor_alone() -> None:
    """The cursor of a page is found without its records."""
    assert parse_cursor(b'{"result": 5, "next_cursor": "a"}') == "a"
    assert parse_cursor(b'{"result": []}') is None


@pytest.mark.parametrize("digits", [1, 639, 640, 641, 50_000])
def test_digits(digits: int) -> None:
    """A number of any length is read; one that Python would not convert is its digits."""
    (record,) = parse_page(b'{"result": [{"id": ' + b"7" * digits + b"}]}").records
    assert str(record["id"])[:5] == "77777"[:digits]
    assert isinstance(record["id"], int) == (digits <= 640)


def test_counted() -> None:
    """One thing is no plural, and many have separators."""
    assert [counted(n, "page") for n in (0, 1, 2, 1_500)] == [
        *("0 pages", "1 page", "2 pages", "1,500 pages")
    ]
