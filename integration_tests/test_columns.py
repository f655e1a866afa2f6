"""Which columns there are, which are selected, and what happens to values of another type."""

import gc
import json
import logging
import subprocess
import threading
import time
from operator import gt
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from jsonschema import Draft7Validator

from integration_tests.support import (
    ACCOUNT_ID,
    ALL_STREAMS,
    COMMAND,
    FakeClock,
    Result,
    Serve,
    account,
    catalog,
    command,
    config,
    id_of,
    read,
    write,
)
from sandbox import Account, Fault, Sandbox, faults, vendors
from sandbox.protocol import messages
from source_truto_segments import SourceTrutoSegments, custom_fields
from source_truto_segments.records.columns import load_schema
from source_truto_segments.truto import transport

MODEL = load_schema("segments")["properties"]


def discover(sandbox: Sandbox, **fields: Any) -> dict[str, Any]:
    found = SourceTrutoSegments().discover(
        logging.getLogger("airbyte.test"), config(sandbox, **fields)
    )
    assert [stream.name for stream in found.streams] == list(ALL_STREAMS)
    for stream in found.streams:
        Draft7Validator.check_schema(stream.json_schema)
    return next(s.json_schema for s in found.streams if s.name == "segments")


def selection(*names: str) -> dict[str, Any]:
    return catalog(schema={"type": "object", "properties": {name: MODEL[name] for name in names}})


def of_page(serve: Serve, *records: Any, configured: dict[str, Any] | None = None) -> Result:
    content = json.dumps({"result": list(records), "next_cursor": None}, ensure_ascii=False)
    return read(serve(account(faults=[faults.body(content)])), configured=configured)


def without_time(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "_ab_cdc_updated_at"}


CUSTOM = {
    "score": {"type": "number", "description": "How good it is", "required": True},
    "members": {"type": "integer"},
    "owner": {"type": "string"},
    "is_live": {"type": "boolean"},
    "archived_at": {"type": "string", "format": "date-time"},
    "labels": {"type": "array", "items": {"type": "string", "required": True}},
    "rules": {"type": "object", "properties": {"x": {"type": "string", "required": True}}},
    "mixed": {"type": ["string", "number"]},
    "nullable": {"type": ["string", "null"]},
    "unknown": {"type": "enum", "values": ["a"]},
    "nothing": {},
}


def test_discover_leaks_nothing(serve: Serve) -> None:
    """A process that discovers again and again keeps no connection and no thread."""
    sandbox = serve(account(custom_fields=CUSTOM))

    def held() -> tuple[int, int]:
        return len([*Path("/proc/self/fd").iterdir()]), threading.active_count()

    discover(sandbox)
    gc.disable()
    try:
        before = held()
        for _ in range(5):
            discover(sandbox)
        # The sandbox runs in this process and closes its ends of connections a moment later, so
        # fewer may be open now than before. Five discovers that each keep something leave more.
        deadline = time.monotonic() + 5
        while any(map(gt, held(), before)) and time.monotonic() < deadline:
            time.sleep(0.01)
        files, threads = held()
        assert files <= before[0]
        assert threads <= before[1]
    finally:
        gc.enable()


def test_discover_override(serve: Serve) -> None:
    """The fields of an override are discovered as nullable columns."""
    schema = discover(serve(account(custom_fields=CUSTOM)))

    any_type = {"type": ["null", "string", "number", "boolean", "object", "array"]}
    assert {name: schema["properties"][name] for name in MODEL} == MODEL
    assert {name: field for name, field in schema["properties"].items() if name not in MODEL} == {
        "score": {"description": "How good it is", "type": ["null", "number"]},
        "members": {"type": ["null", "integer"]},
        "owner": {"type": ["null", "string"]},
        "is_live": {"type": ["null", "boolean"]},
        "archived_at": {
            "type": ["null", "string"],
            "format": "date-time",
            "airbyte_type": "timestamp_with_timezone",
        },
        "labels": {"type": ["null", "array"]},
        "rules": {"type": ["null", "object"], "additionalProperties": True},
        "mixed": any_type,
        "nullable": {"type": ["null", "string"]},
        "unknown": any_type,
        "nothing": any_type,
    }


