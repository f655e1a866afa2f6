"""Draws contenders.svg from contenders.json: a panel of horizontal bars for each work.

The same figures give the same bytes. The background is white by itself, so that the picture can be
read on a dark page, too.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from benchmarks import figures
from benchmarks.figures import CONNECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.figures import Row, Work

FOLDER = Path(__file__).resolve().parent

_OURS, _OTHERS, _TEXT, _QUIET = "#1f6feb", "#8c959f", "#1f2328", "#59636e"
# How much of its colour the palest bar has.
_PALEST = 0.35
_STYLE = {
    "svg.hashsalt": "contenders",
    # Text stays text: the file is small, and the page's own letters are used.
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _TEXT,
    "ytick.color": _TEXT,
}
# In inches: the picture, the names on its left, and the lines of a panel.
_WIDTH, _NAMES, _LINE, _THIN_LINE, _TITLE, _MARGIN = 8.6, 2.8, 0.25, 0.19, 0.29, 0.18
_BAR = 0.76
# Between the readers where each has several bars, in bars.
_GAP = 0.5
# Room for the labels at the ends of the bars.
_ROOM = 1.12


@dataclass(frozen=True)
class _Bar:
    """A bar of a panel.

    Attributes:
        name: What stands on its left; nothing where the name stands beside another one.
        value: How long it is; None where there are no figures.
        note: Why there are none.
        is_ours: Whether it is this connector's.
        shade: How much of its colour it has, from 0 to 1.
        gap: The distance from the bar above it, in bars.
    """

    name: str
    value: float | None
    note: str
    is_ours: bool
    shade: float = 1.0
    gap: float = 0.0


@dataclass(frozen=True)
class _Panel:
    """A work: its bars, and what they show."""

    title: str
    bars: list[_Bar]
    digits: int = 1
    line: float = _LINE

    @property
    def height(self) -> float:
        """The height of its bars in inches."""
        return self.line * (len(self.bars) + sum(bar.gap for bar in self.bars))


def main() -> int:
    works = figures.load(FOLDER / "contenders.json")
    mpl.use("svg")
    with mpl.rc_context(_STYLE):
        draw(works).savefig(
            FOLDER / "contenders.svg",
            format="svg",
            facecolor="white",
            # The date and the version would make each file another one.
            metadata={"Date": None, "Creator": None, "Title": "This connector and its contenders"},
        )
    return 0


def draw(works: dict[str, Work]) -> Figure:
    """The picture of all works that there are figures of."""
    panels = [_PANELS[letter](works[letter]) for letter in sorted(works)]
    height = sum(_TITLE + panel.height + _MARGIN for panel in panels) + _MARGIN
    figure = Figure(figsize=(_WIDTH, height))
    top = height - _MARGIN
    for panel in panels:
        figure.text(_MARGIN / _WIDTH, top / height, panel.title, va="top", size=10, weight="bold")
        top -= _TITLE + panel.height
        width = _WIDTH - _NAMES - _MARGIN
        place = (_NAMES / _WIDTH, top / height, width / _WIDTH, panel.height / height)
        _draw_bars(figure.add_axes(place), panel)
        top -= _MARGIN
    return figure


def _draw_bars(axes: Any, panel: _Panel) -> None:
    """A bar for each, with its value at its end; a note where there is none."""
    longest = max((bar.value for bar in panel.bars if bar.value), default=1.0)
    places: list[float] = []
    line = 0.0
    for bar in panel.bars:
        line += bar.gap
        places.append(line + 0.5)
        line += 1.0
    for place, bar in zip(places, panel.bars, strict=True):
        color = _shaded(_OURS if bar.is_ours else _OTHERS, bar.shade)
        axes.barh(place, bar.value or 0.0, _BAR, color=color)
        axes.text(
            (bar.value or 0.0) + longest * 0.01,
            place,
            bar.note if bar.value is None else f"{bar.value:,.{panel.digits}f}",
            va="center_baseline",
            color=_QUIET if bar.value is None else _TEXT,
            weight="bold" if bar.is_ours else "normal",
        )
    axes.set_yticks(places, [bar.name for bar in panel.bars])
    axes.set_ylim(line, 0.0)
    axes.set_xlim(0.0, longest * _ROOM)
    # Each bar has its value: no axis is needed to read it.
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)


def _one_account(work: Work) -> _Panel:
    records = int(work.rows[0].case)
    title = f"(a) One account of {records:,} records, answered at once: seconds"
    return _Panel(title, [_of_seconds(row) for row in work.rows])


def _many_accounts(work: Work) -> _Panel:
    accounts = work.facts["accounts"]
    title = f"(b) {accounts:,.0f} accounts of two pages, 300 ms an answer, Truto's limits: seconds"
    return _Panel(title, [_of_seconds(row) for row in work.rows])


def _start_up(work: Work) -> _Panel:
    bars = [replace(_of_seconds(row), name=f"{row.case}: {_plain(row.name)}") for row in work.rows]
    return _Panel("(c) Start-up: seconds", bars, digits=2)


def _memory(work: Work) -> _Panel:
    cases = list(dict.fromkeys(row.case for row in work.rows))
    *sizes, last = [f"{int(case):,}" for case in cases]
    title = f"(d) Peak memory at {', '.join(sizes)} and {last} records, from pale to full: MB"
    names = list(dict.fromkeys(row.name for row in work.rows))
    found = {(row.name, row.case): row for row in work.rows}
    bars: list[_Bar] = []
    for name in names:
        for place, case in enumerate(cases):
            row = found[name, case]
            bars.append(
                _Bar(
                    _plain(name) if place == len(cases) // 2 else "",
                    row.peak_bytes / 1e6 if row.reads else None,
                    row.note,
                    _is_ours(row),
                    _PALEST + (1 - _PALEST) * (place + 1) / len(cases),
                    _GAP if place == 0 and bars else 0.0,
                )
            )
    return _Panel(title, bars, digits=0, line=_THIN_LINE)


_PANELS: dict[str, Callable[[Work], _Panel]] = {
    "a": _one_account,
    "b": _many_accounts,
    "c": _start_up,
    "d": _memory,
}


def _of_seconds(row: Row) -> _Bar:
    return _Bar(_plain(row.name), row.seconds, row.note, _is_ours(row))


def _is_ours(row: Row) -> bool:
    return row.name.startswith(CONNECTOR)


def _shaded(color: str, shade: float) -> tuple[float, ...]:
    return tuple(1 - shade * (1 - part) for part in to_rgb(color))


def _plain(name: str) -> str:
    """A name without the marks of Markdown."""
    return name.replace("`", "")


if __name__ == "__main__":
    sys.exit(main())
