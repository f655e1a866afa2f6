"""Verify that a reader wrote every record exactly once."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.large_account import ACCOUNT_ID
from benchmarks.processes import UnverifiedReadError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Key = tuple[str, str]
"""The ID of an account, and the id of one of its segments."""


@dataclass
class Output:
    """A summary of a reader's messages.

    Attributes:
        size: Bytes of all messages.
        keys: How often each segment was emitted.
        states: The states of the state messages.
        state_size: Bytes of the state messages.
        emitted: When the first and the last record of each account were emitted, in seconds since
            1970.
        status: The last status of the stream.
        error: The message of the last error.
        summary: The number of records and the sum of their checksums, if the reader writes no
            records.
    """

    size: int = 0
    keys: Counter[Key] = field(default_factory=Counter)
    states: list[dict[str, Any]] = field(default_factory=list)
    state_size: int = 0
    emitted: dict[str, tuple[float, float]] = field(default_factory=dict)
    status: str | None = None
    error: str | None = None
    summary: tuple[int, int] | None = None

    @classmethod
    def parse(cls, *paths: Path) -> Output:
        """Parse the messages in files, each written by one process."""
        output = cls()
        for path in paths:
            with path.open("rb") as lines:
                for line in lines:
                    output._add(orjson.loads(line), len(line))
        return output

    def verify(self, expected: Iterable[Key]) -> None:
        """Compare the emitted records with those that the server has.

        Raises:
            UnverifiedReadError: If a record is missing, unexpected, or was emitted twice.
        """
        if self.summary:
            checksums = [checksum(*key) for key in expected]
            if self.summary != (len(checksums), sum(checksums)):
                raise UnverifiedReadError(
                    f"{self.summary[0]:,} records of {len(checksums):,}, or not the right ones."
                )
            return
        difference = self.keys.copy()
        difference.subtract(expected)
        extra, missing = (+difference).total(), (-difference).total()
        if extra or missing:
            raise UnverifiedReadError(f"{missing:,} records are missing, {extra:,} are too many.")

    def _add(self, message: dict[str, Any], size: int) -> None:
        self.size += size
        if "checksum" in message:
            self.summary = message["records"], message["checksum"]
        elif message["type"] == "RECORD" and message["record"]["stream"] == "segments":
            self._add_record(message["record"])
        elif message["type"] == "STATE":
            self.states.append(message["state"])
            self.state_size += size
        elif message["type"] == "TRACE":
            trace = message["trace"]
            self.status = (trace.get("stream_status") or {}).get("status", self.status)
            self.error = (trace.get("error") or {}).get("message", self.error)

    def _add_record(self, record: dict[str, Any]) -> None:
        # A reader of a single account may omit the account's ID.
        account_id = record["data"].get("integrated_account_id", ACCOUNT_ID)
        self.keys[account_id, record["data"]["id"]] += 1
        emitted_at = record["emitted_at"] / 1_000
        first, last = self.emitted.get(account_id, (emitted_at, emitted_at))
        self.emitted[account_id] = min(first, emitted_at), max(last, emitted_at)


def checksum(account_id: str, segment_id: str) -> int:
    """Return the checksum of one record; a reader that keeps no ids reports their sum."""
    return zlib.crc32(f"{account_id}/{segment_id}".encode())
