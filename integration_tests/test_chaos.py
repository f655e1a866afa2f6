"""Read through a faulty network, with kills and new attempts: nothing is missing without a message.

Each seed makes its own accounts, fault rates and kills. A process that ends by itself has one of
two outcomes. Either all tables equal the sandbox and the sync is COMPLETE, or messages list each
account of which something is missing, with a reason from the error table (and the sync is
INCOMPLETE, unless such accounts are to be skipped). Whatever happens, the connector emits no
tombstone for a record that the sandbox holds. Without faults, the next attempt is complete.

pytest integration_tests/test_chaos.py --chaos-seeds 2000 --chaos-from 40
"""

import os
import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from integration_tests.destination import DELETED_AT, Data, Destination, Key, key_of
from integration_tests.faulty_proxy import NO_FAULTS, FaultRates, FaultyProxy
from integration_tests.processes import Processes, result_of
from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    Result,
    catalog,
    config,
    error_resolutions,
    id_of,
    parametrize_seeds,
    read,
    without_cdc,
    write,
)
from integration_tests.test_state import (
    assert_no_state_is_ahead,
    cursors,
    keys_in,
    state_of_stream,
)
from sandbox import MISSING, Account, Environment, Sandbox, vendors
from source_truto_segments.truto.errors import Scope

ALL_RATES = (
    FaultRates(harmless=1.0),
    FaultRates(harmless=0.2, transient=0.05),
    FaultRates(harmless=0.2, transient=0.3, timeout=0.01),
    FaultRates(harmless=0.1, transient=0.6, timeout=0.02),
    FaultRates(harmless=0.1, transient=0.85),
    FaultRates(harmless=0.1, transient=0.2, repeated=0.05),
    FaultRates(harmless=0.1, transient=0.2, permanent=0.05),
    FaultRates(harmless=0.1, transient=0.2, timeout=0.01, repeated=0.03, permanent=0.03),
)
MAX_FAULTY_ATTEMPTS = 4
INTERRUPTED = "The sync was interrupted"
FAILURE_TYPES = {"config_error", "transient_error", "system_error"}

Tables = dict[str, dict[Key, Data]]


@dataclass(frozen=True)
class Scenario:
    """What a seed stands for.

    Attributes:
        is_later: Whether a sync without faults ran before, and the accounts have changed since.
        kills: For each of the first processes, the number of a request and the signal at it.
    """

    seed: int
    environment: Environment
    rates: FaultRates
    mode: str
    is_later: bool
    fields: dict[str, Any]
    kills: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        rng = random.Random(f"scenario {seed}")
        accounts = [_account(number, rng) for number in range(rng.choice((1, 3, 5, 8)))]
        environment = Environment(accounts, list_page_size=rng.choice((1, 2, 100)))
        # If the accounts have to be found in a list, a failure of the list fails the whole sync.
        ids = [account.id for account in accounts]
        fields = {
            "additional_accounts": rng.choice((ALL, {"mode": "listed", "ids": ids})),
            "num_workers": rng.choice((2, 3, 5, 10)),
            "on_account_error": rng.choice(("fail", "fail", "skip")),
        }
        kills = [
            (rng.randint(1, 40), rng.choice((signal.SIGKILL, signal.SIGTERM)))
            for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))
        ]
        mode = rng.choice(("full_refresh", "incremental", "incremental"))
        # Each seed has the next rates, so that eight consecutive seeds cover all of them.
        rates = ALL_RATES[seed % len(ALL_RATES)]
        return cls(seed, environment, rates, mode, rng.random() < 0.7, fields, kills)

    @property
    def configured(self) -> dict[str, Any]:
        return catalog(self.mode, streams=ALL_STREAMS)

    def change(self) -> None:
        """Make the changes that the vendors' customers make between two syncs."""
        rng = random.Random(f"change {self.seed}")
        for account in self.environment.accounts:
            account.segments = _changed(account.segments, rng)
            account.workspaces = {
                id_: _changed(records, rng)
                for id_, records in account.workspaces.items()
                if rng.random() < 0.8
            }


def _account(number: int, rng: random.Random) -> Account:
    vendor = rng.choice(vendors.VENDORS)
    segments = vendors.segments(vendor, rng.choice((0, 1, 20, 45)), seed=number)
    account = Account(
        id=id_of(number),
        vendor=vendor,
        segments=segments,
        default_page_size=(size := rng.choice((3, 10))),
        max_page_size=rng.choice((None, size, size)),
        oversized=rng.choice(("reject", "cut")),
        form=rng.choice(("list", "list", "keyed", "bare")),
        empty_pages=rng.choice((0, 0, 0, 1)),
        cursor_style=rng.choice(("plain", "special", "long")),
        last_cursor=rng.choice((None, "", MISSING)),
    )
    if vendor == "beehiiv":
        account.segments = []
        account.workspaces = {
            f"w{place}": segments[place::3] for place in range(rng.choice((0, 1, 3)))
        }
    return account


