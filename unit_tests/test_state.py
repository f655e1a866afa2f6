"""The state of the accounts as a pure function: whatever happens, the union is whole."""

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from source_truto_segments.config import Config, ConfigError
from source_truto_segments.state import (
    RESUMABLE_FOR,
    FullRefreshState,
    IncrementalState,
    Resume,
    State,
    filters_of,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
NEUTRAL = {"__ab_no_cursor_state_message": True}
MOMENTS = [
    None,
    *(f"2026-01-0{day}T00:00:00{fraction}Z" for day in (1, 2, 3) for fraction in ("", ".5")),
]

Kinds = type[FullRefreshState] | type[IncrementalState]
KINDS: list[Kinds] = [FullRefreshState, IncrementalState]


def stored(state: State) -> dict[str, Any]:
    """The state as it comes back from Airbyte: through JSON."""
    blob: dict[str, Any] = json.loads(json.dumps(state.dump()))
    return blob


def entry(cursor: dict[str, Any], account: str = "a", **partition: Any) -> dict[str, Any]:
    return {"partition": {"integrated_account_id": account, **partition}, "cursor": cursor}


def full(*entries: dict[str, Any], **blob: Any) -> FullRefreshState:
    return FullRefreshState.load({"states": list(entries), **blob}, {}, NOW)


def incremental(*entries: dict[str, Any], **blob: Any) -> IncrementalState:
    return IncrementalState.load({"states": list(entries), **blob}, {}, NOW)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "blob", [{}, NEUTRAL, {"__ab_full_refresh_sync_complete": True}, {"states": []}]
)
def test_given_the_state_of_a_finished_sync_when_loaded_then_everything_is_read(
    kind: Kinds, blob: dict[str, Any]
) -> None:
    state = kind.load(blob, {}, NOW)
    assert state.resume("a") == Resume()
    assert state.wants("a", None, {"updated_at": "0001-01-01T00:00:00Z"})


def test_given_a_place_when_loaded_then_the_account_goes_on_there() -> None:
    state = full(
        entry({"next_cursor": "c"}),
        entry({"next_cursor": "c", "workspace_id": "w2", "workspaces_done": ["w1"]}, "b"),
        entry({"workspaces_done": ["w1", "w2"]}, "c"),
        entry({"complete": True}, "D"),
    )
    assert state.resume("a") == Resume("c")
    assert state.resume("b") == Resume("c", "w2", ("w1",))
    assert state.resume("c") == Resume(None, None, ("w1", "w2"))
    assert state.resume("d") is None
    assert state.resume("e") == Resume()


def test_given_the_place_of_long_ago_when_loaded_then_everything_is_read() -> None:
    place = entry({"complete": True})
    day = RESUMABLE_FOR
    for started_at, resume in [
        (NOW - day / 2, None),
        (NOW - day, Resume()),
        (NOW - 2 * day, Resume()),
        (NOW + 2 * day, Resume()),
    ]:
        assert full(place, started_at=started_at.isoformat()).resume("a") == resume


def test_given_attempts_one_after_another_when_dumped_then_the_first_start_stays() -> None:
    first = FullRefreshState({}, NOW - timedelta(hours=20))
    second = FullRefreshState.load(stored(first), {}, NOW - timedelta(hours=10))
    second.account_read("a")
    third = FullRefreshState.load(stored(second), {}, NOW)
    assert third.resume("a") is None
    assert (
        FullRefreshState.load(stored(third), {}, NOW + timedelta(hours=5)).resume("a") == Resume()
    )


