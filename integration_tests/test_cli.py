"""The installed command, in its own process, exactly as Airbyte calls it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from integration_tests.processes import Processes
from integration_tests.support import (
    ALL_STREAMS,
    COMMAND,
    Result,
    Serve,
    account,
    catalog,
    command,
    config,
    read,
    run,
    write,
)
from sandbox import faults, vendors

PACKAGE = Path(__file__).parent.parent / "source_truto_segments"


def test_spec() -> None:
    """The spec command prints what spec.json contains."""
    result = run("spec")

    (spec,) = result.of_type("SPEC")
    assert result.exit_code == 0
    file = json.loads((PACKAGE / "spec.json").read_text())
    assert {name: spec[name] for name in file} == file


def test_good_account(serve: Serve, tmp_path: Path) -> None:
    """A good account can be checked, discovered and read completely."""
    sandbox = serve(account(count=43))
    settings = write(tmp_path / "config.json", config(sandbox))

    checked = run("check", "--config", settings)
    assert checked.exit_code == 0
    assert checked.of_type("CONNECTION_STATUS") == [{"status": "SUCCEEDED"}]
    assert [request.kind for request in sandbox.requests] == ["segments", "account"]
    assert not any("MemoryMonitor" in line for line in checked.logs)

    discovered = run("discover", "--config", settings)
    (found,) = discovered.of_type("CATALOG")
    assert [stream["name"] for stream in found["streams"]] == list(ALL_STREAMS)
    for stream in found["streams"]:
        account_key = [["integrated_account_id"]] if stream["name"] != "integrated_accounts" else []
        assert stream["source_defined_primary_key"] == [*account_key, ["id"]]
        assert stream["supported_sync_modes"] == ["full_refresh", "incremental"]
        assert stream["source_defined_cursor"] is True
        assert stream["default_cursor_field"] == ["_ab_cdc_updated_at"]
        Draft7Validator.check_schema(stream["json_schema"])
    segments = found["streams"][0]

    selected = write(tmp_path / "catalog.json", catalog(schema=segments["json_schema"]))
    got = run("read", "--config", settings, "--catalog", selected, "--debug")
    assert got.exit_code == 0
    assert len(set(got.ids)) == 43
    assert got.statuses == ["STARTED", "RUNNING", "COMPLETE"]
    assert sum(state["sourceStats"]["recordCount"] for state in got.states) == 43
    assert sandbox.environment.token not in json.dumps(got.messages)


def test_refused_token(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """A refused token is sent only once, and the exit code is 1."""
    sandbox = serve(account())
    settings = write(tmp_path / "config.json", config(sandbox, token="tok-not-this-one"))
    selected = write(tmp_path / "catalog.json", catalog())

    result = processes.run(
        "read", "--config", settings, "--catalog", selected, out=tmp_path / "out"
    )

    assert result.exit_code == 1
    assert len(sandbox.requests) == 1
    assert result.errors[-1]["failure_type"] == "config_error"
    assert "Truto rejected the API token" in result.errors[-1]["message"]
    assert "tok-not-this-one" not in json.dumps(result.messages)
    assert not any("Traceback" in line for line in result.logs)


def test_failed_check(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """A failed check emits a status, and the exit code is 0."""
    sandbox = serve(account(faults=[faults.account_blocked(times=None)]))

    result = processes.run(
        "check", "--config", write(tmp_path / "config.json", config(sandbox)), out=tmp_path / "out"
    )

    (status,) = result.of_type("CONNECTION_STATUS")
    assert result.exit_code == 0
    assert status["status"] == "FAILED"
    assert "Truto has blocked this account" in status["message"]


def test_invalid_fields(tmp_path: Path) -> None:
    """The status of the check lists each invalid field."""
    fields = {"integrated_account_id": "acme", "page_size": 0}

    result = command("check", "--config", write(tmp_path / "config.json", fields))

    (status,) = result.of_type("CONNECTION_STATUS")
    assert result.failure is None
    assert status == {
        "status": "FAILED",
        "message": "API token (token) is missing. Integrated account ID (integrated_account_id) "
        "must be a UUID, for example 62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65. Page size (page_size) "
        "must be at least 1.",
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "config.json (--config) cannot be read: there is no such file."),
        ("{", "config.json is not valid: it ends in line 1 before all brackets"),
        ("[]", "it is a list, not an object."),
    ],
)
def test_invalid_file(tmp_path: Path, content: str | None, expected: str) -> None:
    """A message reports a configuration file that is missing or not valid."""
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)

    result = command("check", "--config", str(path))

    assert expected in result.errors[-1]["message"]
    assert result.errors[-1]["failure_type"] == "config_error"


def test_unknown_stream_beside_others(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """A stream that does not exist is INCOMPLETE and fails the sync; the others are read."""
    both = catalog(streams=("segments", "workspaces"))
    both["streams"][1]["stream"]["name"] = "contacts"
    sandbox = serve(account(count=25))
    settings = write(tmp_path / "config.json", config(sandbox))

    result = processes.run(
        "read",
        "--config",
        settings,
        "--catalog",
        write(tmp_path / "c.json", both),
        out=tmp_path / "out",
    )

    assert result.exit_code == 1
    assert len(result.records) == 25
    assert result.statuses[-1] == "COMPLETE"
    assert result.statuses_of("contacts") == ["STARTED", "INCOMPLETE"]
    (error,) = result.errors
    assert error["message"].startswith('The source has no stream "contacts".')
    assert error["failure_type"] == "config_error"


def test_misspelt_stream(serve: Serve, tmp_path: Path) -> None:
    """The message about a stream that does not exist suggests a similar one."""
    wrong = catalog(streams=("segments", "workspaces", "workspaces"))
    for entry, name in zip(wrong["streams"], ("segment", "workspace", "people"), strict=True):
        entry["stream"]["name"] = name
    settings = write(tmp_path / "config.json", config(serve(account())))

    result = command("read", "--config", settings, "--catalog", write(tmp_path / "c.json", wrong))

    assert result.errors[-1]["message"].startswith(
        'The source has no stream "segment" (perhaps "segments" is meant), "workspace" (perhaps '
        '"workspaces" is meant), "people". '
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": [catalog()["streams"][0]["stream"]]},
        {"streams": [{"stream": catalog()["streams"][0]["stream"], "sync_mode": "incremental"}]},
        catalog(streams=ALL_STREAMS * 50)["streams"],
    ],
    ids=["as discovered", "one mode", "a list"],
)
def test_catalog_in_another_form(serve: Serve, tmp_path: Path, wrong: Any) -> None:
    """For a catalog in another form, a short message shows the right form."""
    settings = write(tmp_path / "config.json", config(serve(account())))

    result = command("read", "--config", settings, "--catalog", write(tmp_path / "c.json", wrong))

    message = result.errors[-1]["message"]
    assert "c.json is not valid: " in message
    assert '"sync_mode": …, "destination_sync_mode": …' in message
    assert len(message) < 1_000


@pytest.mark.parametrize(
    "wrong", [{"segments": {"updated_at": "2020-01-01"}}, [{"type": "STATE", "state": {}}]], ids=str
)
def test_no_state_in_file(serve: Serve, tmp_path: Path, wrong: Any) -> None:
    """For a file that is not a state, the message describes what a state is."""
    settings = write(tmp_path / "config.json", config(serve(account())))
    selected = write(tmp_path / "catalog.json", catalog("incremental"))
    state = write(tmp_path / "state.json", wrong)

    result = command("read", "--config", settings, "--catalog", selected, "--state", state)

    assert "state.json is not valid" in result.errors[-1]["message"]
    assert "the state of each stream's last STATE message" in result.errors[-1]["message"]
    assert "reset the connection's streams" in result.errors[-1]["message"]
    assert result.errors[-1]["failure_type"] == "config_error"


def test_consumer_leaves(serve: Serve, tmp_path: Path) -> None:
    """If the consumer leaves, the process ends without a traceback."""
    sandbox = serve(account("activecampaign", count=20_000, default_page_size=10_000))
    settings = write(tmp_path / "config.json", config(sandbox))
    selected = write(tmp_path / "catalog.json", catalog())
    process = subprocess.Popen(
        [str(COMMAND), "read", "--config", settings, "--catalog", selected],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert process.wait(30) == 1
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


def test_main_py() -> None:
    """The script main.py runs the command."""
    main = PACKAGE.parent / "main.py"
    process = subprocess.run(
        [sys.executable, str(main), "--help"], capture_output=True, text=True, check=True
    )

    assert "spec,check,discover,read" in process.stdout


def test_records_of_all_kinds(serve: Serve, tmp_path: Path) -> None:
    """For records of all kinds, the command prints the messages that the source emits."""
    segments = [
        {"id": "plain", "name": 'ä\n\u2028"', "remote_data": {"a": [1.5, None, True]}},
        {"id": "coerced", "created_at": "yesterday", "name": "a\0", "is_starred": "maybe"},
        {
            "id": "huge",
            "remote_data": {"number": 2**70},
            "updated_at": f"2026-01-02T03:04:05.{1:09}Z",
        },
        {"id": "without a name"},
    ]
    known = {"id": "w", "name": "ä\n", "created_at": [], "remote_data": {"a": 2**70}}
    workspaces = faults.body(json.dumps({"result": [known]}), kind="workspaces", times=None)
    found = account(
        "brevo",
        segments=segments,
        faults=[workspaces],
        last_error="yes\0",  # dropped from an excerpt
        created_at="soon",
        last_forbidden_error={"missing_scopes": ["é"]},
    )
    sandbox = serve(found)
    configured = catalog(streams=ALL_STREAMS)

    result = command(
        *("read", "--config", write(tmp_path / "config.json", config(sandbox))),
        *("--catalog", write(tmp_path / "catalog.json", configured)),
    )
    expected = read(sandbox, configured=configured)

    for record in (*result.of_type("RECORD"), *expected.of_type("RECORD")):
        assert abs(record.pop("emitted_at") / 1000 - time.time()) < 60
        assert record["data"].pop("_ab_cdc_updated_at")
    assert by_stream(result) == by_stream(expected)
    printed = by_stream(result)
    assert [record["data"]["id"] for record in printed["segments"]] == [
        "plain", "coerced", "huge", "without a name",
    ]  # fmt: skip
    changed = {
        (name, change["field"], change["change"])
        for name, records in printed.items()
        for record in records
        for change in record.get("meta", {}).get("changes", [])
    }
    assert changed == {
        ("segments", "created_at", "NULLED"),
        ("segments", "name", "TRUNCATED"),
        ("segments", "is_starred", "NULLED"),
        ("segments", "updated_at", "TRUNCATED"),
        ("workspaces", "created_at", "NULLED"),
        ("integrated_accounts", "created_at", "NULLED"),
    }


def test_all_streams(serve: Serve, tmp_path: Path) -> None:
    """Each stream has its statuses, and its states count its records."""
    segments = vendors.segments("beehiiv", 43)
    sandbox = serve(
        account("beehiiv", workspaces={"a": segments[:40], "b": segments[40:], "c": []})
    )
    counts = {"segments": 43, "integrated_accounts": 1, "workspaces": 3}
    settings = write(tmp_path / "config.json", config(sandbox))

    for mode in ("full_refresh", "incremental"):
        selected = write(tmp_path / "catalog.json", catalog(mode, streams=ALL_STREAMS))
        result = command("read", "--config", settings, "--catalog", selected)

        assert result.failure is None
        for name, count in counts.items():
            assert result.statuses_of(name) == ["STARTED", "RUNNING", "COMPLETE"]
            assert len(result.records_of(name)) == count
            assert counted(result, name) == count


def test_another_stream_fails(serve: Serve, tmp_path: Path) -> None:
    """If one stream fails, the others have their statuses and counts."""
    refused = faults.scopes_missing(kind="segments", after=1, times=None)
    sandbox = serve(account("customerio", count=5, default_page_size=3, faults=[refused]))
    settings = write(tmp_path / "config.json", config(sandbox))
    selected = write(tmp_path / "catalog.json", catalog("incremental", streams=ALL_STREAMS))

    result = command("read", "--config", settings, "--catalog", selected)

    assert result.statuses_of("segments") == ["STARTED", "RUNNING", "INCOMPLETE"]
    assert result.statuses_of("integrated_accounts") == ["STARTED", "RUNNING", "COMPLETE"]
    assert result.statuses_of("workspaces") == ["STARTED", "COMPLETE"]
    assert [counted(result, name) for name in ALL_STREAMS] == [3, 1, 0]


def by_stream(result: Result) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [record for record in result.of_type("RECORD") if record["stream"] == name]
        for name in ALL_STREAMS
    }


def counted(result: Result, stream: str) -> float:
    """Return how many records the states of a stream count."""
    states = [s for s in result.states if s["stream"]["stream_descriptor"]["name"] == stream]
    assert states
    return float(sum(state["sourceStats"]["recordCount"] for state in states))
