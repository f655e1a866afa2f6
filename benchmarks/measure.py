"""One read, measured: the connector and the sandbox each in a process of its own."""

from __future__ import annotations

import json
import statistics
import sysconfig
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import NotWholeError, Run, Server, run, server, write_json
from benchmarks.scenarios import LATENCY_SECONDS, SEGMENTS, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMMAND = Path(sysconfig.get_path("scripts")) / "source-truto-segments"
# Truto, API reference, "Rate limits": 500 requests / 10 s for an API token.
SECONDS_A_REQUEST = 10.0 / 500

_STARTS = 3


@dataclass(frozen=True)
class Figures:
    """What was measured of one read.

    Attributes:
        seconds: From the start of the connector's process to its end.
        cpu_seconds: The processor time that the connector's process used.
        peak_bytes: The most memory that it held (its resident set).
        requests: Requests that the sandbox got.
        statuses: How many of them were answered with which status.
        accounts: Accounts of which every segment was emitted exactly once.
        records: Records that were emitted.
        output_bytes: Length of all messages.
        states: State messages.
        state_bytes: Length of these.
        last_whole: Seconds until the last record of an account that has no trouble.
        first_waiting: Seconds until the first record of an account that was held up.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    requests: int
    statuses: dict[str, int]
    accounts: int
    records: int
    output_bytes: int
    states: int
    state_bytes: int
    last_whole: float | None
    first_waiting: float | None

    @property
    def bound_seconds(self) -> float:
        """The time in which Truto's limit lets so many requests pass."""
        return self.requests * SECONDS_A_REQUEST

    @property
    def ratio(self) -> float:
        """How many times the bound the whole process took, its start-up included."""
        return self.seconds / self.bound_seconds

    @property
    def rate_limited(self) -> int:
        """How often a limit was exceeded."""
        return self.statuses.get("429", 0)

    @property
    def state_share(self) -> float:
        """The part of the output that is states, from 0 to 1."""
        return self.state_bytes / self.output_bytes


def measure(scenario: Scenario) -> Figures:
    """Reads a scenario once.

    Raises:
        NotWholeError: If the read did not come to what the scenario says, in a sentence.
    """
    with tempfile.TemporaryDirectory(prefix="truto-benchmark-") as name:
        folder = Path(name)
        with _sandbox(scenario) as sandbox:
            write_json(folder / "config.json", _config(scenario, sandbox.described))
            write_json(folder / "catalog.json", _catalog(scenario))
            files = ["--config", "config.json", "--catalog", "catalog.json"]
            read = run([COMMAND, "read", *files], folder)
            sandbox.stop()
        output = _Output.of(read.output)
        _verify(scenario, sandbox.described["accounts"], read, output)
    emitted = output.emitted
    fates = {account["id"]: account["fate"] for account in sandbox.described["accounts"]}
    return Figures(
        seconds=read.seconds,
        cpu_seconds=read.cpu_seconds,
        peak_bytes=read.peak_bytes,
        requests=sandbox.counted["requests"],
        statuses=sandbox.counted["statuses"],
        accounts=len(output.ids),
        records=output.records,
        output_bytes=output.bytes,
        states=output.states,
        state_bytes=output.state_bytes,
        last_whole=max(
            (last - read.began for id_, (_, last) in emitted.items() if fates[id_] == "whole"),
            default=None,
        ),
        first_waiting=min(
            (first - read.began for id_, (first, _) in emitted.items() if fates[id_] == "waiting"),
            default=None,
        ),
    )


def start_up_seconds() -> float:
    """The time of the command `spec`, which does nothing but start: the median of three.

    Raises:
        NotWholeError: If it fails.
    """
    times = []
    with tempfile.TemporaryDirectory(prefix="truto-benchmark-") as name:
        for _ in range(_STARTS):
            started = run([COMMAND, "spec"], Path(name))
            if started.exit_code != 0:
                raise NotWholeError(
                    f"spec ended with exit code {started.exit_code}: {started.said}"
                )
            times.append(started.seconds)
    return statistics.median(times)


