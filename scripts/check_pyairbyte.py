"""Read the sandbox through PyAirbyte into DuckDB and PostgreSQL, and compare all tables with it.

The expected rows come from the sandbox alone. PyAirbyte does not delete a row: it stays, with the
date in `_ab_cdc_deleted_at` and no other values.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox import Account, Fault, Request, Sandbox, demo_environment, faults
from sandbox.accounts import account_object
from sandbox.vendors import workspace_data
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

SEGMENTS, ACCOUNTS, WORKSPACES = "segments", "integrated_accounts", "workspaces"
WRONG_TOKEN = "no-such-token"  # noqa: S105 - valid nowhere

Key = tuple[str, ...]
Row = dict[str, Any]
Rows = dict[Key, Row]
DELETED: Row = {}


class Replica:
    """A database that PyAirbyte keeps up to date with the sandbox."""

    def __init__(self, airbyte: Any, sandbox: Sandbox, cache: Any) -> None:
        self._airbyte = airbyte
        self._cache = cache
        self._accounts = sandbox.environment.accounts
        self._config = sandbox.config
        self._expected: Rows = {}
        self._has_state = False

    def connector(self, **fields: Any) -> Any:
        """Return the connector with its configuration, in which `fields` are changed."""
        config = {**self._config, **fields}
        return self._airbyte.get_source(CONNECTOR, config=config, local_executable=PROGRAM)

    def source(self, **fields: Any) -> Any:
        """Return the connector with all streams selected, for which PyAirbyte runs `discover`."""
        source = self.connector(**fields)
        source.select_all_streams()
        return source

    def sync(
        self,
        label: str,
        *,
        full_refresh: bool = False,
        failure: str | None = None,
        expected: Rows | None = None,
        **fields: Any,
    ) -> None:
        """Read into the database, and compare the tables and the number of records sent.

        Args:
            label: What is done, for the output.
            full_refresh: Whether the tables are replaced.
            failure: What the connector has to report; the tables then stay as they are.
            expected: The rows that the tables should have; by default, the sandbox's current ones.
            fields: Changes of the configuration for this sync.

        Raises:
            ScriptError: If anything is not as expected.
        """
        started = time.monotonic()
        before, rows = self._expected, expected or _held(self._accounts)
        if not full_refresh:
            rows = {**dict.fromkeys(before, DELETED), **rows}
        due = [key for key in rows if rows[key] != before.get(key)]
        if failure:
            rows, due = before, []
        elif full_refresh or not self._has_state:
            due = list(rows)
        sent = self._read(label, failure, full_refresh=full_refresh, **fields)
        _compare(label, rows, self._tables())
        if sent != len(due):
            raise ScriptError(f"{label}: {len(due)} records should be sent, but {sent} were.")
        self._expected = rows
        if not failure:
            # A full refresh leaves no state, so the next sync sends everything.
            self._has_state = not full_refresh
        say(f"   {label:<64}{sent:>5}{len(rows):>6}{time.monotonic() - started:>7.1f} s")

    def _read(self, label: str, failure: str | None, *, full_refresh: bool, **fields: Any) -> int:
        """Read into the database; return the number of records sent.

        Raises:
            ScriptError: If the read fails, or does not report the expected failure.
        """
        with quietly() as output:
            try:
                result = self.source(**fields).read(
                    cache=self._cache,
                    write_strategy="replace" if full_refresh else "auto",
                    force_full_refresh=full_refresh,
                )
            except self._airbyte.exceptions.PyAirbyteError as error:
                reported = " ".join(f"{error} {output.getvalue()}".split())
                if failure is None or failure not in reported:
                    raise ScriptError(f"{label}: it should not fail with: {reported}") from None
                return 0
        if failure:
            raise ScriptError(f"{label}: it should fail, but succeeded.")
        sent: int = result.processed_records
        return sent

    def _tables(self) -> Rows:
        found: Rows = {}
        for table in (SEGMENTS, ACCOUNTS, WORKSPACES):
            rows = self._cache.run_sql_query(f"SELECT * FROM {table}")  # noqa: S608
            keys = ["id"] if table == ACCOUNTS else ["integrated_account_id", "id"]
            keyed = {(table, *(row[key] for key in keys)): row for row in rows}
            if len(keyed) != len(rows):
                raise ScriptError(f"{len(rows) - len(keyed)} rows of {table} repeat another's key.")
            found |= keyed
        return found


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="truto-pyairbyte-") as name:
        airbyte = import_pyairbyte(Path(name))
        say(f"{'PyAirbyte ' + airbyte.version.get_version():<67} sent  rows")
        say("DuckDB")
        with quietly():
            cache = airbyte.new_local_cache("truto", cache_dir=Path(name) / "duckdb")
        with Sandbox(demo_environment()) as sandbox:
            replica = Replica(airbyte, sandbox, cache)
            check_syncs(replica, sandbox.environment.accounts)
            check_changes_of_the_connection(replica, sandbox.environment.accounts)
            check_failures(replica, sandbox.environment.accounts)
            check_token(airbyte, replica)
        say("PostgreSQL")
        with Sandbox(demo_environment()) as sandbox, postgresql(Path(sys.argv[1])) as cache:
            replica = Replica(airbyte, sandbox, cache)
            check_syncs(replica, sandbox.environment.accounts)
            check_changes_of_the_connection(replica, sandbox.environment.accounts)
    say(f"\nAll tables equal what the sandbox holds ({time.monotonic() - started:.0f} s).")


def check_syncs(replica: Replica, accounts: Sequence[Account]) -> None:
    """Check full refresh and incremental syncs, with changes of every kind in between."""
    of = {account.vendor: account for account in accounts}
    replica.sync("full refresh", full_refresh=True)
    rename(of["klaviyo"], 3)
    add(of["brevo"])
    delete(of["flodesk"], 2)
    replica.sync("full refresh: one renamed, one added, one deleted", full_refresh=True)
    replica.sync("the first incremental sync")
    replica.sync("nothing changed")

    flodesk = of["flodesk"].segments
    # A vendor can write dates with the zone of the account.
    rename(of["klaviyo"], 5, description=None, updated_at="2025-09-02T10:00:00+02:00")
    rename(of["activecampaign"], 5, remote_data={"a": [None, {"b": 0.1}, "é"]})
    rename(of["customerio"], 0)
    add(of["mailerlite"])
    delete(of["activecampaign"], 0)
    delete(of["flodesk"], 0)
    workspaces = of["beehiiv"].workspaces
    first, second = workspaces
    workspaces[first] = [{**workspaces[first][0], "status": "inactive"}, *workspaces[first][2:]]
    of["beehiiv"].workspace_names[second] = "Renamed"
    of["brevo"].last_error = "The vendor did not respond."
    replica.sync("four changed, one added, three deleted; a workspace, an account")
    of["flodesk"].segments = flodesk
    replica.sync("a deleted one is back")
    del workspaces[first]
    replica.sync("a workspace is gone, with its segments")
    replica.sync("full refresh: the deleted rows are gone", full_refresh=True)
    replica.sync("incremental, after it")


def check_changes_of_the_connection(replica: Replica, accounts: Sequence[Account]) -> None:
    """Check a column that is selected later, an account that is left out, and differing reads."""
    of = {account.vendor: account for account in accounts}
    # The columns come from the model of the configured account, the first one.
    known, first = _held(accounts), accounts[0]
    first.segments = [{**segment, "owner": "north"} for segment in first.segments]
    replica.sync("a field that is no column", expected=known)
    first.custom_fields = {"owner": {"type": "string"}}
    replica.sync("the custom column is selected later")

    others = {"mode": "all", "integrations": [name for name in of if name != "mailerlite"]}
    known = _held(accounts)
    delete(of["mailerlite"], 1)
    replica.sync("an account is left out", expected=known, additional_accounts=others)
    replica.sync("it is back: one of its segments was deleted")

    brevo = of["brevo"]
    delete(brevo, 3)
    before = brevo.segments
    rename(brevo, 0)
    after, brevo.segments, starts = brevo.segments, before, itertools.count(1)

    def when(request: Request) -> bool:
        is_start = request.kind == "segments" and request.param("next_cursor") is None
        if is_start and next(starts) == 2:  # noqa: PLR2004 - the second read
            brevo.segments = after
        return False

    brevo.faults.append(Fault(times=None, when=when))
    renamed = _held([*(a for a in accounts if a is not brevo), replace(brevo, segments=after)])
    replica.sync("one deleted, and one renamed between the two reads", expected=renamed)
    brevo.faults.clear()
    replica.sync("nothing changed after it")


def check_failures(replica: Replica, accounts: Sequence[Account]) -> None:
    """Check syncs in which one of seven accounts is blocked from its second page on."""
    blocked, other = accounts[:2]
    block = faults.account_blocked(after=1, times=None, kind="segments")
    reason = (
        f"Reading the segments of integrated account {blocked.id} failed: Truto has blocked "
        "this account"
    )
    for mode, full_refresh in (("incremental", False), ("full refresh", True)):
        blocked.faults.append(block)
        rename(blocked, 1)
        rename(other, 2)
        replica.sync(f"{mode}: an account is blocked", failure=reason, full_refresh=full_refresh)
        blocked.faults.clear()
        replica.sync(f"{mode}: it is no longer blocked", full_refresh=full_refresh)
    replica.sync("incremental again")

    blocked.faults.append(block)
    rename(other, 4)
    delete(other, 7)
    expected = _held(accounts)
    rename(blocked, 40)
    replica.sync("a blocked account is skipped", expected=expected, on_account_error="skip")
    blocked.faults.clear()
    replica.sync("it is no longer blocked")


def check_token(airbyte: Any, replica: Replica) -> None:
    """Check that the connector's check accepts the right token, and reports a wrong one."""
    reported = ""
    with quietly():
        replica.connector().check()
        try:
            replica.connector(token=WRONG_TOKEN).check()
        except airbyte.exceptions.AirbyteConnectorCheckFailedError as failure:
            reported = str((failure.context or {}).get("failure_reason"))
    if "Truto rejected the API token" not in reported or WRONG_TOKEN in reported:
        raise ScriptError(
            f"The check should report that the token is wrong; it reports: {reported!r}"
        )
    say("   check: the right token and a wrong one")


