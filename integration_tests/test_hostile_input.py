"""Whatever comes from outside, the connector reads it or tells it in a documented sentence.

The same examples in every run. New ones, so many times as many, are searched with for example
`EXAMPLES=20 pytest integration_tests/test_hostile_input.py`.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from airbyte_cdk.utils.airbyte_secrets_utils import update_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from integration_tests.support import (
    ACCOUNT_ID,
    Result,
    Time,
    account,
    catalog,
    config,
    read,
    write,
)
from sandbox import Account, Environment, Fault, Sandbox, faults, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.records import segments_schema
from source_truto_segments.run import Entrypoint

Test = TypeVar("Test", bound=Callable[..., None])

MODEL = segments_schema()["properties"]
ALL = {"mode": "all"}
TOKEN = "tok-5e1f-of-the-sandbox"
IDS = [str(segment["id"]) for segment in vendors.segments("klaviyo", 25)]


def examples(number: int) -> Callable[[Test], Test]:
    times = os.environ.get("EXAMPLES")
    return settings(
        max_examples=number * int(times or 1),
        derandomize=times is None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One server for all examples; each puts its own accounts into it."""
    with Sandbox(Environment(token=TOKEN)) as running:
        yield running
    update_secrets([])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def serve(sandbox: Sandbox, *accounts: Account, before: tuple[Fault, ...] = ()) -> Sandbox:
    """Puts the accounts of an example in the place of those of the one before."""
    sandbox.environment.accounts[:] = accounts
    sandbox.environment.faults[:] = before
    sandbox.clear()
    return sandbox


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@contextmanager
def warnings() -> Iterator[list[str]]:
    handler = Warnings()
    logging.getLogger("airbyte").addHandler(handler)
    try:
        yield handler.told
    finally:
        logging.getLogger("airbyte").removeHandler(handler)


def command(*arguments: str) -> Result:
    """One command in this process, from its files to its lines, with waits that take no time."""
    passing = Time()
    source = SourceTrutoSegments(clock=passing.clock, sleep=passing.sleep)
    result = Result()
    try:
        for line in Entrypoint(source).run(Entrypoint.parse_args(list(arguments))):
            result.messages.append(json.loads(line, parse_constant=pytest.fail))
    except AirbyteTracedException as failure:
        result.failure = failure
    result.waits = passing.waits
    return result


def said(failure: AirbyteTracedException | None) -> tuple[str, str]:
    """The message and the type of a failure, which is one that is documented and tells no token."""
    assert failure is not None
    assert failure.message
    assert failure.failure_type
    assert "does not know (" not in str(failure)
    assert failure.message.endswith(".")
    assert len(failure.message) < 5_000
    assert TOKEN not in f"{failure.message}{failure.internal_message}"
    return failure.message, failure.failure_type.value


def has_failed(result: Result) -> bool:
    """Whether a command failed, and if so, in a documented way."""
    return result.failure is not None and bool(said(result.failure))


# --- what JSON can hold ---------------------------------------------------------------------------

# Written in the place of these texts: what Python's own encoder does not write.
RAW = {
    "@digits": "7" * 400,
    "@300 lists": "[" * 300 + "]" * 300,
    "@300 objects": '{"a":' * 300 + "1" + "}" * 300,
}
NO_JSON = {"@NaN": "NaN", "@Infinity": "-Infinity", "@deep": "[" * 200_000, "@half": '{"a'}

