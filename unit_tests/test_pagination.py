"""The request for the next page, and the detection of lists that would not end."""

import json
import logging
from collections.abc import Generator, Sequence
from itertools import count
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.truto import errors
from source_truto_segments.truto.client import Request, TrutoClient
from source_truto_segments.truto.errors import ReadError, Resolution
from source_truto_segments.truto.pagination import (
    MAX_EMPTY_PAGES,
    Pages,
    PageSizes,
    PaginationLoopDetector,
    PaginationLoopError,
    next_page_token,
)
from source_truto_segments.truto.responses import Page, Speaker, parse_page


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


# --- a list, page by page ---


class Answers:
    """Sends no request: returns the pages that a test lists, or raises its errors."""

    def __init__(self, *answers: Page | Resolution | ReadError) -> None:
        self.answers = [*answers]
        # The limit and the cursor of each request.
        self.sent: list[tuple[Any, str | None]] = []

    def fetch(self, request: Request[Page]) -> Generator[Any, None, Page]:
        self.sent.append((request.params.get("limit"), request.cursor))
        answer = self.answers.pop(0)
        if isinstance(answer, Resolution):
            answer = ReadError(answer, request.operation, request.account_id)
        if isinstance(answer, ReadError):
            raise answer
        return answer
        yield


def lists(client: Answers, sizes: PageSizes | None, integration: str | None = "brevo") -> list[Any]:
    """The ids of each page of a list."""
    request = Request("p", "Reading account a", parse_page, "a", {"q": "x"})
    pages = Pages(cast("TrutoClient", client), request, sizes, integration)
    found: list[Any] = []
    while True:
        try:
            next(pages.next())
        except StopIteration as end:
            if end.value is None:
                return found
            found.append([record["id"] for record in end.value.records])


def rejected(detail: str, row: Resolution = errors.ERROR_MAPPING[400, Speaker.VENDOR]) -> ReadError:
    return ReadError(row, "Reading account a", "a", detail, 400)


