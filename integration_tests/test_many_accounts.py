"""Many accounts in one sync: how they are found, and that each is read independently."""

import gc
import logging
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from airbyte_cdk.models import ConfiguredAirbyteCatalogSerializer, FailureType, Status
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    Serve,
    catalog,
    check,
    config,
    id_of,
    listed,
    numbered_account,
    read,
    read_in_real_time,
    warnings_in,
)
from sandbox import Account, Fault, Sandbox, faults, large_environment, vendors
from source_truto_segments import SourceTrutoSegments
from source_truto_segments.sync import sync
from source_truto_segments.sync.events import RecordsRead
from source_truto_segments.sync.reader import AccountReader
from source_truto_segments.truto import rate_limiter
from source_truto_segments.truto.responses import Page


def read_ids(records: list[dict[str, Any]]) -> Counter[str]:
    return Counter(record["integrated_account_id"] for record in records)


def test_no_additional_accounts(serve: Serve) -> None:
    """Without additional accounts, only the first one is read."""
    sandbox = serve(numbered_account(0), numbered_account(1))
    for result in (read(sandbox), read(sandbox, additional_accounts={"mode": "none"})):
        assert read_ids(result.records) == {id_of(0): 3}


def test_listed_accounts_once(serve: Serve) -> None:
    """Each listed account is read once, however often and in whatever case its ID is listed."""
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
def test_all_accounts(serve: Serve, key: str) -> None:
    """For all accounts, the connector reads all pages of the list."""
    sandbox = serve(
        *[numbered_account(number) for number in range(25)], list_page_size=4, list_key=key
    )

    result = read(sandbox, additional_accounts=ALL)

    assert read_ids(result.records) == {id_of(number): 3 for number in range(25)}
    assert Counter(request.kind for request in sandbox.requests) == {"accounts": 7, "segments": 25}


def test_account_connected_later(serve: Serve) -> None:
    """An account that is connected later is read by the next sync."""
    sandbox = serve(numbered_account(0))
    assert set(read_ids(read(sandbox, additional_accounts=ALL).records)) == {id_of(0)}

    sandbox.environment.accounts.append(numbered_account(1, is_sandbox=True))

    found = read_ids(read(sandbox, additional_accounts=ALL).records)
    assert set(found) == {id_of(0), id_of(1)}


def test_other_integrations(serve: Serve) -> None:
    """Accounts of other integrations or tenants are not read."""
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
def test_filter_of_tenant(serve: Serve, tenant_id: str) -> None:
    """A filter uses a tenant's id exactly as it is."""
    sandbox = serve(
        numbered_account(0),
        numbered_account(1, tenant_id=tenant_id),
        numbered_account(2, tenant_id=tenant_id[:-1]),
    )

    result = read(sandbox, additional_accounts={"mode": "all", "tenant_ids": [tenant_id, "x"]})

    assert set(read_ids(result.records)) == {id_of(0), id_of(1)}


def test_single_filter(serve: Serve) -> None:
    """A single filter is sent to Truto with the request for the list."""
    sandbox = serve(numbered_account(0, tenant_id="t"))
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
def test_account_not_active(serve: Serve, status: str, reason: str) -> None:
    """The connector asks an account that is not active, and its message contains the status."""
    bad = numbered_account(1, tenant_id="acme", status=status, last_error="invalid_grant")
    result = read(serve(numbered_account(0), bad, numbered_account(2)), additional_accounts=ALL)

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


def test_broken_accounts(serve: Serve) -> None:
    """If some accounts are broken, the others are read and the sync fails."""
    result = read(serve(*environment_with_failures()), additional_accounts=ALL)

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


