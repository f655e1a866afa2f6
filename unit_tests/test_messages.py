"""The messages of the protocol, as objects and as lines."""

import json
from typing import Any

import orjson
from airbyte_cdk.models import AirbyteMessage, AirbyteMessageSerializer, AirbyteStreamStatus
from airbyte_protocol_dataclasses.models import Change, Reason
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.records.columns import FieldChange
from source_truto_segments.sync.messages import (
    RecordBatch,
    rate_limited_message,
    state_message,
    status_message,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
changes = st.builds(
    FieldChange,
    st.text(),
    st.sampled_from([change.value for change in Change]),
    st.sampled_from([reason.value for reason in Reason]),
)
# ColumnSelection.project has left out nulls before.
data = st.dictionaries(st.text(), json_values.filter(lambda value: value is not None), max_size=4)
records = st.lists(st.tuples(data, st.lists(changes, max_size=2)), max_size=3)


def plain(message: AirbyteMessage) -> Any:
    """Return a message as the CDK prints it."""
    return json.loads(orjson.dumps(AirbyteMessageSerializer.dump(message)))


@given(records, st.text(), st.integers(0, 2**62))
def test_any_records(found: list[Any], stream: str, emitted_at: int) -> None:
    """The lines of any records are the same as the CDK's."""
    batch = RecordBatch(stream_name=stream, records=found, emitted_at=emitted_at)

    lines = [orjson.dumps(AirbyteMessageSerializer.dump(each)) for each in batch.messages()]
    assert len(lines) == len(found)
    assert batch.lines().encode() == b"".join(line + b"\n" for line in lines)


def test_lines_of_records() -> None:
    """Each record becomes one line, with its changes."""
    change = FieldChange("name", "NULLED", "SOURCE_SERIALIZATION_ERROR")
    batch = RecordBatch(
        stream_name="segments",
        records=[({"id": "1\n\u2028", "count": 2**70}, []), ({"id": "2"}, [change])],
        emitted_at=5,
    )

    first, second, end = batch.lines().split("\n")
    assert json.loads(first) == {
        "type": "RECORD",
        "record": {
            "stream": "segments",
            "data": {"id": "1\n\u2028", "count": 2**70},
            "emitted_at": 5,
        },
    }
    assert json.loads(second)["record"] == {
        "stream": "segments",
        "data": {"id": "2"},
        "emitted_at": 5,
        "meta": {
            "changes": [
                {
                    "field": "name",
                    "change": "NULLED",
                    "reason": "SOURCE_SERIALIZATION_ERROR",
                }
            ]
        },
    }
    assert end == ""


def test_no_records() -> None:
    """A batch without records has no lines and no messages."""
    batch = RecordBatch(stream_name="segments")
    assert batch.lines() == ""
    assert list(batch.messages()) == []


def test_status() -> None:
    """A status message names its stream, and has no reasons."""
    message = plain(status_message("segments", AirbyteStreamStatus.COMPLETE))

    assert message["type"] == "TRACE"
    assert message["trace"]["type"] == "STREAM_STATUS"
    status = message["trace"]["stream_status"]
    assert status["stream_descriptor"] == {"name": "segments"}
    assert status["status"] == "COMPLETE"
    assert not status.get("reasons")


def test_rate_limit() -> None:
    """The status of a rate limit is RUNNING, with the time at which the stream continues."""
    message = plain(rate_limited_message("segments", 1_700_000_000_123))

    assert message["type"] == "TRACE"
    status = message["trace"]["stream_status"]
    assert status["stream_descriptor"] == {"name": "segments"}
    assert status["status"] == "RUNNING"
    assert status["reasons"] == [
        {"type": "RATE_LIMITED", "rate_limited": {"quota_reset": 1_700_000_000_123}}
    ]


def test_state() -> None:
    """A state message has the whole state of its stream."""
    blob = {"states": [{"partition": {}, "cursor": {"records": {"1": "x"}}}], "filters": {}}
    message = plain(state_message("segments", blob))

    assert message["type"] == "STATE"
    assert message["state"]["type"] == "STREAM"
    assert message["state"]["stream"] == {
        "stream_descriptor": {"name": "segments"},
        "stream_state": blob,
    }
