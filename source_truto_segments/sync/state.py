"""The state of one stream, as plain data: which partitions are complete, and what they hold.

    {"states": [{"partition": {"integrated_account_id": …}, "cursor": {…}}, …], "filters": {…}}

In a full refresh, a cursor is `{"complete": true}`, and `started_at` is the time at which the first
attempt began.

In incremental mode, a cursor is `{"records": {id: fingerprint, …}}`, or `{"records": null}` if the
state had no room for the ids. The fingerprint "" means that the next sync emits the record again.
`unread`: the last sync did not read the partition. `empty`: since then, syncs found none of the
known records. `cursor_value` is the last emitted value of the cursor field.

`in_progress` marks every state of a sync except the last. If a sync begins with such a state, an
earlier sync was killed, and may have emitted more than the state counts, with cursor values up to
`cursor_value`.

`filters` are digests, as the values can be a customer's own data. Each mode reads only its own
cursors: after a change of the mode, a sync emits everything.

`integrated_accounts` writes the whole list of accounts as one partition, `{}`; in memory, each
account is a partition of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

import orjson
from airbyte_cdk.sources.streams import NO_CURSOR_STATE_KEY
from typing_extensions import override

from source_truto_segments.records.changes import ChangeClock, ChangeDetector
from source_truto_segments.streams import ACCOUNT_KEY, ENVIRONMENT, filter_digest

# Airbyte saves the states of all streams in one request of at most 10 MB.
MAX_STATE_BYTES = 8_000_000
# The part of the room that each stream always has.
_MIN_SHARE = 1 / 8

# A state in progress stores a cursor value this many seconds ahead; the next checkpoint comes
# sooner, see `Sync`.
RESERVED_SECONDS = 150.0

# A full refresh forgets a partition's older records, so that its memory does not grow with the
# partition.
_MAX_REMEMBERED = 10_000

# An unfinished full refresh that is older is not resumed: the accounts have changed since.
RESUME_MAX_AGE = timedelta(hours=24)

# A second empty list counts only after this time, as what caused the first can last until a new
# attempt; that of an hourly sync counts.
EMPTY_MIN_AGE = timedelta(minutes=50)

_LONG_AGO = datetime.fromtimestamp(0, timezone.utc)
_FILTERS = ("workspace_id", "tag_id", "remote_query", "columns")
_EMPTY_LIST_BYTES = len(
    '{"partition":{},"cursor":{"records":{},"empty":"2026-01-02T03:04:05+00:00"}},'
)

# The final states of the CDK's own streams; none of them holds anything to resume from.
_FINISHED = (NO_CURSOR_STATE_KEY, "__ab_full_refresh_sync_complete")
# The cursors that version 0.1 wrote.
_KEYS_OF_0_1 = frozenset({"updated_at", "next_cursor", "workspaces_done"})

StateBlob: TypeAlias = dict[str, Any]


class OutdatedStateError(Exception):
    """A state that version 0.1 wrote; it is not used."""


class InvalidStateError(ValueError):
    """A state that this connector cannot have written; the text says why."""


class StreamState(ABC):
    """The state of a stream's partitions. Only the main thread changes it.

    Args:
        filters: The filters of the read, see `read_filters`.

    Attributes:
        size: The bytes of the state that was last read or written.
    """

    def __init__(self, filters: Mapping[str, Any]) -> None:
        self.filters = dict(filters)
        self.size = 0

    @property
    @abstractmethod
    def partitions(self) -> Collection[str]:
        """The partitions in the state."""

    @property
    def expected(self) -> Collection[str]:
        """The partitions that the last sync read."""
        return self.partitions

    @abstractmethod
    def detector(self, partition: str) -> ChangeDetector | None:
        """Return the detector that compares a partition's records with the state.

        Returns:
            The detector; None if an earlier attempt of this sync read the partition completely.
        """

    def was_emptied(self, partition: str, now: datetime) -> bool:  # noqa: ARG002 - for incremental
        """Return whether a sync found none of a partition's records, EMPTY_MIN_AGE ago or more."""
        return False

    def forget_emptied(self, partition: str) -> bool:  # noqa: ARG002 - as above
        """Note that a partition has records, or failed; return whether the state changed."""
        return False

    def retire(self, found: Collection[str]) -> bool:  # noqa: ARG002 - as above
        """Mark the partitions that are not `found` as unread; return whether the state changed."""
        return False

    @abstractmethod
    def complete(self, partition: str, *, emptied: datetime | None = None) -> bool:
        """Note that a partition was read completely; return whether the state changed.

        Args:
            partition: The partition.
            emptied: When all its records were missing at once; None if they were not.
        """

    @abstractmethod
    def snapshot(self, room: int | None = None, reserved: str = "") -> StateBlob:
        """Return the current state, for the next attempt to begin with.

        Args:
            room: The most bytes that it may take; None for MAX_STATE_BYTES.
            reserved: A cursor value after all that may be emitted before the next state; "" if
                nothing may be.
        """

    @abstractmethod
    def final_snapshot(self, room: int | None = None) -> StateBlob:
        """Return the state after a complete sync, for the next sync to begin with."""

    def _blob(self, cursors: Iterable[tuple[str, StateBlob]]) -> StateBlob:
        states = [_entry(partition, cursor) for partition, cursor in cursors]
        return {"states": states, "filters": self.filters}


