"""The state of each account, as pure data: where to resume, and what is new.

One state covers all accounts:

    {"states": [{"partition": {"integrated_account_id": …}, "cursor": {…}}, …],
     "filters": {…}, "started_at": …}

In a full refresh a cursor is `{"next_cursor": …, "workspace_id"?: …, "workspaces_done"?: […]}`
after a page and `{"complete": true}` at the account's end. In incremental mode it is
`{"updated_at": mark}`, and the partition also names the workspace where there is one. Each mode
knows its own cursors only: after a change of the mode everything is read anew.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from airbyte_cdk.sources.streams import NO_CURSOR_STATE_KEY

from source_truto_segments.config import Config, ConfigError
from source_truto_segments.envelope import can_be_sent
from source_truto_segments.values import MisfitError, date_time

ACCOUNT_KEY = "integrated_account_id"
WORKSPACE_KEY = "workspace_id"
MARK_FIELD = "updated_at"

# What a full refresh left unfinished so long ago says nothing about the accounts of today.
RESUMABLE_FOR = timedelta(hours=24)

# Where the CDK's own streams end; none of them holds anything to resume from.
_FINISHED = (NO_CURSOR_STATE_KEY, "__ab_full_refresh_sync_complete")

Blob = dict[str, Any]


@dataclass(frozen=True)
class Resume:
    """Where the reading of an account goes on.

    Attributes:
        next_cursor: The cursor of the page to read next; None for the first page.
        workspace_id: The workspace of that page; None where none was named.
        workspaces_done: The workspaces that were read to their end.
    """

    next_cursor: str | None = None
    workspace_id: str | None = None
    workspaces_done: tuple[str, ...] = ()


class State(ABC):
    """What is known of the accounts. Not safe for threads by itself."""

    @abstractmethod
    def resume(self, account_id: str) -> Resume | None:
        """Where an account's reading begins; None if it was read to its end already."""

    @abstractmethod
    def wants(self, account_id: str, workspace_id: str | None, record: Mapping[str, Any]) -> bool:
        """Whether a record is to be emitted."""

    @abstractmethod
    def page_read(
        self,
        account_id: str,
        workspace_id: str | None,
        next_cursor: str | None,
        records: Iterable[Mapping[str, Any]],
    ) -> None:
        """A page's records were emitted; they are those that the page had, wanted or not."""

    @abstractmethod
    def restarted(self, account_id: str) -> None:
        """An account is read from its first page after all."""

    @abstractmethod
    def account_read(self, account_id: str) -> None:
        """An account was read to its end."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many accounts a dump names."""

    @abstractmethod
    def dump(self) -> Blob:
        """The state as it stands: what the next attempt begins with."""

    @abstractmethod
    def dump_finished(self, account_ids: Collection[str]) -> Blob:
        """The state after a sync that read all of these accounts: what the next sync begins with.

        Args:
            account_ids: All accounts that there are; the state keeps no others.
        """


@dataclass
class FullRefreshState(State):
    """Everything is read; the state serves to resume an attempt that did not end well.

    Attributes:
        filters: What narrows the read, see `filters_of`.
        started_at: When the first attempt began.
    """

    filters: Mapping[str, Any]
    started_at: datetime
    _places: dict[str, Resume | None] = field(default_factory=dict)

    @classmethod
    def load(
        cls, blob: Mapping[str, Any], filters: Mapping[str, Any], now: datetime
    ) -> "FullRefreshState":
        """Reads the state that Airbyte hands over.

        Raises:
            ConfigError: If it is none that this connector can have written.
        """
        entries = list(_entries(blob))
        started_at = _moment(blob["started_at"]) if blob.get("started_at") else now
        is_usable = _are_same(blob, filters) and abs(now - started_at) < RESUMABLE_FOR
        if not is_usable:
            return cls(filters, now)
        state = cls(filters, started_at)
        for account_id, _, cursor in entries:
            if cursor.get("complete") is True or _is_place(cursor):
                # An account that stands there twice cannot be trusted: it is read anew.
                is_double = account_id in state._places
                place = None if cursor.get("complete") is True else _place(cursor)
                state._places[account_id] = Resume() if is_double else place
        return state

    def resume(self, account_id: str) -> Resume | None:  # noqa: D102
        return self._places.get(account_id, Resume())

    def wants(  # noqa: D102
        self, account_id: str, workspace_id: str | None, record: Mapping[str, Any]
    ) -> bool:
        del account_id, workspace_id, record
        return True

    def page_read(  # noqa: D102
        self,
        account_id: str,
        workspace_id: str | None,
        next_cursor: str | None,
        records: Iterable[Mapping[str, Any]],
    ) -> None:
        del records
        place = self._places.get(account_id) or Resume()
        done = place.workspaces_done
        if next_cursor is not None:
            self._places[account_id] = Resume(next_cursor, workspace_id, done)
        elif workspace_id is not None:
            self._places[account_id] = Resume(workspaces_done=(*done, workspace_id))

    def restarted(self, account_id: str) -> None:  # noqa: D102
        self._places.pop(account_id, None)

    def account_read(self, account_id: str) -> None:  # noqa: D102
        self._places[account_id] = None

    @property
    def size(self) -> int:  # noqa: D102
        return len(self._places)

    def dump(self) -> Blob:  # noqa: D102
        return {
            "states": [
                {"partition": {ACCOUNT_KEY: account_id}, "cursor": _cursor(place)}
                for account_id, place in sorted(self._places.items())
                if place != Resume()
            ],
            "filters": dict(self.filters),
            "started_at": _text(self.started_at),
        }

    def dump_finished(self, account_ids: Collection[str]) -> Blob:
        """The neutral state: the next sync reads everything."""
        del account_ids
        return {NO_CURSOR_STATE_KEY: True}