def test_broken_accounts_skipped(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If broken accounts are skipped, the sync completes with warnings."""
    sandbox = serve(*environment_with_failures())

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert result.failure is None
    assert result.errors == []
    assert result.statuses[-1] == "COMPLETE"
    assert len(result.records) == 64
    logged = warnings_in(caplog)
    for number in (1, 3, 4, 6, 7):
        assert sum(f"account {id_of(number)} failed: " in line for line in logged) == 1
    assert logged[-1].startswith("5 of 9 integrated accounts could not be read: ")
    assert logged[-1].endswith("Records emitted: 64 of segments.")


def test_no_account_can_be_read(serve: Serve) -> None:
    """If no account can be read, the sync fails even if broken accounts are skipped."""
    sandbox = serve(broken(0, faults.account_blocked()), broken(1, faults.account_blocked()))

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert "2 of 2 integrated accounts could not be read" in str(result.failure)
    assert result.statuses == ["STARTED", "INCOMPLETE"]


@pytest.mark.parametrize("skip", ["fail", "skip"])
@pytest.mark.parametrize("make", [faults.token_refused, faults.token_forbidden])
def test_wrong_token_and_thousand_accounts(
    serve: Serve, make: Callable[..., Fault], skip: str
) -> None:
    """Even with a thousand accounts, one request or two show that the token is wrong."""
    sandbox = serve(
        *large_environment(accounts=1000).accounts, faults=[make(times=None)], latency=0.05
    )
    ids = [account.id for account in sandbox.environment.accounts]
    for more in (ALL, {"mode": "listed", "ids": ids}):
        sandbox.clear()
        result = read(
            sandbox,
            streams=ALL_STREAMS,
            additional_accounts=more,
            num_workers=50,
            on_account_error=skip,
        )

        # An account's object can be refused alone, so the segments are asked for, too.
        is_object = more is not ALL and make is faults.token_forbidden
        assert len(sandbox.requests) == 1 + is_object
        assert "API token" in str(result.failure)
        assert {result.statuses_of(stream)[-1] for stream in ALL_STREAMS} == {"INCOMPLETE"}
        assert [error["message"] for error in result.errors] == [str(result.failure)]


def test_token_revoked_after_list(serve: Serve) -> None:
    """If the token is revoked after the list was read, the sync ends soon."""
    accounts = [numbered_account(n, tenant_id=f"tenant-{n > 0}") for n in range(300)]
    refused = faults.token_refused(after=20, times=None)
    sandbox = serve(*accounts, faults=[refused, faults.delay(0.05, times=None)])

    result = read(
        sandbox,
        streams=ALL_STREAMS,
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
        ({"integrations": ["mailerlight"]}, True),
        ({"tenant_ids": ["nobody"]}, True),
        ({"integrations": ["klaviyo"]}, False),
        ({}, False),
    ],
    ids=str,
)
def test_options_match_no_account(
    serve: Serve, caplog: pytest.LogCaptureFixture, more: dict[str, Any], is_warned: bool
) -> None:
    """Read and check warn if no account matches the options."""
    sandbox = serve(numbered_account(0), numbered_account(1))
    for run_command in (read, check):
        caplog.clear()
        run_command(sandbox, additional_accounts={**ALL, **more})

        found = [
            line
            for line in warnings_in(caplog)
            if "No integrated account matches these entries" in line
        ]
        assert len(found) == is_warned


def test_list_cannot_be_read(serve: Serve) -> None:
    """If the list cannot be read, the sync fails."""
    fault = faults.truto_failed(kind="accounts", after=1, times=None)
    sandbox = serve(
        *[numbered_account(number) for number in range(8)], faults=[fault], list_page_size=3
    )

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert "Listing the integrated accounts of the environment failed" in str(result.failure)
    assert result.statuses[-1] == "INCOMPLETE"
    assert set(read_ids(result.records)) == {id_of(0), id_of(1), id_of(2)}


def test_list_loops(serve: Serve) -> None:
    """If the list loops, the sync fails."""
    page = '{"result": [{"id": "%s", "integration": {"name": "klaviyo"}}], "next_cursor": "x"}'
    fault = faults.body(page % id_of(0), kind="accounts", times=None)
    result = read(serve(numbered_account(0), faults=[fault]), additional_accounts=ALL)

    assert "pages repeat: pagination loop detected" in str(result.failure)


def test_entries_without_account(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A warning reports each entry that is not an account."""
    page = '{"result": [{"id": 5}, {"id": "%s", "integration": {}}], "next_cursor": null}'
    fault = faults.body(page % id_of(1), kind="accounts")
    result = read(serve(numbered_account(0), faults=[fault]), additional_accounts=ALL)

    assert len(result.records) == 3
    assert len([line for line in warnings_in(caplog) if "has no valid ID or" in line]) == 2


def test_thousand_accounts_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand accounts that wait do not delay the others."""
    # With the real limit, a thousand requests alone would take twenty seconds.
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
    """Return the largest number of segment requests in flight, by arrivals and latency."""
    arrivals = sorted(r.at for r in sandbox.requests if r.kind == "segments")
    return max(sum(at <= other < at + latency for other in arrivals) for at in arrivals)


def test_slow_responses(serve: Serve) -> None:
    """If responses are slow, more than a hundred requests are in flight."""
    slow = [numbered_account(number, latency=2.0) for number in range(1, 160)]
    sandbox = serve(numbered_account(0), *slow)

    result = read_in_real_time(sandbox, additional_accounts=listed(*range(160)))

    assert len(read_ids(result.records)) == 160
    assert most_in_flight(sandbox, 2.0) > 100


@pytest.mark.parametrize("num_workers", [1, 7])
def test_num_workers(serve: Serve, num_workers: int) -> None:
    """No more than num_workers requests are in flight."""
    sandbox = serve(
        *[numbered_account(number, latency=0.2) for number in range(3 * num_workers + 1)]
    )

    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=num_workers)

    assert len(read_ids(result.records)) == 3 * num_workers + 1
    assert most_in_flight(sandbox, 0.2) == num_workers


def test_two_of_trutos_429s(serve: Serve) -> None:
    """After two of Truto's 429s, all accounts wait."""
    fault = faults.truto_rate_limited(1, after=5, times=2)
    sandbox = serve(*[numbered_account(number) for number in range(20)], faults=[fault])

    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=2)

    assert len(read_ids(result.records)) == 20
    refused = next(r.at for r in sandbox.requests if r.status == 429)
    since = sorted(r.at for r in sandbox.requests if r.at >= refused)
    # The other worker sends until the 429 has arrived. Then nobody sends for a second, though there
    # is more to read.
    gap, position = max((later - at, n) for n, (at, later) in enumerate(pairwise(since), 1))
    assert gap > 0.9
    assert len(since) - position > 3


