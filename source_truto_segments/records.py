"""A raw record made to fit the schema of the stream, with what had to be changed.

Truto does not validate what its mappings return: dates come in several forms, ids as numbers. What
can be said in the column's type without loss is said so; what cannot becomes null, and the change
is named, so that it can go into the record's `meta.changes` as the Airbyte protocol has it.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
from airbyte_protocol_dataclasses.models import (
    AirbyteRecordMessageMetaChange,
    Change,
    Reason,
)

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
# Seconds since 1970 have ten digits from 2001 to 2286, milliseconds thirteen.
_EPOCH_TEXT = re.compile(r"\d{10}|\d{13}", re.ASCII)
_CANONICAL_LENGTH = len("2023-01-02T03:04:05Z")
# What the warehouses' timestamps hold; further digits are cut and the cut is named.
_FRACTION_DIGITS = 6


_change = AirbyteRecordMessageMetaChange


class MisfitError(ValueError):
    """A value that its column cannot say."""


def fit(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[AirbyteRecordMessageMetaChange]]:
    """Makes a record fit the schema of `segments`.

    Lossless changes are just made. Fields that the schema does not know pass through untouched.
    Making a record fit twice changes nothing the second time.

    Args:
        record: The unified record as Truto gave it.

    Returns:
        The fitting record and the changes that lost something, one for each field.
    """
    fitting = dict(record)
    changes: list[AirbyteRecordMessageMetaChange] = []
    for name, convert in _COLUMNS:
        value = fitting.get(name)
        if value is None:
            continue
        try:
            fitting[name] = convert(value)
        except MisfitError:
            fitting[name] = None
            changes.append(_change(name, Change.NULLED, Reason.SOURCE_SERIALIZATION_ERROR))
        else:
            if convert is date_time and _is_cut(value):
                cut = _change(name, Change.TRUNCATED, Reason.SOURCE_FIELD_SIZE_LIMITATION)
                changes.append(cut)
    return fitting, changes


def text(value: Any) -> str:
    """A text as it is; a number or a boolean as its JSON.

    Raises:
        MisfitError: If it is an object or a list.
    """
    if isinstance(value, str):
        return value
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


def an_object(value: Any) -> dict[str, Any]:
    """An object as it is.

    Raises:
        MisfitError: If it is none.
    """
    if isinstance(value, dict):
        return value
    raise MisfitError


_COLUMNS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("id", text),
    ("name", text),
    ("description", text),
    ("status", text),
    ("is_starred", boolean),
    ("created_at", date_time),
    ("updated_at", date_time),
    ("last_calculated_at", date_time),
    ("remote_data", an_object),
)


def _date_time_of_text(value: str) -> str | None:
    value = value.strip()
    if not value:
        return None
    if _EPOCH_TEXT.fullmatch(value):
        return _date_time_of_epoch(int(value))
    if len(value) == _CANONICAL_LENGTH and value[10] == "T" and value[-1] == "Z":
        # The commonest form needs a check of the calendar only.
        try:
            datetime.fromisoformat(value[:-1])
        except ValueError:
            raise MisfitError from None
        if value.isascii():
            return value
    parts = _DATE_TIME.fullmatch(value)
    if parts is None:
        raise MisfitError
    try:
        moment = datetime.fromisoformat(f"{parts['date']}T{parts['time'] or '00:00'}")
        moment -= _offset(parts["zone"] or "Z")
    except (ValueError, OverflowError):
        raise MisfitError from None
    return _rfc3339(moment, parts["fraction"] or "")


def _date_time_of_epoch(value: float) -> str:
    milliseconds = value if abs(value) >= _FIRST_MILLISECONDS else value * 1000
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except (OverflowError, ValueError):
        raise MisfitError from None
    return _rfc3339(moment, f"{moment.microsecond:06}")


def _rfc3339(moment: datetime, fraction: str) -> str:
    """One form for each point in time: no fraction where it is zero, no zeros at its end."""
    digits = fraction[:_FRACTION_DIGITS].rstrip("0")
    whole = moment.replace(microsecond=0, tzinfo=None).isoformat()
    return f"{whole}.{digits}Z" if digits else f"{whole}Z"


def _offset(zone: str) -> timedelta:
    if zone in ("Z", "z", "UTC"):
        return timedelta(0)
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - the bounds of a clock
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset


def _is_cut(value: Any) -> bool:
    """Whether a date-time had more digits than its column holds."""
    if not isinstance(value, str):
        return False
    parts = _DATE_TIME.fullmatch(value.strip())
    return bool(parts and (parts["fraction"] or "")[_FRACTION_DIGITS:].strip("0"))