class FullRefreshState(StreamState):
    """The partitions that a full refresh has completed, to resume it after an interruption."""

    def __init__(self, filters: Mapping[str, Any], started_at: datetime) -> None:
        super().__init__(filters)
        self._started_at = started_at
        self._complete: set[str] = set()

    @classmethod
    def load(
        cls, blob: Mapping[str, Any], filters: Mapping[str, Any], now: datetime
    ) -> "FullRefreshState":
        """Load a state from Airbyte.

        Args:
            blob: The state.
            filters: The filters of the read, with the selected columns as `columns`.
            now: The current time.

        Raises:
            OutdatedStateError: If version 0.1 wrote it.
            InvalidStateError: If this connector cannot have written it.
        """
        entries = dict(_parse_entries(blob))
        started_at = _parse_time(blob.get("started_at"), now, "its started_at")
        if not _is_same_read(blob, filters) or abs(now - started_at) >= RESUME_MAX_AGE:
            return cls(filters, now)
        state = cls(filters, started_at)
        # Version 0.2 has one entry for the whole list of accounts: read it again.
        state._complete = {
            partition
            for partition, cursor in entries.items()
            if cursor.get("complete") is True and partition != ENVIRONMENT
        }
        return state

    @property
    @override
    def partitions(self) -> Collection[str]:
        return self._complete

    @override
    def detector(self, partition: str) -> ChangeDetector | None:
        return None if partition in self._complete else ChangeDetector({}, _MAX_REMEMBERED)

    @override
    def complete(self, partition: str, *, emptied: datetime | None = None) -> bool:
        is_new = partition not in self._complete
        self._complete.add(partition)
        return is_new

    @override
    def snapshot(self, room: int | None = None, reserved: str = "") -> StateBlob:
        blob = self._blob((partition, {"complete": True}) for partition in sorted(self._complete))
        blob["started_at"] = self._started_at.isoformat()
        self.size = _size(blob)
        return blob

    @override
    def final_snapshot(self, room: int | None = None) -> StateBlob:
        # The next sync reads everything.
        return {NO_CURSOR_STATE_KEY: True}


