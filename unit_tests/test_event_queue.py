"""The queue between the workers and the output: its order, its bound in bytes and its end."""

import threading
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.sync.event_queue import CAPACITY_BYTES, EventQueue, SyncCancelledError

pytestmark = pytest.mark.timeout(10)

# A thread that does not wait ends within this time. If the time is too short, no test fails.
A_MOMENT = 0.05


class Putter(threading.Thread):
    """A thread that puts one event, and waits for as long as that takes."""

    def __init__(self, queue: EventQueue[str], event: str, size: int = 0) -> None:
        super().__init__(daemon=True)
        self._queue = queue
        self._event = event
        self._size = size
        self.is_cancelled = False
        self.start()

    def run(self) -> None:
        try:
            self._queue.put(self._event, self._size)
        except SyncCancelledError:
            self.is_cancelled = True

    @property
    def is_waiting(self) -> bool:
        self.join(A_MOMENT)
        return self.is_alive()


@given(st.lists(st.integers(0, CAPACITY_BYTES // 2) | st.just(None), max_size=30))
def test_any_order_of_puts_and_gets(steps: Sequence[int | None]) -> None:
    """With room for all events, the queue is first in, first out, in any order of steps."""
    # A number puts an event of this size, and None takes an event.
    queue: EventQueue[int] = EventQueue()
    expected: deque[tuple[int, int]] = deque()
    for number, size in enumerate(steps):
        is_full = sum(size for _, size in expected) >= CAPACITY_BYTES
        if size is None or (is_full and size):
            found = queue.get(0)
            assert found == (expected.popleft()[0] if expected else None)
        else:
            queue.put(number, size)
            expected.append((number, size))

    assert [queue.get(0) for _ in expected] == [number for number, _ in expected]
    assert queue.get(0) is None


def test_full_queue() -> None:
    """An event with a size waits while the queue is full."""
    queue: EventQueue[str] = EventQueue()
    queue.put("first", CAPACITY_BYTES - 1)
    queue.put("second", 1)
    putter = Putter(queue, "third", 1)

    assert putter.is_waiting
    assert queue.get(0) == "first"
    putter.join()
    assert [queue.get(0), queue.get(0), queue.get(0)] == ["second", "third", None]


def test_still_full_queue() -> None:
    """An event keeps waiting if the event that was taken makes no room."""
    queue: EventQueue[str] = EventQueue()
    queue.put("small", 1)
    queue.put("large", CAPACITY_BYTES)
    putter = Putter(queue, "next", 1)

    assert queue.get(0) == "small"
    assert putter.is_waiting
    assert queue.get(0) == "large"
    putter.join()
    assert queue.get(0) == "next"


def test_event_without_size() -> None:
    """An event without a size does not wait, even if the queue is full."""
    queue: EventQueue[str] = EventQueue()
    queue.put("large", 10 * CAPACITY_BYTES)
    queue.put("status", 0)
    queue.put("another")

    assert [queue.get(0) for _ in range(3)] == ["large", "status", "another"]


def test_many_waiting_events() -> None:
    """All waiting events arrive as soon as there is room."""
    queue: EventQueue[str] = EventQueue()
    putters = [Putter(queue, str(number), CAPACITY_BYTES) for number in range(5)]

    assert sorted(str(queue.get(9)) for _ in putters) == ["0", "1", "2", "3", "4"]
    for putter in putters:
        putter.join()
        assert not putter.is_cancelled


def test_empty_queue() -> None:
    """An empty queue waits for an event until the timeout."""
    queue: EventQueue[str] = EventQueue()
    getter_waits = threading.Timer(A_MOMENT, queue.put, ["late"])
    getter_waits.start()

    assert queue.get(9) == "late"
    assert queue.get(0.001) is None


def test_close() -> None:
    """Closing the queue drops its events and makes later ones fail."""
    queue: EventQueue[str] = EventQueue()
    queue.put("large", CAPACITY_BYTES)
    queue.put("status")
    queue.close()

    assert queue.get(0) is None
    for size in (0, 1):
        with pytest.raises(SyncCancelledError):
            queue.put("late", size)
    assert queue.get(0) is None


def test_close_with_waiting_events() -> None:
    """Closing the queue makes all waiting events fail."""
    queue: EventQueue[str] = EventQueue()
    queue.put("large", CAPACITY_BYTES)
    putters = [Putter(queue, "waiting", 1) for _ in range(3)]
    assert all(putter.is_waiting for putter in putters)
    queue.close()

    for putter in putters:
        putter.join()
        assert putter.is_cancelled
