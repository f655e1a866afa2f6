"""Pace requests within Truto's two limits and the budgets that vendors announce.

Truto counts a request when it arrives, for the token and for the account. The windows here count a
request from the moment it is sent until `WINDOW_SECONDS` after its response. So however long the
network delays it, the server never counts more than the limit.
"""

import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

# Truto, API reference, "Rate limits": 500 requests / 10 s per API token, and 50 requests / 10 s per
# integrated account for unified and proxy calls.
TOKEN_LIMIT = 500
ACCOUNT_LIMIT = 50
WINDOW_SECONDS = 10.0
# Room for other users of the token, and for clocks that differ.
_SAFETY_FACTOR = 0.97

# An announced budget is only a hint. If its reset is further away, the account is tried again after
# this time; only a 429 is binding.
_MAX_ANNOUNCED_WAIT = 60.0

# ratelimit-reset is documented as seconds from now; Beehiiv's own header is a timestamp.
_FIRST_TIMESTAMP = 1_000_000_000
_FIRST_TIMESTAMP_MS = 1_000_000_000_000

# No server means a longer wait; the callers already refuse far shorter ones.
_MAX_SECONDS = 366 * 86_400.0
_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Delay:
    """A time that a request has to wait.

    Attributes:
        seconds: The time until it may be tried again.
        reason: What it waits for, for messages.
        account_id: The account that waits; None for a request of the environment.
        for_token: Whether every request with the token has to wait.
        is_rate_limit: Whether a limit is the reason; otherwise it is the backoff after a failure.
    """

    seconds: float
    reason: str
    account_id: str | None = None
    for_token: bool = False
    is_rate_limit: bool = True


class RateLimiter:
    """Decides when each request may be sent. Safe for threads.

    Args:
        clock: Returns the time in seconds; monotonic.
        share: How many clients share the token's limit; this one uses an equal part of it.
    """

    def __init__(self, clock: Callable[[], float], share: int = 1) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._token_window = _SlidingWindow(int(TOKEN_LIMIT * _SAFETY_FACTOR / share))
        self._account_windows: defaultdict[str, _SlidingWindow] = defaultdict(
            lambda: _SlidingWindow(int(ACCOUNT_LIMIT * _SAFETY_FACTOR))
        )
        self._blocks: dict[str | None, _Block] = {}
        # When each account got its first 429 from Truto.
        self._refused: dict[str, float] = {}

    def try_acquire(self, account_id: str | None) -> Delay | None:
        """Count a request and return None if it may be sent now; otherwise return the delay.

        Call `release` after every request that was counted.

        Args:
            account_id: The account of the request; None for a request of the environment.
        """
        with self._lock:
            now = self._clock()
            # Ask for the account first: while it waits, the token is free for others.
            delay = self._account_delay(account_id, now) or self._token_delay(now)
            if delay is None:
                self._token_window.sent()
                if account_id is not None:
                    self._account_windows[account_id].sent()
            return delay

    def release(self, account_id: str | None) -> None:
        """Note that a request has ended, whatever its outcome."""
        with self._lock:
            now = self._clock()
            self._token_window.finished(now)
            if account_id is not None:
                self._account_windows[account_id].finished(now)

    def update_from_headers(self, account_id: str | None, headers: Mapping[str, str]) -> None:
        """Block an account if the budget that its vendor announces is used up.

        Truto forwards the vendor's budget in normalized headers, also with good responses.
        """
        if account_id is None or _number(headers.get("ratelimit-remaining")) != 0:
            return
        reset = _parse_reset(headers, time.time())
        if reset:
            seconds = min(reset, _MAX_ANNOUNCED_WAIT)
            self.block(account_id, seconds, "the vendor's announced limit")

    def block(self, account_id: str | None, seconds: float, reason: str) -> None:
        """Block all requests of an account, or of the whole token (None), for some seconds."""
        with self._lock:
            until = self._clock() + seconds
            current = self._blocks.get(account_id)
            if current is None or until > current.until:
                self._blocks[account_id] = _Block(until, reason)

    def concerns_token(self, account_id: str) -> bool:
        """Return whether a 429 from Truto to an account concerns the whole token.

        Call it for each such 429. It needs evidence: another account got its first one within the
        same window, or the token's window is nearly full and no other request is in flight that
        could show it. An account that got one before is at its own limit.
        """
        with self._lock:
            now = self._clock()
            is_first = account_id not in self._refused
            others = [at for at in self._refused.values() if now - at < WINDOW_SECONDS]
            if is_first:
                self._refused[account_id] = now
            if not is_first or self._account_windows[account_id].is_nearly_full(now):
                return False
            is_alone = not self._token_window.in_flight
            return bool(others) or (is_alone and self._token_window.is_nearly_full(now))

    def discard(self, account_id: str) -> None:
        """Forget an account that was read completely.

        Do nothing while a request for it is in flight, such as one from the list of accounts.
        """
        with self._lock:
            if not self._account_windows[account_id].in_flight:
                del self._account_windows[account_id]
                self._blocks.pop(account_id, None)
                self._refused.pop(account_id, None)

    def _account_delay(self, account_id: str | None, now: float) -> Delay | None:
        if account_id is None:
            return None
        seconds, reason = self._longer_wait(account_id, self._account_windows[account_id], now)
        reason = reason or "Truto's limit for the account"
        return Delay(seconds, reason, account_id) if seconds > 0 else None

    def _token_delay(self, now: float) -> Delay | None:
        seconds, reason = self._longer_wait(None, self._token_window, now)
        reason = reason or "Truto's limit for the API token"
        return Delay(seconds, reason, for_token=True) if seconds > 0 else None

    def _longer_wait(
        self, account_id: str | None, window: "_SlidingWindow", now: float
    ) -> tuple[float, str]:
        """Return the longer wait, for the window or for a block, with the block's reason or ""."""
        until_free = window.time_until_free(now)
        block = self._blocks.get(account_id)
        if block is None or block.until - now <= until_free:
            return until_free, ""
        return block.until - now, block.reason


