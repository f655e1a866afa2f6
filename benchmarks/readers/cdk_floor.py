"""Measure the CDK alone: its entrypoint prints ready-made records, without any HTTP.

Any connector on this CDK pays this cost: the start, and the output of each message.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airbyte_cdk.entrypoint import launch
from airbyte_cdk.models import (
    AirbyteCatalog,
    AirbyteConnectionStatus,
    AirbyteMessage,
    AirbyteRecordMessage,
    ConnectorSpecification,
    Status,
    Type,
)
from airbyte_cdk.sources.source import Source

from benchmarks.large_account import ACCOUNT_ID, segment_id

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator, Mapping


class Floor(Source):
    """Emit the records of the file `page` again and again, `records` in all, each with its id."""

    def spec(self, logger: logging.Logger) -> ConnectorSpecification:  # noqa: ARG002 - the CDK's
        return ConnectorSpecification(connectionSpecification={"type": "object"})

    def check(self, *_: Any) -> AirbyteConnectionStatus:
        return AirbyteConnectionStatus(status=Status.SUCCEEDED)

    def discover(self, *_: Any) -> AirbyteCatalog:
        return AirbyteCatalog(streams=[])

    def read(
        self,
        logger: logging.Logger,  # noqa: ARG002 - the CDK's
        config: Mapping[str, Any],
        *_: Any,
    ) -> Iterator[AirbyteMessage]:
        page = json.loads(Path(config["page"]).read_text())
        made = [_message(record) for record in page["result"]]
        for number in range(config["records"]):
            message, record = made[number % len(made)]
            record["id"] = segment_id(number)
            yield message


def _message(record: dict[str, Any]) -> tuple[AirbyteMessage, dict[str, Any]]:
    data = {**record, "integrated_account_id": ACCOUNT_ID}
    now = time.time_ns() // 1_000_000
    emitted = AirbyteRecordMessage(stream="segments", data=data, emitted_at=now)
    return AirbyteMessage(type=Type.RECORD, record=emitted), data


if __name__ == "__main__":
    launch(Floor(), sys.argv[1:])
