"""Which integrated accounts there are: those that the user names, and those of Truto's list."""

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from source_truto_segments.config import AccountFilter, Config
from source_truto_segments.streams import ACCOUNT_KEY, INTEGRATED_ACCOUNTS, IntegratedAccounts
from source_truto_segments.sync.events import (
    AccountFound,
    AccountsListed,
    Event,
    ReadFailed,
)
from source_truto_segments.sync.partition import PartitionDiff
from source_truto_segments.sync.worker_pool import Task
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import Request, TrutoClient
from source_truto_segments.truto.errors import ReadError, Scope
from source_truto_segments.truto.pagination import Pages
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Page, preview

logger = logging.getLogger("airbyte")

# Entries of the list in a page. One can weigh 100 kB, and Truto's default can be thousands of them.
_PAGE_SIZE = 100

Submit: TypeAlias = Callable[["Account"], None]


@dataclass
class Account:
    """An integrated account that is to be read.

    Attributes:
        id: Its ID, a UUID in lower case.
        integration: Truto's name of its integration; None as long as it is not known.
        detail: What the list says of it, to be added to a message.
        is_optional: Whether its integration may have no segments: one that neither Truto's
            documentation nor the user names.
        is_active: Whether the list marks it so, or does not say. It is read in any case.
    """

    id: str
    integration: str | None = None
    detail: str = ""
    is_optional: bool = False
    is_active: bool = True


def parse_account(record: Mapping[str, Any], wanted: AccountFilter) -> Account | None:
    """Return an account of Truto's list; None if it has no id or no integration."""
    account_id, integration = record["id"], record["integration"]
    if not isinstance(account_id, str) or not account_id.strip() or integration is None:
        return None
    parts = [f"{integration} of tenant {preview(record['tenant_id'])}"]
    is_active = record["status"] in (None, "active")
    if not is_active:
        parts.append(f"status {preview(record['status'])}")
    if record["last_error"]:
        parts.append(f'last error: "{preview(record["last_error"])}"')
    detail = f" ({'; '.join(parts)})"
    return Account(account_id, integration, detail, not wanted.names(integration), is_active)


def account_source(
    config: Config, client: TrutoClient, stream: IntegratedAccounts, submit: Submit
) -> "NamedAccounts | AccountList":
    """Return the source of the accounts that the configuration selects.

    Its `find` submits each account as soon as it is found.
    """
    if config.account_list is None:
        return NamedAccounts(config, submit)
    return AccountList(config, config.account_list, client, stream, submit)


@dataclass(frozen=True)
class NamedAccounts:
    """The accounts that the configuration names."""

    config: Config
    submit: Submit

    def find(self, *_: Any) -> Task[Event]:
        """Submit each account."""
        for account_id in self.config.configured_account_ids:
            yield AccountFound(account_id)
            self.submit(Account(account_id))
        yield AccountsListed(complete=True)


class AccountList:
    """The accounts of Truto's list; they are read while the list still is."""

    def __init__(
        self,
        config: Config,
        wanted: AccountFilter,
        client: TrutoClient,
        stream: IntegratedAccounts,
        submit: Submit,
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._client = client
        self._stream = stream
        self._submit = submit
        self._found: set[str] = set()
        self._complete = True
        self._reads = 0
        self._page_size: int | None = _PAGE_SIZE

    def find(
        self, known_ids: Collection[str] = (), diff: PartitionDiff | None = None
    ) -> Task[Event]:
        """List the accounts; those that are configured and not listed come last.

        Pages can shift while they are read: if a known account is missing, read the list once more.

        Args:
            known_ids: The accounts that the state knows.
            diff: Takes in the list as records, if its stream is selected.

        Raises:
            ReadError: If the accounts cannot be listed.
        """
        try:
            yield from self._read_list(diff)
            # Those that are configured need not be listed: a filter can leave them out.
            configured = set(self._config.configured_account_ids)
            if set(known_ids) - self._found - configured:
                yield from self._read_list(diff)
            if self._wanted != AccountFilter() and not self._found - configured:
                logger.warning(
                    "No other integrated account matches integrations and tenant_ids under "
                    "additional_accounts. Check their spelling."
                )
        finally:
            unlisted = [
                id_ for id_ in self._config.configured_account_ids if id_ not in self._found
            ]
            for account_id in unlisted:
                self._submit(Account(account_id))
        yield from map(AccountFound, unlisted)
        if diff is not None:
            yield from self._close(diff, unlisted)
        yield AccountsListed(self._complete)

    def _close(self, diff: PartitionDiff, unlisted: list[str]) -> Task[Event]:
        """Close the partition of the list, with the accounts that are configured and not listed."""
        all_read = True
        for account_id in unlisted:
            try:
                page = yield from fetch_account(self._client, self._stream, account_id)
                yield diff.process(page, {})
            except ReadError as error:  # noqa: PERF203 - each on its own
                if error.resolution.scope is Scope.SYNC:
                    raise
                yield ReadFailed([INTEGRATED_ACCOUNTS], error)
                diff.complete = all_read = False
        if diff.must_be_read_again and self._reads == 1:
            yield from self._read_list(diff)
        if all_read or self._config.skip_failed_accounts:
            yield from diff.close()

    def _read_list(self, diff: PartitionDiff | None) -> Task[Event]:
        """Read the list in pages; whole if Truto rejects their size."""
        self._reads += 1
        request = self._stream.request_for({})
        if self._page_size is not None:
            limited = replace(request, params={**request.params, "limit": self._page_size})
            try:
                return (yield from self._read_pages(limited, diff))
            except ReadError as error:
                if error.resolution is not errors.ACCOUNT_LIST_REJECTED:
                    raise
                self._page_size = None
        yield from self._read_pages(request, diff)

    def _read_pages(self, request: Request[Page], diff: PartitionDiff | None) -> Task[Event]:
        pages = Pages(self._client, request)
        while (page := (yield from pages.next())) is not None:
            new = self._new_accounts(page)
            if diff is not None:
                diff.complete = self._complete
                records = [record for _, record in new.values()]
                yield diff.process(replace(page, records=records), {})
            for account, _ in new.values():
                self._found.add(account.id)
                yield AccountFound(account.id)
                self._submit(account)
            del page, new  # a task that waits keeps none

    def _new_accounts(self, page: Page) -> dict[str, tuple[Account, dict[str, Any]]]:
        """Return the accounts of a page that no earlier page had, by ID, with their records."""
        if page.is_partial or page.invalid_entries:
            self._complete = False
            logger.warning(
                "Truto's list of integrated accounts may be incomplete: a page of it %s.",
                "is marked as partial" if page.is_partial else "has entries that are not objects",
            )
        new: dict[str, tuple[Account, dict[str, Any]]] = {}
        for record in page.records:
            account = parse_account(record, self._wanted)
            if account is None:
                self._complete = False
                logger.warning(
                    "An entry in Truto's list of integrated accounts has no id or no integration "
                    "and is not read: %s",
                    preview({key: record[key] for key in ("id", "integration", "status")}),
                )
            elif account.id not in self._found:
                if account.id in self._config.configured_account_ids:
                    account = replace(account, is_optional=False)
                new[account.id] = (account, record)
        return new


def fetch_account(
    client: TrutoClient, stream: IntegratedAccounts, account_id: str
) -> Generator[Delay, None, Page]:
    """Fetch one account by its ID, as a page of one record.

    Raises:
        ReadError: If it cannot be read.
    """
    return (yield from client.fetch(stream.request_for({ACCOUNT_KEY: account_id})))