def infos(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    return [record.message for record in caplog.records if record.levelno == logging.INFO]


def test_expired_cursor(caplog: pytest.LogCaptureFixture) -> None:
    """A list whose cursor has expired begins again, once, with the same page size."""
    caplog.set_level(logging.INFO)
    full = [str(number) for number in range(50)]
    client = Answers(page("b", *full), errors.CURSOR_REJECTED, page("b", *full), page(None, "z"))
    assert lists(client, PageSizes()) == [full, full, ["z"]]
    assert client.sent == [(50, None), (50, "b"), (50, None), (50, "b")]
    assert infos(caplog) == [
        (
            "Reading account a: the cursor of the next page was rejected, probably because it has "
            "expired. Starting again from the first page."
        )
    ]
    again = Answers(page("b", "y"), errors.CURSOR_REJECTED, page("b", "y"), errors.CURSOR_REJECTED)
    with pytest.raises(ReadError) as caught:
        lists(again, None)
    assert caught.value.resolution is errors.CURSOR_REJECTED


@pytest.mark.parametrize(
    ("integration", "bound", "limit", "of"),
    [
        ("brevo", None, 50, "brevo"),
        ("brevo", 20, 20, "brevo"),
        (None, 20, 20, "integrated account a"),
    ],
)
def test_rejected_page_size(
    caplog: pytest.LogCaptureFixture, integration: str | None, bound: int, limit: int, of: str
) -> None:
    """A page size that is rejected is given up for the integration, and logged once."""
    caplog.set_level(logging.INFO)
    sizes = PageSizes(bound)
    client = Answers(rejected(" (HTTP 400)"), page(None, "z"))
    assert lists(client, sizes, integration) == [["z"]]
    assert client.sent == [(limit, None), (None, None)]
    assert infos(caplog) == [
        (
            f"Pages of {limit} records do not work for {of}: they were rejected (HTTP 400). It is "
            "read in the vendor's own pages from now on."
        )
    ]
    assert sizes.limit(integration) == (None if integration else bound)
    sizes.reject(integration, limit, "a", "x")
    assert len(infos(caplog)) == (1 if integration else 2)


@pytest.mark.parametrize("row", [errors.WORKSPACE_REQUIRED, errors.NOT_SUPPORTED])
def test_other_rejections(row: Resolution) -> None:
    """A rejection that has another known cause says nothing about the page size."""
    client = Answers(rejected(" (HTTP 400)", row))
    with pytest.raises(ReadError) as caught:
        lists(client, PageSizes())
    assert caught.value.resolution is row
    assert len(client.sent) == 1


@pytest.mark.parametrize(
    ("pages", "sent", "detail"),
    [
        ([page(c, "y") for c in "abc"], 3, "a page came three times with exactly the same"),
        ([page("a", "x"), page("b", "y"), page("a", "z")], 3, "the cursor of an earlier page"),
    ],
)
def test_loop_of_pages(pages: list[Page], sent: int, detail: str) -> None:
    """A list that repeats itself fails with what was repeated."""
    client = Answers(*pages)
    with pytest.raises(ReadError) as caught:
        lists(client, None)
    assert caught.value.resolution is errors.PAGINATION_LOOP
    assert (caught.value.operation, caught.value.account_id) == ("Reading account a", "a")
    assert caught.value.detail.startswith(f" ({detail}")
    assert len(client.sent) == sent


def test_repeated_page_with_a_mark() -> None:
    """A repeated page is skipped, unless something is wrong with it that counts."""
    invalid = parse_page(b'{"result": [{"id": "y"}, 5], "next_cursor": "c"}')
    partial = parse_page(b'{"result": [{"id": "y"}], "is_partial_response": true}')
    assert lists(Answers(page("a", "y"), page("b", "y"), page(None, "z")), None) == [["y"], ["z"]]
    assert lists(Answers(page("a", "y"), invalid, page(None, "z")), None) == [["y"], ["y"], ["z"]]
    assert lists(Answers(page("a", "y"), partial), None) == [["y"], ["y"]]


def test_end_by_the_same_cursor() -> None:
    """An empty page with the cursor just sent ends the list; after an empty page, the second."""
    client = Answers(page("a", "y"), page("a"))
    assert lists(client, None) == [["y"], []]
    client = Answers(page("a", "y"), page("b"), page("b"), page("b"))
    assert lists(client, None) == [["y"], [], []]
    assert client.sent == [(None, cursor) for cursor in (None, "a", "b", "b")]
    client = Answers(page("a"), page("a"), page("a"))
    assert lists(client, None) == [[], []]
    client = Answers(page("a", "y"), page("b"), page("b"), page(None, "z"))
    assert lists(client, None) == [["y"], [], ["z"]]


def test_short_pages(caplog: pytest.LogCaptureFixture) -> None:
    """A list of short pages is read again without a page size, which is then given up."""
    caplog.set_level(logging.INFO)
    sizes = PageSizes(20)
    client = Answers(
        page("b", "x", "y"), page("c", "z"), page("d", "x"), page("e", "y"), page(None, "z")
    )
    assert lists(client, sizes, None) == [["x", "y"], ["x"], ["y"], ["z"]]
    assert client.sent == [(20, None), (20, "b"), (None, None), (None, "d"), (None, "e")]
    assert len(infos(caplog)) == 1
    assert "a page had 2, and another followed" in infos(caplog)[0]


def test_short_page_of_one_record(caplog: pytest.LogCaptureFixture) -> None:
    """A short page that another followed shows enough, even if one record was left meanwhile."""
    caplog.set_level(logging.INFO)
    sizes = PageSizes()
    client = Answers(page("b", "x", "y"), page("c", "z"), page(None, "x"))
    assert lists(client, sizes) == [["x", "y"], ["x"]]
    assert sizes.limit("brevo") is None


@pytest.mark.parametrize(("more", "gives_up"), [([], False), (["z"], True)])
def test_list_of_default_size(more: list[str], gives_up: bool) -> None:
    """A list that ends like a default page is read again; if it has more, it was cut off."""
    ten = [str(number) for number in range(10)]
    sizes = PageSizes()
    client = Answers(page(None, *ten), page(None, *ten, *more))
    assert lists(client, sizes) == [ten, [*ten, *more]]
    assert client.sent == [(50, None), (None, None)]
    assert (sizes.limit("brevo") is None) == gives_up


def test_rejected_later(caplog: pytest.LogCaptureFixture) -> None:
    """A later page that is rejected is about the page size only if the vendor says so."""
    caplog.set_level(logging.INFO)
    full = [str(number) for number in range(50)]
    size = rejected(' (HTTP 400; the vendor reported: "page_size is too large")')
    client = Answers(page("b", *full), size, page(None, *full))
    assert lists(client, PageSizes())[-1] == full
    assert client.sent[2] == (None, None)
    with pytest.raises(ReadError):
        lists(Answers(page("b", *full), rejected(" (HTTP 400)")), PageSizes())


def test_failure_that_passes() -> None:
    """A failure that passes by itself says nothing about the page size."""
    client = Answers(rejected(" (HTTP 400)", errors.MALFORMED))
    with pytest.raises(ReadError):
        lists(client, PageSizes())
    assert len(client.sent) == 1


def test_digests_are_short() -> None:
    """What is remembered of each cursor takes 16 bytes, however long it is."""
    detector = PaginationLoopDetector()
    detector.check_cursor({"next_cursor": "x" * 10_000})
    kept = vars(detector).values()
    assert [len(digest) for value in kept if isinstance(value, set) for digest in value] == [16]
