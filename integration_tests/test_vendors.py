"""The seven vendors through Truto: how each pages, limits and refuses."""

from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
from airbyte_cdk.models import Status
from jsonschema import Draft7Validator

from integration_tests.support import (
    ACCOUNT_ID,
    ALL,
    Serve,
    account,
    aged,
    check,
    id_of,
    kinds,
    listed,
    numbered_account,
    read,
)
from sandbox import Account, Fault, Sandbox, VendorLimit, faults, vendors
from source_truto_segments.records.columns import load_schema

# The default and the maximum number of records on a page. None stands for one page of any length,
# or for no maximum.
PAGE_SIZES = {
    "activecampaign": (20, 10_000),
    "beehiiv": (10, 100),
    "brevo": (10, 50),
    "customerio": (None, None),
    "flodesk": (20, 100),
    "klaviyo": (10, 10),
    "mailerlite": (25, None),
}
VALIDATOR = Draft7Validator(load_schema("segments"), format_checker=Draft7Validator.FORMAT_CHECKER)
READING = f"Reading the segments of integrated account {ACCOUNT_ID} failed: "


def of_vendor(vendor: str, count: int, **how: Any) -> Account:
    """Return an account with this many segments, those of Beehiiv in a workspace."""
    segments = vendors.segments(vendor, count)
    if vendor == "beehiiv":
        return account(vendor, segments=[], workspaces={"pub_a": segments}, **how)
    return account(vendor, segments=segments, **how)


def good_pages(sandbox: Sandbox) -> int:
    return sum(r.kind == "segments" and r.status == 200 for r in sandbox.requests)


# --- paging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10, 20, 25, 63, 100])
@pytest.mark.parametrize("vendor", PAGE_SIZES)
def test_each_vendor(serve: Serve, vendor: str, count: int) -> None:
    """Every segment of each vendor is emitted once."""
    sandbox = serve(of_vendor(vendor, count))

    result = read(sandbox)

    assert result.failure is None
    assert result.ids == [segment["id"] for segment in vendors.segments(vendor, count)]
    default, _ = PAGE_SIZES[vendor]
    assert good_pages(sandbox) == (1 if default is None else ceil(count / default))
    assert {request.param("limit") for request in sandbox.requests} == {None}
    assert [e.message for row in result.records for e in VALIDATOR.iter_errors(row)] == []
    for record, segment in zip(result.records, vendors.segments(vendor, count), strict=True):
        assert (record["name"], record["remote_data"]) == (segment["name"], segment["remote_data"])


@pytest.mark.parametrize("page_size", [1, 7, 10])
@pytest.mark.parametrize("vendor", PAGE_SIZES)
def test_page_size(serve: Serve, vendor: str, page_size: int) -> None:
    """Each request has the page size, and every segment is emitted once."""
    sandbox = serve(of_vendor(vendor, 23))

    result = read(sandbox, page_size=page_size)

    assert result.failure is None
    assert result.ids == [segment["id"] for segment in vendors.segments(vendor, 23)]
    is_paged = PAGE_SIZES[vendor][0] is not None
    assert good_pages(sandbox) == (ceil(23 / page_size) if is_paged else 1)
    limits = {request.param("limit") for request in sandbox.requests if request.kind == "segments"}
    assert limits == {str(page_size)}


@pytest.mark.parametrize("vendor", sorted(PAGE_SIZES.keys() - {"activecampaign", "beehiiv"}))
def test_account_without_segments(serve: Serve, vendor: str) -> None:
    """An account without segments is empty."""
    sandbox = serve(of_vendor(vendor, 0))

    result = read(sandbox)

    assert result.failure is None
    assert result.records == []
    assert result.statuses == ["STARTED", "COMPLETE"]
    assert kinds(sandbox) == {"segments": 1}


