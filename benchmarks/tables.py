"""The figures of the contenders as Markdown: a section for each work, with its targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import CONNECTOR, MANIFEST
from benchmarks.markdown import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.figures import Row, Work

_MOST_OF_MANIFEST = 0.6
_MOST_GROWTH = 1.1
_GROWTH_BYTES = 5e6


def report(works: dict[str, Work]) -> str:
    """The sections of all works that there are figures of."""
    return "\n\n".join(of(letter, works[letter]) for letter in sorted(works))


def of(letter: str, work: Work) -> str:
    """The section of a work."""
    title, section = _SECTIONS[letter]
    rounds = f"median of {work.rounds} rounds" if work.rounds > 1 else "one round"
    return "\n\n".join([f"#### ({letter}) {title}", f"{work.heading}; {rounds}", *section(work)])


def _one_account(work: Work) -> list[str]:
    head = (
        *("reader", "seconds", "of the manifest's time", "of this connector's"),
        *("records a second", "processor time", "peak memory", "each round"),
    )
    rows = []
    for row in work.rows:
        ours, theirs = work.row(CONNECTOR, row.case), work.row(MANIFEST, row.case)
        if row.seconds is None:
            rows.append((row.name, row.note, *[""] * (len(head) - 2)))
            continue
        rows.append(
            (
                row.name,
                f"{row.seconds:.1f}",
                _ratio(row, theirs),
                _ratio(row, ours),
                f"{int(row.case) / row.seconds:,.0f}",
                f"{row.cpu_seconds:.1f} s",
                _megabytes(row.peak_bytes),
                _rounds(row),
            )
        )
    parts = [table(head, rows, "lrrrrrrl"), *_target_of_manifest(work)]
    facts = work.facts
    parts.append(
        f"The server by itself gives {facts['server pages a second']:,.0f} pages a second to a "
        "client that does nothing with them. In one thread, "
        f"{facts['fitted records a second']:,.0f} records a second are made to fit their columns, "
        f"and {facts['copied records a second']:,.0f} are copied."
    )
    return parts


def _target_of_manifest(work: Work) -> list[str]:
    case = work.rows[0].case
    ours, theirs = work.row(CONNECTOR, case), work.row(MANIFEST, case)
    if ours is None or theirs is None or not ours.seconds or not theirs.seconds:
        return []
    ratio = ours.seconds / theirs.seconds
    verdict = _verdict(is_met=ratio <= _MOST_OF_MANIFEST)
    return [
        f"Target: at most {_MOST_OF_MANIFEST} of the manifest's time; it is {ratio:.2f}: {verdict}."
    ]


def _many_accounts(work: Work) -> list[str]:
    head = (
        *("reader", "seconds", "of this connector's", "requests", "429s", "records"),
        *("peak memory", "each round"),
    )
    ours = work.row(CONNECTOR)
    rows = []
    for row in work.rows:
        if row.seconds is None:
            rows.append((row.name, row.note, *[""] * (len(head) - 2)))
            continue
        rows.append(
            (
                row.name,
                f"{row.seconds:.1f}",
                _ratio(row, ours),
                _range([read.requests for read in row.reads]),
                _range([read.refused for read in row.reads]),
                f"{row.reads[0].records:,}, all",
                _megabytes(row.peak_bytes),
                _rounds(row),
            )
        )
    return [table(head, rows, "lrrrrrrl")]


def _start_up(work: Work) -> list[str]:
    head = ("command", "reader", "seconds", "of this connector's", "peak memory", "each round")
    rows = []
    for row in work.rows:
        if row.seconds is None:
            rows.append((f"`{row.case}`", row.name, row.note, "", "", ""))
            continue
        rows.append(
            (
                f"`{row.case}`",
                row.name,
                f"{row.seconds:.2f}",
                _ratio(row, work.row(CONNECTOR, row.case)),
                _megabytes(row.peak_bytes),
                ", ".join(f"{read.seconds:.2f}" for read in row.reads),
            )
        )
    return [table(head, rows, "llrrrl")]


def _memory(work: Work) -> list[str]:
    cases = list(dict.fromkeys(row.case for row in work.rows))
    names = list(dict.fromkeys(row.name for row in work.rows))
    head = ("reader", *(f"{int(case):,} records" for case in cases), "largest / smallest")
    rows = []
    for name in names:
        found = {row.case: row for row in work.rows if row.name == name}
        cells = [
            f"{_megabytes(row.peak_bytes)} in {row.seconds:.0f} s" if row.seconds else row.note
            for row in (found[case] for case in cases)
        ]
        first, last = work.row(name, cases[0]), work.row(name, cases[-1])
        growth = f"{last.peak_bytes / first.peak_bytes:.2f}" if first and last else ""
        rows.append((name, *cells, growth))
    return [table(head, rows, "l" + "r" * (len(cases) + 1)), *_target_of_memory(work, cases)]


def _target_of_memory(work: Work, cases: list[str]) -> list[str]:
    first, last = work.row(CONNECTOR, cases[0]), work.row(CONNECTOR, cases[-1])
    if first is None or last is None:
        return []
    most = _MOST_GROWTH * first.peak_bytes + _GROWTH_BYTES
    size = _megabytes(last.peak_bytes)
    rule = (
        f"this connector's at {int(cases[-1]):,} records is at most {_MOST_GROWTH} times that at "
        f"{int(cases[0]):,} and {_megabytes(_GROWTH_BYTES)} more, which is {_megabytes(most)}"
    )
    return [f"Target: {rule}; it is {size}: {_verdict(is_met=last.peak_bytes <= most)}."]


_SECTIONS: dict[str, tuple[str, Callable[[Work], list[str]]]] = {
    "a": ("One large account, answered at once", _one_account),
    "b": ("Many accounts, under Truto's limits", _many_accounts),
    "c": ("Start-up", _start_up),
    "d": ("Peak memory", _memory),
}


def _verdict(*, is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _ratio(row: Row, other: Row | None) -> str:
    if other is None or not row.seconds or not other.seconds:
        return ""
    return f"{row.seconds / other.seconds:.2f}"


def _rounds(row: Row) -> str:
    return ", ".join(f"{read.seconds:.1f}" for read in row.reads)


def _range(numbers: list[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
