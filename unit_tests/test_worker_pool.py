"""Concurrent tasks in threads, with a clock that stands still until a test advances it."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integration_tests.support import FakeClock
from source_truto_segments.sync import worker_pool
from source_truto_segments.sync.event_queue import CAPACITY_BYTES, SyncCancelledError
from source_truto_segments.sync.worker_pool import Clock, RateLimited, Task, TaskFailed, WorkerPool
from source_truto_segments.truto.rate_limiter import Delay

pytestmark = pytest.mark.timeout(6)

# Real seconds. What has to happen takes much less; no test waits until they have passed.
SOON = 2.0
# What must not happen would happen within this time. If the time is too short, no test fails.
A_MOMENT = 0.05


class ManualClock(Clock):
    """A clock that stands still until a test advances it."""

    def __init__(self) -> None:
        # The times until which the pool waited.
        self.deadlines: list[float] = []
        self._now = 0.0
        self._waiting = threading.Condition()
        self._pool: threading.Condition = self._waiting

    def now(self) -> float:
        return self._now

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        with self._waiting:
            self.deadlines.append(self._now + seconds)
            self._pool = condition
            self._waiting.notify_all()
        condition.wait()

    def expect_wait_until(self, deadline: float) -> None:
        """Return once the pool waits until exactly this time."""
        with self._waiting:
            assert self._waiting.wait_for(lambda: self.deadlines[-1:] == [deadline], SOON)

    def advance_to(self, deadline: float) -> None:
        """Advance to this time, once the pool waits until exactly then."""
        self.expect_wait_until(deadline)
        self.pass_to(deadline)

    def pass_to(self, time: float) -> None:
        with self._pool:
            self._now = time
            self._pool.notify_all()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_pool(clock: ManualClock) -> Iterator[Callable[..., WorkerPool[Any]]]:
    pools: list[WorkerPool[Any]] = []

    def make(*tasks: Task[Any], workers: int = 1, is_open: bool = True) -> WorkerPool[Any]:
        pool: WorkerPool[Any] = WorkerPool(workers, clock)
        pools.append(pool)
        for task in tasks:
            pool.submit(task)
        if is_open:
            pool.token_verified()
        return pool

    yield make
    for pool in pools:
        pool.close()


MakePool = Callable[..., WorkerPool[Any]]


def task(*steps: Any) -> Task[Any]:
    yield from steps


def events(pool: WorkerPool[Any]) -> Iterator[Any]:
    """Return the events of a pool, without the ticks."""
    return (event for event in pool.events(SOON) if event is not None)


def of_account(seconds: float, account_id: str = "a") -> Delay:
    return Delay(seconds, "the vendor's limit", account_id)


def of_token(seconds: float) -> Delay:
    return Delay(seconds, "Truto's limit", for_token=True)


def backoff(seconds: float) -> Delay:
    return Delay(seconds, "the vendor is unavailable", "a", is_rate_limit=False)


@dataclass(frozen=True)
class Page:
    """An event that holds bytes."""

    number: int
    size: int = CAPACITY_BYTES


# --- tasks and workers ---


def test_one_retry_among_ten_starts(make_pool: MakePool) -> None:
    """Of ten starts, nine go to tasks that have not begun, and one to a task that had to wait."""
    moved = threading.Event()

    def waiting(name: str) -> Task[Any]:
        yield of_account(0)
        yield name

    def first() -> Task[Any]:
        # The scheduler moves the others on meanwhile.
        moved.wait(0.1)
        yield "first"

    new = [task(number) for number in range(30)]
    pool = make_pool(waiting("a"), waiting("b"), waiting("c"), waiting("d"), first(), *new)
    found = [event for event in events(pool) if not isinstance(event, RateLimited)]
    assert sorted(map(found.index, "abcd")) == [5, 15, 25, 34]
    assert found[:5] == ["first", 0, 1, 2, 3]


def test_no_tasks(make_pool: MakePool) -> None:
    """A pool without tasks has no events."""
    assert list(events(make_pool())) == []


@pytest.mark.parametrize("workers", [1, 4])
def test_many_tasks(workers: int, make_pool: MakePool) -> None:
    """Every event arrives, and the events of each task in order."""
    tasks = [task(*[(name, number) for number in range(20)]) for name in range(10)]
    found = list(events(make_pool(*tasks, workers=workers)))

    assert len(found) == 200
    for name in range(10):
        assert [number for of, number in found if of == name] == list(range(20))


def test_one_worker(make_pool: MakePool) -> None:
    """A single worker runs one task after another."""
    pool = make_pool(task("a1", "a2"), task("b1", "b2"), task("c"))
    assert list(events(pool)) == ["a1", "a2", "b1", "b2", "c"]


def test_task_submits_another(make_pool: MakePool) -> None:
    """A task can submit another one, which runs too."""
    pool = make_pool()

    def parent() -> Task[Any]:
        yield "parent"
        pool.submit(task("child"))

    pool.submit(parent())
    assert list(events(pool)) == ["parent", "child"]


def test_unverified_token(make_pool: MakePool) -> None:
    """Until the token is verified, only one task runs."""
    may_go_on = threading.Event()

    def first() -> Task[Any]:
        yield "first"
        may_go_on.wait(SOON)
        yield "first again"

    pool = make_pool(first(), task("second"), workers=8, is_open=False)
    found = pool.events(A_MOMENT)
    assert next(event for event in found if event) == "first"
    assert next(found) is None
    may_go_on.set()
    assert [event for event in found if event] == ["first again", "second"]


@pytest.mark.parametrize("is_open", [True, False], ids=["before", "meanwhile"])
def test_verified_token(is_open: bool, make_pool: MakePool) -> None:
    """Once the token is verified, all workers run."""
    together = threading.Barrier(3)
    pool = make_pool(workers=3, is_open=is_open)

    def side_by_side(name: str) -> Task[Any]:
        pool.token_verified()
        together.wait(SOON)
        yield name

    for name in "abc":
        pool.submit(side_by_side(name))
    assert sorted(events(pool)) == ["a", "b", "c"]


def test_more_tasks_than_workers(make_pool: MakePool) -> None:
    """If there are more tasks than workers, the pool starts no further workers."""
    pairs = threading.Barrier(2)
    threads = set()

    def busy(number: int) -> Task[Any]:
        threads.add(threading.current_thread())
        pairs.wait(SOON)
        yield number

    pool = make_pool(*map(busy, range(10)), workers=2)
    assert sorted(events(pool)) == list(range(10))
    assert len(threads) == 2


def test_idle_workers(clock: ManualClock, make_pool: MakePool) -> None:
    """When tasks continue, all idle workers are used."""
    together = threading.Barrier(3)
    threads = set()

    def side_by_side(name: str) -> Task[Any]:
        for _ in range(2):
            threads.add(threading.current_thread())
            together.wait(SOON)
            yield of_account(10)
        yield name

    found = events(make_pool(*map(side_by_side, "abc"), workers=3))
    assert next(found) == RateLimited(10.0)
    clock.advance_to(10)
    assert next(found) == RateLimited(10.0)
    clock.advance_to(20)
    assert sorted(found) == ["a", "b", "c"]
    assert len(threads) == 3


def test_failed_task(make_pool: MakePool) -> None:
    """The error of a failed task becomes an event, and the other tasks continue."""
    error = ValueError("a defect")

    def failing() -> Task[Any]:
        yield "before"
        raise error

    pool = make_pool(failing(), task("other"))
    assert list(events(pool)) == ["before", TaskFailed(error), "other"]


def test_cancelled_task(make_pool: MakePool) -> None:
    """A cancelled task ends without a failure."""

    def cancelled() -> Task[Any]:
        yield "before"
        raise SyncCancelledError

    assert list(events(make_pool(cancelled(), task("other")))) == ["before", "other"]


def test_ticks(make_pool: MakePool) -> None:
    """While no event arrives, the pool yields None."""
    may_go_on = threading.Event()

    def slow() -> Task[Any]:
        may_go_on.wait(SOON)
        yield "late"

    found = make_pool(slow()).events(0.001)
    assert [next(found), next(found)] == [None, None]
    may_go_on.set()
    assert "late" in list(found)


def test_late_event(make_pool: MakePool) -> None:
    """Before an event that arrives in time, the pool does not yield None."""

    def slow() -> Task[Any]:
        threading.Event().wait(A_MOMENT)
        yield "late"

    assert next(make_pool(slow()).events(SOON)) == "late"


def test_events_within_a_time(make_pool: MakePool) -> None:
    """The events of a time end with it, even if none arrives."""
    may_go_on = threading.Event()

    def slow() -> Task[Any]:
        yield "early"
        may_go_on.wait(SOON)
        yield "late"

    pool = make_pool(slow())
    assert list(pool.events_within(A_MOMENT)) == ["early"]
    assert not may_go_on.is_set()
    may_go_on.set()


@dataclass
class StartedWorkers:
    """The workers that the pool tried to start on a machine that allows only so many."""

    allowed: int = 100
    threads: list[threading.Thread] = field(default_factory=list)
    scheduler: threading.Thread | None = None
    error: RuntimeError = field(default_factory=lambda: RuntimeError("can't start new thread"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> StartedWorkers:
    found = StartedWorkers()
    start = threading.Thread.start

    def limited_start(thread: threading.Thread) -> None:
        if thread.name == "worker":
            found.threads.append(thread)
            if len(found.threads) > found.allowed:
                raise found.error
        elif thread.name == "scheduler":
            found.scheduler = thread
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited_start)
    return found


def test_few_tasks(started: StartedWorkers, clock: ManualClock, make_pool: MakePool) -> None:
    """The pool starts no more workers than its tasks need, and all of them end."""
    found = events(make_pool(task(of_account(10), "a"), workers=8))
    assert next(found) == RateLimited(10.0)
    clock.advance_to(10)
    assert list(found) == ["a"]
    (worker,) = started.threads
    assert started.scheduler is not None
    for thread in (worker, started.scheduler):
        # A request that hangs must not keep the process from ending.
        assert thread.daemon
        thread.join(SOON)
        assert not thread.is_alive()


def test_late_verification(started: StartedWorkers, make_pool: MakePool) -> None:
    """If the token is verified after many tasks, the other workers still start."""
    together = threading.Barrier(3)
    pool = make_pool(*(task() for _ in range(5)), workers=3, is_open=False)

    def side_by_side(name: str) -> Task[Any]:
        together.wait(SOON)
        yield name

    def opening() -> Task[Any]:
        pool.token_verified()
        for name in "abc":
            pool.submit(side_by_side(name))
        yield "open"

    pool.submit(opening())
    assert sorted(events(pool)) == ["a", "b", "c", "open"]
    assert len(started.threads) == 3


@pytest.mark.parametrize("allowed", [1, 2])
def test_too_few_threads(allowed: int, started: StartedWorkers, make_pool: MakePool) -> None:
    """If no further thread can start, the running ones continue."""
    started.allowed = allowed
    together = threading.Barrier(allowed)
    pool = make_pool(workers=4, is_open=False)

    def side_by_side(name: int) -> Task[Any]:
        pool.token_verified()
        together.wait(SOON)
        yield name

    for name in range(4):
        pool.submit(side_by_side(name))
    assert sorted(events(pool)) == [0, 1, 2, 3]
    # The pool tries to start one more at most once.
    assert len(started.threads) <= allowed + 1


def test_no_threads(started: StartedWorkers, make_pool: MakePool) -> None:
    """If no worker can start at all, the pool reports that as a failure."""
    started.allowed = 0
    pool = make_pool(task("a"), task("b"), workers=4)

    (failed,) = events(pool)
    assert str(failed.error).startswith(
        "Starting the sync failed: this machine has no further thread (can't start new thread)"
    )
    assert len(started.threads) == 1


def test_no_thread_for_the_scheduler(monkeypatch: pytest.MonkeyPatch, make_pool: MakePool) -> None:
    """If the scheduler cannot start, the pool reports the cause, and can be closed."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = make_pool(task("a"))
    monkeypatch.setattr(threading.Thread, "start", start)

    (failed,) = events(pool)
    assert "can't start new thread" in str(failed.error)
    pool.close()


