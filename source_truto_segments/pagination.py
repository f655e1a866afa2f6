"""The pagination of every list: the parameters of the next page, and the detection of loops."""

import json
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b

from source_truto_segments.responses import Page

# Truto returns an empty page with a cursor where a vendor filters after paging. After so many in a
# row, a thousand requests without a record, it is taken for a loop.
MAX_EMPTY_PAGES = 1000

CURSOR_PARAMETER = "next_cursor"

_MAX_REPETITIONS = 2


class PaginationLoopError(Exception):
    """A list that would never end; its text says what was repeated."""


def next_page_token(page: Page) -> Mapping[str, str] | None:
    """The query parameters for the page after this one; None at the end of the list.

    A cursor is opaque and sent back unchanged. An empty page with a cursor is not the end.
    """
    return None if page.next_cursor is None else {CURSOR_PARAMETER: page.next_cursor}


class PaginationLoopDetector:
    """Detects a list whose pages repeat.

    Truto's documentation knows vendors that loop: the same cursor comes back, or the same records
    under ever new cursors. One detector watches one list from its first page to its last.
    """

    def __init__(self) -> None:
        self._cursors: set[bytes] = set()
        self._pages: Counter[bytes] = Counter()
        self._empty_pages = 0

    def is_new(self, page: Page) -> bool:
        """Whether a page has other records than every page before; checked before they are used.

        One repetition is no loop: where vendors page by offset, a page comes again if just as many
        records were added in front of it while it was read.

        Raises:
            PaginationLoopError: If a page came three times, or after MAX_EMPTY_PAGES pages without
                a record.
        """
        if not page.records:
            self._empty_pages += 1
            if self._empty_pages >= MAX_EMPTY_PAGES and page.next_cursor is not None:
                raise PaginationLoopError(f"{self._empty_pages} empty pages came in a row")
            return True
        self._empty_pages = 0
        digest = page.digest or _fallback_digest(page)
        if digest is None:
            return True
        self._pages[digest] += 1
        if self._pages[digest] > _MAX_REPETITIONS:
            raise PaginationLoopError(
                "a page came three times with exactly the same records under new cursors"
            )
        return self._pages[digest] == 1

    def check_cursor(self, token: Mapping[str, str] | None) -> None:
        """Checks the next page's cursor before it is sent.

        Raises:
            PaginationLoopError: If it was the cursor of an earlier page.
        """
        if token is None:
            return
        digest = _digest(token[CURSOR_PARAMETER].encode())
        if digest in self._cursors:
            raise PaginationLoopError("the cursor of an earlier page came back")
        self._cursors.add(digest)


def _fallback_digest(page: Page) -> bytes | None:
    """The digest of records without one of their own; None if nothing identifies them."""
    try:
        return _digest(json.dumps(page.records).encode())
    except RecursionError:
        # Nested too deeply for that as well: their ids identify them.
        ids = [record.get("id") for record in page.records]
        valid = [id_ for id_ in ids if isinstance(id_, str | int | float)]
        return repr(valid).encode() if len(valid) == len(ids) else None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
