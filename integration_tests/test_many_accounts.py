"""Many accounts in one sync: found, read side by side, each on its own."""

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer, FailureType, Status
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from integration_tests.support import (
    ALL_STREAMS,
    catalog,
    check,
    config,
    id_of,
    listed,
    numbered_account,
    read,
    read_in_real_time,
)
from sandbox import Account, Fault, Sandbox, faults, large_environment, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.sync import sync
from source_truto_segments.sync.events import RecordsRead
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.truto import rate_limiter
from source_truto_segments.truto.responses import Page

Serve = Callable[..., Sandbox]
ALL = {"mode": "all"}


def read_ids(records: list[dict[str, Any]]) -> Counter[str]:
    return Counter(record["integrated_account_id"] for record in records)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_given_no_more_accounts_when_read_then_only_the_first_is(serve: Serve) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    for result in (read(sandbox), read(sandbox, additional_accounts={"mode": "none"})):
        assert read_ids(result.records) == {id_of(0): 3}


def test_given_listed_accounts_when_read_then_each_is_read_once(serve: Serve) -> None:
    sandbox = serve(
        numbered_account(0), numbered_account(1), numbered_account(2), numbered_account(3)
    )
    ids = [f" {id_of(1).upper()}\n", id_of(0), id_of(2), id_of(1)]

    result = read(sandbox, additional_accounts={"mode": "listed", "ids": ids})

    assert read_ids(result.records) == {id_of(0): 3, id_of(1): 3, id_of(2): 3}
    assert len(sandbox.requests) == 3
    keys = {(record["integrated_account_id"], record["id"]) for record in result.records}
    assert len(keys) == 9
    assert len({record["id"] for record in result.records}) == 3


@pytest.mark.parametrize("key", ["result", "results"])
def test_given_all_accounts_when_read_then_the_list_is_paged_through(
    serve: Serve, key: str
) -> None:
    sandbox = serve(
        *[numbered_account(number) for number in range(25)], list_page_size=4, list_key=key
    )

    result = read(sandbox, additional_accounts=ALL)

    assert read_ids(result.records) == {id_of(number): 3 for number in range(25)}
    assert Counter(request.kind for request in sandbox.requests) == {"accounts": 7, "segments": 25}


def test_given_all_accounts_when_one_is_connected_then_the_next_sync_reads_it(serve: Serve) -> None:
    sandbox = serve(numbered_account(0))
    assert set(read_ids(read(sandbox, additional_accounts=ALL).records)) == {id_of(0)}

    sandbox.environment.accounts.append(numbered_account(1, is_sandbox=True))

    found = read_ids(read(sandbox, additional_accounts=ALL).records)
    assert set(found) == {id_of(0), id_of(1)}


def test_given_other_integrations_when_read_then_they_are_left_alone(serve: Serve) -> None:
    sandbox = serve(
        numbered_account(0, "klaviyo"),
        numbered_account(1, "brevo"),
        numbered_account(2, "salesforce", segments=[{"id": "not a segment"}]),
        numbered_account(3, "mailerlite"),
        numbered_account(4, "klaviyo", tenant_id="acme"),
        numbered_account(5, "brevo", tenant_id="acme", status="needs_reauth"),
    )

    def found(**option: Any) -> set[str]:
        result = read(sandbox, additional_accounts={"mode": "all", **option})
        failed = {error["message"].split()[6] for error in result.errors}
        return set(read_ids(result.records)) | failed

    assert found() == {id_of(number) for number in (0, 1, 3, 4, 5)}
    assert found(integrations=["brevo"]) == {id_of(0), id_of(1), id_of(5)}
    assert found(integrations=["brevo", "mailerlite"]) == {id_of(n) for n in (0, 1, 3, 5)}
    assert found(tenant_ids=["acme"]) == {id_of(0), id_of(4), id_of(5)}
    assert found(integrations=["klaviyo"], tenant_ids=["acme", "x"]) == {id_of(0), id_of(4)}


@pytest.mark.parametrize("tenant_id", ["acme  and  sons", "a" * 400], ids=["blanks", "long"])
def test_given_a_tenant_when_filtered_for_it_then_its_id_is_taken_as_it_is(
    serve: Serve, tenant_id: str
) -> None:
    sandbox = serve(
        numbered_account(0),
        numbered_account(1, tenant_id=tenant_id),
        numbered_account(2, tenant_id=tenant_id[:-1]),
    )

    result = read(sandbox, additional_accounts={"mode": "all", "tenant_ids": [tenant_id, "x"]})

    assert set(read_ids(result.records)) == {id_of(0), id_of(1)}