def test_no_thread_after_a_stop(started: StartedWorkers, make_pool: MakePool) -> None:
    """A pool that is stopped while a task runs starts no worker for the others."""
    pool = make_pool(workers=8)

    def stopping() -> Task[Any]:
        for _ in range(5):
            pool.submit(task("never"))
        pool.stop()
        yield "stopped"

    pool.submit(stopping())
    assert list(events(pool)) == ["stopped"]
    assert len(started.threads) == 1


@pytest.mark.parametrize(
    ("method", "operation"),
    [("_report_pause", "Scheduling the requests"), ("_put_back", "Running the requests")],
)
def test_defect_of_the_pool(
    monkeypatch: pytest.MonkeyPatch, make_pool: MakePool, method: str, operation: str
) -> None:
    """An exception outside of the tasks ends the run with an event."""

    def fail(*_: Any) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(WorkerPool, method, fail)
    found = list(events(make_pool(task(backoff(0.0), "a"))))

    assert str(found[-1].error).startswith(f"{operation} failed: the connector failed unexpectedly")
    assert "(ValueError: a defect)" in str(found[-1].error)


def test_slow_first_task(monkeypatch: pytest.MonkeyPatch, make_pool: MakePool) -> None:
    """A slow first request holds back the second one for a moment only."""
    monkeypatch.setattr(worker_pool, "PROBE_SECONDS", A_MOMENT)
    may_end = threading.Event()

    def slow() -> Task[Any]:
        yield "slow"
        assert may_end.wait(SOON)

    found = events(make_pool(slow(), task("second"), workers=8, is_open=False))
    assert [next(found), next(found)] == ["slow", "second"]
    may_end.set()
    assert list(found) == []


