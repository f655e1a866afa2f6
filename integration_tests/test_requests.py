"""How few requests a sync needs: page sizes, what is not requested twice, and shards."""

import json
from collections import Counter
from typing import Any

import pytest
from airbyte_cdk.models import Status

from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    Result,
    Serve,
    catalog,
    check,
    id_of,
    kinds,
    listed,
    numbered_account,
    read,
)
from sandbox import Account, Fault, Request, Sandbox, faults, vendors
from source_truto_segments.config import Shard

# The limit that is requested for each vendor.
LIMITS = {
    "activecampaign": "100",
    "beehiiv": "100",
    "brevo": "50",
    "customerio": None,
    "flodesk": "100",
    "klaviyo": None,
    "mailerlite": "50",
    "newsletterly": None,
}


def account(number: int, vendor: str, count: int = 60, **how: Any) -> Account:
    """Return one of several accounts; that of Beehiiv has its segments in a workspace."""
    segments = vendors.segments("flodesk" if vendor == "newsletterly" else vendor, count)
    how.setdefault("category", "marketing-automation")
    if vendor == "beehiiv":
        return numbered_account(number, vendor, segments=[], workspaces={"pub": segments}, **how)
    return numbered_account(number, vendor, segments=segments, **how)


def of_segments(sandbox: Sandbox, number: int | None = None) -> list[Request]:
    """Return the requests for segments, of one account or of all."""
    wanted = None if number is None else id_of(number)
    return [r for r in sandbox.requests if r.kind == "segments" and wanted in (None, r.account_id)]


def limits(sandbox: Sandbox, number: int) -> list[str | None]:
    return [request.param("limit") for request in of_segments(sandbox, number)]


def page_size_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    return [message for message in messages if message.startswith("Pages of ")]


def assert_everything_once(result: Result, sandbox: Sandbox) -> None:
    assert result.failure is None
    expected = Counter(
        (each.id, segment["id"])
        for each in sandbox.environment.accounts
        for segments in (each.segments, *each.workspaces.values())
        for segment in segments
    )
    found = Counter((row["integrated_account_id"], row["id"]) for row in result.records)
    assert found == expected


# --- page sizes -----------------------------------------------------------------------------------


def test_seven_vendors(serve: Serve) -> None:
    """For the seven vendors, 15 requests are enough."""
    # Each has 60 segments, which take 30 requests in default pages. The list of accounts is one
    # request more.
    sandbox = serve(*[account(n, name) for n, name in enumerate(vendors.VENDORS)])

    result = read(sandbox, additional_accounts=ALL)

    assert_everything_once(result, sandbox)
    assert kinds(sandbox) == {"accounts": 1, "segments": 14, "workspaces": 1}
    assert {request.status for request in sandbox.requests} == {200}


@pytest.mark.parametrize("option", [ALL, listed(*range(1, 8))], ids=["all", "listed"])
def test_known_integrations(serve: Serve, option: dict[str, Any]) -> None:
    """If the integrations are known, the limits are those of the vendors."""
    # They are known from Truto's list, or from the accounts' objects if their stream is selected.
    sandbox = serve(*[account(n, name, 120) for n, name in enumerate(LIMITS)])

    result = read(sandbox, streams=("segments", "integrated_accounts"), additional_accounts=option)

    assert_everything_once(result, sandbox)
    for number, limit in enumerate(LIMITS.values()):
        assert set(limits(sandbox, number)) == {limit}


@pytest.mark.parametrize("page_size", [30, 1000])
def test_page_size_is_upper_bound(serve: Serve, page_size: int) -> None:
    """A page size raises no limit, and is sent unchanged if the vendor is not known."""
    sandbox = serve(*[account(n, name) for n, name in enumerate(LIMITS)])

    result = read(sandbox, additional_accounts=ALL, page_size=page_size)

    assert_everything_once(result, sandbox)
    for number, (name, limit) in enumerate(LIMITS.items()):
        expected = str(min(page_size, int(limit))) if limit else None
        expected = str(page_size) if name == "newsletterly" else expected
        assert limits(sandbox, number)[0] == expected


def test_no_known_integration(serve: Serve) -> None:
    """If no integration is known, the connector asks for none."""
    # A request for the account's object would cost what it saves.
    sandbox = serve(account(0, "flodesk"), account(1, "brevo"))

    result = read(sandbox, additional_accounts=listed(1))

    assert_everything_once(result, sandbox)
    assert kinds(sandbox) == {"segments": 9}
    assert {request.param("limit") for request in sandbox.requests} == {None}


