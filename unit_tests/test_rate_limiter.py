"""When the next request may be sent, and how long servers ask to wait."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from source_truto_segments.truto.rate_limiter import (
    ACCOUNT_LIMIT,
    TOKEN_LIMIT,
    WINDOW_SECONDS,
    Delay,
    RateLimiter,
    parse_retry_after,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
TIMESTAMP = int(NOW.timestamp())
A_YEAR = 366 * 86_400.0
# A few per cent below Truto's limits.
TOKEN_BUDGET, ACCOUNT_BUDGET = 485, 48


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def exhaust(
    limiter: RateLimiter, account_id: str | None, *, has_response: bool = True
) -> tuple[int, Delay]:
    """Send an account's requests until it has to wait; return their number and the delay."""
    for sent in range(2 * TOKEN_LIMIT):
        delay = limiter.try_acquire(account_id)
        if delay is not None:
            return sent, delay
        if has_response:
            limiter.release(account_id)
    pytest.fail("There is no limit.")


# --- the limits of the token and of each account ---


def test_token_limit() -> None:
    """At the token's limit, the delay is the rest of the window."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    for number in range(TOKEN_BUDGET):
        assert limiter.try_acquire(f"account-{number}") is None
        limiter.release(f"account-{number}")
        clock.now += 0.001

    for account_id in ("account-0", "another", None):
        delay = limiter.try_acquire(account_id)
        assert delay is not None
        assert (delay.for_token, delay.account_id) == (True, None)
        assert (delay.reason, delay.is_rate_limit) == ("Truto's limit for the API token", True)
        assert delay.seconds == pytest.approx(WINDOW_SECONDS - TOKEN_BUDGET * 0.001, abs=1e-6)
        rest = delay.seconds
    clock.now += rest
    assert limiter.try_acquire("another") is None
    assert limiter.try_acquire("another") is not None


@pytest.mark.parametrize(("share", "budget"), [(2, 242), (5, 97), (99, 4)])
def test_shares(share: int, budget: int) -> None:
    """All shares together stay within the token's limit."""
    # An account belongs to one share only, so its own limit is not divided.
    limiter = RateLimiter(FakeClock(), share)

    sent, _ = exhaust(limiter, "account-0")
    rest, delay = exhaust(limiter, None)

    assert sent == min(budget, ACCOUNT_BUDGET)
    assert sent + rest == budget
    assert delay.for_token
    assert budget * share <= TOKEN_BUDGET


def test_requests_of_environment() -> None:
    """Requests without an account count towards the token's limit."""
    sent, delay = exhaust(RateLimiter(FakeClock()), None)

    assert sent == TOKEN_BUDGET
    assert delay == Delay(10.0, "Truto's limit for the API token", for_token=True)


def test_account_limit() -> None:
    """At an account's limit, other accounts continue."""
    limiter = RateLimiter(FakeClock())
    sent, delay = exhaust(limiter, "a")

    assert sent == ACCOUNT_BUDGET
    assert delay == Delay(10.0, "Truto's limit for the account", "a")
    assert delay.is_rate_limit
    assert limiter.try_acquire("b") is None
    assert limiter.try_acquire(None) is None


def test_waiting_requests() -> None:
    """Requests that have to wait do not count."""
    limiter = RateLimiter(FakeClock())
    limiter.block("a", 5, "a limit")
    for _ in range(TOKEN_LIMIT):
        assert limiter.try_acquire("a") is not None

    sent, _ = exhaust(limiter, None)
    assert sent == TOKEN_BUDGET
    for _ in range(ACCOUNT_LIMIT):
        assert limiter.try_acquire("b") is not None


def test_full_window() -> None:
    """An account continues once the responses in its full window are old enough."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    exhaust(limiter, "a")
    clock.now += WINDOW_SECONDS

    assert limiter.try_acquire("a") is None


def test_requests_in_flight() -> None:
    """Requests in flight still count after the window."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    exhaust(limiter, "a", has_response=False)
    clock.now += 60

    assert limiter.try_acquire("a") == Delay(10.0, "Truto's limit for the account", "a")
    limiter.release("a")
    clock.now += 4
    delay = limiter.try_acquire("a")
    assert delay is not None
    assert delay.seconds == 6.0
    clock.now += 6
    assert limiter.try_acquire("a") is None