def _changed(records: Sequence[Mapping[str, Any]], rng: random.Random) -> list[Mapping[str, Any]]:
    """Change some records, with or without a date, and delete others."""
    kept = [record for record in records if rng.random() < 0.8]
    return [
        {**record, "name": "changed", **rng.choice(({}, {"updated_at": "2020-01-01T00:00:00Z"}))}
        if rng.random() < 0.3
        else record
        for record in kept
    ]


def tables_of(sandbox: Sandbox) -> Tables:
    """Return what the tables must contain: the result of a full refresh without faults."""
    result = read(sandbox, streams=ALL_STREAMS, additional_accounts=ALL)
    tables = {
        stream: {key_of(stream, data): without_cdc(data) for data in result.records_of(stream)}
        for stream in ALL_STREAMS
    }
    assert {stream: set(rows) for stream, rows in tables.items()} == {
        stream: keys_in(sandbox, stream) for stream in ALL_STREAMS
    }
    return tables


@dataclass
class Job:
    """One sync with all its attempts, as the platform runs it.

    Attributes:
        expected: What the tables must contain in the end.
        destination: The tables so far, and the state for the next attempt.
    """

    scenario: Scenario
    processes: Processes
    proxy: FaultyProxy
    settings: dict[str, Any]
    folder: Path
    expected: Tables
    destination: Destination
    outcomes: list[str] = field(default_factory=list)

    def attempt(self, kill: tuple[int, int] | None = None) -> bool:
        """Run one process, and check that it has one of the two outcomes.

        Returns:
            Whether it is complete.
        """
        out = self.folder / "out.jsonl"
        self.proxy.begin_process()
        pid = self.processes.start(self._arguments(), out, skip_waits=True)
        if kill is not None:
            moment, number = kill
            self.proxy.at_request(moment, lambda: os.kill(pid, number))
        code = self.processes.wait(pid)
        stderr = Path(f"{out}.err").read_text()
        assert code != -signal.SIGABRT, f"the process hung:\n{stderr}"
        assert "Traceback" not in stderr
        text = out.read_text()
        assert self.scenario.environment.token not in text + stderr
        result = result_of(out)
        self._load(result)
        if code == -signal.SIGKILL and kill is not None:
            self.outcomes.append("killed")
            return False
        assert len(result.messages) == len(text.splitlines())
        return self._judge(code, result)

    @property
    def missing(self) -> set[str]:
        """Return the accounts whose rows are not as expected in at least one stream."""
        return {account_id for stream in ALL_STREAMS for account_id in self._missing_in(stream)}

    def _missing_in(self, stream: str) -> set[str]:
        expected, found = self.expected[stream], self.destination.rows(stream)
        different = (key for key in {*expected, *found} if expected.get(key) != found.get(key))
        state = cursors(state_of_stream(self.destination.state, stream))
        # If everything is deleted at once, a sync an hour later has to confirm it.
        return {key[0] for key in different if not state.get(key[0], {}).get("empty")}

    @property
    def is_exact(self) -> bool:
        """Return whether the tables are as expected, with all deletions."""
        return all(self.destination.rows(name) == self.expected[name] for name in ALL_STREAMS)

    def _load(self, result: Result) -> None:
        assert_no_state_is_ahead(result, self.destination.state)
        for stream in ALL_STREAMS:
            for data in result.records_of(stream):
                row = self.expected[stream].get(key_of(stream, data))
                if DELETED_AT in data:
                    assert row is None, "a deletion was invented"
                else:
                    assert row == without_cdc(data), "a record was invented"
        self.destination.load(result, self.scenario.configured)
        for stream in ALL_STREAMS:
            complete = self._complete_in_state(stream)
            assert not complete & self._missing_in(stream), "a state counts what was not written"

    def _judge(self, code: int, result: Result) -> bool:
        failures = [error["message"] for error in result.errors]
        warnings = [log["message"] for log in result.of_type("LOG") if log["level"] == "WARN"]
        is_skipping = self.scenario.fields["on_account_error"] == "skip"
        statuses = {status for stream in ALL_STREAMS for status in result.statuses_of(stream)[-1:]}
        if code == 0:
            assert statuses == {"COMPLETE"}
            assert not failures
            left = self.missing - self._postponed(result)
            assert left == self._named(warnings) & left
            assert not left or is_skipping
            self.outcomes.append("skipped" if self.missing else "complete")
            return not self.missing
        assert code == 1
        assert "INCOMPLETE" in statuses or not statuses
        assert failures
        assert all(error["failure_type"] in FAILURE_TYPES for error in result.errors)
        if INTERRUPTED in failures[-1]:
            self.outcomes.append("interrupted")
            return False
        if any(_is_of_sync(message) for message in failures):
            self.outcomes.append("failed for all")
            return False
        # Each cause has a message with some of its accounts, and each account has a line in the
        # log.
        named = self._named([*failures, *warnings]) | self._postponed(result)
        assert self.missing <= named, "an account is missing and was not named"
        self.outcomes.append("failed")
        return False

    def _named(self, messages: list[str]) -> set[str]:
        """Return the accounts that messages list, each with a reason from the error table."""
        reasons = [resolution.error_message for resolution in error_resolutions()]
        known = [message for message in messages if any(reason in message for reason in reasons)]
        accounts = self.scenario.environment.accounts
        return {account.id for account in accounts if any(account.id in text for text in known)}

    def _postponed(self, result: Result) -> set[str]:
        """Return the accounts that lack only deletions, as a line about two reads reports."""
        lines = [log["message"] for log in result.of_type("LOG")]
        disagreed = [line for line in lines if "two reads did not find the same records" in line]
        lacking = {
            key[0]
            for stream in ALL_STREAMS
            for key, row in self.expected[stream].items()
            if self.destination.rows(stream).get(key) != row
        }
        accounts = {account.id for account in self.scenario.environment.accounts} - lacking
        return {account for account in accounts if any(account in line for line in disagreed)}

    def _complete_in_state(self, stream: str) -> set[str]:
        """Return the accounts that the state counts as completely read."""
        state = state_of_stream(self.destination.state, stream)
        return {id_ for id_, cursor in cursors(state).items() if cursor == {"complete": True}}

    def _arguments(self) -> list[str]:
        settings = {**self.settings, **self.scenario.fields, "api_url": self.proxy.url}
        state = self.destination.state
        return [
            "read",
            *("--config", write(self.folder / "config.json", settings)),
            *("--catalog", write(self.folder / "catalog.json", self.scenario.configured)),
            *(("--state", write(self.folder / "state.json", state)) if state else ()),
        ]