def test_event_of_waiting_task(clock: ManualClock, make_pool: MakePool) -> None:
    """The event that a task has yielded is freed while the task waits."""
    kept: list[weakref.ref[Page]] = []

    def waiting() -> Task[Any]:
        page = Page(1)
        kept.append(weakref.ref(page))
        yield page
        del page
        yield of_account(10)

    found = events(make_pool(waiting()))
    next(found)
    assert next(found) == RateLimited(10.0)
    assert kept[0]() is None
    clock.advance_to(10)
    assert list(found) == []


# --- delays ---


def test_waiting_task(clock: ManualClock, make_pool: MakePool) -> None:
    """A task that waits holds no worker."""
    pool = make_pool(task("a1", backoff(10), "a2"), task("b"), workers=1)
    found = events(pool)

    assert [next(found), next(found)] == ["a1", "b"]
    clock.advance_to(10)
    assert list(found) == ["a2"]


def test_delays(clock: ManualClock, make_pool: MakePool) -> None:
    """Each task continues as soon as its delay has passed."""

    def twice() -> Task[Any]:
        yield backoff(10)
        yield "b"
        yield backoff(25 - clock.now())
        yield "b again"

    tasks = task(backoff(20), "a"), twice(), task(backoff(20), "c"), task("all wait")
    found = events(make_pool(*tasks))
    assert next(found) == "all wait"
    clock.advance_to(10)
    assert next(found) == "b"
    clock.advance_to(20)
    assert {next(found), next(found)} == {"a", "c"}
    clock.advance_to(25)
    assert list(found) == ["b again"]