def test_blame_of_one_account() -> None:
    """A 429 of a single account concerns that account, however often it comes."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    for _ in range(5):
        assert not limiter.concerns_token("a")
        clock.now += 1


@pytest.mark.parametrize(("seconds", "concerns"), [(9.9, True), (10.0, False)])
def test_blame_of_two_accounts(seconds: float, concerns: bool) -> None:
    """A first 429 of a second account within the window concerns the token."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    assert not limiter.concerns_token("a")
    clock.now += seconds

    assert limiter.concerns_token("b") is concerns
    assert not limiter.concerns_token("b")


def test_blame_at_the_accounts_limit() -> None:
    """An account whose own window is nearly full is not evidence against the token."""
    limiter = RateLimiter(FakeClock())
    exhaust(limiter, "a")
    assert not limiter.concerns_token("b")
    assert not limiter.concerns_token("a")


@pytest.mark.parametrize("in_flight", [0, 1])
def test_blame_at_the_tokens_limit(in_flight: int) -> None:
    """The token's own full window is evidence, unless a request in flight can still tell."""
    limiter = RateLimiter(FakeClock())
    for number in range(TOKEN_BUDGET):
        assert limiter.try_acquire(f"{number}") is None
    for number in range(TOKEN_BUDGET - in_flight):
        limiter.release(f"{number}")

    assert limiter.concerns_token("0") is (in_flight == 0)


@pytest.mark.parametrize(
    ("accounts", "limit"),
    [([None], TOKEN_LIMIT), (["a"], ACCOUNT_LIMIT), ([*"abcdefghijklmnop", None], TOKEN_LIMIT)],
    ids=["environment", "account", "many"],
)
@given(seed=st.integers(0, 2**32), latency=st.floats(0, 3), gap=st.floats(0, 0.1))
@settings(max_examples=25)
def test_any_latencies(
    accounts: Sequence[str | None], limit: int, seed: int, latency: float, gap: float
) -> None:
    """The server never counts more than its limits, whatever the latencies are."""
    # The server counts a request at some moment between its sending and its response.
    random = Random(seed)  # noqa: S311 - a repeatable choice of latencies
    clock = FakeClock()
    limiter = RateLimiter(clock)
    counted: list[tuple[float, str | None]] = []
    in_flight: list[tuple[float, str]] = []
    for _ in range(2 * limit + 100):
        clock.now += random.random() * gap
        account_id = random.choice(accounts)
        for _ in range(TOKEN_LIMIT):
            while in_flight and in_flight[0][0] <= clock.now:
                limiter.release(heappop(in_flight)[1] or None)
            delay = limiter.try_acquire(account_id)
            if delay is None:
                break
            clock.now += delay.seconds
        else:
            pytest.fail("There is never room again.")
        took = random.random() * latency
        counted.append((clock.now + random.random() * took, account_id))
        heappush(in_flight, (clock.now + took, account_id or ""))
    assert_within(TOKEN_LIMIT, [time for time, _ in counted])
    for account_id in filter(None, accounts):
        assert_within(ACCOUNT_LIMIT, [time for time, of in counted if of == account_id])


def assert_within(limit: int, times: list[float]) -> None:
    times.sort()
    for first, last in zip(times, times[limit:], strict=False):
        assert last - first > WINDOW_SECONDS - 1e-6


# --- blocks ---


def test_block_of_token() -> None:
    """A shorter block of the token does not replace a longer one."""
    limiter = RateLimiter(FakeClock())
    limiter.block(None, 10, "the first")
    limiter.block(None, 10, "as long")
    limiter.block(None, 5, "shorter")

    assert limiter.try_acquire("a") == Delay(10.0, "the first", for_token=True)
    assert limiter.try_acquire(None) == Delay(10.0, "the first", for_token=True)


def test_block_of_account() -> None:
    """A longer block of an account replaces a shorter one, and affects that account alone."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    limiter.block("a", 5, "the first")
    clock.now += 2
    limiter.block("a", 10, "longer")

    assert limiter.try_acquire("a") == Delay(10.0, "longer", "a")
    assert limiter.try_acquire("b") is None
    clock.now += 10
    assert limiter.try_acquire("a") is None


@pytest.mark.parametrize(("of_token", "of_account"), [(10.0, 5.0), (5.0, 10.0)])
def test_blocks_of_token_and_account(of_token: float, of_account: float) -> None:
    """If both the account and the token are blocked, the account's own wait comes first."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    limiter.block(None, of_token, "Truto's limit")
    limiter.block("a", of_account, "the vendor's limit")

    assert limiter.try_acquire("a") == Delay(of_account, "the vendor's limit", "a")
    clock.now += of_account
    rest = limiter.try_acquire("a")
    assert rest == (Delay(5.0, "Truto's limit", for_token=True) if of_token > of_account else None)


