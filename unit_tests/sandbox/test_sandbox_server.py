from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from sandbox import DEFAULT_TOKEN, Account, Environment, Sandbox, faults

if TYPE_CHECKING:
    from unit_tests.sandbox.conftest import Client, Serve


def query_of(client: Client, query: str) -> list[tuple[str, str]]:
    url = f"{client.sandbox.url}/x?{query}"
    client.session.get(url, timeout=5)
    return client.sandbox.requests[-1].query


# --- the log --------------------------------------------------------------------------------------


def test_log(serve: Serve) -> None:
    """The log describes a request with its parameters, headers and status."""
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


def test_kinds_in_log(serve: Serve) -> None:
    """The log has the kind of each request, and its account."""
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
def test_escaped_query(serve: Serve, query: str, expected: list[tuple[str, str]]) -> None:
    """The log has the query decoded exactly once."""
    assert query_of(serve(), query) == expected


# --- time -----------------------------------------------------------------------------------------


def test_latency(serve: Serve) -> None:
    """Responses take the latency; Truto's own errors do not."""
    client = serve(Account("a", "klaviyo"), latency=0.1)
    assert client.segments().elapsed.total_seconds() >= 0.1
    assert client.accounts().elapsed.total_seconds() >= 0.1
    client.sandbox.environment.latency = 4.0
    assert client.get(client.ACCOUNTS, token="wrong").elapsed.total_seconds() < 4
    assert client.segments("unknown").elapsed.total_seconds() < 4


# --- starting and stopping ------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faults.hang(), faults.drip(60), faults.delay(60)])
def test_stop_with_pending_response(
    fault: faults.Fault,
) -> None:
    """The sandbox stops without waiting for a pending response."""
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
