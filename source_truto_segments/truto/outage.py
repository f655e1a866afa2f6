"""Handle an outage: while nothing gets through to Truto, send one request at a time as a probe."""

import math
import threading
from collections.abc import Callable

_MAX_PAUSE = 60.0
# Seconds until a request asks again, while a probe is in flight.
_WHILE_PROBING = 1.0


class Outage:
    """Holds requests back while nothing gets through, except one as a probe. Safe for threads.

    Args:
        now: Returns the time in seconds; monotonic.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._reached_at = -math.inf
        self._probes = 0
        # Infinite while a probe is in flight.
        self._next_probe_at = math.inf
        # When the outage began; None if there is none.
        self.since: float | None = None

    @property
    def never_reached(self) -> bool:
        """Whether neither Truto nor a vendor has responded yet."""
        with self._lock:
            return self._reached_at == -math.inf

    def wait(self) -> float:
        """Return 0 if a request may be sent now, otherwise the seconds until it may ask again."""
        with self._lock:
            if self.since is None:
                return 0.0
            remaining = self._next_probe_at - self._now()
            if remaining > 0:
                return _WHILE_PROBING if remaining == math.inf else remaining
            self._next_probe_at = math.inf
            return 0.0

    def withdraw(self) -> None:
        """Let another request probe, as the allowed one is not sent now."""
        with self._lock:
            self._next_probe_at = self._now()

    def reached(self) -> None:
        """Note that Truto or a vendor responded, which ends the outage."""
        with self._lock:
            self._reached_at, self.since, self._probes = self._now(), None, 0

    def failed(self, sent_at: float) -> None:
        """Note that a request did not get through.

        Args:
            sent_at: When it was sent. If anything got through since then, there is no outage.
        """
        with self._lock:
            if self._reached_at >= sent_at:
                return
            if self.since is None:
                self.since = sent_at
            self._next_probe_at = self._now() + min(2.0**self._probes, _MAX_PAUSE)
            self._probes += 1
