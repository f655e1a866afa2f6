"""Which integrated accounts there are, and what Truto's list says of them."""

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from source_truto_segments.client import Request, TrutoClient
from source_truto_segments.config import INTEGRATIONS, AdditionalAccounts, Config
from source_truto_segments.errors import ReadError, Scope
from source_truto_segments.events import AccountFound, AccountsListed, ReadFailed
from source_truto_segments.partition import PartitionReader, read_pages
from source_truto_segments.rate_limiter import Delay
from source_truto_segments.records import account_record, integration_of
from source_truto_segments.responses import (
    MalformedResponseError,
    Page,
    error_text,
    parse_object,
    preview,
)
from source_truto_segments.state import ACCOUNT_KEY
from source_truto_segments.streams import IntegratedAccounts
from source_truto_segments.worker_pool import Task

_CATEGORY = "marketingautomation"


@dataclass(frozen=True)
class Account:
    """An integrated account that is to be read.

    Attributes:
        id: Its ID, a UUID in lower case.
        integration: Truto's name of its integration; None where it is not known.
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


def parse_account(entry: Mapping[str, Any], wanted: AdditionalAccounts) -> Account | None:
    """An account of Truto's list; None if the entry is none that can be read."""
    account_id, integration = entry.get("id"), integration_of(entry).get("name")
    if not isinstance(account_id, str) or not account_id.strip() or integration is None:
        return None
    parts = [f"{integration} of tenant {preview(entry.get('tenant_id'))}"]
    is_active = entry.get("status") in (None, "active")
    if not is_active:
        parts.append(f"status {preview(entry['status'])}")
    if entry.get("last_error"):
        parts.append(f'last error: "{preview(error_text(entry["last_error"]))}"')
    is_named = integration.lower() in (wanted.integrations or INTEGRATIONS)
    detail = f" ({'; '.join(parts)})"
    return Account(account_id.lower(), integration, detail, not is_named, is_active)


class AccountList:
    """Finds the environment's accounts, while the first of them are read already.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        stream: The list.
        submit: Called with each account that is to be read.
        logger: Where invalid entries are logged.
    """

    def __init__(
        self,
        config: Config,
        client: TrutoClient,
        stream: IntegratedAccounts,
        submit: Callable[[Account], None],
        logger: logging.Logger,
    ) -> None:
        self._config = config
        self._client = client
        self._stream = stream
        self._submit = submit
        self._logger = logger
        self._found: set[str] = set()
        self._is_whole = True
        self._reads = 0

    def read(self, known_ids: Collection[str], partition: PartitionReader | None) -> Task:
        """Lists the accounts; those that are named and not listed come last.

        Pages can shift while they are read: if a known account is missing, the list is read once
        more.

        Args:
            known_ids: The accounts that the state names.
            partition: Takes the accounts in as records, if that is wanted.

        Raises:
            ReadError: If the accounts cannot be listed.
        """
        try:
            yield from self._read_list(partition)
            # Those that are configured need not be listed: a filter can leave them out.
            configured = set(self._config.configured_account_ids)
            if set(known_ids) - self._found - configured:
                yield from self._read_list(partition)
            wanted = self._config.additional_accounts
            if (wanted.integrations or wanted.tenant_ids) and not self._found - configured:
                self._logger.warning(
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
        if partition is not None:
            yield from self._close(partition, unlisted)
        yield AccountsListed(self._is_whole)

    def _close(self, partition: PartitionReader, unlisted: list[str]) -> Task:
        """Ends the partition of the list, with the accounts that are configured and not listed."""
        is_complete = True
        for account_id in unlisted:
            try:
                yield from read_account_object(self._client, self._stream, account_id, partition)
            except ReadError as error:  # noqa: PERF203 - each on its own
                if error.resolution.scope is Scope.SYNC:
                    raise
                yield ReadFailed([self._stream.name], error)
                partition.is_whole = is_complete = False
        if partition.must_be_read_again and self._reads == 1:
            yield from self._read_list(partition)
        if is_complete or self._config.skip_failed_accounts:
            yield from partition.close()

    def _read_list(self, partition: PartitionReader | None) -> Task:
        """Reads the list once.

        Truto ignores a filter that it does not know, so what is listed is filtered here as well.
        """
        self._reads += 1
        for step in read_pages(self._client, self._stream, {}, self._stream.list_operation):
            if not isinstance(step, Page):
                yield step
                continue
            found = {account.id: (account, entry) for account, entry in self._selected(step)}
            new = [pair for account_id, pair in found.items() if account_id not in self._found]
            if partition is not None:
                partition.is_whole = self._is_whole
                yield partition.read(step, [account_record(entry) for _, entry in new])
            for account, _ in new:
                self._found.add(account.id)
                yield AccountFound(account.id)
                self._submit(account)

    def _selected(self, page: Page) -> Iterator[tuple[Account, Mapping[str, Any]]]:
        if page.is_partial or page.invalid_entries:
            self._is_whole = False
            self._logger.warning(
                "Truto's list of integrated accounts may be incomplete: a page of it %s.",
                "is marked as partial" if page.is_partial else "has entries that are not objects",
            )
        wanted = self._config.additional_accounts
        for entry in page.records:
            account = parse_account(entry, wanted)
            if account is None:
                self._is_whole = False
                record = account_record(entry)
                self._logger.warning(
                    "An entry in Truto's list of integrated accounts has no id or no integration "
                    "and is not read: %s",
                    preview({key: record[key] for key in ("id", "integration", "status")}),
                )
            elif account.id in self._config.configured_account_ids:
                yield replace(account, is_optional=False), entry
            elif _matches(entry, wanted):
                yield account, entry


def read_account_object(
    client: TrutoClient, stream: IntegratedAccounts, account_id: str, partition: PartitionReader
) -> Generator[Any, None, Mapping[str, Any]]:
    """Reads one account by its ID, and takes it in as a record.

    Raises:
        ReadError: If it cannot be read.
    """
    entry = yield from fetch_account(client, stream, account_id)
    page = Page([entry], None, may_have_nul=True)
    yield partition.read(page, [account_record(entry)])
    return entry


def fetch_account(
    client: TrutoClient, stream: IntegratedAccounts, account_id: str
) -> Generator[Delay, None, dict[str, Any]]:
    """Asks Truto for one account.

    Raises:
        ReadError: If it cannot be read.
    """
    path = stream.path(stream_slice={ACCOUNT_KEY: account_id})
    request = Request(path, stream.operation.format(account_id), account_id)
    return (yield from client.fetch(request, _parse_account_object))


def _parse_account_object(content: bytes) -> dict[str, Any]:
    entry = parse_object(content)
    if not isinstance(entry.get("id"), str):
        raise MalformedResponseError("the response is not an integrated account: it has no id")
    return entry


def _matches(entry: Mapping[str, Any], wanted: AdditionalAccounts) -> bool:
    tenant_id = entry.get("tenant_id")
    if wanted.tenant_ids and not (
        isinstance(tenant_id, str | int) and str(tenant_id) in wanted.tenant_ids
    ):
        return False
    name = (integration_of(entry).get("name") or "").lower()
    if wanted.integrations:
        return name in wanted.integrations
    category = integration_of(entry).get("category")
    letters = "".join(filter(str.isalpha, category.lower())) if isinstance(category, str) else ""
    return name in INTEGRATIONS or letters == _CATEGORY
