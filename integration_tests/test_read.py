"""One integrated account, from the API to the messages."""

import logging
import threading
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer

from integration_tests.support import ACCOUNT_ID, Serve, account, catalog, config, read, warnings_in
from sandbox import MISSING, vendors
from sandbox.environment import VENDORS_WITH_WORKSPACES
from source_truto_segments import SourceTrutoSegments


def test_workspaces_of_beehiiv(serve: Serve) -> None:
    """Each workspace of Beehiiv is read, and the rows have its ID."""
    segments = vendors.segments("beehiiv", 23)
    sandbox = serve(
        account("beehiiv", workspaces={"pub_a": segments[:12], "pub_b": [], "pub_c": segments[12:]})
    )

    result = read(sandbox)

    named = Counter(record["workspace_id"] for record in result.records)
    assert named == {"pub_a": 12, "pub_c": 11}
    assert len(result.ids) == len(set(result.ids)) == 23


def test_workspace_configured(serve: Serve) -> None:
    """If a workspace is configured, only that one is read."""
    segments = vendors.segments("beehiiv", 8)
    sandbox = serve(account("beehiiv", workspaces={"a": segments[:3], "b": segments[3:]}))

    result = read(sandbox, workspace_id=" b ")

    assert {record["workspace_id"] for record in result.records} == {"b"}
    assert len(result.records) == 5
    # The connector asks whether the account has the workspace, since its integration is not known.
    assert {request.kind for request in sandbox.requests} == {"workspaces", "segments"}


def test_workspaces_optional(serve: Serve) -> None:
    """If workspaces are optional, they are not requested."""
    for vendor in sorted(VENDORS_WITH_WORKSPACES - {"beehiiv"}):
        sandbox = serve(account(vendor))
        read(sandbox)
        assert {request.kind for request in sandbox.requests} == {"segments"}


@pytest.mark.parametrize("style", ["plain", "special", "long"])
def test_any_cursor(serve: Serve, style: str) -> None:
    """Any cursor is sent back unchanged."""
    sandbox = serve(account(count=35, cursor_style=style))

    result = read(sandbox)

    assert len(set(result.ids)) == 35
    assert len(sandbox.requests) == 4


@pytest.mark.parametrize("end", [None, "", MISSING])
def test_end_of_list(serve: Serve, end: Any) -> None:
    """A list ends with a cursor that is null, empty or missing."""
    assert len(read(serve(account(count=20, last_cursor=end))).records) == 20


def test_empty_pages_with_cursor(serve: Serve) -> None:
    """Empty pages with a cursor are skipped."""
    sandbox = serve(account(count=30, empty_pages=3))

    result = read(sandbox)

    assert len(set(result.ids)) == 30
    assert len(sandbox.requests) == 3 + 3 * 3


@pytest.mark.parametrize("form", ["list", "keyed", "bare"])
def test_any_form_of_result(serve: Serve, form: str) -> None:
    """In any form of the result, its records are read."""
    result = read(serve(account(count=21, form=form)))

    assert len(set(result.ids)) == 21


def test_no_segments(serve: Serve) -> None:
    """A stream without segments is complete."""
    result = read(serve(account(count=0)))

    assert result.records == []
    assert result.statuses == ["STARTED", "COMPLETE"]
    assert len(result.states) == 1


@pytest.mark.parametrize(("loop", "most"), [("cursor", 3), ("page", 3)])
def test_vendor_loops(serve: Serve, loop: str, most: int) -> None:
    """If a vendor loops, the sync fails within a few requests."""
    sandbox = serve(account(count=100, loop=loop))

    result = read(sandbox)

    assert result.failure is not None
    assert "pagination loop detected" in str(result.failure)
    assert ACCOUNT_ID in str(result.failure)
    assert result.statuses[-1] == "INCOMPLETE"
    assert len(sandbox.requests) <= most
    assert len(result.ids) == len(set(result.ids)) > 0


def test_empty_pages_without_end(serve: Serve) -> None:
    """If empty pages never end, the sync fails."""
    sandbox = serve(account(count=100, loop="empty"))

    result = read(sandbox)

    assert "1000 empty pages" in str(result.failure)
    assert len(sandbox.requests) == 1000


def test_partial_response(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A warning reports a partial response, and the sync goes on."""
    result = read(serve(account(count=25, partial=True)))

    assert len(result.records) == 25
    assert result.statuses[-1] == "COMPLETE"
    (warning,) = warnings_in(caplog)
    assert "marked as partial: 1." in warning
    assert ACCOUNT_ID in warning


def test_partial_page_before_another(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """On a page that has a next one, the mark of a partial response means nothing."""
    # For some mappings the mark means that there are more pages.
    read(serve(account(count=25, partial="inner")))

    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_filters(serve: Serve) -> None:
    """Each request has the configured filters."""
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


def test_no_filters(serve: Serve) -> None:
    """Without filters, none is sent."""
    sandbox = serve(account(count=5))

    read(sandbox)

    (request,) = sandbox.requests
    assert request.query == [("integrated_account_id", ACCOUNT_ID)]


def test_pasted_white_space(serve: Serve) -> None:
    """White space around pasted settings is ignored."""
    sandbox = serve(account(count=5))

    result = read(
        sandbox,
        token=f"\n Bearer {sandbox.environment.token} \t",
        integrated_account_id=f" {ACCOUNT_ID.upper()}\n",
        api_url=f" {sandbox.url}/ ",
    )

    assert len(result.records) == 5
    assert {record["integrated_account_id"] for record in result.records} == {ACCOUNT_ID}


def test_state_of_finished_sync(serve: Serve) -> None:
    """The state of a finished sync precedes its status."""
    result = read(serve(account(count=5)))

    kinds = [message["type"] for message in result.messages]
    (state,) = result.states
    assert state["stream"]["stream_state"] == {"__ab_no_cursor_state_message": True}
    assert kinds[-2:] == ["STATE", "TRACE"]


def test_consumer_leaves(serve: Serve) -> None:
    """If the consumer leaves, the workers end."""
    sandbox = serve(account("activecampaign", count=6_000, default_page_size=3_000))
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
    for thread in during - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