def test_given_a_single_filter_when_listed_then_truto_is_asked_for_it(serve: Serve) -> None:
    sandbox = serve(numbered_account(0))
    read(
        sandbox,
        additional_accounts={"mode": "all", "integrations": ["klaviyo"], "tenant_ids": ["t"]},
    )
    (request,) = [request for request in sandbox.requests if request.kind == "accounts"]
    assert (request.param("integration.name"), request.param("tenant_id")) == ("klaviyo", "t")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("needs_reauth", "the vendor rejected the credentials of the connection (HTTP 401;"),
        ("connecting", "Integrated account is not active"),
        ("validation_error", "Integrated account is not active"),
        ("post_install_error", "Integrated account is not active"),
        ("paused by someone", "Integrated account is not active"),
    ],
)
def test_given_an_account_that_is_not_active_when_read_then_it_is_asked_and_its_status_is_named(
    serve: Serve, status: str, reason: str
) -> None:
    bad = numbered_account(1, tenant_id="acme", status=status, last_error="invalid_grant")
    sandbox = serve(numbered_account(0), bad, numbered_account(2))

    result = read(sandbox, additional_accounts=ALL)

    (error,) = result.errors
    assert error["message"].startswith(
        f"Reading the segments of integrated account {id_of(1)} failed: "
    )
    assert reason in error["message"]
    detail = f' (klaviyo of tenant acme; status {status}; last error: "invalid_grant"). '
    assert detail in error["message"]
    assert error["failure_type"] == "config_error"
    assert set(read_ids(result.records)) == {id_of(0), id_of(2)}


def broken(number: int, fault: Fault) -> Account:
    fault.times = None
    return numbered_account(number, count=25, faults=[fault])


def environment_with_failures() -> list[Account]:
    return [
        numbered_account(0),
        broken(1, faults.credentials_refused()),
        numbered_account(2, count=35),
        broken(3, faults.account_blocked()),
        broken(4, faults.body("<html>", after=1)),
        numbered_account(5, "brevo"),
        numbered_account(6, loop="page", count=30),
        broken(7, faults.resource_not_supported()),
        numbered_account(8, "beehiiv", workspaces={"a": vendors.segments("beehiiv", 3)}),
    ]


def test_given_broken_accounts_when_read_then_the_others_are_read_and_the_sync_fails(
    serve: Serve,
) -> None:
    sandbox = serve(*environment_with_failures())

    result = read(sandbox, additional_accounts=ALL)

    assert read_ids(result.records) == {
        id_of(0): 3, id_of(2): 35, id_of(4): 10, id_of(5): 3, id_of(6): 10, id_of(8): 3
    }  # fmt: skip
    bad = {id_of(number) for number in (1, 3, 4, 6, 7)}
    *reported, summary = result.errors
    assert len(reported) == 5
    for error in reported:
        assert sum(id_ in error["message"] for id_ in bad) == 1
    assert {id_ for id_ in bad for error in reported if id_ in error["message"]} == bad
    assert result.statuses[-1] == "INCOMPLETE"
    assert result.failure is not None
    assert result.failure.failure_type is FailureType.config_error
    message = str(result.failure)
    assert message == summary["message"]
    assert message.startswith("5 of 9 integrated accounts could not be read: ")
    assert "Records emitted: 64 of segments. For each cause, an earlier message" in message
    assert sum(id_ in message for id_ in bad) == 3
    assert " and 2 more. Records" in message


