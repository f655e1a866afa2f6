"""Change data capture by comparison: what is new, changed or gone is emitted, and nothing else."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from airbyte_cdk.models import AirbyteMessage

from integration_tests.destination import (
    CURSOR,
    DELETED_AT,
    Data,
    Destination,
    key_of,
    tombstones,
    without_cdc,
)
from integration_tests.support import (
    ALL_STREAMS,
    FakeClock,
    Result,
    catalog,
    id_of,
    listed,
    numbered_account,
    read,
    read_with,
)
from integration_tests.test_state import ALL, cursors_of, state_of, state_of_stream
from sandbox import Account, Fault, Request, Sandbox, faults, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.records.columns import load_schema
from source_truto_segments.sync import state, sync

Serve = Callable[..., Sandbox]
CDC = {CURSOR, DELETED_AT}


def sync_into(
    destination: Destination,
    sandbox: Sandbox,
    streams: Sequence[str] = ("segments",),
    schema: dict[str, Any] | None = None,
    **fields: Any,
) -> Result:
    """The next incremental sync of a connection."""
    configured = catalog("incremental", schema, streams)
    result = read(sandbox, configured=configured, state=destination.state, **fields)
    destination.load(result, configured)
    return result


def rows(*ids: str, **more: Any) -> list[Data]:
    return [{"id": id_, "name": f"name of {id_}"} | more for id_ in ids]


def brevo(*ids: str, **how: Any) -> Account:
    """An account that pages by offset, two records a page."""
    return numbered_account(0, "brevo", segments=rows(*ids), default_page_size=2, **how)


def deleted_ids(result: Result, stream: str = "segments") -> list[str]:
    return [data["id"] for data in tombstones(result, stream)]


def live_ids(result: Result, stream: str = "segments") -> list[str]:
    return [data["id"] for data in result.records_of(stream) if DELETED_AT not in data]


def stored_ids(destination: Destination, stream: str = "segments") -> list[str]:
    return sorted(key[-1] for key in destination.rows(stream))


def known_ids(result: Result, number: int = 0, stream: str = "segments") -> list[str]:
    return sorted(cursors_of(result, stream)[id_of(number)]["records"])


def requests(sandbox: Sandbox, kind: str = "segments") -> int:
    return sum(request.kind == kind for request in sandbox.requests)


def at_request(number: int, kind: str, change: Callable[[], None]) -> Fault:
    """Changes something in the sandbox just before its response to a request of a kind."""
    seen = 0

    def when(request: Request) -> bool:
        nonlocal seen
        seen += request.kind == kind
        if request.kind == kind and seen == number:
            change()
        return False

    return Fault(times=None, when=when)


def test_given_changes_when_synced_then_exactly_they_come(serve: Serve) -> None:
    account = numbered_account(0, segments=rows("same", "changed", "gone", "again"))
    sandbox = serve(account, numbered_account(1, "flodesk"))
    destination = Destination()
    first = sync_into(destination, sandbox, additional_accounts=ALL)
    assert len(first.records) == 4 + 3

    changed = {"id": "changed", "name": "another name"}
    account.segments = [*rows("same"), changed, *rows("again", "new")]
    second = sync_into(destination, sandbox, additional_accounts=ALL)

    assert sorted(live_ids(second)) == ["changed", "new"]
    assert deleted_ids(second) == ["gone"]
    assert known_ids(second) == ["again", "changed", "new", "same"]
    stored = destination.rows("segments")
    assert stored[id_of(0), "changed"]["name"] == "another name"
    assert len(stored) == 4 + 3


def test_given_changes_in_every_stream_when_synced_then_exactly_they_come(serve: Serve) -> None:
    account = numbered_account(
        0, "beehiiv", workspaces={"w1": rows("a"), "w2": rows("b"), "w3": rows("c")}
    )
    sandbox = serve(account, numbered_account(1), numbered_account(2))
    destination = Destination()
    sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)

    del account.workspaces["w1"]
    account.workspaces["w4"] = rows("d")
    account.workspace_names = {"w2": "renamed"}
    sandbox.environment.accounts[1].last_error = "invalid_grant"
    del sandbox.environment.accounts[2]
    result = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)

    assert live_ids(result, "segments") == ["d"]
    assert deleted_ids(result, "segments") == ["a"]
    assert sorted(live_ids(result, "workspaces")) == ["w2", "w4"]
    assert deleted_ids(result, "workspaces") == ["w1"]
    assert live_ids(result, "integrated_accounts") == [id_of(1)]
    assert deleted_ids(result, "integrated_accounts") == [id_of(2)]
    # The segments of an account that is gone stay: nobody can say what became of them.
    assert Counter(key[0] for key in destination.rows("segments")) == {
        id_of(0): 3,
        id_of(1): 3,
        id_of(2): 3,
    }
    assert state_of_stream(destination.state, "integrated_accounts")["states"][0]["partition"] == {}


def test_given_nothing_has_changed_when_synced_then_no_record_comes(serve: Serve) -> None:
    sandbox = serve(
        *[numbered_account(number, vendor) for number, vendor in enumerate(vendors.VENDORS)]
    )
    destination = Destination()
    first = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)
    before = destination.state
    sandbox.clear()

    second = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)

    assert len(first.of_type("RECORD")) > 0
    assert second.of_type("RECORD") == []
    assert destination.state == before
    assert {second.statuses_of(stream)[-1] for stream in ALL_STREAMS} == {"COMPLETE"}
    # Nothing was missing, so no list was read once more.
    assert requests(sandbox, "accounts") == 1


def test_given_a_record_is_gone_when_synced_then_its_tombstone_has_the_key_and_two_columns(
    serve: Serve,
) -> None:
    account = numbered_account(0, "beehiiv", workspaces={"w1": rows("a"), "w2": rows("b")})
    sandbox = serve(account, numbered_account(1))
    destination = Destination()
    sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)

    del account.workspaces["w1"], sandbox.environment.accounts[1]
    result = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)

    for stream in ALL_STREAMS:
        (tombstone,) = tombstones(result, stream)
        key = {"id"} if stream == "integrated_accounts" else {"integrated_account_id", "id"}
        assert set(tombstone) == key | CDC
        assert tombstone[DELETED_AT] == tombstone[CURSOR]


def test_given_no_column_for_deletions_when_a_record_is_gone_then_its_tombstone_waits_for_it(
    serve: Serve,
) -> None:
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    destination = Destination()
    columns = load_schema("segments")["properties"]
    without_column = {"properties": {k: v for k, v in columns.items() if k != DELETED_AT}}
    with_column = {"properties": columns}
    sync_into(destination, sandbox, schema=without_column)

    account.segments = rows("a")
    for _ in range(2):
        without = sync_into(destination, sandbox, schema=without_column)
        assert without.records == []
        assert known_ids(without) == ["a", "b"]
    later = sync_into(destination, sandbox, schema=with_column)

    assert deleted_ids(later) == ["b"]
    assert live_ids(later) == []
    assert known_ids(later) == stored_ids(destination) == ["a"]


def test_given_a_catalog_without_properties_when_a_record_is_gone_then_its_tombstone_comes(
    serve: Serve,
) -> None:
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox, schema={})

    account.segments = rows("a")

    assert deleted_ids(sync_into(destination, sandbox, schema={"type": "object"})) == ["b"]


def test_given_a_full_refresh_when_a_record_is_gone_then_no_tombstone_comes(serve: Serve) -> None:
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    earlier = read(sandbox, configured=catalog("incremental")).last_state

    account.segments = rows("a")
    result = read(sandbox, state=earlier)

    assert result.ids == ["a"]
    assert CURSOR in result.records[0]
    assert DELETED_AT not in result.records[0]


def test_given_a_restored_record_when_synced_then_it_comes_as_it_was(serve: Serve) -> None:
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)
    account.segments = rows("a")
    sync_into(destination, sandbox)
    assert stored_ids(destination) == ["a"]

    account.segments = rows("a", "b")
    result = sync_into(destination, sandbox)

    assert live_ids(result) == ["b"]
    assert stored_ids(destination) == ["a", "b"]


def test_given_missing_ids_when_synced_then_the_account_is_read_once_more_at_once(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c", "d")
    sandbox = serve(account, numbered_account(1, "brevo"))
    destination = Destination()
    sync_into(destination, sandbox, additional_accounts=listed(0, 1), num_workers=1)
    sandbox.clear()

    account.segments = rows("a", "b", "c")
    result = sync_into(destination, sandbox, additional_accounts=listed(0, 1), num_workers=1)

    assert deleted_ids(result) == ["d"]
    assert [request.account_id for request in sandbox.requests] == [id_of(0)] * 4 + [id_of(1)]


def shift(account: Account, *ids: str) -> None:
    """Once the next page has been read, the account has other records."""

    def on_page(account: Account, _: int) -> None:
        account.segments = rows(*ids)
        account.on_page = None

    account.on_page = on_page


def test_given_pages_that_shift_when_the_reads_disagree_then_nothing_is_deleted(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """What both lack may be on a page that neither has seen."""
    account = brevo("a", "b", "c", "d", "e")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)

    # The first read sees a, b and, as everything moved up, d; c is overlooked.
    account.segments = rows("a", "b", "c", "d")
    shift(account, "b", "c", "d")
    result = sync_into(destination, sandbox)

    assert deleted_ids(result) == []
    assert "two reads did not find the same records" in caplog.text
    assert known_ids(result) == ["a", "b", "c", "d", "e"]
    assert deleted_ids(sync_into(destination, sandbox)) == ["a", "e"]
    assert stored_ids(destination) == ["b", "c", "d"]


def test_given_a_record_on_no_page_of_two_reads_when_synced_then_it_is_not_deleted(
    serve: Serve,
) -> None:
    """Each read overlooks it, and another one besides."""
    account = brevo("a", "b", "c", "d", "e")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)
    orders = iter(["bcdea", "edcab", "dcabe"])

    def on_page(account: Account, _: int) -> None:
        account.segments = rows(*next(orders, "abcde"))

    account.on_page = on_page
    result = sync_into(destination, sandbox)

    assert deleted_ids(result) == []


def test_given_a_page_size_when_read_once_more_then_it_is_asked_for_without(serve: Serve) -> None:
    """A vendor that cuts pages silently can end the list early."""
    account = brevo("a", "b", "c", "d")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox, page_size=4)
    sandbox.clear()

    account.segments = rows("a", "b", "c")
    result = sync_into(destination, sandbox, page_size=4)

    assert deleted_ids(result) == ["d"]
    assert [request.param("limit") for request in sandbox.requests] == ["4", None, None]


def test_given_pages_that_shift_when_nothing_is_gone_then_nothing_is_deleted(serve: Serve) -> None:
    account = brevo("a", "b", "c", "d", "e")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)
    sandbox.clear()

    shift(account, "b", "c", "d", "e", "a")
    result = sync_into(destination, sandbox)

    assert result.records == []
    assert requests(sandbox) == 6


def test_given_workspaces_that_shift_when_read_once_more_then_nothing_is_deleted(
    serve: Serve,
) -> None:
    workspaces = {f"w{number}": rows(f"s{number}") for number in range(5)}
    account = numbered_account(0, "beehiiv", workspaces=workspaces, default_page_size=2)
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox, ALL_STREAMS)

    def move_first_to_the_end() -> None:
        first, *others = account.workspaces.items()
        account.workspaces = dict([*others, first])

    account.faults = [at_request(2, "workspaces", move_first_to_the_end)]
    result = sync_into(destination, sandbox, ALL_STREAMS)

    assert result.of_type("RECORD") == []
    assert stored_ids(destination) == [f"s{number}" for number in range(5)]
    # The segments alone are read once more with the list of workspaces that they need.
    sandbox.clear()
    account.faults = [at_request(2, "workspaces", move_first_to_the_end)]
    assert sync_into(destination, sandbox).records == []
    assert requests(sandbox, "workspaces") == 6


def partial(account: Account) -> None:
    account.partial = True


def invalid_entry(account: Account) -> None:
    account.segments = [*account.segments, "not an object"]  # type: ignore[list-item]


def record_without_id(account: Account) -> None:
    account.segments = [*account.segments, {"name": "without id"}]


def blank_id(account: Account) -> None:
    account.segments = [*account.segments, {"id": " ", "name": "without id"}]


def failed_page(account: Account) -> None:
    account.faults = [faults.account_blocked(after=1, times=None)]


def failed_second_read(account: Account) -> None:
    account.faults = [faults.account_blocked(after=2, times=None)]


def expired_cursor(account: Account) -> None:
    account.cursors_expire = True


def loop(account: Account) -> None:
    account.loop = "page"


def no_support(account: Account) -> None:
    account.faults = [faults.resource_not_supported(times=None)]


def no_support_in_the_second_read(account: Account) -> None:
    account.faults = [faults.resource_not_supported(times=None, after=2)]


@pytest.mark.parametrize(
    "make_uncertain",
    [
        partial,
        invalid_entry,
        record_without_id,
        blank_id,
        failed_page,
        failed_second_read,
        expired_cursor,
        loop,
        no_support,
        no_support_in_the_second_read,
    ],
    ids=lambda change: change.__name__,
)
def test_given_a_read_that_is_not_certainly_whole_when_records_are_missing_then_none_is_deleted(
    serve: Serve, make_uncertain: Callable[[Account], None]
) -> None:
    account = brevo("a", "b", "c", "d", "e")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)

    account.segments = rows("a", "b", "c")
    make_uncertain(account)
    result = sync_into(destination, sandbox)

    assert deleted_ids(result) == []
    assert known_ids(result) == ["a", "b", "c", "d", "e"]
    # Once it is whole, what is missing is gone.
    account.segments = rows("a", "b", "c")
    account.partial, account.cursors_expire, account.loop = False, False, None
    account.on_page = None
    account.faults.clear()
    assert deleted_ids(sync_into(destination, sandbox)) == ["d", "e"]


def list_of(*workspaces: Any, is_partial: bool = False) -> Fault:
    """What Truto gives as the list of workspaces."""
    envelope = {"result": workspaces, "next_cursor": None, "is_partial_response": is_partial}
    return faults.body(json.dumps(envelope), kind="workspaces", times=None)


W1 = {"id": "w1", "name": "w1"}


@pytest.mark.parametrize(
    "fault",
    [
        list_of(W1, {"name": "without id"}),
        list_of(W1, "not an object"),
        list_of(W1, is_partial=True),
        faults.account_blocked(kind="workspaces", times=None),
        faults.resource_not_supported("workspaces", kind="workspaces", times=None),
    ],
    ids=["without id", "invalid entry", "partial", "failed", "not supported"],
)
@pytest.mark.parametrize("streams", [("segments",), ("segments", "workspaces")], ids=len)
def test_given_a_workspace_that_may_be_left_out_when_synced_then_nothing_is_deleted(
    serve: Serve, fault: Fault, streams: Sequence[str]
) -> None:
    workspaces = {"w1": rows("a"), "w2": rows("b")}
    account = numbered_account(0, "beehiiv", workspaces=workspaces, workspace_names={"w1": "w1"})
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox, streams)

    account.faults = [fault]
    result = sync_into(destination, sandbox, streams)

    assert [deleted_ids(result, stream) for stream in streams] == [[] for _ in streams]
    assert {"a", "b"} == set(stored_ids(destination))
    assert known_ids(result) == ["a", "b"]


def test_given_an_integration_without_workspaces_when_synced_then_it_has_none(
    serve: Serve,
) -> None:
    sandbox = serve(numbered_account(0, "klaviyo"))

    result = sync_into(Destination(), sandbox, ALL_STREAMS)

    assert result.failure is None
    assert result.records_of("workspaces") == []
    assert cursors_of(result, "workspaces") == {id_of(0): {"records": {}}}


@pytest.mark.parametrize("vendor", ["klaviyo", "activecampaign"])
def test_given_all_segments_are_gone_at_once_when_synced_then_the_next_sync_has_to_see_it_again(
    serve: Serve, caplog: pytest.LogCaptureFixture, vendor: str
) -> None:
    account = numbered_account(0, vendor, segments=rows("a", "b", "c"))
    sandbox = serve(account, numbered_account(1))
    destination = Destination()
    sync_into(destination, sandbox, additional_accounts=ALL)

    account.segments = []
    first = sync_into(destination, sandbox, additional_accounts=ALL)
    line = f"Stream segments of integrated account {id_of(0)}: all known records (3) are gone "
    assert len([text for text in caplog.messages if text.startswith(line)]) == 1
    assert first.records == []
    assert cursors_of(first)[id_of(0)]["empty"] is True
    second = sync_into(destination, sandbox, additional_accounts=ALL)

    assert deleted_ids(second) == ["a", "b", "c"]
    assert {key[0] for key in destination.rows("segments")} == {id_of(1)}
    assert cursors_of(second)[id_of(0)] == {"records": {}}


def test_given_segments_that_are_back_when_synced_then_nothing_comes(serve: Serve) -> None:
    """An account that lost a permission for a day; then, the same happens once more."""
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)

    for segments in ([], rows("a", "b"), []):
        account.segments = segments
        assert sync_into(destination, sandbox).records == []
    account.segments = rows("b")
    assert deleted_ids(sync_into(destination, sandbox)) == ["a"]


def test_given_a_newly_selected_column_when_synced_then_the_rows_that_have_it_come(
    serve: Serve,
) -> None:
    account = numbered_account(0, segments=[*rows("a", "b", status="active"), *rows("c")])
    sandbox = serve(account)
    destination = Destination()
    columns = load_schema("segments")["properties"]
    names = {"integrated_account_id", "id", "name", CURSOR, DELETED_AT}
    few = {"properties": {name: columns[name] for name in names}}
    first = sync_into(destination, sandbox, schema=few)
    assert all(set(record) <= names for record in first.records)

    more = {"properties": {**few["properties"], "status": columns["status"]}}
    second = sync_into(destination, sandbox, schema=more)
    third = sync_into(destination, sandbox, schema=few)

    assert live_ids(second) == ["a", "b"]
    assert [record["status"] for record in second.records] == ["active"] * 2
    assert live_ids(third) == ["a", "b"]
    assert sync_into(destination, sandbox, schema=few).records == []


def test_given_a_custom_column_that_is_selected_later_when_synced_then_all_rows_have_it(
    serve: Serve,
) -> None:
    """The usual way: the customer adds a field, a sync runs, then the schema is refreshed."""
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    destination = Destination()
    model = load_schema("segments")
    custom = {"properties": {**model["properties"], "owner": {"type": ["null", "object"]}}}
    sync_into(destination, sandbox, schema=model)

    account.segments = rows("a", "b", owner={"team": "north"})
    before = sync_into(destination, sandbox, schema=model)
    after = sync_into(destination, sandbox, schema=custom)
    account.segments = rows("a", "b", owner={"team": "south"})
    without = sync_into(destination, sandbox, schema=model)

    assert before.records == []
    assert [record["owner"] for record in after.records] == [{"team": "north"}] * 2
    # Its row loses the column, and what happens to it does not matter any more.
    assert all("owner" not in record for record in without.records)
    account.segments = rows("a", "b", owner={"team": "west"})
    assert sync_into(destination, sandbox, schema=model).records == []


def test_given_a_new_custom_field_when_synced_then_the_rows_that_have_it_come(
    serve: Serve,
) -> None:
    """The catalog names no columns."""
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)

    account.segments = [*rows("a", owner={"team": "north"}), *rows("b")]
    result = sync_into(destination, sandbox)

    assert live_ids(result) == ["a"]
    assert destination.rows("segments")[id_of(0), "a"]["owner"] == {"team": "north"}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-02T00:00:00Z", None),
        (None, "2026-01-02T00:00:00Z"),
        ("2999-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
    ],
)
def test_given_any_date_of_a_vendor_when_a_record_changes_then_the_later_version_wins(
    serve: Serve, earlier: str | None, later: str | None
) -> None:
    account = numbered_account(0, segments=rows("a", updated_at=earlier))
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)

    account.segments = rows("a", updated_at=later)
    sync_into(destination, sandbox)

    assert destination.rows("segments")[id_of(0), "a"].get("updated_at") == later


def test_given_the_same_record_twice_in_a_read_when_synced_then_it_comes_once(
    serve: Serve,
) -> None:
    sandbox = serve(brevo("a", "b", "c", "a", "c", "c"))

    result = sync_into(Destination(), sandbox)

    assert result.ids == ["a", "b", "c"]


@pytest.mark.parametrize("page_size", [2, 10], ids=["on two pages", "on one page"])
def test_given_two_versions_in_a_read_when_synced_then_the_later_one_wins(
    serve: Serve, page_size: int
) -> None:
    account = brevo("a", "b", "c")
    account.default_page_size = page_size
    account.segments = [*account.segments, {"id": "a", "name": "later"}, *rows("d")]
    sandbox = serve(account)
    destination = Destination()

    result = sync_into(destination, sandbox)

    assert result.ids == ["a", "b", "c", "a", "d"]
    versions = [record for record in result.records if record["id"] == "a"]
    assert [version["name"] for version in versions] == ["name of a", "later"]
    assert versions[0][CURSOR] < versions[1][CURSOR]
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "later"
    account.segments = [{"id": "a", "name": "later"}, *rows("b", "c", "d")]
    # A destination that does not compare cursors may have kept the older one.
    assert live_ids(sync_into(destination, sandbox)) == ["a"]
    assert sync_into(destination, sandbox).records == []


def test_given_syncs_when_run_then_the_cursor_of_each_is_greater_than_all_before(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c", "d", "e")
    sandbox = serve(account)
    destination = Destination()
    highest = ""

    for number in range(5):
        account.segments = [
            *rows("a", "b", "c", "d", count=number),
            *(rows("e") if number % 2 else []),
        ]
        result = sync_into(destination, sandbox)
        values = [record[CURSOR] for record in result.records]
        assert len(values) >= 4
        assert values == sorted(values)
        assert min(values) > highest
        highest = max(values)
        assert state_of_stream(destination.state, "segments")["cursor_value"] == highest


def test_given_a_clock_that_is_behind_when_synced_then_the_cursor_does_not_go_back(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c", "gone")
    sandbox = serve(account)
    first = read(sandbox, configured=catalog("incremental"))
    ahead = "2199-12-31T23:59:59.999999Z"
    (message,) = first.last_state
    message["stream"]["stream_state"]["cursor_value"] = ahead

    account.segments = rows("a", "b", "c", count=1)
    result = read(sandbox, configured=catalog("incremental"), state=first.last_state)

    values = [record[CURSOR] for record in result.records]
    assert len(values) == 4
    assert ahead < values[0] == values[1] < values[2] < values[3]
    assert all(value.startswith("2200-01-01T00:00:00.0000") for value in values)


def test_given_an_account_that_is_not_configured_any_more_when_synced_then_its_rows_stay(
    serve: Serve,
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    destination = Destination()
    sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=listed(0, 1))

    failing = sandbox.environment.accounts[0]
    failing.faults = [faults.account_blocked(times=None)]
    failed = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=listed(0))
    # These accounts have no workspaces to remember.
    known = ("segments", "integrated_accounts")
    assert all(set(cursors_of(failed, s)) == {id_of(0), id_of(1)} for s in known)
    failing.faults.clear()
    whole = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=listed(0))

    assert whole.of_type("RECORD") == []
    for stream in known:
        assert set(cursors_of(whole, stream)) == {id_of(0), id_of(1)}
        assert cursors_of(whole, stream)[id_of(1)]["unread"] is True
    assert len(destination.rows("segments")) == 6
    assert len(destination.rows("integrated_accounts")) == 2

    # When it is back, what was deleted in the meantime is noticed, and nothing else comes.
    other = sandbox.environment.accounts[1]
    gone, *left = other.segments
    other.segments = left
    back = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=listed(0, 1))
    assert deleted_ids(back) == [gone["id"]]
    assert len(back.of_type("RECORD")) == 1


def test_given_pairs_for_the_vendor_in_another_order_when_synced_then_nothing_comes(
    serve: Serve,
) -> None:
    sandbox = serve(numbered_account(0))
    destination = Destination()
    pairs = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
    sync_into(destination, sandbox, remote_query=pairs)

    assert sync_into(destination, sandbox, remote_query=pairs[::-1]).records == []


def move_account(sandbox: Sandbox) -> None:
    accounts = sandbox.environment.accounts
    accounts.append(accounts.pop(0))


@pytest.mark.parametrize(
    "streams", [("segments",), ("integrated_accounts",), ALL_STREAMS], ids=["one", "list", "all"]
)
def test_given_a_list_that_shifts_when_synced_then_an_overlooked_account_keeps_its_state(
    serve: Serve, streams: Sequence[str]
) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(5)], list_page_size=2)
    destination = Destination()
    sync_into(destination, sandbox, streams, additional_accounts=ALL)
    before = destination.state
    sandbox.clear()

    # Everything moves up behind the first page: the third account is on no page.
    hook = at_request(2, "accounts", lambda: move_account(sandbox))
    sandbox.environment.faults = [hook]
    result = sync_into(destination, sandbox, streams, additional_accounts=ALL)

    assert result.of_type("RECORD") == []
    assert destination.state == before
    assert requests(sandbox, "accounts") == 6
    assert requests(sandbox, "segments") == (5 if "segments" in streams else 0)


@pytest.mark.parametrize("entry", ["not an object", {"id": None}], ids=str)
def test_given_a_list_that_may_be_incomplete_when_synced_then_no_account_is_forgotten(
    serve: Serve, entry: Any
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    destination = Destination()
    sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)
    before = destination.state

    integration = {"name": "klaviyo"}
    accounts = [{"id": id_of(0), "tenant_id": "tenant-1", "integration": integration}, entry]
    envelope = json.dumps({"result": accounts, "next_cursor": None})
    sandbox.environment.faults = [faults.body(envelope, kind="accounts", times=None)]
    result = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)

    assert result.failure is None
    assert [deleted_ids(result, stream) for stream in ALL_STREAMS] == [[], [], []]
    assert set(cursors_of(result)) == {id_of(0), id_of(1)}
    assert (
        len(state_of_stream(before, "integrated_accounts")["states"][0]["cursor"]["records"]) == 2
    )
    known = cursors_of(result, "integrated_accounts")
    assert (set(known[""]["records"]), known[id_of(1)]["unread"]) == ({id_of(0)}, True)


def test_given_an_account_that_fails_when_synced_then_what_it_has_emitted_is_remembered(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c", "d")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)

    account.segments = [{"id": "a", "name": "for a while"}, *rows("b", "c", "d")]
    account.faults = [faults.vendor_refused(after=1)]
    failed = sync_into(destination, sandbox)
    assert live_ids(failed) == ["a"]
    assert failed.statuses[-1] == "INCOMPLETE"
    account.segments = rows("a", "b", "c", "d")
    result = sync_into(destination, sandbox)

    # Compared with the state before the failed sync, it would not have changed.
    assert live_ids(result) == ["a"]
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "name of a"


class KilledSource(SourceTrutoSegments):
    """A source whose process is killed behind some record."""

    def __init__(self, records: int) -> None:
        super().__init__(FakeClock())
        self._records = records

    def read(self, *args: Any, **kwargs: Any) -> Iterator[AirbyteMessage]:
        left = self._records
        for message in super().read(*args, **kwargs):
            yield message
            left -= message.record is not None
            if not left:
                return


def test_given_a_sync_that_was_killed_when_synced_then_what_it_may_have_emitted_is_not_relied_on(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c")
    sandbox = serve(account)
    destination = Destination()
    configured = catalog("incremental")
    first = sync_into(destination, sandbox)
    assert "in_progress" not in state_of_stream(first.last_state, "segments")

    account.segments = [{"id": "a", "name": "for a while"}, *rows("b", "c")]
    killed = read_with(KilledSource(1), sandbox, configured=configured, state=destination.state)
    destination.load(killed, configured)
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "for a while"
    assert state_of_stream(destination.state, "segments")["in_progress"] is True
    account.segments = rows("a", "b")
    result = sync_into(destination, sandbox)

    assert live_ids(result) == ["a", "b"]
    assert deleted_ids(result) == ["c"]
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "name of a"
    assert "in_progress" not in state_of_stream(destination.state, "segments")
    assert sync_into(destination, sandbox).records == []


def test_given_a_clock_that_is_behind_when_a_sync_was_killed_then_the_next_version_wins(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c")
    sandbox = serve(account)
    destination = Destination()
    configured = catalog("incremental")
    sync_into(destination, sandbox)
    state_of_stream(destination.state, "segments")["cursor_value"] = "2199-01-01T00:00:00.000000Z"

    account.segments = rows("a", "b", "c", name="for a while")
    killed = read_with(KilledSource(3), sandbox, configured=configured, state=destination.state)
    destination.load(killed, configured)
    # What was on the second page is on the first.
    account.segments = rows("c", "a", "b", name="in the end")
    sync_into(destination, sandbox)

    assert {row["name"] for row in destination.rows("segments").values()} == {"in the end"}


def test_given_a_first_sync_when_only_its_first_state_is_saved_then_everything_comes_once(
    serve: Serve,
) -> None:
    """The clock is set back in between: what comes then has to win all the same."""
    account = brevo("a", "b", "c")
    sandbox = serve(account)
    destination = Destination()
    configured = catalog("incremental")

    killed = read_with(KilledSource(3), sandbox, configured=configured)
    kinds = [m["type"] for m in killed.messages if m["type"] in ("STATE", "RECORD")]
    assert kinds == ["STATE", "RECORD", "RECORD", "RECORD"]
    destination.load(killed, configured)
    (first,) = killed.last_state
    blob = first["stream"]["stream_state"]
    assert blob["in_progress"] is True
    assert blob["cursor_value"] > killed.records[-1][CURSOR]
    account.segments = rows("a", "b", "c", count=1)
    result = sync_into(destination, sandbox)

    assert result.ids == ["a", "b", "c"]
    assert result.records[0][CURSOR] > blob["cursor_value"]
    assert sync_into(destination, sandbox).records == []


def test_given_a_cursor_value_far_ahead_when_synced_then_a_line_says_so(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(numbered_account(0))
    state = state_of(filters={}, cursor_value="2199-01-01T00:00:00.000000Z")

    read(sandbox, configured=catalog("incremental"), state=state)

    (line,) = [text for text in caplog.messages if "ahead of this machine's" in text]
    assert "stream segments continue after that time" in line


@pytest.mark.parametrize(
    ("cursor_field", "columns", "expected"),
    [
        (["updated_at"], None, "The cursor field of the stream segments is updated_at"),
        (None, {"id": {}, "name": {}}, "lacks the column _ab_cdc_updated_at"),
        ([CURSOR], None, None),
        ([], {"id": {}, CURSOR: {}}, None),
    ],
)
def test_given_a_cursor_of_another_version_when_synced_then_a_warning_says_what_to_do(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    cursor_field: list[str] | None,
    columns: dict[str, Any] | None,
    expected: str | None,
) -> None:
    configured = catalog("incremental", {"properties": columns} if columns else None)
    configured["streams"][0]["cursor_field"] = cursor_field

    read(serve(numbered_account(0)), configured=configured)

    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == bool(expected)
    for warning in warnings:
        assert str(expected) in warning
        assert "Refresh the source schema" in warning


def test_given_three_streams_when_their_states_have_no_room_then_they_share_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airbyte saves all of them in one request."""
    monkeypatch.setattr(state, "MAX_STATE_BYTES", 6000)
    accounts = [
        numbered_account(n, "brevo", count=20, workspaces={f"w{i}": [] for i in range(9)})
        for n in range(8)
    ]
    sandbox = serve(*accounts)
    destination = Destination()

    before: dict[str, set[str]] = {}
    for number in range(2):
        result = sync_into(destination, sandbox, ALL_STREAMS, additional_accounts=ALL)
        blobs = {s: state_of_stream(result.last_state, s) for s in ALL_STREAMS}
        sizes = [len(json.dumps(blob, separators=(",", ":"))) for blob in blobs.values()]
        assert 5000 < sum(sizes) <= 6000
        assert len(cursors_of(result, "integrated_accounts")[""]["records"]) == 8
        tracked = {s: known_partitions(result, s) for s in ALL_STREAMS}
        if number:
            # What had room keeps it.
            assert tracked == before
            assert not {key[0] for key in keys_emitted(result)} & tracked["segments"]
        before = tracked


