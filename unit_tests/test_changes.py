"""The detection of new, changed and deleted records, and the time of each version."""

import json
import re
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_truto_segments.records.changes import (
    ChangeClock,
    ChangeDetector,
    fingerprint,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)


def canonical(value: Any) -> str:
    """Return a text that tells JSON values apart: in Python, 1, 1.0 and True are equal."""
    return json.dumps(value, sort_keys=True)


def reordered(value: Any) -> Any:
    """Return the value with the keys of each object in reverse order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(entry) for entry in value] if isinstance(value, list) else value


# --- fingerprints ---


@given(objects)
def test_order_of_keys(record: dict[str, Any]) -> None:
    """The fingerprint of a record does not depend on the order of its keys."""
    found = fingerprint(record)

    assert fingerprint(reordered(record)) == found
    assert re.fullmatch(r"[A-Za-z0-9_-]{12}", found)


@given(objects, st.text(), json_values)
def test_changed_value(record: dict[str, Any], name: str, value: Any) -> None:
    """The fingerprint of a record changes with any of its values."""
    changed = {**record, name: value}
    is_same = canonical(changed) == canonical(record)

    assert (fingerprint(changed) == fingerprint(record)) is is_same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, True),
        (1, 1.0),
        (0, None),
        ("1", 1),
        ("", None),
        ([], {}),
        ({"a": None}, {}),
        ([1], [[1]]),
    ],
)
def test_similar_values(first: Any, second: Any) -> None:
    """Values that look alike have different fingerprints."""
    assert fingerprint({"a": first}) != fingerprint({"a": second})


def test_known_record() -> None:
    """A known record keeps its fingerprint in every version of the connector."""
    # Otherwise, the first sync with a new version would emit everything again.
    record = {"name": "é", "id": "1", "remote_data": {"b": [1, 2.5, None], "a": True}}
    assert fingerprint(record) == "k8vvizF6AF_1"
    assert fingerprint({**record, "count": 2**70}) == "7KkQWXJmEfV0"


# --- the time of a version ---


def at(nanoseconds: int) -> ChangeClock:
    """Return a clock that stands still."""
    return ChangeClock(now=lambda: nanoseconds)


def times(clock: ChangeClock, count: int) -> list[str]:
    return [clock.next() for _ in range(count)]


def parsed(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


def test_form_of_times() -> None:
    """Times are in RFC 3339, with microseconds."""
    for nanoseconds, text in (
        (1_700_000_000_123_456_999, "2023-11-14T22:13:20.123456Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
    ):
        assert at(nanoseconds).next() == text


def test_present_time() -> None:
    """Without an earlier time, the clock returns the present."""
    before = time.time()
    found = parsed(ChangeClock().next()).timestamp()

    assert before - 1 < found < time.time() + 1


@given(
    st.lists(st.integers(1000, 4 * 10**18), min_size=1, max_size=20),
    st.integers(1, 4 * 10**15) | st.none(),
)
def test_any_clock(clock: Sequence[int], last: int | None) -> None:
    """Each time is later than the one before it, whatever the machine's clock does."""
    after = at(1000 * last).next() if last else ""
    moments = iter(clock)
    found = times(ChangeClock(after, lambda: next(moments)), len(clock))

    assert all(first < second for first, second in pairwise([after, *found]))
    for text, given_time in zip(found, clock, strict=True):
        assert text >= at(given_time).next()


def test_clock_stands_still() -> None:
    """If the machine's clock stands still, each time is a microsecond later."""
    clock = at(1_700_000_000_000_000_999)

    assert times(clock, 3) == [f"2023-11-14T22:13:20.00000{n}Z" for n in range(3)]


def test_last_time_of_earlier_sync() -> None:
    """The first time is later than the last one of an earlier sync."""
    clock = ChangeClock("2030-01-02T03:04:05.999999Z", lambda: 0)

    assert times(clock, 2) == ["2030-01-02T03:04:06.000000Z", "2030-01-02T03:04:06.000001Z"]
    assert ChangeClock("2999-12-31T23:59:59.999998Z").next() == "2999-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    "text", ["yesterday", "2030-01-02", "2030-01-02T03:04:05Z", "2030-01-02T03:04:05.1+00:00"]
)
def test_invalid_last_time(text: str) -> None:
    """The clock rejects a last time that is not in its own form."""
    with pytest.raises(ValueError, match="does not match format"):
        ChangeClock(text)


def test_several_threads() -> None:
    """Several threads never get the same time."""
    clock = at(0)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(times(clock, 200))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == times(at(0), 800)