def _held(accounts: Sequence[Account]) -> Rows:
    """Return the rows that the three tables should have according to the sandbox now."""
    rows: Rows = {}
    for account in accounts:
        tool = {"integration": account.vendor, "integration_label": account.integration.label}
        rows[ACCOUNTS, account.id] = {**account_object(account), **tool}
        for workspace in account.workspaces:
            name = account.workspace_names[workspace]
            created_at, remote_data = workspace_data(account.vendor, workspace, name)
            row = {"name": name, "created_at": created_at, "remote_data": remote_data}
            rows[WORKSPACES, account.id, workspace] = row
        for workspace_id, segment in segments_of(account):
            row = {**segment, "workspace_id": workspace_id}
            rows[SEGMENTS, account.id, segment["id"]] = row
    return rows


def _compare(label: str, expected: Rows, found: Rows) -> None:
    """Compare whole tables.

    Raises:
        ScriptError: If a row is missing, unexpected or different.
    """
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or extra:
        raise ScriptError(
            f"{label}: the tables should have {len(expected)} rows, but have {len(found)}. "
            f"Missing: {sorted(missing)[:3]}. Too many: {sorted(extra)[:3]}."
        )
    for key, row in expected.items():
        actual = found[key]
        columns = {c for c in actual if not c.startswith("_")} - {"integrated_account_id", "id"}
        wrong = [
            f"{column} is {actual[column]!r}, not {row.get(column)!r}"
            for column in columns
            if _comparable(actual, column) != _comparable(row, column)
        ]
        if (actual["_ab_cdc_deleted_at"] is not None) != (row is DELETED):
            wrong.append(f"_ab_cdc_deleted_at is {actual['_ab_cdc_deleted_at']}")
        if wrong:
            raise ScriptError(f"{label}: the row {key} is not as it should be: {'; '.join(wrong)}.")


