"""The queries, commands and figures in the guide are correct."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
import yaml

from integration_tests.support import (
    ALL_STREAMS,
    catalog,
    command,
    config,
    id_of,
    numbered_account,
    read,
    write,
)
from sandbox import Sandbox, demo_environment, vendors
from source_truto_segments.config import Config
from source_truto_segments.records.columns import load_schema
from source_truto_segments.streams import STREAMS, Streams
from source_truto_segments.truto.vendors import VENDORS, Vendor
from unit_tests.test_documentation import CONFIG, PAGE, ROOT, rows, section

SEVEN = list(VENDORS.values())
SIZES = (15, 60, 240)
FENCED = re.DOTALL | re.MULTILINE
TABLES = [*STREAMS, "history_segments"]


def block(heading: str, language: str) -> list[str]:
    """Return the code blocks of one language in a section, indented or not."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", section(PAGE, heading), FENCED)


def requests_of(vendor: Vendor, segments: int) -> int:
    """Return the number of requests for an account in a sync of all streams."""
    size = {"klaviyo": 10, "customerio": math.inf}.get(vendor.name, vendor.page_size or 0)
    return max(1, math.ceil(segments / size)) + vendor.has_workspaces


def cost(accounts: int, segments: int, of: list[Vendor]) -> str:
    """Return a cell of the guide's table."""
    each = sum(requests_of(vendor, segments) for vendor in of) / len(of)
    total = math.ceil(accounts / 100) + math.ceil(accounts * each)
    return f"{total:,} ({math.ceil(total / 50 / 6) / 10} min)"


def test_cost_tables() -> None:
    """The tables of requests and minutes follow from the vendors' page sizes."""
    table = rows(section(PAGE, "## What a sync costs"))
    klaviyo = [VENDORS["klaviyo"]]

    assert table[: len(SEVEN)] == [
        [vendor.label, *(str(requests_of(vendor, size)) for size in SIZES)] for vendor in SEVEN
    ]
    assert [row[0] for row in table[len(SEVEN) :]] == ["100", "500", "2,000", "5,000", "10,000"]
    for row in table[len(SEVEN) :]:
        number = int(row[0].replace(",", ""))
        cells = [cost(number, size, SEVEN) for size in SIZES]
        assert row[1:] == [*cells, cost(number, 60, klaviyo)]
    readme = (ROOT / "README.md").read_text()
    assert f"{cost(2_000, 60, SEVEN).split()[0]} requests" in readme


@pytest.mark.parametrize("size", SIZES)
def test_cost_of_a_sync(size: int) -> None:
    """A sync sends as many requests as the table says."""
    environment = demo_environment()
    environment.accounts = []
    for number, vendor in enumerate(VENDORS):
        records = vendors.segments(vendor, size)
        given: dict[str, Any] = (
            {"workspaces": {"pub": records}} if vendor == "beehiiv" else {"segments": records}
        )
        environment.accounts.append(numbered_account(number, vendor, **{"segments": [], **given}))
    with Sandbox(environment) as sandbox:
        result = read(
            sandbox,
            configured=catalog("incremental", streams=ALL_STREAMS),
            additional_accounts={"mode": "all"},
        )
        sent = len(sandbox.requests)

    assert len(result.records_of("segments")) == 7 * size
    assert sent == 1 + sum(requests_of(vendor, size) for vendor in SEVEN)


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield tables as destinations have them, with the demo's records."""
    with duckdb.connect() as found:
        for table in TABLES:
            types = ", ".join(
                f"{name} {column_type(schema)}"
                for name, schema in load_schema(table.removeprefix("history_"))[
                    "properties"
                ].items()
            )
            found.execute(f"CREATE TABLE {table} ({types})")
        with Sandbox(demo_environment()) as sandbox:
            result = read(
                sandbox,
                configured=catalog("incremental", streams=ALL_STREAMS),
                additional_accounts={"mode": "all"},
            )
        for stream in STREAMS:
            for record in result.records_of(stream):
                insert(found, stream, record)
        yield found


