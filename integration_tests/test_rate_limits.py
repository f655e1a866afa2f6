"""429s in all their forms, the budgets that avoid them, and the statuses that report a wait."""

import time
from collections.abc import Callable
from typing import Any, get_args

import pytest
from airbyte_cdk.models import Status

from integration_tests.support import (
    ALL,
    ALL_STREAMS,
    Result,
    Serve,
    account,
    check,
    id_of,
    listed,
    numbered_account,
    read,
    read_in_real_time,
)
from sandbox import (
    TRUTO_ACCOUNT_LIMIT,
    TRUTO_TOKEN_LIMIT,
    Fault,
    VendorLimit,
    faults,
    large_environment,
)
from sandbox.limits import RetryAfter


def quota_resets(result: Result, stream: str = "segments") -> list[float]:
    """Return the waits that a stream's statuses report, in seconds from now."""
    statuses = [s for s in result.rate_limited if s["stream_descriptor"]["name"] == stream]
    assert {status["status"] for status in statuses} <= {"RUNNING"}
    reasons = [reason for status in statuses for reason in status["reasons"]]
    assert len(reasons) == len(statuses)
    assert {reason["type"] for reason in reasons} <= {"RATE_LIMITED"}
    resets = [reason["rate_limited"]["quota_reset"] for reason in reasons]
    assert all(isinstance(reset, int) for reset in resets)
    return [reset / 1000 - time.time() for reset in resets]


@pytest.mark.parametrize("make", [faults.truto_rate_limited, faults.vendor_rate_limited])
@pytest.mark.parametrize("form", sorted({*get_args(RetryAfter)} - {"nothing"}))
def test_429_says_how_long(serve: Serve, make: Callable[..., Fault], form: str) -> None:
    """If a 429 says how long to wait, the connector waits exactly that long."""
    sandbox = serve(account(count=25, faults=[make(30, form, after=1)]))

    result = read(sandbox)

    assert result.failure is None
    assert len(set(result.ids)) == 25
    assert 28 <= sum(result.waits) <= 32
    assert len(sandbox.requests) == 4


def test_429s_for_half_hour(serve: Serve) -> None:
    """The connector waits through half an hour of 429s."""
    result = read(serve(account(count=25, faults=[faults.vendor_rate_limited(60, times=30)])))

    assert result.failure is None
    assert len(set(result.ids)) == 25
    assert sum(result.waits) >= 29 * 60


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (faults.truto_rate_limited, "Truto's rate limit was exceeded"),
        (faults.vendor_rate_limited, "the vendor's rate limit was exceeded"),
    ],
)
def test_429s_without_end(serve: Serve, make: Callable[..., Fault], message: str) -> None:
    """If the 429s never end, the sync fails for that reason."""
    sandbox = serve(account(faults=[make(0, times=None)]))

    result = read(sandbox)

    assert message in str(result.failure)
    assert "HTTP 429" in str(result.failure)
    assert sum(result.waits) <= 3600
    assert len(sandbox.requests) < 200


@pytest.mark.parametrize("streams", [("segments",), ("integrated_accounts",)])
def test_one_account_for_a_day(serve: Serve, streams: tuple[str, ...]) -> None:
    """Truto's 429 for a day concerns only the account that got it; the others are read."""
    refused = numbered_account(1, faults=[faults.truto_rate_limited(86_400, times=None)])
    sandbox = serve(numbered_account(0), refused, numbered_account(2))

    result = read(sandbox, streams=streams, additional_accounts=listed(0, 1, 2))

    (error,) = result.errors
    assert (
        f"integrated account {id_of(1)} failed: Truto's rate limit was exceeded" in error["message"]
    )
    assert "the wait would be 86,400 s" in error["message"]
    assert all(wait < 60 for wait in result.waits)
    found = {r.get("integrated_account_id", r["id"]) for r in result.records_of(streams[0])}
    assert found == {id_of(0), id_of(2)}


