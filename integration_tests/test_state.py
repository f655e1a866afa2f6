"""Kills, resumes and incremental syncs, through the output of real processes."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration_tests.processes import Processes, result_of
from integration_tests.support import Result, catalog, config, read, write
from integration_tests.test_many_accounts import ALL, broken, id_of, some
from sandbox import Account, Sandbox, faults, vendors

Serve = Callable[..., Sandbox]
NEUTRAL = {"__ab_no_cursor_state_message": True}


def last_state(result: Result) -> list[dict[str, Any]]:
    return (
        [{k: v for k, v in result.states[-1].items() if k != "sourceStats"}]
        if result.states
        else []
    )


def blob(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = result.states[-1]["stream"]["stream_state"]
    return found


def cursors_of(result: Result) -> dict[str, dict[str, Any]]:
    return {
        state["partition"]["integrated_account_id"]: state["cursor"]
        for state in blob(result)["states"]
    }


def assert_no_state_is_ahead(result: Result) -> None:
    """At every prefix of the output, the states count the records before them."""
    counted, emitted = 0.0, 0
    for message in result.messages:
        emitted += message["type"] == "RECORD"
        if message["type"] == "STATE":
            counted += message["state"]["sourceStats"]["recordCount"]
            assert counted == emitted


def environment() -> list[Account]:
    return [
        some(0, count=35),
        some(1, "beehiiv", workspaces={
            "w1": vendors.segments("beehiiv", 14),
            "w2": vendors.segments("beehiiv", 31)[14:],
        }),
        some(2, "brevo", count=25),
        some(3, "mailerlite", count=9),
        some(4, "activecampaign", count=30, default_page_size=10),
    ]  # fmt: skip


def everything(sandbox: Sandbox) -> set[tuple[str, str]]:
    return {
        (account.id, str(segment["id"]))
        for account in sandbox.environment.accounts
        for segment in [*account.segments, *(s for w in account.workspaces.values() for s in w)]
    }


def keys(result: Result) -> list[tuple[str, str]]:
    return [(record["integrated_account_id"], record["id"]) for record in result.records]


def pages(sandbox: Sandbox) -> Counter[tuple[Any, ...]]:
    return Counter(
        (request.account_id, request.param("workspace[id]"), request.param("next_cursor"))
        for request in sandbox.requests
        if request.kind == "segments" and request.status == 200
    )


def arguments(
    tmp_path: Path, sandbox: Sandbox, mode: str, state: list[dict[str, Any]] | None = None
) -> list[str]:
    settings = config(sandbox, additional_accounts=ALL, num_workers=2)
    return [
        "read",
        *("--config", write(tmp_path / "config.json", settings)),
        *("--catalog", write(tmp_path / "catalog.json", catalog(mode))),
        *(("--state", write(tmp_path / "state.json", state)) if state is not None else ()),
    ]


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_given_a_kill_at_any_moment_when_resumed_then_nothing_is_missing(
    serve: Serve, processes: Processes, tmp_path: Path, mode: str, number: int
) -> None:
    sandbox = serve(*environment(), latency=0.02)
    whole = everything(sandbox)
    read(sandbox, additional_accounts=ALL)
    total = sum(pages(sandbox).values())
    out = tmp_path / "out.jsonl"
    asked_twice = {}

    for moment in range(0, len(sandbox.requests) + 1, 1 if mode == "full_refresh" else 4):
        sandbox.clear()
        out.unlink(missing_ok=True)
        pid = processes.start(arguments(tmp_path, sandbox, mode), out)
        deadline = time.monotonic() + 20
        while len(sandbox.requests) < moment and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(pid, number)
        processes.wait(pid)
        first = result_of(out)
        assert_no_state_is_ahead(first)
        killed = last_state(first)
        if number == signal.SIGTERM and first.statuses:
            # Told to end, it writes its state last, or it was over already.
            assert killed
            assert first.statuses[-1] in {"INCOMPLETE", "COMPLETE"}

        pid = processes.start(arguments(tmp_path, sandbox, mode, killed), out)
        assert processes.wait(pid) == 0
        second = result_of(out)

        assert_no_state_is_ahead(second)
        assert set(keys(first)) | set(keys(second)) == whole
        assert second.statuses[-1] == "COMPLETE"
        if mode == "full_refresh":
            assert blob(second) == NEUTRAL
        asked_twice[moment] = sum(pages(sandbox).values()) - total
    print(f"{mode}, {total} pages: asked twice after a kill at each request: {asked_twice}")
    if mode == "full_refresh":
        # Before the last state: what the two workers had under way, and what was not written yet.
        over = {moment for moment, pages_ in asked_twice.items() if pages_ > 4}
        # When the first attempt was over before the kill, the next one rightly reads all again.
        assert all(moment >= total for moment in over)


def test_given_a_limit_is_waited_for_when_told_to_end_then_it_ends_at_once_and_goes_on_later(
    serve: Serve, processes: Processes, tmp_path: Path
) -> None:
    waiting = some(9, count=25, faults=[faults.vendor_rate_limited(60, after=1)])
    sandbox = serve(*environment(), waiting)
    out = tmp_path / "out.jsonl"

    pid = processes.start(arguments(tmp_path, sandbox, "full_refresh"), out)
    while not any(request.status == 429 for request in sandbox.requests):
        time.sleep(0.01)
    time.sleep(1.0)
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    code = processes.wait(pid)
    took = time.monotonic() - begun
    first = result_of(out)

    assert code == 1
    assert took < 4
    assert first.statuses[-1] == "INCOMPLETE"
    assert "was told to end" in first.errors[-1]["message"]
    assert first.errors[-1]["failure_type"] == "transient_error"
    cursors = cursors_of(first)
    assert set(cursors[waiting.id]) == {"next_cursor"}
    assert all(cursor == {"complete": True} for id_, cursor in cursors.items() if id_ != waiting.id)

    sandbox.clear()
    pid = processes.start(arguments(tmp_path, sandbox, "full_refresh", last_state(first)), out)
    assert processes.wait(pid) == 0
    second = result_of(out)
    assert set(keys(first)) | set(keys(second)) == everything(sandbox)
    assert sum(pages(sandbox).values()) == 2
    assert not set(keys(first)) & set(keys(second))


def test_given_an_answer_that_does_not_come_when_told_to_end_then_it_ends_soon(
    serve: Serve, processes: Processes, tmp_path: Path
) -> None:
    sandbox = serve(some(0, faults=[faults.hang(times=None)]))
    out = tmp_path / "out.jsonl"
    pid = processes.start(arguments(tmp_path, sandbox, "full_refresh"), out)
    while not sandbox.requests:
        time.sleep(0.01)
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)

    assert processes.wait(pid) == 1
    assert time.monotonic() - begun < 6
    assert result_of(out).statuses[-1] == "INCOMPLETE"


def state_of(*entries: tuple[int, dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """A state message as Airbyte hands it over."""
    states = [
        {"partition": {"integrated_account_id": id_of(number)}, "cursor": cursor}
        for number, cursor in entries
    ]
    return of_stream({"states": states, **more})


def of_stream(state: Any) -> list[dict[str, Any]]:
    stream = {"stream_descriptor": {"name": "segments"}, "stream_state": state}
    return [{"type": "STREAM", "stream": stream}]


def test_given_a_state_of_the_design_when_read_then_it_is_understood(serve: Serve) -> None:
    sandbox = serve(some(0, count=25), some(1, count=25), some(2, count=25))
    read(sandbox)
    (_, second, _) = [request.param("next_cursor") for request in sandbox.requests]
    sandbox.clear()

    state = state_of((0, {"next_cursor": second}), (1, {"complete": True}))
    result = read(sandbox, state=state, additional_accounts=ALL)

    assert Counter(account for account, _ in keys(result)) == {id_of(0): 15, id_of(2): 25}


def test_given_a_refused_cursor_when_resumed_then_the_account_is_read_from_its_first_page(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sandbox = serve(some(0, count=25), some(1, count=5))

    result = read(sandbox, state=state_of((0, {"next_cursor": "old"})), additional_accounts=ALL)

    assert result.failure is None
    assert set(keys(result)) == everything(sandbox)
    assert any("read from its first page now" in line for line in caplog.messages)
    assert any("Invalid cursor" in line for line in caplog.messages)


def test_given_a_workspace_was_read_in_part_when_resumed_then_it_goes_on_in_it(
    serve: Serve,
) -> None:
    segments = vendors.segments("beehiiv", 45)
    workspaces = {"w1": segments[:15], "w2": segments[15:40], "w3": segments[40:]}
    fault = faults.account_blocked(after=5, times=None)
    sandbox = serve(some(0, "beehiiv", workspaces=workspaces, faults=[fault]))

    first = read(sandbox)
    sandbox.environment.accounts[0].faults.clear()
    sandbox.clear()
    second = read(sandbox, state=last_state(first))

    assert blob(first)["states"][0]["cursor"]["workspaces_done"] == ["w1"]
    assert blob(first)["states"][0]["cursor"]["workspace_id"] == "w2"
    assert len(first.records) == 25
    assert set(keys(first)) | set(keys(second)) == everything(sandbox)
    assert not set(keys(first)) & set(keys(second))
    assert {request.param("workspace[id]") for request in sandbox.requests} == {None, "w2", "w3"}


def test_given_a_failed_account_when_tried_again_then_only_that_one_is_read(serve: Serve) -> None:
    sandbox = serve(some(0, count=12), broken(1, faults.account_blocked(after=1)), some(2))

    first = read(sandbox, additional_accounts=ALL)
    sandbox.environment.accounts[1].faults.clear()
    second = read(sandbox, state=last_state(first), additional_accounts=ALL)

    assert first.statuses[-1] == "INCOMPLETE"
    assert Counter(account for account, _ in keys(second)) == {id_of(1): 15}
    assert blob(second) == NEUTRAL
    third = read(sandbox, state=last_state(second), additional_accounts=ALL)
    assert set(keys(third)) == everything(sandbox)


def records_of(**days: str | None) -> list[dict[str, Any]]:
    return [
        {"id": id_, "name": id_, **({"updated_at": f"2026-01-{day}T00:00:00Z"} if day else {})}
        for id_, day in days.items()
    ]


def test_given_an_incremental_sync_when_run_again_then_only_what_may_have_changed_comes(
    serve: Serve,
) -> None:
    first_account = some(0, segments=records_of(a="01", b="05", c="03", d=None))
    sandbox = serve(first_account, some(1, "flodesk", count=3))
    asked = catalog("incremental")

    first = read(sandbox, asked=asked, additional_accounts=ALL)
    assert len(first.records) == 7
    assert cursors_of(first) == {
        id_of(0): {"updated_at": "2026-01-05T00:00:00Z"},
        id_of(1): {"updated_at": None},
    }
    assert blob(first)["filters"] == {}

    first_account.segments = records_of(a="06", b="05", c="03", d=None, e="04", f="07")
    sandbox.environment.accounts.append(some(2, segments=records_of(z="01")))
    second = read(sandbox, asked=asked, state=last_state(first), additional_accounts=ALL)
    of_first = sorted(id_ for account, id_ in keys(second) if account == id_of(0))
    # e is new but was changed before the mark, as a restored backup might be: its date says so.
    assert of_first == ["a", "b", "d", "f"]
    assert len([1 for account, _ in keys(second) if account == id_of(1)]) == 3
    assert [id_ for account, id_ in keys(second) if account == id_of(2)] == ["z"]

    del sandbox.environment.accounts[1]
    third = read(sandbox, asked=asked, state=last_state(second), additional_accounts=ALL)
    assert sorted(id_ for _, id_ in keys(third)) == ["d", "f", "z"]
    assert set(cursors_of(third)) == {id_of(0), id_of(2)}


def test_given_an_account_that_fails_when_incremental_then_its_mark_does_not_move(
    serve: Serve,
) -> None:
    bad = broken(0, faults.account_blocked(after=1))
    bad.segments = records_of(**{f"id{day}": f"{day:02}" for day in range(1, 26)})
    sandbox = serve(bad, some(1, segments=records_of(x="09")))
    asked = catalog("incremental")
    mark = {"updated_at": "2026-01-02T00:00:00Z"}

    result = read(sandbox, asked=asked, state=state_of((0, mark)), additional_accounts=ALL)

    assert cursors_of(result) == {id_of(0): mark, id_of(1): {"updated_at": "2026-01-09T00:00:00Z"}}
    assert result.statuses[-1] == "INCOMPLETE"


def test_given_a_vendor_clock_ahead_when_incremental_then_the_next_change_still_comes(
    serve: Serve,
) -> None:
    sandbox = serve(some(0, segments=[{"id": "a", "updated_at": "2199-01-01T00:00:00Z"}]))
    asked = catalog("incremental")

    first = read(sandbox, asked=asked)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert blob(first)["states"][0]["cursor"]["updated_at"] <= now

    sandbox.environment.accounts[0].segments = [{"id": "b", "updated_at": now}]
    assert read(sandbox, asked=asked, state=last_state(first)).ids == ["b"]


def test_given_a_state_in_the_future_when_incremental_then_nothing_comes_and_it_is_told(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(some(0, segments=records_of(a="01", b="02")))
    state = state_of((0, {"updated_at": "2999-01-01T00:00:00Z"}))

    result = read(sandbox, asked=catalog("incremental"), state=state)

    assert result.records == []
    assert result.statuses[-1] == "COMPLETE"
    assert any("lies in the future" in line for line in caplog.messages)


def test_given_other_modes_and_filters_when_read_then_everything_comes(serve: Serve) -> None:
    sandbox = serve(some(0, "brevo", segments=records_of(a="01", b="02")))
    marked = last_state(read(sandbox, asked=catalog("incremental")))
    begun = state_of((0, {"complete": True}))

    assert len(read(sandbox, state=marked).records) == 2
    assert len(read(sandbox, asked=catalog("incremental"), state=begun).records) == 2
    assert len(read(sandbox, asked=catalog("incremental"), state=of_stream(NEUTRAL)).records) == 2
    assert len(read(sandbox, state=of_stream(NEUTRAL)).records) == 2
    assert len(read(sandbox, asked=catalog("incremental"), state=marked).records) == 1
    for filters in ({"tag_id": "t"}, {"remote_query": [{"name": "a", "value": "b"}]}):
        again = read(sandbox, asked=catalog("incremental"), state=marked, **filters)
        assert len(again.records) == 2


@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
@pytest.mark.parametrize(
    "state", [{"states": "x"}, {"updated_at": "2026-01-01"}, {"states": [{"cursor": {}}]}]
)
def test_given_another_form_of_state_when_read_then_the_user_is_told_to_reset(
    serve: Serve, mode: str, state: dict[str, Any]
) -> None:
    sandbox = serve(some(0))
    result = read(sandbox, asked=catalog(mode), state=of_stream(state))

    assert "cannot be understood" in str(result.failure)
    assert "Reset the stream" in str(result.failure)
    assert sandbox.requests == []


def test_given_a_long_sync_when_read_then_states_are_sparing_and_never_ahead(
    serve: Serve,
) -> None:
    accounts = [some(number, count=35) for number in range(40)]
    waiting = some(99, count=95, faults=[faults.vendor_rate_limited(60, after=n) for n in range(9)])
    sandbox = serve(*accounts, waiting)

    result = read(sandbox, additional_accounts=ALL)

    assert 2 <= len(result.states) <= 12
    written = sum(len(json.dumps(state)) for state in result.states)
    assert written < sum(len(json.dumps(record)) for record in result.records) / 10