def test_given_pages_when_dumped_then_the_place_stands_there_and_is_gone_on_from() -> None:
    state = full()
    state.resume("a")
    state.page_read("a", None, "c1", [])
    assert state.dump() == {
        "states": [entry({"next_cursor": "c1"})],
        "filters": {},
        "started_at": "2026-01-02T03:04:05Z",
    }
    assert full(*stored(state)["states"]).resume("a") == Resume("c1")

    state.page_read("b", "w1", "c2", [])
    assert state.dump()["states"][1] == entry({"next_cursor": "c2", "workspace_id": "w1"}, "b")
    state.page_read("b", "w1", None, [])
    assert state.dump()["states"][1] == entry({"workspaces_done": ["w1"]}, "b")
    state.page_read("b", "w2", "c3", [])
    place = {"next_cursor": "c3", "workspace_id": "w2", "workspaces_done": ["w1"]}
    assert state.dump()["states"][1] == entry(place, "b")
    state.page_read("b", "w2", None, [])
    assert state.dump()["states"][1] == entry({"workspaces_done": ["w1", "w2"]}, "b")
    assert state.size == 2


def test_given_the_only_page_of_an_account_when_read_then_there_is_no_place_to_keep() -> None:
    state = full()
    state.page_read("a", None, None, [])

    assert state.dump()["states"] == []
    state.account_read("a")
    assert state.dump()["states"] == [entry({"complete": True})]


def test_given_a_place_when_restarted_then_the_account_begins_anew() -> None:
    state = full(entry({"next_cursor": "old"}), entry({"next_cursor": "c"}, "b"))
    state.restarted("a")
    state.restarted("unknown")

    assert state.resume("a") == Resume()
    assert state.resume("b") == Resume("c")
    assert state.dump()["states"] == [entry({"next_cursor": "c"}, "b")]


def test_given_accounts_in_any_order_when_dumped_then_they_are_sorted() -> None:
    for state in (full(), incremental()):
        for account in ("b", "c", "a"):
            state.resume(account)
            state.page_read(account, None, None, [])
            state.account_read(account)
        accounts = [found["partition"]["integrated_account_id"] for found in state.dump()["states"]]
        assert accounts == ["a", "b", "c"]


@pytest.mark.parametrize(
    "blob",
    [
        {"states": [], "filters": {"tag_id": "old"}},
        {"states": [], "started_at": "2025-01-01T00:00:00Z"},
    ],
)
def test_given_a_state_that_cannot_be_used_when_dumped_then_it_is_of_this_sync(
    blob: dict[str, Any],
) -> None:
    state = FullRefreshState.load({**blob}, {"tag_id": "new"}, NOW)

    assert state.dump() == {
        "states": [],
        "filters": {"tag_id": "new"},
        "started_at": "2026-01-02T03:04:05Z",
    }


