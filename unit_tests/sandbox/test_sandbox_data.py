from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import requests

from sandbox import DEFAULT_TOKEN, Sandbox, demo_environment, large_environment, vendors

if TYPE_CHECKING:
    from sandbox import Account

UNIFIED = {
    "id",
    "name",
    "description",
    "status",
    "is_starred",
    "created_at",
    "updated_at",
    "last_calculated_at",
    "remote_data",
}
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
KNOWN_STATUSES = {"active", "pending", "processing", "inactive", "failed"}


def filled(vendor: str) -> set[str]:
    made = vendors.segments(vendor, 50)
    return {name for record in made for name, value in record.items() if value is not None}


@pytest.mark.parametrize(
    ("vendor", "fields"),
    [
        ("activecampaign", {"created_at", "updated_at"}),
        ("beehiiv", {"status", "last_calculated_at"}),
        ("brevo", {"updated_at"}),
        ("customerio", {"description", "status"}),
        ("flodesk", {"created_at"}),
        ("klaviyo", {"description", "status", "is_starred", "created_at", "updated_at"}),
        ("mailerlite", {"created_at"}),
    ],
)
def test_given_a_vendor_then_only_the_fields_it_fills_are_filled(
    vendor: str, fields: set[str]
) -> None:
    assert filled(vendor) == {"id", "name", "remote_data"} | fields


