"""Whatever comes from outside, the connector reads it, or reports it in a documented sentence.

Every run uses the same examples. To search with new ones, and several times as many, run for
example `EXAMPLES=20 pytest integration_tests/test_hostile_input.py`.
"""

import json
import logging
import os
from collections import Counter
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
    ALL,
    ALL_STREAMS,
    Result,
    account,
    catalog,
    command,
    config,
    read,
    write,
)
from integration_tests.test_state import of_stream
from sandbox import CONTEXT_SECRET, Account, Environment, Fault, Sandbox, faults, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.records.columns import CONNECTOR_COLUMNS, load_schema
from source_truto_segments.truto.excerpts import MAX_EXCERPT_LENGTH

Test = TypeVar("Test", bound=Callable[..., None])

MODEL = load_schema("segments")["properties"]
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
    """Start one server for all examples; each puts its own accounts into it."""
    with Sandbox(Environment(token=TOKEN)) as running:
        yield running
    update_secrets([])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def serve(sandbox: Sandbox, *accounts: Account, before: tuple[Fault, ...] = ()) -> Sandbox:
    """Replace the accounts of the previous example."""
    sandbox.environment.accounts[:] = accounts
    sandbox.environment.faults[:] = before
    sandbox.clear()
    return sandbox


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def warnings() -> Iterator[list[str]]:
    handler = Warnings()
    logging.getLogger("airbyte").addHandler(handler)
    try:
        yield handler.messages
    finally:
        logging.getLogger("airbyte").removeHandler(handler)


def described(failure: AirbyteTracedException | None) -> tuple[str, str]:
    """Return the message and the type of a failure, which is documented and contains no token."""
    assert failure is not None
    assert failure.message
    assert failure.failure_type
    assert "failed unexpectedly" not in str(failure)
    assert failure.message.endswith(".")
    assert len(failure.message) < 5_000
    assert TOKEN not in f"{failure.message}{failure.internal_message}"
    return failure.message, failure.failure_type.value


def has_failed(result: Result) -> bool:
    """Return whether a command failed, and check that the failure is documented."""
    return result.failure is not None and bool(described(result.failure))


# --- what JSON can hold ---------------------------------------------------------------------------

# JSON that Python's own encoder does not write takes the place of these texts.
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


def whole(text: str) -> str:
    """Return a text in which U+FFFD replaces halves of surrogate pairs."""
    return "".join("\ufffd" if "\ud800" <= each <= "\udfff" else each for each in text)


def readable(text: str) -> str:
    """Return a text in which U+FFFD replaces U+0000 and halves of surrogate pairs."""
    return whole(text).replace("\0", "\ufffd")


def files(
    sandbox: Sandbox, folder: Path, configured: dict[str, Any] | None = None, **fields: Any
) -> tuple[str, ...]:
    """Return the options of a command: the files of a configuration and a configured catalog."""
    return (
        *("--config", write(folder / "config.json", config(sandbox, **fields))),
        *("--catalog", write(folder / "catalog.json", configured or catalog())),
    )


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


@given(st.lists(cursors, min_size=1, max_size=4), st.sampled_from(["segments", "workspaces"]))
@examples(25)
def test_any_cursors(sandbox: Sandbox, handed_out: list[str], stream: str) -> None:
    """Every cursor is sent back unchanged, or reported as a loop."""
    script = [
        faults.body(page({"id": str(number)}, cursor=cursor))
        for number, cursor in enumerate([*handed_out, None])
    ]
    serve(sandbox, account("brevo", faults=script))
    result = read(sandbox, streams=[stream])

    ids = [record["id"] for record in result.records_of(stream)]
    sent = [request.param("next_cursor") for request in sandbox.requests]
    new = list(dict.fromkeys(handed_out))
    if len(new) == len(handed_out):
        assert sent == [None, *handed_out]
        assert ids == [str(number) for number in range(len(handed_out) + 1)]
        assert result.statuses_of(stream)[-1] == "COMPLETE"
    else:
        first_repeated = next(n for n, c in enumerate(handed_out) if c in handed_out[:n])
        assert sent == [None, *handed_out[:first_repeated]]
        assert ids == [str(number) for number in range(first_repeated + 1)]
        assert "pagination loop detected" in str(result.failure)
    for request in sandbox.requests:
        assert request.kind == stream
        assert {name for name, _ in request.query} <= {"integrated_account_id", "next_cursor"}
        assert request.params("integrated_account_id") == [ACCOUNT_ID]


