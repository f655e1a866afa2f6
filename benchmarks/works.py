"""The works that the contenders do: which commands, against which server, and when one is whole."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import CONNECTOR, MANIFEST, Read, Row, Work
from benchmarks.large_account import PAGE
from benchmarks.probe import first_page, pages_a_second
from benchmarks.processes import (
    ROOT,
    NotWholeError,
    Run,
    Server,
    local_environment,
    run,
    server,
    write_json,
)
from benchmarks.scenarios import LATENCY_SECONDS, MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MANY_WORKERS = f"this connector, {MOST_WORKERS} workers"
SDK = "`truto-python-sdk`, fetching only"
SDK_IN_TURN = "`truto-python-sdk`, account after account"
SDK_SIDE_BY_SIDE = "`truto-python-sdk`, 20 accounts at a time"
PLAIN = "a bare loop with `requests`"
FLOOR = "the CDK alone, without HTTP"

PAGES_OF_MANY = 2
SEGMENTS_OF_MANY = 20

_SCRIPTS = Path(sysconfig.get_path("scripts"))
_CONNECTOR = _SCRIPTS / "source-truto-segments"
_MANIFEST = _SCRIPTS / "source-declarative-manifest"
_READERS = ROOT / "benchmarks" / "readers"
_PYTHON = (sys.executable, "-m")
_CONFIG = ("--config", "config.json")
_FILES = (*_CONFIG, "--catalog", "catalog.json")
# Longer than a reader of a million records needs, on a slow machine as well.
_LONGEST_SECONDS = 1_800.0

_Command = tuple["str | Path", ...]


@dataclass(frozen=True)
class Setting:
    """How large the works are.

    Attributes:
        sdk: The Python that has the SDK; None if there is none.
        no_sdk: Why there is none.
        records: Records of the one account.
        accounts: How many accounts many are.
        sizes: The numbers of records that memory is measured at.
    """

    sdk: Path | None
    no_sdk: str
    records: int = 100_000
    accounts: int = 300
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class _Task:
    """Something to measure: its row, and how; None where it cannot be."""

    row: Row
    measure: Callable[[], Read] | None


def one_account(setting: Setting, rounds: int) -> Work:
    """One account of many pages, answered at once: what a read costs beside the waiting."""
    with _folder() as folder, _page_server(setting.records, folder) as pages:
        facts = {"server pages a second": pages_a_second(pages.described)}
        print(f"a  the server answers {facts['server pages a second']:,.0f} pages a second")
        rows = _in_turn("a", _readers_of_one(setting, setting.records, folder), rounds)
        facts.update(_told("benchmarks.fitting", folder))
    return Work("", rounds, rows, facts)


def many_accounts(setting: Setting, rounds: int) -> Work:
    """Many accounts of two pages, with latency and with Truto's limits."""
    manifest = _MANIFEST, "read", *_FILES, "--manifest-path", _READERS / "manifest_of_accounts.yaml"
    sdk = None if setting.sdk is None else (setting.sdk, _READERS / "truto_sdk.py", *_CONFIG)
    readers: list[tuple[str, _Command | None, dict[str, Any]]] = [
        (CONNECTOR, (_CONNECTOR, "read", *_FILES), {}),
        (MANY_WORKERS, (_CONNECTOR, "read", *_FILES), {"num_workers": MOST_WORKERS}),
        (MANIFEST, manifest, {}),
        (SDK_IN_TURN, sdk, {}),
        (SDK_SIDE_BY_SIDE, sdk and (*sdk, "--side-by-side", "20"), {}),
        (PLAIN, (*_PYTHON, "benchmarks.readers.plain_requests", *_CONFIG), {}),
    ]
    with _folder() as folder:
        tasks = [
            _task(
                name,
                "",
                setting,
                command,
                partial(_read_many, folder=folder, accounts=setting.accounts, more=more),
            )
            for name, command, more in readers
        ]
        facts = {"accounts": float(setting.accounts)}
        return Work("", rounds, _in_turn("b", tasks, rounds), facts)


