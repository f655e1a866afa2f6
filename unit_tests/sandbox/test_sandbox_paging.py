from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sandbox import Account, vendors

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit_tests.sandbox.conftest import Client, Serve

    Change = Callable[[Account, int], None]


def records(count: int, prefix: str = "s") -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{number}"} for number in range(count)]


def read_ids(client: Client, **params: Any) -> list[str]:
    return [record["id"] for page in client.pages(params=params) for record in page["result"]]


def after_page(number: int, change: Callable[[list[Any]], None]) -> Change:
    """Return an `on_page` that replaces the list by a changed copy after `number` pages."""

    def on_page(account: Account, pages: int) -> None:
        if pages == number:
            changed = list(account.segments)
            change(changed)
            account.segments = changed

    return on_page


def served(serve: Serve, vendor: str, change: Callable[[list[Any]], None]) -> list[str]:
    """Return the ids that a read of 30 records finds if they change after a page of 10."""
    account = Account("a", vendor, records(30), default_page_size=10, on_page=after_page(1, change))
    return read_ids(serve(account))


ALL = [f"s{number}" for number in range(30)]
SHIFTING = ["activecampaign", "beehiiv", "brevo", "flodesk", "mailerlite", "hubspot"]


def shifting(serve: Serve, vendor: str, change: Callable[[list[Any]], None]) -> list[str]:
    if vendor != "beehiiv":
        return served(serve, vendor, change)

    def on_page(account: Account, pages: int) -> None:
        if pages == 1:
            account.workspaces["w"] = changed = list(account.workspaces["w"])
            change(changed)

    account = Account("a", vendor, workspaces={"w": records(30)}, on_page=on_page)
    return read_ids(serve(account), **{"workspace[id]": "w"})


# --- lists that change while they are read --------------------------------------------------------


@pytest.mark.parametrize("vendor", SHIFTING)
def test_deletion_with_offsets(serve: Serve, vendor: str) -> None:
    """After a deletion, offsets and page numbers skip a record."""
    ids = shifting(serve, vendor, lambda list_: list_.pop(0))
    assert ids == [id_ for id_ in ALL if id_ != "s10"]


@pytest.mark.parametrize("vendor", SHIFTING)
def test_insertion_with_offsets(serve: Serve, vendor: str) -> None:
    """After an insertion, offsets and page numbers repeat a record."""
    ids = shifting(serve, vendor, lambda list_: list_.insert(0, {"id": "new"}))
    assert ids == [*ALL[:10], "s9", *ALL[10:]]


@pytest.mark.parametrize("deleted", [[0], [9], [10], [8, 9, 10, 11], range(10), range(3, 25)])
def test_deletions_with_cursors(serve: Serve, deleted: list[int]) -> None:
    """After deletions, Klaviyo's cursors still lead to every remaining record."""
    gone = {f"s{number}" for number in deleted}

    def delete(list_: list[Any]) -> None:
        list_[:] = [record for record in list_ if record["id"] not in gone]

    later = [id_ for id_ in ALL[10:] if id_ not in gone]
    assert served(serve, "klaviyo", delete) == [*ALL[:10], *later]


@pytest.mark.parametrize(("index", "is_read"), [(0, False), (9, False), (10, True), (25, True)])
def test_insertion_with_cursors(serve: Serve, index: int, is_read: bool) -> None:
    """After an insertion, Klaviyo repeats no record, and returns the new one if it is ahead."""
    ids = served(serve, "klaviyo", lambda list_: list_.insert(index, {"id": "new"}))
    assert [id_ for id_ in ids if id_ != "new"] == ALL
    assert ids.count("new") == is_read


# --- page sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "limit", "name"), [("klaviyo", 11, "page[size]"), ("brevo", 51, "Limit")]
)
def test_limit_above_maximum(serve: Serve, vendor: str, limit: int, name: str) -> None:
    """The vendor refuses a limit above its maximum, and names the parameter."""
    client = serve(Account("a", vendor, records(60)))
    response = client.segments(params={"limit": limit})
    assert response.status_code == 400
    assert response.json()["truto_is_remote_error"] is True
    assert response.json()["message"] == ""
    assert name in str(response.json()["raw_response"])
    assert client.segments(params={"limit": limit - 1}).json()["result_count"] == limit - 1


@pytest.mark.parametrize(
    ("oversized", "expected"),
    [
        ("cut", list(range(60))),
        ("end", list(range(8))),
        ("skip", [*range(8), *range(25, 33), *range(50, 58)]),
    ],
)
@pytest.mark.parametrize("vendor", ["flodesk", "brevo"])
def test_oversized_limit(serve: Serve, vendor: str, oversized: Any, expected: list[int]) -> None:
    """For an oversized limit, a vendor returns smaller pages, and Truto may lose the rest."""
    every = records(60)
    client = serve(Account("a", vendor, every, max_page_size=8, oversized=oversized))
    assert read_ids(client, limit=25) == [every[index]["id"] for index in expected]
    assert read_ids(client, limit=8) == [record["id"] for record in every]


# --- no segments ----------------------------------------------------------------------------------


def test_activecampaign_without_segments(serve: Serve) -> None:
    """ActiveCampaign responds with a 404 if the account has no segments."""
    account = Account("a", "activecampaign")
    client = serve(account)
    response = client.segments()
    assert response.status_code == 404
    assert response.json()["truto_is_remote_error"] is True
    assert response.json()["raw_response"]
    account.segments = vendors.segments("activecampaign", 2)
    assert client.segments().json()["result_count"] == 2


@pytest.mark.parametrize("vendor", ["brevo", "customerio", "flodesk", "klaviyo", "mailerlite"])
def test_other_vendors_without_segments(serve: Serve, vendor: str) -> None:
    """Other vendors return an empty list if the account has no segments."""
    assert serve(Account("a", vendor)).segments().json()["result"] == []
