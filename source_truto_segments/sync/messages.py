"""The messages of the Airbyte protocol that a sync emits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airbyte_cdk.models import (
    AirbyteMessage,
    AirbyteRecordMessage,
    AirbyteStreamStatus,
    AirbyteStreamStatusReason,
    AirbyteStreamStatusReasonType,
    StreamDescriptor,
    Type,
)
from airbyte_cdk.sources.connector_state_manager import ConnectorStateManager
from airbyte_cdk.utils.stream_status_utils import as_airbyte_message
from airbyte_protocol_dataclasses.models import (
    AirbyteRecordMessageMeta,
    AirbyteRecordMessageMetaChange,
    AirbyteStreamStatusRateLimitedReason,
    Change,
    Reason,
)

from source_truto_segments.records.columns import FieldChange, Row
from source_truto_segments.records.values import serialize


@dataclass
class RecordBatch(AirbyteMessage):
    """The RECORD messages of a page, as one message.

    A large sync would spend most of its time on building, counting and serializing a message for
    each record. `lines` returns the same lines in a tenth of the time.

    Attributes:
        stream_name: The stream of the records.
        records: The records, each with what it lost.
        emitted_at: Milliseconds since 1970.
    """

    type: Type = Type.RECORD
    stream_name: str = ""
    records: Sequence[Row] = ()
    emitted_at: int = 0

    def messages(self) -> Iterator[AirbyteMessage]:
        """Yield each record as the protocol's object."""
        for data, changes in self.records:
            protocol_changes = [_protocol_change(change) for change in changes]
            meta = AirbyteRecordMessageMeta(changes=protocol_changes) if changes else None
            record = AirbyteRecordMessage(
                stream=self.stream_name, data=data, emitted_at=self.emitted_at, meta=meta
            )
            yield AirbyteMessage(type=Type.RECORD, record=record)

    def lines(self) -> str:
        """Return the messages as they are printed, one line each."""
        return "".join(map(self._line, self.records))

    def _line(self, record: Row) -> str:
        data, changes = record
        content: dict[str, Any] = {
            "stream": self.stream_name,
            "data": data,
            "emitted_at": self.emitted_at,
        }
        if changes:
            content["meta"] = {
                "changes": [
                    {"field": field, "change": change, "reason": reason}
                    for field, change, reason in changes
                ]
            }
        return f"{serialize({'type': 'RECORD', 'record': content}).decode()}\n"


def status_message(stream_name: str, status: AirbyteStreamStatus) -> AirbyteMessage:
    """Return the status of a stream."""
    return as_airbyte_message(StreamDescriptor(name=stream_name), status)


def rate_limited_message(stream_name: str, quota_reset: int) -> AirbyteMessage:
    """Return the status of a stream that waits for a limit.

    Args:
        stream_name: The stream.
        quota_reset: When it continues, in milliseconds since 1970.
    """
    reason = AirbyteStreamStatusReason(
        type=AirbyteStreamStatusReasonType.RATE_LIMITED,
        rate_limited=AirbyteStreamStatusRateLimitedReason(quota_reset=quota_reset),
    )
    return as_airbyte_message(
        StreamDescriptor(name=stream_name), AirbyteStreamStatus.RUNNING, [reason]
    )


def state_message(stream_name: str, blob: Mapping[str, Any]) -> AirbyteMessage:
    """Return the state of a stream."""
    manager = ConnectorStateManager()
    manager.update_state_for_stream(stream_name, None, blob)
    return manager.create_state_message(stream_name, None)


def _protocol_change(change: FieldChange) -> AirbyteRecordMessageMetaChange:
    return AirbyteRecordMessageMetaChange(
        change.field, Change(change.change), Reason(change.reason)
    )
