"""The state of one stream, as plain data: which partitions are complete, and what they hold.

    {"states": [{"partition": {"integrated_account_id": …}, "cursor": {…}}, …], "filters": {…}}

In a full refresh a cursor is `{"complete": true}`, and `started_at` says when the first attempt
began. In incremental mode a cursor is `{"records": {id: fingerprint, …}}`, or
`{"records": null}` for a partition whose ids found no room, and `cursor_value` is the last value of
the cursor field that was emitted. `in_progress` marks every state but the last of a sync: a sync
that begins with such a one knows that an earlier one was killed, and may have emitted more than
the state counts. Each mode knows its own cursors only: after a change of the mode everything is
read and emitted.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

import orjson
from airbyte_cdk.sources.streams import NO_CURSOR_STATE_KEY
from typing_extensions import override

from source_truto_segments.records.changes import ChangeClock, ChangeDetector, skip_ahead
from source_truto_segments.streams import ACCOUNT_KEY, ENVIRONMENT

# Airbyte saves no state above 10 MB, with what it adds to it.
MAX_STATE_BYTES = 8_000_000

# A full refresh forgets older records of a partition: its memory must not grow with the partition.
_MAX_REMEMBERED = 10_000

# What a full refresh left unfinished so long ago says nothing about the accounts of today.
RESUME_MAX_AGE = timedelta(hours=24)

# The final states of the CDK's own streams; none of them holds anything to resume from.
_FINISHED = (NO_CURSOR_STATE_KEY, "__ab_full_refresh_sync_complete")
# The cursors that version 0.1 wrote.
_KEYS_OF_0_1 = frozenset({"updated_at", "next_cursor", "workspaces_done"})

StateBlob: TypeAlias = dict[str, Any]


class OutdatedStateError(Exception):
    """A state that version 0.1 wrote; it is read as none."""


class InvalidStateError(ValueError):
    """A state that this connector cannot have written; the text says why."""


class StreamState(ABC):
    """What is known of a stream's partitions. Only the thread that writes the output changes it.

    Args:
        filters: What narrows the read, see `read_filters`.
    """

    def __init__(self, filters: Mapping[str, Any]) -> None:
        self.filters = dict(filters)

    @property
    @abstractmethod
    def partitions(self) -> Collection[str]:
        """The partitions that the state knows."""

    @abstractmethod
    def detector(self, partition: str) -> ChangeDetector | None:
        """Return what compares a partition's records with the state.

        Returns:
            None if an earlier attempt of this sync read the partition completely.
        """

    @abstractmethod
    def complete(self, partition: str) -> bool:
        """Note that a partition was read completely; return whether that is new."""

    @abstractmethod
    def snapshot(self, *, in_progress: bool = False) -> StateBlob:
        """Return the state as it stands: what the next attempt begins with.

        Args:
            in_progress: Whether more may be emitted after it.
        """

    @abstractmethod
    def final_snapshot(self, partitions: Collection[str] | None) -> StateBlob:
        """Return the state after a complete sync: what the next sync begins with.

        Args:
            partitions: All partitions that there are; the state keeps no others. None if that is
                not known.
        """

    def _blob(self, cursors: Iterable[tuple[str, StateBlob]]) -> StateBlob:
        states = [
            {"partition": {ACCOUNT_KEY: partition} if partition else {}, "cursor": cursor}
            for partition, cursor in cursors
        ]
        return {"states": states, "filters": self.filters}


class FullRefreshState(StreamState):
    """Everything is read and emitted; the state serves to resume an attempt that broke off."""

    def __init__(self, filters: Mapping[str, Any], started_at: datetime) -> None:
        super().__init__(filters)
        self._started_at = started_at
        self._complete: set[str] = set()

    @classmethod
    def load(
        cls, blob: Mapping[str, Any], filters: Mapping[str, Any], now: datetime
    ) -> "FullRefreshState":
        """Read the state that Airbyte hands over.

        Raises:
            OutdatedStateError: If version 0.1 wrote it.
            InvalidStateError: If this connector cannot have written it.
        """
        entries = dict(_parse_entries(blob))
        started_at = _parse_time(blob.get("started_at"), now)
        if blob.get("filters", filters) != filters or abs(now - started_at) >= RESUME_MAX_AGE:
            return cls(filters, now)
        state = cls(filters, started_at)
        state._complete = {
            partition for partition, cursor in entries.items() if cursor.get("complete") is True
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
    def complete(self, partition: str) -> bool:
        is_new = partition not in self._complete
        self._complete.add(partition)
        return is_new

    @override
    def snapshot(self, *, in_progress: bool = False) -> StateBlob:
        blob = self._blob((partition, {"complete": True}) for partition in sorted(self._complete))
        return {**blob, "started_at": self._started_at.isoformat()}

    @override
    def final_snapshot(self, partitions: Collection[str] | None) -> StateBlob:
        # The neutral state: the next sync reads everything.
        return {NO_CURSOR_STATE_KEY: True}


class IncrementalState(StreamState):
    """The fingerprint of each record that the destination has."""

    def __init__(self, filters: Mapping[str, Any]) -> None:
        super().__init__(filters)
        self.cursor_value = ""
        self._records: dict[str, dict[str, str]] = {}
        # The state had no room for their ids. They are known again once it has.
        self._untracked: set[str] = set()

    @classmethod
    def load(cls, blob: Mapping[str, Any], filters: Mapping[str, Any]) -> "IncrementalState":
        """Read the state that Airbyte hands over.

        Raises:
            OutdatedStateError: If version 0.1 wrote it.
            InvalidStateError: If this connector cannot have written it.
        """
        state = cls(filters)
        entries = dict(_parse_entries(blob))
        was_killed = bool(blob.get("in_progress"))
        state.cursor_value = _parse_cursor_value(
            blob.get("cursor_value", ""), was_killed=was_killed
        )
        if blob.get("filters", filters) != filters:
            return state
        for partition, cursor in entries.items():
            if "records" not in cursor:
                continue
            records = _parse_records(cursor["records"])
            if was_killed:
                # That sync may have emitted newer versions than this state records, so emit
                # everything once.
                records = dict.fromkeys(records, "")
            state._records[partition] = records
            if cursor["records"] is None:
                state._untracked.add(partition)
        return state

    @property
    @override
    def partitions(self) -> Collection[str]:
        return self._records.keys()

    @property
    def untracked(self) -> Collection[str]:
        """The partitions whose ids found no room in the last snapshot."""
        return self._untracked

    @override
    def detector(self, partition: str) -> ChangeDetector:
        return ChangeDetector(self._records.get(partition, {}))

    def add(self, partition: str, fingerprints: Mapping[str, str], cursor_value: str) -> None:
        """Take in records that were written."""
        self._records.setdefault(partition, {}).update(fingerprints)
        self.cursor_value = max(self.cursor_value, cursor_value)

    def remove(self, partition: str, ids: Iterable[str], cursor_value: str) -> None:
        """Take out records whose tombstones were written."""
        records = self._records.get(partition, {})
        for record_id in ids:
            records.pop(record_id, None)
        self.cursor_value = max(self.cursor_value, cursor_value)

    @override
    def complete(self, partition: str) -> bool:
        is_new = partition not in self._records
        self._records.setdefault(partition, {})
        return is_new

    @override
    def snapshot(self, *, in_progress: bool = False) -> StateBlob:
        blob = self._fitting_blob(self._records)
        return {**blob, "in_progress": True} if in_progress else blob

    @override
    def final_snapshot(self, partitions: Collection[str] | None) -> StateBlob:
        if partitions is not None:
            for partition in self._records.keys() - set(partitions):
                del self._records[partition]
        return self.snapshot()

    def _fitting_blob(self, records: Mapping[str, Mapping[str, str]]) -> StateBlob:
        """Return the state, with the ids of as many partitions as there is room for."""
        without_any = self._blob((key, {"records": None}) for key in records)
        room = MAX_STATE_BYTES - len(orjson.dumps(without_any))
        untracked: set[str] = set()
        # Those that had room keep it: otherwise they would take turns, and be emitted in turn.
        for partition in sorted(records, key=lambda key: (key in self._untracked, key)):
            size = len(orjson.dumps(records[partition]))
            if size <= room:
                room -= size
            else:
                untracked.add(partition)
        self._untracked = untracked
        blob = self._blob(
            (key, {"records": None if key in untracked else dict(records[key])})
            for key in sorted(records)
        )
        return {**blob, "cursor_value": self.cursor_value} if self.cursor_value else blob


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


def _parse_cursor_value(value: Any, *, was_killed: bool) -> str:
    """Return the value of the cursor field that the values of this sync come after."""
    text = str(value)
    try:
        if was_killed:
            text = skip_ahead(text)
        ChangeClock(text).next()
    except (ValueError, OverflowError):
        raise InvalidStateError("its cursor_value is not a valid timestamp") from None
    return text


def _parse_time(value: Any, default: datetime) -> datetime:
    if value is None:
        return default
    try:
        # Python 3.10 knows no Z.
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (ValueError, AttributeError):
        raise InvalidStateError("its started_at is not a valid timestamp") from None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
