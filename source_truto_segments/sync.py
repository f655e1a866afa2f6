"""One read: workers fetch, and one thread owns the output and the state."""

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping

from airbyte_cdk.models import AirbyteMessage, AirbyteStreamStatus, FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_truto_segments import errors
from source_truto_segments.accounts import Account, AccountList
from source_truto_segments.client import TrutoClient
from source_truto_segments.config import Config
from source_truto_segments.errors import ReadError, Scope, unexpected_error
from source_truto_segments.events import (
    AccountFound,
    AccountRead,
    AccountsListed,
    PartitionRead,
    ReadFailed,
    RecordsRead,
)
from source_truto_segments.messages import (
    rate_limited_message,
    state_message,
    status_message,
)
from source_truto_segments.partition import PartitionReader, SelectedStream
from source_truto_segments.progress import Progress
from source_truto_segments.reader import AccountReader
from source_truto_segments.state import ENVIRONMENT
from source_truto_segments.streams import INTEGRATED_ACCOUNTS, IntegratedAccounts
from source_truto_segments.worker_pool import Clock, RateLimited, Task, TaskFailed, WorkerPool

# Destinations keep every state until they flush; one a minute is Airbyte's advice.
CHECKPOINT_SECONDS = 60.0
# A sync that finds no change and waits has nothing else that shows Airbyte that it is alive: after
# three hours without a record or a state it would be stopped.
HEARTBEAT_SECONDS = 1800.0
# A line for whoever watches the log.
PROGRESS_SECONDS = 10.0
# How often the loop looks whether the sync is to end, in seconds.
_TICK = 0.2

# Of several failures the first of these types is that of the sync: one that needs a person first.
_FAILURE_PRECEDENCE = (
    FailureType.config_error,
    FailureType.system_error,
    FailureType.transient_error,
)

_COMPLETE, _INCOMPLETE = AirbyteStreamStatus.COMPLETE, AirbyteStreamStatus.INCOMPLETE

_INTERRUPTED = (
    "The sync was interrupted before all accounts were read. Its state is written: the next "
    "attempt goes on from there."
)


