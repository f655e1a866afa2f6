"""Build the models in dbt/ on the tables of the demo and PyAirbyte, and compare their rows."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sandbox import Account, Sandbox, demo_environment
from scripts import demo
from scripts._common import (
    ScriptError,
    add,
    delete,
    rename,
    run_script,
    say,
    segments_of,
)
from scripts.check_pyairbyte import Replica, import_pyairbyte, postgresql, quietly

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
PROJECT, PAGE = ROOT / "dbt", ROOT / "docs" / "truto-segments.md"
FENCED = re.DOTALL | re.MULTILINE
DBT = Path(sys.executable).with_name("dbt")
HISTORY = "history_"
SCOPE = "segments:read"
SKIP = {"on_account_error": "skip"}
DELETED = "SELECT name FROM stg_truto__segment_history WHERE deleted_at IS NOT NULL"
# The path to the number of members in each vendor's own record.
MEMBERS = {
    "activecampaign": ("attributes", "counts", "last_total", "count"),
    "beehiiv": ("total_results",),
    "flodesk": ("total_active_subscribers",),
    "mailerlite": ("total",),
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="truto-dbt-") as name:
        folder = Path(name)
        airbyte = import_pyairbyte(folder)
        caches = importlib.import_module("airbyte.caches")

        demo.DATABASE = folder / "demo.duckdb"
        with Sandbox(demo_environment()) as sandbox:
            accounts = sandbox.environment.accounts
            config = {**sandbox.config, **SKIP}
            with quietly():
                demo.run(demo.Connector(folder, config), accounts)

        def of_demo(_prefix: str) -> Any:
            return caches.DuckDBCache(db_path=demo.DATABASE)

        target = {"type": "duckdb", "path": str(demo.DATABASE), "schema": "main"}
        _check("DuckDB, as the demo loads it", folder, target, of_demo, accounts)

        def in_duckdb(prefix: str) -> Any:
            return caches.DuckDBCache(db_path=folder / "cache.duckdb", table_prefix=prefix)

        target = {**target, "path": str(folder / "cache.duckdb")}
        _check_pyairbyte("DuckDB, as PyAirbyte loads it", folder, target, airbyte, in_duckdb)
        with postgresql(Path(sys.argv[1])) as server:
            access = {
                name: getattr(server, name) for name in ("host", "port", "password", "database")
            }

            def in_postgresql(prefix: str) -> Any:
                return caches.PostgresCache(
                    **access, username="postgres", schema_name="public", table_prefix=prefix
                )

            target = {"type": "postgres", "user": "postgres", "schema": "public", **access}
            _check_pyairbyte("PostgreSQL, likewise", folder, target, airbyte, in_postgresql)
    say("\nAll models equal what the sandbox holds.")


def _check_pyairbyte(
    label: str, folder: Path, target: Mapping[str, Any], airbyte: Any, cache_of: Any
) -> None:
    """Load twice, with changes in between, also as a history; check the models on these tables."""
    with Sandbox(demo_environment()) as sandbox:
        accounts = sandbox.environment.accounts
        cache, history = cache_of(""), cache_of(HISTORY)
        replica = Replica(airbyte, sandbox, cache)
        of = {account.vendor: account for account in accounts}
        deleted = of["flodesk"].segments[0]
        for first in (True, False):
            with quietly():
                source = replica.source(**SKIP)
                source.read(cache=cache)
                source.read(cache=history, write_strategy="append")
            if first:
                rename(of["klaviyo"], 3)
                add(of["mailerlite"])
                delete(of["flodesk"], 0)
                _hinder(of["brevo"], of["klaviyo"])
        # DuckDB lets only one process open the file.
        cache.close()
        history.close()
    _check(label, folder, target, cache_of, accounts, deleted=deleted["name"])


def _hinder(revoked: Account, denied: Account) -> None:
    """Make one customer have to reconnect, and a vendor deny access to another."""
    revoked.status, revoked.last_error = "needs_reauth", "The API key was revoked"
    denied.last_forbidden_error = {
        "resource": "segments",
        "method": "list",
        "missing_scopes": [SCOPE],
        "occurred_at": "2026-11-20T08:00:00Z",
    }


def _check(
    label: str,
    folder: Path,
    target: Mapping[str, Any],
    cache_of: Any,
    accounts: Sequence[Account],
    deleted: str | None = None,
) -> None:
    """Build and test the models, and compare them with the sandbox.

    Args:
        label: What is checked, for the output.
        folder: Where dbt writes.
        target: The database, as an output of a dbt profile.
        cache_of: Opens the database.
        accounts: The accounts from which the tables were loaded.
        deleted: The one segment that the history shows as deleted; None without a history.

    Raises:
        ScriptError: If dbt fails or a model is not as expected.
    """
    variables = {"truto_history_prefix": HISTORY} if deleted else {}
    output = {**target, "threads": 2}
    if "database" in output:
        output["dbname"] = output.pop("database")
    profile = {"check": {"target": "check", "outputs": {"check": output}}}
    (folder / "profiles.yml").write_text(json.dumps(profile), encoding="utf-8")
    for command in (["build"], ["source", "freshness"]):
        _dbt(label, folder, *command, "--vars", json.dumps(variables))
    cache = cache_of("")
    segments = _check_segments(label, cache, accounts)
    to_fix = _check_accounts(label, cache, accounts)
    _check_columns(label, cache, has_history=deleted is not None)
    if deleted:
        gone = cache.run_sql_query(DELETED)
        if [row["name"] for row in gone] != [deleted]:
            raise ScriptError(f"{label}: {deleted} was deleted, but the history has {gone}.")
        # The guide's queries are plain SQL for both databases.
        for query in re.findall(r"^ *```sql\n *(SELECT .*?)^ *```", PAGE.read_text(), FENCED):
            cache.run_sql_query(query)
    cache.close()
    say(f"{label}: {segments} segments, {to_fix} accounts to fix")


def _check_segments(label: str, cache: Any, accounts: Sequence[Account]) -> int:
    found = {
        (row["customer"], row["tool_label"], row["workspace"], row["segment_id"]): row["members"]
        for row in cache.run_sql_query("SELECT * FROM stg_truto__segments")
    }
    expected = {
        (
            account.tenant_id,
            account.integration.label,
            account.workspace_names.get(workspace or ""),
            segment["id"],
        ): _members(account.vendor, segment)
        for account in accounts
        for workspace, segment in segments_of(account)
    }
    if found != expected:
        wrong = sorted(map(str, found.items() ^ expected.items()))[:4]
        raise ScriptError(f"{label}: stg_truto__segments is not as expected: {wrong}")
    return len(found)


def _check_accounts(label: str, cache: Any, accounts: Sequence[Account]) -> int:
    reasons = {
        account.tenant_id: account.last_error or f"{account.last_forbidden_error}"
        for account in accounts
        if account.status != "active" or account.last_forbidden_error
    }
    to_fix = cache.run_sql_query("SELECT customer, reason FROM stg_truto__accounts_to_fix")
    if {row["customer"] for row in to_fix} != {*reasons} or any(
        (SCOPE in reasons[row["customer"]]) != (SCOPE in row["reason"]) for row in to_fix
    ):
        raise ScriptError(f"{label}: the accounts to fix are not as expected: {to_fix}")
    return len(to_fix)


def _check_columns(label: str, cache: Any, *, has_history: bool) -> None:
    """Compare the columns of each model with its description."""
    for model in yaml.safe_load((PROJECT / "models" / "truto.yml").read_text())["models"]:
        if has_history or model["name"] != "stg_truto__segment_history":
            row = cache.run_sql_query(f"SELECT * FROM {model['name']}")[:1]  # noqa: S608
            if row and [*row[0]] != [column["name"] for column in model["columns"]]:
                raise ScriptError(f"{label}: other columns are described than {[*row[0]]}.")


def _dbt(label: str, folder: Path, *command: str) -> None:
    places = ("--profiles-dir", str(folder), "--target-path", f"{folder}/target")
    done = subprocess.run(
        # Treat a deprecation as a failure.
        [DBT, "--warn-error", *command, "--profile", "check", *places, "--log-path", str(folder)],
        cwd=PROJECT,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise ScriptError(f"{label}: dbt {command[0]} failed: {done.stdout[-3000:]}{done.stderr}")


def _members(vendor: str, segment: Mapping[str, Any]) -> int | None:
    if vendor not in MEMBERS:
        return None
    found: Any = segment["remote_data"]
    for key in MEMBERS[vendor]:
        found = found[key]
    return int(found)


if __name__ == "__main__":
    sys.exit(run_script(main))
