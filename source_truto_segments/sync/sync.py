"""One read: workers fetch, and one thread owns the output and the state."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from airbyte_cdk.models import AirbyteMessage, AirbyteStreamStatus, FailureType

from source_truto_segments.config import Config
from source_truto_segments.streams import ENVIRONMENT, INTEGRATED_ACCOUNTS, Streams
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
from source_truto_segments.sync.failures import Failures, traced
from source_truto_segments.sync.messages import (
    RecordBatch,
    rate_limited_message,
    state_message,
    status_message,
)
from source_truto_segments.sync.partition import PartitionDiff, SelectedStream
from source_truto_segments.sync.progress import Progress
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.sync.state import IncrementalState
from source_truto_segments.sync.worker_pool import RateLimited, Task, TaskFailed, WorkerPool
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import TrutoClient
from source_truto_segments.truto.errors import ReadError, unexpected_error

logger = logging.getLogger("airbyte")

# Destinations keep every state until they flush; one a minute is Airbyte's advice.
CHECKPOINT_SECONDS = 60.0
# A sync that finds no change and waits has nothing else that shows Airbyte that it is alive: after
# three hours without a record or a state it would be stopped.
HEARTBEAT_SECONDS = 1800.0
# A line for whoever watches the log.
PROGRESS_SECONDS = 10.0
# Seconds between two looks at whether the sync is to end.
_TICK = 0.2

_COMPLETE, _INCOMPLETE = AirbyteStreamStatus.COMPLETE, AirbyteStreamStatus.INCOMPLETE

_INTERRUPTED = (
    "The sync was interrupted before all accounts were read. Progress was saved; the next attempt "
    "resumes from there."
)


@dataclass
class StreamRun:
    """What a sync keeps for each stream.

    Attributes:
        selected: The stream and its state.
        saved_at: When its state was written last, in seconds.
        unsaved: Whether the state has changed since then.
        running: Whether a record was written.
        readable: Whether a partition was read completely.
        incomplete: Whether a failure left something out.
    """

    selected: SelectedStream
    saved_at: float
    unsaved: bool = False
    running: bool = False
    readable: bool = False
    incomplete: bool = False

    def checkpoint(self, now: float) -> AirbyteMessage:
        """Return the state as it stands."""
        self.unsaved, self.saved_at = False, now
        # From the first record on, a sync that is killed has emitted more than its state counts.
        blob = self.selected.state.snapshot(in_progress=self.running)
        return state_message(self.selected.name, blob)

    def checkpoint_is_due(self, now: float) -> bool:
        """Return whether the state is to be written now."""
        interval = CHECKPOINT_SECONDS if self.unsaved else HEARTBEAT_SECONDS
        return now - self.saved_at >= interval


class Sync:
    """One read of the selected streams.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        pool: Runs the tasks.
        streams: All streams.
        selected: The selected ones, by name, with the states that the sync begins with.
        shutdown: Set from outside when the sync is to end early, with its state written.
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
        self._pool = pool
        self._shutdown = shutdown
        self._now = now
        self._runs = {name: StreamRun(each, now()) for name, each in selected.items()}
        # The streams that are read account by account, and not from the list of accounts.
        self._by_account = {
            name: each
            for name, each in selected.items()
            if config.account_list is None or name != INTEGRATED_ACCOUNTS
        }
        self._reader = AccountReader(config, client, streams, self._by_account, pool.stop)
        self._source = account_source(config, client, streams.integrated_accounts, self._submit)
        self._progress = Progress()
        self._failures = Failures(skip_accounts=config.skip_failed_accounts)
        self._all_listed = True
        self._logged_at = now()
        self._interrupted = False

    def run(self) -> Iterator[AirbyteMessage]:
        """Read all accounts.

        Yields:
            Records in batches, states, statuses and traces, in the order in which they hold.

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
            yield from self._report(self._runs, error)
        yield from self._finish()

    def _submit(self, account: Account) -> None:
        if self._by_account:
            self._pool.submit(self._reader.read(account))

    def _find_accounts(self) -> Task[Event]:
        """Find the accounts; Truto's list of them is data of its stream as well."""
        known = {
            partition
            for run in self._runs.values()
            for partition in run.selected.state.partitions
            if partition != ENVIRONMENT
        }
        diff = None
        if INTEGRATED_ACCOUNTS in self._runs.keys() - self._by_account.keys():
            diff = PartitionDiff.begin(self._runs[INTEGRATED_ACCOUNTS].selected, ENVIRONMENT)
            if diff is None:
                yield PartitionRead(INTEGRATED_ACCOUNTS, ENVIRONMENT)
        try:
            yield from self._source.find(known, diff)
        except Exception as error:  # noqa: BLE001 - a defect is reported, too
            yield self._reader.failure(list(self._runs), error)
        if diff is not None:
            diff.log_issues()

    def _handle(self, event: Event | RateLimited | TaskFailed) -> Iterator[AirbyteMessage]:
        match event:
            case RecordsRead():
                yield from self._write(event)
            case PartitionRead(name, partition):
                run = self._runs[name]
                run.readable = True
                run.unsaved |= run.selected.state.complete(partition)
            case ReadFailed(stream_names, error):
                yield from self._report(stream_names, error)
            case AccountFound() | AccountsListed() | AccountFinished():
                self._count(event)
            case RateLimited(seconds):
                quota_reset = int((time.time() + seconds) * 1000)
                yield from (rate_limited_message(name, quota_reset) for name in self._runs)
            case TaskFailed(error):
                if not isinstance(error, ReadError):
                    error = unexpected_error("Reading the integrated accounts", None, error)
                yield from self._report(self._runs, error)

    def _count(self, event: AccountFound | AccountsListed | AccountFinished) -> None:
        match event:
            case AccountFound(account_id):
                self._progress.found.add(account_id)
                if not self._by_account:
                    self._progress.done.add(account_id)
            case AccountsListed(complete):
                self._progress.is_all_found = True
                self._all_listed = complete
            case AccountFinished(account_id):
                self._progress.done.add(account_id)

    def _write(self, event: RecordsRead) -> Iterator[AirbyteMessage]:
        name, run = event.stream_name, self._runs[event.stream_name]
        state = run.selected.state
        if event.rows:
            if not run.running:
                run.running = True
                if state.partitions:
                    yield run.checkpoint(self._now())
                yield status_message(name, AirbyteStreamStatus.RUNNING)
            emitted_at = time.time_ns() // 1_000_000
            yield RecordBatch(stream_name=name, records=event.rows, emitted_at=emitted_at)
            self._progress.records[name] += len(event.rows)
        # After the records: no state can be ahead of what it counts.
        if isinstance(state, IncrementalState) and (event.fingerprints or event.removed_ids):
            state.add(event.partition, event.fingerprints, event.cursor_value)
            state.remove(event.partition, event.removed_ids, event.cursor_value)
            run.unsaved = True

    def _report(self, stream_names: Collection[str], error: ReadError) -> Iterator[AirbyteMessage]:
        if error.account_id is not None:
            self._progress.failed.add(error.account_id)
        if self._failures.is_fatal(error):
            for name in stream_names:
                self._runs[name].incomplete = True
        earlier = self._failures.add(error)
        if earlier is not None:
            yield earlier.as_sanitized_airbyte_message()

    def _checkpoints_due(self) -> Iterator[AirbyteMessage]:
        now = self._now()
        for run in self._runs.values():
            if run.checkpoint_is_due(now):
                yield run.checkpoint(now)

    def _finish(self) -> Iterator[AirbyteMessage]:
        """Yield the last states and statuses, each state before the status that it stands for."""
        complete = {name: self._is_complete(run) for name, run in self._runs.items()}
        for name, run in self._runs.items():
            state = run.selected.state
            if all(complete.values()):
                blob = state.final_snapshot(self._partitions(name))
            else:
                # The next attempt resumes from there, also with what is complete.
                blob = state.snapshot()
            yield state_message(name, blob)
            status = _COMPLETE if complete[name] else _INCOMPLETE
            yield status_message(name, status)
        self._warn_of_large_states()
        unreported = self._failures.take_unreported()
        summary = self._progress.final_summary(self._runs)
        if unreported is not None:
            if not self._interrupted and self._failures.is_only_failure(unreported):
                raise unreported
            yield unreported.as_sanitized_airbyte_message()
        if self._interrupted:
            raise traced(_INTERRUPTED, FailureType.transient_error)
        if not all(complete.values()):
            raise self._failures.summary(summary)
        logger.log(logging.WARNING if self._failures else logging.INFO, "%s", summary)

    def _is_complete(self, run: StreamRun) -> bool:
        """Return whether a stream is complete; if accounts are skipped, whether any was read."""
        if self._interrupted or self._failures.any_of_sync:
            return False
        return not run.incomplete and (not self._failures or run.readable)

    def _partitions(self, name: str) -> set[str] | None:
        """Return all partitions that a stream has now; None if that is not known."""
        if name not in self._by_account:
            return {ENVIRONMENT}
        return self._progress.found if self._all_listed else None

    def _warn_of_large_states(self) -> None:
        for name, run in self._runs.items():
            state = run.selected.state
            if isinstance(state, IncrementalState) and state.untracked:
                logger.warning(
                    "The state of the stream %s is full: %d accounts are not tracked. Each sync "
                    "emits all records of these, and does not notice their deletions. Split the "
                    "connection by tenants or integrations.",
                    name,
                    len(state.untracked),
                )

    def _log_progress(self) -> None:
        if self._now() - self._logged_at >= PROGRESS_SECONDS:
            self._logged_at = self._now()
            logger.info("%s", self._progress.status_line(self._pool.delays()))
