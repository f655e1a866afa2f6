"""Facts about the fields of a segment: their types and forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from live_checks.account import Account, UnseenError
from live_checks.facts import FACTS, Fact, Seen, fact, holds_if
from live_checks.forms import date_form, is_text, kind, tally, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

STATUSES = ("active", "pending", "processing", "inactive", "failed")
DATES = ("created_at", "updated_at", "last_calculated_at")


@fact(
    "id is a string that is not blank, and no two segments have the same id.",
    "A number becomes a string; without an id, a record can be neither compared nor deleted.",
)
def field_id(account: Account) -> Seen:
    segments = account.segments
    found = [segment["id"] for segment in segments if is_text(segment.get("id"))]
    repeated = len(found) - len(set(found))
    return holds_if(
        len(found) == len(segments) and not repeated,
        f"{tally(kind(segment, 'id') for segment in segments)}; {repeated} ids twice",
    )


def _add_field(
    name: str,
    form: str,
    describe: Callable[[Any], str | None],
    follows: str = "A value of another type becomes null if it cannot be converted.",
) -> None:
    """Add the fact that a field has a form; `describe` returns None for any other form."""

    def check(account: Account) -> Seen:
        values = [segment.get(name) for segment in account.segments]
        filled = [value for value in values if value not in (None, "")]
        if not filled:
            raise UnseenError("It is empty in all segments.")
        text = tally(describe(value) or f"another {type_name(value)}" for value in filled)
        return holds_if(all(map(describe, filled)), f"{text}; empty: {len(values) - len(filled)}")

    relied_on = f"{name} is {form}, or empty."
    FACTS.append(Fact(f"field_{name}", relied_on, follows, f"deselect the column {name}", check))


def _only(name: str) -> Callable[[Any], str | None]:
    return lambda value: name if type_name(value) == name else None


_add_field("name", "a string", _only("string"))
_add_field("description", "a string", _only("string"))
_add_field(
    "status",
    ", ".join(STATUSES),
    lambda value: next((status for status in STATUSES if status == value), None),
    "The connector emits any other text as it is.",
)
_add_field("is_starred", "true or false", _only("boolean"))
for _date in DATES:
    _add_field(
        _date,
        "ISO 8601, YYYY-MM-DD HH:MM:SS, or seconds or milliseconds since 1970",
        date_form,
        "Any other form becomes null; a date without a zone counts as UTC.",
    )
_add_field("remote_data", "an object", _only("object"))