# --- vendors that do not keep to a page size ------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        faults.vendor_error(400, raw_response={"message": "Limit exceeds max value"}),
        faults.vendor_error(400, raw_response="Bad Request"),
        faults.vendor_error(422, raw_response={"errors": [{"detail": "per_page is invalid"}]}),
        faults.truto_error(400, "Invalid query"),
        faults.truto_error(422, "limit must be at most 50"),
    ],
    ids=["named", "vague", "422", "Truto's", "Truto's 422"],
)
def test_rejected_limit(serve: Serve, response: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """After a rejected limit, its integration is read without one."""
    # Only the first account is rejected, and another integration keeps its pages.
    caplog.set_level("INFO")
    first = account(0, "flodesk", faults=[with_limit(response)])
    others = [account(1, "flodesk", faults=[with_limit(response)]), account(2, "brevo")]
    sandbox = serve(first, *others)

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    assert_everything_once(result, sandbox)
    assert limits(sandbox, 0) == ["100", None, None, None]
    assert limits(sandbox, 1) == [None, None, None]
    assert limits(sandbox, 2) == ["50", "50"]
    (line,) = page_size_lines(caplog)
    assert line.startswith("Pages of 100 records do not work for flodesk: they were rejected (HTTP")


def test_other_rejection(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If the rejection comes again without a limit, the next account still sends one."""
    caplog.set_level("INFO")
    fault = faults.vendor_error(400, raw_response="Invalid sort", times=None)
    sandbox = serve(account(0, "flodesk", faults=[fault]), account(1, "flodesk"))

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    (error,) = result.errors
    assert "the vendor rejected the request" in error["message"]
    assert "page_size" not in error["message"]
    assert limits(sandbox, 0) == ["100", None]
    assert limits(sandbox, 1) == ["100"]
    assert page_size_lines(caplog) == []


def test_missing_workspace(serve: Serve) -> None:
    """A 400 about a missing workspace is not about the page size, so the limit is kept."""
    sandbox = serve(account(0, "beehiiv"))

    result = read(sandbox, page_size=30)

    assert_everything_once(result, sandbox)
    assert [request.status for request in of_segments(sandbox)] == [400, 200, 200]
    assert limits(sandbox, 0) == ["30"] * 3


def test_maximum_lowered_between_pages(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If a vendor lowers its maximum between two pages, nothing is lost."""
    # The 400 of the second page mentions the limit, so the list is read again from its first page.
    caplog.set_level("INFO")

    def lower(each: Account, _: int) -> None:
        each.max_page_size, each.oversized = 20, "reject"

    sandbox = serve(account(0, "brevo", 120, on_page=lower))

    result = read(sandbox, additional_accounts=ALL)

    assert_everything_once(result, sandbox)
    assert limits(sandbox, 0) == ["50", "50"] + [None] * 12
    assert len(page_size_lines(caplog)) == 1


@pytest.mark.parametrize("reason", ["Rate limit reached", "Daily request limit", "The cursor"])
def test_another_rejection_of_later_page(
    serve: Serve, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another rejection of a later page is not blamed on the limit."""
    # On a later page, only a message that mentions the page size is about it.
    caplog.set_level("INFO")
    fault = faults.vendor_error(422, raw_response=reason, after=1)
    sandbox = serve(account(0, "brevo", 120, faults=[fault]))

    read(sandbox, additional_accounts=ALL)

    assert set(limits(sandbox, 0)) == {"50"}
    assert page_size_lines(caplog) == []


@pytest.mark.parametrize("oversized", ["reject", "cut", "end", "skip"])
@pytest.mark.parametrize("maximum", [10, 20, 25])
@pytest.mark.parametrize("vendor", ["activecampaign", "beehiiv", "brevo", "mailerlite"])
def test_vendor_of_smaller_pages(
    serve: Serve, vendor: str, maximum: int, oversized: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If a vendor has smaller pages, no record is lost."""
    # It rejects the limit or returns less, or Truto ends the list early or skips records.
    caplog.set_level("INFO")
    how: dict[str, Any] = {
        "max_page_size": maximum,
        "default_page_size": maximum,
        "oversized": oversized,
    }
    sandbox = serve(account(0, vendor, **how), account(1, vendor, 47, **how))

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    assert_everything_once(result, sandbox)
    assert {limit for limit in limits(sandbox, 1) if limit} == set()
    assert len(page_size_lines(caplog)) == 1


@pytest.mark.parametrize("maximum", [7, 30])
def test_unusual_maximum(serve: Serve, maximum: int) -> None:
    """If a vendor has an unusual maximum, no record is skipped."""
    # A page with fewer records than requested, and another page after it, is evidence enough.
    how: dict[str, Any] = {"max_page_size": maximum, "default_page_size": maximum}
    sandbox = serve(account(0, "flodesk", 250, oversized="skip", **how))

    result = read(sandbox, additional_accounts=ALL)

    assert_everything_once(result, sandbox)
    assert limits(sandbox, 0)[:3] == ["100", "100", None]


@pytest.mark.parametrize("count", [10, 20, 25, 50])
def test_list_of_default_page(serve: Serve, count: int, caplog: pytest.LogCaptureFixture) -> None:
    """A list as long as a default page is read again without a limit."""
    # There are no more records, so the integration keeps its pages, and nothing is emitted twice.
    caplog.set_level("INFO")
    sandbox = serve(account(0, "flodesk", count), account(1, "flodesk"))

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    assert_everything_once(result, sandbox)
    assert limits(sandbox, 0)[:2] == ["100", None]
    assert limits(sandbox, 1) == ["100"]
    assert page_size_lines(caplog) == []


@pytest.mark.parametrize(("vendor", "count"), [("brevo", 60), ("flodesk", 110), ("brevo", 50)])
def test_full_first_page(serve: Serve, vendor: str, count: int) -> None:
    """If the first page is full, the list is read once."""
    # A vendor that returns as many records as requested cuts nothing.
    sandbox = serve(account(0, vendor, count))

    result = read(sandbox, additional_accounts=ALL)

    assert_everything_once(result, sandbox)
    assert None not in limits(sandbox, 0)


def test_cursor_after_last_record(serve: Serve) -> None:
    """A cursor after the last record does not change the limit."""
    # If only an empty page follows a short page, the short page is the last.
    segments = vendors.segments("flodesk", 3)
    first = json.dumps({"result": segments, "next_cursor": "more"})
    last = json.dumps({"result": [], "next_cursor": None})
    script = [faults.body(first), faults.body(last)]
    sandbox = serve(account(0, "flodesk", 3, faults=script), account(1, "flodesk"))

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    assert_everything_once(result, sandbox)
    assert limits(sandbox, 0) == ["100", "100"]
    assert limits(sandbox, 1) == ["100"]


def test_second_read_without_limit(serve: Serve) -> None:
    """If records are missing, the second read sends no limit."""
    # The second read is independent evidence that they were deleted.
    one = account(0, "flodesk", 33)
    sandbox = serve(one)
    first = read(sandbox, sync_mode="incremental", additional_accounts=ALL)
    sandbox.clear()

    one.segments = one.segments[1:]
    second = read(
        sandbox,
        sync_mode="incremental",
        state=first.last_state,
        additional_accounts=ALL,
    )

    assert [bool(row["_ab_cdc_deleted_at"]) for row in second.records] == [True]
    assert limits(sandbox, 0) == ["100", None, None]


# --- nothing is requested twice -------------------------------------------------------------------


def test_all_streams(serve: Serve) -> None:
    """With all streams, the connector asks only vendors with workspaces for them."""
    # Accounts of the others cost a request each, and Beehiiv's are read by workspace at once.
    names = list(vendors.VENDORS) * 2
    sandbox = serve(*[account(n, name, 5) for n, name in enumerate(names)])

    result = read(sandbox, streams=ALL_STREAMS, additional_accounts=ALL)

    assert_everything_once(result, sandbox)
    assert len(result.records_of("workspaces")) == 2
    assert kinds(sandbox) == {"accounts": 1, "segments": 14, "workspaces": 6}
    assert {request.status for request in sandbox.requests} == {200}


def test_integration_without_workspaces(serve: Serve) -> None:
    """If an integration has no workspaces, only one of its accounts is asked."""
    # An account with its own override is asked as well, since it can have some.
    override: dict[str, Any] = {
        "unified_model_override": {"marketing-automation": {"workspaces": {}}}
    }
    accounts = [account(n, "newsletterly", 3) for n in range(4)]
    own = account(4, "klaviyo", 3, workspaces={"w": []}, **override)
    lacking = account(5, "newsletterly", 3, **override)
    sandbox = serve(lacking, *accounts, own)

    result = read(
        sandbox,
        streams=ALL_STREAMS,
        additional_accounts=ALL,
        num_workers=1,
    )

    assert result.failure is None
    asked = [request.account_id for request in sandbox.requests if request.kind == "workspaces"]
    # What the override of the first account lacks says nothing about the others.
    assert asked == [id_of(5), id_of(0), id_of(4)]
    assert [row["id"] for row in result.records_of("workspaces")] == ["w"]
    rows = result.records_of("integrated_accounts")
    assert len(rows) == 6
    assert all("override" not in name for row in rows for name in row)


def test_integration_requires_workspaces(serve: Serve) -> None:
    """If an integration requires workspaces, only one of its accounts is rejected."""
    # The next ones are asked for their workspaces first.
    segments = vendors.segments("flodesk", 3)
    sandbox = serve(
        *[
            account(n, "newsletterly", 0, requires_workspace=True, workspaces={"w": segments})
            for n in range(3)
        ]
    )

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    assert_everything_once(result, sandbox)
    assert [r.status for r in of_segments(sandbox)] == [400, 200, 200, 200]
    assert kinds(sandbox)["workspaces"] == 3


@pytest.mark.parametrize(
    "workspaces",
    [None, faults.resource_not_supported("workspaces", kind="workspaces", times=None)],
    ids=["empty", "not supported"],
)
def test_no_workspace_to_read(serve: Serve, workspaces: Fault | None) -> None:
    """If a workspace is required and there is none, the account itself is asked."""
    # An override can make Beehiiv return segments without a workspace.
    segments = json.dumps({"result": [{"id": "1"}], "next_cursor": None})
    script = [faults.body(segments, kind="segments"), *([workspaces] if workspaces else [])]
    one = numbered_account(0, "beehiiv", segments=[], faults=script)
    sandbox = serve(one)

    result = read(sandbox, additional_accounts=ALL)

    assert result.failure is None
    assert result.ids == ["1"]
    assert kinds(sandbox) == {"accounts": 1, "workspaces": 1, "segments": 1}


def test_beehiiv_without_workspaces(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A Beehiiv account without workspaces is empty; its rejection confirms the empty list."""
    caplog.set_level("INFO")
    sandbox = serve(numbered_account(0, "beehiiv", segments=[]))

    result = read(sandbox, additional_accounts=ALL)

    assert result.failure is None
    assert result.records == []
    assert kinds(sandbox) == {"accounts": 1, "workspaces": 1, "segments": 1}
    assert f"Integrated account {id_of(0)} has no workspaces, so it has no segments." in [
        record.getMessage() for record in caplog.records
    ]


def test_integration_without_segments(serve: Serve) -> None:
    """If an integration has no segments, only one of its accounts is asked."""
    # If the user lists the integration, each account has its error instead.
    without: dict[str, Any] = {"segments": [], "category": "marketing-automation"}
    sandbox = serve(
        account(0, "klaviyo", 3), *[numbered_account(n, "smsly", **without) for n in range(1, 5)]
    )

    result = read(sandbox, additional_accounts=ALL, num_workers=1)

    assert result.failure is None
    assert len(of_segments(sandbox)) == 2
    named = {"mode": "all", "integrations": ["smsly"]}
    failed = read(sandbox, additional_accounts=named, num_workers=1)
    assert "Affected: 4 integrated accounts (smsly: 4)" in failed.errors[0]["message"]


# --- shards ---------------------------------------------------------------------------------------


INVALID_SHARD = (
    "Shard (additional_accounts.shard) must be the number of a shard and how many there are, up to "
    "99, for example 2/5."
)


def shard(text: str, **options: Any) -> dict[str, Any]:
    return {"mode": "all", "shard": text, **options}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_shards(serve: Serve, count: int) -> None:
    """Together, the shards emit everything once, in all three streams."""
    names = list(vendors.VENDORS) * 3
    sandbox = serve(*[account(n, name, 3) for n, name in enumerate(names)], list_page_size=4)
    configured = catalog(streams=ALL_STREAMS)

    def keys(option: dict[str, Any]) -> Counter[tuple[Any, ...]]:
        result = read(sandbox, configured=configured, additional_accounts=option)
        assert result.failure is None
        return Counter(
            (stream, row.get("integrated_account_id"), row["id"])
            for stream in ALL_STREAMS
            for row in result.records_of(stream)
        )

    everything = keys(ALL)
    parts = [keys(shard(f"{number + 1}/{count}")) for number in range(count)]

    assert sum(parts, Counter()) == everything
    assert set(everything.values()) == {1}
    assert all(parts)


def test_configured_account_not_listed(serve: Serve) -> None:
    """If a configured account is not in Truto's list, only its shard reads it."""
    # A filter leaves it out of the list.
    sandbox = serve(account(0, "klaviyo", 3), *[account(n, "flodesk", 3) for n in range(1, 12)])
    home = next(n for n in (1, 2, 3) if Shard(n, 3).contains(id_of(0)))

    for number in (1, 2, 3):
        option = shard(f"{number}/3", integrations=["flodesk"])
        result = read(sandbox, additional_accounts=option)
        ids = {row["integrated_account_id"] for row in result.records}
        assert (id_of(0) in ids) == (number == home)
        assert check(sandbox, additional_accounts=option) == (Status.SUCCEEDED, None)


def test_another_shard(serve: Serve) -> None:
    """After a change to another shard, no deletions are inferred."""
    # The state of the first shard is kept apart, so everything of the second is emitted once.
    sandbox = serve(*[account(n, "flodesk", 3) for n in range(12)])
    configured = catalog("incremental", streams=ALL_STREAMS)
    first = read(sandbox, configured=configured, additional_accounts=shard("1/2"))
    requests = len(sandbox.requests)

    second = read(
        sandbox,
        configured=configured,
        state=first.last_state,
        additional_accounts=shard("2/2"),
    )

    assert second.failure is None
    rows = [row for stream in ALL_STREAMS for row in second.records_of(stream)]
    assert rows
    assert not any(row.get("_ab_cdc_deleted_at") for row in rows)
    ids = {row["id"] for row in first.records_of("integrated_accounts")}
    assert ids
    assert ids.isdisjoint(row["id"] for row in second.records_of("integrated_accounts"))
    # The accounts of the other shard are not missing, so the list is read once.
    assert Counter(r.kind for r in sandbox.requests[requests:])["accounts"] == 1


def test_share_of_shard(serve: Serve) -> None:
    """A shard uses only its share of Truto's limit."""
    # Its share is a twentieth of 485 requests in 10 s, and it sends 31 in all.
    sandbox = serve(account(0, "klaviyo", 300))
    home = next(n for n in range(1, 21) if Shard(n, 20).contains(id_of(0)))

    whole = read(sandbox, additional_accounts=ALL)
    part = read(sandbox, additional_accounts=shard(f"{home}/20"))

    assert part.rows == whole.rows
    assert whole.waits == []
    assert part.waits == [pytest.approx(10.0, abs=0.1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6/5", "Shard (additional_accounts.shard) is 6/5, but there are only 5."),
        *[
            (
                text,
                INVALID_SHARD,
            )
            for text in ("0/5", "2", "2/", "2 / 5", "a/b", "1/100", "-1/5", "٢/٥")
        ],
    ],
)
def test_invalid_shard(serve: Serve, text: str, message: str) -> None:
    """For an invalid shard, the check explains what is valid."""
    # An invalid shard is not read as another one.
    sandbox = serve(account(0, "klaviyo"))

    assert check(sandbox, additional_accounts=shard(text)) == (Status.FAILED, message)
    assert sandbox.requests == []


@pytest.mark.parametrize("text", ["", " ", " 1/1 "])
def test_blank_shard(serve: Serve, text: str) -> None:
    """A blank shard, such as an empty field of the form, and the shard 1/1 read every account."""
    sandbox = serve(*[account(n, "flodesk", 3) for n in range(4)])

    assert_everything_once(read(sandbox, additional_accounts=shard(text)), sandbox)


def with_limit(fault: Fault) -> Fault:
    """Return the fault for every request with a limit."""
    return Fault(fault.response, times=None, when=lambda r: r.param("limit") is not None)
