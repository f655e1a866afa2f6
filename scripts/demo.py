"""Run the connector as Airbyte does, and keep the tables of a DuckDB database up to date."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from sandbox import Account, Sandbox, break_account, demo_environment
from sandbox.protocol import configured_catalog, last_states
from scripts._common import (
    CONNECTOR,
    PROGRAM,
    ScriptError,
    add,
    delete,
    rename,
    run_script,
    say,
    segments_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DATABASE = Path(__file__).resolve().parent.parent / "demo.duckdb"

TOKEN_VARIABLE = "TRUTO_TOKEN"  # noqa: S105 - the name of the variable
ACCOUNT_VARIABLE = "TRUTO_INTEGRATED_ACCOUNT_ID"
URL_VARIABLE = "TRUTO_API_URL"

INDENT = "     "
INDENTED: Mapping[str, Any] = {"subsequent_indent": INDENT, "break_on_hyphens": False}
DUCKDB_TYPES = {"string": "TEXT", "boolean": "BOOLEAN", "integer": "BIGINT", "number": "DOUBLE"}
RECORDS = """
    CREATE OR REPLACE TEMP TABLE records AS
    SELECT record.stream, record.data, to_timestamp(record.emitted_at / 1000) AS extracted_at
    FROM read_json({path}, format = 'newline_delimited', columns =
        {{type: 'TEXT', record: 'STRUCT(stream TEXT, data JSON, emitted_at BIGINT)'}})
    WHERE type = 'RECORD'
"""
# Do what destinations do in the mode append_dedup: for each key, keep the row with the greatest
# cursor, unless it is a tombstone.
MERGE = """
    CREATE TABLE IF NOT EXISTS {table} AS SELECT {columns} FROM records LIMIT 0;
    CREATE OR REPLACE TABLE {table} AS
    SELECT * FROM (
        SELECT * FROM {table} UNION ALL SELECT {columns} FROM records WHERE stream = '{table}'
    )
    QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {cursor} DESC) = 1
        AND _ab_cdc_deleted_at IS NULL
"""
# A tombstone has only the key, so take the name from the row that it deletes.
KNOWN = "CREATE OR REPLACE TEMP TABLE known AS SELECT integrated_account_id, id, name FROM segments"
# The parentheses are for DuckDB 1, in which = binds tighter than ->>.
SENT = """
    SELECT stream, coalesce(data->>'name', data->>'tenant_id', known.name) AS name,
        (data->>'_ab_cdc_deleted_at') IS NOT NULL AS deleted, data->>'status' AS status
    FROM records
    LEFT JOIN known ON stream = 'segments' AND known.id = (data->>'id')
        AND known.integrated_account_id = (data->>'integrated_account_id')
    ORDER BY ALL LIMIT 10
"""
SUMMARY = """
    SELECT tenant_id AS customer, integration_label AS tool, count(segments.id) AS segments,
        max(greatest(segments.created_at, segments.updated_at, last_calculated_at))::DATE AS newest,
        accounts.status AS connection
    FROM integrated_accounts AS accounts
    LEFT JOIN segments ON accounts.id = integrated_account_id
    GROUP BY ALL ORDER BY ALL
"""
MUST_RECONNECT = """
    SELECT tenant_id AS customer, integration_label AS tool, status, last_error
    FROM integrated_accounts
    WHERE status <> 'active' OR last_forbidden_error IS NOT NULL ORDER BY ALL
