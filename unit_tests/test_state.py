"""The state of a stream, as pure data."""

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from source_truto_segments.config import Config
from source_truto_segments.records.changes import fingerprint
from source_truto_segments.streams import filter_digest, read_filters
from source_truto_segments.sync import state as state_module
from source_truto_segments.sync.state import (
    EMPTY_MIN_AGE,
    RESUME_MAX_AGE,
    FullRefreshState,
    IncrementalState,
    InvalidStateError,
    OutdatedStateError,
    StreamState,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
NEUTRAL = {"__ab_no_cursor_state_message": True}
# What a list of accounts takes at most, beside its records.
ENVIRONMENT_ENTRY = '{"partition":{},"cursor":{"records":{},"empty":"2026-01-02T03:04:05+00:00"}},'
MOMENT, LATER = "2026-01-02T03:04:05.000006Z", "2026-01-02T03:04:05.000007Z"


def load_full(blob: dict[str, Any], **filters: Any) -> FullRefreshState:
    return FullRefreshState.load(blob, filters, NOW)


def load_incremental(blob: dict[str, Any], **filters: Any) -> IncrementalState:
    return IncrementalState.load(blob, filters)


LOADS = [load_full, load_incremental]


def entry(cursor: dict[str, Any], account: str = "a") -> dict[str, Any]:
    return {"partition": {"integrated_account_id": account}, "cursor": cursor}


def full(*entries: dict[str, Any], **blob: Any) -> FullRefreshState:
    return load_full({"states": list(entries), **blob})


def incremental(*entries: dict[str, Any], **blob: Any) -> IncrementalState:
    return load_incremental({"states": list(entries), **blob})


def stored(blob: dict[str, Any]) -> dict[str, Any]:
    """Return a state as it comes back from Airbyte, through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(blob))
    return found


def versions(*ids: str) -> dict[str, str]:
    """Return the fingerprints of records that have only an id."""
    return {id_: fingerprint({"id": id_}) for id_ in ids}


def known_ids(state: StreamState, partition: str) -> list[str]:
    """Return the ids that the state tracks, and knows in exactly the version of `versions`."""
    detector = state.detector(partition)
    assert detector is not None
    return [
        id_ for id_ in detector.missing_ids if detector.changed_fingerprint({"id": id_}) is None
    ]


def is_empty(state: StreamState) -> bool:
    """Return whether a sync that begins with this state reads and emits everything."""
    detector = state.detector("a")
    return (
        detector is not None
        and not (state.partitions or detector.missing_ids)
        and detector.changed_fingerprint({"id": "1"}) is not None
    )


# --- both modes ---


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    "blob",
    [{}, NEUTRAL, {"__ab_full_refresh_sync_complete": True}, {"states": []}]
    + [{**NEUTRAL, "states": [entry({"complete": True, "records": {"1": "x"}})]}],
)
def test_state_of_finished_sync(load: Any, blob: dict[str, Any]) -> None:
    """With an empty state, or that of a finished full refresh, everything is read."""
    assert is_empty(load(blob))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    "cursor",
    [
        {"updated_at": "2026-01-01T00:00:00Z"},
        {"updated_at": None},
        {"next_cursor": "c"},
        {"next_cursor": "c", "workspace_id": "w"},
        {"workspaces_done": ["w"]},
    ],
)
def test_state_of_version_0_1(load: Any, cursor: dict[str, Any]) -> None:
    """The loader recognizes a state of version 0.1 as outdated."""
    newer = {"complete": True, "records": {}}
    for entries in ([entry(cursor)], [entry(newer), entry(cursor, "b")], [entry(newer | cursor)]):
        with pytest.raises(OutdatedStateError):
            load({"states": entries, "filters": {}})


@pytest.mark.parametrize("load", LOADS)
def test_state_of_other_mode(load: Any) -> None:
    """With the state of the other sync mode, everything is read."""
    other = {"records": versions("1")} if load is load_full else {"complete": True}
    entries = [entry(other), entry({"future": "cursor"}, "b")]

    assert is_empty(load({"states": entries, "more": 1, "started_at": NOW.isoformat()}))


@pytest.mark.parametrize("load", LOADS)
def test_other_filters(load: Any) -> None:
    """With other filters than those in the state, everything is read."""
    cursor = {"complete": True, "records": versions("1")}
    blob = {"states": [entry(cursor)], "filters": {"tag_id": "t"}}

    assert not is_empty(load(blob, tag_id="t"))
    for filters in ({}, {"tag_id": "u"}, {"tag_id": "t", "workspace_id": "w"}):
        state = load(blob, **filters)
        assert is_empty(state)
        assert state.snapshot()["filters"] == filters
    del blob["filters"]
    assert not is_empty(load(blob, tag_id="t"))


@pytest.mark.parametrize("load", LOADS)
def test_order_of_partitions(load: Any) -> None:
    """The state lists partitions in order, whenever they were completed."""
    state = load({})
    for partition in ("b", "c", "a"):
        assert state.complete(partition)
        assert not state.complete(partition)

    partitions = [found["partition"] for found in state.snapshot()["states"]]
    assert partitions == [{"integrated_account_id": account} for account in "abc"]
    assert sorted(state.partitions) == ["a", "b", "c"]


@pytest.mark.parametrize("load", LOADS)
def test_form_of_account_id(load: Any) -> None:
    """An account id with blanks or capitals is the same account."""
    state = load({"states": [entry({"complete": True, "records": {}}, " A-b\n")]})
    assert list(state.partitions) == ["a-b"]


def message(detail: str) -> str:
    """Return a pattern that matches the whole message."""
    return f"^{re.escape(detail)}$"


NO_CURSOR = "an entry has no partition or no cursor"


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    ("blob", "detail"),
    [
        ({"updated_at": "2026-01-01T00:00:00Z"}, "it has no list of states"),
        ({"states": {}}, "it has no list of states"),
        ({"states": ["x"]}, NO_CURSOR),
        ({"states": [{}]}, NO_CURSOR),
        ({"states": [{"cursor": {}}]}, NO_CURSOR),
        ({"states": [{"partition": {"integrated_account_id": "a"}}]}, NO_CURSOR),
        ({"states": [{"partition": "a", "cursor": {}}]}, NO_CURSOR),
        ({"states": [{"partition": {}, "cursor": "c"}]}, NO_CURSOR),
        (
            {"states": [{"partition": {"integrated_account_id": 5}, "cursor": {}}]},
            "a partition names no integrated account",
        ),
        (
            {"states": [{"partition": {"integrated_account_id": None}, "cursor": {}}]},
            "a partition names no integrated account",
        ),
    ],
)
def test_invalid_state(load: Any, blob: dict[str, Any], detail: str) -> None:
    """A state in another form is rejected, with the reason."""
    with pytest.raises(InvalidStateError, match=message(detail)):
        load(blob)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        ({"filters": {"tag_id": 2**70}}, "Integer exceeds 64-bit range"),
        ({"filters": {"tag_id": "\ud800"}}, "str is not valid UTF-8: surrogates not allowed"),
        ({"states": [entry({"records": {"\ud800": "x"}})]}, "str is not valid UTF-8"),
    ],
)
def test_unwritable_state(load: Any, blob: dict[str, Any], reason: str) -> None:
    """A state that cannot be written again is rejected, with the reason."""
    with pytest.raises(InvalidStateError) as invalid:
        load({"states": [], **blob})
    assert str(invalid.value).startswith(f"it cannot be written again ({reason}")


# --- full refresh ---


def test_complete_partitions() -> None:
    """A resumed full refresh skips only the partitions that are complete."""
    state = full(
        entry({"complete": True}),
        entry({"complete": False}, "b"),
        entry({"complete": 1}, "c"),
        {"partition": {}, "cursor": {"complete": True}},
    )

    # Version 0.2 stored the list of accounts as one partition, which is not skipped.
    assert sorted(state.partitions) == ["a"]
    assert [state.detector(partition) is None for partition in "abcd"] == (
        [True, False, False, False]
    )


def test_full_refresh() -> None:
    """A full refresh does not emit the same version of a record twice in a row."""
    detector = full().detector("a")
    assert detector is not None
    first, second = {"id": "1", "name": "a"}, {"id": "1", "name": "b"}

    assert [
        bool(detector.changed_fingerprint(record)) for record in (first, first, second, first)
    ] == ([True, False, True, True])
    assert detector.missing_ids == []
    for number in range(10_000):
        assert detector.changed_fingerprint({"id": f"other {number}"})
    # The detector has forgotten it: its memory does not grow with the partition.
    assert detector.changed_fingerprint(first)


def test_snapshot_of_full_refresh() -> None:
    """The state of a full refresh has its filters, its complete partitions and its start."""
    state = FullRefreshState({"tag_id": "t"}, NOW)
    state.complete("a")

    blob = state.snapshot()
    assert blob == {
        "states": [entry({"complete": True})],
        "filters": {"tag_id": "t"},
        "started_at": "2026-01-02T03:04:05+00:00",
    }
    assert state.snapshot(reserved=LATER) == blob
    assert load_full(stored(blob), tag_id="t").snapshot() == blob


def test_other_columns() -> None:
    """A full refresh with other columns is not resumed."""
    state = FullRefreshState({"columns": ["id", "name"]}, NOW)
    state.complete("a")
    blob = stored(state.snapshot())

    assert load_full(blob, columns=["id", "name"]).detector("a") is None
    for columns in (["id"], None):
        assert load_full(blob, columns=columns).detector("a") is not None
    # Version 0.2 stored no columns.
    del blob["filters"]["columns"]
    assert load_full(blob, columns=["id"]).detector("a") is None


@pytest.mark.parametrize(
    ("age", "is_resumed"),
    [
        (timedelta(0), True),
        (RESUME_MAX_AGE - timedelta(seconds=1), True),
        (RESUME_MAX_AGE, False),
        (2 * RESUME_MAX_AGE, False),
        (-RESUME_MAX_AGE, False),
        (timedelta(seconds=1) - RESUME_MAX_AGE, True),
    ],
)
def test_age_of_attempt(age: timedelta, is_resumed: bool) -> None:
    """An attempt of long ago is not resumed, so everything is read."""
    started_at = NOW - age
    for text in (
        started_at.isoformat(),
        started_at.isoformat().replace("+00:00", "Z"),
        started_at.isoformat().removesuffix("+00:00"),
        started_at.astimezone(timezone(timedelta(hours=5))).isoformat(),
    ):
        state = full(entry({"complete": True}), started_at=text)
        assert (state.detector("a") is None) is is_resumed
        expected = started_at if is_resumed else NOW
        assert datetime.fromisoformat(state.snapshot()["started_at"]) == expected


def test_repeated_attempts() -> None:
    """Repeated attempts keep the start of the first one."""
    first = FullRefreshState({}, NOW - timedelta(hours=20))
    second = FullRefreshState.load(stored(first.snapshot()), {}, NOW - timedelta(hours=10))
    second.complete("a")
    third = FullRefreshState.load(stored(second.snapshot()), {}, NOW)
    assert third.detector("a") is None
    in_five_hours = NOW + timedelta(hours=5)
    fourth = FullRefreshState.load(stored(third.snapshot()), {}, in_five_hours)
    assert fourth.detector("a") is not None


@pytest.mark.parametrize("started_at", ["yesterday", 10**15, ["2026-01-01"], "  ", False])
def test_invalid_start(started_at: Any) -> None:
    """A start that is not a time is rejected, with the reason."""
    with pytest.raises(InvalidStateError, match=message("its started_at is not a valid timestamp")):
        full(started_at=started_at)


def test_final_state_of_full_refresh() -> None:
    """A finished full refresh has the neutral state."""
    assert full(entry({"complete": True})).final_snapshot() == NEUTRAL


# --- incremental ---


def test_known_fingerprints() -> None:
    """The fingerprints of a loaded state are known, each in its partition."""
    state = incremental(
        entry({"records": {**versions("1", "2"), "3": "another"}}),
        entry({"records": {}}, "b"),
        entry({"records": None}, "c"),
        entry({"complete": True}, "other mode"),
        {"partition": {}, "cursor": {"records": {"4": fingerprint({"id": "4"})}}},
        cursor_value=MOMENT,
    )

    assert known_ids(state, "a") == ["1", "2"]
    assert state.detector("a").missing_ids == ["1", "2", "3"]
    assert [state.detector(partition).missing_ids for partition in "bcd"] == [[], [], []]
    # Each account of the list has become a partition.
    assert known_ids(state, "4") == ["4"]
    assert sorted(state.partitions) == ["4", "a", "b", "c"]
    assert state.cursor_value == MOMENT
    assert state.detector("a") is not None


def test_snapshot() -> None:
    """The state has exactly the records that were written and not removed."""
    state = IncrementalState({"tag_id": "t"})
    assert state.snapshot() == {"states": [], "filters": {"tag_id": "t"}}
    state.add("a", {"1": "x", "2": "y"}, MOMENT)
    state.add("a", {"2": "z", "3": "x"}, LATER)
    state.remove("a", ["1", "unknown"], MOMENT)
    state.remove("unknown", ["1"], MOMENT)

    assert state.snapshot() == {
        "states": [entry({"records": {"2": "z", "3": "x"}})],
        "filters": {"tag_id": "t"},
        "cursor_value": LATER,
    }
    state.remove("a", ["2"], "2026-01-02T03:04:05.000008Z")
    assert state.snapshot()["cursor_value"] == "2026-01-02T03:04:05.000008Z"
    assert state.snapshot()["states"] == [entry({"records": {"3": "x"}})]


def test_later_records() -> None:
    """A snapshot stays as it was while more is read."""
    state = incremental(entry({"records": {"1": "x"}}))
    blob = state.snapshot()
    state.add("a", {"2": "y"}, MOMENT)

    assert blob["states"] == [entry({"records": {"1": "x"}})]


def test_partition_without_records() -> None:
    """The state has an entry for a complete partition without records."""
    state = incremental(entry({"records": {"1": "x"}}))
    assert state.complete("b")
    assert not state.complete("a")

    assert state.snapshot()["states"] == [
        entry({"records": {"1": "x"}}),
        entry({"records": {}}, "b"),
    ]


def test_killed_sync() -> None:
    """After a killed sync, the next one emits everything."""
    # After this state, the destination may have received versions that the API no longer has.
    state = incremental(entry({"records": versions("1", "2")}))
    blob = state.snapshot(reserved=LATER)
    assert blob == {**state.snapshot(), "in_progress": True, "cursor_value": LATER}
    killed = load_incremental(stored(blob))

    assert killed.detector("a").missing_ids == ["1", "2"]
    assert known_ids(killed, "a") == []
    assert "in_progress" not in killed.snapshot()


def test_filters_in_another_form() -> None:
    """With filters that no sync can have written, everything is read."""
    assert is_empty(incremental(entry({"records": versions("1")}), filters=5))


def test_before_the_first_snapshot() -> None:
    """A state that was not written yet takes no room, and a full refresh has none to retire."""
    assert IncrementalState({}).size == 0
    assert full().size == 0
    assert not full().retire(["a"])


def test_size_of_full_refresh() -> None:
    """The size of a state is that of all that is written."""
    state = full(entry({"complete": True}))
    assert len(orjson.dumps(state.snapshot())) == state.size


def test_versions_after_killed_sync() -> None:
    """The versions of a killed sync are unknown, and stay so if the next one is killed, too."""
    state = incremental(entry({"records": versions("1")}), in_progress=True)
    assert state.snapshot()["states"] == [entry({"records": {"1": ""}})]


def test_list_without_room() -> None:
    """A list of accounts that had no room for its ids is no account."""
    assert list(incremental(entry({"records": None}, "")).partitions) == []
    listed = {"partition": {}, "cursor": {"records": None}}
    assert list(incremental(listed, entry({"records": {}})).partitions) == ["a"]


def test_account_comes_back() -> None:
    """The account of a partition that was not read for a time is read again."""
    state = incremental(entry({"records": versions("1"), "unread": True}))
    assert list(state.expected) == []
    state.add("a", versions("2"), MOMENT)
    assert list(state.expected) == ["a"]
    assert state.snapshot()["states"] == [entry({"records": versions("1", "2")})]


def test_emptied_list() -> None:
    """That the list of accounts had no entries is part of its partition."""
    state = IncrementalState({}, is_list=True)
    state.complete("", emptied=NOW)
    listed = {"partition": {}, "cursor": {"records": {}, "empty": NOW.isoformat()}}
    assert state.snapshot()["states"] == [listed]
    later = NOW + EMPTY_MIN_AGE
    assert load_incremental({"states": [listed]}).was_emptied("", later)
    assert not load_incremental({"states": [listed]}).was_emptied("a", later)
    assert not full().was_emptied("", later)
    assert not full().forget_emptied("")


def test_unread_partitions() -> None:
    """Partitions that a sync does not read keep their entries, marked unread."""
    of_a, other = entry({"records": {"1": "x"}}), entry({"records": {"2": "y"}}, "other")
    state = incremental(of_a, other)

    assert state.retire({"a", "new"})
    assert not state.retire({"a"})
    unread = {**other, "cursor": {"records": {"2": "y"}, "unread": True}}
    blob = state.final_snapshot()
    assert blob["states"] == [of_a, unread]
    again = load_incremental(stored(blob))
    assert sorted(again.partitions) == ["a", "other"]
    assert sorted(again.expected) == ["a"]
    assert again.complete("other")
    assert again.snapshot()["states"] == [of_a, other]


def test_list_of_accounts() -> None:
    """The accounts that are read form one partition, and each unread one keeps an entry."""
    records = {"a": "x", "b": "y"}
    one = {"partition": {}, "cursor": {"records": records}}
    state = IncrementalState.load({"states": [one]}, {}, is_list=True)
    assert state.snapshot()["states"] == [one]

    state.retire({"a"})
    parts = [{"partition": {}, "cursor": {"records": {"a": "x"}}}]
    parts += [entry({"records": {"b": "y"}, "unread": True}, "b")]
    assert state.snapshot()["states"] == parts
    named = load_incremental(stored(state.snapshot()))
    assert known_ids(named, "b") == []
    assert named.snapshot()["states"] == [entry({"records": {"a": "x"}}), parts[1]]


def test_same_account_in_two_forms() -> None:
    """If two entries have different versions of an account, its version is unknown."""
    one = {"partition": {}, "cursor": {"records": {"a": "x", "b": "y"}}}
    state = incremental(one, entry({"records": {"a": "z"}}), entry({"records": {"b": "y"}}, "b"))

    assert state.snapshot()["states"] == [
        entry({"records": {"a": ""}}),
        entry({"records": {"b": "y"}}, "b"),
    ]


def test_emptied_partition() -> None:
    """If a partition suddenly has no records, the state tells the next syncs since when."""
    state = incremental(entry({"records": {"1": "x"}}))
    later = NOW + EMPTY_MIN_AGE
    assert not state.was_emptied("a", later)
    assert state.complete("a", emptied=NOW + timedelta(microseconds=6))
    blob = stored(state.snapshot())
    assert blob["states"] == [entry({"records": {"1": "x"}, "empty": NOW.isoformat()})]

    for end in (IncrementalState.complete, IncrementalState.forget_emptied):
        again = load_incremental(blob)
        assert not again.was_emptied("a", later - timedelta(seconds=1))
        # A second time does not change the first.
        assert not again.complete("a", emptied=later - timedelta(seconds=1))
        assert again.was_emptied("a", later)
        assert end(again, "a")
        assert not again.was_emptied("a", later)
        assert not again.forget_emptied("a")


def test_emptied_in_future() -> None:
    """After the clock was set back, the time at which a partition had no records is the new one."""
    state = incremental(entry({"records": {}, "empty": "2126-01-02T03:04:05Z"}))
    assert not state.was_emptied("a", NOW)
    assert state.complete("a", emptied=NOW)
    assert state.was_emptied("a", NOW + EMPTY_MIN_AGE)


def test_emptied_without_time() -> None:
    """A partition that had no records at an unknown time has had none for long."""
    state = incremental(entry({"records": {}, "empty": True}))
    assert state.was_emptied("a", NOW)
    blob = stored(state.snapshot())
    assert load_incremental(blob).was_emptied("a", NOW)
    assert not incremental(entry({"records": {}, "empty": False})).was_emptied("a", NOW)


@pytest.mark.parametrize("empty", ["yesterday", 5, ["2026"], "0001-01-01T00:00:00+05:00"])
def test_invalid_emptied(empty: Any) -> None:
    """A time that is none is rejected, with the reason."""
    detail = "a cursor's empty is not a valid timestamp"
    with pytest.raises(InvalidStateError, match=message(detail)):
        incremental(entry({"records": {}, "empty": empty}))


def test_order_of_pairs() -> None:
    """The filters are the same if pairs with different names change their order."""
    filters = {"remote_query": [["b", "1"], ["a", "2"], ["a", "1"]]}
    blob = {"states": [entry({"records": versions("1")})], "filters": filters}

    for pairs, is_same in (
        ([["a", "2"], ["b", "1"], ["a", "1"]], True),
        # If a name has several values, a vendor may use the last one.
        ([["a", "1"], ["b", "1"], ["a", "2"]], False),
    ):
        given = read_filters(
            configured(remote_query=[{"name": n, "value": v} for n, v in pairs]), "segments"
        )
        state = load_incremental(blob, **given)
        assert is_empty(state) is not is_same
        # The written filters are digests, which match the values that version 0.2 stored.
        assert state.snapshot()["filters"] == given
        assert load_incremental({**blob, "filters": given}, **given).partitions == {"a"}


def test_selected_accounts_of_version_0_2() -> None:
    """The selected accounts in a state of version 0.2 are no filter."""
    filters = {"configured": ["a"], "integrations": ["klaviyo"], "tenant_ids": ["t"]}
    blob = {"states": [entry({"records": versions("1")})], "filters": filters}

    assert known_ids(load_incremental(blob), "a") == ["1"]


@pytest.mark.parametrize("records", [[], "x", 5, {"1": 5}, {"1": "x", "2": None}, [{"1": "x"}]])
def test_records_without_fingerprints(records: Any) -> None:
    """Records that are not fingerprints by id are rejected, with the reason."""
    detail = "a cursor's records are not fingerprints by id"
    with pytest.raises(InvalidStateError, match=message(detail)):
        incremental(entry({"records": records}))


@pytest.mark.parametrize(
    "cursor_value",
    [
        "yesterday",
        " ",
        "2026-01-02T03:04:05Z",
        "9999-12-31T23:59:59.999999Z",
        5,
        [],
        {},
        None,
        True,
    ],
)
def test_invalid_cursor_value(cursor_value: Any) -> None:
    """A cursor value that no sync can have written is rejected, with the reason."""
    with pytest.raises(
        InvalidStateError, match=message("its cursor_value is not a valid timestamp")
    ):
        incremental(cursor_value=cursor_value)


def test_latest_cursor_value() -> None:
    """A cursor value after which no time can be reserved is rejected, with the reason."""
    value = "9999-12-31T23:57:00.000000Z"
    assert load_incremental({"states": [], "cursor_value": value}).cursor_value == value
    with pytest.raises(
        InvalidStateError, match=message("its cursor_value is not a valid timestamp")
    ):
        load_incremental({"states": [], "cursor_value": "9999-12-31T23:58:00.000000Z"})


def test_cursor_value_with_other_filters() -> None:
    """With other filters, the cursor value still continues."""
    blob = {"states": [entry({"records": {"1": "x"}})], "filters": {}, "cursor_value": MOMENT}
    state = load_incremental(blob, tag_id="t")

    assert state.snapshot() == {"states": [], "filters": {"tag_id": "t"}, "cursor_value": MOMENT}


ids = st.text(max_size=6)
partitions = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), st.lists(ids).map(lambda found: versions(*found))
)


def with_records(records: dict[str, dict[str, str]]) -> IncrementalState:
    state = IncrementalState({})
    for partition, of_partition in records.items():
        state.add(partition, of_partition, MOMENT)
    return state


@given(partitions)
def test_any_records(records: dict[str, dict[str, str]]) -> None:
    """Any records are the same after the state was stored and loaded."""
    state = with_records(records)
    again = load_incremental(stored(state.snapshot()))

    assert set(again.partitions) == set(records)
    for partition, of_partition in records.items():
        assert known_ids(again, partition) == sorted(of_partition)
    assert again.snapshot() == state.snapshot()
    assert again.cursor_value == state.cursor_value


@pytest.fixture
def small_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "MAX_STATE_BYTES", 600)


@pytest.mark.usefixtures("small_state")
@given(partitions, partitions)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_full_state(records: dict[str, dict[str, str]], more: dict[str, dict[str, str]]) -> None:
    """If there are more records than room, whole partitions are left out."""
    state = with_records(records)
    blob = state.snapshot()
    left_out = set(state.untracked)
    again = load_incremental(stored(blob))

    assert len(orjson.dumps(blob)) <= 600
    for partition, of_partition in records.items():
        assert known_ids(state, partition) == sorted(of_partition)
        assert known_ids(again, partition) == (
            [] if partition in left_out else sorted(of_partition)
        )
    # No partition is left out if it fits; a few bytes of each partition count twice.
    room = 600 - len(orjson.dumps(blob)) - len("null") * len(records)
    assert all(len(orjson.dumps(records[partition])) > room for partition in left_out)

    # A partition that has room keeps it, as long as it does not outgrow it.
    for partition in left_out:
        again.add(partition, {**records[partition], **more.get(partition, {})}, MOMENT)
    again.snapshot()
    assert set(again.untracked) <= left_out


@pytest.mark.usefixtures("small_state")
def test_unread_partition_without_room() -> None:
    """If there is not enough room, the partitions that were not read lose it first."""
    half = versions(*(f"record {number:02}" for number in range(12)))
    state = incremental(entry({"records": half}))
    state.add("b", half, MOMENT)
    assert list(state.untracked) == []
    state.retire({"b"})

    assert state.snapshot()["states"] == [entry({"records": half}, "b")]


@pytest.mark.usefixtures("small_state")
def test_new_partition() -> None:
    """In a state that is written during a sync, a new partition takes no room from the others."""
    half = versions(*(f"record {number:02}" for number in range(9)))
    state = incremental(entry({"records": half}, "b"))
    state.add("a", {**half, **versions("1", "2", "3")}, MOMENT)

    assert [e["cursor"]["records"] for e in state.snapshot(reserved=LATER)["states"]] == (
        [None, half]
    )


@pytest.mark.usefixtures("small_state")
def test_room_beside_other_streams() -> None:
    """The states of all streams together stay within the room."""
    assert state_module.room_beside([]) == 600
    # Each stream has an eighth, whatever the others need.
    assert state_module.room_beside([10, 100]) == 600 - 75 - 100
    assert state_module.room_beside([600, 10]) == 75


@pytest.mark.usefixtures("small_state")
def test_room_again() -> None:
    """Once there is room again, the records are tracked again."""
    large = {str(number): "0123456789ab" for number in range(30)}
    state = with_records({"a": large, "b": {"1": "x"}})
    assert state.snapshot()["states"] == [
        entry({"records": None}),
        entry({"records": {"1": "x"}}, "b"),
    ]
    assert list(state.untracked) == ["a"]
    state.remove("a", [str(number) for number in range(1, 30)], MOMENT)
    assert state.snapshot()["states"][0] == entry({"records": {"0": "0123456789ab"}})
    assert list(state.untracked) == []


@pytest.mark.usefixtures("small_state")
def test_room_for_one_partition() -> None:
    """If there is room for one of two partitions, the one that had it keeps it."""
    half = versions(*(f"record {number:02}" for number in range(12)))
    state = incremental(entry({"records": None}), entry({"records": half}, "b"))
    state.add("a", half, MOMENT)

    for _ in range(2):
        assert state.snapshot()["states"] == [
            entry({"records": None}),
            entry({"records": half}, "b"),
        ]
        assert list(state.untracked) == ["a"]


@pytest.mark.usefixtures("small_state")
@pytest.mark.parametrize("before", [[], [entry({"records": None})], [entry({"records": {}})]])
def test_room_before_first_record(before: list[dict[str, Any]]) -> None:
    """A partition without ids takes no room from others, even if a state was written before."""
    half = versions(*(f"record {number:02}" for number in range(12)))
    state = incremental(*before, entry({"records": half}, "b"))
    for _ in range(2):
        state.complete("a")
        state.snapshot(reserved=LATER)
        state = load_incremental(stored(state.snapshot(reserved=LATER)))
    state.snapshot(reserved=LATER)
    state.add("a", half, MOMENT)
    state.add("b", half, MOMENT)

    assert state.snapshot()["states"] == [entry({"records": None}), entry({"records": half}, "b")]


@pytest.mark.parametrize(("missing", "left_out"), [(0, []), (1, ["a"])])
def test_last_byte_of_room(
    missing: int, left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state uses its room to the last byte."""
    state = incremental(entry({"records": versions("1")}))
    size = len(orjson.dumps(state.snapshot())) + len("null")
    monkeypatch.setattr(state_module, "MAX_STATE_BYTES", size - missing)

    state.snapshot()
    assert list(state.untracked) == left_out


@given(
    partitions, st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")), st.booleans()
)
def test_any_room(
    records: dict[str, dict[str, str]], read: set[str], emptied: set[str], is_list: bool
) -> None:
    """A state never takes more than its room, whatever it has to remember."""
    state = IncrementalState({}, is_list=is_list)
    for partition, of_partition in records.items():
        state.add(partition, of_partition, MOMENT)
    for partition in emptied:
        state.complete(partition, emptied=NOW)
    state.retire(read)
    state.snapshot(0)
    for room in range(state.size + len(ENVIRONMENT_ENTRY), state.size + 250, 5):
        state.snapshot(room)
        assert state.size <= room


def test_limit() -> None:
    """The limit of a state is below what Airbyte saves."""
    assert state_module.MAX_STATE_BYTES == 8_000_000


# --- filters ---


def configured(**fields: Any) -> Config:
    account = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
    return Config.parse(
        {"token": "token-of-test-state", "integrated_account_id": account, **fields}
    )


def test_filters_of_stream() -> None:
    """A stream's filters are the settings that narrow its read."""
    pairs = [{"name": "a", "value": "b"}, {"name": "c", "value": "d"}]
    narrow = configured(workspace_id="w", tag_id="t", remote_query=pairs)

    assert read_filters(configured(page_size=5, num_workers=3), "segments") == {}
    assert read_filters(narrow, "segments") == {
        "workspace_id": filter_digest("w"),
        "tag_id": filter_digest("t"),
        "remote_query": filter_digest([["c", "d"], ["a", "b"]]),
    }
    assert read_filters(narrow, "workspaces") == {}
    assert read_filters(narrow, "integrated_accounts") == {}


def test_changed_columns() -> None:
    """Until a partition is read with the new columns, its records are to be emitted again."""
    blob = {"states": [entry({"records": {"1": "x"}})], "filters": {}, "columns": "those"}
    same = IncrementalState.load(blob, {}, columns="those")
    assert same.snapshot() == blob
    # Version 0.2 did not write the columns.
    earlier = {"states": blob["states"], "filters": {}}
    assert IncrementalState.load(earlier, {}, columns="those").snapshot() == blob
    state = IncrementalState.load(blob, {}, columns="others")
    (partition,) = state.partitions
    saved = state.snapshot()
    assert saved["columns"] == "others"
    assert saved["states"] == [entry({"records": {"1": ""}})]
    assert state.complete(partition)
    assert state.snapshot()["states"] == blob["states"]
    assert not state.complete(partition)
    listed = IncrementalState.load(blob, {}, columns="others", is_list=True)
    assert listed.snapshot()["states"] == [{"partition": {}, "cursor": {"records": {"1": ""}}}]
