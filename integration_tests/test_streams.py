"""The three streams: where their rows come from, what they cost, and what they leave out."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.models import Status

from integration_tests.support import (
    ALL_STREAMS,
    Result,
    catalog,
    check,
    config,
    id_of,
    listed,
    numbered_account,
    read,
    run,
    write,
)
from sandbox import CONTEXT_SECRET, Account, Fault, Request, Sandbox, faults, vendors
from sandbox.accounts import account_object
from source_truto_segments.records.columns import load_schema

Serve = Callable[..., Sandbox]
ALL = {"mode": "all"}
SELECTIONS = [
    selection for size in (1, 2, 3) for selection in combinations(sorted(ALL_STREAMS), size)
]


def kinds(sandbox: Sandbox) -> Counter[str]:
    return Counter(request.kind for request in sandbox.requests)


def keys(result: Result, stream: str) -> list[tuple[str, ...]]:
    """The keys of a stream's rows, in their order."""
    names = ("id",) if stream == "integrated_accounts" else ("integrated_account_id", "id")
    return [tuple(record[name] for name in names) for record in result.records_of(stream)]


def deleted(result: Result, stream: str) -> list[dict[str, Any]]:
    return [r for r in result.records_of(stream) if r.get("_ab_cdc_deleted_at")]


def deleted_ids(result: Result, stream: str) -> list[str]:
    return [record["id"] for record in deleted(result, stream)]


def incremental(*streams: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return catalog("incremental", schema, streams or ALL_STREAMS)


def beehiiv(number: int, **how: Any) -> Account:
    segments = vendors.segments("beehiiv", 5)
    workspaces = {"pub_a": segments[:2], "pub_b": segments[2:]}
    return numbered_account(number, "beehiiv", segments=[], workspaces=workspaces, **how)


# --- integrated_accounts --------------------------------------------------------------------------


def test_given_mode_all_when_read_then_the_accounts_come_from_the_list(serve: Serve) -> None:
    sandbox = serve(
        *[numbered_account(number) for number in range(5)],
        numbered_account(5, status="needs_reauth"),
        numbered_account(6, "salesforce", segments=[]),
        list_page_size=3,
    )

    configured = catalog(streams=("integrated_accounts",))
    result = read(sandbox, configured=configured, additional_accounts=ALL)

    assert keys(result, "integrated_accounts") == [(id_of(number),) for number in range(6)]
    assert result.statuses_of("integrated_accounts") == ["STARTED", "RUNNING", "COMPLETE"]
    assert kinds(sandbox) == {"accounts": 3}


def test_given_mode_all_and_filters_when_read_then_the_selected_accounts_and_the_named_come(
    serve: Serve,
) -> None:
    sandbox = serve(
        numbered_account(0, "brevo"),
        numbered_account(1, tenant_id="acme"),
        numbered_account(2, tenant_id="other"),
        numbered_account(3, "brevo", tenant_id="acme"),
    )

    option = {"mode": "all", "integrations": ["klaviyo"], "tenant_ids": ["acme"]}
    result = read(sandbox, configured=catalog(streams=ALL_STREAMS), additional_accounts=option)

    # The named one is not in the filtered list, so that it is asked for by its ID.
    assert keys(result, "integrated_accounts") == [(id_of(1),), (id_of(0),)]
    assert {key[0] for key in keys(result, "segments")} == {id_of(0), id_of(1)}
    assert [r.account_id for r in sandbox.requests if r.kind == "account"] == [id_of(0)]


@pytest.mark.parametrize("selection", SELECTIONS, ids="+".join)
def test_given_any_streams_when_read_in_mode_all_then_the_list_is_asked_for_once(
    serve: Serve, selection: tuple[str, ...]
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1, "brevo"), beehiiv(2))

    result = read(sandbox, configured=catalog(streams=selection), additional_accounts=ALL)

    assert result.failure is None
    assert kinds(sandbox)["accounts"] == 1
    assert kinds(sandbox)["account"] == 0
    assert {stream for stream in ALL_STREAMS if result.records_of(stream)} <= set(selection)
    assert {stream for stream in ALL_STREAMS if result.statuses_of(stream)} == set(selection)


@pytest.mark.parametrize("streams", [ALL_STREAMS, ("segments",), ("workspaces",)])
def test_given_a_known_account_is_missing_when_listed_then_the_list_is_asked_for_once_more(
    serve: Serve, streams: tuple[str, ...]
) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    configured = incremental(*streams)
    first = read(sandbox, configured=configured, additional_accounts=ALL)
    sandbox.clear()
    again = read(sandbox, configured=configured, state=first.last_state, additional_accounts=ALL)
    assert kinds(sandbox)["accounts"] == 1

    del sandbox.environment.accounts[1]
    sandbox.clear()
    last = read(sandbox, configured=configured, state=again.last_state, additional_accounts=ALL)

    assert kinds(sandbox)["accounts"] == 2
    assert last.failure is None


