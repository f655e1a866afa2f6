"""What both commands share: how they end, and the report of their figures."""

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

    The case is a command or a number of records, where a workload has several.
    """

    name: str
    case: str = ""
    reads: list[Figures] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.case}" if self.case else self.name

    def median(self, figure: str) -> float:
        """The median of the rounds; 0 for a figure that this workload does not have."""
        return statistics.median(read.get(figure, 0) for read in self.reads)

    @property
    def peak_megabytes(self) -> float:
        """The largest of the rounds."""
        return max(read["peak_bytes"] for read in self.reads) / 1e6


@dataclass
class Workload:
    """The figures of a workload, and when, where and how they were measured."""

    rounds: int
    rows: list[Row]
    conditions: str = ""

    @property
    def cases(self) -> list[str]:
        """The cases of its rows, in their order."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def row(self, name: str, case: str) -> Row | None:
        """The row of a contender that has figures."""
        rows = (row for row in self.rows if (row.name, row.case) == (name, case) and row.reads)
        return next(rows, None)


def run_command(main: Callable[[], None]) -> int:
    """Runs a command; returns its exit code."""
    # By raising, so that servers and readers are terminated as well.
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
    """When, where and how something is about to be measured."""
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
    """The figures that are kept in a file of this folder, by workload."""
    path = FOLDER / name
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept


def save(name: str, figures: dict[str, Any]) -> None:
    """Keeps figures, by workload, in a file of this folder."""
    (FOLDER / name).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def table(
    items: Iterable[Item], columns: Mapping[str, Callable[[Item], str]], *, left: int = 1
) -> str:
    """A table in Markdown: a row for each item, `left` columns of text and others of numbers."""
    rule = ["---" if index < left else "---:" for index in range(len(columns))]
    rows = [[cell(item) for cell in columns.values()] for item in items]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([*columns], rule, *rows))


def verdict(*, is_met: bool) -> str:
    """Whether a target is met."""
    return "met" if is_met else "**not met**"


def write_readme(command: str, content: str) -> None:
    """Replaces the figures of a command in the README.

    Raises:
        ValueError: If the README lacks the two lines around them.
    """
    begin, end = f"<!-- figures of {command} -->", f"<!-- end of figures of {command} -->"
    path = FOLDER / "README.md"
    head, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{path.name} lacks the lines {begin} and {end}.")
    path.write_text(f"{head}{begin}\n\n{content}\n\n{end}{tail}", encoding="utf-8")
