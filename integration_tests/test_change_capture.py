"""Check a property of change data capture: after every successful sync, the tables equal the API.

Each seed makes accounts that change at random between syncs and while they are read. Records are
added, changed with and without dates, deleted, restored and moved, and so are workspaces and
accounts. Accounts leave the configuration, or Truto's list, and come back; pages shift in each
read; accounts are empty for a sync and its retries, refused, not found or partial; columns,
including custom ones, are selected and deselected; syncs are killed at any message or request, and
the clock goes back. A sync comes days after the last one, or as its retry at once.
The destination commits records and states separately, stream by stream. The messages fill a
simulated warehouse. Then:

- After a successful sync during which nothing changes, every table equals the API; if an account
  has lost all its records, after two such syncs. After any sync, the rows of each account that was
  read, and neither changed nor failed, equal the API.
- The connector emits a tombstone only for a record that was absent at some time during the sync.
- If nothing has changed before a sync, it emits no record.

Three cases would break this, and do not happen here: pages that shift so that both reads of an
account find the same ids and lack the same existing record; records that the destination commits
from a sync of which it saves no state; and the deletion of a record that is new since the last
saved state, if its sync was killed.

pytest integration_tests/test_change_capture.py --capture-seeds 2000 --capture-from 5000
"""

import functools
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from airbyte_cdk.models import AirbyteMessage

from integration_tests.destination import DELETED_AT, Data, Destination, Key, key_of, tombstones
from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    FakeClock,
    Result,
    catalog,
    id_of,
    parametrize_seeds,
    read_with,
)
from integration_tests.test_state import cursors, fingerprints, state_of_stream
from sandbox import Account, Environment, Fault, Request, Sandbox, faults, vendors
from sandbox.accounts import account_object
from source_truto_segments import SourceTrutoSegments, source
from source_truto_segments.records.changes import ChangeClock
from source_truto_segments.records.columns import (
    REQUIRED_COLUMNS,
    ColumnSelection,
    coerce_record,
    load_schema,
)
from source_truto_segments.sync import sync

SYNCS = 6
# Fields that an override adds to the unified model.
CUSTOM = {"owner": {"type": ["null", "object"]}, "score": {"type": ["null", "integer"]}}
LIST = ""  # stands for the list of accounts, where others use an account's ID
DATES = (None, None, *(f"202{year}-01-01T00:00:00Z" for year in range(10)))
SECONDS_A_DAY = 86_400

Step = Callable[[Account, random.Random], None]


