"""During an outage, one request at a time probes whether it has ended."""

import pytest

from source_truto_segments.truto.outage import Outage


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def outage(time: Time) -> Outage:
    return Outage(time)


def test_none(outage: Outage) -> None:
    """Without a failure, every request may be sent."""
    assert [outage.wait() for _ in range(3)] == [0.0] * 3
    assert outage.since is None


def test_one_probe_at_a_time(outage: Outage, time: Time) -> None:
    """After a failure, requests wait; then one may be sent, and the others wait for it."""
    outage.failed(99.0)
    assert outage.since == 99.0
    assert outage.wait() == 1.0
    time.now = 100.5
    assert outage.wait() == 0.5
    time.now = 101.0
    assert [outage.wait() for _ in range(3)] == [0.0, 1.0, 1.0]


def test_longer_waits(outage: Outage, time: Time) -> None:
    """The pauses between probes double up to a minute, and the start of the outage stays."""
    waits = []
    for _ in range(9):
        outage.failed(time.now)
        waits.append(outage.wait())
        time.now += waits[-1]
        assert outage.wait() == 0.0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert outage.since == 100.0


def test_end(outage: Outage, time: Time) -> None:
    """A request that gets through ends the outage, and the next outage has short pauses again."""
    for _ in range(4):
        outage.failed(100.0)
    outage.reached()
    assert [outage.since, outage.wait(), outage.wait()] == [None, 0.0, 0.0]
    time.now = 101.0
    outage.failed(100.5)
    assert [outage.since, outage.wait()] == [100.5, 1.0]


@pytest.mark.parametrize("sent_at", [99.0, 100.0])
def test_something_got_through(outage: Outage, sent_at: float) -> None:
    """A failure is no outage if another request got through since the failed one was sent."""
    outage.reached()
    outage.failed(sent_at)
    assert outage.since is None
    assert outage.wait() == 0.0


def test_withdrawn_probe(outage: Outage, time: Time) -> None:
    """If a request that may probe is not sent, the next one may probe instead."""
    outage.failed(100.0)
    time.now = 101.0
    assert outage.wait() == 0.0
    outage.withdraw()
    assert [outage.wait(), outage.wait()] == [0.0, 1.0]
