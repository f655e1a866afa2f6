"""Find the integrated accounts: those in the configuration, and those in Truto's list."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeAlias

from source_truto_segments.config import AccountFilter, Config, names_of
from source_truto_segments.streams import ACCOUNT_KEY, ENVIRONMENT, IntegratedAccounts
from source_truto_segments.sync.events import (
    AccountFound,
    AccountsListed,
    Event,
    PartitionRead,
    ReadFailed,
)
from source_truto_segments.sync.failures import shown
from source_truto_segments.sync.partition import SelectedStream
from source_truto_segments.sync.worker_pool import Task
from source_truto_segments.truto import errors
from source_truto_segments.truto.account_objects import HAS_OVERRIDE, is_account_id
from source_truto_segments.truto.client import Request, TrutoClient
from source_truto_segments.truto.errors import ReadError, Scope
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.pagination import Pages
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Page, counted

logger = logging.getLogger("airbyte")

# Entries of the list per page. An entry can take 100 kB, and Truto's default can be thousands.
_PAGE_SIZE = 100

# The most names that a warning lists.
_MAX_SHOWN = 10
_IDENTIFYING = ("id", "integration", "status")

Submit: TypeAlias = Callable[["Account"], None]


@dataclass
class Account:
    """An integrated account to read.

    Attributes:
        id: Its ID, a UUID in lower case.
        integration: An excerpt of Truto's name for its integration; None while unknown.
        detail: A description from the list, to append to a message.
        is_optional: Whether its integration may have no segments, because neither Truto's
            documentation nor the user mentions it.
        is_active: Whether the list marks it as active, or has no status. It is read in any case.
        page: Its entry in Truto's list, as a page of one record; None if it is not listed.
        is_readable: Whether the list has its integration; otherwise only its own row is written.
        has_override: Whether it changes the unified models, so that facts about its integration may
            not apply to it.
    """

    id: str
    integration: str | None = None
    detail: str = ""
    is_optional: bool = False
    is_active: bool = True
    page: Page | None = None
    is_readable: bool = True
    has_override: bool = False

    def describe(self, record: Mapping[str, Any]) -> None:
        """Set what the read depends on from the account's record."""
        name, self.has_override = record["integration"], record[HAS_OVERRIDE]
        self.integration = None if name is None else excerpt(name)


def parse_account(record: Mapping[str, Any], wanted: AccountFilter) -> Account | None:
    """Return the account of an entry in Truto's list; None if it has no valid ID."""
    account_id, integration = record["id"], record["integration"]
    if not is_account_id(account_id):
        return None
    page = Page([dict(record)], None, may_have_nul=True)
    if integration is None:
        return Account(account_id, page=page, is_readable=False)
    parts = [f"{excerpt(integration)} of tenant {excerpt(record['tenant_id']) or 'unknown'}"]
    is_active = record["status"] in (None, "active")
    if not is_active:
        parts.append(f"status {excerpt(record['status'])}")
    if record["last_error"]:
        parts.append(f'last error: "{record["last_error"]}"')
    detail = f" ({'; '.join(parts)})"
    is_optional = not wanted.names(integration, record["integration_label"])
    return Account(
        account_id,
        excerpt(integration),
        detail,
        is_optional,
        is_active,
        page,
        has_override=record[HAS_OVERRIDE],
    )


def account_source(
    config: Config, client: TrutoClient, stream: IntegratedAccounts, submit: Submit
) -> "NamedAccounts | AccountList":
    """Return the source of the accounts that the configuration selects.

    Its `find` submits each account as soon as it finds it.
    """
    if config.account_list is None:
        return NamedAccounts(config, submit)
    return AccountList(config, config.account_list, client, stream, submit)


@dataclass(frozen=True)
class NamedAccounts:
    """The accounts in the configuration."""

    config: Config
    submit: Submit
    warnings: Sequence[str] = ()

    def find(self, *_: Any) -> Task[Event]:
        """Submit each account."""
        for account_id in self.config.configured_account_ids:
            yield AccountFound(account_id)
            self.submit(Account(account_id))
        yield AccountsListed()


