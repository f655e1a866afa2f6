"""The demo: what it shows of two syncs, and the query that it ends with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airbyte_cdk.models import AirbyteCatalog, AirbyteMessage, AirbyteMessageSerializer, Type

from scripts import demo, query
from scripts._common import ScriptError
from source_truto_segments import SourceTrutoSegments
from unit_tests.test_documentation import CONFIG, ROOT, SPEC

RUN = demo.Connector.run


def run(self: demo.Connector, command: str, *options: str) -> list[Any]:
    """Run only the reads, since each process takes seconds; the other commands have their tests."""
    if command == "read":
        return RUN(self, command, *options)
    if command in ("spec", "check"):
        return [{"connectionSpecification": SPEC, "status": "SUCCEEDED"}]
    streams = [stream.as_airbyte_stream() for stream in SourceTrutoSegments().streams(CONFIG)]
    message = AirbyteMessage(type=Type.CATALOG, catalog=AirbyteCatalog(streams=streams))
    return [json.loads(json.dumps(AirbyteMessageSerializer.dump(message)))["catalog"]]


@pytest.mark.timeout(300)
def test_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo shows the deleted row and who must reconnect, and its last command works."""
    database = tmp_path / "demo.duckdb"
    monkeypatch.setattr(demo.Connector, "run", run)
    for module in (demo, query):
        monkeypatch.setattr(module, "DATABASE", database)
    for name in (demo.TOKEN_VARIABLE, demo.ACCOUNT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["query", ""])

    with pytest.raises(Exception, match=r"There is no demo.duckdb yet: run bash scripts/demo.sh"):
        query.main()
    demo.main()
    shown = capsys.readouterr().out
    _, _, second = shown.partition("5. The second sync")
    sent, _, reconnect = second.partition("6. Who must reconnect?")

    assert "The account's owner must reconnect it" in " ".join(sent.split())
    (deleted,) = [line for line in sent.splitlines() if " true " in line]
    assert "Engaged last 30 days" in deleted
    assert "The API key was revoked" in reconnect
    last = shown.splitlines()[-1]
    assert last.startswith('bash scripts/query.sh "SELECT ')
    assert len(last) < 120

    monkeypatch.setattr(sys, "argv", ["query", *last.split('"')[1:2]])
    query.main()
    assert "updated_at" in capsys.readouterr().out


def test_account_of_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ID that is no UUID is reported before the first command runs."""
    monkeypatch.setenv(demo.TOKEN_VARIABLE, "token")
    monkeypatch.setenv(demo.ACCOUNT_VARIABLE, "42")
    with pytest.raises(ScriptError, match="TRUTO_INTEGRATED_ACCOUNT_ID must be a UUID"):
        demo.main()

    assert capsys.readouterr().out == ""


def test_query(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a query an example is announced; for a missing table the message lists the others."""
    database = tmp_path / "demo.duckdb"
    monkeypatch.setattr(query, "DATABASE", database)
    with duckdb.connect(str(database)) as tables:
        tables.execute("CREATE TABLE segments (name TEXT, updated_at TEXT)")

    monkeypatch.setattr(sys, "argv", ["query"])
    query.main()
    assert f"No query is given, so this is an example: {demo.EXAMPLE}" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["query", "SELECT * FROM segment"])
    with pytest.raises(ScriptError) as missing:
        query.main()
    assert str(missing.value) == (
        "Table with name segment does not exist! The tables are: segments."
    )


def test_help_of_query() -> None:
    """The option --help prints the usage, and installs nothing."""
    for option in ("--help", "-h"):
        shown = subprocess.run(
            ["/usr/bin/env", "bash", str(ROOT / "scripts/query.sh"), option],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert shown.startswith("Runs a query on the tables")
        assert 'bash scripts/query.sh "SELECT name FROM segments LIMIT 5"' in shown