def _comparable(row: Mapping[str, Any], column: str) -> Any:
    """Return a value in a form that can be compared; the tables' dates are in UTC."""
    value = row.get(column)
    if column.endswith("_at") and isinstance(value, int):
        value = datetime.fromtimestamp(value, timezone.utc)
    elif column.endswith("_at") and isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, datetime):
        zone = value.tzinfo or timezone.utc
        return value.replace(tzinfo=zone).astimezone(timezone.utc)
    # PyAirbyte loads PostgreSQL with pandas, which changes the last digit of a float.
    return json.loads(json.dumps(value), parse_float=lambda digits: round(float(digits), 12))


@contextmanager
def postgresql(initdb: Path) -> Iterator[Any]:
    """Run a PostgreSQL server in a temporary folder; yield PyAirbyte's cache on it.

    Raises:
        ScriptError: If it does not start.
    """
    user = None
    if os.getuid() == 0:
        # PostgreSQL refuses to run as root.
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="truto-postgresql-") as name:
        if user:
            shutil.chown(name, user)

        def run(program: str, *options: str) -> None:
            command = [str(initdb.with_name(program)), "-D", f"{name}/data", *options]
            with Path(name, "output").open("a+", encoding="utf-8") as output:
                done = subprocess.run(
                    command, cwd=name, stdout=output, stderr=output, user=user, check=False
                )
                if done.returncode != 0:
                    output.seek(0)
                    raise ScriptError(f"PostgreSQL does not start: {output.read()[-1000:]}")

        run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")
        run("pg_ctl", "-o", f"-p {port} -k {name} -c listen_addresses=127.0.0.1", "start")
        try:
            yield importlib.import_module("airbyte.caches").PostgresCache(
                host="127.0.0.1",
                port=port,
                username="postgres",
                password="",
                database="postgres",
                schema_name="public",
            )
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


def import_pyairbyte(folder: Path) -> Any:
    """Import PyAirbyte, which reads its settings from the environment only when it is imported."""
    os.environ.update(
        AIRBYTE_OFFLINE_MODE="1",
        AIRBYTE_PROJECT_DIR=str(folder),
        AIRBYTE_LOGGING_ROOT=str(folder / "logs"),
        AIRBYTE_TEMP_DIR=str(folder),
        NO_LIVE_PROGRESS="1",
    )
    with quietly():
        return importlib.import_module("airbyte")


@contextmanager
def quietly() -> Iterator[io.StringIO]:
    """Capture what PyAirbyte prints."""
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        yield output


if __name__ == "__main__":
    sys.exit(run_script(main))
