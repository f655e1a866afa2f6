"""Read lists page by page, in pages as large as the vendor documents.

Detect a list that never ends. If a vendor does not accept the page size, or returns fewer records,
read the list again without one.
"""

import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import replace
from hashlib import blake2b

import requests
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction

from source_truto_segments.truto import errors
from source_truto_segments.truto.client import CURSOR_PARAMETER, Request, TrutoClient
from source_truto_segments.truto.errors import ReadError
from source_truto_segments.truto.excerpts import excerpt
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Page, counted
from source_truto_segments.truto.vendors import vendor_of

logger = logging.getLogger("airbyte")

# Truto returns an empty page with a cursor if a vendor filters after paging. This many in a row are
# a loop.
MAX_EMPTY_PAGES = 1000

_MAX_REPETITIONS = 2

# The usual default page sizes of APIs. If a vendor returns such a page instead of the requested
# size, Truto can take the first page for the last.
_DEFAULT_PAGES = frozenset({10, 20, 25, 50, 100})
_REJECTIONS = frozenset({requests.codes.bad_request, requests.codes.unprocessable_entity})
# How vendors name the page size: limit, page_size, page[size], per_page.
_PAGE_SIZE = re.compile(
    r"(?<!rate[ _-])(?<!request[ _-])\blimit\b|\bpage[ _-]?size\b|\bpage\[size\]|\bper[ _-]?page\b",
    re.IGNORECASE,
)


class PaginationLoopError(Exception):
    """A list that would never end; the message says what was repeated."""


class PageSizes:
    """How many records to request per page, by integration. Safe for threads.

    Args:
        upper_bound: The user's upper bound, which is also the limit for an unknown integration.
    """

    def __init__(self, upper_bound: int | None = None) -> None:
        self._upper_bound = upper_bound
        self._rejected: set[str] = set()
        self._lock = threading.Lock()

    def limit(self, integration: str | None) -> int | None:
        """Return the limit for a list that begins now; None to send none."""
        vendor = vendor_of(integration)
        if integration in self._rejected or (vendor and vendor.page_size is None):
            return None
        known = [size for size in (vendor and vendor.page_size, self._upper_bound) if size]
        return min(known, default=None)

    def reject(self, integration: str | None, limit: int, account_id: str | None, why: str) -> None:
        """Stop sending a page size for an integration; log it once."""
        with self._lock:
            if integration in self._rejected:
                return
            if integration is not None:
                self._rejected.add(integration)
        of = f"integrated account {excerpt(account_id)}" if integration is None else integration
        logger.info(
            "Pages of %s do not work for %s: %s. It is read in the vendor's own pages from now on.",
            *(counted(limit, "record"), of, why),
        )


