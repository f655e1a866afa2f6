"""One integrated account, read to its end in all selected streams."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from source_truto_segments import errors
from source_truto_segments.accounts import (
    Account,
    fetch_account,
    read_account_object,
)
from source_truto_segments.client import TrutoClient
from source_truto_segments.config import Config
from source_truto_segments.errors import ReadError, Scope, unexpected_error
from source_truto_segments.events import AccountRead, PartitionRead, ReadFailed
from source_truto_segments.partition import PartitionReader, SelectedStream, read_pages
from source_truto_segments.records import integration_of
from source_truto_segments.responses import Page
from source_truto_segments.state import ACCOUNT_KEY
from source_truto_segments.streams import (
    INTEGRATED_ACCOUNTS,
    SEGMENTS,
    WORKSPACES,
    IntegratedAccounts,
    Segments,
    TrutoStream,
    Workspaces,
)
from source_truto_segments.values import without_nul
from source_truto_segments.worker_pool import Task

_Stream = TypeVar("_Stream", bound=TrutoStream)


@dataclass
class _Facts:
    """What one stream of an account has shown that another one needs.

    Attributes:
        integration: Truto's name of the account's integration; None if it is not known.
        ids: The IDs of the workspaces, in Truto's order.
        is_read: Whether they were listed for the read that is under way.
        is_whole: Whether certainly none was overlooked.
        are_needed: Whether the vendor gives segments only for one workspace at a time.
    """

    integration: str | None = None
    ids: list[str] = field(default_factory=list)
    is_read: bool = False
    is_whole: bool = True
    are_needed: bool = False

    def add(self, page: Page) -> None:
        found = [_workspace_id(record) for record in page.records]
        self.ids = list(dict.fromkeys([*self.ids, *filter(None, found)]))
        if None in found or page.is_partial or page.invalid_entries:
            self.is_whole = False


class AccountReader:
    """Reads accounts; a failure in one stream leaves the other streams alone.

    Args:
        config: The user's configuration.
        client: Sends the requests.
        selected: The selected streams, by name.
        stop: Called when a failure concerns the whole sync.
        logger: Where issues with the data are logged.
    """

    def __init__(
        self,
        config: Config,
        client: TrutoClient,
        selected: Mapping[str, SelectedStream],
        stop: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._config = config
        self._client = client
        self._selected = selected
        self._stop = stop
        self._logger = logger
        self._segments = self._stream(Segments)
        self._workspaces = self._stream(Workspaces)
        self._accounts = self._stream(IntegratedAccounts)
        self._unsupported: set[str | None] = set()

    def read(self, account: Account) -> Task:
        """Reads an account in all selected streams.

        Yields:
            Delays, and the events of the account.
        """
        facts = _Facts(account.integration)
        reads: dict[str, Callable[[PartitionReader], Task]] = {
            WORKSPACES: lambda partition: self._read_workspaces(account, facts, partition),
            SEGMENTS: lambda partition: self._read_segments(account, facts, partition),
        }
        if self._config.additional_accounts.mode != "all":
            reads = {INTEGRATED_ACCOUNTS: lambda p: self._read_account(account, facts, p), **reads}
        for name, read in reads.items():
            if name in self._selected:
                steps = self._read_partition(self._selected[name], account, read)
                yield from self.guarded([name], steps, account)
        self._client.discard(account.id)
        yield AccountRead(account.id)

    def guarded(self, stream_names: list[str], steps: Task, account: Account | None = None) -> Task:
        """Turns a failure into an event."""
        try:
            yield from steps
        except ReadError as error:
            if error.resolution.scope is Scope.SYNC:
                self._stop()
            yield ReadFailed(stream_names, error.with_detail(account.detail) if account else error)
        except Exception as error:  # noqa: BLE001 - a defect is reported, too
            account_id = account.id if account else None
            operation = f"Reading {' and '.join(stream_names)}" + (
                f" of integrated account {account_id}" if account_id else ""
            )
            yield ReadFailed(stream_names, unexpected_error(operation, account_id, error))

    def probe(self, account: Account) -> Iterator[Any]:
        """Reads the first page of an account's segments, and nothing behind it.

        Raises:
            ReadError: If it cannot be read.
        """
        for step in self._segment_pages(account, _Facts(account.integration)):
            if isinstance(step, tuple):
                return
            yield step

    def _read_partition(
        self, selected: SelectedStream, account: Account, read: Callable[[PartitionReader], Task]
    ) -> Task:
        if selected.state.is_complete(account.id):
            yield PartitionRead(selected.name, account.id)
            return
        partition = PartitionReader(selected, account.id, self._logger)
        try:
            yield from read(partition)
            if partition.must_be_read_again:
                yield from read(partition)
            yield from partition.close()
        finally:
            partition.log_issues()

    def _read_account(self, account: Account, facts: _Facts, partition: PartitionReader) -> Task:
        entry = yield from read_account_object(self._client, self._accounts, account.id, partition)
        facts.integration = integration_of(entry)["name"]

    def _read_workspaces(
        self, account: Account, facts: _Facts, partition: PartitionReader | None
    ) -> Task:
        """Lists the workspaces; an integration that has none has an empty list."""
        stream = self._workspaces
        operation = stream.operation.format(account.id)
        try:
            for step in read_pages(self._client, stream, {ACCOUNT_KEY: account.id}, operation):
                if not isinstance(step, Page):
                    yield step
                    continue
                facts.add(step)
                if partition is not None:
                    yield partition.read(step, step.records, integrated_account_id=account.id)
        except ReadError as error:
            if error.resolution is not errors.NOT_SUPPORTED or partition is None:
                raise
            # It had some, if the state knows any, and Truto may have taken the resource back.
            partition.is_whole = False
        else:
            facts.is_read = True

    def _read_segments(self, account: Account, facts: _Facts, partition: PartitionReader) -> Task:
        try:
            for step in self._segment_pages(account, facts):
                if not isinstance(step, tuple):
                    yield step
                    continue
                workspace_id, page = step
                yield partition.read(
                    page,
                    self._tagged(page),
                    integrated_account_id=account.id,
                    workspace_id=without_nul(workspace_id),
                )
        except ReadError as error:
            is_unsupported = error.resolution is errors.NOT_SUPPORTED and not facts.are_needed
            if not is_unsupported or not account.is_optional:
                raise
            partition.is_whole = False
            self._log_unsupported(account)
        if facts.are_needed and not facts.is_whole:
            partition.is_whole = False
        # What is read once more because segments are missing can lie in a workspace that was, too.
        facts.is_read = False

    def _segment_pages(self, account: Account, facts: _Facts) -> Iterator[Any]:
        """The pages of an account's segments, of all its workspaces where the vendor requires one.

        Yields:
            Each page with the ID of its workspace, if one was named, as a tuple; and delays.

        Raises:
            ReadError: If a page cannot be read.
        """
        workspace_id = self._config.workspace_id
        try:
            yield from self._workspace_pages(account, facts, workspace_id)
        except ReadError as error:
            if error.resolution is not errors.WORKSPACE_REQUIRED or workspace_id is not None:
                raise
        else:
            return
        facts.are_needed = True
        if not facts.is_read:
            yield from self._read_workspaces(account, facts, None)
        if not facts.ids:
            self._logger.info(
                "Integrated account %s has no workspace, and so no segments.", account.id
            )
        if not facts.is_whole:
            self._logger.warning(
                "The list of workspaces of integrated account %s may be incomplete, or has "
                "workspaces without an id. Their segments were not read.",
                account.id,
            )
        for found_id in facts.ids:
            yield from self._workspace_pages(account, facts, found_id)

    def _workspace_pages(
        self, account: Account, facts: _Facts, workspace_id: str | None
    ) -> Iterator[Any]:
        stream = self._segments
        stream_slice = {ACCOUNT_KEY: account.id, "workspace_id": workspace_id}
        is_first = True
        try:
            operation = stream.operation.format(account.id)
            for step in read_pages(self._client, stream, stream_slice, operation):
                if isinstance(step, Page):
                    is_first = False
                    yield workspace_id, step
                else:
                    yield step
        except ReadError as error:
            if not is_first or error.resolution is not errors.VENDOR_NOT_FOUND:
                raise
            if facts.integration is None:
                facts.integration = yield from self._fetch_integration(account, error)
            if (facts.integration or "").lower() != "activecampaign":
                raise
            # ActiveCampaign's documentation: 404 where an account has no saved segment.
            yield workspace_id, Page([], None)

    def _fetch_integration(
        self, account: Account, error: ReadError
    ) -> Generator[Any, None, str | None]:
        try:
            entry = yield from fetch_account(self._client, self._accounts, account.id)
        except ReadError:
            raise error from None
        name: str | None = integration_of(entry)["name"]
        return name

    def _tagged(self, page: Page) -> Iterator[Mapping[str, Any]]:
        """A vendor that knows no tags ignores the filter for them; its segments all pass."""
        tag_id = self._config.tag_id
        return (r for r in page.records if tag_id is None or not _lacks_tag(r, tag_id))

    def _log_unsupported(self, account: Account) -> None:
        if account.integration not in self._unsupported:
            self._unsupported.add(account.integration)
            self._logger.info(
                "Truto has no segments for the integration %s; its accounts are left out.",
                account.integration,
            )

    def _stream(self, kind: type[_Stream]) -> _Stream:
        """The selected stream, or one that is not selected but needed."""
        for selected in self._selected.values():
            if isinstance(selected.stream, kind):
                return selected.stream
        return kind(self._config)


def _workspace_id(record: Mapping[str, Any]) -> str | None:
    """The ID of a workspace; None if it has none that can be sent."""
    found = record.get("id")
    return str(found) if isinstance(found, str | int) and str(found) else None


def _lacks_tag(record: Mapping[str, Any], tag_id: str) -> bool:
    """Whether a record names its tags (as Klaviyo's do), and not this one."""
    found: Any = record
    for name in ("remote_data", "relationships", "tags", "data"):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, list):
        return False
    return all(not isinstance(tag, Mapping) or tag.get("id") != tag_id for tag in found)