@pytest.mark.parametrize(
    ("blocked_for", "delay"),
    [
        (9.0, Delay(10.0, "Truto's limit for the account", "a")),
        (10.0, Delay(10.0, "Truto's limit for the account", "a")),
        (11.0, Delay(11.0, "the vendor's limit", "a")),
    ],
)
def test_full_window_and_block(blocked_for: float, delay: Delay) -> None:
    """If the window is full and the account is blocked, the longer wait applies."""
    limiter = RateLimiter(FakeClock())
    exhaust(limiter, "a")
    limiter.block("a", blocked_for, "the vendor's limit")

    assert limiter.try_acquire("a") == delay


def test_discard() -> None:
    """Discarding an account forgets its block and its requests."""
    limiter = RateLimiter(FakeClock())
    limiter.block("a", 10, "the vendor's limit")
    limiter.discard("a")
    assert limiter.try_acquire("a") is None

    limiter.release("a")
    exhaust(limiter, "a")
    limiter.discard("a")
    assert limiter.try_acquire("a") is None


def test_discard_with_request_in_flight() -> None:
    """An account with a request in flight cannot be discarded."""
    limiter = RateLimiter(FakeClock())
    assert limiter.try_acquire("a") is None
    limiter.block("a", 10, "the vendor's limit")
    limiter.discard("a")
    assert limiter.try_acquire("a") == Delay(10, "the vendor's limit", "a")
    limiter.release("a")
    limiter.discard("a")

    assert exhaust(limiter, "a")[0] == int(ACCOUNT_LIMIT * 0.97)


def test_discard_of_unknown_account() -> None:
    """Discarding an account without any request does nothing."""
    limiter = RateLimiter(FakeClock())
    limiter.discard("a")

    assert limiter.try_acquire("a") is None