def column_type(schema: dict[str, Any]) -> str:
    return "TIMESTAMPTZ" if "format" in schema else "JSON" if "object" in schema["type"] else "TEXT"


def insert(database: duckdb.DuckDBPyConnection, table: str, row: dict[str, Any]) -> None:
    values = [json.dumps(value) if isinstance(value, dict) else value for value in row.values()]
    marks = ", ".join("?" * len(row))
    into = f"INSERT INTO {table} ({', '.join(row)})"
    database.execute(f"{into} VALUES ({marks})", values)


def test_first_queries(database: duckdb.DuckDBPyConnection) -> None:
    """The queries count segments by customer, and the members that the vendors report."""
    by_customer, members = block("## First queries", "sql")

    assert [row[:3] for row in database.execute(by_customer).fetchall()][:2] == [
        ("acme", "klaviyo", 43),
        ("globex", "activecampaign", 24),
    ]
    counted: dict[str, set[bool]] = {}
    for _, tool, _, number in database.execute(members).fetchall():
        counted.setdefault(tool, set()).add(isinstance(number, int))
    reported = {
        vendor.name: {row[1] != "none"}
        for vendor in SEVEN
        for row in rows(section(PAGE, "## What each vendor has"))
        if row[0] == vendor.label
    }
    assert counted == reported


def test_runbook(database: duckdb.DuckDBPyConnection) -> None:
    """The queries find who must reconnect, and remove the rows of a customer who left."""
    to_reconnect, removal = block("## When a customer disconnects", "sql")
    update = "UPDATE integrated_accounts SET"
    database.execute(f"{update} status = 'needs_reauth' WHERE integration = 'brevo'")
    database.execute(f"{update} last_forbidden_error = '{{}}' WHERE integration = 'klaviyo'")

    found = database.execute(to_reconnect).fetchall()
    assert [row[:3] for row in found] == [
        ("acme", "klaviyo", "active"),
        ("umbrella", "brevo", "needs_reauth"),
    ]
    database.execute("DELETE FROM integrated_accounts WHERE integration = 'brevo'")
    database.execute(removal)
    assert len(database.table("segments")) == 204 - 67


def test_deletions(database: duckdb.DuckDBPyConnection) -> None:
    """The queries find this week's deletions, with soft delete and in an Append table."""
    soft, appended = block("## What was deleted", "sql")
    account = demo_environment().accounts[0]
    key = {"integrated_account_id": account.id, "id": "s"}
    # A killed sync's deletion is reported again.
    for hours, name in ((72, "Newest name"), (120, "Older name"), (24, None), (23, None)):
        (moment,) = database.execute(f"SELECT now() - INTERVAL {hours} HOUR").fetchall()[0]
        deleted = {} if name else {"_ab_cdc_deleted_at": moment}
        row = {**key, "name": name, "_ab_cdc_updated_at": moment, **deleted}
        insert(database, "history_segments", row)
        if hours == 24:
            insert(database, "segments", {**row, "name": "Kept by the destination"})

    assert [row[:4] for row in database.execute(appended).fetchall()] == [
        ("acme", "klaviyo", "s", "Newest name")
    ]
    assert [row[:4] for row in database.execute(soft).fetchall()] == [
        ("acme", "klaviyo", "s", "Kept by the destination")
    ]


def test_names_in_remote_data() -> None:
    """A vendor's records have each field that the guide's table lists for it."""
    for label, members, _, further in rows(section(PAGE, "## What each vendor has")):
        (vendor,) = (vendor.name for vendor in SEVEN if vendor.label == label)
        found = json.dumps(vendors.segments(vendor, 1)[0]["remote_data"])
        for path in re.findall(r"`([\w.]+)`", members + further):
            assert all(f'"{key}": ' in found for key in path.split(".")), path