def test_given_a_full_refresh_when_finished_then_its_state_is_the_neutral_one() -> None:
    assert full(entry({"complete": True})).dump_finished({"a"}) == NEUTRAL


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_given_any_zone_when_dumped_then_the_start_is_whole_seconds_in_utc() -> None:
    for started_at in (
        NOW.replace(microsecond=123456),
        NOW.astimezone(timezone(timedelta(hours=-5))),
    ):
        state = FullRefreshState.load({}, {}, started_at)
        assert state.dump()["started_at"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("kind", KINDS)
def test_given_other_filters_when_loaded_then_everything_is_read(kind: Kinds) -> None:
    state = kind.load({}, {"tag_id": "t"}, NOW)
    state.resume("a")
    state.page_read("a", None, None, [{"updated_at": "2026-01-01T00:00:00Z"}])
    state.account_read("a")
    old = {"updated_at": "2025-01-01T00:00:00Z"}

    same = kind.load(stored(state), {"tag_id": "t"}, NOW)
    assert not (same.wants("a", None, old) and same.resume("a") == Resume())
    for filters in ({}, {"tag_id": "u"}, {"tag_id": "t", "workspace_id": "w"}):
        other = kind.load(stored(state), filters, NOW)
        assert other.resume("a") == Resume()
        assert other.wants("a", None, old)


@pytest.mark.parametrize("kind", KINDS)
def test_given_the_state_of_the_other_mode_when_loaded_then_everything_is_read(kind: Kinds) -> None:
    entries = [
        entry({"updated_at": "2026-01-01T00:00:00Z"}, "a")
        if kind is FullRefreshState
        else entry({"complete": True}, "a"),
        entry({"future": "cursor"}, "b"),
    ]
    state = kind.load({"states": entries, "more": 1}, {}, NOW)
    assert state.resume("a") == Resume()
    assert state.resume("b") == Resume()
    assert state.wants("a", None, {"updated_at": "2020-01-01T00:00:00Z"})


def told(why: str) -> str:
    """The whole sentence, as a pattern."""
    sentence = (
        f"The state of the stream segments cannot be understood: {why}. Reset the stream in the "
        "connection's settings; the next sync then reads everything."
    )
    return f"^{re.escape(sentence)}$"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("blob", "why"),
    [
        ({"updated_at": "2026-01-01T00:00:00Z"}, "it has no list of states"),
        ({"states": {}}, "it has no list of states"),
        ({"states": ["x"]}, "an entry has no partition or no cursor"),
        ({"states": [{}]}, "an entry has no partition or no cursor"),
        ({"states": [{"cursor": {}}]}, "an entry has no partition or no cursor"),
        (
            {"states": [{"partition": {"integrated_account_id": "a"}}]},
            "an entry has no partition or no cursor",
        ),
        (
            {"states": [{"partition": {}, "cursor": {}}]},
            "a partition names no integrated account",
        ),
        (
            {"states": [{"partition": {"integrated_account_id": 5}, "cursor": {}}]},
            "a partition names no integrated account",
        ),
        ({"states": [entry({}, workspace_id=5)]}, "a partition names no integrated account"),
    ],
)
def test_given_another_form_when_loaded_then_the_user_is_told_to_reset(
    kind: Kinds, blob: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=told(why)):
        kind.load(blob, {}, NOW)


@pytest.mark.parametrize(
    "cursor",
    [
        {"next_cursor": 5},
        {"next_cursor": ""},
        {"next_cursor": "\ud800"},
        {"next_cursor": "c", "workspace_id": 5},
        {"next_cursor": "c", "workspace_id": "\ud800"},
        {"workspaces_done": "w"},
        {"workspaces_done": [5]},
    ],
)
def test_given_another_place_when_loaded_then_the_user_is_told_to_reset(
    cursor: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=told("a cursor is of another form")):
        full(entry(cursor))


@pytest.mark.parametrize("started_at", ["yesterday", 10**30, ["2026-01-01"], "  "])
def test_given_a_start_that_is_none_when_loaded_then_the_user_is_told_to_reset(
    started_at: Any,
) -> None:
    with pytest.raises(ConfigError, match=told("its started_at is no point in time")):
        full(started_at=started_at)


@pytest.mark.parametrize("value", ["yesterday", [], {}, True])
def test_given_a_mark_that_is_none_when_loaded_then_the_user_is_told_to_reset(value: Any) -> None:
    with pytest.raises(ConfigError, match=told("a cursor's updated_at is no point in time")):
        incremental(entry({"updated_at": value}))


def test_given_an_account_twice_when_loaded_then_nothing_is_hidden() -> None:
    assert full(entry({"complete": True}), entry({"complete": True})).resume("a") == Resume()
    late, early = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
    for marks in ([late, early], [early, late], [late, None], [None, late]):
        state = incremental(*[entry({"updated_at": mark}) for mark in marks])
        assert state.wants("a", None, {"updated_at": early})


@pytest.mark.parametrize("days", [(2, 1), (1, 2)])
def test_given_a_workspace_twice_when_loaded_then_the_earlier_mark_holds(
    days: tuple[int, int],
) -> None:
    marks = [{"updated_at": f"2026-01-0{day}T00:00:00Z"} for day in days]
    state = incremental(*[entry(mark, workspace_id="w") for mark in marks])

    assert state.wants("a", "w", {"updated_at": "2026-01-01T00:00:00Z"})
    assert not state.wants("a", "w", {"updated_at": "2025-12-31T00:00:00Z"})