def test_time_ahead() -> None:
    """A time ahead is later than the present and the last time."""
    # The clock does not use it up: the next time is still the present.
    clock = at(1_700_000_000_000_000_000)
    assert clock.ahead(150) == "2023-11-14T22:15:50.000000Z"
    assert clock.next() == "2023-11-14T22:13:20.000000Z"
    late = ChangeClock("2030-01-02T03:04:05.000001Z", lambda: 0)
    assert late.ahead(1.5) == "2030-01-02T03:04:06.500001Z"


def test_lead() -> None:
    """The lead is the seconds by which the last time is later than the present."""
    assert ChangeClock("1970-01-01T00:00:05.500000Z", lambda: 10**9).lead == 4.5
    assert ChangeClock("", lambda: 10**9).lead == -1.0


# --- changes ---

versions = st.fixed_dictionaries({"name": st.sampled_from([None, "x", "y", 1, True])})
tables = st.dictionaries(st.sampled_from("abcde"), versions)
reads = st.lists(st.tuples(st.sampled_from("abcdef"), versions), max_size=12)


@given(tables, reads)
def test_any_read(table: dict[str, Any], read: Iterable[tuple[str, Any]]) -> None:
    """The destination gets exactly the records and versions that it lacks."""
    # The model is a destination that stores what is emitted, compared value by value.
    known = {id_: fingerprint({"id": id_, **version}) for id_, version in table.items()}
    before = dict(known)
    detector = ChangeDetector(known)
    destination = dict(table)
    seen, emitted = set(), set()
    for id_, version in read:
        record = {"id": id_, **version}
        is_there = id_ in destination and canonical(destination[id_]) == canonical(version)
        remembered = "" if id_ in emitted else fingerprint(record)
        assert detector.changed_fingerprint(record) == (None if is_there else remembered)
        emitted |= set() if is_there else {id_}
        destination[id_] = version
        seen.add(id_)

    assert detector.missing_ids == sorted(set(table) - seen)
    assert detector.all_missing is (bool(table) and not seen)
    assert known == before


def test_change_and_back() -> None:
    """A record that changes and changes back counts as changed twice."""
    first, second = {"id": "1", "name": "a"}, {"id": "1", "name": "b"}
    detector = ChangeDetector({})

    emitted = [
        detector.changed_fingerprint(record) for record in (first, first, second, second, first)
    ]
    # A destination may keep either version, so the detector remembers neither.
    assert emitted == [fingerprint(first), None, "", None, ""]
    assert detector.missing_ids == []


def test_two_reads() -> None:
    """If two reads lack different records, no record is missing."""
    records = [{"id": id_} for id_ in "abc"]
    detector = ChangeDetector({record["id"]: fingerprint(record) for record in records})

    for record in records[:2]:
        assert detector.changed_fingerprint(record) is None
    assert detector.missing_ids == ["c"]
    assert not detector.all_missing
    for record in records[1:]:
        assert detector.changed_fingerprint(record) is None
    assert detector.missing_ids == []


@pytest.mark.parametrize(
    ("second", "agree"), [("abd", True), ("dba", True), ("abcd", False), ("ab", False)]
)
def test_agreement_of_reads(second: str, agree: bool) -> None:
    """Two reads agree if both found the same ids."""
    detector = ChangeDetector(dict.fromkeys("abc", ""))
    for id_ in "abd":
        detector.changed_fingerprint({"id": id_})
    detector.begin_second_read()
    for id_ in second:
        detector.changed_fingerprint({"id": id_})

    assert detector.reads_agree is agree


def test_all_missing() -> None:
    """If a read finds none of the known records, all of them are missing, in order."""
    detector = ChangeDetector({"b": "1", "c": "2", "a": "3"})
    assert detector.missing_ids == ["a", "b", "c"]
    assert detector.all_missing
    assert not ChangeDetector({}).all_missing


def test_max_size() -> None:
    """With more records than the limit, the detector forgets the oldest."""
    detector = ChangeDetector({}, max_size=2)
    first, second, third = ({"id": id_} for id_ in "abc")

    emitted = [
        bool(detector.changed_fingerprint(record))
        for record in (first, second, first, second, third, second, third, first, third, second)
    ]
    assert emitted == [True, True, False, False, True, False, False, True, False, True]
    assert detector.missing_ids == []


def test_time_ahead_in_whole_microseconds() -> None:
    """A time in advance has no fraction of a microsecond that could be rounded up."""
    assert ChangeClock(now=lambda: 1_999).ahead(0.0) == "1970-01-01T00:00:00.000001Z"