def test_retries_do_not_starve_new_tasks(clock: ManualClock, make_pool: MakePool) -> None:
    """Tasks that had to wait get one start in ten while others have not begun."""
    may_go_on = threading.Event()
    pool = make_pool(*(task(backoff(10), "retry") for _ in range(4)))

    def under_way() -> Task[Any]:
        yield "under way"
        may_go_on.wait(SOON)

    pool.submit(under_way())
    for _ in range(8):
        pool.submit(task("new"))
    found = events(pool)
    assert next(found) == "under way"
    clock.pass_to(10)
    may_go_on.set()

    order = list(found)
    assert order[:9].count("retry") == 1
    assert order.count("retry") == 4


def test_delays_of_waiting_tasks(clock: ManualClock, make_pool: MakePool) -> None:
    """The pool returns the delays of the tasks that wait."""
    first, second = of_account(10, "a"), of_account(20, "b")
    pool = make_pool(task(first), task(second), task("both wait"))
    assert pool.delays() == []
    found = events(pool)

    assert next(found) == "both wait"
    assert pool.delays() == [first, second]
    assert next(found) == RateLimited(10.0)
    clock.advance_to(10)
    assert next(found) == RateLimited(10.0)
    assert pool.delays() == [second]
    clock.advance_to(20)
    assert list(found) == []
    assert pool.delays() == []