def parse_retry_after(
    headers: Mapping[str, str], now: datetime | None = None, *, is_limit: bool = True
) -> float | None:
    """Return the seconds that a response asks to wait: Retry-After, otherwise ratelimit-reset.

    Args:
        headers: The response's headers; Retry-After can be seconds or an HTTP date.
        now: The time of the response, with a zone; by default its Date, or the current time.
        is_limit: Whether the response is a 429. Only then is a reset a wait: other errors also have
            the vendor's budget.

    Returns:
        The seconds from now, not below 0; None if the response does not ask for a wait.
    """
    # A date is by the server's clock, so compare it with that clock, if it is known.
    now = now or _date(headers.get("Date")) or datetime.now(timezone.utc)
    retry_after = headers.get("Retry-After")
    seconds = _number(retry_after)
    if seconds is not None:
        return min(seconds, _MAX_SECONDS)
    date = _date(retry_after)
    if date is not None:
        return min(max(0.0, (date - now).total_seconds()), _MAX_SECONDS)
    return _parse_reset(headers, now.timestamp()) if is_limit else None


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class _Block:
    until: float
    reason: str


class _SlidingWindow:
    """The requests that the server may still count: in flight, or finished within the window."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._finished: deque[float] = deque()

    def time_until_free(self, now: float) -> float:
        """Return the seconds until another request fits; 0 if it does now."""
        if self.count(now) < self.limit:
            return 0.0
        # If all requests are in flight, the first one can still count for a whole window.
        first = self._finished[0] if self._finished else now
        return first + WINDOW_SECONDS - now

    def count(self, now: float) -> int:
        while self._finished and self._finished[0] + WINDOW_SECONDS <= now:
            self._finished.popleft()
        return self.in_flight + len(self._finished)

    def is_nearly_full(self, now: float) -> bool:
        return self.count(now) >= self.limit * _SAFETY_FACTOR

    def sent(self) -> None:
        self.in_flight += 1

    def finished(self, now: float) -> None:
        self.in_flight -= 1
        self._finished.append(now)


def _parse_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds until the reset; take a number that is too large for a timestamp."""
    value = _number(headers.get("ratelimit-reset"))
    if value is None or value < _FIRST_TIMESTAMP:
        return value and min(value, _MAX_SECONDS)
    timestamp = value / 1000 if value >= _FIRST_TIMESTAMP_MS else value
    return min(max(0.0, timestamp - now), _MAX_SECONDS)


def _number(value: str | None) -> float | None:
    """Return a header's number, not below 0; None if it has no valid one."""
    if value is None:
        return None
    text = value.strip()
    return float(text) if _SECONDS.fullmatch(text) else None
