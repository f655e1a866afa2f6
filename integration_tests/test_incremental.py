"""Change data capture by comparison: emit new, changed and deleted records, and nothing else."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from airbyte_cdk.models import AirbyteMessage, Type

from integration_tests.destination import (
    CURSOR,
    DELETED_AT,
    Data,
    Destination,
    key_of,
    tombstones,
)
from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    FakeClock,
    Result,
    Serve,
    catalog,
    id_of,
    listed,
    numbered_account,
    read,
    read_with,
    warnings_in,
    without_cdc,
)
from integration_tests.test_state import cursors_of, state_of, state_of_stream
from sandbox import Account, Fault, Request, Sandbox, faults, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.records.columns import load_schema
from source_truto_segments.sync import state, sync


class Connection(Destination):
    """A destination that incremental syncs fill from a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self.sandbox = sandbox

    def sync(
        self,
        streams: Sequence[str] = ("segments",),
        schema: dict[str, Any] | None = None,
        hours: float = 1.0,
        **fields: Any,
    ) -> Result:
        """Run the next sync, some hours after the last one."""
        configured = catalog("incremental", schema, streams)
        self.age(hours)
        result = read(self.sandbox, configured=configured, state=self.state, **fields)
        self.load(result, configured)
        return result


def rows(*ids: str, **more: Any) -> list[Data]:
    return [{"id": id_, "name": f"name of {id_}"} | more for id_ in ids]


def brevo(*ids: str, **how: Any) -> Account:
    """Return an account that pages by offset, with two records on a page."""
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
    """Return a fault that makes a change just before the response to a request of a kind."""
    seen = 0

    def when(request: Request) -> bool:
        nonlocal seen
        seen += request.kind == kind
        if request.kind == kind and seen == number:
            change()
        return False

    return Fault(times=None, when=when)


def test_changes(serve: Serve) -> None:
    """A sync emits exactly the new, changed and deleted records."""
    account = numbered_account(0, segments=rows("same", "changed", "gone", "again"))
    destination = Connection(serve(account, numbered_account(1, "flodesk")))
    first = destination.sync(additional_accounts=ALL)
    assert len(first.records) == 4 + 3

    changed = {"id": "changed", "name": "another name"}
    account.segments = [*rows("same"), changed, *rows("again", "new")]
    second = destination.sync(additional_accounts=ALL)

    assert sorted(live_ids(second)) == ["changed", "new"]
    assert deleted_ids(second) == ["gone"]
    assert known_ids(second) == ["again", "changed", "new", "same"]
    stored = destination.rows("segments")
    assert stored[id_of(0), "changed"]["name"] == "another name"
    assert len(stored) == 4 + 3


def test_changes_in_every_stream(serve: Serve) -> None:
    """A sync emits exactly the changes in every stream."""
    account = numbered_account(
        0, "beehiiv", workspaces={"w1": rows("a"), "w2": rows("b"), "w3": rows("c")}
    )
    destination = Connection(serve(account, numbered_account(1), numbered_account(2)))
    destination.sync(ALL_STREAMS, additional_accounts=ALL)

    del account.workspaces["w1"]
    account.workspaces["w4"] = rows("d")
    account.workspace_names = {"w2": "renamed"}
    destination.sandbox.environment.accounts[1].last_error = "invalid_grant"
    del destination.sandbox.environment.accounts[2]
    result = destination.sync(ALL_STREAMS, additional_accounts=ALL)

    assert live_ids(result, "segments") == ["d"]
    assert deleted_ids(result, "segments") == ["a"]
    assert sorted(live_ids(result, "workspaces")) == ["w2", "w4"]
    assert deleted_ids(result, "workspaces") == ["w1"]
    assert live_ids(result, "integrated_accounts") == [id_of(1)]
    assert deleted_ids(result, "integrated_accounts") == [id_of(2)]
    # The segments of a deleted account stay: nobody can tell what happened to them.
    assert Counter(key[0] for key in destination.rows("segments")) == {
        id_of(0): 3,
        id_of(1): 3,
        id_of(2): 3,
    }
    assert state_of_stream(destination.state, "integrated_accounts")["states"][0]["partition"] == {}


