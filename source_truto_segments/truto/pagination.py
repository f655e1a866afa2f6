"""The pagination of every list: pages are pulled, and a list that never ends is detected."""

import json
import logging
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import replace
from hashlib import blake2b

from source_truto_segments.truto import errors
from source_truto_segments.truto.client import CURSOR_PARAMETER, Request, TrutoClient
from source_truto_segments.truto.errors import ReadError
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Page

logger = logging.getLogger("airbyte")

# Truto returns an empty page with a cursor if a vendor filters after paging. So many in a row, a
# thousand requests without a record, are a loop.
MAX_EMPTY_PAGES = 1000

_MAX_REPETITIONS = 2


class PaginationLoopError(Exception):
    """A list that would never end; its text says what was repeated."""


class Pages:
    """Reads a list page by page along its cursors.

    Args:
        client: Sends the requests.
        request: The request of the first page.
    """

    def __init__(self, client: TrutoClient, request: Request[Page]) -> None:
        self._client = client
        self._request = request
        self._detector = PaginationLoopDetector()
        self._token: Mapping[str, str] | None = {}
        self._restarted = False
        self._previous_is_empty = False
        self._same_cursor = 0

    def next(self) -> Generator[Delay, None, Page | None]:
        """Fetch the next page, empty ones too; skip those that only repeat an earlier one.

        Yields:
            What has to be waited before a request.

        Returns:
            The page; None after the last one.

        Raises:
            ReadError: If the page cannot be read, or if the pages repeat.
        """
        try:
            while self._token is not None:
                if not self._same_cursor:
                    self._detector.check_cursor(self._token)
                cursor = self._token.get(CURSOR_PARAMETER)
                try:
                    page = yield from self._client.fetch(replace(self._request, cursor=cursor))
                except ReadError as error:
                    self._start_again(error)
                    continue
                self._token = next_page_token(page)
                if cursor is not None and page.is_empty and page.next_cursor == cursor:
                    self._same_cursor += 1
                    # Vendors end so. But right after an empty page it can be that page once more,
                    # from a cache in between: then it is the end if it comes a third time.
                    if self._previous_is_empty and self._same_cursor == 1:
                        continue
                    self._token = None
                    return page
                self._previous_is_empty, self._same_cursor = page.is_empty, 0
                # A repeated page adds nothing but what is wrong with it.
                if self._detector.is_new(page) or page.is_partial or page.invalid_entries:
                    return page
        except PaginationLoopError as loop:
            operation, account_id = self._request.operation, self._request.account_id
            detail = f" ({loop})"
            raise ReadError(errors.PAGINATION_LOOP, operation, account_id, detail) from None
        return None

    def _start_again(self, error: ReadError) -> None:
        """Go back to the first page, once, if a cursor expired; otherwise raise the error."""
        if error.resolution is not errors.CURSOR_REJECTED or self._restarted:
            raise error
        self._restarted = True
        self._detector = PaginationLoopDetector()
        self._token = {}
        logger.info(
            "%s: the cursor of the next page was rejected, probably because it has expired. "
            "Starting again from the first page.",
            self._request.operation,
        )


def next_page_token(page: Page) -> Mapping[str, str] | None:
    """Return the query parameters for the page after this one; None at the end of the list.

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
        """Return whether a page has other records than every page before it.

        One repetition is no loop: where vendors page by offset, a page comes again if just as many
        records were added in front of it while it was read.

        Raises:
            PaginationLoopError: If a page came three times, or after MAX_EMPTY_PAGES pages without
                a record.
        """
        if page.is_empty:
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
        """Check the next page's cursor before it is sent.

        Raises:
            PaginationLoopError: If it was the cursor of an earlier page.
        """
        if not token:
            return
        digest = _digest(token[CURSOR_PARAMETER].encode())
        if digest in self._cursors:
            raise PaginationLoopError("the cursor of an earlier page came back")
        self._cursors.add(digest)


def _fallback_digest(page: Page) -> bytes | None:
    """Return the digest of records without one of their own; None if nothing identifies them."""
    try:
        return _digest(json.dumps(page.records).encode())
    except RecursionError:
        # Nested too deeply for that as well: their ids identify them.
        ids = [record.get("id") for record in page.records]
        valid = [id_ for id_ in ids if isinstance(id_, str | int | float)]
        return repr(valid).encode() if len(valid) == len(ids) else None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