class Pages:
    """Reads a list page by page along its cursors.

    If the vendor does not respect the page size, it reads the list again from the first page,
    without one: some records come twice, and none is lost.

    Args:
        client: Sends the requests.
        request: The request for the first page.
        sizes: The page sizes; None to send none.
        integration: The integration of the list's account; None if it is not known.
    """

    def __init__(
        self,
        client: TrutoClient,
        request: Request[Page],
        sizes: PageSizes | None = None,
        integration: str | None = None,
    ) -> None:
        self._client = client
        self._request = request
        self._sizes, self._integration = sizes or PageSizes(), integration
        self._limit = None if sizes is None else sizes.limit(integration)
        self._restarted = False
        self._begin(self._limit)
        # Why the list is read again, until the suspicion is confirmed: by more records than before.
        self._suspicion, self._records_before = "", 0

    def _begin(self, limit: int | None) -> None:
        self._requested = limit
        self._detector = PaginationLoopDetector()
        self._token: Mapping[str, str] | None = {}
        self._records = 0

    def next(self) -> Generator[Delay, None, Page | None]:
        """Fetch the next page, even an empty one; skip pages that only repeat an earlier one.

        Yields:
            The delay before a request.

        Returns:
            The page; None after the last one.

        Raises:
            ReadError: If the page cannot be read, or if the pages repeat.
        """
        try:
            while self._token is not None or self._may_be_cut:
                if self._token is None:
                    why = f"a list ended after {self._records}, and has more"
                    self._read_again(why, self._records)
                page = yield from self._fetch(self._token or {})
                # Return a repeated page only if something is wrong with it.
                if page is not None and (
                    self._detector.is_new(page) or page.is_partial or page.invalid_entries
                ):
                    return page
        except PaginationLoopError as loop:
            operation, account_id = self._request.operation, self._request.account_id
            detail = f" ({loop})"
            raise ReadError(errors.PAGINATION_LOOP, operation, account_id, detail) from None
        return None

    def _fetch(self, token: Mapping[str, str]) -> Generator[Delay, None, Page | None]:
        """Fetch the page for a token; return None if the list has to be read again."""
        self._detector.check_cursor(token)
        cursor = token.get(CURSOR_PARAMETER)
        params = self._request.params
        if self._requested is not None:
            params = {"limit": self._requested, **params}
        request = replace(self._request, params=params, cursor=cursor)
        try:
            page = yield from self._client.fetch(request)
            if self._detector.empty_pages and _repeats_cursor(page, cursor):
                # Right after an empty page, it can be the same page again, from a cache in between.
                page = yield from self._client.fetch(request)
        except ReadError as error:
            if self._requested is not None and _rejects_page_size(
                error, is_first_page=cursor is None
            ):
                self._read_again(f"they were rejected{error.detail}")
            elif error.resolution is errors.CURSOR_REJECTED and not self._restarted:
                self._start_again()
            else:
                raise
            return None
        if _repeats_cursor(page, cursor):
            # Some vendors end a list like this.
            page = replace(page, next_cursor=None)
        self._token = next_page_token(page)
        count = page.count
        if count and self._first_is_short:
            # Truto's mapping may have skipped records between the two pages.
            self._read_again(f"a page had {self._records}, and another followed")
            return None
        self._records += count
        if self._suspicion and self._limit and self._records > self._records_before:
            account_id = self._request.account_id
            self._sizes.reject(self._integration, self._limit, account_id, self._suspicion)
            self._suspicion = ""
        return page

    def _start_again(self) -> None:
        """Go back to the first page, once, because the cursor has expired."""
        self._restarted = True
        self._begin(self._requested)
        logger.info(
            "%s: the cursor of the next page was rejected, probably because it has expired. "
            "Starting again from the first page.",
            self._request.operation,
        )

    @property
    def _first_is_short(self) -> bool:
        """Whether the only page with records so far has fewer than were requested."""
        return self._requested is not None and 0 < self._records < self._requested

    @property
    def _may_be_cut(self) -> bool:
        """Whether the list may have ended early, because the vendor used its default page size."""
        return self._first_is_short and self._records in _DEFAULT_PAGES

    def _read_again(self, suspicion: str, records_before: int = 0) -> None:
        self._suspicion, self._records_before = suspicion, records_before
        self._begin(None)


def _repeats_cursor(page: Page, cursor: str | None) -> bool:
    """Return whether an empty page has the cursor with which it was requested."""
    return page.is_empty and page.next_cursor == cursor and cursor is not None


def _rejects_page_size(error: ReadError, *, is_first_page: bool) -> bool:
    """Return whether a page may have been rejected because of its size."""
    if error.resolution is errors.WORKSPACE_REQUIRED or error.resolution is errors.NOT_SUPPORTED:
        return False
    if error.resolution.response_action is not ResponseAction.FAIL:
        return False
    return error.status in _REJECTIONS and (is_first_page or bool(_PAGE_SIZE.search(error.detail)))


def next_page_token(page: Page) -> Mapping[str, str] | None:
    """Return the query parameters for the page after this one; None at the end of the list.

    A cursor is opaque, so send it back unchanged. An empty page with a cursor is not the end.
    """
    return None if page.next_cursor is None else {CURSOR_PARAMETER: page.next_cursor}


class PaginationLoopDetector:
    """Detects a list whose pages repeat.

    Truto's documentation mentions vendors that loop: the same cursor comes back, or the same
    records under new cursors. A detector watches one list from its first page to its last.

    Attributes:
        empty_pages: How many empty pages were the last ones in a row.
    """

    def __init__(self) -> None:
        self._cursors: set[bytes] = set()
        self._pages: Counter[bytes] = Counter()
        self.empty_pages = 0

    def is_new(self, page: Page) -> bool:
        """Return whether a page differs from every page before it.

        One repetition is not a loop: if a vendor pages by offset, a page comes again when as many
        records as it has were added in front of it during the read.

        Raises:
            PaginationLoopError: If a page came three times, or after MAX_EMPTY_PAGES pages without
                a record.
        """
        if page.is_empty:
            self.empty_pages += 1
            if self.empty_pages >= MAX_EMPTY_PAGES and page.next_cursor is not None:
                raise PaginationLoopError(f"{self.empty_pages} empty pages came in a row")
            return True
        self.empty_pages = 0
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
    """Return a digest for a page that has none; None if nothing identifies its records."""
    try:
        return _digest(json.dumps(page.records).encode())
    except RecursionError:
        # The records are nested too deeply for that as well, so use their ids.
        ids = [record.get("id") for record in page.records]
        valid = [id_ for id_ in ids if isinstance(id_, str | int | float)]
        return repr(valid).encode() if len(valid) == len(ids) else None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