def test_given_broken_accounts_when_skipped_then_the_sync_completes_with_warnings(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(*environment_with_failures())

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert result.failure is None
    assert result.errors == []
    assert result.statuses[-1] == "COMPLETE"
    assert len(result.records) == 64
    logged = warnings(caplog)
    for number in (1, 3, 4, 6, 7):
        assert sum(f"account {id_of(number)} failed: " in line for line in logged) == 1
    assert logged[-1].startswith("5 of 9 integrated accounts could not be read: ")
    assert logged[-1].endswith("Records emitted: 64 of segments.")


def test_given_no_account_can_be_read_when_skipped_then_the_sync_fails_all_the_same(
    serve: Serve,
) -> None:
    sandbox = serve(broken(0, faults.account_blocked()), broken(1, faults.account_blocked()))

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert "2 of 2 integrated accounts could not be read" in str(result.failure)
    assert result.statuses == ["STARTED", "INCOMPLETE"]


@pytest.mark.parametrize("skip", ["fail", "skip"])
@pytest.mark.parametrize("make", [faults.token_refused, faults.token_forbidden])
def test_given_a_wrong_token_and_a_thousand_accounts_when_read_then_a_single_request_finds_it_out(
    serve: Serve, make: Callable[..., Fault], skip: str
) -> None:
    sandbox = serve(
        *large_environment(accounts=1000).accounts, faults=[make(times=None)], latency=0.05
    )
    ids = [account.id for account in sandbox.environment.accounts]
    for more in (ALL, {"mode": "listed", "ids": ids}):
        sandbox.clear()
        result = read(sandbox, additional_accounts=more, num_workers=50, on_account_error=skip)

        assert len(sandbox.requests) == 1
        assert "API token" in str(result.failure)
        assert result.statuses[-1] == "INCOMPLETE"
        assert [error["message"] for error in result.errors] == [str(result.failure)]


def test_given_the_token_is_revoked_in_the_middle_when_read_then_the_sync_ends_soon(
    serve: Serve,
) -> None:
    accounts = [numbered_account(number) for number in range(300)]
    sandbox = serve(*accounts, faults=[faults.token_refused(after=40, times=None)])

    result = read(sandbox, additional_accounts=ALL, num_workers=10)

    assert "Truto rejected the API token" in str(result.failure)
    # Those in flight when it was rejected: one for each worker.
    assert len(sandbox.requests) <= 40 + 10
    # However many they were, it is one failure of the whole sync.
    assert len(result.errors) == 1


def test_given_the_token_is_revoked_behind_the_list_when_read_then_the_sync_ends_soon(
    serve: Serve,
) -> None:
    accounts = [numbered_account(n, tenant_id=f"tenant-{n > 0}") for n in range(300)]
    refused = faults.token_refused(after=20, times=None)
    sandbox = serve(*accounts, faults=[refused, faults.delay(0.05, times=None)])

    result = read(
        sandbox,
        configured=catalog(streams=ALL_STREAMS),
        additional_accounts={**ALL, "tenant_ids": ["tenant-True"]},
        num_workers=2,
        on_account_error="skip",
    )

    assert "Truto rejected the API token" in str(result.failure)
    assert len(result.errors) == 1
    assert len(sandbox.requests) < 100


@pytest.mark.parametrize(
    ("more", "is_warned"),
    [
        ({"integrations": ["mailer-lite"]}, True),
        ({"tenant_ids": ["nobody"]}, True),
        ({"integrations": ["klaviyo"]}, False),
        ({}, False),
    ],
    ids=str,
)
def test_given_options_that_match_no_account_when_read_or_checked_then_a_warning_says_so(
    serve: Serve, caplog: pytest.LogCaptureFixture, more: dict[str, Any], is_warned: bool
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1))
    for run_command in (read, check):
        caplog.clear()
        run_command(sandbox, additional_accounts={**ALL, **more})

        found = [line for line in warnings(caplog) if "No other integrated account" in line]
        assert len(found) == is_warned


def test_given_the_list_cannot_be_read_when_read_then_the_sync_fails(serve: Serve) -> None:
    fault = faults.truto_failed(kind="accounts", after=1, times=None)
    sandbox = serve(
        *[numbered_account(number) for number in range(8)], faults=[fault], list_page_size=3
    )

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert "Listing the integrated accounts of the environment failed" in str(result.failure)
    assert result.statuses[-1] == "INCOMPLETE"
    assert set(read_ids(result.records)) == {id_of(0), id_of(1), id_of(2)}


def test_given_the_list_loops_when_read_then_the_sync_fails(serve: Serve) -> None:
    page = '{"result": [{"id": "%s", "integration": {"name": "klaviyo"}}], "next_cursor": "x"}'
    fault = faults.body(page % id_of(0), kind="accounts", times=None)
    result = read(serve(numbered_account(0), faults=[fault]), additional_accounts=ALL)

    assert "pages repeat: pagination loop detected" in str(result.failure)


