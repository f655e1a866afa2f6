"""What users and the CDK rely on, and the CDK's own suite does not check."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from airbyte_cdk.models import FailureType, SyncMode
from airbyte_cdk.sources.streams.http import HttpStream
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from integration_tests.support import ALL, ALL_STREAMS, config, read
from sandbox import Environment, Sandbox, demo_environment
from source_truto_segments import SourceTrutoSegments

FOLDER = Path(__file__).parent / "acceptance"
SPEC = Path(__file__).parent.parent / "source_truto_segments" / "spec.json"


@pytest.fixture
def demo() -> Iterator[Sandbox]:
    with Sandbox(demo_environment()) as sandbox:
        yield sandbox


def without_time(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{k: v for k, v in r.items() if k != "_ab_cdc_updated_at"} for r in records]
    return sorted(kept, key=str)


def vendors_of(environment: Environment) -> dict[str, str]:
    return {account.id: account.vendor for account in environment.accounts}


def test_each_vendor(demo: Sandbox) -> None:
    """The first records of each vendor are as expected."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in read(demo, additional_accounts=ALL).rows:
        vendor = vendors_of(demo.environment)[record["integrated_account_id"]]
        found.setdefault(vendor, []).append(record)
    first = {
        vendor: sorted(records, key=lambda record: str(record["id"]))[:3]
        for vendor, records in found.items()
    }

    assert first == json.loads((FOLDER / "expected_records.json").read_text())
    assert len(first) == 7


def test_two_full_refreshes(demo: Sandbox) -> None:
    """Two full refreshes of all streams return the same records."""
    first, second = (read(demo, streams=ALL_STREAMS, additional_accounts=ALL) for _ in range(2))

    for stream, count in (("segments", 204), ("integrated_accounts", 7), ("workspaces", 2)):
        assert len(first.records_of(stream)) == count
        assert without_time(first.records_of(stream)) == without_time(second.records_of(stream))


def test_cdk_read(demo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CDK can read a stream like any other HTTP stream."""
    timeouts: list[Any] = []
    send = requests.Session.send

    def spy(session: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        timeouts.append(kwargs.get("timeout"))
        return send(session, *args, **kwargs)

    monkeypatch.setattr(requests.Session, "send", spy)
    streams = {stream.name: stream for stream in SourceTrutoSegments().streams(config(demo))}
    klaviyo, _, beehiiv, *_ = demo.environment.accounts
    in_workspace, *_ = beehiiv.workspaces.items()
    of_beehiiv = {"integrated_account_id": beehiiv.id}
    expected = (
        ("segments", {"integrated_account_id": klaviyo.id}, klaviyo.segments, 5),
        ("segments", {**of_beehiiv, "workspace_id": in_workspace[0]}, in_workspace[1], 1),
        ("workspaces", of_beehiiv, [{"id": id_} for id_ in beehiiv.workspaces], 1),
    )

    for name, stream_slice, records, pages in expected:
        demo.clear()
        stream = streams[name]
        assert isinstance(stream, HttpStream)
        found = list(stream.read_records(SyncMode.full_refresh, stream_slice=stream_slice))

        assert [r["id"] for r in found if isinstance(r, Mapping)] == [r["id"] for r in records]
        assert [request.status for request in demo.requests] == [200] * pages
    # Seconds to connect, and between two bytes of a response.
    assert timeouts == [(10.0, 60.0)] * 7


def test_cdk_read_equals_engine(demo: Sandbox) -> None:
    """The CDK's own read of each account returns the rows that the engine emits."""
    streams = {stream.name: stream for stream in SourceTrutoSegments().streams(config(demo))}
    segments = [
        row
        for account in demo.environment.accounts
        for workspace_id in (
            account.workspaces or [None] if account.vendor == "beehiiv" else [None]
        )
        for row in streams["segments"].read_records(
            SyncMode.full_refresh,
            stream_slice={"integrated_account_id": account.id, "workspace_id": workspace_id},
        )
    ]
    accounts = list(streams["integrated_accounts"].read_records(SyncMode.full_refresh))

    result = read(demo, streams=ALL_STREAMS, additional_accounts=ALL)
    assert sorted(segments, key=str) == sorted(result.rows, key=str)
    assert len(segments) == 204
    emitted = without_time(result.records_of("integrated_accounts"))
    assert sorted(accounts, key=str) == sorted(emitted, key=str)


@pytest.mark.parametrize("in_list", [True, False])
def test_cdk_read_drops_context(demo: Sandbox, in_list: bool) -> None:
    """An account's context, with the customer's settings and secrets, never gets past a parser."""
    first, *_ = demo.environment.accounts
    first.context = {"api_key": "customers-own-secret"}
    (stream,) = (
        stream
        for stream in SourceTrutoSegments().streams(config(demo))
        if stream.name == "integrated_accounts"
    )
    stream_slice = {} if in_list else {"integrated_account_id": first.id}

    rows = list(stream.read_records(SyncMode.full_refresh, stream_slice=stream_slice))
    assert len(rows) == (7 if in_list else 1)
    assert first.id in str(rows)
    assert "context" not in str(rows)
    assert "customers-own-secret" not in str(rows)


def test_cdk_read_reports_by_the_table(demo: Sandbox) -> None:
    """A failure in a read through the CDK has the message of the error table."""
    wrong = {**config(demo), "token": "wrong-token"}
    stream, *_ = SourceTrutoSegments().streams(wrong)
    stream_slice = {"integrated_account_id": demo.environment.accounts[0].id}

    with pytest.raises(AirbyteTracedException) as failure:
        list(stream.read_records(SyncMode.full_refresh, stream_slice=stream_slice))
    assert failure.value.failure_type is FailureType.config_error
    assert str(failure.value.message).startswith("Truto rejected the API token (HTTP 401")
    assert "Create an API token" in str(failure.value.message)


def test_spec_is_compatible() -> None:
    """The spec accepts every configuration that the spec of version 0.1.0 accepts."""
    now = json.loads(SPEC.read_text())["connectionSpecification"]
    released = json.loads((FOLDER / "spec_0.1.0.json").read_text())["connectionSpecification"]

    assert set(now["required"]) <= set(released["required"])
    for name, field in released["properties"].items():
        kept = now["properties"][name]
        assert kept["type"] == field["type"]
        assert set(kept.get("enum", [])) >= set(field.get("enum", []))
        assert kept.get("minimum", 0) <= field.get("minimum", 0)
        assert kept.get("maximum", 10**9) >= field.get("maximum", 10**9)
        assert kept.get("airbyte_secret") == field.get("airbyte_secret")
        assert modes(kept) >= modes(field)


def test_options_of_spec() -> None:
    """Each alternative in the spec has the constant `mode`, and only that."""
    fields = json.loads(SPEC.read_text())["connectionSpecification"]["properties"]
    forms = [form for field in fields.values() for form in field.get("oneOf", [])]

    assert len(forms) == 3
    for form in forms:
        constants = [name for name, option in form["properties"].items() if "const" in option]
        assert constants == ["mode"]
        assert "mode" in form["required"]


def modes(field: dict[str, Any]) -> set[str]:
    return {form["properties"]["mode"]["const"] for form in field.get("oneOf", [])}
