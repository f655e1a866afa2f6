"""Many accounts in one sync: found, read side by side, each on its own."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest
from airbyte_cdk.models import FailureType, Status

from integration_tests.support import check, read, read_in_real_time
from sandbox import Account, Fault, Sandbox, faults, large_environment, vendors
from source_truto_segments import sync

Serve = Callable[..., Sandbox]
ALL = {"mode": "all"}


def id_of(number: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"account-{number}"))


def some(number: int, vendor: str = "klaviyo", count: int = 3, **how: Any) -> Account:
    if "segments" not in how:
        how["segments"] = vendors.segments(vendor, count)
    return Account(id=id_of(number), vendor=vendor, **how)


def listed(*numbers: int) -> dict[str, Any]:
    return {"mode": "listed", "ids": [id_of(number) for number in numbers]}


def read_ids(records: list[dict[str, Any]]) -> Counter[str]:
    return Counter(record["integrated_account_id"] for record in records)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_given_no_more_accounts_when_read_then_only_the_first_is(serve: Serve) -> None:
    sandbox = serve(some(0), some(1))
    for result in (read(sandbox), read(sandbox, additional_accounts={"mode": "none"})):
        assert read_ids(result.records) == {id_of(0): 3}


def test_given_listed_accounts_when_read_then_each_is_read_once(serve: Serve) -> None:
    sandbox = serve(some(0), some(1), some(2), some(3))
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
    sandbox = serve(*[some(number) for number in range(25)], list_page_size=4, list_key=key)

    result = read(sandbox, additional_accounts=ALL)

    assert read_ids(result.records) == {id_of(number): 3 for number in range(25)}
    assert Counter(request.kind for request in sandbox.requests) == {"accounts": 7, "segments": 25}


def test_given_all_accounts_when_one_is_connected_then_the_next_sync_reads_it(serve: Serve) -> None:
    sandbox = serve(some(0))
    assert set(read_ids(read(sandbox, additional_accounts=ALL).records)) == {id_of(0)}

    sandbox.environment.accounts.append(some(1, is_sandbox=True))

    found = read_ids(read(sandbox, additional_accounts=ALL).records)
    assert set(found) == {id_of(0), id_of(1)}


def test_given_other_integrations_when_read_then_they_are_left_alone(serve: Serve) -> None:
    sandbox = serve(
        some(0, "klaviyo"),
        some(1, "brevo"),
        some(2, "salesforce", segments=[{"id": "not a segment"}]),
        some(3, "mailerlite"),
        some(4, "klaviyo", tenant_id="acme"),
        some(5, "brevo", tenant_id="acme", status="needs_reauth"),
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
    sandbox = serve(some(0), some(1, tenant_id=tenant_id), some(2, tenant_id=tenant_id[:-1]))

    result = read(sandbox, additional_accounts={"mode": "all", "tenant_ids": [tenant_id, "x"]})

    assert set(read_ids(result.records)) == {id_of(0), id_of(1)}


def test_given_a_single_filter_when_listed_then_truto_is_asked_for_it(serve: Serve) -> None:
    sandbox = serve(some(0))
    read(
        sandbox,
        additional_accounts={"mode": "all", "integrations": ["klaviyo"], "tenant_ids": ["t"]},
    )
    (request,) = [request for request in sandbox.requests if request.kind == "accounts"]
    assert (request.param("integration.name"), request.param("tenant_id")) == ("klaviyo", "t")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (
            "needs_reauth",
            "it needs to be reconnected by its owner (klaviyo of tenant acme; status needs_reauth;",
        ),
        (
            "needs_reauth",
            """Truto said: "invalid_grant"). Ask the account's owner to reconnect it""",
        ),
        ("connecting", "its owner has not finished connecting it"),
        ("validation_error", "Truto could not validate its connection"),
        ("post_install_error", "a step after its connection failed in Truto"),
        ("paused", "it is not active"),
    ],
)
def test_given_an_account_that_is_not_active_when_read_then_it_is_an_error_with_its_status(
    serve: Serve, status: str, says: str
) -> None:
    bad = some(1, tenant_id="acme", status=status, last_error="invalid_grant")
    sandbox = serve(some(0), bad, some(2))

    result = read(sandbox, additional_accounts=ALL)

    (error,) = result.errors
    assert error["message"].startswith(
        f"Reading the segments of integrated account {id_of(1)} failed: "
    )
    assert says in error["message"]
    assert error["failure_type"] == "config_error"
    assert set(read_ids(result.records)) == {id_of(0), id_of(2)}
    assert id_of(1) not in {request.account_id for request in sandbox.requests}