@pytest.mark.parametrize(
    ("mark", "value", "wanted"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00Z", "2025-12-31T23:59:59.999Z", False),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.1Z", True),
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00Z", False),
        ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.45Z", False),
        ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z", True),
        (1767225600, "2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00Z", None, True),
        (None, "2000-01-01T00:00:00Z", True),
    ],
)
def test_given_a_mark_when_a_record_comes_then_it_is_wanted_from_there_on(
    mark: Any, value: str | None, wanted: bool
) -> None:
    assert (
        incremental(entry({"updated_at": mark})).wants("a", None, {"updated_at": value}) is wanted
    )


def test_given_workspaces_when_marked_then_each_has_its_own_mark() -> None:
    state = incremental()
    state.resume("a")
    state.page_read("a", "w1", None, [{"updated_at": "2026-01-02T00:00:00Z"}])
    state.page_read("a", "w2", None, [{"updated_at": "2026-01-01T00:00:00Z"}])
    state.account_read("a")

    again = IncrementalState.load(stored(state), {}, NOW)
    between = {"updated_at": "2026-01-01T12:00:00Z"}
    assert not again.wants("a", "w1", between)
    assert again.wants("a", "w2", between)
    assert again.wants("a", "w3", between)
    assert again.wants("a", None, between)


def mark_after(
    state: IncrementalState, *pages: list[str | None], workspace: str | None = None
) -> str | None:
    """The mark of account a when these pages were read to the end."""
    for dates in pages:
        state.page_read("a", workspace, None, [{"updated_at": date} for date in dates])
    state.account_read("a")
    ((found),) = stored(state)["states"]
    mark: str | None = found["cursor"]["updated_at"]
    return mark


@pytest.mark.parametrize("workspace", [None, "w"])
def test_given_dates_in_any_order_when_marked_then_the_highest_is_the_mark(
    workspace: str | None,
) -> None:
    low, middle, high = (f"2026-01-01T00:00:0{second}Z" for second in ("0", "0.5", "1"))
    for pages in (
        [[high], [middle, low]],
        [[low], [high], [middle]],
        [[low, middle, high, None]],
        [[None, high], [None]],
    ):
        state = incremental()
        state.resume("a")
        assert mark_after(state, *pages, workspace=workspace) == high
    assert mark_after(incremental(), [low], [middle, low], workspace=workspace) == middle


@pytest.mark.parametrize("workspace", [None, "w"])
def test_given_nothing_newer_when_marked_then_the_mark_stays(workspace: str | None) -> None:
    mark = "2026-01-01T00:00:00.5Z"
    space = {"workspace_id": workspace} if workspace else {}
    seen: list[list[str | None]] = [["2026-01-01T00:00:00Z"], ["2025-12-31T00:00:00Z", None], []]
    for dates in seen:
        state = incremental(entry({"updated_at": mark}, **space))
        state.resume("a")
        assert mark_after(state, dates, workspace=workspace) == mark


def test_given_an_account_without_pages_when_read_then_it_has_no_mark() -> None:
    state = incremental()
    state.account_read("a")

    assert state.dump()["states"] == []


def test_given_pages_when_restarted_then_only_what_comes_after_counts() -> None:
    state = incremental()
    state.resume("a")
    state.page_read("a", None, "c", [{"updated_at": "2026-01-02T00:00:00Z"}])
    state.restarted("a")

    assert mark_after(state, ["2026-01-01T00:00:00Z"]) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "ahead", ["2030-01-01T00:00:00Z", "2026-01-02T03:04:06Z", "2026-01-02T03:04:05.5Z"]
)
def test_given_a_clock_that_runs_ahead_when_marked_then_the_start_of_the_sync_is_the_mark(
    ahead: str,
) -> None:
    assert mark_after(incremental(), [ahead]) == "2026-01-02T03:04:05Z"


