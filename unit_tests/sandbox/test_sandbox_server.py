from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests

from sandbox import DEFAULT_TOKEN, Account, Environment, Sandbox, faults

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Client, Serve


def query_of(client: Client, query: str) -> list[tuple[str, str]]:
    url = f"{client.sandbox.url}/x?{query}"
    client.session.get(url, timeout=5)
    return client.sandbox.requests[-1].query


def raw_exchange(client: Client, target: str) -> bytes:
    address = urlsplit(client.sandbox.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=5) as connection:
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        received = b""
        while chunk := connection.recv(4_096):
            received += chunk
        return received


# --- the log --------------------------------------------------------------------------------------


def test_given_a_request_then_the_log_describes_it(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo"))
    before = time.monotonic()
    client.segments(params={"limit": 5, "truto_exclude_fields[]": ["x", "y"]})
    (request,) = client.sandbox.requests
    assert request.method == "GET"
    assert request.path == client.SEGMENTS
    assert request.kind == "segments"
    assert request.account_id == "a"
    assert request.status == 200
    assert before <= request.at <= time.monotonic()
    assert request.headers["authorization"] == f"Bearer {DEFAULT_TOKEN}"
    assert request.headers["AUTHORIZATION"] == f"Bearer {DEFAULT_TOKEN}"
    assert request.param("limit") == "5"
    assert request.param("nothing") is None
    assert request.params("truto_exclude_fields[]") == ["x", "y"]
    assert request.params("nothing") == []


def test_given_each_endpoint_then_the_log_names_its_kind(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo"))
    client.segments()
    client.workspaces()
    client.accounts()
    client.get("/integrated-account/a")
    client.meta()
    client.get("/unknown")
    seen = [(request.kind, request.account_id) for request in client.sandbox.requests]
    assert seen == [
        ("segments", "a"),
        ("workspaces", "a"),
        ("accounts", None),
        ("account", "a"),
        ("meta", "a"),
        ("other", None),
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a=1&a=2&b=", [("a", "1"), ("a", "2"), ("b", "")]),
        ("c=%2B+%26%3D%25", [("c", "+ &=%")]),
        ("tags[id]=x&tags%5Bid%5D=y", [("tags[id]", "x"), ("tags[id]", "y")]),
        ("c=%C3%A9%E6%BC%A2", [("c", "é漢")]),
        ("c=%252B", [("c", "%2B")]),
        ("c=a%2Fb/c;d", [("c", "a/b/c;d")]),
    ],
)
def test_given_an_escaped_query_then_the_log_has_it_decoded_once(
    serve: Serve, query: str, expected: list[tuple[str, str]]
) -> None:
    assert query_of(serve(), query) == expected


def test_given_a_query_that_is_sent_raw_then_it_is_decoded_as_sent(
    serve: Serve,
) -> None:
    client = serve()
    raw_exchange(client, "/x?c=a+b%2Bc%2")
    assert client.sandbox.requests[0].query == [("c", "a b+c%2")]


def test_given_the_log_is_cleared_then_it_is_empty_and_goes_on(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo"))
    client.segments()
    client.sandbox.clear()
    assert client.sandbox.requests == []
    client.accounts()
    assert [request.kind for request in client.sandbox.requests] == ["accounts"]


def test_given_the_log_is_cleared_while_a_request_waits_then_its_response_is_not_logged(
    serve: Serve,
) -> None:
    client = serve(Account("a", "klaviyo"), latency=0.1)
    with ThreadPoolExecutor() as pool:
        response = pool.submit(client.segments)
        while not client.sandbox.requests:
            time.sleep(0.001)
        assert client.sandbox.requests[0].status is None
        client.sandbox.clear()
        assert response.result().status_code == 200
    assert client.sandbox.requests == []


def test_given_many_threads_then_the_log_has_every_request_in_order(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo"))
    snapshots: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            log = client.sandbox.requests
            assert [r.at for r in log] == sorted(r.at for r in log)
            snapshots.append(len(log))
            time.sleep(0.002)

    def ask(number: int) -> None:
        params = {"integrated_account_id": "a", "n": str(number)}
        headers = {"Authorization": f"Bearer {DEFAULT_TOKEN}"}
        url = client.sandbox.url + client.SEGMENTS
        assert requests.get(url, params=params, headers=headers, timeout=5).status_code == 200

    with ThreadPoolExecutor(9) as pool:
        watching = pool.submit(watch)
        list(pool.map(ask, range(60)))
        done.set()
        watching.result()
    log = client.sandbox.requests
    assert {request.param("n") for request in log} == {str(number) for number in range(60)}
    assert {request.status for request in log} == {200}
    assert snapshots == sorted(snapshots)


# --- time -----------------------------------------------------------------------------------------


def test_given_latency_then_responses_take_it_and_trutos_own_errors_do_not(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo"), latency=0.1)
    assert client.segments().elapsed.total_seconds() >= 0.1
    assert client.accounts().elapsed.total_seconds() >= 0.1
    client.sandbox.environment.latency = 4.0
    assert client.get(client.ACCOUNTS, token="wrong").elapsed.total_seconds() < 4
    assert client.segments("unknown").elapsed.total_seconds() < 4


def test_given_latency_of_an_account_then_it_wins_over_the_environments(serve: Serve) -> None:
    client = serve(
        Account("a", "klaviyo", latency=0.0), Account("b", "klaviyo", latency=0.1), latency=4.0
    )
    assert client.segments("a").elapsed.total_seconds() < 4
    assert 0.1 <= client.segments("b").elapsed.total_seconds() < 4


def test_given_latency_then_many_requests_wait_side_by_side(serve: Serve) -> None:
    client = serve(Account("a", "klaviyo", latency=0.3))
    started = time.perf_counter()
    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(lambda _: ask(client), range(20)))
    assert set(responses) == {200}
    assert time.perf_counter() - started < 4


def ask(client: Client) -> int:
    url = f"{client.sandbox.url}{client.SEGMENTS}?integrated_account_id=a"
    headers = {"Authorization": f"Bearer {DEFAULT_TOKEN}"}
    return requests.get(url, headers=headers, timeout=5).status_code


# --- starting and stopping ------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faults.hang(), faults.drip(60), faults.delay(60)])
def test_given_a_pending_response_then_stopping_does_not_wait(
    fault: faults.Fault,
) -> None:
    environment = Environment([Account("a", "klaviyo", [{"id": "1"}])], faults=[fault])
    with ThreadPoolExecutor() as pool:
        with Sandbox(environment) as sandbox:
            url = f"{sandbox.url}/unified/marketing-automation/segments?integrated_account_id=a"
            response = pool.submit(requests.get, url, timeout=10)
            while not sandbox.requests:
                time.sleep(0.001)
            started = time.perf_counter()
        assert time.perf_counter() - started < 3
        assert isinstance(response.exception(), requests.RequestException)


def test_given_a_client_that_does_not_read_then_stopping_does_not_wait() -> None:
    environment = Environment(faults=[faults.body(b"x" * 16_000_000)])
    with Sandbox(environment) as sandbox:
        address = urlsplit(sandbox.url)
        connection = socket.create_connection((address.hostname, address.port or 0), timeout=5)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(16)
        started = time.perf_counter()
    assert time.perf_counter() - started < 3
    connection.close()


def test_given_a_stopped_sandbox_then_nothing_listens_and_it_can_start_again() -> None:
    sandbox = Sandbox(Environment())
    with sandbox:
        url = sandbox.url
        assert requests.get(url, timeout=5).status_code == 401
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)
    sandbox.stop()
    with sandbox:
        assert sandbox.url == url
        assert requests.get(url, timeout=5).status_code == 401


def test_given_a_port_in_use_then_starting_raises_an_error() -> None:
    with Sandbox(Environment()) as first:
        port = urlsplit(first.url).port or 0
        second = Sandbox(Environment(), port=port)
        with pytest.raises(OSError, match="address already in use"):
            second.start()


def test_given_two_sandboxes_then_each_serves_its_own_environment(serve: Serve) -> None:
    first, second = serve(Account("a", "klaviyo")), serve(Account("b", "klaviyo"))
    assert first.segments("a").status_code == second.segments("b").status_code == 200
    assert first.segments("b").status_code == second.segments("a").status_code == 404


def test_given_a_very_long_url_then_it_is_read(serve: Serve) -> None:
    response = serve(Account("a", "klaviyo")).segments(params={"next_cursor": "漢" * 10_000})
    assert response.status_code == 400
