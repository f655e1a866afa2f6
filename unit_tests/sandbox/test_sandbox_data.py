from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox import demo_environment, vendors

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
def test_filled_fields(vendor: str, fields: set[str]) -> None:
    """Only the fields that Truto fills for the vendor have values."""
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
def test_form_of_dates(vendor: str, field: str, form: str) -> None:
    """Dates have the form that the vendor writes."""
    for record in vendors.segments(vendor, 30):
        assert re.fullmatch(form, record[field])


def test_date_of_beehiiv() -> None:
    """Beehiiv's date is a number of seconds, the same as in remote_data."""
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
def test_remote_data(vendor: str, fields: set[str]) -> None:
    """remote_data has the form that the vendor documents."""
    for record in vendors.segments(vendor, 30):
        assert set(record["remote_data"]) == fields


@pytest.mark.parametrize("vendor", vendors.VENDORS)
def test_valid_records(vendor: str) -> None:
    """Records have unique ids and names, unified fields only, and known statuses."""
    made = vendors.segments(vendor, 300)
    assert len({record["id"] for record in made}) == 300
    assert len({record["name"] for record in made}) == 300
    for record in made:
        assert set(record) <= UNIFIED
        assert isinstance(record["id"], str)
        assert record["id"] == str(record["remote_data"]["id"])
        assert record.get("status") in KNOWN_STATUSES | {None}


@pytest.mark.parametrize("vendor", vendors.VENDORS)
def test_same_seed(vendor: str) -> None:
    """The same seed and account always make the same data, and any others make other data."""
    made = vendors.segments(vendor, 20, seed=3, account=4)
    assert made == vendors.segments(vendor, 20, seed=3, account=4)
    assert made[:5] == vendors.segments(vendor, 5, seed=3, account=4)
    lazy = vendors.SegmentSequence(vendor, 20, seed=3, account=4)
    assert [lazy[7], lazy[-1], *lazy[2:4]] == [made[7], made[19], *made[2:4]]
    assert made != vendors.segments(vendor, 20, seed=3, account=5)
    assert made != vendors.segments(vendor, 20, seed=4, account=4)


def count(account: Account) -> int:
    return len(account.segments) + sum(map(len, account.workspaces.values()))


def test_demo_accounts() -> None:
    """The demo has one account of each vendor, under a stable id."""
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
