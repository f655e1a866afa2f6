"""The one large account that is read: which records it has, and how many are in a page."""

from __future__ import annotations

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
PAGE = 100
# Of the number in an id: of its page, and of its place in the page.
PAGE_DIGITS, PLACE_DIGITS = 5, 2


def segment_id(number: int) -> str:
    """The id of a segment, by its place in the account."""
    return f"segment-{number:0{PAGE_DIGITS + PLACE_DIGITS}}"
