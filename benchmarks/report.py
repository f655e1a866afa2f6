"""Shared by both commands: how they end, and how they report their figures."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import statistics
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.processes import Figures, UnverifiedReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FOLDER = Path(__file__).resolve().parent

Item = TypeVar("Item")


@dataclass
class Row:
    """A contender in one case of a workload: its reads, or a note why there are none.

    If a workload has several cases, each is a command or a number of records.
    """

    name: str
    case: str = ""
    reads: list[Figures] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.case}" if self.case else self.name

    def median(self, figure: str) -> float:
        """Return the median of the rounds; 0 for a figure that this workload does not have."""
        return statistics.median(read.get(figure, 0) for read in self.reads)

    @property
    def peak_megabytes(self) -> float:
        """The largest peak of all rounds."""
        return max(read["peak_bytes"] for read in self.reads) / 1e6


@dataclass
class Workload:
    """The figures of a workload, and when, where and how they were measured."""

    rounds: int
    rows: list[Row]
    conditions: str = ""

    @property
    def cases(self) -> list[str]:
        """The cases of the rows, each once, in order."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def row(self, name: str, case: str) -> Row | None:
        """Return a contender's row for a case; None if it has no figures."""
        rows = (row for row in self.rows if (row.name, row.case) == (name, case) and row.reads)
        return next(rows, None)


def run_command(main: Callable[[], None]) -> int:
    """Run a command and return its exit code."""
    # Raise on SIGTERM, so that servers and readers are terminated as well.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except UnverifiedReadError as failure:
        sys.stderr.write(f"{failure} No figures are kept of it.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return 128 + signal.SIGINT
    return 0


def conditions() -> str:
    """Return when, where and with which command the next measurement runs."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    parts = [
        f"{datetime.now(timezone.utc):%Y-%m-%d}",
        f"{os.cpu_count()} processor cores, shared with the server",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"load average {os.getloadavg()[0]:.1f} before",
        f"`{command}`",
    ]
    return ", ".join(parts)


def load(name: str) -> dict[str, Any]:
    """Load the figures of a file in this folder, by workload."""
    path = FOLDER / name
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept


def save(name: str, figures: dict[str, Any]) -> None:
    """Save figures, by workload, to a file in this folder."""
    (FOLDER / name).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def table(
    items: Iterable[Item], columns: Mapping[str, Callable[[Item], str]], *, left: int = 1
) -> str:
    """Return a Markdown table with a row per item; the first `left` columns are text."""
    rule = ["---" if index < left else "---:" for index in range(len(columns))]
    rows = [[cell(item) for cell in columns.values()] for item in items]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([*columns], rule, *rows))


def verdict(*, is_met: bool) -> str:
    """Return whether a target is met, as text."""
    return "met" if is_met else "**not met**"


def write_readme(command: str, content: str) -> None:
    """Replace the figures of a command in the README.

    Raises:
        ValueError: If the README lacks the two lines that mark them.
    """
    begin, end = f"<!-- figures of {command} -->", f"<!-- end of figures of {command} -->"
    path = FOLDER / "README.md"
    head, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{path.name} lacks the lines {begin} and {end}.")
    path.write_text(f"{head}{begin}\n\n{content}\n\n{end}{tail}", encoding="utf-8")
