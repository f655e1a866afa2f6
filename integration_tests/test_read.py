"""One integrated account, from the API to the messages."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pytest
from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer
from jsonschema import Draft7Validator

from integration_tests.support import ACCOUNT_ID, account, catalog, config, read
from sandbox import MISSING, Sandbox, faults, vendors
from sandbox.environment import VENDORS_WITH_WORKSPACES
from source_truto_segments import SourceTrutoSegments

Serve = Callable[..., Sandbox]
VENDORS = (
    "activecampaign",
    "beehiiv",
    "brevo",
    "customerio",
    "flodesk",
    "klaviyo",
    "mailerlite",
)


def schema(sandbox: Sandbox) -> dict[str, Any]:
    streams = SourceTrutoSegments().streams(config(sandbox))
    return dict(next(s for s in streams if s.name == "segments").get_json_schema())


@pytest.mark.parametrize("vendor", VENDORS)
def test_given_each_vendor_when_read_then_every_segment_comes_once_and_matches_the_schema(
    serve: Serve, vendor: str
) -> None:
    segments = vendors.segments(vendor, 57)
    workspaces = {"ws-1": segments[:30], "ws-2": segments[30:]}
    how: dict[str, Any] = (
        {"workspaces": workspaces} if vendor == "beehiiv" else {"segments": segments}
    )
    sandbox = serve(account(vendor, **how))

    result = read(sandbox)

    assert result.failure is None
    assert result.statuses == ["STARTED", "RUNNING", "COMPLETE"]
    assert result.ids == [str(segment["id"]) for segment in segments]
    validator = Draft7Validator(schema(sandbox), format_checker=Draft7Validator.FORMAT_CHECKER)
    assert [
        error.message for record in result.records for error in validator.iter_errors(record)
    ] == []
    assert {record["integrated_account_id"] for record in result.records} == {ACCOUNT_ID}
    for record, segment in zip(result.records, segments, strict=True):
        assert record["remote_data"] == segment["remote_data"]
        assert record["name"] == segment["name"]


def test_given_the_format_checker_when_a_date_is_not_valid_then_it_reports_it(serve: Serve) -> None:
    validator = Draft7Validator(schema(serve()), format_checker=Draft7Validator.FORMAT_CHECKER)
    assert list(validator.iter_errors({"created_at": "2023-13-01T00:00:00Z"}))


def test_given_beehiiv_when_read_then_each_workspace_is_read_and_named(serve: Serve) -> None:
    segments = vendors.segments("beehiiv", 23)
    sandbox = serve(
        account("beehiiv", workspaces={"pub_a": segments[:12], "pub_b": [], "pub_c": segments[12:]})
    )

    result = read(sandbox)

    named = Counter(record["workspace_id"] for record in result.records)
    assert named == {"pub_a": 12, "pub_c": 11}
    assert len(result.ids) == len(set(result.ids)) == 23


def test_given_a_workspace_is_configured_when_read_then_only_that_one_is_read(serve: Serve) -> None:
    segments = vendors.segments("beehiiv", 8)
    sandbox = serve(account("beehiiv", workspaces={"a": segments[:3], "b": segments[3:]}))

    result = read(sandbox, workspace_id=" b ")

    assert {record["workspace_id"] for record in result.records} == {"b"}
    assert len(result.records) == 5
    # Whether the account has the workspace is asked, as its integration is not known.
    assert {request.kind for request in sandbox.requests} == {"workspaces", "segments"}


def test_given_beehiiv_without_a_workspace_when_read_then_it_has_no_segments(serve: Serve) -> None:
    result = read(serve(account("beehiiv", segments=[])))

    assert result.records == []
    assert result.statuses[-1] == "COMPLETE"


def test_given_workspaces_are_optional_when_read_then_they_are_not_requested(serve: Serve) -> None:
    for vendor in sorted(VENDORS_WITH_WORKSPACES - {"beehiiv"}):
        sandbox = serve(account(vendor))
        read(sandbox)
        assert {request.kind for request in sandbox.requests} == {"segments"}


@pytest.mark.parametrize("style", ["plain", "special", "long"])
def test_given_any_cursor_when_read_then_it_is_sent_back_unchanged(
    serve: Serve, style: str
) -> None:
    sandbox = serve(account(count=35, cursor_style=style))

    result = read(sandbox)

    assert len(set(result.ids)) == 35
    assert len(sandbox.requests) == 4


@pytest.mark.parametrize("end", [None, "", MISSING])
def test_given_any_end_of_the_list_when_read_then_it_ends(serve: Serve, end: Any) -> None:
    assert len(read(serve(account(count=20, last_cursor=end))).records) == 20


def test_given_empty_pages_with_a_cursor_when_read_then_they_are_passed_over(serve: Serve) -> None:
    sandbox = serve(account(count=30, empty_pages=3))

    result = read(sandbox)

    assert len(set(result.ids)) == 30
    assert len(sandbox.requests) == 3 + 3 * 3


@pytest.mark.parametrize("form", ["list", "keyed", "bare"])
def test_given_any_form_of_the_result_when_read_then_its_records_come(
    serve: Serve, form: str
) -> None:
    result = read(serve(account(count=21, form=form)))

    assert len(set(result.ids)) == 21


def test_given_no_segment_when_read_then_the_stream_is_complete(serve: Serve) -> None:
    result = read(serve(account(count=0)))

    assert result.records == []
    assert result.statuses == ["STARTED", "COMPLETE"]
    assert len(result.states) == 1


@pytest.mark.parametrize(("loop", "most"), [("cursor", 3), ("page", 3)])
def test_given_a_vendor_that_loops_when_read_then_it_ends_within_a_few_requests(
    serve: Serve, loop: str, most: int
) -> None:
    sandbox = serve(account(count=100, loop=loop))

    result = read(sandbox)

    assert result.failure is not None
    assert "pagination loop detected" in str(result.failure)
    assert ACCOUNT_ID in str(result.failure)
    assert result.statuses[-1] == "INCOMPLETE"
    assert len(sandbox.requests) <= most
    assert len(result.ids) == len(set(result.ids)) > 0


def test_given_empty_pages_without_end_when_read_then_it_ends_too(serve: Serve) -> None:
    sandbox = serve(account(count=100, loop="empty"))

    result = read(sandbox)

    assert "1000 empty pages" in str(result.failure)
    assert len(sandbox.requests) == 1000


def test_given_a_partial_response_when_read_then_a_warning_reports_it_and_nothing_stops(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    result = read(serve(account(count=25, partial=True)))

    assert len(result.records) == 25
    assert result.statuses[-1] == "COMPLETE"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "marked as partial: 1." in warning
    assert ACCOUNT_ID in warning


def test_given_a_mark_on_a_page_that_has_a_next_one_when_read_then_it_says_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """For some mappings the mark means that there are more pages."""
    read(serve(account(count=25, partial="inner")))

    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_given_filters_when_read_then_each_request_carries_them(serve: Serve) -> None:
    workspaces = {"ws": vendors.segments("brevo", 25)}
    sandbox = serve(account("brevo", segments=[], workspaces=workspaces))

    read(
        sandbox,
        page_size=7,
        tag_id=" tag-1 ",
        workspace_id="ws",
        remote_query=[
            {"name": "sort", "value": "-updated"},
            {"name": "next_cursor", "value": "x&y=1"},
            {"name": "sort", "value": "name"},
        ],
    )

    sent = [request for request in sandbox.requests if request.kind == "segments"]
    assert len(sent) == 4
    for request in sent:
        assert request.param("limit") == "7"
        assert request.param("tags[id]") == "tag-1"
        assert request.param("workspace[id]") == "ws"
        assert request.params("remote_query[sort]") == ["-updated", "name"]
        assert request.param("remote_query[next_cursor]") == "x&y=1"
        assert request.param("integrated_account_id") == ACCOUNT_ID
        assert request.headers["Accept"] == "application/json"


def test_given_no_filters_when_read_then_none_is_sent(serve: Serve) -> None:
    sandbox = serve(account(count=5))

    read(sandbox)

    (request,) = sandbox.requests
    assert request.query == [("integrated_account_id", ACCOUNT_ID)]


def test_given_pasted_white_space_when_read_then_it_is_ignored(serve: Serve) -> None:
    sandbox = serve(account(count=5))

    result = read(
        sandbox,
        token=f"\n Bearer {sandbox.environment.token} \t",
        integrated_account_id=f" {ACCOUNT_ID.upper()}\n",
        api_url=f" {sandbox.url}/ ",
    )

    assert len(result.records) == 5
    assert {record["integrated_account_id"] for record in result.records} == {ACCOUNT_ID}


def test_given_values_of_another_type_when_read_then_they_are_null_and_named(serve: Serve) -> None:
    good, bad = vendors.segments("klaviyo", 2)
    bad = {**bad, "created_at": "yesterday", "name": {"en": "x"}, "custom": [1, {"a": None}]}
    result = read(serve(account(segments=[good, bad])))

    first, second = result.of_type("RECORD")
    assert "meta" not in first
    assert second["meta"]["changes"] == [
        {"field": "name", "change": "NULLED", "reason": "SOURCE_SERIALIZATION_ERROR"},
        {"field": "created_at", "change": "NULLED", "reason": "SOURCE_SERIALIZATION_ERROR"},
    ]
    assert "name" not in second["data"]
    assert second["data"]["custom"] == [1, {"a": None}]


def test_given_entries_that_are_not_objects_when_read_then_a_warning_counts_them(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    page = '{"result": [{"id": "1"}, null, "x", {"name": "no id"}], "next_cursor": null}'
    result = read(serve(account(faults=[faults.body(page)])))

    assert [record.get("id") for record in result.records] == ["1", None]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("not objects: 2." in warning for warning in warnings)
    assert any("without an id: 1." in warning for warning in warnings)


def test_given_lone_surrogates_when_read_then_the_page_is_read(serve: Serve) -> None:
    page = '{"result": [{"id": "1", "name": "a\\ud800b"}], "next_cursor": null}'
    result = read(serve(account(faults=[faults.body(page)])))

    assert [record["name"] for record in result.records] == ["a\N{REPLACEMENT CHARACTER}b"]


def test_given_a_state_of_a_finished_sync_when_read_then_it_precedes_the_status(
    serve: Serve,
) -> None:
    result = read(serve(account(count=5)))

    kinds = [message["type"] for message in result.messages]
    (state,) = result.states
    assert state["stream"]["stream_state"] == {"__ab_no_cursor_state_message": True}
    assert kinds[-2:] == ["STATE", "TRACE"]


def test_given_a_consumer_that_leaves_when_read_then_the_workers_end(serve: Serve) -> None:
    sandbox = serve(
        account("activecampaign", count=30_000, default_page_size=15_000, max_page_size=15_000)
    )
    source = SourceTrutoSegments()
    configured = ConfiguredAirbyteCatalogSerializer.load(catalog())
    messages = source.read(logging.getLogger("airbyte.test"), config(sandbox), configured, [])
    before = set(threading.enumerate())
    for _ in range(10):
        next(messages)
    during = set(threading.enumerate())
    assert isinstance(messages, Generator)
    messages.close()

    assert before < during
    assert set(threading.enumerate()) <= before
