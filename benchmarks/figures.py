"""The raw figures of the contenders, as they are kept in contenders.json."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CONNECTOR = "this connector"
MANIFEST = "a declarative manifest"


@dataclass(frozen=True)
class Read:
    """What was measured of one command.

    Attributes:
        seconds: From the start of its process to its end.
        cpu_seconds: The processor time that it used.
        peak_bytes: The most memory that it held (its resident set).
        records: How many records came; all of them, each once.
        requests: How many requests the server got, where it counts them.
        refused: How many of these it answered with 429.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    records: int = 0
    requests: int = 0
    refused: int = 0


@dataclass
class Row:
    """One contender in one case of a work.

    Attributes:
        name: The contender.
        case: The command, or the number of records, where a work has several.
        reads: One for each round.
        note: Why there are no figures; then there are no reads.
    """

    name: str
    case: str = ""
    reads: list[Read] = field(default_factory=list)
    note: str = ""

    @property
    def seconds(self) -> float | None:
        """The median of the rounds; None if there are no figures."""
        return statistics.median(read.seconds for read in self.reads) if self.reads else None

    @property
    def cpu_seconds(self) -> float:
        """The median of the rounds."""
        return statistics.median(read.cpu_seconds for read in self.reads)

    @property
    def peak_bytes(self) -> float:
        """The largest of the rounds."""
        return max(read.peak_bytes for read in self.reads)


@dataclass
class Work:
    """A work that contenders did.

    Attributes:
        heading: When, where and how it was measured.
        rounds: How often each contender did it.
        rows: What each came to.
        facts: What else was measured for it, by name.
    """

    heading: str
    rounds: int
    rows: list[Row]
    facts: dict[str, float] = field(default_factory=dict)

    def row(self, name: str, case: str = "") -> Row | None:
        """The row of a contender that has figures."""
        found = (row for row in self.rows if (row.name, row.case) == (name, case) and row.reads)
        return next(found, None)


def load(path: Path) -> dict[str, Work]:
    """Reads the works, by their letters; none if there is no file yet."""
    if not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: _work(**work) for name, work in kept.items()}


def save(path: Path, works: dict[str, Work]) -> None:
    """Writes the works in the order of their letters."""
    kept = {name: asdict(work) for name, work in sorted(works.items())}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _work(rows: list[dict[str, Any]], **rest: Any) -> Work:
    made = [Row(**{**row, "reads": [Read(**read) for read in row["reads"]]}) for row in rows]
    return Work(rows=made, **rest)
