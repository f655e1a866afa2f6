"""Kills, resumed syncs and states, through the output of real processes."""

import json
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.models import AirbyteMessage, Type

from integration_tests.destination import CURSOR, DELETED_AT, Key, key_of
from integration_tests.processes import Processes, result_of
from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    FakeClock,
    Result,
    Serve,
    catalog,
    config,
    id_of,
    numbered_account,
    read,
    read_with,
    without_cdc,
    write,
)
from sandbox import Account, Sandbox, faults, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.records.changes import fingerprint
from source_truto_segments.sync.sync import CHECKPOINT_SECONDS

NEUTRAL = {"__ab_no_cursor_state_message": True}
GONE = "fingerprint0"


def blob(result: Result, stream: str = "segments") -> dict[str, Any]:
    """Return the last state of a stream."""
    return state_of_stream(result.last_state, stream)


def cursors(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cursor of each partition of a stream's state."""
    return {
        entry["partition"].get("integrated_account_id", ""): entry["cursor"]
        for entry in state.get("states", [])
    }


def cursors_of(result: Result, stream: str = "segments") -> dict[str, dict[str, Any]]:
    return cursors(blob(result, stream))


def assert_no_state_is_ahead(result: Result, begin: list[dict[str, Any]] | None = None) -> None:
    """Check, at every prefix of the output, that each stream's state counts what precedes it.

    Args:
        result: The messages of an attempt.
        begin: The state that the attempt began with.
    """
    for stream in ALL_STREAMS:
        loaded = state_of_stream(begin or [], stream)
        known = fingerprints(loaded)
        if stream == "integrated_accounts":
            # An account in the list is known as its own partition, too.
            known |= {(id_, id_): version for (_, id_), version in known.items()}
        if loaded.get("in_progress"):
            # The previous attempt was killed: nobody knows which versions the destination has.
            known = dict.fromkeys(known, "")
        counted, emitted = 0.0, 0
        for message in result.messages:
            if message["type"] == "RECORD" and message["record"]["stream"] == stream:
                emitted += 1
                data = message["record"]["data"]
                version = "gone" if DELETED_AT in data else fingerprint(without_cdc(data))
                # If the accounts are listed, all of integrated_accounts is one partition.
                for partition in (data.get("integrated_account_id"), data["id"], ""):
                    known[partition, data["id"]] = version
            elif message["type"] == "STATE" and stream_of(message["state"]) == stream:
                counted += message["state"]["sourceStats"]["recordCount"]
                assert counted == emitted
                now = fingerprints(message["state"]["stream"]["stream_state"])
                assert now == {key: known.get(key) for key in now}, "a state is ahead"


def fingerprints(state: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return all fingerprints of a stream's state, by partition and id."""
    return {
        (partition, id_): version
        for partition, cursor in cursors(state).items()
        for id_, version in (cursor.get("records") or {}).items()
    }


def stream_of(state: Mapping[str, Any]) -> str:
    """Return the stream of a state message."""
    name: str = state["stream"]["stream_descriptor"]["name"]
    return name


def state_of_stream(states: list[dict[str, Any]], stream: str) -> dict[str, Any]:
    """Return a stream's state from what Airbyte passes on; empty if there is none."""
    found = [state["stream"]["stream_state"] for state in states if stream_of(state) == stream]
    return found[-1] if found else {}


def environment() -> list[Account]:
    return [
        numbered_account(0, count=35),
        numbered_account(1, "beehiiv", workspaces={
            "w1": vendors.segments("beehiiv", 14),
            "w2": vendors.segments("beehiiv", 31)[14:],
        }),
        numbered_account(2, "brevo", count=25, workspaces={}),
        numbered_account(3, "mailerlite", count=9),
        numbered_account(4, "activecampaign", count=30, default_page_size=10),
    ]  # fmt: skip


def keys_in(sandbox: Sandbox, stream: str = "segments") -> set[Key]:
    """Return the keys of all records of a stream that the sandbox holds."""
    accounts = sandbox.environment.accounts
    if stream == "integrated_accounts":
        return {(account.id,) for account in accounts}
    if stream == "workspaces":
        return {(account.id, workspace) for account in accounts for workspace in account.workspaces}
    return {
        (account.id, str(segment["id"]))
        for account in accounts
        for segment in [*account.segments, *(s for w in account.workspaces.values() for s in w)]
    }


def keys(result: Result, stream: str = "segments") -> list[Key]:
    return [key_of(stream, record) for record in result.records_of(stream)]


def pages(sandbox: Sandbox) -> Counter[tuple[Any, ...]]:
    """Count how often each page of segments was read."""
    return Counter(
        (request.account_id, request.param("workspace[id]"), request.param("next_cursor"))
        for request in sandbox.requests
        if request.kind == "segments" and request.status == 200
    )


def arguments(
    folder: Path, sandbox: Sandbox, mode: str, state: list[dict[str, Any]] | None = None
) -> list[str]:
    settings = config(sandbox, additional_accounts=ALL, num_workers=2)
    configured = catalog(mode, streams=ALL_STREAMS)
    return [
        "read",
        *("--config", write(folder / "config.json", settings)),
        *("--catalog", write(folder / "catalog.json", configured)),
        *(("--state", write(folder / "state.json", state)) if state is not None else ()),
    ]


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_kill_at_any_request(
    serve: Serve, processes: Processes, tmp_path: Path, mode: str, number: int
) -> None:
    """If a sync is killed at any request and then resumed, nothing is missing."""
    sandbox = serve(*environment(), latency=0.02)
    read(sandbox, sync_mode=mode, streams=ALL_STREAMS, additional_accounts=ALL)
    total = len(sandbox.requests)
    out = tmp_path / "out.jsonl"
    read_twice = {}

    for moment in range(0, total + 1, 1 if mode == "full_refresh" else 3):
        sandbox.clear()
        out.unlink(missing_ok=True)
        pid = processes.start(arguments(tmp_path, sandbox, mode), out)
        deadline = time.monotonic() + 20
        while len(sandbox.requests) < moment and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(pid, number)
        processes.wait(pid)
        first = result_of(out)
        assert_no_state_is_ahead(first)
        statuses = {stream: first.statuses_of(stream) for stream in ALL_STREAMS}
        if number == signal.SIGTERM and all(statuses.values()):
            # Its states come last, or it had finished already.
            assert len(first.last_state) == len(ALL_STREAMS)
            assert all(found[-1] in {"INCOMPLETE", "COMPLETE"} for found in statuses.values())

        pid = processes.start(arguments(tmp_path, sandbox, mode, first.last_state), out)
        assert processes.wait(pid) == 0
        second = result_of(out)

        assert_no_state_is_ahead(second, first.last_state)
        was_complete = any(found[-1:] == ["COMPLETE"] for found in statuses.values())
        for stream in ALL_STREAMS:
            assert {*keys(first, stream), *keys(second, stream)} == keys_in(sandbox, stream)
            assert second.statuses_of(stream)[-1] == "COMPLETE"
            if mode == "full_refresh":
                assert blob(second, stream) == NEUTRAL
            elif number == signal.SIGTERM:
                assert not {*keys(first, stream)} & {*keys(second, stream)}
        if not was_complete:
            accounts = Counter(page[0] for page, times in pages(sandbox).items() if times > 1)
            read_twice[moment] = len(accounts)
    print(f"{mode}, {total} requests: accounts read twice after a kill at each: {read_twice}")
    if mode == "full_refresh":
        # These accounts were in progress in the two workers, or not yet written.
        assert max(read_twice.values()) <= 3


def test_interrupted_at_once(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """A sync that is terminated before it read anything claims no progress."""
    sandbox = serve(numbered_account(1, faults=[faults.hang(times=None)]))
    out = tmp_path / "out.jsonl"
    command = arguments(tmp_path, sandbox, "full_refresh")
    # The account's vendor has no workspaces, so that stream would be complete without a request.
    write(tmp_path / "catalog.json", catalog("full_refresh"))
    pid = processes.start(command, out)
    while not sandbox.requests:
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)

    assert processes.wait(pid) == 1
    (error,) = result_of(out).errors
    assert error["message"] == (
        "The sync was interrupted before all accounts were read. It had emitted nothing yet; the "
        "next attempt starts where this one did."
    )


def test_wait_for_limit(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """A sync that waits for a limit ends at once when it is terminated, and can be resumed."""
    waiting = numbered_account(9, count=25, faults=[faults.vendor_rate_limited(60, after=1)])
    sandbox = serve(*environment(), waiting)
    out = tmp_path / "out.jsonl"

    pid = processes.start(arguments(tmp_path, sandbox, "full_refresh"), out)
    while not any(request.status == 429 for request in sandbox.requests):
        time.sleep(0.01)
    time.sleep(1.0)
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    code = processes.wait(pid)
    took = time.monotonic() - begun
    first = result_of(out)

    assert code == 1
    assert took < 4
    (error,) = first.errors
    assert error["message"] == (
        "The sync was interrupted before all accounts were read. Progress was saved; the next "
        "attempt resumes from there."
    )
    assert error["failure_type"] == "transient_error"
    complete = {id_of(number): {"complete": True} for number in range(5)}
    assert cursors_of(first) == complete
    assert set(cursors_of(first, "workspaces")) == {*complete, waiting.id}
    assert cursors_of(first, "integrated_accounts") == complete
    assert {first.statuses_of(stream)[-1] for stream in ALL_STREAMS} == {"INCOMPLETE"}

    sandbox.clear()
    pid = processes.start(arguments(tmp_path, sandbox, "full_refresh", first.last_state), out)
    assert processes.wait(pid) == 0
    second = result_of(out)
    assert {*keys(first), *keys(second)} == keys_in(sandbox)
    assert Counter(account_id for account_id, _ in keys(second)) == {waiting.id: 25}
    assert sum(pages(sandbox).values()) == 3
    assert second.records_of("workspaces") == []
    assert keys(second, "integrated_accounts") == [(waiting.id,)]


def test_wait_for_response(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """A sync that waits for a response ends soon when it is terminated."""
    sandbox = serve(numbered_account(0, faults=[faults.hang(times=None)]))
    out = tmp_path / "out.jsonl"
    pid = processes.start(arguments(tmp_path, sandbox, "full_refresh"), out)
    while not any(request.account_id for request in sandbox.requests):
        time.sleep(0.01)
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)

    assert processes.wait(pid) == 1
    assert time.monotonic() - begun < 6
    assert result_of(out).statuses[-1] == "INCOMPLETE"


def state_of(*entries: tuple[int, dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Return a state message as Airbyte passes it to the connector."""
    states = [
        {"partition": {"integrated_account_id": id_of(number)}, "cursor": cursor}
        for number, cursor in entries
    ]
    return of_stream({"states": states, **more})


def of_stream(state: Any, name: str = "segments") -> list[dict[str, Any]]:
    stream = {"stream_descriptor": {"name": name}, "stream_state": state}
    return [{"type": "STREAM", "stream": stream}]


def test_documented_state(serve: Serve) -> None:
    """A full refresh that is resumed from the documented state skips complete accounts."""
    sandbox = serve(
        numbered_account(0, count=25), numbered_account(1, count=25), numbered_account(2, count=25)
    )
    started_at = (datetime.now(timezone.utc) - timedelta(hours=23)).isoformat()

    state = state_of((1, {"complete": True}), filters={}, started_at=started_at)
    result = read(sandbox, state=state, additional_accounts=ALL)

    assert Counter(account_id for account_id, _ in keys(result)) == {id_of(0): 25, id_of(2): 25}
    assert id_of(1) not in {request.account_id for request in sandbox.requests}


def test_documented_state_in_incremental_sync(serve: Serve) -> None:
    """An incremental sync compares records with the documented state."""
    sandbox = serve(
        numbered_account(0, segments=[{"id": "a", "name": "A"}, {"id": "b", "name": "B"}])
    )
    row = {"integrated_account_id": id_of(0), "id": "a", "name": "A"}
    records = {"a": fingerprint(row), "b": GONE, "c": GONE}
    cursor_value = "2026-01-02T03:04:05.678901Z"

    state = state_of((0, {"records": records}), filters={}, cursor_value=cursor_value)
    result = read(sandbox, sync_mode="incremental", state=state)

    assert [(r["id"], DELETED_AT in r) for r in result.records] == [("b", False), ("c", True)]
    assert set(cursors_of(result)[id_of(0)]["records"]) == {"a", "b"}
    assert cursor_value < blob(result)["cursor_value"] == result.records[-1][CURSOR]


def test_workspace_failed(serve: Serve) -> None:
    """If a workspace failed, the resumed sync reads its account completely."""
    segments = vendors.segments("beehiiv", 45)
    workspaces = {"w1": segments[:15], "w2": segments[15:40], "w3": segments[40:]}
    fault = faults.account_blocked(after=5, times=None)
    sandbox = serve(numbered_account(0, "beehiiv", workspaces=workspaces, faults=[fault]))

    first = read(sandbox)
    sandbox.environment.accounts[0].faults.clear()
    second = read(sandbox, state=first.last_state)

    assert len(first.records) == 25
    assert cursors_of(first) == {}
    assert set(keys(second)) == keys_in(sandbox)
    assert len(second.records) == 45


def test_failed_account(serve: Serve) -> None:
    """If an account failed, the next attempt reads only that one."""
    blocked = faults.account_blocked(after=1, times=None, kind="segments")
    failing = numbered_account(1, count=25, faults=[blocked])
    sandbox = serve(numbered_account(0, count=12), failing, numbered_account(2))
    configured = catalog(streams=ALL_STREAMS)

    first = read(sandbox, configured=configured, additional_accounts=ALL)
    failing.faults.clear()
    second = read(sandbox, configured=configured, state=first.last_state, additional_accounts=ALL)

    assert first.statuses[-1] == "INCOMPLETE"
    assert first.statuses_of("integrated_accounts")[-1] == "COMPLETE"
    assert Counter(account_id for account_id, _ in keys(second)) == {id_of(1): 25}
    # For the destination, all attempts of a full refresh are one: no row may come twice.
    assert second.records_of("integrated_accounts") == []
    assert {json.dumps(blob(second, stream)) for stream in ALL_STREAMS} == {json.dumps(NEUTRAL)}
    third = read(sandbox, state=second.last_state, additional_accounts=ALL)
    assert set(keys(third)) == keys_in(sandbox)


def test_state_of_another_mode(serve: Serve) -> None:
    """If the state is of another sync mode, everything is emitted."""
    sandbox = serve(numbered_account(0, "brevo", segments=[{"id": "a"}, {"id": "b"}]))
    incremental = catalog("incremental")
    known = read(sandbox, configured=incremental).last_state
    begun = state_of((0, {"complete": True}))

    assert len(read(sandbox, state=known).records) == 2
    assert len(read(sandbox, configured=incremental, state=begun).records) == 2
    assert len(read(sandbox, configured=incremental, state=of_stream(NEUTRAL)).records) == 2
    assert len(read(sandbox, state=of_stream(NEUTRAL)).records) == 2
    assert read(sandbox, configured=incremental, state=known).records == []


@pytest.mark.parametrize(
    "filters",
    [{"tag_id": "t"}, {"remote_query": [{"name": "a", "value": "b"}]}, {"workspace_id": "w"}],
)
@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_other_filters(serve: Serve, mode: str, filters: dict[str, Any]) -> None:
    """If the filters change, the state is not used and nothing is deleted."""
    segments = vendors.segments("brevo", 2)
    sandbox = serve(numbered_account(0, "brevo", segments=segments, workspaces={"w": segments[:1]}))
    whole = {"complete": True} if mode == "full_refresh" else {"records": {"x": GONE}}
    expected = segments[:1] if "workspace_id" in filters else segments

    state = state_of((0, whole), filters={})
    result = read(sandbox, sync_mode=mode, state=state, **filters)

    assert sorted(result.ids) == sorted(segment["id"] for segment in expected)
    if mode == "incremental":
        last, (name,) = result.last_state, filters
        assert last[0]["stream"]["stream_state"]["filters"][name].isalnum()
        assert read(sandbox, sync_mode=mode, state=last, **filters).records == []
        # Version 0.2 kept the values themselves.
        last[0]["stream"]["stream_state"]["filters"] = {
            name: [["a", "b"]] if name == "remote_query" else filters[name]
        }
        assert read(sandbox, sync_mode=mode, state=last, **filters).records == []


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_state_of_version_0_1(serve: Serve, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    """A state of version 0.1 is not used, and a log line reports that."""
    caplog.set_level("INFO")
    sandbox = serve(numbered_account(0), numbered_account(1))
    state = state_of(
        (0, {"updated_at": "2026-01-05T00:00:00Z"}), (1, {"complete": True}), filters={}
    )

    result = read(sandbox, sync_mode=mode, state=state, additional_accounts=ALL)

    assert result.failure is None
    assert len(result.records) == 6
    (line,) = [line for line in caplog.messages if "version 0.1" in line]
    assert "The state of the stream segments was written by version 0.1 and is not used" in line


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
@pytest.mark.parametrize(
    "state",
    [
        {"states": "x"},
        {"updated_at": "2026-01-01"},
        {"states": [{"cursor": {}}]},
        {"states": ["x"]},
        {"states": [{"partition": {"integrated_account_id": 5}, "cursor": {}}]},
    ],
)
def test_malformed_state(serve: Serve, mode: str, state: dict[str, Any]) -> None:
    """If the state is malformed, the user is asked to reset the stream."""
    sandbox = serve(numbered_account(0))
    result = read(sandbox, sync_mode=mode, state=of_stream(state))

    assert str(result.failure).startswith("The state of the stream segments is not valid: ")
    assert str(result.failure).endswith(
        ". Reset the stream in the connection's settings; the next sync then reads everything."
    )
    assert [error["failure_type"] for error in result.errors] == ["config_error"]
    assert sandbox.requests == []


class TimedSource(SourceTrutoSegments):
    """A source that notes when each stream's states are emitted, by the clock of the sync."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.times: dict[str, list[float]] = defaultdict(list)
        super().__init__(self.clock)

    def read(self, *args: Any, **kwargs: Any) -> Iterator[AirbyteMessage]:
        for message in super().read(*args, **kwargs):
            if message.type is Type.STATE and message.state and message.state.stream:
                stream = message.state.stream.stream_descriptor.name
                self.times[stream].append(self.clock.now())
            yield message


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_long_sync(serve: Serve, mode: str) -> None:
    """A long sync emits a state at most once a minute."""
    accounts = [numbered_account(number, count=35) for number in range(40)]
    waiting = [
        numbered_account(
            100 + number,
            count=95,
            faults=[faults.vendor_rate_limited(25 + number, after=page) for page in range(9)],
        )
        for number in range(8)
    ]
    sandbox = serve(*accounts, *waiting)
    source = TimedSource()

    read_with(source, sandbox, sync_mode=mode, streams=ALL_STREAMS, additional_accounts=ALL)

    assert source.clock.now() > 5 * CHECKPOINT_SECONDS
    for times in source.times.values():
        # The last state comes when the sync has finished. The clock can advance between a state and
        # its note here, so the time between two notes says less.
        assert (len(times) - 1) * CHECKPOINT_SECONDS <= source.clock.now()
    assert len(source.times["segments"]) >= 4


def test_nothing_changed(serve: Serve) -> None:
    """If nothing has changed, a sync that takes long emits one state for each stream."""
    slow = numbered_account(0, count=95)
    sandbox = serve(slow)
    configured = catalog("incremental", streams=ALL_STREAMS)
    first = read(sandbox, configured=configured)
    slow.faults = [faults.vendor_rate_limited(90, after=page, kind="segments") for page in range(9)]

    result = read(sandbox, configured=configured, state=first.last_state)

    assert sum(result.waits) > 9 * CHECKPOINT_SECONDS
    assert result.of_type("RECORD") == []
    assert len(result.states) == len(ALL_STREAMS)
    assert [blob(result, s) for s in ALL_STREAMS] == [blob(first, s) for s in ALL_STREAMS]
