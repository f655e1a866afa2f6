"""Runs the connector exactly as Airbyte does, and loads what it reads into DuckDB."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
DATABASE = ROOT / "demo.duckdb"
COMMAND = "source-truto-segments"
STREAM = "segments"
CATALOG = "catalog.json"
RECORDS = "records.jsonl"
# The virtual environment's Python; resolving the link would lead out of the environment.
PYTHON = Path(sys.executable)

TOKEN_VARIABLE = "TRUTO_TOKEN"  # noqa: S105 - the name of the variable
ACCOUNT_VARIABLE = "TRUTO_INTEGRATED_ACCOUNT_ID"
URL_VARIABLE = "TRUTO_API_URL"

_SECONDS_BETWEEN_PROGRESS = 5.0

_SUMMARY = """
    SELECT
      coalesce(vendor, integrated_account_id),
      count(segments.integrated_account_id),
      strftime(
        max(greatest(created_at, updated_at, last_calculated_at)) AT TIME ZONE 'UTC', '%Y-%m-%d'
      )
    FROM accounts LEFT JOIN segments USING (integrated_account_id)
    GROUP BY ALL
    ORDER BY ALL
"""
_EXAMPLE = (
    "SELECT vendor, name, status, updated_at FROM segments JOIN accounts "
    "USING (integrated_account_id) ORDER BY updated_at DESC NULLS LAST LIMIT 10"
)
_QUERY = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).sql(sys.argv[2]))"


class DemoError(Exception):
    """What stopped the demo, as a sentence."""


@dataclass(frozen=True)
class Sync:
    """One configuration of the connector, and the accounts that it reads.

    Attributes:
        label: What is read, for the screen.
        config: The configuration as Airbyte writes it; it holds the token.
        accounts: The vendor of each account, by its ID; None where it is not known.
    """

    label: str
    config: Mapping[str, Any]
    accounts: Mapping[str, str | None]

    @property
    def config_name(self) -> str:
        """The file that the configuration is written to."""
        return f"{self.label}.json"


@dataclass
class Outcome:
    """What one run of the connector printed.

    Attributes:
        messages: All messages of the protocol but logs and records.
        records: How many records there were, by stream.
        seconds: How long it took.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    records: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def of_type(self, kind: str) -> list[Any]:
        """The contents of the messages of a type, such as CATALOG."""
        key = "connectionStatus" if kind == "CONNECTION_STATUS" else kind.lower()
        return [message[key] for message in self.messages if message["type"] == kind]

    @property
    def failure(self) -> str | None:
        """The connector's own sentence on what went wrong; the last one sums up."""
        told = [trace["error"]["message"] for trace in self.of_type("TRACE") if "error" in trace]
        return told[-1] if told else None

    @property
    def stream_status(self) -> str | None:
        """How the stream ended."""
        traces = [trace["stream_status"] for trace in self.of_type("TRACE") if _is_status(trace)]
        return traces[-1]["status"] if traces else None


