"""Reads the sandbox through PyAirbyte into DuckDB, and compares the tables with the truth.

Each proof has a database of its own. What is expected is worked out from the sandbox's segments
alone, and never from what the connector said before.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sandbox import Account, Sandbox, demo_environment, faults, vendors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECTOR = "source-truto-segments"
STREAM = "segments"
# Beside the virtual environment's Python; resolving the link would lead out of the environment.
COMMAND = Path(sys.executable).with_name(CONNECTOR)

ALL_ACCOUNTS = {"mode": "all"}
DATED_VENDORS = ("activecampaign", "brevo", "klaviyo")
WRONG_TOKEN = "no-such-token"  # noqa: S105 - it opens nothing

DATES = ("created_at", "updated_at", "last_calculated_at")
TEXTS_AND_OBJECTS = ("name", "description", "status", "is_starred", "remote_data")

# Later than every date that the sandbox makes up, and past for every clock.
SECOND_DAY = "2025-09-02T10:00:00"
THIRD_DAY = "2025-09-03T10:00:00"
FOURTH_DAY = "2025-09-04T10:00:00"

Key = tuple[str, str]
Row = dict[str, Any]
Rows = dict[Key, Row]


class CheckError(Exception):
    """What was expected and what came instead, as a sentence."""


class User:
    """Somebody who has one source and one database, and reads from one into the other.

    Attributes:
        rows: The table after the last read.
        came: How many records the last read brought, by account.
    """

    def __init__(self, airbyte: Any, sandbox: Sandbox, folder: Path, **fields: Any) -> None:
        self._airbyte = airbyte
        self._sandbox = sandbox
        environment = sandbox.environment
        self._config = {
            "token": environment.token,
            "integrated_account_id": environment.accounts[0].id,
            "api_url": sandbox.url,
            **fields,
        }
        with _quietly():
            self._cache = airbyte.new_local_cache("truto", cache_dir=folder)
            self._source = self._new_source(self._config)
            self._source.select_all_streams()
        self._raw_ids: set[str] = set()
        self.rows: Rows = {}
        self.came: Counter[str] = Counter()

    @property
    def key(self) -> list[list[str]]:
        """The key that the stream is discovered with."""
        (stream,) = self._source.discovered_catalog.streams
        key: list[list[str]] = stream.source_defined_primary_key
        return key

    def reconfigure(self, **fields: Any) -> None:
        """Changes the configuration; the database stays."""
        self._config.update(fields)
        with _quietly():
            self._source.set_config(self._config)

    def failure_of_check(self, **fields: Any) -> str | None:
        """Checks; returns the reason that PyAirbyte gives if it fails."""
        with _quietly():
            source = self._new_source({**self._config, **fields})
            try:
                source.check()
            except self._airbyte.exceptions.AirbyteConnectorCheckFailedError as failure:
                return str((failure.context or {}).get("failure_reason"))
        return None

    def read(self, label: str, expected: Rows, *, full_refresh: bool = False) -> None:
        """Reads, and compares the table with what is expected; a full refresh replaces it.

        Raises:
            CheckError: If the read fails, or the table is another.
        """
        started = time.monotonic()
        failure, said = self._read(full_refresh=full_refresh)
        if failure is not None:
            raise CheckError(f"{label}: the read should succeed, but failed: {failure}\n{said}")
        self._tell(label, expected, time.monotonic() - started)

    def fail_to_read(
        self, label: str, expected: Rows, reason: str, *, full_refresh: bool = False
    ) -> None:
        """Reads, which must fail for a reason that the user is shown, and leave the table alone.

        Raises:
            CheckError: If the read succeeds, says nothing of the reason, or changes the table.
        """
        started = time.monotonic()
        failure, said = self._read(full_refresh=full_refresh)
        if failure is None:
            raise CheckError(f"{label}: the read should fail, but succeeded.")
        if reason not in " ".join(said.split()):
            raise CheckError(f'{label}: PyAirbyte should say "{reason}", but said: {said}')
        self._tell(label, expected, time.monotonic() - started)
        if self.came:
            raise CheckError(f"{label}: no row should be written, but {self.came.total()} were.")

    def _new_source(self, config: Mapping[str, Any]) -> Any:
        return self._airbyte.get_source(CONNECTOR, config=dict(config), local_executable=COMMAND)

    def _read(self, *, full_refresh: bool) -> tuple[Exception | None, str]:
        """Reads into the table; returns the failure, if any, and what PyAirbyte said."""
        self._sandbox.clear()
        failure, count = None, None
        with _quietly() as said:
            try:
                result = self._source.read(
                    cache=self._cache,
                    write_strategy="replace" if full_refresh else "auto",
                    force_full_refresh=full_refresh,
                )
                count = result.processed_records
            except self._airbyte.exceptions.PyAirbyteError as error:
                failure = error
            rows = self._table()
        self.rows = {(row["integrated_account_id"], row["id"]): row for row in rows}
        if len(self.rows) != len(rows):
            raise CheckError(
                f"No two rows should have the same account and id, but of {len(rows)} rows "
                f"{len(rows) - len(self.rows)} repeat those of another."
            )
        # A row gets a new one whenever it is written.
        raw_ids = {row["_airbyte_raw_id"] for row in rows}
        fresh = raw_ids - self._raw_ids
        self._raw_ids = raw_ids
        self.came = Counter(
            row["integrated_account_id"] for row in rows if row["_airbyte_raw_id"] in fresh
        )
        if count is not None and count != len(fresh):
            raise CheckError(
                f"Each record that was read should be a row of its own, but {count} records were "
                f"read and {len(fresh)} rows written."
            )
        return failure, said.getvalue().strip()

    def _table(self) -> list[Row]:
        tables = self._cache.run_sql_query("SELECT table_name FROM information_schema.tables")
        if STREAM not in {table["table_name"] for table in tables}:
            return []
        rows: list[Row] = self._cache.run_sql_query("SELECT * FROM segments")
        return rows

    def _tell(self, label: str, expected: Rows, seconds: float) -> None:
        _compare(label, expected, self.rows)
        requests = sum(request.kind == STREAM for request in self._sandbox.requests)
        _say_line(label, requests, self.came.total(), len(self.rows), f"{seconds:.1f}")


def main() -> int:
    """Runs all proofs; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="truto-pyairbyte-") as name:
            airbyte = _import_pyairbyte(Path(name))
            _say(
                f"With PyAirbyte {airbyte.version.get_version()}: how many requests a read makes, "
                "how many records come, and how many rows the table has then.\n"
            )
            _say_line("", "requests", "came", "rows", "seconds")
            for proof in PROOFS:
                _say(proof.__doc__ or "")
                with Sandbox(demo_environment()) as sandbox:
                    proof(airbyte, sandbox, Path(name) / proof.__name__)
    except CheckError as failure:
        _say(f"\nFAILED. {failure}")
        return 1
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        return 130
    _say(f"\nAll {len(PROOFS)} proofs hold ({time.monotonic() - started:.0f} s).")
    return 0


