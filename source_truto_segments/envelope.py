"""What Truto's answers hold, read from their bytes by pure functions.

The forms are those of Truto's public documentation: a list envelope for unified and admin lists,
and one error envelope for every failure.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

import orjson

# What is quoted of another system's text: enough to know the cause, short enough for one line.
QUOTE_LENGTH = 300

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]+")
_TOO_DEEP = "something that is nested too deeply"
# So many levels down, a message is looked for in an error; further down is none that helps anybody.
_TOLD_LEVELS = 10
_REASON_KEYS = ("message", "error_description", "error", "detail", "title", "errors", "reason")


class MalformedAnswerError(ValueError):
    """An answer that is not of the documented form; its text says in which way."""


class Origin(Enum):
    """Who failed: Truto itself, or the vendor behind it."""

    TRUTO = "Truto"
    VENDOR = "the vendor"


@dataclass(frozen=True)
class Page:
    """One page of a list.

    Attributes:
        records: The objects of the page, in their order.
        next_cursor: The cursor of the next page; None at the end of the list.
        is_partial: Whether Truto said that the answer is partial. The records are good.
        strays: How many entries of the list were no objects, and so no records.
        digest: What tells the records from others; None if they cannot be written out as they are.
    """

    records: Sequence[dict[str, Any]]
    next_cursor: str | None
    is_partial: bool = False
    strays: int = 0
    digest: bytes | None = None


@dataclass(frozen=True)
class ErrorBody:
    """What an error answer says.

    Attributes:
        origin: Truto, or the vendor where `truto_is_remote_error` is true.
        reason: What was said, on one line of at most QUOTE_LENGTH characters; "" if nothing was.
        missing_parameters: The names of required query parameters that the request lacked.
        missing_scopes: The OAuth scopes that the vendor misses.
    """

    origin: Origin = Origin.TRUTO
    reason: str = ""
    missing_parameters: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()


def parse_page(content: bytes) -> Page:
    """Reads a list envelope.

    `result` (admin lists: also `results`) can be a list, an object keyed by the records' ids
    (`truto_key_by`), or a bare record when there is only one.

    Raises:
        MalformedAnswerError: If the body is not JSON, or not such an envelope. A missing `result`
            is malformed, not an empty page.
    """
    body = parse_object(content)
    result = body.get("result", body.get("results"))
    if result is None:
        raise MalformedAnswerError("the answer has no result")
    entries = _entries(result)
    records = [entry for entry in entries if isinstance(entry, dict)]
    return Page(
        records=records,
        next_cursor=_next_cursor(body.get("next_cursor")),
        is_partial=body.get("is_partial_response") is True,
        strays=len(entries) - len(records),
        digest=_digest(records),
    )


def parse_object(content: bytes) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        MalformedAnswerError: If the body is not one.
    """
    try:
        body = parse_json(content)
    except ValueError:
        raise MalformedAnswerError(
            f"the answer is not JSON: {quote(content.decode('utf-8', 'replace'))}"
            if content.strip()
            else "the answer is empty"
        ) from None
    if not isinstance(body, dict):
        raise MalformedAnswerError("the answer is not a JSON object")
    return body


def parse_json(content: bytes) -> Any:
    """Reads JSON, also with what orjson refuses but JSON's grammar allows.

    A lone surrogate has no UTF-8 form and could not be written out again; it becomes U+FFFD. A
    number that is too large for a float stays the text that it was.

    Raises:
        ValueError: If the bytes are not JSON.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            body = json.loads(content, parse_constant=_refuse_constant, parse_float=_number)
            return _without_surrogates(body)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None


def parse_error(content: bytes) -> ErrorBody:
    """Reads an error envelope, or whatever stands in its place; it never fails."""
    try:
        body = parse_json(content)
    except ValueError:
        return ErrorBody(reason=quote(content.decode("utf-8", "replace")))
    if not isinstance(body, Mapping):
        return ErrorBody(reason=quote(_said(body)))
    insight = body.get("truto_error_insight")
    insight = insight if isinstance(insight, Mapping) else {}
    return ErrorBody(
        origin=Origin.VENDOR if body.get("truto_is_remote_error") is True else Origin.TRUTO,
        reason=_reason(body),
        missing_parameters=tuple(_texts(_value(insight, "missing_required_query_parameters"))),
        missing_scopes=tuple(_texts(_scopes(insight))),
    )


def quote(text: str) -> str:
    """Another system's text on one line, of at most QUOTE_LENGTH characters."""
    line = _BLANK.sub(" ", text).strip()
    return line if len(line) <= QUOTE_LENGTH else f"{line[: QUOTE_LENGTH - 1]}…"