"""
EXAMPLE = "SELECT name, updated_at FROM segments ORDER BY updated_at DESC NULLS LAST LIMIT 5"


class Connector:
    """Runs the installed command in a folder with its configuration, catalog and state."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self.output = folder / "messages.jsonl"
        self.write("config.json", config)

    def write(self, name: str, content: Any) -> None:
        (self._folder / name).write_text(json.dumps(content), encoding="utf-8")

    def run(self, command: str, *options: str) -> list[Any]:
        """Run a command, and write its messages to a file.

        Returns:
            The result of the command: the spec, the status, the catalog or the states.

        Raises:
            ScriptError: If it fails, with the connector's own message.
        """
        say(f"   $ {shlex.join([CONNECTOR, command, *options])}")
        found: list[Any] = []
        failure = ""
        with (
            self.output.open("w", encoding="utf-8") as file,
            subprocess.Popen(
                [str(PROGRAM), command, *options],
                cwd=self._folder,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    file.write(line)
                    match json.loads(line):
                        case (
                            {"spec": content}
                            | {"connectionStatus": content}
                            | {"catalog": content}
                            | {"state": content}
                        ):
                            found.append(content)
                        case {"trace": {"error": {"message": text}}}:
                            failure = text
                        case {"log": {"level": level, "message": text}} if (
                            level == "WARN" or text.startswith("Progress")
                        ):
                            say(textwrap.fill(text, 100, initial_indent=INDENT, **INDENTED))
                process.wait()
            finally:
                process.terminate()
        if failure or process.returncode != 0:
            raise ScriptError(
                failure or f"The connector ended with exit code {process.returncode}."
            )
        return found


def load(
    database: duckdb.DuckDBPyConnection, streams: Sequence[Mapping[str, Any]], output: Path
) -> int:
    """Merge the records of a read into the tables; return how many there were."""
    database.execute(RECORDS.format(path=_literal(str(output))))
    counts = "SELECT stream, count(*) FROM records GROUP BY stream"
    sent = dict(database.sql(counts).fetchall())
    for stream in streams:
        table = stream["name"]
        columns = [
            f"CAST(data->>{_literal(name)} AS {_column_type(schema)}) AS {_identifier(name)}"
            for name, schema in stream["json_schema"]["properties"].items()
        ]
        # Destinations add this column: when the connector emitted the row.
        columns.append("extracted_at AS _airbyte_extracted_at")
        merge = MERGE.format(
            table=table,
            columns=", ".join(columns),
            key=", ".join(key for (key,) in stream["source_defined_primary_key"]),
            cursor=stream["default_cursor_field"][0],
        )
        database.execute(merge)
        rows = len(database.table(table))
        say(f"     {table}: records sent: {sent.get(table, 0):,}; rows in the table: {rows:,}")
    say("")
    return sum(sent.values())


def main() -> None:
    # The folder's mode is 700, as the configuration in it contains the token.
    with tempfile.TemporaryDirectory(prefix="truto-demo-") as name, _target() as target:
        config, accounts = target
        run(Connector(Path(name), config), accounts)


def run(connector: Connector, accounts: Sequence[Account]) -> None:
    """Do what Airbyte does in the first two syncs of a connection.

    Args:
        connector: The connector.
        accounts: The sandbox's accounts, to change between the syncs; empty if Truto is read.
    """
    say("\n1. What can be configured?")
    (spec,) = connector.run("spec")
    properties = spec["connectionSpecification"]["properties"].values()
    titles = [field["title"] for field in properties if not field.get("airbyte_hidden")]
    say(f"     {', '.join(titles)}")

    say("\n2. Can it be read?")
    config = ("--config", "config.json")
    (status,) = connector.run("check", *config)
    if status["status"] != "SUCCEEDED":
        raise ScriptError(status["message"])
    say(f"     {status['status']}")

    say("\n3. Which tables and columns are there?")
    (catalog,) = connector.run("discover", *config)
    streams = catalog["streams"]
    for stream in streams:
        say(f"     {stream['name']}: {', '.join(stream['json_schema']['properties'])}")
    connector.write("catalog.json", configured_catalog(streams))

    for path in DATABASE.parent.glob(f"{DATABASE.name}*"):
        path.unlink()
    with duckdb.connect(str(DATABASE)) as database:
        say(f"\n4. The first sync, into {DATABASE.name}")
        read = ("read", *config, "--catalog", "catalog.json")
        connector.write("state.json", last_states(connector.run(*read)))
        load(database, streams, connector.output)
        say(str(database.sql(SUMMARY)))

        say("5. The second sync: only what has changed since")
        if accounts:
            _change({account.vendor: account for account in accounts})
        database.execute(KNOWN)
        connector.run(*read, "--state", "state.json")
        if load(database, streams, connector.output):
            say(str(database.sql(SENT)))
        say(str(database.sql(SUMMARY)))
        say("6. Who must reconnect?")
        say(str(database.sql(MUST_RECONNECT)))
        held = sum(1 for account in accounts for _ in segments_of(account))
        rows = len(database.table("segments"))
        if accounts and held != rows:
            raise ScriptError(
                f"The sandbox has {held:,} segments, but the table has {rows:,} rows."
            )
    say(f'To query the tables:\nbash scripts/query.sh "{EXAMPLE}"')


@contextmanager
def _target() -> Iterator[tuple[Mapping[str, Any], Sequence[Account]]]:
    """Yield the configuration for the account in the environment variables, or for the sandbox.

    Also yield the sandbox's accounts, or none.
    """
    token, account_id = os.environ.get(TOKEN_VARIABLE), os.environ.get(ACCOUNT_VARIABLE)
    if token and account_id:
        try:
            uuid.UUID(account_id)
        except ValueError:
            raise ScriptError(
                f"{ACCOUNT_VARIABLE} must be a UUID, such as 62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65. "
                "Copy it from Truto's list of integrated accounts."
            ) from None
        url = os.environ.get(URL_VARIABLE)
        say(f"Reading from {url or 'Truto'}, as {TOKEN_VARIABLE} is set.")
        config = {"token": token, "integrated_account_id": account_id}
        yield {**config, "api_url": url} if url else config, ()
        return
    if token or account_id:
        raise ScriptError(
            f"{ACCOUNT_VARIABLE if token else TOKEN_VARIABLE} is not set. To read an account of "
            f"your own, set {TOKEN_VARIABLE} and {ACCOUNT_VARIABLE}; to read made-up ones, neither."
        )
    with Sandbox(demo_environment()) as sandbox:
        say(
            f"Reading made-up accounts from {sandbox.url}, a server on this machine. To read one "
            f"of your own, set {TOKEN_VARIABLE} and {ACCOUNT_VARIABLE}."
        )
        yield {**sandbox.config, "on_account_error": "skip"}, sandbox.environment.accounts


def _change(accounts: Mapping[str, Account]) -> None:
    rename(accounts["klaviyo"], 3)
    add(accounts["mailerlite"])
    delete(accounts["flodesk"], 0)
    break_account(accounts["brevo"], "refused")
    say("   Renamed a segment of Klaviyo, added one to MailerLite, deleted one from Flodesk. The")
    say("   customer umbrella has revoked the API key of Brevo: its rows stay as they were.")


def _column_type(schema: Mapping[str, Any]) -> str:
    """Return the DuckDB type for a column's JSON schema: JSON if no simple type fits."""
    given = schema.get("type", [])
    kinds = set([given] if isinstance(given, str) else given) - {"null"}
    if schema.get("format") == "date-time":
        return "TIMESTAMPTZ"
    return DUCKDB_TYPES.get(kinds.pop(), "JSON") if len(kinds) == 1 else "JSON"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    sys.exit(run_script(main, OSError, ValueError, duckdb.Error))
