"""How far a sync has come, for a person who watches its log."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from source_truto_segments.sync.failures import shown
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.rate_limiter import Delay

_MAX_NAMED_DELAYS = 3


@dataclass
class Progress:
    """What happened so far.

    Attributes:
        found: The accounts that were found.
        is_all_found: Whether no further account will be.
        done: The accounts that were read completely.
        failed: The accounts of which something could not be read.
        records: The records that were emitted, by stream.
    """

    found: set[str] = field(default_factory=set)
    is_all_found: bool = False
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    records: Counter[str] = field(default_factory=Counter)

    @property
    def all_read(self) -> bool:
        """Whether every account was found, and was read or has failed."""
        return self.is_all_found and self.found <= self.done | self.failed

    def status_line(self, delays: Sequence[Delay]) -> str:
        """Return everything in one line.

        Args:
            delays: What tasks are waiting for.
        """
        over = len(self.done | self.failed)
        found = "" if self.is_all_found else " found so far"
        parts = [
            f"{over:,} of {len(self.found):,} accounts{found}",
            f"{self.records.total():,} records",
        ]
        if self.failed:
            parts.append(f"{len(self.failed):,} failed")
        return f"Progress: {', '.join(parts)}{_waiting(delays)}."

    def final_summary(self, stream_names: Collection[str]) -> str:
        """Return the last line of a sync that was not interrupted."""
        counts = ", ".join(f"{self.records[name]:,} of {name}" for name in stream_names)
        emitted = f"Records emitted: {counts}."
        if not self.failed:
            return f"Read {len(self.found):,} integrated accounts. {emitted}"
        return (
            f"{len(self.failed):,} of {len(self.found):,} integrated accounts could not be read: "
            f"{shown(sorted(self.failed))}. {emitted}"
        )


def _waiting(delays: Sequence[Delay]) -> str:
    if not delays:
        return ""
    if delays[0].for_token:
        return f"; waiting {delays[0].seconds:.0f} s for {delays[0].reason}"
    named = [
        f"account {excerpt(delay.account_id)} ({delay.reason})"
        if delay.account_id
        else delay.reason
        for delay in delays
    ]
    more = f" and {len(named) - _MAX_NAMED_DELAYS:,} more" if len(named) > _MAX_NAMED_DELAYS else ""
    return f"; waiting for {', '.join(named[:_MAX_NAMED_DELAYS])}{more}"
