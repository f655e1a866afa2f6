"""What the workers report to the main thread, as plain data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from source_truto_segments.records.columns import Row
from source_truto_segments.truto.errors import ReadError


@dataclass(frozen=True)
class AccountFound:
    """An integrated account was found, and will be read."""

    account_id: str


@dataclass(frozen=True)
class AccountsListed:
    """No further account will be found."""


@dataclass(frozen=True)
class RecordsRead:
    """Records to write, and the change of the state that follows.

    Attributes:
        stream_name: The stream of the records.
        partition: The partition that they belong to.
        rows: The records, each with what it lost.
        fingerprints: The fingerprint of each record, by id.
        removed_ids: The ids of the records, if they are tombstones.
        cursor_value: The highest value of the cursor field.
        size: The bytes of the page, which the queue counts.
        has_records: Whether the page had records, known ones included.
    """

    stream_name: str
    partition: str
    rows: Sequence[Row]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    removed_ids: Collection[str] = ()
    cursor_value: str = ""
    size: int = 0
    has_records: bool = False


@dataclass(frozen=True)
class PartitionRead:
    """A partition of a stream was read completely.

    Attributes:
        stream_name: The stream.
        partition: The partition's key.
        emptied: When all known records were missing at once, which a later sync has to find again;
            None if they were not.
    """

    stream_name: str
    partition: str
    emptied: datetime | None = None


@dataclass(frozen=True)
class ReadFailed:
    """A partition of a stream, or the list of accounts, could not be read.

    Attributes:
        stream_names: The streams that are incomplete because of it.
        error: Why; it has the account's ID.
        integration: Truto's name of the account's integration; None if it is not known.
    """

    stream_names: Collection[str]
    error: ReadError
    integration: str | None = None


@dataclass(frozen=True)
class AccountFinished:
    """Every stream of an account was read, or failed."""

    account_id: str


Event: TypeAlias = (
    AccountFound | AccountsListed | RecordsRead | PartitionRead | ReadFailed | AccountFinished
)
