"""How far a sync has come, for a person who watches its log."""

import threading
from collections import Counter
from collections.abc import Mapping

from source_truto_segments.rate_limits import Wait

_NAMED_WAITS = 3


class Progress:
    """Counts what happened to the accounts; every method can be called by any worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._is_all_found = False

    def found(self) -> None:
        """Another account is to be read."""
        self._add("found")

    def all_found(self) -> None:
        """No further account will be found."""
        self._is_all_found = True

    def read(self, records: int) -> None:
        """So many more records were read."""
        self._add("records", records)

    def done(self) -> None:
        """An account was read to its end."""
        self._add("done")

    def failed(self) -> None:
        """An account could not be read."""
        self._add("failed")

    def __getitem__(self, name: str) -> int:
        """The count of "found", "records", "done" or "failed"."""
        with self._lock:
            return self._counts[name]

    def line(self, waits: Mapping[str | None, Wait]) -> str:
        """Says it all in one line.

        Args:
            waits: What is waited for now, by account; None for the whole token.
        """
        with self._lock:
            counts = Counter(self._counts)
        over = counts["done"] + counts["failed"]
        found = (
            f"{counts['found']:,}" if self._is_all_found else f"{counts['found']:,} so far found"
        )
        parts = [f"{over:,} of {found} accounts", f"{counts['records']:,} records"]
        if counts["failed"]:
            parts.append(f"{counts['failed']:,} failed")
        return f"Progress: {', '.join(parts)}{_waiting(waits)}."

    def _add(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counts[name] += number


def _waiting(waits: Mapping[str | None, Wait]) -> str:
    if None in waits:
        wait = waits[None]
        return f"; waiting {wait.seconds:.0f} s for {wait.reason}"
    if not waits:
        return ""
    named = [f"{account_id} ({wait.reason})" for account_id, wait in waits.items()]
    more = f" and {len(named) - _NAMED_WAITS:,} more" if len(named) > _NAMED_WAITS else ""
    return f"; waiting for account {', '.join(named[:_NAMED_WAITS])}{more}"


def closing(progress: Progress, failed_ids: list[str]) -> str:
    """The last line of a sync that did not end early."""
    accounts, records = progress["found"], progress["records"]
    if not failed_ids:
        return f"Read {records:,} segments of {accounts:,} integrated accounts."
    return (
        f"Read {records:,} segments. {len(failed_ids):,} of {accounts:,} accounts could not be "
        f"read: {', '.join(sorted(failed_ids))}."
    )