class AccountList:
    """The accounts of Truto's list; each is read while the list itself is still being read.

    Attributes:
        warnings: The warnings about options that match no account.
    """

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
        # The IDs of all entries, whether selected or not.
        self._present: set[str] = set()
        self._names = _Names()
        self.warnings: list[str] = []
        # Whether all IDs in the list are valid.
        self._complete = True
        self._page_size: int | None = _PAGE_SIZE

    def find(
        self, known_ids: Collection[str] = (), rows: SelectedStream | None = None
    ) -> Task[Event]:
        """List the accounts, then submit configured ones that are not in the list.

        Pages can shift while they are read: if a known account is missing, read the list once more.

        Args:
            known_ids: The accounts that the last sync read.
            rows: The stream `integrated_accounts`, if it emits deletions.

        Raises:
            ReadError: If the accounts cannot be listed.
        """
        configured = set(self._config.configured_account_ids)
        known_rows = set(rows.state.partitions) if rows is not None else set()
        try:
            yield from self._read_list(first_read=True)
            # A filter can leave out configured accounts. Truto filters the first read, so if an
            # option matches nothing, only a second read shows what the environment has.
            is_missing = known_rows.union(known_ids) - self._present - configured
            is_filtered = bool(self._stream.request_for({}).params)
            if is_missing or (is_filtered and self._names.unmatched(self._wanted)):
                yield from self._read_list(first_read=False)
            self.warnings += self._names.unmatched(self._wanted)
            self.warnings += self._unmatched_together(configured)
            for warning in self.warnings:
                logger.warning("%s", warning)
        finally:
            unlisted = [
                id_ for id_ in self._config.configured_account_ids if id_ not in self._found
            ]
            for account_id in unlisted:
                self._submit(Account(account_id))
        yield from map(AccountFound, unlisted)
        yield AccountsListed()
        if rows is not None:
            missing = known_rows - self._present - configured if self._complete else set()
            yield from self._delete_rows(rows, set(filter(is_account_id, missing)))

    def _unmatched_together(self, configured: Collection[str]) -> list[str]:
        """Return a sentence if only all options together match no account."""
        options = {"integrations": self._wanted.integrations, "tenant_ids": self._wanted.tenant_ids}
        named = [name for name, values in options.items() if values]
        is_certain = self._wanted.shard is None and not self._names.unmatched(self._wanted)
        if not named or not is_certain or self._found - set(configured):
            return []
        options_named = f"{' and '.join(named)} under additional_accounts"
        together = " at the same time" if len(named) > 1 else ""
        return [f"No other integrated account matches {options_named}{together}."]

    def _delete_rows(self, rows: SelectedStream, missing: Collection[str]) -> Task[Event]:
        """Delete the rows of accounts that neither read found and Truto itself does not have.

        If Truto has an account, or does not say so, its row stays; report that.
        """
        is_empty = bool(missing) and not self._present
        if is_empty and not rows.was_emptied(ENVIRONMENT):
            logger.warning(
                "Truto's list of integrated accounts is empty, but the last sync knew %s. Nothing "
                "is deleted yet; if a sync an hour later finds none either, the rows are deleted.",
                counted(len(missing), "account"),
            )
            yield PartitionRead(rows.name, ENVIRONMENT, emptied=rows.clock.time)
            return
        existing: list[str] = []
        for account_id in sorted(missing):
            try:
                yield from fetch_account(self._client, self._stream, account_id)
                existing.append(account_id)
            except ReadError as error:  # noqa: PERF203 - each on its own
                if error.resolution.scope is Scope.SYNC:
                    raise
                if error.resolution is errors.ACCOUNT_NOT_FOUND:
                    yield rows.tombstones(account_id, [account_id])
                    continue
                is_refused = error.resolution is errors.ACCOUNT_FORBIDDEN
                reported = error_of_object(error) if is_refused else error
                detail = " (the account is missing from Truto's list)"
                yield ReadFailed([rows.name], reported.with_detail(detail))
        if existing:
            logger.warning(
                "Truto's list of integrated accounts leaves out existing accounts (%d): %s. They "
                "are not read, and their rows stay as they are. Send this message to Truto's "
                "support.",
                len(existing),
                shown(existing),
            )
        yield PartitionRead(rows.name, ENVIRONMENT)

    def _read_list(self, *, first_read: bool) -> Task[Event]:
        """Read the list in pages of a fixed size, or without one if Truto rejects it."""
        request = self._stream.request_for({}, first_read=first_read)
        if self._page_size is not None:
            limited = replace(request, params={**request.params, "limit": self._page_size})
            try:
                return (yield from self._read_pages(limited))
            except ReadError as error:
                if error.resolution is not errors.ACCOUNT_LIST_REJECTED:
                    raise
                self._page_size = None
        yield from self._read_pages(request)

    def _read_pages(self, request: Request[Page]) -> Task[Event]:
        pages = Pages(self._client, request)
        while (page := (yield from pages.next())) is not None:
            for account in self._new_accounts(page).values():
                self._found.add(account.id)
                yield AccountFound(account.id)
                self._submit(account)
            del page  # a task that waits keeps none

    def _new_accounts(self, page: Page) -> dict[str, Account]:
        """Return the accounts of a page that were on no earlier page, by ID."""
        if page.is_partial or page.invalid_entries:
            logger.warning(
                "Truto's list of integrated accounts may be incomplete: a page of it %s.",
                "is marked as partial" if page.is_partial else "has entries that are not objects",
            )
        new: dict[str, Account] = {}
        for entry in page.left_out:
            self._note(entry, str(entry["id"]).lower())
        for record in page.records:
            account = parse_account(record, self._wanted)
            if account is None and record["id"] is not None:
                self._complete = False
            if account is None or not account.is_readable:
                logger.warning(
                    "An entry in Truto's list of integrated accounts has no valid ID or no "
                    "integration and is not read: %s",
                    ", ".join(f"{k} {excerpt(record[k]) or 'none'}" for k in _IDENTIFYING),
                )
            if account is not None and account.id not in self._found:
                self._note(record, account.id)
                if account.id in self._config.configured_account_ids:
                    account = replace(account, is_optional=False, is_readable=True)
                new[account.id] = account
        return new

    def _note(self, entry: Mapping[str, Any], account_id: str) -> None:
        """Note that an entry is in the list; the first time, note its names as well."""
        if account_id not in self._present:
            self._present.add(account_id)
            self._names.add(entry)


