"""Describe values by their types, forms and numbers, never by their content."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}
_DAY, _TIME, _OFFSET = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d(:\d\d([.,]\d+)?)?", r"[+-]\d\d(:?\d\d)?"
_DATE_FORMS = {
    "ISO 8601 with Z": rf"{_DAY}[Tt]{_TIME}[Zz]",
    "ISO 8601 with an offset": rf"{_DAY}[Tt]{_TIME}{_OFFSET}",
    "ISO 8601 without a zone": rf"{_DAY}[Tt]{_TIME}",
    "YYYY-MM-DD HH:MM:SS": rf"{_DAY} {_TIME} ?([Zz]|{_OFFSET})?",
    "a date alone": _DAY,
    "seconds since 1970": r"\d{10}",
    "milliseconds since 1970": r"\d{13}",
}
_FIRST_MILLISECONDS = 100_000_000_000


def kind(holder: Mapping[str, Any], name: str) -> str:
    """Return the type of a field, or whether it is missing, null or blank."""
    value = holder.get(name)
    if value is None:
        return "null" if name in holder else "missing"
    return "blank" if value == "" else type_name(value)


def type_name(value: Any) -> str:
    """Return the name of a value's JSON type."""
    return "null" if value is None else _TYPES.get(type(value), "list")


def date_form(value: Any) -> str | None:
    """Return the form of a date; None if the connector does not know it."""
    if type_name(value) in ("integer", "number"):
        unit = "milliseconds" if abs(value) >= _FIRST_MILLISECONDS else "seconds"
        return f"{unit} since 1970, a number"
    text = value.strip() if isinstance(value, str) else ""
    return next((name for name, form in _DATE_FORMS.items() if re.fullmatch(form, text)), None)


def is_text(value: Any) -> bool:
    """Return whether a value is a string that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tally(names: Iterable[str]) -> str:
    """Return the count of each name, the most frequent first."""
    return ", ".join(f"{name} ({number:,})" for name, number in Counter(names).most_common())


def span(numbers: Sequence[int]) -> str:
    """Return the range of the numbers."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
