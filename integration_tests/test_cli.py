"""The installed command, in a process of its own, exactly as Airbyte calls it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from integration_tests.support import COMMAND, account, catalog, config, read, run, write
from sandbox import Sandbox, faults

Serve = Callable[..., Sandbox]
PACKAGE = Path(__file__).parent.parent / "source_truto_segments"


def test_when_spec_then_it_is_the_file() -> None:
    result = run("spec")

    (spec,) = result.of_type("SPEC")
    assert result.exit_code == 0
    file = json.loads((PACKAGE / "spec.json").read_text())
    assert {name: spec[name] for name in file} == file


def test_given_a_good_account_when_checked_discovered_and_read_then_all_of_it_comes(
    serve: Serve, tmp_path: Path
) -> None:
    sandbox = serve(account(count=43))
    settings = write(tmp_path / "config.json", config(sandbox))

    checked = run("check", "--config", settings)
    assert checked.exit_code == 0
    assert checked.of_type("CONNECTION_STATUS") == [{"status": "SUCCEEDED"}]
    assert [request.param("limit") for request in sandbox.requests] == ["1"]

    discovered = run("discover", "--config", settings)
    (found,) = discovered.of_type("CATALOG")
    (stream,) = found["streams"]
    assert stream["name"] == "segments"
    assert stream["source_defined_primary_key"] == [["integrated_account_id"], ["id"]]
    Draft7Validator.check_schema(stream["json_schema"])

    asked = write(tmp_path / "catalog.json", catalog(schema=stream["json_schema"]))
    got = run("read", "--config", settings, "--catalog", asked, "--debug")
    assert got.exit_code == 0
    assert len(set(got.ids)) == 43
    assert got.statuses == ["STARTED", "RUNNING", "COMPLETE"]
    assert got.states[-1]["sourceStats"]["recordCount"] == 43
    assert sandbox.environment.token not in json.dumps(got.messages)


def test_given_a_refused_token_when_read_then_it_is_asked_once_and_the_exit_code_is_1(
    serve: Serve, tmp_path: Path
) -> None:
    sandbox = serve(account())
    settings = write(tmp_path / "config.json", config(sandbox, token="tok-not-this-one"))
    asked = write(tmp_path / "catalog.json", catalog())

    result = run("read", "--config", settings, "--catalog", asked)

    assert result.exit_code == 1
    assert len(sandbox.requests) == 1
    assert result.errors[-1]["failure_type"] == "config_error"
    assert "Truto refused the API token" in result.errors[-1]["message"]
    said = json.dumps(result.messages)
    assert "tok-not-this-one" not in said
    assert not any("Traceback" in line for line in result.logs)


def test_given_a_failed_check_when_checked_then_there_is_a_status_and_exit_code_0(
    serve: Serve, tmp_path: Path
) -> None:
    sandbox = serve(account(faults=[faults.account_blocked(times=None)]))

    result = run("check", "--config", write(tmp_path / "config.json", config(sandbox)))

    (status,) = result.of_type("CONNECTION_STATUS")
    assert result.exit_code == 0
    assert status["status"] == "FAILED"
    assert "Truto has blocked this account" in status["message"]


def test_given_wrong_fields_when_checked_then_the_status_names_each(tmp_path: Path) -> None:
    fields = {"integrated_account_id": "acme", "page_size": 0}

    result = run("check", "--config", write(tmp_path / "config.json", fields))

    (status,) = result.of_type("CONNECTION_STATUS")
    assert result.exit_code == 0
    assert status == {
        "status": "FAILED",
        "message": "API token (token) is missing. Integrated account ID (integrated_account_id) "
        "must be a UUID, for example 62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65. Page size (page_size) "
        "must be at least 1.",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "config.json cannot be read: No such file"),
        ("{", "Could not read json file"),
        ("[]", "is not an"),
    ],
)
def test_given_a_file_that_is_none_when_checked_then_a_sentence_says_so(
    tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)

    result = run("check", "--config", str(path))

    assert result.exit_code == 1
    assert says in result.errors[-1]["message"]
    assert result.errors[-1]["failure_type"] == "config_error"


def test_given_another_stream_in_the_catalog_when_read_then_a_sentence_says_so(
    serve: Serve, tmp_path: Path
) -> None:
    asked = catalog()
    asked["streams"][0]["stream"]["name"] = "contacts"
    settings = write(tmp_path / "config.json", config(serve(account())))

    result = run("read", "--config", settings, "--catalog", write(tmp_path / "c.json", asked))

    assert 'no stream "contacts"' in result.errors[-1]["message"]


def test_given_no_catalog_when_read_then_a_sentence_says_so(serve: Serve, tmp_path: Path) -> None:
    settings = write(tmp_path / "config.json", config(serve(account())))

    result = run("read", "--config", settings, "--catalog", settings)

    assert "is not what it should be" in result.errors[-1]["message"]


def test_given_a_file_that_is_no_state_when_read_then_the_user_is_told_to_reset(
    serve: Serve, tmp_path: Path
) -> None:
    settings = write(tmp_path / "config.json", config(serve(account())))
    asked = write(tmp_path / "catalog.json", catalog("incremental"))
    state = write(tmp_path / "state.json", {"segments": {"updated_at": "2020-01-01"}})

    result = run("read", "--config", settings, "--catalog", asked, "--state", state)

    assert "state.json is not what it should be" in result.errors[-1]["message"]
    assert "Reset the connection's streams" in result.errors[-1]["message"]
    assert result.errors[-1]["failure_type"] == "config_error"


def test_given_a_reader_who_leaves_when_read_then_the_process_ends_without_a_word(
    serve: Serve, tmp_path: Path
) -> None:
    sandbox = serve(account("activecampaign", count=20_000, default_page_size=10_000))
    settings = write(tmp_path / "config.json", config(sandbox))
    asked = write(tmp_path / "catalog.json", catalog())
    process = subprocess.Popen(
        [str(COMMAND), "read", "--config", settings, "--catalog", asked],
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


def test_given_main_py_when_run_then_it_is_the_command() -> None:
    main = PACKAGE.parent / "main.py"
    process = subprocess.run(
        [sys.executable, str(main), "--help"], capture_output=True, text=True, check=True
    )

    assert "spec,check,discover,read" in process.stdout


def test_given_records_of_all_kinds_when_read_then_the_lines_are_the_messages(
    serve: Serve, tmp_path: Path
) -> None:
    segments = [
        {"id": "plain", "name": 'ä\n\u2028"', "remote_data": {"a": [1.5, None, True]}},
        {"id": "misfit", "created_at": "yesterday"},
        {"id": "huge", "remote_data": {"number": 2**70}},
        {"id": "without a name"},
    ]
    sandbox = serve(account(segments=segments))

    settings = write(tmp_path / "config.json", config(sandbox))
    asked = write(tmp_path / "catalog.json", catalog())

    result = run("read", "--config", settings, "--catalog", asked)
    expected = read(sandbox)

    for record in (*result.of_type("RECORD"), *expected.of_type("RECORD")):
        assert abs(record.pop("emitted_at") / 1000 - time.time()) < 60
    assert result.of_type("RECORD") == expected.of_type("RECORD")
    assert [record["data"]["id"] for record in result.of_type("RECORD")] == [
        "plain", "misfit", "huge", "without a name",
    ]  # fmt: skip
    assert sum(state["sourceStats"]["recordCount"] for state in result.states) == 4