def prove_full_refresh(airbyte: Any, sandbox: Sandbox, folder: Path) -> None:
    """1. Full refresh of one account, replacing the table."""
    account = sandbox.environment.accounts[0]
    user = User(airbyte, sandbox, folder)

    user.read("first", _truth(account), full_refresh=True)
    _expect_whole_read(user, account, sandbox)
    user.read("again, nothing changed", _truth(account), full_refresh=True)
    _expect_whole_read(user, account, sandbox)

    segments = list(account.segments)
    del segments[7]
    # Vendors write dates with the zone of the account, too.
    segments[3] = _changed(segments[3], updated_at=f"{SECOND_DAY}+02:00")
    segments.append(_added("klaviyo", 90, updated_at=f"{SECOND_DAY}+00:00"))
    account.segments = segments
    user.read("one renamed, one added, one deleted", _truth(account), full_refresh=True)
    _expect_whole_read(user, account, sandbox)

    # PyAirbyte hands over a state here: the one that the full refresh left behind.
    user.read("incremental, with the state of the full refresh", _truth(account))
    _expect_whole_read(user, account, sandbox)


def prove_incremental(airbyte: Any, sandbox: Sandbox, folder: Path) -> None:
    """2. Incremental, merged into the table by its key: seven accounts."""
    accounts = sandbox.environment.accounts
    of = {account.vendor: account for account in accounts}
    user = User(airbyte, sandbox, folder, additional_accounts=ALL_ACCOUNTS)

    expected = _truth(*accounts)
    user.read("first", expected)
    _expect_due(user, accounts, before={})
    first, held = user.came, _truth(*accounts)

    _change(of["klaviyo"], 3, description=None, updated_at=f"{SECOND_DAY}+02:00")
    _change(of["activecampaign"], 5, updated_at=f"{SECOND_DAY}.000Z")
    _add(of["brevo"], updated_at=f"{SECOND_DAY}Z")
    _change(of["flodesk"], 2)
    _change(of["customerio"], 0)
    _add(of["mailerlite"])
    _change_in_workspace(of["beehiiv"])
    # These are deleted, and stay in the table: nothing tells of them in this mode.
    _delete(of["activecampaign"], 0)
    _delete(of["flodesk"], 0)
    expected |= _truth(*accounts)
    user.read("five renamed, two added; two deleted, which stay", expected)
    _expect_due(user, accounts, before=held)
    for vendor in DATED_VENDORS:
        count, before = user.came[of[vendor].id], first[of[vendor].id]
        if not 0 < count < before:
            raise CheckError(
                f"Of {vendor}, which dates its changes, fewer records should come than the first "
                f"time ({before}), but {count} came."
            )
    held |= _truth(*accounts)

    _change(of["klaviyo"], 3, description="Back", updated_at=f"{THIRD_DAY}+00:00")
    _add(of["activecampaign"], updated_at=f"{THIRD_DAY}.000Z")
    _change(of["mailerlite"], 1)
    expected |= _truth(*accounts)
    user.read("two renamed, one added", expected)
    _expect_due(user, accounts, before=held)
    held |= _truth(*accounts)

    user.read("nothing changed", expected)
    _expect_due(user, accounts, before=held)

    user.read("full refresh: the two deleted are gone", _truth(*accounts), full_refresh=True)


