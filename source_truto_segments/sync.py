"""One read of the stream `segments`: accounts side by side, each on its own."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Any, cast

from airbyte_cdk.models import (
    AirbyteLogMessage,
    AirbyteMessage,
    AirbyteRecordMessage,
    AirbyteStreamStatus,
    FailureType,
    Level,
    StreamDescriptor,
    Type,
)
from airbyte_cdk.sources.concurrent_source.concurrent_read_processor import ConcurrentReadProcessor
from airbyte_cdk.sources.concurrent_source.concurrent_source import ConcurrentSource
from airbyte_cdk.sources.concurrent_source.thread_pool_manager import ThreadPoolManager
from airbyte_cdk.sources.streams.concurrent.cursor import CursorField
from airbyte_cdk.sources.streams.concurrent.default_stream import DefaultStream
from airbyte_cdk.sources.streams.concurrent.partitions.partition import Partition
from airbyte_cdk.sources.streams.concurrent.partitions.partition_generator import (
    PartitionGenerator,
)
from airbyte_cdk.sources.streams.concurrent.partitions.types import QueueItem
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.stream_status_utils import (
    as_airbyte_message as stream_status_as_airbyte_message,
)
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from airbyte_protocol_dataclasses.models import (
    AirbyteRecordMessageMeta,
    AirbyteRecordMessageMetaChange,
)

from source_truto_segments.accounts import (
    FROM_THE_START,
    Account,
    AccountPartition,
    AccountReader,
    RefusedCursorError,
    find_accounts,
)
from source_truto_segments.checkpoints import Checkpoints
from source_truto_segments.client import Truto
from source_truto_segments.config import Config
from source_truto_segments.errors import ReadError, Scope
from source_truto_segments.outbox import Outbox
from source_truto_segments.progress import Progress, closing
from source_truto_segments.records import Columns
from source_truto_segments.state import MARK_FIELD, Resume, State
from source_truto_segments.streams import IntegratedAccounts, Segments
from source_truto_segments.workers import StoppedError, Workers

STREAM = "segments"

# Threads for accounts that wait for a limit of theirs, beside those that are read. A thread that
# waits costs little; an account that could be read and is not costs the sync its time.
_WAITING_ROOM = 200
# Batches that may wait to be written. Behind a slow destination the workers then wait, too.
_QUEUE_SIZE = 64
# A line for whoever watches the log.
PROGRESS_SECONDS = 10.0
# How often the supervisor looks whether the sync is to end.
_LOOK_SECONDS = 0.2
# After a reader has left, workers are given this many seconds to notice.
_FAREWELL_SECONDS = 2.0


class Sync:
    """One read of the stream.

    Args:
        config: The user's configuration.
        workers: The places to read in.
        truto: What all requests of the run share.
        state: The state of the accounts that the sync begins with.
        schema: The stream's JSON schema.
        ending: Set from outside when the sync is to end early, with its state written.
        logger: Where progress and warnings are told.
    """

    def __init__(
        self,
        config: Config,
        workers: Workers,
        truto: Truto,
        state: State,
        schema: dict[str, Any],
        ending: threading.Event,
        logger: logging.Logger,
    ) -> None:
        self._config = config
        self._workers = workers
        self._truto = truto
        self._reader = AccountReader(config, truto, Columns.of(schema), logger)
        self._schema = schema
        self._logger = logger
        self._progress = Progress()
        self._failures: list[ReadError] = []
        self._queue: Queue[QueueItem | list[AirbyteMessage]] = Queue(maxsize=_QUEUE_SIZE)
        self._outbox = Outbox(self._queue)
        self._checkpoints = Checkpoints(
            state, STREAM, self._outbox, workers.clock, self._whole, self._end_early
        )
        self._is_first = threading.Semaphore(1)
        self._found_ids: set[str] = set()
        self._has_unknown_failure = False
        self._ending = ending
        self._farewell = _log(_TOLD_TO_END)
        self._pool = ThreadPoolExecutor(
            max_workers=config.num_workers + _WAITING_ROOM, thread_name_prefix="account"
        )

    def messages(self) -> Iterator[AirbyteMessage]:
        """Reads all accounts.

        Yields:
            Records, states, statuses and traces, in the order in which they hold.

        Raises:
            AirbyteTracedException: At the end, if an account could not be read.
        """
        source = _BatchedSource(
            threadpool=ThreadPoolManager(self._pool, self._logger),
            logger=_without_repetitions(self._logger),
            queue=cast("Queue[QueueItem]", self._queue),
            message_repository=self._outbox,
        )
        try:
            with self._supervised():
                for message in source.read([self._stream()]):
                    yield message
                    if message is self._farewell:
                        raise _EndedError  # noqa: TRY301 - it ends the CDK's loop
        except _EndedError:
            yield from self._outbox.consume_queue()
            yield _status(AirbyteStreamStatus.INCOMPLETE)
            raise self._summary() from None
        except AirbyteTracedException as failure:
            raise self._summary(failure) from None
        else:
            self._close()
        finally:
            self._end()

    def _stream(self) -> DefaultStream:
        return DefaultStream(
            partition_generator=_Partitions(self._accounts, self._read_account),
            name=STREAM,
            json_schema=self._schema,
            primary_key=["integrated_account_id", "id"],
            cursor_field=CursorField(MARK_FIELD),
            logger=self._logger,
            cursor=self._checkpoints,
        )

    def _accounts(self) -> Iterator[Account]:
        """Finds the accounts while the first of them are read already."""
        listing = IntegratedAccounts(self._config, self._truto)
        try:
            for account in find_accounts(self._config, listing, self._logger):
                self._progress.found()
                self._found_ids.add(account.id)
                yield account
        except StoppedError:
            return
        except ReadError as failure:
            self._failures.append(failure)
            raise
        except Exception as failure:
            self._has_unknown_failure = True
            raise _unknown_failure(IntegratedAccounts.doing, failure) from failure
        self._progress.all_found()

    def _read_account(self, account: Account) -> None:
        """Reads an account in a place of its own; a failure is told by its name."""
        try:
            with self._workers.place():
                self._read_pages(account)
        except StoppedError:
            # Why the sync was stopped is told where that was noticed.
            return
        except ReadError as failure:
            self._progress.failed()
            self._failures.append(failure)
            if failure.meaning.scope is Scope.SYNC or not self._config.skip_failed_accounts:
                raise
            self._logger.warning("%s", failure)
        except Exception as failure:
            self._has_unknown_failure = True
            self._progress.failed()
            raise _unknown_failure(Segments.doing.format(account.id), failure) from failure
        else:
            self._progress.done()
        finally:
            self._truto.budget.forget(account.id)

    def _read_pages(self, account: Account) -> None:
        if account.failure is not None:
            raise account.failure
        resume = self._checkpoints.resume(account.id)
        if resume is None:
            return
        oddities: Counter[str] = Counter()
        try:
            try:
                self._read_from(account.id, resume, oddities)
            except RefusedCursorError as refused:
                self._logger.info("%s This account is read from its first page now.", refused)
                self._checkpoints.restarted(account.id)
                self._read_from(account.id, FROM_THE_START, oddities)
            self._checkpoints.account_read(account.id)
        finally:
            self._tell(account.id, oddities)

    def _read_from(self, account_id: str, resume: Resume, oddities: Counter[str]) -> None:
        """Reads an account; each page is reported once its records are on their way."""
        for workspace_id, page in self._reader.read_pages(account_id, resume):
            read, emitted = [], []
            now = time.time_ns() // 1_000_000
            for record, changes in self._reader.records(account_id, workspace_id, page):
                read.append(record)
                if self._checkpoints.wants(account_id, workspace_id, record):
                    emitted.append(_message(record, changes, now))
                    oddities["changed"] += bool(changes)
                    oddities["without id"] += record.get("id") is None
            oddities["partial pages"] += page.is_partial
            oddities["strays"] += page.strays
            self._emit(emitted)
            self._checkpoints.page_read(account_id, workspace_id, page.next_cursor, read)

    def _emit(self, records: list[AirbyteMessage]) -> None:
        if records and self._is_first.acquire(blocking=False):
            self._outbox.emit_message(_status(AirbyteStreamStatus.RUNNING))
        self._outbox.emit_batch(records)
        self._progress.read(len(records))

    def _whole(self) -> set[str] | None:
        """The accounts that there are, if each was read or may be skipped; else None."""
        if self._ending.is_set() or self._has_unknown_failure or self._fatal_failures():
            return None
        is_nothing_read = bool(self._failures) and not self._progress["done"]
        return None if is_nothing_read else self._found_ids

    def _end_early(self) -> None:
        """Keeps the CDK from calling a stream complete that is not, though no account raised.

        Raises:
            _EndedError: If the sync was told to end, or if every account was skipped.
        """
        if self._whole() is None and not self._fatal_failures() and not self._has_unknown_failure:
            raise _EndedError

    def _fatal_failures(self) -> list[ReadError]:
        """The failures that fail the sync."""
        if not self._config.skip_failed_accounts:
            return self._failures
        return self._failures_of_sync()

    def _failures_of_sync(self) -> list[ReadError]:
        return [
            failure
            for failure in self._failures
            if failure.meaning.scope is Scope.SYNC or failure.account_id is None
        ]

    def _tell(self, account_id: str, oddities: Counter[str]) -> None:
        for oddity, count in oddities.items():
            if count:
                self._logger.warning(
                    "Integrated account %s: %s", account_id, _WARNINGS[oddity].format(count)
                )

    def _summary(self, failure: AirbyteTracedException | None = None) -> AirbyteTracedException:
        """What the user reads last: the one failure, or how many accounts failed."""
        if self._ending.is_set():
            return _traced(_TOLD_TO_END, FailureType.transient_error)
        of_sync = self._failures_of_sync()
        if of_sync or len(self._failures) == 1:
            return (of_sync or self._failures)[0]
        if failure is not None and not self._failures:
            return failure
        types = {known.failure_type for known in self._failures}
        message = (
            f"{closing(self._progress, self._failed_ids())} For each of them, an error above says "
            "what is to be done."
        )
        return _traced(message, next(known for known in _BY_URGENCY if known in types))

    def _close(self) -> None:
        """Says at the end what was read, and which accounts were skipped."""
        level = logging.WARNING if self._failures else logging.INFO
        self._logger.log(level, "%s", closing(self._progress, self._failed_ids()))

    def _failed_ids(self) -> list[str]:
        return [str(failure.account_id) for failure in self._failures]

    @contextmanager
    def _supervised(self) -> Iterator[None]:
        """Tells how far the sync has come, and ends it when it is told to end."""
        over = threading.Event()
        supervisor = threading.Thread(
            target=self._supervise, args=[over], name="supervisor", daemon=True
        )
        supervisor.start()
        try:
            yield
        finally:
            over.set()

    def _supervise(self, over: threading.Event) -> None:
        told_at = time.monotonic()
        while not over.wait(_LOOK_SECONDS):
            if self._ending.is_set():
                self._workers.stop()
                # Behind the records that are on their way: none of them is counted and not written.
                self._checkpoints.write()
                self._outbox.emit_message(self._farewell)
                return
            if time.monotonic() - told_at >= PROGRESS_SECONDS:
                told_at = time.monotonic()
                self._logger.info("%s", self._progress.line(self._truto.waits))

    def _end(self) -> None:
        """Ends the workers, also where the reader of the messages left before the end."""
        self._workers.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while time.monotonic() < deadline and not self._is_over():
            # A worker that waits to put a message into the full queue would wait for ever.
            with suppress(Empty):
                self._queue.get(timeout=0.05)

    def _is_over(self) -> bool:
        return not any(thread.is_alive() for thread in self._pool._threads)  # noqa: SLF001


class _EndedError(Exception):
    """The stream ends here and is not complete."""


class _Partitions(PartitionGenerator):
    """One partition for each account."""

    def __init__(
        self,
        accounts: Callable[[], Iterable[Account]],
        read: Callable[[Account], None],
    ) -> None:
        self._accounts = accounts
        self._read = read

    def generate(self) -> Iterable[Partition]:
        for account in self._accounts():
            yield AccountPartition(account, self._read, STREAM)


# A configuration error needs somebody to act, the others pass by themselves or are for others.
_BY_URGENCY = (
    FailureType.config_error,
    FailureType.system_error,
    FailureType.transient_error,
)

_TOLD_TO_END = (
    "The sync was told to end before all accounts were read. Its state is written: the next "
    "attempt goes on from there."
)

_WARNINGS = {
    "partial pages": "Pages of its answers that Truto marked as partial: {}. The records in them "
    "are good; what is missing comes with a later sync.",
    "strays": "Entries in its pages that are no objects, and so no segments: {}. They were left "
    "out.",
    "without id": "Records without an id: {}. They were read, but a destination cannot "
    "deduplicate them.",
    "changed": "Records with a value that its column cannot say: {}. Each such field is named in "
    "the record's meta.changes.",
}


class _BatchedSource(ConcurrentSource):
    """The CDK's concurrent source, which also takes the messages of a worker in batches."""

    def _handle_item(
        self,
        queue_item: QueueItem | list[AirbyteMessage],
        concurrent_stream_processor: ConcurrentReadProcessor,
    ) -> Iterable[AirbyteMessage]:
        if isinstance(queue_item, list):
            return queue_item
        return super()._handle_item(queue_item, concurrent_stream_processor)


