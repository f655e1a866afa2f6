from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import MISSING, Account, vendors

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Serve


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": f"s{number}", "name": f"Segment {number}"} for number in range(count)]


def ids(pages: list[dict[str, Any]]) -> list[str]:
    return [record["id"] for page in pages for record in page["result"]]


def test_given_an_account_then_its_segments_come_in_the_unified_envelope(serve: Serve) -> None:
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


def test_given_no_segments_then_the_only_page_is_empty(serve: Serve) -> None:
    pages = serve(Account("a", "klaviyo")).pages()
    assert [page["result"] for page in pages] == [[]]


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
def test_given_a_vendor_and_a_limit_then_pages_are_as_large_as_the_vendor_allows(
    serve: Serve, vendor: str, limit: int | None, sizes: list[int]
) -> None:
    client = serve(Account("a", vendor, records(23)))
    pages = client.pages(params={} if limit is None else {"limit": limit})
    assert [page["result_count"] for page in pages] == sizes
    assert ids(pages) == [record["id"] for record in records(23)]


@pytest.mark.parametrize(
    ("default", "maximum", "limit", "size"),
    [
        (4, None, None, 4),
        (15, None, None, 15),
        (4, 6, 8, 6),
        (None, 3, None, 3),
        (None, 3, 2, 2),
    ],
)
def test_given_page_sizes_of_the_account_then_they_win_over_the_vendors(
    serve: Serve, default: int | None, maximum: int | None, limit: int | None, size: int
) -> None:
    account = Account("a", "klaviyo", records(20), default_page_size=default, max_page_size=maximum)
    response = serve(account).segments(params={} if limit is None else {"limit": limit})
    assert response.json()["result_count"] == size


@pytest.mark.parametrize("limit", ["0", "-1", "ten", "", "1.5", "²", "9" * 5_000])
def test_given_a_limit_that_is_no_number_from_1_up_then_truto_refuses(
    serve: Serve, limit: str
) -> None:
    response = serve(Account("a", "klaviyo")).segments(params={"limit": limit})
    assert response.status_code == 400
    assert "truto_is_remote_error" not in response.json()


@pytest.mark.parametrize("style", ["plain", "special", "long"])
def test_given_any_style_of_cursor_then_it_leads_to_every_record_once(
    serve: Serve, style: Any
) -> None:
    account = Account("a", "klaviyo", records(25), cursor_style=style)
    pages = serve(account).pages()
    assert ids(pages) == [record["id"] for record in records(25)]


def test_given_special_cursors_then_they_hold_what_urls_and_json_give_a_meaning_to(
    serve: Serve,
) -> None:
    account = Account("a", "klaviyo", records(11), cursor_style="special")
    cursor = serve(account).segments().json()["next_cursor"]
    assert set('+/=&%{}" é漢') <= set(cursor)


def test_given_long_cursors_then_they_have_thousands_of_characters(serve: Serve) -> None:
    account = Account("a", "klaviyo", records(11), cursor_style="long")
    assert len(serve(account).segments().json()["next_cursor"]) > 4_000


def test_given_a_cursor_that_lost_a_character_on_the_way_then_the_vendor_refuses(
    serve: Serve,
) -> None:
    client = serve(Account("a", "klaviyo", records(11), cursor_style="special"))
    cursor = client.segments().json()["next_cursor"]
    response = client.segments(params={"next_cursor": cursor.replace("+", " ")})
    assert response.status_code == 400


@pytest.mark.parametrize("cursor", ["1", "10", "made-up", "tc_", "tc_AAAA", "tc_MQ", "é漢"])
def test_given_a_cursor_that_was_never_handed_out_then_the_vendor_refuses(
    serve: Serve, cursor: str
) -> None:
    response = serve(Account("a", "klaviyo", records(11))).segments(params={"next_cursor": cursor})
    assert response.status_code == 400
    assert response.json()["truto_is_remote_error"] is True
    assert response.json()["raw_response"]["errors"]