def main() -> int:
    """Runs the demo; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        # Its mode is 700; the configuration in it holds the token.
        with tempfile.TemporaryDirectory(prefix="truto-demo-") as name, _sync() as sync:
            run(sync, Path(name))
    except DemoError as failure:
        _say(f"\nThe demo stopped: {failure}")
        return 1
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        return 130
    return 0


def run(sync: Sync, folder: Path) -> None:
    """Does what Airbyte does: asks for the form, checks, discovers, reads and loads."""
    DATABASE.unlink(missing_ok=True)
    _say("\n1. What can be configured?")
    _tell_spec(_connector(folder, ["spec"]))

    _write(folder / sync.config_name, sync.config)
    config = ["--config", sync.config_name]
    _say("\n2. Can it be read?")
    _tell_check(_connector(folder, ["check", *config]))
    _say("\n3. Which columns are there?")
    stream = _tell_discover(_connector(folder, ["discover", *config]))

    _say("\n4. Read.")
    _write(folder / CATALOG, _configured(stream))
    emitted = _read(sync, folder)

    _say(f"\n5. Load into {DATABASE.name}.")
    accounts = list(sync.accounts.items())
    loaded, summary = load(folder / RECORDS, stream["json_schema"]["properties"], accounts)
    if loaded != emitted:
        raise DemoError(
            f"{emitted:,} records were read, but {loaded:,} are in the table of {DATABASE}. "
            "Please report this to the connector's maintainers."
        )
    _say(f"   {loaded:,} records read, {loaded:,} rows in the table {STREAM}.\n")
    whose = "account" if None in dict(accounts).values() else "vendor"
    _say(_table((whose, "segments", "newest"), summary))
    query = [str(PYTHON), "-c", _QUERY, str(DATABASE), _EXAMPLE]
    _say(f"\nTo query them:\n{shlex.join(query)}")


def load(
    records: Path, properties: Mapping[str, Any], accounts: Sequence[tuple[str, str | None]]
) -> tuple[int, list[tuple[Any, ...]]]:
    """Loads records into DuckDB, in the types of the discovered schema.

    Returns:
        The rows in the table, and for each account its vendor, its segments and its newest date.
    """
    types = {name: column_type(schema) for name, schema in properties.items()}
    # Objects and lists are read as JSON, date-times as text to be cast.
    read_as = {name: "VARCHAR" if "TIME" in kind else kind for name, kind in types.items()}
    columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in types.items())
    casts = ", ".join(f"{_quoted(name)}::{kind}" for name, kind in types.items())
    with duckdb.connect(str(DATABASE)) as connection:
        connection.execute("CREATE TABLE accounts (integrated_account_id TEXT, vendor TEXT)")
        connection.executemany("INSERT INTO accounts VALUES (?, ?)", accounts)
        connection.execute(f"CREATE TABLE {STREAM} ({columns})")
        connection.execute(
            f"INSERT INTO {STREAM} SELECT {casts} FROM "  # noqa: S608 - names of the schema, quoted
            "read_json(?, format = 'newline_delimited', columns = ?)",
            [str(records), read_as],
        )
        (loaded,) = connection.execute(f"SELECT count(*) FROM {STREAM}").fetchall()[0]  # noqa: S608
        return loaded, connection.execute(_SUMMARY).fetchall()


def column_type(schema: Mapping[str, Any]) -> str:
    """The DuckDB type for a column's JSON schema."""
    given = schema.get("type", [])
    kinds = set([given] if isinstance(given, str) else given) - {"null"}
    if len(kinds) != 1:
        return "JSON"
    if schema.get("format") == "date-time":
        with_zone = schema.get("airbyte_type") != "timestamp_without_timezone"
        return "TIMESTAMPTZ" if with_zone else "TIMESTAMP"
    plain = {"string": "TEXT", "boolean": "BOOLEAN", "integer": "BIGINT", "number": "DOUBLE"}
    return plain.get(kinds.pop(), "JSON")


@contextmanager
def _sync() -> Iterator[Sync]:
    """What is to be read: an account at Truto where one is named, else those of the sandbox."""
    token, account_id = os.environ.get(TOKEN_VARIABLE), os.environ.get(ACCOUNT_VARIABLE)
    if token and account_id:
        config: dict[str, Any] = {"token": token, "integrated_account_id": account_id}
        if url := os.environ.get(URL_VARIABLE):
            config["api_url"] = url
        _say(f"Reading from {config.get('api_url', 'Truto')}, as {TOKEN_VARIABLE} is set.")
        yield Sync("account", config, {account_id.strip().lower(): None})
        return
    if token or account_id:
        missing = ACCOUNT_VARIABLE if token else TOKEN_VARIABLE
        raise DemoError(
            f"{missing} is missing. To read an account of your own set {TOKEN_VARIABLE} and "
            f"{ACCOUNT_VARIABLE}; to read the made-up ones set neither."
        )
    with _sandbox() as sandbox:
        _say(
            f"Reading made-up accounts from {sandbox['url']}, a server on this machine. To read "
            f"your own, set {TOKEN_VARIABLE} and {ACCOUNT_VARIABLE}."
        )
        accounts = {account["id"]: account["vendor"] for account in sandbox["accounts"]}
        config = {
            "token": sandbox["token"],
            "integrated_account_id": next(iter(accounts)),
            # One sync for the accounts of all vendors.
            "additional_accounts": {"mode": "all"},
            "api_url": sandbox["url"],
        }
        yield Sync("accounts", config, accounts)