@pytest.mark.parametrize(
    ("vendor", "field", "form"),
    [
        ("activecampaign", "updated_at", ISO + r"\.000Z"),
        ("brevo", "updated_at", ISO + "Z"),
        ("flodesk", "created_at", ISO + r"\.000Z"),
        ("klaviyo", "updated_at", ISO + r"\+00:00"),
        ("mailerlite", "created_at", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"),
    ],
)
def test_given_a_vendor_then_its_dates_have_the_form_it_writes(
    vendor: str, field: str, form: str
) -> None:
    for record in vendors.segments(vendor, 30):
        assert re.fullmatch(form, record[field])


def test_given_beehiiv_then_its_date_is_a_number_of_seconds() -> None:
    for record in vendors.segments("beehiiv", 30):
        assert record["last_calculated_at"] == record["remote_data"]["last_calculated"]
        assert 1_600_000_000 < record["last_calculated_at"] < 1_800_000_000


@pytest.mark.parametrize(
    ("vendor", "fields"),
    [
        ("activecampaign", {"id", "type", "attributes"}),
        (
            "beehiiv",
            {"id", "name", "type", "last_calculated", "total_results", "status", "active"},
        ),
        ("brevo", {"id", "segmentName", "categoryName", "updatedAt"}),
        (
            "customerio",
            {
                "id",
                "deduplicate_id",
                "name",
                "description",
                "state",
                "progress",
                "type",
                "tags",
                "created_at",
                "updated_at",
            },
        ),
        ("flodesk", {"id", "name", "total_active_subscribers", "created_at", "color"}),
        ("klaviyo", {"type", "id", "attributes", "relationships", "links"}),
        ("mailerlite", {"id", "name", "total", "open_rate", "click_rate", "created_at"}),
    ],
)
def test_given_a_vendor_then_remote_data_has_the_form_it_documents(
    vendor: str, fields: set[str]
) -> None:
    for record in vendors.segments(vendor, 30):
        assert set(record["remote_data"]) == fields


@pytest.mark.parametrize("vendor", vendors.VENDORS)
def test_given_any_vendor_then_the_records_are_valid(vendor: str) -> None:
    made = vendors.segments(vendor, 300)
    assert len({record["id"] for record in made}) == 300
    assert len({record["name"] for record in made}) == 300
    for record in made:
        assert set(record) <= UNIFIED
        assert isinstance(record["id"], str)
        assert record["id"] == str(record["remote_data"]["id"])
        assert record.get("status") in KNOWN_STATUSES | {None}


@pytest.mark.parametrize("vendor", vendors.VENDORS)
def test_given_the_same_seed_then_the_same_data_comes_however_it_is_requested(
    vendor: str,
) -> None:
    made = vendors.segments(vendor, 20, seed=3, account=4)
    assert made == vendors.segments(vendor, 20, seed=3, account=4)
    assert made[:5] == vendors.segments(vendor, 5, seed=3, account=4)
    lazy = vendors.SegmentSequence(vendor, 20, seed=3, account=4)
    assert [lazy[7], lazy[-1], *lazy[2:4]] == [made[7], made[19], *made[2:4]]
    assert made != vendors.segments(vendor, 20, seed=3, account=5)
    assert made != vendors.segments(vendor, 20, seed=4, account=4)


def test_given_a_place_outside_then_a_lazy_sequence_has_nothing_there() -> None:
    for number in (2, -3):
        with pytest.raises(IndexError):
            vendors.SegmentSequence("klaviyo", 2)[number]


def test_given_an_unknown_vendor_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Unknown vendor 'hubspot'; known are .*klaviyo"):
        vendors.segments("hubspot", 1)


def count(account: Account) -> int:
    return len(account.segments) + sum(map(len, account.workspaces.values()))


def test_given_the_demo_then_it_has_an_account_of_each_vendor_under_a_stable_id() -> None:
    accounts = demo_environment().accounts
    assert {account.vendor: count(account) for account in accounts} == {
        "klaviyo": 43,
        "activecampaign": 24,
        "beehiiv": 12,
        "brevo": 67,
        "customerio": 18,
        "flodesk": 9,
        "mailerlite": 31,
    }
    ids = [account.id for account in accounts]
    assert ids == [account.id for account in demo_environment().accounts]
    assert all(str(uuid.UUID(account_id)) == account_id for account_id in ids)
    (beehiiv,) = (account for account in accounts if account.vendor == "beehiiv")
    assert len(beehiiv.workspaces) == len(beehiiv.workspace_names) == 2


def test_given_the_demo_then_each_account_has_a_tenant_of_its_own_and_nothing_fails() -> None:
    environment = demo_environment()
    accounts = environment.accounts
    assert len({account.tenant_id for account in accounts}) == 7
    assert all(account.tenant_id.isalpha() for account in accounts)
    with Sandbox(environment) as sandbox:
        counts: list[int] = []
        for account in accounts:
            workspaces: list[str | None] = [*account.workspaces]
            for workspace in workspaces or [None]:
                read = pages(sandbox, account, workspace)
                counts += [page["result_count"] for page in read]
        headers = {"Authorization": f"Bearer {DEFAULT_TOKEN}"}
        url = f"{sandbox.url}/integrated-account"
        listed = requests.get(url, headers=headers, timeout=5).json()["result"]
        assert {request.status for request in sandbox.requests} == {200}
    assert sum(counts) == 204
    assert {account["integration"]["label"] for account in listed} == {
        "ActiveCampaign",
        "Beehiiv",
        "Brevo",
        "Customer.io",
        "Flodesk",
        "Klaviyo",
        "MailerLite",
    }
    assert {account["authentication_method"] for account in listed} == {"api_key", "oauth2"}
    assert all(account["status"] == "active" for account in listed)


def test_given_5000_accounts_then_they_are_made_in_a_moment() -> None:
    started = time.process_time()
    accounts = large_environment(5_000, 50).accounts
    assert time.process_time() - started < 1
    assert len({account.id for account in accounts}) == 5_000
    assert {count(account) for account in accounts} == {50}
    assert len({account.tenant_id for account in accounts}) == 5_000


def test_given_states_then_so_many_accounts_are_in_them_all_over_the_list() -> None:
    environment = large_environment(1_000, states={"needs_reauth": 0.02, "connecting": 0.01})
    statuses = [account.status for account in environment.accounts]
    assert Counter(statuses) == {"active": 970, "needs_reauth": 20, "connecting": 10}
    halves = Counter(statuses[:500])["needs_reauth"], Counter(statuses[500:])["needs_reauth"]
    assert min(halves) >= 5


@pytest.mark.parametrize("states", [{"connecting": 1.0}, {"connecting": 0.8, "needs_reauth": 0.8}])
def test_given_states_for_everyone_then_nobody_is_active(states: dict[str, float]) -> None:
    statuses = [account.status for account in large_environment(7_919, states=states).accounts]
    assert len(statuses) == 7_919
    assert "active" not in statuses


def pages(sandbox: Sandbox, account: Account, workspace: str | None) -> list[dict[str, Any]]:
    params = {"integrated_account_id": account.id}
    if workspace is not None:
        params["workspace[id]"] = workspace
    url = f"{sandbox.url}/unified/marketing-automation/segments"
    headers = {"Authorization": f"Bearer {DEFAULT_TOKEN}"}
    read: list[dict[str, Any]] = []
    while not read or read[-1]["next_cursor"]:
        read.append(requests.get(url, params=params, headers=headers, timeout=5).json())
        params["next_cursor"] = read[-1]["next_cursor"]
    return read


@pytest.mark.parametrize(("page_size", "sizes"), [(None, [25]), (10, [10, 10, 5])])
def test_given_a_large_environment_then_each_account_fits_one_page_by_default(
    page_size: int | None, sizes: list[int]
) -> None:
    environment = large_environment(7, 25, page_size=page_size)
    with Sandbox(environment) as sandbox:
        for account in environment.accounts:
            workspace = next(iter(account.workspaces), None)
            read = pages(sandbox, account, workspace)
            assert [page["result_count"] for page in read] == sizes


def test_given_vendors_then_a_large_environment_has_only_those_in_turn() -> None:
    accounts = large_environment(4, vendors=["brevo", "flodesk"]).accounts
    assert [account.vendor for account in accounts] == ["brevo", "flodesk"] * 2
    with pytest.raises(ValueError, match="hubspot"):
        large_environment(1, vendors=["hubspot"])
