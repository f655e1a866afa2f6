"""Compare this connector with what users would pick instead.

python benchmarks/contenders.py

contenders.json keeps the figures of each workload. The tables in README.md and the chart
contenders.svg are generated from it.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
# Python adds the script's folder, but the imports below start from the root.
sys.path.insert(0, str(ROOT))

from benchmarks import page_server, processes, report  # noqa: E402
from benchmarks.large_account import ACCOUNT_ID, segment_id  # noqa: E402
from benchmarks.processes import Figures, UnverifiedReadError  # noqa: E402
from benchmarks.report import Row, Workload  # noqa: E402
from benchmarks.verify import Output  # noqa: E402
from sandbox import large_environment  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox import Environment

Command = tuple["str | Path", ...]

CONNECTOR = "this connector"
MANIFEST = "a declarative manifest"
SDK = "`truto-python-sdk`, fetching only"
PLAIN = "a bare loop with `requests`"
FLOOR = "the CDK alone, without HTTP"

_SDK_PYTHON = ROOT / ".venv-sdk" / "bin" / "python"
_FIGURES = "contenders.json"
_READERS = report.FOLDER / "readers"
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_CONFIG = ("--config", "config.json")
_READ = ("read", *_CONFIG, "--catalog", "catalog.json")
_CONNECTOR: Command = (_SCRIPTS / "source-truto-segments",)
_UNPACED: Command = (sys.executable, "-m", "benchmarks.readers.unpaced")
_MANIFEST: Command = (_SCRIPTS / "source-declarative-manifest",)
_ONE: Command = ("--manifest-path", _READERS / "manifest.yaml")
_MANY: Command = ("--manifest-path", _READERS / "manifest_of_accounts.yaml")
_SDK: Command = (_SDK_PYTHON, _READERS / "truto_sdk.py", *_CONFIG)
_PLAIN: Command = (sys.executable, "-m", "benchmarks.readers.plain_requests", *_CONFIG)
_FLOOR: Command = (sys.executable, "-m", "benchmarks.readers.cdk_floor")

_LATENCY = 0.3
_MAX_SHARE = 0.6
_MAX_GROWTH, _MAX_GROWTH_MEGABYTES = 1.1, 5


@dataclass(frozen=True)
class Sizes:
    """How many records the one account has, and how many accounts there are."""

    records: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    accounts: int = 300


def main() -> None:
    options = _options()
    if not options.tables:
        _measure(options)
    if options.quick:
        print("These sizes are too small for the targets; nothing is kept.")
    else:
        _write_reports()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = list(WORKLOADS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="the workloads")
    parser.add_argument("--rounds", type=int, choices=range(1, 10), help="default: 3 2 1 5")
    parser.add_argument("--quick", action="store_true", help="small sizes; keeps no figures")
    parser.add_argument("--tables", action="store_true", help="only reports the figures again")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> None:
    """Measure the selected workloads, and save the figures of each as soon as it has finished."""
    sizes = Sizes((1_000, 2_000), 8) if options.quick else Sizes()
    for name in options.only:
        measure, rounds = WORKLOADS[name]
        conditions = report.conditions()
        workload = measure(sizes, 1 if options.quick else options.rounds or rounds)
        workload.conditions = conditions
        print(f"\n{_section(name, workload)}\n", flush=True)
        if not options.quick:
            report.save(_FIGURES, {**report.load(_FIGURES), name: asdict(workload)})


# --- the workloads --------------------------------------------------------------------------------


def one_account(sizes: Sizes, rounds: int) -> Workload:
    """Measure one account of several sizes without latency or pacing: the cost besides waiting.

    The largest is read once.
    """
    *others, largest = sizes.records
    rows = [row for records in others for row in _read_one_account(records, rounds)]
    return Workload(rounds, [*rows, *_read_one_account(largest, 1)])


def many_accounts(sizes: Sizes, rounds: int) -> Workload:
    """Measure many accounts of two pages, with latency and with Truto's limits."""
    contenders = {
        CONNECTOR: (*_CONNECTOR, *_READ),
        MANIFEST: (*_MANIFEST, *_READ, *_MANY),
        "`truto-python-sdk`, one account at a time": _SDK,
        "`truto-python-sdk`, 20 accounts at a time": (*_SDK, "--concurrency", "20"),
        PLAIN: _PLAIN,
    }
    create = partial(processes.limited_environment, sizes.accounts, 20, 10, _LATENCY)
    return Workload(rounds, _rows(contenders, "", rounds, partial(_read_sandbox, create)))


