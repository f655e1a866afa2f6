"""When the state is written out: sparingly, and never ahead of the records that it counts."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from airbyte_cdk.sources.connector_state_manager import ConnectorStateManager
from airbyte_cdk.sources.message import MessageRepository
from airbyte_cdk.sources.streams.concurrent.cursor import Cursor
from airbyte_cdk.sources.streams.concurrent.partitions.partition import Partition
from airbyte_cdk.sources.types import Record

from source_truto_segments.state import Blob, Resume, State

# A state carries every account. Written at most every so many seconds, and less often the more
# accounts there are, it stays a small part of the output.
CHECKPOINT_SECONDS = 10.0
ACCOUNTS_A_SECOND = 100.0


class Checkpoints(Cursor):
    """The state behind a lock, and the messages that carry it.

    A worker reports a page when its records are on their way; the state then takes its place behind
    them. The lock is held until it has: two states never overtake each other.

    Args:
        state: The state of the accounts.
        stream_name: The stream that it belongs to.
        outbox: The way to the output.
        clock: Gives the time in seconds; monotonic.
        whole: When all accounts are over, their IDs if the sync is whole, else None.
        end: Called when the last state is written; may raise, so that the stream is not taken as
            complete.
    """

    def __init__(
        self,
        state: State,
        stream_name: str,
        outbox: MessageRepository,
        clock: Callable[[], float],
        whole: Callable[[], Collection[str] | None],
        end: Callable[[], None],
    ) -> None:
        self._state = state
        self._stream_name = stream_name
        self._outbox = outbox
        self._clock = clock
        self._whole = whole
        self._end = end
        self._lock = threading.Lock()
        self._written_at = clock()

    def resume(self, account_id: str) -> Resume | None:
        """Where an account's reading begins; None if it was read to its end already."""
        with self._lock:
            return self._state.resume(account_id)

    def wants(self, account_id: str, workspace_id: str | None, record: Mapping[str, Any]) -> bool:
        """Whether a record is to be emitted."""
        return self._state.wants(account_id, workspace_id, record)

    def page_read(
        self,
        account_id: str,
        workspace_id: str | None,
        next_cursor: str | None,
        records: Iterable[Mapping[str, Any]],
    ) -> None:
        """The records of a page are on their way to the output."""
        with self._lock:
            self._state.page_read(account_id, workspace_id, next_cursor, records)
            self._write_if_due()

    def restarted(self, account_id: str) -> None:
        """An account is read from its first page after all."""
        with self._lock:
            self._state.restarted(account_id)

    def account_read(self, account_id: str) -> None:
        """An account was read to its end."""
        with self._lock:
            self._state.account_read(account_id)
            self._write_if_due()

    def write(self) -> None:
        """Writes the state as it stands, behind the records that it counts."""
        with self._lock:
            self._write(self._state.dump())

    @property
    def state(self) -> Blob:
        """The state as it stands."""
        with self._lock:
            return self._state.dump()

    def ensure_at_least_one_state_emitted(self) -> None:
        """Writes the last state; the CDK calls it when all accounts are over."""
        account_ids = self._whole()
        with self._lock:
            if account_ids is None:
                self._write(self._state.dump())
            else:
                self._write(self._state.dump_finished(account_ids))
        self._end()

    def observe(self, record: Record) -> None:
        """Does nothing: a page is reported as a whole."""

    def close_partition(self, partition: Partition) -> None:
        """Does nothing: the CDK calls it also for accounts that were not read to their end."""

    def should_be_synced(self, record: Record) -> bool:
        """True: what is not wanted never becomes a record of the CDK's."""
        del record
        return True

    def _write_if_due(self) -> None:
        interval = max(CHECKPOINT_SECONDS, self._state.size / ACCOUNTS_A_SECOND)
        if self._clock() - self._written_at >= interval:
            self._write(self._state.dump())

    def _write(self, blob: Blob) -> None:
        manager = ConnectorStateManager()
        manager.update_state_for_stream(self._stream_name, None, blob)
        self._outbox.emit_message(manager.create_state_message(self._stream_name, None))
        self._written_at = self._clock()
