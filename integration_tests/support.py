"""Runs the connector through its public surface, and reads the messages that it gives."""

import json
import logging
import os
import subprocess
import sysconfig
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airbyte_cdk.models import (
    AirbyteMessage,
    AirbyteMessageSerializer,
    AirbyteStateMessageSerializer,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteCatalogSerializer,
    Status,
)
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from sandbox import Account, Sandbox, vendors
from source_truto_segments import SourceTrutoSegments, errors
from source_truto_segments.envelope import ErrorBody, Origin
from source_truto_segments.errors import Meaning

COMMAND = Path(sysconfig.get_path("scripts")) / "source-truto-segments"
ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"


class Time:
    """A clock that a wait moves on instead of taking place."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._waited = 0.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        return time.monotonic() + self._waited

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.waits.append(seconds)
            self._waited += seconds


@dataclass
class Result:
    """What one command said, message by message."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    failure: AirbyteTracedException | None = None
    exit_code: int | None = None
    waits: list[float] = field(default_factory=list)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        key = "connectionStatus" if kind == "CONNECTION_STATUS" else kind.lower()
        return [message[key] for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record["data"] for record in self.of_type("RECORD")]

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.records]

    @property
    def states(self) -> list[dict[str, Any]]:
        return self.of_type("STATE")

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [trace["error"] for trace in self.of_type("TRACE") if "error" in trace]

    @property
    def statuses(self) -> list[str]:
        traces = self.of_type("TRACE")
        return [trace["stream_status"]["status"] for trace in traces if "stream_status" in trace]

    @property
    def logs(self) -> list[str]:
        return [log["message"] for log in self.of_type("LOG")]


def account(vendor: str = "klaviyo", count: int = 25, **how: Any) -> Account:
    """An account of a vendor with some segments."""
    how.setdefault("segments", vendors.segments(vendor, count))
    return Account(id=ACCOUNT_ID, vendor=vendor, **how)


def config(sandbox: Sandbox, **fields: Any) -> dict[str, Any]:
    """The flat configuration for the sandbox's first account."""
    environment = sandbox.environment
    account_id = environment.accounts[0].id if environment.accounts else ACCOUNT_ID
    return {
        "token": environment.token,
        "integrated_account_id": account_id,
        "api_url": sandbox.url,
        **fields,
    }


def catalog(
    sync_mode: str = "full_refresh", schema: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The configured catalog that asks for all of `segments`."""
    stream = {
        "name": "segments",
        "json_schema": dict(schema or {}),
        "supported_sync_modes": ["full_refresh", "incremental"],
    }
    configured = {
        "stream": stream,
        "sync_mode": sync_mode,
        "destination_sync_mode": "overwrite" if sync_mode == "full_refresh" else "append_dedup",
    }
    return {"streams": [configured]}


def read(
    sandbox: Sandbox,
    *,
    asked: dict[str, Any] | None = None,
    state: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Result:
    """Reads in this process, with waits that take no time; keeps what came before a failure."""
    passing = Time()
    source = SourceTrutoSegments(clock=passing.clock, sleep=passing.sleep)
    result = _read(source, sandbox, asked, state, fields)
    result.waits = passing.waits
    return result


def read_in_real_time(sandbox: Sandbox, **fields: Any) -> Result:
    """Reads in this process, with waits that take their time."""
    return _read(SourceTrutoSegments(), sandbox, None, None, fields)


def _read(
    source: SourceTrutoSegments,
    sandbox: Sandbox,
    asked: dict[str, Any] | None,
    state: list[dict[str, Any]] | None,
    fields: dict[str, Any],
) -> Result:
    configured: ConfiguredAirbyteCatalog = ConfiguredAirbyteCatalogSerializer.load(
        asked or catalog()
    )
    begin = [AirbyteStateMessageSerializer.load(message) for message in state or []]
    result = Result()
    logger = logging.getLogger("airbyte.test")
    try:
        for message in source.read(logger, config(sandbox, **fields), configured, begin):
            result.messages.append(_plain(message))
    except AirbyteTracedException as failure:
        result.failure = failure
    return result


def check(sandbox: Sandbox, **fields: Any) -> tuple[Status, str | None]:
    """Checks in this process, with waits that take no time."""
    passing = Time()
    source = SourceTrutoSegments(clock=passing.clock, sleep=passing.sleep)
    status = source.check(logging.getLogger("airbyte.test"), config(sandbox, **fields))
    return status.status, status.message


def run(*arguments: str, seconds: float = 60.0) -> Result:
    """Runs the installed command in a process of its own, exactly as Airbyte calls it."""
    process = subprocess.run(
        [str(COMMAND), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    # Not splitlines: a text can hold other ends of lines than that of the protocol.
    lines = process.stdout.split("\n")
    return Result([json.loads(line) for line in lines if line], exit_code=process.returncode)


def write(path: Path, content: Any) -> str:
    """Writes a JSON file and gives its path."""
    path.write_text(json.dumps(content))
    return str(path)


def meanings() -> list[Meaning]:
    """All rows of the error table, and those that are made for what it does not have."""
    found: list[Meaning] = []
    for value in vars(errors).values():
        entries = value.values() if isinstance(value, Mapping) else [value]
        found += [entry for entry in entries if isinstance(entry, Meaning)]
    for origin in Origin:
        for status in (418, 599):
            body = ErrorBody(origin)
            found.append(errors.meaning_of_answer(status, body, sent_cursor=False))
    return [*found, errors.meaning_of_status("a new one")]


def _plain(message: AirbyteMessage) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(AirbyteMessageSerializer.dump(message)))
    return plain