def broken(number: int, fault: Fault) -> Account:
    fault.times = None
    return some(number, count=25, faults=[fault])


def environment_with_failures() -> list[Account]:
    return [
        some(0),
        broken(1, faults.credentials_refused()),
        some(2, count=35),
        broken(3, faults.account_blocked()),
        broken(4, faults.body("<html>", after=1)),
        some(5, "brevo"),
        some(6, loop="page", count=30),
        broken(7, faults.resource_not_supported()),
        some(8, "beehiiv", workspaces={"a": vendors.segments("beehiiv", 3)}),
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
    assert len(result.errors) == 5
    for error in result.errors:
        assert sum(id_ in error["message"] for id_ in bad) == 1
    assert result.statuses[-1] == "INCOMPLETE"
    assert result.failure is not None
    assert result.failure.failure_type is FailureType.config_error
    message = str(result.failure)
    assert "5 of 9 accounts could not be read" in message
    assert all(id_ in message for id_ in bad)


def test_given_broken_accounts_when_skipped_then_the_sync_completes_with_warnings(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(*environment_with_failures())

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert result.failure is None
    assert result.errors == []
    assert result.statuses[-1] == "COMPLETE"
    assert len(result.records) == 64
    said = warnings(caplog)
    for number in (1, 3, 4, 6, 7):
        assert sum(f"account {id_of(number)} failed: " in line for line in said) == 1
    assert "Read 64 segments. 5 of 9 accounts could not be read" in said[-1]


def test_given_no_account_can_be_read_when_skipped_then_the_sync_fails_all_the_same(
    serve: Serve,
) -> None:
    sandbox = serve(broken(0, faults.account_blocked()), broken(1, faults.account_blocked()))

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert "2 of 2 accounts could not be read" in str(result.failure)
    assert result.statuses == ["STARTED", "INCOMPLETE"]


@pytest.mark.parametrize("skip", ["fail", "skip"])
@pytest.mark.parametrize("make", [faults.token_refused, faults.token_forbidden])
def test_given_a_wrong_token_and_a_thousand_accounts_when_read_then_a_handful_of_requests_go_out(
    serve: Serve, make: Callable[..., Fault], skip: str
) -> None:
    sandbox = serve(
        *large_environment(accounts=1000).accounts, faults=[make(times=None)], latency=0.05
    )
    ids = [account.id for account in sandbox.environment.accounts]
    for more in (ALL, {"mode": "listed", "ids": ids}):
        sandbox.clear()
        result = read(sandbox, additional_accounts=more, num_workers=50, on_account_error=skip)

        assert len(sandbox.requests) <= 2
        assert "token" in str(result.failure)
        assert result.statuses[-1] == "INCOMPLETE"
        assert len(result.errors) <= 2


def test_given_the_token_is_revoked_in_the_middle_when_read_then_the_sync_ends_soon(
    serve: Serve,
) -> None:
    accounts = [some(number) for number in range(300)]
    sandbox = serve(*accounts, faults=[faults.token_refused(after=40, times=None)])

    result = read(sandbox, additional_accounts=ALL, num_workers=10)

    assert "Truto refused the API token" in str(result.failure)
    # Those under way when it was refused: one for each worker, and one for the list of accounts.
    assert len(sandbox.requests) <= 40 + 10 + 1
    assert len(result.errors) <= 10 + 1


def test_given_the_list_cannot_be_read_when_read_then_the_sync_fails(serve: Serve) -> None:
    fault = faults.truto_failed(kind="accounts", after=1, times=None)
    sandbox = serve(*[some(number) for number in range(8)], faults=[fault], list_page_size=3)

    result = read(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert "Listing the integrated accounts of the environment failed" in str(result.failure)
    assert result.statuses[-1] == "INCOMPLETE"
    assert set(read_ids(result.records)) == {id_of(0), id_of(1), id_of(2)}


def test_given_the_list_loops_when_read_then_the_sync_fails(serve: Serve) -> None:
    page = '{"result": [{"id": "%s", "integration": {"name": "klaviyo"}}], "next_cursor": "x"}'
    fault = faults.body(page % id_of(0), kind="accounts", times=None)
    result = read(serve(some(0), faults=[fault]), additional_accounts=ALL)

    assert "pages run in a circle" in str(result.failure)


def test_given_entries_that_are_no_accounts_when_read_then_a_warning_shows_them(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    page = '{"result": [{"id": 5}, {"id": "%s", "integration": {}}], "next_cursor": null}'
    fault = faults.body(page % id_of(1), kind="accounts")
    result = read(serve(some(0), faults=[fault]), additional_accounts=ALL)

    assert len(result.records) == 3
    assert len([line for line in warnings(caplog) if "no id or no integration" in line]) == 2


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ('{"result": [null], "next_cursor": null}', "has entries that are no objects"),
        ('{"result": [], "is_partial_response": true}', "is marked as partial"),
    ],
)
def test_given_a_list_that_may_lack_some_when_read_then_a_warning_says_so(
    serve: Serve, caplog: pytest.LogCaptureFixture, page: str, says: str
) -> None:
    sandbox = serve(some(0), faults=[faults.body(page, kind="accounts")])

    result = read(sandbox, additional_accounts=ALL)

    assert len(result.records) == 3
    assert any("may lack some" in line and says in line for line in warnings(caplog))


def test_given_accounts_that_wait_for_their_vendors_when_read_then_the_others_are_not_held_up(
    serve: Serve,
) -> None:
    waiting = [some(n, faults=[faults.vendor_rate_limited(2)]) for n in range(6)]
    ready = [some(n) for n in range(6, 30)]
    sandbox = serve(*waiting, *ready)

    begun = time.monotonic()
    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=2)
    took = time.monotonic() - begun

    assert len(read_ids(result.records)) == 30
    answered = [request for request in sandbox.requests if request.status == 200]
    last_ready = max(r.at for r in answered if r.account_id in {a.id for a in ready})
    first_waited = min(r.at for r in answered if r.account_id in {a.id for a in waiting})
    assert last_ready < first_waited
    assert took < 6


def test_given_trutos_429_when_read_then_all_accounts_wait(serve: Serve) -> None:
    fault = faults.truto_rate_limited(1, after=5)
    sandbox = serve(*[some(number) for number in range(20)], faults=[fault])

    result = read_in_real_time(sandbox, additional_accounts=ALL, num_workers=2)

    assert len(read_ids(result.records)) == 20
    refused = next(r.at for r in sandbox.requests if r.status == 429)
    since = sorted(r.at for r in sandbox.requests if r.at >= refused)
    # The other worker sends until the refusal has arrived; then nobody does for a second, though
    # there is more to read.
    gap, place = max((later - at, n) for n, (at, later) in enumerate(pairwise(since), 1))
    assert gap > 0.9
    assert len(since) - place > 3


def test_given_a_long_sync_when_watched_then_the_log_tells_how_far_it_is(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "PROGRESS_SECONDS", 0.2)
    caplog.set_level(logging.INFO)
    waiting = some(3, faults=[faults.vendor_rate_limited(1)])
    sandbox = serve(some(0), broken(1, faults.account_blocked()), some(2), waiting)

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
    assert lines[0] == "3 of 9 integrated accounts cannot be read."
    assert [next(n for n in range(9) if id_of(n) in line) for line in lines[1:]] == [1, 3, 7]


def test_given_all_accounts_when_checked_then_the_list_is_read_and_those_not_active_are_named(
    serve: Serve,
) -> None:
    sandbox = serve(some(0), some(1), some(2, status="connecting"), some(3, status="needs_reauth"))

    status, message = check(sandbox, additional_accounts=ALL)

    assert status is Status.FAILED
    assert str(message).startswith("2 of 4 integrated accounts cannot be read.")
    assert id_of(2) in str(message)
    assert id_of(3) in str(message)
    assert {request.kind for request in sandbox.requests} == {"segments", "accounts"}


def test_given_bad_accounts_are_skipped_when_checked_then_it_succeeds_with_warnings(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = serve(some(0), some(1, status="needs_reauth"))

    status, _ = check(sandbox, additional_accounts=ALL, on_account_error="skip")

    assert status is Status.SUCCEEDED
    assert any(id_of(1) in line for line in warnings(caplog))


@pytest.mark.parametrize("more", [ALL, listed(*range(200))])
def test_given_a_wrong_token_when_checked_then_it_is_asked_once(
    serve: Serve, more: dict[str, Any]
) -> None:
    sandbox = serve(*[some(number) for number in range(200)])

    status, message = check(sandbox, token="wrong", additional_accounts=more)

    assert status is Status.FAILED
    assert "Truto refused the API token" in str(message)
    assert len(sandbox.requests) == 1


def test_given_no_list_when_checked_then_that_is_told(serve: Serve) -> None:
    fault = faults.truto_error(403, "Not yours", kind="accounts", times=None)
    status, message = check(serve(some(0), faults=[fault]), additional_accounts=ALL)

    assert status is Status.FAILED
    assert "Listing the integrated accounts of the environment failed" in str(message)


def test_given_the_network_is_gone_when_read_then_not_each_account_finds_out(
    serve: Serve,
) -> None:
    sandbox = serve(*[some(number) for number in range(60)])
    ids = [account.id for account in sandbox.environment.accounts]
    sandbox.stop()

    more = {"mode": "listed", "ids": ids}
    result = read(sandbox, additional_accounts=more, num_workers=2, on_account_error="skip")

    assert "the connection could not be made" in str(result.failure)
    assert len(result.waits) <= 2 * 5
    assert len(result.errors) <= 2
    assert result.statuses[-1] == "INCOMPLETE"


def test_given_one_account_whose_answers_are_broken_off_when_read_then_the_others_are_read(
    serve: Serve,
) -> None:
    sandbox = serve(some(0), broken(1, faults.reset()), some(2), some(3))

    result = read(sandbox, additional_accounts=ALL, num_workers=2)

    assert set(read_ids(result.records)) == {id_of(0), id_of(2), id_of(3)}
    assert len(result.errors) == 1


@pytest.mark.parametrize(
    ("fault", "says", "requests"),
    [
        (faults.truto_error(404), "no list of integrated accounts at this address", 1),
        (faults.truto_error(400, "Bad filter"), "tenant_ids under additional_accounts", 1),
        (faults.truto_error(503), "Truto is unavailable", 6),
        (faults.truto_error(500), "Truto had an internal error", 6),
    ],
)
def test_given_the_list_fails_when_read_then_the_words_are_those_of_the_list(
    serve: Serve, fault: Fault, says: str, requests: int
) -> None:
    fault.kind, fault.times = "accounts", None
    sandbox = serve(some(0), faults=[fault])

    result = read(sandbox, additional_accounts=ALL)

    assert says in str(result.failure)
    assert len([r for r in sandbox.requests if r.kind == "accounts"]) == requests


def test_given_a_token_that_was_proven_when_read_then_no_account_waits_for_another_to_be_answered(
    serve: Serve,
) -> None:
    first = some(0, faults=[faults.delay(0.3)])
    late = [some(number, faults=[faults.delay(1.5)]) for number in range(1, 6)]
    sandbox = serve(first, *late)

    result = read_in_real_time(sandbox, additional_accounts=listed(*range(6)), num_workers=6)

    arrived = sorted(request.at for request in sandbox.requests)
    assert arrived[1] - arrived[0] > 0.25
    assert arrived[-1] - arrived[1] < 1.4
    assert len(result.records) == 18