class IncrementalState(StreamState):
    """The fingerprint of each record that the destination has.

    A partition that is not read keeps its entry as long as there is room. When it is read again,
    the sync notices what was deleted in the meantime.

    Args:
        filters: The filters of the read.
        is_list: Whether to write the accounts as one partition.
        columns: A digest of the selected columns; None if it is not known.

    Attributes:
        cursor_value: The last emitted value of the cursor field.
        untracked: The partitions whose ids had no room in the last snapshot.
    """

    def __init__(
        self, filters: Mapping[str, Any], *, is_list: bool = False, columns: str | None = None
    ) -> None:
        super().__init__(filters)
        self.cursor_value = ""
        self.untracked: Collection[str] = ()
        self._is_list = is_list
        self._records: dict[str, dict[str, str]] = {}
        # The partitions whose ids were in the state that the sync began with.
        self._had_room: set[str] = set()
        self._unread: set[str] = set()
        self._columns = columns
        # The partitions that were last read with other columns: the destination may have dropped
        # those that are not selected now.
        self._stale: set[str] = set()
        self._emptied: dict[str, datetime] = {}

    @classmethod
    def load(
        cls,
        blob: Mapping[str, Any],
        filters: Mapping[str, Any],
        *,
        is_list: bool = False,
        columns: str | None = None,
    ) -> "IncrementalState":
        """Load a state from Airbyte; one that does not name its columns has the same ones.

        Raises:
            OutdatedStateError: If version 0.1 wrote it.
            InvalidStateError: If this connector cannot have written it.
        """
        state = cls(filters, is_list=is_list, columns=columns)
        entries = list(_parse_entries(blob))
        state.cursor_value = _parse_cursor_value(blob.get("cursor_value", ""))
        if not _is_same_read(blob, filters):
            return state
        for partition, cursor in entries:
            if "records" not in cursor:
                continue
            records = _parse_records(cursor["records"])
            if blob.get("in_progress"):
                # The killed sync may have emitted newer versions than this state records, so emit
                # everything once.
                records = dict.fromkeys(records, "")
            if since := cursor.get("empty"):
                # An earlier form has no time.
                text = None if since is True else since
                state._emptied[partition] = _parse_time(text, _LONG_AGO, "a cursor's empty")
            if partition == ENVIRONMENT:
                for account_id, version in records.items():
                    state._take(account_id, {account_id: version})
            elif cursor["records"] is None:
                state._records.setdefault(partition, {})
            else:
                state._take(partition, records)
                if cursor.get("unread"):
                    state._unread.add(partition)
        has_same_columns = blob.get("columns", columns) == columns
        state._stale = set() if has_same_columns else set(state._records)
        return state

    def _take(self, partition: str, records: Mapping[str, str]) -> None:
        known = self._records.setdefault(partition, {})
        for record_id, version in records.items():
            known[record_id] = version if known.get(record_id, version) == version else ""
        if records:
            self._had_room.add(partition)

    @property
    @override
    def partitions(self) -> Collection[str]:
        return self._records.keys()

    @property
    @override
    def expected(self) -> Collection[str]:
        return self._records.keys() - self._unread

    @override
    def detector(self, partition: str) -> ChangeDetector:
        return ChangeDetector(self._records.get(partition, {}))

    @override
    def was_emptied(self, partition: str, now: datetime) -> bool:
        first = self._emptied.get(partition)
        return first is not None and now - first >= EMPTY_MIN_AGE

    @override
    def forget_emptied(self, partition: str) -> bool:
        return self._emptied.pop(partition, None) is not None

    @override
    def retire(self, found: Collection[str]) -> bool:
        unread = self._records.keys() - set(found)
        is_new = unread != self._unread
        self._unread = unread
        return is_new

    def add(self, partition: str, fingerprints: Mapping[str, str], cursor_value: str) -> None:
        """Add records that were written."""
        self._unread.discard(partition)
        self._records.setdefault(partition, {}).update(fingerprints)
        self.cursor_value = max(self.cursor_value, cursor_value)

    def remove(self, partition: str, ids: Iterable[str], cursor_value: str) -> None:
        """Remove records whose tombstones were written."""
        records = self._records.get(partition, {})
        for record_id in ids:
            records.pop(record_id, None)
        self.cursor_value = max(self.cursor_value, cursor_value)

    @override
    def complete(self, partition: str, *, emptied: datetime | None = None) -> bool:
        first = self._emptied.get(partition)
        if emptied is None:
            is_new = self.forget_emptied(partition)
        else:
            # A later time than now is from before the clock was set back.
            self._emptied[partition] = min(first or emptied, emptied)
            is_new = first != self._emptied[partition]
        if partition != ENVIRONMENT:
            is_new |= partition not in self._records or partition in self._unread
            is_new |= partition in self._stale
            self._stale.discard(partition)
            self._unread.discard(partition)
            self._records.setdefault(partition, {})
        return is_new

    @override
    def snapshot(self, room: int | None = None, reserved: str = "") -> StateBlob:
        blob: StateBlob = self._blob(())
        if reserved or self.cursor_value:
            blob["cursor_value"] = reserved or self.cursor_value
        if reserved:
            blob["in_progress"] = True
        if self._columns is not None:
            blob["columns"] = self._columns
        tracked = self._track((MAX_STATE_BYTES if room is None else room) - _size(blob))
        blob["states"] = list(self._entries(tracked))
        self.size = _size(blob)
        return blob

    @override
    def final_snapshot(self, room: int | None = None) -> StateBlob:
        return self.snapshot(room)

    def _track(self, room: int) -> Collection[str]:
        """Return the partitions that keep their ids within the room.

        Unread partitions lose their ids first. Partitions that had room keep it: otherwise they
        would take turns, and a sync would emit those that had none.
        """

        def rank(partition: str) -> tuple[bool, bool, str]:
            is_new = partition not in self._had_room and bool(self._records[partition])
            return partition in self._unread, is_new, partition

        # The bytes of each entry without ids, with a comma.
        base = {
            partition: _size(_entry(partition, self._cursor(partition, None))) + 1
            for partition in self._records
            if not self._is_listed(partition)
        }
        read = sum(base[key] for key in base.keys() - self._unread)
        # The last entry has no comma.
        room += 1 - (_EMPTY_LIST_BYTES if self._is_list else read)
        tracked: set[str] = set()
        for partition in sorted(self._records, key=rank):
            size = _size(self._records[partition])
            size += base[partition] if partition in self._unread else 0
            if size <= room:
                room -= size
                tracked.add(partition)
        self.untracked = self._records.keys() - tracked
        return tracked

    def _entries(self, tracked: Collection[str]) -> Iterator[StateBlob]:
        listed: dict[str, str] = {}
        for partition in sorted(filter(self._is_listed, tracked)):
            listed |= self._saved(partition)
        if listed or ENVIRONMENT in self._emptied:
            yield _entry(ENVIRONMENT, self._cursor(ENVIRONMENT, listed))
        for partition in sorted(self._records):
            records = self._saved(partition) if partition in tracked else None
            # An unread partition without ids has nothing to remember.
            if not self._is_listed(partition) and (records or partition not in self._unread):
                cursor = self._cursor(partition, None if records is None else dict(records))
                yield _entry(partition, cursor)

    def _saved(self, partition: str) -> dict[str, str]:
        """Return the fingerprints to save; the next sync emits what has an empty one again."""
        records = self._records[partition]
        return dict.fromkeys(records, "") if partition in self._stale else records

    def _is_listed(self, partition: str) -> bool:
        return self._is_list and partition not in self._unread

    def _cursor(self, partition: str, records: Mapping[str, str] | None) -> StateBlob:
        cursor: StateBlob = {"records": records}
        if partition in self._unread:
            cursor["unread"] = True
        if partition in self._emptied:
            cursor["empty"] = self._emptied[partition].isoformat(timespec="seconds")
        return cursor


