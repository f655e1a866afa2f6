"""Responses in the forms of Truto's API: the success envelopes and the error envelope."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

JSON = "application/json; charset=utf-8"
_NEVER_NAN = frozenset({str, int, bool, type(None)})


@dataclass(frozen=True)
class Response:
    """A response to a request.

    Attributes:
        status: HTTP status.
        body: The bytes of the body, sent unchanged.
        headers: Headers besides `Content-Type` and `Content-Length`.
        content_type: The whole `Content-Type`, with its charset.
        immediate: Whether Truto responds itself, without the latency of a call to a vendor.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON
    immediate: bool = False


def ok(payload: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a successful response."""
    return Response(200, encode(payload), headers or {})


def truto_error(
    status: int,
    message: str,
    *,
    insight: Mapping[str, Any] | None = None,
    details: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return Truto's own error, which needs no call to the vendor."""
    envelope = _envelope(status, message, insight)
    if details is not None:
        envelope["details"] = details
    return Response(status, encode(envelope), headers or {}, immediate=True)


def vendor_error(
    status: int,
    message: str,
    *,
    raw_response: Any,
    insight: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a vendor's error that Truto passes on, with the vendor's body."""
    envelope = _envelope(status, message, insight)
    envelope["truto_is_remote_error"] = True
    envelope["raw_response"] = raw_response
    return Response(status, encode(envelope), headers or {})


def insight(name: str, description: str, value: Any) -> dict[str, Any]:
    """Return one entry of `truto_error_insight`."""
    return {name: {"description": description, "value": value}}


def encode(payload: Any) -> bytes:
    """Encode anything that a test may put into a record as JSON.

    Lone surrogates, integers of any size, keys that are not strings, NaN and infinities come out
    as Python's own encoder writes them.

    Raises:
        TypeError: If a value has no JSON form.
    """
    try:
        encoded = orjson.dumps(payload, default=_plain)
    except TypeError:
        return json.dumps(payload, default=_plain).encode()
    # orjson silently turns NaN into null, so only a body with a null can contain one.
    if b"null" in encoded and _has_non_finite_number(payload):
        return json.dumps(payload, default=_plain).encode()
    return encoded


def _envelope(status: int, message: str, insight: Mapping[str, Any] | None) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "statusCode": status,
        "error": _reason(status),
        "message": message,
    }
    if insight:
        envelope["truto_error_insight"] = insight
    return envelope


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _has_non_finite_number(payload: Any) -> bool:
    # Most values have one of these few types, so comparing the type itself keeps large pages fast.
    pending = [payload]
    while pending:
        value = pending.pop()
        kind = type(value)
        if kind in _NEVER_NAN:
            continue
        if kind is dict or isinstance(value, Mapping):
            pending.extend(value.values())
        elif kind is list or isinstance(value, Sequence):
            pending.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            return True
    return False