def test_given_listed_accounts_when_read_then_each_is_asked_for_by_its_id(serve: Serve) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(4)])

    configured = catalog(streams=("integrated_accounts",))
    for option, numbers in (({"mode": "none"}, [0]), (listed(2, 1), [0, 1, 2])):
        sandbox.clear()
        result = read(sandbox, configured=configured, additional_accounts=option)
        found = sorted(keys(result, "integrated_accounts"))
        assert found == sorted((id_of(number),) for number in numbers)
        assert kinds(sandbox) == {"account": len(numbers)}


@pytest.mark.parametrize("option", [ALL, {"mode": "none"}])
def test_given_an_account_when_read_then_its_row_has_the_named_columns_only(
    serve: Serve, option: dict[str, Any]
) -> None:
    forbidden = {
        "resource": "segments",
        "method": "list",
        "missing_scopes": ["segments:read"],
        "occurred_at": "2025-01-02T03:04:05.000Z",
        "context": "not named",
    }
    account = numbered_account(
        0,
        "activecampaign",
        tenant_id="acme",
        is_sandbox=True,
        region="eu",
        last_error="invalid_grant",
        last_forbidden_error=forbidden,
        label_in_config=True,
        unified_model_override={"segments": {}},
        created_at="2024-09-01 10:00:00",
        updated_at="2025-06-03T14:05:21.125Z",
    )

    configured = catalog(streams=("integrated_accounts",))
    result = read(serve(account), configured=configured, additional_accounts=option)

    (record,) = result.records_of("integrated_accounts")
    assert record.keys() <= load_schema("integrated_accounts")["properties"].keys()
    assert record.pop("_ab_cdc_updated_at")
    assert record == {
        "id": id_of(0),
        "tenant_id": "acme",
        "integration": "activecampaign",
        "integration_label": "ActiveCampaign",
        "status": "active",
        "authentication_method": "api_key",
        "is_sandbox": True,
        "region": "eu",
        "last_error": "invalid_grant",
        "last_forbidden_error": {
            name: value for name, value in forbidden.items() if name != "context"
        },
        "created_at": "2024-09-01T10:00:00Z",
        "updated_at": "2025-06-03T14:05:21.125Z",
    }


def test_given_the_label_beside_the_name_when_read_then_it_is_found_as_well(serve: Serve) -> None:
    configured = catalog(streams=("integrated_accounts",))
    result = read(serve(numbered_account(0, label="Klaviyo EU")), configured=configured)

    (record,) = result.records_of("integrated_accounts")
    assert record["integration_label"] == "Klaviyo EU"


@pytest.mark.parametrize(
    ("last_error", "text"),
    [
        ("invalid_grant", "invalid_grant"),
        ({"message": "Token has been revoked", "code": 7}, "Token has been revoked"),
        ({"code": 7}, "7"),
        ({"apiKey": "abc", "at": 7}, "{apiKey, at}"),
        ({"message": 'refused: {"apiKey": "abc"}'}, "refused: {apiKey}"),
        ("Authorization: Bearer abc\u202e def", "Authorization: **** def"),
        ("long " * 100_000, f"{('long ' * 60)[:299]}…"),
        ([{"message": "a"}, "b"], "a; b"),
        ({}, None),
        ("", None),
    ],
)
def test_given_any_last_error_when_read_then_it_is_text(
    serve: Serve, last_error: Any, text: str | None
) -> None:
    account = numbered_account(0, status="needs_reauth", last_error=last_error)

    result = read(serve(account), configured=catalog(streams=ALL_STREAMS), additional_accounts=ALL)

    (record,) = result.records_of("integrated_accounts")
    assert record.get("last_error") == text
    assert ("last error: " in str(result.errors[0])) == (text is not None)
    assert text is None or f'; last error: "{text}")' in result.errors[0]["message"]


