"""Reads through a faulty server, killed and resumed: whole, or told what is missing and why.

Each seed makes accounts, weather and kills of its own. A process that ends by itself has one of two
outcomes: every record of every account has been written and the sync says COMPLETE, or each account
of which records are missing is named with a reason of the error table (and the sync says
INCOMPLETE, unless such accounts are to be skipped). In fair weather, the next attempt is whole.

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

from integration_tests.faulty_proxy import CALM, FaultyProxy, Weather
from integration_tests.processes import Processes, result_of
from integration_tests.support import Result, catalog, config, meanings, read, write
from integration_tests.test_many_accounts import ALL, id_of
from integration_tests.test_state import assert_no_state_is_ahead, everything, last_state
from sandbox import MISSING, Account, Environment, Sandbox, vendors
from source_truto_segments.errors import Meaning, Scope

WEATHERS = (
    Weather(odd=1.0),
    Weather(odd=0.2, passing=0.05),
    Weather(odd=0.2, passing=0.3, timeout=0.01),
    Weather(odd=0.1, passing=0.6, timeout=0.02),
    Weather(odd=0.1, passing=0.85),
    Weather(odd=0.1, passing=0.2, repeated=0.05),
    Weather(odd=0.1, passing=0.2, lasting=0.05),
    Weather(odd=0.1, passing=0.2, timeout=0.01, repeated=0.03, lasting=0.03),
)
MOST_STORMY_ATTEMPTS = 4
TOLD_TO_END = "was told to end"

Key = tuple[str, str]


@dataclass(frozen=True)
class Scenario:
    """What a seed stands for.

    Attributes:
        is_later: Whether it is not the first sync: an incremental one then begins with its marks.
        kills: The first processes get a signal each when so many requests have come.
    """

    seed: int
    environment: Environment
    weather: Weather
    mode: str
    is_later: bool
    fields: dict[str, Any]
    kills: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        rng = random.Random(f"scenario {seed}")
        accounts = [_account(number, rng) for number in range(rng.choice((1, 3, 5, 8)))]
        environment = Environment(accounts, list_page_size=rng.choice((1, 2, 100)))
        # Where they have to be found, a list that fails is a failure of the whole sync.
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
        mode = rng.choice(("full_refresh", "incremental"))
        # The next seed has the next weather, so that every eight of them have seen all.
        weather = WEATHERS[seed % len(WEATHERS)]
        return cls(seed, environment, weather, mode, rng.random() < 0.5, fields, kills)

    def change(self) -> None:
        """What the vendors' customers do between one sync and the next."""
        rng = random.Random(f"change {self.seed}")
        for account in self.environment.accounts:
            account.segments = _changed(account.segments, rng)
            account.workspaces = {
                id_: _changed(records, rng) for id_, records in account.workspaces.items()
            }


def _account(number: int, rng: random.Random) -> Account:
    vendor = rng.choice(vendors.VENDORS)
    segments = vendors.segments(vendor, rng.choice((0, 1, 20, 45)), seed=number)
    account = Account(
        id=id_of(number),
        vendor=vendor,
        segments=segments,
        default_page_size=rng.choice((3, 10)),
        form=rng.choice(("list", "list", "keyed", "bare")),
        empty_pages=rng.choice((0, 0, 0, 1)),
        cursor_style=rng.choice(("plain", "odd", "long")),
        last_cursor=rng.choice((None, "", MISSING)),
    )
    if vendor == "beehiiv":
        account.segments = []
        account.workspaces = {
            f"w{place}": segments[place::3] for place in range(rng.choice((0, 1, 3)))
        }
    return account


def _changed(records: Sequence[Mapping[str, Any]], rng: random.Random) -> list[Mapping[str, Any]]:
    day = rng.randint(1, 28)
    return [
        {**record, "name": "changed", "updated_at": f"2026-10-{day:02}T{number % 24:02}:00:00Z"}
        if rng.random() < 0.3
        else record
        for number, record in enumerate(records)
    ]


