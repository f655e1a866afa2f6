"""Read one integrated account completely, in all selected streams."""

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airbyte_cdk.models import FailureType

from source_truto_segments.config import Config
from source_truto_segments.streams import (
    ACCOUNT_KEY,
    INTEGRATED_ACCOUNTS,
    SEGMENTS,
    WORKSPACES,
    Slice,
    Streams,
)
from source_truto_segments.sync.accounts import Account, error_of_object, fetch_account
from source_truto_segments.sync.events import AccountFinished, Event, PartitionRead, ReadFailed
from source_truto_segments.sync.partition import PartitionDiff, SelectedStream
from source_truto_segments.sync.worker_pool import Task
from source_truto_segments.truto import errors
from source_truto_segments.truto.client import TrutoClient
from source_truto_segments.truto.errors import ReadError, Scope, unexpected_error
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.pagination import Pages, PageSizes
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Page
from source_truto_segments.truto.vendors import vendor_of

logger = logging.getLogger("airbyte")

_REQUIRES_WORKSPACE = "requires a workspace"

Read: TypeAlias = Callable[[Account, "_Workspaces", PartitionDiff], Task[Event]]


@dataclass
class _Workspaces:
    """The workspaces of an account, which the reads of its streams share.

    Attributes:
        ids: Their IDs, in Truto's order.
        listed: Whether the current read has listed them.
        complete: Whether the list certainly has all of them.
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


class _Integrations:
    """What a sync learns about an integration from one account, to save requests for others.

    Accounts with an override neither contribute to it nor use it.
    """

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()
        # Whether an account has the configured workspace.
        self.has_workspace = False

    def learn(self, account: Account, fact: str) -> None:
        """Note a fact about an account's integration."""
        if account.integration is not None and not account.has_override:
            self._known.add((account.integration, fact))

    def lacks(self, account: Account, stream_name: str) -> bool:
        """Return whether Truto has no such stream for the account's integration."""
        vendor = None if account.has_override else vendor_of(account.integration)
        if stream_name == WORKSPACES and vendor is not None and not vendor.has_workspaces:
            return True
        return self._knows(account, stream_name)

    def requires_workspace(self, account: Account) -> bool:
        """Return whether an account's segments can only be read by workspace."""
        vendor = vendor_of(account.integration)
        known = vendor is not None and vendor.requires_workspace
        return known or self._knows(account, _REQUIRES_WORKSPACE)

    def _knows(self, account: Account, fact: str) -> bool:
        return not account.has_override and (account.integration, fact) in self._known


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
        self._accounts = selected.get(INTEGRATED_ACCOUNTS)
        # Workspaces come first, as reading the segments can require them.
        reads: Mapping[str, Read] = {
            WORKSPACES: self._read_workspaces,
            SEGMENTS: self._read_segments,
        }
        self._reads = [(selected[name], read) for name, read in reads.items() if name in selected]
        self._integrations = _Integrations()
        self._page_sizes = PageSizes(config.page_size)

    def read(self, account: Account) -> Task[Event]:
        """Read an account in all selected streams, and its own row last.

        Requests, whether rejected or not, change the account's status in Truto, and the row has to
        equal what the API returns after the sync.

        Yields:
            Delays, and the events of the account.
        """
        row = page = None
        if self._accounts is not None:
            row = PartitionDiff.begin(self._accounts, account.id)
            if row is None:
                yield PartitionRead(INTEGRATED_ACCOUNTS, account.id)
            else:
                page = account.page or (yield from self._describe(account, row))
        workspaces, outcomes = _Workspaces(), set[FailureType | None]()
        for selected, read in self._reads if account.is_readable else ():
            error = yield from self._read_stream(account, workspaces, selected, read)
            if error is None:
                outcomes.add(None)
                continue
            if account.page and _is_not_found(error) and (yield from self._is_deleted(account)):
                logger.info(
                    "Integrated account %s was deleted during the sync.", excerpt(account.id)
                )
                page = None
                if row is not None:
                    yield from row.delete()
                break
            failed = self.failure([selected.name], error, account)
            outcomes.add(failed.error.failure_type)
            yield failed
        if row is not None and page is not None:
            yield from self._write_row(account, row, page, outcomes)
        self._client.discard(account.id)
        yield AccountFinished(account.id)

    def probe(self, account: Account) -> Generator[Delay, None, None]:
        """Read the first page of an account's segments.

        Raises:
            ReadError: If it cannot be read.
        """
        yield from self._segment_pages(account, _Workspaces(), self._page_sizes).next()

    def warn_of_workspace(self) -> None:
        """Warn if no account has had the configured workspace."""
        if self._config.workspace_id is not None and not self._integrations.has_workspace:
            logger.warning(
                'No account that could be read has the workspace "%s" (workspace_id). Accounts of '
                "vendors without workspaces are read completely.",
                excerpt(self._config.workspace_id),
            )

    def failure(
        self, stream_names: Collection[str], error: Exception, account: Account | None = None
    ) -> ReadFailed:
        """Return an exception as an event; stop the sync if it concerns the whole sync."""
        if not isinstance(error, ReadError):
            operation = f"Reading {' and '.join(stream_names)}" + (
                f" of integrated account {excerpt(account.id)}" if account else ""
            )
            error = unexpected_error(operation, account.id if account else None, error)
        elif error.resolution.scope is Scope.SYNC:
            self._stop()
        elif error.resolution is errors.ACCOUNT_NOT_FOUND and account is not None:
            error = error.with_guidance(self._check_id(account))
        elif error.resolution is errors.ACCOUNT_FORBIDDEN and stream_names == [INTEGRATED_ACCOUNTS]:
            error = error_of_object(error)
        if account is None:
            return ReadFailed(stream_names, error)
        return ReadFailed(stream_names, error.with_detail(account.detail), account.integration)

    def _check_id(self, account: Account) -> str:
        """Return the guidance for an account that Truto does not have."""
        is_first = account.id == self._config.integrated_account_id
        setting = "integrated_account_id" if is_first else "ids under additional_accounts"
        if account.id not in self._config.configured_account_ids:
            return errors.ACCOUNT_NOT_FOUND.guidance
        if self._client.has_succeeded:
            return (
                f"Check {setting} in the source's configuration: the environment of the API token "
                "has other accounts, but none of this ID."
            )
        return (
            f"Check {setting} in the source's configuration, and that the API token belongs to the "
            "same Truto environment as the account."
        )

    def _read_stream(
        self, account: Account, workspaces: _Workspaces, selected: SelectedStream, read: Read
    ) -> Generator[Delay | Event, None, Exception | None]:
        """Read a stream of an account; return the failure, if any."""
        diff = PartitionDiff.begin(selected, account.id)
        if diff is None:
            # An earlier attempt completed it, and warned if no account had the workspace.
            self._integrations.has_workspace = True
            yield PartitionRead(selected.name, account.id)
            return None
        try:
            yield from read(account, workspaces, diff)
            if diff.must_be_read_again:
                diff.begin_second_read()
                yield from read(account, workspaces, diff)
            yield from diff.close()
        except Exception as error:  # noqa: BLE001 - a defect is reported, too
            return error
        finally:
            diff.log_issues()
        return None

    def _describe(
        self, account: Account, row: PartitionDiff
    ) -> Generator[Delay | Event, None, Page | None]:
        """Ask Truto for an account; if there is no such account, delete its row."""
        try:
            page = yield from fetch_account(
                self._client, self._streams.integrated_accounts, account.id
            )
        except Exception as error:  # noqa: BLE001 - a defect is reported, too
            if _is_not_found(error):
                yield from row.delete()
            reported = (yield from self._object_error(account, error)) or error
            yield self.failure([INTEGRATED_ACCOUNTS], reported, account)
            return None
        account.describe(page.records[0])
        return page

    def _object_error(
        self, account: Account, error: Exception
    ) -> Generator[Delay, None, ReadError | None]:
        """Return the error of the account's object alone if the token may read the segments."""
        if not isinstance(error, ReadError) or error.resolution != errors.FORBIDDEN:
            return None
        try:
            yield from self.probe(account)
        except ReadError as other:
            if other.resolution.scope is Scope.SYNC:
                return None
        return error_of_object(error)

    def _write_row(
        self,
        account: Account,
        row: PartitionDiff,
        page: Page,
        outcomes: Collection[FailureType | None],
    ) -> Task[Event]:
        """Write the account's own row; fetch it again if a request may have changed it."""
        is_active = page.records[0]["status"] in (None, "active")
        if FailureType.config_error in outcomes or (None in outcomes and not is_active):
            latest = yield from self._describe(account, row)
            if latest is None:
                return
            page = latest
        yield row.process(page, {})
        yield PartitionRead(INTEGRATED_ACCOUNTS, account.id)
        row.log_issues()

    def _is_deleted(self, account: Account) -> Generator[Delay, None, bool]:
        """Return whether Truto no longer has an account."""
        try:
            yield from fetch_account(self._client, self._streams.integrated_accounts, account.id)
        except ReadError as error:
            return _is_not_found(error)
        return False

    def _read_workspaces(
        self, account: Account, workspaces: _Workspaces, diff: PartitionDiff
    ) -> Task[Event]:
        """List the workspaces; treat an integration without workspaces as an empty list."""
        if self._integrations.lacks(account, WORKSPACES):
            diff.complete = False
            return
        stream_slice = {ACCOUNT_KEY: account.id}
        request = self._streams.workspaces.request_for(stream_slice)
        pages = Pages(self._client, request)
        try:
            while (page := (yield from pages.next())) is not None:
                workspaces.add(page)
                yield diff.process(page, stream_slice)
                del page  # a task that waits keeps none
        except ReadError as error:
            if error.resolution is not errors.NOT_SUPPORTED:
                raise
            # Truto may have withdrawn the resource: delete no known workspaces.
            diff.complete = False
            self._integrations.learn(account, WORKSPACES)
        else:
            workspaces.listed = True

    def _read_segments(
        self, account: Account, workspaces: _Workspaces, diff: PartitionDiff
    ) -> Task[Event]:
        if account.is_optional and self._integrations.lacks(account, SEGMENTS):
            diff.complete = False
            return
        # Without a page size, a second read is independent evidence.
        sizes = self._page_sizes if diff.is_first_read else None
        pages = self._segment_pages(account, workspaces, sizes)
        try:
            while (page := (yield from pages.next())) is not None:
                yield diff.process(page, pages.slice)
                del page  # a task that waits keeps none
        except ReadError as error:
            is_unsupported = error.resolution is errors.NOT_SUPPORTED and not workspaces.required
            if not is_unsupported or not account.is_optional:
                raise
            diff.complete = False
            if not self._integrations.lacks(account, SEGMENTS):
                self._integrations.learn(account, SEGMENTS)
                logger.info(
                    "Truto has no segments for the integration %s; its accounts are left out.",
                    account.integration,
                )
        if workspaces.required and not workspaces.complete:
            diff.complete = False
        # A second read looks for missing segments in new workspaces, too.
        workspaces.listed = False

    def _segment_pages(
        self, account: Account, workspaces: _Workspaces, sizes: PageSizes | None
    ) -> "_SegmentPages":
        return _SegmentPages(
            self._client,
            self._streams,
            account,
            workspaces,
            self._integrations,
            sizes,
            self._config.workspace_id,
        )