def test_given_secrets_in_the_context_when_any_command_runs_then_no_output_has_them(
    serve: Serve, tmp_path: Path
) -> None:
    nameless = '{"result": [{"context": {"key": "%s"}}, {"id": "%s", "context": "%s"}, "%s"]}'
    secrets = (CONTEXT_SECRET, id_of(3), CONTEXT_SECRET, CONTEXT_SECRET)
    reauth: dict[str, Any] = {"status": "needs_reauth", "last_error": "invalid_grant"}
    sandbox = serve(
        # Not in the filtered list; and its 404 makes the connector ask for its integration.
        numbered_account(0, faults=[faults.vendor_not_found(kind="segments", times=None)]),
        numbered_account(1, tenant_id="acme", **reauth),
        numbered_account(2, tenant_id="acme", **reauth),
        faults=[faults.body(nameless % secrets, kind="accounts", after=1)],
        list_page_size=1,
    )
    option = {"mode": "all", "tenant_ids": ["acme"]}
    settings = write(tmp_path / "config.json", config(sandbox, additional_accounts=option))
    configured = write(tmp_path / "catalog.json", incremental())

    read_all = run("read", "--catalog", configured, "--config", settings, "--debug")
    # An entry with an id is a row, whatever else it lacks.
    assert len(read_all.records_of("integrated_accounts")) == 3
    results = [read_all, *(run(c, "--config", settings, "--debug") for c in ("check", "discover"))]

    for result in results:
        assert "DEBUG" in {message["type"] for message in result.messages}
        assert CONTEXT_SECRET not in json.dumps(result.messages)


@pytest.mark.parametrize("option", [ALL, {"mode": "none"}])
def test_given_an_account_that_breaks_off_when_read_then_no_output_has_its_secrets(
    serve: Serve, caplog: pytest.LogCaptureFixture, option: dict[str, Any]
) -> None:
    caplog.set_level("DEBUG")
    account = f'{{"context": {{"api_key": "{CONTEXT_SECRET}"}}, "id": "{id_of(0)}", '
    script = [
        faults.body(account, kind="account", times=None),
        faults.body(f'{{"result": [{account}', kind="accounts", times=None),
    ]
    sandbox = serve(numbered_account(0), faults=script)

    configured = catalog(streams=ALL_STREAMS)
    result = read(sandbox, configured=configured, additional_accounts=option)

    assert "the response is malformed (HTTP 200; the response is not JSON" in str(result.failure)
    assert CONTEXT_SECRET not in str(result.messages) + str(result.failure) + caplog.text


# --- workspaces -----------------------------------------------------------------------------------


def test_given_workspaces_when_read_then_each_has_its_account_and_its_name(serve: Serve) -> None:
    sandbox = serve(
        beehiiv(0, workspace_names={"pub_a": "The Daily Brief"}),
        numbered_account(1, "brevo", workspaces={"7": []}),
        numbered_account(2, "customerio", workspaces={"8": []}),
    )

    configured = catalog(streams=("workspaces",))
    result = read(sandbox, configured=configured, additional_accounts=listed(1, 2))

    assert sorted(keys(result, "workspaces")) == sorted(
        [(id_of(0), "pub_a"), (id_of(0), "pub_b"), (id_of(1), "7"), (id_of(2), "8")]
    )
    daily = next(r for r in result.records_of("workspaces") if r["id"] == "pub_a")
    assert daily["name"] == "The Daily Brief"
    assert daily["created_at"].endswith("Z")
    assert daily["remote_data"]["id"] == "pub_a"
    assert daily.keys() <= load_schema("workspaces")["properties"].keys()
    assert kinds(sandbox) == {"workspaces": 3}


def test_given_an_integration_without_workspaces_when_read_then_it_has_none_and_is_no_failure(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1, "brevo", workspaces={"7": []}))

    configured = incremental("workspaces")
    result = read(sandbox, configured=configured, additional_accounts=ALL)

    assert result.failure is None
    assert keys(result, "workspaces") == [(id_of(1), "7")]
    assert result.statuses_of("workspaces") == ["STARTED", "RUNNING", "COMPLETE"]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    # It is a partition that was read to its end, like any other.
    (state,) = result.last_state
    partitions = [entry["partition"] for entry in state["stream"]["stream_state"]["states"]]
    assert {"integrated_account_id": id_of(0)} in partitions


def test_given_a_vendor_that_requires_a_workspace_when_read_then_they_are_listed_once(
    serve: Serve,
) -> None:
    sandbox = serve(beehiiv(0), beehiiv(1))

    result = read(sandbox, configured=incremental(), additional_accounts=ALL)

    assert kinds(sandbox)["workspaces"] == 2
    assert len(keys(result, "workspaces")) == 4
    assert {r["workspace_id"] for r in result.records} == {"pub_a", "pub_b"}
    assert len(result.records) == 10
    # The next sync asks anew.
    sandbox.clear()
    sandbox.environment.accounts[0].workspaces["pub_c"] = vendors.segments("beehiiv", 1, seed=1)
    read(sandbox, configured=incremental(), state=result.last_state, additional_accounts=ALL)
    assert kinds(sandbox)["workspaces"] == 2
    assert "pub_c" in {request.param("workspace[id]") for request in sandbox.requests}