def test_given_entries_that_are_no_accounts_when_read_then_a_warning_names_them(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    page = '{"result": [{"id": 5}, {"id": "%s", "integration": {}}], "next_cursor": null}'
    fault = faults.body(page % id_of(1), kind="accounts")
    result = read(serve(numbered_account(0), faults=[fault]), additional_accounts=ALL)

    assert len(result.records) == 3
    assert len([line for line in warnings(caplog) if "no valid ID or no integration" in line]) == 2


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ('{"result": [null], "next_cursor": null}', "has entries that are not objects"),
        ('{"result": [], "is_partial_response": true}', "is marked as partial"),
    ],
)
def test_given_a_list_that_may_be_incomplete_when_read_then_a_warning_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, page: str, reason: str
) -> None:
    sandbox = serve(numbered_account(0), faults=[faults.body(page, kind="accounts")])

    result = read(sandbox, additional_accounts=ALL)

    assert len(result.records) == 3
    assert any("may be incomplete" in line and reason in line for line in warnings(caplog))


def test_given_accounts_that_wait_for_their_vendors_when_read_then_the_others_are_not_held_up(
    serve: Serve,
) -> None:
    waiting = [numbered_account(n, faults=[faults.vendor_rate_limited(2)]) for n in range(6)]
    ready = [numbered_account(n) for n in range(6, 30)]
    sandbox = serve(*waiting, *ready)

    begun = time.monotonic()
    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=2)
    took = time.monotonic() - begun

    assert len(read_ids(result.records)) == 30
    succeeded = [request for request in sandbox.requests if request.status == 200]
    last_ready = max(r.at for r in succeeded if r.account_id in {a.id for a in ready})
    first_waited = min(r.at for r in succeeded if r.account_id in {a.id for a in waiting})
    assert last_ready < first_waited
    assert took < 6


def test_given_a_thousand_accounts_that_wait_when_read_then_the_others_are_not_held_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a thousand requests would take twenty seconds by themselves.
    monkeypatch.setattr(rate_limiter, "TOKEN_LIMIT", 10_000)
    waiting = [numbered_account(n, faults=[faults.vendor_rate_limited(600)]) for n in range(1000)]
    ready = {id_of(n) for n in range(1000, 1010)}
    sandbox = serve(*waiting, *[numbered_account(n) for n in range(1000, 1010)])
    source = SourceTrutoSegments()
    settings = config(sandbox, additional_accounts=ALL, num_workers=4)
    configured = ConfiguredAirbyteCatalogSerializer.load(catalog())

    found: Counter[str] = Counter()

    def read_ready() -> None:
        for message in source.read(logging.getLogger("airbyte.test"), settings, configured):
            if message.record is not None:
                found[message.record.data["integrated_account_id"]] += 1
            if found.keys() == ready:
                source.request_shutdown()

    with pytest.raises(AirbyteTracedException, match="The sync was interrupted"):
        read_ready()
    assert found == dict.fromkeys(ready, 3)
    assert Counter(request.status for request in sandbox.requests) == {429: 1000, 200: 10 + 11}


def most_in_flight(sandbox: Sandbox, latency: float) -> int:
    """How many segment requests were in flight at once, by their arrivals and the latency."""
    arrivals = sorted(r.at for r in sandbox.requests if r.kind == "segments")
    return max(sum(at <= other < at + latency for other in arrivals) for at in arrivals)


def test_given_slow_responses_when_read_then_more_than_a_hundred_requests_are_in_flight(
    serve: Serve,
) -> None:
    slow = [numbered_account(number, latency=2.0) for number in range(1, 160)]
    sandbox = serve(numbered_account(0), *slow)

    result = read_in_real_time(sandbox, additional_accounts=listed(*range(160)))

    assert len(read_ids(result.records)) == 160
    assert most_in_flight(sandbox, 2.0) > 100


@pytest.mark.parametrize("num_workers", [1, 7])
def test_given_num_workers_when_read_then_no_more_requests_are_in_flight(
    serve: Serve, num_workers: int
) -> None:
    sandbox = serve(
        *[numbered_account(number, latency=0.2) for number in range(3 * num_workers + 1)]
    )

    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=num_workers)

    assert len(read_ids(result.records)) == 3 * num_workers + 1
    assert most_in_flight(sandbox, 0.2) == num_workers