class _Names:
    """The names in the list, for warnings about options that match no account."""

    def __init__(self) -> None:
        self._integrations: Counter[str] = Counter()
        self._spellings: set[str] = set()
        self._tenant_ids: Counter[str] = Counter()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Note an account."""
        integration, tenant_id = entry["integration"], entry["tenant_id"]
        if integration is not None:
            self._integrations[integration] += 1
            self._spellings |= names_of(integration, entry["integration_label"])
        if isinstance(tenant_id, str | int):
            self._tenant_ids[str(tenant_id)] += 1

    def unmatched(self, wanted: AccountFilter) -> list[str]:
        """Return a sentence for each option with a value that matches no account."""
        options = (
            ("integrations", sorted(wanted.integrations - self._spellings), self._integrations),
            ("tenant_ids", sorted(wanted.tenant_ids - self._tenant_ids.keys()), self._tenant_ids),
        )
        return [
            f"No integrated account matches these entries of additional_accounts.{name}: "
            f"{_listed([wanted.spellings.get(entry, entry) for entry in missing])}. The "
            f"environment has: {_listed(_nearest_first(missing, has))}."
            for name, missing, has in options
            if missing
        ]


def _listed(names: Sequence[str]) -> str:
    return shown([excerpt(name) for name in names[:_MAX_SHOWN]], len(names)) or "none"


def _nearest_first(missing: Sequence[str], has: Mapping[str, int]) -> list[str]:
    nearest = (hit for name in missing[:_MAX_SHOWN] for hit in get_close_matches(name, has))
    return [f"{name} ({has[name]:,})" for name in dict.fromkeys([*nearest, *sorted(has)])]


def fetch_account(
    client: TrutoClient, stream: IntegratedAccounts, account_id: str
) -> Generator[Delay, None, Page]:
    """Fetch one account by its ID, as a page of one record.

    Raises:
        ReadError: If it cannot be read.
    """
    return (yield from client.fetch(stream.request_for({ACCOUNT_KEY: account_id})))


def error_of_object(error: ReadError) -> ReadError:
    """Return Truto's refusal of an account's object."""
    row, detail = errors.OBJECT_FORBIDDEN, error.detail
    return ReadError(row, error.operation, error.account_id, detail, error.status)
