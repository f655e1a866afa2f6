"""The page server's large account: its ID, its page size and the ids of its segments."""

from __future__ import annotations

ACCOUNT_ID = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
PAGE_SIZE = 100


def segment_id(index: int) -> str:
    """Return the id of the segment at an index in the account; all ids have the same length."""
    return f"segment-{index:07}"
