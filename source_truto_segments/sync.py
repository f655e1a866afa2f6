"""One read of the stream `segments`: accounts side by side, each on its own."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from airbyte_cdk.models import (
    AirbyteMessage,
    AirbyteRecordMessage,
    FailureType,
    Type,
)
from airbyte_cdk.sources.concurrent_source.concurrent_source import ConcurrentSource
from airbyte_cdk.sources.concurrent_source.thread_pool_manager import ThreadPoolManager
from airbyte_cdk.sources.streams.concurrent.cursor import FinalStateCursor
from airbyte_cdk.sources.streams.concurrent.default_stream import DefaultStream
from airbyte_cdk.sources.streams.concurrent.partitions.partition import Partition
from airbyte_cdk.sources.streams.concurrent.partitions.partition_generator import PartitionGenerator
from airbyte_cdk.sources.types import Record
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from airbyte_protocol_dataclasses.models import (
    AirbyteRecordMessageMeta,
    AirbyteRecordMessageMetaChange,
)

from source_truto_segments.accounts import (
    Account,
    AccountPartition,
    AccountReader,
    find_accounts,
)
from source_truto_segments.client import Truto
from source_truto_segments.config import Config
from source_truto_segments.errors import ReadError, Scope
from source_truto_segments.outbox import Outbox
from source_truto_segments.progress import Progress, closing
from source_truto_segments.streams import IntegratedAccounts
from source_truto_segments.workers import StoppedError, Workers

if TYPE_CHECKING:
    from airbyte_cdk.sources.streams.concurrent.partitions.types import QueueItem

STREAM = "segments"

# Threads for accounts that wait for a limit of theirs, beside those that are read. A thread that
# waits costs little; an account that could be read and is not costs the sync its time.
_WAITING_ROOM = 200
# Messages that may wait to be written. Behind a slow destination the workers then wait, too.
_QUEUE_SIZE = 2_000
# A line for whoever watches the log.
PROGRESS_SECONDS = 10.0
# After a reader has left, workers are given this many seconds to notice.
_FAREWELL_SECONDS = 5.0


class Sync:
    """One read of the stream.

    Args:
        config: The user's configuration.
        workers: The places to read in.
        truto: What all requests of the run share.
        schema: The stream's JSON schema.
        logger: Where progress and warnings are told.
    """

    def __init__(
        self,
        config: Config,
        workers: Workers,
        truto: Truto,
        schema: dict[str, Any],
        logger: logging.Logger,
    ) -> None:
        self._config = config
        self._workers = workers
        self._truto = truto
        self._reader = AccountReader(config, truto, logger)
        self._schema = schema
        self._logger = logger
        self._progress = Progress()
        self._failures: list[ReadError] = []
        self._queue: Queue[QueueItem] = Queue(maxsize=_QUEUE_SIZE)
        self._outbox = Outbox(self._queue)
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
        source = ConcurrentSource(
            threadpool=ThreadPoolManager(self._pool, self._logger),
            logger=_without_repetitions(self._logger),
            queue=self._queue,
            message_repository=self._outbox,
        )
        try:
            with self._told_progress():
                yield from source.read([self._stream()])
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
            cursor_field=None,
            logger=self._logger,
            cursor=FinalStateCursor(STREAM, None, self._outbox),
        )

    def _accounts(self) -> Iterator[Account]:
        """Finds the accounts while the first of them are read already."""
        listing = IntegratedAccounts(self._config, self._truto)
        try:
            for account in find_accounts(self._config, listing, self._logger):
                self._progress.found()
                yield account
        except StoppedError:
            return
        except ReadError as failure:
            self._failures.append(failure)
            raise
        self._progress.all_found()

    def _read_account(self, account: Account) -> Iterator[Record]:
        """Reads an account in a place of its own; a failure is told by its name."""
        try:
            with self._workers.place():
                yield from self._records(account)
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
            self._progress.failed()
            raise _unknown_failure(account.id, failure) from failure
        else:
            self._progress.done()
        finally:
            self._truto.budget.forget(account.id)

    def _records(self, account: Account) -> Iterator[Record]:
        if account.failure is not None:
            raise account.failure
        oddities: Counter[str] = Counter()
        try:
            for workspace_id, page in self._reader.read_pages(account.id):
                oddities["partial pages"] += page.is_partial
                oddities["strays"] += page.strays
                self._progress.read(len(page.records))
                for record, changes in self._reader.records(account.id, workspace_id, page):
                    oddities["without id"] += record.get("id") is None
                    if changes:
                        oddities["changed"] += 1
                        self._outbox.emit_message(_message(record, changes))
                    else:
                        yield Record(record, STREAM)
        finally:
            self._tell(account.id, oddities)

    def _tell(self, account_id: str, oddities: Counter[str]) -> None:
        for oddity, count in oddities.items():
            if count:
                self._logger.warning(
                    "Integrated account %s: %s", account_id, _WARNINGS[oddity].format(count)
                )

    def _summary(self, failure: AirbyteTracedException) -> AirbyteTracedException:
        """What the user reads first: the one failure, or how many accounts failed."""
        of_sync = [
            known
            for known in self._failures
            if known.meaning.scope is Scope.SYNC or known.account_id is None
        ]
        if of_sync or len(self._failures) == 1:
            return (of_sync or self._failures)[0]
        if not self._failures:
            return failure
        types = {known.failure_type for known in self._failures}
        message = (
            f"{closing(self._progress, self._failed_ids())} For each of them, an error above says "
            "what is to be done."
        )
        return AirbyteTracedException(
            message=message,
            internal_message=message,
            failure_type=next(known for known in _BY_URGENCY if known in types),
        )

    def _close(self) -> None:
        """Says at the end what was read, and which accounts were skipped."""
        level = logging.WARNING if self._failures else logging.INFO
        self._logger.log(level, "%s", closing(self._progress, self._failed_ids()))

    def _failed_ids(self) -> list[str]:
        return [str(failure.account_id) for failure in self._failures]

    @contextmanager
    def _told_progress(self) -> Iterator[None]:
        """Tells how far the sync has come, every few seconds while it lasts."""
        over = threading.Event()

        def tell() -> None:
            while not over.wait(PROGRESS_SECONDS):
                self._logger.info("%s", self._progress.line(self._truto.waits))

        teller = threading.Thread(target=tell, name="progress", daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

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


class _Partitions(PartitionGenerator):
    """One partition for each account."""

    def __init__(
        self,
        accounts: Callable[[], Iterable[Account]],
        read: Callable[[Account], Iterable[Record]],
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

_WARNINGS = {
    "partial pages": "Truto marked {} of its pages as partial answers. The records in them are "
    "good; what is missing comes with a later sync.",
    "strays": "{} entries in its pages were no objects and so no segments; they were left out.",
    "without id": "{} of its records have no id. They were read, but a destination cannot "
    "deduplicate them.",
    "changed": "{} of its records held a value that its column cannot say. Each such field is "
    "named in the record's meta.changes; remote_data holds the vendor's own value.",
}


class _NoRepetitions(logging.Filter):
    """Drops what the CDK logs of a failure, with its stack trace: a message has told it."""

    def filter(self, record: logging.LogRecord) -> bool:
        failure = record.exc_info[1] if record.exc_info else None
        is_told = isinstance(failure, AirbyteTracedException)
        return not is_told and not str(record.msg).startswith("During the sync, the following")


def _without_repetitions(logger: logging.Logger) -> logging.Logger:
    quiet = logging.getLogger(f"{logger.name}.{STREAM}")
    if not quiet.filters:
        quiet.addFilter(_NoRepetitions())
    return quiet


def _message(
    record: dict[str, Any], changes: list[AirbyteRecordMessageMetaChange]
) -> AirbyteMessage:
    """A whole RECORD message: the CDK's own way to write a record drops its meta."""
    return AirbyteMessage(
        type=Type.RECORD,
        record=AirbyteRecordMessage(
            stream=STREAM,
            data=record,
            emitted_at=time.time_ns() // 1_000_000,
            meta=AirbyteRecordMessageMeta(changes=changes),
        ),
    )


def _unknown_failure(account_id: str, failure: Exception) -> AirbyteTracedException:
    message = filter_secrets(
        f"Reading the segments of integrated account {account_id} failed in a way that the "
        f"connector does not know ({type(failure).__name__}: {failure}). Please report this "
        "message to its maintainers."
    )
    return AirbyteTracedException(
        message=message, internal_message=message, failure_type=FailureType.system_error
    )