def prove_many_accounts(airbyte: Any, sandbox: Sandbox, folder: Path) -> None:
    """3. All accounts of the environment, one of each vendor, in one table."""
    accounts = sandbox.environment.accounts
    user = User(airbyte, sandbox, folder, additional_accounts=ALL_ACCOUNTS)
    if sorted(account.vendor for account in accounts) != sorted(vendors.VENDORS):
        raise CheckError("The sandbox should have one account of each vendor, but has others.")
    if user.key != [["integrated_account_id"], ["id"]]:
        raise CheckError(
            f"The key should be integrated_account_id and id, but is discovered as {user.key}."
        )

    expected = _truth(*accounts)
    ids = Counter(segment_id for _, segment_id in expected)
    if ids.most_common(1)[0][1] == 1:
        raise CheckError("Some accounts should share ids, so that the key is tried; none do.")
    user.read("full refresh", expected, full_refresh=True)
    for account in accounts:
        _expect_count(account, user.came, len(_truth(account)))
    user.read("incremental, merged into the same table", expected)
    for account in accounts:
        _expect_count(account, user.came, len(_truth(account)))


def prove_failures(airbyte: Any, sandbox: Sandbox, folder: Path) -> None:
    """4. One of seven accounts is blocked from its second page on."""
    accounts = sandbox.environment.accounts
    blocked = accounts[0]
    reason = (
        f"Reading the segments of integrated account {blocked.id} failed: Truto has blocked "
        "this account"
    )
    user = User(airbyte, sandbox, folder, additional_accounts=ALL_ACCOUNTS)

    _block(blocked)
    user.fail_to_read("the first, incremental: fails, no table", {}, reason)
    blocked.faults.clear()
    user.read("the block is lifted: whole", _truth(*accounts))

    before = _truth(*accounts)
    _block(blocked)
    _change_both(accounts, SECOND_DAY)
    user.fail_to_read("incremental, after changes: fails, as before", before, reason)
    blocked.faults.clear()
    user.read("the block is lifted: whole, with the changes", _truth(*accounts))

    before = _truth(*accounts)
    _block(blocked)
    _change_both(accounts, THIRD_DAY)
    user.fail_to_read("full refresh: fails, as before", before, reason, full_refresh=True)
    blocked.faults.clear()
    user.read("the block is lifted: whole", _truth(*accounts), full_refresh=True)
    user.read("incremental again: whole", _truth(*accounts))

    user.reconfigure(on_account_error="skip")
    _block(blocked)
    _change(blocked, 1, updated_at=f"{FOURTH_DAY}+00:00")
    _change(accounts[1], 4, updated_at=f"{FOURTH_DAY}.000Z")
    # Of the blocked account the first page comes, with changes; what is behind it has older ones.
    expected = _truth(*accounts)
    _change(blocked, 40, updated_at=f"{THIRD_DAY}+00:00")
    user.read("skipped: all but what is behind the block", expected)
    blocked.faults.clear()
    user.read("the block is lifted: whole", _truth(*accounts))