# --- what a selection costs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("segments", {"segments": 3}),
        ("integrated_accounts", {"account": 3}),
        ("workspaces", {"workspaces": 3}),
    ],
)
@pytest.mark.parametrize("sync_mode", ["full_refresh", "incremental"])
def test_given_one_stream_when_read_then_it_costs_no_request_of_another(
    serve: Serve, stream: str, expected: dict[str, int], sync_mode: str
) -> None:
    sandbox = serve(*[numbered_account(n, "brevo", workspaces={"7": []}) for n in range(3)])

    configured = catalog(sync_mode, streams=(stream,))
    result = read(sandbox, configured=configured, additional_accounts=listed(1, 2))

    assert result.failure is None
    assert kinds(sandbox) == expected
    sandbox.clear()
    read(sandbox, configured=configured, additional_accounts=ALL)
    per_account = {} if stream == "integrated_accounts" else expected
    assert kinds(sandbox) == {**per_account, "accounts": 1}


# --- failures -------------------------------------------------------------------------------------


def test_given_an_account_fails_in_one_stream_when_read_then_all_else_is_read(
    serve: Serve,
) -> None:
    script = [faults.scopes_missing("workspaces:read", kind="workspaces", times=None)]
    accounts = [numbered_account(n, "brevo", workspaces={"7": []}) for n in (0, 2)]
    broken = numbered_account(1, "brevo", workspaces={"7": []}, tenant_id="acme", faults=script)
    sandbox = serve(*accounts, broken)

    result = read(sandbox, configured=incremental(), additional_accounts=ALL)

    (error,) = result.errors
    assert error["message"].startswith(
        f"Listing the workspaces of integrated account {id_of(1)} failed: "
    )
    assert "missing scopes: workspaces:read) (brevo of tenant acme)." in error["message"]
    assert result.statuses_of("segments") == ["STARTED", "RUNNING", "COMPLETE"]
    assert result.statuses_of("integrated_accounts") == ["STARTED", "RUNNING", "COMPLETE"]
    assert result.statuses_of("workspaces") == ["STARTED", "RUNNING", "INCOMPLETE"]
    assert {key[0] for key in keys(result, "segments")} == {id_of(n) for n in range(3)}
    assert {key[0] for key in keys(result, "integrated_accounts")} == {id_of(n) for n in range(3)}
    assert {key[0] for key in keys(result, "workspaces")} == {id_of(0), id_of(2)}
    # The next sync reads it, and only it, as new.
    script[0].times = 0
    again = read(
        sandbox, configured=incremental(), state=result.last_state, additional_accounts=ALL
    )
    assert {stream: keys(again, stream) for stream in ALL_STREAMS} == {
        "segments": [],
        "integrated_accounts": [],
        "workspaces": [(id_of(1), "7")],
    }


def test_given_an_account_fails_in_every_stream_when_read_then_each_failure_is_reported_once(
    serve: Serve,
) -> None:
    blocked = numbered_account(1, faults=[faults.account_blocked(times=None)])
    sandbox = serve(numbered_account(0), blocked)

    result = read(sandbox, configured=catalog(streams=ALL_STREAMS), additional_accounts=listed(1))

    *reported, summary = [error["message"] for error in result.errors]
    assert sorted(message.split(" failed: ")[0] for message in reported) == [
        f"Listing the workspaces of integrated account {id_of(1)}",
        f"Reading integrated account {id_of(1)}",
        f"Reading the segments of integrated account {id_of(1)}",
    ]
    assert summary == str(result.failure)
    assert summary.startswith(f"1 of 2 integrated accounts could not be read: {id_of(1)}. ")
    for stream in ALL_STREAMS:
        assert result.statuses_of(stream)[-1] == "INCOMPLETE"
    assert keys(result, "integrated_accounts") == [(id_of(0),)]


@pytest.mark.parametrize("skip", ["fail", "skip"])
def test_given_a_rejected_token_when_all_streams_are_read_then_one_error_reports_it(
    serve: Serve, skip: str
) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(5)])

    for option in (ALL, listed(*range(5))):
        sandbox.clear()
        result = read(
            sandbox,
            configured=catalog(streams=ALL_STREAMS),
            token="of-another-environment",
            additional_accounts=option,
            on_account_error=skip,
        )
        assert len(result.errors) == 1
        assert len(sandbox.requests) == 1
        for stream in ALL_STREAMS:
            assert result.statuses_of(stream)[-1] == "INCOMPLETE"


def test_given_an_unknown_account_when_it_is_read_by_its_id_then_it_is_named(serve: Serve) -> None:
    sandbox = serve(numbered_account(0))

    configured = catalog(streams=("integrated_accounts",))
    result = read(sandbox, configured=configured, additional_accounts=listed(1))

    assert keys(result, "integrated_accounts") == [(id_of(0),)]
    (error,) = result.errors
    assert error["message"].startswith(
        f"Reading integrated account {id_of(1)} failed: Truto has no such account"
    )