def test_delay_of_token(clock: ManualClock, make_pool: MakePool) -> None:
    """After one task meets a delay of the token, no other starts before the delay has passed."""
    delay = of_token(10)
    pool = make_pool(task(delay, "a"), task("b"))
    found = events(pool)

    assert next(found) == RateLimited(10.0)
    assert pool.delays() == [delay]
    clock.expect_wait_until(10)
    clock.pass_to(9)
    assert pool.delays() == [of_token(1)]
    clock.advance_to(10)
    assert list(found) == ["a", "b"]
    assert pool.delays() == []


def test_token_delay_of_running_tasks(clock: ManualClock, make_pool: MakePool) -> None:
    """During a delay of the token, running tasks finish only their current step."""
    both_run, may_go_on = threading.Barrier(2), threading.Event()
    pool = make_pool(workers=2)

    def limited() -> Task[Any]:
        both_run.wait(SOON)
        yield of_token(10)
        yield "a"

    def under_way() -> Task[Any]:
        both_run.wait(SOON)
        may_go_on.wait(SOON)
        yield "b"
        pool.submit(task("c"))
        yield of_account(5, "b")
        yield "b again"

    pool.submit(limited())
    pool.submit(under_way())
    found = pool.events(A_MOMENT)
    assert next(event for event in found if event) == RateLimited(10.0)
    may_go_on.set()
    assert next(event for event in found if event) == "b"
    clock.advance_to(5)
    assert next(found) is None
    clock.advance_to(10)
    assert sorted(str(event) for event in found if event) == ["a", "b again", "c"]


def test_shorter_token_delay(clock: ManualClock, make_pool: MakePool) -> None:
    """A shorter delay of the token does not replace a longer one."""
    both_run, may_go_on = threading.Barrier(2), threading.Event()

    def longer() -> Task[Any]:
        both_run.wait(SOON)
        yield of_token(20)
        yield "a"

    def shorter() -> Task[Any]:
        both_run.wait(SOON)
        may_go_on.wait(SOON)
        yield "b"
        yield of_token(10 - clock.now())
        yield "b again"

    found = events(make_pool(longer(), shorter(), workers=2))
    assert next(found) == RateLimited(20.0)
    may_go_on.set()
    assert next(found) == "b"
    clock.advance_to(20)
    assert sorted(found) == ["a", "b again"]
    assert set(clock.deadlines) == {20.0}


def test_real_clock() -> None:
    """With the real clock, a delay takes real time."""
    clock = Clock()
    times = [clock.now()]

    def waiting() -> Task[Any]:
        yield backoff(0.02)
        times.append(clock.now())

    pool: WorkerPool[Any] = WorkerPool(1, clock)
    pool.submit(waiting())
    assert list(events(pool)) == []
    pool.close()
    assert times[1] >= times[0] + 0.02


@st.composite
def schedules(draw: st.DrawFn) -> list[list[Any]]:
    """Draw tasks that consist of events (numbers) and delays."""
    delays = st.builds(
        Delay,
        st.sampled_from([0.0, 0.5, 1.0, 7.0]),
        st.just("a limit"),
        for_token=st.booleans(),
        is_rate_limit=st.booleans(),
    )
    return draw(st.lists(st.lists(st.integers(1, 9) | delays, max_size=6), max_size=6))


@pytest.mark.timeout(30)
@given(schedules(), st.integers(1, 4))
@settings(max_examples=60)
def test_any_tasks(schedule: Sequence[Sequence[Any]], workers: int) -> None:
    """All events of any tasks arrive in order, and no delay is cut short."""
    clock = FakeClock()
    pool: WorkerPool[Any] = WorkerPool(workers, clock)
    too_early = []

    def follow(name: int, steps: Sequence[Any]) -> Task[Any]:
        for step in steps:
            before = clock.now()
            yield step if isinstance(step, Delay) else (name, step)
            if isinstance(step, Delay) and clock.now() < before + step.seconds:
                too_early.append(step)

    for name, steps in enumerate(schedule):
        pool.submit(follow(name, steps))
    pool.token_verified()
    found = [event for event in events(pool) if not isinstance(event, RateLimited)]
    pool.close()

    assert too_early == []
    assert len(found) == sum(isinstance(step, int) for steps in schedule for step in steps)
    for name, steps in enumerate(schedule):
        of_task = [number for of, number in found if of == name]
        assert of_task == [step for step in steps if isinstance(step, int)]