def can_be_sent(text: str) -> bool:
    """Whether a text has a form in UTF-8: half of a surrogate pair has none."""
    return _SURROGATE.search(text) is None


def shown(value: Any) -> str:
    """Any JSON value in a message: on one line, of at most QUOTE_LENGTH characters."""
    try:
        return quote(str(value))
    except RecursionError:
        return _TOO_DEEP


def _digest(records: Sequence[dict[str, Any]]) -> bytes | None:
    try:
        # In a message, the records lie some levels deeper.
        return blake2b(orjson.dumps([[[[records]]]]), digest_size=16).digest()
    except orjson.JSONEncodeError:
        # Nested more deeply than orjson writes, or a number of more than 64 bits.
        return None


def _entries(result: Any) -> Sequence[Any]:
    if isinstance(result, list):
        return result
    if not isinstance(result, dict):
        raise MalformedAnswerError(
            f"the result is neither a list nor an object: {quote(_said(result))}"
        )
    return list(result.values()) if _is_keyed(result) else [result]


def _is_keyed(result: Mapping[str, Any]) -> bool:
    """Whether an object holds records by their ids, and is not a record itself."""
    kinds = {type(entry) for entry in result.values()}
    # A record that is null is missed and told, as it would be in a list.
    return kinds <= {dict} or (kinds == {dict, type(None)} and "id" not in result)


def _next_cursor(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise MalformedAnswerError(f"the next_cursor is no text: {quote(_said(value))}")


def _reason(body: Mapping[str, Any]) -> str:
    """The first text that says something: the message, then the vendor's body, then the error."""
    for candidate in (body.get("message"), body.get("raw_response"), body.get("error")):
        said = quote(_said(candidate))
        if said:
            return said
    return ""


def _said(value: Any, levels: int = _TOLD_LEVELS) -> str:
    """The telling text of a value: of an object its message, of anything else its JSON."""
    if levels == 0 or value is None or value in ("", [], {}):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for key in _REASON_KEYS:
            said = _said(value.get(key), levels - 1)
            if said:
                return said
    if isinstance(value, list) and all(isinstance(entry, str | Mapping) for entry in value):
        return "; ".join(filter(None, (_said(entry, levels - 1) for entry in value[:5])))
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return _TOO_DEEP


def _value(insight: Mapping[str, Any], name: str) -> Any:
    entry = insight.get(name)
    return entry.get("value") if isinstance(entry, Mapping) else entry


def _scopes(insight: Mapping[str, Any]) -> Any:
    value = _value(insight, "forbidden_error")
    return value.get("missing_scopes") if isinstance(value, Mapping) else None


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value that may be one text, a list of them or an object keyed by them."""
    if isinstance(value, str):
        yield quote(value)
    elif isinstance(value, list):
        names = (entry.get("name") if isinstance(entry, Mapping) else entry for entry in value)
        yield from (quote(name) for name in names if isinstance(name, str))
    elif isinstance(value, Mapping):
        yield from map(quote, value)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub(_REPLACEMENT, value)
    if isinstance(value, list):
        return [_without_surrogates(entry) for entry in value]
    if isinstance(value, dict):
        return {
            _without_surrogates(key): _without_surrogates(entry) for key, entry in value.items()
        }
    return value


def _number(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
