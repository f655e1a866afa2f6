from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox import TRUTO_ACCOUNT_LIMIT, TRUTO_TOKEN_LIMIT, Account, Limit, VendorLimit
from sandbox.limits import SlidingWindow, VendorBudget

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Serve

LONG = 3_600.0


def test_trutos_documentation() -> None:
    """Truto's documentation: the limits have its numbers."""
    assert Limit(500, 10.0) == TRUTO_TOKEN_LIMIT
    assert Limit(50, 10.0) == TRUTO_ACCOUNT_LIMIT


def test_tokens_limit(serve: Serve) -> None:
    """The token's limit: Truto refuses one request more."""
    client = serve(Account("a", "klaviyo"), Account("b", "klaviyo"), token_limit=Limit(2, LONG))
    assert client.segments("a").status_code == 200
    assert client.accounts().status_code == 200
    refused = client.segments("b")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "10"
    assert refused.json()["error"] == "Too Many Requests"
    assert "truto_is_remote_error" not in refused.json()


def test_accounts_limit(serve: Serve) -> None:
    """The account's limit: other accounts are not concerned."""
    client = serve(Account("a", "klaviyo"), Account("b", "klaviyo"), account_limit=Limit(2, LONG))
    assert [client.segments("a").status_code for _ in range(3)] == [200, 200, 429]
    assert client.segments("b").status_code == 200
    assert client.get("/integrated-account/a").status_code == 200
    assert client.accounts().status_code == 200


def test_request_one_limit_refuses(serve: Serve) -> None:
    """A request that one limit refuses: it does not count for the other."""
    client = serve(
        Account("a", "klaviyo"),
        Account("b", "klaviyo"),
        token_limit=Limit(2, LONG),
        account_limit=Limit(1, LONG),
    )
    assert [client.segments("a").status_code for _ in range(5)] == [200, 429, 429, 429, 429]
    assert client.segments("b").status_code == 200


def test_sliding_window() -> None:
    """A sliding window: no window of its length ever holds more."""
    window, limit = SlidingWindow(), Limit(3, 10.0)
    let_through = []
    for now in (0.0, 9.0, 9.5, 9.9, 10.0, 10.5, 18.9, 19.0, 19.5):
        if not window.is_full(limit, now):
            window.add(now)
            let_through.append(now)
    assert let_through == [0.0, 9.0, 9.5, 10.0, 19.0, 19.5]


def test_vendors_budget() -> None:
    """A vendor's budget: it returns as a whole at the end of its window."""
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


def test_vendors_limit(serve: Serve) -> None:
    """A vendor's limit: its 429 comes through for that account only."""
    client = serve(limited(), Account("b", "klaviyo"))
    responses = [client.segments() for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[2].json()["truto_is_remote_error"] is True
    assert "rate_limit_error" in responses[2].json()["truto_error_insight"]
    assert client.segments("b").status_code == 200
    assert "ratelimit-remaining" not in client.segments("b").headers


def test_announced_budget(serve: Serve) -> None:
    """An announced budget: every response shows the budget."""
    client = serve(limited())
    responses = [client.segments(), client.workspaces(), client.segments()]
    assert [response.headers["ratelimit-remaining"] for response in responses] == ["1", "0", "0"]
    assert {response.headers["ratelimit-limit"] for response in responses} == {"2;w=3600"}
    assert all(0 < int(response.headers["ratelimit-reset"]) <= LONG for response in responses)