# --- reported pauses ---


def test_repeated_token_delay(clock: ManualClock, make_pool: MakePool) -> None:
    """A delay of the token that many tasks meet is reported once."""
    together = threading.Barrier(3)

    def limited() -> Task[Any]:
        for until in (10, 15):
            together.wait(SOON)
            yield of_token(until - clock.now())
        yield "done"

    found = events(make_pool(limited(), limited(), limited(), workers=3))
    assert next(found) == RateLimited(10.0)
    clock.advance_to(10)
    assert next(found) == RateLimited(5.0)
    clock.advance_to(15)
    assert list(found) == ["done"] * 3


@pytest.mark.parametrize("make_delay", [of_token, of_account])
@pytest.mark.parametrize(("seconds", "is_reported"), [(0.75, False), (1.0, True), (2.5, True)])
def test_short_pause(
    make_delay: Callable[[float], Delay],
    seconds: float,
    is_reported: bool,
    clock: ManualClock,
    make_pool: MakePool,
) -> None:
    """A pause that is shorter than a second is not reported."""
    found = events(make_pool(task("begun", make_delay(seconds), "done")))
    assert next(found) == "begun"
    clock.advance_to(seconds)

    assert list(found) == [*([RateLimited(seconds)] if is_reported else []), "done"]


def test_wait_after_failure(clock: ManualClock, make_pool: MakePool) -> None:
    """While a task waits after a failure, the pause is not reported as a rate limit."""
    tasks = task(backoff(10), of_account(10), "a"), task(of_account(30), "b"), task("all wait")
    found = events(make_pool(*tasks))
    assert next(found) == "all wait"
    clock.advance_to(10)
    assert next(found) == RateLimited(10.0)
    clock.advance_to(20)
    assert next(found) == "a"
    assert next(found) == RateLimited(10.0)
    clock.advance_to(30)
    assert list(found) == ["b"]


def test_running_task(clock: ManualClock, make_pool: MakePool) -> None:
    """While a task runs, the delays of the others are not reported as a pause."""
    others_wait, may_end = threading.Event(), threading.Event()

    def under_way() -> Task[Any]:
        others_wait.wait(SOON)
        yield "under way"
        may_end.wait(SOON)

    def limited() -> Task[Any]:
        yield of_account(10)
        yield "done"

    pool = make_pool(under_way(), limited(), task("first"), workers=2)
    found = pool.events(A_MOMENT)
    assert next(event for event in found if event) == "first"
    others_wait.set()
    assert next(event for event in found if event) == "under way"
    assert next(found) is None
    may_end.set()
    assert next(event for event in found if event) == RateLimited(10.0)
    clock.advance_to(10)
    assert [event for event in found if event] == ["done"]


def test_growing_pause(clock: ManualClock, make_pool: MakePool) -> None:
    """A pause that grows is reported again only if it grows by a second or more."""
    all_run = threading.Barrier(3)
    may_go_on = {seconds: threading.Event() for seconds in (10, 10.5, 14)}

    def limited(seconds: float) -> Task[Any]:
        all_run.wait(SOON)
        may_go_on[seconds].wait(SOON)
        yield seconds
        yield of_token(seconds - clock.now())

    found = events(make_pool(*map(limited, may_go_on), workers=3))
    may_go_on[10].set()
    assert [next(found), next(found)] == [10, RateLimited(10.0)]
    may_go_on[10.5].set()
    assert next(found) == 10.5
    may_go_on[14].set()
    assert [next(found), next(found)] == [14, RateLimited(14.0)]
    clock.advance_to(14)
    assert list(found) == []


# --- stop and close ---


def test_stop(make_pool: MakePool) -> None:
    """A pool that is stopped yields the event of the current step, and no more."""
    may_go_on = threading.Event()
    steps = []

    def first() -> Task[Any]:
        yield "a"
        may_go_on.wait(SOON)
        yield "a again"
        steps.append("too far")

    pool = make_pool(first(), task("b"))
    found = events(pool)
    assert next(found) == "a"
    pool.stop()
    may_go_on.set()
    assert list(found) == ["a again"]
    assert steps == []


def test_stop_by_task(make_pool: MakePool) -> None:
    """A task that stops the pool can still yield one event."""
    pool = make_pool()

    def stopping() -> Task[Any]:
        pool.stop()
        yield "the reason"
        yield "too far"

    pool.submit(stopping())
    pool.submit(task("b"))
    assert list(events(pool)) == ["the reason"]


@pytest.mark.parametrize("make_delay", [of_token, of_account])
def test_stop_of_waiting_tasks(make_delay: Callable[[float], Delay], make_pool: MakePool) -> None:
    """A pool that is stopped does not wait for delays."""
    pool = make_pool(task(make_delay(10), "too far"), task(make_delay(10)), workers=2)
    found = events(pool)
    assert next(found) == RateLimited(10.0)
    pool.stop()

    assert list(found) == []


def test_stop_before_delay(make_pool: MakePool) -> None:
    """If a step ends in a delay after the pool was stopped, the pool does not wait for it."""
    pool = make_pool()

    def stopping() -> Task[Any]:
        yield "a"
        pool.stop()
        yield of_account(10)
        yield "too far"

    pool.submit(stopping())
    assert list(events(pool)) == ["a"]


def test_slow_reader(make_pool: MakePool) -> None:
    """While the reader is slow and the queue is full, the workers wait."""
    made = []

    def pages() -> Task[Any]:
        for number in range(8):
            made.append(number)
            yield Page(number)

    found = events(make_pool(pages()))
    for number in range(8):
        assert next(found) == Page(number)
        # One more is in the queue, and another one waits for room in it.
        assert len(made) <= number + 3
    assert list(found) == []


def test_no_reader(make_pool: MakePool) -> None:
    """If nobody reads the events, a worker stops making them once the queue is full."""
    made = []
    third = threading.Event()

    def pages() -> Task[Any]:
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield Page(number)

    found = events(make_pool(pages()))
    assert next(found) == Page(0)
    assert third.wait(SOON)
    threading.Event().wait(A_MOMENT)
    assert len(made) == 3


def test_events_without_bytes(make_pool: MakePool) -> None:
    """Events without bytes do not wait for room in the queue."""
    all_made = threading.Event()

    def mixed() -> Task[Any]:
        yield "begun"
        yield Page(0)
        yield "a status"
        yield "another"
        all_made.set()

    found = events(make_pool(mixed()))
    assert next(found) == "begun"
    assert all_made.wait(SOON)
    assert list(found) == [Page(0), "a status", "another"]


def test_close_of_waiting_workers(make_pool: MakePool) -> None:
    """Closing the pool ends the workers that wait for room in the queue."""
    both_run, ended = threading.Barrier(2), []

    def endless() -> Task[Any]:
        both_run.wait(SOON)
        try:
            while True:
                yield Page(0)
        finally:
            threading.Event().wait(A_MOMENT)
            ended.append(threading.current_thread())

    pool = make_pool(endless(), endless(), task("c"), workers=2)
    found = events(pool)
    assert next(found) == Page(0)
    pool.close()

    assert len(ended) == 2
    assert not any(thread.is_alive() for thread in ended)


def test_close_of_hanging_step(monkeypatch: pytest.MonkeyPatch, make_pool: MakePool) -> None:
    """Closing the pool does not wait long for a step that hangs."""
    monkeypatch.setattr(worker_pool, "_JOIN_SECONDS", A_MOMENT)
    may_end = threading.Event()

    def hanging() -> Task[Any]:
        yield "hangs"
        may_end.wait()
        raise ValueError("reported to nobody")

    pool = make_pool(hanging())
    assert next(events(pool)) == "hangs"
    began = time.monotonic()
    pool.close()
    assert time.monotonic() < began + 1.5
    may_end.set()


def test_closed_pool(make_pool: MakePool) -> None:
    """A pool that was closed has no events."""
    pool = make_pool(task("a"))
    pool.close()

    assert list(events(pool)) == []
