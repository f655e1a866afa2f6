"""The progress of a sync, for a person who watches its log."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from source_truto_segments.sync.failures import shown
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import counted


@dataclass
class Progress:
    """Counts what a sync has done so far.

    Attributes:
        found: The accounts that were found.
        is_all_found: Whether no further account will be found.
        done: The accounts whose streams were all read, or failed.
        failed: The accounts that could not be read completely.
        records: The number of records emitted, by stream.
    """

    found: set[str] = field(default_factory=set)
    is_all_found: bool = False
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    records: Counter[str] = field(default_factory=Counter)

    @property
    def all_read(self) -> bool:
        """Whether every account was found, and either read or failed."""
        return self.is_all_found and self.found <= self.done | self.failed

    @property
    def total(self) -> int:
        """How many accounts there are; one that failed may not have been found."""
        return len(self.found | self.failed)

    def status_line(self, delays: Sequence[Delay], *, awaits_first_response: bool = False) -> str:
        """Return a sentence on the progress, and one on what the sync is waiting for.

        Args:
            delays: The delays that tasks are waiting on.
            awaits_first_response: Whether Truto has not responded to any request yet.
        """
        found = "" if self.is_all_found else " found so far"
        failed = f" ({len(self.failed):,} failed)" if self.failed else ""
        waiting = _waiting(delays)
        if awaits_first_response and not delays:
            waiting = " The sync waits for the first response from Truto."
        return (
            f"Progress: the sync has finished {len(self.done | self.failed):,} of "
            f"{counted(self.total, 'account')}{found}{failed} and emitted "
            f"{counted(self.records.total(), 'record')}.{waiting}"
        )

    def final_summary(self, stream_names: Collection[str]) -> str:
        """Return the final line of a sync that was not interrupted."""
        counts = ", ".join(f"{self.records[name]:,} of {name}" for name in stream_names)
        emitted = f"Records emitted: {counts}."
        if not self.failed:
            return f"Read {counted(len(self.found), 'integrated account')}. {emitted}"
        return (
            f"{len(self.failed):,} of {counted(self.total, 'integrated account')} could not "
            f"be read: {shown(sorted(self.failed))}. {emitted}"
        )


def _waiting(delays: Sequence[Delay]) -> str:
    if not delays:
        return ""
    if delays[0].for_token:
        return f" The sync waits {delays[0].seconds:.0f} s for {delays[0].reason}."
    named = shown(
        [
            f"account {delay.account_id} ({delay.reason})"
            if delay.account_id
            else f"the list of accounts ({delay.reason})"
            for delay in delays
        ]
    )
    return f" {named[0].upper()}{named[1:]} {'waits' if len(delays) == 1 else 'wait'}."
