"""Cursors: opaque to the caller, and yet without any state in the server.

A cursor names its place and the scope it was handed out for, so that one of another account,
another workspace or from before an expiry is recognised and refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Literal

CursorStyle = Literal["plain", "odd", "long"]

_TOKEN = re.compile(r"tc_[A-Za-z0-9_-]+")
_DIGEST_LENGTH = 12
_LONG_CURSOR_PADDING = 4_000


@dataclass(frozen=True)
class Position:
    """A place in a list.

    Attributes:
        offset: The record the page begins with.
        step: Counts the pages that do not move forward: empty ones, and those of a loop.
    """

    offset: int = 0
    step: int = 0


def write(position: Position, scope: str, style: CursorStyle = "plain") -> str:
    """Write the cursor for a position in a scope."""
    text = f"{_digest(scope)}:{position.offset}:{position.step}"
    token = "tc_" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    if style == "odd":
        return '{"after": "é漢 +/=&%' + token + '"}'
    if style == "long":
        filler = hashlib.sha256(token.encode()).hexdigest()
        repeats = _LONG_CURSOR_PADDING // len(filler) + 1
        return f"{token}.{(filler * repeats)[:_LONG_CURSOR_PADDING]}"
    return token


def read(cursor: str, scope: str, style: CursorStyle = "plain") -> Position | None:
    """Read a cursor back; none if it is not, to the letter, one that this scope hands out."""
    position = _position(cursor)
    if position is None or write(position, scope, style) != cursor:
        return None
    return position


def _position(cursor: str) -> Position | None:
    token = _TOKEN.search(cursor)
    if token is None:
        return None
    encoded = token.group().removeprefix("tc_")
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
        _, offset, step = text.split(":")
        return Position(int(offset), int(step))
    except (binascii.Error, ValueError):
        return None


def _digest(scope: str) -> str:
    return hashlib.sha256(scope.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