@dataclass
class World:
    """What the vendors and Truto hold, and how it changes.

    Attributes:
        occasion: Counts the syncs that are no retries.
        deletable: Whether a record may be deleted, by its stream and key.
        was_present: The keys of the records that have existed all the time since `begin_sync`.
        changed: The accounts that have changed since then, and LIST if their list has.
    """

    environment: Environment
    occasion: int = 0
    deletable: Callable[[str, Key], bool] = lambda _stream, _key: True
    was_present: dict[str, set[Key]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    removed: dict[str, Account] = field(default_factory=dict)
    _hidden: dict[str, list[Any]] = field(default_factory=dict)
    _empty_on: dict[str, int] = field(default_factory=dict)
    _deleted: dict[str, list[Data]] = field(default_factory=lambda: defaultdict(list))
    _previous: dict[Key, Data] = field(default_factory=dict)
    _versions: dict[Key, list[Data]] = field(default_factory=lambda: defaultdict(list))
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _account_numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def accounts(self) -> list[Account]:
        return self.environment.accounts

    def records(self, stream: str) -> Iterator[Data]:
        """Yield all records of a stream as Truto and the connector return them, uncoerced."""
        for account in self.accounts:
            of_account = {"integrated_account_id": account.id}
            if stream == "integrated_accounts":
                yield _account_record(account)
            elif stream == "workspaces":
                for id_ in account.workspaces:
                    yield {**of_account, **_workspace_record(account, id_)}
            else:
                for workspace_id, records in _lists(account).items():
                    for record in [*records, *self._hidden.get(account.id, [])]:
                        if isinstance(record, dict):
                            yield {**of_account, "workspace_id": workspace_id, **record}

    def keys(self, stream: str) -> set[Key]:
        return {key_of(stream, record) for record in self.records(stream)}

    def begin_sync(self) -> None:
        self.changed.clear()
        self.was_present = {stream: self.keys(stream) for stream in ALL_STREAMS}

    def end_sync(self) -> None:
        """Clear the faults in the responses, which last for one sync."""
        self.environment.faults.clear()
        for account in self.accounts:
            account.faults.clear()
            account.partial = account.partial if account.partial == "inner" else False
            if account.id in self._hidden:
                records = [r for r in account.segments if isinstance(r, dict)]
                account.segments = [*records, *self._hidden.pop(account.id)]

    def change(self, account: Account, rng: random.Random, *, can_shift: bool) -> None:
        """Change something in an account; records can be on no page only if `can_shift`."""
        steady: list[Step] = [self._update, self._update, self._append, self._restore, _relabel]
        shifting: list[Step] = [self._insert, self._delete, self._delete, self._move]
        if account.vendor == "beehiiv":
            steady += [self._add_workspace, _rename_workspace]
            shifting += [self._delete_workspace, self._change_workspace]
        rng.choice([*steady, *shifting] if can_shift else steady)(account, rng)
        self._note(account.id)

    def revert(self, rng: random.Random) -> None:
        """Give records their previous versions, and restore deleted ones."""
        for account in self.accounts:
            for records in _lists(account).values():
                for position, record in enumerate(records):
                    if rng.random() < 0.7:
                        records[position] = self._previous.get((account.id, record["id"]), record)
            for _ in range(rng.choice((0, len(self._deleted[account.id])))):
                self._restore(account, rng)

    def change_list(self, rng: random.Random, *, can_shift: bool) -> None:
        """Move an account to another position in the list."""
        if not can_shift:
            return
        account = self.accounts.pop(rng.randrange(len(self.accounts)))
        self.accounts.insert(rng.randint(0, len(self.accounts)), account)
        self._note(LIST)

    def add_account(self, rng: random.Random) -> None:
        vendor = rng.choice(vendors.VENDORS)
        account = Account(
            id=id_of(next(self._account_numbers)),
            vendor=vendor,
            workspaces={"w0": []} if vendor == "beehiiv" else {},
            default_page_size=(size := rng.choice((2, 3))),
            max_page_size=rng.choice((None, size, size)),
            oversized=rng.choice(("reject", "cut")),
            form=rng.choice(("list", "list", "keyed")),
            partial=rng.choice((False, "inner")),
            heals_on_request=True,
            empty_pages=rng.choice((0, 0, 1)),
        )
        for _ in range(rng.choice((0, 4, 8))):
            self._insert(account, rng)
            if vendor == "beehiiv":
                self._add_workspace(account, rng)
        self.accounts.append(account)

    def remove_account(self, rng: random.Random) -> Account | None:
        """Delete an account, but never the one of `integrated_account_id`."""
        found = [
            account
            for account in self.accounts
            if account.id != id_of(0) and self.deletable("integrated_accounts", (account.id,))
        ]
        if not found:
            return None
        account = rng.choice(found)
        self.accounts.remove(account)
        self.removed[account.id] = account
        return account

    def list_lacks(self, rng: random.Random) -> set[str]:
        """Leave some or all accounts out of the list for a sync; return the IDs that stay."""
        listed = rng.sample(self.accounts, rng.randint(0, len(self.accounts) - 1))
        page = {"result": [account_object(a) for a in listed], "next_cursor": None}
        self.environment.faults.append(faults.body(json.dumps(page), kind="accounts", times=None))
        return {account.id for account in listed}

    def disturb(self, account: Account, rng: random.Random) -> None:
        """Make the responses of one sync fail, or incomplete."""
        kind = rng.choice(
            ("blocked", "failing", "limited", "partial", "invalid", "empty", "refused", "missing")
            + ("swinging", "empty") * 3
        )
        if self.is_out(account):
            kind = "empty"
        if account.form == "keyed" and kind == "invalid":
            kind = "partial"  # an invalid entry would make the keyed object one record
        match: Any = {"after": rng.randint(0, 5), "times": None}
        made: dict[str, Callable[[], Fault]] = {
            "blocked": lambda: faults.account_blocked(**match),
            "failing": lambda: faults.vendor_failed(**match | {"times": rng.choice((1, 8))}),
            "limited": lambda: faults.vendor_rate_limited(
                rng.choice((5, 90)), after=match["after"]
            ),
            "refused": lambda: faults.credentials_refused(**match),
            "missing": lambda: rng.choice((faults.account_not_found, faults.vendor_not_found))(
                kind="segments", **match
            ),
        }
        if kind in made:
            account.faults.append(made[kind]())
        elif kind == "swinging":
            # With fewer, the records would be on other pages, where a read can find one of them.
            if len(account.segments) >= (account.default_page_size or 0) + 2:
                account.faults.append(Fault(times=None, when=self._swing(account, rng)))
        elif kind == "empty":
            # If the account were empty twice in a row, nobody could tell that it is not. It can be
            # in retries, which come too soon.
            self._empty_on.setdefault(account.id, self.occasion)
            if account.vendor != "beehiiv" and self.is_out(account):
                self._hidden[account.id] = list(account.segments)
                account.segments = []
        elif account.vendor != "beehiiv" and account.segments:
            account.partial = kind == "partial" or account.partial
            # If none were left, ActiveCampaign would respond with an error, which is not partial.
            count = rng.randint(1, len(account.segments)) - (kind == "partial")
            hidden = rng.sample(list(account.segments), count)
            self._hidden[account.id] = hidden
            account.segments = [
                record if record not in hidden else "not an object"  # type: ignore[misc]
                for record in account.segments
                if record not in hidden or kind == "invalid"
            ]
        self.changed.add(account.id)

    def is_out(self, account: Account) -> bool:
        """Return whether an account was empty in the sync whose retry this is."""
        return self._empty_on.get(account.id) == self.occasion

    def _swing(self, account: Account, rng: random.Random) -> Callable[[Request], bool]:
        """Hide two records from all pages of the first read, and one of them from the second."""
        order: list[Any] = list(account.segments)
        counts = [2, 1]

        def when(request: Request) -> bool:
            if request.kind != "segments":
                return False
            if request.param("next_cursor") is None:
                account.segments = list(order)
            elif account.segments == order and counts:
                hidden = counts.pop(0)
                account.segments = [*order[-hidden:], *order[:-hidden]]
                if rng.random() < 0.5:
                    order[:] = [self._version(account, rng, record) for record in order]
                    by_id = {record["id"]: record for record in order}
                    account.segments = [by_id[record["id"]] for record in account.segments]
            return False

        return when

    def _note(self, what: str) -> None:
        self.changed.add(what)
        for stream in self.was_present:
            self.was_present[stream] &= self.keys(stream)

    def _version(self, account: Account, rng: random.Random, earlier: Data | None = None) -> Data:
        """Return a new record, or another version of one, perhaps an earlier version."""
        number = next(self._numbers)
        record = dict(earlier or {"id": f"s{number}", "name": f"version {number}"})
        versions = self._versions[account.id, record["id"]]
        if versions and rng.random() < 0.3:
            return rng.choice(versions)
        if rng.random() < 0.7:
            record["name"] = f"version {number}"
        record["updated_at"] = rng.choice((record.get("updated_at"), rng.choice(DATES)))
        record["status"] = rng.choice(("active", "inactive", None))
        record["owner"] = rng.choice(({"team": "north"}, {"team": "south"}, None))
        record["score"] = rng.choice((1, "2", "much", None))
        versions.append(record)
        return record

    def _update(self, account: Account, rng: random.Random) -> None:
        records = _any_list(account, rng)
        if records:
            position = rng.randrange(len(records))
            self._previous[account.id, records[position]["id"]] = records[position]
            records[position] = self._version(account, rng, records[position])

    def _append(self, account: Account, rng: random.Random) -> None:
        _any_list(account, rng).append(self._version(account, rng))

    def _insert(self, account: Account, rng: random.Random) -> None:
        records = _any_list(account, rng)
        records.insert(rng.randint(0, len(records)), self._version(account, rng))

    def _restore(self, account: Account, rng: random.Random) -> None:
        if self._deleted[account.id]:
            _any_list(account, rng).append(self._deleted[account.id].pop())

    def _delete(self, account: Account, rng: random.Random) -> None:
        records = _any_list(account, rng)
        found = [r for r in records if self.deletable("segments", (account.id, r["id"]))]
        for record in rng.sample(found, min(len(found), rng.choice((1, 1, 2, 9)))):
            records.remove(record)
            self._deleted[account.id].append(record)

    def _move(self, account: Account, rng: random.Random) -> None:
        """Move a record to another position, perhaps in another list of the account."""
        records = _any_list(account, rng)
        if records:
            record = records.pop(rng.randrange(len(records)))
            target = _any_list(account, rng)
            target.insert(rng.randint(0, len(target)), record)

    def _add_workspace(self, account: Account, _: random.Random) -> None:
        account.workspaces[f"w{next(self._numbers)}"] = []

    def _delete_workspace(self, account: Account, rng: random.Random) -> None:
        workspace_id = rng.choice(list(account.workspaces))
        keys = [(account.id, record["id"]) for record in account.workspaces[workspace_id]]
        if len(account.workspaces) > 1 and all(
            self.deletable(stream, key)
            for stream, key in [
                ("workspaces", (account.id, workspace_id)),
                *(("segments", key) for key in keys),
            ]
        ):
            self._deleted[account.id] += map(dict, account.workspaces.pop(workspace_id))

    def _change_workspace(self, account: Account, rng: random.Random) -> None:
        items = list(account.workspaces.items())
        rng.shuffle(items)
        account.workspaces = dict(items)


def _lists(account: Account) -> Mapping[Any, Any]:
    """Return an account's lists of segments, by workspace ID."""
    return account.workspaces if account.vendor == "beehiiv" else {None: account.segments}


def _any_list(account: Account, rng: random.Random) -> Any:
    if account.vendor != "beehiiv":
        account.segments = list(account.segments)
    return rng.choice(list(_lists(account).values()))


def _relabel(account: Account, rng: random.Random) -> None:
    account.last_error = rng.choice(("invalid_grant", "timeout", None))


def _rename_workspace(account: Account, rng: random.Random) -> None:
    account.workspace_names[rng.choice(list(account.workspaces))] = f"name {rng.random()}"


def _account_record(account: Account) -> Data:
    return {
        "id": account.id,
        "tenant_id": account.tenant_id,
        "integration": account.vendor,
        "integration_label": account.integration.label,
        "status": account.status,
        "authentication_method": account.integration.authentication_method,
        "is_sandbox": account.is_sandbox,
        "region": account.region,
        "last_error": account.last_error,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }


def _workspace_record(account: Account, workspace_id: str) -> Data:
    name = account.workspace_names.get(workspace_id, workspace_id)
    created_at, remote_data = vendors.workspace_data(account.vendor, workspace_id, name)
    record = {"id": workspace_id, "name": name, "created_at": created_at}
    return {**record, "remote_data": remote_data}


class InterruptedSource(SourceTrutoSegments):
    """A source whose process is killed or terminated after a message, if it emits that many."""

    def __init__(self, after: int, *, is_killed: bool) -> None:
        super().__init__(FakeClock())
        self._after = after
        self._is_killed = is_killed
        self.is_interrupted = False

    def end_now(self) -> None:
        """End with the next message."""
        self._after = -1

    def read(self, *args: Any, **kwargs: Any) -> Iterator[AirbyteMessage]:
        for number, message in enumerate(super().read(*args, **kwargs), 1):
            yield message
            if number >= self._after and not self.is_interrupted:
                self.is_interrupted = True
                if self._is_killed:
                    return
                self.request_shutdown()


@dataclass
class Connection:
    """Sync the world into a warehouse, and check the properties."""

    rng: random.Random
    world: World
    sandbox: Sandbox
    monkeypatch: pytest.MonkeyPatch
    selected: dict[str, dict[str, Any]] = field(default_factory=dict)
    read_ids: set[str] = field(default_factory=set)
    clock_offset: int = 0
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.streams = self.rng.choice((ALL_STREAMS, ALL_STREAMS, ("segments",)))
        self.is_listing = self.rng.random() < 0.7
        self.destination = Destination(
            soft_deletes=self.rng.random() < 0.3, keeps_first=self.rng.random() < 0.4
        )
        self.world.deletable = self._is_deletable
        self.select_columns()

    def select_columns(self, *, with_deletions: bool = False) -> None:
        """Select other columns."""
        kind = self.rng.choice(("none named", "all", "some", "some without deletions"))
        if with_deletions and kind == "some without deletions":
            kind = "some"
        for stream in self.streams:
            columns = load_schema(stream)["properties"]
            if stream == "segments":
                columns = columns | {k: v for k, v in CUSTOM.items() if self.rng.random() < 0.5}
            left_out = {
                name for name in columns if kind.startswith("some") and self.rng.random() < 0.3
            }
            left_out = left_out - REQUIRED_COLUMNS - {DELETED_AT}
            if kind == "some without deletions":
                left_out.add(DELETED_AT)
            schema = {"properties": {k: v for k, v in columns.items() if k not in left_out}}
            self.selected[stream] = {} if kind == "none named" else schema

    def change_world(self) -> None:
        """Make the changes that happen between two syncs."""
        for _ in range(self.rng.choice((0, 1, 3, 6))):
            self.world.change(self.rng.choice(self.world.accounts), self.rng, can_shift=True)
        if self.rng.random() < (0.8 if any(self.destination.uncounted.values()) else 0.1):
            self.world.revert(self.rng)
        if self.rng.random() < 0.2:
            self.world.add_account(self.rng)
        if self.rng.random() < 0.15:
            self.world.remove_account(self.rng)
        if self.world.removed and self.rng.random() < 0.2:
            _, account = self.world.removed.popitem()
            self.world.accounts.append(account)
        if self.rng.random() < 0.2:
            self.select_columns()

    def pass_time(self) -> None:
        """Let some days pass, longer than the clock can go back."""
        self.world.occasion += 1
        self.clock_offset = self.rng.randint(-SECONDS_A_DAY, SECONDS_A_DAY)
        self.destination.age(72.0)

    def sync(self, *, at_rest: bool, selects_all: bool = False) -> Result:
        """Run one sync, during which the world changes unless it is at rest."""
        rng, world = self.rng, self.world
        world.begin_sync()
        after, at_request = 10**9, 10**9
        ids = [account.id for account in world.accounts]
        if not selects_all and rng.random() < 0.3:
            ids = [id_ for id_ in ids if rng.random() < 0.6]
        vendors_read = {a.vendor for a in world.accounts if a.id in ids or a.id == id_of(0)}
        if self.is_listing:
            ids = [a.id for a in world.accounts if a.vendor in vendors_read]
        self.read_ids = {id_of(0), *ids}
        if not at_rest:
            for account in rng.sample(world.accounts, rng.randint(0, len(world.accounts))):
                if rng.random() < 0.3 or world.is_out(account):
                    world.disturb(account, rng)
                else:
                    self._plan_changes(account.id, functools.partial(world.change, account))
            if rng.random() < 0.3:
                self._plan_changes(LIST, world.change_list)
            elif self.is_listing and rng.random() < 0.2:
                self.read_ids &= {id_of(0), *world.list_lacks(rng)}
            after = rng.choice((after, after, rng.randint(4, 15), rng.randint(1, 40)))
            at_request = rng.choice((at_request, at_request, rng.randint(1, 30)))
        source_ = InterruptedSource(after, is_killed=rng.random() < 0.7)
        world.environment.faults.append(_at_request(at_request, source_.end_now))
        result = self._read(source_, sorted(ids), sorted(vendors_read))
        before = {stream: self.destination.rows(stream) for stream in self.streams}
        fails = not at_rest and rng.random() < (0.5 if source_.is_interrupted else 0.1)
        self.destination.load(result, self._configured, fails=rng if fails else None)
        self.log.append(
            f"{'at rest' if at_rest else 'changes'}, interrupted {source_.is_interrupted}, "
            f"destination fails {fails}, read {self.read_ids}, "
            f"{Counter(r['stream'] for r in result.of_type('RECORD'))}, {result.failure}"
        )
        self._check_tombstones(result)
        if not source_.is_interrupted and not fails and LIST not in world.changed:
            self._check_rows(before)
        if at_rest:
            assert result.failure is None
        world.end_sync()
        return result

    def _plan_changes(self, account_id: str, change: Callable[..., None]) -> None:
        """Plan changes at some requests; pages shift at some of those, in either read."""
        rng = random.Random(self.rng.random())
        moments = sorted(rng.sample(range(1, 9), rng.randint(1, 5)))
        shifts_at = rng.sample(moments, rng.randint(1, len(moments)))
        seen = 0

        def when(request: Request) -> bool:
            nonlocal seen
            is_meant = (request.account_id or LIST) == account_id
            seen += is_meant
            if is_meant and seen in moments:
                change(rng=rng, can_shift=seen in shifts_at)
            return False

        self.world.environment.faults.append(Fault(times=None, when=when))

    @property
    def _configured(self) -> dict[str, Any]:
        entries = [
            catalog("incremental", self.selected[stream], (stream,))["streams"]
            for stream in self.streams
        ]
        return {"streams": [entry for found in entries for entry in found]}

    def _read(self, source_: InterruptedSource, ids: list[str], integrations: list[str]) -> Result:
        listed = {"mode": "listed", "ids": ids} if ids else {"mode": "none"}
        clock = functools.partial(
            ChangeClock, now=lambda: time.time_ns() + self.clock_offset * 10**9
        )
        self.monkeypatch.setattr(source, "ChangeClock", clock)
        self.monkeypatch.setattr(sync, "CHECKPOINT_SECONDS", self.rng.choice((0.0, 60.0)))
        return read_with(
            source_,
            self.sandbox,
            configured=self._configured,
            state=self.destination.state,
            integrated_account_id=id_of(0),
            additional_accounts={**ALL, "integrations": integrations}
            if self.is_listing
            else listed,
            num_workers=self.rng.choice((1, 4)),
            on_account_error=self.rng.choice(("fail", "skip")),
        )

    def _check_tombstones(self, result: Result) -> None:
        for stream in self.streams:
            deleted = {key_of(stream, data) for data in tombstones(result, stream)}
            assert not deleted & self.world.was_present[stream], "a live record was deleted"

    def _check_rows(self, before: Mapping[str, Mapping[Key, Data]]) -> None:
        """Check the rows of each account that was read, and neither changed nor failed."""
        for stream in self.streams:
            found, expected = self.destination.rows(stream), self._expected(stream)
            can_delete = self._has_deletions(stream)
            for key in {*found, *expected}:
                account_id = key[0]
                is_row = stream == "integrated_accounts"
                if account_id in self.world.changed:
                    continue
                if account_id not in self.read_ids:
                    # Truto's list can show that an account was deleted, even if its row is not
                    # read.
                    is_gone = is_row and account_id in self.world.removed
                    assert found.get(key) == before[stream].get(key) or is_gone, (
                        f"{stream} {key}: a row of an account that is not read has changed"
                    )
                elif key in expected:
                    assert found.get(key) == expected[key], f"{stream} {key}: not as in the API"
                else:
                    # No state knows what a killed sync left uncounted.
                    is_lost = key in self.destination.uncounted[stream]
                    assert is_lost or not can_delete or self._is_emptied(stream, account_id), (
                        f"{stream} {key}: gone, and still in the table"
                    )

    def check_all(self) -> None:
        """Check all rows, except those of deleted accounts that only these could confirm."""
        for stream in self.streams:
            uncounted = self.destination.uncounted[stream]
            removed = self.world.removed.keys() if stream != "integrated_accounts" else ()
            found = {
                key: row
                for key, row in self.destination.rows(stream).items()
                if key[0] not in removed
            }
            expected = self._expected(stream)
            if stream == "integrated_accounts" and not self.is_listing:
                # Nobody reads an account that is no longer configured.
                found = {key: found[key] for key in found if key[0] not in self.world.removed}
            for key in uncounted - expected.keys():
                found.pop(key, None)
            assert found == expected, stream

    def _is_emptied(self, stream: str, account_id: str) -> bool:
        """Return whether a later sync has to find the account empty once more."""
        cursor = cursors(state_of_stream(self.destination.state, stream)).get(account_id, {})
        return bool(cursor.get("empty"))

    def _expected(self, stream: str) -> dict[Key, Data]:
        columns = ColumnSelection.from_schema(stream, self.selected[stream])
        rows = (
            columns.project(coerce_record(columns.project(r), columns)[0])
            for r in self.world.records(stream)
        )
        return {key_of(stream, row): row for row in rows}

    def _has_deletions(self, stream: str) -> bool:
        return ColumnSelection.from_schema(stream, self.selected[stream]).has_deletions

    def _is_deletable(self, stream: str, key: Key) -> bool:
        """Return False for a record that only the destination knows: see the module."""
        if key not in self.destination.uncounted[stream]:
            return True
        known = fingerprints(state_of_stream(self.destination.state, stream))
        return any((partition, key[-1]) in known for partition in (key[0], ""))


def _at_request(number: int, call: Callable[[], None]) -> Fault:
    """Return a fault that calls a function at the request with this number."""
    seen = itertools.count(1)

    def when(_: Request) -> bool:
        if next(seen) == number:
            call()
        return False

    return Fault(times=None, when=when)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_seeds(metafunc, "capture")


def test_world_changes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every successful sync of a changing world, the tables equal the API."""
    print(
        "again with: pytest integration_tests/test_change_capture.py --capture-seeds 1 "
        f"--capture-from {seed}"
    )
    rng = random.Random(f"world {seed}")
    world = World(Environment(list_page_size=rng.choice((1, 2, 100))))
    for _ in range(rng.choice((1, 3, 5))):
        world.add_account(rng)
    with Sandbox(world.environment) as sandbox:
        connection = Connection(rng, world, sandbox, monkeypatch)
        try:
            for _ in range(SYNCS):
                if rng.random() < 0.7:
                    connection.pass_time()
                connection.sync(at_rest=rng.random() < 0.3)
                connection.change_world()
            connection.select_columns(with_deletions=True)
            for _ in range(2):
                connection.pass_time()
                connection.sync(at_rest=True, selects_all=True)
            connection.check_all()
            last = connection.sync(at_rest=True, selects_all=True)
            assert last.of_type("RECORD") == []
        finally:
            print("\n".join(connection.log))