@dataclass
class IncrementalState(State):
    """What may have changed is emitted: records at or after the mark, and all without a date.

    Vendors answer in any order, so a mark moves only when its account was read to its end. It is
    the highest `updated_at` that was seen, but never later than the start of the sync: a vendor's
    clock that runs ahead must not hide tomorrow's changes.

    Attributes:
        filters: What narrows the read, see `filters_of`.
        started_at: When the sync began.
    """

    filters: Mapping[str, Any]
    started_at: datetime
    _marks: dict[str, dict[str | None, str | None]] = field(default_factory=dict)
    _seen: dict[str, dict[str | None, str | None]] = field(default_factory=dict)

    @classmethod
    def load(
        cls, blob: Mapping[str, Any], filters: Mapping[str, Any], now: datetime
    ) -> "IncrementalState":
        """Reads the state that Airbyte hands over.

        Raises:
            ConfigError: If it is none that this connector can have written.
        """
        state = cls(filters, now)
        entries = list(_entries(blob))
        if not _are_same(blob, filters):
            return state
        for account_id, workspace_id, cursor in entries:
            if MARK_FIELD in cursor:
                marks = state._marks.setdefault(account_id, {})
                mark = _mark(cursor[MARK_FIELD])
                # Of two marks the earlier hides less.
                marks[workspace_id] = _earlier(marks.get(workspace_id, mark), mark)
        return state

    @property
    def marks_ahead(self) -> list[str]:
        """The accounts whose mark lies in the future: only an edited state has such."""
        now = _text(self.started_at)
        return [
            account_id
            for account_id, marks in self._marks.items()
            if any(mark is not None and _key(mark) > _key(now) for mark in marks.values())
        ]

    def resume(self, account_id: str) -> Resume | None:
        """The first page: an account that was not read to its end is read whole."""
        self._seen[account_id] = {}
        return Resume()

    def wants(  # noqa: D102
        self, account_id: str, workspace_id: str | None, record: Mapping[str, Any]
    ) -> bool:
        value = record.get(MARK_FIELD)
        mark = self._marks.get(account_id, {}).get(workspace_id)
        return value is None or mark is None or _key(value) >= _key(mark)

    def page_read(  # noqa: D102
        self,
        account_id: str,
        workspace_id: str | None,
        next_cursor: str | None,
        records: Iterable[Mapping[str, Any]],
    ) -> None:
        del next_cursor
        seen = self._seen.setdefault(account_id, {})
        highest = seen.get(workspace_id)
        for record in records:
            highest = _later(highest, record.get(MARK_FIELD))
        seen[workspace_id] = highest

    def restarted(self, account_id: str) -> None:  # noqa: D102
        self._seen[account_id] = {}

    def account_read(self, account_id: str) -> None:  # noqa: D102
        start = _text(self.started_at)
        before = self._marks.get(account_id, {})
        self._marks[account_id] = {
            workspace_id: _earlier(_later(before.get(workspace_id), highest), start)
            for workspace_id, highest in self._seen.pop(account_id, {}).items()
        }

    @property
    def size(self) -> int:  # noqa: D102
        return len(self._marks)

    def dump(self) -> Blob:  # noqa: D102
        return self._dump(self._marks)

    def dump_finished(self, account_ids: Collection[str]) -> Blob:  # noqa: D102
        known = set(account_ids)
        return self._dump({id_: marks for id_, marks in self._marks.items() if id_ in known})

    def _dump(self, of_accounts: Mapping[str, Mapping[str | None, str | None]]) -> Blob:
        return {
            "states": [
                {"partition": _partition(account_id, workspace_id), "cursor": {MARK_FIELD: mark}}
                for account_id, marks in sorted(of_accounts.items())
                for workspace_id, mark in marks.items()
            ],
            "filters": dict(self.filters),
        }


