"""Reading one integrated account to its end; one account is one partition of the stream."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from airbyte_cdk.sources.streams.concurrent.partitions.partition import Partition
from airbyte_cdk.sources.types import Record
from airbyte_protocol_dataclasses.models import AirbyteRecordMessageMetaChange

from source_truto_segments import errors
from source_truto_segments.client import Truto
from source_truto_segments.config import Config
from source_truto_segments.envelope import Page
from source_truto_segments.errors import ReadError
from source_truto_segments.records import fit
from source_truto_segments.streams import Segments, Workspaces


class AccountReader:
    """Reads accounts: finds the workspaces, makes the records fit, tells what is odd.

    Args:
        config: The user's configuration.
        truto: What all streams of the run share.
        logger: Where warnings are told.
    """

    def __init__(self, config: Config, truto: Truto, logger: logging.Logger) -> None:
        self._config = config
        self._segments = Segments(config, truto)
        self._workspaces = Workspaces(config, truto)
        self._logger = logger

    def read_pages(self, account_id: str) -> Iterator[tuple[str | None, Page]]:
        """Reads the segments of an account, of all its workspaces where the vendor has it so.

        Yields:
            Each page, with the ID of its workspace where one was named.

        Raises:
            ReadError: If a page cannot be read.
            StoppedError: If the sync was stopped.
        """
        workspace_id = self._config.workspace_id
        try:
            yield from self._read_workspace(account_id, workspace_id)
        except ReadError as failure:
            if failure.meaning is not errors.WORKSPACE_REQUIRED or workspace_id is not None:
                raise
        else:
            return
        for found_id in self.workspace_ids(account_id):
            yield from self._read_workspace(account_id, found_id)

    def workspace_ids(self, account_id: str) -> list[str]:
        """The workspaces of an account, in Truto's order.

        Raises:
            ReadError: If they cannot be listed.
            StoppedError: If the sync was stopped.
        """
        pages = self._workspaces.read_pages({"integrated_account_id": account_id})
        ids = [record.get("id") for page in pages for record in page.records]
        self._logger.info("Integrated account %s has %s workspaces to read.", account_id, len(ids))
        return list(dict.fromkeys(str(id_) for id_ in ids if id_ is not None))

    def records(
        self, account_id: str, workspace_id: str | None, page: Page
    ) -> Iterator[tuple[dict[str, Any], list[AirbyteRecordMessageMetaChange]]]:
        """The records of a page as they are emitted, each with what had to be changed."""
        for raw in page.records:
            record, changes = fit(raw)
            record["integrated_account_id"] = account_id
            record["workspace_id"] = workspace_id
            yield record, changes

    def _read_workspace(
        self, account_id: str, workspace_id: str | None
    ) -> Iterator[tuple[str | None, Page]]:
        stream_slice = {"integrated_account_id": account_id, "workspace_id": workspace_id}
        for page in self._segments.read_pages(stream_slice):
            yield workspace_id, page


class AccountPartition(Partition):
    """One integrated account as the CDK's concurrent source reads it.

    Args:
        account_id: The account.
        read: Reads its records; called once.
        stream_name: The stream that the partition belongs to.
    """

    def __init__(
        self, account_id: str, read: Callable[[str], Iterable[Record]], stream_name: str
    ) -> None:
        self._account_id = account_id
        self._read = read
        self._stream_name = stream_name

    def read(self) -> Iterable[Record]:  # noqa: D102 - the CDK's
        return self._read(self._account_id)

    def to_slice(self) -> Mapping[str, Any]:  # noqa: D102
        return {"integrated_account_id": self._account_id}

    def stream_name(self) -> str:  # noqa: D102
        return self._stream_name

    def __hash__(self) -> int:
        return hash((self._stream_name, self._account_id))