def vendors_pages(sizes: Sizes, rounds: int) -> Workload:
    """Measure many accounts of 60 segments, in the vendors' default pages or those requested.

    This connector reads all accounts of the environment, and so knows their vendors.
    """
    contenders = {
        CONNECTOR: (*_CONNECTOR, *_READ),
        MANIFEST: (*_MANIFEST, *_READ, *_MANY),
        "`truto-python-sdk`, 20 accounts at a time": (*_SDK, "--concurrency", "20"),
        PLAIN: _PLAIN,
    }
    create = partial(processes.limited_environment, sizes.accounts, 60, None, _LATENCY)
    measure = partial(_read_sandbox, create, additional_accounts={"mode": "all"})
    return Workload(rounds, _rows(contenders, "", rounds, measure))


def start_up(_sizes: Sizes, rounds: int) -> Workload:
    """Measure the commands that read nothing, or next to nothing."""
    spec = {
        CONNECTOR: (*_CONNECTOR, "spec"),
        MANIFEST: (*_MANIFEST, "spec"),
        FLOOR: (*_FLOOR, "spec"),
    }
    check = {
        CONNECTOR: (*_CONNECTOR, "check", *_CONFIG),
        MANIFEST: (*_MANIFEST, "check", *_CONFIG, *_ONE),
    }
    create = partial(large_environment, 1, vendors=["klaviyo"])
    with _folder() as folder, processes.server(processes.serve_sandbox, create) as sandbox:
        processes.write_inputs(folder, sandbox.recv(), [create().accounts[0].id])
        rows = _rows(spec, "spec", rounds, partial(_start, folder, b'"SPEC"'))
        rows += _rows(check, "check", rounds, partial(_start, folder, b'"SUCCEEDED"'))
    return Workload(rounds, rows)


WORKLOADS: dict[str, tuple[Callable[[Sizes, int], Workload], int]] = {
    "one-account": (one_account, 3),
    "many-accounts": (many_accounts, 2),
    "vendors-pages": (vendors_pages, 1),
    "start-up": (start_up, 5),
}
"""The function that measures each workload, and the number of rounds."""


def _rows(
    contenders: dict[str, Command], case: str, rounds: int, measure: Callable[[Command], Figures]
) -> list[Row]:
    """Measure the contenders in turn, so that other load on the machine affects them all.

    If the result of another contender is wrong, it gets a note instead of figures.

    Raises:
        UnverifiedReadError: If the connector's result is wrong.
    """
    rows = [Row(name, case) for name in contenders]
    for row in rows * rounds:
        command = contenders[row.name]
        if command[0] == _SDK_PYTHON and not _SDK_PYTHON.exists():
            row.note = "not measured: there is no .venv-sdk"
        if not row.note:
            try:
                row.reads.append(measure(command))
            except UnverifiedReadError as failure:
                if row.name == CONNECTOR:
                    raise
                row.reads, row.note = [], f"not verified: {failure}"
        result = row.note or f"{row.reads[-1]['seconds']:.1f} s"
        print(f"{row}: {result}", flush=True)
    return rows


def _read_one_account(records: int, rounds: int) -> list[Row]:
    """Measure reads of the page server's account."""
    contenders = {
        CONNECTOR: (*_UNPACED, *_READ),
        MANIFEST: (*_MANIFEST, *_READ, *_ONE),
        SDK: _SDK,
        PLAIN: _PLAIN,
        FLOOR: (*_FLOOR, *_READ),
    }
    with _folder() as folder, processes.server(page_server.serve, records) as pages:
        (folder / "page.json").write_bytes(page_server.Pages(records).page(0))
        more: dict[str, Any] = {"records": records, "page": "page.json"}
        processes.write_inputs(folder, pages.recv(), [ACCOUNT_ID], **more)

        def read(command: Command) -> Figures:
            figures = processes.run(command, folder)
            output = Output.parse(folder / processes.OUTPUT)
            output.verify((ACCOUNT_ID, segment_id(index)) for index in range(records))
            return figures

        return _rows(contenders, str(records), rounds, read)


