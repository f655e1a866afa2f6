"""What the workers report to the main thread, as plain data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from source_truto_segments.records.columns import Row
from source_truto_segments.truto.errors import ReadError


@dataclass(frozen=True)
class AccountFound:
    """An integrated account is to be read."""

    account_id: str


@dataclass(frozen=True)
class AccountsListed:
    """No further account will be found."""


@dataclass(frozen=True)
class RecordsRead:
    """Records to write, and what the state then counts.

    Attributes:
        stream_name: The stream of the records.
        partition: The partition that they belong to.
        rows: The records, with what each of them lost.
        fingerprints: What the state remembers of each record, by id.
        removed_ids: The ids of the records, if they are tombstones.
        cursor_value: The highest value of the cursor field.
        size: The bytes of the page, for the queue.
    """

    stream_name: str
    partition: str
    rows: Sequence[Row]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    removed_ids: Collection[str] = ()
    cursor_value: str = ""
    size: int = 0


@dataclass(frozen=True)
class PartitionRead:
    """A partition of a stream was read completely.

    Attributes:
        stream_name: The stream.
        partition: The partition's key.
        emptied: Whether all that is known of it was gone at once, which the next sync has to see
            again.
    """

    stream_name: str
    partition: str
    emptied: bool = False


@dataclass(frozen=True)
class ReadFailed:
    """A partition of a stream, or the list of accounts, could not be read.

    Attributes:
        stream_names: The streams that lack something.
        error: Why; it has the account's ID.
        integration: Truto's name of the account's integration; None if it is not known.
    """

    stream_names: Collection[str]
    error: ReadError
    integration: str | None = None


@dataclass(frozen=True)
class AccountFinished:
    """Every stream of an account was tried."""

    account_id: str


Event: TypeAlias = (
    AccountFound | AccountsListed | RecordsRead | PartitionRead | ReadFailed | AccountFinished
)
