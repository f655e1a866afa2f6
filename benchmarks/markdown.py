"""Tables in Markdown, their place in the README, and the machine that they are from."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Row = tuple[str, ...]


def table(head: Row, rows: Sequence[Row], sides: str) -> str:
    """A table; of `sides` each letter is a column's: l for left, r for right."""
    rule = tuple("---:" if side == "r" else "---" for side in sides)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def write_between(path: Path, begin: str, end: str, content: str) -> None:
    """Puts content between two marks of a file, and leaves the text around them.

    Raises:
        ValueError: If the marks are not in the file.
    """
    text = path.read_text(encoding="utf-8")
    head, found_begin, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{path.name} does not have the lines {begin} and {end}.")
    path.write_text(f"{head}{begin}\n\n{content}\n\n{end}{tail}", encoding="utf-8")


def machine() -> list[str]:
    """What the figures were measured on."""
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return [f"{os.cpu_count()} processor cores, shared with the server that answers", python]
