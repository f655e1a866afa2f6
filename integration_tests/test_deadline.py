"""Every exchange ends: whatever a server sends, and however slowly, its time is limited."""

import gzip
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from airbyte_cdk.models import Status
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from integration_tests.support import (
    FakeClock,
    Serve,
    account,
    catalog,
    check,
    config,
    numbered_account,
    read,
    read_in_real_time,
)
from sandbox import Environment, Sandbox, faults
from source_truto_segments import source, streams
from source_truto_segments.sync import sync
from source_truto_segments.truto import transport
from source_truto_segments.truto.client import CHECK_POLICY
from source_truto_segments.truto.responses import Page, parse_page

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = OK + b"Content-Encoding: gzip\r\n\r\n"
DEFLATE = OK + b"Content-Encoding: deflate\r\n\r\n"
ENDLESS = {
    "status line": (b"HTTP/1.1 200 ", b" "),
    "header": (OK + b"X: ", b"y"),
    "headers": (OK, b"X: y\r\n"),
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "header of a 100": (b"HTTP/1.1 100 Continue\r\nX: ", b"y"),
    "103": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body": (OK + b"\r\n", b" "),
    "length": (OK + b"Content-Length: 9999\r\n\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "chunk's length": (CHUNKED, b"0"),
    "chunk's extension": (CHUNKED + b"1;", b"x"),
    "trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"y"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    # With flag 8, the name of the file follows, up to the next NUL.
    "name in gzip": (GZIP + b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", b"a"),
    "members of gzip": (GZIP, gzip.compress(b"")),
    "empty blocks": (DEFLATE + b"\x78\x9c", b"\0\0\0\xff\xff"),
}


@pytest.mark.parametrize("place", ENDLESS)
def test_endless(serve: Serve, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """A response is abandoned and requested again, whichever part of it never ends."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.2)
    begin, more = ENDLESS[place]
    sandbox = serve(numbered_account(0, faults=[faults.endless(begin, more)]))
    began = time.monotonic()

    result = read(sandbox)

    assert time.monotonic() - began < 5
    assert len(result.records) == 3
    assert [request.status for request in sandbox.requests] == [None, 200]


@pytest.mark.parametrize("command", ["check", "discover"])
def test_endless_check(serve: Serve, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Check and discover abandon an exchange when their own time is up."""
    policy = replace(CHECK_POLICY, lifetime=0.3)
    monkeypatch.setattr(source, "CHECK_POLICY", policy)
    sandbox = serve(account(), faults=[faults.endless(OK, b"X: y\r\n", 0.05, times=None)])
    began = time.monotonic()

    if command == "check":
        _, message = check(sandbox)
    else:
        message = failure_of_discover(sandbox)

    assert "the request timed out" in str(message)
    assert time.monotonic() - began < 5


def failure_of_discover(sandbox: Sandbox) -> str:
    connector = source.SourceTrutoSegments(FakeClock())
    with pytest.raises(AirbyteTracedException) as failure:
        connector.discover(logging.getLogger("airbyte.test"), config(sandbox))
    return str(failure.value)


def listen(backlog: int = 5) -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(backlog)
    return listener


@contextmanager
def no_connection() -> Iterator[str]:
    """Yield the URL of a port that completes no connection, because its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(listen(0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def no_handshake() -> Iterator[str]:
    """Yield the URL of a port that answers a TLS handshake byte by byte."""
    stopped = threading.Event()
    with listen() as listener:

        def drip() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as client, suppress(ConnectionError):
                        client.sendall(b"\x16\x03\x03\x40\x00")
                        while not stopped.wait(0.02):
                            client.sendall(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("port", [no_connection, no_handshake])
def test_endless_connection(monkeypatch: pytest.MonkeyPatch, port: Any) -> None:
    """The time limit of an exchange includes the connection and its handshake."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.1)
    began = time.monotonic()

    with port() as url:
        status, message = check(Sandbox(Environment()), api_url=url)

    assert status is Status.FAILED
    assert "the request timed out" in str(message)
    assert time.monotonic() - began < 5


def test_endless_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of an exchange includes looking up the host's name."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.1)
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        released.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    _, message = check(Sandbox(Environment()), api_url="https://truto.example")
    released.set()

    assert "the request timed out" in str(message)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_bomb(serve: Serve, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """A body that inflates to a hundred times the limit is not inflated beyond it."""
    monkeypatch.setattr(transport, "MAX_RESPONSE_BYTES", 500_000)
    body = b" " * 50_000_000
    for _ in range(times):
        body = gzip.compress(body, 1)
    encoding = {"Content-Encoding": ", ".join(["gzip"] * times)}
    sandbox = serve(account(faults=[faults.body(body, headers=encoding)]))
    tracemalloc.start()

    result = read(sandbox)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "the response is too large" in str(result.failure)
    assert peak < 15_000_000


def test_heartbeat(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that can receive nothing more stops telling Airbyte that it is alive."""
    monkeypatch.setattr(transport, "RESPONSE_TIMEOUT", 0.5)
    monkeypatch.setattr(sync, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(sync, "_TICK", 0.05)

    def parse_slowly(content: bytes) -> Page:
        time.sleep(1.5)
        return parse_page(content)

    monkeypatch.setattr(streams, "parse_page", parse_slowly)
    sandbox = serve(account(count=1))
    result = read_in_real_time(sandbox, configured=catalog("incremental"))

    # There is one each twentieth of a second in the first half second, one before the record, and
    # the last one.
    assert 2 < len(result.states) <= 12
    assert result.ids
