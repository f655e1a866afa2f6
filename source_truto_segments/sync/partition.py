"""One partition of a stream: its pages compared with the last sync."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from source_truto_segments.records.changes import ChangeClock, ChangeDetector
from source_truto_segments.records.columns import DELETED_AT, UPDATED_AT, Row
from source_truto_segments.streams import ACCOUNT_KEY, Slice, TrutoStream
from source_truto_segments.sync.events import PartitionRead, RecordsRead
from source_truto_segments.sync.state import IncrementalState, StreamState
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.responses import Page

logger = logging.getLogger("airbyte")

_ISSUES = {
    "partial": "responses that Truto marked as partial: {}. Their records are valid; what is "
    "missing comes with a later sync, and no deletions are inferred.",
    "invalid": "entries that cannot be read, or are not objects: {}. They were left out, and no "
    "deletions are inferred.",
    "differing": "two reads did not find the same records, as some are added or move meanwhile. No "
    "deletions are inferred; the next sync looks again.",
    "without id": "records without an id: {}. They were emitted, but a destination cannot "
    "deduplicate them, and no deletions are inferred.",
    "coerced": "records with a value that does not match its column's type, or that no destination "
    "takes: {}. Each such field is named in the record's meta.changes.",
}


@dataclass(frozen=True)
class SelectedStream:
    """A stream that the configured catalog selects.

    Attributes:
        stream: The stream, with its selected columns.
        state: Its state; workers only read it, and only what an earlier sync wrote.
        clock: Returns the values of the cursor field.
    """

    stream: TrutoStream
    state: StreamState
    clock: ChangeClock

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name

    @property
    def has_deletions(self) -> bool:
        """Whether the destination receives deletions."""
        return isinstance(self.state, IncrementalState) and self.stream.columns.has_deletions

    def was_emptied(self, partition: str) -> bool:
        """Return whether a sync found a partition empty, and so long ago that it counts."""
        return self.state.was_emptied(partition, self.clock.time)

    def tombstones(self, partition: str, ids: Sequence[str]) -> RecordsRead:
        """Return the tombstones of deleted records."""
        now = self.clock.next()
        has_account = ACCOUNT_KEY in (self.stream.primary_key or ())
        key = {ACCOUNT_KEY: partition} if has_account else {}
        deleted = {UPDATED_AT: now, DELETED_AT: now}
        rows: list[Row] = [({**key, "id": record_id, **deleted}, []) for record_id in ids]
        return RecordsRead(self.name, partition, rows, removed_ids=ids, cursor_value=now)


class PartitionDiff:
    """Detects the new, changed and deleted records of a partition.

    Pages can shift while they are read: if a known record is missing, the caller reads the
    partition once more, and the record is deleted only if both reads found exactly the same ids. If
    all records are missing, a later sync has to find that again: an account that lost a permission,
    or whose vendor fails without an error, has an empty list.

    Args:
        selected: The stream.
        partition: The partition's key.
        changes: Compares its records with the last sync.
    """

    def __init__(self, selected: SelectedStream, partition: str, changes: ChangeDetector) -> None:
        self._selected = selected
        self._partition = partition
        self._changes = changes
        self._issues: Counter[str] = Counter()
        # Whether the read certainly saw the whole partition.
        self.complete = True
        self.is_first_read = True

    @classmethod
    def begin(cls, selected: SelectedStream, partition: str) -> "PartitionDiff | None":
        """Return the diff of a partition; None if an earlier attempt of this sync completed it."""
        changes = selected.state.detector(partition)
        return None if changes is None else cls(selected, partition, changes)

    @property
    def must_be_read_again(self) -> bool:
        """Whether records are missing, perhaps only because the pages shifted."""
        return self._can_delete and bool(self._changes.missing_ids)

    def begin_second_read(self) -> None:
        """Begin to compare the second read with the first."""
        self.is_first_read = False
        self._changes.begin_second_read()

    def process(self, page: Page, stream_slice: Slice) -> RecordsRead:
        """Return the new and changed records of a page.

        Args:
            page: The page.
            stream_slice: The slice that it belongs to.
        """
        now = self._selected.clock.next()
        emitted: list[Row] = []
        fingerprints: dict[str, str] = {}
        has_records = False
        for record, changes in self._selected.stream.rows(page, stream_slice):
            has_records = True
            record_id = record.get("id")
            if record_id is None or not str(record_id).strip():
                record.pop("id", None)
                self._issues["without id"] += 1
            else:
                found = self._changes.changed_fingerprint(record)
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
        size = page.size if emitted else 0
        return RecordsRead(
            self._selected.name,
            self._partition,
            emitted,
            fingerprints,
            cursor_value=now,
            size=size,
            has_records=has_records,
        )

    def close(self) -> Iterator[RecordsRead | PartitionRead]:
        """Yield the tombstones of deleted records, then that the partition is complete."""
        missing, emptied = self._changes.missing_ids, None
        if missing and self._can_delete:
            if not self._changes.reads_agree:
                self._issues["differing"] += 1
            elif self._changes.all_missing and not self._selected.was_emptied(self._partition):
                emptied = self._selected.clock.time
                logger.warning(
                    "%s: all known records (%d) are missing. Nothing is deleted yet, as a "
                    "lost permission or a failure can look like that; if a sync an hour later "
                    "finds none either, they are deleted.",
                    self._label,
                    len(missing),
                )
            else:
                yield self._selected.tombstones(self._partition, missing)
        yield PartitionRead(self._selected.name, self._partition, emptied)

    def delete(self) -> Iterator[RecordsRead]:
        """Yield the tombstones of all records; Truto itself reports that they are deleted."""
        missing = self._changes.missing_ids
        if missing and self._can_delete:
            yield self._selected.tombstones(self._partition, missing)

    def log_issues(self) -> None:
        """Log each issue with the data once."""
        for issue, count in self._issues.items():
            if count:
                logger.warning("%s: %s", self._label, _ISSUES[issue].format(count))

    @property
    def _can_delete(self) -> bool:
        """Whether the read is complete enough for deletions, and the columns allow tombstones."""
        if not self.complete or not self._selected.has_deletions:
            return False
        return not any(self._issues[name] for name in ("partial", "invalid", "without id"))

    @property
    def _label(self) -> str:
        return f"Stream {self._selected.name} of integrated account {excerpt(self._partition)}"