def start_up(setting: Setting, rounds: int) -> Work:
    """The commands that read nothing, or next to nothing."""
    manifest = ("--manifest-path", _READERS / "manifest.yaml")
    commands: list[tuple[str, str, _Command, bytes]] = [
        ("spec", CONNECTOR, (_CONNECTOR, "spec"), b'"SPEC"'),
        ("spec", MANIFEST, (_MANIFEST, "spec"), b'"SPEC"'),
        ("spec", FLOOR, (*_PYTHON, "benchmarks.readers.cdk_floor", "spec"), b'"SPEC"'),
        ("check", CONNECTOR, (_CONNECTOR, "check", *_CONFIG), b'"SUCCEEDED"'),
        ("check", MANIFEST, (_MANIFEST, "check", *_CONFIG, *manifest), b'"SUCCEEDED"'),
    ]
    with _folder() as folder, _page_server(PAGE, folder):
        tasks = [
            _task(name, case, setting, command, partial(_start, folder=folder, sign=sign))
            for case, name, command, sign in commands
        ]
        return Work("", rounds, _in_turn("c", tasks, rounds))


def memory(setting: Setting, rounds: int) -> Work:
    """One account at several sizes: what the memory of a read depends on."""
    rows: list[Row] = []
    for size in setting.sizes:
        with _folder() as folder, _page_server(size, folder):
            rows += _in_turn("d", _readers_of_one(setting, size, folder), rounds)
    return Work("", rounds, rows)


WORKS: dict[str, Callable[[Setting, int], Work]] = {
    "a": one_account,
    "b": many_accounts,
    "c": start_up,
    "d": memory,
}


def _readers_of_one(setting: Setting, records: int, folder: Path) -> list[_Task]:
    sdk = None if setting.sdk is None else (setting.sdk, _READERS / "truto_sdk.py", *_CONFIG)
    manifest = ("--manifest-path", _READERS / "manifest.yaml")
    readers: dict[str, _Command | None] = {
        CONNECTOR: (*_PYTHON, "benchmarks.readers.unpaced", "read", *_FILES),
        MANIFEST: (_MANIFEST, "read", *_FILES, *manifest),
        SDK: sdk,
        PLAIN: (*_PYTHON, "benchmarks.readers.plain_requests", *_CONFIG),
        FLOOR: (*_PYTHON, "benchmarks.readers.cdk_floor", "read", *_FILES),
    }
    expected = ["--records", str(records)]
    return [
        _task(
            name, str(records), setting, command, partial(_read, folder=folder, expected=expected)
        )
        for name, command in readers.items()
    ]


def _task(
    name: str,
    case: str,
    setting: Setting,
    command: _Command | None,
    measure: Callable[[_Command], Read],
) -> _Task:
    if command is None:
        return _Task(Row(name, case, note=f"not measured: {setting.no_sdk}"), None)
    return _Task(Row(name, case), lambda: measure(command))


def _in_turn(letter: str, tasks: Sequence[_Task], rounds: int) -> list[Row]:
    """Measures each in turn, so that what else the machine does meets them all.

    Raises:
        NotWholeError: If a read of the connector's is not whole. A contender whose read is not has
            a note in the place of its figures.
    """
    for number in range(1, rounds + 1):
        for task in tasks:
            row = task.row
            label = f"{letter}  round {number}  {_named(row)}"
            if task.measure is None or row.note:
                print(f"{label}: {row.note}", flush=True)
                continue
            try:
                row.reads.append(task.measure())
            except NotWholeError as failure:
                if row.name.startswith(CONNECTOR):
                    raise NotWholeError(f"{label}: {failure}") from None
                row.reads.clear()
                row.note = f"not whole: {failure}"
                print(f"{label}: {row.note}", flush=True)
            else:
                print(f"{label}: {_said(row.reads[-1])}", flush=True)
    return [task.row for task in tasks]


def _named(row: Row) -> str:
    case = f"{int(row.case):,} records" if row.case.isdecimal() else row.case
    return f"{row.name}, {case}" if case else row.name


