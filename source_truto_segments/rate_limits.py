"""Truto's two limits and the vendors' announced budgets, as one call budget for the whole source.

The CDK's own policies count a request when it is sent and apply only the first policy that matches.
Truto counts it when it arrives, and counts it twice: for the token and for the account. So the
windows here hold a request from its sending until `seconds` after its answer; whatever the network
does between, the server then never counts more than the limit.
"""

import re
import threading
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
# Some room for whoever else uses the token, and for clocks that run apart.
_SHARE = 0.97

# Where every place of a window is taken by a request under way, an answer is soon to come.
_UNTIL_AN_ANSWER = 0.05

# No server means a longer time than a year; a number beyond it is still a number.
_FOREVER = 366 * 86_400.0

_SECONDS = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Wait:
    """How long the next request has to wait.

    Attributes:
        seconds: The time to wait before asking again.
        for_account: Whether only the account is held up; else it is the whole token.
        reason: Who holds it up, for a message: "Truto's limit for the API token", …
    """

    seconds: float
    for_account: bool
    reason: str


class CallBudget:
    """Tells each request when it may go out.

    Args:
        clock: Gives the time in seconds; monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._token_window = _Window(int(TOKEN_LIMIT * _SHARE))
        self._account_windows: defaultdict[str, _Window] = defaultdict(
            lambda: _Window(int(ACCOUNT_LIMIT * _SHARE))
        )
        self._holds: dict[str | None, _Hold] = {}

    def take(self, account_id: str | None) -> Wait | None:
        """Takes a call, or says how long to wait before asking again.

        Every call that was taken must be returned by `answered`.

        Args:
            account_id: The account of the request; None for a request of the environment.
        """
        with self._lock:
            now = self._clock()
            waits = [
                self._held(None, now),
                _wait(self._token_window.free_in(now), None, "Truto's limit for the API token"),
            ]
            if account_id is not None:
                limit = "Truto's limit for the account"
                window = self._account_windows[account_id]
                waits.append(self._held(account_id, now))
                waits.append(_wait(window.free_in(now), account_id, limit))
            longest = max(filter(None, waits), key=lambda wait: wait.seconds, default=None)
            if longest is None:
                self._token_window.sent()
                if account_id is not None:
                    self._account_windows[account_id].sent()
            return longest

    def answered(self, account_id: str | None) -> None:
        """Says that a request that was taken is over, however it ended."""
        with self._lock:
            now = self._clock()
            self._token_window.answered(now)
            if account_id is not None:
                self._account_windows[account_id].answered(now)

    def heed(self, account_id: str | None, headers: Mapping[str, str]) -> None:
        """Holds the account while the vendor's announced budget is used up.

        Truto hands on the vendor's budget in normalized headers, also with good answers;
        `ratelimit-reset` is the seconds until the reset, not a timestamp.
        """
        remaining = _seconds(headers.get("ratelimit-remaining"))
        reset = _seconds(headers.get("ratelimit-reset"))
        if account_id is not None and remaining == 0 and reset:
            self.hold(account_id, reset, "the vendor's announced limit")

    def hold(self, account_id: str | None, seconds: float, reason: str) -> None:
        """Holds all requests of an account, or of the whole token (None), for some seconds."""
        with self._lock:
            until = self._clock() + seconds
            held = self._holds.get(account_id)
            if held is None or until > held.until:
                self._holds[account_id] = _Hold(until, reason)

    def is_used_up(self, account_id: str) -> bool:
        """Whether the account's own window is nearly full: a 429 of Truto's was then for it."""
        with self._lock:
            window = self._account_windows[account_id]
            return window.count(self._clock()) >= window.limit * _SHARE

    def forget(self, account_id: str) -> None:
        """Drops what is known of an account that was read to its end."""
        with self._lock:
            self._account_windows.pop(account_id, None)
            self._holds.pop(account_id, None)

    def _held(self, account_id: str | None, now: float) -> Wait | None:
        held = self._holds.get(account_id)
        return _wait(held.until - now, account_id, held.reason) if held else None


def announced_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The seconds that a server asks to wait: by Retry-After, else by ratelimit-reset.

    Args:
        headers: The answer's headers; Retry-After can be seconds or an HTTP date.
        now: The time of the answer, with a zone; by default the present.

    Returns:
        The seconds from now, not below 0; None where the server does not say.
    """
    retry_after = headers.get("Retry-After", "").strip()
    seconds = _seconds(retry_after)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(retry_after)
        date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        return max(0.0, (date - (now or datetime.now(timezone.utc))).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return _seconds(headers.get("ratelimit-reset"))


@dataclass(frozen=True)
class _Hold:
    until: float
    reason: str


class _Window:
    """The requests that the server may still count: under way, or answered not long ago."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._under_way = 0
        self._answers: deque[float] = deque()

    def free_in(self, now: float) -> float:
        """Seconds until another request fits; 0 if it does now."""
        if self.count(now) < self.limit:
            return 0.0
        if not self._answers:
            return _UNTIL_AN_ANSWER
        return self._answers[0] + WINDOW_SECONDS - now

    def count(self, now: float) -> int:
        while self._answers and self._answers[0] + WINDOW_SECONDS <= now:
            self._answers.popleft()
        return self._under_way + len(self._answers)

    def sent(self) -> None:
        self._under_way += 1

    def answered(self, now: float) -> None:
        self._under_way -= 1
        self._answers.append(now)


def _wait(seconds: float, account_id: str | None, reason: str) -> Wait | None:
    return Wait(seconds, account_id is not None, reason) if seconds > 0 else None


def _seconds(value: str | None) -> float | None:
    """A header's number of seconds; None where there is none that can be read."""
    text = (value or "").strip()
    return min(float(text), _FOREVER) if _SECONDS.fullmatch(text) else None
