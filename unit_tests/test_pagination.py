"""The request for the next page, and the detection of lists that would not end."""

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.truto.pagination import (
    MAX_EMPTY_PAGES,
    PaginationLoopDetector,
    PaginationLoopError,
    next_page_token,
)
from source_truto_segments.truto.responses import Page, parse_page


def read(pages: list[Page]) -> int:
    """Return how many pages come before a loop is detected."""
    detector = PaginationLoopDetector()
    for number, page in enumerate(pages):
        try:
            detector.is_new(page)
            detector.check_cursor(next_page_token(page))
        except PaginationLoopError:
            return number
    return len(pages)


def follow(pages: list[Page]) -> None:
    detector = PaginationLoopDetector()
    for page in pages:
        detector.is_new(page)
        detector.check_cursor(next_page_token(page))


def page_of(records: list[dict[str, Any]], cursor: str | None) -> Page:
    return parse_page(json.dumps({"result": records, "next_cursor": cursor}).encode())


def page(cursor: str | None, *ids: Any) -> Page:
    return page_of([{"id": id_} for id_ in ids], cursor)


def test_next_page() -> None:
    """The cursor of a page requests the next one, even after a page without records."""
    assert next_page_token(page("a b&c=%", 1)) == {"next_cursor": "a b&c=%"}
    assert next_page_token(page(None, 1)) is None
    assert next_page_token(page("x")) == {"next_cursor": "x"}


def test_repeated_cursor() -> None:
    """A cursor that comes back is a loop."""
    assert read([page("a", 1), page("b", 2), page("a", 3)]) == 2
    assert read([page("a", 1), page("a", 2)]) == 1


@pytest.mark.parametrize("period", [1, 2, 5])
def test_same_records_under_new_cursors(period: int) -> None:
    """The same records under new cursors are a loop."""
    cursors = count()
    pages = [page(str(next(cursors)), number % period) for number in range(20)]
    assert read(pages) == 2 * period


def test_repeated_page() -> None:
    """A page that comes again is not new; the third time, it is a loop."""
    detector = PaginationLoopDetector()
    pages = [page("a", 1), page("b", 2), page("c", 1), page("d", 2), page("e"), page("f", 3)]
    assert [detector.is_new(each) for each in pages] == [True, True, False, False, True, True]
    with pytest.raises(PaginationLoopError):
        detector.is_new(page("g", 1))


def test_same_ids_with_other_contents() -> None:
    """The same ids with other contents are no loop."""
    pages = [page_of([{"id": 1, "n": number}], str(number)) for number in range(20)]
    assert read(pages) == 20


def test_empty_pages() -> None:
    """Empty pages are a loop only if there are very many in a row."""
    pages = [page(str(number)) for number in range(MAX_EMPTY_PAGES + 5)]
    assert read(pages) == MAX_EMPTY_PAGES - 1
    pages[500] = page("500", 1)
    assert read(pages) == len(pages)


def test_page_before_empty_pages() -> None:
    """Pages with records before the empty ones do not count."""
    empty = [page(str(number)) for number in range(MAX_EMPTY_PAGES + 5)]
    assert read([page("first", 1), *empty]) == MAX_EMPTY_PAGES


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([page("a", 1), page("a", 2)], "the cursor of an earlier page came back"),
        (
            [page("a", 1), page("b", 1), page("c", 1)],
            "a page came three times with exactly the same records under new cursors",
        ),
        (
            [page(str(number)) for number in range(MAX_EMPTY_PAGES)],
            f"{MAX_EMPTY_PAGES} empty pages came in a row",
        ),
    ],
    ids=["cursor", "records", "nothing"],
)
def test_message_of_loop(pages: list[Page], message: str) -> None:
    """The error for a loop reports what was repeated."""
    with pytest.raises(PaginationLoopError) as loop:
        follow(pages)
    assert str(loop.value) == message


def test_deep_records() -> None:
    """A loop is detected even if the records are too deep to serialize."""
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    pages = [page_of([{"id": n % 2, "remote_data": deep}], str(n)) for n in range(9)]
    assert read(pages) == 4


def too_deep(levels: int, **innermost: Any) -> dict[str, Any]:
    """Return a record that cannot be serialized as it is."""
    deep: dict[str, Any] = innermost
    for _ in range(levels):
        deep = {"a": deep}
    return deep


def test_different_deep_records() -> None:
    """Different records that are too deep to serialize are no loop."""
    pages = [Page([too_deep(400, n=number)], str(number)) for number in range(9)]
    assert read(pages) == 9
    repeated = [Page([too_deep(400, n=4)], cursor) for cursor in "xy"]
    assert read([*pages, *repeated]) == 10


def test_bottomless_records() -> None:
    """Records with a huge number of levels are identified by their ids."""
    ids = [1, 2.5, "a", "b"]
    pages = [Page([{"id": id_, **too_deep(100_000)}], str(id_)) for id_ in ids]
    pages.append(Page([{"id": too_deep(100_000)}], "no id"))
    assert read(pages) == len(pages)
    repeated = [Page([{"id": "a", **too_deep(100_000)}], cursor) for cursor in "xy"]
    assert read([*pages, *repeated]) == len(pages) + 1


@given(st.lists(st.lists(st.integers(), max_size=3), max_size=30, unique_by=tuple))
def test_any_pages(contents: list[list[int]]) -> None:
    """Pages that all differ are no loop."""
    pages = [page(str(number), *ids) for number, ids in enumerate(contents)]
    assert read(pages) == len(pages)


def test_unidentified_records() -> None:
    """If nothing identifies the records, only the cursors show a loop."""
    deepest = too_deep(100_000)
    detector = PaginationLoopDetector()
    assert all(detector.is_new(Page([deepest], str(number))) for number in range(9))
    assert read([Page([deepest], str(number)) for number in range(9)]) == 9
    assert read([Page([deepest], str(number % 3)) for number in range(9)]) == 3
    assert read([Page([{**deepest, "id": 1}], str(number)) for number in range(9)]) == 2
