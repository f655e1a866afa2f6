"""What `check` does: asks each account for one segment, and names every one that refuses."""

import logging
from concurrent.futures import ThreadPoolExecutor

from source_truto_segments.accounts import Account, AccountReader, find_accounts
from source_truto_segments.client import Truto
from source_truto_segments.config import Config
from source_truto_segments.errors import ReadError, Scope
from source_truto_segments.records import Columns
from source_truto_segments.streams import IntegratedAccounts
from source_truto_segments.workers import StoppedError


class Checkup:
    """The check of a configuration.

    Each account that the configuration names is asked for one page; of the accounts that Truto
    lists, the list itself tells which are not active.

    Args:
        config: The user's configuration.
        truto: What all requests of the run share.
        logger: Where accounts that would be skipped are told.
    """

    def __init__(self, config: Config, truto: Truto, logger: logging.Logger) -> None:
        self._config = config
        self._truto = truto
        self._reader = AccountReader(config, truto, Columns.of({}), logger)
        self._logger = logger

    def complaint(self) -> str | None:
        """What is wrong, a sentence or more for each account; None if all is well.

        Raises:
            ReadError: If the accounts of the environment cannot be listed.
        """
        listing = IntegratedAccounts(self._config, self._truto)
        accounts = find_accounts(self._config, listing, self._logger)
        with ThreadPoolExecutor(self._config.num_workers, "check") as pool:
            # The named ones come first and are asked while the others are still listed.
            named = len(self._config.named_account_ids)
            asked = pool.map(self._ask, [next(accounts) for _ in range(named)])
            failures = [failure for failure in asked if failure is not None]
        of_sync = [failure for failure in failures if failure.meaning.scope is Scope.SYNC]
        if of_sync:
            return of_sync[0].message
        checked = named
        for account in accounts:
            checked += 1
            if account.failure is not None:
                failures.append(account.failure)
        return self._verdict(failures, checked)

    def _ask(self, account: Account) -> ReadError | None:
        try:
            with self._truto.workers.place():
                next(self._reader.read_pages(account.id), None)
        except ReadError as failure:
            return failure
        except StoppedError:
            # The failure that stopped the check is told instead.
            return None
        return None

    def _verdict(self, failures: list[ReadError], checked: int) -> str | None:
        messages = [str(failure) for failure in failures]
        if self._config.skip_failed_accounts and len(failures) < checked:
            for message in messages:
                self._logger.warning("This account would be skipped. %s", message)
            return None
        if not messages:
            return None
        if checked == 1:
            return messages[0]
        head = f"{len(messages):,} of {checked:,} integrated accounts cannot be read."
        return "\n".join([head, *messages])
