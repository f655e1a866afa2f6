"""Coerce values to the type of their column, without loss or not at all.

These are the forms that Truto's mappings and the vendors are known to return: dates in several
forms, ids as numbers, booleans as strings.
"""

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Numbers from here on are milliseconds: this one is in the year 5138 as seconds, in 1973 as
# milliseconds.
_FIRST_MILLISECONDS = 100_000_000_000

_DATE_TIME = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?:[.,](?P<fraction>\d+))?)?"
    r"\s*(?P<zone>[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII,
)
# The forms of nearly all dates.
_RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|\+00:00)", re.ASCII)
# Seconds since 1970 have ten digits from 2001 to 2286, milliseconds thirteen.
_EPOCH_STRING = re.compile(r"\d{10}|\d{13}", re.ASCII)
# The grammar of JSON, within the range of a float.
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_FRACTION = re.compile(r"[.eE]")
# From here on, an integer in JSON may have been parsed as a float, its last digits lost.
_MAX_EXACT = 2.0**63
_SECONDS_LENGTH = len("2023-01-02T03:04:05")
_UTC = (None, "Z", "z", "UTC", "+00:00", "+0000", "-00:00")
# The precision of warehouses' timestamps. Further digits are cut, and the record reports that.
_FRACTION_DIGITS = 6
_MIN_TRUNCATED_LENGTH = len("2023-01-02T03:04:05.1234567")


class CoercionError(ValueError):
    """A value that does not match the type of its column."""


def string(value: Any) -> str:
    """Return a string as it is; a number or a boolean as its JSON.

    Raises:
        CoercionError: If it is an object or a list, or a number that has already lost its last
            digits, as an integer beyond 64 bits is parsed as a float.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= _MAX_EXACT:
        raise CoercionError
    if isinstance(value, bool | float):
        return orjson.dumps(value).decode()
    if isinstance(value, int):
        return str(value)
    raise CoercionError


def boolean(value: Any) -> bool | None:
    """Return a boolean as it is; accept "true", "false", 1 and 0; return None for a blank string.

    Raises:
        CoercionError: If it is anything else.
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
    raise CoercionError


def number(value: Any) -> int | float | None:
    """Return a number as it is, or from a string; None for a blank string.

    Raises:
        CoercionError: If it is anything else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip()
        if _NUMBER.fullmatch(word):
            return float(word) if _FRACTION.search(word) else int(word)
        if not word:
            return None
    raise CoercionError


def integer(value: Any) -> int | None:
    """Return an integer as it is, or from a float such as 5.0 or a string; None for a blank string.

    Raises:
        CoercionError: If it is anything else.
    """
    found = number(value)
    if isinstance(found, float):
        if not found.is_integer() or abs(found) >= _MAX_EXACT:
            raise CoercionError
        return int(found)
    return found


def date_time(value: Any) -> str | None:
    """Return a timestamp in RFC 3339, in UTC with Z, such as 2023-01-02T03:04:05.678Z.

    Accept ISO 8601 with or without a fraction and an offset, `YYYY-MM-DD HH:MM:SS`, a date, and
    seconds or milliseconds since 1970. Without a zone, it is UTC. Return None for a blank string.

    Raises:
        CoercionError: If it is not a valid timestamp, or outside the range of RFC 3339.
    """
    if isinstance(value, str):
        return _from_string(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(value)
    raise CoercionError


def array(value: Any) -> list[Any]:
    """Return a list as it is.

    Raises:
        CoercionError: If it is anything else.
    """
    if isinstance(value, list):
        return value
    raise CoercionError


def object_(value: Any) -> dict[str, Any]:
    """Return an object as it is.

    Raises:
        CoercionError: If it is anything else.
    """
    if isinstance(value, dict):
        return value
    raise CoercionError


def serialize(value: Any, *, option: int = 0) -> bytes:
    """Write JSON, including integers beyond 64 bits.

    Args:
        value: Any JSON value.
        option: Options of orjson.
    """
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError:
        return json.dumps(value, sort_keys=bool(option & orjson.OPT_SORT_KEYS)).encode()


def without_nul(value: Any) -> Any:
    """Return a JSON value with U+FFFD instead of U+0000, in keys and at any depth.

    PostgreSQL accepts no U+0000, neither in text nor in JSON: a single one fails the whole load.
    """
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [without_nul(entry) for entry in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(entry) for key, entry in value.items()}
    return value


def is_truncated(value: Any) -> bool:
    """Return whether a timestamp has more digits than its column can hold."""
    if not isinstance(value, str) or len(value) < _MIN_TRUNCATED_LENGTH:
        return False
    parts = _DATE_TIME.fullmatch(value.strip())
    return bool(parts and (parts["fraction"] or "")[_FRACTION_DIGITS:].strip("0"))


def _from_string(value: str) -> str | None:
    value = value.strip()
    if not value:
        return None
    if _RFC3339_UTC.fullmatch(value):
        # Only the calendar remains to be checked.
        seconds = value[:_SECONDS_LENGTH]
        try:
            datetime.fromisoformat(seconds)
        except ValueError:
            raise CoercionError from None
        return f"{seconds}Z"
    if _EPOCH_STRING.fullmatch(value):
        return _from_epoch(int(value))
    parts = _DATE_TIME.fullmatch(value)
    if parts is None:
        raise CoercionError
    date, time, fraction, zone = parts.groups()
    seconds = f"{date}T{time or '00:00'}"
    if len(seconds) < _SECONDS_LENGTH:
        seconds += ":00"
    try:
        moment = datetime.fromisoformat(seconds)
        if zone not in _UTC:
            seconds = (moment - _offset(zone)).isoformat()
    except (ValueError, OverflowError):
        raise CoercionError from None
    return _rfc3339(seconds, fraction)


def _from_epoch(value: float) -> str:
    milliseconds = value if abs(value) >= _FIRST_MILLISECONDS else value * 1000
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except (OverflowError, ValueError):
        raise CoercionError from None
    seconds = moment.replace(microsecond=0, tzinfo=None).isoformat()
    return _rfc3339(seconds, f"{moment.microsecond:06}")


def _rfc3339(seconds: str, fraction: str | None) -> str:
    """Write a timestamp without trailing zeros, and without a fraction that is zero."""
    digits = fraction[:_FRACTION_DIGITS].rstrip("0") if fraction else ""
    return f"{seconds}.{digits}Z" if digits else f"{seconds}Z"


def _offset(zone: str) -> timedelta:
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - the bounds of a clock
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset
