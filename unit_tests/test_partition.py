"""One partition, page by page: what is emitted of it, and what counts as deleted."""

import json
import logging
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest

from source_truto_segments.config import Config
from source_truto_segments.records.changes import ChangeClock
from source_truto_segments.streams import Streams, TrutoStream
from source_truto_segments.sync.events import PartitionRead, RecordsRead
from source_truto_segments.sync.partition import PartitionDiff, SelectedStream
from source_truto_segments.sync.state import FullRefreshState, IncrementalState, StreamState
from source_truto_segments.truto.responses import Page, parse_page

ACCOUNT = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
SLICE = {"integrated_account_id": ACCOUNT}
STREAMS = Streams.build(
    Config.parse({"token": "token-of-test-partition", "integrated_account_id": ACCOUNT})
)
LABEL = f"Stream segments of integrated account {ACCOUNT}"


def page(*ids: Any, cursor: str | None = None, **more: Any) -> Page:
    body = {"result": [{"id": id_, "name": "n"} for id_ in ids], "next_cursor": cursor}
    return parse_page(json.dumps({**body, **more}).encode())


def selected(state: StreamState, stream: TrutoStream = STREAMS.segments) -> SelectedStream:
    ticks = count(1_000_000_000_000_000_000, 1_000_000)
    return SelectedStream(stream, state, ChangeClock(now=lambda: next(ticks)))


def diff(state: StreamState, stream: TrutoStream = STREAMS.segments) -> PartitionDiff:
    found = PartitionDiff.begin(selected(state, stream), ACCOUNT)
    assert found
    return found


@pytest.fixture
def state() -> IncrementalState:
    """The state after a sync that found a, b and c."""
    state = IncrementalState({})
    read = diff(state).process(page("a", "b", "c"), SLICE)
    state.add(ACCOUNT, read.fingerprints, read.cursor_value)
    return state


def ids(read: RecordsRead) -> list[Any]:
    return [record.get("id") for record, _ in read.rows]


def close(partition: PartitionDiff) -> tuple[list[str], bool]:
    """Return the ids of the tombstones, and whether the partition waits for another empty list."""
    *tombstones, end = partition.close()
    assert isinstance(end, PartitionRead)
    assert (end.stream_name, end.partition) == (partition._selected.name, ACCOUNT)  # noqa: SLF001
    found = [read for read in tombstones if isinstance(read, RecordsRead)]
    return [id_ for read in found for id_ in read.removed_ids], end.emptied is not None


def test_new_records() -> None:
    """A page's new records are emitted with their times, fingerprints and the page's size."""
    new = page("a", "b", cursor="x")
    read = diff(IncrementalState({})).process(new, SLICE)
    assert ids(read) == ["a", "b"]
    assert [*read.fingerprints] == ["a", "b"]
    assert read.has_records
    assert (read.stream_name, read.partition, read.size) == ("segments", ACCOUNT, new.size)
    assert {record["_ab_cdc_updated_at"] for record, _ in read.rows} == {read.cursor_value}


def test_known_records(state: IncrementalState) -> None:
    """Of records that are as they were, nothing is emitted, and the queue holds nothing."""
    read = diff(state).process(page("a", "b"), SLICE)
    assert (ids(read), read.fingerprints, read.size) == ([], {}, 0)
    assert read.has_records
    assert not diff(state).process(page(), SLICE).has_records


def test_two_versions_on_one_page() -> None:
    """The later of two versions on a page has the later time."""
    body = {"result": [{"id": "a", "name": "1"}, {"id": "a", "name": "2"}]}
    read = diff(IncrementalState({})).process(parse_page(json.dumps(body).encode()), SLICE)
    first, second = (record["_ab_cdc_updated_at"] for record, _ in read.rows)
    assert first < second == read.cursor_value


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_blank_ids(state: IncrementalState, caplog: Any, blank: Any) -> None:
    """Records without an id are emitted without one, counted, and suspend deletions."""
    partition = diff(state)
    assert ids(partition.process(page(blank, blank, "a"), SLICE)) == [None, None]
    record = partition.process(page(blank), SLICE).rows[0][0]
    assert "id" not in record
    assert not partition.must_be_read_again
    assert close(partition) == ([], False)
    partition.log_issues()
    assert caplog.messages == [
        (
            f"{LABEL}: records without an id: 3. They were emitted, but a destination cannot "
            "deduplicate them, and no deletions are inferred."
        )
    ]


def test_missing_id() -> None:
    """A record that has no id at all is emitted as it is."""
    body = b'{"result": [{"name": "n"}]}'
    assert ids(diff(IncrementalState({})).process(parse_page(body), SLICE)) == [None]