def test_long_sync(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The progress of a long sync is logged."""
    monkeypatch.setattr(sync, "PROGRESS_SECONDS", 0.2)
    caplog.set_level(logging.INFO)
    waiting = numbered_account(3, faults=[faults.vendor_rate_limited(1)])
    sandbox = serve(
        numbered_account(0), broken(1, faults.vendor_refused()), numbered_account(2), waiting
    )

    read_in_real_time(sandbox, additional_accounts=ALL, on_account_error="skip")

    lines = [line for line in caplog.messages if line.startswith("Progress: ")]
    assert (
        "Progress: the sync has finished 3 of 4 accounts (1 failed) and emitted 6 records. "
        f"Account {id_of(3)} (the vendor's limit) waits." in lines
    )


def test_check_of_listed_accounts(serve: Serve) -> None:
    """The check lists every bad one of the listed accounts."""
    sandbox = serve(*environment_with_failures())

    status, message = check(sandbox, additional_accounts=listed(*range(1, 9)))

    assert status is Status.FAILED
    lines = str(message).splitlines()
    asked = "Asked 9 of 9 integrated accounts for segments"
    assert lines[0] == f"{asked}: 3 of these cannot be read."
    assert [next(n for n in range(9) if id_of(n) in line) for line in lines[1:]] == [1, 3, 7]


def test_check_that_skips(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If bad accounts are skipped, the check succeeds with warnings."""
    sandbox = serve(numbered_account(0), numbered_account(1, status="needs_reauth"))

    status, _ = check(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert status is Status.SUCCEEDED
    assert any(id_of(1) in line for line in warnings_in(caplog))


@pytest.mark.parametrize("more", [ALL, listed(*range(200))])
def test_check_with_wrong_token(serve: Serve, more: dict[str, Any]) -> None:
    """A check with a wrong token sends a single request."""
    sandbox = serve(*[numbered_account(number) for number in range(200)])

    status, message = check(sandbox, token="not-the-token", additional_accounts=more)

    assert status is Status.FAILED
    assert "Truto rejected the API token" in str(message)
    assert len(sandbox.requests) == 1


def test_check_without_list(serve: Serve) -> None:
    """The check reports that the accounts cannot be listed."""
    fault = faults.truto_error(403, "Not yours", kind="accounts", times=None)
    status, message = check(serve(numbered_account(0), faults=[fault]), additional_accounts=ALL)

    assert status is Status.FAILED
    assert "Listing the integrated accounts of the environment failed" in str(message)


def test_network_down(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """If the network is down, the accounts do not find out one by one."""
    caplog.set_level(logging.INFO)
    sandbox = serve(*[numbered_account(number) for number in range(60)])
    ids = [account.id for account in sandbox.environment.accounts]
    sandbox.stop()

    more = {"mode": "listed", "ids": ids}
    result = read(sandbox, additional_accounts=more, on_account_error="skip")

    assert "the connection could not be established" in str(result.failure)
    assert "; nothing else got through" in str(result.failure)
    # One request probes, and the 59 others wait for it.
    assert len([text for text in caplog.messages if "Trying again" in text]) < 20
    assert len(result.errors) == 1
    assert result.statuses[-1] == "INCOMPLETE"


@pytest.mark.parametrize(
    ("fault", "message", "requests"),
    [
        (faults.truto_error(404), "no list of integrated accounts at this URL", 1),
        (faults.truto_error(400, "Bad filter"), "Truto rejected the request for the list", 2),
        (faults.truto_error(503), "Truto is unavailable", 11),
        (faults.truto_error(500), "Truto had an internal error", 11),
    ],
)
def test_list_fails(serve: Serve, fault: Fault, message: str, requests: int) -> None:
    """If the list fails, the message is about the list."""
    fault.kind, fault.times = "accounts", None
    sandbox = serve(numbered_account(0), faults=[fault])

    result = read(sandbox, additional_accounts=ALL)

    assert message in str(result.failure)
    asked = len([r for r in sandbox.requests if r.kind == "accounts"])
    # The waits vary, and so does the number of requests.
    assert abs(asked - requests) <= (0 if requests == 1 else 3)


def test_verified_token(serve: Serve) -> None:
    """As soon as the token is verified, no account waits for the response to another."""
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
    """The list is requested in pages of 100, and without a limit if Truto rejects that."""
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
    """An account that waits between two pages holds nothing of the first one."""
    accounts = [
        numbered_account(n, count=20, faults=[faults.vendor_rate_limited(600, after=1)])
        for n in range(5)
    ]
    sandbox = serve(*accounts)

    def pages() -> int:
        gc.collect()
        held = [found for found in gc.get_objects() if isinstance(found, Page | RecordsRead)]
        # What the list says about an account is small, and needed until its own row is written.
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
    """A sync is not complete if an account has neither been read nor failed."""
    monkeypatch.setattr(AccountReader, "read", lambda *_: iter(()))

    result = read(serve(numbered_account(0)), on_account_error="skip")

    assert result.statuses == ["STARTED", "INCOMPLETE"]
    assert "ended before all accounts were read, and no failure says why" in str(result.failure)
