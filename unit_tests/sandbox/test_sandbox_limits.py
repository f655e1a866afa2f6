from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT, Account, Limit, VendorLimit
from sandbox.limits import SlidingWindow, VendorBudget

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Serve

LONG = 3_600.0


def test_documented_limits() -> None:
    """The limits have the numbers of Truto's documentation."""
    assert Limit(500, 10.0) == TRUTO_TOKEN_LIMIT
    assert Limit(50, 10.0) == TRUTO_ACCOUNT_LIMIT


def test_token_limit(serve: Serve) -> None:
    """Truto refuses a request above the token's limit, whichever account it is for."""
    client = serve(Account("a", "klaviyo"), Account("b", "klaviyo"), token_limit=Limit(2, LONG))
    assert client.segments("a").status_code == 200
    assert client.accounts().status_code == 200
    refused = client.segments("b")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "10"
    assert refused.json()["error"] == "Too Many Requests"
    assert "truto_is_remote_error" not in refused.json()


def test_account_limit(serve: Serve) -> None:
    """An account's limit affects neither other accounts nor the admin API."""
    client = serve(Account("a", "klaviyo"), Account("b", "klaviyo"), account_limit=Limit(2, LONG))
    assert [client.segments("a").status_code for _ in range(3)] == [200, 200, 429]
    assert client.segments("b").status_code == 200
    assert client.get("/integrated-account/a").status_code == 200
    assert client.accounts().status_code == 200


def test_refused_requests(serve: Serve) -> None:
    """A request that one limit refuses does not count towards the other."""
    client = serve(
        Account("a", "klaviyo"),
        Account("b", "klaviyo"),
        token_limit=Limit(2, LONG),
        account_limit=Limit(1, LONG),
    )
    assert [client.segments("a").status_code for _ in range(5)] == [200, 429, 429, 429, 429]
    assert client.segments("b").status_code == 200


def test_sliding_window() -> None:
    """No window of the limit's length has more requests than the limit."""
    window, limit = SlidingWindow(), Limit(3, 10.0)
    let_through = []
    for now in (0.0, 9.0, 9.5, 9.9, 10.0, 10.5, 18.9, 19.0, 19.5):
        if not window.is_full(limit, now):
            window.add(now)
            let_through.append(now)
    assert let_through == [0.0, 9.0, 9.5, 10.0, 19.0, 19.5]


def test_vendor_budget() -> None:
    """A vendor's whole budget returns at the end of its window."""
    budget, limit = VendorBudget(), VendorLimit(2, 10.0)
    spent = [budget.spend(limit, now) for now in (5.0, 6.0, 14.9, 15.0, 16.0, 17.0)]
    assert spent == [True, True, False, True, True, False]
    assert budget.headers(limit, 17.5) == {
        "ratelimit-limit": "2;w=10",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "8",
    }


def limited(**settings: Any) -> Account:
    return Account("a", "brevo", vendor_limit=VendorLimit(2, LONG, **settings))


def test_vendor_limit(serve: Serve) -> None:
    """A vendor's 429 concerns only the account that reached the limit."""
    client = serve(limited(), Account("b", "klaviyo"))
    responses = [client.segments() for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[2].json()["truto_is_remote_error"] is True
    assert "rate_limit_error" in responses[2].json()["truto_error_insight"]
    assert client.segments("b").status_code == 200
    assert "ratelimit-remaining" not in client.segments("b").headers


def test_announced_budget(serve: Serve) -> None:
    """Every response announces what is left of the budget."""
    client = serve(limited())
    responses = [client.segments(), client.workspaces(), client.segments()]
    assert [response.headers["ratelimit-remaining"] for response in responses] == ["1", "0", "0"]
    assert {response.headers["ratelimit-limit"] for response in responses} == {"2;w=3600"}
    assert all(0 < int(response.headers["ratelimit-reset"]) <= LONG for response in responses)