def _said(read: Read) -> str:
    records = f", {read.records:,} records" if read.records else ""
    refused = f", {read.refused:,} times 429" if read.refused else ""
    return f"{read.seconds:.1f} s{records}{refused}, {read.peak_bytes / 1e6:.0f} MB"


def _read_many(command: _Command, folder: Path, accounts: int, more: dict[str, Any]) -> Read:
    """Reads many accounts from a sandbox of its own, whose limits nobody has used yet."""
    size = SEGMENTS_OF_MANY // PAGES_OF_MANY
    given = {
        "accounts": accounts,
        "segments": SEGMENTS_OF_MANY,
        "page-size": size,
        "latency": LATENCY_SECONDS,
    }
    arguments = [f"--{name}={value}" for name, value in given.items()]
    with server("benchmarks.serve", *arguments) as sandbox:
        described = sandbox.described
        ids = [account["id"] for account in described["accounts"]]
        others = {"additional_accounts": {"mode": "listed", "ids": ids[1:]}}
        _write_files(folder, described["url"], described["token"], ids, {**others, **more})
        write_json(folder / "accounts.json", described["accounts"])
        read = _read(command, folder, ["--accounts", "accounts.json"])
        sandbox.stop()
    counted = sandbox.counted
    return Read(
        read.seconds,
        read.cpu_seconds,
        read.peak_bytes,
        read.records,
        requests=counted["requests"],
        refused=counted["statuses"].get("429", 0),
    )


def _read(command: _Command, folder: Path, expected: Sequence[str]) -> Read:
    """Reads once, and makes sure that it was whole."""
    done = _run(command, folder)
    counted = _told("benchmarks.tally", folder, str(done.output), *expected)
    if counted["missing"] or counted["extra"]:
        raise NotWholeError(
            f"{counted['missing']:,} records are missing and {counted['extra']:,} are too many."
        )
    return Read(done.seconds, done.cpu_seconds, done.peak_bytes, counted["records"])


def _start(command: _Command, folder: Path, sign: bytes) -> Read:
    """Runs a command that reads no records; `sign` is what it has to print."""
    done = _run(command, folder)
    if sign not in done.output.read_bytes():
        raise NotWholeError(f"it did not print {sign.decode()}.")
    return Read(done.seconds, done.cpu_seconds, done.peak_bytes)


def _run(command: _Command, folder: Path) -> Run:
    done = run(command, folder, _LONGEST_SECONDS, _environment())
    if done.exit_code != 0:
        said = (done.said.splitlines() or ["nothing"])[-1]
        raise NotWholeError(f"it ended with exit code {done.exit_code} and said {said}")
    # Where a process begins as a copy of this one, its peak is at least that of this one.
    if done.peak_bytes <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise NotWholeError("its memory cannot be told from that of the measuring process.")
    return done


def _told(module: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What another module of this folder says in a line of JSON."""
    command = [*_PYTHON, module, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _environment() -> dict[str, str]:
    return {**local_environment(), "PYTHONPATH": str(ROOT)}


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="truto-contenders-") as name:
        yield Path(name)


@contextmanager
def _page_server(records: int, folder: Path) -> Iterator[Server]:
    """The server of the one account, and the files that its readers need."""
    with server("benchmarks.page_server", f"--records={records}") as pages:
        described = pages.described
        (folder / "page.json").write_bytes(first_page(described))
        more = {"records": records, "page": "page.json"}
        _write_files(folder, described["url"], described["token"], [described["account"]], more)
        yield pages


def _write_files(folder: Path, url: str, token: str, ids: list[str], more: dict[str, Any]) -> None:
    """One configuration for all readers: each takes what it knows."""
    config = {"token": token, "api_url": url, "integrated_account_id": ids[0], "ids": ids, **more}
    write_json(folder / "config.json", config)
    stream = {
        "stream": {
            "name": "segments",
            "json_schema": {},
            "supported_sync_modes": ["full_refresh"],
        },
        "sync_mode": "full_refresh",
        "destination_sync_mode": "overwrite",
    }
    write_json(folder / "catalog.json", {"streams": [stream]})
