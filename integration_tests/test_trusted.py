"""What users trust a connector for, and the CDK's suite no longer checks."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration_tests.support import Result, catalog, read
from sandbox import Environment, Sandbox, demo_environment

Serve = Callable[..., Sandbox]
FOLDER = Path(__file__).parent / "acceptance"
SPEC = Path(__file__).parent.parent / "source_truto_segments" / "spec.json"
ALL = {"mode": "all"}


@pytest.fixture
def demo() -> Iterator[Sandbox]:
    with Sandbox(demo_environment()) as sandbox:
        yield sandbox


def by_key(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["integrated_account_id"], r["id"]): r for r in result.records}


def vendors_of(environment: Environment) -> dict[str, str]:
    return {account.id: account.vendor for account in environment.accounts}


def test_given_each_vendor_when_read_then_its_first_records_are_as_expected(demo: Sandbox) -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    for record in read(demo, additional_accounts=ALL).records:
        vendor = vendors_of(demo.environment)[record["integrated_account_id"]]
        found.setdefault(vendor, []).append(record)
    first = {
        vendor: sorted(records, key=lambda record: str(record["id"]))[:3]
        for vendor, records in found.items()
    }

    assert first == json.loads((FOLDER / "expected_records.json").read_text())
    assert len(first) == 7


def test_given_two_full_refreshes_when_compared_then_they_are_identical(demo: Sandbox) -> None:
    first = read(demo, additional_accounts=ALL)
    second = read(demo, additional_accounts=ALL)

    assert by_key(first) == by_key(second)
    assert len(by_key(first)) == len(first.records) == 204


def test_given_two_incremental_syncs_when_compared_then_the_second_has_what_may_be_new(
    demo: Sandbox,
) -> None:
    asked = catalog("incremental")
    first = read(demo, asked=asked, additional_accounts=ALL)
    state = [{k: v for k, v in first.states[-1].items() if k != "sourceStats"}]
    second = read(demo, asked=asked, state=state, additional_accounts=ALL)

    assert len(first.records) == 204
    expected = {
        key
        for key, record in by_key(first).items()
        if "updated_at" not in record
        or record["updated_at"]
        == max(
            other["updated_at"]
            for other in first.records
            if other["integrated_account_id"] == key[0] and "updated_at" in other
        )
    }
    assert set(by_key(second)) == expected
    assert 0 < len(second.records) < 204


def test_given_a_state_far_in_the_future_when_incremental_then_nothing_dated_comes(
    demo: Sandbox,
) -> None:
    accounts = [account.id for account in demo.environment.accounts]
    future = {"updated_at": "2999-01-01T00:00:00Z"}
    states = [{"partition": {"integrated_account_id": id_}, "cursor": future} for id_ in accounts]
    message = {
        "type": "STREAM",
        "stream": {
            "stream_descriptor": {"name": "segments"},
            "stream_state": {"states": states},
        },
    }
    result = read(demo, asked=catalog("incremental"), state=[message], additional_accounts=ALL)

    assert [record for record in result.records if "updated_at" in record] == []
    assert result.statuses[-1] == "COMPLETE"


def test_the_spec_takes_every_configuration_that_the_last_release_took() -> None:
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


def test_each_option_of_the_spec_has_one_common_const() -> None:
    fields = json.loads(SPEC.read_text())["connectionSpecification"]["properties"]
    forms = [form for field in fields.values() for form in field.get("oneOf", [])]

    assert len(forms) == 3
    for form in forms:
        constants = [name for name, option in form["properties"].items() if "const" in option]
        assert constants == ["mode"]
        assert "mode" in form["required"]


def modes(field: dict[str, Any]) -> set[str]:
    return {form["properties"]["mode"]["const"] for form in field.get("oneOf", [])}
