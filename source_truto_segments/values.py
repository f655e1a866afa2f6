"""Values said in the type of their column: each conversion is lossless, or it refuses.

The forms are those that Truto's mappings and the vendors behind them are known to give: dates in
several forms, ids as numbers, booleans as text.
"""

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# A number of at least this size is milliseconds: as seconds it would be after the year 5138,
# as milliseconds it is from 1973 on.
_FIRST_MILLISECONDS = 100_000_000_000

_DATE_TIME = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?:[.,](?P<fraction>\d+))?)?"
    r"\s*(?P<zone>[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII,
)
# The forms that nearly all dates have.
_COMMON = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|\+00:00)", re.ASCII)
# Seconds since 1970 have ten digits from 2001 to 2286, milliseconds thirteen.
_EPOCH_TEXT = re.compile(r"\d{10}|\d{13}", re.ASCII)
# The grammar of JSON, within what a float can say.
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_FRACTION = re.compile(r"[.eE]")
# From 2**63 on, a whole number in JSON is read as a float, and its last digits are lost.
_FIRST_INEXACT = 2.0**63
_WHOLE_LENGTH = len("2023-01-02T03:04:05")
_UTC = (None, "Z", "z", "UTC", "+00:00", "+0000", "-00:00")
# What the warehouses' timestamps hold; further digits are cut and the cut is named.
_FRACTION_DIGITS = 6
_FIRST_CUT_LENGTH = len("2023-01-02T03:04:05.1234567")


class MisfitError(ValueError):
    """A value that its column cannot say."""


def text(value: Any) -> str:
    """A text as it is; a number or a boolean as its JSON.

    Raises:
        MisfitError: If it is an object or a list, or a number whose last digits are lost already:
            one beyond 64 bits comes as a float.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= _FIRST_INEXACT:
        raise MisfitError
    if isinstance(value, bool | float):
        return orjson.dumps(value).decode()
    if isinstance(value, int):
        return str(value)
    raise MisfitError


def boolean(value: Any) -> bool | None:
    """A boolean as it is; "true" and "false" in any case, 1 and 0; an empty text says nothing.

    Raises:
        MisfitError: If it is anything else.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "false"):
            return word == "true"
        if not word:
            return None
    raise MisfitError


def number(value: Any) -> int | float | None:
    """A number as it is; the text of one; an empty text says nothing.

    Raises:
        MisfitError: If it is anything else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip()
        if _NUMBER.fullmatch(word):
            return float(word) if _FRACTION.search(word) else int(word)
        if not word:
            return None
    raise MisfitError


def integer(value: Any) -> int | None:
    """A whole number as it is, also where it is said as 5.0 or as a text.

    Raises:
        MisfitError: If it is anything else.
    """
    found = number(value)
    if isinstance(found, float):
        if not found.is_integer() or abs(found) >= _FIRST_INEXACT:
            raise MisfitError
        return int(found)
    return found


def date_time(value: Any) -> str | None:
    """A point in time as RFC 3339 in UTC with Z, such as 2023-01-02T03:04:05.678Z.

    It can come as ISO 8601 with or without a fraction and an offset, as `YYYY-MM-DD HH:MM:SS` (in
    UTC where no zone is named), as a date, and as seconds or milliseconds since 1970. An empty text
    says nothing.

    Raises:
        MisfitError: If it is no point in time that RFC 3339 can say.
    """
    if isinstance(value, str):
        return _date_time_of_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _date_time_of_epoch(value)
    raise MisfitError


def a_list(value: Any) -> list[Any]:
    """A list as it is.

    Raises:
        MisfitError: If it is none.
    """
    if isinstance(value, list):
        return value
    raise MisfitError


def an_object(value: Any) -> dict[str, Any]:
    """An object as it is.

    Raises:
        MisfitError: If it is none.
    """
    if isinstance(value, dict):
        return value
    raise MisfitError


def is_cut(value: Any) -> bool:
    """Whether a date-time had more digits than its column holds."""
    if not isinstance(value, str) or len(value) < _FIRST_CUT_LENGTH:
        return False
    parts = _DATE_TIME.fullmatch(value.strip())
    return bool(parts and (parts["fraction"] or "")[_FRACTION_DIGITS:].strip("0"))


def _date_time_of_text(value: str) -> str | None:
    value = value.strip()
    if not value:
        return None
    if _COMMON.fullmatch(value):
        # It needs a check of the calendar only.
        whole = value[:_WHOLE_LENGTH]
        try:
            datetime.fromisoformat(whole)
        except ValueError:
            raise MisfitError from None
        return f"{whole}Z"
    if _EPOCH_TEXT.fullmatch(value):
        return _date_time_of_epoch(int(value))
    parts = _DATE_TIME.fullmatch(value)
    if parts is None:
        raise MisfitError
    date, time, fraction, zone = parts.groups()
    whole = f"{date}T{time or '00:00'}"
    if len(whole) < _WHOLE_LENGTH:
        whole += ":00"
    try:
        moment = datetime.fromisoformat(whole)
        if zone not in _UTC:
            whole = (moment - _offset(zone)).isoformat()
    except (ValueError, OverflowError):
        raise MisfitError from None
    return _rfc3339(whole, fraction)


def _date_time_of_epoch(value: float) -> str:
    milliseconds = value if abs(value) >= _FIRST_MILLISECONDS else value * 1000
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except (OverflowError, ValueError):
        raise MisfitError from None
    whole = moment.replace(microsecond=0, tzinfo=None).isoformat()
    return _rfc3339(whole, f"{moment.microsecond:06}")


def _rfc3339(whole: str, fraction: str | None) -> str:
    """One form for each point in time: no fraction where it is zero, no zeros at its end."""
    digits = fraction[:_FRACTION_DIGITS].rstrip("0") if fraction else ""
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"


def _offset(zone: str) -> timedelta:
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - the bounds of a clock
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset
