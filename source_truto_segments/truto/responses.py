"""Parsers for the bytes of Truto's responses: pure functions without HTTP.

Truto documents two forms: a list envelope for unified and admin lists, and one error envelope for
every failure.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

import orjson

from source_truto_segments.truto.excerpts import excerpt

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Strings and brackets, which show where the entries of a list begin and end.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
_LIST = b"{["
# Python refuses integers with more digits than the environment allows, which is at least this many.
_MAX_DIGITS = 640


class MalformedResponseError(ValueError):
    """A response that does not have the documented form.

    Args:
        difference: How it differs.
        quote: What it has instead; show it only if the response comes from Truto.
    """

    def __init__(self, difference: str, quote: str = "") -> None:
        super().__init__(f"{difference}: {quote}" if quote else difference)
        self.difference = difference


class ForeignResponseError(MalformedResponseError):
    """A response that is not even JSON, so something in front of Truto sent it."""


class Speaker(Enum):
    """Who reports a failure, judging by the response itself."""

    TRUTO = "Truto"
    VENDOR = "the vendor"
    GATEWAY = "a gateway, firewall or proxy"


@dataclass(frozen=True)
class Page:
    """One page of a list.

    Attributes:
        records: The objects of the page, in their order.
        next_cursor: The cursor of the next page; None at the end of the list.
        marked_partial: Whether Truto marked the page as partial. Its records are valid.
        invalid_entries: How many entries of the list cannot be parsed, or are not objects.
        digest: Identifies the content of the records; None if orjson cannot serialize them.
        may_have_nul: Whether a string in the page may contain U+0000. If False, none does.
        size: The bytes of the response.
        count: How many entries Truto sent; `records` can be a selection of them.
        left_out: The entries that were not selected, reduced to their ids and names.
    """

    records: Sequence[dict[str, Any]]
    next_cursor: str | None
    marked_partial: bool = False
    invalid_entries: int = 0
    digest: bytes | None = None
    may_have_nul: bool = False
    size: int = 0
    count: int = 0
    left_out: Sequence[Mapping[str, Any]] = ()

    @property
    def is_partial(self) -> bool:
        """Whether it is marked and the last page; on any other page, the mark means nothing."""
        return self.marked_partial and self.next_cursor is None

    @property
    def is_empty(self) -> bool:
        """Whether Truto sent no entries."""
        return not (self.records or self.count)


@dataclass(frozen=True)
class ErrorBody:
    """The content of an error response.

    Attributes:
        speaker: Truto if the body is its envelope, the vendor if `truto_is_remote_error` is true;
            for any other body, a gateway, firewall or proxy in between.
        reason: An excerpt of the reason; "" if there is none.
        missing_parameters: The names of required query parameters that the request lacked.
        missing_scopes: The OAuth scopes that the connection lacks.
    """

    speaker: Speaker = Speaker.GATEWAY
    reason: str = ""
    missing_parameters: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()


def parse_page(content: bytes) -> Page:
    """Parse a list envelope.

    `result` (admin lists: also `results`) can be a list, an object keyed by the records' ids
    (`truto_key_by`), or a bare record when there is only one.

    Raises:
        MalformedResponseError: If the body is not JSON, or not such an envelope. A missing `result`
            is malformed; one that is null is an empty page. An entry of a list that cannot be
            parsed is an invalid one.
    """
    body = _parse_envelope(content)
    if not {"result", "results"} & body.keys():
        raise MalformedResponseError("the response has no result")
    # Vendors and mappings return null for an empty list.
    result = body.get("result", body.get("results"))
    entries = _entries(result) if result is not None else []
    records = [entry for entry in entries if isinstance(entry, dict)]
    return Page(
        records=records,
        next_cursor=_next_cursor(body.get("next_cursor")),
        marked_partial=body.get("is_partial_response") is True,
        invalid_entries=len(entries) - len(records),
        digest=_digest(records),
        may_have_nul=_may_have_nul(content),
        size=len(content),
        count=len(entries),
    )


def parse_cursor(content: bytes) -> str | None:
    """Parse only the cursor of a list envelope; None if there is no next page.

    Raises:
        MalformedResponseError: If the body is not a JSON object, or its cursor not a string.
    """
    return _next_cursor(parse_object(content).get("next_cursor"))


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        MalformedResponseError: If the body is not one.
    """
    try:
        body = parse_json(content)
    except ValueError:
        raise _not_json(content) from None
    if not isinstance(body, dict):
        raise MalformedResponseError("the response is not a JSON object")
    return body