@dataclass
class _SegmentPages:
    """The pages of an account's segments, workspace by workspace if one is required.

    Attributes:
        slice: The slice of the last page; it has a workspace only if the account has that one.
    """

    _client: TrutoClient
    _streams: Streams
    _account: Account
    _workspaces: _Workspaces
    _integrations: _Integrations
    _page_sizes: PageSizes | None
    _configured: str | None
    _remaining: Iterator[str] = field(default_factory=lambda: iter(()))
    _has_begun: bool = False

    def __post_init__(self) -> None:
        self._begin(None)

    def next(self) -> Generator[Delay, None, Page | None]:
        """Fetch the next page.

        Returns:
            The page; None after the last one.

        Raises:
            ReadError: If it cannot be read.
        """
        if not self._has_begun:
            self._has_begun = True
            if self._configured is None:
                yield from self._begin_with_workspaces()
            else:
                yield from self._begin_in(self._configured)
        while True:
            try:
                page = yield from self._pages.next()
            except ReadError as error:
                page = yield from self._without_page(error)
            self._is_first = False
            if self._configured is not None and self.slice["workspace_id"] == self._configured:
                self._integrations.has_workspace = True
            workspace_id = next(self._remaining, None) if page is None else None
            if workspace_id is None:
                return page
            self._begin(workspace_id)

    def _begin(self, workspace_id: str | None, *, exists: bool = True) -> None:
        self.slice: Slice = {ACCOUNT_KEY: self._account.id, "workspace_id": workspace_id}
        request = self._streams.segments.request_for(self.slice)
        if not exists:
            self.slice = {ACCOUNT_KEY: self._account.id, "workspace_id": None}
        integration = self._account.integration
        self._pages = Pages(self._client, request, self._page_sizes, integration)
        self._is_first = True

    def _begin_in(self, workspace_id: str) -> Generator[Delay, None, None]:
        """Begin with the configured workspace.

        A vendor without workspaces ignores it, and other vendors may ignore one that the account
        does not have. The segments then belong to no workspace.

        Raises:
            ReadError: If an incomplete list leaves open whether the account has the workspace.
        """
        if self._integrations.lacks(self._account, WORKSPACES):
            return
        exists = self._integrations.requires_workspace(self._account)
        if not exists:
            try:
                if not self._workspaces.listed:
                    yield from self._list_workspaces()
            except ReadError as error:
                is_final = error.failure_type is FailureType.config_error
                if error.resolution.scope is Scope.SYNC or not is_final:
                    raise
                if error.resolution is errors.NOT_SUPPORTED:
                    self._integrations.learn(self._account, WORKSPACES)
                    return
                if workspace_id not in self._workspaces.ids:
                    logger.warning(
                        "It is not known whether integrated account %s has the configured "
                        "workspace (workspace_id), so its rows have no workspace_id. %s.",
                        excerpt(self._account.id),
                        error.summary,
                    )
            else:
                if not self._workspaces.complete and workspace_id not in self._workspaces.ids:
                    # Its rows would lose their workspace_id, and get it back from a later sync.
                    raise self._incomplete_list()
            exists = workspace_id in self._workspaces.ids
        self._begin(workspace_id, exists=exists)

    def _incomplete_list(self) -> ReadError:
        request = self._streams.workspaces.request_for({ACCOUNT_KEY: self._account.id})
        return ReadError(errors.WORKSPACES_INCOMPLETE, request.operation, self._account.id)

    def _begin_with_workspaces(self) -> Generator[Delay, None, None]:
        """Begin with the first workspace if the vendor is known to require one.

        If that is not known, a first request without a workspace will show it.
        """
        if not self._integrations.requires_workspace(self._account):
            return
        try:
            if not self._workspaces.listed:
                yield from self._list_workspaces()
        except ReadError as error:
            if error.resolution is not errors.NOT_SUPPORTED:
                raise
        if self._workspaces.ids:
            self._read_by_workspace()
            self._begin(next(self._remaining))

    def _read_by_workspace(self) -> None:
        self._workspaces.required = True
        self._remaining = iter(self._workspaces.ids)
        self._log_workspaces()

    def _without_page(self, error: ReadError) -> Generator[Delay, None, Page | None]:
        """Return None if an error only means that there is no page here; otherwise raise it."""
        is_open = self._configured is None and self.slice["workspace_id"] is None
        if error.resolution is errors.WORKSPACE_REQUIRED and is_open:
            self._integrations.learn(self._account, _REQUIRES_WORKSPACE)
            self._workspaces.required = True
            if not self._workspaces.listed:
                yield from self._list_workspaces()
            self._read_by_workspace()
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
        """Return the account's integration; ask Truto if it is not known."""
        if self._account.integration is not None:
            return self._account.integration
        stream = self._streams.integrated_accounts
        try:
            page = yield from fetch_account(self._client, stream, self._account.id)
        except ReadError:
            raise error from None
        self._account.describe(page.records[0])
        return self._account.integration

    def _log_workspaces(self) -> None:
        if not self._workspaces.ids:
            logger.info(
                "Integrated account %s has no workspaces, so it has no segments.",
                excerpt(self._account.id),
            )
        if not self._workspaces.complete:
            logger.warning(
                "The list of workspaces of integrated account %s may be incomplete, or has "
                "workspaces without an id. Segments of the missing workspaces were not read.",
                excerpt(self._account.id),
            )


def _is_not_found(error: Exception) -> bool:
    """Return whether Truto itself reports that there is no such account."""
    return isinstance(error, ReadError) and error.resolution is errors.ACCOUNT_NOT_FOUND


def _workspace_id(record: Mapping[str, Any]) -> str | None:
    """Return the ID of a workspace; None if it is missing or cannot be sent."""
    found = record.get("id")
    return str(found) if isinstance(found, str | int) and str(found) else None