def known_partitions(result: Result, stream: str) -> set[str]:
    return {id_ for id_, cursor in cursors_of(result, stream).items() if cursor["records"]}


def keys_emitted(result: Result) -> list[tuple[Any, ...]]:
    return [key_of("segments", data) for data in result.records]


def test_given_other_columns_when_a_full_refresh_is_resumed_then_it_starts_again(
    serve: Serve,
) -> None:
    failing = numbered_account(1, faults=[faults.account_blocked(times=None)])
    sandbox = serve(numbered_account(0), failing)
    columns = load_schema("segments")["properties"]
    few = {"properties": {name: columns[name] for name in ("id", "name")}}
    first = read(sandbox, configured=catalog(schema=few), additional_accounts=ALL)
    assert len(first.records) == 3
    failing.faults.clear()

    for schema, count in ((few, 3), ({"properties": columns}, 6)):
        configured = catalog(schema=schema)
        result = read(
            sandbox, configured=configured, state=first.last_state, additional_accounts=ALL
        )
        assert len(result.records) == count


def test_given_a_state_in_the_middle_of_a_sync_when_emitted_then_it_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "CHECKPOINT_SECONDS", 0.0)
    account = brevo("a", "b", "c")
    sandbox = serve(account)
    destination = Destination()
    sync_into(destination, sandbox)
    account.segments = rows("a", "b", "c", count=1)

    result = sync_into(destination, sandbox)

    *earlier, last = [message["stream"]["stream_state"] for message in result.states]
    # The first is emitted ahead of the first record.
    assert [blob["in_progress"] for blob in earlier] == [True] * 3
    assert "in_progress" not in last