def prove_check(airbyte: Any, sandbox: Sandbox, folder: Path) -> None:
    """5. The check, with the right token and with a wrong one."""
    user = User(airbyte, sandbox, folder)
    if (reason := user.failure_of_check()) is not None:
        raise CheckError(f"The check should succeed, but failed: {reason}")
    _say("   right token: it succeeds")

    wanted = 'Truto refused the API token (HTTP 401; Truto said: "Unauthorized").'
    reason = user.failure_of_check(token=WRONG_TOKEN)
    if reason is None:
        raise CheckError("The check of a wrong token should fail, but succeeded.")
    if wanted not in reason or WRONG_TOKEN in reason:
        raise CheckError(
            f"The check of a wrong token should say: {wanted} and not the token; it said: {reason}"
        )
    _say(textwrap.fill(f"wrong token: {reason}", 90, initial_indent="   ", subsequent_indent="   "))


PROOFS = (
    prove_full_refresh,
    prove_incremental,
    prove_many_accounts,
    prove_failures,
    prove_check,
)


def _truth(*accounts: Account) -> Rows:
    """The rows that these accounts should have in the table, as the sandbox holds them now."""
    rows: Rows = {}
    for account in accounts:
        workspaces: Mapping[Any, Any] = account.workspaces or {None: account.segments}
        for workspace_id, segments in workspaces.items():
            for segment in segments:
                row = {name: segment.get(name) for name in TEXTS_AND_OBJECTS}
                row |= {name: _moment(segment.get(name)) for name in DATES}
                rows[account.id, segment["id"]] = {**row, "workspace_id": workspace_id}
    return rows


def _moment(value: Any) -> datetime | None:
    """A vendor's date as the table has it: in UTC, without saying so."""
    if value is None:
        return None
    if isinstance(value, int):
        moment = datetime.fromtimestamp(value, timezone.utc)
    else:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def _compare(label: str, expected: Rows, found: Rows) -> None:
    """Compares whole tables.

    Raises:
        CheckError: If a row is missing, too many or different.
    """
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    if missing or extra:
        raise CheckError(
            f"{label}: the table should have {len(expected)} rows, but has {len(found)}. "
            f"Missing: {_some(missing)}. Too many: {_some(extra)}."
        )
    for key, row in expected.items():
        for column, value in row.items():
            if found[key][column] != value:
                raise CheckError(
                    f"{label}: {column} of segment {key[1]} of account {key[0]} should be "
                    f"{value!r}, but is {found[key][column]!r}."
                )


def _some(keys: list[Key]) -> str:
    """How many keys, and the first few of them."""
    if not keys:
        return "none"
    shown = ", ".join(
        f"segment {segment_id} of {account_id}" for account_id, segment_id in keys[:3]
    )
    return f"{len(keys)} ({shown}{', ...' if len(keys) > 3 else ''})"  # noqa: PLR2004