def _read_sandbox(create: Callable[[], Environment], command: Command, **config: Any) -> Figures:
    """Measure a read from a new sandbox, whose limits nobody has used yet."""
    read = create().accounts
    with _folder() as folder, processes.server(processes.serve_sandbox, create) as sandbox:
        processes.write_inputs(folder, sandbox.recv(), [account.id for account in read], **config)
        figures = processes.run(command, folder)
        sandbox.send("stop")
        output = Output.parse(folder / processes.OUTPUT)
        output.verify(
            (account.id, segment["id"]) for account in read for segment in account.segments
        )
        return {**figures, **sandbox.recv()}


def _start(folder: Path, sign: bytes, command: Command) -> Figures:
    """Measure a command that reads no records, and verify its output."""
    figures = processes.run(command, folder)
    if sign not in (folder / processes.OUTPUT).read_bytes():
        raise UnverifiedReadError(f"{command[0]} did not print {sign.decode()}.")
    return figures


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="truto-contenders-") as name:
        yield Path(name)


# --- the reports ----------------------------------------------------------------------------------


def _write_reports() -> None:
    """Generate the tables and the chart from the saved figures."""
    from benchmarks import chart  # noqa: PLC0415 - matplotlib is not needed to measure

    kept = report.load(_FIGURES)
    workloads = {name: _workload(**kept[name]) for name in WORKLOADS if name in kept}
    report.write_readme("contenders.py", "\n\n".join(map(_section, workloads, workloads.values())))
    chart.draw(report.FOLDER / "contenders.svg", workloads)


def _workload(rows: list[dict[str, Any]], **others: Any) -> Workload:
    return Workload(rows=[Row(**row) for row in rows], **others)


def _section(name: str, workload: Workload) -> str:
    """Return a workload's heading, conditions, table, notes and targets."""
    rounds = f"median of {workload.rounds} rounds" if workload.rounds > 1 else "one round"
    columns: dict[str, Callable[[Row], str]] = {
        "reader": lambda row: row.name,
        "case": lambda row: f"{int(row.case):,}" if row.case.isdecimal() else row.case,
        "seconds": lambda row: f"{row.median('seconds'):.1f}",
        "seconds / manifest": lambda row: _share(workload, row, MANIFEST),
        "seconds / this connector": lambda row: _share(workload, row, CONNECTOR),
        "processor time": lambda row: f"{row.median('cpu_seconds'):.1f} s",
        "peak memory": lambda row: f"{row.peak_megabytes:.0f} MB",
        "requests": lambda row: f"{row.median('requests'):,.0f}",
        "429s": lambda row: f"{row.median('rate_limited'):,.0f}",
        "each round": lambda row: ", ".join(f"{read['seconds']:.1f}" for read in row.reads),
    }
    measured = [row for row in workload.rows if row.reads]
    if not workload.cases[0]:
        del columns["case"]
    if not any(row.median("requests") for row in measured):
        del columns["requests"], columns["429s"]
    parts = [
        f"#### {name.replace('-', ' ').capitalize()}",
        f"{workload.conditions}; {rounds}",
        report.table(measured, columns),
        *(f"{row}: {row.note}" for row in workload.rows if row.note),
        _target(name, workload),
    ]
    return "\n\n".join(filter(None, parts))


def _share(workload: Workload, row: Row, other: str) -> str:
    base = workload.row(other, row.case)
    return f"{row.median('seconds') / base.median('seconds'):.2f}" if base else ""


def _target(name: str, workload: Workload) -> str:
    """Return a workload's targets and whether each is met; "" if it has none."""
    first, last = workload.cases[0], workload.cases[-1]
    ours, largest = workload.row(CONNECTOR, first), workload.row(CONNECTOR, last)
    manifest = workload.row(MANIFEST, last)
    if name != "one-account" or not (ours and largest and manifest):
        return ""
    is_fast = largest.median("seconds") <= _MAX_SHARE * manifest.median("seconds")
    limit = _MAX_GROWTH * ours.peak_megabytes + _MAX_GROWTH_MEGABYTES
    return (
        f"Targets of this connector at {int(last):,} records: at most {_MAX_SHARE} times the "
        f"manifest's seconds, {report.verdict(is_met=is_fast)}; at most {limit:.0f} MB, which is "
        f"{_MAX_GROWTH} times its memory at {int(first):,} records plus {_MAX_GROWTH_MEGABYTES} "
        f"MB, {report.verdict(is_met=largest.peak_megabytes <= limit)}."
    )


if __name__ == "__main__":
    sys.exit(report.run_command(main))