# --- the waits that servers ask for ---


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
        # A space for `str.strip`, but not for `float`.
        ({"Retry-After": "\x1c10\x1f"}, 10.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon", "ratelimit-reset": "7"}, 7.0),
        ({"Retry-After": "0", "ratelimit-reset": "7"}, 0.0),
        ({"Retry-After": "5", "ratelimit-reset": "7"}, 5.0),
        ({"ratelimit-reset": "7"}, 7.0),
        ({"ratelimit-reset": " 7.5 "}, 7.5),
        ({"ratelimit-reset": "0"}, 0.0),
        ({"ratelimit-reset": "x"}, None),
        ({"ratelimit-reset": "-7"}, None),
        # A number of this size is a timestamp, not a number of seconds.
        ({"ratelimit-reset": str(TIMESTAMP + 30)}, 30.0),
        ({"ratelimit-reset": f"{TIMESTAMP + 30}.5"}, 30.5),
        ({"ratelimit-reset": f"{TIMESTAMP + 30}500"}, 30.5),
        ({"ratelimit-reset": str(TIMESTAMP)}, 0.0),
        ({"ratelimit-reset": str(TIMESTAMP - 30)}, 0.0),
        ({"ratelimit-reset": str(TIMESTAMP * 1000 - 1)}, 0.0),
        ({"ratelimit-reset": "999999999"}, A_YEAR),
        ({"ratelimit-reset": "1000000000"}, 0.0),
        ({"ratelimit-reset": "999999999999"}, A_YEAR),
        ({"ratelimit-reset": "1000000000000"}, 0.0),
        ({"Retry-After": str(TIMESTAMP + 30)}, A_YEAR),
        ({"Retry-After": "9" * 400}, A_YEAR),
    ],
)
def test_forms_of_headers(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After and ratelimit-reset are parsed in any form, and Retry-After comes first."""
    found = parse_retry_after(headers, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1e-6))


def test_date_without_now() -> None:
    """If the caller passes no time, a date counts from the present."""
    in_an_hour = datetime.now(timezone.utc) + timedelta(hours=1)

    for headers in (
        {"Retry-After": format_datetime(in_an_hour)},
        {"ratelimit-reset": str(int(in_an_hour.timestamp()))},
    ):
        assert parse_retry_after(headers) == pytest.approx(3600, abs=60)


@given(
    st.dictionaries(
        st.sampled_from(["Retry-After", "ratelimit-reset", "ratelimit-remaining"]),
        st.text()
        | st.from_regex(r"[0-9]{1,400}")
        | st.from_regex(r"\w{3}, \d+ \w+ \d+ \d+:\d+:\d+ \w+"),
    )
)
def test_any_headers(headers: dict[str, str]) -> None:
    """Any headers are parsed to a number or None."""
    seconds = parse_retry_after(headers, NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@given(st.datetimes(min_value=datetime(1900, 1, 1)), st.integers(-23 * 60, 23 * 60))
def test_any_date(local: datetime, minutes: int) -> None:
    """The wait for a date lasts until then, but at most a year."""
    date = local.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=minutes)))
    seconds = (date - NOW).total_seconds()
    expected = min(max(0, seconds), A_YEAR)
    assert parse_retry_after({"Retry-After": format_datetime(date)}, NOW) == expected


# --- the vendors' announced budgets ---


def announce(remaining: str, reset: str, account_id: str | None = "a") -> RateLimiter:
    limiter = RateLimiter(FakeClock())
    headers = {"ratelimit-remaining": remaining, "ratelimit-reset": reset}
    limiter.update_from_headers(account_id, headers)
    return limiter


def test_announced_budget() -> None:
    """Only the account whose announced budget is used up waits."""
    clock = FakeClock()
    limiter = RateLimiter(clock)
    used_up = {"ratelimit-remaining": "0", "ratelimit-reset": "30"}
    limiter.update_from_headers("a", used_up)
    limiter.update_from_headers("b", {**used_up, "ratelimit-remaining": "1"})

    assert limiter.try_acquire("a") == Delay(30.0, "the vendor's announced limit", "a")
    assert limiter.try_acquire("b") is None
    clock.now += 30
    assert limiter.try_acquire("a") is None


@pytest.mark.parametrize(
    ("remaining", "reset", "seconds"),
    [
        (" 0.0 ", "0.5", 0.5),
        ("0", "60", 60.0),
        ("0", "3600", 60.0),
        ("0", str(2 * TIMESTAMP), 60.0),
    ],
)
def test_long_announced_wait(remaining: str, reset: str, seconds: float) -> None:
    """A used-up announced budget blocks its account for a minute at most."""
    delay = announce(remaining, reset).try_acquire("a")
    assert delay == Delay(seconds, "the vendor's announced limit", "a")


def test_announced_timestamp() -> None:
    """A reset that is a timestamp blocks the account until then."""
    reset = datetime.now(timezone.utc) + timedelta(seconds=40)
    delay = announce("0", str(reset.timestamp())).try_acquire("a")

    assert delay is not None
    assert delay.seconds == pytest.approx(40, abs=10)


@pytest.mark.parametrize(
    ("remaining", "reset"),
    [("0", "0"), ("0", ""), ("0", "soon"), ("", "30"), ("none", "30"), ("0", "1000000000")],
)
def test_unusable_announcement(remaining: str, reset: str) -> None:
    """An announced budget without usable values blocks nothing."""
    assert announce(remaining, reset).try_acquire("a") is None


def test_no_headers_or_no_account() -> None:
    """Without both headers or without an account, nothing is blocked."""
    limiter = RateLimiter(FakeClock())
    limiter.update_from_headers("a", {})
    limiter.update_from_headers("a", {"ratelimit-remaining": "0"})
    limiter.update_from_headers("a", {"ratelimit-reset": "30"})

    assert limiter.try_acquire("a") is None
    assert announce("0", "30", account_id=None).try_acquire(None) is None


def test_date_of_the_response() -> None:
    """A date is read against the response's own Date, however wrong the server's clock is."""
    headers = {
        "Date": "Fri, 02 Jan 1970 00:00:00 GMT",
        "Retry-After": "Fri, 02 Jan 1970 00:00:07 GMT",
    }
    assert parse_retry_after(headers) == 7


def test_429_of_a_finished_account() -> None:
    """The 429 of an account that was read completely is no evidence against the token."""
    limiter = RateLimiter(FakeClock())
    assert not limiter.concerns_token("a")
    limiter.discard("a")
    assert not limiter.concerns_token("b")
    assert limiter.concerns_token("c")


def test_no_retry_after() -> None:
    """A response that does not ask for a wait is no wait of zero seconds."""
    assert parse_retry_after({}) is None