# --- page_size above the vendor's maximum ---------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "page_size"),
    [
        ("activecampaign", 20_000),
        ("beehiiv", 500),
        ("flodesk", 500),
        ("klaviyo", 10),
        ("klaviyo", 11),
        ("brevo", 50),
        ("brevo", 51),
    ],
)
def test_any_page_size(serve: Serve, vendor: str, page_size: int) -> None:
    """No account fails because of any page size."""
    sandbox = serve(of_vendor(vendor, 120))

    result = read(sandbox, page_size=page_size)

    assert result.failure is None
    assert len(result.ids) == len(set(result.ids)) == 120
    assert check(sandbox, page_size=page_size) == (Status.SUCCEEDED, None)


@pytest.mark.parametrize("vendor", PAGE_SIZES)
def test_check_without_page_size(serve: Serve, vendor: str) -> None:
    """Without a page size, a check sends no limit."""
    sandbox = serve(of_vendor(vendor, 60))

    status, message = check(sandbox)

    assert (status, message) == (Status.SUCCEEDED, None)
    assert {request.param("limit") for request in sandbox.requests} == {None}
    assert good_pages(sandbox) == 1


# --- ActiveCampaign's 404 -------------------------------------------------------------------------


def test_activecampaign_without_segments(serve: Serve) -> None:
    """If an ActiveCampaign account has no segments, its 404 is an empty list."""
    sandbox = serve(account("activecampaign", segments=[]))

    result = read(sandbox)

    assert result.failure is None
    assert result.errors == []
    assert result.records == []
    assert result.statuses == ["STARTED", "COMPLETE"]
    assert [(r.kind, r.status) for r in sandbox.requests] == [("segments", 404), ("account", 200)]
    status, message = check(sandbox)
    assert (status, message) == (Status.SUCCEEDED, None)


def test_activecampaign_with_segments(serve: Serve) -> None:
    """If an ActiveCampaign account has segments, its integration is not requested."""
    sandbox = serve(account("activecampaign", count=45))

    result = read(sandbox)

    assert len(set(result.ids)) == 45
    assert kinds(sandbox) == {"segments": 3}


def test_known_integration(serve: Serve) -> None:
    """If an integration is known, it is not requested for an account without segments."""
    empty = [numbered_account(n, "activecampaign", segments=[]) for n in range(3)]
    sandbox = serve(*empty, numbered_account(3))

    result = read(sandbox, additional_accounts=ALL)

    assert result.failure is None
    assert {record["integrated_account_id"] for record in result.records} == {id_of(3)}
    assert kinds(sandbox) == {"accounts": 1, "segments": 4}


def test_activecampaign_lost_segments(serve: Serve) -> None:
    """If an ActiveCampaign account has lost its segments, they are deleted."""
    # Its 404 stands for an empty list, which a later sync has to find as well.
    emptied = account("activecampaign", count=3)
    sandbox = serve(emptied)
    first = read(sandbox, sync_mode="incremental")

    emptied.segments = []
    second = read(sandbox, sync_mode="incremental", state=first.last_state)

    third = read(sandbox, sync_mode="incremental", state=aged(second.last_state))

    assert second.failure is third.failure is None
    assert second.ids == []
    assert sorted(third.ids) == sorted(first.ids)
    assert all(record["_ab_cdc_deleted_at"] for record in third.records)


@pytest.mark.parametrize("option", [ALL, {"mode": "none"}])
@pytest.mark.parametrize("vendor", sorted(PAGE_SIZES.keys() - {"activecampaign"}))
def test_another_vendors_404(serve: Serve, vendor: str, option: dict[str, Any]) -> None:
    """Another vendor's 404 is an error."""
    sandbox = serve(of_vendor(vendor, 5, faults=[not_found()]))

    result = read(sandbox, additional_accounts=option)

    (error,) = result.errors
    assert error["message"].startswith(f"{READING}the vendor did not find the requested resource")
    assert error["failure_type"] == "config_error"
    assert result.statuses == ["STARTED", "INCOMPLETE"]
    # The list contains its integration; without the list, the connector has to ask for it.
    assert kinds(sandbox)["account"] == (0 if option == ALL else 1)


def test_activecampaigns_404_on_later_page(serve: Serve) -> None:
    """ActiveCampaign's 404 on a later page is an error."""
    sandbox = serve(account("activecampaign", count=45, faults=[not_found(after=1)]))

    result = read(sandbox)

    assert len(result.ids) == 20
    assert str(result.failure).startswith(f"{READING}the vendor did not find the requested")
    assert result.statuses == ["STARTED", "RUNNING", "INCOMPLETE"]
    assert kinds(sandbox) == {"segments": 2}