def _is_of_sync(message: str) -> bool:
    """Return whether a failure concerns the whole sync, so that no account has to be listed."""
    of_sync = [found.error_message for found in error_resolutions() if found.scope is Scope.SYNC]
    # Truto's own limit applies to the token: if it lasts too long, no account can be read.
    if "Truto's rate limit was exceeded" in message and "the wait would be" in message:
        return True
    if " s for Truto's limit)" in message or " s for the vendor's limit)" in message:
        return True
    if "; nothing else got through" in message:
        return True
    return "integrated accounts of the environment" in message or any(
        reason in message for reason in of_sync
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_seeds(metafunc, "chaos")


def test_faulty_network(seed: int, processes: Processes, tmp_path: Path) -> None:
    """Through a faulty network, a sync is complete or lists the accounts that are not."""
    scenario = Scenario.of(seed)
    print(
        f"seed {seed}: {scenario.mode}, {scenario.rates}, {scenario.fields}, kills "
        f"{scenario.kills}; again with: pytest integration_tests/test_chaos.py --chaos-seeds 1 "
        f"--chaos-from {seed}"
    )
    with Sandbox(scenario.environment) as sandbox:
        destination = Destination()
        if scenario.is_later:
            configured = scenario.configured
            earlier = read(sandbox, configured=configured, additional_accounts=ALL)
            if scenario.mode == "incremental":
                destination.load(earlier, configured)
            scenario.change()
        expected = tables_of(sandbox)
        with FaultyProxy(sandbox.url, seed, scenario.rates) as proxy:
            settings = config(sandbox)
            job = Job(scenario, processes, proxy, settings, tmp_path, expected, destination)
            for kill in scenario.kills:
                job.attempt(kill)
            for _ in range(MAX_FAULTY_ATTEMPTS):
                if job.attempt():
                    break
            proxy.rates = NO_FAULTS
            is_complete = job.attempt()
            print(f"{job.outcomes}; {dict(proxy.fault_counts)}")
            assert is_complete, "without faults, the sync is not complete"
            destination.age(1.0)
            assert job.is_exact or job.attempt()
            assert job.is_exact, "an hour later, deletions are still missing"