def test_given_a_mark_in_the_future_when_loaded_then_it_holds_once_and_is_told() -> None:
    state = incremental(entry({"updated_at": "2099-01-01T00:00:00Z"}))
    assert state.marks_ahead == ["a"]
    assert not state.wants("a", None, {"updated_at": "2026-01-02T00:00:00Z"})
    state.resume("a")
    state.account_read("a")
    assert incremental(*stored(state)["states"]).marks_ahead == []


def test_given_an_account_that_failed_when_dumped_then_its_mark_stays() -> None:
    old = entry({"updated_at": "2026-01-01T00:00:00Z"})
    state = incremental(old)
    state.resume("a")
    state.page_read("a", None, "c", [{"updated_at": "2026-01-02T00:00:00Z"}])

    assert stored(state)["states"] == [old]


def test_given_accounts_that_are_gone_when_finished_then_they_are_no_ballast() -> None:
    mark = {"updated_at": "2026-01-01T00:00:00Z"}
    state = incremental(entry(mark, "a"), entry(mark, "gone"))

    assert state.dump()["states"] == [entry(mark, "a"), entry(mark, "gone")]
    assert state.dump_finished({"a", "new"})["states"] == [entry(mark, "a")]


def configured(**fields: Any) -> Config:
    account = "62a9f3f0-4b5c-4d1e-9a77-3c2f1b0e8d65"
    return Config.parse(
        {"token": "token-of-test-state", "integrated_account_id": account, **fields}
    )


def test_given_what_narrows_a_read_when_asked_then_it_is_in_the_state_and_nothing_else() -> None:
    assert filters_of(configured(page_size=5, num_workers=3)) == {}
    pairs = [{"name": "a", "value": "b"}, {"name": "c", "value": "d"}]
    assert filters_of(configured(workspace_id="w", tag_id="t", remote_query=pairs)) == {
        "workspace_id": "w",
        "tag_id": "t",
        "remote_query": [["a", "b"], ["c", "d"]],
    }


# A model of many syncs: accounts of pages, workers that take turns, and an end at any moment.


@st.composite
def accounts(draw: st.DrawFn) -> dict[str, dict[str | None, list[list[dict[str, Any]]]]]:
    """Accounts of workspaces of pages of records."""
    record = st.fixed_dictionaries({"updated_at": st.sampled_from(MOMENTS)})
    pages = st.lists(st.lists(record, max_size=3), min_size=1, max_size=4)
    spaces = st.one_of(
        st.fixed_dictionaries({None: pages}),
        st.dictionaries(st.sampled_from(["w1", "w2", "w3"]), pages, max_size=3),
    )
    found: dict[str, Any] = draw(st.dictionaries(st.sampled_from("abc"), spaces, min_size=1))
    number = 0
    for of_account in found.values():
        for of_space in of_account.values():
            for page in of_space:
                for index, raw in enumerate(page):
                    page[index] = {**raw, "id": number}
                    number += 1
    return found


class Attempt:
    """One attempt, step by step, each step a page of some account."""

    def __init__(self, state: State, world: dict[str, Any]) -> None:
        self.state = state
        self.emitted: list[dict[str, Any]] = []
        self._turns = {id_: self._read(id_, spaces) for id_, spaces in world.items()}

    @property
    def under_way(self) -> list[str]:
        return sorted(self._turns)

    def turn(self, account_id: str) -> None:
        if next(self._turns[account_id], None) is None:
            del self._turns[account_id]

    def fail(self, account_id: str) -> None:
        del self._turns[account_id]

    def _read(self, account_id: str, spaces: dict[str | None, list[list[dict[str, Any]]]]) -> Any:
        resume = self.state.resume(account_id)
        if resume is None:
            return
        for space, pages in spaces.items():
            if space in resume.workspaces_done:
                continue
            here = resume.workspace_id == space and resume.next_cursor is not None
            first = int(resume.next_cursor or 0) if here else 0
            for number in range(first, len(pages)):
                page = pages[number]
                wanted = [r for r in page if self.state.wants(account_id, space, r)]
                self.emitted += wanted
                cursor = str(number + 1) if number + 1 < len(pages) else None
                self.state.page_read(account_id, space, cursor, page)
                yield number
        self.state.account_read(account_id)


