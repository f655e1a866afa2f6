from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import CONTEXT_SECRET, DEFAULT_TOKEN, Account, vendors

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Serve


def many(count: int) -> list[Account]:
    names = ("klaviyo", "brevo")
    statuses = ("active", "active", "needs_reauth")
    return [
        Account(
            f"id-{number}",
            names[number % 2],
            status=statuses[number % 3],
            tenant_id=f"tenant-{number % 5}",
        )
        for number in range(count)
    ]


# --- the list of accounts -------------------------------------------------------------------------


def test_list_of_accounts(serve: Serve) -> None:
    """The list shows each account in Truto's form."""
    forbidden = {
        "resource": "segments",
        "method": "list",
        "missing_scopes": ["segments:read"],
        "occurred_at": "2025-06-03 14:05:21",
    }
    first = Account("a", "klaviyo", tenant_id="acme", is_sandbox=True)
    second = Account(
        "b",
        "brevo",
        status="needs_reauth",
        last_error="Token revoked",
        last_forbidden_error=forbidden,
        label="Brevo (EU)",
        authentication_method="oauth2",
        region="eu",
        environment_id="e",
        unified_model_override={"segments": {}},
        context={"api_key": "x"},
    )
    response = serve(first, second).accounts().json()
    integration_ids = [account["integration"].pop("id") for account in response["result"]]
    assert len(set(integration_ids)) == 2
    assert response == {
        "result": [
            {
                "id": "a",
                "tenant_id": "acme",
                "environment_id": first.environment_id,
                "status": "active",
                "is_sandbox": True,
                "region": "us",
                "authentication_method": "oauth2",
                "integration": {
                    "name": "klaviyo",
                    "category": "marketing-automation",
                    "label": "Klaviyo",
                },
                "context": first.context,
                "created_at": first.created_at,
                "updated_at": first.updated_at,
            },
            {
                "id": "b",
                "tenant_id": "tenant-1",
                "environment_id": "e",
                "status": "needs_reauth",
                "is_sandbox": False,
                "region": "eu",
                "authentication_method": "oauth2",
                "integration": {
                    "name": "brevo",
                    "category": "marketing-automation",
                    "label": "Brevo (EU)",
                },
                "context": {"api_key": "x"},
                "created_at": second.created_at,
                "updated_at": second.updated_at,
                "last_error": "Token revoked",
                "last_forbidden_error": forbidden,
                "unified_model_override": {"segments": {}},
            },
        ],
        "next_cursor": None,
        "limit": 100,
    }


def test_account_context(serve: Serve) -> None:
    """An account's context has secrets, and its dates have both of Truto's forms."""
    shown = serve(Account("a", "klaviyo")).get("/integrated-account/a").json()
    assert str(shown["context"]).count(CONTEXT_SECRET) == 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["created_at"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", shown["updated_at"])


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, lambda _: True),
        ({"status": "active"}, lambda a: a.status == "active"),
        ({"status": ["active", "needs_reauth"]}, lambda _: True),
        ({"status": "connecting"}, lambda _: False),
        ({"integration.name": "brevo"}, lambda a: a.vendor == "brevo"),
        ({"integration.name": ["brevo", "klaviyo"]}, lambda _: True),
        ({"tenant_id": ["tenant-1", "tenant-2"]}, lambda a: a.tenant_id[-1] in "12"),
        (
            {"status": "active", "integration.name": "klaviyo", "tenant_id": "tenant-0"},
            lambda a: (a.status, a.vendor, a.tenant_id) == ("active", "klaviyo", "tenant-0"),
        ),
    ],
)
def test_filters(serve: Serve, filters: dict[str, Any], expected: Any) -> None:
    """The pages of a filtered list have all matching accounts and no others."""
    accounts = many(30)
    client = serve(*accounts, list_page_size=4)
    pages = client.pages(client.ACCOUNTS, filters)
    listed = [account["id"] for page in pages for account in page["result"]]
    assert listed == [account.id for account in accounts if expected(account)]


@pytest.mark.parametrize(("limit", "size"), [(None, 10), (3, 3), (500, 10)])
def test_limit_of_the_list(serve: Serve, limit: int | None, size: int) -> None:
    """A page has at most the list's own page size, even if the limit is larger."""
    client = serve(*many(25), list_page_size=10)
    response = client.accounts({} if limit is None else {"limit": limit}).json()
    assert (len(response["result"]), response["limit"]) == (size, size)


# --- one account ----------------------------------------------------------------------------------


def test_unknown_account(serve: Serve) -> None:
    """Truto responds to an unknown account id with a 404."""
    client = serve(*many(3))
    for response in (client.get("/integrated-account/x"), client.segments("x"), client.meta("x")):
        assert response.status_code == 404
        assert response.json() == {
            "statusCode": 404,
            "error": "Not Found",
            "message": "Integrated account not found",
        }


