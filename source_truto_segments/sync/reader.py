"""One integrated account, read completely in all selected streams."""

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, TypeAlias

from source_truto_segments.config import Config
from source_truto_segments.streams import (
    ACCOUNT_KEY,
    INTEGRATED_ACCOUNTS,
    SEGMENTS,
    WORKSPACES,
    Slice,
    Streams,
)
from source_truto_segments.sync.accounts import Account, fetch_account
from source_truto_segments.sync.events import AccountFinished, Event, PartitionRead, ReadFailed
from source_truto_segments.sync.partition import PartitionDiff, SelectedStream
from source_truto_segments.sync.worker_pool import Task
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import TrutoClient
from source_truto_segments.truto.errors import ReadError, Scope, unexpected_error
from source_truto_segments.truto.pagination import Pages
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Page
from source_truto_segments.truto.vendors import vendor_of

logger = logging.getLogger("airbyte")

Read: TypeAlias = Callable[[Account, "_Workspaces", PartitionDiff], Task[Event]]


@dataclass
class _Workspaces:
    """What one stream of an account has shown that another one needs.

    Attributes:
        ids: The IDs of the workspaces, in Truto's order.
        listed: Whether they were listed for the read that is under way.
        complete: Whether certainly none was overlooked.
        required: Whether the vendor returns segments only for one workspace at a time.
    """

    ids: list[str] = field(default_factory=list)
    listed: bool = False
    complete: bool = True
    required: bool = False

    def add(self, page: Page) -> None:
        found = [_workspace_id(record) for record in page.records]
        self.ids = list(dict.fromkeys([*self.ids, *filter(None, found)]))
        if None in found or page.is_partial or page.invalid_entries:
            self.complete = False


class AccountReader:
    """Reads accounts; a failure in one stream leaves the other streams alone.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        streams: All streams.
        selected: The streams that are read account by account, by name.
        stop: Called when a failure concerns the whole sync.
    """

    def __init__(
        self,
        config: Config,
        client: TrutoClient,
        streams: Streams,
        selected: Mapping[str, SelectedStream],
        stop: Callable[[], None],
    ) -> None:
        self._config = config
        self._client = client
        self._streams = streams
        self._stop = stop
        # In this order: an account's segments can need its workspaces.
        reads: Mapping[str, Read] = {
            INTEGRATED_ACCOUNTS: self._read_account,
            WORKSPACES: self._read_workspaces,
            SEGMENTS: self._read_segments,
        }
        self._reads = [(selected[name], read) for name, read in reads.items() if name in selected]
        self._unsupported: set[str | None] = set()

    def read(self, account: Account) -> Task[Event]:
        """Read an account in all selected streams.

        Yields:
            Delays, and the events of the account.
        """
        workspaces = _Workspaces()
        for selected, read in self._reads:
            diff = PartitionDiff.begin(selected, account.id)
            try:
                if diff is not None:
                    yield from read(account, workspaces, diff)
                    if diff.must_be_read_again:
                        yield from read(account, workspaces, diff)
                    yield from diff.close()
                else:
                    yield PartitionRead(selected.name, account.id)
            except Exception as error:  # noqa: BLE001 - a defect is reported, too
                yield self.failure([selected.name], error, account)
            finally:
                if diff is not None:
                    diff.log_issues()
        self._client.discard(account.id)
        yield AccountFinished(account.id)

    def probe(self, account: Account) -> Generator[Delay, None, None]:
        """Read the first page of an account's segments.

        Raises:
            ReadError: If it cannot be read.
        """
        yield from self._segment_pages(account, _Workspaces()).next()

    def failure(
        self, stream_names: Collection[str], error: Exception, account: Account | None = None
    ) -> ReadFailed:
        """Return an exception as an event; stop the sync if it concerns the whole of it."""
        if not isinstance(error, ReadError):
            operation = f"Reading {' and '.join(stream_names)}" + (
                f" of integrated account {account.id}" if account else ""
            )
            error = unexpected_error(operation, account.id if account else None, error)
        elif error.resolution.scope is Scope.SYNC:
            self._stop()
        return ReadFailed(stream_names, error.with_detail(account.detail) if account else error)

    def _read_account(
        self, account: Account, workspaces: _Workspaces, diff: PartitionDiff
    ) -> Task[Event]:
        del workspaces
        page = yield from fetch_account(self._client, self._streams.integrated_accounts, account.id)
        account.integration = page.records[0]["integration"]
        yield diff.process(page, {})

    def _read_workspaces(
        self, account: Account, workspaces: _Workspaces, diff: PartitionDiff
    ) -> Task[Event]:
        """List the workspaces; an integration that has none has an empty list."""
        stream_slice = {ACCOUNT_KEY: account.id}
        pages = Pages(self._client, self._streams.workspaces.request_for(stream_slice))
        try:
            while (page := (yield from pages.next())) is not None:
                workspaces.add(page)
                yield diff.process(page, stream_slice)
                del page  # a task that waits keeps none
        except ReadError as error:
            if error.resolution is not errors.NOT_SUPPORTED:
                raise
            # It had some, if the state knows any, and Truto may have taken the resource back.
            diff.complete = False
        else:
            workspaces.listed = True

    def _read_segments(
        self, account: Account, workspaces: _Workspaces, diff: PartitionDiff
    ) -> Task[Event]:
        pages = self._segment_pages(account, workspaces)
        try:
            while (page := (yield from pages.next())) is not None:
                yield diff.process(page, pages.slice)
                del page  # a task that waits keeps none
        except ReadError as error:
            is_unsupported = error.resolution is errors.NOT_SUPPORTED and not workspaces.required
            if not is_unsupported or not account.is_optional:
                raise
            diff.complete = False
            self._log_unsupported(account)
        if workspaces.required and not workspaces.complete:
            diff.complete = False
        # A second read looks for missing segments in new workspaces, too.
        workspaces.listed = False

    def _segment_pages(self, account: Account, workspaces: _Workspaces) -> "_SegmentPages":
        return _SegmentPages(
            self._client, self._streams, account, workspaces, self._config.workspace_id
        )

    def _log_unsupported(self, account: Account) -> None:
        if account.integration not in self._unsupported:
            self._unsupported.add(account.integration)
            logger.info(
                "Truto has no segments for the integration %s; its accounts are left out.",
                account.integration,
            )