@dataclass
class _Output:
    """What the connector's messages come to.

    Attributes:
        bytes: Length of all messages.
        records: How many records.
        states: How many state messages.
        state_bytes: Length of these.
        ids: How often each id was emitted, by account.
        emitted: When the first and the last record of each account were emitted, in seconds.
        status: The last status of the stream.
        failure: The last error, as the user is told it.
    """

    bytes: int = 0
    records: int = 0
    states: int = 0
    state_bytes: int = 0
    ids: dict[str, Counter[str]] = field(default_factory=dict)
    emitted: dict[str, tuple[float, float]] = field(default_factory=dict)
    status: str | None = None
    failure: str | None = None

    @classmethod
    def of(cls, path: Path) -> _Output:
        output = cls()
        with path.open("rb") as lines:
            for line in lines:
                output._take(json.loads(line), len(line))
        return output

    def _take(self, message: dict[str, Any], length: int) -> None:
        self.bytes += length
        if message["type"] == "RECORD":
            self._take_record(message["record"])
        elif message["type"] == "STATE":
            self.states += 1
            self.state_bytes += length
        elif message["type"] == "TRACE":
            trace = message["trace"]
            self.status = (trace.get("stream_status") or {}).get("status", self.status)
            self.failure = (trace.get("error") or {}).get("message", self.failure)

    def _take_record(self, record: dict[str, Any]) -> None:
        self.records += 1
        account_id, at = record["data"]["integrated_account_id"], record["emitted_at"] / 1_000
        self.ids.setdefault(account_id, Counter())[record["data"]["id"]] += 1
        first, last = self.emitted.get(account_id, (at, at))
        self.emitted[account_id] = min(first, at), max(last, at)


def _verify(
    scenario: Scenario, accounts: Iterable[dict[str, Any]], read: Run, output: _Output
) -> None:
    """Compares what was emitted with what the sandbox has, record by record."""
    end = (0, "COMPLETE") if not scenario.wrong_token else (1, "INCOMPLETE")
    if (read.exit_code, output.status) != end:
        raise NotWholeError(
            f"The read of scenario {scenario.name} ended with exit code {read.exit_code} and the "
            f"status {output.status}, not {end[0]} and {end[1]}. It said: "
            f"{output.failure or read.said or 'nothing'}"
        )
    expected = {
        account["id"]: Counter(account["ids"])
        for account in accounts
        if account["fate"] != "broken" and not scenario.wrong_token
    }
    for account_id in expected.keys() | output.ids.keys():
        wanted, got = expected.get(account_id, Counter()), output.ids.get(account_id, Counter())
        if wanted != got:
            raise NotWholeError(
                f"The read of scenario {scenario.name} is not whole: of account {account_id}, "
                f"{(wanted - got).total():,} records are missing and "
                f"{(got - wanted).total():,} are too many."
            )


@contextmanager
def _sandbox(scenario: Scenario) -> Iterator[Server]:
    arguments = {
        "accounts": scenario.accounts,
        "segments": SEGMENTS,
        "latency": LATENCY_SECONDS,
        "trouble": scenario.trouble,
        "wait": scenario.wait,
    }
    given = [f"--{name}={value}" for name, value in arguments.items() if value is not None]
    given += ["--all-vendors"] * scenario.all_vendors
    with server("benchmarks.serve", *given) as sandbox:
        yield sandbox


def _config(scenario: Scenario, sandbox: dict[str, Any]) -> dict[str, Any]:
    ids = [account["id"] for account in sandbox["accounts"]]
    listed = {"ids": ids[1:]} if scenario.finds == "listed" else {}
    config = {
        "token": "no-such-token" if scenario.wrong_token else sandbox["token"],
        "integrated_account_id": ids[0],
        "additional_accounts": {"mode": scenario.finds, **listed},
        "on_account_error": "skip" if scenario.skip else "fail",
        "api_url": sandbox["url"],
    }
    workers = scenario.num_workers
    return config if workers is None else {**config, "num_workers": workers}


def _catalog(scenario: Scenario) -> dict[str, Any]:
    stream = {
        "name": "segments",
        "json_schema": {},
        "supported_sync_modes": ["full_refresh", "incremental"],
    }
    modes = (
        {"sync_mode": "incremental", "destination_sync_mode": "append_dedup"}
        if scenario.incremental
        else {"sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
    )
    return {"streams": [{"stream": stream, **modes}]}
