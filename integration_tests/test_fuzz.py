"""Fuzz every response of a sync: no secret leaks, nothing hangs, and no account gets another's row.

Each seed reads accounts three times, each time with the state of the previous read: some hundred
responses in all. The waits take no time.

pytest integration_tests/test_fuzz.py --fuzz-seeds 1000 --fuzz-from 8
"""

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from airbyte_cdk.logger import AirbyteLogFormatter

from integration_tests.fuzz_server import CONTEXT, POISON, FuzzServer
from integration_tests.support import (
    ALL_STREAMS,
    FakeClock,
    Result,
    catalog,
    id_of,
    parametrize_seeds,
    read_with,
)
from sandbox import Environment, Sandbox
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.records.columns import DELETED_AT
from source_truto_segments.truto import transport

TOKEN = "tok-3b9c5e71-fuzzed-d40a"
ACCOUNTS = [id_of(number) for number in range(60)]
# Seconds for one sync. The connector abandons what stalls after a fraction of a second.
MAX_SECONDS = 60.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_seeds(metafunc, "fuzz")


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(AirbyteLogFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def log() -> Iterator[list[str]]:
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


def test_fuzzed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes, the sync ends in time, and emits for an account only what was sent for it."""
    monkeypatch.setattr(transport, "TIMEOUT", (5.0, 0.2))
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.4)
    state = None
    with FuzzServer(seed, ACCOUNTS, TOKEN) as server:
        for _ in range(3):
            began = time.monotonic()
            with log() as lines:
                result = sync(server, state)
            assert time.monotonic() - began < MAX_SECONDS, "it hung"
            state = result.last_state
            output = "\n".join([json.dumps(result.messages), str(result.failure), *lines])
            assert "unexpectedly" not in output.replace("rejected the request unexpectedly", "")
            assert not leaked(TOKEN, output)
            assert not leaked(CONTEXT, output)
            assert POISON not in json.dumps([result.of_type("RECORD"), result.states])
            assert_rows(result, server)
            assert result.failure or {result.statuses_of(name)[-1] for name in ALL_STREAMS} == {
                "COMPLETE"
            }
    print(f"seed {seed}: {server.responses} responses")


def leaked(secret: str, output: str, size: int = 12) -> list[str]:
    """Return the parts of a secret, of this size, that an output contains."""
    parts = [secret[at : at + size] for at in range(len(secret) - size + 1)]
    return [part for part in parts if part in output]


def sync(server: FuzzServer, state: list[dict[str, object]] | None) -> Result:
    return read_with(
        SourceTrutoSegments(FakeClock()),
        Sandbox(Environment(token=TOKEN)),
        configured=catalog("incremental", streams=ALL_STREAMS),
        state=state,
        api_url=server.url,
        integrated_account_id=ACCOUNTS[0],
        additional_accounts={"mode": "listed", "ids": ACCOUNTS},
        num_workers=10,
    )


def assert_rows(result: Result, server: FuzzServer) -> None:
    sent = {
        id_: b"\n".join(bodies).decode(errors="replace") for id_, bodies in server.bodies.items()
    }
    for stream in ALL_STREAMS:
        for row in result.records_of(stream):
            account_id = row["id" if stream == "integrated_accounts" else "integrated_account_id"]
            others = {id_ for id_ in ACCOUNTS if id_ in json.dumps(row)} - {account_id}
            assert not others, "a row of another account"
            if "id" in row and DELETED_AT not in row and re.fullmatch(r"[\w:-]+", str(row["id"])):
                assert str(row["id"]) in sent[account_id], "a row that was not sent"
