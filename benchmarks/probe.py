"""A client that does nothing with the pages it gets, over a bare socket."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

from benchmarks.processes import NotWholeError

_PROBED_PAGES = 1_000
_LENGTH = re.compile(rb"Content-Length: (\d+)\r\n")
_END_OF_HEAD = b"\r\n\r\n"
_MOST_AT_ONCE = 1 << 20


def pages_a_second(described: dict[str, Any]) -> float:
    """How many pages the server gives a client, one after another."""
    with _connection(described["url"]) as connection:
        request = _request(described)
        began = time.monotonic()
        for _ in range(_PROBED_PAGES):
            connection.sendall(request)
            _body(connection)
        return _PROBED_PAGES / (time.monotonic() - began)


def first_page(described: dict[str, Any]) -> bytes:
    """The body of the first page."""
    with _connection(described["url"]) as connection:
        connection.sendall(_request(described))
        return _body(connection)


def _connection(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)))


def _request(described: dict[str, Any]) -> bytes:
    path = "/unified/marketing-automation/segments"
    return (
        f"GET {path}?integrated_account_id={described['account']} HTTP/1.1\r\n"
        f"Host: localhost\r\nAuthorization: Bearer {described['token']}\r\n\r\n"
    ).encode()


def _body(connection: socket.socket) -> bytes:
    """The body of an answer that comes on a connection."""
    received = b""
    while _END_OF_HEAD not in received:
        received += connection.recv(_MOST_AT_ONCE)
    head, _, body = received.partition(_END_OF_HEAD)
    length = _LENGTH.search(head + b"\r\n")
    if length is None:
        raise NotWholeError(f"The server answered {head.decode(errors='replace')}.")
    while len(body) < int(length[1]):
        body += connection.recv(_MOST_AT_ONCE)
    return body