@given(json_values)
@examples(20)
def test_cursor_not_string(sandbox: Sandbox, cursor: Any) -> None:
    """A cursor that is not a string is the end of the list, a number, or malformed."""
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
        assert (sent, result.ids) == ([None, whole(cursor)], ["1", "2"])
    elif isinstance(cursor, int) and not isinstance(cursor, bool) and -(2**63) <= cursor < 2**64:
        assert (sent, result.ids) == ([None, str(cursor)], ["1", "2"])
    else:
        assert set(sent) == {None}
        assert len(sent) in range(9, 15)
        assert result.ids == []
        assert "the response is malformed" in str(result.failure)
        assert "the next_cursor is not a string" in str(result.failure)


# --- records --------------------------------------------------------------------------------------

entries = anything | st.dictionaries(
    st.sampled_from([*MODEL, "extra", "Id", ""]) | texts, anything, max_size=5
)


@given(
    st.lists(entries, max_size=6),
    st.sampled_from(["list", "keyed"]),
    st.sampled_from(["segments", "workspaces"]),
)
@examples(50)
def test_anything_instead_of_records(
    sandbox: Sandbox, folder: Path, found: list[Any], form: str, stream: Any
) -> None:
    """Whatever a page holds in place of records is emitted or counted."""
    is_keyed = form == "keyed" and all(isinstance(entry, dict) for entry in found)
    result_of_page = {f"k{n}": entry for n, entry in enumerate(found)} if is_keyed else found
    body = written({"result": result_of_page, "next_cursor": None})
    serve(sandbox, account("brevo", faults=[faults.body(body, times=None)]))
    with warnings() as logged:
        result = command("read", *files(sandbox, folder, catalog(streams=[stream])))

    objects = [entry for entry in found if isinstance(entry, dict) or entry == "@300 objects"]
    invalid = len(found) - len(objects)
    records = result.of_type("RECORD")
    lost = [record for record in records if record["data"].get("id") is None]
    assert result.failure is None
    assert result.statuses_of(stream)[-1] == "COMPLETE"
    assert [record["stream"] for record in records] == [stream] * len(objects)
    assert sum(f"not objects: {invalid}." in line for line in logged) == bool(invalid)
    assert sum(f"without an id: {len(lost)}." in line for line in logged) == bool(lost)
    assert "\\u0000" not in json.dumps(records).replace("\\\\", "")
    for record, raw in zip(records, objects, strict=True):
        if isinstance(raw, dict):
            assert_each_value_is_there_or_named(record, raw, load_schema(stream)["properties"])


def assert_each_value_is_there_or_named(
    record: dict[str, Any], raw: dict[str, Any], model: dict[str, Any]
) -> None:
    changed = {change["field"] for change in record.get("meta", {}).get("changes", [])}
    data = record["data"]
    names = Counter(map(readable, raw))
    assert data["integrated_account_id"] == ACCOUNT_ID
    assert "_ab_cdc_deleted_at" not in data
    for name, value in raw.items():
        is_blank = isinstance(value, str) and not value.strip() and name in model
        if name in CONNECTOR_COLUMNS or value is None or is_blank or names[readable(name)] > 1:
            continue
        assert (data.get(readable(name)) is None) <= (readable(name) in changed)
        if "\0" in name or (isinstance(value, str) and "\0" in value):
            assert readable(name) in changed
        if name not in model and isinstance(value, str) and value not in RAW:
            assert data[readable(name)] == readable(value)


@pytest.mark.parametrize("others", ["", ', "b": ' + "7" * 400], ids=["alone", "digits"])
@pytest.mark.parametrize("number", ["1e400", "-1e400"])
@pytest.mark.parametrize("name", ["extra", "name", "updated_at", "is_starred", "remote_data"])
def test_number_beyond_floats(
    sandbox: Sandbox, folder: Path, name: str, number: str, others: str
) -> None:
    """A number that no float holds is written, or it is null and listed as changed."""
    body = f'{{"result": [{{"id": "1", "{name}": {number}{others}}}]}}'
    serve(sandbox, account(faults=[faults.body(body)]))
    result = command("read", *files(sandbox, folder))

    (record,) = result.of_type("RECORD")
    changed = [change["field"] for change in record.get("meta", {}).get("changes", [])]
    assert changed == ([name] if record["data"].get(name) is None else [])
    assert result.statuses[-1] == "COMPLETE"