def test_nothing_changed(serve: Serve) -> None:
    """If nothing has changed, a sync emits no record."""
    destination = Connection(
        serve(*[numbered_account(number, vendor) for number, vendor in enumerate(vendors.VENDORS)])
    )
    first = destination.sync(ALL_STREAMS, additional_accounts=ALL)
    before = destination.state
    destination.sandbox.clear()

    second = destination.sync(ALL_STREAMS, additional_accounts=ALL)

    assert len(first.of_type("RECORD")) > 0
    assert second.of_type("RECORD") == []
    assert destination.state == before
    assert {second.statuses_of(stream)[-1] for stream in ALL_STREAMS} == {"COMPLETE"}
    # Nothing was missing, so no list was read twice.
    assert requests(destination.sandbox, "accounts") == 1


def test_catalog_without_properties(serve: Serve) -> None:
    """If the catalog has no properties, the tombstone of a deleted record is emitted."""
    account = numbered_account(0, segments=rows("a", "b"))
    destination = Connection(serve(account))
    destination.sync(schema={})

    account.segments = rows("a")

    assert deleted_ids(destination.sync(schema={"type": "object"})) == ["b"]


def test_full_refresh(serve: Serve) -> None:
    """A full refresh emits no tombstone for a deleted record."""
    account = numbered_account(0, segments=rows("a", "b"))
    sandbox = serve(account)
    earlier = read(sandbox, sync_mode="incremental").last_state

    account.segments = rows("a")
    result = read(sandbox, state=earlier)

    assert result.ids == ["a"]
    assert CURSOR in result.records[0]
    assert DELETED_AT not in result.records[0]


def test_restored_record(serve: Serve) -> None:
    """A restored record is emitted as it was."""
    account = numbered_account(0, segments=rows("a", "b"))
    destination = Connection(serve(account))
    destination.sync()
    account.segments = rows("a")
    destination.sync()
    assert stored_ids(destination) == ["a"]

    account.segments = rows("a", "b")
    result = destination.sync()

    assert live_ids(result) == ["b"]
    assert stored_ids(destination) == ["a", "b"]


def test_missing_ids(serve: Serve) -> None:
    """If ids are missing, the account is read again at once."""
    account = brevo("a", "b", "c", "d")
    destination = Connection(serve(account, numbered_account(1, "brevo")))
    destination.sync(additional_accounts=listed(0, 1), num_workers=1)
    destination.sandbox.clear()

    account.segments = rows("a", "b", "c")
    result = destination.sync(additional_accounts=listed(0, 1), num_workers=1)

    assert deleted_ids(result) == ["d"]
    assert [request.account_id for request in destination.sandbox.requests] == [id_of(0)] * 4 + [
        id_of(1)
    ]


def shift(account: Account, *ids: str) -> None:
    """Change the account's records after the next page has been read."""

    def on_page(account: Account, _: int) -> None:
        account.segments = rows(*ids)
        account.on_page = None

    account.on_page = on_page


