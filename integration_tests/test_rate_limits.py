"""429s in all their forms, and the budgets that avoid them."""

from collections.abc import Callable

import pytest
from airbyte_cdk.models import Status

from integration_tests.support import account, check, read, read_in_real_time
from sandbox import Fault, Limit, Sandbox, VendorLimit, faults

Serve = Callable[..., Sandbox]


@pytest.mark.parametrize("make", [faults.truto_rate_limited, faults.vendor_rate_limited])
@pytest.mark.parametrize("form", ["seconds", "date", "ratelimit-reset"])
def test_given_a_429_that_says_how_long_when_read_then_just_that_is_waited(
    serve: Serve, make: Callable[..., Fault], form: str
) -> None:
    sandbox = serve(account(count=25, faults=[make(30, form, after=1)]))

    result = read(sandbox)

    assert result.failure is None
    assert len(set(result.ids)) == 25
    assert 28 <= sum(result.waits) <= 31
    assert len(sandbox.requests) == 4


@pytest.mark.parametrize("make", [faults.truto_rate_limited, faults.vendor_rate_limited])
def test_given_a_429_that_says_nothing_when_read_then_it_backs_off(
    serve: Serve, make: Callable[..., Fault]
) -> None:
    sandbox = serve(account(count=25, faults=[make(0, "nothing", times=3)]))

    result = read(sandbox)

    assert len(set(result.ids)) == 25
    assert len(sandbox.requests) == 6
    assert 30 < sum(result.waits) <= 71


def test_given_429s_for_half_an_hour_when_read_then_they_are_sat_out(serve: Serve) -> None:
    sandbox = serve(account(count=25, faults=[faults.vendor_rate_limited(60, times=30)]))

    result = read(sandbox)

    assert result.failure is None
    assert len(set(result.ids)) == 25
    assert sum(result.waits) >= 29 * 60


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (faults.truto_rate_limited, "Truto's rate limit was exceeded"),
        (faults.vendor_rate_limited, "the vendor's rate limit was exceeded"),
    ],
)
def test_given_429s_without_end_when_read_then_it_ends_with_the_reason(
    serve: Serve, make: Callable[..., Fault], says: str
) -> None:
    sandbox = serve(account(faults=[make(0, times=None)]))

    result = read(sandbox)

    assert says in str(result.failure)
    assert "HTTP 429" in str(result.failure)
    assert sum(result.waits) <= 3600
    assert len(sandbox.requests) < 200


def test_given_a_429_for_a_day_when_read_then_the_account_fails_at_once(serve: Serve) -> None:
    sandbox = serve(account(faults=[faults.vendor_rate_limited(86_400, times=None)]))

    result = read(sandbox)

    assert "the vendor's rate limit was exceeded" in str(result.failure)
    assert "86,400 s are to be waited" in str(result.failure)
    assert len(sandbox.requests) == 1


def test_given_a_429_when_checked_then_the_form_is_not_held_up(serve: Serve) -> None:
    status, message = check(serve(account(faults=[faults.vendor_rate_limited(60, times=None)])))

    assert status is Status.FAILED
    assert "the vendor's rate limit was exceeded" in str(message)


def test_given_an_announced_budget_when_read_then_no_429_is_met(serve: Serve) -> None:
    limit = VendorLimit(3, 1.0, retry_after="ratelimit-reset", announce=True)
    sandbox = serve(account(count=60, vendor_limit=limit))

    # The sandbox counts real seconds, so they really pass here.
    result = read_in_real_time(sandbox)

    assert len(set(result.ids)) == 60
    assert [request.status for request in sandbox.requests] == [200] * 6


def test_given_trutos_account_limit_when_read_then_no_429_is_met(serve: Serve) -> None:
    sandbox = serve(
        account(count=50, default_page_size=1),
        account_limit=Limit(50, 10.0),
        token_limit=Limit(500, 10.0),
    )

    result = read_in_real_time(sandbox)

    assert len(set(result.ids)) == 50
    assert {request.status for request in sandbox.requests} == {200}