def test_listing_of_accounts() -> None:
    """The command that lists accounts prints their ids, and none of their settings."""
    (command,) = block("## Setup guide", "shell")
    url, code = re.findall(r'"(https:[^"]+)" \| python3 -c \'(.*)\'', command, re.DOTALL)[0]
    with Sandbox(demo_environment()) as sandbox:
        address = url.replace("https://api.truto.one", sandbox.url)
        token = {"Authorization": f"Bearer {sandbox.environment.token}"}
        answer = requests.get(address, headers=token, timeout=10).text
        refused = requests.get(address, timeout=10).text
        accounts = sandbox.environment.accounts
    for text, expected in ((answer, "That is all."), (refused, json.loads(refused)["message"])):
        code_at_margin = re.sub(r"^   ", "", code, flags=re.MULTILINE)
        shown = subprocess.run(
            [sys.executable, "-c", code_at_margin],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        ids = [account.id for account in accounts] if text is answer else []
        assert [line.split()[0] for line in shown[:-1]] == ids
        assert shown[-1] == expected
        assert "context" in answer
        assert all(len(line.split()) == 4 for line in shown[:-1])


def test_files_of_the_command_line(tmp_path: Path) -> None:
    """The commands make a catalog that selects all streams, and the state of the last syncs."""
    make_catalog, update_state = re.findall(
        r"^python3 -c '(.*?)^' < \w", section(PAGE, "### On the command line:"), FENCED
    )

    def shell(code: str, messages: list[dict[str, Any]]) -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            input="\n".join(map(json.dumps, messages)),
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout

    with Sandbox(demo_environment()) as sandbox:
        settings = write(tmp_path / "config.json", config(sandbox))
        found = command("discover", "--config", settings).messages
        selected = tmp_path / "catalog.json"
        selected.write_text(shell(make_catalog, found))
        read_all = ("read", "--config", settings, "--catalog", str(selected))
        first = command(*read_all)
        for messages in (first.messages, [{"type": "LOG"}]):
            shell(update_state, messages)
        state = tmp_path / "state.json"
        second = command(*read_all, "--state", str(state))

    assert {entry["stream"]["name"] for entry in json.loads(selected.read_text())["streams"]} == (
        set(ALL_STREAMS)
    )
    assert len(json.loads(state.read_text())) == len(ALL_STREAMS)
    assert len(first.of_type("RECORD")) > 1
    assert second.failure is None
    assert second.of_type("RECORD") == []


def test_meltano() -> None:
    """The settings for Meltano are valid, and their keys are those of the streams."""
    (text,) = block("### With Meltano:", "yaml")
    given = yaml.safe_load(text)["plugins"]["extractors"][0]["config"]
    image = yaml.safe_load((ROOT / "metadata.yaml").read_text())["data"]["dockerRepository"]
    config = Config.parse({**given["airbyte_config"], "integrated_account_id": id_of(0)})
    streams = Streams.build(Config.parse(CONFIG))
    keys = {name: getattr(streams, name).primary_key for name in STREAMS}

    assert given["airbyte_spec"]["image"] == image
    assert config.skip_failed_accounts
    assert {
        name: options["__key_properties__"] for name, options in given["stream_maps"].items()
    } == {name: key for name, key in keys.items() if isinstance(key, list)}


def test_models() -> None:
    """The guide and the dbt package have the same models, and each column is described."""
    folder = ROOT / "dbt"
    models = {path.stem for path in (folder / "models").glob("*.sql")}
    described = yaml.safe_load((folder / "models" / "truto.yml").read_text())["models"]
    (text,) = block("## Models for dbt", "yaml")
    declared = yaml.safe_load((folder / "dbt_project.yml").read_text())["vars"]
    table = rows(section(PAGE, "## Models for dbt"))

    assert {row[0].strip("`") for row in table} == {model["name"] for model in described} == models
    assert (
        yaml.safe_load(text)["vars"]["truto_segments"].keys() == declared["truto_segments"].keys()
    )
    assert all(column["description"] for model in described for column in model["columns"])