def test_given_two_of_trutos_429s_when_read_then_all_accounts_wait(serve: Serve) -> None:
    fault = faults.truto_rate_limited(1, after=5, times=2)
    sandbox = serve(*[numbered_account(number) for number in range(20)], faults=[fault])

    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=2)

    assert len(read_ids(result.records)) == 20
    refused = next(r.at for r in sandbox.requests if r.status == 429)
    since = sorted(r.at for r in sandbox.requests if r.at >= refused)
    # The other worker sends until the 429 has arrived; then nobody does for a second, though there
    # is more to read.
    gap, position = max((later - at, n) for n, (at, later) in enumerate(pairwise(since), 1))
    assert gap > 0.9
    assert len(since) - position > 3


def test_given_a_long_sync_when_watched_then_its_progress_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "PROGRESS_SECONDS", 0.2)
    caplog.set_level(logging.INFO)
    waiting = numbered_account(3, faults=[faults.vendor_rate_limited(1)])
    sandbox = serve(
        numbered_account(0), broken(1, faults.vendor_refused()), numbered_account(2), waiting
    )

    read_in_real_time(sandbox, additional_accounts=ALL, on_account_error="skip")

    lines = [line for line in caplog.messages if line.startswith("Progress: ")]
    assert (
        f"Progress: 3 of 4 accounts, 6 records, 1 failed; waiting for account {id_of(3)} "
        "(the vendor's limit)." in lines
    )


def test_given_listed_accounts_when_checked_then_every_bad_one_is_named(serve: Serve) -> None:
    sandbox = serve(*environment_with_failures())

    status, message = check(sandbox, additional_accounts=listed(*range(1, 9)))

    assert status is Status.FAILED
    lines = str(message).splitlines()
    asked = "9 of 9 integrated accounts were asked for their segments"
    assert lines[0] == f"{asked}; 3 of them cannot be read."
    assert [next(n for n in range(9) if id_of(n) in line) for line in lines[1:]] == [1, 3, 7]


def test_given_all_accounts_when_checked_then_the_list_is_read_and_those_not_active_are_named(
    serve: Serve,
) -> None:
    sandbox = serve(
        numbered_account(0),
        numbered_account(1),
        numbered_account(2, status="connecting"),
        numbered_account(3, status="needs_reauth"),
    )

    status, message = check(sandbox, additional_accounts=ALL)

    assert status is Status.FAILED
    asked = "3 of 4 integrated accounts were asked for their segments"
    assert str(message).startswith(f"{asked}; 2 of them cannot be read.")
    assert id_of(2) in str(message)
    assert id_of(3) in str(message)
    assert {request.kind for request in sandbox.requests} == {"segments", "accounts"}


