"""The `check` command: ask accounts for their segments, and report what is wrong."""

import logging
from collections.abc import Generator, Sequence
from contextlib import closing

from source_truto_segments.config import Config
from source_truto_segments.streams import INTEGRATED_ACCOUNTS, SEGMENTS, Streams
from source_truto_segments.sync.accounts import Account, account_source, fetch_account
from source_truto_segments.sync.events import AccountFinished, Event, ReadFailed
from source_truto_segments.sync.failures import Failures, cut, is_of_sync
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.sync.worker_pool import Task, TaskFailed, WorkerPool
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import TrutoClient
from source_truto_segments.truto.errors import NOT_SUPPORTED, ReadError
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Speaker, counted

logger = logging.getLogger("airbyte")

# Seconds. A user waits in front of a form, and Airbyte checks before each sync, so answer within
# half a minute, whatever the server does.
DEADLINE = 25.0
# How many of the accounts that are not marked as active to ask.
MAX_SAMPLE = 20

_LIMITS = (
    errors.ERROR_MAPPING[429, Speaker.TRUTO].error_message,
    errors.MAX_WAIT_EXCEEDED.error_message,
)


class ConnectionCheck:
    """Checks a configuration.

    It requests a page of segments from each configured account, and from a sample of the accounts
    that Truto's list does not mark as active, as the list is only a hint. Without the list, it
    also requests the object of the first account, which the stream integrated_accounts needs.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        pool: Runs the requests concurrently.
    """

    def __init__(self, config: Config, client: TrutoClient, pool: WorkerPool[Event]) -> None:
        self._config = config
        self._client = client
        self._pool = pool
        streams = Streams.build(config)
        self._reader = AccountReader(config, client, streams, {}, pool.stop)
        self._objects = streams.integrated_accounts
        self._source = account_source(config, client, self._objects, self._found)
        self._accounts = {id_: Account(id_) for id_ in config.configured_account_ids}
        self._asked: set[str] = set()
        self._finished: set[str] = set()
        self._sampled = 0
        self._asks_active = False
        self._is_listed = config.account_list is None
        self._failures: dict[str, ReadError] = {}
        self._list_error: ReadError | None = None
        self._warnings: list[str] = []

    def error_message(self) -> str | None:
        """Return what is wrong, with a message for each cause; None if nothing is.

        Raises:
            ReadError: For a failure that concerns no single account, such as a rejected token.
        """
        # Ask the configured accounts first: they decide the check, and the list can be long.
        for account in list(self._accounts.values()):
            self._pool.submit(self._probe(account))
        if self._config.account_list is not None:
            self._pool.submit(self._list_accounts())
        with closing(self._pool):
            for event in self._pool.events_within(DEADLINE):
                match event:
                    case TaskFailed(error):
                        raise error
                    case ReadFailed(_, error) if is_of_sync(error):
                        self._list_error = error
                        break
                    case ReadFailed(_, error):
                        self._failures[str(error.account_id)] = error
                    case AccountFinished(account_id):
                        self._finished.add(account_id)
        return self._verdict()

    @property
    def warnings(self) -> Sequence[str]:
        """Warnings about options that match nothing, and about a stream that cannot be read."""
        return [*self._source.warnings, *self._warnings]

    def _list_accounts(self) -> Task[Event]:
        try:
            yield from self._source.find()
            self._is_listed = True
        except ReadError as error:
            self._pool.stop()
            yield ReadFailed([], error)

    def _found(self, account: Account) -> None:
        is_configured = account.id in self._accounts
        if not is_configured or account.page is not None:
            self._accounts[account.id] = account
        if is_configured or not account.is_readable:
            return
        if account.is_active:
            # If failures are skipped, one account that can be read is enough.
            is_asked = self._config.skip_failed_accounts and not self._asks_active
            self._asks_active |= is_asked
        else:
            self._sampled += 1
            is_asked = self._sampled <= MAX_SAMPLE
        if is_asked:
            self._pool.submit(self._probe(account))

    def _probe(self, account: Account) -> Task[Event]:
        self._asked.add(account.id)
        try:
            yield from self._reader.probe(account)
        except ReadError as error:
            if error.resolution is not NOT_SUPPORTED or not self._accounts[account.id].is_optional:
                yield self._reader.failure([SEGMENTS], error, self._accounts[account.id])
            yield AccountFinished(account.id)
            return
        yield AccountFinished(account.id)
        if account.id == self._config.integrated_account_id and self._config.account_list is None:
            yield from self._fetch_object(account)

    def _fetch_object(self, account: Account) -> Generator[Delay, None, None]:
        """Warn if Truto refuses the account's object, as a token may read the segments alone."""
        try:
            yield from fetch_account(self._client, self._objects, account.id)
        except ReadError as error:
            if error.resolution in (errors.ACCOUNT_FORBIDDEN, errors.ACCOUNT_NOT_FOUND):
                failed = self._reader.failure([INTEGRATED_ACCOUNTS], error, account)
                text = f"The stream integrated_accounts cannot be read. {failed.error}"
                logger.warning("%s", text)
                self._warnings.append(text)

    def _verdict(self) -> str | None:
        limited = self._limits_alone()
        if limited is not None:
            logger.warning(
                "The check could not be finished, but the API token is good. %s", limited
            )
            return None
        if self._list_error is not None:
            raise self._list_error
        failures = Failures(skip_accounts=self._config.skip_failed_accounts)
        for account_id, account in self._accounts.items():
            error = self._failures.get(account_id) or self._unanswered(account)
            if error is not None:
                failures.add(error, account.integration)
        found = [error for cause in failures.causes() for error in cause.errors]
        if self._config.account_list is None and not found:
            self._reader.warn_of_workspace()
        readable = sum(account.is_readable for account in self._accounts.values())
        # The environment does not have an account that does not exist.
        absent = self._config.account_list is not None and self._lacks_first_account()
        asked, unread = len(self._asked) - absent, len(found) - absent
        all_accounts = counted(readable - absent, "integrated account")
        all_accounts += "" if self._is_listed else " found in time"
        verdict = f"{unread:,} of these cannot be read" if unread else "all of these can be read"
        counts = f"Asked {asked:,} of {all_accounts} for segments: {verdict}."
        messages = failures.messages()
        if len(self._accounts) > 1 and asked:
            logger.info("%s", counts)
        is_fatal = any(map(failures.is_fatal, found)) or self._lacks_first_account()
        if not is_fatal and len(found) < len(self._asked):
            for message in messages:
                logger.warning("A sync would only warn about this. %s", message)
            return None
        if not messages or len(self._accounts) == 1 or not asked:
            return messages[0] if messages else None
        return cut("\n".join([counts, *messages]))

    def _lacks_first_account(self) -> bool:
        """Return whether Truto does not have the account of `integrated_account_id`."""
        error = self._failures.get(self._config.integrated_account_id)
        return error is not None and error.resolution is errors.ACCOUNT_NOT_FOUND

    def _limits_alone(self) -> ReadError | None:
        """Return the first failure if all failures are Truto's rate limits; otherwise None."""
        found = [*self._failures.values(), *filter(None, [self._list_error])]
        if not found or any(error.resolution.error_message not in _LIMITS for error in found):
            return None
        return found[0]

    def _unanswered(self, account: Account) -> ReadError | None:
        """Return the failure of an account that did not answer in time; None if it did."""
        if account.id not in self._asked or account.id in self._finished:
            return None
        operation = f"Reading the segments of integrated account {excerpt(account.id)}"
        detail = f" (no answer within {DEADLINE:.0f} s)"
        return ReadError(self._client.timed_out, operation, account.id, f"{detail}{account.detail}")
