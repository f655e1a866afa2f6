"""Change data capture by comparison: detect new, changed and deleted records of a partition.

No vendor reports deletions, and most have no date of the last change. So the state keeps each
record's fingerprint, and a read is compared with it.
"""

import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import Any

import orjson

from source_truto_segments.records.values import serialize

# 72 bits: the chance to miss one of a billion changes is below 10^-12. Nine bytes are twelve
# characters without padding; short fingerprints keep the state small.
_DIGEST_BYTES = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def fingerprint(record: Mapping[str, Any]) -> str:
    """Return 12 characters of a hash of a record's sorted content, to tell its versions apart."""
    content = serialize(record, option=orjson.OPT_SORT_KEYS)
    return urlsafe_b64encode(blake2b(content, digest_size=_DIGEST_BYTES).digest()).decode()


class ChangeClock:
    """Returns the time for each emitted version, as the cursor that destinations compare.

    It never returns the same time twice and never goes back, not even before an earlier sync: with
    equal cursors, a destination could keep the older version. Safe for threads.

    Args:
        after: The last time in an earlier sync's state; "" if there is none.
        now: Returns the time in nanoseconds since 1970.
    """

    def __init__(self, after: str = "", now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._last = _microseconds(after) if after else 0

    @property
    def time(self) -> datetime:
        """The machine's time in UTC; unlike the other times, it can go back."""
        return _EPOCH + timedelta(microseconds=self._now() // 1000)

    def next(self) -> str:
        """Return the current time, or a little later, as RFC 3339 in UTC with microseconds."""
        with self._lock:
            self._last = max(self._now() // 1000, self._last + 1)
            return _rfc3339(self._last)

    def ahead(self, seconds: float) -> str:
        """Return a time this many seconds after the current time and the last returned one."""
        with self._lock:
            latest = max(self._now() // 1000, self._last)
        return _rfc3339(latest + int(seconds * 1_000_000))

    @property
    def lead(self) -> float:
        """How many seconds the last time is ahead of the current time; negative if it is behind."""
        return (self._last - self._now() // 1000) / 1_000_000


class ChangeDetector:
    """Compares one partition, read once or twice, with its state.

    Args:
        known: The fingerprint of each record that the destination has, by id.
        max_size: How many records to remember; None for all. If a record comes twice, its pages are
            close together.
    """

    def __init__(self, known: Mapping[str, str], max_size: int | None = None) -> None:
        self._known = dict(known)
        self._missing = set(known)
        self._max_size = max_size
        self._emitted: set[str] = set()
        # The ids that each of two reads found; None during the first read.
        self._first: set[str] | None = None
        self._second: set[str] = set()

    def changed_fingerprint(self, record: Mapping[str, Any]) -> str | None:
        """Return the fingerprint of a new or changed record for the state; None if it is known.

        If a sync emits two versions of a record, a destination that does not compare cursors can
        keep either one. So return "" for the second, and the next sync emits the record again.

        Args:
            record: The record as it is emitted, with an id, but without cursor and deletion date.
        """
        record_id, found = record["id"], fingerprint(record)
        self._missing.discard(record_id)
        if self._first is not None:
            self._second.add(record_id)
        if self._known.get(record_id) == found:
            return None
        self._known[record_id] = found
        if self._max_size is None:
            if record_id in self._emitted:
                return ""
            self._emitted.add(record_id)
        elif len(self._known) > self._max_size:
            del self._known[next(iter(self._known))]
        return found

    def begin_second_read(self) -> None:
        """Begin to compare the ids of the next records with those found so far."""
        self._first = self._known.keys() - self._missing

    @property
    def reads_agree(self) -> bool:
        """Whether both reads found exactly the same ids."""
        return self._first == self._second

    @property
    def missing_ids(self) -> list[str]:
        """The ids of the records that the destination has, but no read found, sorted."""
        return sorted(self._missing)

    @property
    def all_missing(self) -> bool:
        """Whether there were known records, and the read found no records at all."""
        return bool(self._missing) and len(self._missing) == len(self._known)


def _rfc3339(microseconds: int) -> str:
    moment = (_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def _microseconds(text: str) -> int:
    """Return the inverse of `_rfc3339`.

    Raises:
        ValueError: If the text is not of its form.
    """
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return (moment - _EPOCH) // timedelta(microseconds=1)