texts = (
    st.text(max_size=8)
    | st.text(st.characters(), max_size=4)
    | st.sampled_from(["", " ", "null", "a&b=c#d%20+/?", "{}", "\x00", "\r\n", "\u2028", "é漢😀"])
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**30, 1e300, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
anything = json_values | st.sampled_from(sorted(RAW))


def written(value: Any) -> str:
    text = json.dumps(value)
    for name, raw in (RAW | NO_JSON).items():
        text = text.replace(json.dumps(name), raw)
    return text


def page(*records: Any, cursor: Any = None) -> str:
    return written({"result": list(records), "next_cursor": cursor})


def readable(text: str) -> str:
    """A text without halves of surrogate pairs, which become U+FFFD."""
    return "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in text)


# --- cursors --------------------------------------------------------------------------------------

cursors = (
    st.text(min_size=1, max_size=20)
    | st.sampled_from(
        ["null", "None", "0", "false", "undefined", " ", "+", "%", "%2B", "&", "#", "=", "a b"]
        + [
            "a&next_cursor=b",
            "?",
            "/../",
            "\\",
            '"',
            "{}",
            "[]",
            "\n",
            "\r\n",
            "\t",
            "\x00",
            "\x7f",
        ]
        + ["\u2028", "é", "e\u0301", "漢", "😀", "\ufeff", "\u200b", "\u202e", "x" * 20_000, "%00"]
        + ["é" * 5_000, "https://example.com/?a=b&c=d#e", "tc_", ";", "a;b", ",", "~", "'"]
    )
    | st.binary(min_size=1, max_size=30).map(lambda raw: raw.decode("latin-1"))
)


@given(st.lists(cursors, min_size=1, max_size=4))
@examples(25)
def test_given_any_cursors_when_read_then_each_comes_back_unchanged_or_as_a_loop(
    sandbox: Sandbox, handed_out: list[str]
) -> None:
    script = [
        faults.body(page({"id": str(number)}, cursor=cursor))
        for number, cursor in enumerate([*handed_out, None])
    ]
    result = read(serve(sandbox, account(faults=script)))

    sent = [request.param("next_cursor") for request in sandbox.requests]
    new = list(dict.fromkeys(handed_out))
    if len(new) == len(handed_out):
        assert sent == [None, *handed_out]
        assert result.ids == [str(number) for number in range(len(handed_out) + 1)]
        assert result.statuses[-1] == "COMPLETE"
    else:
        first_repeated = next(n for n, c in enumerate(handed_out) if c in handed_out[:n])
        assert sent == [None, *handed_out[:first_repeated]]
        assert result.ids == [str(number) for number in range(first_repeated + 1)]
        assert "pages run in a circle" in str(result.failure)
    for request in sandbox.requests:
        assert {name for name, _ in request.query} <= {"integrated_account_id", "next_cursor"}
        assert request.params("integrated_account_id") == [ACCOUNT_ID]


@given(cursors)
@examples(12)
def test_given_any_cursor_when_resumed_from_its_state_then_it_is_sent_first_and_unchanged(
    sandbox: Sandbox, folder: Path, cursor: str
) -> None:
    begun = [faults.body(page({"id": "1"}, cursor=cursor)), faults.account_blocked()]
    serve(sandbox, account(faults=[*begun, faults.body(page({"id": "2"}))]))
    files = (
        *("--config", write(folder / "config.json", config(sandbox))),
        *("--catalog", write(folder / "catalog.json", catalog())),
    )
    first = command("read", *files)
    sandbox.clear()
    state = [{k: v for k, v in first.states[-1].items() if k != "sourceStats"}]
    second = command("read", *files, "--state", write(folder / "state.json", state))

    assert (first.ids, second.ids) == (["1"], ["2"])
    assert [request.param("next_cursor") for request in sandbox.requests] == [cursor]
    assert second.statuses[-1] == "COMPLETE"


@given(json_values)
@examples(20)
def test_given_a_cursor_that_is_no_text_when_read_then_it_is_the_end_a_number_or_malformed(
    sandbox: Sandbox, cursor: Any
) -> None:
    begun = faults.body(
        page({"id": "1"}, cursor=cursor),
        times=None,
        when=lambda request: request.param("next_cursor") is None,
    )
    end = faults.body(page({"id": "2"}), times=None)
    result = read(serve(sandbox, account(faults=[begun, end])))

    sent = [request.param("next_cursor") for request in sandbox.requests]
    if cursor is None or cursor == "":
        assert (sent, result.ids) == ([None], ["1"])
    elif isinstance(cursor, str):
        assert (sent, result.ids) == ([None, readable(cursor)], ["1", "2"])
    elif isinstance(cursor, int) and not isinstance(cursor, bool) and -(2**63) <= cursor < 2**64:
        assert (sent, result.ids) == ([None, str(cursor)], ["1", "2"])
    else:
        assert (sent, result.ids) == ([None] * 6, [])
        assert "the answer could not be read" in str(result.failure)
        assert "the next_cursor is no text" in str(result.failure)


# --- records --------------------------------------------------------------------------------------

entries = anything | st.dictionaries(
    st.sampled_from([*MODEL, "extra", "Id", ""]) | texts, anything, max_size=5
)


@given(st.lists(entries, max_size=6), st.sampled_from(["list", "keyed"]))
@examples(40)
def test_given_anything_in_the_place_of_records_when_read_then_each_is_emitted_or_counted(
    sandbox: Sandbox, folder: Path, found: list[Any], form: str
) -> None:
    is_keyed = form == "keyed" and all(isinstance(entry, dict) for entry in found)
    result_of_page = {f"k{n}": entry for n, entry in enumerate(found)} if is_keyed else found
    body = written({"result": result_of_page, "next_cursor": None})
    serve(sandbox, account(faults=[faults.body(body, times=None)]))
    files = (
        *("--config", write(folder / "config.json", config(sandbox))),
        *("--catalog", write(folder / "catalog.json", catalog())),
    )
    with warnings() as told:
        result = command("read", *files)

    objects = [entry for entry in found if isinstance(entry, dict) or entry == "@300 objects"]
    strays = len(found) - len(objects)
    lost = [record for record in result.records if record.get("id") is None]
    assert result.failure is None
    assert result.statuses[-1] == "COMPLETE"
    assert len(result.records) == len(objects)
    assert sum(f"no segments: {strays}." in line for line in told) == bool(strays)
    assert sum(f"without an id: {len(lost)}." in line for line in told) == bool(lost)
    for record, raw in zip(result.of_type("RECORD"), objects, strict=True):
        changed = {change["field"] for change in record.get("meta", {}).get("changes", [])}
        assert record["data"]["integrated_account_id"] == ACCOUNT_ID
        for name, value in raw.items() if isinstance(raw, dict) else ():
            is_blank = isinstance(value, str) and not value.strip() and name in MODEL
            if name in ("integrated_account_id", "workspace_id") or value is None or is_blank:
                continue
            assert (record["data"].get(readable(name)) is None) <= (readable(name) in changed)
            if name not in MODEL and isinstance(value, str) and value not in RAW:
                assert record["data"][readable(name)] == readable(value)


@pytest.mark.parametrize("others", ["", ', "b": ' + "7" * 400], ids=["alone", "digits"])
@pytest.mark.parametrize("number", ["1e400", "-1e400"])
@pytest.mark.parametrize("name", ["extra", "name", "updated_at", "is_starred", "remote_data"])
def test_given_a_number_that_no_float_holds_when_read_then_it_is_written_or_named(
    sandbox: Sandbox, folder: Path, name: str, number: str, others: str
) -> None:
    body = f'{{"result": [{{"id": "1", "{name}": {number}{others}}}]}}'
    serve(sandbox, account(faults=[faults.body(body)]))
    result = command(
        *("read", "--config", write(folder / "config.json", config(sandbox))),
        *("--catalog", write(folder / "catalog.json", catalog())),
    )

    (record,) = result.of_type("RECORD")
    changed = [change["field"] for change in record.get("meta", {}).get("changes", [])]
    assert changed == ([name] if record["data"].get(name) is None else [])
    assert result.statuses[-1] == "COMPLETE"


# --- answers --------------------------------------------------------------------------------------

header_values = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)
    | st.from_regex(r"[0-9]{1,400}", fullmatch=True)
    | st.sampled_from(["-5", "inf", "nan", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 02 Jan 1 0:0:0"])
)
locations = st.sampled_from(["//", "", "http://x:99999/", "\\", "é", "http://127.0.0.1:9"])
answers = st.builds(
    lambda content, status, headers, location: faults.body(
        content, status, headers={**headers, **({"Location": location} if location else {})}
    ),
    st.binary(max_size=30)
    | st.sampled_from([*RAW, *NO_JSON]).map(written)
    | anything.map(written)
    | st.fixed_dictionaries(
        {},
        optional={
            "message": anything,
            "error": anything,
            "raw_response": anything,
            "truto_is_remote_error": st.booleans() | anything,
            "truto_error_insight": st.dictionaries(
                st.sampled_from(["forbidden_error", "missing_required_query_parameters"]),
                st.dictionaries(st.sampled_from(["value", "description"]), anything) | anything,
            ),
            "result": anything,
        },
    ).map(written),
    st.sampled_from(
        [200, 201, 204, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 408]
        + [409, 410, 418, 422, 425, 429, 451, 499, 500, 501, 502, 503, 504, 508, 520, 599, 600, 999]
    ),
    st.dictionaries(
        st.sampled_from(
            ["Retry-After", "ratelimit-reset", "ratelimit-remaining", "ratelimit-limit"]
            + ["Content-Encoding", "Set-Cookie", "Date", "ETag", "X-Other", "WWW-Authenticate"]
        ),
        header_values,
        max_size=3,
    ),
    locations,
)


@given(answers, st.sampled_from(["segments", "workspaces", "accounts"]))
@examples(40)
def test_given_any_answer_when_read_then_all_else_comes_or_a_sentence_says_why_not(
    sandbox: Sandbox, answer: Fault, kind: Any
) -> None:
    answer.kind = kind
    vendor = "beehiiv" if kind == "workspaces" else "klaviyo"
    segments = vendors.segments(vendor, 25)
    whole = account(vendor, segments=segments)
    result = read(serve(sandbox, whole, before=(answer,)), additional_accounts=ALL)

    ids = [str(segment["id"]) for segment in segments]
    is_page = answer.answer is not None and b'"result"' in answer.answer().body
    if has_failed(result):
        assert result.statuses[-1] == "INCOMPLETE"
    else:
        assert result.statuses[-1] == "COMPLETE"
        assert is_page or result.ids == ids


def test_given_thousands_of_missing_scopes_when_read_then_the_message_stays_short(
    sandbox: Sandbox,
) -> None:
    answer = faults.scopes_missing(*(f"scope-{number}" for number in range(5_000)))
    result = read(serve(sandbox, account(faults=[answer])))

    assert "missing scopes: scope-0, " in said(result.failure)[0]


@pytest.mark.parametrize("location", ["http://[", "http://]", "http://[x]/"])
@pytest.mark.parametrize("kind", ["segments", "workspaces", "accounts", "meta"])
def test_given_a_redirect_to_no_address_when_run_then_it_is_told_as_a_redirect(
    sandbox: Sandbox, kind: Any, location: str
) -> None:
    answer = faults.redirect(location, kind=kind, times=None)
    serve(sandbox, account("beehiiv", segments=vendors.segments("beehiiv", 5)), before=(answer,))
    if kind == "meta":
        with warnings() as told:
            SourceTrutoSegments().discover(logging.getLogger("airbyte.test"), config(sandbox))
        assert "answered with a redirect" in " ".join(told)
        return
    result = read(sandbox, additional_accounts=ALL)

    assert "answered with a redirect" in said(result.failure)[0]


@pytest.mark.parametrize("times", [250, 490, 1010])
@pytest.mark.parametrize(
    ("kind", "status", "place"),
    [
        ("segments", 200, '{"result":[{"id":%s}]}'),
        ("segments", 200, '{"result":[],"next_cursor":%s}'),
        ("segments", 400, '{"message":%s}'),
        ("segments", 500, '{"truto_is_remote_error":true,"raw_response":%s}'),
        ("workspaces", 200, '{"result":[{"id":%s}]}'),
        ("accounts", 200, '{"result":[{"id":%s}]}'),
        ("accounts", 200, '{"result":[{"id":"a","integration":{"name":"brevo"},"tenant_id":%s}]}'),
        ("accounts", 200, '{"result":[{"id":"a","integration":{"name":"brevo"},"status":%s}]}'),
    ],
)
def test_given_an_answer_nested_deeply_when_read_then_a_sentence_says_so_if_it_fails(
    sandbox: Sandbox, kind: Any, status: int, place: str, times: int
) -> None:
    """Without hypothesis, which lends its tests a deeper stack than a process has."""
    for inner in ("[" * times + "]" * times, '{"a":' * times + "1" + "}" * times):
        deep = faults.body(place % inner, status, kind=kind, times=None)
        vendor = "beehiiv" if kind == "workspaces" else "klaviyo"
        serve(sandbox, account(vendor, count=25), before=(deep,))
        with warnings() as told:
            result = read(sandbox, additional_accounts=ALL if kind == "accounts" else None)
        if not has_failed(result):
            assert result.statuses[-1] == "COMPLETE"
            assert told


# --- the lists of accounts and of workspaces ------------------------------------------------------

listed = anything | st.fixed_dictionaries(
    {},
    optional={
        "id": texts | anything | st.sampled_from([ACCOUNT_ID, ACCOUNT_ID.upper()]),
        "integration": st.sampled_from(["klaviyo", "Brevo", {"name": "klaviyo"}])
        | st.fixed_dictionaries({"name": anything})
        | anything,
        "status": st.sampled_from(["active", "needs_reauth", "connecting"]) | anything,
        "tenant_id": anything,
        "last_error": anything,
    },
)


@given(st.lists(listed, max_size=4))
@examples(25)
@example([{"id": "", "integration": {"name": "klaviyo"}}])
@example([{"id": "x", "integration": {"name": "klaviyo"}, "status": None, "tenant_id": []}])
def test_given_anything_in_the_list_of_accounts_when_read_then_the_good_ones_are_read_all_the_same(
    sandbox: Sandbox, others: list[Any]
) -> None:
    second = "00000000-0000-4000-8000-000000000002"
    good = {"id": second, "integration": {"name": "klaviyo"}, "status": "active"}
    segments = vendors.segments("klaviyo", 5)
    accounts = [account(count=25), Account(id=second, vendor="klaviyo", segments=segments)]
    listing = faults.body(page(*others, good), kind="accounts")
    result = read(serve(sandbox, *accounts, before=(listing,)), additional_accounts=ALL)

    found: dict[str, list[str]] = {}
    for record in result.records:
        found.setdefault(record["integrated_account_id"], []).append(record["id"])
    assert found == {ACCOUNT_ID: IDS, second: [str(segment["id"]) for segment in segments]}
    assert result.statuses[-1] == ("INCOMPLETE" if has_failed(result) else "COMPLETE")


@given(st.lists(anything | st.fixed_dictionaries({"id": texts | anything}), max_size=3))
@examples(15)
def test_given_anything_in_the_list_of_workspaces_when_read_then_the_good_one_is_read_first(
    sandbox: Sandbox, others: list[Any]
) -> None:
    segments = vendors.segments("beehiiv", 5)
    listing = faults.body(page({"id": "w"}, *others), kind="workspaces")
    result = read(serve(sandbox, account("beehiiv", workspaces={"w": segments}, faults=[listing])))

    assert result.ids == [str(segment["id"]) for segment in segments]
    assert result.statuses[-1] == ("INCOMPLETE" if has_failed(result) else "COMPLETE")


# --- catalogs -------------------------------------------------------------------------------------

types = st.sampled_from(["null", "string", "boolean", "number", "integer", "object", "array", "x"])
names = st.sampled_from([*MODEL, "extra", "", "a.b", "\x00", "ID", "$ref"]) | texts
properties = json_values | st.fixed_dictionaries(
    {},
    optional={
        "type": types | st.lists(types | json_values, max_size=3) | json_values,
        "format": st.just("date-time") | json_values,
        "description": texts | json_values,
        "required": st.booleans(),
        "properties": json_values,
        "$ref": st.just("#"),
    },
)
schemas = st.dictionaries(texts, json_values, max_size=3) | st.fixed_dictionaries(
    {"properties": st.dictionaries(names, properties, max_size=5) | json_values},
    optional={"type": json_values, "required": json_values, "$ref": json_values},
)


@given(schemas, st.sampled_from(["full_refresh", "incremental"]))
@examples(20)
@example({"properties": ["id"]}, "full_refresh")
@example({"properties": "id"}, "full_refresh")
@example({"properties": {"extra": {"type": [["array"]]}}}, "full_refresh")
@example({"properties": {"extra": {"type": [{}]}, "id": None}}, "incremental")
def test_given_any_schema_in_a_catalog_when_read_then_every_id_comes(
    sandbox: Sandbox, folder: Path, schema: dict[str, Any], mode: str
) -> None:
    segments = [{**each, "extra": [1]} for each in vendors.segments("klaviyo", 25)]
    serve(sandbox, account(segments=segments))
    files = (
        *("--config", write(folder / "config.json", config(sandbox))),
        *("--catalog", write(folder / "catalog.json", catalog(mode, schema))),
    )
    result = command("read", *files)

    assert result.failure is None
    assert result.ids == IDS
    assert result.statuses[-1] == "COMPLETE"
    assert all(record["updated_at"] for record in result.records)


@given(anything | st.fixed_dictionaries({"schema": schemas | anything}))
@examples(25)
def test_given_any_description_of_the_model_when_discovered_then_the_catalog_is_valid(
    sandbox: Sandbox, folder: Path, meta: Any
) -> None:
    answer = faults.body(written(meta), kind="meta")
    serve(sandbox, account(faults=[answer]))
    with warnings() as told:
        result = command("discover", "--config", write(folder / "config.json", config(sandbox)))

    (found,) = result.of_type("CATALOG")
    (stream,) = found["streams"]
    Draft7Validator.check_schema(stream["json_schema"])
    columns = stream["json_schema"]["properties"]
    assert {name: columns[name] for name in MODEL} == MODEL
    schema = meta.get("schema") if isinstance(meta, dict) else None
    named = schema.get("properties") if isinstance(schema, dict) else None
    custom = set(map(readable, named)) - set(MODEL) if isinstance(named, dict) else set()
    assert set(columns) - set(MODEL) == custom
    is_object = isinstance(meta, dict) or meta == "@300 objects"
    assert sum("unified fields only" in line for line in told) == (not is_object)


# --- configurations -------------------------------------------------------------------------------

HALF = "\ud800"  # of a surrogate pair: JSON can escape it, UTF-8 cannot say it
HOSTS = [
    *("127.0.0.1:9", "localhost:9", "[::1]:9", "[::1", "[::1]x", "[::ffff:127.0.0.1]:9", "*", "."),
    *("a..b", "x" * 64, "é" * 64, "a b", "%00", "x%zz", "\x00", "\u3002", "xn--", "-", "_", HALF),
    *("u:p@x", "@", ":", ":9", "x:99999", "127.0.0.1:0", "2130706433:9", "127.0.0.1\\@x", "x\\y"),
]


def each(key: str, *values: Any, **others: Any) -> list[dict[str, Any]]:
    return [{**others, key: value} for value in values]


NEAR: dict[str, list[Any]] = {
    "token": [
        *(TOKEN, f"Bearer {TOKEN}", f" {TOKEN}\n", f"{TOKEN} {TOKEN}", f"{TOKEN}\n{TOKEN}"),
        *(f"{TOKEN}é", f"{TOKEN}\x00", [TOKEN], {"token": TOKEN}, "Bearer ", "", None, HALF),
    ],
    "integrated_account_id": [ACCOUNT_ID.upper(), f" {ACCOUNT_ID}\n", f"{ACCOUNT_ID}é", "", None],
    "workspace_id": ["", " ", "a&b", "\x00", "é", 5, None, HALF],
    "tag_id": ["", " ", "a&b", "\x00", "é", 5, None, HALF],
    "page_size": [1, 10.0, 1e3, 10**6, 2.5, 0, -1, True, "5", None, float("nan"), float("inf")],
    "num_workers": [2, 50, 20.0, 2.5, 51, 1, True, "5", None, float("nan"), float("inf")],
    "remote_query": [
        *([pair] for pair in each("name", "a", " ", "]", "a&b", "\x00", "é", HALF, value="v")),
        *([pair] for pair in each("value", "", "a&b", "\x00", "é", 5, None, HALF, name="a")),
        *({}, [[]], [None], "a=b", None),
    ],
    "additional_accounts": [
        *each("mode", "none", "listed", "all", "ALL", "", None, [], {}, 1),
        *each("ids", [], [ACCOUNT_ID], [5], "x", {}, None, mode="listed"),
        *each("tenant_ids", [], ["x"], [""], [" "], [5], [HALF], None, mode="all"),
        *each("integrations", [], ["Klaviyo"], [""], [HALF], "x", None, mode="all"),
        *([], "none", 5, True, None, {}),
    ],
    "on_account_error": ["fail", "skip", "FAIL", "", None, True, []],
    "api_url": [
        *(f"{scheme}{host}" for scheme in ("https://", "http://") for host in HOSTS),
        *("HTTPS://127.0.0.1:9", "//127.0.0.1:9", "127.0.0.1:9", "https:127.0.0.1", "file:///", ""),
        *(f"http://127.0.0.1:9/{path}" for path in ("a b", "%zz", "é", "\x00", "..", ";", HALF)),
        *("http://127.0.0.1:9?", "http://127.0.0.1:9#", "http://127.0.0.1:9/?a=b", None, 5, " "),
    ],
    "other": [None, HALF, {}],
}


@pytest.fixture(scope="module")
def _no_network() -> Iterator[None]:
    """No name is looked up: what is not this machine goes to a proxy that is none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


def assert_each_command_works_or_says_why_not(
    sandbox: Sandbox, folder: Path, given_: dict[str, Any]
) -> None:
    path = write(folder / "config.json", given_)
    asked = write(folder / "catalog.json", catalog())
    checked = command("check", "--config", path)
    discovered = command("discover", "--config", path)
    result = command("read", "--config", path, "--catalog", asked)

    for ran in (checked, discovered, result):
        assert TOKEN not in json.dumps(ran.messages)
    assert checked.failure is None
    (status,) = checked.of_type("CONNECTION_STATUS")
    if status["status"] == "SUCCEEDED":
        assert not has_failed(result)
        assert result.ids == ([] if str(given_.get("tag_id") or "").strip() else IDS)
        assert discovered.of_type("CATALOG")
        assert all(request.status == 200 for request in sandbox.requests)
        return
    assert status["message"].endswith(".")
    assert "does not know (" not in status["message"]
    assert has_failed(result)
    if has_failed(discovered):
        # What is wrong with a field is told in the same words whatever is run.
        assert said(discovered.failure) == (status["message"], "config_error")
        assert said(result.failure) == (status["message"], "config_error")


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in NEAR.items()
        for number, value in enumerate(values)
    ],
)
def test_given_a_field_that_is_nearly_right_when_run_then_each_command_works_or_says_why_not(
    sandbox: Sandbox, folder: Path, name: str, value: Any
) -> None:
    serve(sandbox, account(count=25))
    assert_each_command_works_or_says_why_not(sandbox, folder, {**config(sandbox), name: value})


@pytest.mark.usefixtures("_no_network")
@given(
    st.dictionaries(st.sampled_from(sorted(NEAR)), json_values, max_size=2),
    st.lists(
        st.sampled_from([(name, value) for name in sorted(NEAR) for value in NEAR[name]]),
        max_size=2,
    ),
    st.sets(st.sampled_from(["token", "integrated_account_id", "api_url"]), max_size=1),
)
@examples(25)
def test_given_any_configuration_when_run_then_each_command_works_or_says_why_not(
    sandbox: Sandbox,
    folder: Path,
    fields: dict[str, Any],
    near: list[tuple[str, Any]],
    missing: set[str],
) -> None:
    serve(sandbox, account(count=25))
    whole = {**config(sandbox), **fields, **dict(near)}
    given_ = {name: value for name, value in whole.items() if name not in missing}
    assert_each_command_works_or_says_why_not(sandbox, folder, given_)


# --- states ---------------------------------------------------------------------------------------

A, B, C = (f"00000000-0000-4000-8000-00000000000{number}" for number in "abc")
SPACES = {"w1": vendors.segments("beehiiv", 12), "w2": vendors.segments("beehiiv", 27)[12:]}


def some_accounts() -> list[Account]:
    return [
        Account(id=A, vendor="klaviyo", segments=vendors.segments("klaviyo", 25)),
        Account(id=B, vendor="beehiiv", workspaces=dict(SPACES)),
        Account(id=C, vendor="brevo", segments=vendors.segments("brevo", 8)),
    ]


EVERYTHING: dict[str, list[dict[str, Any]]] = {
    A: vendors.segments("klaviyo", 25),
    B: [*SPACES["w1"], *SPACES["w2"]],
    C: vendors.segments("brevo", 8),
}


def keys(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(record["integrated_account_id"], record["id"]) for record in records}


def of_account(account_id: str) -> set[tuple[str, str]]:
    return {(account_id, str(segment["id"])) for segment in EVERYTHING[account_id]}


class Begun:
    """What a first read left behind."""

    def __init__(self, result: Result) -> None:
        self.keys = keys(result.records)
        self.state: dict[str, Any] = result.states[-1]["stream"]["stream_state"]


@pytest.fixture(scope="module")
def interrupted(sandbox: Sandbox) -> Begun:
    """A full refresh with one account at its second page, one in a workspace, and one complete."""
    first, second, third = some_accounts()
    first.faults = [faults.account_blocked(after=1)]
    second.faults = [faults.account_blocked(after=5, times=None)]
    return Begun(read(serve(sandbox, first, second, third), additional_accounts=ALL))


@pytest.fixture(scope="module")
def synced(sandbox: Sandbox) -> Begun:
    """An incremental sync that was whole."""
    asked = catalog("incremental")
    return Begun(read(serve(sandbox, *some_accounts()), asked=asked, additional_accounts=ALL))


def test_given_the_states_that_are_changed_here_when_written_then_they_are_of_every_kind(
    interrupted: Begun, synced: Begun
) -> None:
    by_account = {id_: entries_of(interrupted.state, id_)[0] for id_ in (A, B, C)}
    assert set(by_account[A]) == {"integrated_account_id", "next_cursor"}
    assert set(by_account[B]) >= {"next_cursor", "workspace_id", "workspaces_done"}
    assert by_account[C]["complete"] is True
    assert [len(entries_of(synced.state, id_)) for id_ in (A, B, C)] == [1, 2, 1]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        yield from places_in(each, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[int, str, int, Any]]:
    """What is done to a state: to which of its places what, with which other, with what."""
    place = st.integers(0, 60)
    how = st.sampled_from(["drop", "replace", "swap", "copy", "double"])
    return draw(st.lists(st.tuples(place, how, place, json_values), min_size=1, max_size=3))


def mutated(state: dict[str, Any], changes: list[tuple[int, str, int, Any]]) -> Any:
    root = {"state": json.loads(json.dumps(state))}
    for first, how, second, value in changes:
        places = [path for path in places_in(root) if path]
        path, other = (places[number % len(places)] for number in (first, second))
        holder, key = at(root, path[:-1]), path[-1]
        if how == "drop" and len(path) > 1:
            del holder[key]
        elif how == "replace":
            holder[key] = value
        elif how == "double" and isinstance(holder, list):
            holder.append(holder[key])
        elif how in ("swap", "copy") and path[: len(other)] != other[: len(path)]:
            theirs, mine = at(root, other), holder[key]
            holder[key] = json.loads(json.dumps(theirs))
            if how == "swap":
                at(root, other[:-1])[other[-1]] = mine
    return root["state"]


def entries_of(state: Any, account_id: str) -> list[dict[str, Any]]:
    """The cursors that a state has for an account, whatever else is wrong with it."""
    states = state.get("states") if isinstance(state, dict) else None
    found = []
    for entry in states if isinstance(states, list) else ():
        partition = entry.get("partition") if isinstance(entry, dict) else None
        cursor = entry.get("cursor") if isinstance(entry, dict) else None
        named = partition.get("integrated_account_id") if isinstance(partition, dict) else None
        if isinstance(named, str) and named.strip().lower() == account_id:
            found.append({**(partition or {}), **(cursor if isinstance(cursor, dict) else {})})
    return found


def entry(cursor: dict[str, Any], **partition: str) -> dict[str, Any]:
    return {"partition": {"integrated_account_id": A, **partition}, "cursor": cursor}


def of_stream(state: Any) -> list[dict[str, Any]]:
    stream = {"stream_descriptor": {"name": "segments"}, "stream_state": state}
    return [{"type": "STREAM", "stream": stream}]


def read_from(sandbox: Sandbox, folder: Path, mode: str, state: Any) -> Result:
    """A read of three accounts from a state's file, whatever is in that."""
    serve(sandbox, *some_accounts())
    given_ = {**config(sandbox), "additional_accounts": ALL}
    result = command(
        *("read", "--config", write(folder / "config.json", given_)),
        *("--catalog", write(folder / "catalog.json", catalog(mode))),
        *("--state", write(folder / "state.json", state)),
    )
    if not has_failed(result):
        assert result.statuses[-1] == "COMPLETE"
        assert keys(result.records) <= {key for id_ in EVERYTHING for key in of_account(id_)}
    return result


def is_told_to_reset(result: Result) -> bool:
    if result.failure is None or "Reset the " not in str(result.failure):
        return False
    assert said(result.failure)[1] == "config_error"
    assert result.records == []
    return True


@given(mutations())
@examples(40)
def test_given_a_changed_state_of_a_broken_read_when_resumed_then_nothing_unclaimed_is_missing(
    sandbox: Sandbox, folder: Path, interrupted: Begun, changes: list[tuple[int, str, int, Any]]
) -> None:
    state = mutated(interrupted.state, changes)
    result = read_from(sandbox, folder, "full_refresh", of_stream(state))

    if is_told_to_reset(result):
        return
    emitted = interrupted.keys | keys(result.records)
    for account_id in EVERYTHING:
        cursors_of = entries_of(state, account_id)
        is_claimed = any(cursor.get("complete") is True for cursor in cursors_of)
        names_workspaces = any({"workspace_id", "workspaces_done"} & set(c) for c in cursors_of)
        if is_claimed or (names_workspaces and result.failure is not None):
            continue
        if names_workspaces and account_id == C:
            # It has workspaces, but none of its segments are in one.
            continue
        assert of_account(account_id) <= emitted, account_id


@given(mutations())
@examples(30)
def test_given_the_marks_of_a_sync_were_changed_when_read_then_all_that_is_not_before_them_comes(
    sandbox: Sandbox, folder: Path, synced: Begun, changes: list[tuple[int, str, int, Any]]
) -> None:
    state = mutated(synced.state, changes)
    result = read_from(sandbox, folder, "incremental", of_stream(state))

    if is_told_to_reset(result):
        return
    assert result.failure is None
    for account_id, segments in EVERYTHING.items():
        marks = [cursor.get("updated_at") for cursor in entries_of(state, account_id)]
        known = [mark for mark in marks if isinstance(mark, str)]
        are_all_known = known and len(known) == len(marks)
        for segment in segments:
            changed = segment.get("updated_at")
            if changed is None or not marks or (are_all_known and changed >= max(known)):
                assert (account_id, str(segment["id"])) in keys(result.records)


messages_of_state = st.lists(
    json_values
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["STREAM", "GLOBAL", "LEGACY"]) | json_values},
        optional={
            "stream": st.fixed_dictionaries(
                {"stream_descriptor": st.just({"name": "segments"}) | json_values},
                optional={"stream_state": json_values},
            )
            | json_values,
            "global": st.fixed_dictionaries(
                {"stream_states": json_values}, optional={"shared_state": json_values}
            )
            | json_values,
            "data": json_values,
        },
    ),
    max_size=2,
)
blobs = st.dictionaries(
    st.sampled_from(["states", "filters", "started_at", "self", "kwargs", "__dict__"]) | texts,
    json_values,
    max_size=3,
)


