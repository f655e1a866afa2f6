"""One read: workers fetch, and one thread owns the output and the state."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from airbyte_cdk.models import AirbyteMessage, AirbyteStreamStatus, FailureType

from source_truto_segments.config import Config
from source_truto_segments.streams import INTEGRATED_ACCOUNTS, SEGMENTS, Streams
from source_truto_segments.sync.accounts import Account, account_source
from source_truto_segments.sync.events import (
    AccountFinished,
    AccountFound,
    AccountsListed,
    Event,
    PartitionRead,
    ReadFailed,
    RecordsRead,
)
from source_truto_segments.sync.failures import Failures
from source_truto_segments.sync.messages import (
    RecordBatch,
    rate_limited_message,
    state_message,
    status_message,
)
from source_truto_segments.sync.partition import SelectedStream
from source_truto_segments.sync.progress import Progress
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.sync.state import (
    RESERVED_SECONDS,
    IncrementalState,
    room_beside,
)
from source_truto_segments.sync.worker_pool import RateLimited, Task, TaskFailed, WorkerPool
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import TrutoClient
from source_truto_segments.truto.errors import ReadError, UserError, unexpected_error
from source_truto_segments.truto.responses import counted

logger = logging.getLogger("airbyte")

# Destinations keep every state until they flush; one a minute is Airbyte's advice.
CHECKPOINT_SECONDS = 60.0
# A sync that finds no changes and waits emits nothing else. After three hours without a record or a
# state, Airbyte would stop it.
HEARTBEAT_SECONDS = 1800.0
# Seconds between two progress lines in the log.
PROGRESS_SECONDS = 10.0
# Seconds between two checks whether the sync has to end.
_TICK = 0.2

_COMPLETE, _INCOMPLETE = AirbyteStreamStatus.COMPLETE, AirbyteStreamStatus.INCOMPLETE

_INTERRUPTED = "The sync was interrupted before all accounts were read. "
_SAVED = "Progress was saved; the next attempt resumes from there."
_NOTHING_SAVED = "It had emitted nothing yet; the next attempt starts where this one did."


@dataclass
class StreamRun:
    """What a sync keeps for each stream.

    Attributes:
        selected: The stream and its state.
        saved_at: When its state was last written, in seconds.
        unsaved: Whether the state has changed since then.
        running: Whether a record was written.
        readable: Whether a partition was read completely.
        incomplete: Whether a failure left something out.
        reserved: The cursor value of its last state, after all that was emitted since.
    """

    selected: SelectedStream
    saved_at: float
    unsaved: bool = False
    running: bool = False
    readable: bool = False
    incomplete: bool = False
    reserved: str = ""

    def checkpoint_is_due(self, now: float, *, is_alive: bool) -> bool:
        """Return whether to write the state now; an unchanged one only while the sync is alive."""
        interval = CHECKPOINT_SECONDS if self.unsaved else HEARTBEAT_SECONDS
        return (self.unsaved or is_alive) and now - self.saved_at >= interval


class Sync:
    """One read of the selected streams.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        pool: Runs the tasks.
        streams: All streams.
        selected: The selected ones, by name, with the states that the sync begins with.
        shutdown: Set from outside when the sync has to end early, with its state written.
        now: Returns the time in seconds; monotonic.
    """

    def __init__(
        self,
        config: Config,
        client: TrutoClient,
        pool: WorkerPool[Event],
        streams: Streams,
        selected: Mapping[str, SelectedStream],
        shutdown: threading.Event,
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._pool = pool
        self._shutdown = shutdown
        self._now = now
        self._runs = {name: StreamRun(each, now()) for name, each in selected.items()}
        self._reader = AccountReader(config, client, streams, selected, pool.stop)
        self._source = account_source(config, client, streams.integrated_accounts, self._submit)
        self._progress = Progress()
        self._failures = Failures(skip_accounts=config.skip_failed_accounts)
        self._logged_at = now()
        self._interrupted = False

    def run(self) -> Iterator[AirbyteMessage]:
        """Read all accounts.

        Yields:
            Records in batches, states, statuses and traces.

        Raises:
            AirbyteTracedException: At the end, if an account could not be read.
        """
        for name in self._runs:
            yield status_message(name, AirbyteStreamStatus.STARTED)
        self._pool.submit(self._find_accounts())
        try:
            for event in self._pool.events(_TICK):
                if self._shutdown.is_set():
                    self._interrupted = True
                    break
                if event is not None:
                    yield from self._handle(event)
                yield from self._checkpoints_due()
                self._log_progress()
        finally:
            self._pool.close()
        if not (self._interrupted or self._failures.any_of_sync or self._progress.all_read):
            error = ReadError(errors.NOT_ALL_READ, "Reading the integrated accounts")
            self._take_failure(self._runs, error)
        yield from self._finish()

    def _submit(self, account: Account) -> None:
        self._pool.submit(self._reader.read(account))

    def _find_accounts(self) -> Task[Event]:
        """Find the accounts, and delete the rows of those that no longer exist."""
        known = {id_ for run in self._runs.values() for id_ in run.selected.state.expected}
        run = self._runs.get(INTEGRATED_ACCOUNTS)
        rows = run.selected if run is not None and run.selected.has_deletions else None
        try:
            yield from self._source.find(known, rows)
        except Exception as error:  # noqa: BLE001 - a defect is reported, too
            yield self._reader.failure(list(self._runs), error)

    def _handle(self, event: Event | RateLimited | TaskFailed) -> Iterator[AirbyteMessage]:
        match event:
            case RecordsRead():
                yield from self._write(event)
            case PartitionRead(name, partition, emptied):
                run = self._runs[name]
                run.readable = True
                run.unsaved |= run.selected.state.complete(partition, emptied=emptied)
            case ReadFailed(stream_names, error, integration):
                self._take_failure(stream_names, error, integration)
            case AccountFound() | AccountsListed() | AccountFinished():
                self._count(event)
            case RateLimited(seconds):
                quota_reset = int((time.time() + seconds) * 1000)
                yield from (rate_limited_message(name, quota_reset) for name in self._runs)
            case TaskFailed(error):
                if not isinstance(error, ReadError):
                    error = unexpected_error("Reading the integrated accounts", None, error)
                self._take_failure(self._runs, error)

    def _count(self, event: AccountFound | AccountsListed | AccountFinished) -> None:
        match event:
            case AccountFound(account_id):
                self._progress.found.add(account_id)
            case AccountsListed():
                self._progress.is_all_found = True
                for run in self._runs.values():
                    run.unsaved |= run.selected.state.retire(self._progress.found)
            case AccountFinished(account_id):
                self._progress.done.add(account_id)

    def _write(self, event: RecordsRead) -> Iterator[AirbyteMessage]:
        name, run = event.stream_name, self._runs[event.stream_name]
        state = run.selected.state
        if event.has_records:
            run.unsaved |= state.forget_emptied(event.partition)
        if event.rows:
            is_first, run.running = not run.running, True
            # If the sync is killed, the next one must know a time later than all it emitted.
            if isinstance(state, IncrementalState) and event.cursor_value > run.reserved:
                yield self._checkpoint(run)
            if is_first:
                yield status_message(name, AirbyteStreamStatus.RUNNING)
            emitted_at = time.time_ns() // 1_000_000
            yield RecordBatch(stream_name=name, records=event.rows, emitted_at=emitted_at)
            self._progress.records[name] += len(event.rows)
        # Only after the records, so that a state is never ahead of its records.
        if isinstance(state, IncrementalState) and event.rows:
            state.add(event.partition, event.fingerprints, event.cursor_value)
            state.remove(event.partition, event.removed_ids, event.cursor_value)
            run.unsaved = True

    def _take_failure(
        self, stream_names: Collection[str], error: ReadError, integration: str | None = None
    ) -> None:
        if error.account_id is not None:
            self._progress.failed.add(error.account_id)
            for run in map(self._runs.__getitem__, stream_names):
                run.unsaved |= run.selected.state.forget_emptied(error.account_id)
        if self._failures.is_fatal(error):
            for name in stream_names:
                self._runs[name].incomplete = True
        self._failures.add(error, integration)

    def _checkpoints_due(self) -> Iterator[AirbyteMessage]:
        now = self._now()
        # If no response can arrive any more, do not tell Airbyte that the sync is alive.
        is_alive = self._client.may_hear or bool(self._pool.delays())
        for run in self._runs.values():
            if run.checkpoint_is_due(now, is_alive=is_alive):
                yield self._checkpoint(run)

    def _checkpoint(self, run: StreamRun) -> AirbyteMessage:
        """Return the current state of a stream as a message."""
        run.unsaved, run.saved_at = False, self._now()
        # From its first record on, a sync may emit more than its last state counts.
        run.reserved = run.selected.clock.ahead(RESERVED_SECONDS) if run.running else ""
        blob = run.selected.state.snapshot(self._room(run), run.reserved)
        return state_message(run.selected.name, blob)

    def _room(self, run: StreamRun) -> int:
        """Return the bytes that a stream's state may take, beside the other streams' states."""
        others = (other for other in self._runs.values() if other is not run)
        return room_beside(other.selected.state.size for other in others)

    def _finish(self) -> Iterator[AirbyteMessage]:
        """Yield the final states and statuses, each state before its stream's status."""
        complete = {name: self._is_complete(run) for name, run in self._runs.items()}
        for name, run in self._runs.items():
            state = run.selected.state
            if all(complete.values()):
                blob = state.final_snapshot(self._room(run))
            else:
                # The next attempt resumes from here, even streams that are complete.
                blob = state.snapshot(self._room(run))
            yield state_message(name, blob)
            status = _COMPLETE if complete[name] else _INCOMPLETE
            yield status_message(name, status)
        self._warn_of_large_states()
        is_cut_off = self._interrupted or self._failures.any_of_sync
        if not is_cut_off and SEGMENTS in self._runs and self._runs[SEGMENTS].readable:
            self._reader.warn_of_workspace()
        summary = self._progress.final_summary(self._runs)
        final = self._failures.final_error()
        if self._interrupted:
            has_emitted = any(run.running or run.readable for run in self._runs.values())
            text = f"{_INTERRUPTED}{_SAVED if has_emitted else _NOTHING_SAVED}"
            final = UserError(text, FailureType.transient_error)
        elif final is None and not all(complete.values()):
            final = self._failures.summary(summary)
        for failure in self._failures.traced(final):
            yield failure.as_sanitized_airbyte_message()
        if final is not None:
            raise final
        for text in self._failures.grouped():
            logger.warning("%s", text)
        logger.log(logging.WARNING if self._failures else logging.INFO, "%s", summary)

    def _is_complete(self, run: StreamRun) -> bool:
        """Return whether a stream is complete; after skipped failures, at least one was read."""
        if self._interrupted or self._failures.any_of_sync:
            return False
        return not run.incomplete and (not self._failures or run.readable)

    def _warn_of_large_states(self) -> None:
        for name, run in self._runs.items():
            state = run.selected.state
            if isinstance(state, IncrementalState) and state.untracked:
                logger.warning(
                    "The state of the stream %s is full and does not track %s. Each sync emits all "
                    "their records, and the rows of records that are deleted stay in the table. "
                    "Split the connection into shards (additional_accounts.shard).",
                    name,
                    counted(len(state.untracked), "account"),
                )

    def _log_progress(self) -> None:
        if self._now() - self._logged_at >= PROGRESS_SECONDS:
            self._logged_at = self._now()
            line = self._progress.status_line(
                self._pool.delays(), awaits_first_response=self._client.awaits_first_response
            )
            logger.info("%s", line)