@dataclass
class Job:
    """One sync with all its attempts, as the platform runs it.

    Attributes:
        expected: The records of a calm read, by account and id.
        written: The accounts and ids of the records that the destination has got.
        begin: The state that the sync begins with.
        state: The last state.
    """

    scenario: Scenario
    processes: Processes
    proxy: FaultyProxy
    settings: dict[str, Any]
    folder: Path
    expected: dict[Key, dict[str, Any]]
    begin: list[dict[str, Any]]
    state: list[dict[str, Any]]
    written: set[Key] = field(default_factory=set)
    outcomes: list[str] = field(default_factory=list)

    def attempt(self, kill: tuple[int, int] | None = None) -> bool:
        """Runs one process, proves that it has one of the two outcomes; true if it is whole."""
        out = self.folder / "out.jsonl"
        self.proxy.begin()
        pid = self.processes.start(self._arguments(), out, swift=True)
        if kill is not None:
            moment, number = kill
            self.proxy.at_request(moment, lambda: os.kill(pid, number))
        code = self.processes.wait(pid)
        errors = Path(f"{out}.err").read_text()
        assert code != -signal.SIGABRT, f"the process hung:\n{errors}"
        assert "Traceback" not in errors
        text = out.read_text()
        assert self.scenario.environment.token not in text + errors
        result = result_of(out)
        self._take(result)
        if code == -signal.SIGKILL and kill is not None:
            self.outcomes.append("killed")
            return False
        assert len(result.messages) == len(text.splitlines())
        return self._judge(code, result)

    @property
    def missing(self) -> set[str]:
        """The accounts of which records are missing."""
        return {account_id for account_id, _ in set(self.expected) - self.written}

    def _take(self, result: Result) -> None:
        assert_no_state_is_ahead(result)
        for record in result.records:
            key = (record["integrated_account_id"], record["id"])
            assert record == self.expected[key], "a record was invented"
            self.written.add(key)
        self.state = last_state(result) or self.state
        assert not self._complete_in_state() & self.missing, "a state counts what was not written"

    def _judge(self, code: int, result: Result) -> bool:
        failures = [error["message"] for error in result.errors]
        warnings = [log["message"] for log in result.of_type("LOG") if log["level"] == "WARN"]
        is_skipping = self.scenario.fields["on_account_error"] == "skip"
        if code == 0:
            assert result.statuses[-1] == "COMPLETE"
            assert not failures
            assert self.missing == self._named(warnings) & self.missing
            assert not self.missing or is_skipping
            self.outcomes.append("skipped" if self.missing else "whole")
            return not self.missing
        assert code == 1
        assert result.statuses[-1:] in (["INCOMPLETE"], [])
        assert failures
        assert all(error["failure_type"] in _FAILURE_TYPES for error in result.errors)
        if TOLD_TO_END in failures[-1]:
            self.outcomes.append("told to end")
            return False
        if any(_is_of_sync(message) for message in failures):
            self.outcomes.append("failed for all")
            return False
        told = self._named([*failures, *(warnings if is_skipping else [])])
        assert self.missing <= told, "an account is missing and was not named"
        self.outcomes.append("failed")
        return False

    def _named(self, messages: list[str]) -> set[str]:
        """The accounts that messages name, each with a reason of the error table."""
        known = [message for message in messages if any(m.what in message for m in meanings())]
        accounts = self.scenario.environment.accounts
        return {account.id for account in accounts if any(account.id in text for text in known)}

    def _complete_in_state(self) -> set[str]:
        """The accounts that the state counts as read to their end."""
        if self.scenario.mode == "incremental":
            begun = _cursors(self.begin)
            moved = {
                id_: cursor
                for id_, cursor in _cursors(self.state).items()
                if "updated_at" in cursor
            }
            return {id_ for id_, cursor in moved.items() if begun.get(id_) != cursor}
        return {id_ for id_, cursor in _cursors(self.state).items() if cursor == {"complete": True}}

    def _arguments(self) -> list[str]:
        settings = {**self.settings, **self.scenario.fields, "api_url": self.proxy.url}
        asked = catalog(self.scenario.mode)
        return [
            "read",
            *("--config", write(self.folder / "config.json", settings)),
            *("--catalog", write(self.folder / "catalog.json", asked)),
            *(("--state", write(self.folder / "state.json", self.state)) if self.state else ()),
        ]


def _cursors(state: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    states = state[-1]["stream"]["stream_state"].get("states", []) if state else []
    return {entry["partition"]["integrated_account_id"]: entry["cursor"] for entry in states}


_FAILURE_TYPES = {"config_error", "transient_error", "system_error"}


def _is_of_sync(message: str) -> bool:
    """Whether a failure is that of the whole sync, and no account has to be named."""
    if "integrated accounts of the environment" in message:
        return True
    return any(meaning.what in message for meaning in _of_sync())


def _of_sync() -> list[Meaning]:
    return [meaning for meaning in meanings() if meaning.scope is Scope.SYNC]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first = metafunc.config.getoption("--chaos-from")
    seeds = range(first, first + metafunc.config.getoption("--chaos-seeds"))
    metafunc.parametrize("seed", seeds, ids=[f"seed-{seed}" for seed in seeds])


def test_given_a_faulty_server_when_read_then_all_is_there_or_what_is_missing_is_told(
    seed: int, processes: Processes, tmp_path: Path
) -> None:
    scenario = Scenario.of(seed)
    print(
        f"seed {seed}: {scenario.mode}, {scenario.weather}, {scenario.fields}, kills "
        f"{scenario.kills}; again with: pytest integration_tests/test_chaos.py --chaos-seeds 1 "
        f"--chaos-from {seed}"
    )
    with Sandbox(scenario.environment) as sandbox:
        asked, state = catalog(scenario.mode), []
        if scenario.is_later:
            state = last_state(read(sandbox, asked=asked, additional_accounts=ALL))
            scenario.change()
        calm = read(sandbox, asked=asked, state=state, additional_accounts=ALL)
        expected = {(r["integrated_account_id"], r["id"]): r for r in calm.records}
        if scenario.mode == "full_refresh" or not scenario.is_later:
            assert set(expected) == everything(sandbox)
        with FaultyProxy(sandbox.url, seed, scenario.weather) as proxy:
            job = Job(scenario, processes, proxy, config(sandbox), tmp_path, expected, state, state)
            for kill in scenario.kills:
                job.attempt(kill)
            for _ in range(MOST_STORMY_ATTEMPTS):
                if job.attempt():
                    break
            proxy.weather = CALM
            is_whole = job.attempt()
            print(f"{job.outcomes}; {dict(proxy.met)}")
            assert is_whole, "the weather is fair, and the sync is not whole"