class _NoRepetitions(logging.Filter):
    """Drops what the CDK logs and a message has told better.

    That is a failure with its stack trace, and a count of records that knows nothing of batches.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        failure = record.exc_info[1] if record.exc_info else None
        is_told = isinstance(failure, AirbyteTracedException)
        return not is_told and not str(record.msg).startswith(
            ("During the sync, the following", "Read 0 records")
        )


def _without_repetitions(logger: logging.Logger) -> logging.Logger:
    quiet = logging.getLogger(f"{logger.name}.{STREAM}")
    if not quiet.filters:
        quiet.addFilter(_NoRepetitions())
    return quiet


def _message(
    record: dict[str, Any], changes: list[AirbyteRecordMessageMetaChange], now: int
) -> AirbyteMessage:
    """A whole RECORD message: the CDK's own way to write a record drops its meta."""
    meta = AirbyteRecordMessageMeta(changes=changes) if changes else None
    message = AirbyteRecordMessage(stream=STREAM, data=record, emitted_at=now, meta=meta)
    return AirbyteMessage(type=Type.RECORD, record=message)


def _log(text: str) -> AirbyteMessage:
    return AirbyteMessage(type=Type.LOG, log=AirbyteLogMessage(level=Level.INFO, message=text))


def _status(status: AirbyteStreamStatus) -> AirbyteMessage:
    return stream_status_as_airbyte_message(StreamDescriptor(name=STREAM), status)


def _unknown_failure(doing: str, failure: Exception) -> AirbyteTracedException:
    return _traced(
        f"{doing} failed in a way that the connector does not know ({type(failure).__name__}: "
        f"{failure}). Please report this message to its maintainers.",
        FailureType.system_error,
    )


def _traced(message: str, failure_type: FailureType) -> AirbyteTracedException:
    message = filter_secrets(message)
    return AirbyteTracedException(
        message=message, internal_message=message, failure_type=failure_type
    )
