"""Draw contenders.svg: a panel of horizontal bars for each workload, and one for memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.report import Workload

_OURS, _OTHERS = "#1f6feb", "#8c959f"
# Text stays text, and the same figures make the same bytes.
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "contenders", "font.size": 9}
_METADATA = {"Date": None, "Creator": None, "Title": "This connector and its contenders"}
_INCHES_A_BAR, _INCHES_A_PANEL, _WIDTH = 0.22, 0.5, 8.6


def draw(path: Path, workloads: Mapping[str, Workload]) -> None:
    """Draw the workloads that have figures."""
    drawn = [
        (name, each, unit)
        for name, each in workloads.items()
        for unit in (("seconds", "MB") if name == "one-account" else ("seconds",))
    ]
    heights = [_INCHES_A_PANEL + _INCHES_A_BAR * len(each.rows) for _, each, _ in drawn]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
        panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(panels, drawn, strict=True):
            _draw_bars(axes, *panel)
        figure.savefig(path, format="svg", facecolor="white", metadata=_METADATA)


def _draw_bars(axes: Any, name: str, workload: Workload, unit: str) -> None:
    """Draw a group of bars for each contender, with a bar for each case."""
    names = list(dict.fromkeys(row.name for row in workload.rows))
    cases = workload.cases
    height = 0.8 / len(cases)
    for index, case in enumerate(cases):
        last = " records" if case == cases[-1] else ""
        rows = [workload.row(each, case) for each in names]
        values = [
            (row.peak_megabytes if unit == "MB" else row.median("seconds")) if row else math.nan
            for row in rows
        ]
        bars = axes.barh(
            [position + index * height for position in range(len(names))],
            values,
            height,
            label=f"{int(case):,}{last}" if case.isdecimal() else case,
            color=[_OURS if each.startswith("this connector") else _OTHERS for each in names],
            alpha=(index + 1) / len(cases),
        )
        labels = ["" if math.isnan(value) else f"{value:,.3g}" for value in values]
        axes.bar_label(bars, labels, padding=3)
    axes.set_title(f"{name.replace('-', ' ').capitalize()}: {unit}", loc="left", weight="bold")
    axes.set_yticks(
        [position + 0.4 - height / 2 for position in range(len(names))],
        [each.replace("`", "") for each in names],
    )
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    if len(cases) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(cases), frameon=False)