# --- responses ------------------------------------------------------------------------------------

header_values = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20)
    | st.from_regex(r"[0-9]{1,400}", fullmatch=True)
    | st.sampled_from(["-5", "inf", "nan", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 02 Jan 1 0:0:0"])
)
locations = st.sampled_from(["//", "", "http://x:99999/", "\\", "é", "http://127.0.0.1:9"])
responses = st.builds(
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


@given(responses, st.sampled_from(["segments", "workspaces", "accounts", "account"]))
@examples(50)
def test_any_response(sandbox: Sandbox, response: Fault, kind: Any) -> None:
    """Whatever the response, everything else is read, or a message reports why not."""
    response.kind = kind
    segments = vendors.segments("beehiiv", 25)
    found = account("beehiiv", workspaces={"w": segments})
    result = read(
        serve(sandbox, found, before=(response,)),
        streams=ALL_STREAMS,
        additional_accounts={"mode": "none"} if kind == "account" else ALL,
    )

    ids = [str(segment["id"]) for segment in segments]
    is_page = response.response is not None and b'"result"' in response.response().body
    ends = {result.statuses_of(name)[-1] for name in ALL_STREAMS}
    if has_failed(result):
        assert "INCOMPLETE" in ends
    else:
        assert ends == {"COMPLETE"}
        assert is_page or result.ids == ids
    if kind == "account":
        assert result.ids == ids or result.failure is not None
    assert CONTEXT_SECRET not in json.dumps(result.messages)


def test_thousands_of_missing_scopes(sandbox: Sandbox) -> None:
    """The message stays short even with thousands of missing scopes."""
    response = faults.scopes_missing(*(f"scope-{number}" for number in range(5_000)))
    result = read(serve(sandbox, account(faults=[response])))

    assert "missing scopes: scope-0, " in described(result.failure)[0]


@pytest.mark.parametrize("location", ["http://[", "http://]", "http://[x]/"])
@pytest.mark.parametrize("kind", ["segments", "workspaces", "accounts", "account", "meta"])
def test_redirect_to_no_address(sandbox: Sandbox, kind: Any, location: str) -> None:
    """A redirect to an invalid address is reported as a redirect."""
    response = faults.redirect(location, kind=kind, times=None)
    serve(sandbox, account("beehiiv", segments=vendors.segments("beehiiv", 5)), before=(response,))
    if kind == "meta":
        with pytest.raises(AirbyteTracedException, match="responded with a redirect"):
            SourceTrutoSegments().discover(logging.getLogger("airbyte.test"), config(sandbox))
        return
    result = read(
        sandbox,
        streams=ALL_STREAMS,
        additional_accounts={"mode": "none"} if kind == "account" else ALL,
    )

    # If the list of accounts has shown that the token is good, the failure is that of one account.
    alone = "the response is a redirect, though those of other accounts are not"
    message, _ = described(result.failure)
    assert (alone if kind in ("segments", "workspaces") else "responded with a redirect") in message


@pytest.mark.parametrize("times", [250, 490, 1010])
@pytest.mark.parametrize(
    ("kind", "status", "template"),
    [
        ("segments", 200, '{"result":[{"id":%s}]}'),
        ("segments", 200, '{"result":[],"next_cursor":%s}'),
        ("segments", 400, '{"message":%s}'),
        ("segments", 500, '{"truto_is_remote_error":true,"raw_response":%s}'),
        ("workspaces", 200, '{"result":[{"id":%s}]}'),
        ("accounts", 200, '{"result":[{"id":%s}]}'),
        ("accounts", 200, '{"result":[{"id":"ID","integration":{"name":"brevo"},"tenant_id":%s}]}'),
        ("accounts", 200, '{"result":[{"id":"ID","integration":{"name":"brevo"},"status":%s}]}'),
        ("accounts", 200, '{"result":[{"id":"ID","integration":"brevo","last_error":%s}]}'),
        ("account", 200, '{"id":"a","integration":{"label":%s}}'),
        ("account", 200, '{"id":"a","last_forbidden_error":{"method":%s}}'),
        ("account", 200, '{"id":"a","last_error":%s}'),
    ],
)
def test_deeply_nested_response(
    sandbox: Sandbox, kind: Any, status: int, template: str, times: int
) -> None:
    """If a deeply nested response fails, a message reports it."""
    # This test does without hypothesis, which gives its tests a deeper stack than a process has.
    for inner in ("[" * times + "]" * times, '{"a":' * times + "1" + "}" * times):
        content = (template % inner).replace("ID", ACCOUNT_ID)
        deep = faults.body(content, status, kind=kind, times=None)
        vendor = "beehiiv" if kind == "workspaces" else "klaviyo"
        serve(sandbox, account(vendor, count=25), before=(deep,))
        with warnings() as logged:
            result = read(
                sandbox,
                streams=ALL_STREAMS,
                additional_accounts=ALL if kind == "accounts" else None,
            )
        if not has_failed(result):
            assert {result.statuses_of(name)[-1] for name in ALL_STREAMS} == {"COMPLETE"}
            # The last errors are texts, whatever their form, and the connector asks for a status
            # again.
            assert logged or "last_" in template or "status" in template


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
def test_anything_in_list_of_accounts(sandbox: Sandbox, others: list[Any]) -> None:
    """The good accounts are read, whatever else the list of accounts holds."""
    second = "00000000-0000-4000-8000-000000000002"
    good = {"id": second, "integration": {"name": "klaviyo"}, "status": "active"}
    segments = vendors.segments("klaviyo", 5)
    accounts = [account(count=25), Account(id=second, vendor="klaviyo", segments=segments)]
    listing = faults.body(page(*others, good), kind="accounts")
    result = read(
        serve(sandbox, *accounts, before=(listing,)),
        streams=ALL_STREAMS,
        additional_accounts=ALL,
    )

    found: dict[str, list[str]] = {}
    for record in result.records:
        found.setdefault(record["integrated_account_id"], []).append(record["id"])
    assert found == {ACCOUNT_ID: IDS, second: [str(segment["id"]) for segment in segments]}
    listed_ids = {record["id"] for record in result.records_of("integrated_accounts")}
    assert listed_ids >= {ACCOUNT_ID, second}
    assert result.statuses[-1] == ("INCOMPLETE" if has_failed(result) else "COMPLETE")


@given(st.lists(anything | st.fixed_dictionaries({"id": texts | anything}), max_size=3))
@examples(15)
def test_anything_in_list_of_workspaces(sandbox: Sandbox, others: list[Any]) -> None:
    """The good workspace is read first, whatever else the list of workspaces holds."""
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
def test_any_schema_in_catalog(
    sandbox: Sandbox, folder: Path, schema: dict[str, Any], mode: str
) -> None:
    """Every id is emitted, whatever schema the catalog has."""
    segments = [{**each, "extra": [1]} for each in vendors.segments("klaviyo", 25)]
    serve(sandbox, account(segments=segments))
    result = command("read", *files(sandbox, folder, catalog(mode, schema)))

    assert result.failure is None
    assert result.ids == IDS
    assert result.statuses[-1] == "COMPLETE"
    assert all(record["_ab_cdc_updated_at"] for record in result.records)


@given(anything | st.fixed_dictionaries({"schema": schemas | anything}))
@examples(25)
def test_any_description_of_model(sandbox: Sandbox, folder: Path, meta: Any) -> None:
    """For any description of the model, discover returns a valid catalog or reports why not."""
    serve(sandbox, account(faults=[faults.body(written(meta), kind="meta", times=None)]))
    result = command("discover", "--config", write(folder / "config.json", config(sandbox)))

    is_object = isinstance(meta, dict) or meta == "@300 objects"
    assert has_failed(result) is not is_object
    if not is_object:
        assert described(result.failure)[0].startswith("Asking for the custom fields of")
        return
    (found,) = result.of_type("CATALOG")
    for stream in found["streams"]:
        Draft7Validator.check_schema(stream["json_schema"])
    columns = found["streams"][0]["json_schema"]["properties"]
    assert {name: columns[name] for name in MODEL} == MODEL
    schema = meta.get("schema") if isinstance(meta, dict) else None
    named = schema.get("properties") if isinstance(schema, dict) else None
    custom = set(map(whole, named)) - set(MODEL) if isinstance(named, dict) else set()
    fit = {name for name in custom if name.strip() and not name.lower().startswith(("_ab",))}
    assert set(columns) - set(MODEL) <= custom
    for name in set(columns) - set(MODEL):
        assert Draft7Validator(columns[name]).is_valid(None)
        assert len(columns[name].get("description", "")) <= MAX_EXCERPT_LENGTH
    assert bool(set(columns) - set(MODEL)) == bool(
        {name.strip().lower() for name in fit} - {name.lower() for name in MODEL}
    )


# --- configurations -------------------------------------------------------------------------------

HALF = "\ud800"  # half of a surrogate pair: JSON can escape it, UTF-8 cannot encode it
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
    "num_workers": [2, 200, 20.0, 2.5, 201, 1, True, "5", None, float("nan"), float("inf")],
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
    """Look up no names: requests to other machines go to a proxy that does not exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


def assert_each_command_works_or_reports_why_not(
    sandbox: Sandbox, folder: Path, given_: dict[str, Any]
) -> None:
    path = write(folder / "config.json", given_)
    configured = write(folder / "catalog.json", catalog())
    checked = command("check", "--config", path)
    discovered = command("discover", "--config", path)
    result = command("read", "--config", path, "--catalog", configured)

    for ran in (checked, discovered, result):
        assert TOKEN not in json.dumps(ran.messages)
    assert checked.failure is None
    (status,) = checked.of_type("CONNECTION_STATUS")
    if status["status"] == "SUCCEEDED":
        assert not has_failed(result)
        assert result.ids == ([] if str(given_.get("tag_id") or "").strip() else IDS)
        assert discovered.of_type("CATALOG")
        refused = [request for request in sandbox.requests if request.status != 200]
        # The account of this test rejects a large page size, and is read without one. The connector
        # asks whether it has the configured workspace; its vendor has none.
        segments = [request for request in refused if request.kind != "workspaces"]
        assert all(request.param("limit") is not None for request in segments)
        return
    assert status["message"].endswith(".")
    assert "failed unexpectedly" not in status["message"]
    assert has_failed(result)
    if has_failed(discovered) and described(discovered.failure)[1] == "config_error":
        # Every command reports a wrong field in the same words.
        assert described(discovered.failure) == (status["message"], "config_error")
        assert described(result.failure) == (status["message"], "config_error")


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in NEAR.items()
        for number, value in enumerate(values)
    ],
)
def test_field_nearly_right(sandbox: Sandbox, folder: Path, name: str, value: Any) -> None:
    """If a field is nearly right, each command works or reports why not."""
    serve(sandbox, account(count=25))
    assert_each_command_works_or_reports_why_not(sandbox, folder, {**config(sandbox), name: value})


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
def test_any_configuration(
    sandbox: Sandbox,
    folder: Path,
    fields: dict[str, Any],
    near: list[tuple[str, Any]],
    missing: set[str],
) -> None:
    """With any configuration, each command works or reports why not."""
    serve(sandbox, account(count=25))
    whole = {**config(sandbox), **fields, **dict(near)}
    given_ = {name: value for name, value in whole.items() if name not in missing}
    assert_each_command_works_or_reports_why_not(sandbox, folder, given_)


# --- states ---------------------------------------------------------------------------------------

A, B, C, D = (f"00000000-0000-4000-8000-00000000000{number}" for number in "abcd")
Table = dict[tuple[str, str], dict[str, Any]]


def some_accounts() -> list[Account]:
    segments = vendors.segments("beehiiv", 27)
    return [
        Account(id=A, vendor="klaviyo", segments=vendors.segments("klaviyo", 25)),
        Account(id=B, vendor="beehiiv", workspaces={"w1": segments[:12], "w2": segments[12:]}),
        Account(id=C, vendor="brevo", segments=vendors.segments("brevo", 8)),
    ]


def changed_accounts() -> list[Account]:
    """Return the same accounts later, with new, changed and deleted records."""
    first, second, third = some_accounts()
    gone, renamed, *kept = first.segments
    first.segments = [{**renamed, "name": "Renamed"}, *kept, {**gone, "id": "new"}]
    second.workspaces = {"w3": second.workspaces["w2"], "w1": second.workspaces["w1"][1:]}
    third.segments, third.tenant_id = [], "tenant-2"
    fourth = Account(id=D, vendor="flodesk", segments=vendors.segments("flodesk", 3))
    return [first, second, third, fourth]


def key_of(record: dict[str, Any]) -> tuple[str, str]:
    """Return the partition of a record ("" for that of the environment) and its id."""
    return record.get("integrated_account_id", ""), record["id"]


def applied(table: Table, records: list[dict[str, Any]]) -> Table:
    """Return the table of a destination that deduplicates, after it has loaded the records."""
    table = dict(table)
    for record in records:
        table.pop(key_of(record), None)
        if "_ab_cdc_deleted_at" not in record:
            row = {name: value for name, value in record.items() if name != "_ab_cdc_updated_at"}
            table[key_of(record)] = row
    return table


class Synced:
    """The result of a read: a table and a state for each stream."""

    def __init__(self, result: Result) -> None:
        self.tables = {name: applied({}, result.records_of(name)) for name in ALL_STREAMS}
        self.states: dict[str, Any] = {
            state["stream"]["stream_descriptor"]["name"]: state["stream"]["stream_state"]
            for state in result.last_state
        }
        records = result.of_type("RECORD")
        self.updated_at = max(record["data"]["_ab_cdc_updated_at"] for record in records)


def read_some(sandbox: Sandbox, mode: str, accounts: list[Account]) -> Synced:
    result = read(
        serve(sandbox, *accounts), sync_mode=mode, streams=ALL_STREAMS, additional_accounts=ALL
    )
    return Synced(result)


@pytest.fixture(scope="module")
def synced(sandbox: Sandbox) -> Synced:
    """Run an incremental sync that is complete."""
    return read_some(sandbox, "incremental", some_accounts())


@pytest.fixture(scope="module")
def everything(sandbox: Sandbox) -> Synced:
    """Run a full refresh that is complete."""
    return read_some(sandbox, "full_refresh", some_accounts())


@pytest.fixture(scope="module")
def changed(sandbox: Sandbox) -> Synced:
    """Run a full refresh of the changed accounts."""
    return read_some(sandbox, "full_refresh", changed_accounts())


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        yield from paths_in(each, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[int, str, int, Any]]:
    """Draw changes to a state: at which path, how, with which other path, with which value."""
    number = st.integers(0, 150)
    how = st.sampled_from(["drop", "replace", "swap", "copy", "double"])
    return draw(st.lists(st.tuples(number, how, number, json_values), min_size=1, max_size=3))


def mutated(state: dict[str, Any], changes: list[tuple[int, str, int, Any]]) -> Any:
    root = {"state": json.loads(json.dumps(state))}
    for first, how, second, value in changes:
        paths = [path for path in paths_in(root) if path]
        path, other = (paths[number % len(paths)] for number in (first, second))
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


def cursors_of(state: Any, partition: str) -> list[dict[str, Any]]:
    """Return a state's cursors for a partition, whatever else is wrong with the state."""
    states = state.get("states") if isinstance(state, dict) else None
    found = []
    for entry in states if isinstance(states, list) else ():
        named = entry.get("partition") if isinstance(entry, dict) else None
        cursor = entry.get("cursor") if isinstance(entry, dict) else None
        account_id = named.get("integrated_account_id", "") if isinstance(named, dict) else None
        if isinstance(account_id, str) and account_id.strip().lower() == partition:
            found.append(cursor if isinstance(cursor, dict) else {})
    return found


def entry(cursor: dict[str, Any], **partition: str) -> dict[str, Any]:
    return {"partition": {"integrated_account_id": A, **partition}, "cursor": cursor}


def with_changes(
    states: dict[str, Any], stream: str, changes: list[tuple[int, str, int, Any]]
) -> tuple[Any, list[dict[str, Any]]]:
    """Return the changed state of a stream, and the messages with the states of all streams."""
    state = mutated(states[stream], changes)
    messages = {**states, stream: state}.items()
    return state, [message for name, each in messages for message in of_stream(each, name)]


def read_from(
    sandbox: Sandbox, folder: Path, mode: str, state: Any, accounts: list[Account]
) -> Result:
    """Read all streams from a state's file, whatever it contains."""
    serve(sandbox, *accounts)
    configured = catalog(mode, streams=ALL_STREAMS)
    options = files(sandbox, folder, configured, integrated_account_id=A, additional_accounts=ALL)
    result = command("read", *options, "--state", write(folder / "state.json", state))
    if not has_failed(result):
        assert {result.statuses_of(name)[-1] for name in ALL_STREAMS} == {"COMPLETE"}
    return result


def asks_to_reset(result: Result) -> bool:
    if result.failure is None or "reset the " not in str(result.failure).lower():
        return False
    assert described(result.failure)[1] == "config_error"
    assert result.of_type("RECORD") == []
    return True


@given(st.sampled_from(ALL_STREAMS), mutations())
@examples(60)
@example("segments", [])
def test_changed_state(
    sandbox: Sandbox,
    folder: Path,
    synced: Synced,
    changed: Synced,
    stream: str,
    changes: list[tuple[int, str, int, Any]],
) -> None:
    """After a sync from a changed state, the tables equal the API, or a reset is asked for."""
    state, messages = with_changes(synced.states, stream, changes)
    result = read_from(sandbox, folder, "incremental", messages, changed_accounts())

    if asks_to_reset(result):
        return
    assert result.failure is None
    for record in result.of_type("RECORD"):
        assert record["data"]["_ab_cdc_updated_at"] > synced.updated_at
    for name, expected in changed.tables.items():
        table = applied(synced.tables[name], result.records_of(name))
        assert {key: row for key, row in table.items() if key in expected} == expected, name
        # A deleted row stays only if the state does not know it, or if everything was deleted at
        # once.
        gone = {key for key in table.keys() - expected.keys() if (name, key[0]) != ("segments", C)}
        assert not [key for key in gone if name != stream or is_known(state, synced, name, key)]


def is_known(state: Any, synced: Synced, name: str, key: tuple[str, str]) -> bool:
    """Return whether a state, if it is used at all, has a record."""
    if not isinstance(state, dict) or state.get("filters") != synced.states[name]["filters"]:
        return False
    last = cursors_of(state, key[0])[-1:]
    return any(isinstance(c.get("records"), dict) and key[1] in c["records"] for c in last)


hostile_ids = (
    texts
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([" ", '"', "records", "x" * 50_000, "é" * 5_000, "__proto__", "a\nb", HALF])
)


def key_from(id_: str | int) -> str:
    """Return an id as its column has it."""
    return readable(id_) if isinstance(id_, str) else str(id_)


@given(
    st.lists(
        st.tuples(hostile_ids, st.sampled_from(["kept", "renamed", "deleted"])),
        min_size=1,
        max_size=6,
        unique_by=lambda pair: key_from(pair[0]),
    ),
    st.sampled_from(["segments", "workspaces"]),
)
@examples(40)
@example([("", "deleted"), ("x" * 50_000, "deleted"), (2**64 - 1, "deleted")], "segments")
@example([("\0", "deleted"), (HALF, "renamed"), ("", "kept"), (-(2**63), "deleted")], "workspaces")
def test_any_ids(
    sandbox: Sandbox, folder: Path, fates: list[tuple[str | int, str]], stream: str
) -> None:
    """The deleted records, and only these, get tombstones, whatever their ids are."""
    # A blank id is no id; and if all records are deleted at once, the next sync has to confirm it.
    fates = [("stays", "kept"), *(pair for pair in fates if key_from(pair[0]).strip())]
    later = [(id_, fate) for id_, fate in fates if fate != "deleted"]
    before = [{"id": id_, "name": "kept"} for id_, _ in fates]

    def sync(records: list[dict[str, Any]], state: list[dict[str, Any]]) -> Result:
        serve(sandbox, account("brevo", faults=[faults.body(page(*records), times=None)]))
        options = files(sandbox, folder, catalog("incremental", streams=[stream]))
        result = command("read", *options, "--state", write(folder / "state.json", state))
        assert result.failure is None
        return result

    first = sync(before, [])
    second = sync([{"id": id_, "name": fate} for id_, fate in later], first.last_state)
    third = sync([{"id": id_, "name": fate} for id_, fate in later], second.last_state)

    table = applied(applied({}, first.records_of(stream)), second.records_of(stream))
    assert {id_: row["name"] for (_, id_), row in table.items()} == {
        key_from(id_): fate for id_, fate in later
    }
    emitted = {r["id"]: "_ab_cdc_deleted_at" in r for r in second.records_of(stream)}
    assert emitted == {key_from(id_): f == "deleted" for id_, f in fates if f != "kept"}
    assert third.records_of(stream) == []


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
    st.sampled_from(
        [
            "states",
            "filters",
            "started_at",
            "cursor_value",
            "in_progress",
            "self",
            "kwargs",
            "__dict__",
        ]
    )
    | texts,
    json_values,
    max_size=3,
)


@given(
    json_values
    | messages_of_state
    | st.builds(of_stream, blobs | json_values, st.sampled_from(ALL_STREAMS)),
    st.sampled_from(["full_refresh", "incremental"]),
)
@examples(25)
@example([{"type": "GLOBAL"}], "full_refresh")
@example([{"type": "STREAM"}], "full_refresh")
@example([{"type": "LEGACY", "data": {"segments": {"states": 1}}}], "incremental")
@example(of_stream({"states": [entry({"next_cursor": HALF})]}), "full_refresh")
@example(of_stream({"states": [entry({"updated_at": None}, workspace_id=HALF)]}), "incremental")
@example(of_stream({"states": [entry({"complete": HALF})]}), "full_refresh")
@example(of_stream({"states": [entry({"records": {HALF: "a"}})]}), "incremental")
@example(of_stream({"states": [entry({"records": {"a": HALF}})]}), "incremental")
@example(of_stream({"states": [entry({"records": {"a": 1}})]}), "incremental")
@example(of_stream({"states": [entry({"records": {}}, integrated_account_id=HALF)]}), "incremental")
@example(of_stream({"states": [entry({}, integrated_account_id=HALF)]}), "full_refresh")
@example(of_stream({"states": [], "filters": HALF, "started_at": 1e300}), "full_refresh")
@example(of_stream({"states": [], "started_at": "0001-01-01T00:00:00+23:59"}), "full_refresh")
@example(of_stream({"states": [], "cursor_value": HALF}), "incremental")
@example(of_stream({"states": [], "cursor_value": "9999-12-31T23:59:59.999999Z"}), "incremental")
def test_any_json_for_state(
    sandbox: Sandbox, folder: Path, everything: Synced, state: Any, mode: str
) -> None:
    """With any JSON as its state, a sync reads everything or asks for a reset."""
    result = read_from(sandbox, folder, mode, state, some_accounts())

    if not asks_to_reset(result):
        assert result.failure is None
        for name, table in everything.tables.items():
            assert applied({}, result.records_of(name)) == table


@pytest.mark.parametrize("file", ["config", "catalog", "state"])
@pytest.mark.parametrize(
    "content",
    ["", "\ufeff{}", "[" * 100_000, "NaN", "\x00", '"\ud800"', "{"],
    ids=["empty", "mark", "deep", "NaN", "zero", "surrogate", "cut"],
)
def test_unusable_file(sandbox: Sandbox, folder: Path, file: str, content: str) -> None:
    """A message reports a file that contains nothing useful."""
    serve(sandbox, account())
    paths = {
        "config": write(folder / "config.json", config(sandbox)),
        "catalog": write(folder / "catalog.json", catalog()),
        "state": write(folder / "state.json", []),
    }
    Path(paths[file]).write_text(content, errors="surrogatepass")
    result = command("read", *(f"--{name}={path}" for name, path in paths.items()))

    if file == "state" and content in ("", "\ufeff{}"):
        # Some tools leave such a file if there is no state.
        assert result.failure is None
        return
    assert described(result.failure)[1] == "config_error"