class Sync:
    """One read of the selected streams.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        pool: Runs the tasks.
        selected: The streams, by name, with the states that the sync begins with.
        shutdown: Set from outside when the sync is to end early, with its state written.
        clock: The time.
        logger: Where progress and warnings are logged.
    """

    def __init__(
        self,
        config: Config,
        client: TrutoClient,
        pool: WorkerPool,
        selected: Mapping[str, SelectedStream],
        shutdown: threading.Event,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._config = config
        self._client = client
        self._pool = pool
        self._selected = selected
        self._shutdown = shutdown
        self._clock = clock
        self._logger = logger
        self._reader = AccountReader(config, client, selected, pool.stop, logger)
        self._progress = Progress()
        self._accounts_are_whole = True
        self._failures: dict[str, ReadError] = {}
        # The last failure waits for the next one, or for the end: what is raised is not emitted.
        self._unreported: ReadError | None = None
        self._incomplete: set[str] = set()
        self._readable: set[str] = set()
        self._running: set[str] = set()
        self._unsaved: set[str] = set()
        self._saved_at = dict.fromkeys(selected, clock.now())
        self._logged_at = clock.now()
        self._is_interrupted = False

    def run(self) -> Iterator[AirbyteMessage]:
        """Reads all accounts.

        Yields:
            Records in batches, states, statuses and traces, in the order in which they hold.

        Raises:
            AirbyteTracedException: At the end, if an account could not be read.
        """
        for name in self._selected:
            yield status_message(name, AirbyteStreamStatus.STARTED)
        self._submit_all()
        try:
            for event in self._pool.events(_TICK):
                if self._shutdown.is_set():
                    self._is_interrupted = True
                    break
                if event is not None:
                    yield from self._handle(event)
                yield from self._checkpoints_due()
                self._log_progress()
        finally:
            self._pool.close()
        yield from self._finish()

    def _submit_all(self) -> None:
        if self._config.additional_accounts.mode == "all":
            self._pool.submit(self._list_accounts())
            return
        for account_id in self._config.configured_account_ids:
            self._progress.found.add(account_id)
            self._submit(Account(account_id))
        self._progress.is_all_found = True

    def _submit(self, account: Account) -> None:
        if self._reads_accounts:
            self._pool.submit(self._reader.read(account))

    @property
    def _reads_accounts(self) -> bool:
        """Whether accounts are asked one by one, and not only listed."""
        is_listed = self._config.additional_accounts.mode == "all"
        return not is_listed or bool(self._selected.keys() - {INTEGRATED_ACCOUNTS})

    def _list_accounts(self) -> Task:
        """Reads the environment's list, which is data of its stream as well."""
        stream = IntegratedAccounts(self._config)
        accounts = AccountList(self._config, self._client, stream, self._submit, self._logger)
        known = {id_ for s in self._selected.values() for id_ in s.state.partitions}
        selected = self._selected.get(INTEGRATED_ACCOUNTS)
        partition = None
        if selected and selected.state.is_complete(ENVIRONMENT):
            yield PartitionRead(INTEGRATED_ACCOUNTS, ENVIRONMENT)
        elif selected:
            partition = PartitionReader(selected, ENVIRONMENT, self._logger)
        steps = accounts.read(known - {ENVIRONMENT}, partition)
        yield from self._reader.guarded(list(self._selected), steps)
        if partition is not None:
            partition.log_issues()

    def _handle(self, event: object) -> Iterator[AirbyteMessage]:
        match event:
            case RecordsRead():
                yield from self._write(event)
            case PartitionRead(name, partition):
                self._readable.add(name)
                if self._selected[name].state.complete(partition):
                    self._unsaved.add(name)
            case ReadFailed(stream_names, error):
                yield from self._report(stream_names, error)
            case AccountFound() | AccountsListed() | AccountRead():
                self._count(event)
            case RateLimited(seconds):
                quota_reset = int((time.time() + seconds) * 1000)
                yield from (rate_limited_message(name, quota_reset) for name in self._selected)
            case TaskFailed(error):
                defect = unexpected_error("Reading the integrated accounts", None, error)
                yield from self._report(self._selected, defect)

    def _count(self, event: AccountFound | AccountsListed | AccountRead) -> None:
        match event:
            case AccountFound(account_id):
                self._progress.found.add(account_id)
                if not self._reads_accounts:
                    self._progress.done.add(account_id)
            case AccountsListed(is_whole):
                self._progress.is_all_found = True
                self._accounts_are_whole = is_whole
            case AccountRead(account_id):
                self._progress.done.add(account_id)

    def _write(self, event: RecordsRead) -> Iterator[AirbyteMessage]:
        name = event.batch.stream_name
        if event.batch.records:
            if name not in self._running:
                self._running.add(name)
                if self._selected[name].state.partitions:
                    yield self._checkpoint(name)
                yield status_message(name, AirbyteStreamStatus.RUNNING)
            yield event.batch
            self._progress.records[name] += len(event.batch.records)
        # Behind the records: no state can be ahead of what it counts.
        if event.fingerprints or event.removed_ids:
            state = self._selected[name].state
            state.add(event.partition, event.fingerprints, event.cursor_value)
            state.remove(event.partition, event.removed_ids, event.cursor_value)
            self._unsaved.add(name)

    def _report(self, stream_names: Collection[str], error: ReadError) -> Iterator[AirbyteMessage]:
        """Reports each failure once: what is raised at the end is not emitted as well."""
        is_new = str(error) not in self._failures
        self._failures[str(error)] = error
        if error.account_id is not None:
            self._progress.failed.add(error.account_id)
        if not self._is_fatal(error):
            if is_new:
                self._logger.warning("%s", error)
            return
        self._incomplete.update(stream_names)
        if not is_new:
            return
        earlier, self._unreported = self._unreported, error
        if earlier is not None and _is_of_sync(earlier):
            earlier, self._unreported = error, earlier
        # A refused token fails whatever is in flight: once is enough.
        if earlier is not None and earlier.resolution.scope is Scope.ACCOUNT:
            yield earlier.as_sanitized_airbyte_message()

    def _checkpoints_due(self) -> Iterator[AirbyteMessage]:
        now = self._clock.now()
        for name, saved_at in self._saved_at.items():
            interval = CHECKPOINT_SECONDS if name in self._unsaved else HEARTBEAT_SECONDS
            if now - saved_at >= interval:
                yield self._checkpoint(name)

    def _checkpoint(self, name: str) -> AirbyteMessage:
        self._unsaved.discard(name)
        self._saved_at[name] = self._clock.now()
        # From the first record on, a sync that is killed has emitted more than its state counts.
        is_running = name in self._running
        return state_message(name, self._selected[name].state.snapshot(in_progress=is_running))

    def _finish(self) -> Iterator[AirbyteMessage]:
        """The last states and statuses, each state before the status that it stands for."""
        is_whole = all(map(self._is_complete, self._selected))
        for name, selected in self._selected.items():
            if is_whole:
                blob = selected.state.final_snapshot(self._partitions(name))
            else:
                # The next attempt goes on from there, also of what is complete.
                blob = selected.state.snapshot()
            is_complete = self._is_complete(name)
            yield state_message(name, blob)
            yield status_message(name, _COMPLETE if is_complete else _INCOMPLETE)
        self._warn_of_large_states()
        if self._is_interrupted:
            if self._unreported is not None:
                yield self._unreported.as_sanitized_airbyte_message()
            raise _traced(_INTERRUPTED, FailureType.transient_error)
        yield from self._raise_failures()
        level = logging.WARNING if self._failures else logging.INFO
        self._logger.log(level, "%s", self._progress.final_summary(self._selected))

    def _raise_failures(self) -> Iterator[AirbyteMessage]:
        """Raises the one failure, or a summary of several, each of which was reported."""
        fatal = [error for error in self._failures.values() if self._is_fatal(error)]
        if self._unreported is not None and (len(fatal) == 1 or _is_of_sync(self._unreported)):
            raise self._unreported
        if self._unreported is not None:
            yield self._unreported.as_sanitized_airbyte_message()
        if all(map(self._is_complete, self._selected)):
            return
        types = {error.failure_type for error in self._failures.values()}
        message = (
            f"{self._progress.final_summary(self._selected)} For each of these accounts, a message "
            "above says who must do what."
        )
        raise _traced(message, next(known for known in _FAILURE_PRECEDENCE if known in types))

    def _is_complete(self, name: str) -> bool:
        """Whether a stream was read to its end; where accounts are skipped, at least one was."""
        if self._is_interrupted or any(map(_is_of_sync, self._failures.values())):
            return False
        return name not in self._incomplete and (not self._failures or name in self._readable)

    def _is_fatal(self, error: ReadError) -> bool:
        """Whether an error fails the sync even where failed accounts are skipped."""
        is_defect = error.resolution is errors.UNEXPECTED
        return not self._config.skip_failed_accounts or _is_of_sync(error) or is_defect

    def _partitions(self, name: str) -> set[str] | None:
        if name == INTEGRATED_ACCOUNTS and self._config.additional_accounts.mode == "all":
            return {ENVIRONMENT}
        return self._progress.found if self._accounts_are_whole else None

    def _warn_of_large_states(self) -> None:
        for name, selected in self._selected.items():
            if selected.state.without_ids:
                self._logger.warning(
                    "The state of the stream %s has no room for the records of %d of its "
                    "integrated accounts. Each sync emits all records of these, and does not "
                    "notice their deletions. Split the connection by tenants or integrations.",
                    name,
                    len(selected.state.without_ids),
                )

    def _log_progress(self) -> None:
        if self._clock.now() - self._logged_at >= PROGRESS_SECONDS:
            self._logged_at = self._clock.now()
            self._logger.info("%s", self._progress.status_line(self._pool.delays()))


def _is_of_sync(error: ReadError) -> bool:
    return error.resolution.scope is Scope.SYNC or error.account_id is None


def _traced(message: str, failure_type: FailureType) -> AirbyteTracedException:
    return AirbyteTracedException(
        message=message, internal_message=message, failure_type=failure_type
    )