def parse_json(content: bytes) -> Any:
    """Parse JSON, including what orjson rejects but JSON's grammar allows.

    A lone surrogate has no UTF-8 form, so it becomes U+FFFD. A number that is too large for a
    float, or has too many digits, becomes a string of its digits. NaN and the infinities become
    strings of their names.

    Raises:
        ValueError: If the bytes are not JSON.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        try:
            body = json.loads(content, parse_constant=str, parse_float=_number, parse_int=_integer)
            return _replace_surrogates(body)
        except RecursionError:
            raise ValueError("the JSON is nested too deeply") from None


def parse_error(content: bytes) -> ErrorBody:
    """Parse an error envelope, or whatever was sent instead; never fail."""
    try:
        body = parse_json(content)
    except ValueError:
        return ErrorBody(reason=_plain_text(content))
    if not isinstance(body, Mapping):
        return ErrorBody(reason=excerpt(body))
    insight = body.get("truto_error_insight")
    insight = insight if isinstance(insight, Mapping) else {}
    return ErrorBody(
        speaker=_speaker(body),
        reason=_reason(body),
        missing_parameters=tuple(_strings(_value(insight, "missing_required_query_parameters"))),
        missing_scopes=tuple(_strings(_scopes(insight))),
    )


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 account" or "2 accounts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _may_have_nul(content: bytes) -> bool:
    """Return whether the content may have a NUL escape: always in UTF-16 and UTF-32."""
    return b"\\u0000" in content or b"\0" in content


def _digest(records: Sequence[dict[str, Any]]) -> bytes | None:
    try:
        # The protocol's messages nest records some levels deeper.
        return blake2b(orjson.dumps([[[[records]]]]), digest_size=16).digest()
    except orjson.JSONEncodeError:
        # Nested more deeply than orjson serializes, or an integer of more than 64 bits.
        return None


def _entries(result: Any) -> Sequence[Any]:
    if isinstance(result, list):
        return result
    if not isinstance(result, dict):
        raise MalformedResponseError("the result is neither a list nor an object", excerpt(result))
    return list(result.values()) if _is_keyed(result) else [result]


def _is_keyed(result: Mapping[str, Any]) -> bool:
    """Return whether an object holds records by their ids, and is not a record itself."""
    types = {type(entry) for entry in result.values()}
    # A record that is null counts as an invalid entry, as it does in a list.
    return types <= {dict} or (types == {dict, type(None)} and "id" not in result)


def _parse_envelope(content: bytes) -> dict[str, Any]:
    """Parse a list envelope, even if some of its records cannot be parsed."""
    try:
        return parse_object(content)
    except MalformedResponseError:
        with suppress(MalformedResponseError):
            return parse_object(_without_bad_entries(content))
        raise


def _without_bad_entries(content: bytes) -> bytes:
    """Return the JSON of an object, with null for each invalid entry of its lists."""
    parts: list[bytes] = []
    open_marks = bytearray()
    begin = position = 0
    for token in _TOKEN.finditer(content):
        mark, at = token[0], token.start()
        if open_marks == _LIST and mark in {b",", b"]"}:
            parts += [content[position:begin], _valid_or_null(content[begin:at])]
            begin, position = at + 1, at
        if mark in {b"[", b"{"}:
            open_marks += mark
            begin = at + 1 if open_marks == _LIST else begin
        elif mark in {b"]", b"}"}:
            del open_marks[-1:]
    return b"".join([*parts, content[position:]])


def _valid_or_null(entry: bytes) -> bytes:
    """Return an entry if it is blank, or can be parsed two levels deep; otherwise null."""
    try:
        parse_json(b"[[" + entry + b"]]")
    except ValueError:
        return b"null"
    return entry


def _not_json(content: bytes) -> MalformedResponseError:
    """Return the error for a body that is not JSON."""
    if not content.strip():
        return ForeignResponseError("the response is empty")
    text = _plain_text(content)
    if not text:
        return MalformedResponseError("the response is not JSON: it breaks off or is invalid")
    return ForeignResponseError("the response is not JSON", text)


def _plain_text(content: bytes) -> str:
    """Return an excerpt of a body that is not JSON; "" for broken JSON, which may have secrets."""
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return ""
    return excerpt(content.decode("utf-8", "replace"))


def _next_cursor(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise MalformedResponseError("the next_cursor is not a string", excerpt(value))


def _speaker(body: Mapping[str, Any]) -> Speaker:
    if body.get("truto_is_remote_error") is True:
        return Speaker.VENDOR
    # Truto's own errors have all of `statusCode`, `error` and `message`; gateways' have some.
    is_truto = isinstance(body.get("statusCode"), int) and {"error", "message"} <= body.keys()
    return Speaker.TRUTO if is_truto else Speaker.GATEWAY


def _reason(body: Mapping[str, Any]) -> str:
    """Return the message, the vendor's body or the error: the first one that is not empty."""
    for candidate in (body.get("message"), body.get("raw_response"), body.get("error")):
        text = excerpt(candidate)
        if text:
            return text
    return ""


def _value(insight: Mapping[str, Any], name: str) -> Any:
    entry = insight.get(name)
    return entry.get("value") if isinstance(entry, Mapping) else entry


def _scopes(insight: Mapping[str, Any]) -> Any:
    value = _value(insight, "forbidden_error")
    return value.get("missing_scopes") if isinstance(value, Mapping) else None


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in a value: the value itself, its entries or their names, or its keys."""
    if isinstance(value, str):
        yield excerpt(value)
    elif isinstance(value, list):
        names = (entry.get("name") if isinstance(entry, Mapping) else entry for entry in value)
        yield from (excerpt(name) for name in names if isinstance(name, str))
    elif isinstance(value, Mapping):
        yield from map(excerpt, value)


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub(_REPLACEMENT, value)
    if isinstance(value, list):
        return [_replace_surrogates(entry) for entry in value]
    if isinstance(value, dict):
        return {
            _replace_surrogates(key): _replace_surrogates(entry) for key, entry in value.items()
        }
    return value


def _number(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _integer(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_DIGITS else text
