"""Cursors that are opaque to the caller, although the server keeps no state for them.

A cursor contains its position and its scope, so the server recognizes and refuses a cursor of
another account or workspace.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Literal

CursorStyle = Literal["plain", "special", "long"]

_TOKEN = re.compile(r"tc_[A-Za-z0-9_-]+")
_DIGEST_LENGTH = 12
_LONG_CURSOR_PADDING = 4_000


@dataclass(frozen=True)
class Position:
    """A position in a list.

    Attributes:
        index: The page number, or the offset at which the page begins.
        step: The number of pages before it that did not advance: empty ones, and those of a loop.
        before: Fingerprints of the last records before the position, the nearest first.
        after: Fingerprints of the first records after it. Both are empty if the vendor has no
            real cursors.
    """

    index: int = 0
    step: int = 0
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def write(position: Position, scope: str, style: CursorStyle = "plain") -> str:
    """Return the cursor for a position in a scope."""
    neighbours = f"{','.join(position.before)}:{','.join(position.after)}"
    text = f"{fingerprint(scope)}:{position.index}:{position.step}:{neighbours}"
    token = "tc_" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    if style == "special":
        return '{"after": "é漢 +/=&%' + token + '"}'
    if style == "long":
        filler = hashlib.sha256(token.encode()).hexdigest()
        repeats = _LONG_CURSOR_PADDING // len(filler) + 1
        return f"{token}.{(filler * repeats)[:_LONG_CURSOR_PADDING]}"
    return token


def read(cursor: str, scope: str, style: CursorStyle = "plain") -> Position | None:
    """Return the position of a cursor; None if this scope does not issue exactly this cursor."""
    position = _position(cursor)
    if position is None or write(position, scope, style) != cursor:
        return None
    return position


def fingerprint(text: str) -> str:
    """Return a short digest of any text, even with lone surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def _position(cursor: str) -> Position | None:
    token = _TOKEN.search(cursor)
    if token is None:
        return None
    encoded = token.group().removeprefix("tc_")
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
        _, index, step, before, after = text.split(":")
        return Position(int(index), int(step), _fingerprints(before), _fingerprints(after))
    except (binascii.Error, ValueError):
        return None


def _fingerprints(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