@dataclass
class _SegmentPages:
    """The pages of an account's segments, of one workspace after another if one is required.

    Attributes:
        workspace_id: The only workspace to read; None for all.
        slice: The slice of the page that was read last.
    """

    _client: TrutoClient
    _streams: Streams
    _account: Account
    _workspaces: _Workspaces
    workspace_id: InitVar[str | None]
    _remaining: Iterator[str] = field(default_factory=lambda: iter(()))

    def __post_init__(self, workspace_id: str | None) -> None:
        self._begin(workspace_id)

    def next(self) -> Generator[Delay, None, Page | None]:
        """Fetch the next page.

        Returns:
            The page; None after the last one.

        Raises:
            ReadError: If it cannot be read.
        """
        while True:
            try:
                page = yield from self._pages.next()
            except ReadError as error:
                page = yield from self._without_page(error)
            self._is_first = False
            workspace_id = next(self._remaining, None) if page is None else None
            if workspace_id is None:
                return page
            self._begin(workspace_id)

    def _begin(self, workspace_id: str | None) -> None:
        self.slice: Slice = {ACCOUNT_KEY: self._account.id, "workspace_id": workspace_id}
        self._pages = Pages(self._client, self._streams.segments.request_for(self.slice))
        self._is_first = True

    def _without_page(self, error: ReadError) -> Generator[Delay, None, Page | None]:
        """Return what an error of a request stands for; raise it if it is a failure."""
        if error.resolution is errors.WORKSPACE_REQUIRED and self.slice["workspace_id"] is None:
            self._workspaces.required = True
            if not self._workspaces.listed:
                yield from self._list_workspaces()
            self._log_workspaces()
            self._remaining = iter(self._workspaces.ids)
            return None
        if self._is_first and error.resolution is errors.VENDOR_NOT_FOUND:
            vendor = vendor_of((yield from self._integration(error)))
            if vendor is not None and vendor.not_found_is_empty:
                return None
        raise error

    def _list_workspaces(self) -> Generator[Delay, None, None]:
        request = self._streams.workspaces.request_for({ACCOUNT_KEY: self._account.id})
        pages = Pages(self._client, request)
        while (page := (yield from pages.next())) is not None:
            self._workspaces.add(page)
            del page
        self._workspaces.listed = True

    def _integration(self, error: ReadError) -> Generator[Delay, None, str | None]:
        """Return the account's integration, asked of Truto if it is not known."""
        if self._account.integration is not None:
            return self._account.integration
        stream = self._streams.integrated_accounts
        try:
            page = yield from fetch_account(self._client, stream, self._account.id)
        except ReadError:
            raise error from None
        self._account.integration = page.records[0]["integration"]
        return self._account.integration

    def _log_workspaces(self) -> None:
        if not self._workspaces.ids:
            logger.info(
                "Integrated account %s has no workspaces, so it has no segments.",
                self._account.id,
            )
        if not self._workspaces.complete:
            logger.warning(
                "The list of workspaces of integrated account %s may be incomplete, or has "
                "workspaces without an id. Segments of the missing workspaces were not read.",
                self._account.id,
            )


def _workspace_id(record: Mapping[str, Any]) -> str | None:
    """Return the ID of a workspace; None if it has none that can be sent."""
    found = record.get("id")
    return str(found) if isinstance(found, str | int) and str(found) else None
