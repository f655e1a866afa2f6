"""The results as a table for a terminal, and as Markdown to attach to an issue."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from live_checks.facts import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from live_checks.facts import Fact, Seen

    Results = Sequence[tuple[Fact, Seen]]

WIDTH = 100
# The widths of the columns, which have two spaces between them.
_WIDTHS = (9, 43, 44)
_NOT_CHECKED = (
    "The limits of 500 requests in 10 s per token and 50 per account, and the form of a 429.",
    "How long a cursor is valid.",
    "Errors of vendors: a refused connection, missing permissions, an unavailable vendor.",
    "Whether an account that must reconnect becomes active after a successful request.",
    "Fields and errors of the other vendors: a run sees one account.",
)


def summary(results: Results) -> str:
    """Return how many facts hold, differ or could not be seen."""
    counts = Counter(seen.outcome for _, seen in results)
    return (
        f"{len(results)} facts: {counts[Outcome.HOLDS]} hold, {counts[Outcome.DIFFERS]} differ, "
        f"{counts[Outcome.UNSEEN]} could not be seen."
    )


def table(results: Results) -> str:
    """Return the table for a terminal, with the differences at the end."""
    lines = [*_row("", "what the connector assumes", "what was seen"), "-" * WIDTH]
    for fact, seen in sorted(results, key=lambda result: result[1].outcome is Outcome.DIFFERS):
        lines += _row(seen.outcome.value, fact.relied_on, seen.text)
        if seen.outcome is Outcome.DIFFERS:
            lines += _row("", f"→ {fact.follows}", f"→ Setting: {fact.setting or 'none'}")
    return "\n".join(lines)


def markdown(results: Results, heading: Sequence[str]) -> str:
    """Return the Markdown file: the heading, the table, and what no run can check."""
    lines = ["# How the live API behaves", "", *heading, ""]
    lines += [
        "Types, forms, numbers, statuses and the names of headers only: no customer's data.",
        "",
        "| outcome | what the connector assumes | what was seen | what follows | setting |",
        "|---|---|---|---|---|",
    ]
    for fact, seen in results:
        outcome = seen.outcome.value
        if seen.outcome is Outcome.DIFFERS:
            outcome = f"**{outcome}**"
        cells = (outcome, fact.relied_on, seen.text, fact.follows, fact.setting or "none")
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    lines += ["", "Not checked:", "", *(f"- {text}" for text in _NOT_CHECKED), ""]
    return "\n".join(lines)


def _row(*cells: str) -> Iterator[str]:
    wrapped = [textwrap.wrap(cell, width) for cell, width in zip(cells, _WIDTHS, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = (
            (cell[number] if number < len(cell) else "").ljust(width)
            for cell, width in zip(wrapped, _WIDTHS, strict=True)
        )
        yield "  ".join(parts).rstrip()
