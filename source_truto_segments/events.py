"""What the workers report to the thread that owns the output and the state."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from source_truto_segments.errors import ReadError
from source_truto_segments.messages import RecordBatch


@dataclass(frozen=True)
class AccountFound:
    """An integrated account is to be read."""

    account_id: str


@dataclass(frozen=True)
class AccountsListed:
    """No further account will be found.

    Attributes:
        is_whole: Whether certainly none was overlooked.
    """

    is_whole: bool


@dataclass(frozen=True)
class RecordsRead:
    """Records to write, and what the state then counts.

    Attributes:
        partition: The partition that they belong to.
        batch: The records.
        fingerprints: Of each record that is now at the destination, by id.
        removed_ids: The records whose tombstones these are.
        cursor_value: The highest value of the cursor field.
        size: The bytes of the page, for the queue.
    """

    partition: str
    batch: RecordBatch
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    removed_ids: Collection[str] = ()
    cursor_value: str = ""
    size: int = 0


@dataclass(frozen=True)
class PartitionRead:
    """A partition of a stream was read to its end."""

    stream_name: str
    partition: str


@dataclass(frozen=True)
class ReadFailed:
    """A partition of a stream, or the list of accounts, could not be read.

    Attributes:
        stream_names: The streams that lack something.
        error: Why; it names the account.
    """

    stream_names: Collection[str]
    error: ReadError


@dataclass(frozen=True)
class AccountRead:
    """Everything of an account was tried."""

    account_id: str