def test_given_bad_accounts_are_skipped_when_checked_then_it_succeeds_with_warnings(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(numbered_account(0), numbered_account(1, status="needs_reauth"))

    status, _ = check(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert status is Status.SUCCEEDED
    assert any(id_of(1) in line for line in warnings(caplog))


@pytest.mark.parametrize("more", [ALL, listed(*range(200))])
def test_given_a_wrong_token_when_checked_then_it_is_asked_once(
    serve: Serve, more: dict[str, Any]
) -> None:
    sandbox = serve(*[numbered_account(number) for number in range(200)])

    status, message = check(sandbox, token="not-the-token", additional_accounts=more)

    assert status is Status.FAILED
    assert "Truto rejected the API token" in str(message)
    assert len(sandbox.requests) == 1


def test_given_no_list_when_checked_then_that_is_reported(serve: Serve) -> None:
    fault = faults.truto_error(403, "Not yours", kind="accounts", times=None)
    status, message = check(serve(numbered_account(0), faults=[fault]), additional_accounts=ALL)

    assert status is Status.FAILED
    assert "Listing the integrated accounts of the environment failed" in str(message)


def test_given_the_network_is_gone_when_read_then_not_each_account_finds_out(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sandbox = serve(*[numbered_account(number) for number in range(60)])
    ids = [account.id for account in sandbox.environment.accounts]
    sandbox.stop()

    more = {"mode": "listed", "ids": ids}
    result = read(sandbox, additional_accounts=more, on_account_error="skip")

    assert "the connection could not be established" in str(result.failure)
    assert "; nothing else got through" in str(result.failure)
    # One request probes; the 59 others wait for it.
    assert len([text for text in caplog.messages if "Trying again" in text]) < 20
    assert len(result.errors) == 1
    assert result.statuses[-1] == "INCOMPLETE"


def test_given_one_account_whose_connections_are_lost_when_read_then_the_others_are_read(
    serve: Serve,
) -> None:
    sandbox = serve(
        numbered_account(0), broken(1, faults.reset()), numbered_account(2), numbered_account(3)
    )

    result = read(sandbox, additional_accounts=ALL, num_workers=2)

    assert set(read_ids(result.records)) == {id_of(0), id_of(2), id_of(3)}
    assert len(result.errors) == 1


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        (faults.truto_error(404), "no list of integrated accounts at this URL", 1),
        (faults.truto_error(400, "Bad filter"), "tenant_ids under additional_accounts", 2),
        (faults.truto_error(503), "Truto is unavailable", 11),
        (faults.truto_error(500), "Truto had an internal error", 11),
    ],
)
def test_given_the_list_fails_when_read_then_the_message_is_that_of_the_list(
    serve: Serve, fault: Fault, message: str, requests: int
) -> None:
    fault.kind, fault.times = "accounts", None
    sandbox = serve(numbered_account(0), faults=[fault])

    result = read(sandbox, additional_accounts=ALL)

    assert message in str(result.failure)
    asked = len([r for r in sandbox.requests if r.kind == "accounts"])
    # The waits vary.
    assert abs(asked - requests) <= (0 if requests == 1 else 3)


def test_given_a_verified_token_when_read_then_no_account_waits_for_the_response_to_another(
    serve: Serve,
) -> None:
    first = numbered_account(0, faults=[faults.delay(0.3)])
    late = [numbered_account(number, faults=[faults.delay(1.5)]) for number in range(1, 6)]
    sandbox = serve(first, *late)

    result = read_in_real_time(sandbox, additional_accounts=listed(*range(6)), num_workers=6)

    arrived = sorted(request.at for request in sandbox.requests)
    assert arrived[1] - arrived[0] > 0.25
    assert arrived[-1] - arrived[1] < 1.4
    assert len(result.records) == 18


@pytest.mark.parametrize("status", [400, 422])
def test_list_without_a_limit(serve: Serve, status: int) -> None:
    """The list is asked for in pages of 100, and whole if Truto rejects that."""
    rejected = faults.truto_error(
        status, kind="accounts", when=lambda r: r.param("limit") is not None
    )
    for script in ([], [rejected]):
        sandbox = serve(*map(numbered_account, range(3)), faults=script, list_page_size=2)

        result = read(sandbox, additional_accounts=ALL)

        assert len(result.records) == 9
        limits = [r.param("limit") for r in sandbox.requests if r.kind == "accounts"]
        assert limits == (["100", None, None] if script else ["100"] * 2)


def test_waiting_accounts_keep_no_page(serve: Serve) -> None:
    """Accounts that wait between two pages hold nothing of the first one."""
    accounts = [
        numbered_account(n, count=20, faults=[faults.vendor_rate_limited(600, after=1)])
        for n in range(5)
    ]
    sandbox = serve(*accounts)

    def pages() -> int:
        gc.collect()
        held = [found for found in gc.get_objects() if isinstance(found, Page | RecordsRead)]
        # What the list says of an account is small, and needed until its own row is written.
        return sum(not _is_of_list(found) for found in held)

    before = pages()
    configured = ConfiguredAirbyteCatalogSerializer.load(catalog())
    source, settings = SourceTrutoSegments(), config(sandbox, additional_accounts=ALL)
    messages = source.read(logging.getLogger("airbyte.test"), settings, configured)
    for message in messages:
        if message.trace and message.trace.stream_status and message.trace.stream_status.reasons:
            break

    assert pages() <= before


def _is_of_list(found: Page | RecordsRead) -> bool:
    return isinstance(found, Page) and all("tenant_id" in record for record in found.records)


def test_an_account_without_an_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync in which an account is neither read nor failed is not complete."""
    monkeypatch.setattr(AccountReader, "read", lambda *_: iter(()))

    result = read(serve(numbered_account(0)), on_account_error="skip")

    assert result.statuses == ["STARTED", "INCOMPLETE"]
    assert "ended before all accounts were read, and no failure says why" in str(result.failure)
