from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import Account, vendors

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Serve


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": f"s{number}", "name": f"Segment {number}"} for number in range(count)]


def ids(pages: list[dict[str, Any]]) -> list[str]:
    return [record["id"] for page in pages for record in page["result"]]


def test_envelope(serve: Serve) -> None:
    """The segments of an account come in the unified envelope."""
    made = vendors.segments("klaviyo", 3)
    response = serve(Account("a", "klaviyo", made)).segments()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.json() == {
        "result": made,
        "next_cursor": None,
        "prev_cursor": None,
        "result_count": 3,
        "is_partial_response": False,
    }


@pytest.mark.parametrize(
    ("vendor", "limit", "sizes"),
    [
        ("klaviyo", None, [10, 10, 3]),
        ("klaviyo", 10, [10, 10, 3]),
        ("klaviyo", 8, [8, 8, 7]),
        ("brevo", None, [10, 10, 3]),
        ("brevo", 50, [23]),
        ("activecampaign", None, [20, 3]),
        ("activecampaign", 10_000, [23]),
        ("mailerlite", None, [23]),
        ("mailerlite", 8, [8, 8, 7]),
        ("flodesk", None, [20, 3]),
        ("flodesk", 1_000, [23]),
        ("customerio", None, [23]),
        ("customerio", 1, [23]),
        ("anything", None, [20, 3]),
    ],
)
def test_page_sizes(serve: Serve, vendor: str, limit: int | None, sizes: list[int]) -> None:
    """Pages are as large as the limit and the vendor allow."""
    client = serve(Account("a", vendor, records(23)))
    pages = client.pages(params={} if limit is None else {"limit": limit})
    assert [page["result_count"] for page in pages] == sizes
    assert ids(pages) == [record["id"] for record in records(23)]


@pytest.mark.parametrize("limit", ["0", "-1", "ten", "", "1.5", "²", "9" * 5_000])
def test_invalid_limit(serve: Serve, limit: str) -> None:
    """Truto refuses a limit that is not a positive integer."""
    response = serve(Account("a", "klaviyo")).segments(params={"limit": limit})
    assert response.status_code == 400
    assert "truto_is_remote_error" not in response.json()


def test_special_cursors(serve: Serve) -> None:
    """Special cursors contain characters that have a meaning in URLs and JSON."""
    account = Account("a", "klaviyo", records(11), cursor_style="special")
    cursor = serve(account).segments().json()["next_cursor"]
    assert set('+/=&%{}" é漢') <= set(cursor)


def test_damaged_cursor(serve: Serve) -> None:
    """The vendor refuses a cursor in which a plus sign became a space."""
    client = serve(Account("a", "klaviyo", records(11), cursor_style="special"))
    cursor = client.segments().json()["next_cursor"]
    response = client.segments(params={"next_cursor": cursor.replace("+", " ")})
    assert response.status_code == 400


@pytest.mark.parametrize("cursor", ["1", "10", "made-up", "tc_", "tc_AAAA", "tc_MQ", "é漢"])
def test_made_up_cursor(serve: Serve, cursor: str) -> None:
    """The vendor refuses a cursor that it did not issue."""
    response = serve(Account("a", "klaviyo", records(11))).segments(params={"next_cursor": cursor})
    assert response.status_code == 400
    assert response.json()["truto_is_remote_error"] is True
    assert response.json()["raw_response"]["errors"]


def test_cursor_of_another_account(serve: Serve) -> None:
    """The vendor refuses the cursor of another account."""
    client = serve(Account("a", "klaviyo", records(11)), Account("b", "klaviyo", records(11)))
    cursor = client.segments("a").json()["next_cursor"]
    assert client.segments("b", {"next_cursor": cursor}).status_code == 400
    assert client.segments("a", {"next_cursor": cursor}).status_code == 200


def test_excluded_fields(serve: Serve) -> None:
    """Truto leaves excluded fields out of each record."""
    client = serve(Account("a", "klaviyo", vendors.segments("klaviyo", 2)))
    params = {"truto_exclude_fields[]": ["remote_data", "status"]}
    shown = client.segments(params=params).json()["result"]
    assert all({"remote_data", "status"}.isdisjoint(record) for record in shown)
    assert all("updated_at" in record for record in shown)


def test_tag_filter(serve: Serve) -> None:
    """Klaviyo filters by a tag over all pages, none of which is empty."""
    made = vendors.segments("klaviyo", 100)
    tag = vendors.KLAVIYO_TAGS[0]
    tagged = [
        record
        for record in made
        if tag in [t["id"] for t in record["remote_data"]["relationships"]["tags"]["data"]]
    ]
    pages = serve(Account("a", "klaviyo", made)).pages(params={"tags[id]": tag})
    assert 10 < len(tagged) < 100
    assert ids(pages) == [record["id"] for record in tagged]
    assert all(page["result"] for page in pages)


def test_whole_lists(serve: Serve) -> None:
    """Each vendor's list can be read completely, with each style of cursor."""
    for vendor, style in zip(vendors.VENDORS, itertools.cycle(["plain", "special", "long"])):
        made = vendors.segments(vendor, 60)
        account = Account("a", vendor, made, cursor_style=style)  # type: ignore[arg-type]
        if account.needs_workspace:
            account.segments, account.workspaces = (), {"w": made}
        pages = serve(account).pages(params={"workspace[id]": "w"})
        assert [record for page in pages for record in page["result"]] == made