def room_beside(sizes: Iterable[int]) -> int:
    """Return the bytes that a stream's state may take, given the sizes of the other states."""
    share = int(MAX_STATE_BYTES * _MIN_SHARE)
    return max(share, MAX_STATE_BYTES - sum(max(size, share) for size in sizes))


def _entry(partition: str, cursor: StateBlob) -> StateBlob:
    return {"partition": {ACCOUNT_KEY: partition} if partition else {}, "cursor": cursor}


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


def _is_same_read(blob: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Return whether a state was written with the same filters.

    The states of version 0.2 have the filters' values instead of digests, the selected accounts as
    filters of their list, and no columns.
    """
    written = blob.get("filters", filters)
    if not isinstance(written, Mapping):
        return False
    written = {"columns": filters.get("columns"), **written}
    return all(filters.get(k) in (written.get(k), filter_digest(written.get(k))) for k in _FILTERS)


def _parse_entries(blob: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the partition and the cursor of each entry."""
    if not blob or any(key in blob for key in _FINISHED):
        return
    states = blob.get("states")
    if not isinstance(states, list):
        raise InvalidStateError("it has no list of states")
    try:
        orjson.dumps(blob)
    except orjson.JSONEncodeError as error:
        raise InvalidStateError(f"it cannot be written again ({error})") from None
    for entry in states:
        partition = entry.get("partition") if isinstance(entry, Mapping) else None
        cursor = entry.get("cursor") if isinstance(entry, Mapping) else None
        if not isinstance(partition, Mapping) or not isinstance(cursor, Mapping):
            raise InvalidStateError("an entry has no partition or no cursor")
        if _KEYS_OF_0_1 & cursor.keys():
            raise OutdatedStateError
        account_id = partition.get(ACCOUNT_KEY, ENVIRONMENT)
        if not isinstance(account_id, str):
            raise InvalidStateError("a partition names no integrated account")
        yield account_id.strip().lower(), cursor


def _parse_records(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        raise InvalidStateError("a cursor's records are not fingerprints by id")
    return dict(value)


def _parse_cursor_value(value: Any) -> str:
    """Return the cursor value that all values of this sync must come after."""
    text = str(value)
    try:
        ChangeClock(text).ahead(RESERVED_SECONDS)
    except (ValueError, OverflowError):
        raise InvalidStateError("its cursor_value is not a valid timestamp") from None
    return text


def _parse_time(value: Any, default: datetime, name: str) -> datetime:
    if value is None:
        return default
    try:
        # Python 3.10 does not parse Z.
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, AttributeError, OverflowError):
        raise InvalidStateError(f"{name} is not a valid timestamp") from None