def filters_of(config: Config) -> dict[str, Any]:
    """What narrows a read: a state that was written under other filters would hide records."""
    filters = {
        WORKSPACE_KEY: config.workspace_id,
        "tag_id": config.tag_id,
        "remote_query": [list(pair) for pair in config.remote_query],
    }
    return {name: value for name, value in filters.items() if value}


def _entries(blob: Mapping[str, Any]) -> Iterator[tuple[str, str | None, Mapping[str, Any]]]:
    """The account, the workspace and the cursor of each entry."""
    if not blob or any(key in blob for key in _FINISHED):
        return
    states = blob.get("states")
    if not isinstance(states, list):
        raise _not_understood("it has no list of states")
    for entry in states:
        partition = entry.get("partition") if isinstance(entry, Mapping) else None
        cursor = entry.get("cursor") if isinstance(entry, Mapping) else None
        if not isinstance(partition, Mapping) or not isinstance(cursor, Mapping):
            raise _not_understood("an entry has no partition or no cursor")
        account_id = partition.get(ACCOUNT_KEY)
        workspace_id = partition.get(WORKSPACE_KEY)
        if not isinstance(account_id, str) or not isinstance(workspace_id, str | None):
            raise _not_understood("a partition names no integrated account")
        yield account_id.strip().lower(), workspace_id, cursor


def _are_same(blob: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Whether a state was written under these filters; one that does not say is taken as such."""
    return bool(blob.get("filters", filters) == filters)


def _is_place(cursor: Mapping[str, Any]) -> bool:
    return "next_cursor" in cursor or "workspaces_done" in cursor


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and can_be_sent(value)


def _place(cursor: Mapping[str, Any]) -> Resume:
    next_cursor, workspace_id = cursor.get("next_cursor"), cursor.get(WORKSPACE_KEY)
    done = cursor.get("workspaces_done", [])
    is_known = (
        (next_cursor is None or _is_text(next_cursor))
        and next_cursor != ""
        and (workspace_id is None or _is_text(workspace_id))
        and isinstance(done, list)
        and all(isinstance(id_, str) for id_ in done)
    )
    if not is_known:
        raise _not_understood("a cursor is of another form")
    return Resume(next_cursor, workspace_id, tuple(done))


def _cursor(place: Resume | None) -> Blob:
    if place is None:
        return {"complete": True}
    parts = {
        "next_cursor": place.next_cursor,
        WORKSPACE_KEY: place.workspace_id,
        "workspaces_done": list(place.workspaces_done),
    }
    return {name: value for name, value in parts.items() if value}


def _partition(account_id: str, workspace_id: str | None) -> Blob:
    workspace = {} if workspace_id is None else {WORKSPACE_KEY: workspace_id}
    return {ACCOUNT_KEY: account_id, **workspace}


def _mark(value: Any) -> str | None:
    try:
        return None if value is None else date_time(value)
    except MisfitError:
        raise _not_understood("a cursor's updated_at is no point in time") from None


def _moment(value: Any) -> datetime:
    try:
        text = date_time(value)
    except MisfitError:
        text = None
    if text is None:
        raise _not_understood("its started_at is no point in time")
    return datetime.fromisoformat(text[: len("2023-01-02T03:04:05")]).replace(tzinfo=timezone.utc)


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc).replace(microsecond=0, tzinfo=None).isoformat()}Z"


def _key(moment: str) -> str:
    """What orders points in time: without the Z, a fraction comes after its whole second."""
    return moment.removesuffix("Z")


def _later(one: str | None, other: str | None) -> str | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=_key)


def _earlier(one: str | None, other: str | None) -> str | None:
    if one is None or other is None:
        return None
    return min(one, other, key=_key)


def _not_understood(why: str) -> ConfigError:
    return ConfigError(
        f"The state of the stream segments cannot be understood: {why}. Reset the stream in the "
        "connection's settings; the next sync then reads everything."
    )