def test_one_account_at_its_limit(serve: Serve) -> None:
    """While one account gets only Truto's 429s, nine starts in ten are for the others."""
    refused = numbered_account(1, faults=[faults.truto_rate_limited(10, times=None)])
    others = [numbered_account(number) for number in (0, *range(2, 30))]
    sandbox = serve(refused, *others)

    # Its waits take no time, so its retries come as soon as they can.
    result = read(sandbox, additional_accounts=ALL, on_account_error="skip", num_workers=1)

    assert len(result.records) == 29 * 3
    order = [request.account_id for request in sandbox.requests if request.account_id]
    others_done = max(order.index(other.id) for other in others) + 1
    assert len(order) - order.count(refused.id) == 29
    assert others_done <= 29 + 1 + 29 // 9
    assert max(result.waits) >= 100


def test_check_with_429(serve: Serve) -> None:
    """A 429 does not delay the check, so the form is not held up."""
    status, message = check(serve(account(faults=[faults.vendor_rate_limited(60, times=None)])))

    assert status is Status.FAILED
    assert "the vendor's rate limit was exceeded" in str(message)


def test_announced_budget(serve: Serve) -> None:
    """If the vendor announces its budget, a sync meets no 429."""
    limit = VendorLimit(3, 1.0, retry_after="ratelimit-reset", announce=True)
    sandbox = serve(account(count=60, vendor_limit=limit))

    # The sandbox counts real seconds, so the waits are real here.
    result = read_in_real_time(sandbox)

    assert len(set(result.ids)) == 60
    assert [request.status for request in sandbox.requests] == [200] * 6


def test_trutos_limits(serve: Serve) -> None:
    """With more accounts than Truto's token limit, and one of many pages, there is no 429."""
    environment = large_environment(700, vendors=("klaviyo",), segments=1)
    sandbox = serve(
        account(count=60, default_page_size=1),
        *environment.accounts,
        latency=0.2,
        account_limit=TRUTO_ACCOUNT_LIMIT,
        token_limit=TRUTO_TOKEN_LIMIT,
    )

    result = read_in_real_time(
        sandbox, streams=("segments", "integrated_accounts"), additional_accounts=ALL
    )

    assert {request.status for request in sandbox.requests} == {200}
    assert len(result.records) == 60 + 700
    assert len({record["integrated_account_id"] for record in result.records}) == 701
    assert len(result.records_of("integrated_accounts")) == 701


@pytest.mark.parametrize("make", [faults.truto_rate_limited, faults.vendor_rate_limited])
@pytest.mark.parametrize("streams", [("segments",), ALL_STREAMS])
def test_no_request_can_be_sent(
    serve: Serve, make: Callable[..., Fault], streams: tuple[str, ...]
) -> None:
    """While no request can be sent, each wait is reported once."""
    script = [make(30, after=after, kind="segments") for after in (1, 0, 1)]
    result = read(serve(account(count=35, faults=script)), streams=streams)

    assert len(set(result.ids)) == 35
    assert len(result.rate_limited) == 3 * len(streams)
    for stream in streams:
        assert quota_resets(result, stream) == [pytest.approx(30, abs=5)] * 3


def test_limit_waited_for_in_time(serve: Serve) -> None:
    """A wait that keeps within a limit is reported as well."""
    sandbox = serve(account(count=60, default_page_size=1))

    result = read(sandbox)

    assert len(set(result.ids)) == 60
    assert len(sandbox.requests) == 60
    assert quota_resets(result) == [pytest.approx(10, abs=5)]


def retry_after_7_seconds(**match: Any) -> Fault:
    return faults.vendor_error(503, headers={"Retry-After": "7"}, **match)


@pytest.mark.parametrize(
    "fault", [faults.vendor_failed, faults.bad_gateway, faults.reset, retry_after_7_seconds]
)
def test_backoff(serve: Serve, fault: Callable[..., Fault]) -> None:
    """A backoff is not reported as a rate limit."""
    result = read(serve(account(count=25, faults=[fault(times=3)])))

    assert len(set(result.ids)) == 25
    assert sum(result.waits) > 3
    assert result.rate_limited == []


def test_wait_of_less_than_second(serve: Serve) -> None:
    """A wait of less than a second is not reported."""
    announced = {"ratelimit-remaining": "0", "ratelimit-reset": "0.9"}
    first = faults.body('{"result": [{"id": "a"}], "next_cursor": "b"}', headers=announced)
    second = faults.body('{"result": [{"id": "b"}], "next_cursor": null}')

    result = read(serve(account(faults=[first, second])))

    assert result.ids == ["a", "b"]
    assert result.waits == [pytest.approx(0.9)]
    assert result.rate_limited == []
