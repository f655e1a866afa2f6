"""The call budget, and what servers say about waiting."""

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from source_truto_segments.rate_limits import (
    ACCOUNT_LIMIT,
    TOKEN_LIMIT,
    CallBudget,
    Wait,
    announced_wait,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def use_up(budget: CallBudget, account_id: str, *, is_answered: bool = True) -> tuple[int, Wait]:
    """Takes calls of an account until it has to wait: how many there were, and the wait."""
    for sent in range(2 * TOKEN_LIMIT):
        wait = budget.take(account_id)
        if wait is not None:
            return sent, wait
        if is_answered:
            budget.answered(account_id)
    pytest.fail("The budget has no end.")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "10"}, 10.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:35 GMT"}, 30.0),
        ({"Retry-After": "Fri, 02 Jan 2026 03:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:35"}, 30.0),
        ({"Retry-After": "Fri, 02 Jan 2026 04:04:35 +0100"}, 30.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon", "ratelimit-reset": "7"}, 7.0),
        ({"ratelimit-reset": "7"}, 7.0),
        ({"ratelimit-reset": "x"}, None),
    ],
)
def test_given_headers_when_read_then_they_say_how_long_to_wait(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert announced_wait(headers, NOW) == seconds


def test_given_a_date_when_no_time_is_named_then_it_counts_from_the_present() -> None:
    in_an_hour = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1))

    assert announced_wait({"Retry-After": in_an_hour}) == pytest.approx(3600, abs=60)


@given(
    st.dictionaries(
        st.sampled_from(["Retry-After", "ratelimit-reset", "ratelimit-remaining"]),
        st.text()
        | st.from_regex(r"[0-9]{1,400}")
        | st.from_regex(r"\w{3}, \d+ \w+ \d+ \d+:\d+:\d+ \w+"),
    )
)
def test_given_any_headers_when_read_then_it_is_a_number_or_none(headers: dict[str, str]) -> None:
    seconds = announced_wait(headers, NOW)
    assert seconds is None or 0 <= seconds < float("inf")
    CallBudget(Clock()).heed("a", headers)


def test_given_the_token_limit_when_more_is_asked_then_the_wait_is_the_rest_of_the_window() -> None:
    clock = Clock()
    budget = CallBudget(clock)
    sent = 0
    while sent <= TOKEN_LIMIT and (wait := budget.take(f"account-{sent}")) is None:
        budget.answered(f"account-{sent}")
        sent += 1
        clock.now += 0.001

    assert sent == int(0.97 * TOKEN_LIMIT)
    assert wait is not None
    assert (wait.for_account, wait.reason) == (False, "Truto's limit for the API token")
    assert wait.seconds == pytest.approx(10 - sent * 0.001, abs=1e-6)
    clock.now += wait.seconds
    assert budget.take("account-x") is None


def test_given_the_account_limit_when_reached_then_other_accounts_go_on() -> None:
    budget = CallBudget(Clock())
    sent, wait = use_up(budget, "a")

    assert sent == int(0.97 * ACCOUNT_LIMIT)
    assert (wait.for_account, wait.reason) == (True, "Truto's limit for the account")
    assert budget.take("b") is None
    assert budget.is_used_up("a")
    assert not budget.is_used_up("b")


def test_given_a_full_window_when_its_answers_are_old_then_the_account_goes_on() -> None:
    clock = Clock()
    budget = CallBudget(clock)
    use_up(budget, "a")
    clock.now += 10

    assert not budget.is_used_up("a")
    assert budget.take("a") is None


def test_given_a_request_under_way_when_the_window_passes_then_it_still_counts() -> None:
    clock = Clock()
    budget = CallBudget(clock)
    use_up(budget, "a", is_answered=False)
    clock.now += 60

    assert budget.take("a") is not None


def test_given_an_announced_budget_that_is_used_up_then_only_that_account_waits() -> None:
    clock = Clock()
    budget = CallBudget(clock)
    budget.heed("a", {"ratelimit-remaining": "0", "ratelimit-reset": "30"})
    budget.heed("b", {"ratelimit-remaining": "1", "ratelimit-reset": "30"})

    wait = budget.take("a")
    assert wait is not None
    assert (wait.seconds, wait.for_account) == (30.0, True)
    assert wait.reason == "the vendor's announced limit"
    assert budget.take("b") is None
    clock.now += 30
    assert budget.take("a") is None


def test_given_a_hold_of_the_token_when_a_shorter_one_comes_then_the_longer_stays() -> None:
    budget = CallBudget(Clock())
    budget.hold(None, 10, "Truto's limit")
    budget.hold(None, 5, "Truto's limit")

    wait = budget.take("a")
    assert wait is not None
    assert (wait.seconds, wait.for_account, wait.reason) == (10.0, False, "Truto's limit")


def test_given_a_hold_of_an_account_when_another_comes_then_the_longer_and_first_stays() -> None:
    budget = CallBudget(Clock())
    budget.hold("a", 10, "the first")
    budget.hold("a", 10, "as long")
    budget.hold("a", 5, "a shorter one")

    wait = budget.take("a")
    assert wait is not None
    assert (wait.seconds, wait.for_account, wait.reason) == (10.0, True, "the first")


@pytest.mark.parametrize(("of_token", "of_account"), [(10.0, 5.0), (5.0, 10.0)])
def test_given_holds_of_token_and_account_when_asked_then_the_longer_one_counts(
    of_token: float, of_account: float
) -> None:
    budget = CallBudget(Clock())
    budget.hold(None, of_token, "Truto's limit")
    budget.hold("a", of_account, "the vendor's limit")

    wait = budget.take("a")
    assert wait is not None
    assert (wait.seconds, wait.for_account) == (10.0, of_account > of_token)


def test_given_an_account_is_done_when_forgotten_then_it_begins_anew() -> None:
    budget = CallBudget(Clock())
    budget.hold("a", 10, "the vendor's limit")
    budget.forget("a")
    assert budget.take("a") is None

    use_up(budget, "a", is_answered=False)
    assert budget.is_used_up("a")
    budget.forget("a")
    assert not budget.is_used_up("a")
    assert budget.take("a") is None


def test_given_an_account_that_was_never_asked_when_forgotten_then_nothing_happens() -> None:
    budget = CallBudget(Clock())
    budget.forget("a")

    assert budget.take("a") is None


@given(st.integers(0, 2**32), st.floats(0, 3), st.floats(0, 0.1))
@settings(max_examples=25, deadline=None)
def test_given_any_latencies_when_paced_then_the_server_never_counts_more_than_its_limit(
    seed: int, latency: float, gap: float
) -> None:
    """The server counts a request at some moment between its sending and its answer."""
    random = Random(seed)  # noqa: S311 - a repeatable choice of latencies
    clock = Clock()
    budget = CallBudget(clock)
    counted: list[float] = []
    under_way: list[float] = []
    for _ in range(1200):
        clock.now += random.random() * gap
        for _ in range(TOKEN_LIMIT):
            for answer in [answer for answer in under_way if answer <= clock.now]:
                under_way.remove(answer)
                budget.answered(None)
            wait = budget.take(None)
            if wait is None:
                break
            clock.now += wait.seconds
        else:
            pytest.fail("The budget has no room again.")
        took = random.random() * latency
        counted.append(clock.now + random.random() * took)
        under_way.append(clock.now + took)
    counted.sort()
    for first, last in zip(counted, counted[TOKEN_LIMIT:], strict=False):
        assert last - first > 10 - 1e-6
