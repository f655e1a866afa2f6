"""What `check` does: ask accounts for their segments, and report each one that cannot be read."""

import logging

from source_truto_segments.config import Config
from source_truto_segments.streams import SEGMENTS, Streams
from source_truto_segments.sync.accounts import Account, account_source
from source_truto_segments.sync.events import Event, ReadFailed
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.sync.worker_pool import Task, TaskFailed, WorkerPool
from source_truto_segments.truto.client import TrutoClient
from source_truto_segments.truto.errors import NOT_SUPPORTED, ReadError, Scope

logger = logging.getLogger("airbyte")


class ConnectionCheck:
    """The check of a configuration.

    It asks the configured accounts for a page of segments, and of those that Truto lists the ones
    that are not marked as active: the list is a hint only.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        pool: Runs the requests side by side.
    """

    def __init__(self, config: Config, client: TrutoClient, pool: WorkerPool[Event]) -> None:
        self._config = config
        self._pool = pool
        streams = Streams.build(config)
        self._reader = AccountReader(config, client, streams, {}, pool.stop)
        self._source = account_source(config, client, streams.integrated_accounts, self._submit)
        # In the order in which they were found.
        self._accounts: dict[str, Account] = {}

    def error_message(self) -> str | None:
        """Return what is wrong, a sentence or more for each account; None if nothing is.

        Raises:
            ReadError: If it concerns no single account, such as a refused token.
        """
        self._pool.submit(self._find_accounts())
        failures: dict[str, ReadError] = {}
        try:
            for event in self._pool.events(1.0):
                match event:
                    case TaskFailed(error):
                        raise error
                    case ReadFailed(_, error) if _is_of_sync(error):
                        raise error
                    case ReadFailed(_, error):
                        failures[str(error.account_id)] = error
        finally:
            self._pool.close()
        return self._result([failures[id_] for id_ in self._accounts if id_ in failures])

    def _find_accounts(self) -> Task[Event]:
        try:
            yield from self._source.find()
        except ReadError as error:
            self._pool.stop()
            yield ReadFailed([], error)

    def _submit(self, account: Account) -> None:
        self._accounts[account.id] = account
        if account.id in self._config.configured_account_ids or not account.is_active:
            self._pool.submit(self._probe(account))

    def _probe(self, account: Account) -> Task[Event]:
        try:
            yield from self._reader.probe(account)
        except ReadError as error:
            if error.resolution is not NOT_SUPPORTED or not account.is_optional:
                yield self._reader.failure([SEGMENTS], error, account)

    def _result(self, failures: list[ReadError]) -> str | None:
        messages = [str(failure) for failure in failures]
        if self._config.skip_failed_accounts and len(failures) < len(self._accounts):
            for message in messages:
                logger.warning("This account would be skipped. %s", message)
            return None
        if len(self._accounts) == 1:
            return messages[0] if messages else None
        head = f"{len(messages):,} of {len(self._accounts):,} integrated accounts cannot be read."
        return "\n".join([head, *messages]) if messages else None


def _is_of_sync(error: ReadError) -> bool:
    return error.account_id is None or error.resolution.scope is Scope.SYNC
