"""The three streams: where their rows come from, what they cost, and what they leave out."""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from airbyte_cdk.models import Status

from integration_tests.destination import tombstones
from integration_tests.processes import Processes
from integration_tests.support import (
    ACCOUNT_ID,
    ALL,
    ALL_STREAMS,
    Result,
    Serve,
    account,
    aged,
    catalog,
    check,
    config,
    id_of,
    kinds,
    listed,
    numbered_account,
    read,
    warnings_in,
    write,
)
from integration_tests.test_state import keys
from sandbox import CONTEXT_SECRET, Account, Fault, Request, Sandbox, faults, vendors
from sandbox.accounts import account_object
from source_truto_segments.records.columns import load_schema

SELECTIONS = [
    selection for size in (1, 2, 3) for selection in combinations(sorted(ALL_STREAMS), size)
]


def deleted(result: Result, stream: str) -> list[dict[str, Any]]:
    return list(tombstones(result, stream))


def deleted_ids(result: Result, stream: str) -> list[str]:
    return [record["id"] for record in deleted(result, stream)]


def incremental(*streams: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return catalog("incremental", schema, streams or ALL_STREAMS)


def sync(sandbox: Sandbox, last: Result | None = None) -> Result:
    """Run an incremental sync of all streams and all accounts, after another one."""
    state = last.last_state if last else None
    return read(sandbox, configured=incremental(), state=state, additional_accounts=ALL)


def beehiiv(number: int, **how: Any) -> Account:
    segments = vendors.segments("beehiiv", 5)
    workspaces = {"pub_a": segments[:2], "pub_b": segments[2:]}
    return numbered_account(number, "beehiiv", segments=[], workspaces=workspaces, **how)


# --- integrated_accounts --------------------------------------------------------------------------


def test_mode_all(serve: Serve) -> None:
    """In mode all, the accounts come from the list."""
    sandbox = serve(
        *[numbered_account(number) for number in range(5)],
        numbered_account(5, status="needs_reauth"),
        numbered_account(6, "salesforce", segments=[]),
        list_page_size=3,
    )

    result = read(sandbox, streams=("integrated_accounts",), additional_accounts=ALL)

    assert keys(result, "integrated_accounts") == [(id_of(number),) for number in range(6)]
    assert result.statuses_of("integrated_accounts") == ["STARTED", "RUNNING", "COMPLETE"]
    assert kinds(sandbox) == {"accounts": 3}


@pytest.mark.parametrize("selection", SELECTIONS, ids="+".join)
def test_any_streams(serve: Serve, selection: tuple[str, ...]) -> None:
    """In mode all, any selection of streams requests the list once."""
    sandbox = serve(numbered_account(0), numbered_account(1, "brevo"), beehiiv(2))

    result = read(sandbox, streams=selection, additional_accounts=ALL)

    assert result.failure is None
    assert kinds(sandbox)["accounts"] == 1
    assert kinds(sandbox)["account"] == 0
    assert {stream for stream in ALL_STREAMS if result.records_of(stream)} <= set(selection)
    assert {stream for stream in ALL_STREAMS if result.statuses_of(stream)} == set(selection)


@pytest.mark.parametrize("streams", [ALL_STREAMS, ("segments",), ("workspaces",)])
def test_known_account_missing(serve: Serve, streams: tuple[str, ...]) -> None:
    """If a known account is missing from the list, the list is read again."""
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


def test_listed_accounts(serve: Serve) -> None:
    """Each listed account is requested by its id."""
    sandbox = serve(*[numbered_account(number) for number in range(4)])

    for option, numbers in (({"mode": "none"}, [0]), (listed(2, 1), [0, 1, 2])):
        sandbox.clear()
        result = read(sandbox, streams=("integrated_accounts",), additional_accounts=option)
        found = sorted(keys(result, "integrated_accounts"))
        assert found == sorted((id_of(number),) for number in numbers)
        assert kinds(sandbox) == {"account": len(numbers)}


@pytest.mark.parametrize("option", [ALL, {"mode": "none"}])
def test_row_of_account(serve: Serve, option: dict[str, Any]) -> None:
    """The row of an account has only the columns of its schema."""
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

    result = read(serve(account), streams=("integrated_accounts",), additional_accounts=option)

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


def test_label_beside_name(serve: Serve) -> None:
    """An integration's label is also found beside its name."""
    result = read(serve(numbered_account(0, label="Klaviyo EU")), streams=("integrated_accounts",))

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
def test_last_error(serve: Serve, last_error: Any, text: str | None) -> None:
    """An account's last error becomes a text, whatever its form."""
    account = numbered_account(0, status="needs_reauth", last_error=last_error)

    result = read(serve(account), streams=ALL_STREAMS, additional_accounts=ALL)

    (record,) = result.records_of("integrated_accounts")
    assert record.get("last_error") == text
    assert ("last error: " in str(result.errors[0])) == (text is not None)
    assert text is None or f'; last error: "{text}")' in result.errors[0]["message"]


def test_secrets_in_context(serve: Serve, processes: Processes, tmp_path: Path) -> None:
    """Whatever command runs, no output contains the secrets of an account's context."""
    nameless = '{"result": [{"context": {"key": "%s"}}, {"id": "%s", "context": "%s"}, "%s"]}'
    secrets = (CONTEXT_SECRET, id_of(3), CONTEXT_SECRET, CONTEXT_SECRET)
    reauth: dict[str, Any] = {"status": "needs_reauth", "last_error": "invalid_grant"}
    sandbox = serve(
        # It is not in the filtered list, and its 404 makes the connector ask for its integration.
        numbered_account(0, faults=[faults.vendor_not_found(kind="segments", times=None)]),
        numbered_account(1, tenant_id="acme", **reauth),
        numbered_account(2, tenant_id="acme", **reauth),
        faults=[faults.body(nameless % secrets, kind="accounts", after=1)],
        list_page_size=1,
    )
    option = {"mode": "all", "tenant_ids": ["acme"]}
    settings = write(tmp_path / "config.json", config(sandbox, additional_accounts=option))
    configured = write(tmp_path / "catalog.json", incremental())

    def run(name: str, *more: str) -> Result:
        return processes.run(name, *more, "--config", settings, "--debug", out=tmp_path / name)

    read_all = run("read", "--catalog", configured)
    # An entry with an id is a row, whatever else it lacks.
    assert len(read_all.records_of("integrated_accounts")) == 3
    for result in (read_all, run("check"), run("discover")):
        assert "DEBUG" in {message["type"] for message in result.messages}
        assert CONTEXT_SECRET not in json.dumps(result.messages)


@pytest.mark.parametrize("option", [ALL, {"mode": "none"}])
def test_account_breaks_off(
    serve: Serve, caplog: pytest.LogCaptureFixture, option: dict[str, Any]
) -> None:
    """If an account's object breaks off, no output contains its secrets."""
    caplog.set_level("DEBUG")
    account = f'{{"context": {{"api_key": "{CONTEXT_SECRET}"}}, "id": "{id_of(0)}", '
    script = [
        faults.body(account, kind="account", times=None),
        faults.body(f'{{"result": [{account}', kind="accounts", times=None),
    ]
    sandbox = serve(numbered_account(0), faults=script)

    result = read(sandbox, streams=ALL_STREAMS, additional_accounts=option)

    assert "the response is malformed (HTTP 200; the response is not JSON" in str(result.failure)
    assert CONTEXT_SECRET not in str(result.messages) + str(result.failure) + caplog.text


# --- workspaces -----------------------------------------------------------------------------------


def test_rows_of_workspaces(serve: Serve) -> None:
    """Each workspace has its account and its name."""
    sandbox = serve(
        beehiiv(0, workspace_names={"pub_a": "The Daily Brief"}),
        numbered_account(1, "brevo", workspaces={"7": []}),
        numbered_account(2, "customerio", workspaces={"8": []}),
    )

    result = read(sandbox, streams=("workspaces",), additional_accounts=listed(1, 2))

    assert sorted(keys(result, "workspaces")) == sorted(
        [(id_of(0), "pub_a"), (id_of(0), "pub_b"), (id_of(1), "7"), (id_of(2), "8")]
    )
    daily = next(r for r in result.records_of("workspaces") if r["id"] == "pub_a")
    assert daily["name"] == "The Daily Brief"
    assert daily["created_at"].endswith("Z")
    assert daily["remote_data"]["id"] == "pub_a"
    assert daily.keys() <= load_schema("workspaces")["properties"].keys()
    assert kinds(sandbox) == {"workspaces": 3}


def test_integration_without_workspaces(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """An integration without workspaces has no rows, and that is not a failure."""
    sandbox = serve(numbered_account(0), numbered_account(1, "brevo", workspaces={"7": []}))

    configured = incremental("workspaces")
    result = read(sandbox, configured=configured, additional_accounts=ALL)

    assert result.failure is None
    assert keys(result, "workspaces") == [(id_of(1), "7")]
    assert result.statuses_of("workspaces") == ["STARTED", "RUNNING", "COMPLETE"]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    # It is a partition that was completely read, like any other.
    (state,) = result.last_state
    partitions = [entry["partition"] for entry in state["stream"]["stream_state"]["states"]]
    assert {"integrated_account_id": id_of(0)} in partitions


def test_vendor_requires_workspace(serve: Serve) -> None:
    """If a vendor requires a workspace, the workspaces are listed once."""
    sandbox = serve(beehiiv(0), beehiiv(1))

    result = sync(sandbox)

    assert kinds(sandbox)["workspaces"] == 2
    assert len(keys(result, "workspaces")) == 4
    assert {r["workspace_id"] for r in result.records} == {"pub_a", "pub_b"}
    assert len(result.records) == 10
    # The next sync lists them again.
    sandbox.clear()
    sandbox.environment.accounts[0].workspaces["pub_c"] = vendors.segments("beehiiv", 1, seed=1)
    sync(sandbox, result)
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
def test_one_stream(serve: Serve, stream: str, expected: dict[str, int], sync_mode: str) -> None:
    """A single stream costs no request of another one."""
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


def test_account_fails_in_one_stream(serve: Serve) -> None:
    """If an account fails in one stream, everything else is read."""
    script = [faults.scopes_missing("workspaces:read", kind="workspaces", times=None)]
    accounts = [numbered_account(n, "brevo", workspaces={"7": []}) for n in (0, 2)]
    broken = numbered_account(1, "brevo", workspaces={"7": []}, tenant_id="acme", faults=script)
    sandbox = serve(*accounts, broken)

    result = sync(sandbox)

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
    # The next sync reads it, and nothing else, as new.
    script[0].times = 0
    again = sync(sandbox, result)
    assert {stream: keys(again, stream) for stream in ALL_STREAMS} == {
        "segments": [],
        "integrated_accounts": [],
        "workspaces": [(id_of(1), "7")],
    }


def test_account_fails_in_every_stream(serve: Serve) -> None:
    """If an account fails in every stream, its failure is reported once."""
    blocked = numbered_account(1, faults=[faults.account_blocked(times=None)])
    sandbox = serve(numbered_account(0), blocked)

    result = read(sandbox, streams=ALL_STREAMS, additional_accounts=listed(1))

    (reported,) = [error["message"] for error in result.errors]
    assert reported.startswith(f"Reading integrated account {id_of(1)} failed: ")
    assert reported == str(result.failure)
    for stream in ALL_STREAMS:
        assert result.statuses_of(stream)[-1] == "INCOMPLETE"
    assert keys(result, "integrated_accounts") == [(id_of(0),)]


# --- tombstones -----------------------------------------------------------------------------------


def test_deleted_rows(serve: Serve) -> None:
    """Each stream emits the tombstones of its deleted rows."""
    accounts = [
        numbered_account(n, "brevo", count=4, workspaces={"7": [], "8": []}) for n in range(3)
    ]
    sandbox = serve(*accounts)
    first = sync(sandbox)
    gone = accounts[0].segments[1]["id"]

    accounts[0].segments = [s for s in accounts[0].segments if s["id"] != gone]
    del accounts[1].workspaces["7"]
    sandbox.environment.accounts.remove(accounts[2])
    second = sync(sandbox, first)

    expected = {
        "segments": {"integrated_account_id": id_of(0), "id": gone},
        "workspaces": {"integrated_account_id": id_of(1), "id": "7"},
        "integrated_accounts": {"id": id_of(2)},
    }
    for stream, key in expected.items():
        (tombstone,) = second.records_of(stream)
        assert tombstone.pop("_ab_cdc_deleted_at") == tombstone.pop("_ab_cdc_updated_at")
        assert tombstone == key
    # A deleted account keeps its rows in the other streams, and the state remembers them.
    known = [state["stream"] for state in second.last_state if id_of(2) in json.dumps(state)]
    names = [stream["stream_descriptor"]["name"] for stream in known]
    assert sorted(names) == ["segments", "workspaces"]
    sandbox.clear()
    third = sync(sandbox, second)
    assert third.of_type("RECORD") == []
    # The connector does not look for it again.
    assert (kinds(sandbox)["accounts"], kinds(sandbox)["account"]) == (1, 0)


def test_configured_account_deleted(serve: Serve) -> None:
    """If a configured account no longer exists, its row is deleted and the sync fails."""
    sandbox = serve(numbered_account(0), numbered_account(1))
    configured = incremental("integrated_accounts")
    first = read(sandbox, configured=configured, additional_accounts=listed(1))

    del sandbox.environment.accounts[1]
    second = read(
        sandbox, configured=configured, state=first.last_state, additional_accounts=listed(1)
    )

    # It is configured, and Truto responds that there is no such account.
    assert deleted_ids(second, "integrated_accounts") == [id_of(1)]
    assert "Truto has no such account" in str(second.failure)
    assert second.statuses_of("integrated_accounts")[-1] == "INCOMPLETE"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ('{"result": [], "is_partial_response": true}', "is marked as partial"),
        ('{"result": [null], "next_cursor": null}', "has entries that are not objects"),
        (
            '{"result": [{"tenant_id": "acme"}], "next_cursor": null}',
            "no valid ID or no integration",
        ),
    ],
)
def test_list_may_be_incomplete(
    serve: Serve, page: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If the list may be incomplete, no deletions are inferred."""
    sandbox = serve(numbered_account(0), numbered_account(1))
    first = sync(sandbox)

    sandbox.environment.faults.append(faults.body(page, kind="accounts", times=None))
    second = sync(sandbox, first)

    assert second.failure is None
    assert any(reason in line for line in warnings_in(caplog))
    assert deleted(second, "integrated_accounts") == []
    # These accounts have no workspaces.
    known = [s for s in second.last_state if id_of(1) in json.dumps(s)]
    assert len(known) == 2


def test_account_on_no_page_of_one_read(serve: Serve) -> None:
    """If one read of the list misses an account, its row is not deleted."""
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    first = sync(sandbox)

    shifted = json.dumps({"result": [], "next_cursor": None})
    sandbox.environment.faults.append(faults.body(shifted, kind="accounts"))
    second = sync(sandbox, first)

    assert second.of_type("RECORD") == []
    assert kinds(sandbox)["accounts"] == 3


def test_workspaces_no_longer_supported(serve: Serve) -> None:
    """If Truto no longer supports the workspaces, no deletions are inferred."""
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
def test_no_column_for_deletions(serve: Serve, stream: str) -> None:
    """Without the column for deletions, tombstones wait until the column is selected."""
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
def test_eighth_integration(serve: Serve, category: str, is_read: bool) -> None:
    """The category decides whether an eighth integration is read."""
    other = numbered_account(
        1, "newsletterly", segments=vendors.segments("flodesk", 2), category=category
    )
    result = read(serve(numbered_account(0), other), streams=ALL_STREAMS, additional_accounts=ALL)

    assert result.failure is None
    expected = {id_of(0), id_of(1)} if is_read else {id_of(0)}
    assert {key[0] for key in keys(result, "segments")} == expected
    assert {key[0] for key in keys(result, "integrated_accounts")} == expected


def test_integration_without_segments(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If an integration has no segments, one line reports that its accounts are left out."""
    caplog.set_level("INFO")
    others = [
        numbered_account(n, "smsly", segments=[], category="marketing-automation")
        for n in range(1, 4)
    ]
    sandbox = serve(numbered_account(0), *others)

    result = sync(sandbox)

    assert result.failure is None
    assert result.errors == []
    assert {key[0] for key in keys(result, "segments")} == {id_of(0)}
    # Their rows show nevertheless whose connections they are.
    assert len(keys(result, "integrated_accounts")) == 4
    for stream in ALL_STREAMS:
        assert result.statuses_of(stream)[-1] == "COMPLETE"
    lines = [line for line in caplog.messages if "smsly" in line]
    assert lines == ["Truto has no segments for the integration smsly; its accounts are left out."]


@pytest.mark.parametrize("option", [{"mode": "all", "integrations": ["SMSly"]}, listed(1)])
def test_user_names_integration_without_segments(serve: Serve, option: dict[str, Any]) -> None:
    """If the user lists an integration without segments, its account fails."""
    other = numbered_account(1, "smsly", segments=[], category="marketing-automation")
    result = read(serve(numbered_account(0), other), additional_accounts=option)

    (error,) = result.errors
    assert f"account {id_of(1)} failed: Truto does not support this resource" in error["message"]
    assert result.statuses[-1] == "INCOMPLETE"


def test_first_account_no_segments(serve: Serve) -> None:
    """In mode all, the configured account fails if it has no segments."""
    sandbox = serve(
        numbered_account(0, "smsly", segments=[], category="marketing-automation"),
        numbered_account(1),
    )

    result = read(sandbox, additional_accounts=ALL)

    (error,) = result.errors
    assert f"account {id_of(0)} failed: Truto does not support this resource" in error["message"]


@pytest.mark.parametrize("option", [{"mode": "none"}, listed(0), ALL], ids=lambda o: o["mode"])
@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_account_refused_or_recovers(serve: Serve, option: dict[str, Any], mode: str) -> None:
    """The row of an account that is refused, or recovers, has its status after the sync."""
    # A request that the vendor refuses, or that succeeds, changes the status that Truto reports.
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
def test_account_deleted_after_listed(
    serve: Serve, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An account that is deleted after it was listed is no failure."""
    caplog.set_level("INFO")
    sandbox = serve(numbered_account(0), numbered_account(1))
    first = sync(sandbox)
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
    assert f"Integrated account {id_of(1)} was deleted during the sync." in caplog.text
    assert deleted_ids(second, "integrated_accounts") == ([id_of(1)] if known else [])
    assert {row["id"] for row in second.records_of("integrated_accounts")} == (
        {id_of(1)} if known else {id_of(0)}
    )


def test_404_of_existing_account(serve: Serve) -> None:
    """A 404 of an account that still exists is a failure."""
    account = numbered_account(1, faults=[faults.account_not_found(kind="segments", times=None)])
    sandbox = serve(numbered_account(0), account)

    result = sync(sandbox)

    assert "Truto has no such account" in str(result.failure)
    assert len(result.records_of("integrated_accounts")) == 2


def test_dead_entry_in_list(serve: Serve) -> None:
    """If the list has a dead entry, the deletion of another account is still detected."""
    # An entry without an integration is a row, and one without an id hides nobody.
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    first = sync(sandbox)

    del sandbox.environment.accounts[2]
    entries = [account_object(account) for account in sandbox.environment.accounts]
    entries[1]["integration"] = None
    page = json.dumps({"result": [*entries, {"id": None}, None], "next_cursor": None})
    sandbox.environment.faults = [faults.body(page, kind="accounts", times=None)]
    second = sync(sandbox, first)

    assert second.failure is None
    assert deleted_ids(second, "integrated_accounts") == [id_of(2)]
    (row,) = [r for r in second.records_of("integrated_accounts") if r["id"] == id_of(1)]
    assert "integration" not in row


@pytest.mark.parametrize(
    ("fault", "cause", "advice"),
    [
        (
            faults.truto_error(403, "Not for you", kind="account", times=None),
            "Truto denied access to the account's object",
            "deselect the stream integrated_accounts",
        ),
        (
            faults.truto_failed(kind="account", times=None),
            "Truto had an internal error",
            "the next sync tries again",
        ),
    ],
    ids=["forbidden", "failed"],
)
@pytest.mark.parametrize("on_account_error", ["skip", "fail"])
def test_no_answer_about_deleted_account(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    cause: str,
    advice: str,
    on_account_error: str,
) -> None:
    """If Truto does not say whether an account was deleted, its row stays, and is reported."""
    sandbox = serve(*[numbered_account(number) for number in range(4)])
    options: dict[str, Any] = {
        "configured": incremental(),
        "on_account_error": on_account_error,
        "additional_accounts": ALL,
    }
    first = read(sandbox, **options)

    del sandbox.environment.accounts[1:]
    sandbox.environment.faults = [fault]
    second = read(sandbox, state=first.last_state, **options)

    assert second.of_type("RECORD") == []
    begin = f"Reading integrated account {id_of(1)} failed: {cause}"
    (text,) = [text for text in warnings_in(caplog) if text.startswith(begin)]
    assert "missing from Truto's list" in text
    assert advice in text
    is_fatal = on_account_error == "fail"
    summary = str(second.failure) if is_fatal else caplog.messages[-1]
    assert summary.startswith("3 of 4 integrated accounts could not be read")
    assert (second.failure is not None) is is_fatal
    ends = ["INCOMPLETE" if is_fatal else "COMPLETE", "COMPLETE"]
    assert [second.statuses_of("integrated_accounts")[-1], second.statuses[-1]] == ends

    sandbox.environment.faults = []
    third = read(sandbox, state=second.last_state, **options)
    assert deleted_ids(third, "integrated_accounts") == sorted(map(id_of, (1, 2, 3)))


@pytest.mark.parametrize("count", [1, 5])
def test_existing_accounts_not_in_list(
    serve: Serve, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """One warning says how many accounts exist, but are not in Truto's list."""
    accounts = [numbered_account(number) for number in range(count + 1)]
    sandbox = serve(*accounts)
    first = sync(sandbox)

    page = json.dumps({"result": [account_object(accounts[0])], "next_cursor": None})
    sandbox.environment.faults = [faults.body(page, kind="accounts", times=None)]
    second = sync(sandbox, first)

    ids = sorted(account.id for account in accounts[1:])
    (text,) = warnings_in(caplog)
    assert f"existing accounts ({count}): {', '.join(ids[:3])}" in text
    assert not set(ids[3:]) & set(text.replace(",", " ").split())
    assert (second.of_type("RECORD"), second.failure) == ([], None)
    assert second.statuses_of("integrated_accounts")[-1] == "COMPLETE"

    sandbox.environment.faults = []
    assert sync(sandbox, second).of_type("RECORD") == []


def test_empty_list(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If the list is empty, a later sync has to find it empty as well."""
    sandbox = serve(*[numbered_account(number) for number in range(3)])
    state = sync(sandbox).last_state
    del sandbox.environment.accounts[2]
    empty = faults.body('{"result": [], "next_cursor": null}', kind="accounts", times=None)
    sandbox.environment.faults = [empty]

    found = []
    for hours in (0, 0, 1):
        state = aged(state, hours)
        result = read(sandbox, configured=incremental(), state=state, additional_accounts=ALL)
        state = result.last_state
        found.append(deleted_ids(result, "integrated_accounts"))

    # The second account still exists, as Truto responds when it is asked for it.
    assert found == [[], [], [id_of(2)]]
    assert "list of integrated accounts is empty, but the last sync knew 2 accounts." in caplog.text


@pytest.mark.parametrize(
    "other",
    [{"mode": "none"}, {**ALL, "integrations": ["klavyio"]}, {**ALL, "integrations": ["brevo"]}],
    ids=["none", "typing mistake", "another"],
)
def test_accounts_leave_configuration(serve: Serve, other: dict[str, Any]) -> None:
    """If accounts leave the configuration and come back, their deletions are emitted."""
    # The syncs read all accounts, then others, then all again.
    accounts = [numbered_account(0, "brevo", workspaces={"w": []})]
    accounts += [numbered_account(number) for number in range(1, 4)]
    sandbox = serve(*accounts)
    first = sync(sandbox)

    gone = accounts[1].segments[0]["id"]
    accounts[1].segments = accounts[1].segments[1:]
    del sandbox.environment.accounts[3]
    without = read(
        sandbox, configured=incremental(), state=first.last_state, additional_accounts=other
    )
    assert deleted(without, "segments") == []
    again = sync(sandbox, without)

    assert without.records_of("segments") == []
    assert deleted_ids(again, "segments") == [gone]
    rows_deleted = [id_ for r in (without, again) for id_ in deleted_ids(r, "integrated_accounts")]
    assert rows_deleted == [id_of(3)]
    assert len(again.of_type("RECORD")) + len(without.of_type("RECORD")) == 2


@pytest.mark.parametrize("streams", [("segments",), ("workspaces",)])
def test_account_does_not_heal(serve: Serve, streams: tuple[str, ...]) -> None:
    """If an account does not heal, its failure contains what the list says about it."""
    bad = numbered_account(
        1, "brevo", tenant_id="acme", status="needs_reauth", last_error="invalid_grant"
    )
    sandbox = serve(numbered_account(0, "brevo"), bad)

    result = read(sandbox, streams=streams, additional_accounts=ALL)

    (error,) = result.errors
    detail = ' (brevo of tenant acme; status needs_reauth; last error: "invalid_grant"). '
    assert id_of(1) in error["message"]
    assert detail in error["message"]


# --- check ----------------------------------------------------------------------------------------


def test_check_in_mode_all(serve: Serve) -> None:
    """In mode all, the check asks listed accounts and those that are not active."""
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
    assert first == ("Asked 4 of 5 integrated accounts for segments: 2 of these cannot be read.")
    assert [next(n for n in range(6) if id_of(n) in line) for line in lines] == [2, 4]
    assert '(klaviyo of tenant acme; status needs_reauth; last error: "revoked")' in lines[0]


def test_check_in_mode_all_succeeds(serve: Serve) -> None:
    """In mode all, the check succeeds if all accounts that it asks respond."""
    optional = numbered_account(
        2, "smsly", segments=[], category="marketing-automation", status="connecting"
    )
    optional.heals_on_request = True
    healing = numbered_account(1, status="needs_reauth", heals_on_request=True)
    sandbox = serve(numbered_account(0), healing, optional)

    status, message = check(sandbox, additional_accounts=ALL)

    assert (status, message) == (Status.SUCCEEDED, None)
    assert kinds(sandbox) == {"accounts": 1, "segments": 3}


def test_check_of_listed_accounts(serve: Serve) -> None:
    """A check of listed accounts does not request the list."""
    sandbox = serve(numbered_account(0), numbered_account(1, status="needs_reauth"))

    status, message = check(sandbox, additional_accounts=listed(1))

    assert status is Status.FAILED
    assert id_of(1) in str(message)
    assert kinds(sandbox) == {"segments": 2, "account": 1}


@pytest.mark.parametrize("status", [403, 404])
def test_check_of_the_object(serve: Serve, status: int) -> None:
    """The check warns if Truto refuses the account's object, though its segments can be read."""
    refused = faults.truto_error(status, "Not for you", kind="account", times=None)
    status_, message = check(serve(account(), faults=[refused]))

    reason = "Truto denied access to the account's object" if status == 403 else "Truto has no such"
    assert status_ is Status.SUCCEEDED
    assert str(message).startswith(
        f"The stream integrated_accounts cannot be read. Reading integrated account {ACCOUNT_ID} "
        f"failed: {reason}"
    )
    assert "deselect the stream" in str(message) or status == 404


@pytest.mark.parametrize("fault", [faults.truto_failed, faults.vendor_failed, faults.gateway])
def test_check_without_evidence(serve: Serve, fault: Callable[..., Fault]) -> None:
    """Another failure of the object's request does not concern the connection."""
    sandbox = serve(account(), faults=[fault(kind="account", times=None)])

    assert check(sandbox) == (Status.SUCCEEDED, None)


def test_check_with_forbidden_token(serve: Serve) -> None:
    """If the segments cannot be read, the check does not ask for the account's object."""
    sandbox = serve(account(), faults=[faults.token_forbidden(times=None)])

    assert check(sandbox)[0] is Status.FAILED
    assert kinds(sandbox) == {"segments": 1}


@pytest.mark.parametrize("more", [{"mode": "none"}, listed(1)])
def test_object_refused(serve: Serve, more: dict[str, Any]) -> None:
    """If a token may not read accounts' objects, only their stream fails."""
    refused = faults.truto_error(403, "Not for you", kind="account", times=None)
    sandbox = serve(numbered_account(0), numbered_account(1), faults=[refused])
    result = read(sandbox, streams=ALL_STREAMS, additional_accounts=more)

    assert len(result.records) == 3 * (1 if more["mode"] == "none" else 2)
    assert result.statuses[-1] == "COMPLETE"
    assert result.statuses_of("workspaces")[-1] == "COMPLETE"
    assert result.statuses_of("integrated_accounts")[-1] == "INCOMPLETE"
    assert all("denied access to the account's object" in e["message"] for e in result.errors[:1])
    assert "deselect the stream integrated_accounts" in result.errors[0]["message"]


def test_object_and_connection_refused(serve: Serve) -> None:
    """A vendor's answer shows that Truto accepts the token, so the sync goes on as well."""
    refused = faults.truto_error(403, "Not for you", kind="account", times=None)
    bad = numbered_account(0, faults=[faults.credentials_refused(times=None)])
    sandbox = serve(bad, numbered_account(1), faults=[refused])
    result = read(sandbox, streams=ALL_STREAMS, additional_accounts=listed(1))

    assert len(result.records) == 3
