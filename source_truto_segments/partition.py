"""One partition of a stream: its pages, and what of them is new, changed or gone."""

import logging
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from source_truto_segments import errors
from source_truto_segments.changes import DELETED_AT, UPDATED_AT, ChangeClock
from source_truto_segments.client import Request, TrutoClient
from source_truto_segments.errors import ReadError
from source_truto_segments.events import PartitionRead, RecordsRead
from source_truto_segments.messages import Record, RecordBatch
from source_truto_segments.pagination import PaginationLoopDetector, PaginationLoopError
from source_truto_segments.pagination import next_page_token as token_after
from source_truto_segments.rate_limiter import Delay
from source_truto_segments.records import coerce_record
from source_truto_segments.responses import Page, parse_page
from source_truto_segments.state import ACCOUNT_KEY, StreamState
from source_truto_segments.streams import INTEGRATED_ACCOUNTS, TrutoStream

_ISSUES = {
    "partial": "responses that Truto marked as partial: {}. Their records are valid; what is "
    "missing comes with a later sync, and nothing is taken for deleted.",
    "invalid": "entries that are not objects: {}. They were left out, and nothing is taken for "
    "deleted.",
    "without id": "records without an id: {}. They were emitted, but a destination cannot "
    "deduplicate them, and nothing is taken for deleted.",
    "coerced": "records with a value that does not match its column's type, or that no destination "
    "takes: {}. Each such field is named in the record's meta.changes.",
}


@dataclass(frozen=True)
class SelectedStream:
    """A stream that the configured catalog selects.

    Attributes:
        stream: The stream, with its selected columns.
        state: Its state; workers only read what an earlier sync left.
        clock: Gives the values of the cursor field.
    """

    stream: TrutoStream
    state: StreamState
    clock: ChangeClock

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name


class PartitionReader:
    """Turns the pages of one partition into events.

    The partition is compared with the state. Pages can shift while they are read: if a record that
    was there is missing, the caller reads the partition once more, and only what both reads lack is
    deleted.

    Args:
        selected: The stream.
        partition: The partition's key.
        logger: Where issues with the data are logged.
    """

    def __init__(self, selected: SelectedStream, partition: str, logger: logging.Logger) -> None:
        self._selected = selected
        self._partition = partition
        self._logger = logger
        self._changes = selected.state.detector(partition)
        self._issues: Counter[str] = Counter()
        # Whether certainly everything of the partition was seen.
        self.is_whole = True

    @property
    def must_be_read_again(self) -> bool:
        """Whether records are missing that may only have been on no page."""
        return self._can_delete and bool(self._changes.missing_ids)

    def read(
        self, page: Page, records: Iterable[Mapping[str, Any]], **added: str | None
    ) -> RecordsRead:
        """Takes in a page.

        Args:
            page: The page.
            records: Those of its records that belong to the stream.
            added: The columns that the connector adds.
        """
        columns = self._selected.stream.columns
        now = self._selected.clock.next()
        emitted: list[Record] = []
        fingerprints: dict[str, str] = {}
        for raw in records:
            coerced, changes = coerce_record(raw, columns, page)
            coerced.update(added)
            record = columns.project(coerced)
            record_id = record.get("id")
            if record_id is None:
                self._issues["without id"] += 1
            else:
                found = self._changes.is_change(record)
                if found is None:
                    continue
                if record_id in fingerprints:
                    # Of two versions on one page, the later one has to win.
                    now = self._selected.clock.next()
                fingerprints[record_id] = found
            record[UPDATED_AT] = now
            self._issues["coerced"] += bool(changes)
            emitted.append((record, changes))
        self._issues["partial"] += page.is_partial
        self._issues["invalid"] += page.invalid_entries
        batch = self._batch(emitted)
        if not emitted:
            return RecordsRead(self._partition, batch)
        return RecordsRead(self._partition, batch, fingerprints, cursor_value=now, size=page.size)

    def close(self) -> Iterator[RecordsRead | PartitionRead]:
        """Ends the partition: emits the tombstones of what is gone."""
        missing = self._changes.missing_ids
        if missing and self._can_delete:
            if self._changes.is_emptied:
                self._logger.info(
                    "%s: all %d records that were there are gone.", self._label, len(missing)
                )
            yield self._tombstones(missing)
        yield PartitionRead(self._selected.name, self._partition)

    def log_issues(self) -> None:
        """Logs once what was wrong with the data."""
        for issue, count in self._issues.items():
            if count:
                self._logger.warning("%s: %s", self._label, _ISSUES[issue].format(count))

    @property
    def _can_delete(self) -> bool:
        """Whether what is missing is certainly gone, and a tombstone can be expressed."""
        if not self.is_whole or not self._selected.stream.columns.has_deletions:
            return False
        return not any(self._issues[name] for name in ("partial", "invalid", "without id"))

    @property
    def _label(self) -> str:
        of_account = f" of integrated account {self._partition}" if self._partition else ""
        return f"Stream {self._selected.name}{of_account}"

    def _tombstones(self, ids: list[str]) -> RecordsRead:
        now = self._selected.clock.next()
        is_account = self._selected.name == INTEGRATED_ACCOUNTS
        key = {} if is_account else {ACCOUNT_KEY: self._partition}
        deleted = {UPDATED_AT: now, DELETED_AT: now}
        batch = self._batch([({**key, "id": record_id, **deleted}, []) for record_id in ids])
        return RecordsRead(self._partition, batch, removed_ids=ids, cursor_value=now)

    def _batch(self, records: list[Record]) -> RecordBatch:
        return RecordBatch(
            stream_name=self._selected.name,
            records=records,
            emitted_at=time.time_ns() // 1_000_000,
        )


def read_pages(
    client: TrutoClient, stream: TrutoStream, stream_slice: Mapping[str, Any], operation: str
) -> Generator[Delay | Page, None, None]:
    """Reads a list to its end, from page to page along its cursors.

    Args:
        client: Sends the requests.
        stream: The list.
        stream_slice: Whose list it is.
        operation: What is done, for messages.

    Yields:
        Each page, empty ones too, and what has to be waited between them.

    Raises:
        ReadError: If a page cannot be read, or if the pages repeat.
    """
    detector = PaginationLoopDetector()
    token: Mapping[str, str] | None = None
    account_id = stream_slice.get(ACCOUNT_KEY)
    path = stream.path(stream_slice=stream_slice)
    while True:
        params = stream.request_params(None, stream_slice, token)
        page = yield from client.fetch(Request(path, operation, account_id, params), parse_page)
        try:
            # A repeated page adds nothing but what is wrong with it.
            if detector.is_new(page) or page.is_partial or page.invalid_entries:
                yield page
            token = token_after(page)
            detector.check_cursor(token)
        except PaginationLoopError as loop:
            detail = f" ({loop})"
            raise ReadError(errors.PAGINATION_LOOP, operation, account_id, detail) from None
        if token is None:
            return
