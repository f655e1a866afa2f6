"""What comes next: the cursor strategy of every list, and the guard against endless ones."""

import json
from collections.abc import Mapping
from hashlib import blake2b

from source_truto_segments.envelope import Page

# Truto answers an empty page with a cursor where a vendor filters after paging. So many in a row
# are no filter any more: nothing has come for a thousand requests.
MAX_EMPTY_PAGES = 1000

CURSOR_PARAMETER = "next_cursor"


class LoopError(Exception):
    """A list that would never end; its text says how that showed."""


def next_page_token(page: Page) -> Mapping[str, str] | None:
    """The query parameters that ask for the page after this one; None at the end of the list.

    A cursor is opaque and sent back unchanged. An empty page with a cursor is not the end.
    """
    return None if page.next_cursor is None else {CURSOR_PARAMETER: page.next_cursor}


class LoopGuard:
    """Ends a list that runs in circles.

    Truto's documentation knows vendors that loop: the same cursor comes back, or the same records
    under ever new cursors. One guard watches one list from its first page to its last.
    """

    def __init__(self, start: Mapping[str, str] | None = None) -> None:
        self._cursors = {_digest(start[CURSOR_PARAMETER].encode())} if start else set()
        self._pages: set[bytes] = set()
        self._empty_pages = 0

    def check_records(self, page: Page) -> None:
        """Checks a page before its records are taken.

        Raises:
            LoopError: If an earlier page had exactly these records, or if nothing came for
                MAX_EMPTY_PAGES pages.
        """
        if not page.records:
            self._empty_pages += 1
            if self._empty_pages >= MAX_EMPTY_PAGES and page.next_cursor is not None:
                raise LoopError(f"{self._empty_pages} empty pages came in a row")
            return
        self._empty_pages = 0
        digest = page.digest or _slow_digest(page)
        if digest in self._pages:
            raise LoopError("a page came again with exactly the same records under a new cursor")
        if digest is not None:
            self._pages.add(digest)

    def check_cursor(self, token: Mapping[str, str] | None) -> None:
        """Checks the next page's cursor before it is sent.

        Raises:
            LoopError: If it was the cursor of an earlier page.
        """
        if token is None:
            return
        digest = _digest(token[CURSOR_PARAMETER].encode())
        if digest in self._cursors:
            raise LoopError("the cursor of an earlier page came back")
        self._cursors.add(digest)


def _slow_digest(page: Page) -> bytes | None:
    """The digest of records that cannot be written out as they are; None if nothing tells them."""
    try:
        return _digest(json.dumps(page.records).encode())
    except RecursionError:
        # Nested even more deeply: their ids tell them.
        ids = [record.get("id") for record in page.records]
        known = [id_ for id_ in ids if isinstance(id_, str | int | float)]
        return repr(known).encode() if len(known) == len(ids) else None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
