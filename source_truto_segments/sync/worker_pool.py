"""Run tasks concurrently in threads; a task that waits for a limit holds no thread.

A task is a generator. It yields a `Delay` when it has to wait, and an event when it has something
for the main thread. One worker at a time advances it, so its events keep their order.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Generic, TypeAlias, TypeVar

from source_truto_segments.sync.event_queue import EventQueue, SyncCancelledError
from source_truto_segments.truto import errors
from source_truto_segments.truto.errors import ReadError, unexpected_error
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.transport import MemoryBudget

# 200 requests in flight reach Truto's limit (48 a second) up to a response time of 4 s. A thread
# with its connection takes less than 0.3 MB.
MAX_WORKERS = 200

# While there are tasks that have not begun, only one of this many starts goes to a task that had to
# wait, so that many throttled accounts do not starve the others.
_STARTS_FOR_EACH_RETRY = 10
# Seconds after which one more task may try the token, while the first requests are slow.
PROBE_SECONDS = 3.0
# A shorter pause is not worth a message.
_MIN_REPORTED_WAIT = 1.0
_JOIN_SECONDS = 2.0
# Seconds between two checks whether the time of `events_within` is up.
_TICK = 0.2

Event = TypeVar("Event")
Task: TypeAlias = Generator[Delay | Event, None, None]


class Clock:
    """The time, and a way to wait for it; tests have one whose waits take no time."""

    def now(self) -> float:
        """Return the time in seconds; monotonic."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait until the condition, whose lock is held, is notified, or for some seconds."""
        condition.wait(seconds)


@dataclass(frozen=True)
class RateLimited:
    """An event: because of a limit, no request can be sent for a second or more.

    Attributes:
        seconds: The time until the next request can be sent.
    """

    seconds: float


@dataclass(frozen=True)
class TaskFailed:
    """An event: a task raised an exception, which is a defect of the connector."""

    error: Exception


@dataclass(order=True)
class _Delayed(Generic[Event]):
    at: float
    task: Task[Event] = field(compare=False)
    delay: Delay = field(compare=False)