def test_trutos_own_404(serve: Serve) -> None:
    """Truto's own 404 does not mean that an ActiveCampaign account is empty."""
    fault = faults.account_not_found(kind="segments", times=None)
    sandbox = serve(account("activecampaign", faults=[fault]))

    result = read(sandbox)

    assert str(result.failure).startswith(f"{READING}Truto has no such account")
    assert kinds(sandbox) == {"segments": 1}


@pytest.mark.parametrize(
    "fault", [faults.account_not_found, faults.truto_failed, faults.token_forbidden, faults.reset]
)
def test_integration_cannot_be_requested(serve: Serve, fault: Callable[..., Fault]) -> None:
    """If the integration cannot be requested, the error is the 404."""
    script = [fault(kind="account", times=None)]
    result = read(serve(account("activecampaign", segments=[], faults=script)))

    (error,) = result.errors
    assert error["message"].startswith(f"{READING}the vendor did not find the requested resource")


def not_found(after: int = 0) -> Fault:
    return faults.vendor_not_found(kind="segments", after=after, times=None)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["ratelimit-reset", "ratelimit-reset-epoch", "ratelimit-reset-epoch-ms"]
)
@pytest.mark.parametrize(("reset", "wait"), [(20, 20), (600, 60), (86_400, 60)])
def test_used_up_budget_in_good_response(
    serve: Serve, form: Any, reset: float, wait: float
) -> None:
    """After a good response that uses up the budget, the connector waits a minute at most."""
    # The window ends at once, long before the reset that is announced.
    limit = VendorLimit(1, 0.001, retry_after=form, reset=reset)
    sandbox = serve(account("mailerlite", count=60, vendor_limit=limit))

    result = read(sandbox)

    assert len(set(result.ids)) == 60
    assert [request.status for request in sandbox.requests] == [200] * 3
    assert result.waits == [pytest.approx(wait, abs=2)] * 2


@pytest.mark.parametrize("vendor", ["customerio", "brevo"])
def test_429s_say_nothing(serve: Serve, vendor: str) -> None:
    """If 429s say nothing, the waits grow and everything is read."""
    fault = faults.vendor_rate_limited(form="nothing", times=4)
    sandbox = serve(of_vendor(vendor, 15, faults=[fault]), numbered_account(1))

    result = read(sandbox, additional_accounts=listed(1))

    assert result.failure is None
    assert len(result.records) == 18
    own = [r.status for r in sandbox.requests if r.account_id == ACCOUNT_ID]
    assert own[:5] == [429] * 4 + [200]
    # The wait doubles from time to time, up to a minute, with a jitter of a quarter.
    assert result.waits == [pytest.approx(0.875 * wait, rel=0.15) for wait in (10, 20, 40, 60)]


# --- statuses that nobody knows
# --------------------------------------------------------------------


@pytest.mark.parametrize("status", ["blocked", "paused", "", None, 7, ["active"], {"a": "b"}])
def test_unknown_status(serve: Serve, status: Any) -> None:
    """An account with a status that nobody knows is read."""
    unknown = numbered_account(1, heals_on_request=True)
    unknown.status = status
    sandbox = serve(numbered_account(0), unknown)

    result = read(sandbox, streams=("segments", "integrated_accounts"), additional_accounts=ALL)

    assert result.failure is None
    assert {record["integrated_account_id"] for record in result.records} == {id_of(0), id_of(1)}
    # The rows come in the order in which the accounts were read.
    rows = [record["id"] for record in result.records_of("integrated_accounts")]
    assert sorted(rows) == sorted([id_of(0), id_of(1)])


def test_segment_with_unknown_status(serve: Serve) -> None:
    """A segment with a status that nobody knows keeps it."""
    segments = [{"id": "1", "status": "archived"}, {"id": "2", "status": ""}, {"id": "3"}]

    result = read(serve(account(segments=segments)))

    assert [record.get("status") for record in result.rows] == ["archived", "", None]
