"""What `check` does: asks accounts for their segments, and names each one that cannot be read."""

import logging
from dataclasses import dataclass

from source_truto_segments.accounts import Account, AccountList
from source_truto_segments.client import TrutoClient
from source_truto_segments.config import Config
from source_truto_segments.errors import NOT_SUPPORTED, ReadError, Scope
from source_truto_segments.reader import AccountReader
from source_truto_segments.streams import IntegratedAccounts
from source_truto_segments.worker_pool import Task, TaskFailed, WorkerPool


@dataclass(frozen=True)
class _Result:
    """An event: an account, or the list of accounts (None), was asked."""

    account: Account | None
    error: ReadError | None


class ConnectionCheck:
    """The check of a configuration.

    The accounts that the configuration names are asked for a page of segments, and of those that
    Truto lists the ones that it does not mark as active: what is listed is a hint only.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        pool: Runs the requests side by side.
        logger: Where accounts that would be skipped are logged.
    """

    def __init__(
        self, config: Config, client: TrutoClient, pool: WorkerPool, logger: logging.Logger
    ) -> None:
        self._config = config
        self._client = client
        self._pool = pool
        self._logger = logger
        self._reader = AccountReader(config, client, {}, pool.stop, logger)
        # In the order in which they were found.
        self._accounts: dict[str, None] = {}

    def error_message(self) -> str | None:
        """What is wrong, a sentence or more for each account; None if nothing is.

        Raises:
            ReadError: If it concerns no single account, such as a refused token.
        """
        if self._config.additional_accounts.mode == "all":
            self._pool.submit(self._list())
        else:
            for account_id in self._config.configured_account_ids:
                self._submit(Account(account_id))
        failures: dict[str, ReadError] = {}
        try:
            for event in self._pool.events(1.0):
                if isinstance(event, TaskFailed):
                    raise event.error
                if not isinstance(event, _Result) or event.error is None:
                    continue
                if event.account is None or event.error.resolution.scope is Scope.SYNC:
                    raise event.error
                failures[event.account.id] = event.error.with_detail(event.account.detail)
        finally:
            self._pool.close()
        return self._result([failures[id_] for id_ in self._accounts if id_ in failures])

    def _list(self) -> Task:
        stream = IntegratedAccounts(self._config)
        accounts = AccountList(self._config, self._client, stream, self._submit, self._logger)
        try:
            yield from accounts.read((), None)
        except ReadError as error:
            self._pool.stop()
            yield _Result(None, error)

    def _submit(self, account: Account) -> None:
        self._accounts[account.id] = None
        if account.id in self._config.configured_account_ids or not account.is_active:
            self._pool.submit(self._probe(account))

    def _probe(self, account: Account) -> Task:
        try:
            yield from self._reader.probe(account)
        except ReadError as error:
            if error.resolution is NOT_SUPPORTED and account.is_optional:
                return
            if error.resolution.scope is Scope.SYNC:
                self._pool.stop()
            yield _Result(account, error)

    def _result(self, failures: list[ReadError]) -> str | None:
        messages = [str(failure) for failure in failures]
        if self._config.skip_failed_accounts and len(failures) < len(self._accounts):
            for message in messages:
                self._logger.warning("This account would be skipped. %s", message)
            return None
        if len(self._accounts) == 1:
            return messages[0] if messages else None
        head = f"{len(messages):,} of {len(self._accounts):,} integrated accounts cannot be read."
        return "\n".join([head, *messages]) if messages else None