@given(
    json_values | messages_of_state | blobs.map(of_stream) | json_values.map(of_stream),
    st.sampled_from(["full_refresh", "incremental"]),
)
@examples(25)
@example([{"type": "GLOBAL"}], "full_refresh")
@example([{"type": "STREAM"}], "full_refresh")
@example([{"type": "LEGACY", "data": {"segments": {"states": 1}}}], "incremental")
@example(of_stream({"states": [entry({"next_cursor": HALF})]}), "full_refresh")
@example(of_stream({"states": [entry({"next_cursor": "a", "workspace_id": HALF})]}), "full_refresh")
@example(of_stream({"states": [entry({"updated_at": None}, workspace_id=HALF)]}), "incremental")
@example(of_stream({"states": [], "filters": HALF, "started_at": 1e300}), "full_refresh")
def test_given_any_json_for_a_state_when_read_then_everything_comes_or_the_user_is_told_to_reset(
    sandbox: Sandbox, folder: Path, state: Any, mode: str
) -> None:
    result = read_from(sandbox, folder, mode, state)

    if not is_told_to_reset(result):
        assert result.failure is None
        assert keys(result.records) == {key for id_ in EVERYTHING for key in of_account(id_)}


@pytest.mark.parametrize("what", ["config", "catalog", "state"])
@pytest.mark.parametrize(
    "content",
    ["", "\ufeff{}", "[" * 100_000, "NaN", "\x00", '"\ud800"', "{"],
    ids=["empty", "mark", "deep", "NaN", "zero", "surrogate", "cut"],
)
def test_given_a_file_that_holds_nothing_of_use_when_read_then_a_sentence_says_so(
    sandbox: Sandbox, folder: Path, what: str, content: str
) -> None:
    serve(sandbox, account())
    paths = {
        "config": write(folder / "config.json", config(sandbox)),
        "catalog": write(folder / "catalog.json", catalog()),
        "state": write(folder / "state.json", []),
    }
    Path(paths[what]).write_text(content, errors="surrogatepass")
    result = command("read", *(f"--{name}={path}" for name, path in paths.items()))

    assert said(result.failure)[1] == "config_error"