def test_given_the_list_fails_when_read_then_no_stream_is_complete(serve: Serve) -> None:
    fault = faults.truto_failed(kind="accounts", times=None)
    sandbox = serve(numbered_account(0), faults=[fault])

    result = read(sandbox, configured=catalog(streams=ALL_STREAMS), additional_accounts=ALL)

    (error,) = result.errors
    assert error["message"].startswith("Listing the integrated accounts of the environment failed")
    for stream in ALL_STREAMS:
        assert result.statuses_of(stream)[-1] == "INCOMPLETE"


# --- tombstones -----------------------------------------------------------------------------------


def test_given_rows_that_are_gone_when_read_then_each_stream_has_their_tombstones(
    serve: Serve,
) -> None:
    accounts = [
        numbered_account(n, "brevo", count=4, workspaces={"7": [], "8": []}) for n in range(3)
    ]
    sandbox = serve(*accounts)
    first = read(sandbox, configured=incremental(), additional_accounts=ALL)
    gone = accounts[0].segments[1]["id"]

    accounts[0].segments = [s for s in accounts[0].segments if s["id"] != gone]
    del accounts[1].workspaces["7"]
    sandbox.environment.accounts.remove(accounts[2])
    second = read(
        sandbox, configured=incremental(), state=first.last_state, additional_accounts=ALL
    )

    expected = {
        "segments": {"integrated_account_id": id_of(0), "id": gone},
        "workspaces": {"integrated_account_id": id_of(1), "id": "7"},
        "integrated_accounts": {"id": id_of(2)},
    }
    for stream, key in expected.items():
        (tombstone,) = second.records_of(stream)
        assert tombstone.pop("_ab_cdc_deleted_at") == tombstone.pop("_ab_cdc_updated_at")
        assert tombstone == key
    # An account that is gone keeps its rows in the other streams, which the state remembers.
    known = [state["stream"] for state in second.last_state if id_of(2) in json.dumps(state)]
    names = [stream["stream_descriptor"]["name"] for stream in known]
    assert sorted(names) == ["segments", "workspaces"]
    sandbox.clear()
    third = read(
        sandbox, configured=incremental(), state=second.last_state, additional_accounts=ALL
    )
    assert third.of_type("RECORD") == []
    # It is not looked for again.
    assert (kinds(sandbox)["accounts"], kinds(sandbox)["account"]) == (1, 0)


