"""A bounded queue from the worker threads to the main thread."""

import threading
from collections import deque
from typing import Generic, TypeVar

# If the destination is slow, the workers wait, too. A page takes several times its size in memory.
CAPACITY_BYTES = 256 * 1024

_Event = TypeVar("_Event")


class SyncCancelledError(Exception):
    """The sync ends before this task has finished; the reason is reported elsewhere."""


class EventQueue(Generic[_Event]):
    """A first-in, first-out queue, bounded by the bytes of its events, not by their number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._not_full = threading.Condition(self._lock)
        self._not_empty = threading.Condition(self._lock)
        self._events: deque[tuple[_Event, int]] = deque()
        self._bytes = 0
        self._is_closed = False

    def put(self, event: _Event, size: int = 0) -> None:
        """Add an event; wait while the queue is full, unless the event has no size.

        Args:
            event: The event.
            size: The approximate bytes that it holds.

        Raises:
            SyncCancelledError: If the queue was closed.
        """
        with self._lock:
            while size and self._bytes >= CAPACITY_BYTES and not self._is_closed:
                self._not_full.wait()
            if self._is_closed:
                raise SyncCancelledError
            self._events.append((event, size))
            self._bytes += size
            self._not_empty.notify()

    def get(self, timeout: float) -> _Event | None:
        """Take the first event; return None if none came within the timeout, in seconds."""
        with self._lock:
            if not self._events:
                self._not_empty.wait(timeout)
            if not self._events:
                return None
            event, size = self._events.popleft()
            self._bytes -= size
            self._not_full.notify()
            return event

    def close(self) -> None:
        """Drop the events, and make every later `put` fail."""
        with self._lock:
            self._is_closed = True
            self._events.clear()
            self._not_full.notify_all()