def test_given_an_account_that_is_skipped_when_synced_then_it_stays_as_it_was(
    serve: Serve,
) -> None:
    account = brevo("a", "b", "c")
    sandbox = serve(account, numbered_account(1))
    fields: dict[str, Any] = {"additional_accounts": ALL, "on_account_error": "skip"}
    destination = Destination()
    sync_into(destination, sandbox, **fields)

    account.segments = rows("c")
    account.faults = [faults.account_blocked(times=None)]
    skipped = sync_into(destination, sandbox, **fields)
    assert skipped.failure is None
    assert skipped.records == []
    assert known_ids(skipped) == ["a", "b", "c"]
    account.faults.clear()

    assert deleted_ids(sync_into(destination, sandbox, **fields)) == ["a", "b"]


def test_given_a_state_without_room_when_synced_then_such_accounts_come_whole_with_one_warning(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [numbered_account(number, count=20) for number in range(3)]
    sandbox = serve(*accounts)
    destination = Destination()
    monkeypatch.setattr(state, "MAX_STATE_BYTES", 900)
    left_out: list[str] = []

    for number in range(3):
        caplog.clear()
        for account in accounts:
            account.segments = list(account.segments)[1:]
        result = sync_into(destination, sandbox, additional_accounts=ALL)
        found = cursors_of(result)
        without_ids = [id_ for id_, cursor in found.items() if cursor["records"] is None]
        blob = state_of_stream(destination.state, "segments")
        assert len(json.dumps(blob, separators=(",", ":"))) < 900
        assert len(without_ids) == 2
        (warning,) = [text for text in caplog.messages if "is full" in text]
        assert "does not track 2 accounts" in warning
        assert "rows of records that are deleted stay in the table" in warning
        assert warning.endswith("into shards (additional_accounts.shard).")
        if number:
            # The one that has room is compared, the others come whole and lose nothing.
            assert without_ids == left_out
            assert Counter(r["integrated_account_id"] for r in result.records) == {
                **dict.fromkeys(without_ids, 20 - number - 1),
                **{id_: 1 for id_ in found if id_ not in without_ids},
            }
            assert len(deleted_ids(result)) == 1
        left_out = without_ids

    monkeypatch.undo()
    caplog.clear()
    sync_into(destination, sandbox, additional_accounts=ALL)
    assert not [text for text in caplog.messages if "is full" in text]
    assert sync_into(destination, sandbox, additional_accounts=ALL).records == []


def test_given_other_accounts_in_the_state_when_one_account_is_read_then_no_row_is_invented(
    serve: Serve,
) -> None:
    sandbox = serve(numbered_account(0, segments=rows("a")))
    records = {"records": {"x": "fingerprint0"}}
    begin = state_of((1, records), (2, {"records": None}), filters={})

    result = read(sandbox, configured=catalog("incremental"), state=begin)

    assert [without_cdc(record)["id"] for record in result.records] == ["a"]
    assert cursors_of(result)[id_of(1)] == {**records, "unread": True}
    assert id_of(2) not in cursors_of(result)


def test_given_many_records_when_synced_then_no_key_comes_twice(serve: Serve) -> None:
    sandbox = serve(*[numbered_account(number, count=45) for number in range(4)])

    result = sync_into(Destination(), sandbox, ALL_STREAMS, additional_accounts=ALL)

    for stream in ALL_STREAMS:
        keys = [key_of(stream, data) for data in result.records_of(stream)]
        assert len(keys) == len(set(keys))
    for number in range(4):
        values = [r[CURSOR] for r in result.records if r["integrated_account_id"] == id_of(number)]
        pages = sorted(set(values))
        assert values == sorted(values)
        assert len(pages) == 5
        assert all(earlier < later for earlier, later in pairwise(pages))