def test_given_a_configured_account_is_gone_when_read_then_it_is_deleted_and_a_failure(
    serve: Serve,
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    configured = incremental("integrated_accounts")
    first = read(sandbox, configured=configured, additional_accounts=listed(1))

    del sandbox.environment.accounts[1]
    second = read(
        sandbox, configured=configured, state=first.last_state, additional_accounts=listed(1)
    )

    # It is configured, and Truto says that there is no such account.
    assert deleted_ids(second, "integrated_accounts") == [id_of(1)]
    assert "Truto has no such account" in str(second.failure)
    assert second.statuses_of("integrated_accounts")[-1] == "INCOMPLETE"


@pytest.mark.parametrize(
    "page",
    [
        '{"result": [], "next_cursor": null, "is_partial_response": true}',
        '{"result": [null], "next_cursor": null}',
        '{"result": [{"tenant_id": "acme"}], "next_cursor": null}',
    ],
)
def test_given_a_list_that_may_be_incomplete_when_read_then_nothing_is_taken_for_deleted(
    serve: Serve, page: str
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    first = read(sandbox, configured=incremental(), additional_accounts=ALL)

    sandbox.environment.faults.append(faults.body(page, kind="accounts", times=None))
    second = read(
        sandbox, configured=incremental(), state=first.last_state, additional_accounts=ALL
    )

    assert second.failure is None
    assert deleted(second, "integrated_accounts") == []
    # These accounts have no workspaces.
    known = [s for s in second.last_state if id_of(1) in json.dumps(s)]
    assert len(known) == 2


def test_given_an_account_on_no_page_of_one_read_when_listed_then_it_is_not_taken_for_deleted(
    serve: Serve,
) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    first = read(sandbox, configured=incremental(), additional_accounts=ALL)

    shifted = json.dumps({"result": [], "next_cursor": None})
    sandbox.environment.faults.append(faults.body(shifted, kind="accounts"))
    second = read(
        sandbox, configured=incremental(), state=first.last_state, additional_accounts=ALL
    )

    assert second.of_type("RECORD") == []
    assert kinds(sandbox)["accounts"] == 3


def test_given_truto_takes_the_workspaces_back_when_read_then_nothing_is_taken_for_deleted(
    serve: Serve,
) -> None:
    account = numbered_account(0, "brevo", workspaces={"7": []})
    sandbox = serve(account)
    first = read(sandbox, configured=incremental("workspaces"))

    account.faults.append(faults.resource_not_supported("workspaces", times=None))
    second = read(sandbox, configured=incremental("workspaces"), state=first.last_state)

    assert second.failure is None
    assert second.records_of("workspaces") == []
    account.faults.clear()
    third = read(sandbox, configured=incremental("workspaces"), state=second.last_state)
    assert third.records_of("workspaces") == []


@pytest.mark.parametrize("stream", ALL_STREAMS)
def test_given_no_column_for_deletions_when_rows_are_gone_then_the_tombstones_come_with_the_column(
    serve: Serve, stream: str
) -> None:
    account = numbered_account(1, "brevo", workspaces={"7": [], "8": []})
    sandbox = serve(numbered_account(0), account)
    properties = load_schema(stream)["properties"]
    without = {name: value for name, value in properties.items() if name != "_ab_cdc_deleted_at"}
    blind = incremental(stream, schema={"properties": without})
    first = read(sandbox, configured=blind, additional_accounts=ALL)

    account.segments = account.segments[1:]
    del account.workspaces["7"]
    if stream == "integrated_accounts":
        sandbox.environment.accounts.remove(account)
    second = read(sandbox, configured=blind, state=first.last_state, additional_accounts=ALL)
    assert second.records_of(stream) == []

    seeing = incremental(stream, schema={"properties": properties})
    third = read(sandbox, configured=seeing, state=second.last_state, additional_accounts=ALL)
    assert len(deleted(third, stream)) == 1
    assert len(third.records_of(stream)) == 1


# --- which accounts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "is_read"),
    [
        ("marketing-automation", True),
        ("Marketing Automation", True),
        ("marketing_automation", True),
        ("crm", False),
        ("marketing", False),
    ],
)
def test_given_an_eighth_integration_when_read_then_its_category_decides(
    serve: Serve, category: str, is_read: bool
) -> None:
    other = numbered_account(
        1, "newsletterly", segments=vendors.segments("flodesk", 2), category=category
    )
    sandbox = serve(numbered_account(0), other)

    result = read(sandbox, configured=catalog(streams=ALL_STREAMS), additional_accounts=ALL)

    assert result.failure is None
    expected = {id_of(0), id_of(1)} if is_read else {id_of(0)}
    assert {key[0] for key in keys(result, "segments")} == expected
    assert {key[0] for key in keys(result, "integrated_accounts")} == expected


def test_given_an_integration_without_segments_when_read_then_one_line_says_that_it_is_left_out(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    others = [
        numbered_account(n, "smsly", segments=[], category="marketing-automation")
        for n in range(1, 4)
    ]
    sandbox = serve(numbered_account(0), *others)

    result = read(sandbox, configured=incremental(), additional_accounts=ALL)

    assert result.failure is None
    assert result.errors == []
    assert {key[0] for key in keys(result, "segments")} == {id_of(0)}
    # Whose connections they are is known all the same.
    assert len(keys(result, "integrated_accounts")) == 4
    for stream in ALL_STREAMS:
        assert result.statuses_of(stream)[-1] == "COMPLETE"
    lines = [line for line in caplog.messages if "smsly" in line]
    assert lines == ["Truto has no segments for the integration smsly; its accounts are left out."]


@pytest.mark.parametrize("option", [{"mode": "all", "integrations": ["SMSly"]}, listed(1)])
def test_given_the_user_names_an_integration_without_segments_when_read_then_it_fails(
    serve: Serve, option: dict[str, Any]
) -> None:
    other = numbered_account(1, "smsly", segments=[], category="marketing-automation")
    sandbox = serve(numbered_account(0), other)

    result = read(sandbox, additional_accounts=option)

    (error,) = result.errors
    assert f"account {id_of(1)} failed: Truto does not support this resource" in error["message"]
    assert result.statuses[-1] == "INCOMPLETE"


def test_given_the_first_account_has_no_segments_when_read_in_mode_all_then_it_fails(
    serve: Serve,
) -> None:
    sandbox = serve(
        numbered_account(0, "smsly", segments=[], category="marketing-automation"),
        numbered_account(1),
    )

    result = read(sandbox, additional_accounts=ALL)

    (error,) = result.errors
    assert f"account {id_of(0)} failed: Truto does not support this resource" in error["message"]


@pytest.mark.parametrize("status", ["needs_reauth", "validation_error", "blocked", "expired"])
@pytest.mark.parametrize("streams", [("segments",), ALL_STREAMS])
def test_given_a_listed_status_when_the_account_heals_then_it_is_read(
    serve: Serve, status: str, streams: tuple[str, ...]
) -> None:
    account = numbered_account(1, status=status, heals_on_request=True, last_error="invalid_grant")
    sandbox = serve(numbered_account(0), account)

    result = read(sandbox, configured=catalog(streams=streams), additional_accounts=ALL)

    assert result.failure is None
    assert {key[0] for key in keys(result, "segments")} == {id_of(0), id_of(1)}
    assert account.status == "active"
    if "integrated_accounts" in streams:
        records = result.records_of("integrated_accounts")
        assert [record["status"] for record in records] == ["active", "active"]


@pytest.mark.parametrize("option", [{"mode": "none"}, listed(0), ALL], ids=lambda o: o["mode"])
@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_given_an_account_that_is_refused_or_recovers_when_read_then_its_row_is_as_after_the_sync(
    serve: Serve, option: dict[str, Any], mode: str
) -> None:
    """A request that the vendor refuses, or that succeeds, changes what Truto says of it."""
    account = numbered_account(0, heals_on_request=True)
    sandbox = serve(account)
    how: dict[str, Any] = {
        "configured": catalog(mode, streams=ALL_STREAMS),
        "additional_accounts": option,
        "on_account_error": "skip",
    }
    first = read(sandbox, **how)

    account.faults = [faults.credentials_refused(times=None, kind="segments")]
    is_incremental = mode == "incremental"
    refused = read(sandbox, state=first.last_state if is_incremental else None, **how)
    account.faults = []
    recovered = read(sandbox, state=refused.last_state if is_incremental else None, **how)

    for result, status in ((refused, "needs_reauth"), (recovered, "active")):
        (row,) = result.records_of("integrated_accounts")
        assert row["status"] == status
    if is_incremental:
        assert recovered.records == []


@pytest.mark.parametrize("known", [True, False])
def test_given_an_account_that_is_deleted_after_it_was_listed_when_read_then_that_is_no_failure(
    serve: Serve, known: bool
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    first = read(sandbox, configured=incremental(), additional_accounts=ALL)
    gone = sandbox.environment.accounts[1]

    def delete(request: Request) -> bool:
        if request.kind == "segments" and gone in sandbox.environment.accounts:
            sandbox.environment.accounts.remove(gone)
        return False

    sandbox.environment.faults = [Fault(times=None, when=delete)]
    state = first.last_state if known else None
    second = read(
        sandbox, configured=incremental(), state=state, additional_accounts=ALL, num_workers=1
    )

    assert second.failure is None
    assert second.statuses[-1] == "COMPLETE"
    assert deleted_ids(second, "integrated_accounts") == ([id_of(1)] if known else [])
    assert {row["id"] for row in second.records_of("integrated_accounts")} == (
        {id_of(1)} if known else {id_of(0)}
    )


def test_given_a_404_of_an_account_that_is_there_when_read_then_it_fails(serve: Serve) -> None:
    account = numbered_account(1, faults=[faults.account_not_found(kind="segments", times=None)])
    sandbox = serve(numbered_account(0), account)

    result = read(sandbox, configured=incremental(), additional_accounts=ALL)

    assert "Truto has no such account" in str(result.failure)
    assert len(result.records_of("integrated_accounts")) == 2


def test_given_a_dead_entry_in_the_list_when_another_account_is_gone_then_it_is_deleted(
    serve: Serve,
) -> None:
    """An entry without an integration is a row; one without an id hides nobody."""
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    first = read(sandbox, configured=incremental(), additional_accounts=ALL)

    del sandbox.environment.accounts[2]
    entries = [account_object(account) for account in sandbox.environment.accounts]
    entries[1]["integration"] = None
    page = json.dumps({"result": [*entries, {"id": None}, None], "next_cursor": None})
    sandbox.environment.faults = [faults.body(page, kind="accounts", times=None)]
    second = read(
        sandbox, configured=incremental(), state=first.last_state, additional_accounts=ALL
    )

    assert second.failure is None
    assert deleted_ids(second, "integrated_accounts") == [id_of(2)]
    (row,) = [r for r in second.records_of("integrated_accounts") if r["id"] == id_of(1)]
    assert "integration" not in row


def test_given_an_empty_list_when_read_then_the_next_sync_has_to_see_it_again(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    state = read(sandbox, configured=incremental(), additional_accounts=ALL).last_state
    del sandbox.environment.accounts[2]
    empty = faults.body('{"result": [], "next_cursor": null}', kind="accounts", times=None)
    sandbox.environment.faults = [empty]

    found = []
    for _ in range(2):
        result = read(sandbox, configured=incremental(), state=state, additional_accounts=ALL)
        state = result.last_state
        found.append(deleted_ids(result, "integrated_accounts"))

    # The second account is there, as Truto says when it is asked for it.
    assert found == [[], [id_of(2)]]
    assert "list of integrated accounts is empty, and 2 accounts are known" in caplog.text


@pytest.mark.parametrize(
    "other",
    [{"mode": "none"}, {**ALL, "integrations": ["klavyio"]}, {**ALL, "integrations": ["brevo"]}],
    ids=["none", "typing mistake", "another"],
)
def test_given_accounts_that_leave_the_configuration_when_back_then_deletions_come(
    serve: Serve, other: dict[str, Any]
) -> None:
    """All, then others for one sync, then all."""
    accounts = [numbered_account(0, "brevo", workspaces={"w": []})]
    accounts += [numbered_account(number) for number in range(1, 4)]
    sandbox = serve(*accounts)
    first = read(sandbox, configured=incremental(), additional_accounts=ALL)

    gone = accounts[1].segments[0]["id"]
    accounts[1].segments = accounts[1].segments[1:]
    del sandbox.environment.accounts[3]
    without = read(
        sandbox, configured=incremental(), state=first.last_state, additional_accounts=other
    )
    assert deleted(without, "segments") == []
    again = read(
        sandbox, configured=incremental(), state=without.last_state, additional_accounts=ALL
    )

    assert without.records_of("segments") == []
    assert deleted_ids(again, "segments") == [gone]
    rows_deleted = [id_ for r in (without, again) for id_ in deleted_ids(r, "integrated_accounts")]
    assert rows_deleted == [id_of(3)]
    assert len(again.of_type("RECORD")) + len(without.of_type("RECORD")) == 2


@pytest.mark.parametrize("streams", [("segments",), ("workspaces",)])
def test_given_an_account_that_does_not_heal_when_read_then_its_failure_names_what_is_listed(
    serve: Serve, streams: tuple[str, ...]
) -> None:
    bad = numbered_account(
        1, "brevo", tenant_id="acme", status="needs_reauth", last_error="invalid_grant"
    )
    sandbox = serve(numbered_account(0, "brevo"), bad)

    result = read(sandbox, configured=catalog(streams=streams), additional_accounts=ALL)

    (error,) = result.errors
    detail = ' (brevo of tenant acme; status needs_reauth; last error: "invalid_grant"). '
    assert id_of(1) in error["message"]
    assert detail in error["message"]


# --- check ----------------------------------------------------------------------------------------


def test_given_mode_all_when_checked_then_the_named_and_those_not_active_are_asked(
    serve: Serve,
) -> None:
    sandbox = serve(
        numbered_account(0),
        numbered_account(1),
        numbered_account(2, status="needs_reauth", tenant_id="acme", last_error="revoked"),
        numbered_account(3, status="needs_reauth", heals_on_request=True),
        numbered_account(4, status="something new"),
        numbered_account(5, "salesforce", segments=[], status="needs_reauth"),
    )

    status, message = check(sandbox, additional_accounts=ALL)

    asked = [r.account_id for r in sandbox.requests if r.kind == "segments"]
    assert sorted(map(str, asked)) == sorted(id_of(number) for number in (0, 2, 3, 4))
    assert status is Status.FAILED
    first, *lines = str(message).splitlines()
    assert first == (
        "4 of 5 integrated accounts were asked for their segments; 2 of them cannot be read."
    )
    assert [next(n for n in range(6) if id_of(n) in line) for line in lines] == [2, 4]
    assert '(klaviyo of tenant acme; status needs_reauth; last error: "revoked")' in lines[0]


def test_given_mode_all_when_all_who_are_asked_respond_then_the_check_succeeds(
    serve: Serve,
) -> None:
    optional = numbered_account(
        2, "smsly", segments=[], category="marketing-automation", status="connecting"
    )
    optional.heals_on_request = True
    healing = numbered_account(1, status="needs_reauth", heals_on_request=True)
    sandbox = serve(numbered_account(0), healing, optional)

    status, message = check(sandbox, additional_accounts=ALL)

    assert (status, message) == (Status.SUCCEEDED, None)
    assert kinds(sandbox) == {"accounts": 1, "segments": 3}


def test_given_named_accounts_when_checked_then_no_list_is_asked_for(serve: Serve) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1, status="needs_reauth"))

    status, message = check(sandbox, additional_accounts=listed(1))

    assert status is Status.FAILED
    assert id_of(1) in str(message)
    assert kinds(sandbox) == {"segments": 2}
