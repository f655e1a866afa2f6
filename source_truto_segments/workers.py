"""The places in which accounts are read side by side, and the one way to wait in them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A wait shorter than this keeps its place: handing it over would cost more than it brings.
_SHORT_WAIT = 0.5


class StoppedError(Exception):
    """The sync ends before this account was read to its end; the reason is told elsewhere."""


class Workers:
    """A number of places to work in, which a worker that only waits leaves to others.

    A vendor's limit can hold an account for minutes. The thread that waits for it is cheap; the
    place among `num_workers` is not, so it is given up for the wait and taken again after it.

    Args:
        places: How many accounts are read side by side.
        clock: Gives the time in seconds; monotonic.
        sleep: Waits a number of seconds; None waits in a way that `stop` ends at once.
    """

    def __init__(
        self,
        places: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._held = threading.local()
        self._stopped = threading.Event()
        self._sleep = sleep
        self.clock = clock

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place for the time of the block.

        Raises:
            StoppedError: If the sync ended while waiting for one.
        """
        self._places.acquire()
        self._held.place = True
        try:
            self.go_on()
            yield
        finally:
            self._held.place = False
            self._places.release()

    def stop(self) -> None:
        """Ends the sync: every wait ends, and no further request goes out."""
        self._stopped.set()

    def go_on(self) -> None:
        """Goes on if the sync does.

        Raises:
            StoppedError: If it was stopped.
        """
        if self._stopped.is_set():
            raise StoppedError

    def wait(self, seconds: float, *, for_account: bool) -> None:
        """Waits; what holds up one account only is waited for outside of the places.

        Raises:
            StoppedError: If the sync was stopped before or during the wait.
        """
        self.go_on()
        if for_account and seconds >= _SHORT_WAIT and getattr(self._held, "place", False):
            self._places.release()
            try:
                self._pause(seconds)
            finally:
                self._places.acquire()
        else:
            self._pause(seconds)
        self.go_on()

    def _pause(self, seconds: float) -> None:
        if self._sleep is None:
            self._stopped.wait(seconds)
        else:
            self._sleep(seconds)