# --- refused requests -----------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong", DEFAULT_TOKEN + "x"])
def test_wrong_token(serve: Serve, token: str | None) -> None:
    """Truto responds to a missing or wrong token with a 401, on every path."""
    client = serve(*many(1))
    for path in (client.SEGMENTS, client.ACCOUNTS, "/integrated-account/id-0", "/other"):
        response = client.get(path, token=token)
        assert response.status_code == 401
        assert response.json()["error"] == "Unauthorized"
        assert "truto_is_remote_error" not in response.json()


def test_account_needs_reauth(serve: Serve) -> None:
    """An account that needs reauth gets the vendor's 401; Truto still shows it and its model."""
    client = serve(Account("a", "brevo", status="needs_reauth"))
    for response in (client.segments(), client.workspaces()):
        assert response.status_code == 401
        assert response.json()["truto_is_remote_error"] is True
    assert client.meta().status_code == 200
    assert client.get("/integrated-account/a").json()["status"] == "needs_reauth"


@pytest.mark.parametrize(
    "status", ["connecting", "validation_error", "post_install_error", "paused", ""]
)
def test_inactive_account(serve: Serve, status: str) -> None:
    """Truto refuses the segments of an account that is not active, and names its status."""
    response = serve(Account("a", "klaviyo", status=status)).segments()
    assert response.status_code == 400
    assert status in response.json()["message"]
    assert "truto_is_remote_error" not in response.json()


# --- workspaces -----------------------------------------------------------------------------------


def beehiiv() -> Account:
    made = vendors.segments("beehiiv", 5)
    return Account(
        "a",
        "beehiiv",
        workspaces={"pub_1": made[:2], "pub_2": made[2:]},
        workspace_names={"pub_1": "The Daily"},
    )


def test_beehiiv_without_workspace(serve: Serve) -> None:
    """Without a workspace for Beehiiv, Truto's 400 names the missing parameter."""
    response = serve(beehiiv()).segments()
    assert response.status_code == 400
    assert "truto_is_remote_error" not in response.json()
    insight = response.json()["truto_error_insight"]["missing_required_query_parameters"]
    assert insight["description"]
    assert insight["value"] == ["workspace[id]"]


def test_unknown_workspace(serve: Serve) -> None:
    """The vendor responds to an unknown workspace with a 404."""
    response = serve(beehiiv()).segments(params={"workspace[id]": "pub_9"})
    assert response.status_code == 404
    assert response.json()["truto_is_remote_error"] is True
    assert response.json()["message"] == ""
    assert "pub_9" in str(response.json()["raw_response"])


@pytest.mark.parametrize("vendor", ["klaviyo", "brevo", "customerio"])
def test_ignored_workspace(serve: Serve, vendor: str) -> None:
    """A vendor that does not filter by workspace ignores the parameter."""
    client = serve(Account("a", vendor, vendors.segments(vendor, 3)))
    assert client.segments(params={"workspace[id]": "x"}).json()["result_count"] == 3


def test_list_of_workspaces(serve: Serve) -> None:
    """The list shows workspaces in the unified form, the same each time."""
    account = beehiiv()
    client = serve(account)
    response = client.workspaces().json()
    assert response["result_count"] == 2
    assert response["next_cursor"] is None
    assert [(w["id"], w["name"]) for w in response["result"]] == [
        ("pub_1", "The Daily"),
        ("pub_2", "pub_2"),
    ]
    fields = {"id", "name", "description", "created_at", "updated_at", "remote_data"}
    assert set(response["result"][0]) == fields
    assert response["result"] == client.workspaces().json()["result"]


@pytest.mark.parametrize("vendor", ["activecampaign", "flodesk", "klaviyo", "mailerlite"])
def test_vendor_without_workspaces(serve: Serve, vendor: str) -> None:
    """If a vendor has no workspaces, Truto responds that they are not supported."""
    response = serve(Account("a", vendor)).workspaces()
    assert response.status_code == 400
    assert "not supported" in response.json()["message"]


# --- meta -----------------------------------------------------------------------------------------


def test_meta_fields(serve: Serve) -> None:
    """The meta endpoint describes the nine fields of a segment."""
    response = serve(Account("a", "klaviyo")).meta().json()
    assert response["method"] == "list"
    properties = response["schema"]["properties"]
    assert list(properties) == [
        "id",
        "name",
        "description",
        "status",
        "is_starred",
        "created_at",
        "updated_at",
        "last_calculated_at",
        "remote_data",
    ]
    assert properties["id"]["required"] is True
    assert properties["updated_at"]["format"] == "date-time"
    assert all(entry["type"] and entry["description"] for entry in properties.values())
    assert {"response_schema", "query_schema"} <= set(response)


def test_meta_workspace(serve: Serve) -> None:
    """The meta endpoint requires a workspace for Beehiiv, but not for Klaviyo."""
    client = serve(Account("a", "klaviyo"), Account("b", "beehiiv"))

    def required(account_id: str) -> bool:
        query = client.meta(account_id).json()["query_schema"]["properties"]
        return bool(query["workspace"]["properties"]["id"]["required"])

    assert (required("a"), required("b")) == (False, True)