def test_issues(state: IncrementalState, caplog: Any) -> None:
    """What is wrong with pages is counted over all of them, and logged once."""
    partition = diff(state)
    bad = parse_page(b'{"result": [{"id": "x", "created_at": "soon"}, 1, 2]}')
    for number in range(2):
        bad.records[0]["id"] = f"x{number}"
        partition.process(bad, SLICE)
    for _ in range(2):
        partition.process(page("a", "b", is_partial_response=True), SLICE)
        partition.process(page("a", "b", cursor="z", is_partial_response=True), SLICE)
    partition.log_issues()
    assert [message.partition(": ")[2].partition(". ")[0] for message in caplog.messages] == [
        (
            "records with a value that does not match its column's type, or that no destination "
            "takes: 2"
        ),
        "responses that Truto marked as partial: 2",
        "entries that cannot be read, or are not objects: 4",
    ]
    assert close(partition) == ([], False)


def test_no_issues(state: IncrementalState, caplog: Any) -> None:
    """Good pages are not logged."""
    partition = diff(state)
    partition.process(page("a", "b", "c"), SLICE)
    assert close(partition) == ([], False)
    partition.log_issues()
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("second", "deleted"), [(["a"], ["b", "c"]), (["a", "b"], []), (["a", "x"], []), ([], [])]
)
def test_second_read(
    state: IncrementalState, caplog: Any, second: list[str], deleted: list[str]
) -> None:
    """Records are deleted only if two reads found exactly the same ids."""
    partition = diff(state)
    partition.process(page("a"), SLICE)
    assert partition.must_be_read_again
    assert partition.is_first_read is True
    partition.begin_second_read()
    assert partition.is_first_read is False
    partition.process(page(*second), SLICE)
    assert close(partition) == (deleted, False)
    partition.log_issues()
    differs = [
        (
            f"{LABEL}: two reads did not find the same records, as some are added or move "
            "meanwhile. No deletions are inferred; the next sync looks again."
        )
    ]
    assert caplog.messages == ([] if deleted else differs)


@pytest.mark.parametrize("reason", ["incomplete", "full refresh", "no column"])
def test_no_deletions(state: IncrementalState, reason: str) -> None:
    """Nothing is deleted of what was not read completely, or where it cannot be expressed."""
    columns = STREAMS.segments.columns
    partition = diff(state)
    if reason == "incomplete":
        partition.complete = False
    if reason == "full refresh":
        partition = diff(FullRefreshState({}, datetime.now(timezone.utc)))
    if reason == "no column":
        names: dict[str, Any] = {name: {} for name in ("integrated_account_id", "id", "name")}
        schema = type(columns).from_schema("segments", {"properties": names})
        stream = type(STREAMS.segments)(STREAMS.segments._config, schema)  # noqa: SLF001
        partition = diff(state, stream)
    partition.process(page("a"), SLICE)
    assert not partition.must_be_read_again
    partition.begin_second_read()
    partition.process(page("a"), SLICE)
    assert close(partition) == ([], False)
    assert [*partition.delete()] == []


def test_all_missing(state: IncrementalState, caplog: Any) -> None:
    """If everything is missing at once, a later sync has to see that again."""
    caplog.set_level(logging.WARNING)
    for emptied, deleted in ((True, []), (False, ["a", "b", "c"])):
        partition = diff(state)
        partition.process(page(), SLICE)
        partition.begin_second_read()
        partition.process(page(), SLICE)
        assert close(partition) == (deleted, emptied)
        an_hour_ago = selected(state).clock.time - timedelta(hours=1)
        state.complete(ACCOUNT, emptied=an_hour_ago if emptied else None)
    assert caplog.messages == [
        (
            f"{LABEL}: all known records (3) are missing. Nothing is deleted yet, as a lost "
            "permission or a failure can look like that; if a sync an hour later finds none "
            "either, they are deleted."
        )
    ]


def test_tombstones(state: IncrementalState) -> None:
    """What Truto itself reports as deleted has tombstones of key, time and deletion."""
    (read,) = diff(state).delete()
    at = read.cursor_value
    assert [record for record, _ in read.rows] == [
        {**SLICE, "id": id_, "_ab_cdc_updated_at": at, "_ab_cdc_deleted_at": at} for id_ in "abc"
    ]
    assert (read.stream_name, read.partition) == ("segments", ACCOUNT)
    assert list(read.removed_ids) == ["a", "b", "c"]
    assert [*diff(IncrementalState({})).delete()] == []


def test_tombstone_of_account() -> None:
    """The key of an account is its id alone."""
    accounts = selected(IncrementalState({}), STREAMS.integrated_accounts)
    ((record, _),) = accounts.tombstones(ACCOUNT, [ACCOUNT]).rows
    assert record.keys() == {"id", "_ab_cdc_updated_at", "_ab_cdc_deleted_at"}


def test_complete_partition() -> None:
    """A partition that an earlier attempt of a full refresh completed is not read again."""
    state = FullRefreshState({}, datetime.now(timezone.utc))
    state.complete(ACCOUNT)
    assert PartitionDiff.begin(selected(state), ACCOUNT) is None
    assert PartitionDiff.begin(selected(state), "another") is not None