@contextmanager
def _sandbox() -> Iterator[dict[str, Any]]:
    """Runs the sandbox for the time of the block, and hands out how it describes itself."""
    # A proxy is for other machines.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    with subprocess.Popen(
        [str(PYTHON), "-m", "sandbox", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                said = process.stderr.read().strip() if process.stderr else ""
                raise DemoError(f"The sandbox did not start. It said: {said or 'nothing'}")
            yield json.loads(line)
        finally:
            process.terminate()


def _connector(folder: Path, arguments: Sequence[str]) -> Outcome:
    """Runs the connector in a folder and takes in what it prints; records are added to a file.

    Raises:
        DemoError: If it fails, in its own words.
    """
    _say(f"   $ {shlex.join([COMMAND, *arguments])}")
    outcome = Outcome()
    started = time.monotonic()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        (folder / RECORDS).open("a", encoding="utf-8") as sink,
        subprocess.Popen(
            [str(PYTHON.with_name(COMMAND)), *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        ) as process,
    ):
        try:
            for message in _messages(process):
                if message["type"] == "RECORD":
                    record = message["record"]
                    outcome.records[record["stream"]] += 1
                    sink.write(f"{json.dumps(record['data'])}\n")
                elif message["type"] != "LOG":
                    outcome.messages.append(message)
            process.wait()
        finally:
            # Where the demo is ended, so is what it waits for.
            process.terminate()
        errors.seek(0)
        said = errors.read().strip()
    outcome.seconds = time.monotonic() - started
    if process.returncode != 0 or outcome.failure:
        raise DemoError(
            outcome.failure
            or f"{COMMAND} ended with exit code {process.returncode}. It said: {said or 'nothing'}"
        )
    return outcome


def _messages(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The messages of the protocol, as they come; a long read is told of from time to time."""
    told = time.monotonic()
    for count, line in enumerate(process.stdout or ()):
        if time.monotonic() - told >= _SECONDS_BETWEEN_PROGRESS:
            told = time.monotonic()
            _say(f"     ... {count:,} messages so far")
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            raise DemoError(
                f"{COMMAND} printed a line that is no message of Airbyte's protocol: {line.strip()}"
            ) from None


def _tell_spec(outcome: Outcome) -> None:
    spec = _only(outcome, "SPEC")["connectionSpecification"]
    properties = spec["properties"]
    required = [properties[name]["title"] for name in spec["required"]]
    shown = [name for name in properties if not properties[name].get("airbyte_hidden")]
    optional = [properties[name]["title"] for name in shown if name not in spec["required"]]
    _say(f"     required: {', '.join(required)}")
    _say(f"     optional: {', '.join(optional)}    [{outcome.seconds:.1f} s]")


def _tell_check(outcome: Outcome) -> None:
    status = _only(outcome, "CONNECTION_STATUS")
    if status["status"] != "SUCCEEDED":
        raise DemoError(f"the check failed. {status.get('message', '')}")
    _say(f"     {status['status']}    [{outcome.seconds:.1f} s]")


def _tell_discover(outcome: Outcome) -> dict[str, Any]:
    catalog = _only(outcome, "CATALOG")
    stream: dict[str, Any] = next(
        stream for stream in catalog["streams"] if stream["name"] == STREAM
    )
    columns = stream["json_schema"]["properties"]
    _say(f"     stream {STREAM}: {', '.join(columns)}    [{outcome.seconds:.1f} s]")
    return stream


def _read(sync: Sync, folder: Path) -> int:
    """Reads what a configuration names to its end; returns how many records were emitted."""
    arguments = ["read", "--config", sync.config_name, "--catalog", CATALOG]
    outcome = _connector(folder, arguments)
    if outcome.stream_status != "COMPLETE":
        raise DemoError(
            f"the stream {STREAM} of {sync.label} ended as {outcome.stream_status}, not COMPLETE."
        )
    count = outcome.records[STREAM]
    _say(
        f"     {count:,} records, {len(outcome.of_type('STATE'))} state, "
        f"{outcome.stream_status}    [{outcome.seconds:.1f} s]"
    )
    return count


def _configured(stream: Mapping[str, Any]) -> dict[str, Any]:
    """The catalog as Airbyte configures it for a full refresh."""
    modes = {"sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
    return {"streams": [{"stream": stream, **modes}]}


def _only(outcome: Outcome, kind: str) -> dict[str, Any]:
    messages = outcome.of_type(kind)
    if len(messages) != 1:
        raise DemoError(f"{COMMAND} printed {len(messages)} messages of the type {kind}, not one.")
    only: dict[str, Any] = messages[0]
    return only


def _is_status(trace: Mapping[str, Any]) -> bool:
    status = trace.get("stream_status", {})
    return bool(status) and status["stream_descriptor"]["name"] == STREAM


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [list(head), *(["-" if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join(
        f"   {name:<{widths[0]}}  {count:>{widths[1]}}  {newest:<{widths[2]}}".rstrip()
        for name, count, newest in lines
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    # By raising, so that the sandbox is ended and the configuration is removed on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
