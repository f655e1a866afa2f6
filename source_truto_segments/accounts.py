"""Which integrated accounts are read, and reading one; each is a partition of the stream."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airbyte_cdk.sources.streams.concurrent.partitions.partition import Partition
from airbyte_cdk.sources.types import Record
from airbyte_protocol_dataclasses.models import AirbyteRecordMessageMetaChange

from source_truto_segments import errors
from source_truto_segments.client import Truto
from source_truto_segments.config import AdditionalAccounts, Config
from source_truto_segments.envelope import Page, shown
from source_truto_segments.errors import ReadError
from source_truto_segments.pagination import CURSOR_PARAMETER
from source_truto_segments.records import Columns, fit
from source_truto_segments.state import Resume
from source_truto_segments.streams import IntegratedAccounts, Segments, Workspaces

FROM_THE_START = Resume()


class RefusedCursorError(Exception):
    """The cursor of an earlier attempt is no longer taken; its text says who refused it."""


@dataclass(frozen=True)
class Account:
    """An integrated account that is to be read.

    Attributes:
        id: Its ID, a UUID in lower case.
        failure: Why it cannot be read, where Truto's list says so already.
    """

    id: str
    failure: ReadError | None = None


def find_accounts(
    config: Config, listing: IntegratedAccounts, logger: logging.Logger
) -> Iterator[Account]:
    """Finds the accounts to read, each once: those that are named, then those that are listed.

    Truto ignores a filter that it does not know, so what is listed is filtered here as well.

    Raises:
        ReadError: If the accounts of the environment cannot be listed.
        StoppedError: If the sync was stopped.
    """
    seen = set(config.named_account_ids)
    yield from map(Account, config.named_account_ids)
    if config.additional_accounts.mode != "all":
        return
    for page in listing.read_pages({}):
        if page.is_partial or page.strays:
            logger.warning(
                "Truto's list of integrated accounts may lack some: a page of it %s.",
                "is marked as partial" if page.is_partial else "has entries that are no objects",
            )
        for entry in page.records:
            account = _listed_account(config.additional_accounts, entry, logger)
            if account is not None and account.id not in seen:
                seen.add(account.id)
                yield account


def _listed_account(
    wanted: AdditionalAccounts, entry: Mapping[str, Any], logger: logging.Logger
) -> Account | None:
    account_id = entry.get("id")
    integration = entry.get("integration")
    name = integration.get("name") if isinstance(integration, Mapping) else integration
    if not isinstance(account_id, str) or not account_id.strip() or not isinstance(name, str):
        logger.warning(
            "An entry in Truto's list of integrated accounts has no id or no integration and is "
            "not read: %s",
            shown({key: entry.get(key) for key in ("id", "integration", "status")}),
        )
        return None
    tenant_id = entry.get("tenant_id")
    if name.lower() not in wanted.integrations:
        return None
    if wanted.tenant_ids and not _is_one_of(tenant_id, wanted.tenant_ids):
        return None
    status = entry.get("status", "active")
    if status == "active":
        return Account(account_id.lower())
    said = [f"{name} of tenant {shown(tenant_id)}", f"status {shown(status)}"]
    if entry.get("last_error"):
        said.append(f'Truto said: "{shown(entry["last_error"])}"')
    doing = Segments.doing.format(account_id)
    meaning = errors.meaning_of_status(shown(status))
    return Account(
        account_id.lower(), ReadError(meaning, doing, account_id.lower(), f" ({'; '.join(said)})")
    )


def _is_one_of(tenant_id: Any, wanted: Collection[str]) -> bool:
    return isinstance(tenant_id, str | int) and str(tenant_id) in wanted


class AccountReader:
    """Reads accounts: finds the workspaces, makes the records fit, tells what is odd.

    Args:
        config: The user's configuration.
        truto: What all streams of the run share.
        columns: The columns that were asked for.
        logger: Where warnings are told.
    """

    def __init__(
        self, config: Config, truto: Truto, columns: Columns, logger: logging.Logger
    ) -> None:
        self._config = config
        self._columns = columns
        self._segments = Segments(config, truto, columns)
        self._workspaces = Workspaces(config, truto)
        self._logger = logger

    def read_pages(
        self, account_id: str, resume: Resume = FROM_THE_START
    ) -> Iterator[tuple[str | None, Page]]:
        """Reads the segments of an account, of all its workspaces where the vendor has it so.

        Args:
            account_id: The account.
            resume: The page to begin at.

        Yields:
            Each page, with the ID of its workspace where one was named.

        Raises:
            RefusedCursorError: If the cursor to begin at is refused.
            ReadError: If a page cannot be read.
            StoppedError: If the sync was stopped.
        """
        workspace_id = self._config.workspace_id
        if workspace_id is not None or not (resume.workspace_id or resume.workspaces_done):
            try:
                yield from self._read_workspace(account_id, workspace_id, resume)
            except ReadError as failure:
                if failure.meaning is not errors.WORKSPACE_REQUIRED or workspace_id is not None:
                    raise
            else:
                return
        for found_id in self.workspace_ids(account_id):
            if found_id not in resume.workspaces_done:
                is_begun = found_id == resume.workspace_id
                start = resume if is_begun else FROM_THE_START
                yield from self._read_workspace(account_id, found_id, start)

    def workspace_ids(self, account_id: str) -> list[str]:
        """The workspaces of an account, in Truto's order.

        Raises:
            ReadError: If they cannot be listed.
            StoppedError: If the sync was stopped.
        """
        pages = self._workspaces.read_pages({"integrated_account_id": account_id})
        ids = [_workspace_id(record) for page in pages for record in page.records]
        if None in ids:
            self._logger.warning(
                "Integrated account %s has workspaces without an id. Their segments were not read: "
                "%d.",
                account_id,
                ids.count(None),
            )
        if not ids:
            self._logger.info(
                "Integrated account %s has no workspace, and so no segments.", account_id
            )
        return list(dict.fromkeys(id_ for id_ in ids if id_ is not None))

    def records(
        self, account_id: str, workspace_id: str | None, page: Page
    ) -> Iterator[tuple[dict[str, Any], list[AirbyteRecordMessageMetaChange]]]:
        """The records of a page as they are emitted, each with what had to be changed.

        A vendor that knows no tags ignores the filter for them; its segments all pass.
        """
        tag_id = self._config.tag_id
        for raw in page.records:
            if tag_id is not None and _lacks_tag(raw, tag_id):
                continue
            record, changes = fit(raw, self._columns, is_plain=page.digest is not None)
            record["integrated_account_id"] = account_id
            record["workspace_id"] = workspace_id
            yield self._columns.chosen(record), changes

    def _read_workspace(
        self, account_id: str, workspace_id: str | None, resume: Resume
    ) -> Iterator[tuple[str | None, Page]]:
        stream_slice = {"integrated_account_id": account_id, "workspace_id": workspace_id}
        start = {CURSOR_PARAMETER: resume.next_cursor} if resume.next_cursor else None
        is_begun = False
        try:
            for page in self._segments.read_pages(stream_slice, start):
                is_begun = True
                yield workspace_id, page
        except ReadError as failure:
            if start is None or is_begun or failure.meaning is not errors.REFUSED_CURSOR:
                raise
            raise RefusedCursorError(str(failure)) from None


def _workspace_id(record: Mapping[str, Any]) -> str | None:
    """The ID of a workspace; None if it has none that could be sent."""
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


class AccountPartition(Partition):
    """One integrated account as the CDK's concurrent source reads it.

    Args:
        account: The account.
        read: Reads it and hands its records on by itself; called once.
        stream_name: The stream that the partition belongs to.
    """

    def __init__(self, account: Account, read: Callable[[Account], None], stream_name: str) -> None:
        self._account = account
        self._read = read
        self._stream_name = stream_name

    def read(self) -> Iterable[Record]:  # noqa: D102 - the CDK's
        self._read(self._account)
        return ()

    def to_slice(self) -> Mapping[str, Any]:  # noqa: D102
        return {"integrated_account_id": self._account.id}

    def stream_name(self) -> str:  # noqa: D102
        return self._stream_name

    def __hash__(self) -> int:
        return hash((self._stream_name, self._account.id))