def run(data: st.DataObject, attempt: Attempt, dumps: list[tuple[int, dict[str, Any]]]) -> bool:
    """Takes turns until all is read or the attempt is killed; True if it ended well."""
    failed = False
    while attempt.under_way:
        what = data.draw(st.sampled_from(["turn"] * 12 + ["checkpoint"] * 3 + ["fail", "kill"]))
        account_id = data.draw(st.sampled_from(attempt.under_way))
        if what == "turn":
            attempt.turn(account_id)
        elif what == "checkpoint":
            dumps.append((len(attempt.emitted), stored(attempt.state)))
        elif what == "fail":
            attempt.fail(account_id)
            failed = True
        else:
            return False
    dumps.append((len(attempt.emitted), stored(attempt.state)))
    return not failed


@given(st.data(), accounts())
@settings(deadline=None)
def test_given_any_kills_when_fully_refreshed_then_the_union_is_whole(
    data: st.DataObject, world: dict[str, Any]
) -> None:
    blob: dict[str, Any] = {}
    union: set[int] = set()
    for _ in range(30):
        attempt = Attempt(FullRefreshState.load(blob, {}, NOW), world)
        dumps: list[tuple[int, dict[str, Any]]] = []
        ended_well = run(data, attempt, dumps)
        # What a kill leaves behind: the records up to the last state that was written, or more.
        union |= {record["id"] for record in attempt.emitted}
        if dumps:
            blob = dumps[-1][1]
        if ended_well:
            break
    else:
        return
    everything = {r["id"] for s in world.values() for ps in s.values() for p in ps for r in p}
    assert union == everything
    assert attempt.state.dump_finished(set(world)) == NEUTRAL


@given(st.data(), accounts(), st.integers(0, 3))
@settings(deadline=None)
def test_given_any_kills_and_changes_when_incremental_then_the_table_is_right(
    data: st.DataObject, world: dict[str, Any], changes: int
) -> None:
    table: dict[int, dict[str, Any]] = {}
    blob: dict[str, Any] = {}
    everything = [r for s in world.values() for ps in s.values() for p in ps for r in p]
    now = datetime(2026, 1, 4, tzinfo=timezone.utc)
    for sync in range(changes + 1):
        for _ in range(30):
            attempt = Attempt(IncrementalState.load(blob, {}, now), world)
            dumps: list[tuple[int, dict[str, Any]]] = []
            ended_well = run(data, attempt, dumps)
            # At worst, nothing after the last state that was written has arrived.
            arrived = attempt.emitted[: dumps[-1][0]] if dumps else []
            table.update({record["id"]: dict(record) for record in arrived})
            blob = dumps[-1][1] if dumps else blob
            if ended_well:
                break
        else:
            return
        assert table == {record["id"]: record for record in everything}
        now += timedelta(days=1)
        for record in everything:
            if data.draw(st.booleans()):
                record["version"] = sync
                if record["updated_at"] is not None:
                    record["updated_at"] = now.isoformat().replace("+00:00", "Z")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "states",
                    "partition",
                    "cursor",
                    "integrated_account_id",
                    "workspace_id",
                    "updated_at",
                ]
                + ["next_cursor", "complete", "workspaces_done", "filters", "started_at"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["states", "filters", "started_at", "x"]), json_values))
def test_given_any_blob_when_loaded_then_it_is_understood_or_told(blob: dict[str, Any]) -> None:
    for kind in KINDS:
        try:
            state = kind.load(blob, {}, NOW)
        except ConfigError:
            continue
        assert isinstance(state.dump()["states"], list)