def test_pages_shift(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If pages shift so that the two reads disagree, nothing is deleted."""
    # Records that both reads lack may be on a page that neither has seen.
    account = brevo("a", "b", "c", "d", "e")
    destination = Connection(serve(account))
    destination.sync()

    # The first read finds a, b and, since everything has moved up, d; it misses c.
    account.segments = rows("a", "b", "c", "d")
    shift(account, "b", "c", "d")
    result = destination.sync()

    assert deleted_ids(result) == []
    assert "two reads did not find the same records" in caplog.text
    assert known_ids(result) == ["a", "b", "c", "d", "e"]
    assert deleted_ids(destination.sync()) == ["a", "e"]
    assert stored_ids(destination) == ["b", "c", "d"]


def test_record_on_no_page_of_two_reads(serve: Serve) -> None:
    """A record that is on no page of two reads is not deleted."""
    # Each read misses this record and another one.
    account = brevo("a", "b", "c", "d", "e")
    destination = Connection(serve(account))
    destination.sync()
    orders = iter(["bcdea", "edcab", "dcabe"])

    def on_page(account: Account, _: int) -> None:
        account.segments = rows(*next(orders, "abcde"))

    account.on_page = on_page
    result = destination.sync()

    assert deleted_ids(result) == []


def test_second_read_without_page_size(serve: Serve) -> None:
    """The second read of an account requests no page size."""
    # If a vendor cuts pages silently, a page size can end the list early.
    account = brevo("a", "b", "c", "d")
    destination = Connection(serve(account))
    destination.sync(page_size=4)
    destination.sandbox.clear()

    account.segments = rows("a", "b", "c")
    result = destination.sync(page_size=4)

    assert deleted_ids(result) == ["d"]
    assert [request.param("limit") for request in destination.sandbox.requests] == ["4", None, None]


def test_pages_shift_and_nothing_is_gone(serve: Serve) -> None:
    """If pages shift and no record is gone, nothing is deleted."""
    account = brevo("a", "b", "c", "d", "e")
    destination = Connection(serve(account))
    destination.sync()
    destination.sandbox.clear()

    shift(account, "b", "c", "d", "e", "a")
    result = destination.sync()

    assert result.records == []
    assert requests(destination.sandbox) == 6


def test_workspaces_shift(serve: Serve) -> None:
    """If workspaces shift, the second read shows that nothing was deleted."""
    workspaces = {f"w{number}": rows(f"s{number}") for number in range(5)}
    account = numbered_account(0, "beehiiv", workspaces=workspaces, default_page_size=2)
    destination = Connection(serve(account))
    destination.sync(ALL_STREAMS)

    def move_first_to_the_end() -> None:
        first, *others = account.workspaces.items()
        account.workspaces = dict([*others, first])

    account.faults = [at_request(2, "workspaces", move_first_to_the_end)]
    result = destination.sync(ALL_STREAMS)

    assert result.of_type("RECORD") == []
    assert stored_ids(destination) == [f"s{number}" for number in range(5)]
    # If only segments are selected, the second read includes the list of workspaces that they need.
    destination.sandbox.clear()
    account.faults = [at_request(2, "workspaces", move_first_to_the_end)]
    assert destination.sync().records == []
    assert requests(destination.sandbox, "workspaces") == 6


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
def test_read_may_be_incomplete(serve: Serve, make_uncertain: Callable[[Account], None]) -> None:
    """If a read may be incomplete, none of the missing records is deleted."""
    account = brevo("a", "b", "c", "d", "e")
    destination = Connection(serve(account))
    destination.sync()

    account.segments = rows("a", "b", "c")
    make_uncertain(account)
    result = destination.sync()

    assert deleted_ids(result) == []
    assert known_ids(result) == ["a", "b", "c", "d", "e"]
    # As soon as a read is complete, the missing records are deleted.
    account.segments = rows("a", "b", "c")
    account.partial, account.cursors_expire, account.loop = False, False, None
    account.on_page = None
    account.faults.clear()
    assert deleted_ids(destination.sync()) == ["d", "e"]


def list_of(*workspaces: Any, is_partial: bool = False) -> Fault:
    """Return a fault that sends these entries as the list of workspaces."""
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
def test_workspace_may_be_left_out(serve: Serve, fault: Fault, streams: Sequence[str]) -> None:
    """If the list may have left out a workspace, nothing is deleted."""
    workspaces = {"w1": rows("a"), "w2": rows("b")}
    account = numbered_account(0, "beehiiv", workspaces=workspaces, workspace_names={"w1": "w1"})
    destination = Connection(serve(account))
    destination.sync(streams)

    account.faults = [fault]
    result = destination.sync(streams)

    assert [deleted_ids(result, stream) for stream in streams] == [[] for _ in streams]
    assert {"a", "b"} == set(stored_ids(destination))
    assert known_ids(result) == ["a", "b"]


@pytest.mark.parametrize("vendor", ["klaviyo", "activecampaign"])
def test_all_segments_deleted_at_once(
    serve: Serve, caplog: pytest.LogCaptureFixture, vendor: str
) -> None:
    """If all segments disappear at once, a later sync has to find the list empty as well."""
    account = numbered_account(0, vendor, segments=rows("a", "b", "c"))
    destination = Connection(serve(account, numbered_account(1)))
    destination.sync(additional_accounts=ALL)

    account.segments = []
    first = destination.sync(additional_accounts=ALL)
    line = f"Stream segments of integrated account {id_of(0)}: all known records (3) are missing. "
    assert len([text for text in caplog.messages if text.startswith(line)]) == 1
    assert first.records == []
    since = datetime.fromisoformat(cursors_of(first)[id_of(0)]["empty"])
    assert timedelta(0) <= datetime.now(timezone.utc) - since < timedelta(minutes=1)
    second = destination.sync(additional_accounts=ALL)

    assert deleted_ids(second) == ["a", "b", "c"]
    assert {key[0] for key in destination.rows("segments")} == {id_of(1)}
    assert cursors_of(second)[id_of(0)] == {"records": {}}


def test_segments_back(serve: Serve) -> None:
    """If the segments are back, nothing is emitted."""
    # The account lost a permission for a day; then the same happens again.
    account = numbered_account(0, segments=rows("a", "b"))
    destination = Connection(serve(account))
    destination.sync()

    for segments in ([], rows("a", "b"), []):
        account.segments = segments
        assert destination.sync().records == []
    account.segments = rows("b")
    assert deleted_ids(destination.sync()) == ["a"]


@pytest.mark.parametrize(
    "fault",
    [
        faults.scopes_missing(times=None),
        faults.vendor_failed(
            times=None, when=lambda request: request.param("next_cursor") is not None
        ),
    ],
    ids=["refused", "failed on page two"],
)
def test_failure_between_empty_lists(serve: Serve, fault: Fault) -> None:
    """If an account failed after its list was empty, its next empty list is a first one again."""
    segments = rows(*"abcde")
    account = numbered_account(0, segments=segments, default_page_size=2)
    destination = Connection(serve(account, numbered_account(1)))
    options: dict[str, Any] = {"additional_accounts": ALL, "on_account_error": "skip"}
    destination.sync(**options)
    account.segments = []
    destination.sync(**options)
    account.segments, account.faults = segments, [fault]
    destination.sync(**options)

    account.segments, account.faults = [], []
    assert destination.sync(**options).records == []
    assert deleted_ids(destination.sync(**options)) == list("abcde")


def test_interruption_between_empty_lists(serve: Serve) -> None:
    """If an interrupted sync has seen records again, the next empty list is a first one again."""
    account = brevo(*"abcde")
    destination = Connection(serve(account))
    destination.sync()
    account.segments = []
    destination.sync()
    account.segments = rows(*"abcde", status="active")
    configured = catalog("incremental")
    interrupted = read_with(
        InterruptedSource(FakeClock()),
        destination.sandbox,
        configured=configured,
        state=destination.state,
    )
    destination.load(interrupted, configured)

    account.segments = []
    assert destination.sync().records == []


def test_outage_over_two_attempts(serve: Serve) -> None:
    """If a list is empty in two attempts shortly after each other, nothing is deleted yet."""
    account, other = numbered_account(0, segments=rows("a", "b")), numbered_account(1)
    destination = Connection(serve(account, other))
    destination.sync(additional_accounts=ALL)
    account.segments = []
    other.faults = [faults.vendor_failed(times=None)]
    assert destination.sync(additional_accounts=ALL).failure
    other.faults = []

    # The hour begins with the first of them.
    for hours in (0.0, 0.5):
        assert destination.sync(hours=hours, additional_accounts=ALL).records == []
    assert deleted_ids(destination.sync(hours=0.5, additional_accounts=ALL)) == ["a", "b"]


def test_empty_list_in_future(serve: Serve) -> None:
    """If the clock was set back since a list was empty, its deletions come two syncs later."""
    account = numbered_account(0, segments=rows("a", "b"))
    destination = Connection(serve(account))
    destination.sync()
    account.segments = []
    destination.sync()

    assert destination.sync(hours=-48.0).records == []
    assert deleted_ids(destination.sync()) == ["a", "b"]


class InterruptedSource(SourceTrutoSegments):
    """A source whose read is interrupted after its first record."""

    def read(self, *args: Any, **kwargs: Any) -> Iterator[AirbyteMessage]:
        for message in super().read(*args, **kwargs):
            yield message
            if message.type is Type.RECORD:
                self.request_shutdown()


def test_custom_column_selected_later(serve: Serve) -> None:
    """If a custom column is selected later, all rows get it."""
    # This is the usual order: the customer adds a field, a sync runs, then the schema is refreshed.
    account = numbered_account(0, segments=rows("a", "b"))
    destination = Connection(serve(account))
    model = load_schema("segments")
    custom = {"properties": {**model["properties"], "owner": {"type": ["null", "object"]}}}
    destination.sync(schema=model)

    account.segments = rows("a", "b", owner={"team": "north"})
    before = destination.sync(schema=model)
    after = destination.sync(schema=custom)
    account.segments = rows("a", "b", owner={"team": "south"})
    without = destination.sync(schema=model)

    assert before.records == []
    assert [record["owner"] for record in after.records] == [{"team": "north"}] * 2
    # Its rows lose the column, and its later changes do not matter.
    assert all("owner" not in record for record in without.records)
    account.segments = rows("a", "b", owner={"team": "west"})
    assert destination.sync(schema=model).records == []


def test_new_custom_field(serve: Serve) -> None:
    """If the catalog has no columns, the rows that have a new custom field are emitted."""
    account = numbered_account(0, segments=rows("a", "b"))
    destination = Connection(serve(account))
    destination.sync()

    account.segments = [*rows("a", owner={"team": "north"}), *rows("b")]
    result = destination.sync()

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
def test_any_date_of_vendor(serve: Serve, earlier: str | None, later: str | None) -> None:
    """If a record changes, the later version wins, whatever date the vendor sends."""
    account = numbered_account(0, segments=rows("a", updated_at=earlier))
    destination = Connection(serve(account))
    destination.sync()

    account.segments = rows("a", updated_at=later)
    destination.sync()

    assert destination.rows("segments")[id_of(0), "a"].get("updated_at") == later


@pytest.mark.parametrize("page_size", [2, 10], ids=["on two pages", "on one page"])
def test_two_versions_in_read(serve: Serve, page_size: int) -> None:
    """If a read finds two versions of a record, the later one wins."""
    account = brevo("a", "b", "c")
    account.default_page_size = page_size
    account.segments = [*account.segments, {"id": "a", "name": "later"}, *rows("d")]
    destination = Connection(serve(account))

    result = destination.sync()

    assert result.ids == ["a", "b", "c", "a", "d"]
    versions = [record for record in result.records if record["id"] == "a"]
    assert [version["name"] for version in versions] == ["name of a", "later"]
    assert versions[0][CURSOR] < versions[1][CURSOR]
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "later"
    account.segments = [{"id": "a", "name": "later"}, *rows("b", "c", "d")]
    # A destination that does not compare cursors may have kept the older version.
    assert live_ids(destination.sync()) == ["a"]
    assert destination.sync().records == []


def test_cursor_of_each_sync(serve: Serve) -> None:
    """The cursors of each sync are greater than those of all earlier syncs."""
    account = brevo("a", "b", "c", "d", "e")
    destination = Connection(serve(account))
    highest = ""

    for number in range(5):
        account.segments = [
            *rows("a", "b", "c", "d", count=number),
            *(rows("e") if number % 2 else []),
        ]
        result = destination.sync()
        values = [record[CURSOR] for record in result.records]
        assert len(values) >= 4
        assert values == sorted(values)
        assert min(values) > highest
        highest = max(values)
        assert state_of_stream(destination.state, "segments")["cursor_value"] == highest


def test_clock_behind(serve: Serve) -> None:
    """If the machine's clock is behind, the cursor does not go back."""
    account = brevo("a", "b", "c", "gone")
    sandbox = serve(account)
    first = read(sandbox, sync_mode="incremental")
    ahead = "2199-12-31T23:59:59.999999Z"
    (message,) = first.last_state
    message["stream"]["stream_state"]["cursor_value"] = ahead

    account.segments = rows("a", "b", "c", count=1)
    result = read(sandbox, sync_mode="incremental", state=first.last_state)

    values = [record[CURSOR] for record in result.records]
    assert len(values) == 4
    assert ahead < values[0] == values[1] < values[2] < values[3]
    assert all(value.startswith("2200-01-01T00:00:00.0000") for value in values)


def test_pairs_for_vendor_in_another_order(serve: Serve) -> None:
    """If the pairs of remote_query come in another order, nothing is emitted."""
    destination = Connection(serve(numbered_account(0)))
    pairs = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
    destination.sync(remote_query=pairs)

    assert destination.sync(remote_query=pairs[::-1]).records == []


def move_account(sandbox: Sandbox) -> None:
    accounts = sandbox.environment.accounts
    accounts.append(accounts.pop(0))


@pytest.mark.parametrize(
    "streams", [("segments",), ("integrated_accounts",), ALL_STREAMS], ids=["one", "list", "all"]
)
def test_list_shifts(serve: Serve, streams: Sequence[str]) -> None:
    """If the list of accounts shifts, an account that it lacks keeps its state."""
    destination = Connection(
        serve(*[numbered_account(number) for number in range(5)], list_page_size=2)
    )
    destination.sync(streams, additional_accounts=ALL)
    before = destination.state
    destination.sandbox.clear()

    # Everything moves up after the first page, so the third account is on no page.
    hook = at_request(2, "accounts", lambda: move_account(destination.sandbox))
    destination.sandbox.environment.faults = [hook]
    result = destination.sync(streams, additional_accounts=ALL)

    assert result.of_type("RECORD") == []
    assert destination.state == before
    assert requests(destination.sandbox, "accounts") == 6
    assert requests(destination.sandbox, "segments") == (5 if "segments" in streams else 0)


def test_account_fails(serve: Serve) -> None:
    """If an account fails, the state remembers what the sync emitted for it."""
    account = brevo("a", "b", "c", "d")
    destination = Connection(serve(account))
    destination.sync()

    account.segments = [{"id": "a", "name": "for a while"}, *rows("b", "c", "d")]
    account.faults = [faults.vendor_refused(after=1)]
    failed = destination.sync()
    assert live_ids(failed) == ["a"]
    assert failed.statuses[-1] == "INCOMPLETE"
    account.segments = rows("a", "b", "c", "d")
    result = destination.sync()

    # Compared with the state before the failed sync, the record would be unchanged.
    assert live_ids(result) == ["a"]
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "name of a"


class KilledSource(SourceTrutoSegments):
    """A source whose process is killed after a number of records."""

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


def test_sync_killed(serve: Serve) -> None:
    """After a killed sync, the next sync emits everything once."""
    account = brevo("a", "b", "c")
    destination = Connection(serve(account))
    configured = catalog("incremental")
    first = destination.sync()
    assert "in_progress" not in state_of_stream(first.last_state, "segments")

    account.segments = [{"id": "a", "name": "for a while"}, *rows("b", "c")]
    killed = read_with(
        KilledSource(1), destination.sandbox, configured=configured, state=destination.state
    )
    destination.load(killed, configured)
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "for a while"
    assert state_of_stream(destination.state, "segments")["in_progress"] is True
    account.segments = rows("a", "b")
    result = destination.sync()

    assert live_ids(result) == ["a", "b"]
    assert deleted_ids(result) == ["c"]
    assert destination.rows("segments")[id_of(0), "a"]["name"] == "name of a"
    assert "in_progress" not in state_of_stream(destination.state, "segments")
    assert destination.sync().records == []


def test_clock_behind_after_kill(serve: Serve) -> None:
    """After a killed sync, the next version wins even if the machine's clock is behind."""
    account = brevo("a", "b", "c")
    destination = Connection(serve(account))
    configured = catalog("incremental")
    destination.sync()
    state_of_stream(destination.state, "segments")["cursor_value"] = "2199-01-01T00:00:00.000000Z"

    account.segments = rows("a", "b", "c", name="for a while")
    killed = read_with(
        KilledSource(3), destination.sandbox, configured=configured, state=destination.state
    )
    destination.load(killed, configured)
    # The records of the second page are now on the first.
    account.segments = rows("c", "a", "b", name="in the end")
    destination.sync()

    assert {row["name"] for row in destination.rows("segments").values()} == {"in the end"}


def test_first_sync(serve: Serve) -> None:
    """If only the first state of a first sync is saved, everything is emitted once more."""
    # The later versions have to win even if the clock is set back in between.
    account = brevo("a", "b", "c")
    destination = Connection(serve(account))
    configured = catalog("incremental")

    killed = read_with(KilledSource(3), destination.sandbox, configured=configured)
    kinds = [m["type"] for m in killed.messages if m["type"] in ("STATE", "RECORD")]
    assert kinds == ["STATE", "RECORD", "RECORD", "RECORD"]
    destination.load(killed, configured)
    (first,) = killed.last_state
    blob = first["stream"]["stream_state"]
    assert blob["in_progress"] is True
    assert blob["cursor_value"] > killed.records[-1][CURSOR]
    account.segments = rows("a", "b", "c", count=1)
    result = destination.sync()

    assert result.ids == ["a", "b", "c"]
    assert result.records[0][CURSOR] > blob["cursor_value"]
    assert destination.sync().records == []


def test_cursor_value_far_ahead(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A log line reports a cursor value that is far ahead of the clock."""
    sandbox = serve(numbered_account(0))
    state = state_of(filters={}, cursor_value="2199-01-01T00:00:00.000000Z")

    read(sandbox, sync_mode="incremental", state=state)

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
def test_cursor_of_another_version(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    cursor_field: list[str] | None,
    columns: dict[str, Any] | None,
    expected: str | None,
) -> None:
    """If the catalog has another version's cursor, a warning explains what to do."""
    configured = catalog("incremental", {"properties": columns} if columns else None)
    configured["streams"][0]["cursor_field"] = cursor_field

    read(serve(numbered_account(0)), configured=configured)

    warnings = warnings_in(caplog)
    assert len(warnings) == bool(expected)
    for warning in warnings:
        assert str(expected) in warning
        assert "Refresh the source schema" in warning


def test_three_streams(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the states of three streams are too large together, they share the space."""
    # Airbyte saves all of them in one request.
    monkeypatch.setattr(state, "MAX_STATE_BYTES", 6000)
    accounts = [
        numbered_account(n, "brevo", count=20, workspaces={f"w{i}": [] for i in range(9)})
        for n in range(8)
    ]
    destination = Connection(serve(*accounts))

    before: dict[str, set[str]] = {}
    for number in range(2):
        result = destination.sync(ALL_STREAMS, additional_accounts=ALL)
        blobs = {s: state_of_stream(result.last_state, s) for s in ALL_STREAMS}
        sizes = [len(json.dumps(blob, separators=(",", ":"))) for blob in blobs.values()]
        assert 5000 < sum(sizes) <= 6000
        assert len(cursors_of(result, "integrated_accounts")[""]["records"]) == 8
        tracked = {s: known_partitions(result, s) for s in ALL_STREAMS}
        if number:
            # What had space keeps it.
            assert tracked == before
            assert not {key[0] for key in keys_emitted(result)} & tracked["segments"]
        before = tracked


def known_partitions(result: Result, stream: str) -> set[str]:
    return {id_ for id_, cursor in cursors_of(result, stream).items() if cursor["records"]}


def keys_emitted(result: Result) -> list[tuple[Any, ...]]:
    return [key_of("segments", data) for data in result.records]


def test_other_columns(serve: Serve) -> None:
    """A full refresh that is resumed with other columns starts again."""
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


def test_state_in_middle_of_sync(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state in the middle of a sync is marked as in progress."""
    monkeypatch.setattr(sync, "CHECKPOINT_SECONDS", 0.0)
    account = brevo("a", "b", "c")
    destination = Connection(serve(account))
    destination.sync()
    account.segments = rows("a", "b", "c", count=1)

    result = destination.sync()

    *earlier, last = [message["stream"]["stream_state"] for message in result.states]
    # The first one comes before the first record.
    assert [blob["in_progress"] for blob in earlier] == [True] * 3
    assert "in_progress" not in last


def test_account_skipped(serve: Serve) -> None:
    """An account that is skipped stays as it was."""
    account = brevo("a", "b", "c")
    sandbox = serve(account, numbered_account(1))
    fields: dict[str, Any] = {"additional_accounts": ALL, "on_account_error": "skip"}
    destination = Connection(sandbox)
    destination.sync(**fields)

    account.segments = rows("c")
    account.faults = [faults.account_blocked(times=None)]
    skipped = destination.sync(**fields)
    assert skipped.failure is None
    assert skipped.records == []
    assert known_ids(skipped) == ["a", "b", "c"]
    account.faults.clear()

    assert deleted_ids(destination.sync(**fields)) == ["a", "b"]


def test_state_without_room(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accounts for which the state has no space are emitted completely, with one warning."""
    accounts = [numbered_account(number, count=20) for number in range(3)]
    destination = Connection(serve(*accounts))
    monkeypatch.setattr(state, "MAX_STATE_BYTES", 900)
    left_out: list[str] = []

    for number in range(3):
        caplog.clear()
        for account in accounts:
            account.segments = list(account.segments)[1:]
        result = destination.sync(additional_accounts=ALL)
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
            # The account that has space is compared; the others are emitted completely and lose
            # nothing.
            assert without_ids == left_out
            assert Counter(r["integrated_account_id"] for r in result.records) == {
                **dict.fromkeys(without_ids, 20 - number - 1),
                **{id_: 1 for id_ in found if id_ not in without_ids},
            }
            assert len(deleted_ids(result)) == 1
        left_out = without_ids

    monkeypatch.undo()
    caplog.clear()
    destination.sync(additional_accounts=ALL)
    assert not [text for text in caplog.messages if "is full" in text]
    assert destination.sync(additional_accounts=ALL).records == []


def test_room_stays(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new account takes no room from an account whose records the state tracks."""
    accounts = sorted((numbered_account(n, count=20) for n in range(2)), key=lambda a: a.id)
    new, known = accounts
    sandbox = serve(known)
    destination = Connection(sandbox)
    monkeypatch.setattr(state, "MAX_STATE_BYTES", 900)
    destination.sync(additional_accounts=ALL)
    sandbox.environment.accounts.append(new)

    for _ in range(3):
        gone, known.segments = known.segments[0], known.segments[1:]
        result = destination.sync(integrated_account_id=known.id, additional_accounts=ALL)
        assert deleted_ids(result) == [gone["id"]]
        assert cursors_of(result)[new.id] == {"records": None}


def test_other_accounts_in_state(serve: Serve) -> None:
    """If the state has other accounts, no rows are made up for them."""
    sandbox = serve(numbered_account(0, segments=rows("a")))
    records = {"records": {"x": "fingerprint0"}}
    begin = state_of((1, records), (2, {"records": None}), filters={})

    result = read(sandbox, sync_mode="incremental", state=begin)

    assert [without_cdc(record)["id"] for record in result.records] == ["a"]
    assert cursors_of(result)[id_of(1)] == {**records, "unread": True}
    assert id_of(2) not in cursors_of(result)


def test_no_key_twice(serve: Serve) -> None:
    """A sync of many records emits no key twice, and each page has a later cursor."""
    sandbox = serve(*[numbered_account(number, count=45) for number in range(4)])

    result = Connection(sandbox).sync(ALL_STREAMS, additional_accounts=ALL)

    for stream in ALL_STREAMS:
        keys = [key_of(stream, data) for data in result.records_of(stream)]
        assert len(keys) == len(set(keys))
    for number in range(4):
        values = [r[CURSOR] for r in result.records if r["integrated_account_id"] == id_of(number)]
        pages = sorted(set(values))
        assert values == sorted(values)
        assert len(pages) == 5
        assert all(earlier < later for earlier, later in pairwise(pages))


def test_column_that_was_dropped(serve: Serve) -> None:
    """A column that is selected again is filled also for accounts that were not read meanwhile."""
    first, second = numbered_account(0), numbered_account(1)
    destination = Connection(serve(first, second))
    properties = load_schema("segments")["properties"]
    less = {name: schema for name, schema in properties.items() if name != "remote_data"}
    how: dict[str, Any] = {
        "additional_accounts": ALL,
        "on_account_error": "skip",
        "integrated_account_id": id_of(1),
    }
    assert len(destination.sync(**how).records) == 6

    # The destination may drop the column, and with it the values of the account that fails.
    first.faults = [faults.vendor_failed(times=None)]
    sent = [len(destination.sync(schema={"properties": less}, **how).records) for _ in range(2)]
    assert sent == [3, 0]
    first.faults = []
    again = destination.sync(**how)
    assert sorted(live_ids(again)) == sorted(2 * [record["id"] for record in first.segments])
    assert all("remote_data" in record for record in again.records)
    assert destination.sync(**how).records == []
