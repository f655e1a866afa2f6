"""The figures as Markdown: tables, and beside each target whether it is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.markdown import table, write_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.measure import Figures
    from benchmarks.scenarios import Scenario

BEGIN = "<!-- figures: written by many_accounts.py -->"
END = "<!-- end of figures -->"

_MOST_TIMES_BOUND = 1.5
_MOST_BYTES = 250e6
_MOST_STATE_SHARE = 0.1
_MOST_REQUESTS_OF_WRONG_TOKEN = 5
# "In line": what five times the accounts may cost beyond five times the time.
_MOST_TIMES_RATIO = 1.1


@dataclass(frozen=True)
class Target:
    """What a figure has to come to.

    Attributes:
        what: The target in words.
        measured: The figure in words.
        is_met: Whether the figure comes to it.
    """

    what: str
    measured: str
    is_met: bool


def targets(figures: Mapping[str, Figures]) -> list[Target]:
    """Judges what was measured; a target whose scenario was not read is left out.

    Args:
        figures: What was measured, by the scenario's name.
    """
    found = []
    for name in ("1", "1c", "2"):
        if name in figures:
            found += _of_large_read(name, figures[name])
    unlimited = [name for name in ("1", "1b", "1c", "2", "3") if name in figures]
    if unlimited:
        limited = sum(figures[name].rate_limited for name in unlimited)
        found.append(Target(f"{', '.join(unlimited)}: no 429 at all", f"{limited:,}", limited == 0))
    if "1" in figures and "2" in figures:
        times = figures["2"].ratio / figures["1"].ratio
        found.append(
            Target(
                f"2: its ratio to the bound is at most {_MOST_TIMES_RATIO:g} times that of 1",
                f"{times:.2f} times",
                times <= _MOST_TIMES_RATIO,
            )
        )
    for name in ("4", "4b"):
        if name in figures:
            sent = figures[name].requests
            what = f"{name}: at most {_MOST_REQUESTS_OF_WRONG_TOKEN} requests go out"
            found.append(Target(what, f"{sent:,}", sent <= _MOST_REQUESTS_OF_WRONG_TOKEN))
    if "6" in figures:
        found.append(_of_waiting(figures["6"]))
    return found


def _of_large_read(name: str, read: Figures) -> list[Target]:
    return [
        Target(
            f"{name}: at most {_MOST_TIMES_BOUND:g} times the bound",
            f"{read.ratio:.2f} times",
            read.ratio <= _MOST_TIMES_BOUND,
        ),
        Target(
            f"{name}: peak memory below {_MOST_BYTES / 1e6:.0f} MB",
            f"{read.peak_bytes / 1e6:.0f} MB",
            read.peak_bytes < _MOST_BYTES,
        ),
        Target(
            f"{name}: states below {_MOST_STATE_SHARE:.0%} of the output",
            f"{read.state_share:.2%}",
            read.state_share < _MOST_STATE_SHARE,
        ),
    ]


def _of_waiting(read: Figures) -> Target:
    last, first = read.last_whole or 0.0, read.first_waiting or 0.0
    return Target(
        "6: the others are read before the first of those that wait",
        f"{last:.1f} s and {first:.1f} s",
        last < first,
    )


def report(
    results: Sequence[tuple[Scenario, Figures]], start_up: float, heading: Sequence[str]
) -> str:
    """All tables.

    Args:
        results: Each scenario with what was measured.
        start_up: Seconds of the start-up.
        heading: When, where and how it was measured.
    """
    judged = targets({scenario.name: figures for scenario, figures in results})
    rows = [(each.what, each.measured, "met" if each.is_met else "**not met**") for each in judged]
    parts = [
        "\n".join(f"- {line}" for line in heading),
        "Time, in seconds, and requests:",
        _times(results, start_up),
        "Memory and output:",
        _sizes(results),
        *_troubles(results),
        "Targets:",
        table(("target", "measured", ""), rows, "lrl"),
    ]
    return "\n\n".join(part for part in parts if part)


def write(path: Path, tables: str) -> None:
    """Puts the tables between the two marks of a file, and leaves the text around them.

    Raises:
        ValueError: If the marks are not in the file.
    """
    write_between(path, BEGIN, END, tables)


def _times(results: Sequence[tuple[Scenario, Figures]], start_up: float) -> str:
    head = (
        *("", "scenario", "accounts", "workers", "time", "of it start-up"),
        *("requests", "bound", "time / bound", "429s"),
    )
    rows = [
        (
            scenario.name,
            scenario.what,
            f"{scenario.accounts:,}",
            str(scenario.num_workers or "default"),
            f"{read.seconds:.1f}",
            f"{start_up:.1f}",
            f"{read.requests:,}",
            f"{read.bound_seconds:.1f}",
            # The bound of a handful of requests is nothing to compare with.
            "" if scenario.wrong_token else f"{read.ratio:.2f}",
            f"{read.rate_limited:,}",
        )
        for scenario, read in results
    ]
    return table(head, rows, "llrrrrrrrr")


def _sizes(results: Sequence[tuple[Scenario, Figures]]) -> str:
    head = (
        *("", "peak memory", "processor time", "accounts complete", "records", "output"),
        *("states", "length of states", "share of output"),
    )
    rows = [
        (
            scenario.name,
            f"{read.peak_bytes / 1e6:.0f} MB",
            f"{read.cpu_seconds:.1f} s",
            f"{read.accounts:,}",
            f"{read.records:,}",
            f"{read.output_bytes / 1e6:.2f} MB",
            f"{read.states:,}",
            f"{read.state_bytes / 1e3:.1f} kB",
            f"{read.state_share:.2%}",
        )
        for scenario, read in results
    ]
    return table(head, rows, "lrrrrrrrr")


def _troubles(results: Sequence[tuple[Scenario, Figures]]) -> list[str]:
    rows = [
        (
            scenario.name,
            f"{read.last_whole:.1f}",
            "" if read.first_waiting is None else f"{read.first_waiting:.1f}",
            f"{read.seconds:.1f}",
        )
        for scenario, read in results
        if scenario.trouble is not None and read.last_whole is not None
    ]
    if not rows:
        return []
    head = ("", "last record of the others", "first record of those that wait", "end")
    return [
        "Where some accounts fail (5) or wait (6), in seconds after the start of the process:",
        table(head, rows, "lrrr"),
    ]
