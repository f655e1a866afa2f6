"""A warehouse as Airbyte fills it: deduplicated tables with deletions, and the last states."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from integration_tests.support import Result, aged, without_cdc

CURSOR, DELETED_AT = "_ab_cdc_updated_at", "_ab_cdc_deleted_at"
_ACCOUNT_AND_ID = ("integrated_account_id", "id")
PRIMARY_KEYS: Mapping[str, tuple[str, ...]] = {
    "segments": _ACCOUNT_AND_ID,
    "workspaces": _ACCOUNT_AND_ID,
    "integrated_accounts": ("id",),
}

Key = tuple[Any, ...]
Data = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A version of a record.

    Attributes:
        data: Its columns, without nulls.
        emitted_at: When the connector emitted it, in milliseconds since 1970.
    """

    data: Data
    emitted_at: int

    def replaces(self, stored: "Row") -> bool:
        """Return whether it is newer by the comparison of Snowflake, Postgres and BigQuery."""
        mine, other = _cursor(self.data), _cursor(stored.data)
        if mine == other:
            return self.emitted_at > stored.emitted_at
        return other is None or (mine is not None and mine > other)


class Destination:
    """The tables of all streams in append_dedup mode, whatever the order of the messages.

    A tombstone deletes a row only if the catalog has the column of deletions and the tombstone is
    newer than the row. A tombstone for a missing row is dropped.

    Args:
        soft_deletes: Whether a deleted row stays in the table, marked as deleted.
        keeps_first: Whether it compares no cursors, and keeps the first of several versions that
            arrive in one sync, as PyAirbyte can.

    Attributes:
        states: The last state message of each stream.
        uncounted: The keys of records that killed syncs emitted after the last state of their
            stream, and that have not come again since.
    """

    def __init__(self, *, soft_deletes: bool = False, keeps_first: bool = False) -> None:
        self._soft_deletes = soft_deletes
        self._keeps_first = keeps_first
        self.states: dict[str, dict[str, Any]] = {}
        self.uncounted: dict[str, set[Key]] = defaultdict(set)
        self._tables: dict[str, dict[Key, Row]] = defaultdict(dict)

    @property
    def state(self) -> list[dict[str, Any]]:
        """Return what the platform passes to the next sync."""
        return list(self.states.values())

    def rows(self, stream: str) -> dict[Key, Data]:
        """Return the live rows by key, without the columns of change data capture."""
        return {
            key: without_cdc(row.data)
            for key, row in self._tables[stream].items()
            if DELETED_AT not in row.data
        }

    def age(self, hours: float) -> None:
        """Make the states older, as if some hours had passed since the last sync."""
        self.states = dict(zip(self.states, aged(self.state, hours), strict=True))

    def load(
        self, result: Result, configured: Mapping[str, Any], *, fails: random.Random | None = None
    ) -> None:
        """Load the messages of a sync.

        Args:
            result: The messages.
            configured: The configured catalog of the sync.
            fails: Chooses where the destination fails, separately for each stream. It has then
                saved some of the states, at least the one before the first record, and committed
                the records up to any later point.
        """
        for entry in configured["streams"]:
            stream = entry["stream"]["name"]
            messages = [message for message in result.messages if _stream_of(message) == stream]
            states = [i for i, message in enumerate(messages) if message["type"] == "STATE"]
            saved, end = (states[-1] if states else -1), len(messages)
            if fails is not None and states:
                kinds = [message["type"] for message in messages]
                first = kinds.index("RECORD") if "RECORD" in kinds else 0
                saved = fails.choice([i for i in states if i >= first - 1])
                end = fails.randint(saved + 1, len(messages))
            if saved >= 0:
                state = messages[saved]["state"]
                self.states[stream] = {k: v for k, v in state.items() if k != "sourceStats"}
            records = [m["record"] for m in messages[:end] if m["type"] == "RECORD"]
            self._write(stream, records, _columns(entry))
            counted = [m["record"] for m in messages[: saved + 1] if m["type"] == "RECORD"]
            beyond = [m["record"] for m in messages[saved + 1 : end] if m["type"] == "RECORD"]
            self.uncounted[stream] -= _keys(stream, counted)
            self.uncounted[stream] |= _keys(stream, beyond)

    def _write(
        self, stream: str, records: list[dict[str, Any]], columns: frozenset[str] | None
    ) -> None:
        table = self._tables[stream]
        if self._keeps_first:
            records = list({key_of(stream, r["data"]): r for r in reversed(records)}.values())
        for record in records:
            data = {
                name: value
                for name, value in record["data"].items()
                if value is not None and (columns is None or name in columns)
            }
            key, row = key_of(stream, data), Row(data, record["emitted_at"])
            stored = table.get(key)
            if stored is not None and not self._keeps_first and not row.replaces(stored):
                continue
            if DELETED_AT not in data or (self._soft_deletes and stored is not None):
                table[key] = row
            else:
                table.pop(key, None)


def _stream_of(message: Mapping[str, Any]) -> str | None:
    """Return the stream of a record or a state."""
    if message["type"] == "STATE":
        name: str = message["state"]["stream"]["stream_descriptor"]["name"]
        return name
    return message["record"]["stream"] if message["type"] == "RECORD" else None


def key_of(stream: str, data: Mapping[str, Any]) -> Key:
    """Return the primary key of a record."""
    return tuple(data.get(name) for name in PRIMARY_KEYS[stream])


def tombstones(result: Result, stream: str) -> Iterator[Data]:
    """Iterate over the records that report a deletion."""
    return (data for data in result.records_of(stream) if DELETED_AT in data)


def _keys(stream: str, records: list[dict[str, Any]]) -> set[Key]:
    return {key_of(stream, record["data"]) for record in records}


def _columns(configured: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the columns of a table, or None if it takes all columns."""
    properties = configured["stream"]["json_schema"].get("properties")
    return frozenset(properties) | {CURSOR} if properties else None


def _cursor(data: Mapping[str, Any]) -> datetime | None:
    value = data.get(CURSOR)
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if value else None