def _expect_whole_read(user: User, account: Account, sandbox: Sandbox) -> None:
    """Every record came, and every page was asked for."""
    count = len(_truth(account))
    _expect_count(account, user.came, count)
    pages = -(-count // (account.page_size(None) or count))
    asked = sum(request.kind == STREAM for request in sandbox.requests)
    if asked != pages:
        raise CheckError(f"All {pages} pages should be asked for, but {asked} were.")


def _expect_due(user: User, accounts: list[Account], before: Rows) -> None:
    """Of each account came what is not dated, or is as new as the newest that came before."""
    marks: dict[str, datetime] = {}
    for (account_id, _), row in before.items():
        if row["updated_at"] is not None:
            marks[account_id] = max(row["updated_at"], marks.get(account_id, row["updated_at"]))
    for account in accounts:
        mark = marks.get(account.id)
        dates = [row["updated_at"] for row in _truth(account).values()]
        due = sum(date is None or mark is None or date >= mark for date in dates)
        _expect_count(account, user.came, due)


def _expect_count(account: Account, came: Counter[str], count: int) -> None:
    if came[account.id] != count:
        raise CheckError(
            f"Of the account of {account.vendor}, {count} records should come, but "
            f"{came[account.id]} came."
        )


def _changed(segment: Mapping[str, Any], **fields: Any) -> Row:
    """A renamed segment, with these fields besides."""
    name = f"{segment['name']}, renamed"
    remote = {**segment["remote_data"], "note": [name, None, {"weight": 0.1}]}
    return {**segment, "name": name, "remote_data": remote, **fields}


def _added(vendor: str, place: int, **fields: Any) -> Row:
    return {**vendors.SegmentSequence(vendor, place + 1)[place], **fields}


def _change(account: Account, place: int, **fields: Any) -> None:
    segments = list(account.segments)
    segments[place] = _changed(segments[place], **fields)
    account.segments = segments


def _add(account: Account, **fields: Any) -> None:
    account.segments = [*account.segments, _added(account.vendor, 90, **fields)]


def _delete(account: Account, place: int) -> None:
    account.segments = [*account.segments[:place], *account.segments[place + 1 :]]


def _change_in_workspace(account: Account) -> None:
    workspace_id, segments = next(iter(account.workspaces.items()))
    account.workspaces[workspace_id] = [_changed(segments[0]), *segments[1:]]


def _change_both(accounts: list[Account], day: str) -> None:
    """Changes the first account, both before and after its first page, and the second account."""
    _change(accounts[0], 1, updated_at=f"{day}+00:00")
    _change(accounts[0], 30, updated_at=f"{day}+00:00")
    _change(accounts[1], 2, updated_at=f"{day}.000Z")


def _block(account: Account) -> None:
    account.faults.append(faults.account_blocked(after=1, times=None, kind="segments"))


def _import_pyairbyte(folder: Path) -> Any:
    """Imports PyAirbyte, which takes its settings from the environment at that moment only."""
    os.environ.update(
        AIRBYTE_OFFLINE_MODE="1",
        AIRBYTE_PROJECT_DIR=str(folder),
        AIRBYTE_LOGGING_ROOT=str(folder / "logs"),
        AIRBYTE_TEMP_DIR=str(folder),
        NO_LIVE_PROGRESS="1",
    )
    # A proxy is for other machines.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    with _quietly():
        return importlib.import_module("airbyte")


@contextmanager
def _quietly() -> Iterator[io.StringIO]:
    """Keeps what PyAirbyte prints from the screen, and hands it out; it is shown if all ends."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield said
    except Exception:
        _say(said.getvalue())
        raise


def _say_line(label: str, *figures: object) -> None:
    _say(f"   {label:<50}" + "".join(f"{figure!s:>9}" for figure in figures))


def _say(text: str) -> None:
    print(text, flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    # By raising, so that the folder is removed on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
