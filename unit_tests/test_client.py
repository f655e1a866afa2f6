"""How long one request is tried for, what it waits for, and what its failure concerns."""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import Mock

import pytest
import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import ResponseAction
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from integration_tests.threaded_server import ThreadedServer
from source_truto_segments.truto import errors, transport
from source_truto_segments.truto.client import (
    CHECK_POLICY,
    READ_POLICY,
    Request,
    RetryPolicy,
    TrutoClient,
)
from source_truto_segments.truto.errors import ReadError, Resolution, Scope
from source_truto_segments.truto.rate_limiter import Delay
from source_truto_segments.truto.responses import Speaker, parse_object

TOKEN = "a-token-of-the-tests"
ONE, TWO, THREE = "account-1", "account-2", "account-3"
OPTIONS: dict[str, Any] = {"max_connections": 1, "share": 1, "quotes": True}
GOOD: tuple[int, Any] = (200, {"result": []})


class Answers(ThreadedServer):
    """Sends the answers that a test lists, one after the other, and the last of them forever."""

    def __init__(self, clock: "Time") -> None:
        super().__init__()
        self.answers: deque[tuple[int, Any, str]] = deque()
        self.heads: list[str] = []
        # The seconds that each answer takes.
        self.duration = 0.0
        self._clock = clock

    def will_send(self, *answers: tuple[int, Any] | tuple[int, Any, str]) -> None:
        """Replaces what is to be sent: status, body (JSON, or text), and lines of the head."""
        self.answers = deque((*answer, "")[:3] for answer in answers)

    @property
    def asked(self) -> list[str]:
        """The targets of all requests so far."""
        return [head.split(" ")[1] for head in self.heads]

    async def respond(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        self.heads.append(head.decode())
        self._clock.now += self.duration
        status, content, lines = self.answers.popleft()
        if not self.answers:
            self.answers.append((status, content, lines))
        if status < 0:
            await asyncio.sleep(5)
        if status <= 0:
            return False
        body = content if isinstance(content, str) else json.dumps(content)
        writer.write(
            f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        return True


class Time:
    """A time that the delays of requests move on."""

    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Outcome:
    """What became of a request, and what it waited for."""

    delays: list[Delay]
    value: Any = None
    error: ReadError | None = None

    @property
    def seconds(self) -> list[float]:
        return [delay.seconds for delay in self.delays]

    @property
    def failure(self) -> ReadError:
        assert self.error, "the request succeeded"
        return self.error


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def server(time: Time) -> Iterator[Answers]:
    with Answers(time) as server:
        server.will_send(GOOD)
        yield server


@pytest.fixture(autouse=True)
def jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all backoffs be as long as they can be."""
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


Connect = Callable[..., TrutoClient]


@pytest.fixture
def connect(server: Answers, time: Time) -> Iterator[Connect]:
    clients: list[TrutoClient] = []

    def connect(policy: RetryPolicy = READ_POLICY, **how: Any) -> TrutoClient:
        clients.append(TrutoClient(server.url, TOKEN, policy, time, **OPTIONS | how))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def request(account_id: str | None = ONE, path: str = "some/path", **how: Any) -> Request[Any]:
    return Request(path, f"Reading {account_id}", parse_object, account_id, **how)


def fetch(client: TrutoClient, request: Request[Any], time: Time) -> Outcome:
    """Sends a request until the end; each delay passes at once."""
    outcome = Outcome([])
    attempts = client.fetch(request)
    try:
        while True:
            outcome.delays.append(next(attempts))
            time.now += outcome.delays[-1].seconds
    except StopIteration as end:
        outcome.value = end.value
    except ReadError as error:
        outcome.error = error
    return outcome


def truto(
    status: int, message: str = "Something is wrong", lines: str = ""
) -> tuple[int, Any, str]:
    return (status, {"statusCode": status, "error": "An error", "message": message}, lines)


def vendor(status: int, lines: str = "") -> tuple[int, Any, str]:
    status, body, _ = truto(status, "Some words")
    return (status, {**body, "truto_is_remote_error": True}, lines)


def test_success(connect: Connect, server: Answers, time: Time) -> None:
    """A good response is parsed, and counts as proof that the token is good."""
    verified: list[None] = []
    client = connect(token_verified=lambda: verified.append(None))
    assert not client.has_succeeded
    outcome = fetch(client, request(params={"limit": 5}, cursor="the end"), time)
    assert (outcome.value, outcome.delays) == ({"result": []}, [])
    assert server.asked == ["/some/path?limit=5&next_cursor=the+end"]
    assert f"\r\nAuthorization: Bearer {TOKEN}\r\n" in server.heads[0]
    assert "\r\nAccept: application/json\r\n" in server.heads[0]
    assert client.has_succeeded
    assert verified == [None]


def test_last_parameter(connect: Connect, server: Answers, time: Time) -> None:
    """A parameter of the user's cannot take the place of the cursor, and there may be no cursor."""
    client = connect()
    fetch(client, request(params={"next_cursor": "x"}, cursor="1"), time)
    fetch(client, request(params={"a": "b"}), time)
    assert server.asked == ["/some/path?next_cursor=1", "/some/path?a=b"]


def test_backoff(connect: Connect, server: Answers, time: Time, caplog: Any) -> None:
    """An error is retried for five minutes, with pauses that double up to a minute."""
    caplog.set_level(logging.INFO)
    server.will_send(vendor(500))
    outcome = fetch(connect(), request(), time)
    reason = "the vendor had an internal error"
    waits = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert outcome.delays == [Delay(wait, reason, ONE, is_rate_limit=False) for wait in waits]
    assert outcome.failure.detail == (
        ' (HTTP 500; the vendor reported: "Some words"), 10 times in 243 s'
    )
    assert outcome.failure.status == 500
    assert caplog.messages[1] == (
        "Reading account-1: the vendor had an internal error (HTTP 500; the vendor reported: "
        '"Some words"). Trying again in 2 s.'
    )
    assert len(caplog.messages) == len(waits)


def test_jitter(
    connect: Connect, server: Answers, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause is at least three quarters of the full one."""
    monkeypatch.setattr(random, "uniform", lambda low, _high: low)
    server.will_send(vendor(500), vendor(500), GOOD)
    assert fetch(connect(), request(), time).seconds == [0.75, 1.5]


@pytest.mark.parametrize(
    ("max_retry", "attempts", "detail"),
    [
        (0.9, 1, ""),
        (1.0, 2, ", 2 times in 1 s"),
        (3.0, 3, ", 3 times in 3 s"),
        (6.9, 3, ", 3 times in 3 s"),
    ],
)
def test_allowed_time(
    connect: Connect, server: Answers, time: Time, max_retry: float, attempts: int, detail: str
) -> None:
    """The last attempt is at the end of the allowed time, not after it."""
    server.will_send(vendor(503))
    outcome = fetch(connect(RetryPolicy(max_retry, 900.0, 3600.0)), request(), time)
    assert outcome.failure.detail.endswith(f'words"){detail}')
    assert len(server.heads) == attempts


def test_allowed_by_row(connect: Connect, server: Answers, time: Time) -> None:
    """Truto's 503 is retried for ten seconds, and then blames the account if others succeed."""
    client = connect()
    fetch(client, request(TWO), time)
    server.will_send(*[truto(503)] * 4, GOOD)
    outcome = fetch(client, request(), time)
    assert outcome.seconds == [1, 2, 4]
    assert outcome.failure.resolution is errors.BLOCKED
    assert len(server.heads) == 1 + 4 + 1


def test_only_account(connect: Connect, server: Answers, time: Time) -> None:
    """If nothing has succeeded before, Truto's 503 is taken for a block."""
    server.will_send(truto(503))
    outcome = fetch(connect(), request(), time)
    assert outcome.seconds == [1, 2, 4]
    assert outcome.failure.resolution is errors.BLOCKED
    assert len(server.heads) == 4


def test_outage_of_truto(connect: Connect, server: Answers, time: Time) -> None:
    """If others get a 503 as well, Truto is unavailable; it can be for minutes."""
    client = connect()
    fetch(client, request(TWO), time)
    server.will_send(*[truto(503)] * 7, GOOD)
    outcome = fetch(client, request(), time)
    assert outcome.value == {"result": []}
    assert 30 < sum(outcome.seconds) < 60
    server.will_send(truto(503))
    failure = fetch(client, request(), time).failure
    assert failure.resolution.error_message == errors.UNAVAILABLE.error_message
    assert failure.resolution.scope is Scope.SYNC
    assert failure.detail.endswith(", 9 times in 263 s; nothing else got through")


@pytest.mark.parametrize("wait", [0, 11, 30])
def test_announced_outage(connect: Connect, server: Answers, time: Time, wait: int) -> None:
    """A 503 that says when to come again is no block."""
    client = connect()
    fetch(client, request(TWO), time)
    server.will_send(*[truto(503, lines=f"Retry-After: {wait}\r\n")] * 5, GOOD)
    outcome = fetch(client, request(), time)
    assert outcome.seconds == [max(wait, backoff) for backoff in (1, 2, 4, 8, 16)]
    assert outcome.value == {"result": []}


def test_slow_failures(connect: Connect, server: Answers, time: Time) -> None:
    """The allowed time begins when the first failing request is sent, after any rate limit."""
    server.duration = 40.0
    server.will_send(vendor(429, "Retry-After: 500\r\n"), vendor(500))
    outcome = fetch(connect(), request(), time)
    # Each attempt takes 40 s: 40, 81, 123, 167, 215, 271 s after the first.
    assert outcome.seconds == [500, 1, 2, 4, 8, 16]
    assert outcome.failure.detail.endswith(", 6 times in 271 s")


def test_retry_after(connect: Connect, server: Answers, time: Time) -> None:
    """A server's Retry-After counts if it is longer than the backoff."""
    server.will_send(
        vendor(503, "Retry-After: 30\r\n"), vendor(503, "Retry-After: 1\r\n"), vendor(503), GOOD
    )
    assert fetch(connect(), request(), time).seconds == [30, 2, 4]


def test_reset(connect: Connect, server: Answers, time: Time) -> None:
    """The reset of a budget is a wait after a 429, but not after another error."""
    server.will_send(
        vendor(503, "ratelimit-reset: 7\r\n"), vendor(429, "ratelimit-reset: 7\r\n"), GOOD
    )
    assert fetch(connect(), request(), time).seconds == [1, 7]


def test_limit_without_wait(connect: Connect, server: Answers, time: Time) -> None:
    """A 429 that does not say how long to wait is answered with 10 s, doubled up to a minute."""
    server.will_send(*[truto(429)] * 4, GOOD)
    outcome = fetch(connect(), request(), time)
    waits = [10, 20, 40, 60]
    assert outcome.delays == [Delay(wait, "Truto's limit", ONE) for wait in waits]


def test_short_waits(connect: Connect, server: Answers, time: Time, caplog: Any) -> None:
    """A server that keeps asking for a second's wait is asked less and less often."""
    caplog.set_level(logging.INFO)
    server.will_send(*[vendor(429, "Retry-After: 1\r\n")] * 9, GOOD)
    outcome = fetch(connect(), request(), time)
    waits = [1, 2, 4, 8, 16, 32, 64, 120, 120]
    assert outcome.delays == [Delay(wait, "the vendor's limit", ONE) for wait in waits]
    assert [message.rpartition(". ")[2] for message in caplog.messages] == [
        f"Trying again in {wait} s." for wait in waits
    ]


def test_wait_of_zero(connect: Connect, server: Answers, time: Time) -> None:
    """Retry-After: 0 is a wait of a second, not a lack of one."""
    server.will_send(vendor(429, "Retry-After: 0\r\n"), GOOD)
    assert fetch(connect(), request(), time).seconds == [1]


def test_second_account(connect: Connect, server: Answers) -> None:
    """Truto's 429 for a second account holds up all requests; a vendor's never does."""
    client = connect()
    server.will_send(truto(429, lines="Retry-After: 5\r\n"))
    first = client.fetch(request())
    assert next(first) == Delay(5, "Truto's limit", ONE)
    server.will_send(vendor(429, "Retry-After: 2\r\n"))
    assert next(client.fetch(request(TWO))) == Delay(2, "the vendor's limit", TWO)
    server.will_send(truto(429, lines="Retry-After: 3\r\n"))
    assert next(client.fetch(request(THREE))) == Delay(3, "Truto's limit", for_token=True)
    assert next(client.fetch(request("another"))).for_token


def test_limit_of_a_gateway(connect: Connect, server: Answers, time: Time) -> None:
    """The wait for a gateway's limit is not said to be Truto's."""
    server.will_send((429, "<html>", "Retry-After: 3\r\n"), GOOD)
    outcome = fetch(connect(), request(), time)
    assert outcome.delays[-1] == Delay(2, "the limit of a gateway, firewall or proxy", ONE)


def test_limit_of_the_list(connect: Connect, server: Answers, time: Time) -> None:
    """A 429 for a request without an account holds up all requests."""
    server.will_send(truto(429, lines="Retry-After: 3\r\n"), GOOD)
    outcome = fetch(connect(), request(None), time)
    assert outcome.delays == [Delay(3, "Truto's limit", for_token=True)]


@pytest.mark.parametrize(("wait", "is_allowed"), [(900, True), (901, False)])
def test_longest_wait(
    connect: Connect, server: Answers, time: Time, caplog: Any, wait: int, is_allowed: bool
) -> None:
    """A wait of a quarter of an hour takes place; a longer one is a failure, and not logged."""
    caplog.set_level(logging.INFO)
    server.will_send(vendor(429, f"Retry-After: {wait}\r\n"), GOOD)
    outcome = fetch(connect(), request(), time)
    assert bool(caplog.messages) == is_allowed == (outcome.error is None)
    assert len(server.heads) == 1 + is_allowed
    if outcome.error:
        assert outcome.error.detail.endswith('words"), and the wait would be 901 s')
        assert outcome.error.resolution == errors.ERROR_MAPPING[429, Speaker.VENDOR]
        assert outcome.error.status == 429


def test_longest_time(connect: Connect, server: Answers, time: Time) -> None:
    """All waits for limits together take an hour at most, whoever else they hold up."""
    server.will_send(truto(429, lines="Retry-After: 900\r\n"))
    outcome = fetch(connect(), request(None), time)
    assert outcome.seconds == [900] * 4
    # One wait alone would be allowed, so other requests may still succeed.
    assert outcome.failure.resolution.scope is Scope.ACCOUNT
    assert outcome.failure.detail.endswith('wrong"), and the wait would be 900 s')


def test_waits_for_memory(
    connect: Connect, server: Answers, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that a slow destination holds a request up does not count."""
    waited = iter([100.0, 1_000.0] + [1_000.0] * 20)
    monkeypatch.setattr(transport.MemoryBudget, "waited", lambda: next(waited))
    server.will_send(truto(429, lines="Retry-After: 900\r\n"))
    outcome = fetch(connect(), request(), time)
    assert outcome.seconds == [900] * 5


def test_wait_of_another(connect: Connect, server: Answers, time: Time) -> None:
    """A wait that this request did not cause has a message of its own, and ends the sync."""
    client = connect()
    server.will_send(truto(429, lines="Retry-After: 2000\r\n"))
    assert fetch(client, request(), time).failure.resolution.scope is Scope.ACCOUNT
    cause = fetch(client, request(TWO), time).failure
    assert cause.resolution.scope is Scope.SYNC
    assert cause.detail.endswith('wrong"), and the wait would be 2,000 s')
    other = fetch(client, request(THREE), time).failure
    assert other.resolution.scope is Scope.SYNC
    assert other.resolution.error_message == errors.MAX_WAIT_EXCEEDED.error_message
    assert other.detail == " (2,000 s for Truto's limit)"
    assert len(server.heads) == 2


def test_vendor_beside_truto(connect: Connect, server: Answers, time: Time) -> None:
    """A vendor's 429 does not explain a wait for Truto's limit, and neither does an error."""
    client = connect()
    server.will_send(vendor(429, "Retry-After: 1\r\n"))
    limited = client.fetch(request())
    next(limited)
    server.will_send(vendor(500))
    failing = client.fetch(request(TWO))
    next(failing)
    server.will_send(truto(429, lines="Retry-After: 2000\r\n"))
    fetch(client, request(None), time)
    time.now += 10
    for waiting in (limited, failing):
        with pytest.raises(ReadError) as caught:
            next(waiting)
        assert caught.value.detail == " (1,990 s for Truto's limit)"
        assert caught.value.resolution.scope is Scope.SYNC


def test_vendor_explains(connect: Connect, server: Answers, time: Time) -> None:
    """A vendor's 429 explains the wait of its own account."""
    server.will_send(vendor(429, "Retry-After: 500\r\n"))
    outcome = fetch(connect(RetryPolicy(300.0, 900.0, 800.0)), request(), time)
    assert outcome.seconds == [500]
    assert outcome.failure.detail.endswith('words"), and the wait would be 500 s')


def test_announced_limit(connect: Connect, server: Answers, time: Time) -> None:
    """A budget that a good response announces as used up holds up the next request."""
    client = connect()
    server.will_send((*GOOD, "ratelimit-remaining: 0\r\nratelimit-reset: 7\r\n"), GOOD)
    assert fetch(client, request(), time).delays == []
    outcome = fetch(client, request(), time)
    assert outcome.delays == [Delay(7, "the vendor's announced limit", ONE)]


def test_forgotten_account(connect: Connect, server: Answers, time: Time) -> None:
    """What is known of an account that was read completely is dropped."""
    client = connect()
    server.will_send((*GOOD, "ratelimit-remaining: 0\r\nratelimit-reset: 7\r\n"), GOOD)
    fetch(client, request(), time)
    client.discard(ONE)
    assert fetch(client, request(), time).delays == []


def test_requests_end(connect: Connect, time: Time) -> None:
    """A request counts for ten seconds after its response, and no longer."""
    client = connect()
    for _ in range(48):
        assert fetch(client, request(), time).delays == []
    assert fetch(client, request(), time).delays == [
        Delay(10, "Truto's limit for the account", ONE)
    ]
    assert fetch(client, request(TWO), time).delays == []


def test_blame_one_account(connect: Connect, server: Answers, time: Time) -> None:
    """A 403 concerns its account alone if the last good request succeeds once more."""
    client = connect()
    fetch(client, request(TWO, params={"a": "b"}), time)
    server.will_send(truto(403), GOOD)
    failure = fetch(client, request(), time).failure
    assert failure.resolution == errors.ACCOUNT_FORBIDDEN
    assert server.asked == ["/some/path?a=b", "/some/path", "/some/path?a=b"]
    assert failure.account_id == ONE


@pytest.mark.parametrize(
    ("second", "scope", "detail"),
    [
        (vendor(401), Scope.ACCOUNT, ""),
        (truto(403), Scope.SYNC, ""),
        (vendor(500), Scope.ACCOUNT, ""),
        (truto(500), Scope.SYNC, ""),
        (truto(429), Scope.ACCOUNT, ""),
        ((502, "<html>"), Scope.SYNC, ""),
    ],
)
def test_evidence(
    connect: Connect, server: Answers, time: Time, second: Any, scope: Scope, detail: str
) -> None:
    """Any answer that shows that others get through to Truto is evidence."""
    client = connect()
    fetch(client, request(TWO), time)
    server.will_send(truto(403), second)
    failure = fetch(client, request(), time).failure
    assert failure.resolution.scope is scope
    assert failure.detail == f' (HTTP 403; Truto reported: "Something is wrong"){detail}'


def test_second_evidence(connect: Connect, server: Answers, time: Time) -> None:
    """Evidence that fails for a reason of its own is none; then another account is asked."""
    client = connect(RetryPolicy(0.5, 900.0, 3600.0))
    for account_id in (TWO, THREE, "another"):
        fetch(client, request(account_id, params={"of": account_id}), time)
    server.will_send(
        truto(503), (200, "<html>"), GOOD, truto(403), (502, "<html>"), (502, "<html>")
    )
    assert fetch(client, request(), time).failure.resolution is errors.BLOCKED
    assert server.asked[-2:] == ["/some/path?of=another", f"/some/path?of={THREE}"]
    failure = fetch(client, request(), time).failure
    assert failure.resolution.scope is Scope.SYNC
    assert len(server.heads) == 3 + 6


def test_evidence_waits(connect: Connect, server: Answers, time: Time) -> None:
    """The request that is repeated as evidence keeps to the limits of its account."""
    client = connect()
    server.will_send((*GOOD, "ratelimit-remaining: 0\r\nratelimit-reset: 7\r\n"), truto(403), GOOD)
    fetch(client, request(TWO), time)
    outcome = fetch(client, request(), time)
    assert outcome.delays == [Delay(7, "the vendor's announced limit", TWO)]
    assert outcome.failure.resolution.scope is Scope.ACCOUNT


@pytest.mark.parametrize(
    ("policy", "reset", "waits"),
    [(READ_POLICY, 10, [10]), (READ_POLICY, 11, []), (CHECK_POLICY, 1, [])],
)
def test_evidence_in_time(
    connect: Connect,
    server: Answers,
    time: Time,
    policy: RetryPolicy,
    reset: int,
    waits: Sequence[float],
) -> None:
    """If the evidence would take long, the account's earlier success is evidence enough."""
    client = connect(policy)
    budget = f"ratelimit-remaining: 0\r\nratelimit-reset: {reset}\r\n"
    server.will_send((*GOOD, budget), truto(403), GOOD)
    fetch(client, request(TWO), time)
    outcome = fetch(client, request(), time)
    assert outcome.seconds == waits
    assert outcome.failure.resolution is errors.ACCOUNT_FORBIDDEN
    assert len(server.heads) == 2 + len(waits)


@pytest.mark.parametrize(
    ("succeeded", "row"),
    [
        ([(TWO, "unified/x")], errors.ACCOUNT_FORBIDDEN),
        ([(TWO, "unified/x"), (ONE, "unified/x")], errors.ACCOUNT_FORBIDDEN),
        ([(TWO, "unified/x"), (ONE, "unified/x"), (TWO, "object/2")], errors.ACCOUNT_FORBIDDEN),
        ([(ONE, "unified/x")], errors.MAYBE_FORBIDDEN),
        ([(ONE, "object/1"), (TWO, "object/2")], errors.MAYBE_FORBIDDEN),
        ([(None, "object")], errors.MAYBE_FORBIDDEN),
    ],
)
def test_what_the_token_may_read(
    connect: Connect,
    server: Answers,
    time: Time,
    succeeded: Sequence[tuple[str | None, str]],
    row: Resolution,
) -> None:
    """Only segments of another account show that the token may use the unified API."""
    client = connect()
    for account_id, path in succeeded:
        fetch(client, request(account_id, path), time)
    server.will_send(truto(403), GOOD)
    assert fetch(client, request(path="unified/y"), time).failure.resolution is row
    if (TWO, "unified/x") in succeeded:
        assert server.asked[-1] == "/unified/x"


def test_refused_object(connect: Connect, server: Answers, time: Time) -> None:
    """An account whose segments can be read shows that the token may not read its object."""
    client = connect()
    fetch(client, request(ONE, "unified/x"), time)
    server.will_send(truto(403), GOOD)
    failure = fetch(client, request(ONE, "object/1"), time).failure
    assert failure.resolution is errors.ACCOUNT_FORBIDDEN


def test_no_evidence(connect: Connect, server: Answers, time: Time) -> None:
    """Without any success before, a 403 concerns the token; no second request is sent."""
    server.will_send(truto(403))
    failure = fetch(connect(), request(), time).failure
    assert failure.resolution == errors.FORBIDDEN
    assert len(server.heads) == 1


def test_list_needs_no_evidence(connect: Connect, server: Answers, time: Time) -> None:
    """A failure of the list of accounts is its own, whatever succeeds beside it."""
    client = connect()
    fetch(client, request(), time)
    server.will_send(truto(403), GOOD)
    assert fetch(client, request(None), time).failure.resolution == errors.FORBIDDEN
    assert len(server.heads) == 2


def test_own_error(connect: Connect, server: Answers, time: Time) -> None:
    """What the vendor says of an account needs no evidence."""
    client = connect()
    fetch(client, request(TWO), time)
    server.will_send(vendor(401), GOOD)
    failure = fetch(client, request(), time).failure
    assert failure.resolution == errors.ERROR_MAPPING[401, Speaker.VENDOR]
    assert len(server.heads) == 2


def test_nothing_gets_through(connect: Connect, server: Answers, time: Time) -> None:
    """If the last good request fails now as well, the failure concerns the sync, and says so."""
    client = connect(RetryPolicy(2.0, 900.0, 3600.0))
    fetch(client, request(TWO), time)
    server.will_send((502, "<html>"))
    failure = fetch(client, request(), time).failure
    assert failure.resolution.scope is Scope.SYNC
    assert failure.resolution.error_message == errors.GATEWAY_ANSWERED.error_message
    assert failure.detail.endswith(", 2 times in 1 s; nothing else got through")


def test_one_gets_not_through(connect: Connect, server: Answers, time: Time) -> None:
    """If others get through, a gateway's answer is the failure of one account."""
    client = connect(RetryPolicy(2.0, 900.0, 3600.0))
    fetch(client, request(TWO), time)
    server.will_send((502, "<html>"), (502, "<html>"), GOOD)
    failure = fetch(client, request(), time).failure
    assert failure.resolution == errors.GATEWAY_ANSWERED
    assert failure.detail.endswith(", 2 times in 1 s")


def test_outage(connect: Connect, server: Answers, time: Time) -> None:
    """While nothing gets through, one request probes and the others wait for it."""
    client = connect()
    server.will_send((0, ""))
    first, second, third = (client.fetch(request(name)) for name in (ONE, TWO, THREE))
    assert not next(first).is_rate_limit
    held_up = Delay(1, "Truto to be reachable again", for_token=True, is_rate_limit=False)
    assert next(second) == held_up
    assert len(server.heads) == 1
    server.will_send(GOOD)
    time.now += 1
    with pytest.raises(StopIteration):
        next(second)
    with pytest.raises(StopIteration):
        next(third)


def test_probe_at_its_limit(connect: Connect, server: Answers, time: Time) -> None:
    """A probe whose account has to wait for a limit leaves its turn to another."""
    client = connect()
    server.will_send(vendor(429, "Retry-After: 100\r\n"))
    limited = client.fetch(request())
    next(limited)
    server.will_send((0, ""))
    next(client.fetch(request(TWO)))
    time.now += 1
    assert next(limited) == Delay(99, "the vendor's limit", ONE)
    server.will_send(GOOD)
    with pytest.raises(StopIteration):
        next(client.fetch(request(THREE)))


def test_defect_in_a_probe(connect: Connect, server: Answers, time: Time) -> None:
    """A probe that ends with an exception leaves its turn to another request."""
    client = connect()
    server.will_send((0, ""), GOOD)
    first = client.fetch(request())
    next(first)

    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    time.now += 1
    with pytest.raises(ZeroDivisionError):
        next(client.fetch(replace(request(TWO), parse=fail)))
    with pytest.raises(StopIteration):
        next(first)


@pytest.mark.parametrize(
    ("answer", "is_verified"),
    [
        (vendor(401), True),
        (truto(404), True),
        (truto(403), False),
        (truto(401), False),
        (vendor(500), True),
        ((502, "<html>"), True),
        ((0, ""), True),
    ],
)
def test_verified_token(connect: Connect, server: Answers, answer: Any, is_verified: bool) -> None:
    """The others begin once a response does not blame the token, or none says anything of it."""
    verified: list[None] = []
    client = connect(CHECK_POLICY, token_verified=lambda: verified.append(None))
    server.will_send(answer)
    attempt = client.fetch(request())
    with suppress(ReadError):
        next(attempt)
    assert bool(verified) == is_verified
    assert not client.has_succeeded


def test_may_hear(connect: Connect, time: Time) -> None:
    """Nothing can come any more once the last request was sent more than five minutes ago."""
    client = connect()
    time.now += 300
    assert client.may_hear
    time.now += 1
    assert not client.may_hear
    fetch(client, request(), time)
    assert client.may_hear


@pytest.mark.parametrize(
    ("answer", "row", "detail"),
    [
        ((200, []), errors.MALFORMED, " (HTTP 200; the response is not a JSON object)"),
        ((299, "<p>Hello</p>"), errors.GATEWAY_ANSWERED, ""),
        ((300, {}), errors.REDIRECTED, " (HTTP 300)"),
        (
            (404, "<p>Hello</p>"),
            errors.GATEWAY_ANSWERED,
            ' (HTTP 404; a gateway, firewall or proxy reported: "<p>Hello</p>")',
        ),
    ],
)
def test_odd_answers(
    connect: Connect, server: Answers, time: Time, answer: Any, row: Any, detail: str
) -> None:
    """A response that Truto cannot have sent is a gateway's, and is quoted."""
    server.will_send(answer)
    failure = fetch(connect(RetryPolicy(0.0, 1.0, 1.0)), request(), time).failure
    assert failure.resolution.error_message == row.error_message
    assert failure.detail.startswith(detail)


def test_no_quotes(connect: Connect, server: Answers, time: Time) -> None:
    """A host that is not Truto's is not quoted, except for what has Truto's form."""
    client = connect(RetryPolicy(0.0, 1.0, 1.0), quotes=False)
    for answer in [(404, "<p>Secret</p>"), (200, "Secret"), (200, ["Secret"])]:
        server.will_send(answer)
        assert "ecret" not in str(fetch(client, request(), time).failure)
        time.now += 100
    server.will_send((200, ["Secret"]))
    assert fetch(client, request(), time).failure.detail.startswith(
        " (HTTP 200; the response is not a JSON object)"
    )
    server.will_send((200, "Secret"))
    assert fetch(client, request(), time).failure.detail.startswith(
        " (HTTP 200; the response is not JSON)"
    )
    server.will_send(truto(404, "No such account"))
    assert "No such account" in str(fetch(client, request(), time).failure)


def test_lost_connection(connect: Connect, server: Answers, time: Time) -> None:
    """The message of a lost connection has the host, and what the network reported."""
    server.will_send((0, ""))
    failure = fetch(connect(RetryPolicy(0.0, 1.0, 1.0)), request(), time).failure
    host = server.url.partition("//")[2]
    assert failure.detail == (
        f" ({host}: Remote end closed connection without response); nothing else got through"
    )
    assert failure.failure_type is FailureType.transient_error


def test_refused_address(time: Time) -> None:
    """An address that this machine refuses is an error of the configuration."""
    client = TrutoClient("gopher://truto", TOKEN, READ_POLICY, time, **OPTIONS)
    failure = fetch(client, request(), time).failure
    assert str(failure) == (
        "Reading account-1 failed: this machine does not allow the address (No connection adapters "
        "were found for 'gopher://truto/some/path'). Check api_url in the source's configuration, "
        "and the proxy settings of the machine."
    )
    assert failure.failure_type is FailureType.config_error
    assert failure.resolution.scope is Scope.SYNC
    assert failure.resolution.response_action is ResponseAction.FAIL
    assert failure.account_id == ONE


def test_filtered_address(connect: Connect, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence of Airbyte Cloud's filter, which replaces `Session.send`, is quoted once."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AirbyteTracedException(message="Private addresses are not allowed.")

    client = connect()
    monkeypatch.setattr(requests.Session, "send", refuse)
    failure = fetch(client, request(), time).failure
    assert failure.detail == " (Private addresses are not allowed)"


def test_proxy(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be reached is reported with the variable that sets it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    policy = RetryPolicy(0.0, 1.0, 1.0)
    failure = fetch(
        TrutoClient("https://truto.invalid", TOKEN, policy, time, **OPTIONS), request(), time
    ).failure
    assert failure.resolution.error_message == errors.PROXY_ERROR.error_message
    assert "(HTTPS_PROXY)" in failure.guidance


def test_settings_in_guidance(connect: Connect, server: Answers, time: Time) -> None:
    """The advice of a message names the settings that the request had."""
    server.will_send(vendor(400))
    failure = fetch(connect(), request(params={"tags[id]": "x"}), time).failure
    assert failure.guidance.startswith("Check tag_id in the source's configuration")


def test_cursor_of_its_own(connect: Connect, server: Answers, time: Time) -> None:
    """A 400 for a page with a cursor is about the cursor; for the list of accounts, about it."""
    client = connect()
    server.will_send(vendor(400))
    failure = fetch(client, request(cursor="x"), time).failure
    assert failure.resolution == errors.CURSOR_REJECTED
    server.will_send(truto(422))
    failure = fetch(client, request(None), time).failure
    assert failure.resolution.error_message == errors.ACCOUNT_LIST_REJECTED.error_message


def test_logged_responses(connect: Connect, time: Time, caplog: Any) -> None:
    """The debug log has each response with its path and account, but no parameters."""
    caplog.set_level(logging.DEBUG, "airbyte")
    client = connect()
    fetch(client, request(params={"a": "b"}), time)
    fetch(client, request(None), time)
    assert [record.message for record in caplog.records if record.name == "airbyte"] == [
        "GET some/path of account account-1: HTTP 200",
        "GET some/path of account none: HTTP 200",
    ]


@pytest.mark.parametrize(
    ("location", "detail"),
    [
        (
            "https://user:pw@Login.Example:8443/path?token=x",
            " (HTTP 302; redirected to login.example)",
        ),
        ("/login?token=x", " (HTTP 302)"),
        ("http://[", " (HTTP 302)"),
    ],
)
def test_host_of_redirect(
    connect: Connect, server: Answers, time: Time, location: str, detail: str
) -> None:
    """The message of a redirect has its host, but no user, path or query."""
    server.will_send((302, {}, f"Location: {location}\r\n"))
    failure = fetch(connect(), request(), time).failure
    assert failure.detail == detail
    assert failure.guidance.endswith(
        "whoever runs the network of the machine that runs the sync must let it reach Truto's API."
    )


@pytest.mark.parametrize("first", [None, GOOD, vendor(400), (503, "<p>Hello</p>")])
def test_timeout(
    connect: Connect, server: Answers, time: Time, monkeypatch: pytest.MonkeyPatch, first: Any
) -> None:
    """Only if nothing has got through yet, a timeout's advice is about the network."""
    client = connect(RetryPolicy(0.0, 1.0, 1.0))
    if first is not None:
        server.will_send(first)
        fetch(client, request(TWO), time)
        time.now += 100
    monkeypatch.setattr(requests.Session, "send", Mock(side_effect=requests.ReadTimeout))
    failure = fetch(client, request(), time).failure
    assert failure.resolution.error_message == "the request timed out"
    has_reached = first in (GOOD, vendor(400))
    assert ("a firewall or proxy may drop the connection" in failure.guidance) is not has_reached
    assert client.awaits_first_response is not has_reached


def test_cookies_and_redirects(connect: Connect, server: Answers, time: Time) -> None:
    """No cookie is sent back, and no redirect is followed or even parsed."""
    client = connect(RetryPolicy(0.0, 1.0, 1.0))
    server.will_send((*GOOD, "Set-Cookie: a=b\r\n"), (302, "", "Location: http://[\r\n"))
    fetch(client, request(), time)
    fetch(client, request(TWO), time)
    assert not any("cookie" in head.lower() for head in server.heads)
    assert server.asked == ["/some/path"] * 3


def test_head_that_is_not_valid(connect: Connect, server: Answers, time: Time) -> None:
    """A line in the head that is no header makes a response malformed."""
    server.will_send((*GOOD, "no header\r\n"))
    failure = fetch(connect(RetryPolicy(0.0, 1.0, 1.0)), request(), time).failure
    assert failure.resolution.error_message == errors.MALFORMED.error_message


def test_lifetime(connect: Connect, server: Answers, time: Time) -> None:
    """No exchange outlasts the time that all requests have together."""
    server.will_send((-1, ""))
    client = connect(RetryPolicy(0.0, 1.0, 1.0, lifetime=0.2))
    failure = fetch(client, request(), time).failure
    assert failure.resolution.error_message == errors.TIMED_OUT.error_message
