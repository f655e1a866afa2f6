"""Rate limits: Truto's own sliding windows, and a vendor's budget for one account."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal

RetryAfter = Literal[
    "seconds",
    "date",
    "ratelimit-reset",
    "ratelimit-reset-epoch",
    "ratelimit-reset-epoch-ms",
    "nothing",
]
"""The form in which a 429 states the time to wait: `Retry-After` in seconds or as a date,
`ratelimit-reset` in seconds or as a timestamp in seconds or milliseconds, or no header at all."""


@dataclass(frozen=True)
class Limit:
    """At most `requests` in any window of `seconds`."""

    requests: int = 500
    seconds: float = 10.0


TRUTO_TOKEN_LIMIT = Limit(requests=500, seconds=10.0)
"""Truto's documented limit for each API token."""

TRUTO_ACCOUNT_LIMIT = Limit(requests=50, seconds=10.0)
"""Truto's documented limit for each integrated account, unified and proxy calls together."""


@dataclass(frozen=True)
class VendorLimit:
    """A vendor's own budget for one account.

    The window is fixed, as the `ratelimit-*` headers describe it: it opens with the first request
    after the previous window has ended, and the whole budget returns at its end.

    Attributes:
        limit: Requests in each window.
        window: The length of the window in seconds.
        retry_after: The form in which the 429 states the time to wait. If it is a timestamp, all
            `ratelimit-reset` headers have that form.
        announce: Whether every response has the `ratelimit-*` headers.
        reset: Seconds until the reset in all headers, possibly more than the window; None for the
            rest of the window.
    """

    limit: int
    window: float
    retry_after: RetryAfter = "seconds"
    announce: bool = True
    reset: float | None = None


@dataclass
class SlidingWindow:
    """The latest requests that were accepted; refused ones do not count."""

    _arrivals: deque[float] = field(default_factory=deque)

    def is_full(self, limit: Limit, now: float) -> bool:
        """Return whether a request that arrives `now` would exceed the limit."""
        while self._arrivals and self._arrivals[0] <= now - limit.seconds:
            self._arrivals.popleft()
        return len(self._arrivals) >= limit.requests

    def add(self, now: float) -> None:
        """Count an accepted request."""
        self._arrivals.append(now)


@dataclass
class VendorBudget:
    """The rest of a vendor's budget for one account."""

    _opened: float = -math.inf
    _used: int = 0

    def spend(self, limit: VendorLimit, now: float) -> bool:
        """Take one request from the budget; return False if none was left."""
        if now - self._opened >= limit.window:
            self._opened = now
            self._used = 0
        if self._used >= limit.limit:
            return False
        self._used += 1
        return True

    def seconds_left(self, limit: VendorLimit, now: float) -> float:
        """Return the seconds until the whole budget returns, or the limit's own reset."""
        if limit.reset is not None:
            return limit.reset
        return max(0.0, limit.window - (now - self._opened))

    def headers(self, limit: VendorLimit, now: float) -> dict[str, str]:
        """Return the state of the budget as Truto's normalized headers."""
        return {
            "ratelimit-limit": f"{limit.limit};w={limit.window:g}",
            "ratelimit-remaining": str(max(0, limit.limit - self._used)),
            "ratelimit-reset": _reset(limit.retry_after, self.seconds_left(limit, now)),
        }


def retry_headers(form: RetryAfter, seconds: float) -> dict[str, str]:
    """Return headers that ask to wait `seconds`, rounded up to the precision of the form."""
    if form == "nothing":
        return {}
    if form == "seconds":
        return {"Retry-After": str(math.ceil(seconds))}
    if form == "date":
        # A date has whole seconds only, and rounding down would invite a retry that is too early.
        return {"Retry-After": formatdate(math.ceil(time.time() + seconds), usegmt=True)}
    return {"ratelimit-remaining": "0", "ratelimit-reset": _reset(form, seconds)}


def _reset(form: RetryAfter, seconds: float) -> str:
    if form == "ratelimit-reset-epoch":
        return str(math.ceil(time.time() + seconds))
    if form == "ratelimit-reset-epoch-ms":
        return str(math.ceil((time.time() + seconds) * 1_000))
    return str(math.ceil(seconds))