class WorkerPool(Generic[Event]):
    """Advances tasks in up to `max_workers` threads.

    It starts with one worker, so that a single request shows whether the token is good;
    `token_verified` lets the others start.

    Args:
        max_workers: The most threads, and so the most requests in flight.
        clock: Returns the time, and waits.
    """

    def __init__(self, max_workers: int, clock: Clock) -> None:
        self._max_workers = max_workers
        self._clock = clock
        self._lock = threading.Lock()
        self._work_available = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._events: EventQueue[Event | RateLimited | TaskFailed | None] = EventQueue()
        self._ready: deque[Task[Event]] = deque()
        # The tasks whose delay has passed.
        self._retries: deque[Task[Event]] = deque()
        self._starts = 0
        self._began = float("inf")
        self._delayed: list[_Delayed[Event]] = []
        self._threads: list[threading.Thread] = []
        self._token_is_verified = False
        self._idle = 0
        self._active = 0
        self._is_stopped = False
        self._is_finished = False
        # No task starts while the token's limit holds.
        self._token_delay: Delay | None = None
        self._token_free_at = float("-inf")
        self._reported_until = float("-inf")

    def submit(self, task: Task[Event]) -> None:
        """Add a task; can be called by a task."""
        with self._lock:
            self._ready.append(task)
            self._changed.notify()

    def token_verified(self) -> None:
        """Let all workers start."""
        with self._lock:
            self._token_is_verified = True
            self._work_available.notify_all()
            self._changed.notify()

    def stop(self) -> None:
        """Stop every task after its current step, whose event is still delivered."""
        with self._lock:
            self._is_stopped = True
            self._work_available.notify_all()
            self._changed.notify()

    def close(self) -> None:
        """Stop, drop undelivered events, and wait a moment for the workers."""
        self.stop()
        self._events.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def events(self, interval: float) -> Iterator[Event | RateLimited | TaskFailed | None]:
        """Yield events until all tasks have finished.

        Args:
            interval: Yield None after this many seconds without an event.
        """
        scheduler = threading.Thread(target=self._schedule, name="scheduler", daemon=True)
        try:
            scheduler.start()
        except RuntimeError as error:
            yield TaskFailed(_no_thread(error))
            return
        self._threads.append(scheduler)
        while True:
            is_finished = self._is_finished
            event = self._events.get(0 if is_finished else interval)
            if event is None and is_finished:
                return
            yield event

    def events_within(self, seconds: float) -> Iterator[Event | RateLimited | TaskFailed]:
        """Yield events until all tasks have finished, for `seconds` at most."""
        ends_at = time.monotonic() + seconds
        for event in self.events(_TICK):
            if event is not None:
                yield event
            if time.monotonic() >= ends_at:
                return

    def delays(self) -> list[Delay]:
        """Return the delays that tasks are waiting on, or only the token-wide one."""
        with self._lock:
            seconds = self._token_free_at - self._clock.now()
            if self._token_delay is not None and seconds > 0:
                return [replace(self._token_delay, seconds=seconds)]
            return [delayed.delay for delayed in self._delayed]

    def _schedule(self) -> None:
        """Start the tasks that can continue; only this thread waits for delays to pass."""
        with self._lock:
            try:
                while not self._is_over():
                    self._step()
            except Exception as error:  # noqa: BLE001 - a thread must not end silently
                self._put(TaskFailed(unexpected_error("Scheduling the requests", None, error)))
            finally:
                self._is_finished = True
                self._is_stopped = True
                self._work_available.notify_all()
                self._put(None)

    def _step(self) -> None:
        now = self._clock.now()
        while self._delayed and self._delayed[0].at <= now:
            self._retries.append(heapq.heappop(self._delayed).task)
        # While the token's limit holds, waking up the idle workers would be in vain.
        if now >= self._token_free_at and not self._is_stopped:
            self._start_workers()
        self._report_pause(now)
        if not self._is_over():
            self._wait(now)

    @property
    def _waiting(self) -> int:
        """How many tasks can continue."""
        return len(self._ready) + len(self._retries)

    def _is_over(self) -> bool:
        is_empty = self._is_stopped or not (self._waiting or self._delayed)
        return is_empty and self._active == 0

    def _start_workers(self) -> None:
        waiting = self._waiting
        self._work_available.notify(waiting)
        alive = self._idle + self._active
        for _ in range(min(waiting - self._idle, self._limit - alive)):
            # Like the scheduler, which starts it, it is a daemon.
            worker = threading.Thread(target=self._work, name="worker")
            try:
                worker.start()
            except RuntimeError as error:
                # The running workers continue.
                self._max_workers = self._idle + self._active
                if self._max_workers == 0:
                    self._put(TaskFailed(_no_thread(error)))
                    self._is_stopped = True
                return
            # It counts as idle until it takes a task.
            self._idle += 1
            self._threads.append(worker)
            self._began = min(self._began, time.monotonic())

    @property
    def _limit(self) -> int:
        """How many workers there may be now."""
        if self._token_is_verified:
            return self._max_workers
        seconds = max(0.0, time.monotonic() - self._began)
        return min(self._max_workers, 1 + int(seconds / PROBE_SECONDS))

    def _wait(self, now: float) -> None:
        moments = [self._delayed[0].at] if self._delayed else []
        if self._waiting and now < self._token_free_at:
            moments.append(self._token_free_at)
        if moments:
            self._clock.wait(self._changed, max(0.0, min(moments) - now))
        else:
            # A response is slow in real time, whatever the clock of the waits.
            self._changed.wait(PROBE_SECONDS)

    def _report_pause(self, now: float) -> None:
        """Report each wait in which no request can be sent, once."""
        if self._waiting or self._active:
            resumes_at, is_rate_limit = self._token_free_at, True
        elif self._delayed:
            first = self._delayed[0]
            resumes_at, is_rate_limit = first.at, first.delay.is_rate_limit
        else:
            return
        is_new = resumes_at - max(now, self._reported_until) >= _MIN_REPORTED_WAIT
        if is_new and is_rate_limit:
            self._reported_until = resumes_at
            self._put(RateLimited(resumes_at - now))

    def _work(self) -> None:
        try:
            while (task := self._next_task()) is not None:
                delay = self._advance(task)
                with self._lock:
                    self._active -= 1
                    self._idle += 1
                    if delay is not None and not self._is_stopped:
                        self._put_back(task, delay)
                    self._changed.notify()
        except Exception as error:  # noqa: BLE001 - a thread must not end silently
            self._put(TaskFailed(unexpected_error("Running the requests", None, error)))
            self.stop()

    def _next_task(self) -> Task[Event] | None:
        with self._lock:
            while not self._is_stopped and not self._can_start():
                self._work_available.wait()
            self._idle -= 1
            if self._is_stopped:
                return None
            self._active += 1
            self._starts += 1
            # Until the token is verified, let the same task continue to try it.
            is_turn = self._starts % _STARTS_FOR_EACH_RETRY == 0 or not self._token_is_verified
            if self._retries and (is_turn or not self._ready):
                return self._retries.popleft()
            return self._ready.popleft()

    def _can_start(self) -> bool:
        """Return whether a task can start; until the token is verified, only the first ones can."""
        if not self._token_is_verified and (self._delayed or self._active >= self._limit):
            return False
        return bool(self._waiting) and self._clock.now() >= self._token_free_at

    def _put_back(self, task: Task[Event], delay: Delay) -> None:
        at = self._clock.now() + delay.seconds
        # The request was not slow, it has to wait: one request alone continues to try the token.
        self._began = time.monotonic()
        if delay.for_token:
            self._ready.appendleft(task)
            self._token_delay, self._token_free_at = delay, max(self._token_free_at, at)
        else:
            heapq.heappush(self._delayed, _Delayed(at, task, delay))

    def _advance(self, task: Task[Event]) -> Delay | None:
        """Run a task until it has to wait or finishes; return the wait."""
        step: Delay | Event
        try:
            for step in task:
                if isinstance(step, Delay):
                    return step
                self._events.put(step, getattr(step, "size", 0))
                MemoryBudget.release()
                # While the task continues, only the queue holds the event.
                del step
                if self._is_stopped:
                    return None
        except SyncCancelledError:
            pass
        except Exception as error:  # noqa: BLE001 - a thread must not end silently
            self._put(TaskFailed(error))
        finally:
            MemoryBudget.release()
        return None

    def _put(self, event: RateLimited | TaskFailed | None) -> None:
        """Add an event without a size, so without waiting; drop it if the pool is closed."""
        with suppress(SyncCancelledError):
            self._events.put(event)


def _no_thread(error: RuntimeError) -> ReadError:
    return ReadError(errors.NO_THREAD, "Starting the sync", detail=f" ({error})")