@pytest.mark.parametrize(
    "fault",
    [
        faults.token_refused(),
        faults.truto_failed(),
        faults.body("<html>"),
        faults.body("[]"),
        faults.reset(),
        faults.redirect("http://127.0.0.1:9/"),
        faults.hang(),
        faults.drip(0.2),
    ],
    ids=["401", "500", "html", "list", "reset", "redirect", "hang", "drip"],
)
def test_discover_without_truto(
    serve: Serve, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the model, discover fails: a smaller schema would drop columns at the destination."""
    monkeypatch.setattr(transport, "TIMEOUT", (0.5, 0.2))
    monkeypatch.setattr(custom_fields, "DEADLINE", 1.0)
    fault.times, fault.kind = None, "meta"

    with pytest.raises(AirbyteTracedException) as failure:
        discover(serve(account(custom_fields=CUSTOM, faults=[fault])))
    assert str(failure.value).startswith("Asking for the custom fields of integrated account ")
    assert str(failure.value).endswith(".")


@pytest.mark.parametrize(
    "fault",
    [faults.account_not_found(), faults.resource_not_supported(), faults.vendor_not_found()],
    ids=["404", "not supported", "vendor"],
)
def test_discover_without_model(serve: Serve, fault: Fault) -> None:
    """If Truto responds that there is no such thing, there are no custom fields."""
    fault.times, fault.kind = None, "meta"
    assert discover(serve(account(faults=[fault])))["properties"] == MODEL


@pytest.mark.parametrize("make", [faults.truto_failed, faults.reset, faults.vendor_rate_limited])
def test_discover_retries(serve: Serve, make: Any) -> None:
    """A temporary failure does not change the schema."""
    sandbox = serve(account(custom_fields=CUSTOM, faults=[make(kind="meta")]))
    source = SourceTrutoSegments(FakeClock())
    (stream, *_) = source.discover(logging.getLogger("airbyte.test"), config(sandbox)).streams
    assert set(CUSTOM) <= set(stream.json_schema["properties"])


@pytest.mark.parametrize(
    "content",
    ["{}", '{"schema": null}', '{"schema": {"properties": []}}', '{"schema": {"properties": {}}}'],
)
def test_model_in_another_form(serve: Serve, content: str) -> None:
    """If the model has another form, discover returns the unified columns."""
    sandbox = serve(account(faults=[faults.body(content, kind="meta")]))
    assert discover(sandbox)["properties"] == MODEL


def test_custom_columns(serve: Serve) -> None:
    """The values of custom columns are coerced."""
    (segment,) = vendors.segments("klaviyo", 1)
    good = {"score": "4.5", "members": 7.0, "owner": 5, "archived_at": 1670000000, "mixed": [1]}
    bad = {"score": "high", "members": 7.5, "labels": "a,b", "rules": [], "is_live": "maybe"}
    segments = [
        {**segment, **good, "surprise": {"a": None}},
        {**segment, "id": "2", **bad},
    ]
    sandbox = serve(account(segments=segments, custom_fields=CUSTOM))

    result = read(sandbox, configured=catalog(schema=discover(sandbox)))

    first, second = result.of_type("RECORD")
    assert {name: first["data"][name] for name in good} == {
        "score": 4.5,
        "members": 7,
        "owner": "5",
        "archived_at": "2022-12-02T16:53:20Z",
        "mixed": [1],
    }
    assert "surprise" not in first["data"]
    assert "meta" not in first
    assert {change["field"] for change in second["meta"]["changes"]} == set(bad)
    assert not set(bad) & set(second["data"])


def test_selection(serve: Serve) -> None:
    """Columns that are not selected are neither requested nor emitted."""
    segments = [{**segment, "surprise": 1} for segment in vendors.segments("klaviyo", 15)]
    sandbox = serve(account(segments=segments))

    result = read(sandbox, configured=selection("id", "name", "integrated_account_id"))

    for request in sandbox.requests:
        assert request.param("truto_ignore_remote_data") == "true"
        assert request.params("truto_exclude_fields[]") == [
            "created_at", "description", "is_starred", "last_calculated_at", "status", "updated_at"
        ]  # fmt: skip
    assert len(result.records) == 15
    for record in result.records:
        assert set(record) == {"id", "name", "integrated_account_id", "_ab_cdc_updated_at"}


def test_selection_without_key_and_cursor(serve: Serve) -> None:
    """The key and the cursor are emitted even if they are not selected."""
    result = read(serve(account(count=12)), configured=selection("status"))

    assert {frozenset(record) for record in result.records} == {
        frozenset({"integrated_account_id", "id", "_ab_cdc_updated_at", "status"})
    }


@pytest.mark.parametrize(
    ("schema", "surprise"),
    [({}, {"surprise"}), ({"properties": {}}, {"surprise"}), (load_schema("segments"), set())],
    ids=["none", "empty", "all"],
)
def test_no_selection(serve: Serve, schema: dict[str, Any], surprise: set[str]) -> None:
    """A catalog with columns selects those and no others; without columns it selects all."""
    segments = [{**vendors.segments("klaviyo", 1)[0], "surprise": 1}]
    sandbox = serve(account(segments=segments))

    (record,) = read(sandbox, configured=catalog(schema=schema)).records

    assert set(record) >= {"remote_data", "name"}
    assert set(record) - set(MODEL) == surprise
    assert [name for name, _ in sandbox.requests[0].query] == ["integrated_account_id"]


@pytest.mark.parametrize("schema", [{}, load_schema("segments")], ids=["none", "all"])
def test_workspace_id_of_override(serve: Serve, schema: dict[str, Any]) -> None:
    """A workspace_id from an override is kept."""
    # The connector itself sets one only for Beehiiv.
    segments = [{"id": "1", "name": "a", "workspace_id": 7}]
    klaviyo = account(segments=segments)
    beehiiv = Account(id_of(1), "beehiiv", workspaces={"w1": segments})

    result = read(
        serve(klaviyo, beehiiv),
        configured=catalog(schema=schema),
        additional_accounts={"mode": "all"},
    )

    assert sorted(record["workspace_id"] for record in result.records) == ["7", "w1"]


def test_tag_truto_ignores(serve: Serve) -> None:
    """If Truto ignores the tag, the connector filters by it."""

    def tagged(id_: str, *tags: str) -> dict[str, Any]:
        data = [{"type": "tag", "id": tag} for tag in tags]
        return {"id": id_, "remote_data": {"relationships": {"tags": {"data": data}}}}

    segments = [tagged("a", "t1"), tagged("b", "t2"), tagged("c"), tagged("d", "t2", "t1")]
    sandbox = serve(account("flodesk", segments=segments))

    result = read(sandbox, tag_id="t1", configured=selection("id", "name"))

    assert result.ids == ["a", "d"]
    assert all("remote_data" not in record for record in result.records)
    assert sandbox.requests[0].param("truto_ignore_remote_data") is None
    assert len(read(serve(account("brevo", count=3)), tag_id="t1").records) == 3


def read_by_command(sandbox: Sandbox, folder: Path) -> list[dict[str, Any]]:
    """Return the messages on stdout; any line that is not JSON in UTF-8 fails."""
    settings = write(folder / "config.json", config(sandbox))
    path = write(folder / "catalog.json", catalog())
    process = subprocess.run(
        [str(COMMAND), "read", "--config", settings, "--catalog", path],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return messages(process.stdout)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(("levels", "is_kept"), [(100, True), (300, False), (900, False)])
def test_deep_remote_data(serve: Serve, tmp_path: Path, levels: int, is_kept: bool) -> None:
    """Deeply nested remote_data is written, or it is null and listed as changed."""
    page = {"result": [{"id": "1", "remote_data": nested(levels)}, {"id": "2", "name": "x"}]}
    sandbox = serve(account(faults=[faults.body(json.dumps(page))]))
    settings = write(tmp_path / "config.json", config(sandbox))
    selected = write(tmp_path / "catalog.json", catalog())
    result = command("read", "--config", settings, "--catalog", selected)
    first, second = result.of_type("RECORD")

    assert second["data"]["name"] == "x"
    assert ("remote_data" in first["data"]) is is_kept
    assert ("meta" not in first) is is_kept
    assert not any("serialization" in line for line in result.logs)


def test_unusual_texts(serve: Serve, tmp_path: Path) -> None:
    """The command prints unusual texts as lines of JSON in UTF-8."""
    names = [
        "\x01\x1f",
        "a\u2028b\u2029",
        "\ufeff",
        "é漢😀",
        '\\"/',
        "x" * 2_000_000,
        "\r\n",
        "",
    ]
    lone = '{"result": [{"id": "s", "name": "lone \\ud800 half", "n": 123456789012345678901}]}'
    listed = json.dumps({"result": [{"id": str(n), "name": name} for n, name in enumerate(names)]})
    for page, expected in ((listed, names), (lone, ["lone \N{REPLACEMENT CHARACTER} half"])):
        sandbox = serve(account(faults=[faults.body(page)]))
        messages = read_by_command(sandbox, tmp_path)
        found = [m["record"]["data"]["name"] for m in messages if m["type"] == "RECORD"]
        assert found == expected


def test_u_0000_anywhere(serve: Serve) -> None:
    """U+0000 is replaced wherever it occurs, and the record lists what has changed."""
    # PostgreSQL rejects U+0000 in texts and in JSON: one would fail the whole load.
    nested = {"a\0": [{"b": "\0", "c": 1}, ["d\0"]], "e": "f"}
    first = {"id": "1\0", "name": "\0x\0y", "remote_data": nested, "k\0": 5, "status": "active"}

    result = of_page(serve, first, {"id": "2", "name": "x\\u0000"})

    changed, unchanged = result.of_type("RECORD")
    assert without_time(changed["data"]) == {
        "integrated_account_id": ACCOUNT_ID,
        "id": "1\ufffd",
        "name": "\ufffdx\ufffdy",
        "remote_data": {"a\ufffd": [{"b": "\ufffd", "c": 1}, ["d\ufffd"]], "e": "f"},
        "k\ufffd": 5,
        "status": "active",
    }
    named = {change.pop("field"): change for change in changed["meta"]["changes"]}
    assert set(named) == {"id", "name", "remote_data", "k\ufffd"}
    for change in named.values():
        assert change == {"change": "TRUNCATED", "reason": "SOURCE_SERIALIZATION_ERROR"}
    assert unchanged["data"]["name"] == "x\\u0000"
    assert "meta" not in unchanged


def test_u_0000_in_every_stream(serve: Serve) -> None:
    """No message of any stream contains U+0000."""
    found = account(
        "beehiiv",
        tenant_id="acme\0",
        last_error="\0",
        workspaces={"w\0": [{"id": "1\0", "remote_data": {"\0": "\0"}}]},
    )
    sandbox = serve(found)

    for accounts in ({"mode": "none"}, {"mode": "all"}):
        configured = catalog(streams=ALL_STREAMS)
        result = read(sandbox, configured=configured, additional_accounts=accounts)

        assert result.failure is None
        assert [len(result.records_of(name)) for name in ALL_STREAMS] == [1, 1, 1]
        assert "\\u0000" not in json.dumps(result.messages)
        assert result.records[0]["workspace_id"] == result.records_of("workspaces")[0]["id"]


def test_record_above_16_mb(serve: Serve) -> None:
    """In a record above 16 MB, remote_data is null and listed as changed."""
    page = [
        {"id": "huge", "name": "n", "remote_data": {"a": "é" * 8_000_000}},
        {"id": "large", "remote_data": {"a": "é" * 7_900_000}},
    ]

    huge, large = of_page(serve, *page).of_type("RECORD")

    assert without_time(huge["data"]) == {
        "integrated_account_id": ACCOUNT_ID,
        "id": "huge",
        "name": "n",
    }
    assert huge["meta"]["changes"] == [
        {
            "field": "remote_data",
            "change": "NULLED",
            "reason": "SOURCE_RECORD_SIZE_LIMITATION",
        }
    ]
    assert large["data"]["remote_data"] == page[1]["remote_data"]
    assert "meta" not in large


def test_invalid_id(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A record without a valid id is emitted, and counted in the log."""
    result = of_page(serve, {"name": "a"}, {"id": {}, "name": "b"}, {"id": 10**25, "name": "c"}, {})

    assert [record.get("name") for record in result.records] == ["a", "b", "c", None]
    assert all(record["integrated_account_id"] == ACCOUNT_ID for record in result.records)
    assert any("records without an id: 4." in line for line in caplog.messages)
    assert any("or that no destination takes: 2." in line for line in caplog.messages)


def test_catalog_with_other_types(serve: Serve) -> None:
    """Dates mean the same in an incremental sync, even if the catalog has other types for them."""
    # A catalog that was edited by hand, or by an earlier version, must not change what a date
    # means.
    plain = {"properties": {name: {"type": ["null", "string"]} for name in MODEL}}
    segments = [
        {"id": "offset", "updated_at": "2026-01-02T01:00:00+05:00"},
        {"id": "epoch", "updated_at": 1767312000},
    ]
    sandbox = serve(account(segments=segments))

    first = read(sandbox, configured=catalog("incremental", plain))

    assert [record["updated_at"] for record in first.records] == [
        "2026-01-01T20:00:00Z",
        "2026-01-02T00:00:00Z",
    ]
    for schema in (plain, None):
        configured = catalog("incremental", schema)
        assert read(sandbox, configured=configured, state=first.last_state).records == []


def test_custom_column_of_any_type(serve: Serve) -> None:
    """A custom column of any type is emitted if it is selected."""
    segments = [{"id": "1", "name": "n", "mixed": [1, "a"], "other": 1}]
    sandbox = serve(account(segments=segments, custom_fields=CUSTOM))
    mixed = discover(sandbox)["properties"]["mixed"]

    (row,) = read(sandbox, configured=catalog(schema={"properties": {"mixed": mixed}})).rows

    assert row == {"integrated_account_id": ACCOUNT_ID, "id": "1", "mixed": [1, "a"]}