def test_given_the_cursor_of_another_account_then_the_vendor_refuses(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", records(11)), Account("b", "klaviyo", records(11)))
    cursor = client.segments("a").json()["next_cursor"]
    assert client.segments("b", {"next_cursor": cursor}).status_code == 400
    assert client.segments("a", {"next_cursor": cursor}).status_code == 200


def test_given_an_empty_cursor_then_the_first_page_is_given(serve: Serve) -> None:
    response = serve(Account("a", "klaviyo", records(11))).segments(params={"next_cursor": ""})
    assert response.json()["result"][0]["id"] == "s0"


def test_given_cursors_are_made_to_expire_then_old_ones_are_refused_and_new_ones_work(
    serve: Serve,
) -> None:
    account = Account("a", "klaviyo", records(11))
    client = serve(account)
    old = client.segments().json()["next_cursor"]
    account.expire_cursors()
    assert client.segments(params={"next_cursor": old}).status_code == 400
    new = client.segments().json()["next_cursor"]
    assert client.segments(params={"next_cursor": new}).json()["result"] == records(11)[10:]


def test_given_cursors_that_expire_then_none_is_ever_accepted(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", records(11), cursors_expire=True))
    for _ in range(2):
        cursor = client.segments().json()["next_cursor"]
        assert client.segments(params={"next_cursor": cursor}).status_code == 400


@pytest.mark.parametrize(("last", "expected"), [(None, None), ("", ""), (MISSING, "no key")])
def test_given_a_last_cursor_then_the_last_page_ends_with_it(
    serve: Serve, last: Any, expected: str | None
) -> None:
    client = serve(Account("a", "klaviyo", records(11), last_cursor=last))
    first, second = client.pages()
    assert first["next_cursor"]
    assert second.get("next_cursor", "no key") == expected


def test_given_empty_pages_then_so_many_come_before_each_page(serve: Serve) -> None:
    pages = serve(Account("a", "klaviyo", records(15), empty_pages=2)).pages()
    assert [page["result_count"] for page in pages] == [0, 0, 10, 0, 0, 5]
    assert ids(pages) == [record["id"] for record in records(15)]


@pytest.mark.parametrize("count", [5, 25])
def test_given_a_cursor_loop_then_the_first_cursor_comes_back_forever(
    serve: Serve, count: int
) -> None:
    pages = serve(Account("a", "klaviyo", records(count), loop="cursor")).pages(most=5)
    assert len(pages) == 5
    assert len({page["next_cursor"] for page in pages}) == 1
    assert all(page["result"] for page in pages)


def test_given_a_page_loop_then_the_same_records_come_under_new_cursors(serve: Serve) -> None:
    pages = serve(Account("a", "klaviyo", records(25), loop="page")).pages(most=5)
    assert all(page["result"] == records(10) for page in pages)
    assert len({page["next_cursor"] for page in pages}) == 5


def test_given_an_empty_loop_then_empty_pages_come_under_new_cursors(serve: Serve) -> None:
    pages = serve(Account("a", "klaviyo", records(25), loop="empty")).pages(most=5)
    assert all(page["result"] == [] for page in pages)
    assert len({page["next_cursor"] for page in pages}) == 5


def test_given_the_keyed_form_then_result_is_an_object_by_id(serve: Serve) -> None:
    result = serve(Account("a", "klaviyo", records(2), form="keyed")).segments().json()["result"]
    assert result == {"s0": records(2)[0], "s1": records(2)[1]}


def test_given_the_bare_form_then_a_page_of_one_record_is_that_record(serve: Serve) -> None:
    pages = serve(Account("a", "klaviyo", records(11), form="bare")).pages()
    assert pages[0]["result"] == records(10)
    assert pages[1]["result"] == records(11)[10]


def test_given_a_partial_account_then_the_response_is_marked_so(serve: Serve) -> None:
    response = serve(Account("a", "klaviyo", records(1), partial=True)).segments().json()
    assert response["is_partial_response"] is True


def test_given_an_account_with_partial_inner_pages_then_the_last_one_is_not(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", records(3), partial="inner", default_page_size=2))
    first = client.segments().json()
    last = client.segments(params={"next_cursor": first["next_cursor"]}).json()

    assert (first["is_partial_response"], last["is_partial_response"]) == (True, False)


def test_given_remote_data_is_ignored_then_it_is_left_out(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", vendors.segments("klaviyo", 2)))
    shown = client.segments(params={"truto_ignore_remote_data": "true"}).json()["result"]
    assert all("remote_data" not in record and "name" in record for record in shown)
    shown = client.segments(params={"truto_ignore_remote_data": "false"}).json()["result"]
    assert all("remote_data" in record for record in shown)


def test_given_excluded_fields_then_they_are_left_out(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", vendors.segments("klaviyo", 2)))
    params = {"truto_exclude_fields[]": ["remote_data", "status"]}
    shown = client.segments(params=params).json()["result"]
    assert all({"remote_data", "status"}.isdisjoint(record) for record in shown)
    assert all("updated_at" in record for record in shown)


def test_given_a_remote_query_then_it_is_only_logged(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", records(2)))
    assert client.segments(params={"remote_query[sort]": "name"}).json()["result_count"] == 2
    assert client.sandbox.requests[0].param("remote_query[sort]") == "name"


def test_given_a_tag_then_klaviyo_filters_by_it_over_all_pages(serve: Serve) -> None:
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


def test_given_a_tag_and_records_without_tags_then_they_are_filtered_out(serve: Serve) -> None:
    malformed: list[Any] = [{"id": "1"}, {"id": "2", "remote_data": None}, None, "text"]
    pages = serve(Account("a", "klaviyo", malformed)).pages(params={"tags[id]": "t"})
    assert ids(pages) == []


def test_given_a_tag_then_another_vendor_ignores_it(serve: Serve) -> None:
    client = serve(Account("a", "brevo", vendors.segments("brevo", 3)))
    assert client.segments(params={"tags[id]": "t"}).json()["result_count"] == 3


def test_given_malformed_records_then_they_are_served_unchanged(serve: Serve) -> None:
    malformed: list[Any] = [
        {"id": 7, "name": None, "big": 2**80},
        {"id": "\ud800", "name": "lone surrogate"},
        {"id": "é漢", "name": "…", "number": 1e308},
        {},
        None,
        "text",
        [1, 2],
    ]
    assert serve(Account("a", "klaviyo", malformed)).segments().json()["result"] == malformed


def test_given_non_finite_numbers_then_they_are_in_the_body(serve: Serve) -> None:
    malformed = [{"id": "1", "rate": float("nan"), "deep": [{"most": float("inf")}]}]
    text = serve(Account("a", "klaviyo", malformed)).segments().text
    assert "NaN" in text
    assert "Infinity" in text


def test_given_malformed_records_then_the_keyed_form_keys_those_without_an_id_by_index(
    serve: Serve,
) -> None:
    malformed: list[Any] = [{"id": 7}, {"name": "x"}, None]
    result = serve(Account("a", "klaviyo", malformed, form="keyed")).segments().json()["result"]
    assert result == {"7": {"id": 7}, "1": {"name": "x"}, "2": None}


class Endless(Sequence[Any]):
    """A million records that can only be indexed."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int):
            raise TypeError("only one at a time")
        return {"id": str(index)}

    def __iter__(self) -> Any:
        raise AssertionError("iterated over")


def test_given_a_million_lazy_records_then_only_those_of_the_page_are_made(serve: Serve) -> None:
    client = serve(Account("a", "activecampaign", Endless(), default_page_size=5))
    pages = client.pages(most=3)
    assert ids(pages) == [str(number) for number in range(15)]


def test_given_records_change_while_it_runs_then_the_next_response_shows_it(serve: Serve) -> None:
    account = Account("a", "klaviyo", records(1))
    client = serve(account)
    assert client.segments().json()["result_count"] == 1
    account.segments = records(3)
    assert client.segments().json()["result_count"] == 3


@pytest.mark.parametrize(
    ("vendor", "default", "maximum"),
    [
        ("activecampaign", 20, 10_000),
        ("beehiiv", 10, 100),
        ("flodesk", 20, 100),
        ("mailerlite", 25, 20_000),
        ("customerio", 20_000, 20_000),
    ],
)
def test_given_a_long_list_then_pages_have_the_vendors_default_and_maximum(
    serve: Serve, vendor: str, default: int, maximum: int
) -> None:
    client = serve(Account("a", vendor, records(20_000)))
    params: dict[str, Any] = {"workspace[id]": "pub_a"}
    assert client.segments(params=params).json()["result_count"] == default
    params["limit"] = 50_000
    assert client.segments(params=params).json()["result_count"] == maximum


def test_given_every_vendor_then_its_whole_list_can_be_read(serve: Serve) -> None:
    for vendor, style in zip(vendors.VENDORS, itertools.cycle(["plain", "special", "long"])):
        made = vendors.segments(vendor, 60)
        account = Account("a", vendor, made, cursor_style=style)  # type: ignore[arg-type]
        if account.needs_workspace:
            account.segments, account.workspaces = (), {"w": made}
        pages = serve(account).pages(params={"workspace[id]": "w"})
        assert [record for page in pages for record in page["result"]] == made
